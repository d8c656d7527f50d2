//! Quantised tiles with AVX512-VNNI: four products of whole numbers per lane and instruction.

use super::activations::Activations;
use super::{BLOCK, NR, Quantized, STEPS, ask_ahead, block_bytes};
use half::f16;
use std::arch::x86_64::*;
use std::sync::OnceLock;

/// Rows whose whole sums fit the registers.
const ROWS_AT_ONCE: usize = 12;

pub(super) fn available() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| crate::cpu::isa() == crate::cpu::Isa::Avx512 && is_x86_feature_detected!("avx512vnni"))
}

/// Scales and shifts of one group of 32 outputs.
#[derive(Clone, Copy)]
struct Group {
    d: [__m512; 2],
    m: [__m512; 2],
}

/// Adds the products of rows `r..` with one panel to `sums`.
///
/// # Safety
/// The processor must be [`available`]; panel and rows must lie inside `w` and `a`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,fma")]
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

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,fma")]
unsafe fn panel_of<const BITS: u32, const HALVES: usize>(
    sums: &mut [[f32; NR]],
    w: &Quantized,
    panel: usize,
    a: &Activations,
    r: usize,
) {
    // SAFETY: as promised by the caller.
    unsafe {
        match sums.len() {
            1 => few::<1, BITS, HALVES>(sums, w, panel, a, r),
            2 => few::<2, BITS, HALVES>(sums, w, panel, a, r),
            3 => few::<3, BITS, HALVES>(sums, w, panel, a, r),
            4 => few::<4, BITS, HALVES>(sums, w, panel, a, r),
            _ => many::<BITS, HALVES>(sums, w, panel, a, r),
        }
    }
}

/// Scales and shifts of one group of 32 outputs.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,fma")]
unsafe fn group<const HALVES: usize>(w: &Quantized, panel: usize, block: usize, half: usize) -> Group {
    let at = ((panel * (w.k / BLOCK) + block) * HALVES + half) * NR;
    let of = |of: &[f16], v: usize| {
        // SAFETY: panel and block lie inside w.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(of.as_ptr().add(at + v * 16).cast())) }
    };
    let d = [of(&w.d, 0), of(&w.d, 1)];
    let offset = _mm512_set1_ps(f32::from(w.offset));
    let m = match w.m.is_empty() {
        true => [_mm512_mul_ps(d[0], offset), _mm512_mul_ps(d[1], offset)],
        false => [of(&w.m, 0), of(&w.m, 1)],
    };
    Group { d, m }
}

/// R rows whose sums stay in registers.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,fma")]
unsafe fn few<const R: usize, const BITS: u32, const HALVES: usize>(
    sums: &mut [[f32; NR]],
    w: &Quantized,
    panel: usize,
    a: &Activations,
    r: usize,
) {
    let count = w.k / BLOCK;
    let mut acc = [[_mm512_setzero_ps(); 2]; R];
    for block in 0..count {
        ask_ahead::<BITS, HALVES>(w, panel, block);
        // SAFETY: panel and rows lie inside w and a (caller); all blocks are whole.
        unsafe {
            let bytes = w.q.as_ptr().add((panel * count + block) * block_bytes(BITS));
            for half in 0..HALVES {
                let dots = dots::<R, BITS, HALVES>(bytes, a.block(block, r), half);
                let group = group::<HALVES>(w, panel, block, half);
                let (scale, minus) = (a.scale(block, r).as_ptr(), a.minus(block, r, half, HALVES).as_ptr());
                for i in 0..R {
                    acc[i] = add(acc[i], dots[i], &group, *scale.add(i), *minus.add(3 * i));
                }
            }
        }
    }
    for (sums, acc) in sums.iter_mut().zip(acc) {
        for (to, acc) in sums.chunks_exact_mut(16).zip(acc) {
            // SAFETY: 16 floats.
            unsafe { _mm512_storeu_ps(to.as_mut_ptr(), acc) };
        }
    }
}

