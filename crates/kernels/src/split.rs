//! Master weights that are not beside the bf16 pairs that products read: those pairs are their upper halves.
//!
//! A weight of a bf16 training is in memory twice, as f32 and rounded. Split, the rounded copy is half of the f32 value and only
//! the other 16 bits are kept beside it: four bytes instead of six. The value is put together from both: where the lower half is
//! above one half, bf16 was rounded up.
//!
//! Two sorts of values have no such pair and are moved when they are split: one that lies exactly between two bf16 numbers and
//! would be rounded up to an even one becomes the next f32 value, and one that is below the normal range becomes zero. Split again
//! they stay what they are.
//!
//! Without lower halves ([`MasterWeights::Bf16`], which makes zero of the same values) a step rounds the new value stochastically: most steps are smaller than half of
//! the distance between two bf16 numbers, and rounded to nearest they would all be lost.

use crate::cpu::NR;
use crate::dice::{Dice, Noise};
use crate::linear_bf16::Packed;
use crate::moments::CHUNK;
use crate::multiversion;
use crate::par::{self, Shared};
use rayon::iter::Either;
use rayon::prelude::*;
use std::borrow::Cow;
use std::ops::Range;

/// How the weights lie that an optimizer changes, where products run in bf16.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MasterWeights {
    /// f32 values, and the rounded ones beside them.
    #[default]
    Whole,
    /// The rounded ones, and beside them the 16 bits they lack.
    Split,
    /// The rounded ones alone.
    Bf16,
}

/// Values of a pair of lines of panels: the unit of both halves.
pub(crate) const UNIT: usize = 2 * NR;

/// Whether the matrix `[n, k]` of this name can be split: its lines are whole pairs, and nothing but bf16 products and the
/// embedding reads it (attention reads the up-projection of latents itself, and a router multiplies in f32).
pub fn applies_to(name: &str, k: usize) -> bool {
    k.is_multiple_of(2) && !["kv_b_proj.weight", "mlp.gate.weight"].iter().any(|end| name.ends_with(end))
}

/// Half of one bf16 step.
const HALF: u32 = 0x8000;

/// The f32 value of a rounded upper half (in the low bits of a word) and a lower half.
#[inline(always)]
fn whole(upper: u32, lower: u16) -> f32 {
    let lower = u32::from(lower);
    f32::from_bits(upper.wrapping_sub(u32::from(lower > HALF)) << 16 | lower)
}

/// What is stored for a value: itself but for ties that round up and values below the normal range.
#[inline(always)]
fn settled(value: f32) -> u32 {
    let bits = value.to_bits();
    let tie = u32::from(bits & 0x1_ffff == 0x1_8000);
    if bits & 0x7f80_0000 == 0 { bits & 0x8000_0000 } else { bits + tie }
}

/// The bits rounded to nearest bf16, ties to even, in the low bits of a word; a NaN stays one.
#[inline(always)]
fn rounded(bits: u32) -> u32 {
    let up = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    if bits & 0x7fff_ffff > 0x7f80_0000 { bits >> 16 | 0x40 } else { up }
}

multiversion! {
    /// Units of values into words (pairs of upper halves) and lower halves.
    fn split_units(words: &mut [u32], lower: &mut [u16], values: &[f32]) {
        for ((words, lower), values) in
            words.chunks_exact_mut(NR).zip(lower.chunks_exact_mut(UNIT)).zip(values.chunks_exact(UNIT))
        {
            for i in 0..NR {
                let (first, second) = (settled(values[i]), settled(values[NR + i]));
                words[i] = rounded(first) | rounded(second) << 16;
                lower[i] = first as u16;
                lower[NR + i] = second as u16;
            }
        }
    }
}

multiversion! {
    /// The way back.
    fn join_units(values: &mut [f32], words: &[u32], lower: &[u16]) {
        for ((values, words), lower) in
            values.chunks_exact_mut(UNIT).zip(words.chunks_exact(NR)).zip(lower.chunks_exact(UNIT))
        {
            for i in 0..NR {
                values[i] = whole(words[i] & 0xffff, lower[i]);
                values[NR + i] = whole(words[i] >> 16, lower[NR + i]);
            }
        }
    }
}

