//! Routed experts on the tape: gate, choice, experts, sum; see [`crate::router`] and [`crate::experts`].

use super::{Attend, Flow, Op, Operation, Tape, Var};
use crate::experts::{self, Expert, ExpertGradients, Slots};
use crate::gradients::Gradients;
use crate::linear;
use crate::params::{ParamId, ParamStore, Weight};
use crate::router::{self, Plan, Routing};
use crate::segments::Segments;
use std::cell::RefCell;
use std::sync::Arc;

/// Parameters of one expert.
#[derive(Clone, Copy, Debug)]
pub struct ExpertIds {
    /// `[F, D]`.
    pub gate: ParamId,
    /// `[F, D]`.
    pub up: ParamId,
    /// `[D, F]`.
    pub down: ParamId,
}

/// Parameters and constants of a routed layer.
#[derive(Clone, Debug)]
pub struct MoeIds {
    /// The gate `[E, D]`.
    pub gate: ParamId,
    /// The biases `[E]` that only choose.
    pub bias: ParamId,
    /// `[E]`.
    pub experts: Vec<ExpertIds>,
    /// How tokens choose.
    pub routing: Routing,
    /// Width of the experts.
    pub width: usize,
}

impl MoeIds {
    fn expert<'a>(&self, params: &'a ParamStore, e: usize) -> Expert<'a> {
        let ids = &self.experts[e];
        Expert { gate: params.weight(ids.gate), up: params.weight(ids.up), down: params.weight(ids.down) }
    }

    /// The gate as the products read it: in f32, whatever the others run in.
    fn gate<'a>(&self, params: &'a ParamStore) -> Weight<'a> {
        let shape = params.get(self.gate).layout.shape();
        Weight::f32(params.data(self.gate), shape[0], shape[1])
    }
}

struct Routed {
    x: Var,
    residual: Var,
    ids: Arc<MoeIds>,
    plan: Plan,
    scores: Vec<f32>,
    weights: Vec<f32>,
    slots: RefCell<Slots>,
    /// Factor of the balance loss, the sequences, and f of each.
    balance: Option<(f32, Arc<Segments>, Vec<f32>)>,
    out: Var,
}

impl Tape {
    /// residual + the routed experts' outputs for x `[T, D]`. `layer` is the number the loads are counted under.
    pub fn experts(
        &mut self,
        params: &ParamStore,
        x: Var,
        residual: Var,
        ids: &Arc<MoeIds>,
        layer: usize,
        attend: &Attend,
    ) -> Var {
        let r = ids.routing;
        let gate = ids.gate(params);
        let tokens = self.value(x).len() / gate.k;
        let count = tokens * r.chosen;
        let mut scores = self.take(tokens * r.experts, false);
        let mut weights = self.take(count, false);
        linear::forward(&mut scores, self.value(x), gate, false);
        let chosen = router::route(&mut scores, &mut weights, params.data(ids.bias), r);
        let plan = Plan::new(chosen, r.chosen, r.experts);
        let mut balance = None;
        if let Attend::Packed(segments) = attend
            && self.balance_loss > 0.0
        {
            let mut frequency = Vec::new();
            let loss = router::balance_loss(&mut frequency, &scores, segments, r) * f64::from(self.balance_loss);
            if let Some(stats) = &mut self.routing {
                stats.balance_loss += loss;
            }
            balance = Some((self.balance_loss, segments.clone(), frequency));
        }
        if let Some(stats) = &mut self.routing {
            stats.count(layer, plan.loads());
        }
        let mut slots = Slots {
            x: self.take(count * gate.k, false),
            gate: self.take(count * ids.width, false),
            up: self.take(count * ids.width, false),
            inner: self.take(count * ids.width, false),
        };
        let mut y = self.take(count * gate.k, false);
        let mut out = self.take(tokens * gate.k, false);
        out.copy_from_slice(self.value(residual));
        experts::forward(&mut out, &mut y, &mut slots, self.value(x), &weights, &plan, |e| ids.expert(params, e));
        self.pool.give(y);
        let out = self.push(out);
        if self.recording {
            let (ids, slots) = (ids.clone(), RefCell::new(slots));
            let op = Routed { x, residual, ids, plan, scores, weights, slots, balance, out };
            self.ops.push(Op::Other(Box::new(op)));
        } else {
            self.pool.give_all([scores, weights, slots.x, slots.gate, slots.up, slots.inner]);
        }
        out
    }
}

impl Operation for Routed {
    fn backward(&self, tape: &mut Tape, params: &ParamStore, grads: &mut Gradients, d: &mut Flow) {
        let Some(d_out) = d[self.out.0].take() else { return };
        let (ids, r, count) = (&self.ids, self.ids.routing, self.plan.tokens.len());
        let (x, gate) = (self.x, ids.gate(params));
        let mut d_x = tape.gradient(d, x);
        let mut d_weights = tape.take(count, false);
        let (mut d_y, mut d_xs) = (tape.take(count * gate.k, false), tape.take(count * gate.k, false));
        let mut d_inner = tape.take(count * ids.width, false);
        let matrices = || ids.experts.iter().flat_map(|e| [e.gate, e.up, e.down]);
        // The matrices, and then the factors of those that have an adapter, in the same order.
        let factors = matrices().filter_map(|id| params.get(id).adapter).flat_map(|a| [a.a, a.b]);
        grads.with_many(matrices().chain(factors), |all| {
            let mut all = all.into_iter();
            let weights: Vec<&mut [f32]> = all.by_ref().take(3 * ids.experts.len()).collect();
            let mut weights = weights.into_iter();
            let mut gradients: Vec<ExpertGradients> = Vec::with_capacity(ids.experts.len());
            for e in &ids.experts {
                gradients.push([e.gate, e.up, e.down].map(|id| {
                    let adapted = params.get(id).adapter.is_some();
                    let mut factor = || all.next().expect("two factors for every adapter");
                    let weight = weights.next().expect("three matrices for every expert");
                    if adapted { [weight, factor(), factor()] } else { [weight, &mut [], &mut []] }
                }));
            }
            experts::backward(
                (&mut d_x, &mut d_weights),
                (&mut d_y, &mut d_xs, &mut d_inner),
                &mut self.slots.borrow_mut(),
                &d_out,
                &self.weights,
                &self.plan,
                |e| ids.expert(params, e),
                gradients,
            );
        });
        let mut d_logits = tape.take(self.scores.len(), false);
        router::route_backward(&mut d_logits, &d_weights, &self.scores, &self.plan.chosen, r);
        if let Some((coefficient, segments, frequency)) = &self.balance {
            router::balance_backward(&mut d_logits, *coefficient, frequency, &self.scores, segments, r);
        }
        linear::backward_input(&mut d_x, &d_logits, gate, true);
        grads.with(ids.gate, |d_gate| {
            if !d_gate.is_empty() {
                linear::backward_weight(d_gate, &d_logits, tape.value(x), gate);
            }
        });
        d[x.0] = Some(d_x);
        tape.flow(d, self.residual, d_out);
        tape.pool.give_all([d_weights, d_y, d_xs, d_inner, d_logits]);
    }

    fn into_buffers(self: Box<Self>) -> Vec<Vec<f32>> {
        let slots = self.slots.into_inner();
        vec![self.scores, self.weights, slots.x, slots.gate, slots.up, slots.inner]
    }
}
