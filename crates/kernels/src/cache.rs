//! Attention over a block cache of keys and values: prefill in any chunking and decoding in any batch.
//!
//! A block holds [`BLOCK_TOKENS`] tokens of every layer: keys as panels `[K][H][32]`, ready for the score product, values as
//! `[K][ceil(H/32)][32][32]`; in bf16 a word holds two values of one key (`[K][words(H)][32]`) or two keys' values
//! (`[K][ceil(H/32)][16][32]`). Words of a key that hold no value (see [`Operand::words`]) are zero from the block's beginning,
//! and nothing else is written there. A sequence is a list of block numbers; sequences may share blocks of a common prefix.

mod latent;

use crate::attention::{Heads, forward_rows};
use crate::cpu::bf16::halve;
use crate::cpu::decode::{self, Chain, TileRows};
use crate::cpu::gemm::{Extent, Left, NR, Start, bf16_tiles};
use crate::cpu::math::{self, SQUARE};
use crate::cpu::operand::{Operand, Pairs, Singles, as_u32, grow};
use crate::par::{self, Shared};
use crate::params::Precision;
use crate::scratch;
use crate::softmax::{softmax_row, softmax_rows};
use std::cell::RefCell;
use std::ops::Range;

/// Tokens in a cache block.
pub const BLOCK_TOKENS: usize = NR;

/// Most query heads of a model, and most rows of a tile.
const MOST_HEADS: usize = 256;
/// Query heads per key/value head from which the matrix microkernel has enough rows.
const MANY_ROWS: usize = 5;

thread_local! {
    static STEP: RefCell<Step> = RefCell::new(Step::default());
}

/// Buffers of one task.
#[derive(Default)]
struct Step {
    s: Vec<f32>,
    q: Vec<f32>,
    p: Vec<f32>,
    blocks: Vec<*const f32>,
    next: Vec<*const f32>,
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
    /// In what numbers keys and values are kept and multiplied; that of the model's [`Heads`].
    pub precision: Precision,
    /// Head width of the values; 0 where the values are part of the keys (latent attention).
    pub value_dim: usize,
}

impl CacheShape {
    fn panels(&self) -> usize {
        self.value_dim.div_ceil(NR)
    }

    /// Words of a row of so many values.
    fn words(&self, values: usize) -> usize {
        match self.precision {
            Precision::F32 => Singles::words(values),
            Precision::Bf16 | Precision::Fp8 => Pairs::words(values),
        }
    }

    /// Words of one head's keys in a block.
    fn key_words(&self) -> usize {
        self.words(self.head_dim) * NR
    }

    /// Words of 32 columns of one head's values in a block.
    fn value_words(&self) -> usize {
        self.words(NR) * NR
    }

    /// Where the values of head `g` begin.
    fn value_start(&self, g: usize) -> usize {
        self.kv_heads * self.key_words() + g * self.panels() * self.value_words()
    }

    fn layer_words(&self) -> usize {
        self.value_start(self.kv_heads)
    }

