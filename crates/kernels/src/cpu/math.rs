//! Vectorised row operations: exponential, row maximum, soft-max statistics. Lane sums are folded in one fixed order.

use super::simd::Floats;
use crate::multiversion;

/// Lanes over which row sums are spread before the final fold.
pub const LANES: usize = 16;

/// e^x with a relative error below 2e-7 on [-87, 88]; 0 below, and finite above.
///
/// Range reduction by ln 2 in two parts and a polynomial of degree 6 (Cody and Waite); written so that it vectorises and
/// gives the same bits in every lane and in scalar tails.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    const LN2_HI: f32 = 0.693_359_4;
    const LN2_LO: f32 = -2.121_944_4e-4;
    let clamped = x.clamp(-87.3, 88.0);
    let shifted = clamped.mul_add(LOG2_E, 12_582_912.0);
    let n = shifted - 12_582_912.0;
    let r = (-n).mul_add(LN2_LO, (-n).mul_add(LN2_HI, clamped));
    let mut p = 1.987_569_1e-4_f32;
    p = p.mul_add(r, 1.398_199_9e-3);
    p = p.mul_add(r, 8.333_452e-3);
    p = p.mul_add(r, 4.166_579_6e-2);
    p = p.mul_add(r, 1.666_666_5e-1);
    p = p.mul_add(r, 5e-1);
    let y = (r * r).mul_add(p, r + 1.0);
    // The low bits of `shifted` are n as an integer: no conversion, which would not vectorise well.
    let scale = f32::from_bits(shifted.to_bits().wrapping_add(127).wrapping_shl(23));
    if x < -87.3 { 0.0 } else { y * scale }
}

/// The sum of all lanes.
#[inline(always)]
pub fn fold(lanes: [f32; LANES]) -> f32 {
    let a: [f32; 8] = std::array::from_fn(|i| lanes[i] + lanes[i + 8]);
    let b: [f32; 4] = std::array::from_fn(|i| a[i] + a[i + 4]);
    (b[0] + b[2]) + (b[1] + b[3])
}

/// Sums (or largest values) in [`LANES`] lanes, as vectors: of an array of them the compiler makes pairs wherever [`fold`] follows.
#[derive(Clone, Copy)]
pub(crate) struct Sums<S>([S; 2]);

impl<S: Floats> Sums<S> {
    /// Nothing summed.
    ///
    /// # Safety
    /// As [`Floats`]; so for the others.
    #[inline(always)]
    pub(crate) unsafe fn zero() -> Self {
        unsafe { Self::all(0.0) }
    }

    /// Every lane x.
    #[inline(always)]
    unsafe fn all(x: f32) -> Self {
        Sums(unsafe { [S::splat(x); 2] })
    }

    /// Lane i: + x[i] y[i], rounded once.
    #[inline(always)]
    pub(crate) unsafe fn fma(&mut self, x: &[f32; LANES], y: &[f32; LANES]) {
        for v in 0..LANES / S::WIDTH {
            let at = v * S::WIDTH;
            unsafe { self.0[v] = self.0[v].fma(S::load(x[at..].as_ptr()), S::load(y[at..].as_ptr())) };
        }
    }

    /// Lane i: + x[i].
    #[inline(always)]
    pub(crate) unsafe fn add(&mut self, x: &[f32; LANES]) {
        for v in 0..LANES / S::WIDTH {
            unsafe { self.0[v] = self.0[v].add(S::load(x[v * S::WIDTH..].as_ptr())) };
        }
    }

    /// Lane i: the larger of it and x[i].
    #[inline(always)]
    unsafe fn max(&mut self, x: &[f32; LANES]) {
        for v in 0..LANES / S::WIDTH {
            unsafe { self.0[v] = self.0[v].max(S::load(x[v * S::WIDTH..].as_ptr())) };
        }
    }

    /// The lanes.
    #[inline(always)]
    pub(crate) unsafe fn lanes(self) -> [f32; LANES] {
        let mut lanes = [0f32; LANES];
        for v in 0..LANES / S::WIDTH {
            unsafe { self.0[v].store(lanes[v * S::WIDTH..].as_mut_ptr()) };
        }
        lanes
    }
}

/// Dot product, 16 lanes and a fixed fold.
///
/// # Safety
/// As [`Floats`].
#[inline(always)]
pub(crate) unsafe fn dot_in<S: Floats>(x: &[f32], y: &[f32]) -> f32 {
    let (xs, xt) = x.as_chunks::<LANES>();
    let (ys, yt) = y.as_chunks::<LANES>();
    // SAFETY: as promised by the caller.
    let mut lanes = unsafe {
        let mut sums = Sums::<S>::zero();
        for (a, b) in xs.iter().zip(ys) {
            sums.fma(a, b);
        }
        sums.lanes()
    };
    for (i, (a, b)) in xt.iter().zip(yt).enumerate() {
        lanes[i] = a.mul_add(*b, lanes[i]);
    }
    fold(lanes)
}

