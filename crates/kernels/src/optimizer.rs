//! The optimizer of a model: gradient clipping, then AdamW or Muon per parameter, moments in f32, bf16 or 8 bits.
//!
//! With Muon the matrices inside the blocks follow [`crate::muon`]; embedding, output head, norms and biases stay with AdamW.
//! bf16 moments (DeepSeek-V3, section 3.3.2) are rounded to nearest after each step, those of 8 bits stochastically (see
//! [`crate::moments`]); the step itself uses the unrounded ones. Weights may lie in bf16 alone (see [`crate::split`]).

use crate::adamw::{self, AdamWConfig, Coefficients};
use crate::dice::{Noise, Rounded};
use crate::gradients::{GradientType, Gradients};
use crate::memory;
pub use crate::moments::MomentType;
use crate::moments::{CHUNK, Moment, Piece};
use crate::muon::{self, MuonConfig};
use crate::params::{Layout, Param, ParamId, ParamStore, Precision};
pub use crate::split::MasterWeights;
use crate::split::TableMut;
use rayon::prelude::*;
use std::borrow::Cow;
use std::ops::Range;

/// Settings of the optimizer; the learning rate comes with every step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct OptimizerConfig {
    /// AdamW, and what holds for both: weight decay and clipping.
    pub adamw: AdamWConfig,
    /// Muon for the matrices of the blocks, where it is chosen.
    pub muon: Option<MuonConfig>,
    /// Numbers of the moments.
    pub moments: MomentType,
    /// Numbers that gradients of matrices are summed in.
    pub gradients: GradientType,
    /// Seed of the stochastic rounding of moments in 8 bits, gradients and weights in bf16.
    pub seed: u64,
    /// How the master weights lie where products run in bf16.
    pub master: MasterWeights,
}

impl OptimizerConfig {
    /// Makes the parameters ready to be trained with products in `precision`.
    pub fn prepare(&self, params: &mut ParamStore, precision: Precision) {
        params.master_weights(self.master);
        params.set_precision(precision, true);
        if self.master != MasterWeights::Whole && precision == Precision::Bf16 {
            memory::give_back();
        }
    }
}

impl From<AdamWConfig> for OptimizerConfig {
    fn from(adamw: AdamWConfig) -> Self {
        OptimizerConfig { adamw, ..OptimizerConfig::default() }
    }
}

/// Moments and the step count.
#[derive(Clone, Debug)]
pub struct Optimizer {
    /// Settings.
    pub config: OptimizerConfig,
    /// Steps taken.
    pub step: u64,
    /// First and second moment by parameter; empty for frozen ones, and the second for those of Muon.
    moments: Vec<(Moment, Moment)>,
}

impl Optimizer {
    /// Zero moments for every trainable parameter.
    pub fn new(config: impl Into<OptimizerConfig>, params: &ParamStore) -> Self {
        let config = config.into();
        let moments = params.iter().map(|(_, p)| {
            let first = if p.trainable { p.len() } else { 0 };
            let second = if uses_muon(&config, p) { 0 } else { first };
            (Moment::zero(config.moments, false, first), Moment::zero(config.moments, true, second))
        });
        Optimizer { step: 0, moments: moments.collect(), config }
    }

