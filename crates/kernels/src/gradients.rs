//! Gradients of parameters, and the gradients one matrix can have: its own and those of its adapter.
//!
//! The gradients of matrices may be summed in bf16, half the memory: what one micro-batch gives is summed in f32, a matrix at a
//! time, and rounded stochastically when it is added. To nearest, what is less than half a unit of a sum would be lost, however
//! often it came.

use crate::cpu::{bf16, math};
use crate::dice::{Dice, Noise, Rounded};
use crate::moments::CHUNK;
use crate::multiversion;
use crate::par::{self, Shared};
use crate::params::{Layout, Param, ParamId, ParamStore};
use rayon::prelude::*;
use std::borrow::Cow;
use std::ops::Range;

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
    Bf16(Halves),
}

/// A sum in bf16.
#[derive(Clone, Debug)]
pub(crate) struct Halves {
    pub values: Vec<u16>,
    /// What its roundings depend on: `step` counts additions since it was zero.
    noise: Noise,
}

impl Halves {
    /// The dice of the next addition.
    pub fn dice(&mut self) -> Dice {
        self.noise.step += 1;
        Dice::of(self.noise)
    }

    fn add(&mut self, first: usize, values: &[f32]) {
        let dice = self.dice();
        add_rounded(&mut self.values[first..first + values.len()], values, &dice);
    }
}

impl Sum {
    fn zero(&mut self) {
        match self {
            Sum::F32(d) => d.fill(0.0),
            Sum::Bf16(d) => {
                d.values.fill(0);
                d.noise.step = 0;
            }
        }
    }

    fn len(&self) -> usize {
        match self {
            Sum::F32(d) => d.len(),
            Sum::Bf16(d) => d.values.len(),
        }
    }

    /// Whether it is that of a frozen parameter.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Calls `f` with f32 values to add to `range`; they lie in `wide` where the sum is in bf16.
    pub fn with<R>(&mut self, range: Range<usize>, wide: &mut Vec<f32>, f: impl FnOnce(&mut [f32]) -> R) -> R {
        match self {
            Sum::F32(d) => f(&mut d[range]),
            Sum::Bf16(d) => {
                let wide = zeros(wide, range.len());
                let result = f(wide);
                d.add(range.start, wide);
                result
            }
        }
    }

    /// Its f32 values; none where it is kept in bf16.
    fn singles(&mut self) -> &mut [f32] {
        match self {
            Sum::F32(d) => d,
            Sum::Bf16(_) => &mut [],
        }
    }

    /// Adds f32 values.
    fn add(&mut self, values: &[f32]) {
        match self {
            Sum::F32(sum) => math::add_assign(sum, values),
            Sum::Bf16(sum) => sum.add(0, values),
        }
    }
}

/// The first `len` values of a buffer, zero.
fn zeros(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        *buffer = vec![0.0; len];
    } else {
        buffer[..len].fill(0.0);
    }
    &mut buffer[..len]
}

multiversion! {
    /// sum += values, the first of which is the one numbered `first`.
    fn add_rounded_to(sum: &mut [u16], values: &[f32], dice: &Dice, first: usize) {
        for (i, (s, v)) in sum.iter_mut().zip(values).enumerate() {
            *s = dice.round(first + i, f32::from_bits(u32::from(*s) << 16) + v);
        }
    }
}

/// sum += values, each rounded to bf16.
fn add_rounded(sum: &mut [u16], values: &[f32], dice: &Dice) {
    assert_eq!(sum.len(), values.len(), "gradients: shapes");
    let shared = Shared::new(sum);
    par::ranges(values.len(), 64 * CHUNK, |range| {
        // SAFETY: each task owns its range.
        let sum = unsafe { shared.slice(range.start, range.len()) };
        add_rounded_to(sum, &values[range.clone()], dice, range.start);
    });
}

/// Gradients in the layouts of their parameters; empty for frozen ones.
#[derive(Clone, Debug, Default)]
pub struct Gradients {
    sums: Vec<Sum>,
    /// Where gradients of bf16 sums are made.
    wide: Vec<f32>,
}

