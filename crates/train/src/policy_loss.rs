//! The GRPO objective and its relatives as one pure function of log-probabilities, with the gradient by hand.
//!
//! For one loss token with `r = pi / pi_old`, `R = pi_ref / pi` and its sequence's advantage `A`:
//!
//! ```text
//! loss_t      = -min(r A, clip(r, 1 - epsilon, 1 + epsilon_high) A) + beta (R - ln R - 1)
//! d_logprob_t = -A r [not clipped]                                  + beta (1 - R)
//! ```
//!
//! (DeepSeekMath eqs. 3-4 and 20-21; DeepSeek-R1 eqs. 1-2.) The loss types differ in the weight of a token:
//!
//! | type | weight of a token | source |
//! |---|---|---|
//! | `Grpo` | 1 / (sequences * tokens of its sequence) | DeepSeekMath eq. 3 |
//! | `DrGrpo` | 1 / (sequences * max_completion_length) | Dr. GRPO, arXiv 2503.20783 |
//! | `Dapo` | 1 / tokens of the window | DAPO, arXiv 2503.14476, eq. 8 |
//! | `Gspo` | as `Grpo`, with one ratio per sequence, `exp(mean of ln r)` | GSPO, arXiv 2507.18071 |
//! | `Cispo` | as `Dapo`, with `-sg(min(r, 1 + epsilon_high)) A logprob` | MiniMax-M1, arXiv 2506.13585 |
//!
//! Sequences and tokens are those of the whole optimizer window (see [`Normaliser`]) and count only what is not masked.
//! The bound of CISPO is relative, `1 + epsilon_high`, as in verl, NeMo-RL and the paper; TRL's `epsilon_high` is the
//! absolute bound, so TRL's 5.0 is 4.0 here. There is no lower bound: the paper sets it out of reach.
//!
//! `ln r` is bounded to +-20 before `exp`, with no gradient beyond, as in verl and OpenRLHF.

use serde::{Deserialize, Serialize};

use crate::grpo_error::GrpoError;
use crate::kl::{MAX_LOG_RATIO, k3, k3_with_gradient};
use crate::loss_metrics::LossMetrics;
use crate::normaliser::{Normaliser, loss_tokens};

/// Which relative of GRPO. Names as in TRL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossType {
    /// Mean over sequences of the mean over tokens.
    #[default]
    Grpo,
    /// Sum over tokens, divided by a constant that no length can change.
    DrGrpo,
    /// Mean over all tokens of the window.
    Dapo,
    /// One importance ratio per sequence.
    Gspo,
    /// A bounded, detached importance weight: no token loses its gradient.
    Cispo,
}

/// Settings of the loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PolicyLossConfig {
    /// Which loss.
    pub loss_type: LossType,
    /// KL coefficient; 0 for no KL term.
    pub beta: f64,
    /// The clip keeps ratios above `1 - epsilon`; 1 or more never binds there.
    pub epsilon: f64,
    /// ... and below `1 + epsilon_high`.
    pub epsilon_high: f64,
    /// With a negative advantage the loss stays below `-dual_clip * A` (dual-clip PPO; 3 is usual). `None`: off.
    pub dual_clip: Option<f64>,
    /// The constant of `DrGrpo`, in tokens; not used by the others.
    pub max_completion_length: usize,
}

/// A micro-batch of S sequences with T tokens in a row; every sequence lies in one micro-batch as a whole.
#[derive(Clone, Copy, Debug)]
pub struct TokenBatch<'a> {
    /// `[T]` log-probabilities under the policy that is being trained, in nats.
    pub logprobs: &'a [f32],
    /// `[T]` under the policy that sampled; pass `logprobs` itself when there is one update per generation.
    pub old_logprobs: &'a [f32],
    /// `[T]` under the reference model; needed when `beta > 0`, otherwise only measured.
    pub ref_logprobs: Option<&'a [f32]>,
    /// `[S + 1]` offsets of the sequences.
    pub cu_seqlens: &'a [usize],
    /// `[S]` advantages.
    pub advantages: &'a [f32],
    /// `[T]` true for loss tokens: the completion with its end-of-sequence token. Never derived from token values.
    pub token_mask: &'a [bool],
    /// `[S]` false for sequences left out (no reward, or truncated ones when these are masked).
    pub sequence_mask: &'a [bool],
}

