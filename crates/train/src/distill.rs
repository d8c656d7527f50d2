//! Distillation: a student learns a teacher's distribution, not only its tokens.
//!
//! Off-policy, on given examples: alpha * cross-entropy of their tokens + (1 - alpha) * T^2 * divergence from the teacher's
//! distribution at temperature T, a mean over all predicted tokens of a step (Hinton et al. 2015: the factor T^2 keeps the
//! gradient's size whatever T is). The teacher reads every example once, before the first step ([`teach`]).
//!
//! On-policy (GKD, Agarwal et al. 2023; MiniLLM, Gu et al. 2023): the student answers problems, the teacher says at every
//! token of these answers what it would have said, and the student learns from the reverse KL divergence. As in GKD nothing flows back through the sampling.
//! The divergence is over the teacher's k most likely tokens and one bucket for all others, not over the student's: the
//! teacher is then asked in the same form in both cases, what the student says outside of the teacher's tokens is punished
//! as a whole by that bucket, and for a k of the whole vocabulary it is the exact divergence.

use crate::fit::{self, Accumulated, FitConfig, Objective};
use crate::lanes::{Lane, Lanes};
use crate::observer::{Observer, Rollout};
use crate::pretrain::{MICRO_BATCH_TOKENS, split};
use crate::sft::{SftConfig, length, packed, targets};
use crate::{PackedBatch, TrainError};
use aha_data::{Example, TopKStore, TopKWriter};
use aha_engine::sampler::mix;
use aha_engine::{Completion, Control, EngineConfig, FinishReason, Request, SamplingParams, generate};
use aha_kernels::{Ask, Compared, Comparison, Divergence, Tape, TopK, par};
use aha_model::{Decoder, TextFiles};
use aha_tasks::{Problem, Prompter, Split, Task, Verdict};
use rayon::prelude::*;
use std::ops::Range;
use std::path::Path;

/// Tokens the teacher reads at once.
const TEACHER_TOKENS: usize = 4096;
/// Teachers up to this size read several parts side by side, one per thread; larger ones share each product.
const SMALL_TEACHER_BYTES: u64 = 96 << 20;

/// How a student is compared with its teacher.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DistillLoss {
    /// Which divergence.
    pub divergence: Divergence,
    /// Divides the logits of both.
    pub temperature: f32,
    /// Share of the cross-entropy of the tokens; the divergence has the rest.
    pub alpha: f64,
}

impl DistillLoss {
    /// Weights of a token's divergence and of its log-probability in the mean over `count` tokens.
    fn weights(&self, count: f64) -> (f32, f32) {
        let t = f64::from(self.temperature);
        (((1.0 - self.alpha) * t * t / count) as f32, (-self.alpha / count) as f32)
    }

    /// One micro-batch: gradients and sums.
    fn train(&self, batch: &PackedBatch, teacher: &TopK, model: &Decoder, lane: &mut Lane, count: f64) -> Sums {
        let comparison = self.comparison(batch, teacher);
        let found = batch.train_compared(model, &mut lane.tape, &mut lane.grads, &comparison, self.weights(count));
        Sums::of(&found, teacher)
    }

    fn comparison<'b>(&self, batch: &'b PackedBatch, teacher: &'b TopK) -> Comparison<'b> {
        let (divergence, temperature) = (self.divergence, self.temperature);
        Comparison { teacher, divergence, temperature, targets: &batch.targets }
    }

    /// The loss, and what it is made of.
    fn metrics(&self, sums: &Sums) -> (f64, Vec<(String, f64)>) {
        let (ce, kl, mass) = sums.means();
        let t = f64::from(self.temperature);
        let loss = self.alpha * ce + (1.0 - self.alpha) * t * t * kl;
        (loss, vec![("loss/ce".into(), ce), ("loss/kl".into(), kl), ("teacher/top_k_mass".into(), mass)])
    }
}

/// Sums over tokens.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    tokens: usize,
    ce: f64,
    kl: f64,
    mass: f64,
}

impl Sums {
    fn of(found: &Compared, teacher: &TopK) -> Self {
        let sum = |values: &[f32]| values.iter().map(|v| f64::from(*v)).sum::<f64>();
        let tokens = teacher.len();
        let mass = teacher.mean_mass() * tokens as f64;
        Sums { tokens, ce: -sum(&found.logp), kl: sum(&found.divergence), mass }
    }

    fn add(self, o: Self) -> Self {
        Sums { tokens: self.tokens + o.tokens, ce: self.ce + o.ce, kl: self.kl + o.kl, mass: self.mass + o.mass }
    }

