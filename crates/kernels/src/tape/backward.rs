//! The way back: operations from the last to the first, each taking the gradients of its results and adding those of its inputs.

use super::{Flow, LossHead, Op, Part, Rerun, Tape, Var};
use crate::cpu::operand::halves;
use crate::gradients::Gradients;
use crate::params::{ParamId, ParamStore};
use crate::rows::Rows;
use crate::{attention, embedding, linear, logprob, norm, swiglu};

impl Tape {
    /// Backward of log-probabilities made from `h` and the output matrix, then of everything before it.
    ///
    /// `d_logp` `[M]` is the gradient of the loss with respect to each log-probability. Adds to `grads`. `rerun` is called for
    /// blocks of which only the input was kept.
    pub fn backward(
        &mut self,
        params: &ParamStore,
        grads: &mut Gradients,
        h: Var,
        head: ParamId,
        targets: &[u32],
        temperature: f32,
        d_logp: &[f32],
        rerun: Rerun,
    ) {
        self.backward_heads(params, grads, &[LossHead { h, head, targets, temperature, d_logp }], rerun);
    }

    /// Backward of a loss made of several sets of log-probabilities.
    pub fn backward_heads(&mut self, params: &ParamStore, grads: &mut Gradients, heads: &[LossHead], rerun: Rerun) {
        self.play_back(params, grads, heads, &[], rerun);
    }

    /// Backward of log-probabilities and of values whose gradients are given.
    pub(super) fn play_back(
        &mut self,
        params: &ParamStore,
        grads: &mut Gradients,
        heads: &[LossHead],
        given: &[(Var, &[f32])],
        rerun: Rerun,
    ) {
        assert!(self.recording, "backward on an inference tape");
        let mut d: Flow = self.values.iter().map(|_| None).collect();
        for (v, gradient) in given {
            let mut d_v = self.gradient(&mut d, *v);
            crate::cpu::math::add_assign(&mut d_v, gradient);
            d[v.0] = Some(d_v);
        }
        for l in heads {
            let mut d_h = self.gradient(&mut d, l.h);
            let (w, h) = (params.weight(l.head), self.value(l.h));
            if logprob::goes_in_columns(w, grads.sum(l.head)) {
                logprob::backward_columns(&mut d_h, grads.sum_mut(l.head), l.d_logp, h, w, l.targets, l.temperature);
            } else {
                grads.with_weight(params, l.head, |d_w| {
                    logprob::backward(&mut d_h, d_w, l.d_logp, h, w, l.targets, l.temperature);
                });
            }
            d[l.h.0] = Some(d_h);
        }
        self.play(params, grads, d, rerun);
    }

    /// Plays everything backwards from the gradients that the end of the forward left in `d`.
    pub(super) fn play(&mut self, params: &ParamStore, grads: &mut Gradients, mut d: Flow, rerun: Rerun) {
        let ops = std::mem::take(&mut self.ops);
        for op in ops.iter().rev() {
            self.undo(op, params, grads, &mut d, rerun);
        }
        self.ops = ops;
        self.pool.give_all(d.into_iter().flatten());
    }

    /// Gradient buffer of a variable, zero when first touched, taken out of the table.
    pub(super) fn gradient(&mut self, d: &mut [Option<Vec<f32>>], v: Var) -> Vec<f32> {
        match d[v.0].take() {
            Some(g) => g,
            None => self.take(self.at(v).len(), true),
        }
    }

    /// Gradient buffer of a variable that is added to, or one whose old contents do not matter.
    pub(super) fn share(&mut self, d: &mut [Option<Vec<f32>>], v: Var, add: bool) -> Vec<f32> {
        if add { self.gradient(d, v) } else { self.take(self.at(v).len(), false) }
    }

    /// Adds a buffer to the gradient of a variable; the buffer is used or goes back to the pool.
    pub(super) fn flow(&mut self, d: &mut Flow, v: Var, buffer: Vec<f32>) {
        match &mut d[v.0] {
            Some(sum) => {
                crate::cpu::math::add_assign(sum, &buffer);
                self.pool.give(buffer);
            }
            none => *none = Some(buffer),
        }
    }

