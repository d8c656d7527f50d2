//! Log-probability of target tokens, with temperature, and the entropy of the distribution, straight from hidden states.
//!
//! log p = (z_target - max) / T - ln sum_j exp((z_j - max) / T), z = h W^T. Logits exist for one chunk of rows at a time,
//! never for all tokens: the buffer is bounded by [`CHUNK_BYTES`]. The generator uses [`row`] too, so its bits are the same.

use crate::cpu::{NR, math};
use crate::gradients::{Sum, WeightGradients};
use crate::linear;
use crate::linear_bf16::{self, Piece};
use crate::multiversion;
use crate::par::{self, Shared};
use crate::params::Weight;
use crate::scratch;

/// Upper bound of the logits buffer of a backward chunk.
pub const CHUNK_BYTES: usize = 64 << 20;
/// The same where the backward goes over columns.
const COLUMN_BYTES: usize = 24 << 20;
/// Most panels of the vocabulary at a time: their weights, turned, and their gradient are 22 MB for a width of 896.
const MOST_PANELS: usize = 128;

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

/// Calls `f` with every row's number and logits, some rows at a time on every thread.
fn logits_of_rows(h: &[f32], w: Weight, f: impl Fn(usize, &mut [f32]) + Sync) {
    let (vocab, d) = (w.n, w.k);
    par::ranges(h.len() / d, 24, |range| {
        par::serial(|| {
            scratch::floats(48.min(range.len()) * vocab, |logits| {
                for r0 in range.clone().step_by(48) {
                    let rows = (range.end - r0).min(48);
                    let z = &mut logits[..rows * vocab];
                    linear::forward(z, &h[r0 * d..(r0 + rows) * d], w, false);
                    z.chunks_exact_mut(vocab).enumerate().for_each(|(i, z)| f(r0 + i, z));
                }
            });
        });
    });
}