impl Gradients {
    /// Zero gradients in f32 for every trainable parameter.
    pub fn new(params: &ParamStore) -> Self {
        Gradients::in_numbers(params, GradientType::F32)
    }

    /// Zero gradients for every trainable parameter, those of matrices in these numbers.
    pub fn in_numbers(params: &ParamStore, numbers: GradientType) -> Self {
        let zero = |(id, p): (ParamId, &Param)| {
            let len = if p.trainable { p.len() } else { 0 };
            let noise = Noise { seed: 0, step: 0, parameter: id.0, what: Rounded::Gradient, first: 0 };
            match (numbers, p.layout) {
                (GradientType::F32, _) | (_, Layout::Vector { .. }) => Sum::F32(vec![0.0; len]),
                (GradientType::Bf16, _) => Sum::Bf16(Halves { values: vec![0; len], noise }),
            }
        };
        Gradients { sums: params.iter().map(zero).collect(), wide: Vec::new() }
    }

    /// Sets all to zero.
    pub fn zero(&mut self) {
        self.sums.iter_mut().for_each(Sum::zero);
    }

    /// Frees what is only needed while gradients are made.
    pub fn free_buffers(&mut self) {
        self.wide = Vec::new();
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
                assert!(d.values.is_empty(), "a gradient in bf16 is lent, not given");
                None
            }
        }
    }

    /// The gradient of a parameter in bf16, where it is kept so.
    pub(crate) fn halves_mut(&mut self, id: ParamId) -> Option<&mut Halves> {
        match &mut self.sums[id.0] {
            Sum::Bf16(d) if !d.values.is_empty() => Some(d),
            _ => None,
        }
    }

    /// How the gradient of a parameter is kept.
    pub(crate) fn sum(&self, id: ParamId) -> &Sum {
        &self.sums[id.0]
    }

    /// The same, to be added to, and a buffer for [`Sum::with`].
    pub(crate) fn sum_mut(&mut self, id: ParamId) -> (&mut Sum, &mut Vec<f32>) {
        (&mut self.sums[id.0], &mut self.wide)
    }

    /// Calls `f` with f32 values to add the gradient of a parameter to; empty when it is frozen.
    pub fn with<R>(&mut self, id: ParamId, f: impl FnOnce(&mut [f32]) -> R) -> R {
        let sum = &mut self.sums[id.0];
        sum.with(0..sum.len(), &mut self.wide, f)
    }

    /// The same for a matrix and its adapter.
    pub fn with_weight<R>(
        &mut self,
        params: &ParamStore,
        id: ParamId,
        f: impl FnOnce(&mut WeightGradients<'_>) -> R,
    ) -> R {
        let Some(adapter) = params.get(id).adapter else {
            return self.with(id, |weight| f(&mut WeightGradients::plain(weight)));
        };
        self.with_many([id, adapter.a, adapter.b].into_iter(), |all| {
            let mut all = all.into_iter();
            let mut next = || all.next().expect("a matrix and its factors");
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
        let room = sums.iter().map(|sum| if let Sum::Bf16(d) = sum { d.values.len() } else { 0 }).sum();
        if room == 0 {
            return f(sums.into_iter().map(Sum::singles).collect());
        }
        let wide = zeros(&mut self.wide, room);
        let mut left = &mut *wide;
        let slices = sums.iter_mut().map(|sum| match sum {
            Sum::F32(d) => d.as_mut_slice(),
            Sum::Bf16(d) => left.split_off_mut(..d.values.len()).expect("room for all"),
        });
        let result = f(slices.collect());
        let mut done = &wide[..];
        for sum in &mut sums {
            if let Sum::Bf16(d) = sum {
                let own = done.split_off(..d.values.len()).expect("room for all");
                d.add(0, own);
            }
        }
        result
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
                let mut wide = vec![0.0; d.values.len()];
                bf16::widen(&mut wide, &d.values);
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
                bf16::widen(wide, &d.values[range]);
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
                d.values.chunks(CHUNK).map(chunk).sum()
            }
        };
        self.sums.iter().map(squares).sum::<f64>().sqrt()
    }

    /// Bytes of all.
    pub fn bytes(&self) -> usize {
        let bytes = |sum: &Sum| match sum {
            Sum::F32(d) => 4 * d.len(),
            Sum::Bf16(d) => 2 * d.values.len(),
        };
        self.sums.iter().map(bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linear::tests::noise;

    #[test]
    fn in_bf16_additions_are_rounded_one_way_or_the_other_and_vectors_are_not() {
        let mut params = ParamStore::default();
        let a = params.add("a.weight", Layout::Panels { n: 70, k: 33 }, noise(70 * 33, 1));
        let frozen = params.add("b.weight", Layout::Panels { n: 32, k: 4 }, noise(128, 1));
        let c = params.add("c.weight", Layout::Panels { n: 32, k: 40 }, noise(1280, 1));
        let norm = params.add("norm.weight", Layout::Vector { n: 33 }, noise(33, 1));
        params.freeze(frozen);
        let ids = [a, frozen, c, norm];
        let mut grads = Gradients::in_numbers(&params, GradientType::Bf16);
        let lens = ids.map(|id| grads.values(id).len());
        assert_eq!(lens, [96 * 33, 0, 1280, 33]);
        assert_eq!(grads.bytes(), 2 * (96 * 33 + 1280) + 4 * 33);
        for seed in 0..4 {
            let before = ids.map(|id| grads.values(id).into_owned());
            let added = lens.map(|len| noise(len, 10 + seed));
            grads.with_many([c, frozen, a, norm].into_iter(), |all| {
                for (d, at) in all.into_iter().zip([2, 1, 0, 3]) {
                    assert!(at == 3 || d.iter().all(|v| *v == 0.0), "what is lent for bf16 begins at zero");
                    math::add_assign(d, &added[at]);
                }
            });
            for (at, id) in ids.into_iter().enumerate() {
                for ((found, before), v) in grads.values(id).iter().zip(&before[at]).zip(&added[at]) {
                    let (want, down) = (before + v, f32::from_bits((before + v).to_bits() & 0xffff_0000));
                    let up = f32::from_bits(down.to_bits() + 0x1_0000);
                    let rounded = *found == down || *found == up && want != down;
                    assert!(if at == 3 { *found == want } else { rounded }, "{before} + {v} became {found}");
                }
            }
        }
        let squares: f64 = ids.iter().flat_map(|id| grads.values(*id).into_owned()).map(|v| f64::from(v).powi(2)).sum();
        assert!((grads.norm() - squares.sqrt()).abs() < 1e-9 * squares);
        let (one, mut sum) = (grads.clone(), grads.clone());
        let mut other = Gradients::in_numbers(&params, GradientType::Bf16);
        ids.iter().for_each(|id| other.with(*id, |d| d.copy_from_slice(&noise(d.len(), 77))));
        sum.add(&[&other]);
        for id in ids {
            for ((s, x), y) in sum.values(id).iter().zip(one.values(id).iter()).zip(other.values(id).iter()) {
                assert!((s - (x + y)).abs() <= (x + y).abs() / 128.0, "{x} + {y} became {s}");
            }
        }
        sum.zero();
        assert_eq!(sum.norm(), 0.0);
    }

    #[test]
    fn small_gradients_add_up_in_bf16() {
        let mut params = ParamStore::default();
        let id = params.add("a.weight", Layout::Panels { n: 32, k: 128 }, noise(4096, 1));
        let mut grads = Gradients::in_numbers(&params, GradientType::Bf16);
        grads.with(id, |d| d.fill(1.0));
        // To nearest, 1 + 1/1024 would stay 1 for ever.
        for _ in 0..1024 {
            grads.with(id, |d| d.fill(1.0 / 1024.0));
        }
        let values = grads.values(id);
        let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / 4096.0;
        let squares = values.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / 4096.0;
        assert!(squares > 0.0 && (mean - 2.0).abs() < 5.0 * (squares / 4096.0).sqrt(), "{mean}");
    }
}
