//! Linear layers over panel weights: y = x W^T (+ b) (+ residual), and both gradients.
//!
//! Shapes: x `[m, k]`, W `[n, k]` as panels, y `[m, n]`. Sums run over k (forward), n (input gradient) and m (weight
//! gradient) in ascending order, so no result depends on how the work was split.

use crate::gradients::WeightGradients;
use crate::par::{self, Shared};
use crate::params::Weight;
use crate::quant;
use crate::rows::Rows;
use crate::{linear_bf16, linear_f32, linear_fp8, lora};

/// y `[m, n]` = x `[m, k]` W^T, or y += x W^T with `add` (the product is summed first, then added).
/// Then what the adapter of W gives is added, where it has one.
pub fn forward<'a>(y: &mut [f32], x: impl Into<Rows<'a>>, w: Weight, add: bool) {
    let x = x.into();
    base_forward(y, x, w, add);
    if w.adapter.is_some() {
        lora::forward(&mut [(y, w)], x.singles());
    }
}

fn base_forward(y: &mut [f32], x: Rows, w: Weight, add: bool) {
    let (n, k) = (w.n, w.k);
    if let Some(quantized) = w.quantized {
        return quant::forward_all(&mut [(y, quantized)], x.singles(), add);
    }
    if let Some(blocks) = w.fp8 {
        return linear_fp8::forward(y, x.singles(), blocks, n, k, add);
    }
    if let Some(packed) = w.packed {
        return linear_bf16::forward(y, x, packed, n, k, add);
    }
    linear_f32::forward(y, x.singles(), w.panels, n, k, add);
}

/// Several products with the same x, each `[m, n_i]` = x W_i^T: x is rounded once, and the threads meet once.
pub fn forward_all<'a>(outputs: &mut [(&mut [f32], Weight)], x: impl Into<Rows<'a>>) {
    let x = x.into();
    base_forward_all(outputs, x);
    if outputs.iter().any(|(_, w)| w.adapter.is_some()) {
        lora::forward(outputs, x.singles());
    }
}

fn base_forward_all(outputs: &mut [(&mut [f32], Weight)], x: Rows) {
    if outputs.iter().all(|(_, w)| w.quantized.is_some()) {
        let mut all: Vec<_> = outputs.iter_mut().filter_map(|(y, w)| Some((&mut **y, w.quantized?))).collect();
        return quant::forward_all(&mut all, x.singles(), false);
    }
    if outputs.iter().all(|(_, w)| w.packed.is_some() && w.quantized.is_none()) {
        let k = outputs.first().map_or(1, |(_, w)| w.k);
        let mut all: Vec<_> = outputs.iter_mut().filter_map(|(y, w)| Some((&mut **y, w.packed?, w.n))).collect();
        return linear_bf16::forward_all(&mut all, x, k);
    }
    for (y, w) in outputs {
        base_forward(y, x, *w, false);
    }
}

/// Adds a bias `[n]` to every row of y `[m, n]`.
pub fn add_bias(y: &mut [f32], b: &[f32]) {
    for row in y.chunks_exact_mut(b.len()) {
        crate::cpu::math::add_assign(row, b);
    }
}

/// d_b `[n]` += column sums of d_y `[m, n]`.
pub fn bias_backward(d_b: &mut [f32], d_y: &[f32]) {
    let n = d_b.len();
    let out = Shared::new(d_b);
    par::ranges(n, 256, |cols| {
        // SAFETY: each task owns its own columns.
        let d_b = unsafe { out.slice(cols.start, cols.len()) };
        for row in d_y.chunks_exact(n) {
            crate::cpu::math::add_assign(d_b, &row[cols.clone()]);
        }
    });
}

/// Everything a product has to give back: d_x = or += as in [`backward_input`], and the gradients of the matrix and of its
/// adapter where they are wanted.
pub fn backward<'a>(
    d_x: &mut [f32],
    g: &mut WeightGradients,
    d_y: impl Into<Rows<'a>>,
    x: impl Into<Rows<'a>>,
    w: Weight,
    add: bool,
) {
    let (d_y, x) = (d_y.into(), x.into());
    backward_input(d_x, d_y, Weight { adapter: None, ..w }, add);
    if !g.weight.is_empty() {
        backward_weight(g.weight, d_y, x, w);
    }
    if w.adapter.is_some() {
        lora::backward(d_x, g, d_y.singles(), x.singles(), w);
    }
}

