//! Training of reward models (DeepSeek-R1, section 3.1 and B.2 of the long version): a decoder with one score on its last token,
//! pairwise for helpfulness, pointwise for safety. What of a response the model reads is decided where examples are made.

use crate::fit::{Accumulated, Objective};
use crate::lanes::Lanes;
use crate::pretrain::{MICRO_BATCH_TOKENS, split};
use crate::reward_loss::{label_loss, pair_loss};
use crate::{PackedBatch, TrainError};
use aha_engine::reward;
use aha_kernels::Tape;
use aha_model::Decoder;

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

/// Reward modelling as an objective of [`crate::fit`].
pub struct Rewarding<'a> {
    /// What each step trains on, by number: see [`crate::sft::batches`].
    pub batches: Vec<Vec<usize>>,
    /// Passes over the examples that `batches` are, for the metric `epoch`.
    pub epochs: u64,
    /// What is trained on.
    pub examples: &'a [Preference],
    /// What is only measured.
    pub held_out: &'a [Preference],
    /// Factor on the squared sum of a pair's scores.
    pub centering: f64,
    /// Scores of `held_out` at the last validation; empty before the first.
    pub scores: Vec<f32>,
}

impl Objective for Rewarding<'_> {
    fn accumulate(&mut self, step: u64, model: &Decoder, lanes: &mut Lanes) -> Result<Accumulated, TrainError> {
        let batch: Vec<&Preference> = self.batches[step as usize].iter().map(|&i| &self.examples[i]).collect();
        let found = accumulate(model, lanes, &batch, self.centering);
        let tokens = batch.iter().map(|e| e.len()).sum();
        let metrics = vec![
            ("accuracy".into(), found.accuracy),
            ("score_mean".into(), found.mean),
            ("num_tokens".into(), tokens as f64),
            ("epoch".into(), (step + 1) as f64 * self.epochs as f64 / self.batches.len() as f64),
        ];
        Ok(Accumulated { loss: found.loss, tokens, metrics, rollouts: Vec::new() })
    }

    fn validate(&mut self, model: &Decoder, _: &mut Tape) -> Result<Vec<(String, f64)>, TrainError> {
        let sequences: Vec<&[u32]> = self.held_out.iter().flat_map(Preference::sequences).collect();
        let scores = reward(model, &sequences)?;
        let (mut loss, mut at) = (0.0, 0);
        for example in self.held_out {
            let mut d_scores = Vec::new();
            loss += example.loss(&scores[at..], 0.0, &mut d_scores, 1.0);
            at += d_scores.len();
        }
        let (right, judged) = agreement(self.held_out.iter(), &scores);
        self.scores = scores;
        Ok(vec![
            ("eval_loss".into(), loss / self.held_out.len().max(1) as f64),
            ("eval_accuracy".into(), right as f64 / judged.max(1) as f64),
        ])
    }
}

/// What a step measures, before its update.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Found {
    /// Mean loss over the examples, in nats.
    pub loss: f64,
    /// Share of examples whose better side has the higher score; ties do not count.
    pub accuracy: f64,
    /// Mean score.
    pub mean: f64,
}

/// Makes the gradients of the mean loss over all examples of a batch.
pub fn accumulate(model: &Decoder, lanes: &mut Lanes, batch: &[&Preference], centering: f64) -> Found {
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
    let (right, judged) = agreement(batch.iter().copied(), &scores);
    Found {
        loss: done.iter().map(|(loss, _)| loss).sum::<f64>() / count,
        accuracy: right as f64 / judged.max(1) as f64,
        mean: scores.iter().map(|s| f64::from(*s)).sum::<f64>() / scores.len().max(1) as f64,
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
