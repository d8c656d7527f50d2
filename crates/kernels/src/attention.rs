//! Causal attention over packed sequences, forward and backward.
//!
//! q `[T, N*H]`, k and v `[T, K*H]`, out `[T, N*H]`; N/K query heads share a key/value head. Tokens of different segments
//! never meet, but a segment that continues another one sees that one's keys before its own. One task is one (segment, key/value
//! head). Scores of a tile of queries are made 32 keys at a time; a row's soft-max runs over whole blocks of 32 keys with the
//! future masked to exactly zero, which is what the cached form in `cache` does too: both give the same bits.

use crate::cpu::gemm::{Extent, Left, NR, Right, Start};
use crate::cpu::math::{self, SQUARE};
use crate::cpu::operand::{Operand, Pairs, Singles, grow};
use crate::par::{self, Shared};
use crate::params::Precision;
use crate::scratch;
use crate::segments::Segments;
use crate::softmax::softmax_row;
use std::cell::RefCell;

/// Query rows of one tile.
pub(crate) const TILE: usize = 48;
/// The same where products run through matrix tiles: pairs of queries fill two of them.
const TALL_TILE: usize = 64;

/// Query rows of a tile of the backward, whose sums over them are added tile by tile.
fn tile_rows<E: Operand>() -> usize {
    if E::tiles() { TALL_TILE } else { TILE }
}

/// Query rows of a tile where no sum runs over them: as many as a block of keys, so that little is made only to be masked.
pub(crate) fn forward_rows<E: Operand>() -> usize {
    if E::tiles() { TALL_TILE } else { NR }
}

/// The rows of a tile, whose first one is at position `r0`, in groups that see equally many blocks of keys: (first row, rows,
/// keys). Sums over what they do not see would be sums of zeros.
pub(crate) fn groups(r0: usize, rows: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    (r0 / NR..(r0 + rows).div_ceil(NR)).map(move |b| {
        let (first, end) = ((b * NR).max(r0) - r0, ((b + 1) * NR).min(r0 + rows) - r0);
        (first, end - first, (b + 1) * NR)
    })
}

/// The keys of a tile, below `keys`, with the rows that sums over rows can leave out: (first key, keys, rows skipped). All rows
/// for the first row's block and those before it; for a later block those that see any of it.
pub(crate) fn key_groups(r0: usize, keys: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    let all = (r0 / NR + 1) * NR;
    std::iter::once((0, all, 0)).chain((all..keys).step_by(NR).map(move |from| (from, NR, from - r0)))
}

/// [`groups`], or all rows at once where matrix tiles take them.
fn each_group<E: Operand>(r0: usize, rows: usize, mut work: impl FnMut(usize, usize, usize)) {
    match E::tiles() {
        true => work(0, rows, (r0 + rows).next_multiple_of(NR)),
        false => groups(r0, rows).for_each(|(first, rows, keys)| work(first, rows, keys)),
    }
}

thread_local! {
    static FORWARD: RefCell<Forward> = RefCell::new(Forward::default());
    static BACKWARD: RefCell<Scratch> = RefCell::new(Scratch::default());
}

/// Buffers of one forward task, in the words of its operands (`f32` scores apart).
#[derive(Default)]
struct Forward {
    joined: Vec<f32>,
    k_t: Vec<f32>,
    v_p: Vec<f32>,
    s: Vec<f32>,
    q: Vec<f32>,
    p: Vec<f32>,
}

/// Widths of an attention layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Heads {
    /// Query heads N.
    pub query: usize,
    /// Key/value heads K.
    pub kv: usize,
    /// Head width H.
    pub dim: usize,
    /// Factor on the scores, usually H^-0.5.
    pub scale: f32,
    /// In what numbers the products run: queries, keys, values and probabilities are rounded to it.
    pub precision: Precision,
}

impl Heads {
    fn group(&self) -> usize {
        self.query / self.kv
    }
}

