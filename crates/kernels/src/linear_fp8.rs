//! Linear layers in FP8 as DeepSeek-V3 trains them (technical report, section 3.3), simulated exactly.
//!
//! Operands are rounded to E4M3: activations and gradients in tiles of one row and 128 columns, weights in blocks of 128 by
//! 128, each with an f32 scale of its own, max-abs / 448. Products of E4M3 numbers are summed in f32 over 128 of the
//! contraction, then rescaled and added in f32; the hardware keeps about 14 bits inside those 128, we keep all. For the weight
//! gradient, tiles run along tokens (128 by 1); the activations are those of the forward product, already rounded once, as
//! they would be cached. Here the numbers are stored as f32; what is simulated is the arithmetic, not the memory.
//!
//! A row's tiles depend on that row alone, so generator and trainer have the same bits, as in f32.
//! Deviation: the report keeps the input of the layer after attention in E5M6 for the backward; here it is E4M3 as all.

use crate::cpu::gemm::{Extent, Left, NR, Start, gemm};
use crate::e4m3;
use crate::par::{self, Shared};
use crate::scratch;

/// Width of tiles and blocks.
pub const TILE: usize = 128;
/// Magnitudes of activations below this count as zero, as in DeepSeek's kernels. Gradients are smaller and have no floor.
const ACTIVATION_FLOOR: f32 = 1e-4;
/// Rows of x that one task takes while a panel stays in cache.
const ROW_BLOCK: usize = 96;

/// Whether the matrix of this name is multiplied in FP8: not the embedding, the output head or the router of experts.
pub fn applies_to(name: &str) -> bool {
    !["embed_tokens.weight", "head.weight", "mlp.gate.weight"].iter().any(|end| name.ends_with(end))
}

/// A matrix `[n, k]` in E4M3 with a scale per block.
#[derive(Clone, Debug, Default)]
pub struct Blocks {
    /// E4M3 numbers in the f32 panels `[ceil(n/32)][k][32]`.
    values: Vec<f32>,
    /// `[ceil(n/128)][ceil(k/128)]`.
    scales: Vec<f32>,
}

impl Blocks {
    /// Rounds f32 panels; buffers are reused.
    pub fn quantise(&mut self, panels: &[f32], n: usize, k: usize) {
        let (rows, cols) = (n.div_ceil(TILE), k.div_ceil(TILE));
        self.values.resize(panels.len(), 0.0);
        self.scales.resize(rows * cols, 0.0);
        let values = Shared::new(&mut self.values);
        let scales = Shared::new(&mut self.scales);
        let count = n.div_ceil(NR);
        par::ranges(rows * cols, 1, |blocks| {
            for block in blocks {
                let (row, col) = (block / cols, block % cols);
                let width = (k - col * TILE).min(TILE);
                // Padding of the last panel is zero and stays so.
                let parts = (row * TILE / NR..((row + 1) * TILE / NR).min(count)).map(|p| (p * k + col * TILE) * NR);
                let part = |at: usize| &panels[at..at + width * NR];
                let largest = parts.clone().map(|at| e4m3::max_magnitude(part(at)).to_bits()).max().unwrap_or(0);
                let scale = e4m3::scale(f32::from_bits(largest), 0.0);
                for at in parts {
                    // SAFETY: each task owns its blocks.
                    e4m3::quantise(unsafe { values.slice(at, width * NR) }, part(at), scale);
                }
                // SAFETY: as above.
                unsafe { scales.slice(block, 1)[0] = scale };
            }
        });
    }

    /// The scale of the block that holds row `n` and column `k`.
    fn scale(&self, n: usize, k: usize, width: usize) -> f32 {
        self.scales[n / TILE * width.div_ceil(TILE) + k / TILE]
    }
}

