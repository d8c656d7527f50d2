//! SwiGLU's gate: out = silu(g) u, element by element.

use crate::cpu::bf16::halve;
use crate::cpu::math::exp;
use crate::multiversion;
use crate::par::{self, Shared};

const GRAIN: usize = 1 << 14;
/// Elements of a piece that is rounded while it is in the first-level cache.
const PIECE: usize = 1 << 10;

multiversion! {
    fn piece_forward(out: &mut [f32], g: &[f32], u: &[f32]) -> () {
        for ((o, g), u) in out.iter_mut().zip(g).zip(u) { *o = *g / (1.0 + exp(-*g)) * *u; }
    }
}

multiversion! {
    fn piece_backward(d_g: &mut [f32], d_u: &mut [f32], d_out: &[f32], g: &[f32], u: &[f32]) -> () {
        for i in 0..g.len() {
            let s = 1.0 / (1.0 + exp(-g[i]));
            d_g[i] = d_out[i] * u[i] * s * (1.0 + g[i] * (1.0 - s));
            d_u[i] = d_out[i] * g[i] * s;
        }
    }
}

multiversion! {
    fn piece_backward_add(d_g: &mut [f32], d_u: &mut [f32], d_out: &[f32], g: &[f32], u: &[f32]) -> () {
        for i in 0..g.len() {
            let s = 1.0 / (1.0 + exp(-g[i]));
            d_g[i] += d_out[i] * u[i] * s * (1.0 + g[i] * (1.0 - s));
            d_u[i] += d_out[i] * g[i] * s;
        }
    }
}

/// out = silu(g) u.
pub fn forward(out: &mut [f32], g: &[f32], u: &[f32]) {
    assert!(out.len() == g.len() && g.len() == u.len(), "swiglu: shapes");
    let to = Shared::new(out);
    // SAFETY: each task owns its range.
    par::ranges(g.len(), GRAIN, |r| piece_forward(unsafe { to.slice(r.start, r.len()) }, &g[r.clone()], &u[r]));
}

/// The same with the result rounded to bf16.
pub fn forward_pairs(out: &mut [u16], g: &[f32], u: &[f32]) {
    assert!(out.len() == g.len() && g.len() == u.len(), "swiglu: shapes");
    let to = Shared::new(out);
    par::ranges(g.len(), GRAIN, |r| {
        let mut piece = [0f32; PIECE];
        for at in r.clone().step_by(PIECE) {
            let end = (at + PIECE).min(r.end);
            let piece = &mut piece[..end - at];
            piece_forward(piece, &g[at..end], &u[at..end]);
            // SAFETY: each task owns its range.
            halve(unsafe { to.slice(at, end - at) }, piece);
        }
    });
}

/// d_g and d_u of the forward, or += with `add`.
pub fn backward(d_g: &mut [f32], d_u: &mut [f32], d_out: &[f32], g: &[f32], u: &[f32], add: bool) {
    let (to_g, to_u) = (Shared::new(d_g), Shared::new(d_u));
    par::ranges(g.len(), GRAIN, |r| {
        // SAFETY: each task owns its range.
        let (d_g, d_u) = unsafe { (to_g.slice(r.start, r.len()), to_u.slice(r.start, r.len())) };
        let piece = if add { piece_backward_add } else { piece_backward };
        piece(d_g, d_u, &d_out[r.clone()], &g[r.clone()], &u[r]);
    });
}

/// d_g and d_u rounded to bf16.
pub fn backward_pairs(d_g: &mut [u16], d_u: &mut [u16], d_out: &[f32], g: &[f32], u: &[f32]) {
    assert!(d_g.len() == g.len() && d_u.len() == g.len(), "swiglu backward: shapes");
    let (to_g, to_u) = (Shared::new(d_g), Shared::new(d_u));
    par::ranges(g.len(), GRAIN, |r| {
        let (mut piece_g, mut piece_u) = ([0f32; PIECE], [0f32; PIECE]);
        for at in r.clone().step_by(PIECE) {
            let end = (at + PIECE).min(r.end);
            let (d_g, d_u) = (&mut piece_g[..end - at], &mut piece_u[..end - at]);
            piece_backward(d_g, d_u, &d_out[at..end], &g[at..end], &u[at..end]);
            // SAFETY: each task owns its range.
            unsafe {
                halve(to_g.slice(at, end - at), d_g);
                halve(to_u.slice(at, end - at), d_u);
            }
        }
    });
}
