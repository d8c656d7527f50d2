//! Muon (Jordan et al. 2024): momentum, made orthogonal by Newton-Schulz steps, for the matrices inside the blocks.
//!
//! m = mu m + (1 - mu) g; u = (1 - mu) g + mu m (Nesterov); O = NewtonSchulz(u); w = w (1 - lr decay) - lr s O. With
//! X = u / |u|: X <- a X + (b G + c G G) X, G = X X^T, five times, on the transpose where the matrix is higher than wide.
//! s = 0.2 sqrt(max(n, k)) makes the step as large as AdamW's (Liu et al. 2025, "Muon is scalable for LLM training"), so that
//! learning rates carry over; s = sqrt(max(1, n / k)) is the original. Names and defaults as torch.optim.Muon, which keeps
//! everything in bf16 while it iterates; here X, G and their sums are f32, and the operands of the products f32 or bf16.

use crate::cpu::bf16::round;
use crate::cpu::gemm::{Extent, Left, NR, Right, Start};
use crate::cpu::math::{self, SQUARE};
use crate::cpu::operand::{Operand, Pairs, Singles, grow};
use crate::multiversion;
use crate::par::{self, Shared};
use crate::params::{Layout, Param, Precision};
use crate::scratch;
use std::cell::RefCell;

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
    /// Operands of the iteration's products: f32, or bf16 (anything else than f32).
    pub precision: Precision,
}

impl Default for MuonConfig {
    fn default() -> Self {
        MuonConfig { momentum: 0.95, step_size: StepSize::default(), precision: Precision::F32 }
    }
}

/// Coefficients of the quintic, and the number of steps.
const COEFFICIENTS: (f32, f32, f32) = (3.4445, -4.7750, 2.0315);
const STEPS: usize = 5;
/// Smallest norm divided by.
const EPS: f64 = 1e-7;
/// Matrices of fewer values are left to one thread: there are many of them, and one for each thread is better shared out.
const SMALL: usize = 1 << 17;
/// Words between the ends of rows: rows of 1,024 words would share lines of the first-level cache.
const GAP: usize = SQUARE;

thread_local! {
    static WORK: RefCell<Work> = RefCell::new(Work::default());
}

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
    let scale = match config.step_size {
        StepSize::MatchRmsAdamw => 0.2 * (n.max(k) as f64).sqrt(),
        StepSize::Original => (n as f64 / k as f64).max(1.0).sqrt(),
    };
    let rate = (learning_rate * scale) as f32;
    with_direction(gradient.len(), |direction| {
        for ((m, g), d) in momentum.iter_mut().zip(gradient).zip(&mut *direction) {
            let g = g * clip;
            *m = mu * *m + (1.0 - mu) * g;
            *d = (1.0 - mu) * g + mu * *m;
        }
        orthogonalise(direction, n, k, config.precision);
        for (w, o) in values.iter_mut().zip(direction) {
            *w = *w * keep - rate * *o;
        }
    });
}

/// Calls `f` with room for a direction, which is kept where it is small.
fn with_direction(len: usize, f: impl FnOnce(&mut [f32])) {
    if len < SMALL { scratch::floats(len, f) } else { f(&mut vec![0.0; len]) }
}

/// The Newton-Schulz iteration on panels of `[n, k]`, in place.
fn orthogonalise(panels: &mut [f32], n: usize, k: usize, precision: Precision) {
    let mut run = |work: &mut Work| match precision {
        Precision::F32 => work.run::<Singles>(panels, n, k),
        _ => work.run::<Pairs>(panels, n, k),
    };
    // Buffers of a large matrix would lie beside the next forward.
    if n * k < SMALL { par::serial(|| scratch::kept(&WORK, run)) } else { run(&mut Work::default()) }
}

/// Distance between rows of `len` words.
fn apart(len: usize) -> usize {
    len.next_multiple_of(SQUARE) + GAP
}

/// Buffers of one matrix: X `[n, k]` with n <= k and what comes next, two matrices `[n, n]`, both sides of a product.
#[derive(Default)]
struct Work {
    x: Vec<f32>,
    next: Vec<f32>,
    gram: Vec<f32>,
    update: Vec<f32>,
    rows: Vec<f32>,
    columns: Vec<f32>,
}

