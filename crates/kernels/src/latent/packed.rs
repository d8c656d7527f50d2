//! Causal attention over packed sequences whose keys are wider than their values, forward and backward.
//!
//! A key of head g is `[own(t, g) ; shared(t)]`. In the absorbed form there is one key head and its own part is the value too;
//! in the expanded form every head has its own. One task is one (segment, key head); gradients of the shared part are summed
//! over key heads in their order. A segment that continues another one sees that one's keys before its own.

use super::{Queries, attend, rows_into, transpose_into};
use crate::attention::{TILE, groups, key_groups, probabilities, row_dots};
use crate::cpu::gemm::{Extent, Left, NR, Start, gemm};
use crate::cpu::math;
use crate::par::{self, Shared};
use crate::scratch;
use crate::segments::Segments;
use std::cell::RefCell;

/// Widths.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dims {
    /// Query heads N.
    pub heads: usize,
    /// Key heads K; divides N.
    pub key_heads: usize,
    /// Width of a key head's own part.
    pub own: usize,
    /// Width of the part that all share.
    pub shared: usize,
    /// Width of a value; 0 where the value is the own part itself.
    pub value: usize,
    /// Factor on the scores.
    pub scale: f32,
}

impl Dims {
    fn key(&self) -> usize {
        self.own + self.shared
    }

    /// Width of a value as the output has it.
    pub fn out(&self) -> usize {
        if self.value == 0 { self.own } else { self.value }
    }

    /// Distance between key heads, and between tokens, in the matrix that holds own parts and values.
    fn block(&self) -> usize {
        self.own + self.value
    }

    fn ld(&self) -> usize {
        self.key_heads * self.block()
    }

    fn group(&self) -> usize {
        self.heads / self.key_heads
    }
}

thread_local! {
    static FORWARD: RefCell<Forward> = RefCell::new(Forward::default());
    static BACKWARD: RefCell<Scratch> = RefCell::new(Scratch::default());
}

/// Buffers of one forward task.
#[derive(Default)]
struct Forward {
    joined: [Vec<f32>; 2],
    k_t: Vec<f32>,
    v_p: Vec<f32>,
    s: Vec<f32>,
}

/// Sizes a buffer, zero in all of it.
fn zeroed(buffer: &mut Vec<f32>, len: usize) {
    buffer.clear();
    buffer.resize(len, 0.0);
}

/// Key panels `[ceil(L/32)][own+shared][32]` of one head and segment.
fn key_panels(to: &mut Vec<f32>, (kv, ld): (&[f32], usize), shared: &[f32], len: usize, d: Dims) {
    to.resize(len.div_ceil(NR) * d.key() * NR, 0.0);
    transpose_into(to, d.key(), 0, kv, ld, len, d.own);
    transpose_into(to, d.key(), d.own, shared, d.shared, len, d.shared);
}

