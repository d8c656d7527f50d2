//! The tape: it runs operations forward, remembers them when gradients are wanted, and plays them backwards.
//!
//! The decoder is written once against it. In inference nothing is remembered and a value returns to the pool of buffers
//! as soon as it is released; after the first step a run allocates nothing new.

mod backward;
mod divergence;
mod experts;
mod latent;
mod pool;
mod routing;
mod score;
mod shape;

pub use experts::{ExpertIds, MoeIds};
pub use routing::RoutingStats;

use crate::attention::{self, Heads};
use crate::cache::{CacheSpan, KvCache};
use crate::cpu::operand::halves;
use crate::gradients::Gradients;
use crate::params::{ParamId, ParamStore};
use crate::rope::Rope;
use crate::rows::Rows;
use crate::segments::Segments;
use crate::{embedding, linear, norm, swiglu};
use pool::Pool;
use std::sync::Arc;

/// A value on the tape: a matrix of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Var(usize);

/// What attention sees besides its own tokens.
pub enum Attend<'a> {
    /// Packed sequences from their beginning, or from where an earlier one ends; the form that training uses.
    Packed(Arc<Segments>),
    /// New tokens of sequences whose past lies in a cache.
    Cached {
        /// The cache, written and read.
        cache: &'a mut KvCache,
        /// Which rows belong to which sequence.
        spans: &'a [CacheSpan<'a>],
    },
}

enum Op {
    Embedding {
        table: ParamId,
        tokens: Arc<[u32]>,
        out: Var,
    },
    Linear {
        x: Var,
        weight: ParamId,
        bias: Option<ParamId>,
        residual: Option<Var>,
        out: Var,
    },
    /// Several matrices that read the same x.
    Linears {
        x: Var,
        parts: Vec<Part>,
    },
    Norm {
        x: Var,
        weight: ParamId,
        rstd: Vec<f32>,
        out: Var,
    },
    Rope {
        x: Var,
        rope: Arc<Rope>,
        positions: Arc<[u32]>,
    },
    Attention {
        q: Var,
        k: Var,
        v: Var,
        stats: Vec<f32>,
        segments: Arc<Segments>,
        heads: Heads,
        out: Var,
    },
    SwiGlu {
        gate: Var,
        up: Var,
        out: Var,
    },
    Select {
        x: Var,
        rows: Arc<[u32]>,
        out: Var,
    },
    Block {
        index: usize,
        x: Var,
        out: Var,
    },
    Other(Box<dyn Operation>),
}

/// One matrix of several.
#[derive(Clone, Copy)]
struct Part {
    weight: ParamId,
    bias: Option<ParamId>,
    out: Var,
}

/// The numbers of a value.
#[derive(Default)]
struct Value {
    /// As f32, or in bf16, two to a word.
    data: Vec<f32>,
    /// Whether they are in bf16: nothing but products reads them.
    pairs: bool,
    /// Whether nothing but bf16 products reads the gradient, so that it may be in bf16.
    gradient_may_be_pairs: bool,
    /// Whether the gradient is.
    gradient_is_pairs: bool,
}

impl Value {
    fn len(&self) -> usize {
        if self.pairs { 2 * self.data.len() } else { self.data.len() }
    }
}

/// Gradients of values by their number; `None` where nothing has flowed.
type Flow = Vec<Option<Vec<f32>>>;

/// An operation that lives in a file of its own.
trait Operation: Send {
    /// Takes the gradients of its results out of `d`, adds those of its inputs, and those of parameters to `grads`.
    fn backward(&self, tape: &mut Tape, params: &ParamStore, grads: &mut Gradients, d: &mut Flow);

    /// The buffers it holds.
    fn into_buffers(self: Box<Self>) -> Vec<Vec<f32>> {
        Vec::new()
    }
}

/// Log-probabilities that a loss is made of: where they come from and the loss's gradient with respect to each.
pub struct LossHead<'a> {
    /// Hidden states `[M, D]`.
    pub h: Var,
    /// The output matrix.
    pub head: ParamId,
    /// `[M]`.
    pub targets: &'a [u32],
    /// Divides the logits.
    pub temperature: f32,
    /// `[M]`.
    pub d_logp: &'a [f32],
}

/// Runs a block of the model again from its input: tape, number of the block, input; its output.
pub type Rerun<'a> = &'a mut dyn FnMut(&mut Tape, usize, Var) -> Var;

/// Values, remembered operations and reusable buffers.
#[derive(Default)]
pub struct Tape {
    recording: bool,
    /// Blocks keep only their input and are run again in the backward: a layer's memory instead of all layers', for a third
    /// more work. Changes no bit.
    pub gradient_checkpointing: bool,
    /// Counts of routed tokens, where they are wanted: a training tape has them.
    pub routing: Option<RoutingStats>,
    /// Factor on the balance loss of every routed layer, alpha over the number of tokens of the step; 0 leaves it out.
    pub balance_loss: f32,
    /// A value that a block must not release: its input.
    kept: Option<Var>,
    values: Vec<Option<Value>>,
    ops: Vec<Op>,
    pool: Pool,
}

