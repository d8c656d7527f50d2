//! Low-rank adapters (LoRA, Hu et al. 2021): y = x W^T + s (x A^T) B^T with A `[r, k]`, B `[n, r]` and a fixed s.
//!
//! An adapter is part of a [`Weight`], so that every product with the weight has it: training, scoring, prefill and decoding
//! alike, expert matrices and the output head too. x A^T is made anew where a backward needs it: it costs little
//! beside the product with W, and a training then keeps no activation for it. Both factors run in the numbers of the other
//! products (bf16 where those are FP8), and s multiplies the `[m, r]` values between them.

use crate::cpu::math;
use crate::gradients::WeightGradients;
use crate::linear;
use crate::linear_bf16::Packed;
use crate::params::Weight;
use rayon::prelude::*;

/// One factor of an adapter as the products read it.
#[derive(Clone, Copy, Debug)]
pub struct Factor<'a> {
    /// f32 panels.
    pub panels: &'a [f32],
    /// The same in bf16, when products run in it.
    pub packed: Option<&'a Packed>,
}

/// The two factors beside a matrix `[n, k]`.
#[derive(Clone, Copy, Debug)]
pub struct Adapter<'a> {
    /// r.
    pub rank: usize,
    /// What the product of both is multiplied with: alpha / r, or alpha / sqrt(r).
    pub scale: f32,
    /// A `[r, k]`.
    pub a: Factor<'a>,
    /// B `[n, r]`.
    pub b: Factor<'a>,
}

impl<'a> Adapter<'a> {
    fn weights(&self, n: usize, k: usize) -> (Weight<'a>, Weight<'a>) {
        let weight = |f: Factor<'a>, n, k| Weight { packed: f.packed, ..Weight::f32(f.panels, n, k) };
        (weight(self.a, self.rank, k), weight(self.b, n, self.rank))
    }
}

/// y_i `[m, n_i]` += s_i (x A_i^T) B_i^T for the outputs that have an adapter; x `[m, k]`.
pub fn forward(outputs: &mut [(&mut [f32], Weight)], x: &[f32]) {
    let mut inner: Vec<(Vec<f32>, Weight, f32)> = Vec::with_capacity(outputs.len());
    for (_, w) in outputs.iter() {
        if let Some(adapter) = &w.adapter {
            let m = x.len() / w.k;
            inner.push((vec![0.0; m * adapter.rank], adapter.weights(w.n, w.k).0, adapter.scale));
        }
    }
    let mut all: Vec<_> = inner.iter_mut().map(|(u, a, _)| (&mut u[..], *a)).collect();
    linear::forward_all(&mut all, x);
    let adapted = outputs.iter_mut().filter_map(|(y, w)| Some((y, w.adapter?, w)));
    for ((y, adapter, w), (u, _, scale)) in adapted.zip(&mut inner) {
        math::scale(u, *scale);
        linear::forward(y, u, adapter.weights(w.n, w.k).1, true);
    }
}

/// d_x `[m, k]` += s (d_y B) A.
pub fn backward_input(d_x: &mut [f32], d_y: &[f32], adapter: &Adapter, n: usize, k: usize) {
    let (a, b) = adapter.weights(n, k);
    let d_u = inner_gradient(d_y, b, adapter);
    linear::backward_input(d_x, &d_u, a, true);
}

/// The same, and the gradients of both factors where they are wanted: d_B += s d_y^T (x A^T), d_A += s (d_y B)^T x.
pub fn backward(d_x: &mut [f32], g: &mut WeightGradients, d_y: &[f32], x: &[f32], w: Weight) {
    let Some(adapter) = &w.adapter else { return };
    let (a, b) = adapter.weights(w.n, w.k);
    let d_u = inner_gradient(d_y, b, adapter);
    linear::backward_input(d_x, &d_u, a, true);
    if !g.a.is_empty() {
        linear::backward_weight(g.a, &d_u, x, a);
    }
    if !g.b.is_empty() {
        let mut u = vec![0.0; d_u.len()];
        linear::forward(&mut u, x, a, false);
        math::scale(&mut u, adapter.scale);
        linear::backward_weight(g.b, d_y, &u, b);
    }
}

/// s d_y B `[m, r]`.
fn inner_gradient(d_y: &[f32], b: Weight, adapter: &Adapter) -> Vec<f32> {
    let mut d_u = vec![0.0; d_y.len() / b.n * adapter.rank];
    linear::backward_input(&mut d_u, d_y, b, false);
    math::scale(&mut d_u, adapter.scale);
    d_u
}

