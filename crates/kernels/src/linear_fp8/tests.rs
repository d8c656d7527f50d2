//! FP8 products against a slow reference, their error levels, and that bits do not depend on batch or threads.

use super::*;
use crate::linear::tests::noise;
use crate::params::Layout;

/// Rounds tiles of `height` by `width` of a row-major matrix and scales them back, in f64.
fn dequantised(x: &[f32], cols: usize, height: usize, width: usize, floor: f32) -> Vec<f64> {
    let rows = x.len() / cols;
    let mut out = vec![0.0; x.len()];
    for r0 in (0..rows).step_by(height) {
        for c0 in (0..cols).step_by(width) {
            let cells: Vec<usize> = (r0..(r0 + height).min(rows))
                .flat_map(|r| (c0..(c0 + width).min(cols)).map(move |c| r * cols + c))
                .collect();
            let largest = cells.iter().map(|i| x[*i].abs()).fold(0f32, f32::max).max(floor);
            let scale = if largest == 0.0 { 1.0 } else { largest / 448.0 };
            for i in cells {
                out[i] = f64::from(e4m3::from_bits(e4m3::to_bits(x[i] / scale))) * f64::from(scale);
            }
        }
    }
    out
}

fn close(a: &[f32], b: &[f64], tolerance: f64, what: &str) {
    assert_eq!(a.len(), b.len());
    let norm = (b.iter().map(|v| v * v).sum::<f64>() / b.len() as f64).sqrt();
    for (i, (x, y)) in a.iter().zip(b).enumerate() {
        assert!((f64::from(*x) - y).abs() < tolerance * norm, "{what} at {i}: {x} {y}");
    }
}

/// Standard normal numbers.
fn gauss(n: usize, seed: u64) -> Vec<f32> {
    let (u, v) = (noise(n, seed), noise(n, seed + 1));
    let pair = |(u, v): (&f32, &f32)| {
        let (u, v) = (f64::from(*u) / 2.0 + 0.5, f64::from(*v));
        ((-2.0 * (1.0 - u).max(1e-12).ln()).sqrt() * (std::f64::consts::PI * v).cos()) as f32
    };
    u.iter().zip(&v).map(pair).collect()
}

fn relative_rms(found: &[f64], wanted: &[f64]) -> f64 {
    let square = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>();
    let error = square(&mut found.iter().zip(wanted).map(|(a, b)| a - b));
    (error / square(&mut wanted.iter().copied())).sqrt()
}

#[test]
fn all_three_products_equal_the_reference_of_rounded_operands_on_odd_shapes() {
    for (m, n, k) in [(1, 5, 3), (3, 32, 40), (33, 70, 17), (140, 131, 300), (300, 257, 128), (70, 130, 129)] {
        let (x, w) = (gauss(m * k, 1), gauss(n * k, 2));
        // As small as gradients are.
        let d_y: Vec<f32> = gauss(m * n, 3).iter().map(|v| v * 1e-7).collect();
        let layout = Layout::Panels { n, k };
        let mut blocks = Blocks::default();
        blocks.quantise(&layout.store(w.clone()), n, k);
        let (rx, rw) = (dequantised(&x, k, 1, TILE, 1e-4), dequantised(&w, k, TILE, TILE, 0.0));
        let rd = dequantised(&d_y, n, 1, TILE, 0.0);
        for add in [false, true] {
            let mut y = noise(m * n, 4);
            let begin = if add { y.clone() } else { vec![0.0; m * n] };
            let want: Vec<f64> = (0..m * n)
                .map(|i| f64::from(begin[i]) + (0..k).map(|p| rx[i / n * k + p] * rw[i % n * k + p]).sum::<f64>())
                .collect();
            forward(&mut y, &x, &blocks, n, k, add);
            close(&y, &want, 1e-4, "forward");
            let begin = if add { 1e-7 } else { 0.0 };
            let mut d_x = vec![1e-7; m * k];
            let want: Vec<f64> = (0..m * k)
                .map(|i| f64::from(begin as f32) + (0..n).map(|p| rd[i / k * n + p] * rw[p * k + i % k]).sum::<f64>())
                .collect();
            backward_input(&mut d_x, &d_y, &blocks, n, k, add);
            close(&d_x, &want, 1e-4, "input gradient");
        }
        let twice: Vec<f32> = rx.iter().map(|v| *v as f32).collect();
        let (cx, cd) = (dequantised(&twice, k, TILE, 1, 0.0), dequantised(&d_y, n, TILE, 1, 0.0));
        let mut d_w = layout.store(vec![1e-7; n * k]);
        let want: Vec<f64> = (0..n * k)
            .map(|i| f64::from(1e-7f32) + (0..m).map(|p| cd[p * n + i / k] * cx[p * k + i % k]).sum::<f64>())
            .collect();
        backward_weight(&mut d_w, &d_y, &x, n, k);
        close(&layout.load(&d_w), &want, 1e-4, "weight gradient");
    }
}

