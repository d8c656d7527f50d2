//! bf16 products through AMX: sixteen rows of sixteen sums in a register, sixteen pairs of products an instruction.
//!
//! Rust has no stable intrinsics for tiles, so each instruction is a line of assembly behind [`Tiles`]; the loop over tiles is
//! written against that trait and tested with tiles in plain Rust. An output is summed in steps of sixteen pairs from the
//! first on, missing pairs being zero: its bits depend neither on the rows around it nor on where a chain was cut at a
//! multiple of sixteen pairs.
//!
//! The operating system grants the registers on request; before the first product a small one is compared with the plain
//! path, and AMX stays off where they differ. Setting the shapes of tiles takes as long as twenty products of tiles, so a
//! thread keeps them: all tiles are of full height unless the product itself has fewer rows.

use super::gemm::{Extent, Left, NR, Next, Out, Right, Start, prefetch, prefetch_far};
use std::mem::MaybeUninit;

/// Rows of a tile, and sums in one of its rows.
const SIDE: usize = 16;
/// Words of a tile's row.
const LINE: usize = SIDE * 4;
/// Words of a panel's columns that are still in the first-level cache when the next rows meet them.
const NEAR: usize = 64;

/// The tile instructions. Tiles 0 to 3 are sums, 4 and 5 rows of A, 6 and 7 columns of B.
trait Tiles {
    /// Sets the shapes, with `height` rows of sums and of A, unless they are so; contents are undefined then.
    unsafe fn configure(&mut self, height: usize);
    /// tile = rows from memory, `stride` bytes apart.
    unsafe fn load<const TILE: u8>(&mut self, from: *const f32, stride: usize);
    /// Rows to memory.
    unsafe fn store<const TILE: u8>(&mut self, to: *mut f32, stride: usize);
    /// tile = 0.
    unsafe fn zero<const TILE: u8>(&mut self);
    /// Tile i += rows of A i / 2 times columns of B i % 2.
    unsafe fn dot<const SUMS: u8>(&mut self);
}

/// One or two tiles of rows, where they are read and where their sums go.
#[derive(Clone, Copy)]
struct Rows {
    /// First row of each tile in A, and the distance between rows.
    a: [*const f32; 2],
    row: usize,
    /// First row of each tile's sums, and the distance between rows.
    c: [*mut f32; 2],
    ldc: usize,
}

/// C[m, n] from A (pairs along k in a row) and B, as `gemm_bf16_wide`; A must have `inner` 1 and `outer` 1. A group of rows
/// meets all panels before the next one does: what limits a product is writing the sums, which so go to few pages.
///
/// # Safety
/// As `gemm_bf16_wide`; the tile instructions must work here.
#[inline(always)]
unsafe fn product<T: Tiles>(t: &mut T, e: Extent, a: Left, b: Right, out: Out, start: Start, next: Next) {
    let (height, panels, steps) = (e.m.min(SIDE), e.n.div_ceil(NR), e.inner / SIDE);
    // SAFETY: the tiles work (promised by the caller).
    unsafe { t.configure(height) };
    // Of the next lines each step asks for its share.
    let (mut next, share) = (next, next.lines().div_ceil((e.m.div_ceil(2 * SIDE) * panels * steps).max(1)));
    for r in (0..e.m).step_by(2 * SIDE) {
        let rows = (e.m - r).min(2 * SIDE);
        // Tiles of full height: the last one of many rows begins at rows that have been computed, whose sums it repeats.
        let tops = [r.min(e.m - height), (r + SIDE).min(e.m - height)];
        for j in 0..panels {
            // SAFETY: rows r..r + rows and, of more than sixteen, the sixteen before the last exist in A and C, and so do
            // the panels.
            unsafe {
                let e = Extent { n: (e.n - j * NR).min(NR), ..e };
                let (b, c) = (Right { base: b.base.add(j * b.panel), ..b }, out.base.add(j * out.panel));
                let ldc = out.row;
                let at =
                    Rows { a: tops.map(|i| a.base.add(i * a.row)), row: a.row, c: tops.map(|i| c.add(i * ldc)), ldc };
                // Where the next sums go: the next panel, rows below, or after all rows what lies beside.
                let under = r + 2 * SIDE < e.m || out.panel != NR;
                let (step, row) = match (j + 1 < panels, under) {
                    (true, _) => ((j + 1) * out.panel, r),
                    (false, true) => (0, r + 2 * SIDE),
                    (false, false) => (panels * NR, 0),
                };
                let touched = (out.base.wrapping_add(step + row * ldc), ldc, rows);
                let each = if next.lines() > 0 { share } else { 0 };
                let ahead = (next.skip(each * steps), each);
                // In place: all sums are wanted, and what a tile would begin with has not been overwritten.
                let direct = e.n == NR && (start == Start::Zero || (start == Start::Chain && tops[0] == r));
                if direct {
                    group(t, e, at, b, rows, start == Start::Chain, (touched, ahead));
                } else {
                    buffered(t, e, at, b, (r, rows, tops), c, start, (touched, ahead));
                }
            }
        }
    }
}

