//! Log-probabilities of given sequences, in the packed form that training uses.

use crate::request::EngineError;
use aha_kernels::{Attend, Segments, Tape, logprob};
use aha_model::Decoder;
use std::sync::Arc;

/// Log-probability and entropy of every token but the first, per sequence, with logits divided by `temperature`.
///
/// Sequences are packed up to `max_tokens` at a time.
///
/// # Errors
/// An empty or too long sequence, or a token outside the vocabulary; `request` is the sequence's index.
pub fn score(
    decoder: &Decoder,
    sequences: &[&[u32]],
    temperature: f32,
    max_tokens: usize,
) -> Result<Vec<Scored>, EngineError> {
    check(decoder, sequences)?;
    let mut tape = Tape::new(false);
    let mut out = Vec::with_capacity(sequences.len());
    let mut first = 0;
    while first < sequences.len() {
        let mut end = first + 1;
        let mut tokens = sequences[first].len();
        while end < sequences.len() && tokens + sequences[end].len() <= max_tokens {
            tokens += sequences[end].len();
            end += 1;
        }
        score_pack(decoder, &sequences[first..end], temperature, &mut tape, &mut out);
        first = end;
    }
    Ok(out)
}

/// Refuses what a model cannot read.
pub(crate) fn check(decoder: &Decoder, sequences: &[&[u32]]) -> Result<(), EngineError> {
    let (vocab, limit) = (decoder.config.vocab_size, decoder.config.max_position_embeddings);
    for (i, s) in sequences.iter().enumerate() {
        if s.is_empty() {
            return Err(EngineError::EmptyPrompt(i));
        }
        if let Some(token) = s.iter().find(|t| **t as usize >= vocab) {
            return Err(EngineError::Token { request: i, token: *token, vocab });
        }
        if s.len() > limit {
            return Err(EngineError::TooLong { request: i, prompt: s.len(), new: 0, limit });
        }
    }
    Ok(())
}

/// What [`score`] says of one sequence; both lists have one entry per token after the first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scored {
    /// Log-probabilities.
    pub logprobs: Vec<f32>,
    /// Entropies of the distributions they were drawn from, in nats.
    pub entropies: Vec<f32>,
}

fn score_pack(decoder: &Decoder, sequences: &[&[u32]], temperature: f32, tape: &mut Tape, out: &mut Vec<Scored>) {
    let segments = Arc::new(Segments::from_lengths(sequences.iter().map(|s| s.len())));
    let tokens: Arc<[u32]> = sequences.concat().into();
    let positions: Arc<[u32]> = segments.positions().into();
    let h = decoder.hidden(tape, &tokens, &positions, &mut Attend::Packed(segments.clone()));
    let rows: Arc<[u32]> = (0..segments.len())
        .flat_map(|i| {
            let r = segments.range(i);
            r.start as u32..r.end as u32 - 1
        })
        .collect();
    let targets: Vec<u32> = rows.iter().map(|r| tokens[*r as usize + 1]).collect();
    let h = tape.select(h, &rows, decoder.config.hidden_size);
    let (mut logp, mut entropy) = (vec![0.0; targets.len()], vec![0.0; targets.len()]);
    let head = decoder.params.weight(decoder.head());
    logprob::forward(&mut logp, &mut entropy, tape.value(h), head, &targets, temperature);
    tape.reset();
    let mut at = 0;
    for s in sequences {
        let n = s.len() - 1;
        out.push(Scored { logprobs: logp[at..at + n].to_vec(), entropies: entropy[at..at + n].to_vec() });
        at += n;
    }
}
