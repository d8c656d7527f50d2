//! The routed experts of a layer, forward and backward: every expert is a SwiGLU, no token is dropped.
//!
//! Rows are sorted by expert ([`Plan`]), each expert multiplies its own rows with the linear kernels of its precision, and a
//! token's outputs are added in ascending order of experts: a row's result depends on that row alone. The weight of an expert
//! is applied to its inner activation, `down(w silu(gate x) up x)`, which is the same function.

use crate::cpu::math;
use crate::gradients::WeightGradients;
use crate::linear;
use crate::multiversion;
use crate::par::{self, Shared};
use crate::params::Weight;
use crate::router::Plan;
use crate::rows::Rows;

/// Matrices of one expert.
#[derive(Clone, Copy, Debug)]
pub struct Expert<'a> {
    /// `[F, D]`.
    pub gate: Weight<'a>,
    /// `[F, D]`.
    pub up: Weight<'a>,
    /// `[D, F]`.
    pub down: Weight<'a>,
}

/// Gradients of one expert's gate, up and down: of the matrix and of both factors of its adapter; empty for what is frozen or
/// absent.
pub type ExpertGradients<'a> = [[&'a mut [f32]; 3]; 3];

/// Buffers by slot: what the backward needs again.
#[derive(Debug)]
pub struct Slots {
    /// `[S, D]` inputs.
    pub x: Vec<f32>,
    /// `[S, F]`.
    pub gate: Vec<f32>,
    /// `[S, F]`.
    pub up: Vec<f32>,
    /// `[S, F]` weight times silu(gate) times up.
    pub inner: Vec<f32>,
}

multiversion! {
    fn weighted(out: &mut [f32], g: &[f32], u: &[f32], w: f32) -> () {
        for ((o, g), u) in out.iter_mut().zip(g).zip(u) { *o = *g / (1.0 + math::exp(-*g)) * *u * w; }
    }
}

multiversion! {
    /// d_g over g, d_u over u, and silu(g) u into `plain` for the gradient of the weight.
    fn weighted_backward(d: &[f32], g: &mut [f32], u: &mut [f32], plain: &mut [f32], w: f32) -> () {
        for i in 0..d.len() {
            let (x, y) = (g[i], u[i]);
            let s = 1.0 / (1.0 + math::exp(-x));
            plain[i] = x * s * y;
            g[i] = d[i] * w * y * s * (1.0 + x * (1.0 - s));
            u[i] = d[i] * w * x * s;
        }
    }
}

/// Calls `run(expert, its slots)` for every expert that has rows: experts side by side where there are enough of them for all
/// threads, else one after another with their products split.
fn each(plan: &Plan, run: impl Fn(usize, std::ops::Range<usize>) + Sync) {
    let busy: Vec<usize> = (0..plan.offsets.len() - 1).filter(|e| plan.offsets[*e] < plan.offsets[e + 1]).collect();
    let one = |e: usize| run(e, plan.offsets[e]..plan.offsets[e + 1]);
    if busy.len() >= 2 * par::threads() {
        par::ranges(busy.len(), 1, |range| par::serial(|| range.for_each(|i| one(busy[i]))));
    } else {
        busy.into_iter().for_each(one);
    }
}

/// Rows of x `[T, D]` by slot.
fn gather(to: &mut [f32], x: &[f32], plan: &Plan, d: usize) {
    let out = Shared::new(to);
    par::ranges(plan.tokens.len(), (1_usize << 14).div_ceil(d), |range| {
        for slot in range {
            // SAFETY: each task owns its rows.
            unsafe { out.slice(slot * d, d) }.copy_from_slice(&x[plan.tokens[slot] as usize * d..][..d]);
        }
    });
}

/// out `[T, D]` += the slots' rows y `[S, D]` of each token, in ascending order of experts.
fn scatter(out: &mut [f32], y: &[f32], plan: &Plan, d: usize) {
    let tokens = out.len() / d;
    let k = plan.slots.len() / tokens.max(1);
    let to = Shared::new(out);
    par::ranges(tokens, (1_usize << 14).div_ceil(d), |range| {
        for t in range {
            // SAFETY: each task owns its rows.
            let row = unsafe { to.slice(t * d, d) };
            for slot in &plan.slots[t * k..(t + 1) * k] {
                math::add_assign(row, &y[*slot as usize * d..][..d]);
            }
        }
    });
}

/// Weight of every slot, from weights `[T, K]`.
fn by_slot(weights: &[f32], plan: &Plan) -> Vec<f32> {
    let mut out = vec![0.0; weights.len()];
    for (w, slot) in weights.iter().zip(&plan.slots) {
        out[*slot as usize] = *w;
    }
    out
}

