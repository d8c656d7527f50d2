//! Quantised tiles with AVX2: products of bytes in pairs, summed in 16 bits as long as they fit, then in 32.

use super::activations::Activations;
use super::{BLOCK, NR, Quantized, STEPS, ask_ahead, block_bytes};
use crate::cpu::{Isa, isa};
use half::f16;
use std::arch::x86_64::*;
use std::sync::OnceLock;

/// Rows whose whole sums against half of a panel fit the registers.
const ROWS_AT_ONCE: usize = 4;

pub(super) fn available() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| isa() != Isa::Portable && is_x86_feature_detected!("f16c"))
}

/// Scales and shifts of one group of 16 outputs.
#[derive(Clone, Copy)]
struct Group {
    d: [__m256; 2],
    m: [__m256; 2],
}

/// Where in the weights and the activations a tile works.
#[derive(Clone, Copy)]
struct Place {
    block: usize,
    /// Half of the block, where groups are that long.
    half: usize,
    /// Half of the panel's outputs.
    pass: usize,
}

/// Adds the products of rows `r..` with one panel to `sums`.
///
/// # Safety
/// The processor must be [`available`]; panel and rows must lie inside `w` and `a`.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn tile(sums: &mut [[f32; NR]], w: &Quantized, panel: usize, a: &Activations, r: usize) {
    // SAFETY: as promised by the caller.
    unsafe {
        match (w.bits, w.group) {
            (4, _) => panel_of::<4, 1>(sums, w, panel, a, r),
            (5, _) => panel_of::<5, 1>(sums, w, panel, a, r),
            (_, BLOCK) => panel_of::<8, 1>(sums, w, panel, a, r),
            _ => panel_of::<8, 2>(sums, w, panel, a, r),
        }
    }
}

/// With more rows than fit at once, every block of weights is unpacked once for all.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn panel_of<const BITS: u32, const HALVES: usize>(
    sums: &mut [[f32; NR]],
    w: &Quantized,
    panel: usize,
    a: &Activations,
    r: usize,
) {
    let count = w.k / BLOCK;
    let mut unpacked = [0u8; BLOCK * NR];
    let unpacks = BITS != 8 && sums.len() > ROWS_AT_ONCE;
    for block in 0..count {
        ask_ahead::<BITS, HALVES>(w, panel, block);
        // SAFETY: panel and rows lie inside w and a (caller); all blocks are whole.
        unsafe {
            let bytes = w.q.as_ptr().add((panel * count + block) * block_bytes(BITS));
            if unpacks {
                for step in 0..STEPS {
                    for v in 0..4 {
                        let q = weights::<BITS, true>(bytes, step, v);
                        _mm256_storeu_si256(unpacked.as_mut_ptr().add(step * NR * 4 + v * 32).cast(), q);
                    }
                }
            }
            for at in 0..2 * HALVES {
                let place = Place { block, half: at / 2, pass: at % 2 };
                let group = group::<HALVES>(w, panel, place);
                match unpacks {
                    true => all::<BITS, false, HALVES>(sums, unpacked.as_ptr(), &group, a, place, r),
                    false => all::<BITS, true, HALVES>(sums, bytes, &group, a, place, r),
                }
            }
        }
    }
}

/// All rows against one group.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn all<const BITS: u32, const PACKED: bool, const HALVES: usize>(
    sums: &mut [[f32; NR]],
    bytes: *const u8,
    group: &Group,
    a: &Activations,
    place: Place,
    r: usize,
) {
    for (i, now) in sums.chunks_mut(ROWS_AT_ONCE).enumerate() {
        let r = r + i * ROWS_AT_ONCE;
        // SAFETY: as promised by the caller.
        unsafe {
            match now.len() {
                4 => rows::<4, BITS, PACKED, HALVES>(now, bytes, group, a, place, r),
                3 => rows::<3, BITS, PACKED, HALVES>(now, bytes, group, a, place, r),
                2 => rows::<2, BITS, PACKED, HALVES>(now, bytes, group, a, place, r),
                _ => rows::<1, BITS, PACKED, HALVES>(now, bytes, group, a, place, r),
            }
        }
    }
}

/// Scales and shifts of 16 outputs.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn group<const HALVES: usize>(w: &Quantized, panel: usize, place: Place) -> Group {
    let at = ((panel * (w.k / BLOCK) + place.block) * HALVES + place.half) * NR + place.pass * 16;
    let of = |of: &[f16], v: usize| {
        // SAFETY: panel and block lie inside w.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(of.as_ptr().add(at + v * 8).cast())) }
    };
    let d = [of(&w.d, 0), of(&w.d, 1)];
    let offset = _mm256_set1_ps(f32::from(w.offset));
    let m = match w.m.is_empty() {
        true => [_mm256_mul_ps(d[0], offset), _mm256_mul_ps(d[1], offset)],
        false => [of(&w.m, 0), of(&w.m, 1)],
    };
    Group { d, m }
}

