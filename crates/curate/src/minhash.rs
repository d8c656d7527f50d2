//! Near-duplicates by MinHash and locality-sensitive hashing (Broder, "On the resemblance and containment of documents",
//! 1997; banding as in Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets", 3.4).
//!
//! Texts are sets of shingles: runs of `ngram` words. Two texts agree in a MinHash value with a probability that is the
//! Jaccard similarity J of their sets, so a band of r values agrees with J^r, and one of b bands with 1 - (1 - J^r)^b. Pairs
//! that agree in a band are compared exactly before one of them is dropped, so there are no false duplicates.

use std::collections::HashMap;

use rayon::prelude::*;

use crate::words::{Signs, mix, ngram_hashes, word_hashes};

/// How near-duplicates are found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NearDuplicates {
    /// Words of a shingle.
    pub ngram: usize,
    /// Jaccard similarity from which two texts are duplicates.
    pub threshold: f64,
    /// Bands.
    pub bands: usize,
    /// MinHash values of a band.
    pub rows: usize,
}

/// The shingles of a text as a sorted set of hashes. A text shorter than a shingle is one shingle; an empty one has none.
pub fn shingles(text: &str, ngram: usize) -> Vec<u64> {
    let words = word_hashes(text, Signs::Words);
    let n = ngram.clamp(1, words.len().max(1));
    let mut set: Vec<u64> = ngram_hashes(&words, n).collect();
    set.sort_unstable();
    set.dedup();
    set
}

/// Size of the intersection over size of the union of two sorted sets; 1 for two empty ones.
pub fn jaccard(a: &[u64], b: &[u64]) -> f64 {
    let (mut i, mut j, mut common) = (0, 0, 0usize);
    while i < a.len() && j < b.len() {
        match a[i].cmp(&b[j]) {
            std::cmp::Ordering::Less => i += 1,
            std::cmp::Ordering::Greater => j += 1,
            std::cmp::Ordering::Equal => (i, j, common) = (i + 1, j + 1, common + 1),
        }
    }
    let union = a.len() + b.len() - common;
    if union == 0 { 1.0 } else { common as f64 / union as f64 }
}

/// An estimate this far below the threshold is not looked at more closely: five standard errors or more for 100 values.
const MARGIN: f64 = 0.2;

/// Texts that are hashed together before they are compared, which bounds the memory that signatures take.
const CHUNK: usize = 4096;

impl NearDuplicates {
    /// MinHash values of a signature.
    pub fn permutations(&self) -> usize {
        self.bands * self.rows
    }

    /// The probability that a pair of this similarity is found.
    pub fn recall_at(&self, jaccard: f64) -> f64 {
        1.0 - (1.0 - jaccard.powi(self.rows as i32)).powi(self.bands as i32)
    }

    /// Multipliers and summands of the hash functions h(x) = (a x + b) >> 32, a odd.
    fn functions(&self) -> Vec<(u64, u64)> {
        (0..self.permutations() as u64).map(|i| (mix(2 * i + 1) | 1, mix(2 * i + 2))).collect()
    }

    fn signature(&self, functions: &[(u64, u64)], text: &str) -> Vec<u32> {
        let set = shingles(text, self.ngram);
        let mut signature = vec![u32::MAX; functions.len()];
        for shingle in set {
            for (least, (a, b)) in signature.iter_mut().zip(functions) {
                *least = (*least).min((a.wrapping_mul(shingle).wrapping_add(*b) >> 32) as u32);
            }
        }
        signature
    }

