//! The tape: it runs operations forward, remembers them when gradients are wanted, and plays them backwards.
//!
//! The decoder is written once against it. In inference nothing is remembered and a value returns to the pool of buffers
//! as soon as it is released; after the first step a run allocates nothing new.

mod backward;
mod divergence;
mod experts;
mod latent;
mod routing;
mod score;
mod shape;

pub use experts::{ExpertIds, MoeIds};
pub use routing::RoutingStats;

use crate::attention::{self, Heads, Segments};
use crate::cache::{CacheSpan, KvCache};
use crate::gradients::Gradients;
use crate::params::{ParamId, ParamStore};
use crate::rope::Rope;
use crate::{embedding, linear, norm, swiglu};
use std::sync::Arc;

/// A value on the tape: a matrix of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Var(usize);

/// What attention sees besides its own tokens.
pub enum Attend<'a> {
    /// Packed sequences from their beginning; the form that training uses.
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
    Embedding { table: ParamId, tokens: Arc<[u32]>, out: Var },
    Linear { x: Var, weight: ParamId, bias: Option<ParamId>, residual: Option<Var>, out: Var },
    Norm { x: Var, weight: ParamId, rstd: Vec<f32>, out: Var },
    Rope { x: Var, rope: Arc<Rope>, positions: Arc<[u32]> },
    Attention { q: Var, k: Var, v: Var, stats: Vec<f32>, segments: Arc<Segments>, heads: Heads, out: Var },
    SwiGlu { gate: Var, up: Var, out: Var },
    Select { x: Var, rows: Arc<[u32]>, out: Var },
    Block { index: usize, x: Var, out: Var },
    Other(Box<dyn Operation>),
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
    values: Vec<Option<Vec<f32>>>,
    ops: Vec<Op>,
    pool: Vec<Vec<f32>>,
}

impl Tape {
    /// A tape that remembers (training) or not (inference).
    pub fn new(recording: bool) -> Self {
        Tape { recording, routing: recording.then(RoutingStats::default), ..Tape::default() }
    }

    /// Forgets all values and operations, keeps their buffers.
    pub fn reset(&mut self) {
        let values = std::mem::take(&mut self.values);
        self.pool.extend(values.into_iter().flatten());
        let ops = std::mem::take(&mut self.ops);
        self.recycle(ops);
    }

    /// A buffer of this length; old contents unless `zero`. Where none is large enough the largest one is replaced, so
    /// that batches of varying sizes do not pile up buffers: there are never more than were in use at once.
    fn take(&mut self, len: usize, zero: bool) -> Vec<f32> {
        let pool = &mut self.pool;
        let fit = (0..pool.len()).filter(|i| pool[*i].capacity() >= len).min_by_key(|i| pool[*i].capacity());
        let mut buffer = match fit {
            Some(i) => pool.swap_remove(i),
            None => {
                if let Some(i) = (0..pool.len()).max_by_key(|i| pool[*i].capacity()) {
                    pool.swap_remove(i);
                }
                Vec::with_capacity(len + len / 8)
            }
        };
        if zero {
            buffer.clear();
        }
        buffer.resize(len, 0.0);
        buffer
    }

    fn push(&mut self, data: Vec<f32>) -> Var {
        self.values.push(Some(data));
        Var(self.values.len() - 1)
    }

    /// The value of a variable that has not been released.
    pub fn value(&self, v: Var) -> &[f32] {
        self.values[v.0].as_deref().expect("value was released")
    }

    /// Gives a value's buffer back when nothing is remembered; a training tape keeps it.
    pub fn release(&mut self, v: Var) {
        if !self.recording
            && self.kept != Some(v)
            && let Some(buffer) = self.values[v.0].take()
        {
            self.pool.push(buffer);
        }
    }

    /// `[T, D]` rows of an embedding table.
    pub fn embedding(&mut self, params: &ParamStore, table: ParamId, tokens: &Arc<[u32]>) -> Var {
        let layout = params.get(table).layout;
        let mut out = self.take(tokens.len() * layout.shape()[1], false);
        match params.weight(table).quantized {
            Some(table) => embedding::quantized(&mut out, table, tokens),
            None => embedding::forward(&mut out, params.data(table), layout, tokens),
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
        let mut out = self.take(self.value(x).len() / w.k * w.n, false);
        if let Some(r) = residual {
            out.copy_from_slice(self.value(r));
        }
        linear::forward(&mut out, self.value(x), w, residual.is_some());
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
        let rows = self.value(x).len() / params.weight(weights[0].0).k;
        let mut outs = weights.map(|(w, _)| self.take(rows * params.weight(w).n, false));
        let mut all: Vec<_> =
            outs.iter_mut().zip(weights).map(|(out, (w, _))| (&mut out[..], params.weight(w))).collect();
        linear::forward_all(&mut all, self.value(x));
        for (out, (_, bias)) in outs.iter_mut().zip(weights) {
            if let Some(b) = bias {
                linear::add_bias(out, params.data(b));
            }
        }
        let vars = outs.map(|out| self.push(out));
        for (out, (weight, bias)) in vars.into_iter().zip(weights) {
            self.record(|| Op::Linear { x, weight, bias, residual: None, out });
        }
        vars
    }

    /// RMSNorm over rows as wide as the weight.
    pub fn norm(&mut self, params: &ParamStore, x: Var, weight: ParamId, eps: f32) -> Var {
        let w = params.data(weight);
        let len = self.value(x).len();
        let (mut out, mut rstd) = (self.take(len, false), self.take(len / w.len(), false));
        norm::forward(&mut out, &mut rstd, self.value(x), w, eps);
        let out = self.push(out);
        if self.recording {
            self.ops.push(Op::Norm { x, weight, rstd, out });
        } else {
            self.pool.push(rstd);
        }
        out
    }

    /// Rotates x in place.
    pub fn rope(&mut self, x: Var, rope: &Arc<Rope>, positions: &Arc<[u32]>) {
        rope.apply(self.values[x.0].as_mut().expect("value was released"), positions, 1.0);
        self.record(|| Op::Rope { x, rope: rope.clone(), positions: positions.clone() });
    }

    /// Attention `[T, N*H]`. Only the packed form can be played backwards.
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
                    self.pool.push(stats);
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

    /// silu(gate) up.
    pub fn swiglu(&mut self, gate: Var, up: Var) -> Var {
        let mut out = self.take(self.value(gate).len(), false);
        swiglu::forward(&mut out, self.value(gate), self.value(up));
        let out = self.push(out);
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