    /// Runs a block again, remembering everything, and plays it backwards.
    fn undo_block(
        &mut self,
        (index, x, out): (usize, Var, Var),
        params: &ParamStore,
        grads: &mut Gradients,
        d: &mut Vec<Option<Vec<f32>>>,
        rerun: Rerun,
    ) {
        let Some(d_out) = d[out.0].take() else { return };
        let before = self.values.len();
        let checkpointing = std::mem::take(&mut self.gradient_checkpointing);
        // Its routing was counted the first time.
        let routing = self.routing.take();
        let again = rerun(self, index, x);
        (self.gradient_checkpointing, self.routing) = (checkpointing, routing);
        d.resize_with(self.values.len(), || None);
        d[again.0] = Some(d_out);
        let ops = std::mem::take(&mut self.ops);
        for op in ops.iter().rev() {
            self.undo(op, params, grads, d, rerun);
        }
        self.recycle(ops);
        self.pool.give_all(d.drain(before..).flatten());
        self.pool.give_all(self.values.drain(before..).flatten().map(|v| v.data));
    }

    /// Several products of one x, from the last to the first; where all run in bf16, x is packed once for the gradients of
    /// the matrices.
    fn undo_linears(&mut self, x: Var, parts: &[Part], params: &ParamStore, grads: &mut Gradients, d: &mut Flow) {
        let flown: Vec<(Part, Vec<f32>)> =
            parts.iter().rev().filter_map(|part| Some((*part, d[part.out.0].take()?))).collect();
        if flown.is_empty() {
            return;
        }
        let add = d[x.0].is_some();
        let mut d_x = self.share(d, x, add);
        if linear::go_together(flown.iter().map(|(part, _)| params.weight(part.weight))) {
            grads.with_many(flown.iter().map(|(part, _)| part.weight), |d_ws| {
                let mut targets: Vec<_> = flown
                    .iter()
                    .zip(d_ws)
                    .map(|(part, d_w)| (d_w, self.gradient_rows(part.0.out, &part.1), params.weight(part.0.weight)))
                    .collect();
                linear::backward_together(&mut d_x, add, &mut targets, self.rows(x));
            });
        } else {
            for (i, part) in flown.iter().enumerate() {
                let w = params.weight(part.0.weight);
                let d_y = self.gradient_rows(part.0.out, &part.1);
                grads.with_weight(params, part.0.weight, |d_w| {
                    linear::backward(&mut d_x, d_w, d_y, self.rows(x), w, add || i > 0);
                });
            }
        }
        d[x.0] = Some(d_x);
        for (part, d_out) in flown {
            if let Some(d_b) = part.bias.and_then(|b| grads.get_mut(b)) {
                linear::bias_backward(d_b, &d_out);
            }
            self.pool.give(d_out);
        }
    }