    /// For each text the earlier text of which it is a duplicate, and their similarity; that one is itself kept. Texts
    /// without a word are duplicates of nothing. A function of the texts in their order alone, not of threads.
    pub fn find(&self, texts: &[impl AsRef<str> + Sync]) -> Vec<Option<(usize, f64)>> {
        let functions = self.functions();
        let mut tables: Vec<HashMap<u64, Vec<u32>>> = vec![HashMap::new(); self.bands];
        let mut kept = Signatures { width: self.permutations(), values: Vec::new(), place: HashMap::new() };
        let mut found = Vec::with_capacity(texts.len());
        let enough = ((self.threshold - MARGIN).max(0.0) * self.permutations() as f64) as usize;
        for (chunk, texts_of_chunk) in texts.chunks(CHUNK).enumerate() {
            let signatures: Vec<Vec<u32>> =
                texts_of_chunk.par_iter().map(|text| self.signature(&functions, text.as_ref())).collect();
            for (i, signature) in signatures.into_iter().enumerate() {
                let index = chunk * CHUNK + i;
                // All values at their maximum: no shingle.
                if signature.iter().all(|value| *value == u32::MAX) {
                    found.push(None);
                    continue;
                }
                let keys: Vec<u64> = signature.chunks(self.rows.max(1)).map(band_key).collect();
                let mut near: Vec<u32> =
                    keys.iter().zip(&tables).filter_map(|(key, table)| table.get(key)).flatten().copied().collect();
                near.sort_unstable();
                near.dedup();
                near.retain(|other| kept.agreement(*other, &signature) >= enough);
                let duplicate = if near.is_empty() {
                    None
                } else {
                    let set = shingles(texts[index].as_ref(), self.ngram);
                    near.iter().find_map(|other| {
                        let similarity = jaccard(&set, &shingles(texts[*other as usize].as_ref(), self.ngram));
                        (similarity >= self.threshold).then_some((*other as usize, similarity))
                    })
                };
                if duplicate.is_none() {
                    kept.push(index as u32, &signature);
                    for (key, table) in keys.into_iter().zip(&mut tables) {
                        table.entry(key).or_default().push(index as u32);
                    }
                }
                found.push(duplicate);
            }
        }
        found
    }
}

fn band_key(values: &[u32]) -> u64 {
    values.iter().fold(0x9e37_79b9_7f4a_7c15, |key, value| mix(key ^ u64::from(*value)))
}

/// Signatures of the kept texts, one after the other.
struct Signatures {
    width: usize,
    values: Vec<u32>,
    /// From the number of a text to that of its signature.
    place: HashMap<u32, usize>,
}

impl Signatures {
    fn push(&mut self, index: u32, signature: &[u32]) {
        self.place.insert(index, self.values.len() / self.width.max(1));
        self.values.extend_from_slice(signature);
    }

