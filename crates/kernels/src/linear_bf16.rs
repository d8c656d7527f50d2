//! Linear layers in bf16: operands rounded to bf16, sums in f32, the three products of `linear` in the same shapes.
//!
//! Weights are rounded once per version into packed copies (see [`Packed`]). Activations come in bf16, or as f32 and are
//! rounded on the fly, a block that fits the second-level cache at a time. As in f32, a sum runs over its contraction in
//! ascending order (pair by pair), so no result depends on how the work was split.

mod gradient;

pub use gradient::{WeightTarget, backward_weight, backward_weights};

use crate::cpu::bf16::{interleave, pair_rows, turn_lines};
use crate::cpu::gemm::{Extent, LINE, Left, NR, Next, Out, Right, Start, bf16_tiles, gemm_bf16_wide, written};
use crate::cpu::math::SQUARE;
use crate::cpu::operand::{as_f32, as_u32, halves};
use crate::par::{self, Shared};
use crate::rows::Rows;
use crate::scratch;
use std::cell::RefCell;
use std::ops::Range;
use std::thread::LocalKey;

/// Matrices of at least as many values have no copy for the input gradient where memory is short, and are turned whenever it
/// is made: that costs some hundredths of a product over a thousand tokens.
const LARGE: usize = 1 << 19;
/// Matrices with more rows are output heads.
const TALL: usize = 1 << 14;
/// Words of a large matrix packed at a time for the input gradient.
const BACKWARD_WORDS: usize = 8 << 20;
/// Bytes of rounded activations that one task keeps before it walks the weights.
const BLOCK_BYTES: usize = 384 << 10;
/// Bytes of panels that a group of rows meets before the next group does (matrix tiles).
const PANEL_BYTES: usize = 512 << 10;
/// Rows of the weight-gradient microkernel: activations are packed in tiles this wide.
const TILE: usize = 12;
/// Values of a result that goes past the caches: whoever reads it would find little of it there, and lines need not be read to
/// be overwritten.
const PAST: usize = 1 << 21;
/// Rows in bf16 as long as a multiple of this are copied before they are multiplied: a tile's rows would share lines.
const FAR: usize = 2048;

thread_local! {
    static ROWS: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
    static PANEL: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
    static WEIGHT: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
}

/// A buffer of this thread with `len` words.
fn with_scratch<R>(key: &'static LocalKey<RefCell<Vec<u32>>>, len: usize, f: impl FnOnce(&mut [u32]) -> R) -> R {
    scratch::kept(key, |buffer| {
        if buffer.len() < len {
            buffer.resize(len, 0);
        }
        f(&mut buffer[..len])
    })
}

/// A matrix `[n, k]` in bf16 pairs, as the products read it.
#[derive(Clone, Debug, Default)]
pub struct Packed {
    /// Pairs along k, for y = x W^T: `[ceil(n/32)][ceil(k/2)][32]`.
    forward: Vec<u32>,
    /// Pairs along n, for d_x = d_y W: `[ceil(k/32)][ceil(n/32) 16][32]`; empty where no gradient flows, and where it is made
    /// from `forward` whenever it is needed.
    backward: Vec<u32>,
}

impl Packed {
    /// Rounds f32 panels `[ceil(n/32)][k][32]`; buffers are reused.
    pub fn pack(&mut self, panels: &[f32], n: usize, k: usize, with_backward: bool) {
        let (count, pairs) = (n.div_ceil(NR), k.div_ceil(2));
        self.forward.resize(count * pairs * NR, 0);
        let to = Shared::new(as_f32(&mut self.forward));
        let zeros = [0f32; NR];
        par::ranges(count * pairs, (1 << 14) / NR, |range| {
            for at in range {
                let (panel, p) = (at / pairs, at % pairs);
                let row = |j: usize| &panels[(panel * k + j) * NR..][..NR];
                // SAFETY: each task owns its rows of pairs.
                let out = as_u32(unsafe { to.slice(at * NR, NR) });
                interleave(out, row(2 * p), if 2 * p + 1 < k { row(2 * p + 1) } else { &zeros });
            }
        });
        self.turn(n, k, with_backward);
    }

    /// Makes the copy for the input gradient from the other one, where it is kept.
    pub(crate) fn turn(&mut self, n: usize, k: usize, keep: bool) {
        if !keep {
            self.backward = Vec::new();
            return;
        }
        let blocks = k.div_ceil(NR);
        self.backward.resize(blocks * n.div_ceil(NR) * (NR / 2) * NR, 0);
        pack_backward(&mut self.backward, &self.forward, n, k, 0..blocks);
    }

