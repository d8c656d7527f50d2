//! Products of linear layers in f32, blocked for the caches.
//!
//! Shapes: x `[m, k]`, W `[n, k]` as panels `[ceil(n/32)][k][32]`, y `[m, n]`. Sums run over k (forward), n (input gradient) and m
//! (weight gradient) in ascending order, each one chain of fused multiply-adds however it is cut into spans; a weight gradient
//! is added to what is there every [`TOKEN_BLOCK`] rows. No result depends on how the work was split.

use crate::cpu::gemm::{Extent, Left, NR, Start, gemm, gemm_ahead};
use crate::cpu::math::{self, SQUARE, transpose};
use crate::par::{self, Shared};
use crate::scratch;
use std::ops::Range;

/// Rows of the left side that stay in the second-level cache while panels go by.
const ROW_BLOCK: usize = 96;
/// Terms of a sum that are made before the next panel: so much of a panel stays in the first-level cache.
const SPAN: usize = 256;
/// Rows summed before a weight gradient goes back to memory.
const TOKEN_BLOCK: usize = 256;
/// Columns of x that are turned at a time for a weight gradient.
const TURNED: usize = 256;
/// Distance between turned columns: no power of two, or they would fall on the same lines of the first-level cache.
const TURNED_LD: usize = TOKEN_BLOCK + 16;
/// Values of W that are turned at a time for an input gradient.
const GROUP: usize = 1 << 18;

/// C `[rows, panels * 32]` (columns kept below `width`) = or += A `[rows, inner]` times neighbouring panels.
///
/// # Safety
/// A and C must be readable and writable as far as rows and columns say, and not overlap.
unsafe fn product(
    rows: usize,
    (a, lda): (*const f32, usize),
    panels: &[f32],
    inner: usize,
    (c, ldc, width): (*mut f32, usize, usize),
    add: bool,
) {
    let (count, size) = (width.div_ceil(NR), inner * NR);
    assert!(panels.len() >= count * size, "linear: panels");
    // A chain cannot begin at what is added to: the sum is made first.
    let apart = add && inner > SPAN;
    let mut sums = vec![0f32; if apart { rows.min(ROW_BLOCK) * NR } else { 0 }];
    for r in (0..rows).step_by(ROW_BLOCK) {
        let m = (rows - r).min(ROW_BLOCK);
        for p in 0..count {
            let n = (width - p * NR).min(NR);
            // SAFETY: row r and column p * 32 are inside C.
            let to = unsafe { c.add(r * ldc + p * NR) };
            let (out, ld) = if apart { (sums.as_mut_ptr(), NR) } else { (to, ldc) };
            for k0 in (0..inner).step_by(SPAN) {
                let span = (inner - k0).min(SPAN);
                let e = Extent { m, outer: 1, inner: span, n };
                // SAFETY: as for C.
                let left = Left { base: unsafe { a.add(r * lda + k0) }, row: lda, outer: 0, inner: 1 };
                let start = match (k0, add) {
                    (0, true) if !apart => Start::Add,
                    (0, _) => Start::Zero,
                    _ => Start::Chain,
                };
                let (at, next) = (p * size + k0 * NR, p * size + (k0 + span) * NR);
                let ahead = &panels[next..(next + SPAN.min(inner) * NR).min(count * size)];
                // SAFETY: as promised by the caller; the panel has `span` more lines from `at`.
                unsafe { gemm_ahead(e, left, panels[at..].as_ptr(), out, ld, start, ahead) };
            }
            for i in 0..if apart { m } else { 0 } {
                // SAFETY: rows and columns of C.
                let row = unsafe { std::slice::from_raw_parts_mut(to.add(i * ldc), n) };
                math::add_assign(row, &sums[i * NR..i * NR + n]);
            }
        }
    }
}

/// y `[m, n]` = x W^T, or += with `add` (the product is summed first, then added).
pub(crate) fn forward(y: &mut [f32], x: &[f32], w: &[f32], n: usize, k: usize, add: bool) {
    let (m, panels) = (x.len() / k, n.div_ceil(NR));
    assert!(y.len() == m * n && w.len() == panels * NR * k, "linear: shapes");
    if m == 0 {
        return;
    }
    let out = Shared::new(y);
    let run = |rows: Range<usize>, columns: Range<usize>| {
        let (first, width) = (columns.start * NR, (columns.end * NR).min(n) - columns.start * NR);
        let w = &w[first * k..columns.end * NR * k];
        // SAFETY: tasks own disjoint rows or columns.
        unsafe {
            let c = (out.at(rows.start * n + first), n, width);
            product(rows.len(), (x[rows.start * k..].as_ptr(), k), w, k, c, add);
        }
    };
    if m >= par::threads() * 24 {
        par::ranges(m, 24.max(ROW_BLOCK.min(m / (2 * par::threads()))), |rows| run(rows, 0..panels));
    } else {
        par::ranges(panels, (1_usize << 15).div_ceil(k * m.max(1) * NR).max(1), |columns| run(0..m, columns));
    }
}

