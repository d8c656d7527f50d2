//! Supervised fine-tuning (DeepSeek-R1, sections 2.3.1 and 2.3.3): next-token prediction of the assistant's tokens alone,
//! several whole conversations packed into a step, each seeing only itself, a number of epochs over all of them.

use crate::balance;
use crate::lanes::Lanes;
use crate::observer::{Observer, StepReport};
use crate::pretrain::{MICRO_BATCH_TOKENS, split};
use crate::schedule::Schedule;
use crate::state::{self, TrainerState};
use crate::{PackedBatch, TrainError};
use aha_data::Example;
use aha_kernels::{Optimizer, OptimizerConfig, Precision, Tape};
use aha_model::{Decoder, TextFiles};
use aha_tasks::mini::Rng;
use std::path::Path;
use std::time::Instant;

/// Settings of supervised fine-tuning.
#[derive(Clone, Debug)]
pub struct SftConfig {
    /// What each step trains on, by number: see [`batches`].
    pub batches: Vec<Vec<usize>>,
    /// Passes over the examples that `batches` are, for the metric `epoch`.
    pub epochs: u64,
    /// Learning rate over the steps.
    pub schedule: Schedule,
    /// Optimizer settings.
    pub optimizer: OptimizerConfig,
    /// Validation loss every so many steps; 0 only at the end.
    pub validate_every: u64,
    /// Checkpoint every so many steps; 0 only the last.
    pub save_steps: u64,
    /// In what numbers products run.
    pub precision: Precision,
    /// Blocks keep only their inputs for the backward.
    pub gradient_checkpointing: bool,
    /// How far the biases of routers move at a step.
    pub bias_update_speed: f64,
    /// Hash of everything the result depends on.
    pub settings: String,
}

/// Examples in the order they are trained on: each epoch is shuffled anew and cut into steps of about `batch_tokens` tokens,
/// all of them of nearly the same size, so that no epoch ends in a step of a few leftovers.
pub fn batches(lengths: &[usize], batch_tokens: usize, epochs: u64, seed: u64) -> Vec<Vec<usize>> {
    let total: usize = lengths.iter().sum();
    let count = total.div_ceil(batch_tokens.max(1)).clamp(1, lengths.len().max(1));
    let mut all = Vec::new();
    for epoch in 0..epochs {
        let mut order: Vec<usize> = (0..lengths.len()).collect();
        Rng::new(seed, epoch).shuffle(&mut order);
        let (mut batch, mut done, mut cut) = (Vec::new(), 0, 1);
        for (i, &example) in order.iter().enumerate() {
            batch.push(example);
            done += lengths[example];
            if i + 1 == order.len() || done * count >= total * cut {
                all.push(std::mem::take(&mut batch));
                cut = (done * count / total.max(1)) + 1;
            }
        }
    }
    all
}