    /// Whether there is a copy for the input gradient.
    pub(crate) fn is_turned(&self) -> bool {
        !self.backward.is_empty()
    }

    /// Room for a matrix `[n, k]`; its words are written by the caller.
    pub(crate) fn resize(&mut self, n: usize, k: usize) {
        self.forward.resize(n.div_ceil(NR) * k.div_ceil(2) * NR, 0);
    }

    /// Pairs along k: `[ceil(n/32)][ceil(k/2)][32]`.
    pub(crate) fn words(&self) -> &[u32] {
        &self.forward
    }

    /// The same, to be written: [`Packed::turn`] comes after it.
    pub(crate) fn words_mut(&mut self) -> &mut [u32] {
        &mut self.forward
    }

    /// Bytes of both copies.
    pub fn bytes(&self) -> usize {
        (self.forward.len() + self.backward.len()) * 4
    }
}

/// Whether a matrix has as many rows as an output head.
pub(crate) fn is_tall(n: usize) -> bool {
    n > TALL
}

/// Whether there is a copy for the input gradient even where memory is short.
pub(crate) fn is_small(n: usize, k: usize) -> bool {
    n * k < LARGE
}

/// Pairs along n of the columns in `blocks` (32 columns each), from pairs along k.
fn pack_backward(out: &mut [u32], forward: &[u32], n: usize, k: usize, blocks: Range<usize>) {
    let (count, pairs, words) = (n.div_ceil(NR), k.div_ceil(2), n.div_ceil(NR) * (NR / 2) * NR);
    assert!(out.len() >= blocks.len() * words, "bf16 linear backward: room");
    let to = Shared::new(as_f32(out));
    let panels = blocks.len() * count;
    par::ranges(panels, 64, |range| {
        for at in range {
            let (block, panel) = (blocks.start + at / count, at % count);
            // SAFETY: each task owns its panels.
            let out = as_u32(unsafe { to.slice(at * (NR / 2) * NR, (NR / 2) * NR) });
            let from = panel * pairs + block * (NR / 2);
            let lines = &forward[from * NR..][..(pairs - block * (NR / 2)).min(NR / 2) * NR];
            turn_lines(out, lines);
        }
    });
}

/// y `[m, n]` = x `[m, k]` W^T, or y += x W^T with `add` (the product is summed first, then added).
pub fn forward<'a>(y: &mut [f32], x: impl Into<Rows<'a>>, w: &Packed, n: usize, k: usize, add: bool) {
    let x = x.into();
    assert_eq!(w.forward.len(), n.div_ceil(NR) * k.div_ceil(2) * NR, "bf16 linear: packed weights");
    product(y, x, &w.forward, n, k, k.div_ceil(2), add);
}

/// d_x `[m, k]` += d_y `[m, n]` W, or = without `add`.
pub fn backward_input<'a>(d_x: &mut [f32], d_y: impl Into<Rows<'a>>, w: &Packed, n: usize, k: usize, add: bool) {
    let d_y = d_y.into();
    let (pairs, blocks) = (n.div_ceil(NR) * (NR / 2), k.div_ceil(NR));
    if w.backward.is_empty() {
        return turned_input(d_x, d_y, &w.forward, n, k, add);
    }
    assert_eq!(w.backward.len(), blocks * pairs * NR, "bf16 linear backward: packed weights");
    product(d_x, d_y, &w.backward, k, n, pairs, add);
}

/// The same from pairs along k, turned on the way.
fn turned_input(d_x: &mut [f32], d_y: Rows, forward: &[u32], n: usize, k: usize, add: bool) {
    let (pairs, blocks) = (n.div_ceil(NR) * (NR / 2), k.div_ceil(NR));
    assert!(forward.len() == n.div_ceil(NR) * k.div_ceil(2) * NR, "bf16 linear backward: packed weights");
    assert!(d_x.len() == d_y.len() / n * k, "bf16 linear backward: shapes");
    let (step, start) = ((BACKWARD_WORDS / (pairs * NR)).clamp(1, blocks), if add { Start::Add } else { Start::Zero });
    let out = Shared::new(d_x);
    with_scratch(&WEIGHT, step * pairs * NR, |panels| {
        for first in (0..blocks).step_by(step) {
            let end = (first + step).min(blocks);
            pack_backward(panels, forward, n, k, first..end);
            let (from, width) = (first * NR, (end * NR).min(k) - first * NR);
            products(&[Target { out, from, row: k, panels, n: width }], d_y, n, pairs, start);
        }
    });
}