impl Work {
    fn run<O: Operand>(&mut self, panels: &mut [f32], n: usize, k: usize) {
        let (rows, cols) = (n.min(k), n.max(k));
        let ld = apart(cols);
        for (buffer, ld) in
            [(&mut self.x, ld), (&mut self.next, ld), (&mut self.gram, apart(rows)), (&mut self.update, apart(rows))]
        {
            // Zero between rows, and in rows that fill the last square.
            buffer.clear();
            buffer.resize(rows.next_multiple_of(SQUARE) * ld, 0.0);
        }
        if n <= k {
            squares(n, k, |i, j, height, width| {
                let from = &panels[i / NR * NR * k + j * NR + i % NR..];
                math::transpose(&mut self.x[i * ld + j..], ld, from, NR, width, height);
            });
        } else {
            blocks(n, k, |panel, row, width| {
                self.x[row * ld + panel * NR..][..width].copy_from_slice(&panels[(panel * k + row) * NR..][..width]);
            });
        }
        Singles::columns(&mut self.columns, &self.x, ld, rows, cols);
        let norm = math::sum_squares(&self.columns).sqrt().max(EPS);
        math::scale(&mut self.x, (1.0 / norm) as f32);
        for _ in 0..STEPS {
            self.step::<O>(rows, cols, ld);
        }
        if n <= k {
            squares(n, k, |i, j, height, width| {
                let to = &mut panels[i / NR * NR * k + j * NR + i % NR..];
                math::transpose(to, NR, &self.x[i * ld + j..], ld, height, width);
            });
        } else {
            blocks(n, k, |panel, row, width| {
                panels[(panel * k + row) * NR..][..width].copy_from_slice(&self.x[row * ld + panel * NR..][..width]);
            });
        }
    }

    /// X `[n, k]` <- a X + (b G + c G G) X.
    fn step<O: Operand>(&mut self, n: usize, k: usize, ld: usize) {
        let (a, b, c) = COEFFICIENTS;
        let side = apart(n);
        let Work { x, next, gram, update, rows, columns } = self;
        // Columns of X^T and of G^T = G: both sides of these products are the same words.
        let left = rows_of::<O>(rows, x, (n, k), ld);
        Singles::columns(columns, left.0, left.1, n, O::words(k));
        product::<O>(left, columns, gram, side, (n, O::words(k), n), true);
        mirror(gram, n, side);
        let left = rows_of::<O>(rows, gram, (n, n), side);
        Singles::columns(columns, left.0, left.1, n, O::words(n));
        product::<O>(left, columns, update, side, (n, O::words(n), n), true);
        mirror(update, n, side);
        polynomial(update, gram, b, c, O::VALUES > 1);
        O::panels(columns, x, ld, n, n, k);
        product::<O>(rows_of::<O>(rows, update, (n, n), side), columns, next, ld, (n, O::words(n), k), false);
        advance(x, next, a, O::VALUES > 1);
    }
}

multiversion! {
    /// square <- b G + c square, with G as products have it.
    fn polynomial(square: &mut [f32], gram: &[f32], b: f32, c: f32, short: bool) {
        for (u, g) in square.iter_mut().zip(gram) { *u = b * if short { round(*g) } else { *g } + c * *u; }
    }
}

multiversion! {
    /// X <- a X + next, with X as products have it: an error that a X alone had not would come back a times as large.
    fn advance(x: &mut [f32], next: &[f32], a: f32, short: bool) {
        for (x, y) in x.iter_mut().zip(next) { *x = a * if short { round(*x) } else { *x } + y; }
    }
}

/// C `[m, n]` (rows `ldc` apart) from m rows of `words` words and n columns in panels; with `symmetric` what lies left of the
/// diagonal's panels is left out.
fn product<O: Operand>(
    (a, ld): (&[f32], usize),
    panels: &[f32],
    out: &mut [f32],
    ldc: usize,
    (m, words, n): (usize, usize, usize),
    symmetric: bool,
) {
    let room = a.len() >= (m - 1) * ld + words && panels.len() >= n.div_ceil(NR) * words * NR;
    assert!(room && out.len() >= (m - 1) * ldc + n, "Muon: shapes");
    let out = Shared::new(out);
    par::ranges(m.div_ceil(NR), 1, |blocks| {
        for i in blocks {
            let (row, first) = (i * NR, if symmetric { i } else { 0 });
            let e = Extent { m: (m - row).min(NR), outer: 1, inner: words, n: n - first * NR };
            let a = Left { base: a[row * ld..].as_ptr(), row: ld, outer: 0, inner: 1 };
            let b = Right { base: panels[first * words * NR..].as_ptr(), panel: words * NR, ld: NR };
            // SAFETY: A has the rows, B the panels, C rows and columns (asserted); each task writes its own rows.
            unsafe { O::wide(e, a, b, out.at(row * ldc + first * NR), ldc, Start::Zero) };
        }
    });
}

