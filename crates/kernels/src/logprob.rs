//! Log-probability of target tokens, with temperature, and the entropy of the distribution, straight from hidden states.
//!
//! log p = (z_target - max) / T - ln sum_j exp((z_j - max) / T), z = h W^T. Logits exist for one chunk of rows at a time,
//! never for all tokens: the buffer is bounded by [`CHUNK_BYTES`]. The generator uses [`row`] too, so its bits are the same.

use crate::cpu::math;
use crate::gradients::WeightGradients;
use crate::linear;
use crate::multiversion;
use crate::par::{self, Shared};
use crate::params::Weight;
use crate::scratch;

/// Upper bound of the logits buffer of a backward chunk.
pub const CHUNK_BYTES: usize = 64 << 20;

multiversion! {
    /// Sum of s exp(s) over s = (x - max) scale.
    fn moment(x: &[f32], max: f32, scale: f32) -> f32 {
        let mut first = [0f32; math::LANES];
        let chunks = x.chunks_exact(math::LANES);
        let tail = chunks.remainder();
        for c in chunks {
            for i in 0..math::LANES {
                let s = (c[i] - max) * scale;
                first[i] = s.mul_add(math::exp(s), first[i]);
            }
        }
        for (f, v) in first.iter_mut().zip(tail) {
            let s = (*v - max) * scale;
            *f = s.mul_add(math::exp(s), *f);
        }
        first.iter().sum()
    }
}

/// What a row of logits says about one token.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RowLogprob {
    /// Largest logit.
    pub max: f32,
    /// ln of the sum of exponentials of (z - max) / T.
    pub log_sum: f32,
}

/// Turns a row of logits into unnormalised probabilities exp((z - max) / T); returns max and log-sum.
pub fn row(logits: &mut [f32], inverse_temperature: f32) -> RowLogprob {
    let max = math::max(logits);
    let sum = math::exp_sum(logits, max, inverse_temperature);
    RowLogprob { max, log_sum: sum.ln() }
}

impl RowLogprob {
    /// Log-probability of a token with this logit.
    pub fn of(&self, logit: f32, inverse_temperature: f32) -> f32 {
        (logit - self.max) * inverse_temperature - self.log_sum
    }
}

/// logp `[M]` and entropy `[M]` of targets `[M]` from h `[M, D]` and the output matrix `[V, D]`.
pub fn forward(logp: &mut [f32], entropy: &mut [f32], h: &[f32], w: Weight, targets: &[u32], temperature: f32) {
    let m = targets.len();
    let (vocab, d) = (w.n, w.k);
    let inverse = 1.0 / temperature;
    let (logp, entropy) = (Shared::new(logp), Shared::new(entropy));
    par::ranges(m, 24, |range| {
        par::serial(|| {
            scratch::floats(48.min(range.len()) * vocab, |logits| {
                for r0 in range.clone().step_by(48) {
                    let rows = (range.end - r0).min(48);
                    let z = &mut logits[..rows * vocab];
                    linear::forward(z, &h[r0 * d..(r0 + rows) * d], w, false);
                    for (i, z) in z.chunks_exact_mut(vocab).enumerate() {
                        let target = z[targets[r0 + i] as usize];
                        let max = math::max(z);
                        let moment = moment(z, max, inverse);
                        let stats = row(z, inverse);
                        // SAFETY: each task owns its rows.
                        unsafe {
                            logp.slice(r0 + i, 1)[0] = stats.of(target, inverse);
                            entropy.slice(r0 + i, 1)[0] = stats.log_sum - moment / stats.log_sum.exp();
                        }
                    }
                }
            });
        });
    });
}

/// Gradients of sum(d_logp * logp): d_h +=, and those of the output matrix and its adapter where they are wanted.
pub fn backward(
    d_h: &mut [f32],
    d_w: &mut WeightGradients,
    d_logp: &[f32],
    h: &[f32],
    w: Weight,
    targets: &[u32],
    temperature: f32,
) {
    let m = targets.len();
    let (vocab, d) = (w.n, w.k);
    let inverse = 1.0 / temperature;
    let chunk = (CHUNK_BYTES / (vocab * 4)).clamp(16, 4096).min(m.max(1));
    for r0 in (0..m).step_by(chunk) {
        let rows = (m - r0).min(chunk);
        if d_logp[r0..r0 + rows].iter().all(|g| *g == 0.0) {
            continue;
        }
        scratch::floats(rows * vocab, |z| {
            let h = &h[r0 * d..(r0 + rows) * d];
            linear::forward(z, h, w, false);
            let shared = Shared::new(z);
            par::ranges(rows, (1_usize << 14).div_ceil(vocab), |range| {
                for i in range {
                    // SAFETY: each task owns its rows.
                    let z = unsafe { shared.slice(i * vocab, vocab) };
                    let max = math::max(z);
                    let sum = math::exp_sum(z, max, inverse);
                    let g = d_logp[r0 + i] * inverse;
                    math::scale(z, -g / sum);
                    z[targets[r0 + i] as usize] += g;
                }
            });
            linear::backward(&mut d_h[r0 * d..(r0 + rows) * d], d_w, z, h, w, true);
        });
    }
}