/// Panels `range` of a matrix `[n, k]`: an output head goes through its backward in pieces of the vocabulary.
#[derive(Clone, Copy)]
pub(crate) struct Piece<'a> {
    forward: &'a [u32],
    n: usize,
    k: usize,
}

impl<'a> Piece<'a> {
    pub(crate) fn new(w: &'a Packed, range: Range<usize>, n: usize, k: usize) -> Self {
        let words = k.div_ceil(2) * NR;
        Piece {
            forward: &w.forward[range.start * words..range.end * words],
            n: (range.end * NR).min(n) - range.start * NR,
            k,
        }
    }

    /// Output width.
    pub(crate) fn width(&self) -> usize {
        self.n
    }

    /// y `[m, width]` = x `[m, k]` W^T.
    pub(crate) fn forward(&self, y: &mut [f32], x: &[f32]) {
        product(y, x.into(), self.forward, self.n, self.k, self.k.div_ceil(2), false);
    }

    /// d_x `[m, k]` += d_y `[m, width]` W.
    pub(crate) fn backward_input(&self, d_x: &mut [f32], d_y: &[f32]) {
        turned_input(d_x, d_y.into(), self.forward, self.n, self.k, true);
    }
}

/// y_i `[m, n_i]` = x `[m, k]` W_i^T for several matrices.
pub fn forward_all<'a>(outputs: &mut [(&mut [f32], &Packed, usize)], x: impl Into<Rows<'a>>, k: usize) {
    let x = x.into();
    let m = x.len() / k;
    let mut targets = Vec::with_capacity(outputs.len());
    for (y, w, n) in outputs {
        assert!(w.forward.len() == n.div_ceil(NR) * k.div_ceil(2) * NR && y.len() == m * *n, "bf16 linear: shapes");
        targets.push(Target { out: Shared::new(y), from: 0, row: *n, panels: &w.forward, n: *n });
    }
    products(&targets, x, k, k.div_ceil(2), Start::Zero);
}

/// Where a product goes (columns `from..from + n` of rows of `row` values), and the matrix it is made with: panels
/// `[ceil(n/32)][pairs][32]`.
struct Target<'a> {
    out: Shared,
    from: usize,
    row: usize,
    panels: &'a [u32],
    n: usize,
}

impl Target<'_> {
    /// How results of `m` rows are written.
    fn start(&self, m: usize, start: Start) -> Start {
        // SAFETY: the result begins inside the slice.
        let first = unsafe { self.out.at(self.from) };
        let lines = first.addr().is_multiple_of(4 * LINE) && self.row.is_multiple_of(LINE);
        if start == Start::Zero && m * self.n >= PAST && lines { Start::Past } else { start }
    }
}

/// y `[m, n]` from x `[m, k]` and panels `[ceil(n/32)][pairs][32]`; pairs beyond k meet zeros.
fn product(y: &mut [f32], x: Rows, panels: &[u32], n: usize, k: usize, pairs: usize, add: bool) {
    assert!(y.len() == x.len() / k * n, "bf16 linear: shapes");
    let start = if add { Start::Add } else { Start::Zero };
    products(&[Target { out: Shared::new(y), from: 0, row: n, panels, n }], x, k, pairs, start);
}

/// Rows of x as the left side of a product, and where they lie once they are.
struct LeftRows<'a> {
    x: Rows<'a>,
    k: usize,
    pairs: usize,
    /// Words between rows that are copied: a row more than its words, so that rows do not fall on the same lines of the
    /// first-level cache.
    ld: usize,
    /// Whether rows are read where they are: whole words, none beyond them wanted, and not so far apart that a tile's rows
    /// would fall on the same lines.
    direct: bool,
}

impl<'a> LeftRows<'a> {
    fn new(x: Rows<'a>, k: usize, pairs: usize) -> Self {
        let ld = (k / 2 + 1).max(pairs).next_multiple_of(16) + 16;
        let direct = match x {
            Rows::Pairs(x) => 2 * pairs == k && x.as_ptr().cast::<u32>().is_aligned() && !k.is_multiple_of(FAR),
            Rows::Singles(_) => false,
        };
        // Matrix tiles read sixteen words at a time.
        let direct = direct && (pairs.is_multiple_of(SQUARE) || !bf16_tiles());
        LeftRows { x, k, pairs, ld, direct }
    }

