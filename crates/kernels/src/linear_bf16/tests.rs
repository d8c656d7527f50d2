//! The three products in bf16 against their references, on odd shapes, alone and together.

use super::gradient::weight_gradients;
use super::*;
use crate::cpu::bf16::round;
use crate::linear::tests::{close, noise};
use crate::params::Layout;

fn rounded(values: &[f32]) -> Vec<f64> {
    values.iter().map(|v| f64::from(round(*v))).collect()
}

#[test]
fn all_three_products_equal_the_reference_of_rounded_operands_on_odd_shapes() {
    for (m, n, k) in
        [(1, 5, 3), (3, 32, 40), (33, 70, 17), (100, 31, 65), (300, 64, 24), (1100, 33, 14), (40, 530, 1001)]
    {
        let (x, w, d_y) = (noise(m * k, 1), noise(n * k, 2), noise(m * n, 3));
        let mut packed = Packed::default();
        packed.pack(&Layout::Panels { n, k }.store(w.clone()), n, k, true);
        let mut forward_only = packed.clone();
        forward_only.turn(n, k, false);
        let (rx, rw, rd) = (rounded(&x), rounded(&w), rounded(&d_y));
        for add in [false, true] {
            let mut y = noise(m * n, 4);
            let begin = if add { y.clone() } else { vec![0.0; m * n] };
            let want: Vec<f64> = (0..m * n)
                .map(|i| f64::from(begin[i]) + (0..k).map(|p| rx[i / n * k + p] * rw[i % n * k + p]).sum::<f64>())
                .collect();
            forward(&mut y, &x, &packed, n, k, add);
            close(&y, &want, 1e-4);
            let mut d_x = vec![0.5; m * k];
            let begin = if add { 0.5 } else { 0.0 };
            let want: Vec<f64> = (0..m * k)
                .map(|i| begin + (0..n).map(|p| rd[i / k * n + p] * rw[p * k + i % k]).sum::<f64>())
                .collect();
            let mut turned_on_the_way = d_x.clone();
            backward_input(&mut d_x, &d_y, &packed, n, k, add);
            close(&d_x, &want, 1e-4);
            backward_input(&mut turned_on_the_way, &d_y, &forward_only, n, k, add);
            assert_eq!(turned_on_the_way, d_x);
        }
        let layout = Layout::Panels { n, k };
        let want: Vec<f64> =
            (0..n * k).map(|i| 0.25 + (0..m).map(|p| rd[p * n + i / k] * rx[p * k + i % k]).sum::<f64>()).collect();
        for as_rows in [false, true] {
            let mut d_w = layout.store(vec![0.25; n * k]);
            weight_gradients(&mut [(&mut d_w, (&d_y).into(), n)], (&x).into(), k, as_rows);
            close(&layout.load(&d_w), &want, 3e-4);
        }
    }
}

#[test]
fn a_row_has_the_same_bits_in_any_batch_and_gradients_on_any_threads() {
    let (m, n, k) = (1300, 70, 129);
    let (x, d_y) = (noise(m * k, 5), noise(m * n, 6));
    let mut w = Packed::default();
    w.pack(&Layout::Panels { n, k }.store(noise(n * k, 7)), n, k, true);
    let run = || {
        let (mut y, mut d_x, mut d_w) = (vec![0.0; m * n], vec![0.0; m * k], vec![0.0; n.div_ceil(NR) * NR * k]);
        forward(&mut y, &x, &w, n, k, false);
        backward_input(&mut d_x, &d_y, &w, n, k, true);
        backward_weight(&mut d_w, &d_y, &x, n, k);
        (y, d_x, d_w)
    };
    let all = run();
    assert!(all == par::serial(run));
    for row in [0, 7, 1299] {
        let mut y = vec![0.0; n];
        forward(&mut y, &x[row * k..(row + 1) * k], &w, n, k, false);
        assert_eq!(y, all.0[row * n..(row + 1) * n]);
    }
}

