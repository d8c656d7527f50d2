//! Gradients of parameters, and the gradients one matrix can have: its own and those of its adapter.

use crate::params::{ParamId, ParamStore};
use rayon::prelude::*;

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

/// Gradients in the layouts of their parameters; empty for frozen ones.
#[derive(Clone, Debug, Default)]
pub struct Gradients {
    data: Vec<Vec<f32>>,
}

impl Gradients {
    /// Zero gradients for every trainable parameter.
    pub fn new(params: &ParamStore) -> Self {
        let data = params.iter().map(|(_, p)| if p.trainable { vec![0.0; p.data.len()] } else { Vec::new() }).collect();
        Gradients { data }
    }

    /// Sets all to zero.
    pub fn zero(&mut self) {
        for d in &mut self.data {
            d.fill(0.0);
        }
    }

    /// Adds gradients of the same shape, element by element and one after another.
    pub fn add(&mut self, others: &[&Gradients]) {
        self.data.par_iter_mut().enumerate().with_max_len(1).for_each(|(i, sum)| {
            for other in others {
                crate::cpu::math::add_assign(sum, &other.data[i]);
            }
        });
    }

    /// Gradient of a parameter, `None` when it is frozen.
    pub fn get_mut(&mut self, id: ParamId) -> Option<&mut [f32]> {
        let d = &mut self.data[id.0];
        if d.is_empty() { None } else { Some(d) }
    }

    /// Gradients of a matrix and its adapter.
    pub fn of_weight(&mut self, params: &ParamStore, id: ParamId) -> WeightGradients<'_> {
        match params.get(id).adapter {
            None => WeightGradients::plain(&mut self.data[id.0]),
            Some(adapter) => {
                let all = self.data.get_disjoint_mut([id.0, adapter.a.0, adapter.b.0]);
                let [weight, a, b] = all.expect("a matrix and its factors are three parameters");
                WeightGradients { weight, a, b }
            }
        }
    }

    /// Gradients of several distinct parameters at once, in the order asked for; empty for frozen ones.
    ///
    /// # Panics
    /// When a parameter is asked for twice.
    pub fn get_many_mut(&mut self, ids: impl Iterator<Item = ParamId>) -> Vec<&mut [f32]> {
        let mut all: Vec<Option<&mut [f32]>> = self.data.iter_mut().map(|d| Some(d.as_mut_slice())).collect();
        ids.map(|id| all[id.0].take().expect("parameters are distinct")).collect()
    }

    /// Gradient of a parameter (empty when frozen).
    pub fn get(&self, id: ParamId) -> &[f32] {
        &self.data[id.0]
    }

    /// L2 norm over everything, summed in parameter order in f64.
    pub fn norm(&self) -> f64 {
        self.data.iter().map(|d| crate::cpu::math::sum_squares(d)).sum::<f64>().sqrt()
    }
}