/// Rows `[m, k]`, `ld` apart, as the left side of a product, and how far apart they are then.
fn rows_of<'a, O: Operand>(
    words: &'a mut Vec<f32>,
    x: &'a [f32],
    (m, k): (usize, usize),
    ld: usize,
) -> (&'a [f32], usize) {
    if O::VALUES == 1 {
        return (x, ld);
    }
    let (len, to_ld) = (O::words(k), apart(O::words(k)));
    grow(words, m * to_ld);
    for (to, from) in words.chunks_exact_mut(to_ld).zip(x.chunks(ld)).take(m) {
        O::row(&mut to[..len], &from[..k]);
    }
    (words, to_ld)
}

/// Calls `f(row, column, height, width)` for squares that cover `[rows, cols]`.
fn squares(rows: usize, cols: usize, mut f: impl FnMut(usize, usize, usize, usize)) {
    for i in (0..rows).step_by(SQUARE) {
        for j in (0..cols).step_by(SQUARE) {
            f(i, j, (rows - i).min(SQUARE), (cols - j).min(SQUARE));
        }
    }
}

/// Calls `f(panel, row, width)` for the rows of panels of `[n, k]`.
fn blocks(n: usize, k: usize, mut f: impl FnMut(usize, usize, usize)) {
    for panel in 0..n.div_ceil(NR) {
        (0..k).for_each(|row| f(panel, row, (n - panel * NR).min(NR)));
    }
}

/// What lies left of the diagonal's panels in a symmetric matrix `[n, n]`, from what lies right of them.
fn mirror(x: &mut [f32], n: usize, side: usize) {
    for i in (NR..n).step_by(SQUARE) {
        for j in (0..i / NR * NR).step_by(SQUARE) {
            let (above, below) = x.split_at_mut(i * side);
            math::transpose(&mut below[j..], side, &above[j * side + i..], side, SQUARE, SQUARE);
        }
    }
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

    fn done(stored: &[f32], (n, k): (usize, usize), precision: Precision) -> Vec<f32> {
        let mut panels = stored.to_vec();
        orthogonalise(&mut panels, n, k, precision);
        panels
    }

    #[test]
    fn the_iteration_is_that_of_the_reference() {
        for (n, k) in [(40, 100), (70, 70), (5, 300), (33, 47)] {
            let layout = Layout::Panels { n, k };
            let x = noise(n * k, 4);
            let want = reference(&x, n, k);
            let wide = layout.load(&done(&layout.store(x.clone()), (n, k), Precision::F32));
            let high = Layout::Panels { n: k, k: n };
            let high = high.load(&done(&high.store(transposed(&x, n, k)), (k, n), Precision::F32));
            // A square matrix and its transpose are both taken as they are.
            if n < k {
                assert_eq!(wide, transposed(&high, k, n), "{n} {k}: the transpose");
            }
            for (at, (found, want)) in wide.iter().zip(&want).enumerate() {
                assert!((f64::from(*found) - want).abs() < 2e-4, "{n} {k} at {at}: {found} {want}");
            }
            // Rounded to 8 bits of mantissa in each of five steps, errors of a step being multiplied by up to 3.4 in the next.
            let short = layout.load(&done(&layout.store(x), (n, k), Precision::Bf16));
            let error: f64 = short.iter().zip(&want).map(|(a, b)| (f64::from(*a) - b).powi(2)).sum();
            let size: f64 = want.iter().map(|b| b * b).sum();
            assert!((error / size).sqrt() < 0.03, "{n} {k}: bf16 is {} off", (error / size).sqrt());
            assert_ne!(short, wide, "{n} {k}: bf16 was asked for");
        }
    }

    fn transposed(x: &[f32], rows: usize, cols: usize) -> Vec<f32> {
        (0..cols * rows).map(|i| x[i % rows * cols + i / rows]).collect()
    }

    #[test]
    fn singular_values_come_near_one_and_threads_change_no_bit() {
        for (n, k) in [(40, 100), (100, 40), (64, 64), (5, 300), (400, 350)] {
            let layout = Layout::Panels { n, k };
            let x = layout.store(noise(n * k, 3));
            for precision in [Precision::F32, Precision::Bf16] {
                let found = done(&x, (n, k), precision);
                assert_eq!(found, crate::par::serial(|| done(&x, (n, k), precision)));
                assert_eq!(layout.store(layout.load(&found)), found, "padding stays zero");
                let o = layout.load(&found);
                let (rows, cols) = (n.min(k), n.max(k));
                let at = |i: usize, p: usize| f64::from(if n <= k { o[i * k + p] } else { o[p * k + i] });
                // The squares of the singular values lie within 0.5 and 1.5, but for the smallest; their mean is the trace.
                let trace: f64 = (0..rows).map(|i| (0..cols).map(|p| at(i, p) * at(i, p)).sum::<f64>()).sum();
                assert!((0.6..1.3).contains(&(trace / rows as f64)), "{n} {k}: {trace}");
            }
        }
    }
}
