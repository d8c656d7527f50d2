//! The optimizer of a model: gradient clipping, then AdamW or Muon per parameter, moments in f32 or bf16.
//!
//! With Muon the matrices inside the blocks follow [`crate::muon`]; embedding, output head, norms and biases stay with AdamW.
//! bf16 moments (DeepSeek-V3, section 3.3.2) are rounded to nearest after each step; the step itself uses the unrounded ones.

use crate::adamw::{self, AdamWConfig, Coefficients};
use crate::cpu::bf16;
use crate::gradients::Gradients;
use crate::muon::{self, MuonConfig};
use crate::par::{self, Shared};
use crate::params::{Layout, Param, ParamId, ParamStore};
use rayon::prelude::*;
use std::borrow::Cow;
use std::ops::Range;

/// In what numbers moments are kept between steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MomentType {
    /// f32.
    #[default]
    F32,
    /// bf16: half the memory.
    Bf16,
}

/// Settings of the optimizer; the learning rate comes with every step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct OptimizerConfig {
    /// AdamW, and what holds for both: weight decay and clipping.
    pub adamw: AdamWConfig,
    /// Muon for the matrices of the blocks, where it is chosen.
    pub muon: Option<MuonConfig>,
    /// Numbers of the moments.
    pub moments: MomentType,
}

impl From<AdamWConfig> for OptimizerConfig {
    fn from(adamw: AdamWConfig) -> Self {
        OptimizerConfig { adamw, ..OptimizerConfig::default() }
    }
}

/// One moment of one parameter, in the parameter's layout.
#[derive(Clone, Debug)]
enum Moment {
    F32(Vec<f32>),
    Bf16(Vec<u16>),
}

impl Moment {
    fn zero(kind: MomentType, len: usize) -> Self {
        match kind {
            MomentType::F32 => Moment::F32(vec![0.0; len]),
            MomentType::Bf16 => Moment::Bf16(vec![0; len]),
        }
    }

    fn values(&self, range: Range<usize>) -> Cow<'_, [f32]> {
        match self {
            Moment::F32(v) => Cow::Borrowed(&v[range]),
            Moment::Bf16(v) => Cow::Owned(v[range].iter().map(|b| widen(*b)).collect()),
        }
    }

    /// Stores values, rounding where the moment is bf16.
    fn set(&mut self, values: Vec<f32>) {
        match self {
            Moment::F32(v) => *v = values,
            Moment::Bf16(v) => {
                v.resize(values.len(), 0);
                bf16::halve(v, &values);
            }
        }
    }

    fn len(&self) -> usize {
        match self {
            Moment::F32(v) => v.len(),
            Moment::Bf16(v) => v.len(),
        }
    }
}