#[test]
fn a_large_result_has_the_bits_of_its_rows() {
    for (m, n, k) in [(4100, 512, 10), (4100, 520, 6), (2050, 1024, 34)] {
        let x = noise(m * k, 5);
        let mut w = Packed::default();
        w.pack(&Layout::Panels { n, k }.store(noise(n * k, 7)), n, k, true);
        let mut room = vec![0f32; m * n + LINE];
        // At a line, or it would not go past the caches.
        let first = room.as_ptr().align_offset(4 * LINE);
        let y = &mut room[first..first + m * n];
        forward(y, &x, &w, n, k, false);
        for row in [0, 1, 13, m / 2, m - 1] {
            let mut alone = vec![0.0; n];
            forward(&mut alone, &x[row * k..(row + 1) * k], &w, n, k, false);
            assert_eq!(alone, y[row * n..(row + 1) * n], "{m} {n} {k}: row {row}");
        }
        let target = Target { out: Shared::new(y), from: 0, row: n, panels: w.words(), n };
        let want = if n.is_multiple_of(LINE) { Start::Past } else { Start::Zero };
        assert!(target.start(m, Start::Zero) == want && target.start(m, Start::Add) == Start::Add);
        assert!(target.start(7, Start::Zero) == Start::Zero, "a small one is soon read again");
    }
}

/// x in bf16.
fn lowered(x: &[f32]) -> Vec<u32> {
    let mut words = vec![0; x.len() / 2];
    crate::cpu::bf16::halve(halves(as_f32(&mut words)), x);
    words
}

fn pairs(words: &mut [u32]) -> Rows<'_> {
    Rows::Pairs(halves(as_f32(words)))
}

#[test]
fn operands_that_lie_in_bf16_give_the_same_bits() {
    for (m, n, k) in
        [(1, 2, 4), (3, 34, 40), (67, 70, 18), (301, 64, 1024), (1025, 1030, 30), (40, 2048, 96), (27, 40, 4096)]
    {
        let (x, d_y) = (noise(m * k, 1), noise(m * n, 2));
        let (mut low_x, mut low_d) = (lowered(&x), lowered(&d_y));
        let mut w = Packed::default();
        w.pack(&Layout::Panels { n, k }.store(noise(n * k, 3)), n, k, true);
        let run = |x: Rows, d_y: Rows| {
            let (mut y, mut d_x) = (vec![0.5; m * n], vec![0.5; m * k]);
            forward(&mut y, x, &w, n, k, true);
            backward_input(&mut d_x, d_y, &w, n, k, false);
            let d_w = [false, true].map(|as_rows| {
                let mut d_w = vec![0.25; n.div_ceil(NR) * NR * k];
                weight_gradients(&mut [(&mut d_w, d_y, n)], x, k, as_rows);
                d_w
            });
            (y, d_x, d_w)
        };
        let want = run((&x).into(), (&d_y).into());
        assert!(run(pairs(&mut low_x), pairs(&mut low_d)) == want, "{m} {n} {k}");
        let mut both = [vec![0.25; n.div_ceil(NR) * NR * k], vec![0.25; n.div_ceil(NR) * NR * k]];
        let [a, b] = &mut both;
        backward_weights(&mut [(a, pairs(&mut low_d), n), (b, (&d_y).into(), n)], pairs(&mut low_x), k);
        let as_rows = usize::from(bf16_tiles());
        assert!(both[0] == want.2[as_rows] && both[1] == both[0], "together: {m} {n} {k}");
    }
}

#[test]
fn matrices_of_different_widths_have_together_the_gradients_they_have_alone() {
    for (m, k) in [(67, 70), (1025, 600)] {
        let (x, widths) = (noise(m * k, 1), [1030, 70, 5]);
        let d_y = widths.map(|n| noise(m * n, n as u64));
        for as_rows in [false, true] {
            let room = || widths.map(|n| vec![0.25; n.div_ceil(NR) * NR * k]);
            let mut alone = room();
            for ((d_w, d_y), n) in alone.iter_mut().zip(&d_y).zip(widths) {
                weight_gradients(&mut [(d_w, d_y.into(), n)], (&x).into(), k, as_rows);
            }
            let together = || {
                let mut all = room();
                let mut targets: Vec<_> =
                    all.iter_mut().zip(&d_y).zip(widths).map(|((d_w, d_y), n)| (&mut d_w[..], d_y.into(), n)).collect();
                weight_gradients(&mut targets, (&x).into(), k, as_rows);
                all
            };
            assert!(together() == alone, "{m} {k}, as rows: {as_rows}");
            assert!(par::serial(together) == alone, "{m} {k}, as rows: {as_rows}, one thread");
        }
    }
}
