//! AdamW (Loshchilov and Hutter): one pass over values, gradients and moments, with the clipping factor folded in.
//!
//! Weight decay acts on matrices only, as usual for decoders: norm weights and biases are not decayed.

use crate::multiversion;
use crate::par::{self, Shared};
use crate::params::{Gradients, Layout, ParamId, ParamStore};
use rayon::prelude::*;

/// Settings of the optimizer; the learning rate comes with every step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWConfig {
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Decoupled weight decay on matrices.
    pub weight_decay: f32,
    /// Gradients are scaled down to this global L2 norm; 0 turns clipping off.
    pub max_grad_norm: f32,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        AdamWConfig { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.0, max_grad_norm: 1.0 }
    }
}

/// Moments and the step count.
#[derive(Clone, Debug)]
pub struct AdamW {
    /// Settings.
    pub config: AdamWConfig,
    /// Steps taken.
    pub step: u64,
    moments: Vec<(Vec<f32>, Vec<f32>)>,
}

multiversion! {
    fn update(p: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32], c: &Coefficients) -> () {
        for i in 0..p.len() {
            let g = g[i] * c.clip;
            m[i] = c.beta1 * m[i] + (1.0 - c.beta1) * g;
            v[i] = c.beta2 * v[i] + (1.0 - c.beta2) * g * g;
            p[i] = p[i] * c.keep - c.rate * m[i] / (v[i].sqrt() * c.root + c.eps);
        }
    }
}

struct Coefficients {
    clip: f32,
    beta1: f32,
    beta2: f32,
    keep: f32,
    rate: f32,
    root: f32,
    eps: f32,
}

impl AdamW {
    /// Zero moments for every trainable parameter.
    pub fn new(config: AdamWConfig, params: &ParamStore) -> Self {
        let size = |p: &crate::Param| if p.trainable { p.data.len() } else { 0 };
        AdamW {
            config,
            step: 0,
            moments: params.iter().map(|(_, p)| (vec![0.0; size(p)], vec![0.0; size(p)])).collect(),
        }
    }

    /// First and second moment of a parameter, in its stored layout.
    pub fn moments(&self, id: ParamId) -> (&[f32], &[f32]) {
        (&self.moments[id.0].0, &self.moments[id.0].1)
    }

    /// The same, to be restored from a checkpoint.
    pub fn moments_mut(&mut self, id: ParamId) -> (&mut Vec<f32>, &mut Vec<f32>) {
        let (m, v) = &mut self.moments[id.0];
        (m, v)
    }

    /// One step at this learning rate. Returns the gradient norm before clipping; a norm that is not finite changes nothing.
    pub fn step(&mut self, params: &mut ParamStore, grads: &Gradients, learning_rate: f64) -> f64 {
        let norm = grads.norm();
        if !norm.is_finite() {
            return norm;
        }
        self.step += 1;
        let c = self.config;
        let limit = f64::from(c.max_grad_norm);
        let clip = if limit > 0.0 && norm > limit { limit / (norm + 1e-6) } else { 1.0 };
        let correction1 = 1.0 - f64::from(c.beta1).powi(self.step as i32);
        let correction2 = 1.0 - f64::from(c.beta2).powi(self.step as i32);
        params.all_mut().par_iter_mut().zip(&mut self.moments).enumerate().with_max_len(1).for_each(
            |(i, (param, moments))| {
                if !param.trainable {
                    return;
                }
                let decays = !matches!(param.layout, Layout::Vector { .. });
                let coefficients = Coefficients {
                    clip: clip as f32,
                    beta1: c.beta1,
                    beta2: c.beta2,
                    keep: if decays { (1.0 - learning_rate * f64::from(c.weight_decay)) as f32 } else { 1.0 },
                    rate: (learning_rate / correction1) as f32,
                    root: (1.0 / correction2.sqrt()) as f32,
                    eps: c.eps,
                };
                let g = grads.get(ParamId(i));
                let (p, m, v) =
                    (Shared::new(&mut param.data), Shared::new(&mut moments.0), Shared::new(&mut moments.1));
                par::ranges(g.len(), 1 << 16, |r| {
                    // SAFETY: each task owns its range of all three buffers.
                    let (p, m, v) =
                        unsafe { (p.slice(r.start, r.len()), m.slice(r.start, r.len()), v.slice(r.start, r.len())) };
                    update(p, m, v, &g[r], &coefficients);
                });
            },
        );
        params.refresh();
        norm
    }
}