/// out `[T, N*out]` and, for the backward, stats `[T, N, 2]`. q is `[T, N*(own+shared)]`, kv `[T, K*(own+value)]`, shared
/// `[T, shared]`. With `offset` a segment's first `offset` keys have no queries (the past of a prompt that comes in chunks): then
/// there is one segment, and q and out have that many rows fewer.
pub fn forward(
    out: &mut [f32],
    stats: &mut [f32],
    q: &[f32],
    (kv, shared): (&[f32], &[f32]),
    seg: &Segments,
    offset: usize,
    d: Dims,
) {
    let (t, n) = (seg.tokens() - offset, d.heads);
    assert!(
        q.len() == t * n * d.key()
            && out.len() == t * n * d.out()
            && stats.len() == t * n * 2
            && kv.len() == seg.tokens() * d.ld()
            && shared.len() == seg.tokens() * d.shared
            && (offset == 0 || seg.len() == 1),
        "latent attention: shapes"
    );
    let (out, stats) = (Shared::new(out), Shared::new(stats));
    par::ranges(seg.len() * d.key_heads, 1, |items| {
        scratch::kept(&FORWARD, |Forward { joined, k_t, v_p, s }| {
            for item in items {
                let (i, g) = (item / d.key_heads, item % d.key_heads);
                let (range, before) = (seg.range(i), seg.before(i));
                if range.is_empty() {
                    continue;
                }
                let (len, offset) = (before.len() + range.len(), before.len() + offset);
                let cap = len.next_multiple_of(NR);
                let [joined_kv, joined_shared] = joined;
                let (kv, ld) = seg.seen(i, joined_kv, (kv, d.ld()), g * d.block(), d.block());
                let (shared, _) = seg.seen(i, joined_shared, (shared, d.shared), 0, d.shared);
                key_panels(k_t, (kv, ld), shared, len, d);
                zeroed(v_p, d.out().div_ceil(NR) * cap * NR);
                rows_into(v_p, cap, 0, &kv[if d.value == 0 { 0 } else { d.own }..], ld, len, d.out());
                let keys: Vec<*const f32> = k_t.chunks_exact(d.key() * NR).map(<[f32]>::as_ptr).collect();
                for h in g * d.group()..(g + 1) * d.group() {
                    let row = range.start * n + h;
                    let q = Queries {
                        base: q[row * d.key()..].as_ptr(),
                        ld: n * d.key(),
                        rows: len - offset,
                        position: offset,
                        step: 1,
                    };
                    // SAFETY: query rows of this segment exist (asserted); this task alone writes head h of its rows.
                    unsafe {
                        let to = (out.at(row * d.out()), n * d.out());
                        let st = Some((stats.at(row * 2), n * 2));
                        attend(&q, d.key(), &keys, v_p.as_ptr(), (cap, d.out()), to, st, d.scale, s);
                    }
                }
            }
        });
    });
}

/// Gradients d_q, d_kv and d_shared, written (not added). `forwarded` is (out, stats), `inputs` (q, kv, shared).
pub fn backward(
    (d_q, d_kv, d_shared): (&mut [f32], &mut [f32], &mut [f32]),
    d_out: &[f32],
    (out, stats): (&[f32], &[f32]),
    (q, kv, shared): (&[f32], &[f32], &[f32]),
    seg: &Segments,
    d: Dims,
) {
    let n = d.heads;
    assert!(
        d_q.len() == q.len() && d_kv.len() == kv.len() && d_shared.len() == shared.len() && d_out.len() == out.len(),
        "latent attention backward: shapes"
    );
    // Every key head's share of d_shared, and what a continuation adds to the gradients of the tokens before it: added up at
    // the end in the order of heads and sequences.
    let (parts, repeated) = (seg.tokens() * d.shared, seg.repeated());
    let copies = repeated[seg.len()];
    scratch::floats((parts + copies * d.shared) * d.key_heads + copies * d.ld(), |space| {
        let (shares, copies_kv) = space.split_at_mut((parts + copies * d.shared) * d.key_heads);
        let (shares, copies_shared) = shares.split_at_mut(parts * d.key_heads);
        let (to_q, to_kv, to_shares) = (Shared::new(d_q), Shared::new(d_kv), Shared::new(shares));
        let (to_copies_kv, to_copies_shared) = (Shared::new(copies_kv), Shared::new(copies_shared));
        par::ranges(seg.len() * d.key_heads, 1, |items| {
            scratch::kept(&BACKWARD, |w| {
                for item in items {
                    let (i, g) = (item / d.key_heads, item % d.key_heads);
                    let (range, before) = (seg.range(i), seg.before(i));
                    if range.is_empty() {
                        continue;
                    }
                    let len = before.len() + range.len();
                    let [mut joined_kv, mut joined_shared] = std::mem::take(&mut w.joined);
                    let kv = seg.seen(i, &mut joined_kv, (kv, d.ld()), g * d.block(), d.block());
                    let (shared, _) = seg.seen(i, &mut joined_shared, (shared, d.shared), 0, d.shared);
                    w.load(kv, shared, len, d);
                    w.joined = [joined_kv, joined_shared];
                    for h in g * d.group()..(g + 1) * d.group() {
                        for r0 in (before.len()..len).step_by(TILE) {
                            let row = (range.start + r0 - before.len()) * n + h;
                            w.tile(
                                &q[row * d.key()..],
                                &d_out[row * d.out()..],
                                &out[row * d.out()..],
                                &stats[row * 2..],
                                r0,
                                d,
                            );
                            let rows = (len - r0).min(TILE);
                            for (first, m, seen) in groups(r0, rows) {
                                for c in (0..d.key()).step_by(NR) {
                                    let e = Extent { m, outer: 1, inner: seen, n: (d.key() - c).min(NR) };
                                    let base = w.d_s[first * w.cap..].as_ptr();
                                    let a = Left { base, row: w.cap, outer: 0, inner: 1 };
                                    let panel = w.k_p[c * w.cap..].as_ptr();
                                    let at = (row + first * n) * d.key() + c;
                                    // SAFETY: only this task writes head h of this segment's rows.
                                    unsafe { gemm(e, a, panel, NR, to_q.at(at), n * d.key(), Start::Zero) };
                                }
                            }
                        }
                    }
                    for p in 0..len {
                        let own = &w.d_k[p * w.wide..];
                        // SAFETY: only this task writes key head g of this segment, and of its copies.
                        unsafe {
                            let (to, share) = match p.checked_sub(before.len()) {
                                Some(p) => {
                                    let t = range.start + p;
                                    let at = t * d.ld() + g * d.block();
                                    (to_kv.slice(at, d.block()), to_shares.slice(g * parts + t * d.shared, d.shared))
                                }
                                None => {
                                    let t = repeated[i] + p;
                                    let at = t * d.ld() + g * d.block();
                                    let share = (g * copies + t) * d.shared;
                                    (to_copies_kv.slice(at, d.block()), to_copies_shared.slice(share, d.shared))
                                }
                            };
                            to[..d.own].copy_from_slice(&own[..d.own]);
                            to[d.own..].copy_from_slice(&w.d_v[p * w.wide_v..][..d.value]);
                            share.copy_from_slice(&own[d.own..d.key()]);
                        }
                    }
                }
            });
        });
        d_shared.copy_from_slice(&shares[..parts]);
        for share in shares[parts..].chunks_exact(parts.max(1)) {
            math::add_assign(d_shared, share);
        }
        seg.add_copies(d_kv, copies_kv, d.ld());
        for head in copies_shared.chunks_exact((copies * d.shared).max(1)) {
            seg.add_copies(d_shared, head, d.shared);
        }
    });
}