/// w `[n, k]` += s B A, all row-major: the matrix that a model without adapters has. Sums run in f64.
pub fn merge(w: &mut [f32], a: &[f32], b: &[f32], rank: usize, scale: f32) {
    if rank == 0 {
        return;
    }
    let k = a.len() / rank;
    assert!(w.len() == b.len() / rank * k, "merged factors have the shape of the matrix");
    w.par_chunks_mut(k).zip(b.par_chunks(rank)).for_each(|(row, b)| {
        let mut sum = vec![0f64; k];
        for (b, a) in b.iter().zip(a.chunks_exact(k)) {
            for (s, a) in sum.iter_mut().zip(a) {
                *s += f64::from(*b) * f64::from(*a);
            }
        }
        for (w, s) in row.iter_mut().zip(sum) {
            *w = (f64::from(*w) + f64::from(scale) * s) as f32;
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linear::tests::noise;
    use crate::{Gradients, Layout, ParamId, ParamStore, Precision};

    const M: usize = 37;

    fn store(n: usize, k: usize, rank: usize) -> (ParamStore, [ParamId; 3]) {
        let mut params = ParamStore::default();
        let w = params.add("w.weight", Layout::Panels { n, k }, noise(n * k, 1));
        let a = params.add("w.lora_A.weight", Layout::Panels { n: rank, k }, noise(rank * k, 2));
        let b = params.add("w.lora_B.weight", Layout::Panels { n, k: rank }, noise(n * rank, 3));
        params.freeze(w);
        params.attach(w, a, b, 0.7);
        (params, [w, a, b])
    }

    #[test]
    fn the_product_is_that_of_the_merged_matrix_and_a_row_has_the_same_bits_in_any_batch() {
        for (n, k, rank) in [(5, 3, 1), (70, 129, 4), (32, 64, 40)] {
            let (mut params, [w, a, b]) = store(n, k, rank);
            let mut merged = noise(n * k, 1);
            merge(&mut merged, &noise(rank * k, 2), &noise(n * rank, 3), rank, 0.7);
            assert_eq!(params.merged(w), merged);
            assert_eq!(params.merged(a), noise(rank * k, 2));
            assert_eq!(params.merged(b), noise(n * rank, 3));
            let x = noise(M * k, 4);
            for (precision, tolerance) in [(Precision::F32, 1e-4), (Precision::Bf16, 0.3)] {
                params.set_precision(precision, true);
                let mut y = vec![0.0; M * n];
                linear::forward(&mut y, &x, params.weight(w), false);
                for (i, y) in y.iter().enumerate() {
                    let want: f64 =
                        (0..k).map(|j| f64::from(x[i / n * k + j]) * f64::from(merged[i % n * k + j])).sum();
                    assert!((f64::from(*y) - want).abs() < tolerance, "{precision:?} at {i}: {y} {want}");
                }
                let mut both = [vec![0.0; M * n], vec![0.0; M * n]];
                let [first, second] = &mut both;
                linear::forward_all(&mut [(first, params.weight(w)), (second, params.weight(w))], &x);
                assert!(both.iter().all(|other| *other == y));
                for row in [0, M - 1] {
                    let mut alone = vec![0.0; n];
                    linear::forward(&mut alone, &x[row * k..(row + 1) * k], params.weight(w), false);
                    assert_eq!(alone, y[row * n..(row + 1) * n]);
                }
            }
        }
    }

    #[test]
    fn gradients_equal_the_reference_and_finite_differences() {
        let (n, k, rank) = (35, 40, 3);
        let (params, [w, a, b]) = store(n, k, rank);
        let (x, d_y) = (noise(M * k, 5), noise(M * n, 6));
        let loss = |params: &ParamStore, x: &[f32]| -> f64 {
            let mut y = vec![0.0; M * n];
            linear::forward(&mut y, x, params.weight(w), false);
            y.iter().zip(&d_y).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
        };
        let mut grads = Gradients::new(&params);
        let mut d_x = vec![0.0; M * k];
        grads.with_weight(&params, w, |d_w| linear::backward(&mut d_x, d_w, &d_y, &x, params.weight(w), false));
        assert!(grads.get(w).is_empty(), "the matrix is frozen");
        let mut only_x = vec![0.0; M * k];
        linear::backward_input(&mut only_x, &d_y, params.weight(w), false);
        assert_eq!(d_x, only_x);
        let h = 0.05;
        for id in [a, b] {
            let gradient = params.get(id).layout.load(grads.get(id));
            let values = params.get(id).layout.load(params.data(id));
            for at in (0..values.len()).step_by(7) {
                let moved = |by: f32| {
                    let mut params = params.clone();
                    let mut values = values.clone();
                    values[at] += by;
                    params.get_mut(id).data = params.get(id).layout.store(values).into();
                    loss(&params, &x)
                };
                // Linear in each factor: a difference of any width is exact but for rounding.
                let slope = (moved(h) - moved(-h)) / f64::from(2.0 * h);
                assert!((slope - f64::from(gradient[at])).abs() < 0.02, "at {at}: {slope} {}", gradient[at]);
            }
        }
        for at in (0..x.len()).step_by(53) {
            let moved = |by: f32| {
                let mut x = x.clone();
                x[at] += by;
                loss(&params, &x)
            };
            let slope = (moved(h) - moved(-h)) / f64::from(2.0 * h);
            assert!((slope - f64::from(d_x[at])).abs() < 0.02, "x at {at}: {slope} {}", d_x[at]);
        }
    }

    #[test]
    fn a_clone_shares_what_is_frozen_and_has_adapters_of_its_own() {
        let (mut policy, [w, a, _]) = store(40, 30, 2);
        policy.set_precision(Precision::Bf16, true);
        let mut reference = policy.clone();
        reference.set_precision(Precision::Bf16, false);
        let before = reference.data(a).to_vec();
        policy.get_mut(a).data[0] += 1.0;
        policy.refresh();
        assert!(policy.get(w).data.shares(&reference.get(w).data));
        assert_eq!(reference.data(a), before);
        reference.copy_from(&policy);
        assert!(policy.get(w).data.shares(&reference.get(w).data));
        assert_eq!(reference.data(a), policy.data(a));
        let outputs = [&policy, &reference].map(|params| {
            let mut y = vec![0.0; 3 * 40];
            linear::forward(&mut y, &noise(90, 8), params.weight(w), false);
            y
        });
        assert_eq!(outputs[0], outputs[1]);
    }
}