multiversion! {
    /// Dot product, 16 lanes and a fixed fold.
    pub fn dot<S>(x: &[f32], y: &[f32]) -> f32 {
        // SAFETY: the instruction set was detected.
        unsafe { dot_in::<S>(x, y) }
    }
}

/// Largest value of a row (-inf for an empty one).
///
/// # Safety
/// As [`Floats`].
#[inline(always)]
pub(crate) unsafe fn max_in<S: Floats>(x: &[f32]) -> f32 {
    let (chunks, rest) = x.as_chunks::<LANES>();
    // SAFETY: as promised by the caller.
    let mut lanes = unsafe {
        let mut largest = Sums::<S>::all(f32::NEG_INFINITY);
        for c in chunks {
            largest.max(c);
        }
        largest.lanes()
    };
    // Lanes of whole chunks stay in registers.
    if !rest.is_empty() {
        for (lane, c) in lanes.iter_mut().zip(rest) {
            *lane = larger(*lane, *c);
        }
    }
    let a: [f32; 8] = std::array::from_fn(|i| larger(lanes[i], lanes[i + 8]));
    let b: [f32; 4] = std::array::from_fn(|i| larger(a[i], a[i + 4]));
    larger(larger(b[0], b[2]), larger(b[1], b[3]))
}

#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
}

multiversion! {
    /// Largest value of a row (-inf for an empty one).
    pub fn max<S>(x: &[f32]) -> f32 {
        // SAFETY: the instruction set was detected.
        unsafe { max_in::<S>(x) }
    }
}

/// x <- exp((x - max) * scale), returns the sum. Entries of -inf become exactly 0 and leave the sum unchanged.
///
/// # Safety
/// As [`Floats`].
#[inline(always)]
pub(crate) unsafe fn exp_sum_in<S: Floats>(x: &mut [f32], max: f32, scale: f32) -> f32 {
    let (chunks, rest) = x.as_chunks_mut::<LANES>();
    // SAFETY: as promised by the caller.
    let mut lanes = unsafe {
        let mut sums = Sums::<S>::zero();
        for c in chunks {
            for v in c.iter_mut() {
                *v = exp((*v - max) * scale);
            }
            sums.add(c);
        }
        sums.lanes()
    };
    for (i, c) in rest.iter_mut().enumerate() {
        *c = exp((*c - max) * scale);
        lanes[i] += *c;
    }
    fold(lanes)
}

multiversion! {
    /// x <- exp((x - max) * scale), returns the sum. Entries of -inf become exactly 0 and leave the sum unchanged.
    pub fn exp_sum<S>(x: &mut [f32], max: f32, scale: f32) -> f32 {
        // SAFETY: the instruction set was detected.
        unsafe { exp_sum_in::<S>(x, max, scale) }
    }
}

multiversion! {
    /// x <- x * a.
    pub fn scale(x: &mut [f32], a: f32) {
        for v in x { *v *= a; }
    }
}

multiversion! {
    /// Rows of `width` values, each times its factor.
    pub fn scale_rows(x: &mut [f32], width: usize, factors: &[f32]) {
        for (row, a) in x.chunks_exact_mut(width).zip(factors) { for v in row { *v *= a; } }
    }
}

multiversion! {
    /// x <- x + y.
    pub fn add_assign(x: &mut [f32], y: &[f32]) {
        for (a, b) in x.iter_mut().zip(y) { *a += b; }
    }
}

multiversion! {
    /// x <- x + a y.
    pub fn axpy(x: &mut [f32], a: f32, y: &[f32]) {
        for (v, b) in x.iter_mut().zip(y) { *v = a.mul_add(*b, *v); }
    }
}

multiversion! {
    /// Sum of squares in f64, in order of lanes.
    pub fn sum_squares(x: &[f32]) -> f64 {
        let mut lanes = [0f64; 8];
        let chunks = x.chunks_exact(8);
        let tail = chunks.remainder();
        for c in chunks { for i in 0..8 { let v = f64::from(c[i]); lanes[i] = v.mul_add(v, lanes[i]); } }
        for (i, c) in tail.iter().enumerate() { lanes[i] += f64::from(*c) * f64::from(*c); }
        lanes.iter().sum()
    }
}

/// Rows and columns transposed at a time.
pub const SQUARE: usize = 16;

