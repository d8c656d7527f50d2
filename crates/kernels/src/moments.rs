//! Moments of an optimizer, kept between steps in f32, in bf16 or in 8 bits with a scale per block.
//!
//! 8 bits, after Dettmers et al. 2022 ("8-bit Optimizers via Block-wise Quantization"), with other numbers: 256
//! neighbours share an f32 scale, the block's largest magnitude. A first moment is a sign, 4 bits of exponent and 3 of
//! mantissa times the scale, a second one, which is never negative, 5 bits of exponent and 3 of mantissa: AdamW divides
//! by its root, and of the root that is 4 and 4. Moments reach from 1 down to 2^-14 and 2^-30 of the scale with all
//! bits of the mantissa, below with fewer; 1 is a code, so the largest value of a block is exact. A second moment above
//! zero stays above zero, else a step would divide by eps alone.
//!
//! Rounding is stochastic and keeps the mean: with beta2 = 0.999 a step changes less than half a unit, and rounded to
//! nearest it would change nothing. (To store the root itself keeps the root's mean, and the moment would lie 5 % high
//! after 2,000 steps of decay.) The noise is a hash of (step, parameter, moment, index), so a run repeats bit for bit
//! on any number of threads.

use crate::cpu::bf16;
use crate::dice::{Dice, Noise};
use crate::multiversion;
use rayon::iter::Either;
use rayon::prelude::*;
use std::borrow::Cow;
use std::ops::Range;

/// Values that share a scale.
pub const BLOCK: usize = 256;
/// Values an optimizer handles at a time; whole blocks.
pub const CHUNK: usize = 1024;

/// In what numbers moments are kept between steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MomentType {
    /// f32.
    #[default]
    F32,
    /// bf16: half the memory.
    Bf16,
    /// 8 bits and a scale per block: a quarter of the memory.
    EightBit,
}

/// One moment of one parameter, in the parameter's layout.
#[derive(Clone, Debug)]
pub enum Moment {
    /// f32.
    F32(Vec<f32>),
    /// bf16.
    Bf16(Vec<u16>),
    /// 8 bits.
    EightBit(Blocks),
}

/// Codes of 8 bits with a scale per [`BLOCK`] of them; the last block may be short.
#[derive(Clone, Debug, PartialEq)]
pub struct Blocks {
    codes: Vec<u8>,
    scales: Vec<f32>,
    second: bool,
}

impl Moment {
    /// `len` zeros, for a first or a second moment.
    pub fn zero(kind: MomentType, second: bool, len: usize) -> Self {
        match kind {
            MomentType::F32 => Moment::F32(vec![0.0; len]),
            MomentType::Bf16 => Moment::Bf16(vec![0; len]),
            MomentType::EightBit => {
                Moment::EightBit(Blocks { codes: vec![0; len], scales: vec![0.0; len.div_ceil(BLOCK)], second })
            }
        }
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            Moment::F32(v) => v.len(),
            Moment::Bf16(v) => v.len(),
            Moment::EightBit(b) => b.codes.len(),
        }
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory the values take.
    pub fn bytes(&self) -> usize {
        match self {
            Moment::F32(v) => size_of_val(v.as_slice()),
            Moment::Bf16(v) => size_of_val(v.as_slice()),
            Moment::EightBit(b) => b.codes.len() + size_of_val(b.scales.as_slice()),
        }
    }

