//! RMSNorm, y = w x / sqrt(mean(x^2) + eps), over rows of any width (model width, or one head for Qwen3's q/k norm).

use crate::cpu::bf16::halve;
use crate::cpu::math::{self, Sums};
use crate::multiversion;
use crate::par::{self, Shared};
use crate::scratch;

/// Rows of one task; the weight gradient sums tasks' shares in order.
const ROWS: usize = 256;
/// Rows whose sums are made side by side.
const SIDE: usize = 4;

multiversion! {
    fn row_forward(y: &mut [f32], x: &[f32], w: &[f32], r: f32) -> () {
        for ((y, x), w) in y.iter_mut().zip(x).zip(w) { *y = *x * r * *w; }
    }
}

multiversion! {
    fn row_backward(d_x: &mut [f32], d_w: &mut [f32], d_y: &[f32], x: &[f32], w: &[f32], r: f32, s: f32) -> () {
        for i in 0..x.len() {
            d_x[i] += r * d_y[i] * w[i] - s * x[i];
            d_w[i] += d_y[i] * x[i] * r;
        }
    }
}

multiversion! {
    /// Sums of squares of up to [`SIDE`] rows side by side; each in the order of [`math::dot`].
    fn squares<S>(sums: &mut [f32; SIDE], x: &[f32], d: usize) -> () {
        // SAFETY: the instruction set was detected.
        unsafe {
            if x.len() == SIDE * d && d.is_multiple_of(math::LANES) {
                let mut all = [Sums::<S>::zero(); SIDE];
                let x = x.as_chunks::<{ math::LANES }>().0;
                let row = d / math::LANES;
                for at in 0..row {
                    for (i, sums) in all.iter_mut().enumerate() { sums.fma(&x[i * row + at], &x[i * row + at]); }
                }
                for (sum, sums) in sums.iter_mut().zip(all) { *sum = math::fold(sums.lanes()); }
            } else {
                for (sum, x) in sums.iter_mut().zip(x.chunks_exact(d)) { *sum = math::dot_in::<S>(x, x); }
            }
        }
    }
}

multiversion! {
    /// Sums of d_y w x of up to [`SIDE`] rows side by side; each in the order of a dot product of d_y w and x.
    fn products<S>(sums: &mut [f32; SIDE], d_y: &[f32], x: &[f32], w: &[f32]) -> () {
        let d = w.len();
        let rows = x.len() / d;
        let (w_whole, w_rest) = w.as_chunks::<{ math::LANES }>();
        // SAFETY: the instruction set was detected.
        let lanes = unsafe {
            let mut all = [Sums::<S>::zero(); SIDE];
            for (at, w) in w_whole.iter().enumerate() {
                for (i, sums) in all.iter_mut().enumerate().take(rows) {
                    let g = d_y[i * d..(i + 1) * d].as_chunks::<{ math::LANES }>().0[at];
                    let x = x[i * d..(i + 1) * d].as_chunks::<{ math::LANES }>().0[at];
                    sums.fma(&std::array::from_fn(|l| g[l] * w[l]), &x);
                }
            }
            all.map(|sums| sums.lanes())
        };
        for (i, (sum, mut lanes)) in sums.iter_mut().zip(lanes).enumerate().take(rows) {
            let (g, x) = (&d_y[i * d..(i + 1) * d], &x[i * d..(i + 1) * d]);
            for (l, w) in w_rest.iter().enumerate() {
                let at = d - w_rest.len() + l;
                lanes[l] = (g[at] * w).mul_add(x[at], lanes[l]);
            }
            *sum = math::fold(lanes);
        }
    }
}

/// y, and per row `rstd` = 1 / sqrt(mean(x^2) + eps).
pub fn forward(y: &mut [f32], rstd: &mut [f32], x: &[f32], w: &[f32], eps: f32) {
    assert!(y.len() == x.len(), "rms norm: shapes");
    let out = Shared::new(y);
    // SAFETY: each task owns its rows.
    rows(rstd, x, w.len(), eps, |i, x, r| row_forward(unsafe { out.slice(i * w.len(), w.len()) }, x, w, r));
}

/// The same with y rounded to bf16.
pub fn forward_pairs(y: &mut [u16], rstd: &mut [f32], x: &[f32], w: &[f32], eps: f32) {
    assert!(y.len() == x.len(), "rms norm: shapes");
    let (out, d) = (Shared::new(y), w.len());
    rows(rstd, x, d, eps, |i, x, r| {
        scratch::floats(d, |row| {
            row_forward(row, x, w, r);
            // SAFETY: each task owns its rows.
            halve(unsafe { out.slice(i * d, d) }, row);
        });
    });
}

/// Calls `row` with the number, values and rstd of every row of x.
fn rows(rstd: &mut [f32], x: &[f32], d: usize, eps: f32, row: impl Fn(usize, &[f32], f32) + Sync) {
    assert!(x.len() == rstd.len() * d, "rms norm: shapes");
    let stats = Shared::new(rstd);
    par::ranges(x.len() / d, (1_usize << 14).div_ceil(d), |range| {
        for first in range.clone().step_by(SIDE) {
            let end = (first + SIDE).min(range.end);
            let mut sums = [0.0; SIDE];
            squares(&mut sums, &x[first * d..end * d], d);
            for (i, sum) in (first..end).zip(sums) {
                let r = 1.0 / (sum / d as f32 + eps).sqrt();
                // SAFETY: each task owns its rows.
                unsafe { stats.slice(i, 1)[0] = r };
                row(i, &x[i * d..(i + 1) * d], r);
            }
        }
    });
}

/// d_x += and d_w += of the forward; `d_w` may be empty for a frozen weight.
pub fn backward(d_x: &mut [f32], d_w: &mut [f32], d_y: &[f32], x: &[f32], w: &[f32], rstd: &[f32]) {
    let d = w.len();
    let rows = rstd.len();
    let pieces = rows.div_ceil(ROWS);
    let mut shares = vec![0f32; pieces * d];
    let (out, parts) = (Shared::new(d_x), Shared::new(&mut shares));
    par::ranges(pieces, 1, |pieces| {
        for piece in pieces {
            // SAFETY: each task owns its pieces and the rows in them.
            let share = unsafe { parts.slice(piece * d, d) };
            let last = ((piece + 1) * ROWS).min(rows);
            for first in (piece * ROWS..last).step_by(SIDE) {
                let end = (first + SIDE).min(last);
                let mut sums = [0.0; SIDE];
                products(&mut sums, &d_y[first * d..end * d], &x[first * d..end * d], w);
                for (i, sum) in (first..end).zip(sums) {
                    let (x, d_y, r) = (&x[i * d..(i + 1) * d], &d_y[i * d..(i + 1) * d], rstd[i]);
                    let s = sum * r * r * r / d as f32;
                    // SAFETY: as above.
                    row_backward(unsafe { out.slice(i * d, d) }, share, d_y, x, w, r, s);
                }
            }
        }
    });
    if !d_w.is_empty() {
        for share in shares.chunks_exact(d) {
            math::add_assign(d_w, share);
        }
    }
}
