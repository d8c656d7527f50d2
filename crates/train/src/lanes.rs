//! Lanes: micro-batches side by side, each lane with tapes and gradients of its own.
//!
//! A small model spends more time waking threads for every product than multiplying. So its micro-batches are dealt out to a
//! fixed number of lanes; a lane works alone on one thread, and the lanes' gradients are added in order at the end. The number
//! of lanes is a property of the model, never of the machine: the gradient has the same bits on any number of threads.

use aha_kernels::{GradientType, Gradients, ParamStore, RoutingStats, Tape, par};
use rayon::prelude::*;

/// Lanes of a small model.
const LANES: usize = 4;
/// Models with more bytes of weights have one lane, which shares every product between the threads.
const SMALL_BYTES: usize = 96 << 20;

/// What one lane works with.
pub struct Lane {
    /// Remembers for the backward.
    pub tape: Tape,
    /// Remembers nothing: for the reference and for validation.
    pub quiet: Tape,
    /// The lane's share of the gradients.
    pub grads: Gradients,
}

/// All lanes of a training.
pub struct Lanes {
    lanes: Vec<Lane>,
}

impl Lanes {
    /// Lanes for a model of this size; with `gradient_checkpointing` blocks keep only their inputs for the backward.
    pub fn new(params: &ParamStore, gradient_checkpointing: bool) -> Self {
        Lanes::in_numbers(params, gradient_checkpointing, GradientType::F32)
    }

    /// The same with gradients of matrices summed in these numbers.
    pub fn in_numbers(params: &ParamStore, gradient_checkpointing: bool, numbers: GradientType) -> Self {
        let bytes: usize = params.iter().map(|(_, p)| p.len() * 4).sum();
        let count = if bytes > SMALL_BYTES { 1 } else { LANES };
        let lane = || {
            let mut tape = Tape::new(true);
            tape.gradient_checkpointing = gradient_checkpointing;
            Lane { tape, quiet: Tape::new(false), grads: Gradients::in_numbers(params, numbers) }
        };
        Lanes { lanes: (0..count).map(|_| lane()).collect() }
    }

    /// Tokens of a micro-batch: at most `limit`, and so few that every lane has work.
    pub fn micro_batch_tokens(&self, limit: usize, total: usize) -> usize {
        limit.min(total.div_ceil(self.lanes.len())).max(1)
    }

    /// Begins a step: forgets what was routed and sets the factor of the balance loss (alpha over the tokens of the step).
    pub fn begin(&mut self, balance_loss: f32) {
        for lane in &mut self.lanes {
            lane.tape.balance_loss = balance_loss;
            lane.tape.routing.get_or_insert_default().reset();
        }
    }

    /// What all lanes routed since [`Lanes::begin`].
    pub fn routing(&self) -> RoutingStats {
        let mut all = RoutingStats::default();
        self.lanes.iter().filter_map(|lane| lane.tape.routing.as_ref()).for_each(|r| all.add(r));
        all
    }

    /// Does `work` for every micro-batch, in order within a lane; what it returned, in the order of `parts`.
    /// [`Lanes::grads`] is then the sum over all of them.
    pub fn run<P: Sync, T: Send>(&mut self, parts: &[P], work: impl Fn(&mut Lane, &P) -> T + Sync) -> Vec<T> {
        let count = self.lanes.len();
        let alone = count > 1 && par::threads() <= count;
        let deal = |(i, lane): (usize, &mut Lane)| -> Vec<T> {
            lane.grads.zero();
            let own = &parts[i * parts.len() / count..(i + 1) * parts.len() / count];
            let mut all = || own.iter().map(|p| work(lane, p)).collect();
            if alone { par::serial(all) } else { all() }
        };
        let done: Vec<Vec<T>> = if count == 1 {
            let lanes = &mut self.lanes;
            par::inside(|| lanes.iter_mut().enumerate().map(deal).collect())
        } else {
            self.lanes.par_iter_mut().enumerate().with_max_len(1).map(deal).collect()
        };
        let (first, rest) = self.lanes.split_first_mut().expect("there is a lane");
        first.grads.add(&rest.iter().map(|lane| &lane.grads).collect::<Vec<_>>());
        done.into_iter().flatten().collect()
    }

    /// Frees the buffers of all tapes, which the next run makes anew: something else needs the memory meanwhile.
    pub fn free_buffers(&mut self) {
        for lane in &mut self.lanes {
            lane.tape.free();
            lane.quiet.free();
            lane.grads.free_buffers();
        }
    }

    /// The sum of the last run.
    pub fn grads(&self) -> &Gradients {
        &self.lanes[0].grads
    }

    /// A tape that remembers nothing.
    pub fn quiet(&mut self) -> &mut Tape {
        &mut self.lanes[0].quiet
    }
}