/// A micro-batch's share of the window's loss, its gradient and what happened.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyLoss {
    /// Share of the window's loss: the shares of all micro-batches add up to it.
    pub loss: f64,
    /// `[T]` derivative of the window's loss with respect to each log-probability; exactly 0 where masked.
    pub d_logprobs: Vec<f32>,
    /// Sums for the log.
    pub metrics: LossMetrics,
}

impl PolicyLossConfig {
    fn check(&self) -> Result<(), GrpoError> {
        let bad = |name, value, wanted| Err(GrpoError::Setting { name, value, wanted });
        if !(self.beta.is_finite() && self.beta >= 0.0) {
            return bad("beta", self.beta, "0 or more");
        }
        if !(self.epsilon.is_finite() && self.epsilon >= 0.0) {
            return bad("epsilon", self.epsilon, "0 or more");
        }
        if !(self.epsilon_high.is_finite() && self.epsilon_high >= 0.0) {
            return bad("epsilon_high", self.epsilon_high, "0 or more");
        }
        if let Some(bound) = self.dual_clip.filter(|bound| !(bound.is_finite() && *bound > 1.0)) {
            return bad("dual_clip", bound, "above 1");
        }
        if self.loss_type == LossType::DrGrpo && self.max_completion_length == 0 {
            return bad("max_completion_length", 0.0, "at least 1 for loss_type dr_grpo");
        }
        Ok(())
    }
}

/// The loss of a micro-batch and its gradient with respect to every log-probability.
///
/// Each token's gradient depends on its own sequence and on `window` only, so it is the same to the bit however the
/// window is split and ordered. A fully masked window has loss 0 and gradient 0.
///
/// # Errors
/// Slices that do not agree, log-probabilities of loss tokens or advantages that are not finite, `beta > 0` without a
/// reference, settings out of range, a micro-batch that `window` has not counted.
pub fn policy_loss(
    batch: &TokenBatch<'_>,
    config: &PolicyLossConfig,
    window: &Normaliser,
) -> Result<PolicyLoss, GrpoError> {
    config.check()?;
    check_batch(batch, config, window)?;
    let mut metrics = LossMetrics {
        kl_sum: batch.ref_logprobs.map(|_| 0.0),
        cispo_clipped: (config.loss_type == LossType::Cispo).then_some(0),
        ..LossMetrics::default()
    };
    let mut d_logprobs = vec![0.0; batch.logprobs.len()];
    for (s, bounds) in batch.cu_seqlens.windows(2).enumerate() {
        let length = loss_tokens(&batch.token_mask[bounds[0]..bounds[1]], batch.sequence_mask[s]);
        if length == 0 {
            continue;
        }
        let weight = match config.loss_type {
            LossType::Grpo | LossType::Gspo => 1.0 / (window.sequences() as f64 * length as f64),
            LossType::DrGrpo => 1.0 / (window.sequences() as f64 * config.max_completion_length as f64),
            LossType::Dapo | LossType::Cispo => 1.0 / window.tokens() as f64,
        };
        let tokens = || (bounds[0]..bounds[1]).filter(|&t| batch.token_mask[t]);
        let log_ratio = |t: usize| f64::from(batch.logprobs[t]) - f64::from(batch.old_logprobs[t]);
        let advantage = f64::from(batch.advantages[s]);
        metrics.sequences += 1;
        metrics.tokens += length;

        let sequence_term = (config.loss_type == LossType::Gspo).then(|| {
            let mean = tokens().map(log_ratio).sum::<f64>() / length as f64;
            surrogate(mean, 0.0, advantage, config, &mut metrics)
        });
        for t in tokens() {
            let logprob = f64::from(batch.logprobs[t]);
            let (value, slope) =
                sequence_term.unwrap_or_else(|| surrogate(log_ratio(t), logprob, advantage, config, &mut metrics));
            let (mut kl, mut kl_slope) = (0.0, 0.0);
            if let Some(ref_logprobs) = batch.ref_logprobs {
                let reference = f64::from(ref_logprobs[t]);
                metrics.kl_sum = metrics.kl_sum.map(|sum| sum + k3(logprob, reference));
                (kl, kl_slope) = k3_with_gradient(logprob, reference);
            }
            metrics.policy_loss += weight * value;
            metrics.kl_loss += weight * config.beta * kl;
            metrics.old_kl_sum -= log_ratio(t);
            d_logprobs[t] = (weight * (slope + config.beta * kl_slope)) as f32;
        }
    }
    Ok(PolicyLoss { loss: metrics.policy_loss + metrics.kl_loss, d_logprobs, metrics })
}