    fn means(&self) -> (f64, f64, f64) {
        let n = self.tokens.max(1) as f64;
        (self.ce / n, self.kl / n, self.mass / n)
    }
}

/// Writes what the teacher thinks of the predicted tokens of every example, in order; goes on where a killed writer
/// stopped. False when `stop` said so before the end.
///
/// # Errors
/// A failed write.
pub fn teach(
    teacher: &Decoder,
    examples: &[&Example],
    ask: Ask,
    writer: &mut TopKWriter,
    stop: &dyn Fn() -> bool,
) -> Result<bool, TrainError> {
    let (mut first, mut row) = (0, 0u64);
    while first < examples.len() && row + examples[first].targets() as u64 <= writer.rows() {
        row += examples[first].targets() as u64;
        first += 1;
    }
    // The first example may be there in part.
    let mut known = (writer.rows() - row) as usize;
    let parts = split(&examples[first..], |e| e.tokens.len(), TEACHER_TOKENS);
    let small = teacher.bytes() <= SMALL_TEACHER_BYTES;
    let mut tape = Tape::new(false);
    for parts in parts.chunks(if small { 2 * rayon::current_num_threads() } else { 1 }) {
        if stop() {
            return Ok(false);
        }
        let alone = |part: &&[&Example]| par::serial(|| packed(part).top_k(teacher, &mut Tape::new(false), ask));
        let found: Vec<TopK> = if small {
            parts.par_iter().map(alone).collect()
        } else {
            parts.iter().map(|part| packed(part).top_k(teacher, &mut tape, ask)).collect()
        };
        for rows in found {
            writer.push(&rows.rows(known..rows.len()))?;
            known = 0;
        }
    }
    Ok(true)
}

/// Settings of distillation on examples.
#[derive(Clone, Debug)]
pub struct DistillConfig {
    /// Examples of every step, and the loop.
    pub sft: SftConfig,
    /// The loss.
    pub loss: DistillLoss,
}

/// Examples and what the teacher thinks of them.
pub struct Taught<'a> {
    /// To train on.
    pub examples: &'a [Example],
    /// To validate on.
    pub validation: &'a [Example],
    /// Rows of `examples`, then of `validation`, as [`teach`] writes them.
    pub teacher: &'a TopKStore,
}

struct OffPolicy<'a> {
    config: &'a DistillConfig,
    data: &'a Taught<'a>,
    /// First row of every example, those of `validation` behind the others.
    rows: Vec<u64>,
}

impl OffPolicy<'_> {
    fn teacher(&self, examples: &[usize]) -> Result<TopK, TrainError> {
        let mut all = TopK::default();
        for &i in examples {
            all.append(&self.data.teacher.rows(self.rows[i]..self.rows[i + 1])?);
        }
        Ok(all)
    }
}

fn total(parts: Vec<Result<Sums, TrainError>>) -> Result<Sums, TrainError> {
    parts.into_iter().try_fold(Sums::default(), |sum, part| Ok(sum.add(part?)))
}

impl Objective for OffPolicy<'_> {
    fn accumulate(&mut self, step: u64, model: &Decoder, lanes: &mut Lanes) -> Result<Accumulated, TrainError> {
        let examples = self.data.examples;
        let batch = self.config.sft.batch(step, examples);
        let (count, tokens) = (targets(&batch) as f64, length(&batch));
        let numbers = &self.config.sft.batches[step as usize];
        lanes.begin(0.0);
        let parts = split(numbers, |i| examples[*i].tokens.len(), lanes.micro_batch_tokens(MICRO_BATCH_TOKENS, tokens));
        let this = &*self;
        let sums = total(lanes.run(&parts, |lane, part| {
            let teacher = this.teacher(part)?;
            let part: Vec<&Example> = part.iter().map(|i| &examples[*i]).collect();
            Ok(this.config.loss.train(&packed(&part), &teacher, model, lane, count))
        }))?;
        let (loss, mut metrics) = self.config.loss.metrics(&sums);
        metrics.extend(self.config.sft.progress(step, &batch));
        Ok(Accumulated { loss, tokens, metrics, ..Accumulated::default() })
    }

    fn validate(&mut self, model: &Decoder, tape: &mut Tape) -> Result<Vec<(String, f64)>, TrainError> {
        let validation = self.data.validation;
        if validation.is_empty() {
            return Ok(Vec::new());
        }
        let first = self.data.examples.len();
        let numbers: Vec<usize> = (0..validation.len()).collect();
        let mut sums = Sums::default();
        for part in split(&numbers, |i| validation[*i].tokens.len(), MICRO_BATCH_TOKENS) {
            let teacher = self.teacher(&part.iter().map(|i| first + i).collect::<Vec<_>>())?;
            let part: Vec<&Example> = part.iter().map(|i| &validation[*i]).collect();
            let batch = packed(&part);
            let found = batch.compare(model, tape, &self.config.loss.comparison(&batch, &teacher));
            sums = sums.add(Sums::of(&found, &teacher));
        }
        let (ce, kl, _) = sums.means();
        Ok(vec![("eval_loss".into(), ce), ("eval_kl".into(), kl)])
    }
}

