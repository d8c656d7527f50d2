//! How many samples of a worker decode together.
//!
//! Every step reads the weights once and the keys and values of every running sample. More samples share the weights, but as
//! soon as all of that no longer fits into the last-level cache, memory gives the pace.

use crate::request::{EngineConfig, Request};
use aha_kernels::cpu::caches;
use aha_kernels::{BLOCK_TOKENS, Precision};
use aha_model::Decoder;

/// Samples of one worker where the cache does not bound them.
const MOST: usize = 256;
/// Samples that are worth reading the weights for.
const FEWEST: usize = 12;

/// Blocks that a sample may need.
pub(crate) fn blocks_needed(prompt: usize, new: usize) -> usize {
    (prompt + new).div_ceil(BLOCK_TOKENS)
}

/// Samples that run together on each of `workers`.
pub(crate) fn most_running(decoder: &Decoder, requests: &[Request], config: &EngineConfig, workers: usize) -> usize {
    if config.max_running > 0 {
        return config.max_running;
    }
    let Some(cache) = caches::last_level() else { return MOST };
    let weights = match decoder.params.precision() {
        Precision::F32 => decoder.bytes(),
        Precision::Bf16 | Precision::Fp8 => decoder.bytes() / 2,
    };
    let samples: usize = requests.iter().map(|r| r.samples).sum();
    let blocks: usize =
        requests.iter().map(|r| r.samples * blocks_needed(r.prompt.len(), r.params.max_new_tokens)).sum();
    let all = (blocks * decoder.cache_shape().block_bytes()) as u64;
    fitting(cache as u64, weights, all, samples, workers)
}

/// The same from bytes of the cache, of the weights and of all samples' keys and values.
fn fitting(cache: u64, weights: u64, all: u64, samples: usize, workers: usize) -> usize {
    // Activations and other processes want some of it, too.
    let room = cache / 4 * 3;
    if weights > room / 2 || samples == 0 {
        return MOST;
    }
    let each = (all / samples as u64).max(1);
    let most = ((room - weights) / workers as u64 / each).clamp(FEWEST as u64, MOST as u64) as usize;
    // As many in the last round as in the others.
    let share = samples.div_ceil(workers);
    share.div_ceil(share.div_ceil(most))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_fits_into_the_cache_runs_together_in_even_rounds() {
        // 24 - 8 MiB for two workers: 16 samples of 0.5 MiB each.
        assert_eq!(fitting(32 * MIB, 8 * MIB, 32 * MIB, 64, 2), 16);
        // 33 a worker: three rounds of 11.
        assert_eq!(fitting(32 * MIB, 8 * MIB, 33 * MIB, 66, 2), 11);
        // Everything fits, or nothing would.
        assert_eq!(fitting(32 * MIB, 8 * MIB, 6 * MIB, 64, 2), 32);
        assert_eq!(fitting(32 * MIB, 8 * MIB, 900 * MIB, 48, 2), 12);
        assert_eq!(fitting(1024 * MIB, 8 * MIB, 9 * MIB, 900, 2), 225);
        assert_eq!(fitting(1024 * MIB, 8 * MIB, 9 * MIB, 9000, 2), 250);
    }

    #[test]
    fn weights_that_fill_the_cache_are_shared_by_many() {
        assert_eq!(fitting(32 * MIB, 13 * MIB, 32 * MIB, 64, 2), MOST);
        assert_eq!(fitting(32 * MIB, MIB, 0, 0, 2), MOST);
        assert_eq!(fitting(32 * MIB, MIB, 0, 5, 1), 5);
    }
}