    /// The gradient of a value as a product reads it.
    fn gradient_rows<'a>(&self, v: Var, d: &'a [f32]) -> Rows<'a> {
        if self.at(v).gradient_is_pairs { Rows::in_words(d) } else { Rows::Singles(d) }
    }

    /// Takes back the buffers that operations hold.
    pub(super) fn recycle(&mut self, ops: Vec<Op>) {
        for op in ops {
            match op {
                Op::Norm { rstd: buffer, .. } | Op::Attention { stats: buffer, .. } => self.pool.give(buffer),
                Op::Other(op) => self.pool.give_all(op.into_buffers()),
                _ => {}
            }
        }
    }

    fn undo(
        &mut self,
        op: &Op,
        params: &ParamStore,
        grads: &mut Gradients,
        d: &mut Vec<Option<Vec<f32>>>,
        rerun: Rerun,
    ) {
        match op {
            Op::Other(op) => op.backward(self, params, grads, d),
            Op::Block { index, x, out } => self.undo_block((*index, *x, *out), params, grads, d, rerun),
            Op::Embedding { table, tokens, out } => {
                let Some(d_out) = d[out.0].take() else { return };
                let layout = params.get(*table).layout;
                if let Some(d_table) = grads.halves_mut(*table) {
                    embedding::backward_halves(&d_table.dice(), &mut d_table.values, layout, &d_out, tokens);
                } else if let Some(d_table) = grads.get_mut(*table) {
                    embedding::backward(d_table, layout, &d_out, tokens);
                }
                self.pool.give(d_out);
            }
            Op::Linear { x, weight, bias, residual, out } => {
                let Some(d_out) = d[out.0].take() else { return };
                let w = params.weight(*weight);
                let add = d[x.0].is_some();
                let mut d_x = self.share(d, *x, add);
                grads.with_weight(params, *weight, |d_w| {
                    linear::backward(&mut d_x, d_w, &d_out, self.rows(*x), w, add);
                });
                d[x.0] = Some(d_x);
                if let Some(d_b) = bias.and_then(|b| grads.get_mut(b)) {
                    linear::bias_backward(d_b, &d_out);
                }
                match residual {
                    Some(r) if d[r.0].is_none() => d[r.0] = Some(d_out),
                    Some(r) => {
                        let mut d_r = self.gradient(d, *r);
                        crate::cpu::math::add_assign(&mut d_r, &d_out);
                        d[r.0] = Some(d_r);
                        self.pool.give(d_out);
                    }
                    None => self.pool.give(d_out),
                }
            }
            Op::Linears { x, parts } => self.undo_linears(*x, parts, params, grads, d),
            Op::Norm { x, weight, rstd, out } => {
                let Some(d_out) = d[out.0].take() else { return };
                let mut d_x = self.gradient(d, *x);
                let d_w = grads.get_mut(*weight).unwrap_or(&mut []);
                norm::backward(&mut d_x, d_w, &d_out, self.value(*x), params.data(*weight), rstd);
                d[x.0] = Some(d_x);
                self.pool.give(d_out);
            }
            Op::Rope { x, rope, positions } => {
                if let Some(d_x) = d[x.0].as_mut() {
                    rope.apply(d_x, positions, -1.0);
                }
            }
            Op::Attention { q, k, v, stats, segments, heads, out } => {
                let Some(d_out) = d[out.0].take() else { return };
                let add = [q, k, v].iter().any(|v| d[v.0].is_some());
                let (mut d_q, mut d_k, mut d_v) =
                    (self.share(d, *q, add), self.share(d, *k, add), self.share(d, *v, add));
                let inputs = (self.value(*q), self.value(*k), self.value(*v));
                attention::backward(
                    &mut d_q,
                    &mut d_k,
                    &mut d_v,
                    &d_out,
                    self.value(*out),
                    stats,
                    inputs,
                    segments,
                    *heads,
                    add,
                );
                (d[q.0], d[k.0], d[v.0]) = (Some(d_q), Some(d_k), Some(d_v));
                self.pool.give(d_out);
            }
            Op::SwiGlu { gate, up, out } => {
                let Some(d_out) = d[out.0].take() else { return };
                let add = d[gate.0].is_some() || d[up.0].is_some();
                let pairs = !add && [gate, up].iter().all(|v| self.at(**v).gradient_may_be_pairs);
                let (d_gate, d_up) = if pairs {
                    let len = self.at(*gate).len() / 2;
                    let (mut d_gate, mut d_up) = (self.take(len, false), self.take(len, false));
                    let (g, u) = (self.value(*gate), self.value(*up));
                    swiglu::backward_pairs(halves(&mut d_gate), halves(&mut d_up), &d_out, g, u);
                    (d_gate, d_up)
                } else {
                    let (mut d_gate, mut d_up) = (self.share(d, *gate, add), self.share(d, *up, add));
                    swiglu::backward(&mut d_gate, &mut d_up, &d_out, self.value(*gate), self.value(*up), add);
                    (d_gate, d_up)
                };
                (d[gate.0], d[up.0]) = (Some(d_gate), Some(d_up));
                for v in [gate, up] {
                    self.values[v.0].as_mut().expect("a training tape keeps values").gradient_is_pairs = pairs;
                }
                self.pool.give(d_out);
            }
            Op::Select { x, rows, out } => {
                let Some(d_out) = d[out.0].take() else { return };
                let mut d_x = self.gradient(d, *x);
                let width = d_out.len() / rows.len().max(1);
                for (g, r) in d_out.chunks_exact(width.max(1)).zip(rows.iter()) {
                    crate::cpu::math::add_assign(&mut d_x[*r as usize * width..(*r as usize + 1) * width], g);
                }
                d[x.0] = Some(d_x);
                self.pool.give(d_out);
            }
        }
    }
}
