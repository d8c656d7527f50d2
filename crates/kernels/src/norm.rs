//! RMSNorm, y = w x / sqrt(mean(x^2) + eps), over rows of any width (model width, or one head for Qwen3's q/k norm).

use crate::cpu::math;
use crate::multiversion;
use crate::par::{self, Shared};

/// Rows of one task; the weight gradient sums tasks' shares in order.
const ROWS: usize = 256;

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

/// y, and per row `rstd` = 1 / sqrt(mean(x^2) + eps).
pub fn forward(y: &mut [f32], rstd: &mut [f32], x: &[f32], w: &[f32], eps: f32) {
    let d = w.len();
    assert!(y.len() == x.len() && x.len() == rstd.len() * d, "rms norm: shapes");
    let (out, stats) = (Shared::new(y), Shared::new(rstd));
    par::ranges(x.len() / d, (1_usize << 14).div_ceil(d), |rows| {
        for i in rows {
            let x = &x[i * d..(i + 1) * d];
            let r = 1.0 / (math::dot(x, x) / d as f32 + eps).sqrt();
            // SAFETY: each task owns its rows.
            unsafe {
                stats.slice(i, 1)[0] = r;
                row_forward(out.slice(i * d, d), x, w, r);
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
        let mut scaled = vec![0f32; d];
        for piece in pieces {
            // SAFETY: each task owns its pieces and the rows in them.
            let share = unsafe { parts.slice(piece * d, d) };
            for i in piece * ROWS..((piece + 1) * ROWS).min(rows) {
                let (x, d_y, r) = (&x[i * d..(i + 1) * d], &d_y[i * d..(i + 1) * d], rstd[i]);
                for ((s, g), w) in scaled.iter_mut().zip(d_y).zip(w) {
                    *s = g * w;
                }
                let s = math::dot(&scaled, x) * r * r * r / d as f32;
                // SAFETY: as above.
                row_backward(unsafe { out.slice(i * d, d) }, share, d_y, x, w, r, s);
            }
        }
    });
    if !d_w.is_empty() {
        for share in shares.chunks_exact(d) {
            math::add_assign(d_w, share);
        }
    }
}
