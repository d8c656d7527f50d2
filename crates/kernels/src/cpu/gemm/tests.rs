//! The microkernels for single values against sums made one after another, those for pairs against plain ones, bit for bit.

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

/// Rows, terms and columns.
const SHAPES: [(usize, usize, usize); 12] = [
    (1, 1, 1),
    (1, 7, 32),
    (5, 33, 17),
    (12, 64, 32),
    (13, 5, 31),
    (25, 128, 9),
    (37, 40, 32),
    (6, 47, 32),
    (23, 9, 16),
    (11, 12, 24),
    (14, 3, 8),
    (5, 4, 8),
];

#[test]
fn every_shape_equals_the_sequential_fused_sum_bit_for_bit() {
    // Rows and terms of A: one after another, the other way around, with gaps.
    type Distances = fn(usize, usize) -> (usize, usize);
    let layouts: [Distances; 3] = [|_, k| (k, 1), |m, _| (1, m), |m, _| (3, 3 * m)];
    for (m, k, n) in SHAPES {
        let (a, b) = (noise(2 * 3 * m * k, 1), noise(2 * k * 2 * NR, 2));
        let starts = [Start::Zero, Start::Add, Start::Chain];
        // A dense panel, and one with gaps whose terms come in two pieces.
        let panels = [(1, NR), (2, 2 * NR)];
        let cases = starts.into_iter().flat_map(|s| layouts.into_iter().flat_map(move |l| panels.map(|p| (s, l, p))));
        for (start, distances, (outer, ldb)) in cases {
            let (row, inner) = distances(m, k);
            let mut c = noise(m * n, 3);
            let want: Vec<f32> = (0..m * n)
                .map(|at| {
                    let (i, j) = (at / n, at % n);
                    let begin = if start == Start::Chain { c[at] } else { 0.0 };
                    let sum = (0..outer * k)
                        .fold(begin, |s, p| a[i * row + p / k * 3 * m * k + p % k * inner].mul_add(b[p * ldb + j], s));
                    if start == Start::Add { c[at] + sum } else { sum }
                })
                .collect();
            let e = Extent { m, outer, inner: k, n };
            let left = Left { base: a.as_ptr(), row, outer: 3 * m * k, inner };
            // SAFETY: buffers have the sizes that extent and strides name.
            unsafe { gemm(e, left, b.as_ptr(), ldb, c.as_mut_ptr(), n, start) };
            let next = Next::NOTHING;
            let product = Product { e, a: left, b: b.as_ptr(), ldb, c: c.as_mut_ptr(), ldc: n, start, next };
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
fn what_goes_past_the_caches_arrives() {
    #[repr(align(64))]
    struct Lines([f32; 13 * 3 * LINE]);
    let (m, k, ldc) = (13, 10, 3 * LINE);
    let (a, b) = (noise(m * k, 1), noise(k * NR, 2));
    for n in [NR, LINE, LINE + 8, 5] {
        let mut near = vec![9f32; m * ldc];
        let mut past = Lines([9.0; 13 * 3 * LINE]);
        let e = Extent { m, outer: 1, inner: k, n };
        let left = Left { base: a.as_ptr(), row: k, outer: 0, inner: 1 };
        let next = Next::NOTHING;
        let (b, c, start) = (b.as_ptr(), near.as_mut_ptr(), Start::Zero);
        let product = Product { e, a: left, b, ldb: NR, c, ldc, start, next };
        // SAFETY: buffers have the sizes that extent and strides name, and lines begin at lines.
        unsafe {
            singles(product);
            singles(Product { c: past.0.as_mut_ptr(), start: Start::Past, ..product });
        }
        written();
        assert_eq!(past.0[..], near, "{n} columns");
        #[cfg(target_arch = "x86_64")]
        if isa() != Isa::Portable {
            let mut past = Lines([9.0; 13 * 3 * LINE]);
            // SAFETY: as above, and the instruction set was detected.
            unsafe { avx2(Product { c: past.0.as_mut_ptr(), start: Start::Past, ..product }) };
            assert_eq!(past.0[..], near, "AVX2, {n} columns");
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
    for (m, k, n) in SHAPES {
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