    /// Values in which a kept text agrees with a signature.
    fn agreement(&self, index: u32, signature: &[u32]) -> usize {
        let at = self.place[&index] * self.width;
        self.values[at..at + self.width].iter().zip(signature).filter(|(a, b)| a == b).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aha_tasks::mini::Rng;

    const DEFAULT: NearDuplicates = NearDuplicates { ngram: 5, threshold: 0.8, bands: 24, rows: 7 };

    fn text(rng: &mut Rng, words: usize) -> Vec<String> {
        (0..words).map(|_| format!("w{}", rng.range(0, 5000))).collect()
    }

    /// Texts in families: each an original and copies with some words replaced, so that all similarities occur.
    fn families(count: usize, rng: &mut Rng) -> Vec<String> {
        let mut texts = Vec::new();
        for _ in 0..count {
            let original = text(rng, 120);
            for _ in 0..4 {
                let mut copy = original.clone();
                for _ in 0..rng.range(0, 4) {
                    let at = rng.range(0, 119) as usize;
                    copy[at] = format!("w{}", rng.range(5000, 9000));
                }
                texts.push(copy.join(" "));
            }
        }
        rng.shuffle(&mut texts);
        texts
    }

    #[test]
    fn sets_and_their_similarity() {
        assert_eq!(jaccard(&[1, 2, 3], &[2, 3, 4]), 0.5);
        assert_eq!((jaccard(&[], &[]), jaccard(&[1], &[])), (1.0, 0.0));
        assert_eq!(shingles("a b c a b c", 3).len(), 3);
        assert_eq!(shingles("a b", 5).len(), 1);
        assert!(shingles(" .", 5).is_empty());
        assert_eq!(shingles("A b, c", 2), shingles("a  b c", 2));
        assert_ne!(shingles("3+4=7", 5), shingles("3*4=7", 5));
    }

    /// The estimate is that of the definition: agreement of signatures has the Jaccard similarity as its mean.
    #[test]
    fn signatures_estimate_the_similarity() {
        let functions = DEFAULT.functions();
        let (mut error, mut bias, mut pairs) = (0.0, 0.0, 0);
        for family in 0..100 {
            let mut rng = Rng::new(family, 2);
            let texts = families(1, &mut rng);
            let (a, b) = (&texts[0], &texts[1]);
            let exact = jaccard(&shingles(a, 5), &shingles(b, 5));
            let (a, b) = (DEFAULT.signature(&functions, a), DEFAULT.signature(&functions, b));
            let agree = a.iter().zip(&b).filter(|(a, b)| a == b).count() as f64 / DEFAULT.permutations() as f64;
            error += (agree - exact).powi(2);
            bias += agree - exact;
            pairs += 1;
        }
        // Standard error of 168 values at J = 0.5 is 0.0386.
        let (rmse, bias) = ((error / f64::from(pairs)).sqrt(), bias / f64::from(pairs));
        assert!(rmse < 0.05 && bias.abs() < 0.015, "rmse {rmse}, bias {bias}");
    }

    /// Against all pairs compared exactly: nothing is dropped that has no kept near-duplicate, and few are missed.
    #[test]
    fn recall_and_precision_against_exact_similarity() {
        let texts = families(400, &mut Rng::new(1, 7));
        let sets: Vec<Vec<u64>> = texts.iter().map(|text| shingles(text, DEFAULT.ngram)).collect();
        let found = DEFAULT.find(&texts);
        let (mut dropped, mut right, mut left, mut pairs) = (0, 0, 0, 0);
        for i in 0..texts.len() {
            if let Some((other, similarity)) = found[i] {
                assert!(other < i && found[other].is_none());
                assert_eq!(similarity, jaccard(&sets[i], &sets[other]));
                dropped += 1;
                right += usize::from(similarity >= DEFAULT.threshold);
            }
            for j in 0..i {
                if jaccard(&sets[i], &sets[j]) >= DEFAULT.threshold {
                    pairs += 1;
                    // Both kept though they are near-duplicates.
                    left += usize::from(found[i].is_none() && found[j].is_none());
                }
            }
        }
        assert_eq!(dropped, right, "precision is 1");
        let missed = left as f64 / pairs as f64;
        println!(
            "{dropped} of {} dropped; {left} of {pairs} near-duplicate pairs left ({:.3} %)",
            texts.len(),
            missed * 100.0
        );
        assert!(pairs > 300 && missed <= 0.01, "{left} of {pairs}");
    }

    #[test]
    fn the_share_of_pairs_found_is_the_formula_s() {
        assert!((DEFAULT.recall_at(0.8) - 0.9965).abs() < 1e-3);
        assert!(DEFAULT.recall_at(0.9) > 0.99999 && DEFAULT.recall_at(0.3) < 0.01);
        // One band of one value on pairs of known similarity 1/3: sets of two that share one of three.
        let single = NearDuplicates { ngram: 1, threshold: 0.3, bands: 1, rows: 1 };
        let trials = 3000;
        let hits = (0..trials)
            .filter(|i| single.find(&[format!("a{i} b{i}"), format!("b{i} c{i}")])[1].is_some())
            .count() as f64
            / f64::from(trials);
        assert!((hits - 1.0 / 3.0).abs() < 4.0 * (2.0f64 / 9.0 / f64::from(trials)).sqrt(), "{hits}");
    }

    #[test]
    fn copies_go_and_empty_texts_stay() {
        let mut rng = Rng::new(5, 5);
        let original = text(&mut rng, 40).join(" ");
        let texts = ["", original.as_str(), "", &original.to_uppercase(), "short", "Short!", "other"];
        let found: Vec<Option<usize>> = DEFAULT.find(&texts).into_iter().map(|d| d.map(|d| d.0)).collect();
        assert_eq!(found, [None, None, None, Some(1), None, Some(4), None]);
    }
}