/// `dst[d][i] = src[i][d]` for up to 16 rows and columns; rows lie `dst_ld` and `src_ld` apart.
pub fn transpose(dst: &mut [f32], dst_ld: usize, src: &[f32], src_ld: usize, rows: usize, columns: usize) {
    #[cfg(target_arch = "x86_64")]
    if rows == SQUARE && columns == SQUARE && super::isa() != super::Isa::Portable {
        assert!(src.len() >= 15 * src_ld + SQUARE && dst.len() >= 15 * dst_ld + SQUARE);
        let (dst, src) = (dst.as_mut_ptr(), src.as_ptr());
        return match super::isa() {
            // SAFETY: the instruction set was detected; 16 rows of 16 values are inside both (asserted).
            super::Isa::Avx512 => unsafe { transpose_16(dst, dst_ld, src, src_ld) },
            // SAFETY: as above.
            _ => unsafe { transpose_4x8(dst, dst_ld, src, src_ld) },
        };
    }
    for i in 0..rows {
        for d in 0..columns {
            dst[d * dst_ld + i] = src[i * src_ld + d];
        }
    }
}

/// dst[d][i] = src[i][d] for 16 x 16 values in four squares of 8 x 8, rows `dst_ld` and `src_ld` apart.
///
/// # Safety
/// The processor must have AVX2; both pointers must be valid for 16 rows of 16 values.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn transpose_4x8(dst: *mut f32, dst_ld: usize, src: *const f32, src_ld: usize) {
    use std::arch::x86_64::*;
    for (i0, d0) in [(0, 0), (0, 8), (8, 0), (8, 8)] {
        // SAFETY: as promised by the caller.
        unsafe {
            // Rows i and i + 4 side by side, so that all but the last step stays inside halves of 128 bits.
            let half = |i: usize, d: usize| _mm_loadu_ps(src.add((i0 + i) * src_ld + d0 + d));
            let rows: [__m256; 8] = std::array::from_fn(|i| {
                let (i, d) = (i % 4, i / 4 * 4);
                _mm256_insertf128_ps::<1>(_mm256_castps128_ps256(half(i, d)), half(i + 4, d))
            });
            for d in [0, 4] {
                let (a, b) = (_mm256_unpacklo_ps(rows[d], rows[d + 1]), _mm256_unpackhi_ps(rows[d], rows[d + 1]));
                let (e, f) =
                    (_mm256_unpacklo_ps(rows[d + 2], rows[d + 3]), _mm256_unpackhi_ps(rows[d + 2], rows[d + 3]));
                let columns = [
                    _mm256_shuffle_ps::<0x44>(a, e),
                    _mm256_shuffle_ps::<0xee>(a, e),
                    _mm256_shuffle_ps::<0x44>(b, f),
                    _mm256_shuffle_ps::<0xee>(b, f),
                ];
                for (i, column) in columns.into_iter().enumerate() {
                    _mm256_storeu_ps(dst.add((d0 + d + i) * dst_ld + i0), column);
                }
            }
        }
    }
}