/// Lines for a step after the other: where they begin, and how many at each.
type Lines = (*const f32, usize);

/// Rows of sums that come next: where they begin, how far apart they are, how many there are.
type Touched = (*mut f32, usize, usize);

/// The sums of rows `r..r + rows` in a buffer, and from there to C.
unsafe fn buffered<T: Tiles>(
    t: &mut T,
    e: Extent,
    at: Rows,
    b: Right,
    (r, rows, tops): (usize, usize, [usize; 2]),
    c: *mut f32,
    start: Start,
    asked: (Touched, Lines),
) {
    let mut buffer = MaybeUninit::<Buffer>::uninit();
    let sums = buffer.as_mut_ptr().cast::<f32>();
    // The row of the buffer with row i of C.
    let kept = |i: usize| if i < tops[0] + SIDE { i - tops[0] } else { SIDE + i - tops[1] };
    // SAFETY: the buffer has 32 rows of 32, of which those that are read were written by the tiles; the rest as promised by
    // the caller.
    unsafe {
        if start == Start::Chain {
            for i in r..r + rows {
                std::ptr::copy_nonoverlapping(c.add(i * at.ldc), sums.add(kept(i) * NR), e.n);
            }
        }
        let inside = Rows { c: [sums, sums.add(SIDE * NR)], ldc: NR, ..at };
        group(t, e, inside, b, rows, start == Start::Chain, asked);
        for i in r..r + rows {
            let (from, to) = (sums.add(kept(i) * NR), c.add(i * at.ldc));
            match start {
                Start::Add if e.n == NR => add_row(to, from, NR),
                Start::Add => add_row(to, from, e.n),
                _ => std::ptr::copy_nonoverlapping(from, to, e.n),
            }
        }
    }
}

/// The sums of `rows` rows, in one tile or two.
#[inline(always)]
unsafe fn group<T: Tiles>(t: &mut T, e: Extent, at: Rows, b: Right, rows: usize, chain: bool, asked: (Touched, Lines)) {
    // No other group of rows reads the panel, or others have read as much since; and its lines lie side by side.
    let far = (e.m <= 2 * SIDE || e.inner > NEAR) && b.ld == NR;
    // SAFETY: as promised by the caller.
    unsafe {
        match (rows > SIDE, far) {
            (true, false) => sums::<T, true, false>(t, e, at, b.base, b.ld, chain, asked),
            (true, true) => sums::<T, true, true>(t, e, at, b.base, b.ld, chain, asked),
            (false, false) => sums::<T, false, false>(t, e, at, b.base, b.ld, chain, asked),
            (false, true) => sums::<T, false, true>(t, e, at, b.base, b.ld, chain, asked),
        }
    }
}

/// Room for the sums of a group of rows that do not go to C at once.
#[repr(align(64))]
struct Buffer {
    _rows: [f32; 2 * SIDE * NR],
}

/// to += from.
#[inline(always)]
unsafe fn add_row(to: *mut f32, from: *const f32, n: usize) {
    // SAFETY: as promised by the caller: two rows of n values that do not overlap.
    let (to, from) = unsafe { (std::slice::from_raw_parts_mut(to, n), std::slice::from_raw_parts(from, n)) };
    for (sum, x) in to.iter_mut().zip(from) {
        *sum += x;
    }
}