/// Distils on examples, from the newest checkpoint under `checkpoints` or from `fresh`. Returns the student and whether it is
/// finished (false when a stop was requested).
///
/// # Errors
/// Failed reads and writes, a loss that is not finite.
///
/// # Panics
/// When the teacher's rows are not those of the examples.
pub fn run(
    config: &DistillConfig,
    fresh: impl FnOnce() -> Result<Decoder, TrainError>,
    data: &Taught,
    checkpoints: &Path,
    text: &TextFiles,
    observer: &mut dyn Observer,
) -> Result<(Decoder, bool), TrainError> {
    let mut rows = vec![0u64];
    for example in data.examples.iter().chain(data.validation) {
        rows.push(rows[rows.len() - 1] + example.targets() as u64);
    }
    assert_eq!(rows.last(), Some(&data.teacher.header().rows), "the teacher's rows are not those of the examples");
    let mut objective = OffPolicy { config, data, rows };
    fit::run(&config.sft.fit, fresh, &mut objective, checkpoints, text, observer)
}

/// Settings of on-policy distillation.
#[derive(Clone, Debug)]
pub struct OnPolicyConfig {
    /// The loop.
    pub fit: FitConfig,
    /// The loss; its alpha has no meaning here and is to be 0.
    pub loss: DistillLoss,
    /// Teacher's tokens per token.
    pub top_k: usize,
    /// Problems per step.
    pub num_prompts: usize,
    /// Answers per problem.
    pub num_generations: usize,
    /// Held-out problems of a validation; 0 for none.
    pub validation_problems: u64,
    /// How the student answers; stop tokens come from the prompter.
    pub sampling: SamplingParams,
    /// Limits of the generator.
    pub engine: EngineConfig,
    /// Seed of sampling.
    pub seed: u64,
}

/// On-policy distillation at work.
pub struct OnPolicy<'a> {
    /// Settings.
    pub config: &'a OnPolicyConfig,
    /// Whom to learn from.
    pub teacher: &'a Decoder,
    /// Problems; its verdicts are only logged.
    pub task: &'a dyn Task,
    /// Prompts and texts.
    pub prompter: &'a Prompter,
}

impl OnPolicy<'_> {
    /// As [`run`], on the student's own answers.
    ///
    /// # Errors
    /// Failed writes, problems that cannot be had, a loss that is not finite.
    pub fn run(
        mut self,
        fresh: impl FnOnce() -> Result<Decoder, TrainError>,
        checkpoints: &Path,
        text: &TextFiles,
        observer: &mut dyn Observer,
    ) -> Result<(Decoder, bool), TrainError> {
        let config = self.config;
        fit::run(&config.fit, fresh, &mut self, checkpoints, text, observer)
    }

    fn rollout(&self, problem: &Problem, completion: &Completion) -> Result<Rollout, TrainError> {
        let text = self.prompter.completion(&completion.tokens)?;
        let finished = completion.finish == FinishReason::Stop;
        let verdict = self.task.judge(problem, &text, finished).verdict;
        Ok(Rollout {
            problem: problem.id.clone(),
            family: problem.family.clone(),
            prompt: problem.question.clone(),
            completion: text,
            rewards: Vec::new(),
            advantage: None,
            verdict,
            tokens: completion.tokens.len(),
            finished,
        })
    }
}

/// Answers of the student, and what was asked.
struct Answers {
    requests: Vec<Request>,
    completions: Vec<Completion>,
    rollouts: Vec<Rollout>,
}

impl Answers {
    /// Tokens of a completion with its prompt.
    fn whole(&self, completion: &Completion) -> usize {
        self.requests[completion.request].prompt.len() + completion.tokens.len()
    }

    fn tokens(&self) -> usize {
        self.completions.iter().map(|c| self.whole(c)).sum()
    }

    fn predicted(&self) -> usize {
        self.completions.iter().map(|c| c.tokens.len()).sum()
    }

    fn packed(&self, part: &[&Completion]) -> PackedBatch {
        PackedBatch::new(part.iter().map(|c| (&self.requests[c.request].prompt[..], &c.tokens[..])))
    }

