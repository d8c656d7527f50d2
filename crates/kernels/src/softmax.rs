//! Causal soft-max of attention scores, row by row; what the product with the values still has to be divided by is left over.

use crate::cpu::math;
use crate::cpu::simd::Floats;
use crate::multiversion;

/// Masks keys after `position`, turns the row into exponentials; returns (largest score, 1 / sum).
///
/// # Safety
/// As [`Floats`].
#[inline(always)]
unsafe fn softmax_row_in<S: Floats>(row: &mut [f32], position: usize, scale: f32) -> (f32, f32) {
    // Beyond the vector of the last key there are only zeros, which are not worth an exponential each.
    let seen = (position + 1).next_multiple_of(math::LANES).min(row.len());
    row[position + 1..seen].fill(f32::NEG_INFINITY);
    row[seen..].fill(0.0);
    let row = &mut row[..seen];
    // SAFETY: as promised by the caller.
    unsafe {
        let max = math::max_in::<S>(row);
        (max, 1.0 / math::exp_sum_in::<S>(row, max, scale))
    }
}

multiversion! {
    /// Masks keys after `position`, turns the row into exponentials; returns (largest score, 1 / sum).
    pub(crate) fn softmax_row<S>(row: &mut [f32], position: usize, scale: f32) -> (f32, f32) {
        // SAFETY: the instruction set was detected.
        unsafe { softmax_row_in::<S>(row, position, scale) }
    }
}

multiversion! {
    /// The same for rows of `keys` scores of one position; `inverse` gets 1 / sum of each.
    pub(crate) fn softmax_rows<S>(rows: &mut [f32], keys: usize, position: usize, scale: f32, inverse: &mut [f32]) -> () {
        for (row, inverse) in rows.chunks_exact_mut(keys).zip(inverse) {
            // SAFETY: the instruction set was detected.
            *inverse = unsafe { softmax_row_in::<S>(row, position, scale) }.1;
        }
    }
}
