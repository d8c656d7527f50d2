//! Multi-head latent attention (DeepSeek-V2 section 2.1, DeepSeek-V3 equations 1 to 11): keys and values come from one narrow
//! latent per token, and a rotated key is shared by all heads.
//!
//! Two forms of the same function. Expanded: every head gets its keys and values, `k = [W_UK c ; pe]`, `v = W_UV c`. Absorbed:
//! the up-projections move to the query and to the output, and all heads read one key `[c ; pe]` whose first part is the value;
//! see [`absorb`]. [`packed`] is the attention both need: keys wider than values, made of a part per key head and a part that
//! all heads share. Its sums run as in [`crate::attention`], so the absorbed form gives the same bits packed and cached.

pub mod absorb;
pub mod packed;

use crate::cpu::gemm::{Extent, Left, NR, Start, gemm};
use crate::cpu::math::{self, SQUARE};
use crate::cpu::operand::grow;
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

/// Rows `[len, dim]` of `src` (stride `ld`) as columns `at..at + dim` of transposed panels `[ceil(len/32)][total][32]`, zero
/// padded.
pub(crate) fn transpose_into(
    panels: &mut [f32],
    total: usize,
    at: usize,
    src: &[f32],
    ld: usize,
    len: usize,
    dim: usize,
) {
    for i0 in (0..len).step_by(SQUARE) {
        let rows = (len - i0).min(SQUARE);
        let panel = &mut panels[(i0 / NR * total + at) * NR..][..dim * NR];
        for d in (0..dim).step_by(SQUARE) {
            let width = (dim - d).min(SQUARE);
            math::transpose(&mut panel[d * NR + i0 % NR..], NR, &src[i0 * ld + d..], ld, rows, width);
        }
    }
    if !len.is_multiple_of(NR) {
        for row in panels[(len / NR * total + at) * NR..][..dim * NR].chunks_exact_mut(NR) {
            row[len % NR..].fill(0.0);
        }
    }
}

/// Rows `[len, dim]` of `src` as columns `at..at + dim` of row panels `[ceil(total/32)][cap][32]`; other columns are left as
/// they are, rows after `len` must be zero already or not matter.
pub(crate) fn rows_into(panels: &mut [f32], cap: usize, at: usize, src: &[f32], ld: usize, len: usize, dim: usize) {
    assert!(len == 0 || src.len() >= (len - 1) * ld + dim, "rows of a panel");
    let mut d = 0;
    while d < dim {
        let column = at + d;
        let width = (dim - d).min(NR - column % NR);
        let panel = &mut panels[column / NR * cap * NR..][..len * NR];
        let rows = panel[column % NR..].chunks_mut(NR).zip(src[d..].chunks(ld)).take(len);
        // Of a size that is known nothing is called for a row.
        match width {
            NR => rows.for_each(|(to, from)| copy::<NR>(to, from)),
            SQUARE => rows.for_each(|(to, from)| copy::<SQUARE>(to, from)),
            _ => rows.for_each(|(to, from)| to[..width].copy_from_slice(&from[..width])),
        }
        d += width;
    }
}

fn copy<const N: usize>(to: &mut [f32], from: &[f32]) {
    if let (Some(to), Some(from)) = (to.first_chunk_mut::<N>(), from.first_chunk::<N>()) {
        *to = *from;
    }
}

/// One head's queries, `rows` of them.
pub(crate) struct Queries {
    /// First query; rows lie `ld` apart.
    pub base: *const f32,
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
/// `[ceil(value/32)][cap][32]`. Writes out rows `out_ld` apart and, where wanted, (largest score, 1 / sum) per row.
///
/// # Safety
/// Query rows are readable for `dim`, every key panel for `dim * 32`, `values` for its panels; out rows and statistics are
/// writable and nobody else touches them. Panels cover the last row's position.
pub(crate) unsafe fn attend(
    q: &Queries,
    dim: usize,
    keys: &[*const f32],
    values: *const f32,
    (cap, value): (usize, usize),
    (out, out_ld): (*mut f32, usize),
    stats: Option<(*mut f32, usize)>,
    scale: f32,
    s: &mut Vec<f32>,
) {
    grow(s, NR * cap);
    for r0 in (0..q.rows).step_by(NR) {
        let rows = (q.rows - r0).min(NR);
        let last = q.position + (r0 + rows - 1) * q.step;
        let seen = (last + 1).next_multiple_of(NR);
        let mut inverse = [0f32; NR];
        // SAFETY: as promised by the caller; s has 32 rows of cap >= seen.
        unsafe {
            let a = Left { base: q.base.add(r0 * q.ld), row: q.ld, outer: 0, inner: 1 };
            for (b, panel) in keys[..seen / NR].iter().enumerate() {
                let e = Extent { m: rows, outer: 1, inner: dim, n: NR };
                gemm(e, a, *panel, NR, s[b * NR..].as_mut_ptr(), cap, Start::Zero);
            }
            for i in 0..rows {
                let position = q.position + (r0 + i) * q.step;
                let row = &mut s[i * cap..i * cap + seen];
                let (max, one_over) = softmax_row(row, position, scale);
                inverse[i] = one_over;
                if let Some((stats, ld)) = stats {
                    let at = stats.add((r0 + i) * ld);
                    (*at, *at.add(1)) = (max, one_over);
                }
            }
            for c in (0..value).step_by(NR) {
                let e = Extent { m: rows, outer: 1, inner: seen, n: (value - c).min(NR) };
                let a = Left { base: s.as_ptr(), row: cap, outer: 0, inner: 1 };
                gemm(e, a, values.add(c * cap), NR, out.add(r0 * out_ld + c), out_ld, Start::Zero);
            }
            for (i, inverse) in inverse.iter().enumerate().take(rows) {
                math::scale(std::slice::from_raw_parts_mut(out.add((r0 + i) * out_ld), value), *inverse);
            }
        }
    }
}
