//! AdamW (Loshchilov and Hutter): one pass over values, gradients and moments, with the clipping factor folded in.
//!
//! Weight decay acts on matrices only, as usual for decoders: norm weights and biases are not decayed.

use crate::multiversion;

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

multiversion! {
    /// One step of values p with moments m and v.
    pub(crate) fn update(p: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32], c: &Coefficients) -> () {
        for i in 0..p.len() {
            let g = g[i] * c.clip;
            m[i] = c.beta1 * m[i] + (1.0 - c.beta1) * g;
            v[i] = c.beta2 * v[i] + (1.0 - c.beta2) * g * g;
            p[i] = p[i] * c.keep - c.rate * m[i] / (v[i].sqrt() * c.root + c.eps);
        }
    }
}

/// What a step multiplies with, the same for a whole tensor.
pub(crate) struct Coefficients {
    pub clip: f32,
    pub beta1: f32,
    pub beta2: f32,
    /// Weight decay: 1 - learning rate x decay.
    pub keep: f32,
    /// Learning rate over the first moment's bias correction.
    pub rate: f32,
    /// 1 over the root of the second moment's bias correction.
    pub root: f32,
    pub eps: f32,
}
