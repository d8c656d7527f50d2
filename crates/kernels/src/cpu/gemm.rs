//! One matrix product, C = A B, from which every larger operation is made.
//!
//! B comes in panels of [`NR`] columns, `[k][NR]`, zero padded; A is read through strides, so that transposes cost nothing.
//! An output element is the sum over k in ascending order, one fused multiply-add after another in one register: its bits
//! do not depend on the number of rows, on the tile it falls in, or on the instruction set.

#[cfg(target_arch = "x86_64")]
use super::amx;
use super::bf16::PlainPairs;
#[cfg(target_arch = "x86_64")]
use super::bf16::{Pairs256, Pairs512};
#[cfg(target_arch = "x86_64")]
use super::simd::{Isa, bf16_dot, isa};
use super::simd::{Lanes, Plain};

/// Columns of a panel of B.
pub const NR: usize = 32;
/// Values of a cache line.
pub(crate) const LINE: usize = 16;

/// What the accumulators begin with and how they meet C.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// C = A B.
    Zero,
    /// C = C + (A B), the product summed first.
    Add,
    /// C = ((C + a0 b0) + a1 b1) + ..., going on where an earlier call over smaller k stopped.
    Chain,
    /// C = A B, written past the caches where the instruction set can: C and the distance of its rows are multiples of a line.
    /// [`written`] comes before anybody reads it.
    Past,
}

impl Start {
    /// The same through the caches.
    fn near(self) -> Self {
        if self == Start::Past { Start::Zero } else { self }
    }
}

/// What was written past the caches is there for everybody.
pub fn written() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 processor has the instruction.
    unsafe {
        std::arch::x86_64::_mm_sfence();
    }
}

/// A strided view of A: element (i, o, p) at `base + i * row + o * outer + p * inner`; contraction over o then p.
#[derive(Clone, Copy)]
pub struct Left {
    /// First element.
    pub base: *const f32,
    /// Distance between rows.
    pub row: usize,
    /// Distance between steps of the outer contraction index.
    pub outer: usize,
    /// Distance between steps of the inner contraction index.
    pub inner: usize,
}

/// A view of B: panels of [`NR`] columns, `panel` words apart, whose rows lie `ld` words apart.
#[derive(Clone, Copy)]
pub struct Right {
    /// First element.
    pub base: *const f32,
    /// Distance between panels.
    pub panel: usize,
    /// Distance between rows of a panel.
    pub ld: usize,
}

/// Whole lines that are read after a product: it asks for them meanwhile.
#[derive(Clone, Copy)]
pub struct Next {
    base: *const f32,
    words: usize,
}

impl From<&[f32]> for Next {
    fn from(words: &[f32]) -> Self {
        Next { base: words.as_ptr(), words: words.len() }
    }
}

impl From<&[u32]> for Next {
    fn from(words: &[u32]) -> Self {
        Next { base: words.as_ptr().cast(), words: words.len() }
    }
}

impl Next {
    /// Nothing.
    pub const NOTHING: Next = Next { base: std::ptr::null(), words: 0 };

    /// Lines from number `from` on, where there are any.
    fn after(self, from: usize) -> Option<*const f32> {
        (from * LINE < self.words).then(|| self.base.wrapping_add(from * LINE))
    }
}

/// Extent of a product against one panel: `m` rows, `outer * inner` terms, `n <= NR` columns kept.
#[derive(Clone, Copy)]
pub struct Extent {
    /// Rows of A and C.
    pub m: usize,
    /// Outer contraction length.
    pub outer: usize,
    /// Inner contraction length.
    pub inner: usize,
    /// Columns of C written.
    pub n: usize,
}

/// A product against one panel, see [`gemm`], and what is asked for meanwhile.
#[derive(Clone, Copy)]
pub(super) struct Product {
    pub(super) e: Extent,
    pub(super) a: Left,
    pub(super) b: *const f32,
    pub(super) ldb: usize,
    pub(super) c: *mut f32,
    pub(super) ldc: usize,
    pub(super) start: Start,
    pub(super) next: Next,
}

