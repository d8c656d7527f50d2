//! The cache of latent attention: per token and layer the normalised latent and the rotated key, `lora + rope` numbers and
//! nothing else. Queries come absorbed.
//!
//! A block holds `[lora + rope][32]`, in bf16 `[words(lora + rope)][32]` words of two neighbours, ready for the score product. The
//! value of a token is its latent: the first rows of a block, transposed into scratch when they are read.

use super::{CacheShape, CacheSpan, KvCache, MANY_ROWS, NR, first_rows};
use crate::cpu::bf16::halve;
use crate::cpu::decode::{self, Chain};
use crate::cpu::math;
use crate::cpu::operand::{Operand, Pairs, Singles, grow, halves};
use crate::latent::{LatentHeads, Queries, attend};
use crate::par::{self, Shared};
use crate::params::Precision;
use crate::scratch;
use crate::softmax::softmax_rows;
use std::cell::RefCell;

/// Up to so many new tokens of a sequence run one by one, their heads side by side.
const FEW_TOKENS: usize = 4;

thread_local! {
    static WORK: RefCell<Work> = RefCell::new(Work::default());
}

/// Buffers of one task.
#[derive(Default)]
struct Work {
    s: Vec<f32>,
    q: Vec<f32>,
    p: Vec<f32>,
    values: Vec<f32>,
    keys: Vec<*const f32>,
    panels: Vec<*const f32>,
    chains: Vec<Chain>,
}

impl KvCache {
    /// Writes the spans' latents `[rows, lora]` and rotated keys `[rows, rope]`, spans one after another, for one layer.
    pub fn write_latent(&mut self, layer: usize, latent: &[f32], rotated: &[f32], spans: &[CacheSpan]) {
        let dim = self.shape.head_dim;
        let base = layer * self.shape.layer_words();
        let rows: usize = spans.iter().map(|s| s.rows).sum();
        let (lora, rope) = (latent.len() / rows.max(1), rotated.len() / rows.max(1));
        assert!(lora + rope == dim && self.shape.value_dim == 0, "latent cache: shapes");
        let words = self.shape.key_words() / NR;
        let (mut token, mut row) = (vec![0f32; dim], vec![0f32; words]);
        let mut t = 0;
        for span in spans {
            for position in span.start..span.start + span.rows {
                token[..lora].copy_from_slice(&latent[t * lora..][..lora]);
                token[lora..].copy_from_slice(&rotated[t * rope..][..rope]);
                match self.shape.precision {
                    Precision::F32 => row.copy_from_slice(&token),
                    Precision::Bf16 | Precision::Fp8 => halve(&mut halves(&mut row)[..dim], &token),
                }
                let block = &mut self.blocks[span.blocks[position / NR] as usize][base + position % NR..];
                for (i, word) in row.iter().enumerate() {
                    block[i * NR] = *word;
                }
                t += 1;
            }
        }
    }

    /// The first `tokens` latents `[tokens, lora]` and rotated keys `[tokens, rope]` of a sequence.
    pub fn read_latent(&self, layer: usize, blocks: &[u32], latent: &mut [f32], rotated: &mut [f32], tokens: usize) {
        let base = layer * self.shape.layer_words();
        let (lora, rope) = (latent.len() / tokens.max(1), rotated.len() / tokens.max(1));
        for t in 0..tokens {
            let block = &self.blocks[blocks[t / NR] as usize][base + t % NR..];
            let value = |i: usize| match self.shape.precision {
                Precision::F32 => block[i * NR],
                Precision::Bf16 | Precision::Fp8 => {
                    let word = block[i / 2 * NR].to_bits();
                    f32::from_bits(if i.is_multiple_of(2) { word << 16 } else { word & 0xffff_0000 })
                }
            };
            latent[t * lora..][..lora].iter_mut().enumerate().for_each(|(i, x)| *x = value(i));
            rotated[t * rope..][..rope].iter_mut().enumerate().for_each(|(i, x)| *x = value(lora + i));
        }
    }

    /// Contexts `[rows, N*lora]` for the spans' absorbed queries `[rows, N*(lora+rope)]`, each seeing its own sequence up to
    /// its own position.
    pub fn attend_latent(&self, layer: usize, ctx: &mut [f32], q: &[f32], spans: &[CacheSpan], d: LatentHeads) {
        let rows: usize = spans.iter().map(|s| s.rows).sum();
        assert!(
            q.len() == rows * d.heads * d.absorbed() && ctx.len() == rows * d.heads * d.lora,
            "latent attention over a cache: shapes"
        );
        let CacheShape { kv_heads, head_dim, precision, .. } = self.shape;
        assert!((kv_heads, head_dim) == (1, d.absorbed()), "latent attention: heads as wide as the cache's");
        assert!(d.precision == precision, "latent attention: the cache is in the model's numbers");
        match d.precision {
            Precision::F32 => self.latent_spans::<Singles>(layer, ctx, q, spans, d),
            Precision::Bf16 | Precision::Fp8 => self.latent_spans::<Pairs>(layer, ctx, q, spans, d),
        }
    }