multiversion! {
    /// Units of values from words alone.
    fn widen_units(values: &mut [f32], words: &[u32]) {
        for (values, words) in values.chunks_exact_mut(UNIT).zip(words.chunks_exact(NR)) {
            for i in 0..NR {
                values[i] = f32::from_bits(words[i] << 16);
                values[NR + i] = f32::from_bits(words[i] & 0xffff_0000);
            }
        }
    }
}

/// A rounded value below the normal range as zero.
#[inline(always)]
fn normal(half: u16) -> u32 {
    u32::from(if half & 0x7f80 == 0 { half & 0x8000 } else { half })
}

multiversion! {
    /// Units of values into words alone, up or down with a chance that keeps their mean.
    fn throw_units(words: &mut [u32], values: &[f32], dice: &Dice) {
        for (unit, (words, values)) in words.chunks_exact_mut(NR).zip(values.chunks_exact(UNIT)).enumerate() {
            for i in 0..NR {
                let at = unit * UNIT + i;
                let (first, second) = (dice.round(at, values[i]), dice.round(at + NR, values[NR + i]));
                words[i] = normal(first) | normal(second) << 16;
            }
        }
    }
}

/// The halves of a matrix in panels `[ceil(n/32)][k][32]`, k even.
#[derive(Clone, Copy, Debug)]
pub struct Halves<'a> {
    /// Pairs along k: `[ceil(n/32)][k/2][32]`.
    upper: &'a [u32],
    /// In the order of the f32 panels; empty where they are not kept.
    lower: &'a [u16],
}

impl<'a> Halves<'a> {
    pub(crate) fn new(packed: &'a Packed, lower: &'a [u16]) -> Self {
        let upper = packed.words();
        assert!(lower.is_empty() || 2 * upper.len() == lower.len(), "split weights: shapes");
        Halves { upper, lower }
    }

    /// The value at a place in the panels.
    pub fn value(&self, at: usize) -> f32 {
        let (line, column) = (at / NR, at % NR);
        let word = self.upper[line / 2 * NR + column];
        whole(word >> (16 * (line % 2)) & 0xffff, self.lower.get(at).copied().unwrap_or_default())
    }

    /// Values `range`, which begins and ends with whole units.
    pub(crate) fn values(&self, range: Range<usize>) -> Vec<f32> {
        let mut values = vec![0.0; range.len()];
        self.read(range, &mut values);
        values
    }

    /// The same into memory that is there.
    pub(crate) fn read(&self, range: Range<usize>, values: &mut [f32]) {
        assert!(range.start.is_multiple_of(UNIT) && range.len().is_multiple_of(UNIT), "split weights: whole units");
        let upper = &self.upper[range.start / 2..range.end / 2];
        let lower = if self.lower.is_empty() { self.lower } else { &self.lower[range] };
        let shared = Shared::new(values);
        par::ranges(upper.len() / NR, 1 << 10, |units| {
            // SAFETY: each task owns its units.
            let values = unsafe { shared.slice(units.start * UNIT, units.len() * UNIT) };
            let upper = &upper[units.start * NR..units.end * NR];
            match lower {
                [] => widen_units(values, upper),
                _ => join_units(values, upper, &lower[units.start * UNIT..units.end * UNIT]),
            }
        });
    }
}

/// Takes all values of a matrix apart; returns the lower halves.
pub(crate) fn split(upper: &mut [u32], values: &[f32]) -> Vec<u16> {
    let mut lower = vec![0; values.len()];
    let pieces = upper.par_chunks_mut(CHUNK / 2).zip(lower.par_chunks_mut(CHUNK)).zip(values.par_chunks(CHUNK));
    pieces.with_min_len(64).for_each(|((upper, lower), values)| split_units(upper, lower, values));
    lower
}

