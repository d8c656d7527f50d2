//! Latent attention on the tape: the form is chosen here, see [`crate::latent`].

use super::{Attend, Flow, Op, Operation, Tape, Var};
use crate::cache::{CacheSpan, KvCache};
use crate::gradients::Gradients;
use crate::latent::packed::{self, Dims};
use crate::latent::{LatentForm, LatentHeads, absorb};
use crate::linear;
use crate::params::{ParamId, ParamStore};
use crate::segments::Segments;
use std::sync::Arc;

/// New tokens of a sequence from which the expanded form is worth expanding the whole cached past.
const MANY_TOKENS: usize = 16;

struct Packed {
    inputs: Inputs,
    up: ParamId,
    heads: LatentHeads,
    segments: Arc<Segments>,
    /// Absorbed queries, or nothing.
    qa: Vec<f32>,
    /// Contexts of the absorbed form; keys and values of the expanded one.
    inner: Vec<f32>,
    stats: Vec<f32>,
    out: Var,
}

/// Queries `[T, N*(nope+rope)]`, rotated; latents `[T, lora]`, normalised; keys that all heads share `[T, rope]`, rotated.
#[derive(Clone, Copy)]
struct Inputs {
    q: Var,
    latent: Var,
    shared: Var,
}

fn dims(h: LatentHeads) -> Dims {
    let LatentHeads { heads, rope: shared, scale, precision, .. } = h;
    let (key_heads, own, value) = match h.form {
        LatentForm::Absorbed => (1, h.lora, 0),
        LatentForm::Mixed => (heads, h.nope, h.value),
    };
    Dims { heads, key_heads, own, shared, value, scale, precision }
}

impl Tape {
    /// Latent attention `[T, N*value]` of rotated queries `[T, N*(nope+rope)]`, normalised latents `[T, lora]` and the rotated
    /// shared keys `[T, rope]`; `up` is the up-projection `[N*(nope+value), lora]`. Only the packed form can be played backwards.
    pub fn latent_attention(
        &mut self,
        params: &ParamStore,
        (q, latent, shared): (Var, Var, Var),
        up: ParamId,
        layer: usize,
        attend: &mut Attend,
        heads: LatentHeads,
    ) -> Var {
        let tokens = self.value(latent).len() / heads.lora;
        let inputs = Inputs { q, latent, shared };
        match attend {
            Attend::Packed(segments) => self.packed_latent(params, inputs, up, segments.clone(), heads),
            Attend::Cached { cache, spans } => {
                assert!(!self.recording, "cached attention has no backward");
                let mut out = self.take(tokens * heads.heads * heads.value, false);
                cache.write_latent(layer, self.value(latent), self.value(shared), spans);
                let expanded = |s: &CacheSpan| heads.form == LatentForm::Mixed && s.rows >= MANY_TOKENS;
                let mut t = 0;
                let mut rest = 0;
                // Runs of spans that take the absorbed form go through it together.
                for (i, span) in spans.iter().enumerate() {
                    if expanded(span) {
                        self.absorbed(params, cache, layer, &spans[rest..i], t, (q, up), &mut out, heads);
                        t += spans[rest..i].iter().map(|s| s.rows).sum::<usize>();
                        self.expanded(params, cache, layer, span, t, (q, up), &mut out, heads);
                        t += span.rows;
                        rest = i + 1;
                    }
                }
                self.absorbed(params, cache, layer, &spans[rest..], t, (q, up), &mut out, heads);
                self.push(out)
            }
        }
    }

    fn packed_latent(
        &mut self,
        params: &ParamStore,
        inputs: Inputs,
        up: ParamId,
        segments: Arc<Segments>,
        heads: LatentHeads,
    ) -> Var {
        let (t, n) = (segments.tokens(), heads.heads);
        let mut out = self.take(t * n * heads.value, false);
        let mut stats = self.take(t * n * 2, false);
        let (q, latent, shared) = (self.value(inputs.q).len(), inputs.latent, inputs.shared);
        debug_assert_eq!(q, t * n * heads.query());
        let (qa, inner) = match heads.form {
            LatentForm::Absorbed => {
                let (mut qa, mut ctx) =
                    (self.take(t * n * heads.absorbed(), false), self.take(t * n * heads.lora, false));
                absorb::queries(&mut qa, self.value(inputs.q), params.data(up), heads);
                let kv = (self.value(latent), self.value(shared));
                packed::forward(&mut ctx, &mut stats, &qa, kv, &segments, 0, dims(heads));
                absorb::outputs(&mut out, &ctx, params.data(up), heads);
                (qa, ctx)
            }
            LatentForm::Mixed => {
                let mut kv = self.take(t * n * heads.rows(), false);
                linear::forward(&mut kv, self.value(latent), params.weight(up), false);
                let keys = (kv.as_slice(), self.value(shared));
                packed::forward(&mut out, &mut stats, self.value(inputs.q), keys, &segments, 0, dims(heads));
                (Vec::new(), kv)
            }
        };
        let out = self.push(out);
        if self.recording {
            self.ops.push(Op::Other(Box::new(Packed { inputs, up, heads, segments, qa, inner, stats, out })));
        } else {
            self.pool.give_all([qa, inner, stats]);
        }
        out
    }

