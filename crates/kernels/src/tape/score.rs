//! The scalar head of a reward model: one number per row, score_i = h_i . w, in f32 whatever products run in.

use super::{Flow, LossHead, Op, Operation, Rerun, Tape, Var};
use crate::cpu::math;
use crate::gradients::Gradients;
use crate::params::{ParamId, ParamStore};

struct Score {
    h: Var,
    weight: ParamId,
    out: Var,
}

impl Tape {
    /// Scores `[M]` of rows h `[M, D]` by a weight `[1, D]` that is kept in rows.
    pub fn score(&mut self, params: &ParamStore, h: Var, weight: ParamId) -> Var {
        let w = params.data(weight);
        let mut out = self.take(self.value(h).len() / w.len(), false);
        for (score, row) in out.iter_mut().zip(self.value(h).chunks_exact(w.len())) {
            *score = math::dot(row, w);
        }
        let out = self.push(out);
        self.record(|| Op::Other(Box::new(Score { h, weight, out })));
        out
    }

    /// Backward from gradients of values: `d` names values and the gradient of the loss with respect to each. Adds to `grads`.
    pub fn backward_from(&mut self, params: &ParamStore, grads: &mut Gradients, d: &[(Var, &[f32])], rerun: Rerun) {
        self.play_back(params, grads, &[] as &[LossHead], d, rerun);
    }
}

impl Operation for Score {
    fn backward(&self, tape: &mut Tape, params: &ParamStore, grads: &mut Gradients, d: &mut Flow) {
        let Some(d_out) = d[self.out.0].take() else { return };
        let w = params.data(self.weight);
        let mut d_h = tape.take(tape.value(self.h).len(), false);
        for (d_row, d_score) in d_h.chunks_exact_mut(w.len()).zip(&d_out) {
            for (d_x, w) in d_row.iter_mut().zip(w) {
                *d_x = d_score * w;
            }
        }
        grads.with(self.weight, |d_w| {
            for (row, d_score) in tape.value(self.h).chunks_exact(w.len()).zip(&d_out) {
                for (d_w, x) in d_w.iter_mut().zip(row) {
                    *d_w += d_score * x;
                }
            }
        });
        tape.flow(d, self.h, d_h);
        tape.pool.give(d_out);
    }
}