/// Buffers of one backward task, for one (segment, key head).
#[derive(Default)]
struct Scratch {
    joined: [Vec<f32>; 2],
    len: usize,
    cap: usize,
    seen: usize,
    wide: usize,
    wide_v: usize,
    k_t: Vec<f32>,
    v_t: Vec<f32>,
    k_p: Vec<f32>,
    q_p: Vec<f32>,
    d_o_p: Vec<f32>,
    p: Vec<f32>,
    d_s: Vec<f32>,
    d_k: Vec<f32>,
    d_v: Vec<f32>,
}

impl Scratch {
    fn load(&mut self, (kv, ld): (&[f32], usize), shared: &[f32], len: usize, d: Dims) {
        (self.len, self.cap) = (len, len.next_multiple_of(NR));
        self.wide = d.key().next_multiple_of(NR);
        self.wide_v = d.value.next_multiple_of(NR);
        key_panels(&mut self.k_t, (kv, ld), shared, len, d);
        if d.value > 0 {
            self.v_t.resize(len.div_ceil(NR) * d.value * NR, 0.0);
            transpose_into(&mut self.v_t, d.value, 0, &kv[d.own..], ld, len, d.value);
        }
        zeroed(&mut self.k_p, self.wide * self.cap);
        rows_into(&mut self.k_p, self.cap, 0, kv, ld, len, d.own);
        rows_into(&mut self.k_p, self.cap, d.own, shared, d.shared, len, d.shared);
        zeroed(&mut self.d_k, self.cap * self.wide);
        zeroed(&mut self.d_v, self.cap * self.wide_v);
        zeroed(&mut self.q_p, self.wide * TILE);
        zeroed(&mut self.d_o_p, d.out().next_multiple_of(NR) * TILE);
        self.p.resize(TILE * self.cap, 0.0);
        self.d_s.resize(TILE * self.cap, 0.0);
    }