    /// Values `range`.
    pub fn values(&self, range: Range<usize>) -> Cow<'_, [f32]> {
        match self {
            Moment::F32(v) => Cow::Borrowed(&v[range]),
            Moment::Bf16(v) => {
                let mut wide = vec![0.0; range.len()];
                bf16::widen(&mut wide, &v[range]);
                Cow::Owned(wide)
            }
            Moment::EightBit(b) => {
                let block = range.start / BLOCK;
                let mut wide = vec![0.0; range.end - block * BLOCK];
                decode(&mut wide, &b.codes[block * BLOCK..range.end], &b.scales[block..], b.second);
                wide.drain(..range.start - block * BLOCK);
                Cow::Owned(wide)
            }
        }
    }

    /// Stores values, rounded as the type asks. With noise 8 bits are rounded stochastically, without it to nearest:
    /// then all that [`Moment::values`] gave comes back with the same bits.
    pub fn set(&mut self, values: Vec<f32>, noise: Option<Noise>) {
        match self {
            Moment::F32(v) => *v = values,
            Moment::Bf16(v) => {
                v.resize(values.len(), 0);
                bf16::halve(v, &values);
            }
            Moment::EightBit(b) => {
                b.codes.resize(values.len(), 0);
                b.scales.resize(values.len().div_ceil(BLOCK), 0.0);
                let second = b.second;
                let pieces = b.codes.par_chunks_mut(CHUNK).zip(b.scales.par_chunks_mut(CHUNK / BLOCK));
                pieces.zip(values.par_chunks(CHUNK)).enumerate().for_each(|(i, ((codes, scales), values))| {
                    let dice = noise.map_or(Dice::NEAREST, |n| Dice::of(Noise { first: n.first + i * CHUNK, ..n }));
                    encode(codes, scales, values, &dice, second);
                });
            }
        }
    }

    /// Views of `chunk` values each, the last maybe shorter.
    ///
    /// # Panics
    /// When `chunk` is not a multiple of [`BLOCK`] above zero.
    pub fn chunks_mut(&mut self, chunk: usize) -> impl IndexedParallelIterator<Item = Piece<'_>> {
        assert!(chunk > 0 && chunk.is_multiple_of(BLOCK), "a piece holds whole blocks");
        match self {
            Moment::F32(v) => Either::Left(v.par_chunks_mut(chunk).map(Piece::F32)),
            Moment::Bf16(v) => Either::Right(Either::Left(v.par_chunks_mut(chunk).map(Piece::Bf16))),
            Moment::EightBit(b) => {
                let second = b.second;
                let pieces = b.codes.par_chunks_mut(chunk).zip(b.scales.par_chunks_mut(chunk / BLOCK));
                Either::Right(Either::Right(pieces.map(move |(codes, scales)| Piece::EightBit {
                    codes,
                    scales,
                    second,
                })))
            }
        }
    }
}

/// A view of some values of a moment.
#[derive(Debug)]
pub enum Piece<'a> {
    /// f32, to be changed in place.
    F32(&'a mut [f32]),
    /// bf16.
    Bf16(&'a mut [u16]),
    /// 8 bits.
    EightBit {
        /// One per value.
        codes: &'a mut [u8],
        /// One per block.
        scales: &'a mut [f32],
        /// Whether it is a second moment.
        second: bool,
    },
}

impl Piece<'_> {
    /// Writes the values to `wide`, which is as long.
    pub fn read(&self, wide: &mut [f32]) {
        match self {
            Piece::F32(v) => wide.copy_from_slice(v),
            Piece::Bf16(v) => bf16::widen(wide, v),
            Piece::EightBit { codes, scales, second } => decode(wide, codes, scales, *second),
        }
    }

    /// Stores the values of `wide`, which is as long, rounded as the type asks; only 8 bits use the noise.
    pub fn write(&mut self, wide: &[f32], noise: Noise) {
        match self {
            Piece::F32(v) => v.copy_from_slice(wide),
            Piece::Bf16(v) => bf16::halve(v, wide),
            Piece::EightBit { codes, scales, second } => encode(codes, scales, wide, &Dice::of(noise), *second),
        }
    }
}

/// Bits of exponent of a first and a second moment.
const SIGNED: u32 = 4;
const UNSIGNED: u32 = 5;
/// Bits of mantissa.
const MANTISSA: u32 = 3;

/// How far exponents of `E` bits lie from those of f32, where it has them: the largest exponent is that of 1.
const fn offset<const E: u32>() -> u32 {
    (128 - (1 << E)) << 23
}

/// The smallest number that has all bits of its mantissa.
const fn normal<const E: u32>() -> f32 {
    f32::from_bits(offset::<E>() + (1 << 23))
}

/// The smallest scale: times the smallest code it is still a normal number of f32.
const fn floor<const E: u32>() -> f32 {
    f32::from_bits((MANTISSA << 23) + (1 << 23) + (127 << 23) - normal::<E>().to_bits())
}