/// C[m, n] (row stride `ldc`) from A and one panel B `[outer * inner][NR]` with row stride `ldb`.
///
/// # Safety
/// `a` must be readable at every index of `extent`, `b` for `NR` values in each of its rows, `c` readable and writable for
/// `extent.n` values in each of its `extent.m` rows; C must not overlap A or B.
#[inline]
pub unsafe fn gemm(extent: Extent, a: Left, b: *const f32, ldb: usize, c: *mut f32, ldc: usize, start: Start) {
    // SAFETY: as promised by the caller.
    unsafe { singles(Product { e: extent, a, b, ldb, c, ldc, start, next: Next::NOTHING }) }
}

/// The same with a dense panel, row stride [`NR`]; `next` is asked for meanwhile: the panel that comes after it.
///
/// # Safety
/// As [`gemm`].
#[inline]
pub unsafe fn gemm_ahead(e: Extent, a: Left, b: *const f32, c: *mut f32, ldc: usize, start: Start, next: &[f32]) {
    // SAFETY: as promised by the caller.
    unsafe { singles(Product { e, a, b, ldb: NR, c, ldc, start, next: next.into() }) }
}

#[inline]
unsafe fn singles(p: Product) {
    #[cfg(target_arch = "x86_64")]
    {
        match isa() {
            // SAFETY: the instruction set was detected; pointers as promised by the caller.
            Isa::Avx512 => return unsafe { avx512(p) },
            // SAFETY: as above.
            Isa::Avx2 => return unsafe { avx2(p) },
            Isa::Portable => {}
        }
    }
    // SAFETY: pointers as promised by the caller; no instruction set is assumed.
    unsafe { rows::<Plain, 4, 1, false>(p) }
}

/// The same product of bf16 pairs: A and B hold two values per 32-bit word (see [`super::bf16`]), `extent.inner` counts
/// words, sums and C are f32.
///
/// # Safety
/// As [`gemm`].
#[inline]
pub unsafe fn gemm_bf16(extent: Extent, a: Left, b: *const f32, ldb: usize, c: *mut f32, ldc: usize, start: Start) {
    // SAFETY: as promised by the caller.
    unsafe { pairs(Product { e: extent, a, b, ldb, c, ldc, start, next: Next::NOTHING }) }
}

/// The same with a dense panel, row stride [`NR`]; `next` is asked for meanwhile.
///
/// # Safety
/// As [`gemm`].
#[inline]
pub unsafe fn gemm_bf16_ahead(e: Extent, a: Left, b: *const f32, c: *mut f32, ldc: usize, start: Start, next: Next) {
    // SAFETY: as promised by the caller.
    unsafe { pairs(Product { e, a, b, ldb: NR, c, ldc, start, next }) }
}

#[inline]
unsafe fn pairs(p: Product) {
    #[cfg(target_arch = "x86_64")]
    {
        if p.e.outer == 1 && p.a.inner == 1 && amx::available() {
            let b = Right { base: p.b, panel: 0, ld: p.ldb };
            // SAFETY: the instruction set was detected; pointers as promised by the caller.
            return unsafe { amx::gemm(p.e, p.a, b, p.c, p.ldc, p.start.near()) };
        }
        if bf16_dot() {
            // SAFETY: as above.
            return unsafe { avx512_bf16(p) };
        }
        if isa() != Isa::Portable {
            // SAFETY: as above.
            return unsafe { avx2_bf16(p) };
        }
    }
    // SAFETY: pointers as promised by the caller; no instruction set is assumed.
    unsafe { rows::<PlainPairs, 4, 1, false>(p) }
}

/// The same for any number `extent.n` of columns; `next` is what comes after the last panel.
///
/// # Safety
/// As [`gemm`], for each panel.
#[inline]
pub unsafe fn gemm_bf16_wide(extent: Extent, a: Left, b: Right, c: *mut f32, ldc: usize, start: Start, next: Next) {
    #[cfg(target_arch = "x86_64")]
    if extent.outer == 1 && a.inner == 1 && amx::available() {
        // SAFETY: the instruction set was detected; pointers as promised by the caller.
        return unsafe { amx::gemm(extent, a, b, c, ldc, start.near()) };
    }
    for j in (0..extent.n).step_by(NR) {
        let (e, base) = (Extent { n: (extent.n - j).min(NR), ..extent }, b.base.wrapping_add(j / NR * b.panel));
        let next = if j + NR < extent.n { Next { base: base.wrapping_add(b.panel), words: b.panel } } else { next };
        // SAFETY: as promised by the caller.
        unsafe { pairs(Product { e, a, b: base, ldb: b.ld, c: c.add(j), ldc, start, next }) };
    }
}

