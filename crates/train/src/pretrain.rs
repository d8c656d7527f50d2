//! Pretraining: next-token prediction over packed documents.

use crate::balance::{self, Balance};
use crate::lanes::Lanes;
use crate::observer::{Observer, StepReport};
use crate::prediction::PredictionWeight;
use crate::ramp::BatchRamp;
use crate::schedule::Schedule;
use crate::state::{self, TrainerState};
use crate::{PackedBatch, TrainError};
use aha_data::{DataError, Position, Rows};
use aha_kernels::{Optimizer, OptimizerConfig, Precision, Tape};
use aha_model::{Decoder, TextFiles};
use std::path::Path;
use std::time::Instant;

/// Settings of a pretraining stage.
#[derive(Clone, Debug)]
pub struct PretrainConfig {
    /// Optimizer steps.
    pub steps: u64,
    /// Tokens of a step; with whole documents a little less.
    pub batch: BatchRamp,
    /// How documents become sequences.
    pub rows: Rows,
    /// Learning rate over the steps.
    pub schedule: Schedule,
    /// Optimizer settings.
    pub optimizer: OptimizerConfig,
    /// Validation loss every so many steps; 0 only at the end.
    pub validate_every: u64,
    /// Checkpoint every so many steps; 0 none.
    pub save_steps: u64,
    /// In what numbers products run.
    pub precision: Precision,
    /// Blocks keep only their inputs for the backward.
    pub gradient_checkpointing: bool,
    /// Balancing of routed experts, where the model has them.
    pub balance: Balance,
    /// Weight of the modules that predict further tokens, where the model has them.
    pub prediction: PredictionWeight,
    /// Hash of everything the result depends on.
    pub settings: String,
}

/// Documents by number, already tokens, with the end-of-text token at the end.
pub trait Documents {
    /// Tokens of documents `range`.
    ///
    /// # Errors
    /// A document that cannot be read.
    fn tokens(&self, range: std::ops::Range<u64>) -> Result<Vec<Vec<u32>>, DataError>;
}

/// Documents tokenized at a time.
const AHEAD: u64 = 128;
/// Tokens of one forward and backward.
pub(crate) const MICRO_BATCH_TOKENS: usize = 16_384;

/// Runs the stage from the newest checkpoint under `checkpoints`, or from `fresh`. Returns the model and whether it is
/// finished (false when a stop was requested).
///
/// # Errors
/// Failed writes, a loss that is not finite.
pub fn run(
    config: &PretrainConfig,
    fresh: impl FnOnce() -> Decoder,
    documents: &dyn Documents,
    validation: &[Vec<u32>],
    checkpoints: &Path,
    text: &TextFiles,
    observer: &mut dyn Observer,
) -> Result<(Decoder, bool), TrainError> {
    let resumed = state::load_latest(checkpoints, &config.settings, |p| Optimizer::new(config.optimizer, p))?;
    let (mut model, mut optimizer, mut state) = match resumed {
        Some(r) => (r.policy, r.optimizer, r.state),
        None => {
            let model = fresh();
            let optimizer = Optimizer::new(config.optimizer, &model.params);
            (model, optimizer, TrainerState { settings: config.settings.clone(), ..TrainerState::default() })
        }
    };
    config.optimizer.prepare(&mut model.params, config.precision);
    let mut lanes = Lanes::in_numbers(&model.params, config.gradient_checkpointing, config.optimizer.gradients);
    let next = Position { document: state.next_document, token: state.next_token };
    let mut stream = Stream { documents, rows: config.rows, ahead: Vec::new(), ahead_from: 0, next };
    while state.step < config.steps {
        let begin = Instant::now();
        let learning_rate = config.schedule.at(state.step);
        let sequences = stream.batch(config.batch.at(state.step))?;
        let tokens: usize = sequences.iter().map(Vec::len).sum();
        let extra = Extra {
            balance_alpha: config.balance.sequence_alpha,
            bias_update_speed: config.balance.speed(state.step),
            prediction_weight: config.prediction.at(state.step),
        };
        let Stepped { loss, norm, metrics: more } =
            step_with(&mut model, &mut optimizer, &mut lanes, &sequences, learning_rate, &extra);
        state.step += 1;
        if !loss.is_finite() || !norm.is_finite() {
            let problem = format!("loss is {loss}, gradient norm {norm}: lower learning_rate or raise warmup_steps");
            return Err(TrainError::Diverged { step: state.step, problem });
        }
        let seconds = begin.elapsed().as_secs_f64();
        let mut metrics: Vec<(String, f64)> = vec![
            ("loss".into(), loss),
            ("grad_norm".into(), norm),
            ("learning_rate".into(), learning_rate),
            ("num_tokens".into(), tokens as f64),
        ];
        metrics.extend(more);
        let last = state.step == config.steps;
        if !validation.is_empty()
            && (last || config.validate_every > 0 && state.step.is_multiple_of(config.validate_every))
        {
            metrics
                .push(("eval_loss".into(), validation_loss(&model, validation, config.batch.largest(), lanes.quiet())));
        }
        let timing = vec![("step_time".into(), seconds), ("tokens_per_second".into(), tokens as f64 / seconds)];
        observer.step(StepReport { step: state.step, total: config.steps, metrics, timing, rollouts: Vec::new() })?;
        let stop = observer.stop_requested();
        if stop || last || config.save_steps > 0 && state.step.is_multiple_of(config.save_steps) {
            observer.sync()?;
            (state.next_document, state.next_token) = (stream.next.document, stream.next.token);
            state.optimizer_step = optimizer.step;
            state::save(checkpoints, &state, &model, &optimizer, None, text, 2)?;
        }
        if stop {
            return Ok((model, last));
        }
    }
    Ok((model, true))
}

