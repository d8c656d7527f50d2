//! Parameters and their gradients, kept in the layout the kernels read.
//!
//! A linear weight `[n, k]` (Hugging Face order: output, input) is stored once, as panels `[ceil(n/32)][k][32]`: the forward
//! product streams it, its gradient is made in the same layout, and the optimizer works on it element by element. Padding
//! is zero and stays zero.

pub use crate::init::{Init, normal};
pub use crate::layout::Layout;
use crate::linear_bf16;
use crate::linear_bf16::Packed;
use crate::linear_fp8::{self, Blocks};
use crate::lora::{self, Adapter, Factor};
use crate::quant::{QuantRows, Quantized};
use crate::split::{self, Halves, MasterWeights, Table, TableMut};
use crate::values::Values;
use rayon::prelude::*;
use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

/// Index of a parameter in its store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ParamId(pub usize);

/// In what numbers the matrix products run; sums are f32 either way.
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
    /// What is added to every product with it.
    pub adapter: Option<Adapter<'a>>,
}

impl<'a> Weight<'a> {
    /// A matrix whose products run in f32.
    pub fn f32(panels: &'a [f32], n: usize, k: usize) -> Self {
        Weight { n, k, panels, packed: None, fp8: None, quantized: None, adapter: None }
    }

    /// Whether its products read activations that lie in bf16: they run in it alone, and rows are whole words.
    pub fn reads_pairs(&self) -> bool {
        let other = self.fp8.is_some() || self.quantized.is_some() || self.adapter.is_some();
        self.packed.is_some() && !other && self.k.is_multiple_of(2) && self.n.is_multiple_of(2)
    }
}

/// A named parameter.
#[derive(Clone, Debug)]
pub struct Param {
    /// Hugging Face tensor name.
    pub name: String,
    /// Layout of `data`.
    pub layout: Layout,
    /// Values in that layout; empty for a matrix in whole numbers, and for one whose halves are apart (see [`Param::values`]).
    pub data: Values,
    /// Whether gradients are made and the optimizer changes it.
    pub trainable: bool,
    /// The low-rank factors beside a matrix.
    pub adapter: Option<AdapterIds>,
    /// Matrices of a bf16 store: the values rounded, as of the last [`ParamStore::refresh`].
    packed: Option<Arc<Packed>>,
    /// The lower halves of the values, where `packed` is the upper ones; empty where those are all that is kept.
    lower: Option<Arc<Vec<u16>>>,
    /// The same in FP8.
    fp8: Option<Arc<Blocks>>,
    /// A matrix for inference only; `data` is empty then.
    quantized: Option<Quantized>,
    /// Whether values changed since they were rounded.
    stale: bool,
}

impl Param {
    fn new(name: String, layout: Layout, data: Vec<f32>) -> Self {
        Param {
            name,
            layout,
            data: data.into(),
            trainable: true,
            adapter: None,
            packed: None,
            lower: None,
            fp8: None,
            quantized: None,
            stale: true,
        }
    }

    /// Number of values in their layout; none for a matrix in whole numbers.
    pub fn len(&self) -> usize {
        self.table().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Values `range` of the layout; `range` begins and ends with whole panels (all of it, or one of [`Layout::pieces`]).
    pub fn values(&self, range: Range<usize>) -> Cow<'_, [f32]> {
        self.table().values(range)
    }