/// Trains from the newest checkpoint under `checkpoints`, or from `fresh`, whose adapters alone are trained where it has some.
/// Returns the model and whether it is finished
/// (false when a stop was requested).
///
/// # Errors
/// Failed writes, a loss that is not finite.
pub fn run(
    config: &SftConfig,
    fresh: impl FnOnce() -> Result<Decoder, TrainError>,
    examples: &[Example],
    validation: &[Example],
    checkpoints: &Path,
    text: &TextFiles,
    observer: &mut dyn Observer,
) -> Result<(Decoder, bool), TrainError> {
    let (mut model, mut optimizer, mut state) = match state::latest(checkpoints, &config.settings)? {
        Some(step) => {
            let r = state::load(checkpoints, step, |p| Optimizer::new(config.optimizer, p), fresh)?;
            (r.policy, r.optimizer, r.state)
        }
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
        let batch: Vec<&Example> = config.batches[state.step as usize].iter().map(|&i| &examples[i]).collect();
        let tokens: usize = batch.iter().map(|e| e.tokens.len()).sum();
        let targets: usize = batch.iter().map(|e| e.targets()).sum();
        let (loss, norm) =
            step(&mut model, &mut optimizer, &mut lanes, &batch, learning_rate, config.bias_update_speed);
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
            ("num_predicted_tokens".into(), targets as f64),
            ("epoch".into(), state.step as f64 * config.epochs as f64 / total as f64),
        ];
        metrics.extend(balance::metrics(&lanes.routing()));
        let last = state.step == total;
        let due = config.validate_every > 0 && state.step.is_multiple_of(config.validate_every);
        if !validation.is_empty() && (last || due) {
            metrics.push(("eval_loss".into(), validation_loss(&model, validation, lanes.quiet())));
        }
        let timing = vec![("step_time".into(), seconds), ("tokens_per_second".into(), tokens as f64 / seconds)];
        observer.step(StepReport { step: state.step, total, metrics, timing, rollouts: Vec::new() })?;
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

fn packed(part: &[&Example]) -> PackedBatch {
    PackedBatch::spans(part.iter().map(|e| (&e.tokens[..], &e.predicted[..])))
}

/// One optimizer step: the mean loss over all predicted tokens of the step, in nats (never a mean of means over
/// micro-batches), and the norm of the gradient before clipping.
pub fn step(
    model: &mut Decoder,
    optimizer: &mut Optimizer,
    lanes: &mut Lanes,
    batch: &[&Example],
    learning_rate: f64,
    bias_update_speed: f64,
) -> (f64, f64) {
    let tokens: usize = batch.iter().map(|e| e.tokens.len()).sum();
    let count = batch.iter().map(|e| e.targets()).sum::<usize>() as f64;
    lanes.begin(0.0);
    let parts = split(batch, |e| e.tokens.len(), lanes.micro_batch_tokens(MICRO_BATCH_TOKENS, tokens));
    let losses = lanes
        .run(&parts, |lane, part| packed(part).train_predicting(model, &mut lane.tape, &mut lane.grads, count, 0.0).0);
    balance::update(model, &lanes.routing(), bias_update_speed);
    let norm = optimizer.step(&mut model.params, lanes.grads(), learning_rate);
    (losses.iter().sum(), norm)
}

/// Mean loss over the predicted tokens, in nats.
pub fn validation_loss(model: &Decoder, examples: &[Example], tape: &mut Tape) -> f64 {
    let all: Vec<&Example> = examples.iter().collect();
    let (mut sum, mut count) = (0.0, 0usize);
    for part in split(&all, |e| e.tokens.len(), MICRO_BATCH_TOKENS) {
        let (logp, _) = packed(part).logprobs(model, tape, 1.0);
        sum -= logp.iter().map(|v| f64::from(*v)).sum::<f64>();
        count += logp.len();
    }
    sum / count.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_cover_every_epoch_and_are_even() {
        let lengths: Vec<usize> = (0..103).map(|i| 5 + i * 7 % 50).collect();
        let total: usize = lengths.iter().sum();
        let all = batches(&lengths, 256, 3, 9);
        let per_epoch = total.div_ceil(256);
        assert_eq!(all.len(), 3 * per_epoch);
        assert_eq!(all, batches(&lengths, 256, 3, 9));
        assert_ne!(all[..per_epoch], all[per_epoch..2 * per_epoch]);
        for epoch in all.chunks(per_epoch) {
            let mut seen: Vec<usize> = epoch.iter().flatten().copied().collect();
            seen.sort_unstable();
            assert_eq!(seen, (0..103).collect::<Vec<_>>());
            for batch in epoch {
                let tokens: usize = batch.iter().map(|&i| lengths[i]).sum();
                assert!((256 - 55 - 60..=256 + 55).contains(&tokens), "{tokens}");
            }
        }
        // One example longer than a step, and nothing at all.
        assert_eq!(batches(&[900, 3], 100, 1, 0).concat().len(), 2);
        assert!(batches(&[], 100, 2, 0).is_empty());
    }
}