    /// A moment of a parameter, the first or the second, in its stored layout. Without a second one it is empty.
    pub fn moment(&self, id: ParamId, second: bool) -> Cow<'_, [f32]> {
        let moment = self.pick(id, second);
        moment.values(0..moment.len())
    }

    /// Values `range` of a moment.
    pub fn moment_piece(&self, id: ParamId, second: bool, range: Range<usize>) -> Cow<'_, [f32]> {
        self.pick(id, second).values(range)
    }

    fn pick(&self, id: ParamId, second: bool) -> &Moment {
        let (m, v) = &self.moments[id.0];
        if second { v } else { m }
    }

    /// Whether a parameter has a second moment: one of Muon has none.
    pub fn has_second(&self, id: ParamId) -> bool {
        let (m, v) = &self.moments[id.0];
        v.len() == m.len()
    }

    /// Puts back what [`Optimizer::moment`] gave.
    ///
    /// # Panics
    /// When the lengths are not those of the parameter.
    pub fn restore(&mut self, id: ParamId, first: Vec<f32>, second: Option<Vec<f32>>) {
        let (m, v) = &mut self.moments[id.0];
        let second = second.unwrap_or_default();
        assert!(first.len() == m.len() && second.len() == v.len(), "moments of another parameter");
        m.set(first, None);
        v.set(second, None);
    }

    /// One step at this learning rate. Returns the gradient norm before clipping; a norm that is not finite changes nothing.
    pub fn step(&mut self, params: &mut ParamStore, grads: &Gradients, learning_rate: f64) -> f64 {
        let norm = grads.norm();
        if !norm.is_finite() {
            return norm;
        }
        self.step += 1;
        let (config, step) = (self.config, self.step);
        let c = config.adamw;
        let limit = f64::from(c.max_grad_norm);
        let clip = if limit > 0.0 && norm > limit { limit / (norm + 1e-6) } else { 1.0 };
        let correction1 = 1.0 - f64::from(c.beta1).powi(self.step as i32);
        let correction2 = 1.0 - f64::from(c.beta2).powi(self.step as i32);
        params.trainable_mut().par_iter_mut().zip(&mut self.moments).enumerate().with_max_len(1).for_each(
            |(i, (param, (m, v)))| {
                if !param.trainable {
                    return;
                }
                let decays = !matches!(param.layout, Layout::Vector { .. });
                let noise = Noise { seed: config.seed, step, parameter: i, what: Rounded::First, first: 0 };
                let keep = if decays { (1.0 - learning_rate * f64::from(c.weight_decay)) as f32 } else { 1.0 };
                if let (Some(muon), true) = (&config.muon, uses_muon(&config, param)) {
                    let mut momentum = m.values(0..m.len()).into_owned();
                    let g = grads.values(ParamId(i));
                    let shape = param.layout.shape();
                    let mut step = |w: &mut [f32]| {
                        let shape = (shape[0], shape[1]);
                        muon::update(w, shape, &mut momentum, &g, clip as f32, keep, learning_rate, muon);
                    };
                    if let TableMut::Whole(values) = param.table_mut() {
                        step(values);
                    } else {
                        let mut values = param.all().into_owned();
                        step(&mut values);
                        param.table_mut().write(&values, Noise { what: Rounded::Weight, ..noise });
                    }
                    m.set(momentum, Some(noise));
                    return;
                }
                let coefficients = Coefficients {
                    clip: clip as f32,
                    beta1: c.beta1,
                    beta2: c.beta2,
                    keep,
                    rate: (learning_rate / correction1) as f32,
                    root: (1.0 / correction2.sqrt()) as f32,
                    eps: c.eps,
                };
                adamw(param, (m, v), grads, &coefficients, noise);
            },
        );
        params.refresh();
        norm
    }
}

/// Whether a parameter is a matrix inside a block and Muon is chosen.
fn uses_muon(config: &OptimizerConfig, param: &Param) -> bool {
    config.muon.is_some() && muon::applies_to(param)
}

/// Values that are worth a task of their own.
const TASK: usize = 1 << 16;

/// AdamW on a parameter, a piece at a time. What is f32 changes in place, and in long pieces where all of it is; the rest goes
/// through f32 copies.
fn adamw(param: &mut Param, (m, v): (&mut Moment, &mut Moment), grads: &Gradients, c: &Coefficients, noise: Noise) {
    assert!(m.len() == param.len() && v.len() == param.len(), "moments of another parameter");
    let id = ParamId(noise.parameter);
    let in_place = matches!(m, Moment::F32(_)) && param.master() == MasterWeights::Whole && grads.is_f32(id);
    let chunk = if in_place { TASK } else { CHUNK };
    let moments = m.chunks_mut(chunk).zip(v.chunks_mut(chunk));
    let pieces = param.table_mut().chunks_mut(chunk).zip(moments).enumerate();
    pieces.with_min_len(TASK / chunk).for_each(|(i, (mut p, (mut m, mut v)))| {
        let (first, len, mut wide_g) = (i * chunk, p.len(), [0f32; CHUNK]);
        let g = grads.piece(id, first..first + len, &mut wide_g);
        p.change(Noise { what: Rounded::Weight, first, ..noise }, |p| match (&mut m, &mut v) {
            (Piece::F32(m), Piece::F32(v)) => adamw::update(p, m, v, g, c),
            (m, v) => {
                let (mut wide_m, mut wide_v) = ([0f32; CHUNK], [0f32; CHUNK]);
                let (wide_m, wide_v) = (&mut wide_m[..len], &mut wide_v[..len]);
                m.read(wide_m);
                v.read(wide_v);
                adamw::update(p, wide_m, wide_v, g, c);
                let noise = Noise { what: Rounded::First, first, ..noise };
                m.write(wide_m, noise);
                v.write(wide_v, Noise { what: Rounded::Second, ..noise });
            }
        });
    });
}

#[cfg(test)]
mod tests;
