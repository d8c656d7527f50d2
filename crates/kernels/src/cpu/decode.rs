//! One query row per head against a block cache: the products of decoding, where a matrix microkernel would wait.
//!
//! With a single row every sum is one chain of dependent multiply-adds. Here the chains of several heads run side by side in
//! registers, so that the processor always has another one to go on with; heads that share keys and values read them once.
//! Every chain adds in the order of `gemm`: the bits are the same.

use super::bf16::PlainPairs;
#[cfg(target_arch = "x86_64")]
use super::bf16::{Pairs256, Pairs512};
#[cfg(target_arch = "x86_64")]
use super::simd::{Isa, bf16_dot, isa};
use super::simd::{Lanes, Plain};
use crate::cpu::NR;
use crate::cpu::gemm::prefetch;

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

/// Scores of each chain's query (`words` of them) against 32 keys per block: `out[32 b + j]`.
///
/// `shared` neighbouring chains have the same offset. `pairs`: words are pairs of bf16 values, else f32. What lies at the
/// chains' offsets from `after` is asked for at the end.
///
/// # Safety
/// `left` readable for `words`, every block for `words * 32` words from the chain's offset, `out` writable for 32 per block.
pub unsafe fn scores(
    chains: &[Chain],
    shared: usize,
    blocks: &[*const f32],
    words: usize,
    pairs: bool,
    after: *const f32,
) {
    unsafe { dispatch::<true>(chains, shared, blocks, words, pairs, after) }
}

/// Sum over all keys of weight times value row: `out[0..width]`. A block holds 32 keys, as f32 or `pairs`. `after` as in
/// [`scores`].
///
/// # Safety
/// `left` readable for a block's words each, every block for as many times 32 words from the chain's offset, `out` writable
/// for `width`.
pub unsafe fn values(chains: &[Chain], shared: usize, blocks: &[*const f32], pairs: bool, after: *const f32) {
    unsafe { dispatch::<false>(chains, shared, blocks, if pairs { NR / 2 } else { NR }, pairs, after) }
}

/// Rows of one new token, the query heads that share keys and values, and where their results go.
#[derive(Clone, Copy)]
pub struct TileRows {
    /// Rows, at most 16.
    pub count: usize,
    /// Queries (scores) or weights (values) as pairs, rows `ld` words apart.
    pub left: *const f32,
    /// Distance between rows of the left side.
    pub ld: usize,
    /// Scores or output, rows `ldc` apart.
    pub out: *mut f32,
    /// Distance between rows of the results.
    pub ldc: usize,
}

/// Scores of queries of `words` words, a multiple of 16, through matrix tiles: `out[32 b + j]` of each row; keys begin at `offset` of a block. Lines at `next` of each block
/// are asked for.
///
/// # Safety
/// [`super::gemm::bf16_tiles`] must be true, rows and blocks readable and writable as far as named.
pub unsafe fn tile_scores(rows: TileRows, words: usize, blocks: &[*const f32], offset: usize, next: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: as promised by the caller.
    unsafe {
        super::amx::scores(rows, words, blocks, offset, next);
    }
    #[cfg(not(target_arch = "x86_64"))]
    unreachable!("no tiles: {rows:p} {words} {blocks:?} {offset} {next}", rows = rows.left);
}

/// Values through matrix tiles: `out[0..width]` of each row, `width` a multiple of 32; panels of values begin at `place.0` of
/// a block and lie `place.1` apart. Lines at `next.1` of the blocks `next.0` are asked for.
///
/// # Safety
/// As [`tile_scores`].
pub unsafe fn tile_values(
    rows: TileRows,
    blocks: &[*const f32],
    place: (usize, usize),
    width: usize,
    next: (&[*const f32], usize),
) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: as promised by the caller.
    unsafe {
        super::amx::values(rows, blocks, place, width, next);
    }
    #[cfg(not(target_arch = "x86_64"))]
    unreachable!("no tiles: {rows:p} {blocks:?} {place:?} {width} {next:?}", rows = rows.left);
}

