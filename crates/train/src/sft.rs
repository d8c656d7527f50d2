//! Supervised fine-tuning (DeepSeek-R1, sections 2.3.1 and 2.3.3): next-token prediction of the assistant's tokens alone,
//! several whole conversations packed into a step, each seeing only itself, a number of epochs over all of them.

use crate::fit::{self, Accumulated, FitConfig, Objective};
use crate::lanes::Lanes;
use crate::observer::Observer;
use crate::pretrain::{MICRO_BATCH_TOKENS, split};
use crate::{PackedBatch, TrainError};
use aha_data::Example;
use aha_kernels::{Optimizer, Tape};
use aha_model::{Decoder, TextFiles};
use aha_tasks::mini::Rng;
use std::path::Path;

/// Settings of supervised fine-tuning.
#[derive(Clone, Debug)]
pub struct SftConfig {
    /// What each step trains on, by number: see [`batches`]. At least as many as there are steps.
    pub batches: Vec<Vec<usize>>,
    /// Passes over the examples that `batches` are, for the metric `epoch`.
    pub epochs: u64,
    /// The loop.
    pub fit: FitConfig,
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

/// Examples to train on and to validate on, as an objective.
struct Sft<'a> {
    config: &'a SftConfig,
    examples: &'a [Example],
    validation: &'a [Example],
}

impl Objective for Sft<'_> {
    fn accumulate(&mut self, step: u64, model: &Decoder, lanes: &mut Lanes) -> Result<Accumulated, TrainError> {
        let batch = self.config.batch(step, self.examples);
        let loss = gradients(model, lanes, &batch);
        let metrics = self.config.progress(step, &batch);
        Ok(Accumulated { loss, tokens: length(&batch), metrics, ..Accumulated::default() })
    }

    fn validate(&mut self, model: &Decoder, tape: &mut Tape) -> Result<Vec<(String, f64)>, TrainError> {
        if self.validation.is_empty() {
            return Ok(Vec::new());
        }
        Ok(vec![("eval_loss".into(), validation_loss(model, self.validation, tape))])
    }
}

impl SftConfig {
    /// The examples of a step (from 0).
    pub(crate) fn batch<'e>(&self, step: u64, examples: &'e [Example]) -> Vec<&'e Example> {
        self.batches[step as usize].iter().map(|&i| &examples[i]).collect()
    }

    /// How much was trained on.
    pub(crate) fn progress(&self, step: u64, batch: &[&Example]) -> Vec<(String, f64)> {
        let epoch = (step + 1) as f64 * self.epochs as f64 / self.batches.len() as f64;
        vec![
            ("num_tokens".into(), length(batch) as f64),
            ("num_predicted_tokens".into(), targets(batch) as f64),
            ("epoch".into(), epoch),
        ]
    }
}

/// Trains from the newest checkpoint under `checkpoints`, or from `fresh`. Returns the model and whether it is finished
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
    let mut objective = Sft { config, examples, validation };
    fit::run(&config.fit, fresh, &mut objective, checkpoints, text, observer)
}

pub(crate) fn length(batch: &[&Example]) -> usize {
    batch.iter().map(|e| e.tokens.len()).sum()
}

pub(crate) fn targets(batch: &[&Example]) -> usize {
    batch.iter().map(|e| e.targets()).sum()
}

pub(crate) fn packed(part: &[&Example]) -> PackedBatch {
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
    let loss = gradients(model, lanes, batch);
    (loss, fit::update(model, optimizer, lanes, learning_rate, bias_update_speed))
}

fn gradients(model: &Decoder, lanes: &mut Lanes, batch: &[&Example]) -> f64 {
    let count = targets(batch) as f64;
    lanes.begin(0.0);
    let parts = split(batch, |e| e.tokens.len(), lanes.micro_batch_tokens(MICRO_BATCH_TOKENS, length(batch)));
    let losses = lanes
        .run(&parts, |lane, part| packed(part).train_predicting(model, &mut lane.tape, &mut lane.grads, count, 0.0).0);
    losses.iter().sum()
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