/// The policy-gradient term of one token (or, for GSPO, of one sequence, spread evenly over its tokens) and its
/// derivative with respect to the log-probability.
///
/// For GSPO the value belongs to every token with weight 1 / length and the ratio's derivative with respect to one
/// log-probability carries 1 / length too, so the same (value, slope) serves both cases.
fn surrogate(
    log_ratio: f64,
    logprob: f64,
    advantage: f64,
    config: &PolicyLossConfig,
    metrics: &mut LossMetrics,
) -> (f64, f64) {
    let bounded = log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO);
    let ratio = bounded.exp();
    metrics.ratios += 1;
    metrics.ratio_sum += ratio;
    metrics.ratio_min = metrics.ratio_min.min(ratio);
    metrics.ratio_max = metrics.ratio_max.max(ratio);
    let high = 1.0 + config.epsilon_high;
    if config.loss_type == LossType::Cispo {
        let clipped = ratio > high && advantage > 0.0;
        metrics.cispo_clipped = metrics.cispo_clipped.map(|n| n + usize::from(clipped));
        let slope = -ratio.min(high) * advantage;
        return (slope * logprob, slope);
    }
    let low = 1.0 - config.epsilon;
    if advantage > 0.0 && ratio > high {
        metrics.clipped_high += 1;
        return (-high * advantage, 0.0);
    }
    if advantage < 0.0 && ratio < low {
        metrics.clipped_low += 1;
        return (-low * advantage, 0.0);
    }
    if let Some(bound) = config.dual_clip.filter(|&bound| advantage < 0.0 && ratio > bound) {
        metrics.clipped_dual += 1;
        return (-bound * advantage, 0.0);
    }
    let value = -ratio * advantage;
    (value, if bounded == log_ratio { value } else { 0.0 })
}

fn check_batch(batch: &TokenBatch<'_>, config: &PolicyLossConfig, window: &Normaliser) -> Result<(), GrpoError> {
    let tokens = batch.logprobs.len();
    let sequences = batch.advantages.len();
    let same = |what, found, wanted, why| {
        if found == wanted { Ok(()) } else { Err(GrpoError::Length { what, found, wanted, why }) }
    };
    same("old_logprobs", batch.old_logprobs.len(), tokens, "as many as logprobs")?;
    same("token_mask", batch.token_mask.len(), tokens, "as many as logprobs")?;
    same("sequence_mask", batch.sequence_mask.len(), sequences, "as many as advantages")?;
    if let Some(ref_logprobs) = batch.ref_logprobs {
        same("ref_logprobs", ref_logprobs.len(), tokens, "as many as logprobs")?;
    } else if config.beta > 0.0 {
        return Err(GrpoError::NoReference { beta: config.beta });
    }
    let mut own = Normaliser::default();
    own.add(batch.cu_seqlens, batch.token_mask, batch.sequence_mask)?;
    if own.tokens() > window.tokens() || own.sequences() > window.sequences() {
        return Err(GrpoError::OutsideWindow {
            tokens: own.tokens(),
            sequences: own.sequences(),
            window_tokens: window.tokens(),
            window_sequences: window.sequences(),
        });
    }
    for (s, bounds) in batch.cu_seqlens.windows(2).enumerate().filter(|&(s, _)| batch.sequence_mask[s]) {
        let finite = |what, index, value: f32, hint| {
            if value.is_finite() {
                Ok(())
            } else {
                Err(GrpoError::NotFinite { what, index, value: f64::from(value), hint })
            }
        };
        finite("advantages", s, batch.advantages[s], "")?;
        for t in (bounds[0]..bounds[1]).filter(|&t| batch.token_mask[t]) {
            finite("logprobs", t, batch.logprobs[t], "; the policy may have diverged")?;
            finite("old_logprobs", t, batch.old_logprobs[t], "; score the tokens with the trainer's own model")?;
            if let Some(ref_logprobs) = batch.ref_logprobs {
                finite("ref_logprobs", t, ref_logprobs[t], "")?;
            }
        }
    }
    Ok(())
}
