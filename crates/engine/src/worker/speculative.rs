//! A decoding step with drafts: the prediction module proposes a token for every running sample, one forward of the model
//! checks it and gives the distribution of the token after it.
//!
//! The module lags one token behind: its row at position i needs the hidden state there and the token at i + 1. Rows that it
//! has not seen yet wait in [`Pending`]: one after a replaced draft, two after a kept one. Its keys lie in the cache as those
//! of one more layer; what a rejected draft left there and in the model's layers is overwritten by the next step.

use super::{Running, Worker, draw};
use crate::sampler;
use crate::speculative::{Distribution, accept_seed, draft_seed, logprob_of};
use aha_kernels::{Attend, CacheSpan, linear};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A row the module has not seen: hidden state before the final norm, and the token that followed.
pub(super) type Pending = (Vec<f32>, u32);

impl Worker<'_> {
    /// Whether tokens are drafted.
    pub(super) fn speculates(&self) -> bool {
        self.config.speculative && self.decoder.prediction_modules() > 0
    }

    /// Logits of the module for the next token but one of every sample, whose last token is not in the cache yet.
    fn draft(&mut self, running: &mut [Running]) -> Vec<f32> {
        let (decoder, width) = (self.decoder, self.decoder.config.hidden_size);
        let (mut hidden, mut tokens, mut positions, mut last) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for s in running.iter_mut() {
            let first = self.requests[s.request].prompt.len() + s.tokens.len() - 1 - s.pending.len();
            for (i, (h, token)) in s.pending.drain(..).enumerate() {
                hidden.extend_from_slice(&h);
                tokens.push(token);
                positions.push((first + i) as u32);
            }
            last.push(tokens.len() as u32 - 1);
        }
        let mut row = 0;
        let spans: Vec<CacheSpan> = running
            .iter()
            .zip(&last)
            .map(|(s, last)| {
                let span =
                    CacheSpan { rows: *last as usize + 1 - row, start: positions[row] as usize, blocks: &s.blocks };
                row = *last as usize + 1;
                span
            })
            .collect();
        let mut attend = Attend::Cached { cache: &mut self.cache, spans: &spans };
        let h = self.tape.constant(&hidden);
        let x = decoder.module(&mut self.tape, 0, h, &tokens.into(), &positions.into(), &mut attend);
        let x = self.tape.select(x, &last.into(), width);
        let h = decoder.module_norm(&mut self.tape, 0, x);
        let mut logits = vec![0.0; running.len() * decoder.config.vocab_size];
        linear::forward(&mut logits, self.tape.value(h), decoder.params.weight(decoder.head()), false);
        self.tape.reset();
        logits
    }

    /// Decodes one or two tokens of every running sample.
    pub(super) fn speculative_step(&mut self) {
        let mut running = std::mem::take(&mut self.running);
        let (width, vocab) = (self.decoder.config.hidden_size, self.decoder.config.vocab_size);
        let mut starts = Vec::with_capacity(running.len());
        for s in &mut running {
            let position = self.requests[s.request].prompt.len() + s.tokens.len() - 1;
            while (position + 1) / aha_kernels::BLOCK_TOKENS >= s.blocks.len() && s.blocks.len() < s.reserved {
                s.blocks.push(self.block());
            }
            starts.push(position);
        }
        let drafts = self.draft(&mut running);
        let drafts: Vec<(u32, Distribution)> = running
            .iter()
            .zip(drafts.chunks_exact(vocab))
            .map(|(s, logits)| {
                let r = &self.requests[s.request];
                let q = Distribution::new(logits, &r.params);
                // The draft is for the token after the next one to be drawn here.
                let u = sampler::uniform(draft_seed(r.seed), s.sample as u64, s.tokens.len() as u64);
                (q.draw(u), q)
            })
            .collect();
        let tokens: Arc<[u32]> = running
            .iter()
            .zip(&drafts)
            .flat_map(|(s, (draft, _))| [*s.tokens.last().expect("a running sample has drawn a token"), *draft])
            .collect();
        let positions: Arc<[u32]> = starts.iter().flat_map(|p| [*p as u32, *p as u32 + 1]).collect();
        let spans: Vec<CacheSpan> = running
            .iter()
            .zip(&starts)
            .map(|(s, start)| CacheSpan { rows: 2, start: *start, blocks: &s.blocks })
            .collect();
        let mut attend = Attend::Cached { cache: &mut self.cache, spans: &spans };
        let x = self.decoder.trunk(&mut self.tape, &tokens, &positions, &mut attend);
        let h = self.decoder.final_norm(&mut self.tape, x);
        let mut logits = std::mem::take(&mut self.logits);
        logits.resize(tokens.len() * vocab, 0.0);
        linear::forward(&mut logits, self.tape.value(h), self.decoder.params.weight(self.decoder.head()), false);
        let hidden = self.tape.value(x).to_vec();
        self.tape.reset();
        self.control.drafted.fetch_add(running.len() as u64, Ordering::Relaxed);
        let rows = logits.chunks_exact_mut(2 * vocab).zip(hidden.chunks_exact(2 * width));
        for ((mut s, (draft, q)), (logits, hidden)) in running.into_iter().zip(drafts).zip(rows) {
            let (here, after) = logits.split_at_mut(vocab);
            if self.decide(&mut s, draft, &q, here, after, hidden) {
                self.finish(s);
            } else {
                self.running.push(s);
            }
        }
        self.logits = logits;
    }

    /// Keeps or replaces a sample's draft, and draws the token after a kept one; true when the sample has ended.
    fn decide(
        &self,
        s: &mut Running,
        draft: u32,
        q: &Distribution,
        here: &[f32],
        after: &mut [f32],
        hidden: &[f32],
    ) -> bool {
        let r = &self.requests[s.request];
        let width = hidden.len() / 2;
        let place = s.tokens.len() as u64;
        let u = |seed: u64| sampler::uniform(seed, s.sample as u64, place);
        let p = Distribution::new(here, &r.params);
        let replaced = p.replace(draft, q, u(accept_seed(r.seed)), u(r.seed));
        let token = replaced.unwrap_or(draft);
        s.pending.push((hidden[..width].to_vec(), token));
        if self.take_token(s, (token, logprob_of(here, token, &r.params))) {
            return true;
        }
        if replaced.is_some() {
            return false;
        }
        self.control.accepted.fetch_add(1, Ordering::Relaxed);
        let drawn = draw(r, s, after);
        let ended = self.take_token(s, drawn);
        let next = *s.tokens.last().expect("just drawn");
        s.pending.push((hidden[width..].to_vec(), next));
        ended
    }
}
