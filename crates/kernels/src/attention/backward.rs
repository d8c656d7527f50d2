//! The backward of attention: probabilities are made again from what the forward kept of each row.

use super::{Heads, TALL_TILE, scores};
use crate::cpu::gemm::{Extent, Left, NR, Right, Start};
use crate::cpu::math::{self, SQUARE};
use crate::cpu::operand::{Operand, Pairs, Singles, grow};
use crate::par::{self, Shared};
use crate::params::Precision;
use crate::scratch;
use crate::segments::Segments;
use std::cell::RefCell;

thread_local! {
    static BACKWARD: RefCell<Scratch> = RefCell::new(Scratch::default());
}

/// Query rows of a tile where no matrix tiles run.
const TILE: usize = 48;

/// Query rows of a tile, whose sums over them are added tile by tile.
fn tile_rows<E: Operand>() -> usize {
    if E::tiles() { TALL_TILE } else { TILE }
}

/// The rows of a tile, whose first one is at position `r0`, in groups that see equally many blocks of keys: (first row, rows,
/// keys). Sums over what they do not see would be sums of zeros.
fn groups(r0: usize, rows: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    (r0 / NR..(r0 + rows).div_ceil(NR)).map(move |b| {
        let (first, end) = ((b * NR).max(r0) - r0, ((b + 1) * NR).min(r0 + rows) - r0);
        (first, end - first, (b + 1) * NR)
    })
}

