//! Sampling a model on held-out problems and judging what it says.

use crate::record::{SampleRecord, Verdict};
use aha_engine::sampler::mix;
use aha_engine::{Control, EngineConfig, EngineError, FinishReason, Request, SamplingParams, generate};
use aha_model::Decoder;
use aha_tasks::format::chain_of_thought;
use aha_tasks::{Answer, Judgement, Language, Problem, Prompter, Split, Task, TaskError, text};

/// What is sampled.
#[derive(Clone, Debug)]
pub struct EvalSettings {
    /// Held-out problems, from the first on; fewer when the task has fewer.
    pub problems: usize,
    /// Samples per problem.
    pub samples: usize,
    /// How; stop tokens come from the prompter.
    pub sampling: SamplingParams,
    /// Also one greedy completion per problem.
    pub greedy: bool,
    /// Seed of the sampling.
    pub seed: u64,
    /// Limits of the generator.
    pub engine: EngineConfig,
}

/// What came out.
#[derive(Clone, Debug, Default)]
pub struct Evaluated {
    /// The problems asked.
    pub problems: Vec<Problem>,
    /// Samples, by problem and sample number.
    pub samples: Vec<SampleRecord>,
    /// One greedy completion per problem, if asked for.
    pub greedy: Vec<SampleRecord>,
}

/// Why an evaluation could not be done.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// A problem could not be had.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// The engine refused a request.
    #[error("sampling: {0}")]
    Engine(#[from] EngineError),
    /// Tokenizer or chat template.
    #[error(transparent)]
    Model(#[from] aha_model::Error),
    /// A stop was requested before the end.
    #[error("the evaluation was stopped before it was finished")]
    Stopped,
}

/// Samples and judges. A pure function of its arguments.
///
/// # Errors
/// See [`EvalError`].
pub fn evaluate(
    decoder: &Decoder,
    task: &dyn Task,
    prompter: &Prompter,
    settings: &EvalSettings,
    control: &Control,
) -> Result<Evaluated, EvalError> {
    let count = task.len(Split::Eval).map_or(settings.problems, |n| n.min(settings.problems));
    let problems = (0..count as u64).map(|i| task.problem(Split::Eval, i)).collect::<Result<Vec<_>, _>>()?;
    let params = SamplingParams { stop_tokens: prompter.stop_tokens().to_vec(), ..settings.sampling.clone() };
    let ask = |samples: usize, params: &SamplingParams| -> Result<Vec<SampleRecord>, EvalError> {
        let mut requests = Vec::with_capacity(problems.len());
        for (i, problem) in problems.iter().enumerate() {
            let seed = mix(settings.seed ^ mix(i as u64));
            requests.push(Request { prompt: prompter.tokens(problem)?, samples, params: params.clone(), seed });
        }
        let completions = generate(decoder, &requests, &settings.engine, control)?;
        if completions.len() < problems.len() * samples {
            return Err(EvalError::Stopped);
        }
        let texts = completions.iter().map(|c| prompter.completion(&c.tokens)).collect::<Result<Vec<_>, _>>()?;
        let answers: Vec<Answer> = completions
            .iter()
            .zip(&texts)
            .map(|(c, text)| Answer {
                problem: &problems[c.request],
                completion: text,
                finished: c.finish == FinishReason::Stop,
            })
            .collect();
        let judgements = task.judge_all(&answers);
        let parts = answers.iter().zip(judgements).zip(&completions);
        Ok(parts.map(|((a, judgement), c)| record(task, a, judgement, c.sample, c.tokens.len())).collect())
    };
    let samples = ask(settings.samples, &params)?;
    let greedy = if settings.greedy { ask(1, &SamplingParams { temperature: 0.0, ..params })? } else { Vec::new() };
    Ok(Evaluated { problems, samples, greedy })
}

fn record(task: &dyn Task, answer: &Answer<'_>, judgement: Judgement, sample: usize, tokens: usize) -> SampleRecord {
    let Answer { problem, completion: text, finished } = *answer;
    // R1's measure looks at the chain of thought: an answer may have to be in another language. Where no tag says which part
    // that is, and where there is no thought, it looks at everything.
    let thought = chain_of_thought(text, task.prefilled_think()).filter(|t| !t.trim().is_empty()).unwrap_or(text);
    SampleRecord {
        problem_id: problem.id.clone(),
        family: problem.family.clone(),
        language: Some(if problem.language == Language::Chinese { "zh" } else { "en" }.to_owned()),
        sample,
        verdict: match judgement.verdict {
            aha_tasks::Verdict::Correct => Verdict::Correct,
            aha_tasks::Verdict::Incorrect => Verdict::Incorrect,
            aha_tasks::Verdict::NotJudged => Verdict::NotJudged,
        },
        lenient_correct: judgement.lenient_verdict == aha_tasks::Verdict::Correct,
        answer: judgement.answer,
        format: judgement.format,
        finished,
        response_tokens: tokens,
        reflective_words: text::reflective_words(text),
        language_consistency: text::language_consistency(thought, problem.language),
        mixed_language: text::is_mixed(thought, problem.language),
        text: Some(text.to_owned()),
    }
}