impl Tape {
    /// A tape that remembers (training) or not (inference).
    pub fn new(recording: bool) -> Self {
        Tape { recording, routing: recording.then(RoutingStats::default), ..Tape::default() }
    }

    /// Forgets all values and operations, keeps their buffers.
    pub fn reset(&mut self) {
        let values = std::mem::take(&mut self.values);
        self.pool.give_all(values.into_iter().flatten().map(|v| v.data));
        let ops = std::mem::take(&mut self.ops);
        self.recycle(ops);
    }

    /// Forgets everything and frees the buffers, too.
    pub fn free(&mut self) {
        self.reset();
        self.pool = Pool::default();
    }

    /// A buffer of this length; old contents unless `zero`. See [`Pool::take`].
    fn take(&mut self, len: usize, zero: bool) -> Vec<f32> {
        self.pool.take(len, zero)
    }

    fn push(&mut self, data: Vec<f32>) -> Var {
        self.push_value(Value { data, ..Value::default() })
    }

    fn push_value(&mut self, value: Value) -> Var {
        self.values.push(Some(value));
        Var(self.values.len() - 1)
    }

    /// The value of a variable that has not been released and does not lie in bf16.
    pub fn value(&self, v: Var) -> &[f32] {
        self.rows(v).singles()
    }