/// Whether [`backward_together`] takes these matrices.
pub fn go_together<'a>(mut weights: impl Iterator<Item = Weight<'a>>) -> bool {
    weights.all(|w| w.reads_pairs())
}

/// [`backward`] for several matrices `(d_w, d_y, w)` of one x, in this order: it is packed once. `d_w` is empty for what is
/// frozen.
///
/// # Panics
/// When they do not [`go_together`].
pub fn backward_together<'a>(
    d_x: &mut [f32],
    add: bool,
    targets: &mut [(&mut [f32], Rows, Weight)],
    x: impl Into<Rows<'a>>,
) {
    assert!(go_together(targets.iter().map(|(_, _, w)| *w)), "products in bf16, without adapters");
    for (i, (_, d_y, w)) in targets.iter().enumerate() {
        base_backward_input(d_x, *d_y, *w, add || i > 0);
    }
    let Some(k) = targets.first().map(|(_, _, w)| w.k) else { return };
    let mut all: Vec<_> =
        targets.iter_mut().filter(|(d_w, _, _)| !d_w.is_empty()).map(|(d_w, d_y, w)| (&mut **d_w, *d_y, w.n)).collect();
    if !all.is_empty() {
        linear_bf16::backward_weights(&mut all, x, k);
    }
}

/// d_x `[m, k]` = d_y `[m, n]` W, or += with `add`; with an adapter, of both.
pub fn backward_input<'a>(d_x: &mut [f32], d_y: impl Into<Rows<'a>>, w: Weight, add: bool) {
    let d_y = d_y.into();
    base_backward_input(d_x, d_y, w, add);
    if let Some(adapter) = &w.adapter {
        lora::backward_input(d_x, d_y.singles(), adapter, w.n, w.k);
    }
}

fn base_backward_input(d_x: &mut [f32], d_y: Rows, w: Weight, add: bool) {
    let (n, k) = (w.n, w.k);
    if let Some(blocks) = w.fp8 {
        return linear_fp8::backward_input(d_x, d_y.singles(), blocks, n, k, add);
    }
    if let Some(packed) = w.packed {
        return linear_bf16::backward_input(d_x, d_y, packed, n, k, add);
    }
    linear_f32::backward_input(d_x, d_y.singles(), w.panels, n, k, add);
}

