//! bf16 values in pairs: rounding, packing and the dot-product lanes behind the microkernel of `gemm`.
//!
//! Two bf16 values that are neighbours along the contraction make one 32-bit word, the first in the low half. A lane adds both
//! products of a pair to an f32 sum: with one AVX512-BF16 instruction where the processor has it, else with two fused
//! multiply-adds, the second of the pair first, as that instruction does.

use super::gemm::NR;
use super::simd::Lanes;
#[cfg(target_arch = "x86_64")]
use super::simd::bf16_dot;
use crate::multiversion;

/// The bits of x as bf16 in the upper half, rounded to nearest even; a NaN stays one.
#[inline(always)]
fn upper(x: f32) -> u32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1));
    (if x.is_nan() { bits | 0x0040_0000 } else { rounded }) & 0xffff_0000
}

/// x rounded to bf16.
#[inline(always)]
pub fn round(x: f32) -> f32 {
    f32::from_bits(upper(x))
}

multiversion! {
    fn plain_halve(dst: &mut [u16], src: &[f32]) {
        for (d, s) in dst.iter_mut().zip(src) { *d = (upper(*s) >> 16) as u16; }
    }
}

multiversion! {
    fn plain_interleave(dst: &mut [u32], low: &[f32], high: &[f32]) {
        for ((d, l), h) in dst.iter_mut().zip(low).zip(high) { *d = upper(*h) | (upper(*l) >> 16); }
    }
}

/// Values of one row as bf16.
pub fn halve(dst: &mut [u16], src: &[f32]) {
    #[cfg(target_arch = "x86_64")]
    if bf16_dot() {
        // SAFETY: the instruction set was detected.
        return unsafe { x86::halve(dst, src) };
    }
    plain_halve(dst, src);
}

multiversion! {
    /// bf16 values as f32.
    pub fn widen(dst: &mut [f32], src: &[u16]) {
        for (d, s) in dst.iter_mut().zip(src) { *d = f32::from_bits(u32::from(*s) << 16); }
    }
}

/// Pairs (low, high) of two rows.
pub fn interleave(dst: &mut [u32], low: &[f32], high: &[f32]) {
    #[cfg(target_arch = "x86_64")]
    if bf16_dot() {
        // SAFETY: the instruction set was detected.
        return unsafe { x86::interleave(dst, low, high) };
    }
    plain_interleave(dst, low, high);
}

multiversion! {
    /// Pairs (low, high) of two rows that are bf16 already.
    pub fn zip(dst: &mut [u32], low: &[u16], high: &[u16]) {
        for ((d, l), h) in dst.iter_mut().zip(low).zip(high) { *d = u32::from(*l) | u32::from(*h) << 16; }
    }
}

/// A row without a second one: pairs (low, 0).
pub fn alone(dst: &mut [u32], low: &[f32]) {
    for (d, l) in dst.iter_mut().zip(low) {
        *d = upper(*l) >> 16;
    }
}

/// Words of padding that [`pack_tile`] may write behind its last line.
pub const TILE_PADDING: usize = 16;

/// Columns of two-row pairs into a tile: line p gets the pairs of rows 2p and 2p + 1 of `x` (row stride `k`), `width` wide,
/// written every `tile` words. Lines may run over into the next one, which is written after it.
///
/// # Safety
/// `x` must be readable for 16 values in `2 lines` rows; `dst` writable for `lines * tile + TILE_PADDING` words.
#[cfg(target_arch = "x86_64")]
pub unsafe fn pack_tile(dst: *mut u32, tile: usize, x: *const f32, k: usize, lines: usize) {
    unsafe { x86::pack_tile(dst, tile, x, k, lines) }
}

/// The same from values that are bf16 already.
///
/// # Safety
/// As [`pack_tile`].
#[cfg(target_arch = "x86_64")]
pub unsafe fn zip_tile(dst: *mut u32, tile: usize, x: *const u16, k: usize, lines: usize) {
    unsafe { x86::zip_tile(dst, tile, x, k, lines) }
}

/// 32 columns of two-row pairs: line p gets the pairs of rows 2p and 2p + 1 of `x` (row stride `k`).
///
/// # Safety
/// `x` must be readable for 32 values in `2 lines` rows; `dst` writable for `lines * 32` words. The processor must have
/// AVX512-BF16.
#[cfg(target_arch = "x86_64")]
pub unsafe fn pack_panel(dst: *mut u32, x: *const f32, k: usize, lines: usize) {
    unsafe { x86::pack_panel(dst, x, k, lines) }
}

/// The same from values that are bf16 already.
///
/// # Safety
/// As [`pack_panel`].
#[cfg(target_arch = "x86_64")]
pub unsafe fn zip_panel(dst: *mut u32, x: *const u16, k: usize, lines: usize) {
    unsafe { x86::zip_panel(dst, x, k, lines) }
}