    fn latent_spans<E: Operand>(&self, layer: usize, ctx: &mut [f32], q: &[f32], spans: &[CacheSpan], d: LatentHeads) {
        let (first, _) = first_rows(spans);
        let out = Shared::new(ctx);
        par::ranges(spans.len(), 1, |items| {
            scratch::kept(&WORK, |work| {
                for i in items {
                    self.latent_span::<E>(layer, &out, q, &spans[i], first[i], d, work);
                }
            });
        });
    }

    fn latent_span<E: Operand>(
        &self,
        layer: usize,
        out: &Shared,
        q: &[f32],
        span: &CacheSpan,
        t0: usize,
        d: LatentHeads,
        work: &mut Work,
    ) {
        let start = layer * self.shape.layer_words();
        let (n, key, lora) = (d.heads, d.absorbed(), d.lora);
        let cap = (span.start + span.rows).next_multiple_of(NR);
        let Work { s, q: q_words, p, values, keys, panels, chains } = work;
        let blocks = &span.blocks[..cap / NR];
        keys.clear();
        keys.extend(blocks.iter().map(|b| self.blocks[*b as usize][start..].as_ptr()));
        // Values of all heads: [ceil(lora/32)][words(cap)][32].
        grow(values, lora.div_ceil(NR) * E::words(cap) * NR);
        for (b, block) in blocks.iter().enumerate() {
            let block = &self.blocks[*block as usize][start..start + self.shape.key_words()];
            E::values_of_keys(values, block, b, cap, lora);
        }
        // Tiles sum in an order of their own, so that few rows have to go through them, too.
        if span.rows <= FEW_TOKENS && n < MANY_ROWS && !E::tiles() {
            let pairs = E::VALUES == 2;
            for i in 0..span.rows {
                let seen = (span.start + i + 1).next_multiple_of(NR);
                grow(s, n * seen);
                let (left, ld) = E::left(q_words, &q[(t0 + i) * n * key..], key, n, key);
                chains.clear();
                chains.extend((0..n).map(|h| Chain {
                    // SAFETY: there are n rows of ld words.
                    left: unsafe { left.add(h * ld) },
                    offset: 0,
                    out: s[h * seen..].as_mut_ptr(),
                    width: NR,
                }));
                // SAFETY: the query row exists (asserted by the caller); blocks hold this layer's keys; s has room.
                unsafe { decode::scores(chains, n, &keys[..seen / NR], E::words(key), pairs, values.as_ptr()) };
                let mut inverse = [0f32; MANY_ROWS];
                softmax_rows(&mut s[..n * seen], seen, span.start + i, d.scale, &mut inverse);
                let (left, ld) = E::left(p, s, seen, n, seen);
                let block = E::words(NR) * NR;
                panels.clear();
                panels.extend(values[..seen / NR * block].chunks_exact(block).map(<[f32]>::as_ptr));
                chains.clear();
                for c in (0..lora).step_by(NR) {
                    for h in 0..n {
                        chains.push(Chain {
                            // SAFETY: as above.
                            left: unsafe { left.add(h * ld) },
                            offset: c * E::words(cap),
                            // SAFETY: this task alone writes this row.
                            out: unsafe { out.at(((t0 + i) * n + h) * lora + c) },
                            width: (lora - c).min(NR),
                        });
                    }
                }
                // SAFETY: s has a weight for each key, masked ones zero; panels hold 32 keys at every chain's offset.
                unsafe { decode::values(chains, n, panels, pairs, panels[0].wrapping_add(E::words(cap) * NR)) };
                // SAFETY: as above.
                math::scale_rows(unsafe { out.slice((t0 + i) * n * lora, n * lora) }, lora, &inverse);
            }
            return;
        }
        let mut run = |t: usize, h: usize, rows: usize, position: usize, step: usize| {
            let ld = if step == 1 { n } else { 1 };
            let queries = Queries { q: &q[(t * n + h) * key..], ld: ld * key, rows, position, step };
            // SAFETY: query rows exist; blocks and values were set up above; this task alone writes these rows.
            unsafe {
                let to = (out.at((t * n + h) * lora), ld * lora);
                let scratch = [&mut *s, &mut *q_words, &mut *p];
                attend::<E>(&queries, key, keys, values.as_ptr(), (cap, lora), to, d.scale, scratch);
            }
        };
        // Few tokens: the heads of one are the rows of the product. Many: the tokens are, head by head.
        if span.rows < n {
            (0..span.rows).for_each(|i| run(t0 + i, 0, n, span.start + i, 0));
        } else {
            (0..n).for_each(|h| run(t0, h, span.rows, span.start, 1));
        }
    }
}