unsafe fn dispatch<const SCORES: bool>(
    chains: &[Chain],
    shared: usize,
    blocks: &[*const f32],
    steps: usize,
    pairs: bool,
    after: *const f32,
) {
    #[cfg(target_arch = "x86_64")]
    {
        match isa() {
            // SAFETY: the instruction set was detected; pointers as promised by the caller.
            Isa::Avx512 if pairs && bf16_dot() => {
                return unsafe { avx512_bf16::<SCORES>(chains, shared, blocks, steps, after) };
            }
            // SAFETY: as above.
            Isa::Avx512 | Isa::Avx2 if pairs => {
                return unsafe { avx2_bf16::<SCORES>(chains, shared, blocks, steps, after) };
            }
            // SAFETY: as above.
            Isa::Avx512 => return unsafe { avx512::<SCORES>(chains, shared, blocks, steps, after) },
            // SAFETY: as above.
            Isa::Avx2 => return unsafe { avx2::<SCORES>(chains, shared, blocks, steps, after) },
            Isa::Portable => {}
        }
    }
    // SAFETY: pointers as promised by the caller; no instruction set is assumed.
    unsafe {
        match pairs {
            true => all::<PlainPairs, 4, SCORES>(chains, shared, blocks, steps, after),
            false => all::<Plain, 4, SCORES>(chains, shared, blocks, steps, after),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx512bf16,avx2,fma")]
unsafe fn avx512_bf16<const SCORES: bool>(
    chains: &[Chain],
    shared: usize,
    blocks: &[*const f32],
    steps: usize,
    after: *const f32,
) {
    unsafe { all::<Pairs512, 2, SCORES>(chains, shared, blocks, steps, after) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2_bf16<const SCORES: bool>(
    chains: &[Chain],
    shared: usize,
    blocks: &[*const f32],
    steps: usize,
    after: *const f32,
) {
    unsafe { all::<Pairs256, 4, SCORES>(chains, shared, blocks, steps, after) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
unsafe fn avx512<const SCORES: bool>(
    chains: &[Chain],
    shared: usize,
    blocks: &[*const f32],
    steps: usize,
    after: *const f32,
) {
    unsafe { all::<std::arch::x86_64::__m512, 2, SCORES>(chains, shared, blocks, steps, after) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2<const SCORES: bool>(
    chains: &[Chain],
    shared: usize,
    blocks: &[*const f32],
    steps: usize,
    after: *const f32,
) {
    unsafe { all::<std::arch::x86_64::__m256, 4, SCORES>(chains, shared, blocks, steps, after) }
}

#[inline(always)]
unsafe fn all<S: Lanes, const NV: usize, const SCORES: bool>(
    chains: &[Chain],
    shared: usize,
    blocks: &[*const f32],
    steps: usize,
    after: *const f32,
) {
    unsafe {
        match shared {
            // Sixteen registers of eight values hold the sums of two or three heads.
            2 | 4 if NV == 4 => groups::<S, NV, 2, 2, SCORES>(chains, blocks, steps, after),
            3 if NV == 4 => groups::<S, NV, 3, 3, SCORES>(chains, blocks, steps, after),
            _ if NV == 4 => groups::<S, NV, 2, 1, SCORES>(chains, blocks, steps, after),
            4 => groups::<S, NV, 8, 4, SCORES>(chains, blocks, steps, after),
            2 => groups::<S, NV, 8, 2, SCORES>(chains, blocks, steps, after),
            3 => groups::<S, NV, 6, 3, SCORES>(chains, blocks, steps, after),
            _ => groups::<S, NV, 4, 1, SCORES>(chains, blocks, steps, after),
        }
    }
}

/// J chains side by side, G neighbours of which read the same block.
#[inline(always)]
unsafe fn groups<S: Lanes, const NV: usize, const J: usize, const G: usize, const SCORES: bool>(
    chains: &[Chain],
    blocks: &[*const f32],
    steps: usize,
    after: *const f32,
) {
    let mut groups = chains.chunks_exact(J);
    for group in &mut groups {
        let group: &[Chain; J] = group.try_into().expect("chunks are this long");
        unsafe { side_by_side::<S, NV, J, G, SCORES>(group, blocks, steps, after) };
    }
    for group in groups.remainder().chunks(G) {
        match <&[Chain; G]>::try_from(group) {
            Ok(group) => unsafe { side_by_side::<S, NV, G, G, SCORES>(group, blocks, steps, after) },
            Err(_) => {
                group.iter().for_each(|c| unsafe { side_by_side::<S, NV, 1, 1, SCORES>(&[*c], blocks, steps, after) })
            }
        }
    }
}

#[inline(always)]
unsafe fn side_by_side<S: Lanes, const NV: usize, const J: usize, const G: usize, const SCORES: bool>(
    chains: &[Chain; J],
    blocks: &[*const f32],
    steps: usize,
    after: *const f32,
) {
    unsafe {
        let mut acc = [[S::splat(0.0); NV]; J];
        for (b, block) in blocks.iter().enumerate() {
            if SCORES {
                acc = [[S::splat(0.0); NV]; J];
            }
            let next = blocks.get(b + 1).copied().unwrap_or(after);
            // Group by group, so that a block is read from front to back.
            for first in (0..J).step_by(G) {
                for p in 0..steps {
                    let at = if SCORES { p } else { b * steps + p };
                    let offset = chains[first].offset + p * NR;
                    let row = block.add(offset);
                    prefetch(next.wrapping_add(offset));
                    prefetch(next.wrapping_add(offset + NR / 2));
                    let mut values = [S::splat(0.0); NV];
                    for v in 0..NV {
                        values[v] = S::load(row.add(v * S::WIDTH));
                    }
                    for j in first..first + G {
                        let x = S::splat(*chains[j].left.add(at));
                        for v in 0..NV {
                            acc[j][v] = acc[j][v].fma(x, values[v]);
                        }
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

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;
    use crate::linear::tests::noise;

    /// Scores and values of eight heads, `shared` of them to a panel.
    fn run(shared: usize, pairs: bool, scores: bool, narrow: bool) -> Vec<u32> {
        let (heads, steps, count) = (2 * shared.max(3), 16, 3);
        let words = |n: usize, seed: u64| -> Vec<f32> {
            let half = |v: f32| v.to_bits() >> 16;
            let (low, high) = (noise(n, seed), noise(n, seed + 1));
            if pairs {
                low.iter().zip(&high).map(|(l, h)| f32::from_bits(half(*l) | half(*h) << 16)).collect()
            } else {
                low
            }
        };
        let (left, block) = (words(heads * count * steps, 1), words(heads * steps * NR, 3));
        let blocks = vec![block.as_ptr(); count];
        let mut out = vec![0f32; heads * count * NR];
        let chains: Vec<Chain> = (0..heads)
            .map(|h| Chain {
                left: left[h * count * steps..].as_ptr(),
                offset: h / shared * steps * NR,
                out: out[h * count * NR..].as_mut_ptr(),
                width: 30,
            })
            .collect();
        // SAFETY: the instruction set was detected; buffers have the sizes that chains name.
        unsafe {
            match (narrow, pairs, scores) {
                (true, true, true) => avx2_bf16::<true>(&chains, shared, &blocks, steps, block.as_ptr()),
                (true, true, false) => avx2_bf16::<false>(&chains, shared, &blocks, steps, block.as_ptr()),
                (true, false, true) => avx2::<true>(&chains, shared, &blocks, steps, block.as_ptr()),
                (true, false, false) => avx2::<false>(&chains, shared, &blocks, steps, block.as_ptr()),
                (false, true, true) => all::<PlainPairs, 4, true>(&chains, shared, &blocks, steps, block.as_ptr()),
                (false, true, false) => all::<PlainPairs, 4, false>(&chains, shared, &blocks, steps, block.as_ptr()),
                (false, false, true) => all::<Plain, 4, true>(&chains, shared, &blocks, steps, block.as_ptr()),
                (false, false, false) => all::<Plain, 4, false>(&chains, shared, &blocks, steps, block.as_ptr()),
            }
        }
        out.iter().map(|v| v.to_bits()).collect()
    }

    #[test]
    fn eight_lanes_have_the_bits_of_plain_ones() {
        if isa() == Isa::Portable {
            return eprintln!("skipped: no AVX2 here");
        }
        for shared in 1..=4 {
            for (pairs, scores) in [(false, false), (false, true), (true, false), (true, true)] {
                let want = run(shared, pairs, scores, false);
                assert!(want.iter().any(|v| *v != 0) && run(shared, pairs, scores, true) == want, "{shared} {pairs}");
            }
        }
    }
}