/// The sums of one or TWO tiles of rows with a panel; `chain` goes on with those in memory. The lines of the next sums are asked
/// for on the way, because their latency is longer than a product of 32 rows, and so are lines that are read after the whole
/// product. A panel that comes from further away (FAR) than the first-level cache has its next lines asked for, and after them
/// those that lie behind it (of weights, the next panel).
#[inline(always)]
unsafe fn sums<T: Tiles, const TWO: bool, const FAR: bool>(
    t: &mut T,
    e: Extent,
    at: Rows,
    b: *const f32,
    ldb: usize,
    chain: bool,
    ((mut c, ldc, mut touched), (mut line, each)): (Touched, Lines),
) {
    let (steps, tail) = (e.inner / SIDE, e.inner % SIDE);
    // SAFETY: as promised by the caller.
    unsafe {
        if chain {
            t.load::<0>(at.c[0], at.ldc * 4);
            t.load::<1>(at.c[0].add(SIDE), at.ldc * 4);
            if TWO {
                t.load::<2>(at.c[1], at.ldc * 4);
                t.load::<3>(at.c[1].add(SIDE), at.ldc * 4);
            }
        } else {
            t.zero::<0>();
            t.zero::<1>();
            if TWO {
                t.zero::<2>();
                t.zero::<3>();
            }
        }
        let share = touched.div_ceil(steps.max(1));
        // Addresses that move on: what the loop computes besides takes time from the tiles.
        let (mut a, mut b) = (at.a, b);
        for _ in 0..steps {
            if FAR {
                ask(b.wrapping_add(SIDE * ldb));
            }
            multiply::<T, TWO>(t, a, at.row, b, ldb);
            for _ in 0..each {
                prefetch_far(line);
                line = line.wrapping_add(SIDE);
            }
            let some = share.min(touched);
            for _ in 0..some {
                super::gemm::prefetch_to_write(c);
                super::gemm::prefetch_to_write(c.wrapping_add(SIDE));
                c = c.wrapping_add(ldc);
            }
            touched -= some;
            (a, b) = (a.map(|a| a.wrapping_add(SIDE)), b.wrapping_add(SIDE * ldb));
        }
        if tail > 0 {
            last::<T, TWO>(t, (a, at.row, e.m.min(SIDE)), b, ldb, tail);
        }
        t.store::<0>(at.c[0], at.ldc * 4);
        t.store::<1>(at.c[0].add(SIDE), at.ldc * 4);
        if TWO {
            t.store::<2>(at.c[1], at.ldc * 4);
            t.store::<3>(at.c[1].add(SIDE), at.ldc * 4);
        }
    }
}

/// The last pairs, fewer than sixteen, as sixteen of which the missing ones are zero.
#[cold]
unsafe fn last<T: Tiles, const TWO: bool>(
    t: &mut T,
    (from, row, height): ([*const f32; 2], usize, usize),
    b: *const f32,
    ldb: usize,
    pairs: usize,
) {
    let (mut left, mut right) = ([0f32; 2 * SIDE * SIDE], [0f32; SIDE * NR]);
    // SAFETY: as promised by the caller: `height` rows and `pairs` lines exist.
    unsafe {
        for (tile, from) in from.iter().enumerate().take(1 + usize::from(TWO)) {
            for i in 0..height {
                let to = left[(tile * SIDE + i) * SIDE..].as_mut_ptr();
                std::ptr::copy_nonoverlapping(from.add(i * row), to, pairs);
            }
        }
        for (p, line) in right.chunks_exact_mut(NR).enumerate().take(pairs) {
            std::ptr::copy_nonoverlapping(b.add(p * ldb), line.as_mut_ptr(), NR);
        }
        multiply::<T, TWO>(t, [left.as_ptr(), left[SIDE * SIDE..].as_ptr()], SIDE, right.as_ptr(), NR);
    }
}

/// Sixteen pairs of one or TWO tiles of rows times sixteen lines of B.
#[inline(always)]
unsafe fn multiply<T: Tiles, const TWO: bool>(t: &mut T, a: [*const f32; 2], row: usize, b: *const f32, ldb: usize) {
    // SAFETY: as promised by the caller.
    unsafe {
        t.load::<6>(b, ldb * 4);
        t.load::<7>(b.add(SIDE), ldb * 4);
        t.load::<4>(a[0], row * 4);
        // All loads first: taking turns with the products costs a twentieth where two programs share a core.
        if TWO {
            t.load::<5>(a[1], row * 4);
        }
        t.dot::<0>();
        t.dot::<1>();
        if TWO {
            t.dot::<2>();
            t.dot::<3>();
        }
    }
}

/// Asks for sixteen lines of 32 words. Any address is allowed.
#[inline(always)]
fn ask(at: *const f32) {
    for line in 0..2 * SIDE {
        prefetch(at.wrapping_add(line * SIDE));
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use hardware::{available, gemm, scores, values};

mod decode;
#[cfg(target_arch = "x86_64")]
mod hardware;
#[cfg(test)]
mod tests;
