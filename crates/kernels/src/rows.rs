//! Activations as matrix products read them: f32 values, or values that were rounded to bf16 when they were made.
//!
//! A bf16 product rounds its operands anyway. What nothing but products reads is therefore kept in bf16, half the bytes and
//! the same bits: see [`crate::Weight::reads_pairs`] for when a product takes it.

use crate::cpu::operand::halves_of;
use std::ops::Range;

/// Rows of activations `[m, k]`.
#[derive(Clone, Copy, Debug)]
pub enum Rows<'a> {
    /// f32 values `[m, k]`.
    Singles(&'a [f32]),
    /// bf16 values `[m, k]`, k even: pairs of neighbours are the words of a product's left side.
    Pairs(&'a [u16]),
}

impl<'a> Rows<'a> {
    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            Rows::Singles(x) => x.len(),
            Rows::Pairs(x) => x.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Values `range`.
    pub(crate) fn slice(&self, range: Range<usize>) -> Rows<'a> {
        match self {
            Rows::Singles(x) => Rows::Singles(&x[range]),
            Rows::Pairs(x) => Rows::Pairs(&x[range]),
        }
    }

    /// The values of a product that takes no pairs.
    ///
    /// # Panics
    /// When they are pairs: only products whose weight [`crate::Weight::reads_pairs`] are given those.
    pub(crate) fn singles(&self) -> &'a [f32] {
        match self {
            Rows::Singles(x) => x,
            Rows::Pairs(_) => panic!("values in bf16 go to bf16 products alone"),
        }
    }

    /// Values in bf16 that lie in the words of a buffer.
    pub(crate) fn in_words(words: &'a [f32]) -> Self {
        Rows::Pairs(halves_of(words))
    }
}

impl<'a> From<&'a [f32]> for Rows<'a> {
    fn from(values: &'a [f32]) -> Self {
        Rows::Singles(values)
    }
}

impl<'a> From<&'a mut [f32]> for Rows<'a> {
    fn from(values: &'a mut [f32]) -> Self {
        Rows::Singles(values)
    }
}

impl<'a> From<&'a Vec<f32>> for Rows<'a> {
    fn from(values: &'a Vec<f32>) -> Self {
        Rows::Singles(values)
    }
}

impl<'a> From<&'a mut Vec<f32>> for Rows<'a> {
    fn from(values: &'a mut Vec<f32>) -> Self {
        Rows::Singles(values)
    }
}
