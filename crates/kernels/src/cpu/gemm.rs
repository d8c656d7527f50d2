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

/// A view of C: panels of [`NR`] columns, `panel` words apart ([`NR`] where rows lie whole), whose rows lie `row` words apart.
#[derive(Clone, Copy)]
pub struct Out {
    /// First element.
    pub base: *mut f32,
    /// Distance between rows.
    pub row: usize,
    /// Distance between panels.
    pub panel: usize,
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

    /// How many lines there are.
    pub(super) fn lines(&self) -> usize {
        self.words.div_ceil(LINE)
    }

    /// Leaves out so many lines; where they begin.
    pub(super) fn skip(&mut self, lines: usize) -> *const f32 {
        let base = self.base;
        (self.base, self.words) = (base.wrapping_add(lines * LINE), self.words.saturating_sub(lines * LINE));
        base
    }

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

#[inline]
unsafe fn pairs(p: Product) {
    #[cfg(target_arch = "x86_64")]
    {
        if p.e.outer == 1 && p.a.inner == 1 && amx::available() {
            let b = Right { base: p.b, panel: 0, ld: p.ldb };
            let c = Out { base: p.c, row: p.ldc, panel: 0 };
            // SAFETY: the instruction set was detected; pointers as promised by the caller.
            return unsafe { amx::gemm(p.e, p.a, b, c, p.start.near(), p.next) };
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
pub unsafe fn gemm_bf16_wide(extent: Extent, a: Left, b: Right, c: Out, start: Start, next: Next) {
    #[cfg(target_arch = "x86_64")]
    if extent.outer == 1 && a.inner == 1 && amx::available() {
        // SAFETY: the instruction set was detected; pointers as promised by the caller.
        return unsafe { amx::gemm(extent, a, b, c, start.near(), next) };
    }
    for j in (0..extent.n).step_by(NR) {
        let (e, base) = (Extent { n: (extent.n - j).min(NR), ..extent }, b.base.wrapping_add(j / NR * b.panel));
        let next = if j + NR < extent.n { Next { base: base.wrapping_add(b.panel), words: b.panel } } else { next };
        // SAFETY: as promised by the caller.
        unsafe {
            pairs(Product { e, a, b: base, ldb: b.ld, c: c.base.add(j / NR * c.panel), ldc: c.row, start, next })
        };
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

/// Walks the row tiles for so many columns as a tile has; in sets of eight lanes these are half of a panel, and less of the
/// first-level cache is in use at a time. Columns that do not fill their last vector go through a small buffer, so that the
/// microkernel always writes whole vectors. So do those of a partial panel that should go past the caches, a line at a time.
///
/// Of the next lines each tile asks for its share before it begins, or (`EACH`) for two at every step until all are asked for:
/// as many as a step reads.
#[inline(always)]
unsafe fn rows<S: Lanes, const MR: usize, const NV: usize, const EACH: bool>(p: Product) {
    let (Product { e, next, .. }, width) = (p, S::WIDTH * NV);
    let tiles = e.m.div_ceil(MR);
    // Each tile asks for as many of the next lines: all at once, as with a single tile, they would wait for each other.
    let asking = tiles * e.n.div_ceil(width);
    let share = if EACH || tiles <= 1 { 0 } else { next.words.div_ceil(LINE).div_ceil(asking.max(1)) };
    for j in (0..e.n).step_by(width) {
        for t in 0..tiles {
            let from = (j / width * tiles + t) * share;
            (from..from + share).map_while(|line| next.after(line)).for_each(prefetch);
            let ask = if EACH && j == 0 { next.after(2 * t * e.outer * e.inner) } else { None };
            // Tiles of even height: a low one at the end would have too few sums to keep the units busy.
            let (first, end) = (e.m * t / tiles, e.m * (t + 1) / tiles);
            unsafe {
                let a = Left { base: p.a.base.add(first * p.a.row), ..p.a };
                let e = Extent { m: end - first, n: (e.n - j).min(width), ..e };
                tile::<S, MR, NV, EACH>(Product { e, a, b: p.b.add(j), c: p.c.add(first * p.ldc + j), ..p }, ask);
            }
        }
    }
}

/// One tile: the vectors that hold columns wanted.
#[inline(always)]
unsafe fn tile<S: Lanes, const MR: usize, const NV: usize, const EACH: bool>(p: Product, ask: Option<*const f32>) {
    let Product { e, c, ldc, start, .. } = p;
    if e.n.is_multiple_of(S::WIDTH) && (e.n == S::WIDTH * NV || start != Start::Past) {
        return unsafe { vectors::<S, MR, NV, EACH>(p, ask) };
    }
    let (mut edge, start) = ([0f32; 12 * NR], start.near());
    unsafe {
        if start != Start::Zero {
            for r in 0..e.m {
                std::ptr::copy_nonoverlapping(c.add(r * ldc), edge.as_mut_ptr().add(r * NR), e.n);
            }
        }
        vectors::<S, MR, NV, EACH>(Product { c: edge.as_mut_ptr(), ldc: NR, start, ..p }, ask);
        for r in 0..e.m {
            std::ptr::copy_nonoverlapping(edge.as_ptr().add(r * NR), c.add(r * ldc), e.n);
        }
    }
}

/// One of the microkernels.
#[inline(always)]
unsafe fn vectors<S: Lanes, const MR: usize, const NV: usize, const EACH: bool>(p: Product, ask: Option<*const f32>) {
    unsafe {
        if NV > 1 && p.e.n <= S::WIDTH {
            return columns::<S, MR, 1, false>(p, p.b);
        }
        match ask {
            Some(ask) if EACH => columns::<S, MR, NV, EACH>(p, ask),
            _ => columns::<S, MR, NV, false>(p, p.b),
        }
    }
}

/// Picks the microkernel with exactly as many rows as the tile.
#[inline(always)]
unsafe fn columns<S: Lanes, const MR: usize, const NV: usize, const ASK: bool>(p: Product, ask: *const f32) {
    unsafe {
        match p.e.m {
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
    // Lines are asked for in the loop of single terms.
    const { assert!(!ASK || S::STEPS == 1) };
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
                for line in 0..(NV * S::WIDTH).div_ceil(LINE) {
                    prefetch(c.wrapping_add(r * ldc + line * LINE));
                }
            }
        }
        let mut bp = b;
        for o in 0..e.outer {
            let mut ap = a.base.add(o * a.outer);
            // A distance that is known here costs no instruction.
            let done = match (a.row, a.inner) {
                _ if S::STEPS == 1 || ldb != NR => 0,
                (row, 1) => steps(&mut acc, ap, row, 1, bp, e.inner),
                (1, inner) => steps(&mut acc, ap, 1, inner, bp, e.inner),
                _ => 0,
            };
            (ap, bp) = (ap.add(done * a.inner), bp.add(done * NR));
            for _ in done..e.inner {
                if ASK {
                    prefetch_far(ask);
                    prefetch_far(ask.wrapping_add(LINE));
                    ask = ask.wrapping_add(2 * LINE);
                }
                step(&mut acc, ap, a.row, bp);
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

/// Of `terms` terms of each sum as many as fill turns of [`Lanes::STEPS`], from a dense panel; how many those are.
#[inline(always)]
unsafe fn steps<S: Lanes, const R: usize, const NV: usize>(
    acc: &mut [[S; NV]; R],
    mut a: *const f32,
    row: usize,
    inner: usize,
    mut b: *const f32,
    terms: usize,
) -> usize {
    let turns = terms / S::STEPS;
    for _ in 0..turns {
        unsafe {
            for s in 0..S::STEPS {
                step(acc, a.add(s * inner), row, b.add(s * NR));
            }
            (a, b) = (a.add(S::STEPS * inner), b.add(S::STEPS * NR));
        }
    }
    turns * S::STEPS
}

/// One term of each sum.
#[inline(always)]
unsafe fn step<S: Lanes, const R: usize, const NV: usize>(
    acc: &mut [[S; NV]; R],
    a: *const f32,
    row: usize,
    b: *const f32,
) {
    unsafe {
        let mut bv = [S::splat(0.0); NV];
        for v in 0..NV {
            bv[v] = S::load(b.add(v * S::WIDTH));
        }
        for r in 0..R {
            let x = S::splat(*a.add(r * row));
            for v in 0..NV {
                acc[r][v] = acc[r][v].fma(x, bv[v]);
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
pub(super) fn prefetch_far(at: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: as above.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// The same for a line that will be written.
#[inline(always)]
pub(super) fn prefetch_to_write(at: *const f32) {
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: as above; where the instruction is missing it does nothing.
    unsafe {
        std::arch::asm!("prefetchw [{}]", in(reg) at, options(nostack, preserves_flags, readonly))
    };
}

#[cfg(test)]
mod tests;
