//! The end of a distillation's forward: the comparison with the teacher, played backwards with everything before it.

use super::{Flow, Rerun, Tape, Var};
use crate::divergence::{self, Compared, Comparison};
use crate::gradients::Gradients;
use crate::params::{ParamId, ParamStore};

impl Tape {
    /// Backward of sum(d_divergence * divergence + d_logp * logp) made from `h` and the output matrix, then of everything
    /// before it; both weights are `[M]`. Adds to `grads`; gives the divergences and log-probabilities themselves.
    pub fn backward_compared(
        &mut self,
        params: &ParamStore,
        grads: &mut Gradients,
        (h, head): (Var, ParamId),
        comparison: &Comparison,
        (d_divergence, d_logp): (&[f32], &[f32]),
        rerun: Rerun,
    ) -> Compared {
        assert!(self.recording, "backward on an inference tape");
        let mut d: Flow = self.values.iter().map(|_| None).collect();
        let mut d_h = self.gradient(&mut d, h);
        let w = params.weight(head);
        let found = grads
            .with(head, |d_w| divergence::backward(&mut d_h, d_w, self.value(h), w, comparison, d_divergence, d_logp));
        d[h.0] = Some(d_h);
        self.play(params, grads, d, rerun);
        found
    }
}
