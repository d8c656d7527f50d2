//! The per-head products of the absorbed form: `q_lat = W_UK^T q_nope` before the attention, `o = W_UV ctx` after it, and
//! their backwards. They always run in f32; what they give is rounded where the attention is in bf16.
//!
//! The up-projection `[N*(nope + value), lora]` is stored as panels of 32 rows. One product reads its rows as they lie
//! ([`Side::Out`], sums over lora), the other one across them ([`Side::In`], sums over rows). Panels that do not begin at a head
//! are packed anew for every call: a few thousand numbers for small models.

use super::LatentHeads;
use crate::cpu::gemm::{Extent, Left, NR, Start, gemm};
use crate::cpu::math::{SQUARE, transpose};
use crate::par::{self, Shared};
use crate::scratch;

/// Tokens summed before a weight-gradient tile goes back to memory.
const TOKEN_BLOCK: usize = 256;
/// Tokens of one task.
const ROW_BLOCK: usize = 96;

/// Activations of all heads: element (t, h, i) at `t * ld + h * head + at + i`.
#[derive(Clone, Copy)]
struct Strided {
    ld: usize,
    head: usize,
    at: usize,
}

impl Strided {
    fn of(&self, t: usize, h: usize) -> usize {
        t * self.ld + h * self.head + self.at
    }
}

/// Rows `first..first + rows` (of every head's block) of the up-projection, stored as panels.
#[derive(Clone, Copy)]
struct Part<'a> {
    w: &'a [f32],
    lora: usize,
    block: usize,
    first: usize,
    rows: usize,
}

impl<'a> Part<'a> {
    fn row(&self, h: usize) -> usize {
        h * self.block + self.first
    }

    /// `[ceil(lora/32)][rows][32]` of head h: for sums over the rows.
    fn across(&self, to: &mut [f32], h: usize) {
        for c in (0..self.lora).step_by(SQUARE) {
            let width = (self.lora - c).min(SQUARE);
            let panel = &mut to[c / NR * self.rows * NR + c % NR..];
            let mut i = 0;
            while i < self.rows {
                let r = self.row(h) + i;
                let count = (self.rows - i).min(SQUARE).min(NR - r % NR);
                let from = &self.w[r / NR * NR * self.lora + c * NR + r % NR..];
                transpose(&mut panel[i * NR..], NR, from, NR, width, count);
                i += count;
            }
        }
    }

    /// `[ceil(rows/32)][lora][32]` of head h, for sums over lora: as it lies where the head begins with a panel.
    fn along<'b>(&self, to: &'b mut [f32], h: usize) -> &'b [f32]
    where
        'a: 'b,
    {
        if self.row(h).is_multiple_of(NR) {
            return &self.w[self.row(h) * self.lora..];
        }
        for i in 0..self.rows {
            let r = self.row(h) + i;
            let from = &self.w[r / NR * NR * self.lora + r % NR..];
            let panel = &mut to[i / NR * self.lora * NR + i % NR..];
            for c in 0..self.lora {
                panel[c * NR] = from[c * NR];
            }
        }
        to
    }

    /// Floats that either packing needs at most.
    fn space(&self) -> usize {
        (self.lora.next_multiple_of(NR) * self.rows).max(self.rows.next_multiple_of(NR) * self.lora)
    }
}

/// Which index a product sums over.
#[derive(Clone, Copy, PartialEq)]
enum Side {
    /// Rows of the head: from a head's width to lora.
    In,
    /// Lora: from lora to a head's width.
    Out,
}

/// y(t, h, :) = x(t, h, :) times the head's part, for all tokens and heads.
fn product(y: &mut [f32], ys: Strided, x: &[f32], xs: Strided, part: Part, heads: usize, side: Side) {
    let tokens = x.len() / xs.ld;
    let (from, to) = if side == Side::In { (part.rows, part.lora) } else { (part.lora, part.rows) };
    scratch::floats(part.space() * heads, |packed| {
        let panels: Vec<&[f32]> = packed
            .chunks_exact_mut(part.space())
            .enumerate()
            .map(|(h, space)| {
                if side == Side::In {
                    part.across(space, h);
                    &*space
                } else {
                    part.along(space, h)
                }
            })
            .collect();
        let out = Shared::new(y);
        par::ranges(tokens, ROW_BLOCK, |range| {
            for t0 in range.clone().step_by(ROW_BLOCK) {
                let m = (range.end - t0).min(ROW_BLOCK);
                for (h, panels) in panels.iter().enumerate() {
                    let a = Left { base: x[xs.of(t0, h)..].as_ptr(), row: xs.ld, outer: 0, inner: 1 };
                    for c in (0..to).step_by(NR) {
                        let e = Extent { m, outer: 1, inner: from, n: (to - c).min(NR) };
                        let b = panels[c * from..].as_ptr();
                        // SAFETY: rows t0..t0+m of x and y exist; panels have `from` rows of 32; tasks own their rows.
                        unsafe { gemm(e, a, b, NR, out.at(ys.of(t0, h) + c), ys.ld, Start::Zero) };
                    }
                }
            }
        });
    });
}

