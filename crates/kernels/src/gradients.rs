//! Gradients of parameters, and the gradients one matrix can have: its own and those of its adapter.
//!
//! The gradients of matrices may be summed in bf16, half the memory: what one micro-batch gives is summed in f32, a matrix at a
//! time, and rounded to nearest when it is added.

use crate::cpu::{bf16, math};
use crate::par::{self, Shared};
use crate::params::{Layout, ParamId, ParamStore};
use crate::scratch;
use rayon::prelude::*;
use std::borrow::Cow;
use std::ops::Range;

/// Values widened at a time.
const CHUNK: usize = 1024;

/// In what numbers the gradients of matrices are kept between micro-batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GradientType {
    /// f32.
    #[default]
    F32,
    /// bf16: half the memory. Vectors stay in f32.
    Bf16,
}

/// What a product with a matrix adds gradients to; empty for what is frozen or absent.
#[derive(Debug)]
pub struct WeightGradients<'a> {
    /// Of the matrix, in panels.
    pub weight: &'a mut [f32],
    /// Of its adapter's A.
    pub a: &'a mut [f32],
    /// Of its adapter's B.
    pub b: &'a mut [f32],
}

impl<'a> WeightGradients<'a> {
    /// Of a matrix without an adapter.
    pub fn plain(weight: &'a mut [f32]) -> Self {
        WeightGradients { weight, a: &mut [], b: &mut [] }
    }
}

/// The gradient of one parameter, in the layout of its values.
#[derive(Clone, Debug)]
pub(crate) enum Sum {
    F32(Vec<f32>),
    Bf16(Vec<u16>),
}

impl Sum {
    fn zero(&mut self) {
        match self {
            Sum::F32(v) => v.fill(0.0),
            Sum::Bf16(v) => v.fill(0),
        }
    }

    /// Whether it is that of a frozen parameter.
    pub fn is_empty(&self) -> bool {
        match self {
            Sum::F32(d) => d.is_empty(),
            Sum::Bf16(d) => d.is_empty(),
        }
    }

    /// Its f32 values; none where it is kept in bf16.
    fn singles(&mut self) -> &mut [f32] {
        match self {
            Sum::F32(d) => d,
            Sum::Bf16(_) => &mut [],
        }
    }

    /// Calls `f` with f32 values to add to `range`.
    pub fn with(&mut self, range: Range<usize>, f: impl FnOnce(&mut [f32])) {
        match self {
            Sum::F32(d) => f(&mut d[range]),
            Sum::Bf16(d) => scratch::floats(range.len(), |wide| {
                wide.fill(0.0);
                f(wide);
                add_rounded(&mut d[range], wide);
            }),
        }
    }

    /// Adds f32 values.
    fn add(&mut self, values: &[f32]) {
        match self {
            Sum::F32(sum) => math::add_assign(sum, values),
            Sum::Bf16(sum) => add_rounded(sum, values),
        }
    }
}

/// sum += values, each rounded to bf16.
pub(crate) fn add_rounded(sum: &mut [u16], values: &[f32]) {
    assert_eq!(sum.len(), values.len(), "gradients: shapes");
    let shared = Shared::new(sum);
    par::ranges(values.len().div_ceil(CHUNK), 64, |chunks| {
        let mut wide = [0f32; CHUNK];
        for (i, values) in values[chunks.start * CHUNK..].chunks(CHUNK).take(chunks.len()).enumerate() {
            // SAFETY: each task owns its chunks.
            let sum = unsafe { shared.slice((chunks.start + i) * CHUNK, values.len()) };
            let wide = &mut wide[..values.len()];
            bf16::widen(wide, sum);
            math::add_assign(wide, values);
            bf16::halve(sum, wide);
        }
    });
}

/// Gradients in the layouts of their parameters; empty for frozen ones.
#[derive(Clone, Debug, Default)]
pub struct Gradients {
    sums: Vec<Sum>,
}

impl Gradients {
    /// Zero gradients in f32 for every trainable parameter.
    pub fn new(params: &ParamStore) -> Self {
        Gradients::in_numbers(params, GradientType::F32)
    }

    /// Zero gradients for every trainable parameter, those of matrices in these numbers.
    pub fn in_numbers(params: &ParamStore, numbers: GradientType) -> Self {
        let zero = |p: &crate::params::Param| {
            let len = if p.trainable { p.len() } else { 0 };
            match (numbers, p.layout) {
                (GradientType::F32, _) | (_, Layout::Vector { .. }) => Sum::F32(vec![0.0; len]),
                (GradientType::Bf16, _) => Sum::Bf16(vec![0; len]),
            }
        };
        Gradients { sums: params.iter().map(|(_, p)| zero(p)).collect() }
    }

