//! E4M3 ("fn") numbers: one sign, four exponent and three mantissa bits, bias 7, no infinities (OCP 8-bit floating point).
//!
//! Normal numbers reach from 2^-6 to 448, subnormal ones go down to 2^-9. Values are kept as f32 that E4M3 holds exactly, so
//! that products of them are the exact ones. Rounding is to nearest even; beyond 448 it saturates; NaN stays NaN.

use crate::multiversion;

/// The largest number.
pub const MAX: f32 = 448.0;
/// Bits of the f32 448 and of 2^-6.
const MAX_BITS: u32 = 0x43e0_0000;
const NORMAL_BITS: u32 = 0x3c80_0000;
/// Added and taken away it rounds to multiples of 2^-9: in f32 the numbers around it are that far apart.
const SUBNORMAL: f32 = 1.5 * 16_384.0;

/// x rounded to E4M3.
#[inline(always)]
pub fn round(x: f32) -> f32 {
    let bits = x.to_bits();
    let (sign, magnitude) = (bits & 0x8000_0000, bits & 0x7fff_ffff);
    let clamped = magnitude.min(MAX_BITS);
    let normal = (clamped + 0x0007_ffff + ((clamped >> 20) & 1)) & 0xfff0_0000;
    let small = (f32::from_bits(clamped) + SUBNORMAL) - SUBNORMAL;
    let rounded = if clamped < NORMAL_BITS { small.to_bits() } else { normal };
    f32::from_bits(sign | if magnitude > 0x7f80_0000 { magnitude } else { rounded })
}

/// The byte of x rounded to E4M3.
pub fn to_bits(x: f32) -> u8 {
    let rounded = round(x);
    let (bits, sign) = (rounded.to_bits() & 0x7fff_ffff, ((rounded.to_bits() >> 24) & 0x80) as u8);
    if bits > 0x7f80_0000 {
        return sign | 0x7f;
    }
    if bits < NORMAL_BITS {
        return sign | (f32::from_bits(bits) * 512.0) as u8;
    }
    // Exponent 127 in f32 is 7 here.
    sign | ((bits >> 20) - ((127 - 7) << 3)) as u8
}

/// The value of a byte.
pub fn from_bits(byte: u8) -> f32 {
    let (sign, exponent, mantissa) = (byte & 0x80, u32::from(byte >> 3 & 15), u32::from(byte & 7));
    let magnitude = match (exponent, mantissa) {
        (15, 7) => f32::NAN,
        (0, m) => m as f32 / 512.0,
        (e, m) => f32::from_bits((e + 120) << 23 | m << 20),
    };
    if sign == 0 { magnitude } else { -magnitude }
}

multiversion! {
    /// The largest magnitude; NaN when there is one.
    pub fn max_magnitude(x: &[f32]) -> f32 {
        f32::from_bits(x.iter().fold(0, |m, v| m.max(v.to_bits() & 0x7fff_ffff)))
    }
}

multiversion! {
    /// out = round(x / scale).
    pub fn quantise(out: &mut [f32], x: &[f32], scale: f32) -> () {
        for (o, v) in out.iter_mut().zip(x) {
            *o = round(*v / scale);
        }
    }
}

/// The scale that brings a tile's largest magnitude to 448; 1 for a tile of zeros.
///
/// `floor` is the smallest magnitude that is told from zero: DeepSeek's kernels use 1e-4 for activations.
pub fn scale(max_magnitude: f32, floor: f32) -> f32 {
    let scale = if max_magnitude < floor { floor } else { max_magnitude } / MAX;
    // Not so small that a quotient loses bits.
    if scale < f32::MIN_POSITIVE { 1.0 } else { scale }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_round_trips_and_magnitudes_ascend() {
        for byte in 0..=255u8 {
            let value = from_bits(byte);
            if value.is_nan() {
                assert!(byte & 0x7f == 0x7f && to_bits(value) & 0x7f == 0x7f && round(value).is_nan());
            } else {
                assert_eq!((to_bits(value), round(value).to_bits()), (byte, value.to_bits()), "{byte}");
            }
        }
        let positive: Vec<f32> = (0..0x7f).map(from_bits).collect();
        assert!(positive.windows(2).all(|w| w[0] < w[1]));
        assert_eq!((positive[1], positive[8], positive[0x7e]), (2f32.powi(-9), 2f32.powi(-6), MAX));
    }

    #[test]
    fn rounds_to_the_nearest_and_ties_to_even() {
        let all: Vec<f32> = (0..0x7f).map(from_bits).collect();
        for (i, w) in all.windows(2).enumerate() {
            let middle = (w[0] + w[1]) / 2.0;
            let even = if i % 2 == 0 { w[0] } else { w[1] };
            assert_eq!(round(middle), even, "{middle}");
            assert_eq!(round(-middle), -even);
            assert_eq!(round(f32::from_bits(middle.to_bits() - 1)), w[0], "below {middle}");
            assert_eq!(round(f32::from_bits(middle.to_bits() + 1)), w[1], "above {middle}");
        }
        assert_eq!((round(1e9), round(-f32::INFINITY), round(449.0)), (448.0, -448.0, 448.0));
    }

    /// `tests/fixtures/e4m3.bin`: what torch makes of every bf16 number, a byte each.
    #[test]
    fn equals_torch_for_every_bf16_number() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/e4m3.bin");
        let bytes = std::fs::read(path).unwrap();
        assert_eq!(bytes.len(), 65_536);
        for (upper, byte) in bytes.iter().enumerate() {
            let x = f32::from_bits((upper as u32) << 16);
            // torch makes NaN of what lies beyond 464; a scaled tile never gets there, and we saturate as its kernels do.
            if byte & 0x7f == 0x7f {
                assert!(x.is_nan() || x.abs() > 464.0, "{x}");
                assert_eq!(to_bits(x) & 0x7f, if x.is_nan() { 0x7f } else { 0x7e }, "{x}");
            } else {
                assert_eq!(to_bits(x), *byte, "{x}");
                assert_eq!(round(x).to_bits(), from_bits(*byte).to_bits(), "{x}");
            }
        }
    }
}
