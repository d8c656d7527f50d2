//! Drawing a token from a row of logits.

use crate::request::SamplingParams;
use aha_kernels::cpu::math;
use aha_kernels::{logprob, multiversion};
use std::cell::RefCell;

/// Weights that are summed before the running total sees them.
const BLOCK: usize = 64;

thread_local! {
    /// Logits of the row in hand, kept because drawing destroys them.
    static ORIGINALS: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// A uniform number in [0, 1) that is a function of (seed, sample, position) alone (splitmix64).
pub fn uniform(seed: u64, sample: u64, position: u64) -> f64 {
    let mut z = mix(seed ^ mix(sample ^ mix(position)));
    z = mix(z);
    (z >> 11) as f64 / (1u64 << 53) as f64
}

/// One round of splitmix64; also used to derive seeds.
pub fn mix(x: u64) -> u64 {
    let mut z = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Draws a token with a uniform number; returns it and its log-probability under the full distribution at the sampling
/// temperature. Destroys the logits.
pub fn sample(logits: &mut [f32], params: &SamplingParams, uniform: f64) -> (u32, f32) {
    if params.temperature == 0.0 {
        let token = argmax(logits);
        let logit = logits[token];
        return (token as u32, logprob::row(logits, 1.0).of(logit, 1.0));
    }
    let inverse = 1.0 / params.temperature;
    let restricted = params.top_p < 1.0 || params.top_k > 0;
    ORIGINALS.with_borrow_mut(|originals| {
        originals.clear();
        originals.extend_from_slice(logits);
        let stats = logprob::row(logits, inverse);
        let token = if restricted { draw_restricted(logits, params, uniform) } else { draw(logits, uniform) };
        (token as u32, stats.of(originals[token], inverse))
    })
}

fn argmax(x: &[f32]) -> usize {
    let max = math::max(x);
    x.iter().position(|v| *v == max).unwrap_or(0)
}

multiversion! {
    fn block_sum(weights: &[f32]) -> f64 {
        let mut lanes = [0f64; 8];
        let chunks = weights.chunks_exact(8);
        let tail = chunks.remainder();
        for c in chunks { for i in 0..8 { lanes[i] += f64::from(c[i]); } }
        for (i, w) in tail.iter().enumerate() { lanes[i] += f64::from(*w); }
        lanes.iter().sum()
    }
}

/// Inverse of the cumulative distribution over unnormalised probabilities, summed in blocks in f64.
pub(crate) fn draw(weights: &[f32], uniform: f64) -> usize {
    let total: f64 = weights.chunks(BLOCK).map(block_sum).sum();
    let mut left = uniform * total;
    let mut last = 0;
    for (b, block) in weights.chunks(BLOCK).enumerate() {
        let sum = block_sum(block);
        if sum > 0.0 {
            last = b;
            if left < sum {
                break;
            }
            left -= sum;
        }
    }
    let block = &weights[last * BLOCK..weights.len().min((last + 1) * BLOCK)];
    let mut chosen = 0;
    for (i, w) in block.iter().enumerate().filter(|(_, w)| **w > 0.0) {
        chosen = i;
        left -= f64::from(*w);
        if left < 0.0 {
            break;
        }
    }
    last * BLOCK + chosen
}

/// Puts zero on all but the most likely tokens (top-k, then top-p).
pub(crate) fn restrict(weights: &mut [f32], params: &SamplingParams) {
    if params.top_p < 1.0 || params.top_k > 0 {
        for token in most_likely(weights, params).1 {
            weights[token] = 0.0;
        }
    }
}

/// The same over the most likely tokens (top-k, then top-p).
fn draw_restricted(weights: &[f32], params: &SamplingParams, uniform: f64) -> usize {
    let (kept, _) = most_likely(weights, params);
    let chosen: Vec<f32> = kept.iter().map(|i| weights[*i]).collect();
    kept[draw(&chosen, uniform)]
}

/// The most likely tokens, most likely first, and the others.
fn most_likely(weights: &[f32], params: &SamplingParams) -> (Vec<usize>, Vec<usize>) {
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_unstable_by(|a, b| weights[*b].total_cmp(&weights[*a]).then(a.cmp(b)));
    let total: f64 = weights.iter().map(|w| f64::from(*w)).sum();
    let mut kept = if params.top_k > 0 { params.top_k.min(order.len()) } else { order.len() };
    let mut mass = 0.0;
    for (i, token) in order[..kept].iter().enumerate() {
        mass += f64::from(weights[*token]) / total;
        if mass >= f64::from(params.top_p) {
            kept = i + 1;
            break;
        }
    }
    let others = order.split_off(kept);
    (order, others)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_follow_the_distribution_and_log_probabilities_are_exact() {
        let logits = [1.0f32, 0.0, -1.0, 2.5];
        for temperature in [1.0, 0.7] {
            let z: Vec<f64> = logits.iter().map(|v| (f64::from(*v) / f64::from(temperature)).exp()).collect();
            let total: f64 = z.iter().sum();
            let params = SamplingParams { temperature, ..SamplingParams::default() };
            let mut counts = [0f64; 4];
            for i in 0..20_000 {
                let (token, logp) = sample(&mut logits.clone(), &params, uniform(7, i, 3));
                counts[token as usize] += 1.0;
                assert!((f64::from(logp) - (z[token as usize] / total).ln()).abs() < 1e-5);
            }
            for (count, z) in counts.iter().zip(&z) {
                assert!((count / 20_000.0 - z / total).abs() < 0.015, "{counts:?}");
            }
        }
    }

    #[test]
    fn greedy_top_k_and_top_p_keep_what_they_should() {
        let logits = [1.0f32, 0.0, -1.0, 2.5];
        let base = SamplingParams::default();
        let greedy = SamplingParams { temperature: 0.0, ..base.clone() };
        assert_eq!(sample(&mut logits.clone(), &greedy, 0.99).0, 3);
        for i in 0..500 {
            let u = uniform(1, i, 0);
            assert_eq!(sample(&mut logits.clone(), &SamplingParams { top_k: 1, ..base.clone() }, u).0, 3);
            let two = sample(&mut logits.clone(), &SamplingParams { top_p: 0.85, ..base.clone() }, u).0;
            assert!(two == 3 || two == 0);
        }
    }

    #[test]
    fn uniform_depends_on_every_argument() {
        let a = uniform(1, 2, 3);
        assert_eq!(a, uniform(1, 2, 3));
        assert!(a != uniform(2, 2, 3) && a != uniform(1, 3, 3) && a != uniform(1, 2, 4));
    }
}
