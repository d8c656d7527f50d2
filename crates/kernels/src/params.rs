//! Parameters and their gradients, kept in the layout the kernels read.
//!
//! A linear weight `[n, k]` (Hugging Face order: output, input) is stored once, as panels `[ceil(n/32)][k][32]`: the forward
//! product streams it, its gradient is made in the same layout, and the optimizer works on it element by element. Padding
//! is zero and stays zero.

use crate::cpu::NR;
use crate::linear_bf16::Packed;
use crate::linear_fp8::{self, Blocks};
use crate::quant::{QuantRows, Quantized};
use rayon::prelude::*;

/// Index of a parameter in its store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ParamId(pub usize);

/// How a parameter's values lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Matrix `[n, k]` as panels `[ceil(n/32)][k][32]`.
    Panels {
        /// Output width.
        n: usize,
        /// Input width.
        k: usize,
    },
    /// Matrix `[rows, cols]`, row-major (embedding tables).
    Rows {
        /// Number of rows.
        rows: usize,
        /// Width of a row.
        cols: usize,
    },
    /// Vector of `n` values (norm weights, biases).
    Vector {
        /// Length.
        n: usize,
    },
}

impl Layout {
    /// Values stored, padding included.
    pub fn stored(&self) -> usize {
        match *self {
            Layout::Panels { n, k } => n.div_ceil(NR) * NR * k,
            Layout::Rows { rows, cols } => rows * cols,
            Layout::Vector { n } => n,
        }
    }

    /// Logical shape, as in a checkpoint.
    pub fn shape(&self) -> Vec<usize> {
        match *self {
            Layout::Panels { n, k } => vec![n, k],
            Layout::Rows { rows, cols } => vec![rows, cols],
            Layout::Vector { n } => vec![n],
        }
    }

    /// From row-major values of [`Layout::shape`] to the stored order.
    pub fn store(&self, values: Vec<f32>) -> Vec<f32> {
        match *self {
            Layout::Panels { n, k } => {
                let mut out = vec![0.0; self.stored()];
                for (row, x) in values.chunks_exact(k.max(1)).enumerate().take(n) {
                    let panel = &mut out[(row / NR) * NR * k..];
                    for (j, v) in x.iter().enumerate() {
                        panel[j * NR + row % NR] = *v;
                    }
                }
                out
            }
            _ => values,
        }
    }

    /// From the stored order back to row-major values.
    pub fn load(&self, stored: &[f32]) -> Vec<f32> {
        match *self {
            Layout::Panels { n, k } => {
                let mut out = vec![0.0; n * k];
                for (row, x) in out.chunks_exact_mut(k.max(1)).enumerate() {
                    let panel = &stored[(row / NR) * NR * k..];
                    for (j, v) in x.iter_mut().enumerate() {
                        *v = panel[j * NR + row % NR];
                    }
                }
                out
            }
            _ => stored.to_vec(),
        }
    }
}

/// In what numbers the matrix products run. Sums, activations, gradients and master weights are f32 either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// Operands in f32.
    #[default]
    F32,
    /// Operands rounded to bf16.
    Bf16,
    /// Operands of linear layers in E4M3 with scales per tile (see [`crate::linear_fp8`]); embedding, output head and router
    /// in bf16.
    Fp8,
}

impl Precision {
    /// The faster one on this processor: bf16 where pairs have an instruction of their own.
    pub fn fastest() -> Self {
        #[cfg(target_arch = "x86_64")]
        if crate::cpu::simd::bf16_dot() {
            return Precision::Bf16;
        }
        Precision::F32
    }
}

/// A matrix `[n, k]` as the products read it.
#[derive(Clone, Copy, Debug)]
pub struct Weight<'a> {
    /// Output width.
    pub n: usize,
    /// Input width.
    pub k: usize,
    /// f32 panels `[ceil(n/32)][k][32]`.
    pub panels: &'a [f32],
    /// The same in bf16, when products run in it.
    pub packed: Option<&'a Packed>,
    /// The same in FP8, when products run in it.
    pub fp8: Option<&'a Blocks>,
    /// The same in whole numbers; `panels` is empty then.
    pub quantized: Option<&'a Quantized>,
}

impl<'a> Weight<'a> {
    /// A matrix whose products run in f32.
    pub fn f32(panels: &'a [f32], n: usize, k: usize) -> Self {
        Weight { n, k, panels, packed: None, fp8: None, quantized: None }
    }
}