/// Rounds a row's tiles; `scales` has one per tile.
fn quantise_row(out: &mut [f32], scales: &mut [f32], x: &[f32], floor: f32) {
    for ((out, x), s) in out.chunks_mut(TILE).zip(x.chunks(TILE)).zip(scales) {
        *s = e4m3::scale(e4m3::max_magnitude(x), floor);
        e4m3::quantise(out, x, *s);
    }
}

/// y `[m, n]` = x `[m, k]` W^T, or y += x W^T with `add` (the product is summed first, then added).
pub fn forward(y: &mut [f32], x: &[f32], w: &Blocks, n: usize, k: usize, add: bool) {
    let m = x.len() / k;
    let count = n.div_ceil(NR);
    assert!(y.len() == m * n && x.len() == m * k && w.values.len() == count * NR * k, "fp8 linear: shapes");
    let tiles = k.div_ceil(TILE);
    let out = Shared::new(y);
    let run = |rows: std::ops::Range<usize>, cols: std::ops::Range<usize>| {
        let block = ROW_BLOCK.min(rows.len());
        scratch::floats(block * (k + tiles + 2 * NR), |buffer| {
            let (xq, rest) = buffer.split_at_mut(block * k);
            let (scales, rest) = rest.split_at_mut(block * tiles);
            let (product, sums) = rest.split_at_mut(block * NR);
            let mut r = rows.start;
            while r < rows.end {
                let m = (rows.end - r).min(block);
                for i in 0..m {
                    let x = &x[(r + i) * k..(r + i + 1) * k];
                    let scales = &mut scales[i * tiles..(i + 1) * tiles];
                    quantise_row(&mut xq[i * k..(i + 1) * k], scales, x, ACTIVATION_FLOOR);
                }
                for p in cols.clone() {
                    sums[..m * NR].fill(0.0);
                    for (t, k0) in (0..k).step_by(TILE).enumerate() {
                        let e = Extent { m, outer: 1, inner: (k - k0).min(TILE), n: NR };
                        let a = Left { base: xq[k0..].as_ptr(), row: k, outer: 0, inner: 1 };
                        let b = w.values[(p * k + k0) * NR..].as_ptr();
                        // SAFETY: xq has m rows of k values, panel p has k rows of 32, product m rows of 32.
                        unsafe { gemm(e, a, b, NR, product.as_mut_ptr(), NR, Start::Zero) };
                        let own = w.scale(p * NR, k0, k);
                        for i in 0..m {
                            let scale = scales[i * tiles + t] * own;
                            add_scaled(&mut sums[i * NR..][..NR], &product[i * NR..][..NR], scale);
                        }
                    }
                    let width = (n - p * NR).min(NR);
                    for i in 0..m {
                        // SAFETY: tasks own disjoint rows or columns of y.
                        let y = unsafe { out.slice((r + i) * n + p * NR, width) };
                        put(y, &sums[i * NR..][..width], add);
                    }
                }
                r += m;
            }
        });
    };
    if m >= par::threads() * 24 {
        par::ranges(m, 24.max(ROW_BLOCK.min(m / (2 * par::threads()))), |rows| run(rows, 0..count));
    } else {
        par::ranges(count, (1_usize << 15).div_ceil(k * m.max(1) * NR).max(1), |cols| run(0..m, cols));
    }
}

crate::multiversion! {
    /// sums += product x scale, for 32 columns.
    fn add_scaled(sums: &mut [f32], product: &[f32], scale: f32) -> () {
        for (s, p) in sums.iter_mut().zip(product) {
            *s = p.mul_add(scale, *s);
        }
    }
}

crate::multiversion! {
    /// Rows of 32 columns: sums += product x scale of the column x scale of the row (one for all rows, or one each).
    fn add_scaled_rows(sums: &mut [f32], product: &[f32], columns: &[f32], rows: &[f32]) -> () {
        for (i, (s, p)) in sums.chunks_exact_mut(NR).zip(product.chunks_exact(NR)).enumerate() {
            let row = rows[if rows.len() == 1 { 0 } else { i }];
            for ((s, p), column) in s.iter_mut().zip(p).zip(columns) {
                *s = p.mul_add(column * row, *s);
            }
        }
    }
}

