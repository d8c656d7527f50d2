//! The acceptance rule of speculative sampling (Leviathan et al. 2023, algorithm 1): a token drafted from q is kept with
//! probability min(1, p / q), else another is drawn from the normalised max(p - q, 0). The result is distributed as p. Greedy
//! decoding is the case of distributions with one token: kept if it is the most likely one.

use crate::request::SamplingParams;
use crate::sampler::{draw, restrict};
use aha_kernels::cpu::math;
use aha_kernels::logprob::{self, RowLogprob};

/// Streams of random numbers beside the one tokens are drawn with.
const DRAFT_STREAM: u64 = 0x6472_6166_7400_0001;
const ACCEPT_STREAM: u64 = 0x6163_6365_7074_0002;

/// Seed of the stream that drafts are drawn with.
pub(crate) fn draft_seed(seed: u64) -> u64 {
    seed ^ DRAFT_STREAM
}

/// Seed of the stream that decides on drafts.
pub(crate) fn accept_seed(seed: u64) -> u64 {
    seed ^ ACCEPT_STREAM
}

/// What tokens are drawn from: unnormalised probabilities, zero for tokens that the settings rule out.
pub(crate) struct Distribution {
    weights: Vec<f32>,
    total: f64,
}

impl Distribution {
    /// Of logits at these settings.
    pub(crate) fn new(logits: &[f32], params: &SamplingParams) -> Self {
        let mut weights = logits.to_vec();
        if params.temperature == 0.0 {
            let max = math::max(logits);
            let best = logits.iter().position(|v| *v == max).unwrap_or(0);
            weights.fill(0.0);
            weights[best] = 1.0;
        } else {
            logprob::row(&mut weights, 1.0 / params.temperature);
            restrict(&mut weights, params);
        }
        let total = weights.iter().map(|w| f64::from(*w)).sum();
        Distribution { weights, total }
    }

    fn probability(&self, token: usize) -> f64 {
        f64::from(self.weights[token]) / self.total
    }

    /// A token, from a uniform number.
    pub(crate) fn draw(&self, uniform: f64) -> u32 {
        draw(&self.weights, uniform) as u32
    }

    /// Decides on a token drafted from `q`: none if it is kept, else the one in its place.
    pub(crate) fn replace(&self, token: u32, q: &Distribution, decide: f64, uniform: f64) -> Option<u32> {
        let token = token as usize;
        if decide * q.probability(token) < self.probability(token) {
            return None;
        }
        let left: Vec<f32> =
            (0..self.weights.len()).map(|i| (self.probability(i) - q.probability(i)).max(0.0) as f32).collect();
        // Nothing left: p and q differ by rounding alone.
        let none = left.iter().all(|w| *w == 0.0);
        Some(if none { self.draw(uniform) } else { draw(&left, uniform) as u32 })
    }
}

/// Log-probability of a token under the full distribution at the sampling temperature (1 when greedy), as the trainer has it.
pub(crate) fn logprob_of(logits: &[f32], token: u32, params: &SamplingParams) -> f32 {
    let inverse = if params.temperature == 0.0 { 1.0 } else { 1.0 / params.temperature };
    let stats: RowLogprob = logprob::row(&mut logits.to_vec(), inverse);
    stats.of(logits[token as usize], inverse)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampler::uniform;

    #[test]
    fn kept_and_replaced_tokens_together_are_distributed_as_the_model_says() {
        let (p, q) = ([1.0f32, 0.0, -1.0, 2.5, 0.3], [0.2f32, 1.5, -1.0, 2.0, -3.0]);
        let settings = [
            SamplingParams { temperature: 0.8, ..SamplingParams::default() },
            SamplingParams { top_k: 3, ..SamplingParams::default() },
            SamplingParams { top_p: 0.9, ..SamplingParams::default() },
            SamplingParams { temperature: 0.0, ..SamplingParams::default() },
        ];
        for params in settings {
            let (target, draft) = (Distribution::new(&p, &params), Distribution::new(&q, &params));
            let (mut counts, mut kept) = ([0f64; 5], 0.0);
            let n = 40_000;
            for i in 0..n {
                let token = draft.draw(uniform(draft_seed(3), i, 0));
                let replaced = target.replace(token, &draft, uniform(accept_seed(3), i, 0), uniform(3, i, 0));
                kept += f64::from(u8::from(replaced.is_none()));
                counts[replaced.unwrap_or(token) as usize] += 1.0;
            }
            let mut overlap = 0.0;
            for (i, count) in counts.iter().enumerate() {
                let want = target.probability(i);
                assert!((count / n as f64 - want).abs() < 0.012, "{params:?}: {counts:?}");
                overlap += want.min(draft.probability(i));
            }
            assert!((kept / n as f64 - overlap).abs() < 0.012, "the share kept is the overlap: {kept} {overlap}");
        }
    }
}
