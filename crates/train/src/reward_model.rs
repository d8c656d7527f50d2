//! Training of reward models (DeepSeek-R1, section 3.1 and B.2 of the long version): a decoder with one score on its last token,
//! pairwise for helpfulness, pointwise for safety. What of a response the model reads is decided where examples are made.

use crate::lanes::Lanes;
use crate::observer::{Observer, StepReport};
use crate::pretrain::{MICRO_BATCH_TOKENS, split};
use crate::reward_loss::{label_loss, pair_loss};
use crate::schedule::Schedule;
use crate::state::{self, TrainerState};
use crate::{PackedBatch, TrainError, balance};
use aha_kernels::{Optimizer, OptimizerConfig, Precision};
use aha_model::{Decoder, TextFiles};
use std::path::Path;
use std::time::Instant;

/// What one example teaches.
#[derive(Clone, Debug, PartialEq)]
pub enum Preference {
    /// Two responses to one prompt.
    Pair {
        /// Prompt and response that is preferred.
        chosen: Vec<u32>,
        /// Prompt and the other response.
        rejected: Vec<u32>,
        /// How much the first is preferred, 0.5 (a tie) to 1.
        preference: f64,
        /// By how much their scores should differ.
        margin: f64,
    },
    /// A response with a label.
    Labelled {
        /// Prompt and response.
        tokens: Vec<u32>,
        /// The label.
        good: bool,
    },
}

impl Preference {
    /// Its sequences: those of a pair in the order chosen, rejected.
    pub fn sequences(&self) -> impl Iterator<Item = &[u32]> {
        let (first, second) = match self {
            Preference::Pair { chosen, rejected, .. } => (chosen, Some(rejected)),
            Preference::Labelled { tokens, .. } => (tokens, None),
        };
        std::iter::once(first).chain(second).map(Vec::as_slice)
    }

    /// Tokens of its sequences.
    pub fn len(&self) -> usize {
        self.sequences().map(<[u32]>::len).sum()
    }

    /// Whether it has no token.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Loss and derivatives at these scores, which are in the order of [`Preference::sequences`].
    fn loss(&self, scores: &[f32], centering: f64, d_scores: &mut Vec<f32>, count: f64) -> f64 {
        let score = |i: usize| f64::from(scores[i]);
        let mut push = |d: &[f64]| d_scores.extend(d.iter().map(|d| (d / count) as f32));
        match *self {
            Preference::Pair { preference, margin, .. } => {
                let loss = pair_loss(score(0), score(1), preference, margin, centering);
                push(&loss.d_scores);
                loss.loss
            }
            Preference::Labelled { good, .. } => {
                let loss = label_loss(score(0), good);
                push(&loss.d_scores);
                loss.loss
            }
        }
    }
}

/// Settings of the training.
#[derive(Clone, Debug)]
pub struct RewardModelConfig {
    /// What each step trains on, by number: see [`crate::sft::batches`].
    pub batches: Vec<Vec<usize>>,
    /// Passes over the examples that `batches` are, for the metric `epoch`.
    pub epochs: u64,
    /// Learning rate over the steps.
    pub schedule: Schedule,
    /// Optimizer settings.
    pub optimizer: OptimizerConfig,
    /// Factor on the squared sum of a pair's scores.
    pub centering: f64,
    /// Call the observer's evaluation every so many steps; 0 never.
    pub validate_every: u64,
    /// Checkpoint every so many steps; 0 only the last.
    pub save_steps: u64,
    /// In what numbers products run; the score is f32.
    pub precision: Precision,
    /// Blocks keep only their inputs for the backward.
    pub gradient_checkpointing: bool,
    /// Hash of everything the result depends on.
    pub settings: String,
}