    /// All values in their layout.
    pub fn all(&self) -> Cow<'_, [f32]> {
        self.values(0..self.len())
    }

    /// The values, wherever they lie.
    pub(crate) fn table(&self) -> Table<'_> {
        match (&self.packed, &self.lower) {
            (Some(packed), Some(lower)) => Table::Split(Halves::new(packed, lower)),
            _ => Table::Whole(&self.data),
        }
    }

    /// How the values lie.
    pub(crate) fn master(&self) -> MasterWeights {
        match &self.lower {
            None => MasterWeights::Whole,
            Some(lower) if lower.is_empty() => MasterWeights::Bf16,
            Some(_) => MasterWeights::Split,
        }
    }

    /// The values, to be changed; what a clone still reads is copied first. Of a split matrix the copy for the input gradient
    /// is made anew by [`ParamStore::refresh`].
    pub(crate) fn table_mut(&mut self) -> TableMut<'_> {
        match (&mut self.packed, &mut self.lower) {
            (Some(packed), Some(lower)) => {
                let packed = Arc::make_mut(packed).words_mut();
                match lower.is_empty() {
                    true => TableMut::Bf16(packed),
                    false => TableMut::Split(packed, Arc::<Vec<u16>>::make_mut(lower)),
                }
            }
            _ => TableMut::Whole(&mut self.data),
        }
    }

    /// Puts the values of a split matrix together again.
    pub(crate) fn join(&mut self) {
        if self.lower.is_some() {
            self.data = self.all().into_owned().into();
            self.lower = None;
        }
    }

    /// Takes the values apart, or keeps them rounded to nearest; `data` is empty then.
    fn split(&mut self, n: usize, k: usize, master: MasterWeights) {
        let (packed, values) = (own(&mut self.packed), std::mem::take(&mut self.data));
        let lower = if master == MasterWeights::Split {
            packed.resize(n, k);
            split::split(packed.words_mut(), &values)
        } else {
            packed.pack(&values, n, k, false);
            Vec::new()
        };
        self.lower = Some(Arc::new(lower));
    }

    /// Rounds the values for products in `precision`; a trained matrix lies as `master` says.
    fn round(&mut self, precision: Precision, gradients: bool, master: MasterWeights) {
        self.stale = false;
        if precision != Precision::Bf16 || master != self.master() {
            self.join();
        }
        let apart = master != MasterWeights::Whole && self.trainable;
        match (precision, self.layout) {
            (Precision::Fp8, Layout::Panels { n, k })
                if self.quantized.is_none() && linear_fp8::applies_to(&self.name) =>
            {
                self.packed = None;
                own(&mut self.fp8).quantise(&self.data, n, k);
            }
            (Precision::Bf16, Layout::Panels { n, k })
                if self.lower.is_some() || apart && split::applies_to(&self.name, k) =>
            {
                self.fp8 = None;
                if self.lower.is_none() {
                    self.split(n, k, master);
                }
                let keep = gradients && linear_bf16::is_small(n, k);
                let packed = self.packed.as_mut().expect("the upper halves");
                // A clone that needs no copy for the gradient goes on sharing one that has it.
                if keep || Arc::get_mut(packed).is_some() {
                    Arc::make_mut(packed).turn(n, k, keep);
                }
            }
            (Precision::Bf16 | Precision::Fp8, Layout::Panels { n, k }) if self.quantized.is_none() => {
                self.fp8 = None;
                // What is frozen under adapters is there to take little room.
                let large = !self.trainable && !linear_bf16::is_small(n, k) && !linear_bf16::is_tall(n);
                own(&mut self.packed).pack(&self.data, n, k, gradients && !large);
            }
            _ => (self.packed, self.fp8) = (None, None),
        }
    }
}

/// A buffer to write anew: the old one, unless a clone still reads it.
fn own<T: Default + Clone>(buffer: &mut Option<Arc<T>>) -> &mut T {
    if buffer.as_mut().is_some_and(|b| Arc::get_mut(b).is_none()) {
        *buffer = None;
    }
    Arc::make_mut(buffer.get_or_insert_default())
}

/// The two factors of an adapter, and what their product is multiplied with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdapterIds {
    /// A `[r, k]`.
    pub a: ParamId,
    /// B `[n, r]`.
    pub b: ParamId,
    /// s.
    pub scale: f32,
}

/// All parameters of a model. `version` changes whenever values do, so that caches of old values can be dropped.
#[derive(Clone, Debug, Default)]
pub struct ParamStore {
    params: Vec<Param>,
    precision: Precision,
    /// Whether the backward copies are kept.
    gradients: bool,
    /// How matrices lie that are trained in bf16.
    master: MasterWeights,
    /// Counts updates of the values.
    pub version: u64,
}

impl ParamStore {
    /// Adds a parameter with row-major values.
    pub fn add(&mut self, name: impl Into<String>, layout: Layout, values: Vec<f32>) -> ParamId {
        assert_eq!(values.len(), layout.shape().iter().product::<usize>(), "values do not fill the layout");
        let data = layout.store(values);
        let name = name.into();
        self.params.push(Param::new(name, layout, data));
        ParamId(self.params.len() - 1)
    }

    /// Adds a matrix in whole numbers, for inference.
    pub fn add_quantized(&mut self, name: impl Into<String>, layout: Layout, rows: &QuantRows) -> ParamId {
        assert_eq!(layout.shape(), [rows.n, rows.k], "quantised rows have the shape of the layout");
        let quantized = Some(Quantized::new(rows));
        self.params.push(Param { trainable: false, quantized, ..Param::new(name.into(), layout, Vec::new()) });
        ParamId(self.params.len() - 1)
    }

