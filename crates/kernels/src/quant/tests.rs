//! Quantised products against the dequantised matrix, and every path against the plain one.

use super::*;
use crate::linear::tests::noise;

/// Random rows with scales that f16 holds exactly.
fn rows(n: usize, k: usize, group: usize, bits: u32, min: bool) -> QuantRows {
    let exact = |v: f32| f16::from_f32(v).to_f32();
    let q = noise(n * k, 1).iter().map(|v| ((v * 0.5 + 0.5) * (1 << bits) as f32) as u8).collect();
    let d: Vec<f32> = noise(n * k / group, 2).iter().map(|v| exact(v.abs() * 0.01 + 0.001)).collect();
    let shift = d.iter().zip(noise(n * k / group, 3)).map(|(d, v)| exact(d * ((1 << (bits - 1)) as f32 + v)));
    let m = if min { shift.collect() } else { Vec::new() };
    QuantRows { n, k, group, bits, q, d, m, offset: 1 << (bits - 1) }
}

#[test]
fn products_equal_those_of_the_dequantised_matrix_but_for_the_rounding_of_activations() {
    for (n, k, group, bits, min) in [
        (40, 64, 32, 4, true),
        (40, 64, 32, 4, false),
        (33, 96, 32, 5, false),
        (33, 96, 32, 5, true),
        (64, 256, 16, 8, false),
        (7, 32, 32, 8, false),
        (100, 864, 32, 5, true),
    ] {
        let rows = rows(n, k, group, bits, min);
        let (packed, plain) = (Quantized::new(&rows), rows.to_f32());
        for m in [1, 2, 5, 9, 31] {
            let x = noise(m * k, 4);
            let mut y = vec![0.5; m * n];
            forward_all(&mut [(&mut y, &packed)], &x, true);
            for (i, y) in y.iter().enumerate() {
                let (x, w) = (&x[i / n * k..][..k], &plain[i % n * k..][..k]);
                let want: f64 = 0.5 + x.iter().zip(w).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
                let size: f64 = x.iter().zip(w).map(|(a, b)| f64::from((a * b).powi(2))).sum::<f64>().sqrt();
                assert!((f64::from(*y) - want).abs() < 0.02 * (1.0 + size), "{n} {k} {bits} {m}: {y} {want}");
            }
        }
        let mut row = vec![0.0; k];
        packed.row(n - 1, &mut row);
        assert_eq!(row, plain[(n - 1) * k..]);
    }
}

#[test]
fn every_path_gives_the_same_bits() {
    for (group, bits, min) in
        [(32, 4, true), (32, 4, false), (32, 5, true), (32, 5, false), (16, 8, false), (32, 8, false)]
    {
        let (n, k, m) = (40, 128, 6 + 97);
        let packed = Quantized::new(&rows(n, k, group, bits, min));
        let x = noise(m * k, 7);
        let mut all = vec![0.0; m * n];
        forward_all(&mut [(&mut all, &packed)], &x, false);
        for row in (0..m).step_by(3) {
            let mut y = vec![0.0; n];
            forward_all(&mut [(&mut y, &packed)], &x[row * k..(row + 1) * k], false);
            assert_eq!(y, all[row * n..(row + 1) * n], "{bits}");
        }
        let mut a = Activations::default();
        a.fill(&x, k);
        let mut sums = [[0f32; NR]; 3];
        plain_tile(&mut sums, &packed, 1, &a, 2);
        for (i, sums) in sums.iter().enumerate() {
            assert_eq!(sums[..8], all[(i + 2) * n + NR..(i + 2) * n + n], "{bits}");
        }
        #[cfg(target_arch = "x86_64")]
        if avx2::available() {
            for count in [1, 2, 3, 4, 5, 8, 9, 101] {
                let (mut want, mut found) = (vec![[0f32; NR]; count], vec![[0f32; NR]; count]);
                plain_tile(&mut want, &packed, 0, &a, 2);
                // SAFETY: the instruction set was detected; panel and rows are inside.
                unsafe { avx2::tile(&mut found, &packed, 0, &a, 2) };
                assert_eq!(found, want, "AVX2, {bits} bits, {count} rows");
            }
        }
    }
}

/// The largest sums that a tile makes: all weights and activations as large as they get.
#[test]
fn the_largest_whole_numbers_fit() {
    let (n, k) = (40, 64);
    for (group, bits) in [(32, 4), (32, 5), (16, 8), (32, 8)] {
        for q in [0, 1 << (bits - 1), ((1u32 << bits) - 1) as u8] {
            let even = QuantRows { q: vec![q; n * k], ..rows(n, k, group, bits, false) };
            let packed = Quantized::new(&even);
            // Rows of one sign, of the other, and of both in turn: rounded they are 127 and -127.
            let sign = |row: usize, i: usize| [1.0, -1.0, if i.is_multiple_of(2) { 1.0 } else { -1.0 }][row % 3];
            let x: Vec<f32> = (0..9 * k).map(|at| sign(at / k, at)).collect();
            let mut a = Activations::default();
            a.fill(&x, k);
            for count in 1..=9 {
                let (mut want, mut found) = (vec![[0f32; NR]; count], vec![[0f32; NR]; count]);
                plain_tile(&mut want, &packed, 1, &a, 0);
                tile(&mut found, &packed, 1, &a, 0);
                assert_eq!(found, want, "{bits} bits, {q}");
                #[cfg(target_arch = "x86_64")]
                if avx2::available() {
                    found.fill([0.0; NR]);
                    // SAFETY: the instruction set was detected; panel and rows are inside.
                    unsafe { avx2::tile(&mut found, &packed, 1, &a, 0) };
                    assert_eq!(found, want, "AVX2, {bits} bits, {q}");
                }
            }
        }
    }
}

#[test]
fn eight_bits_of_f32_are_close() {
    let x = noise(64 * 3, 9);
    let back = QuantRows::from_f32(&x, 3, 64).to_f32();
    assert!(x.iter().zip(&back).all(|(a, b)| (a - b).abs() < 0.5 / 127.0 + 1e-6));
}
