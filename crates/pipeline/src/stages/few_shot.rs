//! Few-shot prompting: worked examples as earlier turns before every question.

use crate::recipe::ModelRef;
use crate::run::Context;
use aha_curate::{Candidate, CurateError, KEPT, read_rows};
use aha_engine::sampler::mix;
use aha_tasks::mini::Rng;
use aha_tasks::{Judgement, Problem, Split, Task, TaskError};
use serde_json::{Value, json};
use std::path::PathBuf;

/// The worked examples there are to choose from; none without few-shot prompting.
pub(crate) fn examples(context: &Context, source: Option<&ModelRef>) -> Result<Vec<Candidate>, CurateError> {
    let path = match source {
        None => return Ok(Vec::new()),
        Some(ModelRef::Stage(name)) => match context.dir.stage(name) {
            Ok(paths) => paths.root().join(KEPT),
            Err(_) => PathBuf::from(name),
        },
        Some(ModelRef::Path(path)) => PathBuf::from(path),
    };
    read_rows(&path)
}

/// A problem with worked examples as earlier turns: of its family and language where there are any, never of itself.
pub(crate) fn with_examples(problem: &Problem, examples: &[Candidate], count: usize, seed: u64) -> Problem {
    let mut shown = problem.clone();
    if examples.is_empty() {
        return shown;
    }
    let others = || examples.iter().filter(|e| e.problem.id != problem.id && e.problem.language == problem.language);
    let mut pool: Vec<&Candidate> = others().filter(|e| e.problem.family == problem.family).collect();
    if pool.len() < count {
        pool = others().collect();
    }
    Rng::new(seed, 0).shuffle(&mut pool);
    let turn = |role: &str, content: &str| json!({"role": role, "content": content});
    let turns = pool.into_iter().take(count);
    let mut history: Vec<Value> =
        turns.flat_map(|e| [turn("user", &e.problem.question), turn("assistant", &e.whole_text())]).collect();
    if let Some(Value::Array(own)) = problem.columns.get("history") {
        history.extend(own.iter().cloned());
    }
    shown.columns.insert("history".to_owned(), Value::Array(history));
    shown
}

/// A task whose questions come after worked examples.
pub(crate) struct FewShot {
    pub task: Box<dyn Task>,
    pub examples: Vec<Candidate>,
    pub count: usize,
    pub seed: u64,
}

impl Task for FewShot {
    fn name(&self) -> &str {
        self.task.name()
    }

    fn families(&self) -> Vec<String> {
        self.task.families()
    }

    fn len(&self, split: Split) -> Option<usize> {
        self.task.len(split)
    }

    fn problem(&self, split: Split, index: u64) -> Result<Problem, TaskError> {
        let problem = self.task.problem(split, index)?;
        Ok(with_examples(&problem, &self.examples, self.count, mix(self.seed ^ mix(index))))
    }

    fn judge(&self, problem: &Problem, completion: &str, finished: bool) -> Judgement {
        self.task.judge(problem, completion, finished)
    }

    fn prefilled_think(&self) -> bool {
        self.task.prefilled_think()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aha_tasks::{Language, PromptStyle, Reference, prompt::render_turns};
    use std::collections::HashSet;

    fn problem(id: &str, family: &str, language: Language) -> Problem {
        let columns = serde_json::Map::new();
        let question = format!("{id}?");
        Problem { id: id.into(), family: family.into(), language, question, reference: Reference::Integer(1), columns }
    }

    #[test]
    fn worked_examples_stand_before_the_question_and_are_never_the_problem_itself() {
        use Language::{Chinese, English};
        let example = |id: &str, family: &str, language| {
            Candidate::new(problem(id, family, language), format!("<think>{id}</think>1"), "zero", None, 0)
        };
        let examples = [
            example("a", "sum", English),
            example("b", "sum", English),
            example("c", "chain", English),
            example("d", "sum", Chinese),
        ];
        let shown = |of: &Problem, count, seed| {
            let shown = with_examples(of, &examples, count, seed);
            render_turns(PromptStyle::Mini, &aha_tasks::mini::history(&shown), &shown.question).expect("a base style")
        };
        let own = problem("a", "sum", English);
        assert_eq!(shown(&own, 1, 3), "User: b?\nAssistant:<think>b</think>1\nUser: a?\nAssistant:");
        // Too few of the family: any of the language.
        let two = shown(&own, 2, 3);
        assert!(two.contains("User: b?") && two.contains("User: c?") && !two.contains("d?"), "{two}");
        assert_eq!(two, shown(&own, 2, 3));
        assert_eq!(
            shown(&problem("x", "sum", Chinese), 1, 3),
            "User: d?\nAssistant:<think>d</think>1\nUser: x?\nAssistant:"
        );
        let seen: HashSet<String> = (0..20).map(|seed| shown(&problem("x", "sum", English), 1, seed)).collect();
        assert_eq!(seen.len(), 2);
        assert_eq!(with_examples(&own, &[], 2, 1), own);
    }
}