fn put(to: &mut [f32], sums: &[f32], add: bool) {
    for (v, s) in to.iter_mut().zip(sums) {
        *v = if add { *v + s } else { *s };
    }
}

/// d_x `[m, k]` = d_y `[m, n]` W, or += with `add`. Works on transposed tiles of 32 rows, so that W is read as it lies.
pub fn backward_input(d_x: &mut [f32], d_y: &[f32], w: &Blocks, n: usize, k: usize, add: bool) {
    let m = d_y.len() / n;
    let count = n.div_ceil(NR);
    assert!(d_x.len() == m * k && d_y.len() == m * n && w.values.len() == count * NR * k, "fp8 backward: shapes");
    let tiles = n.div_ceil(TILE);
    let out = Shared::new(d_x);
    par::ranges(m.div_ceil(NR), 1, |groups| {
        scratch::floats(count * NR * NR + tiles * NR + n + tiles + 2 * TILE * NR, |buffer| {
            let (t_ny, rest) = buffer.split_at_mut(count * NR * NR);
            let (scales, rest) = rest.split_at_mut(tiles * NR);
            let (row, rest) = rest.split_at_mut(n);
            let (own, rest) = rest.split_at_mut(tiles);
            let (product, sums) = rest.split_at_mut(TILE * NR);
            for group in groups {
                let (r, rows) = (group * NR, (m - group * NR).min(NR));
                t_ny.fill(0.0);
                scales.fill(0.0);
                for i in 0..rows {
                    quantise_row(row, own, &d_y[(r + i) * n..(r + i + 1) * n], 0.0);
                    for (j, v) in row.iter().enumerate() {
                        t_ny[j * NR + i] = *v;
                    }
                    for (t, s) in own.iter().enumerate() {
                        scales[t * NR + i] = *s;
                    }
                }
                for k0 in (0..k).step_by(TILE) {
                    let width = (k - k0).min(TILE);
                    sums[..width * NR].fill(0.0);
                    for t in 0..tiles {
                        let p = t * TILE / NR;
                        let e = Extent { m: width, outer: (count - p).min(TILE / NR), inner: NR, n: NR };
                        let base = w.values[(p * k + k0) * NR..].as_ptr();
                        let a = Left { base, row: NR, outer: k * NR, inner: 1 };
                        let b = t_ny[p * NR * NR..].as_ptr();
                        // SAFETY: w has the panels p.. of k rows; t_ny has 32 rows per panel, product `width` rows.
                        unsafe { gemm(e, a, b, NR, product.as_mut_ptr(), NR, Start::Zero) };
                        let block = w.scale(t * TILE, k0, k);
                        let (sums, product) = (&mut sums[..width * NR], &product[..width * NR]);
                        add_scaled_rows(sums, product, &scales[t * NR..][..NR], &[block]);
                    }
                    for i in 0..rows {
                        // SAFETY: this task alone writes rows r..r+rows.
                        let to = unsafe { out.slice((r + i) * k + k0, width) };
                        for (j, v) in to.iter_mut().enumerate() {
                            let sum = sums[j * NR + i];
                            *v = if add { *v + sum } else { sum };
                        }
                    }
                }
            }
        });
    });
}