/// What a step has beside its sequences and the learning rate; nothing by default.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extra {
    /// Alpha of the sequence-wise balance loss.
    pub balance_alpha: f64,
    /// How far the biases of routers move.
    pub bias_update_speed: f64,
    /// Weight of the prediction modules' losses.
    pub prediction_weight: f64,
}

/// What a step was like.
#[derive(Clone, Debug, Default)]
pub struct Stepped {
    /// Mean next-token loss in nats.
    pub loss: f64,
    /// Norm of the gradient before clipping.
    pub norm: f64,
    /// What routers and prediction modules have to say.
    pub metrics: Vec<(String, f64)>,
}

/// One optimizer step on sequences; the mean next-token loss in nats, and the norm of the gradient before clipping.
pub fn step(
    model: &mut Decoder,
    optimizer: &mut Optimizer,
    lanes: &mut Lanes,
    sequences: &[Vec<u32>],
    learning_rate: f64,
) -> (f64, f64) {
    let stepped = step_with(model, optimizer, lanes, sequences, learning_rate, &Extra::default());
    (stepped.loss, stepped.norm)
}

/// The same with balancing and prediction modules.
pub fn step_with(
    model: &mut Decoder,
    optimizer: &mut Optimizer,
    lanes: &mut Lanes,
    sequences: &[Vec<u32>],
    learning_rate: f64,
    extra: &Extra,
) -> Stepped {
    let tokens: usize = sequences.iter().map(Vec::len).sum();
    let count = (tokens - sequences.len()) as f64;
    lanes.begin((extra.balance_alpha / tokens as f64) as f32);
    let parts = split(sequences, Vec::len, lanes.micro_batch_tokens(MICRO_BATCH_TOKENS, tokens));
    let losses = lanes.run(&parts, |lane, part| {
        let batch = PackedBatch::new(part.iter().map(|s| s.split_at(1)));
        batch.train_predicting(model, &mut lane.tape, &mut lane.grads, count, extra.prediction_weight)
    });
    let mut metrics = balance::metrics(&lanes.routing());
    if extra.prediction_weight > 0.0 && model.prediction_modules() > 0 {
        metrics.push(("mtp_loss".into(), losses.iter().map(|l| l.1).sum()));
    }
    balance::update(model, &lanes.routing(), extra.bias_update_speed);
    let norm = optimizer.step(&mut model.params, lanes.grads(), learning_rate);
    Stepped { loss: losses.iter().map(|l| l.0).sum(), norm, metrics }
}

/// Whole sequences in order, each part as close to `tokens` as they allow.
pub(crate) fn split<T>(sequences: &[T], length: impl Fn(&T) -> usize, tokens: usize) -> Vec<&[T]> {
    let (mut parts, mut first, mut size) = (Vec::new(), 0, 0);
    for (i, s) in sequences.iter().enumerate() {
        size += length(s);
        if size >= tokens || i + 1 == sequences.len() {
            parts.push(&sequences[first..=i]);
            (first, size) = (i + 1, 0);
        }
    }
    parts
}

/// Mean next-token loss, in nats.
pub fn validation_loss(model: &Decoder, sequences: &[Vec<u32>], batch_tokens: usize, tape: &mut Tape) -> f64 {
    let (mut sum, mut count, mut first) = (0.0, 0usize, 0);
    while first < sequences.len() {
        let mut end = first;
        let mut tokens = 0;
        while end < sequences.len() && (end == first || tokens + sequences[end].len() <= batch_tokens) {
            tokens += sequences[end].len();
            end += 1;
        }
        let batch = PackedBatch::new(sequences[first..end].iter().map(|s| s.split_at(1)));
        let (logp, _) = batch.logprobs(model, tape, 1.0);
        sum -= logp.iter().map(|v| f64::from(*v)).sum::<f64>();
        count += logp.len();
        first = end;
    }
    sum / count.max(1) as f64
}

/// Documents in order, tokenized some way ahead; `next` is where the first token not yet used lies.
struct Stream<'a> {
    documents: &'a dyn Documents,
    rows: Rows,
    ahead: Vec<Vec<u32>>,
    ahead_from: u64,
    next: Position,
}

impl Stream<'_> {
    fn batch(&mut self, budget: usize) -> Result<Vec<Vec<u32>>, TrainError> {
        let Stream { documents, rows, ahead, ahead_from, next } = self;
        let mut failed = None;
        let document = |i: u64| {
            if failed.is_none() && !(*ahead_from..*ahead_from + ahead.len() as u64).contains(&i) {
                match documents.tokens(i..i + AHEAD) {
                    Ok(tokens) => (*ahead, *ahead_from) = (tokens, i),
                    Err(e) => failed = Some(e),
                }
            }
            // After a failure the stream gives nothing and so ends.
            if failed.is_some() { Vec::new() } else { ahead[(i - *ahead_from) as usize].clone() }
        };
        let batch = rows.batch(document, next, budget);
        match failed {
            Some(e) => Err(e.into()),
            None => Ok(batch),
        }
    }
}