/// Whether bf16 products of contiguous rows run through matrix tiles here, which sum in another order than lanes do.
pub fn bf16_tiles() -> bool {
    #[cfg(target_arch = "x86_64")]
    return amx::available();
    #[cfg(not(target_arch = "x86_64"))]
    false
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx512bf16,avx2,fma")]
pub(super) unsafe fn avx512_bf16(p: Product) {
    unsafe { rows::<Pairs512, 12, 2, true>(p) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2_bf16(p: Product) {
    unsafe { rows::<Pairs256, 4, 2, false>(p) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
unsafe fn avx512(p: Product) {
    unsafe { rows::<std::arch::x86_64::__m512, 12, 2, false>(p) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2(p: Product) {
    unsafe { rows::<std::arch::x86_64::__m256, 6, 2, false>(p) }
}

/// Walks the row tiles; columns that do not fill their last vector go through a small buffer, so that the microkernel always
/// writes whole vectors. So do those of a partial panel that should go past the caches, a line at a time.
///
/// Of the next lines each tile asks for its share before it begins, or (`EACH`) for two at every step until all are asked for:
/// as many as a step reads.
#[inline(always)]
unsafe fn rows<S: Lanes, const MR: usize, const NV: usize, const EACH: bool>(p: Product) {
    let Product { e, a, c, ldc, start, next, .. } = p;
    // Tiles of even height: a low one at the end would have too few sums to keep the units busy.
    let tiles = e.m.div_ceil(MR).max(1);
    let height = e.m.div_ceil(tiles);
    // Each tile asks for as many of the next lines: all at once, as with a single tile, they would wait for each other.
    let share = if EACH || tiles == 1 { 0 } else { next.words.div_ceil(LINE).div_ceil(tiles) };
    let mut i = 0;
    while i < e.m {
        for line in i / height * share..(i / height + 1) * share {
            if let Some(at) = next.after(line) {
                prefetch(at);
            }
        }
        let ask = if EACH { next.after(2 * (i / height) * e.outer * e.inner) } else { None };
        let a = Left { base: unsafe { a.base.add(i * a.row) }, ..a };
        let rows = (e.m - i).min(height);
        unsafe {
            let out = c.add(i * ldc);
            if e.n.is_multiple_of(S::WIDTH) && (e.n == NR || start != Start::Past) {
                tile::<S, MR, NV, EACH>(rows, Product { a, c: out, ..p }, ask);
            } else {
                let (mut edge, start) = ([0f32; 12 * NR], start.near());
                if start != Start::Zero {
                    for r in 0..rows {
                        std::ptr::copy_nonoverlapping(out.add(r * ldc), edge.as_mut_ptr().add(r * NR), e.n);
                    }
                }
                tile::<S, MR, NV, EACH>(rows, Product { a, c: edge.as_mut_ptr(), ldc: NR, start, ..p }, ask);
                for r in 0..rows {
                    std::ptr::copy_nonoverlapping(edge.as_ptr().add(r * NR), out.add(r * ldc), e.n);
                }
            }
        }
        i += rows;
    }
}

/// `rows` rows of the vectors that hold columns wanted.
#[inline(always)]
unsafe fn tile<S: Lanes, const MR: usize, const NV: usize, const EACH: bool>(
    rows: usize,
    p: Product,
    ask: Option<*const f32>,
) {
    let mut j = 0;
    while j < p.e.n {
        unsafe {
            let part = Product { b: p.b.add(j), c: p.c.add(j), ..p };
            if NV > 1 && p.e.n - j <= S::WIDTH {
                return columns::<S, MR, 1, false>(rows, part, part.b);
            }
            match ask {
                Some(ask) if EACH => columns::<S, MR, NV, EACH>(rows, part, ask),
                _ => columns::<S, MR, NV, false>(rows, part, part.b),
            }
        }
        j += S::WIDTH * NV;
    }
}

/// Picks the microkernel with exactly `rows` rows.
#[inline(always)]
unsafe fn columns<S: Lanes, const MR: usize, const NV: usize, const ASK: bool>(
    rows: usize,
    p: Product,
    ask: *const f32,
) {
    unsafe {
        match rows {
            12 if MR >= 12 => micro::<S, 12, NV, ASK>(p, ask),
            11 if MR >= 12 => micro::<S, 11, NV, ASK>(p, ask),
            10 if MR >= 12 => micro::<S, 10, NV, ASK>(p, ask),
            9 if MR >= 12 => micro::<S, 9, NV, ASK>(p, ask),
            8 if MR >= 12 => micro::<S, 8, NV, ASK>(p, ask),
            7 if MR >= 12 => micro::<S, 7, NV, ASK>(p, ask),
            6 if MR >= 6 => micro::<S, 6, NV, ASK>(p, ask),
            5 if MR >= 6 => micro::<S, 5, NV, ASK>(p, ask),
            4 => micro::<S, 4, NV, ASK>(p, ask),
            3 => micro::<S, 3, NV, ASK>(p, ask),
            2 => micro::<S, 2, NV, ASK>(p, ask),
            _ => micro::<S, 1, NV, ASK>(p, ask),
        }
    }
}

/// The innermost loop: R rows by NV vectors of accumulators in registers, and with `ASK` two lines asked for at each step.
#[inline(always)]
unsafe fn micro<S: Lanes, const R: usize, const NV: usize, const ASK: bool>(p: Product, mut ask: *const f32) {
    let Product { e, a, b, ldb, c, ldc, start, .. } = p;
    unsafe {
        let mut acc = [[S::splat(0.0); NV]; R];
        if start == Start::Chain {
            for r in 0..R {
                for v in 0..NV {
                    acc[r][v] = S::load(c.add(r * ldc + v * S::WIDTH));
                }
            }
        }
        if start == Start::Add {
            for r in 0..R {
                prefetch(c.wrapping_add(r * ldc));
                prefetch(c.wrapping_add(r * ldc + 16));
            }
        }
        let mut bp = b;
        for o in 0..e.outer {
            let mut ap = a.base.add(o * a.outer);
            for _ in 0..e.inner {
                if ASK {
                    prefetch_far(ask);
                    prefetch_far(ask.wrapping_add(LINE));
                    ask = ask.wrapping_add(2 * LINE);
                }
                let mut bv = [S::splat(0.0); NV];
                for v in 0..NV {
                    bv[v] = S::load(bp.add(v * S::WIDTH));
                }
                for r in 0..R {
                    let x = S::splat(*ap.add(r * a.row));
                    for v in 0..NV {
                        acc[r][v] = acc[r][v].fma(x, bv[v]);
                    }
                }
                ap = ap.add(a.inner);
                bp = bp.add(ldb);
            }
        }
        // In a loop of its own: a choice inside would keep the sums from staying in registers.
        if start == Start::Past {
            for r in 0..R {
                for v in 0..NV {
                    acc[r][v].store_past(c.add(r * ldc + v * S::WIDTH));
                }
            }
            return;
        }
        for r in 0..R {
            for v in 0..NV {
                let at = c.add(r * ldc + v * S::WIDTH);
                let sum = if start == Start::Add { S::load(at).add(acc[r][v]) } else { acc[r][v] };
                sum.store(at);
            }
        }
    }
}

/// Asks for a line that will be read later. Any address is allowed.
#[inline(always)]
pub(crate) fn prefetch(at: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch never faults, and every x86-64 processor has it.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// The same into the second-level cache.
#[inline(always)]
fn prefetch_far(at: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: as above.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// The same for a line that will be written.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) fn prefetch_to_write(at: *const f32) {
    // SAFETY: as above; where the instruction is missing it does nothing.
    unsafe { std::arch::asm!("prefetchw [{}]", in(reg) at, options(nostack, preserves_flags, readonly)) };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(n: usize, seed: u32) -> Vec<f32> {
        let mut s = seed.wrapping_mul(747796405).wrapping_add(1);
        (0..n)
            .map(|_| {
                s = s.wrapping_mul(1664525).wrapping_add(1013904223);
                (s >> 8) as f32 / (1 << 23) as f32 - 1.0
            })
            .collect()
    }

    #[test]
    fn every_shape_equals_the_sequential_fused_sum_bit_for_bit() {
        for (m, k, n) in [
            (1, 1, 1),
            (1, 7, 32),
            (5, 33, 17),
            (12, 64, 32),
            (13, 5, 31),
            (25, 128, 9),
            (37, 40, 32),
            (23, 9, 16),
            (11, 12, 24),
            (14, 3, 8),
        ] {
            let (a, b) = (noise(m * k, 1), noise(k * NR, 2));
            for start in [Start::Zero, Start::Add, Start::Chain] {
                let mut c = noise(m * n, 3);
                let want: Vec<f32> = (0..m * n)
                    .map(|at| {
                        let (i, j) = (at / n, at % n);
                        let begin = if start == Start::Chain { c[at] } else { 0.0 };
                        let sum = (0..k).fold(begin, |s, p| a[i * k + p].mul_add(b[p * NR + j], s));
                        if start == Start::Add { c[at] + sum } else { sum }
                    })
                    .collect();
                let e = Extent { m, outer: 1, inner: k, n };
                let left = Left { base: a.as_ptr(), row: k, outer: 0, inner: 1 };
                // SAFETY: buffers have the sizes that extent and strides name.
                unsafe { gemm(e, left, b.as_ptr(), NR, c.as_mut_ptr(), n, start) };
                let next = Next::NOTHING;
                let product = Product { e, a: left, b: b.as_ptr(), ldb: NR, c: c.as_mut_ptr(), ldc: n, start, next };
                assert_eq!(c, want, "{m} {k} {n} {start:?}");
                let mut portable = noise(m * n, 3);
                // SAFETY: as above.
                unsafe { rows::<Plain, 4, 1, false>(Product { c: portable.as_mut_ptr(), ..product }) };
                assert_eq!(portable, want, "portable {m} {k} {n} {start:?}");
                #[cfg(target_arch = "x86_64")]
                if isa() != Isa::Portable {
                    let mut narrow = noise(m * n, 3);
                    // SAFETY: as above, and the instruction set was detected.
                    unsafe { avx2(Product { c: narrow.as_mut_ptr(), next: b[..].into(), ..product }) };
                    assert_eq!(narrow, want, "AVX2 {m} {k} {n} {start:?}");
                }
            }
        }
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn pairs_of_eight_lanes_have_the_bits_of_plain_ones() {
        if isa() == Isa::Portable {
            return eprintln!("skipped: no AVX2 here");
        }
        let half = |v: &f32| v.to_bits() >> 16;
        let pairs = |n: usize, seed: u32| -> Vec<f32> {
            let both = noise(n, seed).into_iter().zip(noise(n, seed + 9));
            both.map(|(low, high)| f32::from_bits(half(&low) | half(&high) << 16)).collect()
        };
        for (m, k, n) in
            [(1, 1, 1), (1, 7, 32), (5, 33, 17), (12, 64, 32), (13, 5, 31), (37, 40, 32), (23, 9, 16), (5, 4, 8)]
        {
            let (a, b) = (pairs(m * k, 1), pairs(k * NR, 2));
            for start in [Start::Zero, Start::Add, Start::Chain] {
                let (mut plain, mut narrow) = (noise(m * n, 3), noise(m * n, 3));
                let e = Extent { m, outer: 1, inner: k, n };
                let left = Left { base: a.as_ptr(), row: k, outer: 0, inner: 1 };
                let (b_words, next) = (b.as_ptr(), Next::NOTHING);
                let product = Product { e, a: left, b: b_words, ldb: NR, c: plain.as_mut_ptr(), ldc: n, start, next };
                // SAFETY: buffers have the sizes that extent and strides name; the instruction set was detected.
                unsafe {
                    rows::<PlainPairs, 4, 1, false>(product);
                    avx2_bf16(Product { c: narrow.as_mut_ptr(), ..product });
                }
                assert_eq!(narrow, plain, "{m} {k} {n} {start:?}");
                if bf16_dot() {
                    let (mut alone, mut asking) = (noise(m * n, 3), noise(m * n, 3));
                    // SAFETY: as above.
                    unsafe {
                        avx512_bf16(Product { c: alone.as_mut_ptr(), ..product });
                        avx512_bf16(Product { c: asking.as_mut_ptr(), next: b[..].into(), ..product });
                    }
                    assert_eq!(asking, alone, "asked for lines: {m} {k} {n} {start:?}");
                }
            }
        }
    }
}