/// Trains from the newest checkpoint under `checkpoints`, or from `fresh`. Returns the model and whether it is finished
/// (false when a stop was requested).
///
/// # Errors
/// Failed writes, a loss that is not finite.
pub fn run(
    config: &RewardModelConfig,
    fresh: impl FnOnce() -> Result<Decoder, TrainError>,
    examples: &[Preference],
    checkpoints: &Path,
    text: &TextFiles,
    observer: &mut dyn Observer,
) -> Result<(Decoder, bool), TrainError> {
    let resumed = state::load_latest(checkpoints, &config.settings, |p| Optimizer::new(config.optimizer, p))?;
    let (mut model, mut optimizer, mut state) = match resumed {
        Some(r) => (r.policy, r.optimizer, r.state),
        None => {
            let model = fresh()?;
            let optimizer = Optimizer::new(config.optimizer, &model.params);
            (model, optimizer, TrainerState { settings: config.settings.clone(), ..TrainerState::default() })
        }
    };
    model.params.set_precision(config.precision, true);
    let mut lanes = Lanes::new(&model.params, config.gradient_checkpointing);
    let total = config.batches.len() as u64;
    while state.step < total {
        let begin = Instant::now();
        let learning_rate = config.schedule.at(state.step);
        let batch: Vec<&Preference> = config.batches[state.step as usize].iter().map(|&i| &examples[i]).collect();
        let tokens: usize = batch.iter().map(|e| e.len()).sum();
        let stepped = step(&mut model, &mut optimizer, &mut lanes, &batch, learning_rate, config.centering);
        state.step += 1;
        if !stepped.loss.is_finite() || !stepped.norm.is_finite() {
            let (loss, norm) = (stepped.loss, stepped.norm);
            let problem = format!("loss is {loss}, gradient norm {norm}: lower learning_rate or raise warmup_steps");
            return Err(TrainError::Diverged { step: state.step, problem });
        }
        let seconds = begin.elapsed().as_secs_f64();
        let mut metrics: Vec<(String, f64)> = vec![
            ("loss".into(), stepped.loss),
            ("accuracy".into(), stepped.accuracy),
            ("score_mean".into(), stepped.mean),
            ("grad_norm".into(), stepped.norm),
            ("learning_rate".into(), learning_rate),
            ("num_tokens".into(), tokens as f64),
            ("epoch".into(), state.step as f64 * config.epochs as f64 / total as f64),
        ];
        metrics.extend(balance::metrics(&lanes.routing()));
        let timing = vec![("step_time".into(), seconds), ("tokens_per_second".into(), tokens as f64 / seconds)];
        observer.step(StepReport { step: state.step, total, metrics, timing, rollouts: Vec::new() })?;
        let last = state.step == total;
        if config.validate_every > 0 && state.step.is_multiple_of(config.validate_every) && !last {
            observer.evaluate(state.step, &model)?;
        }
        let stop = observer.stop_requested();
        if stop || last || config.save_steps > 0 && state.step.is_multiple_of(config.save_steps) {
            observer.sync()?;
            state.optimizer_step = optimizer.step;
            state::save(checkpoints, &state, &model, &optimizer, None, text, 2)?;
        }
        if stop {
            return Ok((model, last));
        }
    }
    Ok((model, true))
}

/// What a step measures, before its update.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stepped {
    /// Mean loss over the examples, in nats.
    pub loss: f64,
    /// Share of examples whose better side has the higher score; ties do not count.
    pub accuracy: f64,
    /// Mean score.
    pub mean: f64,
    /// Norm of the gradient before clipping.
    pub norm: f64,
}

/// One optimizer step on the mean loss over all examples of the batch.
pub fn step(
    model: &mut Decoder,
    optimizer: &mut Optimizer,
    lanes: &mut Lanes,
    batch: &[&Preference],
    learning_rate: f64,
    centering: f64,
) -> Stepped {
    let tokens = batch.iter().map(|e| e.len()).sum();
    let count = batch.len() as f64;
    lanes.begin(0.0);
    let parts = split(batch, |e| e.len(), lanes.micro_batch_tokens(MICRO_BATCH_TOKENS, tokens));
    let done = lanes.run(&parts, |lane, part| {
        let packed = PackedBatch::ends(part.iter().flat_map(|e| e.sequences()));
        let (mut loss, mut all) = (0.0, Vec::new());
        packed.train_scores(model, &mut lane.tape, &mut lane.grads, |scores| {
            let (mut at, mut d_scores) = (0, Vec::with_capacity(scores.len()));
            for example in part.iter() {
                loss += example.loss(&scores[at..], centering, &mut d_scores, count);
                at = d_scores.len();
            }
            all = scores.to_vec();
            d_scores
        });
        (loss, all)
    });
    let scores: Vec<f32> = done.iter().flat_map(|(_, scores)| scores.iter().copied()).collect();
    let norm = optimizer.step(&mut model.params, lanes.grads(), learning_rate);
    let (right, judged) = agreement(batch.iter().copied(), &scores);
    Stepped {
        loss: done.iter().map(|(loss, _)| loss).sum::<f64>() / count,
        accuracy: right as f64 / judged.max(1) as f64,
        mean: scores.iter().map(|s| f64::from(*s)).sum::<f64>() / scores.len().max(1) as f64,
        norm,
    }
}

/// How many examples the scores agree with, and how many are no ties.
fn agreement<'a>(examples: impl Iterator<Item = &'a Preference>, scores: &[f32]) -> (usize, usize) {
    let (mut right, mut judged, mut at) = (0, 0, 0);
    for example in examples {
        match example {
            Preference::Pair { preference, .. } => {
                if *preference > 0.5 {
                    judged += 1;
                    right += usize::from(scores[at] > scores[at + 1]);
                }
                at += 2;
            }
            Preference::Labelled { good, .. } => {
                judged += 1;
                right += usize::from((scores[at] > 0.0) == *good);
                at += 1;
            }
        }
    }
    (right, judged)
}