/// Scores of query rows against all key panels up to `keys`: `s[i * cap + j]`.
///
/// # Safety
/// `q` must have `rows` rows of the head's words; `k_t` and `s` must be large enough for `keys`.
unsafe fn scores<E: Operand>(
    s: &mut [f32],
    cap: usize,
    q: (*const f32, usize),
    rows: usize,
    k_t: &[f32],
    dim: usize,
    keys: usize,
) {
    let words = E::words(dim);
    let e = Extent { m: rows, outer: 1, inner: words, n: keys };
    let a = Left { base: q.0, row: q.1, outer: 0, inner: 1 };
    assert!(k_t.len() >= keys / NR * words * NR && s.len() >= (rows - 1) * cap + keys, "scores: shapes");
    let b = Right { base: k_t.as_ptr(), panel: words * NR, ld: NR };
    // SAFETY: the caller gives `rows` readable query rows; panels and scratch are large enough (asserted).
    unsafe { E::wide(e, a, b, s.as_mut_ptr(), cap, Start::Zero) };
}

/// out `[T, N*H]` and, for the backward, `stats` `[T, N, 2]`: the row's largest score and one over its sum.
pub fn forward(out: &mut [f32], stats: &mut [f32], q: &[f32], k: &[f32], v: &[f32], seg: &Segments, heads: Heads) {
    match heads.precision {
        Precision::F32 => forward_in::<Singles>(out, stats, q, k, v, seg, heads),
        Precision::Bf16 | Precision::Fp8 => forward_in::<Pairs>(out, stats, q, k, v, seg, heads),
    }
}

fn forward_in<E: Operand>(
    out: &mut [f32],
    stats: &mut [f32],
    q: &[f32],
    k: &[f32],
    v: &[f32],
    seg: &Segments,
    heads: Heads,
) {
    let (n, kv, dim, tile) = (heads.query, heads.kv, heads.dim, forward_rows::<E>());
    let t = seg.tokens();
    assert!(
        q.len() == t * n * dim
            && out.len() == q.len()
            && k.len() == t * kv * dim
            && v.len() == k.len()
            && stats.len() == t * n * 2
    );
    let (out, stats) = (Shared::new(out), Shared::new(stats));
    par::ranges(seg.len() * kv, 1, |items| {
        scratch::kept(&FORWARD, |w| {
            for item in items {
                let (i, g) = (item / kv, item % kv);
                let (range, before) = (seg.range(i), seg.before(i));
                if range.is_empty() {
                    continue;
                }
                let len = before.len() + range.len();
                let cap = len.next_multiple_of(NR);
                let (k, ld) = seg.seen(i, &mut w.joined, (k, kv * dim), g * dim, dim);
                E::columns(&mut w.k_t, k, ld, len, dim);
                let (v, ld) = seg.seen(i, &mut w.joined, (v, kv * dim), g * dim, dim);
                E::panels(&mut w.v_p, v, ld, len, cap, dim);
                w.s.resize(tile * cap, 0.0);
                for h in g * heads.group()..(g + 1) * heads.group() {
                    for r0 in (before.len()..len).step_by(tile) {
                        let rows = (len - r0).min(tile);
                        let keys = (r0 + rows).next_multiple_of(NR);
                        let token = range.start + r0 - before.len();
                        let base = (token * n + h) * dim;
                        let left = E::left(&mut w.q, &q[base..], n * dim, rows, dim);
                        // SAFETY: query rows r0..r0+rows of this segment exist; scratch was sized above.
                        unsafe { scores::<E>(&mut w.s, cap, left, rows, &w.k_t, dim, keys) };
                        E::room(&mut w.p, rows, keys);
                        for i in 0..rows {
                            let row = &mut w.s[i * cap..i * cap + keys];
                            let (max, inverse) = softmax_row(row, r0 + i, heads.scale);
                            // While the row is in the first-level cache.
                            E::put(&mut w.p, i, row);
                            // SAFETY: only this task writes the statistics of head h of this segment.
                            let st = unsafe { stats.slice(((token + i) * n + h) * 2, 2) };
                            st.copy_from_slice(&[max, inverse]);
                        }
                        let (p, ld) = E::placed(&w.p, &w.s, cap, rows, keys);
                        let e = Extent { m: rows, outer: 1, inner: E::words(keys), n: dim };
                        let a = Left { base: p, row: ld, outer: 0, inner: 1 };
                        let b = Right { base: w.v_p.as_ptr(), panel: E::words(cap) * NR, ld: NR };
                        // SAFETY: only this task writes head h of this segment's rows; panels hold `cap >= keys` rows.
                        unsafe { E::wide(e, a, b, out.at(base), n * dim, Start::Zero) };
                        for i in 0..rows {
                            // SAFETY: as above.
                            unsafe {
                                let inverse = stats.slice(((token + i) * n + h) * 2, 2)[1];
                                math::scale(out.slice(base + i * n * dim, dim), inverse);
                            }
                        }
                    }
                }
            }
        });
    });
}