/// d_x `[m, k]` = d_y `[m, n]` W, or += with `add`. Some columns of W at a time become panels along n.
pub(crate) fn backward_input(d_x: &mut [f32], d_y: &[f32], w: &[f32], n: usize, k: usize, add: bool) {
    let (m, blocks) = (d_y.len() / n, k.div_ceil(NR));
    assert!(d_x.len() == m * k && w.len() == n.div_ceil(NR) * NR * k, "linear backward: shapes");
    if m == 0 {
        return;
    }
    let out = Shared::new(d_x);
    let size = n * NR;
    let group = (GROUP / size).clamp(1, blocks);
    let run = |rows: Range<usize>, columns: Range<usize>| {
        scratch::floats(group.min(columns.len()) * size, |turned| {
            for first in columns.clone().step_by(group) {
                let count = (columns.end - first).min(group);
                for (i, block) in turned.chunks_exact_mut(size).take(count).enumerate() {
                    turn(block, w, n, k, first + i);
                }
                let width = ((first + count) * NR).min(k) - first * NR;
                // SAFETY: tasks own disjoint rows or columns.
                unsafe {
                    let c = (out.at(rows.start * k + first * NR), k, width);
                    product(rows.len(), (d_y[rows.start * n..].as_ptr(), n), turned, n, c, add);
                }
            }
        });
    };
    // Every task turns its columns: with few rows it had better not turn those of others, unless there are too few columns.
    let busy = 2 * par::threads();
    let pieces = busy.div_ceil(blocks).min(m.div_ceil(ROW_BLOCK));
    if m >= busy * TOKEN_BLOCK {
        par::ranges(m, TOKEN_BLOCK, |rows| run(rows, 0..blocks));
    } else if pieces > 1 {
        par::ranges(blocks * pieces, 1, |tasks| {
            for (b, piece) in tasks.map(|task| (task / pieces, task % pieces)) {
                run(m * piece / pieces..m * (piece + 1) / pieces, b..b + 1);
            }
        });
    } else {
        par::ranges(blocks, (1_usize << 15).div_ceil(n * m * NR).max(1), |columns| run(0..m, columns));
    }
}

/// Columns 32 b and after of W, from panels, as lines `[n][32]`; columns that W lacks are zero.
fn turn(to: &mut [f32], w: &[f32], n: usize, k: usize, b: usize) {
    debug_assert_eq!(to.len(), n * NR);
    let rows = (k - b * NR).min(NR);
    if rows < NR {
        to.fill(0.0);
    }
    for (p, lines) in to.chunks_mut(NR * NR).enumerate() {
        let columns = lines.len() / NR;
        for i0 in (0..rows).step_by(SQUARE) {
            for j0 in (0..columns).step_by(SQUARE) {
                let (height, width) = ((rows - i0).min(SQUARE), (columns - j0).min(SQUARE));
                let from = &w[(p * k + b * NR + i0) * NR + j0..];
                transpose(&mut lines[j0 * NR + i0..], NR, from, NR, height, width);
            }
        }
    }
}

/// d_w (panels of the shape of W) += d_y^T x.
pub(crate) fn backward_weight(d_w: &mut [f32], d_y: &[f32], x: &[f32], n: usize, k: usize) {
    let (m, panels) = (d_y.len() / n, n.div_ceil(NR));
    assert!(x.len() == m * k && d_w.len() == panels * NR * k, "linear weight gradient: shapes");
    let threads = par::threads();
    // Tasks differ in columns of x, which they turn, and share them only where there are too few. Narrower ones make up for few
    // panels.
    let busy = if threads == 1 { 1 } else { 2 * threads };
    let most = k.div_ceil(TURNED).max(busy.div_ceil(panels));
    let step = k.div_ceil(most).next_multiple_of(SQUARE).min(k);
    let pieces = k.div_ceil(step);
    let groups = busy.div_ceil(pieces).min(panels);
    let out = Shared::new(d_w);
    par::ranges(pieces * groups, 1, |tasks| {
        scratch::floats(TURNED * TURNED_LD + NR * TOKEN_BLOCK, |buffer| {
            let (turned, block) = buffer.split_at_mut(TURNED * TURNED_LD);
            for task in tasks {
                let (piece, group) = (task / groups, task % groups);
                let (k0, k1) = (piece * step, ((piece + 1) * step).min(k));
                for t0 in (0..m).step_by(TOKEN_BLOCK) {
                    let tokens = (m - t0).min(TOKEN_BLOCK);
                    turn_rows(turned, &x[t0 * k + k0..], k, tokens, k1 - k0);
                    for p in panels * group / groups..panels * (group + 1) / groups {
                        let width = (n - p * NR).min(NR);
                        for (t, line) in block.chunks_exact_mut(NR).take(tokens).enumerate() {
                            let at = (t0 + t) * n + p * NR;
                            line[..width].copy_from_slice(&d_y[at..at + width]);
                            line[width..].fill(0.0);
                        }
                        let e = Extent { m: k1 - k0, outer: 1, inner: tokens, n: NR };
                        let a = Left { base: turned.as_ptr(), row: TURNED_LD, outer: 0, inner: 1 };
                        // SAFETY: this task alone writes rows k0..k1 of panel p; the scratch holds k1 - k0 rows.
                        unsafe {
                            let to = out.at((p * k + k0) * NR);
                            gemm(e, a, block.as_ptr(), NR, to, NR, Start::Add);
                        }
                    }
                }
            }
        });
    });
}

/// `to[c][t] = x[t][c]` for some rows of width k and some columns of them; rows of `to` lie [`TURNED_LD`] apart.
fn turn_rows(to: &mut [f32], x: &[f32], k: usize, rows: usize, columns: usize) {
    for t0 in (0..rows).step_by(SQUARE) {
        for c0 in (0..columns).step_by(SQUARE) {
            let (height, width) = ((rows - t0).min(SQUARE), (columns - c0).min(SQUARE));
            transpose(&mut to[c0 * TURNED_LD + t0..], TURNED_LD, &x[t0 * k + c0..], k, height, width);
        }
    }
}