fn widen(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
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
            let first = if p.trainable { p.data.len() } else { 0 };
            let second = if uses_muon(&config, p) { 0 } else { first };
            (Moment::zero(config.moments, first), Moment::zero(config.moments, second))
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
        m.set(first);
        v.set(second);
    }

    /// One step at this learning rate. Returns the gradient norm before clipping; a norm that is not finite changes nothing.
    pub fn step(&mut self, params: &mut ParamStore, grads: &Gradients, learning_rate: f64) -> f64 {
        let norm = grads.norm();
        if !norm.is_finite() {
            return norm;
        }
        self.step += 1;
        let config = self.config;
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
                let keep = if decays { (1.0 - learning_rate * f64::from(c.weight_decay)) as f32 } else { 1.0 };
                let g = grads.get(ParamId(i));
                if let (Some(muon), true) = (&config.muon, uses_muon(&config, param)) {
                    let mut momentum = m.values(0..m.len()).into_owned();
                    muon::update(param, &mut momentum, g, clip as f32, keep, learning_rate, muon);
                    m.set(momentum);
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
                match (m, v) {
                    (Moment::F32(m), Moment::F32(v)) => adamw_f32(&mut param.data, m, v, g, &coefficients),
                    (Moment::Bf16(m), Moment::Bf16(v)) => adamw_bf16(&mut param.data, m, v, g, &coefficients),
                    _ => unreachable!("both moments are of one type"),
                }
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

fn adamw_f32(p: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32], c: &Coefficients) {
    let (p, m, v) = (Shared::new(p), Shared::new(m), Shared::new(v));
    par::ranges(g.len(), 1 << 16, |r| {
        // SAFETY: each task owns its range of all three buffers.
        let (p, m, v) = unsafe { (p.slice(r.start, r.len()), m.slice(r.start, r.len()), v.slice(r.start, r.len())) };
        adamw::update(p, m, v, &g[r], c);
    });
}

fn adamw_bf16(p: &mut [f32], m: &mut [u16], v: &mut [u16], g: &[f32], c: &Coefficients) {
    const CHUNK: usize = 1024;
    let chunks = p.par_chunks_mut(CHUNK).zip(m.par_chunks_mut(CHUNK)).zip(v.par_chunks_mut(CHUNK));
    chunks.zip(g.par_chunks(CHUNK)).with_min_len(64).for_each(|(((p, m), v), g)| {
        let (mut wide_m, mut wide_v) = ([0f32; CHUNK], [0f32; CHUNK]);
        let (wide_m, wide_v) = (&mut wide_m[..g.len()], &mut wide_v[..g.len()]);
        for (wide, bits) in [(&mut *wide_m, &*m), (&mut *wide_v, &*v)] {
            for (w, b) in wide.iter_mut().zip(bits) {
                *w = widen(*b);
            }
        }
        adamw::update(p, wide_m, wide_v, g, c);
        bf16::halve(m, wide_m);
        bf16::halve(v, wide_v);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::bf16::round;
    use crate::linear::tests::noise;

    fn store() -> ParamStore {
        let mut params = ParamStore::default();
        params.add("model.layers.0.mlp.up_proj.weight", Layout::Panels { n: 40, k: 70 }, noise(2800, 1));
        params.add("norm.weight", Layout::Vector { n: 33 }, noise(33, 2));
        params
    }

    fn gradients(params: &ParamStore, seed: u64) -> Gradients {
        let mut grads = Gradients::new(params);
        for (id, p) in params.iter() {
            let values = noise(p.layout.shape().iter().product(), seed + id.0 as u64);
            grads.get_mut(id).unwrap().copy_from_slice(&p.layout.store(values));
        }
        grads
    }

    #[test]
    fn bf16_moments_are_the_rounded_ones_of_each_step() {
        let mut params = store();
        let adamw = AdamWConfig { weight_decay: 0.1, ..AdamWConfig::default() };
        let config = OptimizerConfig { adamw, moments: MomentType::Bf16, ..OptimizerConfig::default() };
        let mut optimizer = Optimizer::new(config, &params);
        let mut want: Vec<(Vec<f64>, Vec<f32>, Vec<f32>)> = params
            .iter()
            .map(|(_, p)| {
                (p.data.iter().map(|v| f64::from(*v)).collect(), vec![0.0; p.data.len()], vec![0.0; p.data.len()])
            })
            .collect();
        for step in 1..=5 {
            let grads = gradients(&params, 10 * step);
            let norm = optimizer.step(&mut params, &grads, 0.01);
            let clip = 1.0 / norm.max(1.0);
            for (i, (p, m, v)) in want.iter_mut().enumerate() {
                for (j, g) in grads.get(ParamId(i)).iter().enumerate() {
                    let g = f64::from(*g) * clip;
                    let (m2, v2) = (0.9 * f64::from(m[j]) + 0.1 * g, 0.95 * f64::from(v[j]) + 0.05 * g * g);
                    let (mh, vh) = (m2 / (1.0 - 0.9f64.powi(step as i32)), v2 / (1.0 - 0.95f64.powi(step as i32)));
                    let decay = if i == 0 { 1.0 - 0.01 * 0.1 } else { 1.0 };
                    p[j] = p[j] * decay - 0.01 * mh / (vh.sqrt() + 1e-8);
                    (m[j], v[j]) = (round(m2 as f32), round(v2 as f32));
                }
            }
        }
        for (id, p) in params.iter() {
            let (m, v) = (optimizer.moment(id, false), optimizer.moment(id, true));
            for (j, x) in p.data.iter().enumerate() {
                assert!((f64::from(*x) - want[id.0].0[j]).abs() < 2e-4, "{} at {j}: {x} {}", p.name, want[id.0].0[j]);
                // A neighbour where f32 and f64 fall on two sides of a tie.
                for (found, wanted) in [(m[j], want[id.0].1[j]), (v[j], want[id.0].2[j])] {
                    assert!(found == round(found) && (found - wanted).abs() <= wanted.abs() / 64.0, "{found} {wanted}");
                }
            }
        }
    }

    #[test]
    fn restored_it_goes_on_with_the_same_bits() {
        let muon = Some(MuonConfig::default());
        for moments in [MomentType::F32, MomentType::Bf16] {
            for muon in [None, muon] {
                let config = OptimizerConfig { muon, moments, ..OptimizerConfig::default() };
                let mut params = store();
                let mut one = Optimizer::new(config, &params);
                let all: Vec<Gradients> = (0..6).map(|step| gradients(&params, step)).collect();
                for grads in &all[..3] {
                    one.step(&mut params, grads, 0.01);
                }
                let mut copy = params.clone();
                let mut two = Optimizer::new(config, &copy);
                two.step = one.step;
                for (id, _) in copy.iter() {
                    let second = one.has_second(id).then(|| one.moment(id, true).into_owned());
                    two.restore(id, one.moment(id, false).into_owned(), second);
                }
                for grads in &all[3..] {
                    one.step(&mut params, grads, 0.01);
                    two.step(&mut copy, grads, 0.01);
                }
                assert!(params.iter().zip(copy.iter()).all(|((_, a), (_, b))| a.data == b.data));
                assert_eq!(one.has_second(ParamId(0)), muon.is_none(), "Muon keeps one moment");
                assert!(one.has_second(ParamId(1)), "a norm stays with AdamW");
            }
        }
    }
}
