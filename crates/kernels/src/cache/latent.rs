//! The cache of latent attention: per token and layer the normalised latent and the rotated key, `lora + rope` numbers and
//! nothing else. Queries come absorbed.
//!
//! A block holds `[lora + rope][32]`, ready for the score product. The value of a token is its latent: the first `lora` rows
//! of a block, transposed into scratch when they are read.

use super::{CacheSpan, KvCache, MANY_ROWS, NR};
use crate::cpu::decode::{self, Chain};
use crate::cpu::math::{self, SQUARE};
use crate::cpu::operand::grow;
use crate::latent::{LatentHeads, Queries, attend};
use crate::par::{self, Shared};
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
        let mut t = 0;
        for span in spans {
            for position in span.start..span.start + span.rows {
                let block = &mut self.blocks[span.blocks[position / NR] as usize][base + position % NR..];
                for (i, v) in latent[t * lora..][..lora].iter().chain(&rotated[t * rope..][..rope]).enumerate() {
                    block[i * NR] = *v;
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
            for i in 0..lora {
                latent[t * lora + i] = block[i * NR];
            }
            for i in 0..rope {
                rotated[t * rope + i] = block[(lora + i) * NR];
            }
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
        let mut first = Vec::with_capacity(spans.len());
        let mut t = 0;
        for span in spans {
            first.push(t);
            t += span.rows;
        }
        let out = Shared::new(ctx);
        par::ranges(spans.len(), 1, |items| {
            scratch::kept(&WORK, |work| {
                for i in items {
                    self.span(layer, &out, q, &spans[i], first[i], d, work);
                }
            });
        });
    }

    fn span(
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
        let Work { s, values, keys, panels, chains } = work;
        let blocks = &span.blocks[..cap / NR];
        keys.clear();
        keys.extend(blocks.iter().map(|b| self.blocks[*b as usize][start..].as_ptr()));
        // Values of all heads: [ceil(lora/32)][cap][32].
        grow(values, lora.div_ceil(NR) * cap * NR);
        for (b, block) in blocks.iter().enumerate() {
            let block = &self.blocks[*block as usize][start..start + lora * NR];
            for c in (0..lora).step_by(SQUARE) {
                let width = (lora - c).min(SQUARE);
                for i in (0..NR).step_by(SQUARE) {
                    let to = &mut values[(c / NR * cap + b * NR + i) * NR + c % NR..];
                    math::transpose(to, NR, &block[c * NR + i..], NR, width, SQUARE);
                }
            }
        }
        if span.rows <= FEW_TOKENS && n < MANY_ROWS {
            for i in 0..span.rows {
                let seen = (span.start + i + 1).next_multiple_of(NR);
                grow(s, n * seen);
                chains.clear();
                chains.extend((0..n).map(|h| Chain {
                    left: q[((t0 + i) * n + h) * key..].as_ptr(),
                    offset: 0,
                    out: s[h * seen..].as_mut_ptr(),
                    width: NR,
                }));
                // SAFETY: the query row exists (asserted by the caller); blocks hold this layer's keys; s has room.
                unsafe { decode::scores(chains, n, &keys[..seen / NR], key, false, values.as_ptr()) };
                let mut inverse = [0f32; MANY_ROWS];
                softmax_rows(&mut s[..n * seen], seen, span.start + i, d.scale, &mut inverse);
                panels.clear();
                panels.extend(values[..seen * NR].chunks_exact(NR * NR).map(<[f32]>::as_ptr));
                chains.clear();
                for c in (0..lora).step_by(NR) {
                    for h in 0..n {
                        chains.push(Chain {
                            left: s[h * seen..].as_ptr(),
                            offset: c * cap,
                            // SAFETY: this task alone writes this row.
                            out: unsafe { out.at(((t0 + i) * n + h) * lora + c) },
                            width: (lora - c).min(NR),
                        });
                    }
                }
                // SAFETY: s has a weight for each key, masked ones zero; panels hold 32 rows of 32 at every chain's offset.
                unsafe { decode::values(chains, n, panels, false, panels[0].wrapping_add(cap * NR)) };
                // SAFETY: as above.
                math::scale_rows(unsafe { out.slice((t0 + i) * n * lora, n * lora) }, lora, &inverse);
            }
            return;
        }
        let mut run = |t: usize, h: usize, rows: usize, position: usize, step: usize| {
            let ld = if step == 1 { n } else { 1 };
            let queries = Queries { base: q[(t * n + h) * key..].as_ptr(), ld: ld * key, rows, position, step };
            // SAFETY: query rows exist; blocks and values were set up above; this task alone writes these rows.
            unsafe {
                let to = (out.at((t * n + h) * lora), ld * lora);
                attend(&queries, key, keys, values.as_ptr(), (cap, lora), to, None, d.scale, s);
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
