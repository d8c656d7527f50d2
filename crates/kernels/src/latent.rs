//! Multi-head latent attention (DeepSeek-V2 section 2.1, DeepSeek-V3 equations 1 to 11): keys and values come from one narrow
//! latent per token, and a rotated key is shared by all heads.
//!
//! Two forms of the same function. Expanded: every head gets its keys and values, `k = [W_UK c ; pe]`, `v = W_UV c`. Absorbed:
//! the up-projections move to the query and to the output, and all heads read one key `[c ; pe]` whose first part is the value;
//! see [`absorb`]. [`packed`] is the attention both need: keys wider than values, made of a part per key head and a part that
//! all heads share. Its sums are those of [`crate::attention`], so the absorbed form gives the same bits packed and cached.

pub mod absorb;
pub mod packed;

use crate::attention::{TALL_TILE, forward_rows};
use crate::cpu::gemm::{Extent, Left, NR, Right, Start};
use crate::cpu::math;
use crate::cpu::operand::{Operand, grow};
use crate::params::Precision;
use crate::softmax::softmax_row;

/// Widths of a latent attention layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LatentHeads {
    /// Heads N.
    pub heads: usize,
    /// Width of a head's part of the key that carries no position.
    pub nope: usize,
    /// Width of the rotated key, shared by all heads.
    pub rope: usize,
    /// Width of the latent.
    pub lora: usize,
    /// Width of a head's value.
    pub value: usize,
    /// Factor on the scores.
    pub scale: f32,
    /// Which form runs.
    pub form: LatentForm,
    /// In what numbers the products of queries, keys and values run, as in [`crate::attention::Heads`].
    pub precision: Precision,
}

/// Which form of latent attention runs where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LatentForm {
    /// Absorbed everywhere: generator and trainer give the same bits.
    #[default]
    Absorbed,
    /// Expanded for packed sequences and prompts, absorbed for decoding: less work where the latent is much wider than a head.
    /// Generator and trainer agree up to rounding only.
    Mixed,
}

impl LatentHeads {
    /// Rows of the up-projection that belong to one head: its keys, then its values.
    pub fn rows(&self) -> usize {
        self.nope + self.value
    }

    /// Width of a query head.
    pub fn query(&self) -> usize {
        self.nope + self.rope
    }

    /// Width of an absorbed query head, which is what the cache holds per token.
    pub fn absorbed(&self) -> usize {
        self.lora + self.rope
    }
}

/// One head's queries, `rows` of them.
pub(crate) struct Queries<'a> {
    /// From the first query on; rows lie `ld` apart.
    pub q: &'a [f32],
    /// Distance between rows.
    pub ld: usize,
    /// How many.
    pub rows: usize,
    /// Position of the first.
    pub position: usize,
    /// Position of the next minus that of this one: 1 for tokens, 0 for heads of one token.
    pub step: usize,
}

/// Attention of some query rows over transposed key panels (one pointer per 32 keys) and row panels of values
/// `[ceil(value/32)][words(cap)][32]`, which writes out rows `out_ld` apart. `s`, `q` and `p` are scratch.
///
/// # Safety
/// Query rows are readable for `dim`, every key panel for its words of 32 keys, `values` for its panels; out rows are writable
/// and nobody else touches them. Panels cover the last row's position.
pub(crate) unsafe fn attend<E: Operand>(
    queries: &Queries,
    dim: usize,
    keys: &[*const f32],
    values: *const f32,
    (cap, value): (usize, usize),
    (out, out_ld): (*mut f32, usize),
    scale: f32,
    [s, q, p]: [&mut Vec<f32>; 3],
) {
    let height = forward_rows::<E>();
    grow(s, height * cap);
    for r0 in (0..queries.rows).step_by(height) {
        let rows = (queries.rows - r0).min(height);
        let last = queries.position + (r0 + rows - 1) * queries.step;
        let seen = (last + 1).next_multiple_of(NR);
        let (left, ld) = E::left(q, &queries.q[r0 * queries.ld..], queries.ld, rows, dim);
        let a = Left { base: left, row: ld, outer: 0, inner: 1 };
        for (b, panel) in keys[..seen / NR].iter().enumerate() {
            let e = Extent { m: rows, outer: 1, inner: E::words(dim), n: NR };
            // SAFETY: as promised by the caller; s has `height` rows of cap >= seen.
            unsafe { E::gemm(e, a, *panel, NR, s[b * NR..].as_mut_ptr(), cap, Start::Zero) };
        }
        let mut inverse = [0f32; TALL_TILE];
        E::room(p, rows, seen);
        for i in 0..rows {
            let row = &mut s[i * cap..i * cap + seen];
            inverse[i] = softmax_row(row, queries.position + (r0 + i) * queries.step, scale).1;
            E::put(p, i, row);
        }
        let (left, ld) = E::placed(p, s, cap, rows, seen);
        let a = Left { base: left, row: ld, outer: 0, inner: 1 };
        let e = Extent { m: rows, outer: 1, inner: E::words(seen), n: value };
        let b = Right { base: values, panel: E::words(cap) * NR, ld: NR };
        // SAFETY: as promised by the caller; there is a weight for each key, masked ones zero.
        unsafe { E::wide(e, a, b, out.add(r0 * out_ld), out_ld, Start::Zero) };
        for (i, inverse) in inverse.iter().enumerate().take(rows) {
            // SAFETY: as above.
            math::scale(unsafe { std::slice::from_raw_parts_mut(out.add((r0 + i) * out_ld), value) }, *inverse);
        }
    }
}