/// Gradients d_q `[T, N*H]`, d_k and d_v `[T, K*H]`, or += with `add`; probabilities are made again from `stats`.
pub fn backward(
    d_q: &mut [f32],
    d_k: &mut [f32],
    d_v: &mut [f32],
    d_out: &[f32],
    out: &[f32],
    stats: &[f32],
    (q, k, v): (&[f32], &[f32], &[f32]),
    seg: &Segments,
    heads: Heads,
    add: bool,
) {
    match heads.precision {
        Precision::F32 => backward_in::<Singles>(d_q, d_k, d_v, d_out, out, stats, (q, k, v), seg, heads, add),
        Precision::Bf16 | Precision::Fp8 => {
            backward_in::<Pairs>(d_q, d_k, d_v, d_out, out, stats, (q, k, v), seg, heads, add)
        }
    }
}

fn backward_in<E: Operand>(
    d_q: &mut [f32],
    d_k: &mut [f32],
    d_v: &mut [f32],
    d_out: &[f32],
    out: &[f32],
    stats: &[f32],
    (q, k, v): (&[f32], &[f32], &[f32]),
    seg: &Segments,
    heads: Heads,
    add: bool,
) {
    let (n, kv, dim, tile) = (heads.query, heads.kv, heads.dim, tile_rows::<E>());
    assert!(
        d_q.len() == q.len()
            && d_k.len() == k.len()
            && d_v.len() == v.len()
            && d_out.len() == q.len()
            && out.len() == q.len()
    );
    // What a continuation adds to the gradients of the tokens before it, added up at the end in the sequences' order.
    let repeated = seg.repeated();
    let room = repeated[seg.len()] * kv * dim;
    scratch::floats(2 * room, |all| {
        let (copies_k, copies_v) = all.split_at_mut(room);
        let to = [(Shared::new(d_k), Shared::new(copies_k)), (Shared::new(d_v), Shared::new(copies_v))];
        let d_q = Shared::new(d_q);
        let start = if add { Start::Add } else { Start::Zero };
        par::ranges(seg.len() * kv, 1, |items| {
            scratch::kept(&BACKWARD, |w| {
                for item in items {
                    let (i, g) = (item / kv, item % kv);
                    let (range, before) = (seg.range(i), seg.before(i));
                    if range.is_empty() {
                        continue;
                    }
                    let len = before.len() + range.len();
                    let [mut joined_k, mut joined_v] = std::mem::take(&mut w.joined);
                    let (k, ld) = seg.seen(i, &mut joined_k, (k, kv * dim), g * dim, dim);
                    let (v, _) = seg.seen(i, &mut joined_v, (v, kv * dim), g * dim, dim);
                    w.load::<E>(k, v, ld, len, dim);
                    w.joined = [joined_k, joined_v];
                    for h in g * heads.group()..(g + 1) * heads.group() {
                        for r0 in (before.len()..len).step_by(tile) {
                            let token = range.start + r0 - before.len();
                            let (base, stats_at) = ((token * n + h) * dim, (token * n + h) * 2);
                            w.tile::<E>(&q[base..], &d_out[base..], &out[base..], &stats[stats_at..], r0, n, heads);
                            let rows = (len - r0).min(tile);
                            let (d_s, ld) = E::placed(&w.d_s_left, &w.d_s, w.cap, rows, w.keys);
                            let b = Right { base: w.k_p.as_ptr(), panel: E::words(w.cap) * NR, ld: NR };
                            each_group::<E>(r0, rows, |first, count, keys| {
                                let e = Extent { m: count, outer: 1, inner: E::words(keys), n: dim };
                                let a = Left { base: d_s.wrapping_add(first * ld), row: ld, outer: 0, inner: 1 };
                                // SAFETY: only this task writes head h of this segment's rows.
                                unsafe { E::wide(e, a, b, d_q.at(base + first * n * dim), n * dim, start) };
                            });
                        }
                    }
                    w.upright::<E>(dim);
                    for p in 0..len {
                        for ((own, copies), d) in to.iter().zip([&w.d_k, &w.d_v]) {
                            let d = &d[p * w.wide..p * w.wide + dim];
                            // SAFETY: only this task writes key/value head g of this segment, and of its copies.
                            unsafe {
                                match p.checked_sub(before.len()) {
                                    None => {
                                        copies.slice(((repeated[i] + p) * kv + g) * dim, dim).copy_from_slice(d);
                                    }
                                    Some(p) => {
                                        let own = own.slice(((range.start + p) * kv + g) * dim, dim);
                                        if add { math::add_assign(own, d) } else { own.copy_from_slice(d) }
                                    }
                                }
                            }
                        }
                    }
                }
            });
        });
        seg.add_copies(d_k, copies_k, kv * dim);
        seg.add_copies(d_v, copies_v, kv * dim);
    });
}

