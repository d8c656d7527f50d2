//! One query row per head against a block cache: the products of decoding, where a matrix microkernel would wait.
//!
//! With a single row every sum is one chain of dependent multiply-adds. Here the chains of several heads run side by side in
//! registers, so that the processor always has another one to go on with. Every chain adds in the order of `gemm`: the bits
//! are the same.

#[cfg(target_arch = "x86_64")]
use super::simd::{Isa, isa};
use super::simd::{Lanes, Plain};
use crate::cpu::NR;

/// Chains that run side by side.
const SIDE_BY_SIDE: usize = 4;

/// What one head reads and writes.
#[derive(Clone, Copy)]
pub struct Chain {
    /// Query (scores) or weights (values): one number per step.
    pub left: *const f32,
    /// Where the head's panel begins in every block.
    pub offset: usize,
    /// Scores or output.
    pub out: *mut f32,
    /// Columns of the output that count, at most [`NR`] (values only).
    pub width: usize,
}

/// Scores of each chain's query (`dim` numbers) against 32 keys per block: `out[32 b + j]`.
///
/// # Safety
/// `left` readable for `dim`, every block for `dim * 32` values from the chain's offset, `out` writable for 32 per block.
pub unsafe fn scores(chains: &[Chain], blocks: &[*const f32], dim: usize) {
    unsafe { dispatch::<true>(chains, blocks, dim) }
}

/// Sum over all keys of weight times value row: `out[0..width]`.
///
/// # Safety
/// `left` readable for 32 numbers per block, every block for 32 x 32 values from the chain's offset, `out` writable for `width`.
pub unsafe fn values(chains: &[Chain], blocks: &[*const f32]) {
    unsafe { dispatch::<false>(chains, blocks, NR) }
}

unsafe fn dispatch<const SCORES: bool>(chains: &[Chain], blocks: &[*const f32], steps: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        match isa() {
            // SAFETY: the instruction set was detected; pointers as promised by the caller.
            Isa::Avx512 => return unsafe { avx512::<SCORES>(chains, blocks, steps) },
            // SAFETY: as above.
            Isa::Avx2 => return unsafe { avx2::<SCORES>(chains, blocks, steps) },
            Isa::Portable => {}
        }
    }
    unsafe { all::<Plain, 4, SCORES>(chains, blocks, steps) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
unsafe fn avx512<const SCORES: bool>(chains: &[Chain], blocks: &[*const f32], steps: usize) {
    unsafe { all::<std::arch::x86_64::__m512, 2, SCORES>(chains, blocks, steps) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2<const SCORES: bool>(chains: &[Chain], blocks: &[*const f32], steps: usize) {
    unsafe { all::<std::arch::x86_64::__m256, 4, SCORES>(chains, blocks, steps) }
}

#[inline(always)]
unsafe fn all<S: Lanes, const NV: usize, const SCORES: bool>(chains: &[Chain], blocks: &[*const f32], steps: usize) {
    let mut groups = chains.chunks_exact(SIDE_BY_SIDE);
    for group in &mut groups {
        let group: &[Chain; SIDE_BY_SIDE] = group.try_into().expect("chunks are this long");
        unsafe { side_by_side::<S, NV, SIDE_BY_SIDE, SCORES>(group, blocks, steps) };
    }
    for chain in groups.remainder() {
        unsafe { side_by_side::<S, NV, 1, SCORES>(&[*chain], blocks, steps) };
    }
}

#[inline(always)]
unsafe fn side_by_side<S: Lanes, const NV: usize, const J: usize, const SCORES: bool>(
    chains: &[Chain; J],
    blocks: &[*const f32],
    steps: usize,
) {
    unsafe {
        let mut acc = [[S::splat(0.0); NV]; J];
        for (b, block) in blocks.iter().enumerate() {
            if SCORES {
                acc = [[S::splat(0.0); NV]; J];
            }
            for p in 0..steps {
                for j in 0..J {
                    let at = if SCORES { p } else { b * NR + p };
                    let x = S::splat(*chains[j].left.add(at));
                    let row = block.add(chains[j].offset + p * NR);
                    for v in 0..NV {
                        acc[j][v] = acc[j][v].fma(x, S::load(row.add(v * S::WIDTH)));
                    }
                }
            }
            if SCORES {
                for j in 0..J {
                    for v in 0..NV {
                        acc[j][v].store(chains[j].out.add(b * NR + v * S::WIDTH));
                    }
                }
            }
        }
        if !SCORES {
            for j in 0..J {
                let mut row = [0f32; NR];
                for v in 0..NV {
                    acc[j][v].store(row.as_mut_ptr().add(v * S::WIDTH));
                }
                std::ptr::copy_nonoverlapping(row.as_ptr(), chains[j].out, chains[j].width);
            }
        }
    }
}
