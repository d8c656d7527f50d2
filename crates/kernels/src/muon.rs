//! Muon (Jordan et al. 2024): momentum, made orthogonal by Newton-Schulz steps, for the matrices inside the blocks.
//!
//! m = mu m + (1 - mu) g; u = (1 - mu) g + mu m (Nesterov); O = NewtonSchulz(u); w = w (1 - lr decay) - lr s O. With
//! X = u / |u|: X <- a X + (b G + c G G) X, G = X X^T, five times, on the transpose where the matrix is higher than wide.
//! s = 0.2 sqrt(max(n, k)) makes the step as large as AdamW's (Liu et al. 2025, "Muon is scalable for LLM training"), so that
//! learning rates carry over; s = sqrt(max(1, n / k)) is the original. Names and defaults as torch.optim.Muon, which iterates
//! in bf16; here it is f32.

use crate::cpu::NR;
use crate::cpu::gemm::{Extent, Left, Start, gemm};
use crate::cpu::math::{self, SQUARE};
use crate::par::{self, Shared};
use crate::params::{Layout, Param};

/// How far a step goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StepSize {
    /// 0.2 sqrt(max(n, k)): the root mean square of an AdamW step.
    #[default]
    MatchRmsAdamw,
    /// sqrt(max(1, n / k)).
    Original,
}

/// Settings of Muon.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MuonConfig {
    /// Decay of the momentum.
    pub momentum: f32,
    /// How far a step goes.
    pub step_size: StepSize,
}

impl Default for MuonConfig {
    fn default() -> Self {
        MuonConfig { momentum: 0.95, step_size: StepSize::default() }
    }
}

/// Coefficients of the quintic, and the number of steps.
const COEFFICIENTS: (f32, f32, f32) = (3.4445, -4.7750, 2.0315);
const STEPS: usize = 5;
/// Smallest norm divided by.
const EPS: f64 = 1e-7;

/// Whether a parameter is a matrix inside a block: not the embedding and not an output head.
pub fn applies_to(param: &Param) -> bool {
    matches!(param.layout, Layout::Panels { .. })
        && !["embed_tokens.weight", "head.weight"].iter().any(|end| param.name.ends_with(end))
}

/// One step of a matrix in panels of `[n, k]`; `momentum` and `gradient` lie as its values do.
pub(crate) fn update(
    values: &mut [f32],
    (n, k): (usize, usize),
    momentum: &mut [f32],
    gradient: &[f32],
    clip: f32,
    keep: f32,
    learning_rate: f64,
    config: &MuonConfig,
) {
    let mu = config.momentum;
    let mut direction = vec![0f32; gradient.len()];
    for ((m, g), d) in momentum.iter_mut().zip(gradient).zip(&mut direction) {
        let g = g * clip;
        *m = mu * *m + (1.0 - mu) * g;
        *d = (1.0 - mu) * g + mu * *m;
    }
    let orthogonal = orthogonalise(direction, n, k);
    let scale = match config.step_size {
        StepSize::MatchRmsAdamw => 0.2 * (n.max(k) as f64).sqrt(),
        StepSize::Original => (n as f64 / k as f64).max(1.0).sqrt(),
    };
    let rate = (learning_rate * scale) as f32;
    for (w, o) in values.iter_mut().zip(&orthogonal) {
        *w = *w * keep - rate * o;
    }
}

/// The Newton-Schulz iteration on panels of `[n, k]`.
fn orthogonalise(panels: Vec<f32>, n: usize, k: usize) -> Vec<f32> {
    if n <= k {
        return iterate(panels, n, k);
    }
    let turned = Layout::Panels { n: k, k: n };
    let x = transposed(&Layout::Panels { n, k }.load(&panels), n, k);
    let y = turned.load(&iterate(turned.store(x), k, n));
    Layout::Panels { n, k }.store(transposed(&y, k, n))
}

fn transposed(x: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    (0..cols * rows).map(|i| x[i % rows * cols + i / rows]).collect()
}

/// Calls `square(i, j)` for all i <= j < n.
fn upper_half(n: usize, square: impl Fn(usize, usize) + Sync) {
    par::ranges(n * n, 1, |tasks| tasks.filter(|at| at / n <= at % n).for_each(|at| square(at / n, at % n)));
}

/// The lower half of a symmetric matrix from its upper squares.
fn mirror(x: &mut [f32], side: usize) {
    for i in (NR..side).step_by(SQUARE) {
        for j in (0..i / NR * NR).step_by(SQUARE) {
            let (above, below) = x.split_at_mut(i * side);
            math::transpose(&mut below[j..], side, &above[j * side + i..], side, SQUARE, SQUARE);
        }
    }
}