/// Buffers of one backward task, for one (segment, key/value head).
#[derive(Default)]
struct Scratch {
    joined: [Vec<f32>; 2],
    len: usize,
    cap: usize,
    keys: usize,
    wide: usize,
    k_t: Vec<f32>,
    v_t: Vec<f32>,
    k_p: Vec<f32>,
    q_p: Vec<f32>,
    d_o_p: Vec<f32>,
    p: Vec<f32>,
    d_s: Vec<f32>,
    d_k: Vec<f32>,
    d_v: Vec<f32>,
    /// Rows of a left side in the words of the operands.
    left: Vec<f32>,
    d_s_left: Vec<f32>,
    p_down: Vec<f32>,
    d_s_down: Vec<f32>,
    delta: Vec<f32>,
    /// Pairs of query rows as rows of their columns, and sums on their way to be upright.
    turned: Vec<f32>,
}

impl Scratch {
    fn load<E: Operand>(&mut self, k: &[f32], v: &[f32], ld: usize, len: usize, dim: usize) {
        self.len = len;
        self.cap = len.next_multiple_of(NR);
        self.wide = dim.next_multiple_of(NR);
        E::columns(&mut self.k_t, k, ld, len, dim);
        E::columns(&mut self.v_t, v, ld, len, dim);
        E::panels(&mut self.k_p, k, ld, len, self.cap, dim);
        for buffer in [&mut self.d_k, &mut self.d_v] {
            buffer.clear();
            buffer.resize(self.cap * self.wide, 0.0);
        }
        self.p.resize(tile_rows::<E>() * self.cap, 0.0);
        self.d_s.resize(tile_rows::<E>() * self.cap, 0.0);
    }