/// d_w (f32 panels of `[n, k]`) += d_y^T x, 128 tokens at a time in order.
pub fn backward_weight(d_w: &mut [f32], d_y: &[f32], x: &[f32], n: usize, k: usize) {
    let m = d_y.len() / n;
    let count = n.div_ceil(NR);
    assert!(x.len() == m * k && d_w.len() == count * NR * k, "fp8 weight gradient: shapes");
    let out = Shared::new(d_w);
    scratch::floats(TILE * (k + count * NR) + k + count * NR, |buffer| {
        let (xq, rest) = buffer.split_at_mut(TILE * k);
        let (dq, rest) = rest.split_at_mut(TILE * count * NR);
        let (x_scales, d_scales) = rest.split_at_mut(k);
        for t0 in (0..m).step_by(TILE) {
            let tokens = (m - t0).min(TILE);
            cached(xq, &x[t0 * k..(t0 + tokens) * k], k);
            quantise_columns(xq, x_scales, tokens, k, k);
            for t in 0..tokens {
                let (to, d_y) = (&mut dq[t * count * NR..(t + 1) * count * NR], &d_y[(t0 + t) * n..(t0 + t + 1) * n]);
                to[..n].copy_from_slice(d_y);
                to[n..].fill(0.0);
            }
            quantise_columns(dq, d_scales, tokens, count * NR, n);
            let (xq, dq, x_scales, d_scales) = (&*xq, &*dq, &*x_scales, &*d_scales);
            let pieces = k.div_ceil(TILE);
            par::ranges(count * pieces, (1_usize << 17).div_ceil(tokens * TILE * NR).max(1), |tasks| {
                let mut product = [0f32; TILE * NR];
                for task in tasks {
                    let (p, k0) = (task / pieces, task % pieces * TILE);
                    let width = (k - k0).min(TILE);
                    let e = Extent { m: width, outer: 1, inner: tokens, n: NR };
                    let a = Left { base: xq[k0..].as_ptr(), row: 1, outer: 0, inner: k };
                    let b = dq[p * NR..].as_ptr();
                    // SAFETY: xq has `tokens` rows of k values, dq of count * 32; product has `width` rows.
                    unsafe { gemm(e, a, b, count * NR, product.as_mut_ptr(), NR, Start::Zero) };
                    let scales = &d_scales[p * NR..][..NR];
                    // SAFETY: this task alone writes rows k0..k0+width of panel p.
                    let to = unsafe { out.slice((p * k + k0) * NR, width * NR) };
                    add_scaled_rows(to, &product[..width * NR], scales, &x_scales[k0..k0 + width]);
                }
            });
        }
    });
}

/// Activations as the forward product saw them: rounded in its tiles and scaled back.
fn cached(out: &mut [f32], x: &[f32], k: usize) {
    for (out, x) in out.chunks_exact_mut(k).zip(x.chunks_exact(k)) {
        for (out, x) in out.chunks_mut(TILE).zip(x.chunks(TILE)) {
            let scale = e4m3::scale(e4m3::max_magnitude(x), ACTIVATION_FLOOR);
            e4m3::quantise(out, x, scale);
            crate::cpu::math::scale(out, scale);
        }
    }
}

/// Rounds `rows` rows of `ld` values in place, a scale per column; columns from `n` on are padding.
fn quantise_columns(values: &mut [f32], scales: &mut [f32], rows: usize, ld: usize, n: usize) {
    scales[..ld].fill(0.0);
    for row in values.chunks_exact(ld).take(rows) {
        largest(scales, row);
    }
    for s in &mut scales[..n] {
        *s = e4m3::scale(*s, 0.0);
    }
    scales[n..ld].fill(1.0);
    for row in values.chunks_exact_mut(ld).take(rows) {
        divide(row, scales);
    }
}

crate::multiversion! {
    fn largest(scales: &mut [f32], row: &[f32]) -> () {
        for (s, v) in scales.iter_mut().zip(row) {
            // As bits, so that a NaN stays the largest.
            *s = f32::from_bits(s.to_bits().max(v.to_bits() & 0x7fff_ffff));
        }
    }
}

crate::multiversion! {
    fn divide(row: &mut [f32], scales: &[f32]) -> () {
        for (v, s) in row.iter_mut().zip(scales) {
            *v = e4m3::round(*v / s);
        }
    }
}

#[cfg(test)]
mod tests;