/// The keys of a tile, below `keys`, with the rows that sums over rows can leave out: (first key, keys, rows skipped). All rows
/// for the first row's block and those before it; for a later block those that see any of it.
fn key_groups(r0: usize, keys: usize) -> impl Iterator<Item = (usize, usize, usize)> {
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

/// Gradients d_q `[T, N*H]`, d_k `[T, K*H]` and d_v `[T, K*V]`, or += with `add`; probabilities are made again from `stats`.
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
    let (n, kv, dim, value, tile) = (heads.query, heads.kv, heads.dim, heads.value, tile_rows::<E>());
    assert!(
        d_q.len() == q.len()
            && d_k.len() == k.len()
            && d_v.len() == v.len()
            && d_out.len() == out.len()
            && out.len() == seg.tokens() * n * value
            && q.len() == seg.tokens() * n * dim
            && k.len() == seg.tokens() * kv * dim
            && v.len() == seg.tokens() * kv * value
            && stats.len() == seg.tokens() * n * 2,
        "attention backward: shapes"
    );
    // What a continuation adds to the gradients of the tokens before it, added up at the end in the sequences' order.
    let repeated = seg.repeated();
    let copies = repeated[seg.len()] * kv;
    scratch::floats(copies * (dim + value), |all| {
        let (copies_k, copies_v) = all.split_at_mut(copies * dim);
        let to_k = (Shared::new(d_k), Shared::new(copies_k), dim);
        let to_v = (Shared::new(d_v), Shared::new(copies_v), value);
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
                    let v = seg.seen(i, &mut joined_v, (v, kv * value), g * value, value);
                    w.load::<E>((k, ld), v, len, heads);
                    w.joined = [joined_k, joined_v];
                    for h in g * heads.group()..(g + 1) * heads.group() {
                        for r0 in (before.len()..len).step_by(tile) {
                            let token = range.start + r0 - before.len();
                            let row = token * n + h;
                            let (d_out, out) = (&d_out[row * value..], &out[row * value..]);
                            w.tile::<E>(&q[row * dim..], d_out, out, &stats[row * 2..], r0, heads);
                            let rows = (len - r0).min(tile);
                            let (d_s, ld) = E::placed(&w.d_s_left, &w.d_s, w.cap, rows, w.keys);
                            let b = Right { base: w.k_p.as_ptr(), panel: E::words(w.cap) * NR, ld: NR };
                            each_group::<E>(r0, rows, |first, count, keys| {
                                let e = Extent { m: count, outer: 1, inner: E::words(keys), n: dim };
                                let a = Left { base: d_s.wrapping_add(first * ld), row: ld, outer: 0, inner: 1 };
                                // SAFETY: only this task writes head h of this segment's rows.
                                unsafe { E::wide(e, a, b, d_q.at((row + first * n) * dim), n * dim, start) };
                            });
                        }
                    }
                    w.upright::<E>(heads);
                    for p in 0..len {
                        for ((own, copies, dim), d) in [(&to_k, &w.d_k), (&to_v, &w.d_v)] {
                            let wide = dim.next_multiple_of(NR);
                            let d = &d[p * wide..p * wide + dim];
                            // SAFETY: only this task writes key/value head g of this segment, and of its copies.
                            unsafe {
                                match p.checked_sub(before.len()) {
                                    None => {
                                        copies.slice(((repeated[i] + p) * kv + g) * dim, *dim).copy_from_slice(d);
                                    }
                                    Some(p) => {
                                        let own = own.slice(((range.start + p) * kv + g) * dim, *dim);
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
        seg.add_copies(d_v, copies_v, kv * value);
    });
}

/// Buffers of one backward task, for one (segment, key/value head).
#[derive(Default)]
struct Scratch {
    joined: [Vec<f32>; 2],
    len: usize,
    cap: usize,
    keys: usize,
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
    fn load<E: Operand>(&mut self, (k, ld_k): (&[f32], usize), (v, ld_v): (&[f32], usize), len: usize, heads: Heads) {
        self.len = len;
        self.cap = len.next_multiple_of(NR);
        E::columns(&mut self.k_t, k, ld_k, len, heads.dim);
        E::columns(&mut self.v_t, v, ld_v, len, heads.value);
        E::panels(&mut self.k_p, k, ld_k, len, self.cap, heads.dim);
        for (buffer, width) in [(&mut self.d_k, heads.dim), (&mut self.d_v, heads.value)] {
            buffer.clear();
            buffer.resize(self.cap * width.next_multiple_of(NR), 0.0);
        }
        self.p.resize(tile_rows::<E>() * self.cap, 0.0);
        self.d_s.resize(tile_rows::<E>() * self.cap, 0.0);
    }

    /// P and dS of one tile of queries; adds the tile's share to d_k and d_v.
    fn tile<E: Operand>(&mut self, q: &[f32], d_out: &[f32], out: &[f32], stats: &[f32], r0: usize, heads: Heads) {
        let (n, dim, value, cap) = (heads.query, heads.dim, heads.value, self.cap);
        let rows = (self.len - r0).min(tile_rows::<E>());
        self.keys = (r0 + rows).next_multiple_of(NR);
        let (left, left_ld) = E::left(&mut self.left, q, n * dim, rows, dim);
        each_group::<E>(r0, rows, |first, count, keys| {
            let left = (left.wrapping_add(first * left_ld), left_ld);
            // SAFETY: `left` has `rows` rows; scratch sized in `load`.
            unsafe { scores::<E>(&mut self.p[first * cap..], cap, left, count, &self.k_t, dim, keys) };
        });
        let (left, left_ld) = E::left(&mut self.left, d_out, n * value, rows, value);
        each_group::<E>(r0, rows, |first, count, keys| {
            let left = (left.wrapping_add(first * left_ld), left_ld);
            // SAFETY: as above.
            unsafe { scores::<E>(&mut self.d_s[first * cap..], cap, left, count, &self.v_t, value, keys) };
        });
        self.delta.resize(TALL_TILE, 0.0);
        row_dots(&mut self.delta[..rows], d_out, out, n * value, value);
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
        E::panels(&mut self.q_p, q, n * dim, rows, rows, dim);
        E::panels(&mut self.d_o_p, d_out, n * value, rows, rows, value);
        if E::tiles() {
            return self.add_lying(rows, heads);
        }
        let lines = E::words(rows);
        let p = E::placed_down(&self.p_down, &self.p, cap, keys);
        let d_s = E::placed_down(&self.d_s_down, &self.d_s, cap, keys);
        for ((base, inner), right, to, width) in
            [(p, &self.d_o_p, &mut self.d_v, value), (d_s, &self.q_p, &mut self.d_k, dim)]
        {
            let wide = width.next_multiple_of(NR);
            for (from, m, skipped) in key_groups(r0, keys) {
                let skipped = skipped / E::VALUES;
                let e = Extent { m, outer: 1, inner: lines - skipped, n: width };
                let a = Left { base: base.wrapping_add(skipped * inner + from), row: 1, outer: 0, inner };
                let b = Right { base: right[skipped * NR..].as_ptr(), panel: lines * NR, ld: NR };
                // SAFETY: the left side is [lines, keys], panels are [lines, 32], `to` is [cap, wide]; lines and keys from `skipped`
                // and `from` on are taken.
                unsafe { E::wide(e, a, b, to[from * wide..].as_mut_ptr(), wide, Start::Add) };
            }
        }
    }

    /// The tile's share of d_k and d_v where products run through matrix tiles, which want rows of pairs on the left: with P
    /// and dS on the right, transposed sums `[wide, cap]`.
    fn add_lying(&mut self, rows: usize, heads: Heads) {
        let (keys, lines, all) = (self.keys, rows.div_ceil(Pairs::VALUES), Pairs::words(rows));
        for (down, right, to, width) in [
            (&mut self.p_down, &self.d_o_p, &mut self.d_v, heads.value),
            (&mut self.d_s_down, &self.q_p, &mut self.d_k, heads.dim),
        ] {
            grow(&mut self.turned, width.next_multiple_of(NR) * all);
            grow(down, all * keys);
            down[lines * keys..all * keys].fill(0.0);
            for c in (0..width).step_by(SQUARE) {
                for p in (0..all).step_by(SQUARE) {
                    let from = &right[(c / NR * all + p) * NR + c % NR..];
                    math::transpose(&mut self.turned[c * all + p..], all, from, NR, SQUARE, SQUARE);
                }
            }
            let e = Extent { m: width, outer: 1, inner: all, n: keys };
            let a = Left { base: self.turned.as_ptr(), row: all, outer: 0, inner: 1 };
            let b = Right { base: down.as_ptr(), panel: NR, ld: keys };
            // SAFETY: the left side is [wide, all], the right one [all, keys], `to` [wide, cap].
            unsafe { Pairs::wide(e, a, b, to.as_mut_ptr(), self.cap, Start::Chain) };
        }
    }

    /// d_k and d_v as `[len, wide]`, however they were summed.
    fn upright<E: Operand>(&mut self, heads: Heads) {
        if !E::tiles() {
            return;
        }
        for (d, dim) in [(&mut self.d_k, heads.dim), (&mut self.d_v, heads.value)] {
            let wide = dim.next_multiple_of(NR);
            grow(&mut self.turned, self.cap * wide);
            for i in (0..self.len).step_by(SQUARE) {
                for c in (0..dim).step_by(SQUARE) {
                    let (width, rows) = ((dim - c).min(SQUARE), (self.cap - i).min(SQUARE));
                    let to = &mut self.turned[i * wide + c..];
                    math::transpose(to, wide, &d[c * self.cap + i..], self.cap, width, rows);
                }
            }
            std::mem::swap(d, &mut self.turned);
        }
    }
}

crate::multiversion! {
    /// Dot products of rows `ld` apart, `dim` wide, each as [`math::dot`].
    fn row_dots<S>(out: &mut [f32], x: &[f32], y: &[f32], ld: usize, dim: usize) -> () {
        for (i, out) in out.iter_mut().enumerate() {
            // SAFETY: the instruction set was detected.
            *out = unsafe { math::dot_in::<S>(&x[i * ld..i * ld + dim], &y[i * ld..i * ld + dim]) };
        }
    }
}

crate::multiversion! {
    /// p <- soft-max probabilities of raw scores p; d_s <- p (d_p - delta) scale.
    fn probabilities(p: &mut [f32], d_s: &mut [f32], max: f32, inverse: f32, delta: f32, scale: f32) -> () {
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