/// logp `[M]` and entropy `[M]` of targets `[M]` from h `[M, D]` and the output matrix `[V, D]`.
pub fn forward(logp: &mut [f32], entropy: &mut [f32], h: &[f32], w: Weight, targets: &[u32], temperature: f32) {
    let inverse = 1.0 / temperature;
    let (logp, entropy) = (Shared::new(logp), Shared::new(entropy));
    logits_of_rows(h, w, |i, z| {
        let target = z[targets[i] as usize];
        let max = math::max(z);
        let moment = moment(z, max, inverse);
        let stats = row(z, inverse);
        // SAFETY: each task owns its rows.
        unsafe {
            logp.slice(i, 1)[0] = stats.of(target, inverse);
            entropy.slice(i, 1)[0] = stats.log_sum - moment / stats.log_sum.exp();
        }
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

/// Whether the backward of an output matrix goes over its columns: where it is tall and either has no copy for the input
/// gradient or sums its own in bf16. Over rows, the one would be made and the other rounded for every few of them.
pub(crate) fn goes_in_columns(w: Weight, d_w: &Sum) -> bool {
    let bf16 = w.fp8.is_none() && w.quantized.is_none() && w.adapter.is_none() && linear_bf16::is_tall(w.n);
    bf16 && w.packed.is_some_and(|p| !p.is_turned() || matches!(d_w, Sum::Bf16(_) if !d_w.is_empty()))
}

/// [`backward`] over pieces of the vocabulary instead of rows: the largest logit and the sum of every row come first, then each piece of
/// logits is made again, with all rows.
pub(crate) fn backward_columns(
    d_h: &mut [f32],
    (d_w, wide): (&mut Sum, &mut Vec<f32>),
    d_logp: &[f32],
    h: &[f32],
    w: Weight,
    targets: &[u32],
    temperature: f32,
) {
    let (d, packed) = (w.k, w.packed.expect("products run in bf16"));
    let rows: Vec<usize> = (0..targets.len()).filter(|i| d_logp[*i] != 0.0).collect();
    if rows.is_empty() {
        return;
    }
    if rows.len() < targets.len() {
        // Rows without a gradient are left out.
        let mut d_some = vec![0f32; rows.len() * d];
        let h: Vec<f32> = rows.iter().flat_map(|i| &h[i * d..(i + 1) * d]).copied().collect();
        let some: Vec<f32> = rows.iter().map(|i| d_logp[*i]).collect();
        let targets: Vec<u32> = rows.iter().map(|i| targets[*i]).collect();
        backward_columns(&mut d_some, (d_w, wide), &some, &h, w, &targets, temperature);
        for (i, d_row) in rows.iter().zip(d_some.chunks_exact(d)) {
            math::add_assign(&mut d_h[i * d..(i + 1) * d], d_row);
        }
        return;
    }
    let m = rows.len();
    let inverse = 1.0 / temperature;
    let mut stats = vec![(0f32, 0f32); m];
    let shared = Shared::new(&mut stats);
    logits_of_rows(h, w, |i, z| {
        let max = math::max(z);
        // SAFETY: each task owns its rows.
        unsafe { *shared.at(i) = (max, math::exp_sum(z, max, inverse)) };
    });
    let (count, most) = (w.n.div_ceil(NR), COLUMN_BYTES / 4 / NR / m.max(1));
    let step = most.clamp(1, MOST_PANELS);
    for first in (0..count).step_by(step) {
        let range = first..(first + step).min(count);
        let piece = Piece::new(packed, range.clone(), w.n, d);
        let (begin, width) = (first * NR, piece.width());
        scratch::floats(m * width, |z| {
            piece.forward(z, h);
            let shared = Shared::new(z);
            par::ranges(m, (1_usize << 14).div_ceil(width), |rows| {
                for i in rows {
                    // SAFETY: each task owns its rows.
                    let z = unsafe { shared.slice(i * width, width) };
                    let (g, (max, sum)) = (d_logp[i] * inverse, stats[i]);
                    math::exp_sum(z, max, inverse);
                    math::scale(z, -g / sum);
                    if let Some(z) = (targets[i] as usize).checked_sub(begin).and_then(|at| z.get_mut(at)) {
                        *z += g;
                    }
                }
            });
            piece.backward_input(d_h, z);
            if !d_w.is_empty() {
                d_w.with(range.start * NR * d..range.end * NR * d, wide, |d_w| {
                    linear_bf16::backward_weight(d_w, &*z, h, width, d);
                });
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradients::{GradientType, Gradients};
    use crate::linear::tests::noise;
    use crate::params::{Layout, ParamId, ParamStore, Precision};

    #[test]
    fn over_columns_the_gradients_are_those_over_rows() {
        let (n, k, m, temperature) = (20_011, 48, 70, 0.7);
        let mut params = ParamStore::default();
        params.add("lm_head.weight", Layout::Panels { n, k }, noise(n * k, 1));
        params.set_precision(Precision::Bf16, true);
        let (id, h, begin) = (ParamId(0), noise(m * k, 2), noise(m * k, 3));
        let targets: Vec<u32> = (0..m as u32).map(|i| i * 7919 % n as u32).collect();
        let all: Vec<f32> = (0..m).map(|i| (i as f32 * 0.7 + 0.1).sin()).collect();
        let some: Vec<f32> = all.iter().enumerate().map(|(i, g)| if i % 5 == 0 { 0.0 } else { *g }).collect();
        let mut split = params.clone();
        split.master_weights(crate::MasterWeights::Split);
        for d_logp in [all, some] {
            let mut rows = Gradients::new(&params);
            let mut d_h = begin.clone();
            let w = params.weight(id);
            assert!(!goes_in_columns(w, rows.sum(id)), "with a copy for the input gradient and f32 it goes over rows");
            rows.with_weight(&params, id, |d_w| backward(&mut d_h, d_w, &d_logp, &h, w, &targets, temperature));
            let size = d_h.iter().zip(&begin).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            let largest = rows.get(id).iter().fold(0.0, |m: f32, v| m.max(v.abs()));
            for (store, numbers, unit) in
                [(&split, GradientType::F32, 1e-6), (&params, GradientType::Bf16, 1.0 / 127.0)]
            {
                let w = store.weight(id);
                let mut columns = Gradients::in_numbers(store, numbers);
                assert!(goes_in_columns(w, columns.sum(id)));
                let mut found = begin.clone();
                backward_columns(&mut found, columns.sum_mut(id), &d_logp, &h, w, &targets, temperature);
                for (a, b) in found.iter().zip(&d_h) {
                    assert!((a - b).abs() <= 2e-3 * size, "{a} {b}");
                }
                for (a, b) in columns.values(id).iter().zip(rows.get(id)) {
                    assert!((a - b).abs() <= b.abs() * unit + 1e-3 * largest, "{a} {b}");
                }
            }
        }
    }
}