/// The code of q in [0, 1]. The bits below the mantissa carry as often as random bits say.
#[inline(always)]
fn to_code<const E: u32>(q: f32, random: u32) -> u32 {
    let large = q.to_bits().wrapping_sub(offset::<E>());
    // Below `normal` codes are evenly spaced, as are the f32 numbers from it to twice of it.
    let small = (q + normal::<E>()).to_bits().wrapping_sub(normal::<E>().to_bits());
    let bits = if q < normal::<E>() { small } else { large };
    bits.wrapping_add(random >> (9 + MANTISSA)) >> (23 - MANTISSA)
}

/// The number of a code.
#[inline(always)]
fn of_code<const E: u32>(code: u32) -> f32 {
    let bits = (code << (23 - MANTISSA)) + offset::<E>();
    let small = f32::from_bits(bits + (1 << 23)) - normal::<E>();
    if code < 1 << MANTISSA { small } else { f32::from_bits(bits) }
}

/// The largest magnitude.
#[inline(always)]
fn largest(x: &[f32]) -> f32 {
    f32::from_bits(x.iter().fold(0, |m, v| m.max(v.to_bits() & 0x7fff_ffff)))
}

/// A number whose product with `scale` is just above 1, so that the largest value becomes 1 once products are cut off
/// there.
#[inline(always)]
fn inverse(scale: f32) -> f32 {
    f32::from_bits((1.0 / scale).to_bits() + 1)
}

multiversion! {
    fn encode_signed(codes: &mut [u8], scales: &mut [f32], x: &[f32], dice: &Dice) -> () {
        for (b, ((codes, scale), x)) in codes.chunks_mut(BLOCK).zip(scales).zip(x.chunks(BLOCK)).enumerate() {
            *scale = largest(x).clamp(floor::<SIGNED>(), f32::MAX);
            let inverse = inverse(*scale);
            for (i, (c, v)) in codes.iter_mut().zip(x).enumerate() {
                let code = to_code::<SIGNED>((v.abs() * inverse).min(1.0), dice.roll(b * BLOCK + i));
                *c = (code | (v.to_bits() >> 24 & 0x80)) as u8;
            }
        }
    }
}

multiversion! {
    fn encode_unsigned(codes: &mut [u8], scales: &mut [f32], x: &[f32], dice: &Dice) -> () {
        for (b, ((codes, scale), x)) in codes.chunks_mut(BLOCK).zip(scales).zip(x.chunks(BLOCK)).enumerate() {
            *scale = largest(x).clamp(floor::<UNSIGNED>(), f32::MAX);
            let inverse = inverse(*scale);
            for (i, (c, v)) in codes.iter_mut().zip(x).enumerate() {
                let v = v.abs();
                let code = to_code::<UNSIGNED>((v * inverse).min(1.0), dice.roll(b * BLOCK + i));
                *c = code.max(v.to_bits().min(1)) as u8;
            }
        }
    }
}

multiversion! {
    fn decode_signed(x: &mut [f32], codes: &[u8], scales: &[f32]) -> () {
        for ((x, codes), scale) in x.chunks_mut(BLOCK).zip(codes.chunks(BLOCK)).zip(scales) {
            for (v, c) in x.iter_mut().zip(codes) {
                let c = u32::from(*c);
                let magnitude = of_code::<SIGNED>(c & 0x7f) * scale;
                *v = f32::from_bits(magnitude.to_bits() | (c & 0x80) << 24);
            }
        }
    }
}

multiversion! {
    fn decode_unsigned(x: &mut [f32], codes: &[u8], scales: &[f32]) -> () {
        for ((x, codes), scale) in x.chunks_mut(BLOCK).zip(codes.chunks(BLOCK)).zip(scales) {
            for (v, c) in x.iter_mut().zip(codes) {
                *v = of_code::<UNSIGNED>(u32::from(*c)) * scale;
            }
        }
    }
}

fn encode(codes: &mut [u8], scales: &mut [f32], x: &[f32], dice: &Dice, second: bool) {
    if second { encode_unsigned(codes, scales, x, dice) } else { encode_signed(codes, scales, x, dice) }
}

fn decode(x: &mut [f32], codes: &[u8], scales: &[f32], second: bool) {
    if second { decode_unsigned(x, codes, scales) } else { decode_signed(x, codes, scales) }
}

#[cfg(test)]
mod tests;