    /// What rules say of them, and their lengths.
    fn metrics(&self) -> [(&'static str, f64); 3] {
        let share = |of: &dyn Fn(&Rollout) -> bool, among: &dyn Fn(&Rollout) -> bool| {
            let all = self.rollouts.iter().filter(|r| among(r)).count();
            self.rollouts.iter().filter(|r| among(r) && of(r)).count() as f64 / all.max(1) as f64
        };
        let judged = |r: &Rollout| r.verdict != Verdict::NotJudged;
        [
            ("accuracy", share(&|r| r.verdict == Verdict::Correct, &judged)),
            ("completions/mean_length", self.predicted() as f64 / self.completions.len().max(1) as f64),
            ("completions/clipped_ratio", share(&|r| !r.finished, &|_| true)),
        ]
    }
}

impl OnPolicy<'_> {
    /// The student's answers to problems of a split.
    fn answers(&self, model: &Decoder, split: Split, problems: Range<u64>) -> Result<Answers, TrainError> {
        let c = self.config;
        let params = SamplingParams { stop_tokens: self.prompter.stop_tokens().to_vec(), ..c.sampling.clone() };
        // Every validation draws from the same numbers, so that it is the student that changed.
        let seed = c.seed ^ if split == Split::Train { 0 } else { VALIDATION_SEED };
        let (mut asked, mut requests) = (Vec::new(), Vec::new());
        for i in problems {
            let problem = self.task.problem(split, i)?;
            let (prompt, params) = (self.prompter.tokens(&problem)?, params.clone());
            requests.push(Request { prompt, samples: c.num_generations, params, seed: mix(seed ^ mix(i)) });
            asked.push(problem);
        }
        let completions = generate(model, &requests, &c.engine, &Control::default())?;
        let rollouts = completions
            .par_iter()
            .map(|completion| self.rollout(&asked[completion.request], completion))
            .collect::<Result<_, _>>()?;
        Ok(Answers { requests, completions, rollouts })
    }

    fn ask(&self, model: &Decoder) -> Ask {
        let c = self.config;
        Ask { k: c.top_k, temperature: c.loss.temperature, vocab: model.config.vocab_size }
    }
}

/// Keeps the draws of a validation apart from those of training.
const VALIDATION_SEED: u64 = 0x7a11_da7e;

impl Objective for OnPolicy<'_> {
    fn accumulate(&mut self, step: u64, model: &Decoder, lanes: &mut Lanes) -> Result<Accumulated, TrainError> {
        let c = self.config;
        let first = step * c.num_prompts as u64;
        let answers = self.answers(model, Split::Train, first..first + c.num_prompts as u64)?;
        let (tokens, predicted, ask) = (answers.tokens(), answers.predicted(), self.ask(model));
        lanes.begin(0.0);
        let micro = lanes.micro_batch_tokens(MICRO_BATCH_TOKENS, tokens);
        let completions: Vec<&Completion> = answers.completions.iter().collect();
        let parts = split(&completions, |c| answers.whole(c), micro);
        let teacher = self.teacher;
        let sums = total(lanes.run(&parts, |lane, part| {
            let batch = answers.packed(part);
            let rows = batch.top_k(teacher, &mut lane.quiet, ask);
            Ok(c.loss.train(&batch, &rows, model, lane, predicted as f64))
        }))?;
        let (loss, mut metrics) = c.loss.metrics(&sums);
        metrics.extend(answers.metrics().map(|(name, value)| (name.to_owned(), value)));
        metrics.push(("num_tokens".to_owned(), tokens as f64));
        metrics.push(("num_predicted_tokens".to_owned(), predicted as f64));
        Ok(Accumulated { loss, tokens, metrics, rollouts: answers.rollouts })
    }

    fn validate(&mut self, model: &Decoder, tape: &mut Tape) -> Result<Vec<(String, f64)>, TrainError> {
        let c = self.config;
        if c.validation_problems == 0 {
            return Ok(Vec::new());
        }
        let answers = self.answers(model, Split::Eval, 0..c.validation_problems)?;
        let completions: Vec<&Completion> = answers.completions.iter().collect();
        let mut sums = Sums::default();
        for part in split(&completions, |c| answers.whole(c), MICRO_BATCH_TOKENS) {
            let batch = answers.packed(part);
            let teacher = batch.top_k(self.teacher, tape, self.ask(model));
            let found = batch.compare(model, tape, &c.loss.comparison(&batch, &teacher));
            sums = sums.add(Sums::of(&found, &teacher));
        }
        let mut metrics = vec![("eval_kl".to_owned(), sums.means().1)];
        metrics.extend(answers.metrics().map(|(name, value)| (format!("eval_{name}"), value)));
        Ok(metrics)
    }
}