    /// Bytes of one block.
    pub fn block_bytes(&self) -> usize {
        self.layers * self.layer_words() * 4
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

crate::multiversion! {
    /// One token's keys and values (bf16, `[K*H]`) into slot `slot` of its block's layer: a word of keys is two neighbours of
    /// one token, a word of values one column of two tokens.
    fn write_pairs(block: &mut [u32], k: &[u16], v: &[u16], slot: usize, shape: CacheShape) -> () {
        for (g, (k, v)) in k.chunks_exact(shape.head_dim).zip(v.chunks_exact(shape.head_dim)).enumerate() {
            let keys = &mut block[g * shape.key_words()..][..shape.key_words()];
            for (line, x) in keys.chunks_exact_mut(NR).zip(k.chunks(2)) {
                line[slot] = u32::from(x[0]) | u32::from(*x.get(1).unwrap_or(&0)) << 16;
            }
            let values = &mut block[shape.value_start(g)..];
            for (c, x) in v.chunks(NR).enumerate() {
                let line = &mut values[c * shape.value_words() + slot / 2 * NR..][..x.len()];
                if slot % 2 == 1 {
                    for (word, x) in line.iter_mut().zip(x) { *word = *word & 0xffff | u32::from(*x) << 16; }
                } else {
                    for (word, x) in line.iter_mut().zip(x) { *word = *word & 0xffff_0000 | u32::from(*x); }
                }
            }
        }
    }
}

/// The row of each span's first token, and how many rows there are.
fn first_rows(spans: &[CacheSpan]) -> (Vec<usize>, usize) {
    let (mut first, mut rows) = (Vec::with_capacity(spans.len()), 0);
    for span in spans {
        first.push(rows);
        rows += span.rows;
    }
    (first, rows)
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
        self.blocks.push(vec![0.0; self.shape.layers * self.shape.layer_words()].into_boxed_slice());
        (self.blocks.len() - 1) as u32
    }

    /// Copies block `from` into `to` (before writing into a shared one).
    pub fn copy(&mut self, from: u32, to: u32) {
        let source = self.blocks[from as usize].clone();
        self.blocks[to as usize].copy_from_slice(&source);
    }

    /// Writes the spans' keys and values (`[rows, K*H]`, spans one after another) for one layer.
    pub fn write(&mut self, layer: usize, k: &[f32], v: &[f32], spans: &[CacheSpan]) {
        let shape = self.shape;
        let (dim, width, base) = (shape.head_dim, shape.kv_heads * shape.head_dim, layer * shape.layer_words());
        assert!(shape.value_dim == dim, "cached attention: values as wide as keys");
        let mut rounded = vec![0u16; 2 * width];
        let positions = spans.iter().flat_map(|s| (s.start..s.start + s.rows).map(|p| (s.blocks[p / NR], p % NR)));
        for (((block, slot), k), v) in positions.zip(k.chunks_exact(width)).zip(v.chunks_exact(width)) {
            let block = &mut self.blocks[block as usize][base..];
            match shape.precision {
                Precision::F32 => {
                    for (g, (k, v)) in k.chunks_exact(dim).zip(v.chunks_exact(dim)).enumerate() {
                        let (keys, values) = (g * shape.key_words(), shape.value_start(g));
                        for (d, x) in k.iter().enumerate() {
                            block[keys + d * NR + slot] = *x;
                        }
                        for (c, x) in v.chunks(NR).enumerate() {
                            block[values + (c * NR + slot) * NR..][..x.len()].copy_from_slice(x);
                        }
                    }
                }
                Precision::Bf16 | Precision::Fp8 => {
                    let (low_k, low_v) = rounded.split_at_mut(width);
                    halve(low_k, k);
                    halve(low_v, v);
                    write_pairs(as_u32(block), low_k, low_v, slot, shape);
                }
            }
        }
    }

    /// out `[rows, N*H]` for the spans' queries q, each seeing its own sequence up to its own position.
    pub fn attend(&self, layer: usize, out: &mut [f32], q: &[f32], spans: &[CacheSpan], heads: Heads) {
        let CacheShape { kv_heads, head_dim, value_dim, precision, .. } = self.shape;
        assert!(
            (heads.kv, heads.dim, heads.value, heads.dim) == (kv_heads, head_dim, value_dim, value_dim),
            "cached attention: heads as wide as the cache's, values as wide as keys"
        );
        assert!(heads.precision == precision, "cached attention: the cache is in the model's numbers");
        match heads.precision {
            Precision::F32 => self.attend_in::<Singles>(layer, out, q, spans, heads),
            Precision::Bf16 | Precision::Fp8 => self.attend_in::<Pairs>(layer, out, q, spans, heads),
        }
    }

    fn attend_in<E: Operand>(&self, layer: usize, out: &mut [f32], q: &[f32], spans: &[CacheSpan], heads: Heads) {
        let (first, t) = first_rows(spans);
        assert!(q.len() == t * heads.query * heads.dim && out.len() == q.len(), "cached attention: shapes");
        assert!(heads.query <= MOST_HEADS, "cached attention: heads");
        let out = Shared::new(out);
        // Few query heads per key/value head: one new token's heads run side by side. Many: they are the rows of a product.
        // Tiles sum in an order of their own, so that one row has to go through them, too.
        let side_by_side = heads.query / heads.kv < MANY_ROWS && !(E::VALUES == 2 && bf16_tiles());
        let steps: Vec<usize> = (0..spans.len()).filter(|i| side_by_side && spans[*i].rows == 1).collect();
        par::ranges(steps.len(), 4, |items| {
            scratch::kept(&STEP, |work| {
                for at in items {
                    let (i, next) = (steps[at], steps.get(at + 1).map(|i| &spans[*i]));
                    self.step::<E>(layer, &out, q, (&spans[i], next), first[i], heads, work);
                }
            });
        });
        let others: Vec<usize> = (0..spans.len()).filter(|i| !(side_by_side && spans[*i].rows == 1)).collect();
        // Tiles take whole tiles of a head.
        let tiled = E::tiles() && heads.query / heads.kv <= SQUARE && heads.dim.is_multiple_of(NR);
        par::ranges(others.len() * heads.kv, 8, |items| {
            scratch::kept(&STEP, |work| {
                let mut item = items.start;
                while item < items.end {
                    // The heads of one span that are this task's.
                    let (i, g) = (others[item / heads.kv], item % heads.kv);
                    let of_span = g..(g + items.end - item).min(heads.kv);
                    item += of_span.len();
                    if tiled && spans[i].rows == 1 {
                        let next = others.get(item / heads.kv).filter(|_| item < items.end).map(|i| &spans[*i]);
                        self.step_tiled(layer, &out, q, (&spans[i], next), first[i], of_span, heads, work);
                    } else {
                        of_span.for_each(|g| {
                            self.attend_head::<E>(layer, &out, q, &spans[i], first[i], g, heads, work);
                        });
                    }
                }
            });
        });
    }

    /// One new token of one sequence, all heads side by side; what the next one reads first is asked for.
    fn step<E: Operand>(
        &self,
        layer: usize,
        out: &Shared,
        q: &[f32],
        (span, next): (&CacheSpan, Option<&CacheSpan>),
        t: usize,
        heads: Heads,
        work: &mut Step,
    ) {
        let (n, dim, group) = (heads.query, heads.dim, heads.query / heads.kv);
        let keys = (span.start + 1).next_multiple_of(NR);
        let start = layer * self.shape.layer_words();
        let Step { s, q: q_words, p, blocks, chains, .. } = work;
        let (left, ld) = E::left(q_words, &q[t * n * dim..], dim, n, dim);
        grow(s, n * keys);
        blocks.clear();
        blocks.extend(span.blocks[..keys / NR].iter().map(|b| self.blocks[*b as usize].as_ptr()));
        chains.clear();
        chains.extend((0..n).map(|h| Chain {
            // SAFETY: there are n rows of ld words.
            left: unsafe { left.add(h * ld) },
            offset: start + h / group * self.shape.key_words(),
            out: s[h * keys..].as_mut_ptr(),
            width: NR,
        }));
        // From a head's keys to its values, where both are as wide.
        let jump = self.shape.value_start(0);
        let after = blocks[0].wrapping_add(jump);
        // SAFETY: the query row exists (asserted by the caller); every block holds this layer's keys; s has `keys` per head.
        unsafe { decode::scores(chains, group, blocks, E::words(dim), E::VALUES == 2, after) };
        let mut inverse = [0f32; MOST_HEADS];
        softmax_rows(&mut s[..n * keys], keys, span.start, heads.scale, &mut inverse);
        let (left, ld) = E::left(p, s, keys, n, keys);
        chains.clear();
        for first in (0..n).step_by(group) {
            for c in (0..dim).step_by(NR) {
                chains.extend((first..first + group).map(|h| Chain {
                    // SAFETY: as above.
                    left: unsafe { left.add(h * ld) },
                    offset: start + self.shape.value_start(h / group) + c / NR * self.shape.value_words(),
                    // SAFETY: this task alone writes this row.
                    out: unsafe { out.at((t * n + h) * dim + c) },
                    width: (dim - c).min(NR),
                }));
            }
        }
        let after = next.map_or(blocks[0], |span| self.blocks[span.blocks[0] as usize].as_ptr()).wrapping_sub(jump);
        // SAFETY: there is a weight for each of the blocks' keys, masked ones zero; blocks hold this layer's values.
        unsafe { decode::values(chains, group, blocks, E::VALUES == 2, after) };
        // SAFETY: as above.
        math::scale_rows(unsafe { out.slice(t * n * dim, n * dim) }, dim, &inverse);
    }

    /// One new token of one sequence, the query heads of some key/value heads through matrix tiles; what the next one reads first
    /// is asked for.
    fn step_tiled(
        &self,
        layer: usize,
        out: &Shared,
        q: &[f32],
        (span, following): (&CacheSpan, Option<&CacheSpan>),
        t: usize,
        of: Range<usize>,
        heads: Heads,
        work: &mut Step,
    ) {
        let (shape, dim, group) = (self.shape, heads.dim, heads.query / heads.kv);
        let (keys, n) = ((span.start + 1).next_multiple_of(NR), of.len() * group);
        let Step { s, q: q_words, p, blocks, next, .. } = work;
        for (list, span) in [(&mut *blocks, Some(span)), (&mut *next, following)] {
            list.clear();
            let used = span.map_or(&[][..], |span| &span.blocks[..(span.start + 1).div_ceil(NR)]);
            list.extend(used.iter().map(|b| self.blocks[*b as usize].as_ptr()));
        }
        let start = layer * shape.layer_words();
        let (k_t, values) = (|g: usize| start + g * shape.key_words(), |g: usize| start + shape.value_start(g));
        let base = (t * heads.query + of.start * group) * dim;
        grow(s, n * keys);
        let (left, ld) = Pairs::left(q_words, &q[base..], dim, n, dim);
        // After the last head's keys come the first one's values.
        for (i, g) in of.clone().enumerate() {
            let next = if g + 1 < of.end { k_t(g + 1) } else { values(of.start) };
            let (left, out) = (left.wrapping_add(i * group * ld), s[i * group * keys..].as_mut_ptr());
            let rows = TileRows { count: group, left, ld, out, ldc: keys };
            // SAFETY: there are tiles; the query rows exist (asserted by the caller), blocks hold 32 keys for head g, s has `keys`
            // for each row.
            unsafe { decode::tile_scores(rows, Pairs::words(dim), blocks, k_t(g), next) };
        }
        let mut inverse = [0f32; MOST_HEADS];
        softmax_rows(&mut s[..n * keys], keys, span.start, heads.scale, &mut inverse);
        let (left, ld) = Pairs::left(p, s, keys, n, keys);
        let end = of.end;
        for (i, g) in of.enumerate() {
            // SAFETY: this task alone writes these heads of this row.
            let out = unsafe { out.at(base + i * group * dim) };
            let left = left.wrapping_add(i * group * ld);
            let rows = TileRows { count: group, left, ld, out, ldc: dim };
            let panels = (values(g), shape.value_words());
            let next = if g + 1 < end { (&blocks[..], values(g + 1)) } else { (&next[..], k_t(0)) };
            // SAFETY: there is a weight for each of the blocks' keys, masked ones zero; blocks hold this layer's values.
            unsafe { decode::tile_values(rows, blocks, panels, dim, next) };
        }
        // SAFETY: as above.
        math::scale_rows(unsafe { out.slice(base, n * dim) }, dim, &inverse);
    }

    fn attend_head<E: Operand>(
        &self,
        layer: usize,
        out: &Shared,
        q: &[f32],
        span: &CacheSpan,
        t0: usize,
        g: usize,
        heads: Heads,
        work: &mut Step,
    ) {
        let shape = self.shape;
        let Step { s, q: q_words, p, .. } = work;
        let (n, dim, group) = (heads.query, heads.dim, heads.query / heads.kv);
        let (cap, height) = ((span.start + span.rows).next_multiple_of(NR), forward_rows::<E>());
        grow(s, height.max(group) * cap);
        // One new token: the heads of the group are the rows of the product. Several: the tokens are, head by head.
        let (tiles, stride) = if span.rows == 1 { (1, dim) } else { (group * span.rows.div_ceil(height), n * dim) };
        for tile in 0..tiles {
            let (h, r0, rows) = if span.rows == 1 {
                (g * group, 0, group)
            } else {
                let r0 = tile / group * height;
                (g * group + tile % group, r0, (span.rows - r0).min(height))
            };
            let position = |i: usize| span.start + if span.rows == 1 { 0 } else { r0 + i };
            let keys = (position(rows - 1) + 1).next_multiple_of(NR);
            let base = (t0 + r0) * n * dim + h * dim;
            let start = layer * shape.layer_words();
            let blocks = &span.blocks[..keys / NR];
            let (left, ld) = E::left(q_words, &q[base..], stride, rows, dim);
            for (b, block) in blocks.iter().enumerate() {
                let k_t = &self.blocks[*block as usize][start + g * shape.key_words()..];
                let e = Extent { m: rows, outer: 1, inner: E::words(dim), n: NR };
                let a = Left { base: left, row: ld, outer: 0, inner: 1 };
                // SAFETY: the query rows exist (asserted by the caller), the block holds 32 keys for head g.
                unsafe { E::gemm(e, a, k_t.as_ptr(), NR, s[b * NR..].as_mut_ptr(), cap, Start::Zero) };
            }
            let mut inverse = [0f32; MOST_HEADS];
            for i in 0..rows {
                inverse[i] = softmax_row(&mut s[i * cap..i * cap + keys], position(i), heads.scale).1;
            }
            let (left, ld) = E::left(p, s, cap, rows, keys);
            for (b, block) in blocks.iter().enumerate() {
                let values = &self.blocks[*block as usize][start + shape.value_start(g)..];
                for c in (0..dim).step_by(NR) {
                    let e = Extent { m: rows, outer: 1, inner: E::words(NR), n: (dim - c).min(NR) };
                    // SAFETY: the words of block b lie inside each of the rows.
                    let base_words = unsafe { left.add(b * E::words(NR)) };
                    let a = Left { base: base_words, row: ld, outer: 0, inner: 1 };
                    let values = values[c / NR * shape.value_words()..].as_ptr();
                    let start = if b == 0 { Start::Zero } else { Start::Chain };
                    // SAFETY: this task alone writes these heads of this span's rows.
                    unsafe { E::gemm(e, a, values, NR, out.at(base + c), stride, start) };
                }
            }
            for (i, inverse) in inverse.iter().enumerate().take(rows) {
                // SAFETY: as above.
                math::scale(unsafe { out.slice(base + i * stride, dim) }, *inverse);
            }
        }
    }
}