/// Up to 16 lines of 32 words, pairs along the lines' direction, as 16 lines of pairs along the other one: both halves of two
/// neighbouring columns change places, no value is rounded again. Where lines are missing, columns of `out` are left as they are.
pub fn turn_lines(out: &mut [u32], lines: &[u32]) {
    #[cfg(target_arch = "x86_64")]
    if bf16_dot()
        && let (Ok(out), Ok(lines)) = ((&mut *out).try_into(), lines.try_into())
    {
        // SAFETY: the processor has the instructions.
        return unsafe { x86::turn_pairs(out, lines) };
    }
    for (p, line) in lines.chunks_exact(NR).enumerate() {
        for (q, words) in line.chunks_exact(2).enumerate() {
            out[q * NR + 2 * p] = words[0] & 0xffff | words[1] << 16;
            out[q * NR + 2 * p + 1] = words[0] >> 16 | words[1] & 0xffff_0000;
        }
    }
}

/// Rows of `src` `[rows, k]` as pairs `[rows][ld]`, an odd last value paired with zero.
pub fn pair_rows(dst: &mut [u32], ld: usize, src: &[f32], k: usize) {
    for (d, s) in dst.chunks_exact_mut(ld).zip(src.chunks_exact(k)) {
        d[k / 2] = 0;
        // SAFETY: a u32 slice of ld words is a u16 slice of 2 ld values.
        let words = unsafe { std::slice::from_raw_parts_mut(d.as_mut_ptr().cast::<u16>(), 2 * ld) };
        halve(&mut words[..k], s);
    }
}

/// Two values per lane in plain Rust.
#[derive(Clone, Copy)]
pub struct PlainPairs([f32; 8]);