/// d_w (panels of the shape of w) += d_y^T x, summed over tokens in order.
pub fn backward_weight<'a>(d_w: &mut [f32], d_y: impl Into<Rows<'a>>, x: impl Into<Rows<'a>>, w: Weight) {
    let (n, k, d_y, x) = (w.n, w.k, d_y.into(), x.into());
    if w.fp8.is_some() {
        return linear_fp8::backward_weight(d_w, d_y.singles(), x.singles(), n, k);
    }
    if w.packed.is_some() {
        return linear_bf16::backward_weight(d_w, d_y, x, n, k);
    }
    linear_f32::backward_weight(d_w, d_y.singles(), x.singles(), n, k);
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::params::Layout;

    /// Deterministic noise in [-1, 1).
    pub(crate) fn noise(n: usize, seed: u64) -> Vec<f32> {
        let mut s = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        (0..n)
            .map(|_| {
                s ^= s << 13;
                s ^= s >> 7;
                s ^= s << 17;
                (s >> 40) as f32 / (1 << 23) as f32 - 1.0
            })
            .collect()
    }

    pub(crate) fn close(a: &[f32], b: &[f64], tolerance: f64) {
        assert_eq!(a.len(), b.len());
        for (i, (x, y)) in a.iter().zip(b).enumerate() {
            assert!((f64::from(*x) - y).abs() < tolerance, "at {i}: {x} {y}");
        }
    }

    #[test]
    fn all_three_products_equal_the_reference_on_odd_shapes() {
        for (m, n, k) in [(1, 5, 3), (3, 32, 40), (33, 70, 17), (100, 31, 65), (300, 64, 24), (130, 520, 300)] {
            let (x, w, d_y) = (noise(m * k, 1), noise(n * k, 2), noise(m * n, 3));
            let layout = Layout::Panels { n, k };
            let panels = layout.store(w.clone());
            let at = |v: &[f32], i: usize| f64::from(v[i]);
            let mut y = noise(m * n, 4);
            let want: Vec<f64> = (0..m * n)
                .map(|i| at(&y, i) + (0..k).map(|p| at(&x, i / n * k + p) * at(&w, i % n * k + p)).sum::<f64>())
                .collect();
            let weight = Weight::f32(&panels, n, k);
            forward(&mut y, &x, weight, true);
            close(&y, &want, 1e-4);
            let mut d_x = vec![0.5; m * k];
            let want: Vec<f64> = (0..m * k)
                .map(|i| 0.5 + (0..n).map(|p| at(&d_y, i / k * n + p) * at(&w, p * k + i % k)).sum::<f64>())
                .collect();
            backward_input(&mut d_x, &d_y, weight, true);
            close(&d_x, &want, 1e-4);
            let mut d_w = layout.store(vec![0.25; n * k]);
            let want: Vec<f64> = (0..n * k)
                .map(|i| 0.25 + (0..m).map(|p| at(&d_y, p * n + i / k) * at(&x, p * k + i % k)).sum::<f64>())
                .collect();
            backward_weight(&mut d_w, &d_y, &x, weight);
            close(&layout.load(&d_w), &want, 2e-4);
        }
    }

    #[test]
    fn a_row_has_the_same_bits_in_any_batch_and_on_one_thread() {
        let (n, k) = (70, 129);
        let (x, w) = (noise(300 * k, 5), Layout::Panels { n, k }.store(noise(n * k, 6)));
        let w = Weight::f32(&w, n, k);
        let mut all = vec![0.0; 300 * n];
        forward(&mut all, &x, w, false);
        let mut alone = vec![0.0; 300 * n];
        crate::par::serial(|| forward(&mut alone, &x, w, false));
        assert_eq!(all, alone);
        for row in [0, 7, 299] {
            let mut y = vec![0.0; n];
            forward(&mut y, &x[row * k..(row + 1) * k], w, false);
            assert_eq!(y, all[row * n..(row + 1) * n]);
        }
    }

    #[test]
    fn gradients_do_not_depend_on_threads() {
        for threads in [2, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                gradients_on_threads(700, 70, 130);
                // More than what is turned at a time, and more terms than a span.
                gradients_on_threads(1600, 330, 600);
                gradients_on_threads(40, 1000, 290);
                // Narrow ones, as adapters have.
                gradients_on_threads(500, 200, 16);
                gradients_on_threads(500, 16, 200);
            });
        }
    }

    #[test]
    fn sums_of_several_spans_are_one_chain() {
        let (m, n, k) = (110, 70, 600);
        let (x, rows) = (noise(m * k, 5), noise(n * k, 6));
        let w = Layout::Panels { n, k }.store(rows.clone());
        for add in [false, true] {
            let mut y = vec![0.25; m * n];
            forward(&mut y, &x, Weight::f32(&w, n, k), add);
            for (at, y) in y.iter().enumerate() {
                let sum = (0..k).fold(0f32, |s, p| x[at / n * k + p].mul_add(rows[at % n * k + p], s));
                assert_eq!(*y, if add { 0.25 + sum } else { sum });
            }
            forward(&mut [], &[] as &[f32], Weight::f32(&w, n, k), add);
            backward_input(&mut [], &[] as &[f32], Weight::f32(&w, n, k), add);
        }
    }

    fn gradients_on_threads(m: usize, n: usize, k: usize) {
        let (x, d_y, w) = (noise(m * k, 5), noise(m * n, 6), Layout::Panels { n, k }.store(noise(n * k, 7)));
        let run = || {
            let (mut d_w, mut d_x) = (vec![0.0; w.len()], vec![0.0; m * k]);
            let w = Weight::f32(&w, n, k);
            backward_weight(&mut d_w, &d_y, &x, w);
            backward_input(&mut d_x, &d_y, w, false);
            backward_input(&mut d_x, &d_y, w, true);
            (d_w, d_x)
        };
        let (d_w, d_x) = run();
        assert!((&d_w, &d_x) == (&crate::par::serial(run).0, &crate::par::serial(run).1));
        // Some rows and values one by one, in order.
        let row_major = Layout::Panels { n, k }.load(&w);
        for at in (0..m * k).step_by(m * k / 50) {
            let sum = (0..n).fold(0f32, |s, j| d_y[at / k * n + j].mul_add(row_major[j * k + at % k], s));
            assert_eq!(d_x[at], sum + sum);
        }
        let d_w = Layout::Panels { n, k }.load(&d_w);
        for at in (0..n * k).step_by(n * k / 50) {
            let block = |t0: usize| {
                (t0..(t0 + 256).min(m)).fold(0f32, |s, t| d_y[t * n + at / k].mul_add(x[t * k + at % k], s))
            };
            let sum = (0..m).step_by(256).map(block).fold(0f32, |sum, block| sum + block);
            assert_eq!(d_w[at], sum);
        }
    }
}
