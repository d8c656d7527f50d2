//! Several sources of documents mixed by weight, as a function of the document's number alone.
//!
//! Weights are shares of text: document i comes from source s with probability proportional to weight / mean length. Inside a
//! source, documents come in an order shuffled anew in every pass; none comes twice in a pass. Some documents of each source
//! are held out for validation and never trained on.

use crate::DataError;
use crate::corpus::{CorpusConfig, document};
use crate::store::TextStore;
use aha_tasks::mini::Rng;
use std::ops::Range;
use std::sync::Mutex;

/// Held-out documents of the generated corpus come from a stream of their own.
const HELD_OUT_SEED: u64 = 0x7a11_da7e;
/// Documents that the mean length of the generated corpus is measured on.
const MEASURED: u64 = 256;

/// Where documents come from.
#[derive(Debug)]
pub enum Origin {
    /// The generated miniature corpus; it has no end.
    Generated(Box<CorpusConfig>),
    /// Documents on disk.
    Store(TextStore),
}

#[derive(Debug)]
struct Source {
    origin: Origin,
    /// Share of documents up to and including this source.
    until: f64,
    held_out: u64,
}

/// The mixture.
#[derive(Debug)]
pub struct Mixture {
    seed: u64,
    sources: Vec<Source>,
    /// How many documents each source gave before document number `.0`: saves counting from the beginning.
    cursor: Mutex<(u64, Vec<u64>)>,
}

impl Mixture {
    /// Sources with their weights; about `held_out` documents are kept for validation, at most a tenth of a source on disk.
    ///
    /// # Panics
    /// When there is no source or a weight is not above 0.
    pub fn new(seed: u64, sources: Vec<(Origin, f64)>, held_out: u64) -> Self {
        assert!(!sources.is_empty() && sources.iter().all(|s| s.1 > 0.0), "a mixture has sources with weights");
        let rates: Vec<f64> = sources.iter().map(|(origin, weight)| weight / mean_bytes(origin).max(1.0)).collect();
        let total: f64 = rates.iter().sum();
        let mut until = 0.0;
        let counts = vec![0; sources.len()];
        let sources = sources.into_iter().zip(rates).map(|((origin, _), rate)| {
            until += rate / total;
            let wanted = (held_out as f64 * rate / total).ceil() as u64;
            let held_out = match &origin {
                Origin::Generated(_) => wanted,
                Origin::Store(store) => wanted.min(store.len() / 10),
            };
            Source { origin, until, held_out }
        });
        Mixture { seed, sources: sources.collect(), cursor: Mutex::new((0, counts)) }
    }

    /// The source of document `i`.
    fn source(&self, i: u64) -> usize {
        let u = Rng::new(self.seed ^ 0x5011_2ce5, i).unit();
        self.sources.iter().position(|s| u < s.until).unwrap_or(self.sources.len() - 1)
    }

    /// Documents `range`: source and text.
    ///
    /// # Errors
    /// A failed read.
    pub fn documents(&self, range: Range<u64>) -> Result<Vec<(usize, String)>, DataError> {
        let mut counts = {
            let mut cursor = self.cursor.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if cursor.0 > range.start {
                *cursor = (0, vec![0; self.sources.len()]);
            }
            while cursor.0 < range.start {
                let s = self.source(cursor.0);
                cursor.1[s] += 1;
                cursor.0 += 1;
            }
            cursor.1.clone()
        };
        range
            .map(|i| {
                let s = self.source(i);
                counts[s] += 1;
                Ok((s, self.nth(s, counts[s] - 1)?))
            })
            .collect()
    }

    /// Training document `n` of a source.
    fn nth(&self, s: usize, n: u64) -> Result<String, DataError> {
        let source = &self.sources[s];
        match &source.origin {
            Origin::Generated(config) => Ok(text(config, n)),
            Origin::Store(store) => {
                let all = store.len();
                let rest = all - source.held_out;
                let pass = shuffled(n % rest, rest, self.key(s, 1 + n / rest));
                store.get(shuffled(source.held_out + pass, all, self.key(s, 0)))
            }
        }
    }

    /// The documents that are never trained on, source by source.
    ///
    /// # Errors
    /// A failed read.
    pub fn held_out(&self) -> Result<Vec<String>, DataError> {
        let mut all = Vec::new();
        for (s, source) in self.sources.iter().enumerate() {
            for i in 0..source.held_out {
                all.push(match &source.origin {
                    Origin::Generated(c) => text(&CorpusConfig { seed: c.seed ^ HELD_OUT_SEED, ..(**c).clone() }, i),
                    Origin::Store(store) => store.get(shuffled(i, store.len(), self.key(s, 0)))?,
                });
            }
        }
        Ok(all)
    }

    fn key(&self, source: usize, pass: u64) -> u64 {
        self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (source as u64) << 48 ^ pass
    }
}

fn text(config: &CorpusConfig, index: u64) -> String {
    let d = document(config, index);
    d.prompt + &d.body
}

fn mean_bytes(origin: &Origin) -> f64 {
    match origin {
        Origin::Generated(config) => (0..MEASURED).map(|i| text(config, i).len() as f64).sum::<f64>() / MEASURED as f64,
        Origin::Store(store) => store.mean_bytes(),
    }
}

/// Where `i` of `0..n` goes in the shuffle of this key: a Feistel network of four rounds over the next even power of two,
/// walked until it lands below n.
fn shuffled(i: u64, n: u64, key: u64) -> u64 {
    let half = (64 - n.max(2).saturating_sub(1).leading_zeros()).div_ceil(2);
    let mask = (1u64 << half) - 1;
    let mut x = i;
    loop {
        let (mut left, mut right) = (x >> half, x & mask);
        for round in 0..4u64 {
            let mut z = (right ^ round << 60).wrapping_add(key).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 29)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (left, right) = (right, left ^ ((z ^ (z >> 32)) & mask));
        }
        x = left << half | right;
        if x < n {
            return x;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shuffle_is_a_permutation_and_keys_differ() {
        for n in [1, 2, 3, 10, 100, 1000, 1025] {
            let mut seen: Vec<u64> = (0..n).map(|i| shuffled(i, n, 7)).collect();
            if n >= 100 {
                assert_ne!(seen, (0..n).map(|i| shuffled(i, n, 8)).collect::<Vec<_>>());
                assert!(seen.windows(2).filter(|w| w[0] + 1 == w[1]).count() < 10);
            }
            seen.sort_unstable();
            assert_eq!(seen, (0..n).collect::<Vec<_>>());
        }
    }
}