    /// Rows `r..r + m`, in place or copied to `scratch`.
    fn at(&self, scratch: &mut [u32], r: usize, m: usize) -> Left {
        let (k, ld) = (self.k, self.ld);
        let x = self.x.slice(r * k..(r + m) * k);
        let (base, row) = match x {
            Rows::Pairs(x) if self.direct => (x.as_ptr().cast(), k / 2),
            Rows::Pairs(x) => {
                for (words, row) in scratch[..m * ld].chunks_exact_mut(ld).zip(x.chunks_exact(k)) {
                    halves(as_f32(words))[..k].copy_from_slice(row);
                }
                (scratch.as_ptr().cast(), ld)
            }
            Rows::Singles(x) => {
                pair_rows(&mut scratch[..m * ld], ld, x, k);
                (scratch.as_ptr().cast(), ld)
            }
        };
        if !self.direct {
            for row in scratch[..m * ld].chunks_exact_mut(ld) {
                row[k.div_ceil(2)..self.pairs.max(k.div_ceil(2))].fill(0);
            }
        }
        Left { base, row, outer: 0, inner: 1 }
    }
}

/// How a product is cut so that its operands come from the nearest caches.
struct Blocks {
    /// Rows that the microkernel takes at a time.
    unit: usize,
    /// Rows of a block: they stay in the second-level cache.
    rows: usize,
    /// Panels that meet a block at a time: one stays in the first-level cache; matrix tiles take some rows to as many as the
    /// second-level cache holds.
    panels: usize,
}

impl Blocks {
    fn new(pairs: usize, ld: usize) -> Self {
        let (unit, panels) = if bf16_tiles() { (NR, (PANEL_BYTES / (pairs * NR * 4)).max(1)) } else { (TILE, 1) };
        Blocks { unit, rows: (BLOCK_BYTES / (ld * 4) / unit * unit).clamp(2 * unit, 16 * unit), panels }
    }
}

fn products(targets: &[Target], x: Rows, k: usize, pairs: usize, start: Start) {
    let m = x.len() / k;
    assert!(x.len() == m * k, "bf16 linear: shapes");
    let (all, x) = (m, LeftRows::new(x, k, pairs));
    let count: usize = targets.iter().map(|t| t.n.div_ceil(NR)).sum();
    let Blocks { unit, rows: block, panels: most } = Blocks::new(pairs, x.ld);
    let tiles = bf16_tiles();
    let past = targets.iter().any(|t| t.start(all, start) == Start::Past);
    let run = |rows: Range<usize>, cols: Range<usize>| {
        with_scratch(&ROWS, if x.direct { 0 } else { block.min(rows.len()) * x.ld }, |scratch| {
            for r in rows.clone().step_by(block) {
                let m = (rows.end - r).min(block);
                let a = x.at(scratch, r, m);
                let mut first = 0;
                for (number, target) in targets.iter().enumerate() {
                    let after = targets.get(number + 1).map_or(&[][..], |t| t.panels);
                    let (Target { out, from, row, panels, n }, start) = (target, target.start(all, start));
                    let own = n.div_ceil(NR);
                    let (begin, end) = (cols.start.max(first) - first, cols.end.min(first + own).saturating_sub(first));
                    for p in (begin..end).step_by(most) {
                        let width = (n - p * NR).min((end - p).min(most) * NR);
                        let e = Extent { m, outer: 1, inner: pairs, n: width };
                        let base = panels[p * pairs * NR..].as_ptr().cast();
                        let b = Right { base, panel: pairs * NR, ld: NR };
                        let next = if p + most < end { &panels[(p + most) * pairs * NR..] } else { after };
                        // Tiles ask for the next sums and the panel's next step; more of it makes them slower.
                        let wanted = if tiles { 0 } else { next.len().min(pairs * NR) };
                        let next = Next::from(&next[..wanted]);
                        // SAFETY: `a` has m rows of at least `pairs` words, the panels exist (asserted); tasks own disjoint
                        // rows or columns.
                        unsafe {
                            let c = Out { base: out.at(r * row + from + p * NR), row: *row, panel: NR };
                            gemm_bf16_wide(e, a, b, c, start, next);
                        }
                    }
                    first += own;
                }
            }
        });
        if past {
            written();
        }
    };
    if m >= par::threads() * 2 * unit {
        let grain = (2 * unit).max(block.min(m / (2 * par::threads()))) / unit;
        par::ranges(m.div_ceil(unit), grain, |units| run(units.start * unit..(units.end * unit).min(m), 0..count));
    } else {
        par::ranges(count, (1_usize << 16).div_ceil(k * m.max(1) * NR).max(1), |cols| run(0..m, cols));
    }
}

#[cfg(test)]
mod tests;