/// Panels of `[n, k]`, n <= k; padding rows are zero and stay so.
fn iterate(mut x: Vec<f32>, n: usize, k: usize) -> Vec<f32> {
    let (a, b, c) = COEFFICIENTS;
    let panels = n.div_ceil(NR);
    let side = panels * NR;
    let norm = math::sum_squares(&x).sqrt().max(EPS);
    math::scale(&mut x, (1.0 / norm) as f32);
    let (mut gram, mut update, mut next) = (vec![0f32; side * side], vec![0f32; side * side], vec![0f32; x.len()]);
    for _ in 0..STEPS {
        let to = Shared::new(&mut gram);
        let square = |i: usize, j: usize| {
            let e = Extent { m: NR, outer: 1, inner: k, n: NR };
            let left = Left { base: x[i * k * NR..].as_ptr(), row: 1, outer: 0, inner: NR };
            // SAFETY: panels i and j have k rows of 32; each task writes its own square of the Gram matrix.
            unsafe { gemm(e, left, x[j * k * NR..].as_ptr(), NR, to.at(i * NR * side + j * NR), side, Start::Zero) };
        };
        upper_half(panels, square);
        mirror(&mut gram, side);
        let to = Shared::new(&mut update);
        let square = |i: usize, j: usize| {
            let e = Extent { m: NR, outer: 1, inner: side, n: NR };
            let left = Left { base: gram[i * NR * side..].as_ptr(), row: side, outer: 0, inner: 1 };
            // SAFETY: the Gram matrix has `panels` squares a side; each task writes its own square.
            unsafe { gemm(e, left, gram[j * NR..].as_ptr(), side, to.at(i * NR * side + j * NR), side, Start::Zero) };
        };
        upper_half(panels, square);
        mirror(&mut update, side);
        for (u, g) in update.iter_mut().zip(&gram) {
            *u = b * g + c * *u;
        }
        let to = Shared::new(&mut next);
        par::ranges(panels, 1, |rows| {
            for i in rows {
                // Transposed: the update is symmetric, so its columns are its rows.
                let e = Extent { m: k, outer: panels, inner: NR, n: NR };
                let left = Left { base: x.as_ptr(), row: NR, outer: k * NR, inner: 1 };
                // SAFETY: x has `panels` panels of k rows; each task writes its own panel.
                unsafe { gemm(e, left, update[i * NR..].as_ptr(), side, to.at(i * k * NR), NR, Start::Zero) };
            }
        });
        for (x, y) in x.iter_mut().zip(&next) {
            *x = a * *x + y;
        }
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linear::tests::noise;

    /// The iteration as it stands at the top of this file, row-major and in f64.
    fn reference(x: &[f32], n: usize, k: usize) -> Vec<f64> {
        let product = |a: &[f64], b: &[f64], (rows, inner, cols): (usize, usize, usize), turned: bool| -> Vec<f64> {
            let at = |p: usize, j: usize| if turned { b[j * inner + p] } else { b[p * cols + j] };
            let one = |i: usize| (0..inner).map(|p| a[i / cols * inner + p] * at(p, i % cols)).sum();
            (0..rows * cols).map(one).collect()
        };
        let norm = x.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        let mut x: Vec<f64> = x.iter().map(|v| f64::from(*v) / norm).collect();
        let (a, b, c) = (3.4445, -4.7750, 2.0315);
        for _ in 0..STEPS {
            let gram = product(&x, &x, (n, k, n), true);
            let square = product(&gram, &gram, (n, n, n), false);
            let update: Vec<f64> = gram.iter().zip(&square).map(|(g, s)| b * g + c * s).collect();
            let step = product(&update, &x, (n, n, k), false);
            x.iter_mut().zip(&step).for_each(|(x, y)| *x = a * *x + y);
        }
        x
    }

    #[test]
    fn the_iteration_is_that_of_the_reference() {
        for (n, k) in [(40, 100), (70, 70), (5, 300)] {
            let layout = Layout::Panels { n, k };
            let x = noise(n * k, 4);
            let found = layout.load(&orthogonalise(layout.store(x.clone()), n, k));
            for (at, (found, want)) in found.iter().zip(reference(&x, n, k)).enumerate() {
                assert!((f64::from(*found) - want).abs() < 2e-4, "{n} {k} at {at}: {found} {want}");
            }
        }
    }

    #[test]
    fn singular_values_come_near_one_and_threads_change_no_bit() {
        for (n, k) in [(40, 100), (100, 40), (64, 64), (5, 300)] {
            let layout = Layout::Panels { n, k };
            let x = layout.store(noise(n * k, 3));
            let found = orthogonalise(x.clone(), n, k);
            assert_eq!(found, crate::par::serial(|| orthogonalise(x.clone(), n, k)));
            let o = layout.load(&found);
            let (rows, cols) = (n.min(k), n.max(k));
            let at = |i: usize, p: usize| f64::from(if n <= k { o[i * k + p] } else { o[p * k + i] });
            // The squares of the singular values lie within 0.5 and 1.5, but for the smallest; their mean is the trace.
            let trace: f64 = (0..rows).map(|i| (0..cols).map(|p| at(i, p) * at(i, p)).sum::<f64>()).sum();
            assert!((0.6..1.3).contains(&(trace / rows as f64)), "{n} {k}: {trace}");
        }
    }
}