/// Any number of rows, whose sums lie in the first-level cache; every block of weights is unpacked once for all.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,fma")]
unsafe fn many<const BITS: u32, const HALVES: usize>(
    sums: &mut [[f32; NR]],
    w: &Quantized,
    panel: usize,
    a: &Activations,
    r: usize,
) {
    let count = w.k / BLOCK;
    let mut unpacked = [0u8; BLOCK * NR];
    // Tiles of even height: the last one would have too few sums to keep the units busy.
    let height = sums.len().div_ceil(sums.len().div_ceil(ROWS_AT_ONCE));
    for block in 0..count {
        ask_ahead::<BITS, HALVES>(w, panel, block);
        // SAFETY: panel and rows lie inside w and a (caller); all blocks are whole.
        unsafe {
            let mut bytes = w.q.as_ptr().add((panel * count + block) * block_bytes(BITS));
            if BITS != 8 {
                for step in 0..STEPS {
                    for (v, q) in weights::<BITS>(bytes, step).into_iter().enumerate() {
                        _mm512_storeu_si512(unpacked.as_mut_ptr().add(step * NR * 4 + v * 64).cast(), q);
                    }
                }
                bytes = unpacked.as_ptr();
            }
            for half in 0..HALVES {
                let group = group::<HALVES>(w, panel, block, half);
                let (mut rest, mut r) = (&mut *sums, r);
                while !rest.is_empty() {
                    let (now, later) = rest.split_at_mut(rest.len().min(height));
                    match now.len() {
                        12 => rows::<12, HALVES>(now, bytes, &group, a, block, half, r),
                        11 => rows::<11, HALVES>(now, bytes, &group, a, block, half, r),
                        10 => rows::<10, HALVES>(now, bytes, &group, a, block, half, r),
                        9 => rows::<9, HALVES>(now, bytes, &group, a, block, half, r),
                        8 => rows::<8, HALVES>(now, bytes, &group, a, block, half, r),
                        7 => rows::<7, HALVES>(now, bytes, &group, a, block, half, r),
                        6 => rows::<6, HALVES>(now, bytes, &group, a, block, half, r),
                        5 => rows::<5, HALVES>(now, bytes, &group, a, block, half, r),
                        4 => rows::<4, HALVES>(now, bytes, &group, a, block, half, r),
                        3 => rows::<3, HALVES>(now, bytes, &group, a, block, half, r),
                        2 => rows::<2, HALVES>(now, bytes, &group, a, block, half, r),
                        _ => rows::<1, HALVES>(now, bytes, &group, a, block, half, r),
                    }
                    r += now.len();
                    rest = later;
                }
            }
        }
    }
}

/// One group of R rows.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,fma")]
unsafe fn rows<const R: usize, const HALVES: usize>(
    sums: &mut [[f32; NR]],
    bytes: *const u8,
    group: &Group,
    a: &Activations,
    block: usize,
    half: usize,
    r: usize,
) {
    // SAFETY: as promised by the caller.
    unsafe {
        let dots = dots::<R, 8, HALVES>(bytes, a.block(block, r), half);
        let (scale, minus) = (a.scale(block, r), a.minus(block, r, half, HALVES));
        assert!(sums.len() == R && scale.len() >= R && minus.len() >= 3 * R - 2, "rows of a tile");
        for i in 0..R {
            let to = sums[i].as_mut_ptr();
            let sum = add([_mm512_loadu_ps(to), _mm512_loadu_ps(to.add(16))], dots[i], group, scale[i], minus[3 * i]);
            _mm512_storeu_ps(to, sum[0]);
            _mm512_storeu_ps(to.add(16), sum[1]);
        }
    }
}

/// Sums of one row, and what a group adds to them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,fma")]
fn add(sums: [__m512; 2], dots: [__m512i; 2], group: &Group, scale: f32, minus: f32) -> [__m512; 2] {
    let (scale, minus) = (_mm512_set1_ps(scale), _mm512_set1_ps(minus));
    let of = |v: usize| {
        let dot = _mm512_mul_ps(_mm512_cvtepi32_ps(dots[v]), scale);
        _mm512_fmadd_ps(minus, group.m[v], _mm512_fmadd_ps(dot, group.d[v], sums[v]))
    };
    [of(0), of(1)]
}

/// Products of R rows with one group of weights.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,fma")]
unsafe fn dots<const R: usize, const BITS: u32, const HALVES: usize>(
    bytes: *const u8,
    x: &[i8],
    half: usize,
) -> [[__m512i; 2]; R] {
    assert!(x.len() >= R * BLOCK, "rows of a tile");
    let mut dots = [[_mm512_setzero_si512(); 2]; R];
    for step in half * STEPS / HALVES..(half + 1) * STEPS / HALVES {
        // SAFETY: R whole blocks of x (asserted) and a whole block of weights (caller).
        unsafe {
            let q = weights::<BITS>(bytes, step);
            for i in 0..R {
                let x = _mm512_set1_ps(x.as_ptr().add(i * BLOCK + step * 4).cast::<f32>().read_unaligned());
                let x = _mm512_castps_si512(x);
                for v in 0..2 {
                    dots[i][v] = _mm512_dpbusd_epi32(dots[i][v], q[v], x);
                }
            }
        }
    }
    dots
}

/// Both vectors of weights of one step.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,fma")]
unsafe fn weights<const BITS: u32>(bytes: *const u8, step: usize) -> [__m512i; 2] {
    // SAFETY: the block is whole and `step` below 8.
    unsafe {
        std::array::from_fn(|v| {
            if BITS == 8 {
                return _mm512_loadu_si512(bytes.add(step * NR * 4 + v * 64).cast());
            }
            let both = _mm512_loadu_si512(bytes.add(step % 4 * NR * 4 + v * 64).cast());
            let nibbles = if step < 4 { both } else { _mm512_srli_epi16::<4>(both) };
            let low = _mm512_and_si512(nibbles, _mm512_set1_epi8(15));
            if BITS == 4 {
                return low;
            }
            let high = bytes.add(4 * NR * 4 + step * NR / 2 + v * 8).cast::<u64>().read_unaligned();
            _mm512_mask_add_epi8(low, high, low, _mm512_set1_epi8(16))
        })
    }
}