    /// The value as a product reads it.
    fn rows(&self, v: Var) -> Rows<'_> {
        let value = self.at(v);
        if value.pairs { Rows::in_words(&value.data) } else { Rows::Singles(&value.data) }
    }

    fn at(&self, v: Var) -> &Value {
        self.values[v.0].as_ref().expect("value was released")
    }

    /// The numbers of a value, to be changed in place.
    fn value_mut(&mut self, v: Var) -> &mut [f32] {
        let value = self.values[v.0].as_mut().expect("value was released");
        assert!(!value.pairs, "values in bf16 are not changed");
        &mut value.data
    }

    /// Gives a value's buffer back when nothing is remembered; a training tape keeps it.
    pub fn release(&mut self, v: Var) {
        if !self.recording
            && self.kept != Some(v)
            && let Some(value) = self.values[v.0].take()
        {
            self.pool.give(value.data);
        }
    }

    /// `[T, D]` rows of an embedding table.
    pub fn embedding(&mut self, params: &ParamStore, table: ParamId, tokens: &Arc<[u32]>) -> Var {
        let layout = params.get(table).layout;
        let mut out = self.take(tokens.len() * layout.shape()[1], false);
        match params.weight(table).quantized {
            Some(table) => embedding::quantized(&mut out, table, tokens),
            None => embedding::forward(&mut out, params.get(table).table(), layout, tokens),
        }
        let out = self.push(out);
        self.record(|| Op::Embedding { table, tokens: tokens.clone(), out });
        out
    }

    /// x W^T (+ bias) (+ residual).
    pub fn linear(
        &mut self,
        params: &ParamStore,
        x: Var,
        weight: ParamId,
        bias: Option<ParamId>,
        residual: Option<Var>,
    ) -> Var {
        let w = params.weight(weight);
        let mut out = self.take(self.at(x).len() / w.k * w.n, false);
        if let Some(r) = residual {
            out.copy_from_slice(self.value(r));
        }
        linear::forward(&mut out, self.rows(x), w, residual.is_some());
        if let Some(b) = bias {
            linear::add_bias(&mut out, params.data(b));
        }
        let out = self.push(out);
        self.record(|| Op::Linear { x, weight, bias, residual, out });
        out
    }

    /// x W_i^T (+ bias_i) for several matrices of the same input.
    pub fn linears<const N: usize>(
        &mut self,
        params: &ParamStore,
        x: Var,
        weights: [(ParamId, Option<ParamId>); N],
    ) -> [Var; N] {
        let rows = self.at(x).len() / params.weight(weights[0].0).k;
        let mut outs = weights.map(|(w, _)| self.take(rows * params.weight(w).n, false));
        let mut all: Vec<_> =
            outs.iter_mut().zip(weights).map(|(out, (w, _))| (&mut out[..], params.weight(w))).collect();
        linear::forward_all(&mut all, self.rows(x));
        for (out, (_, bias)) in outs.iter_mut().zip(weights) {
            if let Some(b) = bias {
                linear::add_bias(out, params.data(b));
            }
        }
        let mut parts = Vec::with_capacity(N);
        for (data, (weight, bias)) in outs.into_iter().zip(weights) {
            let gradient_may_be_pairs = bias.is_none() && params.weight(weight).reads_pairs();
            let out = self.push_value(Value { data, gradient_may_be_pairs, ..Value::default() });
            parts.push(Part { weight, bias, out });
        }
        let vars = std::array::from_fn(|i| parts[i].out);
        self.record(|| Op::Linears { x, parts });
        vars
    }

    /// RMSNorm over rows as wide as the weight.
    pub fn norm(&mut self, params: &ParamStore, x: Var, weight: ParamId, eps: f32) -> Var {
        self.norm_for(params, x, weight, eps, &[])
    }

    /// RMSNorm whose result nothing but products with `readers` reads (all readers, or none named): in bf16 where these
    /// round it anyway.
    pub fn norm_for(&mut self, params: &ParamStore, x: Var, weight: ParamId, eps: f32, readers: &[ParamId]) -> Var {
        let w = params.data(weight);
        let len = self.value(x).len();
        let pairs = read_as_pairs(params, readers);
        let (mut data, mut rstd) =
            (self.take(if pairs { len / 2 } else { len }, false), self.take(len / w.len(), false));
        match pairs {
            true => norm::forward_pairs(halves(&mut data), &mut rstd, self.value(x), w, eps),
            false => norm::forward(&mut data, &mut rstd, self.value(x), w, eps),
        }
        let out = self.push_value(Value { data, pairs, ..Value::default() });
        if self.recording {
            self.ops.push(Op::Norm { x, weight, rstd, out });
        } else {
            self.pool.give(rstd);
        }
        out
    }

    /// Rotates x in place.
    pub fn rope(&mut self, x: Var, rope: &Arc<Rope>, positions: &Arc<[u32]>) {
        rope.apply(self.value_mut(x), positions, 1.0);
        self.record(|| Op::Rope { x, rope: rope.clone(), positions: positions.clone() });
    }

    /// Attention `[T, N*H]`, with values as wide as keys. Only the packed form can be played backwards.
    pub fn attention(&mut self, q: Var, k: Var, v: Var, layer: usize, attend: &mut Attend, heads: Heads) -> Var {
        let mut out = self.take(self.value(q).len(), false);
        match attend {
            Attend::Packed(segments) => {
                let mut stats = self.take(segments.tokens() * heads.query * 2, false);
                attention::forward(&mut out, &mut stats, self.value(q), self.value(k), self.value(v), segments, heads);
                let out = self.push(out);
                if self.recording {
                    self.ops.push(Op::Attention { q, k, v, stats, segments: segments.clone(), heads, out });
                } else {
                    self.pool.give(stats);
                }
                out
            }
            Attend::Cached { cache, spans } => {
                assert!(!self.recording, "cached attention has no backward");
                cache.write(layer, self.value(k), self.value(v), spans);
                cache.attend(layer, &mut out, self.value(q), spans, heads);
                self.push(out)
            }
        }
    }

    /// silu(gate) up, which nothing but the product with `reader` reads.
    pub fn swiglu(&mut self, params: &ParamStore, gate: Var, up: Var, reader: ParamId) -> Var {
        let len = self.value(gate).len();
        let pairs = read_as_pairs(params, &[reader]);
        let mut data = self.take(if pairs { len / 2 } else { len }, false);
        match pairs {
            true => swiglu::forward_pairs(halves(&mut data), self.value(gate), self.value(up)),
            false => swiglu::forward(&mut data, self.value(gate), self.value(up)),
        }
        let out = self.push_value(Value { data, pairs, ..Value::default() });
        self.record(|| Op::SwiGlu { gate, up, out });
        out
    }

    /// The named rows of x.
    pub fn select(&mut self, x: Var, rows: &Arc<[u32]>, width: usize) -> Var {
        let mut out = self.take(rows.len() * width, false);
        for (o, r) in out.chunks_exact_mut(width).zip(rows.iter()) {
            o.copy_from_slice(&self.value(x)[*r as usize * width..(*r as usize + 1) * width]);
        }
        let out = self.push(out);
        self.record(|| Op::Select { x, rows: rows.clone(), out });
        out
    }

    /// A block of the model. With [`Tape::gradient_checkpointing`] it is remembered by its number and input alone.
    pub fn block(&mut self, index: usize, x: Var, run: impl FnOnce(&mut Tape) -> Var) -> Var {
        if !(self.recording && self.gradient_checkpointing) {
            return run(self);
        }
        (self.recording, self.kept) = (false, Some(x));
        let out = run(self);
        (self.recording, self.kept) = (true, None);
        self.ops.push(Op::Block { index, x, out });
        out
    }

    fn record(&mut self, op: impl FnOnce() -> Op) {
        if self.recording {
            self.ops.push(op());
        }
    }
}

/// Whether products with all of these take activations in bf16.
fn read_as_pairs(params: &ParamStore, readers: &[ParamId]) -> bool {
    !readers.is_empty() && readers.iter().all(|id| params.weight(*id).reads_pairs())
}