// SAFETY: no instruction set is assumed; pointers are used within the trait's contract.
unsafe impl Lanes for PlainPairs {
    const WIDTH: usize = 8;
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        PlainPairs([x; 8])
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        PlainPairs(unsafe { p.cast::<[f32; 8]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        unsafe { p.cast::<[f32; 8]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn fma(self, a: Self, b: Self) -> Self {
        let high = |x: f32| f32::from_bits(x.to_bits() & 0xffff_0000);
        let low = |x: f32| f32::from_bits(x.to_bits() << 16);
        PlainPairs(std::array::from_fn(|i| {
            low(a.0[i]).mul_add(low(b.0[i]), high(a.0[i]).mul_add(high(b.0[i]), self.0[i]))
        }))
    }
    #[inline(always)]
    unsafe fn add(self, o: Self) -> Self {
        PlainPairs(std::array::from_fn(|i| self.0[i] + o.0[i]))
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::super::math::transpose_16;
    use super::{Lanes, plain_halve, plain_interleave};
    use std::arch::x86_64::*;
    use std::mem::MaybeUninit;

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    pub(super) fn halve(dst: &mut [u16], src: &[f32]) {
        let n = dst.len().min(src.len());
        let whole = n / 32 * 32;
        for i in (0..whole).step_by(32) {
            // SAFETY: i + 32 values of both slices exist.
            unsafe {
                let (a, b) = (_mm512_loadu_ps(src.as_ptr().add(i)), _mm512_loadu_ps(src.as_ptr().add(i + 16)));
                let both = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(b, a));
                _mm512_storeu_si512(dst.as_mut_ptr().add(i).cast(), both);
            }
        }
        plain_halve(&mut dst[whole..n], &src[whole..n]);
    }

    /// Order of 16-bit values that puts pairs of (low, high) side by side.
    #[target_feature(enable = "avx512f,avx512bw")]
    fn zip_order() -> __m512i {
        let order: [u16; 32] = std::array::from_fn(|i| (i / 2 + 16 * (i % 2)) as u16);
        // SAFETY: 64 bytes on the stack.
        unsafe { _mm512_loadu_si512(order.as_ptr().cast()) }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn zip(low: *const f32, high: *const f32, order: __m512i) -> __m512i {
        unsafe {
            let both = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(high), _mm512_loadu_ps(low));
            _mm512_permutexvar_epi16(order, std::mem::transmute::<__m512bh, __m512i>(both))
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    pub(super) fn interleave(dst: &mut [u32], low: &[f32], high: &[f32]) {
        let n = dst.len().min(low.len()).min(high.len());
        let whole = n / 16 * 16;
        let order = zip_order();
        for i in (0..whole).step_by(16) {
            // SAFETY: i + 16 values of all three slices exist.
            unsafe {
                let words = zip(low.as_ptr().add(i), high.as_ptr().add(i), order);
                _mm512_storeu_si512(dst.as_mut_ptr().add(i).cast(), words);
            }
        }
        plain_interleave(&mut dst[whole..n], &low[whole..n], &high[whole..n]);
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    pub(super) unsafe fn pack_tile(dst: *mut u32, tile: usize, x: *const f32, k: usize, lines: usize) {
        let order = zip_order();
        for p in 0..lines {
            // SAFETY: as promised by the caller.
            unsafe {
                let words = zip(x.add(2 * p * k), x.add((2 * p + 1) * k), order);
                _mm512_storeu_si512(dst.add(p * tile).cast(), words);
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    pub(super) unsafe fn zip_tile(dst: *mut u32, tile: usize, x: *const u16, k: usize, lines: usize) {
        for p in 0..lines {
            // SAFETY: as promised by the caller.
            unsafe {
                let row = |i: usize| _mm512_cvtepu16_epi32(_mm256_loadu_si256(x.add(i * k).cast()));
                let words = _mm512_or_si512(row(2 * p), _mm512_slli_epi32::<16>(row(2 * p + 1)));
                _mm512_storeu_si512(dst.add(p * tile).cast(), words);
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    pub(super) unsafe fn pack_panel(dst: *mut u32, x: *const f32, k: usize, lines: usize) {
        let order = zip_order();
        for p in 0..lines {
            // SAFETY: as promised by the caller.
            unsafe {
                let (low, high, to) = (x.add(2 * p * k), x.add((2 * p + 1) * k), dst.add(p * 32));
                _mm512_storeu_si512(to.cast(), zip(low, high, order));
                _mm512_storeu_si512(to.add(16).cast(), zip(low.add(16), high.add(16), order));
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    pub(super) unsafe fn zip_panel(dst: *mut u32, x: *const u16, k: usize, lines: usize) {
        let order: [u16; 64] = std::array::from_fn(|i| (i / 2 + 32 * (i % 2)) as u16);
        // SAFETY: 128 bytes on the stack; the rest as promised by the caller.
        unsafe {
            let (first, second) =
                (_mm512_loadu_si512(order.as_ptr().cast()), _mm512_loadu_si512(order.as_ptr().add(32).cast()));
            for p in 0..lines {
                let a = _mm512_loadu_si512(x.add(2 * p * k).cast());
                let b = _mm512_loadu_si512(x.add((2 * p + 1) * k).cast());
                let to = dst.add(p * 32);
                _mm512_storeu_si512(to.cast(), _mm512_permutex2var_epi16(a, first, b));
                _mm512_storeu_si512(to.add(16).cast(), _mm512_permutex2var_epi16(a, second, b));
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn load(p: *const u32) -> __m512i {
        // SAFETY: as promised by the caller: sixteen words.
        unsafe { _mm512_loadu_si512(p.cast()) }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    pub(super) unsafe fn turn_pairs(out: &mut [u32; 512], lines: &[u32; 512]) {
        // Of 32 words (a0 a1)(b0 b1)..: the 16 words (a0 b0).., and the 16 words (a1 b1)...
        const fn order(half: usize) -> [u16; 32] {
            let (mut order, mut i) = ([0; 32], 0);
            while i < 32 {
                order[i] = (4 * (i / 2) + 2 * (i % 2) + half) as u16;
                i += 1;
            }
            order
        }
        let (order_0, order_1) = const { (order(0), order(1)) };
        // Of two rows of 16 words: word by word, the first 16 and the last 16.
        const fn zipped(from: usize) -> [u32; 16] {
            let (mut order, mut i) = ([0; 16], 0);
            while i < 16 {
                order[i] = (from + i / 2 + 16 * (i % 2)) as u32;
                i += 1;
            }
            order
        }
        let (zip_0, zip_1) = const { (zipped(0), zipped(8)) };
        let (mut first, mut second) = (MaybeUninit::<[f32; 256]>::uninit(), MaybeUninit::<[f32; 256]>::uninit());
        let mut turned = MaybeUninit::<[f32; 512]>::uninit();
        let (first, second, turned) =
            (first.as_mut_ptr().cast::<f32>(), second.as_mut_ptr().cast::<f32>(), turned.as_mut_ptr().cast::<f32>());
        // SAFETY: what is read was written, all of it inside the arrays; the caller has checked the processor.
        unsafe {
            let (order_0, order_1) = (load(order_0.as_ptr().cast()), load(order_1.as_ptr().cast()));
            for p in 0..16 {
                let (a, b) = (load(lines.as_ptr().add(p * 32)), load(lines.as_ptr().add(p * 32 + 16)));
                _mm512_storeu_si512(first.add(p * 16).cast(), _mm512_permutex2var_epi16(a, order_0, b));
                _mm512_storeu_si512(second.add(p * 16).cast(), _mm512_permutex2var_epi16(a, order_1, b));
            }
            transpose_16(turned, 32, first, 16);
            transpose_16(turned.add(16), 32, second, 16);
            let (zip_0, zip_1) = (load(zip_0.as_ptr()), load(zip_1.as_ptr()));
            for q in 0..16 {
                let row = turned.add(q * 32).cast::<u32>();
                let (a, b) = (load(row), load(row.add(16)));
                let to = out.as_mut_ptr().add(q * 32);
                _mm512_storeu_si512(to.cast(), _mm512_permutex2var_epi32(a, zip_0, b));
                _mm512_storeu_si512(to.add(16).cast(), _mm512_permutex2var_epi32(a, zip_1, b));
            }
        }
    }

    /// Sixteen sums, one AVX512-BF16 instruction per step.
    #[derive(Clone, Copy)]
    pub struct Pairs512(__m512);

    // SAFETY: plain forwarding to the intrinsics; the trait's contract asks callers for AVX-512F and AVX512-BF16.
    unsafe impl Lanes for Pairs512 {
        const WIDTH: usize = 16;
        #[inline(always)]
        unsafe fn splat(x: f32) -> Self {
            Pairs512(unsafe { _mm512_set1_ps(x) })
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> Self {
            Pairs512(unsafe { _mm512_loadu_ps(p) })
        }
        #[inline(always)]
        unsafe fn store(self, p: *mut f32) {
            unsafe { _mm512_storeu_ps(p, self.0) }
        }
        #[inline(always)]
        unsafe fn store_past(self, p: *mut f32) {
            unsafe { _mm512_stream_ps(p, self.0) }
        }
        #[inline(always)]
        unsafe fn fma(self, a: Self, b: Self) -> Self {
            unsafe {
                let (a, b) =
                    (std::mem::transmute::<__m512, __m512bh>(a.0), std::mem::transmute::<__m512, __m512bh>(b.0));
                Pairs512(_mm512_dpbf16_ps(self.0, a, b))
            }
        }
        #[inline(always)]
        unsafe fn add(self, o: Self) -> Self {
            Pairs512(unsafe { _mm512_add_ps(self.0, o.0) })
        }
    }

    /// Two values per lane, with two multiply-adds.
    #[derive(Clone, Copy)]
    pub struct Pairs256(__m256);

    // SAFETY: plain forwarding to the intrinsics; the trait's contract asks callers for AVX2 and FMA.
    unsafe impl Lanes for Pairs256 {
        const WIDTH: usize = 8;
        #[inline(always)]
        unsafe fn splat(x: f32) -> Self {
            Pairs256(unsafe { _mm256_set1_ps(x) })
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> Self {
            Pairs256(unsafe { _mm256_loadu_ps(p) })
        }
        #[inline(always)]
        unsafe fn store(self, p: *mut f32) {
            unsafe { _mm256_storeu_ps(p, self.0) }
        }
        #[inline(always)]
        unsafe fn fma(self, a: Self, b: Self) -> Self {
            unsafe {
                let mask = _mm256_castsi256_ps(_mm256_set1_epi32(0xffff_0000_u32 as i32));
                let high = |x: Self| _mm256_and_ps(x.0, mask);
                let low = |x: Self| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_castps_si256(x.0)));
                Pairs256(_mm256_fmadd_ps(low(a), low(b), _mm256_fmadd_ps(high(a), high(b), self.0)))
            }
        }
        #[inline(always)]
        unsafe fn add(self, o: Self) -> Self {
            Pairs256(unsafe { _mm256_add_ps(self.0, o.0) })
        }
    }
}
#[cfg(target_arch = "x86_64")]
pub use x86::{Pairs256, Pairs512};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_to_nearest_even_and_keeps_what_is_not_a_number() {
        assert_eq!(round(1.0), 1.0);
        assert_eq!(round(1.0 + 1.0 / 256.0), 1.0);
        assert_eq!(round(1.0 + 3.0 / 256.0), 1.0 + 4.0 / 256.0);
        assert_eq!(round(-0.0).to_bits(), (-0.0f32).to_bits());
        assert_eq!(round(f32::MAX), f32::INFINITY);
        assert!(round(f32::NAN).is_nan() && round(f32::from_bits(0x7f80_0001)).is_nan());
    }

    #[test]
    fn pairs_lie_low_half_first() {
        let mut d = [7u32; 4];
        pair_rows(&mut d, 2, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 3);
        let one = |x: f32| x.to_bits() >> 16;
        assert_eq!(d, [one(1.0) | one(2.0) << 16, one(3.0), one(4.0) | one(5.0) << 16, one(6.0)]);
        let mut d = [0u32; 2];
        interleave(&mut d, &[1.0, 2.0], &[3.0, 4.0]);
        assert_eq!(d, [one(1.0) | one(3.0) << 16, one(2.0) | one(4.0) << 16]);
    }
}