    /// The absorbed form for some spans, whose first row is `t`.
    fn absorbed(
        &mut self,
        params: &ParamStore,
        cache: &KvCache,
        layer: usize,
        spans: &[CacheSpan],
        t: usize,
        (q, up): (Var, ParamId),
        out: &mut [f32],
        heads: LatentHeads,
    ) {
        let rows: usize = spans.iter().map(|s| s.rows).sum();
        if rows == 0 {
            return;
        }
        let n = heads.heads;
        let (mut qa, mut ctx) =
            (self.take(rows * n * heads.absorbed(), false), self.take(rows * n * heads.lora, false));
        let q = &self.value(q)[t * n * heads.query()..(t + rows) * n * heads.query()];
        absorb::queries(&mut qa, q, params.data(up), heads);
        cache.attend_latent(layer, &mut ctx, &qa, spans, heads);
        absorb::outputs(&mut out[t * n * heads.value..(t + rows) * n * heads.value], &ctx, params.data(up), heads);
        self.pool.give_all([qa, ctx]);
    }

    /// The expanded form for one span, whose first row is `t`: keys and values of its whole past are made again.
    fn expanded(
        &mut self,
        params: &ParamStore,
        cache: &KvCache,
        layer: usize,
        span: &CacheSpan,
        t: usize,
        (q, up): (Var, ParamId),
        out: &mut [f32],
        heads: LatentHeads,
    ) {
        let (n, tokens) = (heads.heads, span.start + span.rows);
        let (mut latent, mut shared) = (self.take(tokens * heads.lora, false), self.take(tokens * heads.rope, false));
        let (mut kv, mut stats) = (self.take(tokens * n * heads.rows(), false), self.take(span.rows * n * 2, false));
        cache.read_latent(layer, span.blocks, &mut latent, &mut shared, tokens);
        linear::forward(&mut kv, &latent, params.weight(up), false);
        let q = &self.value(q)[t * n * heads.query()..(t + span.rows) * n * heads.query()];
        let out = &mut out[t * n * heads.value..(t + span.rows) * n * heads.value];
        let segments = Segments::from_lengths([tokens]);
        packed::forward(out, &mut stats, q, (&kv, &shared), &segments, span.start, dims(heads));
        self.pool.give_all([latent, shared, kv, stats]);
    }
}

impl Operation for Packed {
    fn backward(&self, tape: &mut Tape, params: &ParamStore, grads: &mut Gradients, d: &mut Flow) {
        let Some(d_out) = d[self.out.0].take() else { return };
        let (Inputs { q, latent, shared }, heads) = (self.inputs, self.heads);
        let mut d_q = tape.take(tape.value(q).len(), false);
        let mut d_latent = tape.take(tape.value(latent).len(), false);
        let mut d_shared = tape.take(tape.value(shared).len(), false);
        match heads.form {
            LatentForm::Absorbed => {
                let w = params.data(self.up);
                let (mut d_ctx, mut d_qa) = (tape.take(self.inner.len(), false), tape.take(self.qa.len(), false));
                grads.with(self.up, |d_w| {
                    absorb::outputs_backward(&mut d_ctx, d_w, &d_out, &self.inner, w, heads);
                    packed::backward(
                        (&mut d_qa, &mut d_latent, &mut d_shared),
                        &d_ctx,
                        (&self.inner, &self.stats),
                        (&self.qa, tape.value(latent), tape.value(shared)),
                        &self.segments,
                        dims(heads),
                    );
                    absorb::queries_backward(&mut d_q, d_w, &d_qa, tape.value(q), w, heads);
                });
                tape.pool.give_all([d_ctx, d_qa]);
            }
            LatentForm::Mixed => {
                let mut d_kv = tape.take(self.inner.len(), false);
                packed::backward(
                    (&mut d_q, &mut d_kv, &mut d_shared),
                    &d_out,
                    (tape.value(self.out), &self.stats),
                    (tape.value(q), &self.inner, tape.value(shared)),
                    &self.segments,
                    dims(heads),
                );
                let w = params.weight(self.up);
                linear::backward_input(&mut d_latent, &d_kv, w, false);
                grads.with(self.up, |d_w| {
                    if !d_w.is_empty() {
                        linear::backward_weight(d_w, &d_kv, tape.value(latent), w);
                    }
                });
                tape.pool.give(d_kv);
            }
        }
        tape.flow(d, q, d_q);
        tape.flow(d, latent, d_latent);
        tape.flow(d, shared, d_shared);
        tape.pool.give(d_out);
    }

    fn into_buffers(self: Box<Self>) -> Vec<Vec<f32>> {
        vec![self.qa, self.inner, self.stats]
    }
}