    /// Sets all to zero.
    pub fn zero(&mut self) {
        self.sums.iter_mut().for_each(Sum::zero);
    }

    /// Adds gradients of the same shape, element by element and one after another.
    pub fn add(&mut self, others: &[&Gradients]) {
        self.sums.par_iter_mut().enumerate().with_max_len(1).for_each(|(i, sum)| {
            for other in others {
                match &other.sums[i] {
                    Sum::F32(values) => sum.add(values),
                    Sum::Bf16(_) => sum.add(&other.values(ParamId(i))),
                }
            }
        });
    }

    /// Gradient of a parameter, `None` when it is frozen.
    ///
    /// # Panics
    /// When it is kept in bf16: see [`Gradients::with`].
    pub fn get_mut(&mut self, id: ParamId) -> Option<&mut [f32]> {
        match &mut self.sums[id.0] {
            Sum::F32(d) => {
                if d.is_empty() {
                    None
                } else {
                    Some(d)
                }
            }
            Sum::Bf16(d) => {
                assert!(d.is_empty(), "a gradient in bf16 is lent, not given");
                None
            }
        }
    }

    /// The gradient of a parameter in bf16, where it is kept so.
    pub(crate) fn halves_mut(&mut self, id: ParamId) -> Option<&mut [u16]> {
        match &mut self.sums[id.0] {
            Sum::Bf16(d) if !d.is_empty() => Some(d),
            _ => None,
        }
    }

    /// How the gradient of a parameter is kept.
    pub(crate) fn sum(&self, id: ParamId) -> &Sum {
        &self.sums[id.0]
    }

    /// The same, to be added to.
    pub(crate) fn sum_mut(&mut self, id: ParamId) -> &mut Sum {
        &mut self.sums[id.0]
    }

    /// Calls `f` with f32 values to add the gradient of a parameter to; empty when it is frozen.
    pub fn with<R>(&mut self, id: ParamId, f: impl FnOnce(&mut [f32]) -> R) -> R {
        self.with_many([id].into_iter(), |mut all| f(all[0]))
    }

    /// The same for a matrix and its adapter.
    pub fn with_weight<R>(
        &mut self,
        params: &ParamStore,
        id: ParamId,
        f: impl FnOnce(&mut WeightGradients<'_>) -> R,
    ) -> R {
        let factors = params.get(id).adapter.map(|adapter| [adapter.a, adapter.b]);
        self.with_many([id].into_iter().chain(factors.into_iter().flatten()), |all| {
            let mut all = all.into_iter();
            let mut next = || all.next().unwrap_or_default();
            f(&mut WeightGradients { weight: next(), a: next(), b: next() })
        })
    }

    /// The same for several distinct parameters at once, in the order asked for.
    ///
    /// # Panics
    /// When a parameter is asked for twice.
    pub fn with_many<R>(&mut self, ids: impl Iterator<Item = ParamId>, f: impl FnOnce(Vec<&mut [f32]>) -> R) -> R {
        let mut rest: Vec<Option<&mut Sum>> = self.sums.iter_mut().map(Some).collect();
        let mut sums: Vec<&mut Sum> = ids.map(|id| rest[id.0].take().expect("parameters are distinct")).collect();
        let room = sums.iter().map(|sum| if let Sum::Bf16(d) = sum { d.len() } else { 0 }).sum();
        if room == 0 {
            return f(sums.into_iter().map(Sum::singles).collect());
        }
        scratch::floats(room, |wide| {
            wide.fill(0.0);
            let mut left = &mut *wide;
            let slices = sums.iter_mut().map(|sum| match sum {
                Sum::F32(d) => d.as_mut_slice(),
                Sum::Bf16(d) => left.split_off_mut(..d.len()).expect("room for all"),
            });
            let result = f(slices.collect());
            let mut done = &wide[..];
            for sum in &mut sums {
                if let Sum::Bf16(d) = sum {
                    let own = done.split_off(..d.len()).expect("room for all");
                    add_rounded(d, own);
                }
            }
            result
        })
    }

    /// Gradient of a parameter in f32 (empty when frozen).
    ///
    /// # Panics
    /// When it is kept in bf16: see [`Gradients::values`].
    pub fn get(&self, id: ParamId) -> &[f32] {
        match &self.sums[id.0] {
            Sum::F32(d) => d,
            Sum::Bf16(_) => panic!("a gradient in bf16 has no f32 values in memory"),
        }
    }

    /// Gradient of a parameter (empty when frozen), widened where it is kept in bf16.
    pub fn values(&self, id: ParamId) -> Cow<'_, [f32]> {
        match &self.sums[id.0] {
            Sum::F32(d) => Cow::Borrowed(d),
            Sum::Bf16(d) => {
                let mut wide = vec![0.0; d.len()];
                bf16::widen(&mut wide, d);
                Cow::Owned(wide)
            }
        }
    }