#[test]
fn error_levels_are_those_expected_of_e4m3() {
    // Spec A.9: 2.6 % for the round trip of Gaussian numbers, 3.8 % for a product over 512.
    let exact = |v: &[f32]| v.iter().map(|x| f64::from(*x)).collect::<Vec<f64>>();
    let x = gauss(64 * 512, 5);
    let trip = relative_rms(&dequantised(&x, 512, 1, TILE, 1e-4), &exact(&x));
    assert!((trip - 0.026).abs() < 0.002, "round trip {trip}");
    let (m, n, k) = (64, 64, 512);
    let w = gauss(n * k, 7);
    let mut blocks = Blocks::default();
    blocks.quantise(&Layout::Panels { n, k }.store(w.clone()), n, k);
    let mut y = vec![0.0; m * n];
    forward(&mut y, &x, &blocks, n, k, false);
    let want: Vec<f64> =
        (0..m * n).map(|i| (0..k).map(|p| f64::from(x[i / n * k + p]) * f64::from(w[i % n * k + p])).sum()).collect();
    let product = relative_rms(&exact(&y), &want);
    assert!((product - 0.038).abs() < 0.003, "product {product}");
    // An outlier spoils its own tile, not the row: the other tiles keep their error; with one scale per row they lose it.
    let mut spoilt = x.clone();
    for row in spoilt.chunks_exact_mut(512) {
        row[0] = 1e5;
    }
    let rest = |v: &[f64]| v.chunks_exact(512).flat_map(|r| r[TILE..].to_vec()).collect::<Vec<f64>>();
    let fine = relative_rms(&rest(&dequantised(&spoilt, 512, 1, TILE, 1e-4)), &rest(&exact(&spoilt)));
    let coarse = relative_rms(&rest(&dequantised(&spoilt, 512, 1, 512, 1e-4)), &rest(&exact(&spoilt)));
    assert!((fine - 0.026).abs() < 0.002 && coarse > 0.1, "{fine} {coarse}");
}

#[test]
fn a_row_has_the_same_bits_in_any_batch_and_gradients_on_any_threads() {
    let (m, n, k) = (300, 70, 200);
    let (x, d_y, w) = (gauss(m * k, 8), gauss(m * n, 9), gauss(n * k, 10));
    let mut blocks = Blocks::default();
    blocks.quantise(&Layout::Panels { n, k }.store(w), n, k);
    let run = || {
        let (mut y, mut d_x, mut d_w) = (vec![0.0; m * n], vec![0.0; m * k], vec![0.0; n.div_ceil(NR) * NR * k]);
        forward(&mut y, &x, &blocks, n, k, false);
        backward_input(&mut d_x, &d_y, &blocks, n, k, false);
        backward_weight(&mut d_w, &d_y, &x, n, k);
        (y, d_x, d_w)
    };
    let all = run();
    assert!(all == crate::par::serial(run));
    for row in [0, 7, 299] {
        let (mut y, mut d_x) = (vec![0.0; n], vec![0.0; k]);
        forward(&mut y, &x[row * k..(row + 1) * k], &blocks, n, k, false);
        assert_eq!(y, all.0[row * n..(row + 1) * n]);
        backward_input(&mut d_x, &d_y[row * n..(row + 1) * n], &blocks, n, k, false);
        assert_eq!(d_x, all.1[row * k..(row + 1) * k]);
    }
}

#[test]
fn numbers_that_are_not_finite_are_not_hidden() {
    let (n, k) = (40, 130);
    let mut blocks = Blocks::default();
    blocks.quantise(&Layout::Panels { n, k }.store(gauss(n * k, 11)), n, k);
    for bad in [f32::NAN, f32::INFINITY] {
        let (mut x, mut y) = (gauss(2 * k, 12), vec![0.0; 2 * n]);
        x[5] = bad;
        forward(&mut y, &x, &blocks, n, k, false);
        assert!(y[..n].iter().all(|v| v.is_nan()) && y[n..].iter().all(|v| v.is_finite()));
        let mut d_w = vec![0.0; n.div_ceil(NR) * NR * k];
        backward_weight(&mut d_w, &gauss(2 * n, 13), &x, n, k);
        assert!(d_w.iter().any(|v| v.is_nan()));
    }
}