/// out `[T, D]` += the experts' weighted outputs for x `[T, D]`. Fills `slots`; `y` is scratch `[S, D]`.
pub fn forward<'a>(
    out: &mut [f32],
    y: &mut [f32],
    slots: &mut Slots,
    x: &[f32],
    weights: &[f32],
    plan: &Plan,
    expert: impl Fn(usize) -> Expert<'a> + Sync,
) {
    let count = plan.tokens.len();
    if count == 0 {
        return;
    }
    let (d, f) = (slots.x.len() / count, slots.gate.len() / count);
    gather(&mut slots.x, x, plan, d);
    let weights = by_slot(weights, plan);
    let (gate, up, inner) = (Shared::new(&mut slots.gate), Shared::new(&mut slots.up), Shared::new(&mut slots.inner));
    let (xs, out_y) = (&slots.x, Shared::new(y));
    each(plan, |e, range| {
        let w = expert(e);
        let (at, len, x) = (range.start * f, range.len() * f, &xs[range.start * d..range.end * d]);
        // SAFETY: an expert's slots are its task's alone.
        let (gate, up, inner, y) = unsafe {
            (
                gate.slice(at, len),
                up.slice(at, len),
                inner.slice(at, len),
                out_y.slice(range.start * d, range.len() * d),
            )
        };
        linear::forward_all(&mut [(&mut *gate, w.gate), (&mut *up, w.up)], x);
        for (i, inner) in inner.chunks_exact_mut(f).enumerate() {
            weighted(inner, &gate[i * f..][..f], &up[i * f..][..f], weights[range.start + i]);
        }
        linear::forward(y, inner, w.down, false);
    });
    scatter(out, y, plan, d);
}

/// Backward: d_x `[T, D]` += and d_weights `[T, K]` written; gradients of the experts' matrices are added to. Overwrites gate
/// and up in `slots` with their gradients; `d_y` and `d_xs` `[S, D]` and `d_inner` `[S, F]` are scratch.
pub fn backward<'a>(
    (d_x, d_weights): (&mut [f32], &mut [f32]),
    (d_y, d_xs, d_inner): (&mut [f32], &mut [f32], &mut [f32]),
    slots: &mut Slots,
    d_out: &[f32],
    weights: &[f32],
    plan: &Plan,
    expert: impl Fn(usize) -> Expert<'a> + Sync,
    gradients: Vec<ExpertGradients>,
) {
    let count = plan.tokens.len();
    if count == 0 {
        return;
    }
    let (d, f) = (slots.x.len() / count, slots.gate.len() / count);
    gather(d_y, d_out, plan, d);
    let by_slot = by_slot(weights, plan);
    let mut d_by_slot = vec![0f32; count];
    let matrices: Vec<[[(Shared, usize); 3]; 3]> =
        gradients.into_iter().map(|g| g.map(|m| m.map(|m| (Shared::new(m), m.len())))).collect();
    let (gate, up, inner) = (Shared::new(&mut slots.gate), Shared::new(&mut slots.up), Shared::new(&mut slots.inner));
    let (xs, d_y) = (&slots.x, &*d_y);
    let (to_xs, to_inner, to_weights) = (Shared::new(d_xs), Shared::new(d_inner), Shared::new(&mut d_by_slot));
    each(plan, |e, range| {
        let w = expert(e);
        let (at, len, rows) = (range.start * f, range.len() * f, range.start * d..range.end * d);
        // SAFETY: an expert's slots are its task's alone.
        let (gate, up, inner, d_inner, d_xs, d_w) = unsafe {
            (
                gate.slice(at, len),
                up.slice(at, len),
                inner.slice(at, len),
                to_inner.slice(at, len),
                to_xs.slice(rows.start, rows.len()),
                to_weights.slice(range.start, range.len()),
            )
        };
        let [mut d_gate, mut d_up, mut d_down] = matrices[e].each_ref().map(|of| {
            // SAFETY: an expert's gradients are its task's alone.
            let [weight, a, b] = of.each_ref().map(|(m, len)| unsafe { m.slice(0, *len) });
            WeightGradients { weight, a, b }
        });
        let (x, d_y) = (&xs[rows.clone()], &d_y[rows]);
        linear::backward(d_inner, &mut d_down, d_y, &*inner, w.down, false);
        for (i, d) in d_inner.chunks_exact(f).enumerate() {
            let (g, u, plain) = (&mut gate[i * f..][..f], &mut up[i * f..][..f], &mut inner[i * f..][..f]);
            weighted_backward(d, g, u, plain, by_slot[range.start + i]);
            d_w[i] = math::dot(d, plain);
        }
        if linear::go_together([w.gate, w.up].into_iter()) {
            let gate = (d_gate.weight, Rows::Singles(gate), w.gate);
            linear::backward_together(d_xs, false, &mut [gate, (d_up.weight, Rows::Singles(up), w.up)], x);
        } else {
            linear::backward(d_xs, &mut d_gate, gate, x, w.gate, false);
            linear::backward(d_xs, &mut d_up, up, x, w.up, true);
        }
    });
    scatter(d_x, d_xs, plan, d);
    for (d, slot) in d_weights.iter_mut().zip(&plan.slots) {
        *d = d_by_slot[*slot as usize];
    }
}
