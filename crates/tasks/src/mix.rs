//! Several tasks as one: `mix` gives each its share of the problems, in a fixed order that repeats.

use std::collections::HashSet;

use serde::Deserialize;

use crate::TaskError;
use crate::problem::{Answer, Judgement, Problem, Split, Task};

/// Name of the task.
pub const NAME: &str = "mix";
/// The column that says which part a problem is of.
pub const PART: &str = "part";
/// Problems after which the order of parts repeats.
const CYCLE: usize = 100;

/// One part, as a recipe says it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartOptions {
    /// The task.
    pub task: String,
    /// Its share of the problems; only proportions count.
    pub share: f64,
    /// Its options.
    #[serde(default)]
    pub task_options: crate::TaskOptions,
}

/// Several tasks.
pub struct Mix {
    parts: Vec<Box<dyn Task>>,
    /// The part of each problem of a cycle, and how many of the same part came before it in the cycle.
    cycle: Vec<(usize, u64)>,
    /// Problems of each part in a cycle.
    counts: Vec<u64>,
}

impl Mix {
    /// Puts tasks together.
    ///
    /// # Errors
    /// Fewer than two parts, a share that is no number above 0 or below one in a hundred, parts of which only some begin with the
    /// opening think tag.
    pub fn new(parts: Vec<(Box<dyn Task>, f64)>) -> Result<Self, TaskError> {
        let refuse = |problem: String| Err(TaskError::Option { task: NAME.to_owned(), problem });
        if parts.len() < 2 {
            return refuse("needs at least two parts; give parts = [{ task = ..., share = ... }, ...]".to_owned());
        }
        let whole: f64 = parts.iter().map(|(_, share)| share).sum();
        if let Some((task, share)) = parts.iter().find(|(_, s)| !(s.is_finite() && *s > 0.0 && s * 100.0 >= whole)) {
            let name = task.name();
            return refuse(format!("the share of {name} is {share}; it must be above 0 and at least one in a hundred"));
        }
        if parts.iter().any(|(task, _)| task.prefilled_think() != parts[0].0.prefilled_think()) {
            return refuse("either all parts have prefilled_think or none".to_owned());
        }
        let (parts, shares): (Vec<_>, Vec<f64>) = parts.into_iter().unzip();
        // Whoever is furthest behind its share comes next, so that every stretch of problems has the shares.
        let mut counts = vec![0u64; parts.len()];
        let mut cycle = Vec::with_capacity(CYCLE);
        for given in 1..=CYCLE {
            let behind = |p: usize| shares[p] / whole * given as f64 - counts[p] as f64;
            let next = (0..parts.len()).max_by(|a, b| behind(*a).total_cmp(&behind(*b)).then(b.cmp(a)));
            let next = next.expect("there are parts");
            cycle.push((next, counts[next]));
            counts[next] += 1;
        }
        Ok(Mix { parts, cycle, counts })
    }

    fn part(&self, problem: &Problem) -> Option<&dyn Task> {
        let part = problem.columns.get(PART)?.as_u64()?;
        self.parts.get(part as usize).map(|task| &**task)
    }
}

impl Task for Mix {
    fn name(&self) -> &'static str {
        NAME
    }

    fn families(&self) -> Vec<String> {
        let mut seen = HashSet::new();
        self.parts.iter().flat_map(|task| task.families()).filter(|family| seen.insert(family.clone())).collect()
    }

    /// As many as there are until a part starts over.
    fn len(&self, split: Split) -> Option<usize> {
        let until = |p: usize| {
            let length = self.parts[p].len(split)? as u64;
            let (cycles, rest) = (length / self.counts[p], length % self.counts[p]);
            let inside = self.cycle.iter().position(|(part, before)| *part == p && *before == rest);
            Some(cycles as usize * CYCLE + inside.unwrap_or(0))
        };
        (0..self.parts.len()).filter_map(until).min()
    }

    fn problem(&self, split: Split, index: u64) -> Result<Problem, TaskError> {
        let (part, before) = self.cycle[(index % CYCLE as u64) as usize];
        let inside = index / CYCLE as u64 * self.counts[part] + before;
        let mut problem = self.parts[part].problem(split, inside)?;
        problem.columns.insert(PART.to_owned(), (part as u64).into());
        Ok(problem)
    }

    fn prefilled_think(&self) -> bool {
        self.parts[0].prefilled_think()
    }

    fn judge(&self, problem: &Problem, completion: &str, finished: bool) -> Judgement {
        let part = self.part(problem).unwrap_or(&*self.parts[0]);
        part.judge(problem, completion, finished)
    }

    fn judge_all(&self, answers: &[Answer<'_>]) -> Vec<Judgement> {
        // Answers of one part together, as a part may judge several at one time.
        let mut judged: Vec<Option<Judgement>> = answers.iter().map(|_| None).collect();
        for (p, task) in self.parts.iter().enumerate() {
            let of_part = |a: &Answer<'_>| a.problem.columns.get(PART).and_then(serde_json::Value::as_u64).unwrap_or(0);
            let places: Vec<usize> = (0..answers.len()).filter(|i| of_part(&answers[*i]) == p as u64).collect();
            let own: Vec<Answer<'_>> = places.iter().map(|i| answers[*i]).collect();
            for (place, judgement) in places.into_iter().zip(task.judge_all(&own)) {
                judged[place] = Some(judgement);
            }
        }
        let judge = |(a, j): (&Answer<'_>, Option<Judgement>)| {
            j.unwrap_or_else(|| self.judge(a.problem, a.completion, a.finished))
        };
        answers.iter().zip(judged).map(judge).collect()
    }
}
