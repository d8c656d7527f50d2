//! Scores of given sequences by a reward model: one number per sequence, read at its last token.

use crate::request::EngineError;
use crate::score::check;
use aha_kernels::{Attend, Segments, Tape, par};
use aha_model::Decoder;
use rayon::prelude::*;
use std::sync::Arc;

/// Tokens of one forward pass.
const PACK_TOKENS: usize = 4096;

/// A score per sequence. Packs of sequences run side by side; a score does not depend on its neighbours.
///
/// # Errors
/// An empty or too long sequence, or a token outside the vocabulary; `request` is the sequence's index.
///
/// # Panics
/// When the model is no reward model.
pub fn reward(decoder: &Decoder, sequences: &[&[u32]]) -> Result<Vec<f32>, EngineError> {
    check(decoder, sequences)?;
    let mut packs: Vec<&[&[u32]]> = Vec::new();
    let (mut first, mut tokens) = (0, 0);
    for (i, s) in sequences.iter().enumerate() {
        if tokens + s.len() > PACK_TOKENS && i > first {
            packs.push(&sequences[first..i]);
            (first, tokens) = (i, 0);
        }
        tokens += s.len();
    }
    packs.push(&sequences[first..]);
    let one = |pack: &&[&[u32]]| score_pack(decoder, pack);
    let scores: Vec<Vec<f32>> = if packs.len() < par::threads() {
        packs.iter().map(one).collect()
    } else {
        packs.par_iter().with_max_len(1).map(|pack| par::serial(|| one(pack))).collect()
    };
    Ok(scores.concat())
}

fn score_pack(decoder: &Decoder, sequences: &[&[u32]]) -> Vec<f32> {
    if sequences.is_empty() {
        return Vec::new();
    }
    let segments = Arc::new(Segments::from_lengths(sequences.iter().map(|s| s.len())));
    let tokens: Arc<[u32]> = sequences.concat().into();
    let positions: Arc<[u32]> = segments.positions().into();
    let ends: Arc<[u32]> = (0..segments.len()).map(|s| segments.range(s).end as u32 - 1).collect();
    let mut tape = Tape::new(false);
    let h = decoder.hidden(&mut tape, &tokens, &positions, &mut Attend::Packed(segments));
    let h = tape.select(h, &ends, decoder.config.hidden_size);
    let scores = decoder.score(&mut tape, h);
    tape.value(scores).to_vec()
}