/// Values of a matrix, wherever they lie.
#[derive(Clone, Copy, Debug)]
pub enum Table<'a> {
    /// In one piece.
    Whole(&'a [f32]),
    /// In two halves, or in upper ones alone.
    Split(Halves<'a>),
}

impl<'a> Table<'a> {
    /// Values `range`; of a split matrix it begins and ends with whole panels.
    pub fn values(&self, range: Range<usize>) -> Cow<'a, [f32]> {
        match self {
            Table::Whole(values) => Cow::Borrowed(&values[range]),
            Table::Split(halves) => Cow::Owned(halves.values(range)),
        }
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            Table::Whole(values) => values.len(),
            Table::Split(halves) => 2 * halves.upper.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Values to be changed: of a whole parameter, or some of them.
#[derive(Debug)]
pub(crate) enum TableMut<'a> {
    /// In one piece.
    Whole(&'a mut [f32]),
    /// Pairs of upper halves, and lower halves.
    Split(&'a mut [u32], &'a mut [u16]),
    /// Pairs of bf16 values.
    Bf16(&'a mut [u32]),
}

impl<'a> TableMut<'a> {
    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            TableMut::Whole(values) => values.len(),
            TableMut::Split(upper, _) | TableMut::Bf16(upper) => 2 * upper.len(),
        }
    }

    /// Pieces of `chunk` values, which are whole units.
    pub fn chunks_mut(self, chunk: usize) -> impl IndexedParallelIterator<Item = TableMut<'a>> {
        match self {
            TableMut::Whole(values) => Either::Left(values.par_chunks_mut(chunk).map(TableMut::Whole)),
            TableMut::Split(upper, lower) => {
                assert!(chunk.is_multiple_of(UNIT), "split weights: whole units");
                let pieces = upper.par_chunks_mut(chunk / 2).zip(lower.par_chunks_mut(chunk));
                Either::Right(Either::Left(pieces.map(|(upper, lower)| TableMut::Split(upper, lower))))
            }
            TableMut::Bf16(upper) => {
                assert!(chunk.is_multiple_of(UNIT), "bf16 weights: whole units");
                Either::Right(Either::Right(upper.par_chunks_mut(chunk / 2).map(TableMut::Bf16)))
            }
        }
    }

    /// Puts all values, which lie in panels; those without lower halves are rounded with `noise`.
    pub fn write(self, values: &[f32], noise: Noise) {
        assert_eq!(self.len(), values.len(), "weights: shapes");
        let pieces = self.chunks_mut(CHUNK).zip(values.par_chunks(CHUNK)).enumerate().with_min_len(64);
        pieces.for_each(|(i, (piece, values))| match piece {
            TableMut::Whole(old) => old.copy_from_slice(values),
            TableMut::Split(upper, lower) => split_units(upper, lower, values),
            TableMut::Bf16(upper) => throw_units(upper, values, &Dice::of(Noise { first: i * CHUNK, ..noise })),
        });
    }

    /// Calls `f` with the values; at most [`CHUNK`] of them where they are not whole. Those without lower halves are rounded with
    /// `noise`.
    pub fn change(&mut self, noise: Noise, f: impl FnOnce(&mut [f32])) {
        let len = self.len();
        match self {
            TableMut::Whole(values) => f(values),
            TableMut::Split(upper, lower) => {
                let mut wide = [0f32; CHUNK];
                let wide = &mut wide[..len];
                join_units(wide, upper, lower);
                f(wide);
                split_units(upper, lower, wide);
            }
            TableMut::Bf16(upper) => {
                let mut wide = [0f32; CHUNK];
                let wide = &mut wide[..len];
                widen_units(wide, upper);
                f(wide);
                throw_units(upper, wide, &Dice::of(noise));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::bf16;
    use crate::dice::Rounded;
    use crate::linear::tests::noise;
    use crate::params::Layout;

    fn both(values: &[f32]) -> (Vec<u32>, Vec<u16>) {
        let mut upper = vec![0; values.len() / 2];
        let lower = split(&mut upper, values);
        (upper, lower)
    }

    fn back(upper: &[u32], lower: &[u16]) -> Vec<f32> {
        let halves = Halves { upper, lower };
        let all = halves.values(0..2 * upper.len());
        for (at, v) in all.iter().enumerate() {
            assert_eq!(halves.value(at).to_bits(), v.to_bits());
        }
        all
    }

    #[test]
    fn every_upper_half_with_the_lower_ones_that_matter_comes_back() {
        let lows = [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff, 0x4000, 0xc000];
        let values: Vec<f32> =
            (0..=0xffffu32).flat_map(|high| lows.map(|low| f32::from_bits(high << 16 | low))).collect();
        let (upper, lower) = both(&values);
        for (at, (found, value)) in back(&upper, &lower).iter().zip(&values).enumerate() {
            let (found, bits) = (found.to_bits(), value.to_bits());
            let word = upper[at / UNIT * NR + at % NR] >> (16 * (at / NR % 2)) & 0xffff;
            if value.is_nan() {
                assert!(f32::from_bits(found).is_nan() && f32::from_bits(word << 16).is_nan(), "{bits:x}");
            } else if value.is_subnormal() {
                assert_eq!((found, word << 16), (bits & 0x8000_0000, bits & 0x8000_0000));
            } else if bits & 0x1_ffff == 0x1_8000 {
                assert_eq!((found, word), (bits + 1, (bits >> 16) + 1), "a tie that rounds up is moved by one unit");
            } else {
                assert_eq!((found, word << 16), (bits, bf16::round(*value).to_bits()), "{bits:x}");
            }
        }
        let first = back(&upper, &lower);
        let (upper, lower) = both(&first);
        let bits = |v: &f32| if v.is_nan() { 0 } else { v.to_bits() };
        assert!(back(&upper, &lower).iter().map(bits).eq(first.iter().map(bits)), "split again it stays");
    }

    #[test]
    fn bf16_alone_moves_by_one_number_at_most_and_to_the_right_mean() {
        let noise = Noise { seed: 1, step: 2, parameter: 3, what: Rounded::Weight, first: 0 };
        // A third of the way from one bf16 number to the next, below zero the other way round.
        let (below, above) = (0x3f80_0000u32, 0x3f81_0000u32);
        for sign in [0, 0x8000_0000] {
            let value = f32::from_bits((below + 0x5555) | sign);
            let values = vec![value; 1 << 16];
            let mut upper = vec![0; values.len() / 2];
            TableMut::Bf16(&mut upper).write(&values, noise);
            let found = back(&upper, &[]);
            let up = found.iter().filter(|v| v.to_bits() == above | sign).count();
            assert!(found.iter().all(|v| [below | sign, above | sign].contains(&v.to_bits())));
            let share = up as f64 / found.len() as f64;
            assert!((share - 1.0 / 3.0).abs() < 4.0 * (2.0 / 9.0 / found.len() as f64).sqrt(), "{share}");
            let pieces = |chunk: usize| {
                let mut words = vec![0; upper.len()];
                TableMut::Bf16(&mut words).chunks_mut(chunk).enumerate().for_each(|(i, mut piece)| {
                    piece.change(Noise { first: i * chunk, ..noise }, |v| v.fill(value));
                });
                words
            };
            assert!(pieces(UNIT) == upper && pieces(CHUNK) == upper, "the pieces do not matter");
            // What is a bf16 number stays one.
            let before = upper.clone();
            TableMut::Bf16(&mut upper).write(&found, noise);
            assert!(upper == before);
        }
    }

    #[test]
    fn words_are_those_that_packing_makes() {
        for (n, k) in [(1, 2), (40, 6), (96, 64)] {
            let panels = Layout::Panels { n, k }.store(noise(n * k, 3));
            let mut packed = Packed::default();
            packed.pack(&panels, n, k, false);
            let (upper, lower) = both(&panels);
            let settled: Vec<f32> = back(&upper, &lower);
            assert_eq!(upper, packed.words());
            assert!(settled.iter().zip(&panels).all(|(a, b)| a.to_bits().abs_diff(b.to_bits()) <= 1));
        }
    }
}