/// A named parameter.
#[derive(Clone, Debug)]
pub struct Param {
    /// Hugging Face tensor name.
    pub name: String,
    /// Layout of `data`.
    pub layout: Layout,
    /// Values in that layout.
    pub data: Vec<f32>,
    /// Whether gradients are made and the optimizer changes it.
    pub trainable: bool,
    /// Matrices of a bf16 store: the values rounded, as of the last [`ParamStore::refresh`].
    packed: Option<Packed>,
    /// The same in FP8.
    fp8: Option<Blocks>,
    /// A matrix for inference only; `data` is empty then.
    quantized: Option<Quantized>,
}

/// How a fresh parameter begins.
#[derive(Clone, Copy, Debug)]
pub enum Init {
    /// All zero.
    Zero,
    /// All one.
    One,
    /// Normal with this standard deviation, from (seed, name).
    Normal {
        /// Standard deviation.
        std: f32,
        /// Run seed.
        seed: u64,
    },
}

/// All parameters of a model. `version` changes whenever values do, so that caches of old values can be dropped.
#[derive(Clone, Debug, Default)]
pub struct ParamStore {
    params: Vec<Param>,
    precision: Precision,
    /// Whether the backward copies are kept, and whether values changed since they were made.
    gradients: bool,
    stale: bool,
    /// Counts updates of the values.
    pub version: u64,
}

impl ParamStore {
    /// Adds a parameter with row-major values.
    pub fn add(&mut self, name: impl Into<String>, layout: Layout, values: Vec<f32>) -> ParamId {
        assert_eq!(values.len(), layout.shape().iter().product::<usize>(), "values do not fill the layout");
        let data = layout.store(values);
        let name = name.into();
        self.params.push(Param { name, layout, data, trainable: true, packed: None, fp8: None, quantized: None });
        self.stale = true;
        ParamId(self.params.len() - 1)
    }

    /// Adds a matrix in whole numbers, for inference.
    pub fn add_quantized(&mut self, name: impl Into<String>, layout: Layout, rows: &QuantRows) -> ParamId {
        assert_eq!(layout.shape(), [rows.n, rows.k], "quantised rows have the shape of the layout");
        let quantized = Some(Quantized::new(rows));
        self.params.push(Param {
            name: name.into(),
            layout,
            data: Vec::new(),
            trainable: false,
            packed: None,
            fp8: None,
            quantized,
        });
        ParamId(self.params.len() - 1)
    }

    /// Adds a parameter with fresh values.
    pub fn init(&mut self, name: impl Into<String>, layout: Layout, init: Init) -> ParamId {
        let name = name.into();
        let count = layout.shape().iter().product();
        let values = match init {
            Init::Zero => vec![0.0; count],
            Init::One => vec![1.0; count],
            Init::Normal { std, seed } => normal(count, std, seed, &name),
        };
        self.add(name, layout, values)
    }

    /// The parameter.
    pub fn get(&self, id: ParamId) -> &Param {
        &self.params[id.0]
    }

    /// In what numbers products run.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Chooses the numbers products run in; with `gradients` also what their backward reads.
    pub fn set_precision(&mut self, precision: Precision, gradients: bool) {
        (self.precision, self.gradients, self.stale) = (precision, gradients, true);
        self.refresh();
    }

    /// Rounds what changed; to be called after every update. Buffers are reused.
    pub fn refresh(&mut self) {
        let (precision, gradients) = (self.precision, self.gradients);
        self.params.par_iter_mut().with_max_len(1).for_each(|p| match (precision, p.layout) {
            (Precision::Fp8, Layout::Panels { n, k }) if p.quantized.is_none() && linear_fp8::applies_to(&p.name) => {
                p.packed = None;
                p.fp8.get_or_insert_default().quantise(&p.data, n, k);
            }
            (Precision::Bf16 | Precision::Fp8, Layout::Panels { n, k }) if p.quantized.is_none() => {
                p.fp8 = None;
                p.packed.get_or_insert_default().pack(&p.data, n, k, gradients);
            }
            _ => (p.packed, p.fp8) = (None, None),
        });
        self.stale = false;
    }