/// d_w += the gradient of a part: for every head, rows `i`, columns `c`: sum over tokens of wide(t, h, i) narrow(t, h, c).
fn weight_gradient(
    d_w: &mut [f32],
    part: Part,
    (wide, ws): (&[f32], Strided),
    (narrow, ns): (&[f32], Strided),
    heads: usize,
) {
    let (lora, tokens) = (part.lora, wide.len() / ws.ld);
    let panels = part.rows.div_ceil(NR);
    let out = Shared::new(d_w);
    par::ranges(heads, 1, |range| {
        scratch::floats((TOKEN_BLOCK + lora) * NR, |space| {
            let (block, sum) = space.split_at_mut(TOKEN_BLOCK * NR);
            for (h, p) in range.flat_map(|h| (0..panels).map(move |p| (h, p))) {
                let width = (part.rows - p * NR).min(NR);
                sum.fill(0.0);
                for t0 in (0..tokens).step_by(TOKEN_BLOCK) {
                    let n = (tokens - t0).min(TOKEN_BLOCK);
                    for (i, line) in block.chunks_exact_mut(NR).enumerate().take(n) {
                        line[..width].copy_from_slice(&wide[ws.of(t0 + i, h) + p * NR..][..width]);
                        line[width..].fill(0.0);
                    }
                    let e = Extent { m: lora, outer: 1, inner: n, n: NR };
                    let a = Left { base: narrow[ns.of(t0, h)..].as_ptr(), row: 1, outer: 0, inner: ns.ld };
                    // SAFETY: narrow has lora values in each of n rows; block has n rows of 32, sum lora rows of 32.
                    unsafe { gemm(e, a, block.as_ptr(), NR, sum.as_mut_ptr(), NR, Start::Add) };
                }
                for i in 0..width {
                    let r = part.row(h) + p * NR + i;
                    let at = r / NR * NR * lora + r % NR;
                    for c in 0..lora {
                        // SAFETY: a task owns the rows of its heads; rows are distinct columns of panels.
                        unsafe { *out.at(at + c * NR) += sum[c * NR + i] };
                    }
                }
            }
        });
    });
}

fn keys(w: &[f32], d: LatentHeads) -> Part<'_> {
    Part { w, lora: d.lora, block: d.rows(), first: 0, rows: d.nope }
}

fn values(w: &[f32], d: LatentHeads) -> Part<'_> {
    Part { w, lora: d.lora, block: d.rows(), first: d.nope, rows: d.value }
}

fn query(d: LatentHeads) -> Strided {
    Strided { ld: d.heads * d.query(), head: d.query(), at: 0 }
}

fn absorbed(d: LatentHeads) -> Strided {
    Strided { ld: d.heads * d.absorbed(), head: d.absorbed(), at: 0 }
}

fn context(d: LatentHeads) -> Strided {
    Strided { ld: d.heads * d.lora, head: d.lora, at: 0 }
}

fn output(d: LatentHeads) -> Strided {
    Strided { ld: d.heads * d.value, head: d.value, at: 0 }
}

/// Copies the rotated parts between queries (`[T, N*(nope+rope)]`) and absorbed queries (`[T, N*(lora+rope)]`).
fn copy_rotated(to: &mut [f32], to_width: usize, from: &[f32], from_width: usize, rope: usize) {
    for (to, from) in to.chunks_exact_mut(to_width).zip(from.chunks_exact(from_width)) {
        to[to_width - rope..].copy_from_slice(&from[from_width - rope..]);
    }
}

/// Absorbed queries `[T, N*(lora+rope)]` of queries `[T, N*(nope+rope)]`; `w` is the up-projection's panels.
pub fn queries(qa: &mut [f32], q: &[f32], w: &[f32], d: LatentHeads) {
    product(qa, absorbed(d), q, query(d), keys(w, d), d.heads, Side::In);
    copy_rotated(qa, d.absorbed(), q, d.query(), d.rope);
}

/// Backward of [`queries`]: writes d_q, adds to d_w (panels) unless it is empty.
pub fn queries_backward(d_q: &mut [f32], d_w: &mut [f32], d_qa: &[f32], q: &[f32], w: &[f32], d: LatentHeads) {
    product(d_q, query(d), d_qa, absorbed(d), keys(w, d), d.heads, Side::Out);
    copy_rotated(d_q, d.query(), d_qa, d.absorbed(), d.rope);
    if !d_w.is_empty() {
        weight_gradient(d_w, keys(w, d), (q, query(d)), (d_qa, absorbed(d)), d.heads);
    }
}

/// Outputs `[T, N*value]` of contexts `[T, N*lora]`.
pub fn outputs(out: &mut [f32], ctx: &[f32], w: &[f32], d: LatentHeads) {
    product(out, output(d), ctx, context(d), values(w, d), d.heads, Side::Out);
}

/// Backward of [`outputs`]: writes d_ctx, adds to d_w (panels) unless it is empty.
pub fn outputs_backward(d_ctx: &mut [f32], d_w: &mut [f32], d_out: &[f32], ctx: &[f32], w: &[f32], d: LatentHeads) {
    product(d_ctx, context(d), d_out, output(d), values(w, d), d.heads, Side::In);
    if !d_w.is_empty() {
        weight_gradient(d_w, values(w, d), (d_out, output(d)), (ctx, context(d)), d.heads);
    }
}