    /// Whether a gradient is kept in f32.
    pub(crate) fn is_f32(&self, id: ParamId) -> bool {
        matches!(self.sums[id.0], Sum::F32(_))
    }

    /// Values `range` of a gradient, in `scratch` where they have to be widened.
    pub(crate) fn piece<'a>(&'a self, id: ParamId, range: Range<usize>, scratch: &'a mut [f32]) -> &'a [f32] {
        match &self.sums[id.0] {
            Sum::F32(d) => &d[range],
            Sum::Bf16(d) => {
                let wide = &mut scratch[..range.len()];
                bf16::widen(wide, &d[range]);
                wide
            }
        }
    }

    /// L2 norm over everything, summed in parameter order in f64.
    pub fn norm(&self) -> f64 {
        let squares = |sum: &Sum| match sum {
            Sum::F32(d) => math::sum_squares(d),
            Sum::Bf16(d) => {
                let mut wide = [0f32; CHUNK];
                let chunk = |halves: &[u16]| {
                    bf16::widen(&mut wide[..halves.len()], halves);
                    math::sum_squares(&wide[..halves.len()])
                };
                d.chunks(CHUNK).map(chunk).sum()
            }
        };
        self.sums.iter().map(squares).sum::<f64>().sqrt()
    }

    /// Bytes of all.
    pub fn bytes(&self) -> usize {
        let bytes = |sum: &Sum| match sum {
            Sum::F32(d) => 4 * d.len(),
            Sum::Bf16(d) => 2 * d.len(),
        };
        self.sums.iter().map(bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linear::tests::noise;

    #[test]
    fn in_bf16_every_addition_is_rounded_and_vectors_are_not() {
        let mut params = ParamStore::default();
        let a = params.add("a.weight", Layout::Panels { n: 70, k: 33 }, noise(70 * 33, 1));
        let frozen = params.add("b.weight", Layout::Panels { n: 32, k: 4 }, noise(128, 1));
        let c = params.add("c.weight", Layout::Panels { n: 32, k: 40 }, noise(1280, 1));
        let norm = params.add("norm.weight", Layout::Vector { n: 33 }, noise(33, 1));
        params.freeze(frozen);
        let mut grads = Gradients::in_numbers(&params, GradientType::Bf16);
        let lens = [a, frozen, c, norm].map(|id| grads.values(id).len());
        assert_eq!(lens, [96 * 33, 0, 1280, 33]);
        assert_eq!(grads.bytes(), 2 * (96 * 33 + 1280) + 4 * 33);
        let mut want = lens.map(|len| vec![0f32; len]);
        for seed in 0..4 {
            let added = lens.map(|len| noise(len, 10 + seed));
            grads.with_many([c, frozen, a, norm].into_iter(), |all| {
                for (d, at) in all.into_iter().zip([2, 1, 0, 3]) {
                    assert!(at == 3 || d.iter().all(|v| *v == 0.0), "what is lent for bf16 begins at zero");
                    math::add_assign(d, &added[at]);
                }
            });
            for (at, (sum, added)) in want.iter_mut().zip(&added).enumerate() {
                for (s, v) in sum.iter_mut().zip(added) {
                    *s = if at == 3 { *s + v } else { bf16::round(*s + v) };
                }
            }
        }
        for (id, want) in [a, frozen, c, norm].into_iter().zip(&want) {
            assert_eq!(grads.values(id)[..], want[..]);
        }
        let squares: f64 = want.iter().flatten().map(|v| f64::from(*v).powi(2)).sum();
        assert!((grads.norm() - squares.sqrt()).abs() < 1e-9 * squares);
        let other = grads.clone();
        grads.add(&[&other]);
        for (id, want) in [a, frozen, c, norm].into_iter().zip(&want) {
            assert!(grads.values(id).iter().zip(want).all(|(g, w)| *g == 2.0 * w));
        }
        grads.zero();
        assert_eq!(grads.norm(), 0.0);
    }
}
