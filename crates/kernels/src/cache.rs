//! Attention over a block cache of keys and values: prefill in any chunking and decoding in any batch.
//!
//! A block holds [`BLOCK_TOKENS`] tokens of every layer: keys as panels `[K][H][32]`, ready for the score product, values as
//! `[K][ceil(H/32)][32][32]`. A sequence is a list of block numbers; sequences may share blocks of a common prefix.

mod latent;

use crate::attention::{Heads, TILE, softmax_row};
use crate::cpu::decode::{self, Chain};
use crate::cpu::gemm::{Extent, Left, NR, Start, gemm};
use crate::cpu::math;
use crate::par::{self, Shared};

/// Tokens in a cache block.
pub const BLOCK_TOKENS: usize = NR;

/// Query heads per key/value head from which the matrix microkernel has enough rows.
const MANY_ROWS: usize = 5;

/// Buffers of [`KvCache::step`].
#[derive(Default)]
struct Step {
    s: Vec<f32>,
    blocks: Vec<*const f32>,
    chains: Vec<Chain>,
}

/// Sizes of a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheShape {
    /// Layers of the model.
    pub layers: usize,
    /// Key/value heads K.
    pub kv_heads: usize,
    /// Head width H of the keys.
    pub head_dim: usize,
    /// Head width of the values; 0 where the values are part of the keys (latent attention).
    pub value_dim: usize,
}

impl CacheShape {
    fn panels(&self) -> usize {
        self.value_dim.div_ceil(NR)
    }

    fn layer_floats(&self) -> usize {
        self.kv_heads * (self.head_dim * NR + self.panels() * NR * NR)
    }

    /// Bytes of one block.
    pub fn block_bytes(&self) -> usize {
        self.layers * self.layer_floats() * 4
    }
}

/// The blocks. Which sequence owns which block is the scheduler's business.
#[derive(Debug)]
pub struct KvCache {
    shape: CacheShape,
    blocks: Vec<Box<[f32]>>,
}

/// New tokens of one sequence: `rows` tokens from position `start` on, and the blocks that hold positions 0..start+rows.
#[derive(Clone, Copy, Debug)]
pub struct CacheSpan<'a> {
    /// Tokens in this call.
    pub rows: usize,
    /// Position of the first of them.
    pub start: usize,
    /// Block numbers of the sequence.
    pub blocks: &'a [u32],
}

impl KvCache {
    /// An empty cache.
    pub fn new(shape: CacheShape) -> Self {
        KvCache { shape, blocks: Vec::new() }
    }

    /// Sizes.
    pub fn shape(&self) -> CacheShape {
        self.shape
    }

    /// Number of blocks that exist.
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Whether no block exists.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Makes one more block, zero-filled; returns its number.
    pub fn grow(&mut self) -> u32 {
        self.blocks.push(vec![0.0; self.shape.layers * self.shape.layer_floats()].into_boxed_slice());
        (self.blocks.len() - 1) as u32
    }

    /// Copies block `from` into `to` (before writing into a shared one).
    pub fn copy(&mut self, from: u32, to: u32) {
        let source = self.blocks[from as usize].clone();
        self.blocks[to as usize].copy_from_slice(&source);
    }

    /// Writes the spans' keys and values (`[rows, K*H]`, spans one after another) for one layer.
    pub fn write(&mut self, layer: usize, k: &[f32], v: &[f32], spans: &[CacheSpan]) {
        let CacheShape { kv_heads, head_dim, .. } = self.shape;
        let (panels, base) = (self.shape.panels(), layer * self.shape.layer_floats());
        let mut t = 0;
        for span in spans {
            for i in 0..span.rows {
                let position = span.start + i;
                let block = &mut self.blocks[span.blocks[position / NR] as usize][base..];
                let slot = position % NR;
                for g in 0..kv_heads {
                    let at = ((t + i) * kv_heads + g) * head_dim;
                    let keys = &mut block[g * head_dim * NR + slot..];
                    for (d, x) in k[at..at + head_dim].iter().enumerate() {
                        keys[d * NR] = *x;
                    }
                    let values = &mut block[kv_heads * head_dim * NR + g * panels * NR * NR..];
                    for c in (0..head_dim).step_by(NR) {
                        let width = (head_dim - c).min(NR);
                        let to = (c / NR * NR + slot) * NR;
                        values[to..to + width].copy_from_slice(&v[at + c..at + c + width]);
                    }
                }
            }
            t += span.rows;
        }
    }

    /// out `[rows, N*H]` for the spans' queries q, each seeing its own sequence up to its own position.
    pub fn attend(&self, layer: usize, out: &mut [f32], q: &[f32], spans: &[CacheSpan], heads: Heads) {
        let mut first = Vec::with_capacity(spans.len());
        let mut t = 0;
        for span in spans {
            first.push(t);
            t += span.rows;
        }
        assert!(q.len() == t * heads.query * heads.dim && out.len() == q.len(), "cached attention: shapes");
        let out = Shared::new(out);
        // Few query heads per key/value head: one new token's heads run side by side. Many: they are the rows of a product.
        let side_by_side = heads.query / heads.kv < MANY_ROWS;
        let steps: Vec<usize> = (0..spans.len()).filter(|i| side_by_side && spans[*i].rows == 1).collect();
        par::ranges(steps.len(), 4, |items| {
            let mut work = Step::default();
            for i in items {
                let i = steps[i];
                self.step(layer, &out, q, &spans[i], first[i], heads, &mut work);
            }
        });
        let others: Vec<usize> = (0..spans.len()).filter(|i| !(side_by_side && spans[*i].rows == 1)).collect();
        par::ranges(others.len() * heads.kv, 8, |items| {
            let mut s = Vec::new();
            for item in items {
                let (i, g) = (others[item / heads.kv], item % heads.kv);
                self.attend_head(layer, &out, q, &spans[i], first[i], g, heads, &mut s);
            }
        });
    }