/// dst[d][i] = src[i][d] for 16 x 16 values, rows `dst_ld` and `src_ld` apart.
///
/// # Safety
/// The processor must have AVX-512F; both pointers must be valid for 16 rows of 16 values.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn transpose_16(dst: *mut f32, dst_ld: usize, src: *const f32, src_ld: usize) {
    use std::arch::x86_64::*;
    // SAFETY: as promised by the caller.
    unsafe {
        let rows: [__m512; 16] = std::array::from_fn(|i| _mm512_loadu_ps(src.add(i * src_ld)));
        // 4 x 4 blocks inside 128-bit lanes, then the lanes.
        let mut pairs = [_mm512_setzero_ps(); 16];
        for i in 0..8 {
            pairs[2 * i] = _mm512_unpacklo_ps(rows[2 * i], rows[2 * i + 1]);
            pairs[2 * i + 1] = _mm512_unpackhi_ps(rows[2 * i], rows[2 * i + 1]);
        }
        let mut quads = [_mm512_setzero_ps(); 16];
        for i in 0..4 {
            for h in 0..2 {
                let (a, b) = (_mm512_castps_pd(pairs[4 * i + h]), _mm512_castps_pd(pairs[4 * i + 2 + h]));
                quads[4 * i + 2 * h] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
                quads[4 * i + 2 * h + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
            }
        }
        for c in 0..4 {
            let (q0, q1, q2, q3) = (quads[c], quads[4 + c], quads[8 + c], quads[12 + c]);
            let (a, b) = (_mm512_shuffle_f32x4::<0x88>(q0, q1), _mm512_shuffle_f32x4::<0xdd>(q0, q1));
            let (d, e) = (_mm512_shuffle_f32x4::<0x88>(q2, q3), _mm512_shuffle_f32x4::<0xdd>(q2, q3));
            let columns = [
                _mm512_shuffle_f32x4::<0x88>(a, d),
                _mm512_shuffle_f32x4::<0x88>(b, e),
                _mm512_shuffle_f32x4::<0xdd>(a, d),
                _mm512_shuffle_f32x4::<0xdd>(b, e),
            ];
            for (lane, column) in columns.into_iter().enumerate() {
                _mm512_storeu_ps(dst.add((4 * lane + c) * dst_ld), column);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_accurate_and_exact_at_the_edges() {
        let mut worst = 0f64;
        for i in -870..880 {
            let x = i as f32 / 10.0 + 0.013;
            let want = f64::from(x).exp();
            worst = worst.max((f64::from(exp(x)) - want).abs() / want);
        }
        assert!(worst < 3e-7, "{worst}");
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert!(exp(1000.0).is_finite());
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn squares_are_transposed() {
        let src: Vec<f32> = (0..16 * 20).map(|i| i as f32).collect();
        let check = |name: &str, there: bool, transpose: &dyn Fn(&mut [f32])| {
            if !there {
                return eprintln!("skipped: no {name} here");
            }
            let mut dst = vec![0f32; 16 * 32];
            transpose(&mut dst);
            for (i, d) in (0..16).flat_map(|i| (0..16).map(move |d| (i, d))) {
                assert_eq!(dst[d * 32 + i], src[i * 20 + d], "{name} {i} {d}");
            }
        };
        check("processor", true, &|dst| transpose(dst, 32, &src, 20, 16, 16));
        // SAFETY: detected; both hold 16 rows of 16 at these distances.
        check("AVX-512", is_x86_feature_detected!("avx512f"), &|dst| unsafe {
            transpose_16(dst.as_mut_ptr(), 32, src.as_ptr(), 20);
        });
        // SAFETY: as above.
        check("AVX2", is_x86_feature_detected!("avx2"), &|dst| unsafe {
            transpose_4x8(dst.as_mut_ptr(), 32, src.as_ptr(), 20);
        });
    }

    #[test]
    fn sums_have_the_same_bits_in_vectors_of_any_width() {
        let row = |seed: f32, len: usize| -> Vec<f32> { (0..len).map(|i| (i as f32 * 0.71 + seed).sin()).collect() };
        for len in 0..70 {
            let (x, y) = (row(0.1, len), row(0.2, len));
            let mut lanes = [0f32; LANES];
            x.iter().zip(&y).enumerate().for_each(|(i, (x, y))| lanes[i % LANES] = x.mul_add(*y, lanes[i % LANES]));
            let want = fold(lanes).to_bits();
            assert_eq!(dot(&x, &y).to_bits(), want, "{len}");
            // SAFETY: no instruction set is assumed.
            assert_eq!(unsafe { dot_in::<crate::cpu::simd::Plain>(&x, &y) }.to_bits(), want, "plain, {len}");
            #[cfg(target_arch = "x86_64")]
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                // SAFETY: detected.
                assert_eq!(unsafe { dot_in::<std::arch::x86_64::__m256>(&x, &y) }.to_bits(), want, "AVX2, {len}");
            }
            let largest = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert_eq!(max(&x), largest, "{len}");
            let (mut e, mut lanes) = (x.clone(), [0f32; LANES]);
            let sum = exp_sum(&mut e, largest.max(0.0), 0.5);
            for (i, (e, x)) in e.iter().zip(&x).enumerate() {
                assert_eq!(*e, exp((x - largest.max(0.0)) * 0.5));
                lanes[i % LANES] += e;
            }
            assert_eq!(sum.to_bits(), fold(lanes).to_bits(), "exponentials, {len}");
        }
    }

    #[test]
    fn the_largest_value_is_a_number_where_there_is_one() {
        for at in 0..40 {
            let mut row = vec![f32::NAN; 40];
            row[at] = -3.0;
            row[(at + 17) % 40] = f32::NEG_INFINITY;
            assert_eq!(max(&row), -3.0, "{at}");
        }
        assert!(
            [&[][..], &[f32::NAN; 20], &[f32::NEG_INFINITY; 33]].into_iter().all(|row| max(row) == f32::NEG_INFINITY)
        );
    }

    #[test]
    fn masked_tail_changes_no_bit_of_a_row() {
        let row: Vec<f32> = (0..45).map(|i| (i as f32 * 0.37).sin()).collect();
        let mut short: Vec<f32> = row.clone();
        short.resize(64, f32::NEG_INFINITY);
        let mut long = short.clone();
        long.resize(160, f32::NEG_INFINITY);
        let m = max(&row);
        assert_eq!(exp_sum(&mut short, m, 0.5).to_bits(), exp_sum(&mut long, m, 0.5).to_bits());
        assert!(long[45..].iter().all(|&v| v == 0.0));
    }
}