/// One group of R rows.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn rows<const R: usize, const BITS: u32, const PACKED: bool, const HALVES: usize>(
    sums: &mut [[f32; NR]],
    bytes: *const u8,
    group: &Group,
    a: &Activations,
    place: Place,
    r: usize,
) {
    let x = a.block(place.block, r);
    let (scale, minus) = (a.scale(place.block, r), a.minus(place.block, r, place.half, HALVES));
    assert!(sums.len() == R && x.len() >= R * BLOCK, "rows of a tile");
    assert!(scale.len() >= R && minus.len() >= 3 * R - 2, "rows of a tile");
    // SAFETY: as promised by the caller, and asserted.
    unsafe {
        let dots = dots::<R, BITS, PACKED, HALVES>(bytes, x.as_ptr(), place);
        for i in 0..R {
            let (scale, minus) = (_mm256_set1_ps(scale[i]), _mm256_set1_ps(minus[3 * i]));
            for v in 0..2 {
                let to = sums[i].as_mut_ptr().add(place.pass * 16 + v * 8);
                let dot = _mm256_mul_ps(_mm256_cvtepi32_ps(dots[i][v]), scale);
                let sum = _mm256_fmadd_ps(dot, group.d[v], _mm256_loadu_ps(to));
                _mm256_storeu_ps(to, _mm256_fmadd_ps(minus, group.m[v], sum));
            }
        }
    }
}

/// Products of R rows with one group of 16 outputs.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn dots<const R: usize, const BITS: u32, const PACKED: bool, const HALVES: usize>(
    bytes: *const u8,
    x: *const i8,
    place: Place,
) -> [[__m256i; 2]; R] {
    let ones = _mm256_set1_epi16(1);
    let steps = place.half * STEPS / HALVES..(place.half + 1) * STEPS / HALVES;
    // Steps whose sums fit 16 bits: a pair is at most 15, 31 or 128 times 127 twice.
    let fit = match BITS {
        4 => 8,
        5 => 4,
        _ => 1,
    };
    let mut dots = [[_mm256_setzero_si256(); 2]; R];
    for first in steps.clone().step_by(fit) {
        let mut short = [[_mm256_setzero_si256(); 2]; R];
        for step in first..first + fit {
            // SAFETY: R whole blocks of x and a whole block of weights (caller).
            unsafe {
                let q: [__m256i; 2] = std::array::from_fn(|v| weights::<BITS, PACKED>(bytes, step, place.pass * 2 + v));
                for i in 0..R {
                    let x = _mm256_set1_epi32(x.add(i * BLOCK + step * 4).cast::<i32>().read_unaligned());
                    for v in 0..2 {
                        if BITS == 8 {
                            // q - 128 = +-|q - 128|, and the sign goes over to x: as it is, a pair would not fit.
                            let signed = _mm256_xor_si256(q[v], _mm256_set1_epi8(-128));
                            short[i][v] = _mm256_maddubs_epi16(_mm256_abs_epi8(signed), _mm256_sign_epi8(x, signed));
                        } else {
                            short[i][v] = _mm256_add_epi16(short[i][v], _mm256_maddubs_epi16(q[v], x));
                        }
                    }
                }
            }
        }
        for i in 0..R {
            for v in 0..2 {
                dots[i][v] = _mm256_add_epi32(dots[i][v], _mm256_madd_epi16(short[i][v], ones));
            }
        }
    }
    if BITS == 8 {
        for (i, dots) in dots.iter_mut().enumerate() {
            // SAFETY: as above.
            let sum = unsafe { sum_of(x.add(i * BLOCK + steps.start * 4), steps.len() * 4) };
            for dot in dots {
                *dot = _mm256_add_epi32(*dot, _mm256_set1_epi32(128 * sum));
            }
        }
    }
    dots
}

/// Sum of 16 or 32 whole numbers.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn sum_of(x: *const i8, count: usize) -> i32 {
    // SAFETY: as promised by the caller.
    let part = |at: usize| unsafe {
        let pairs = _mm_maddubs_epi16(_mm_set1_epi8(1), _mm_loadu_si128(x.add(at).cast()));
        _mm_madd_epi16(pairs, _mm_set1_epi16(1))
    };
    let four = if count == BLOCK { _mm_add_epi32(part(0), part(BLOCK / 2)) } else { part(0) };
    let two = _mm_add_epi32(four, _mm_shuffle_epi32::<0b01_00_11_10>(four));
    _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<0b10_11_00_01>(two)))
}

/// Weights of one step for outputs 8 v to 8 v + 7, a byte each: from a packed block, or from one that was unpacked.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn weights<const BITS: u32, const PACKED: bool>(bytes: *const u8, step: usize, v: usize) -> __m256i {
    // SAFETY: the block is whole, `step` below 8 and `v` below 4.
    unsafe {
        if BITS == 8 || !PACKED {
            return _mm256_loadu_si256(bytes.add(step * NR * 4 + v * 32).cast());
        }
        let both = _mm256_loadu_si256(bytes.add(step % 4 * NR * 4 + v * 32).cast());
        let nibbles = if step < 4 { both } else { _mm256_srli_epi16::<4>(both) };
        let low = _mm256_and_si256(nibbles, _mm256_set1_epi8(15));
        if BITS == 4 {
            return low;
        }
        // Bit j of 32 for byte j: its byte to all eight of them, then the bit of each.
        let high = bytes.add(4 * NR * 4 + step * NR / 2 + v * 4).cast::<i32>().read_unaligned();
        let spread = _mm256_setr_epi64x(0, 0x0101_0101_0101_0101, 0x0202_0202_0202_0202, 0x0303_0303_0303_0303);
        let bit = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
        let set = _mm256_and_si256(_mm256_shuffle_epi8(_mm256_set1_epi32(high), spread), bit);
        _mm256_or_si256(low, _mm256_and_si256(_mm256_cmpeq_epi8(set, bit), _mm256_set1_epi8(16)))
    }
}