    /// P and dS of one tile of queries; adds the tile's share to d_k and d_v.
    fn tile(&mut self, q: &[f32], d_out: &[f32], out: &[f32], stats: &[f32], r0: usize, d: Dims) {
        let (n, cap, key, value) = (d.heads, self.cap, d.key(), d.out());
        let rows = (self.len - r0).min(TILE);
        self.seen = (r0 + rows).next_multiple_of(NR);
        // The value panels of the absorbed form are the first rows of the key panels.
        let (v_t, v_rows) = if d.value == 0 { (&self.k_t, key) } else { (&self.v_t, value) };
        for b in 0..self.seen / NR {
            // Rows before the block's first key do not see it.
            let first = (b * NR).saturating_sub(r0);
            let e = Extent { m: rows - first, outer: 1, inner: key, n: NR };
            let a = Left { base: q[first * n * key..].as_ptr(), row: n * key, outer: 0, inner: 1 };
            let e_v = Extent { inner: value, ..e };
            let a_v = Left { base: d_out[first * n * value..].as_ptr(), row: n * value, outer: 0, inner: 1 };
            let at = first * cap + b * NR;
            // SAFETY: the slices begin at the first row that sees the block and hold the tile's rows from there; panels and scratch
            // are sized in `load`.
            unsafe {
                gemm(e, a, self.k_t[b * key * NR..].as_ptr(), NR, self.p[at..].as_mut_ptr(), cap, Start::Zero);
                gemm(e_v, a_v, v_t[b * v_rows * NR..].as_ptr(), NR, self.d_s[at..].as_mut_ptr(), cap, Start::Zero);
            }
        }
        let mut delta = [0f32; TILE];
        row_dots(&mut delta[..rows], d_out, out, n * value, value);
        for (i, delta) in delta.into_iter().enumerate().take(rows) {
            let (p, p_rest) = self.p[i * cap..i * cap + self.seen].split_at_mut(r0 + i + 1);
            let (d_s, d_s_rest) = self.d_s[i * cap..i * cap + self.seen].split_at_mut(r0 + i + 1);
            let (max, inverse) = (stats[i * n * 2], stats[i * n * 2 + 1]);
            probabilities(p, d_s, max, inverse, delta, d.scale);
            p_rest.fill(0.0);
            d_s_rest.fill(0.0);
        }
        rows_into(&mut self.q_p, TILE, 0, q, n * key, rows, key);
        rows_into(&mut self.d_o_p, TILE, 0, d_out, n * value, rows, value);
        let left = |x: &[f32], at: usize| Left { base: x[at..].as_ptr(), row: 1, outer: 0, inner: cap };
        for (from, m, skipped) in key_groups(r0, self.seen) {
            let (to_v, ld_v) = if d.value == 0 { (&mut self.d_k, self.wide) } else { (&mut self.d_v, self.wide_v) };
            let (e, at) = (Extent { m, outer: 1, inner: rows - skipped, n: NR }, skipped * cap + from);
            for c in (0..value).step_by(NR) {
                // The absorbed value is narrower than the key: columns beyond it belong to the shared part.
                let e = Extent { n: (value - c).min(NR), ..e };
                let panel = self.d_o_p[c * TILE + skipped * NR..].as_ptr();
                // SAFETY: p is [rows, cap], the panel [rows, 32], the sum [cap, ld_v], of which rows and columns from `skipped` and
                // `from` on are taken.
                unsafe {
                    gemm(e, left(&self.p, at), panel, NR, to_v[from * ld_v + c..].as_mut_ptr(), ld_v, Start::Add)
                };
            }
            for c in (0..key).step_by(NR) {
                let panel = self.q_p[c * TILE + skipped * NR..].as_ptr();
                // SAFETY: d_s is [rows, cap], the panel [rows, 32], d_k [cap, wide]; the rest as above.
                unsafe {
                    let to = self.d_k[from * self.wide + c..].as_mut_ptr();
                    gemm(e, left(&self.d_s, at), panel, NR, to, self.wide, Start::Add);
                }
            }
        }
    }
}