    /// Adds a parameter with fresh values.
    pub fn init(&mut self, name: impl Into<String>, layout: Layout, init: Init) -> ParamId {
        let name = name.into();
        let values = init.values(layout.shape().iter().product(), &name);
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

    /// Chooses the numbers products run in; with `gradients` also what their backward reads. Frozen parameters keep what they
    /// have when it is enough, so that clones go on sharing it.
    pub fn set_precision(&mut self, precision: Precision, gradients: bool) {
        let (other, more, less) =
            (precision != self.precision, gradients && !self.gradients, self.gradients && !gradients);
        for p in &mut self.params {
            p.stale |= other || more || less && p.trainable;
        }
        (self.precision, self.gradients) = (precision, gradients);
        self.refresh();
    }

    /// How the matrices lie that are trained with products in bf16: see [`crate::split`]. With products in other numbers it
    /// changes nothing.
    pub fn master_weights(&mut self, master: MasterWeights) {
        self.params.iter_mut().for_each(|p| p.stale |= master != self.master);
        self.master = master;
        self.refresh();
    }

    /// Rounds what changed; to be called after every update. Buffers are reused.
    pub fn refresh(&mut self) {
        let (precision, gradients, master) = (self.precision, self.gradients, self.master);
        let stale = self.params.par_iter_mut().with_max_len(1).filter(|p| p.stale);
        stale.for_each(|p| p.round(precision, gradients, master));
    }

    /// Puts an adapter beside a matrix `[n, k]`: `a` `[r, k]` and `b` `[n, r]`.
    ///
    /// # Panics
    /// When the shapes do not fit.
    pub fn attach(&mut self, weight: ParamId, a: ParamId, b: ParamId, scale: f32) {
        let shape = |id: ParamId| self.params[id.0].layout.shape();
        let (w, rank) = (shape(weight), shape(a)[0]);
        assert!(shape(a) == [rank, w[1]] && shape(b) == [w[0], rank], "an adapter has the widths of its matrix");
        self.params[weight.0].adapter = Some(AdapterIds { a, b, scale });
    }

    /// Row-major values of a parameter, its adapter added where it has one.
    pub fn merged(&self, id: ParamId) -> Vec<f32> {
        let mut all = Vec::with_capacity(self.params[id.0].layout.shape().iter().product());
        self.merged_pieces(id, &mut |piece| all.extend_from_slice(piece));
        all
    }

    /// The same in pieces of whole rows.
    pub fn merged_pieces(&self, id: ParamId, put: &mut dyn FnMut(&[f32])) {
        let p = &self.params[id.0];
        let factors = p.adapter.map(|AdapterIds { a, b, scale }| {
            let [a, b] = [a, b].map(|id| &self.params[id.0]);
            (a.layout.load(&a.all()), b.layout.load(&b.all()), a.layout.shape()[0], scale)
        });
        let mut row = 0;
        for (range, layout) in p.layout.pieces() {
            let mut values = layout.load(&p.values(range));
            if let Some((a, b, rank, scale)) = &factors {
                let rows = layout.shape()[0];
                lora::merge(&mut values, a, &b[row * rank..(row + rows) * rank], *rank, *scale);
                row += rows;
            }
            put(&values);
        }
    }

    /// A matrix for the products.
    ///
    /// # Panics
    /// When values of a bf16 or FP8 store changed without a [`ParamStore::refresh`].
    pub fn weight(&self, id: ParamId) -> Weight<'_> {
        let p = &self.params[id.0];
        let factor = |id: ParamId| {
            let p = &self.params[id.0];
            assert!(!p.stale || self.precision == Precision::F32, "an adapter changed and was not refreshed");
            Factor { panels: &p.data, packed: p.packed.as_deref() }
        };
        assert!(!p.stale || self.precision == Precision::F32, "parameters changed and were not refreshed");
        let shape = p.layout.shape();
        let (packed, fp8, quantized) = (p.packed.as_deref(), p.fp8.as_deref(), p.quantized.as_ref());
        let adapter = p.adapter.map(|AdapterIds { a, b, scale }| {
            let rank = self.params[a.0].layout.shape()[0];
            Adapter { rank, scale, a: factor(a), b: factor(b) }
        });
        Weight { n: shape[0], k: shape[1], panels: &p.data, packed, fp8, quantized, adapter }
    }

    /// All parameters, to be changed; raises the version.
    pub fn all_mut(&mut self) -> &mut [Param] {
        self.version += 1;
        self.params.iter_mut().for_each(|p| {
            p.stale = true;
            p.join();
        });
        &mut self.params
    }

    /// All parameters, of which only the trainable ones may be changed; raises the version.
    pub(crate) fn trainable_mut(&mut self) -> &mut [Param] {
        self.version += 1;
        self.params.iter_mut().for_each(|p| p.stale |= p.trainable);
        &mut self.params
    }

    /// The parameter, to be changed; raises the version.
    pub fn get_mut(&mut self, id: ParamId) -> &mut Param {
        self.version += 1;
        self.params[id.0].stale = true;
        self.params[id.0].join();
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
    ///
    /// # Panics
    /// When it is split: see [`Param::values`].
    pub fn data(&self, id: ParamId) -> &[f32] {
        let p = &self.params[id.0];
        assert!(p.lower.is_none(), "the values of {} are not in one piece of f32", p.name);
        &p.data
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

    /// Copies all values from a store of the same shape; what both share is left alone.
    pub fn copy_from(&mut self, other: &ParamStore) {
        let master = self.master;
        for (a, b) in self.params.iter_mut().zip(&other.params) {
            if a.lower.is_some() || b.lower.is_some() {
                a.stale |= a.lower.is_none() || b.master() != master;
                (a.data, a.lower, a.packed) = (b.data.clone(), b.lower.clone(), b.packed.clone());
            } else if !a.data.shares(&b.data) {
                a.data.copy_from_slice(&b.data);
                a.stale = true;
            }
        }
        self.version += 1;
        self.refresh();
    }
}
