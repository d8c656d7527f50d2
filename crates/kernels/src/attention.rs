//! Causal attention over packed sequences, forward and backward.
//!
//! q `[T, N*H]`, k `[T, K*H]`, v `[T, K*V]`, out `[T, N*V]`; N/K query heads share a key/value head. Tokens of different segments
//! never meet, but a segment that continues another one sees that one's keys before its own. One task is one (segment, key/value
//! head). Scores of a tile of queries are made 32 keys at a time; a row's soft-max runs over whole blocks of 32 keys with the
//! future masked to exactly zero, which is what the cached form in `cache` does too: both give the same bits.

mod backward;

pub use backward::backward;

use crate::cpu::gemm::{Extent, Left, NR, Right, Start};
use crate::cpu::math;
use crate::cpu::operand::{Operand, Pairs, Singles};
use crate::par::{self, Shared};
use crate::params::Precision;
use crate::scratch;
use crate::segments::Segments;
use crate::softmax::softmax_row;
use std::cell::RefCell;

/// Query rows of a tile where products run through matrix tiles: pairs of queries fill two of them.
pub(crate) const TALL_TILE: usize = 64;

/// Query rows of a tile where no sum runs over them: as many as a block of keys, so that little is made only to be masked.
pub(crate) fn forward_rows<E: Operand>() -> usize {
    if E::tiles() { TALL_TILE } else { NR }
}

thread_local! {
    static FORWARD: RefCell<Forward> = RefCell::new(Forward::default());
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
    /// Head width H of queries and keys.
    pub dim: usize,
    /// Head width V of values and of the output.
    pub value: usize,
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

/// out `[T, N*V]` and, for the backward, `stats` `[T, N, 2]`: the row's largest score and one over its sum.
pub fn forward(out: &mut [f32], stats: &mut [f32], q: &[f32], k: &[f32], v: &[f32], seg: &Segments, heads: Heads) {
    forward_after(out, stats, (q, k, v), seg, 0, heads);
}

/// The same where the first `offset` keys have no queries (the past of a prompt that comes in chunks): then there is one
/// segment, and q, out and stats have that many rows fewer.
pub fn forward_after(
    out: &mut [f32],
    stats: &mut [f32],
    inputs: (&[f32], &[f32], &[f32]),
    seg: &Segments,
    offset: usize,
    heads: Heads,
) {
    match heads.precision {
        Precision::F32 => forward_in::<Singles>(out, stats, inputs, seg, offset, heads),
        Precision::Bf16 | Precision::Fp8 => forward_in::<Pairs>(out, stats, inputs, seg, offset, heads),
    }
}

fn forward_in<E: Operand>(
    out: &mut [f32],
    stats: &mut [f32],
    (q, k, v): (&[f32], &[f32], &[f32]),
    seg: &Segments,
    offset: usize,
    heads: Heads,
) {
    let (n, kv, dim, value, tile) = (heads.query, heads.kv, heads.dim, heads.value, forward_rows::<E>());
    let (t, rows) = (seg.tokens(), seg.tokens() - offset);
    assert!(
        q.len() == rows * n * dim
            && out.len() == rows * n * value
            && k.len() == t * kv * dim
            && v.len() == t * kv * value
            && stats.len() == rows * n * 2
            && (offset == 0 || seg.len() == 1),
        "attention: shapes"
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
                let (first, len) = (before.len() + offset, before.len() + range.len());
                let cap = len.next_multiple_of(NR);
                let (k, ld) = seg.seen(i, &mut w.joined, (k, kv * dim), g * dim, dim);
                E::columns(&mut w.k_t, k, ld, len, dim);
                let (v, ld) = seg.seen(i, &mut w.joined, (v, kv * value), g * value, value);
                E::panels(&mut w.v_p, v, ld, len, cap, value);
                w.s.resize(tile * cap, 0.0);
                for h in g * heads.group()..(g + 1) * heads.group() {
                    for r0 in (first..len).step_by(tile) {
                        let rows = (len - r0).min(tile);
                        let keys = (r0 + rows).next_multiple_of(NR);
                        let token = range.start + r0 - first;
                        let base = (token * n + h) * value;
                        let left = E::left(&mut w.q, &q[(token * n + h) * dim..], n * dim, rows, dim);
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
                        let e = Extent { m: rows, outer: 1, inner: E::words(keys), n: value };
                        let a = Left { base: p, row: ld, outer: 0, inner: 1 };
                        let b = Right { base: w.v_p.as_ptr(), panel: E::words(cap) * NR, ld: NR };
                        // SAFETY: only this task writes head h of this segment's rows; panels hold `cap >= keys` rows.
                        unsafe { E::wide(e, a, b, out.at(base), n * value, Start::Zero) };
                        for i in 0..rows {
                            // SAFETY: as above.
                            unsafe {
                                let inverse = stats.slice(((token + i) * n + h) * 2, 2)[1];
                                math::scale(out.slice(base + i * n * value, value), inverse);
                            }
                        }
                    }
                }
            }
        });
    });
}