    /// A matrix for the products.
    ///
    /// # Panics
    /// When values of a bf16 or FP8 store changed without a [`ParamStore::refresh`].
    pub fn weight(&self, id: ParamId) -> Weight<'_> {
        assert!(!self.stale || self.precision == Precision::F32, "parameters changed and were not refreshed");
        let p = &self.params[id.0];
        let shape = p.layout.shape();
        let (packed, fp8, quantized) = (p.packed.as_ref(), p.fp8.as_ref(), p.quantized.as_ref());
        Weight { n: shape[0], k: shape[1], panels: &p.data, packed, fp8, quantized }
    }

    /// All parameters, to be changed; raises the version.
    pub fn all_mut(&mut self) -> &mut [Param] {
        self.version += 1;
        self.stale = true;
        &mut self.params
    }

    /// The parameter, to be changed; raises the version.
    pub fn get_mut(&mut self, id: ParamId) -> &mut Param {
        self.version += 1;
        self.stale = true;
        &mut self.params[id.0]
    }

    /// Values of a vector, to be changed; raises the version. No product reads vectors, so nothing has to be rounded anew.
    ///
    /// # Panics
    /// When the parameter is no vector.
    pub fn vector_mut(&mut self, id: ParamId) -> &mut [f32] {
        assert!(matches!(self.params[id.0].layout, Layout::Vector { .. }), "{} is no vector", self.params[id.0].name);
        self.version += 1;
        &mut self.params[id.0].data
    }

    /// Takes a parameter out of the reach of gradients and optimizer.
    pub fn freeze(&mut self, id: ParamId) {
        self.params[id.0].trainable = false;
    }

    /// Values of a parameter in their layout.
    pub fn data(&self, id: ParamId) -> &[f32] {
        &self.params[id.0].data
    }

    /// All parameters in order.
    pub fn iter(&self) -> impl Iterator<Item = (ParamId, &Param)> {
        self.params.iter().enumerate().map(|(i, p)| (ParamId(i), p))
    }

    /// Number of parameters (tensors).
    pub fn len(&self) -> usize {
        self.params.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.params.is_empty()
    }

    /// Copies all values from a store of the same shape.
    pub fn copy_from(&mut self, other: &ParamStore) {
        for (a, b) in self.params.iter_mut().zip(&other.params) {
            a.data.copy_from_slice(&b.data);
        }
        self.version += 1;
        self.refresh();
    }
}

/// Standard normal values times `std`, a function of (seed, name) alone (Box-Muller over splitmix64).
pub fn normal(count: usize, std: f32, seed: u64, name: &str) -> Vec<f32> {
    let mut state =
        name.bytes().fold(seed ^ 0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    let mut uniform = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    };
    let mut out = Vec::with_capacity(count + 1);
    while out.len() < count {
        let radius = (-2.0 * (1.0 - uniform()).ln()).sqrt();
        let angle = std::f64::consts::TAU * uniform();
        out.push((radius * angle.cos()) as f32 * std);
        out.push((radius * angle.sin()) as f32 * std);
    }
    out.truncate(count);
    out
}

/// Gradients in the layouts of their parameters; empty for frozen ones.
#[derive(Clone, Debug, Default)]
pub struct Gradients {
    data: Vec<Vec<f32>>,
}

impl Gradients {
    /// Zero gradients for every trainable parameter.
    pub fn new(params: &ParamStore) -> Self {
        let data =
            params.params.iter().map(|p| if p.trainable { vec![0.0; p.data.len()] } else { Vec::new() }).collect();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panels_round_trip_and_pad_with_zeros() {
        for (n, k) in [(1, 1), (31, 5), (32, 7), (70, 3)] {
            let values: Vec<f32> = (0..n * k).map(|i| i as f32 + 1.0).collect();
            let layout = Layout::Panels { n, k };
            let stored = layout.store(values.clone());
            assert_eq!(stored.len(), layout.stored());
            assert_eq!(layout.load(&stored), values);
            assert_eq!(stored.iter().filter(|v| **v == 0.0).count(), layout.stored() - n * k);
        }
    }

    #[test]
    fn normal_init_depends_on_seed_and_name_only() {
        let a = normal(20_001, 0.5, 1, "w");
        assert_eq!(a, normal(20_001, 0.5, 1, "w"));
        assert_ne!(a, normal(20_001, 0.5, 2, "w"));
        assert_ne!(a, normal(20_001, 0.5, 1, "v"));
        let mean = a.iter().map(|v| f64::from(*v)).sum::<f64>() / a.len() as f64;
        let var = a.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / a.len() as f64;
        assert!(mean.abs() < 0.02 && (var.sqrt() - 0.5).abs() < 0.01, "{mean} {var}");
    }
}