    /// P and dS of one tile of queries; adds the tile's share to d_k and d_v.
    fn tile<E: Operand>(
        &mut self,
        q: &[f32],
        d_out: &[f32],
        out: &[f32],
        stats: &[f32],
        r0: usize,
        n: usize,
        heads: Heads,
    ) {
        let (dim, ld, cap) = (heads.dim, n * heads.dim, self.cap);
        let rows = (self.len - r0).min(tile_rows::<E>());
        self.keys = (r0 + rows).next_multiple_of(NR);
        let (left, left_ld) = E::left(&mut self.left, q, ld, rows, dim);
        each_group::<E>(r0, rows, |first, count, keys| {
            let left = (left.wrapping_add(first * left_ld), left_ld);
            // SAFETY: `left` has `rows` rows; scratch sized in `load`.
            unsafe { scores::<E>(&mut self.p[first * cap..], cap, left, count, &self.k_t, dim, keys) };
        });
        let (left, left_ld) = E::left(&mut self.left, d_out, ld, rows, dim);
        each_group::<E>(r0, rows, |first, count, keys| {
            let left = (left.wrapping_add(first * left_ld), left_ld);
            // SAFETY: as above.
            unsafe { scores::<E>(&mut self.d_s[first * cap..], cap, left, count, &self.v_t, dim, keys) };
        });
        self.delta.resize(TALL_TILE, 0.0);
        row_dots(&mut self.delta[..rows], d_out, out, ld, dim);
        let keys = self.keys;
        E::room(&mut self.d_s_left, rows, keys);
        E::room_down(&mut self.p_down, rows, keys);
        E::room_down(&mut self.d_s_down, rows, keys);
        for i in 0..rows {
            let (p, d_s) = (&mut self.p[i * cap..i * cap + keys], &mut self.d_s[i * cap..i * cap + keys]);
            let (max, inverse, seen) = (stats[i * n * 2], stats[i * n * 2 + 1], r0 + i + 1);
            probabilities(&mut p[..seen], &mut d_s[..seen], max, inverse, self.delta[i], heads.scale);
            p[seen..].fill(0.0);
            d_s[seen..].fill(0.0);
            // While the rows are in the first-level cache.
            E::put(&mut self.d_s_left, i, d_s);
            E::put_down(&mut self.p_down, i, &self.p, cap, keys, i + 1 == rows);
            E::put_down(&mut self.d_s_down, i, &self.d_s, cap, keys, i + 1 == rows);
        }
        let depth = if E::tiles() { rows.next_multiple_of(2 * SQUARE) } else { rows };
        E::panels(&mut self.q_p, q, ld, rows, depth, dim);
        E::panels(&mut self.d_o_p, d_out, ld, rows, depth, dim);
        if E::tiles() {
            return self.add_lying(rows, dim);
        }
        let lines = E::words(rows);
        let p = E::placed_down(&self.p_down, &self.p, cap, keys);
        let d_s = E::placed_down(&self.d_s_down, &self.d_s, cap, keys);
        for ((base, inner), right, to) in [(p, &self.d_o_p, &mut self.d_v), (d_s, &self.q_p, &mut self.d_k)] {
            for (from, m, skipped) in key_groups(r0, keys) {
                let skipped = skipped / E::VALUES;
                let e = Extent { m, outer: 1, inner: lines - skipped, n: self.wide };
                let a = Left { base: base.wrapping_add(skipped * inner + from), row: 1, outer: 0, inner };
                let b = Right { base: right[skipped * NR..].as_ptr(), panel: lines * NR, ld: NR };
                // SAFETY: the left side is [lines, keys], panels are [lines, 32], `to` is [cap, wide]; lines and keys from `skipped`
                // and `from` on are taken.
                unsafe { E::wide(e, a, b, to[from * self.wide..].as_mut_ptr(), self.wide, Start::Add) };
            }
        }
    }