    /// One new token of one sequence, all heads side by side.
    fn step(&self, layer: usize, out: &Shared, q: &[f32], span: &CacheSpan, t: usize, heads: Heads, work: &mut Step) {
        let (n, dim, group, panels) = (heads.query, heads.dim, heads.query / heads.kv, self.shape.panels());
        let keys = (span.start + 1).next_multiple_of(NR);
        let start = layer * self.shape.layer_floats();
        let Step { s, blocks, chains } = work;
        s.resize(n * keys, 0.0);
        blocks.clear();
        blocks.extend(span.blocks[..keys / NR].iter().map(|b| self.blocks[*b as usize].as_ptr()));
        chains.clear();
        chains.extend((0..n).map(|h| Chain {
            left: q[(t * n + h) * dim..].as_ptr(),
            offset: start + h / group * dim * NR,
            out: s[h * keys..].as_mut_ptr(),
            width: NR,
        }));
        // SAFETY: the query row exists (asserted by the caller); every block holds this layer's keys; s has `keys` per head.
        unsafe { decode::scores(chains, blocks, dim) };
        let mut inverse = [0f32; 256];
        for (h, row) in s.chunks_exact_mut(keys).enumerate() {
            inverse[h] = softmax_row(row, span.start, heads.scale).1;
        }
        chains.clear();
        for h in 0..n {
            for c in (0..dim).step_by(NR) {
                chains.push(Chain {
                    left: s[h * keys..].as_ptr(),
                    offset: start + heads.kv * dim * NR + (h / group * panels + c / NR) * NR * NR,
                    // SAFETY: this task alone writes this row.
                    out: unsafe { out.at((t * n + h) * dim + c) },
                    width: (dim - c).min(NR),
                });
            }
        }
        // SAFETY: s has a weight for each of the blocks' keys, masked ones zero; blocks hold this layer's values.
        unsafe { decode::values(chains, blocks) };
        for (h, inverse) in inverse.iter().enumerate().take(n) {
            // SAFETY: as above.
            math::scale(unsafe { out.slice((t * n + h) * dim, dim) }, *inverse);
        }
    }

    fn attend_head(
        &self,
        layer: usize,
        out: &Shared,
        q: &[f32],
        span: &CacheSpan,
        t0: usize,
        g: usize,
        heads: Heads,
        s: &mut Vec<f32>,
    ) {
        let (n, dim, group) = (heads.query, heads.dim, heads.query / heads.kv);
        let cap = (span.start + span.rows).next_multiple_of(NR);
        s.resize(TILE.max(group) * cap, 0.0);
        // One new token: the heads of the group are the rows of the product. Several: the tokens are, head by head.
        let (tiles, stride) = if span.rows == 1 { (1, dim) } else { (group * span.rows.div_ceil(TILE), n * dim) };
        for tile in 0..tiles {
            let (h, r0, rows) = if span.rows == 1 {
                (g * group, 0, group)
            } else {
                let r0 = tile / group * TILE;
                (g * group + tile % group, r0, (span.rows - r0).min(TILE))
            };
            let position = |i: usize| span.start + if span.rows == 1 { 0 } else { r0 + i };
            let keys = (position(rows - 1) + 1).next_multiple_of(NR);
            let base = (t0 + r0) * n * dim + h * dim;
            let panels = self.shape.panels();
            let start = layer * self.shape.layer_floats();
            let blocks = &span.blocks[..keys / NR];
            for (b, block) in blocks.iter().enumerate() {
                let k_t = &self.blocks[*block as usize][start + g * dim * NR..];
                let e = Extent { m: rows, outer: 1, inner: dim, n: NR };
                let a = Left { base: q[base..].as_ptr(), row: stride, outer: 0, inner: 1 };
                // SAFETY: the query rows exist (asserted by the caller), the block holds dim rows of 32 keys for head g.
                unsafe { gemm(e, a, k_t.as_ptr(), NR, s[b * NR..].as_mut_ptr(), cap, Start::Zero) };
            }
            let mut inverse = [0f32; 256];
            for i in 0..rows {
                inverse[i] = softmax_row(&mut s[i * cap..i * cap + keys], position(i), heads.scale).1;
            }
            for (b, block) in blocks.iter().enumerate() {
                let values =
                    &self.blocks[*block as usize][start + self.shape.kv_heads * dim * NR + g * panels * NR * NR..];
                for c in (0..dim).step_by(NR) {
                    let e = Extent { m: rows, outer: 1, inner: NR, n: (dim - c).min(NR) };
                    let a = Left { base: s[b * NR..].as_ptr(), row: cap, outer: 0, inner: 1 };
                    let start = if b == 0 { Start::Zero } else { Start::Chain };
                    // SAFETY: this task alone writes these heads of this span's rows.
                    unsafe { gemm(e, a, values[c * NR..].as_ptr(), NR, out.at(base + c), stride, start) };
                }
            }
            for (i, inverse) in inverse.iter().enumerate().take(rows) {
                // SAFETY: as above.
                math::scale(unsafe { out.slice(base + i * stride, dim) }, *inverse);
            }
        }
    }
}