    /// The tile's share of d_k and d_v where products run through matrix tiles, which want rows of pairs on the left: with P
    /// and dS on the right, transposed sums `[wide, cap]`.
    fn add_lying(&mut self, rows: usize, dim: usize) {
        let (keys, lines) = (self.keys, Pairs::words(rows));
        let all = lines.next_multiple_of(SQUARE);
        grow(&mut self.turned, self.wide * all);
        for (down, right, to) in
            [(&mut self.p_down, &self.d_o_p, &mut self.d_v), (&mut self.d_s_down, &self.q_p, &mut self.d_k)]
        {
            grow(down, all * keys);
            down[lines * keys..all * keys].fill(0.0);
            for c in (0..self.wide).step_by(SQUARE) {
                for p in (0..all).step_by(SQUARE) {
                    let from = &right[(c / NR * all + p) * NR + c % NR..];
                    math::transpose(&mut self.turned[c * all + p..], all, from, NR, SQUARE, SQUARE);
                }
            }
            let e = Extent { m: dim, outer: 1, inner: all, n: keys };
            let a = Left { base: self.turned.as_ptr(), row: all, outer: 0, inner: 1 };
            let b = Right { base: down.as_ptr(), panel: NR, ld: keys };
            // SAFETY: the left side is [wide, all], the right one [all, keys], `to` [wide, cap].
            unsafe { Pairs::wide(e, a, b, to.as_mut_ptr(), self.cap, Start::Chain) };
        }
    }

    /// d_k and d_v as `[len, wide]`, however they were summed.
    fn upright<E: Operand>(&mut self, dim: usize) {
        if !E::tiles() {
            return;
        }
        for d in [&mut self.d_k, &mut self.d_v] {
            grow(&mut self.turned, self.cap * self.wide);
            for i in (0..self.len).step_by(SQUARE) {
                for c in (0..dim).step_by(SQUARE) {
                    let (width, rows) = ((dim - c).min(SQUARE), (self.cap - i).min(SQUARE));
                    let to = &mut self.turned[i * self.wide + c..];
                    math::transpose(to, self.wide, &d[c * self.cap + i..], self.cap, width, rows);
                }
            }
            std::mem::swap(d, &mut self.turned);
        }
    }
}

crate::multiversion! {
    /// Dot products of rows `ld` apart, `dim` wide, each as [`math::dot`].
    pub(crate) fn row_dots<S>(out: &mut [f32], x: &[f32], y: &[f32], ld: usize, dim: usize) -> () {
        for (i, out) in out.iter_mut().enumerate() {
            // SAFETY: the instruction set was detected.
            *out = unsafe { math::dot_in::<S>(&x[i * ld..i * ld + dim], &y[i * ld..i * ld + dim]) };
        }
    }
}

crate::multiversion! {
    /// p <- soft-max probabilities of raw scores p; d_s <- p (d_p - delta) scale.
    pub(crate) fn probabilities(p: &mut [f32], d_s: &mut [f32], max: f32, inverse: f32, delta: f32, scale: f32) -> () {
        for (p, d) in p.iter_mut().zip(d_s.iter_mut()) {
            *p = math::exp((*p - max) * scale) * inverse;
            *d = *p * (*d - delta) * scale;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_all_rows_of_a_tile_with_just_the_blocks_they_see() {
        for (r0, rows) in [(0, 1), (0, 48), (48, 48), (96, 5), (31, 2), (64, 64), (70, 33)] {
            let mut next = 0;
            for (first, count, keys) in groups(r0, rows) {
                assert!(first == next && count > 0, "{r0} {rows}");
                assert!(
                    (first..first + count).all(|i| (r0 + i + 1).next_multiple_of(NR) == keys),
                    "{r0} {rows} {keys}"
                );
                next = first + count;
            }
            assert_eq!(next, rows, "{r0}");
            let (all, mut next) = ((r0 + rows).next_multiple_of(NR), 0);
            for (first, count, skipped) in key_groups(r0, all) {
                assert!(first == next && (0..skipped).all(|i| r0 + i < first), "{r0} {rows}: a skipped row sees a key");
                next = first + count;
            }
            assert_eq!(next, all, "{r0}");
        }
    }
}
