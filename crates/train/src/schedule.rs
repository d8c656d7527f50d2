//! Learning rates as a function of the step alone, so that a resumed run continues exactly.
//!
//! Every shape starts with a linear warm-up: step `s` (counted from 0) of `warmup_steps` has `peak * (s + 1) / warmup`,
//! so the first step is not wasted on a rate of 0 and the last warm-up step has the peak. The rest of the run is measured
//! by `progress = (s - warmup) / (total - warmup)`, which would be 1 at the step after the last.

use serde::{Deserialize, Serialize};

use crate::grpo_error::GrpoError;

/// The shape after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleKind {
    /// The peak to the end.
    #[default]
    Constant,
    /// A straight line from the peak to the floor.
    Linear,
    /// Half a cosine from the peak to the floor (SGDR without restarts).
    Cosine,
    /// Warm-up, stable, decay (MiniCPM): the peak, then a straight line to the floor over the last `decay_steps`.
    Wsd,
    /// DeepSeek-V3's pretraining (technical report, 4.2): the peak, half a cosine to the floor over `decay_steps`, the floor
    /// for `hold_steps`, and a lower constant for the last `final_steps`.
    V3,
}

/// The end of a `V3` schedule.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tail {
    /// Steps at the floor.
    pub hold_steps: u64,
    /// Steps after those, to the end.
    pub final_steps: u64,
    /// The learning rate of these as a share of the peak.
    pub final_ratio: f64,
}

/// A learning-rate schedule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// The shape after the warm-up.
    pub kind: ScheduleKind,
    /// The highest learning rate.
    pub peak: f64,
    /// The floor as a share of the peak, 0 to 1. Not used by `Constant`.
    pub min_ratio: f64,
    /// Steps of linear warm-up; 0 for none.
    pub warmup_steps: u64,
    /// Steps of the whole run, warm-up included; beyond it the floor (or the peak, for `Constant`) holds.
    pub total_steps: u64,
    /// Steps of the decay of `Wsd` and `V3`; not used by the others.
    pub decay_steps: u64,
    /// What follows the decay of `V3`.
    pub tail: Tail,
}

impl Schedule {
    /// Checks the ranges that [`Schedule::at`] relies on.
    ///
    /// # Errors
    /// A peak that is not positive, a floor outside 0..=1, a warm-up (plus the decay of WSD) longer than the run.
    pub fn validated(self) -> Result<Self, GrpoError> {
        let bad = |name, value, wanted| Err(GrpoError::Setting { name, value, wanted });
        if !(self.peak.is_finite() && self.peak > 0.0) {
            return bad("learning_rate", self.peak, "above 0");
        }
        if !(0.0..=1.0).contains(&self.min_ratio) {
            return bad("min_lr_ratio", self.min_ratio, "between 0 and 1");
        }
        if self.warmup_steps > self.total_steps {
            return bad("warmup_steps", self.warmup_steps as f64, "at most the number of steps");
        }
        if self.kind == ScheduleKind::Wsd && self.decay_steps > self.total_steps - self.warmup_steps {
            return bad("decay_steps", self.decay_steps as f64, "at most the steps after the warm-up");
        }
        let end = self.decay_steps.saturating_add(self.tail.hold_steps).saturating_add(self.tail.final_steps);
        if self.kind == ScheduleKind::V3 && end > self.total_steps - self.warmup_steps {
            let wanted = "together with hold_steps and final_steps at most the steps after the warm-up";
            return bad("decay_steps", self.decay_steps as f64, wanted);
        }
        Ok(self)
    }

    /// The learning rate of a step, counted from 0.
    pub fn at(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            return self.peak * (step + 1) as f64 / self.warmup_steps as f64;
        }
        let floor = self.peak * self.min_ratio;
        let share = |done: u64, of: u64| {
            if of == 0 { 1.0 } else { (done as f64 / of as f64).min(1.0) }
        };
        let after_warmup = step - self.warmup_steps;
        let progress = share(after_warmup, self.total_steps.saturating_sub(self.warmup_steps));
        let remaining = match self.kind {
            ScheduleKind::Constant => 1.0,
            ScheduleKind::Linear => 1.0 - progress,
            ScheduleKind::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
            ScheduleKind::Wsd => {
                let start = self.total_steps.saturating_sub(self.decay_steps);
                if step < start { 1.0 } else { 1.0 - share(step - start, self.decay_steps) }
            }
            ScheduleKind::V3 => {
                let last = self.total_steps.saturating_sub(self.tail.final_steps);
                if self.tail.final_steps > 0 && step >= last {
                    return self.peak * self.tail.final_ratio;
                }
                let start = last.saturating_sub(self.tail.hold_steps).saturating_sub(self.decay_steps);
                let done = if step < start { 0.0 } else { share(step - start, self.decay_steps) };
                0.5 * (1.0 + (std::f64::consts::PI * done).cos())
            }
        };
        floor + (self.peak - floor) * remaining
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(kind: ScheduleKind) -> Schedule {
        let tail = Tail { hold_steps: 10, final_steps: 5, final_ratio: 0.03 };
        Schedule { kind, peak: 2.0, min_ratio: 0.1, warmup_steps: 4, total_steps: 104, decay_steps: 20, tail }
    }

    #[track_caller]
    fn check(kind: ScheduleKind, values: &[(u64, f64)]) {
        for &(step, wanted) in values {
            let found = schedule(kind).at(step);
            assert!((found - wanted).abs() < 1e-12, "step {step}: {found}, wanted {wanted}");
        }
    }

    #[test]
    fn warm_up_is_linear_for_every_shape() {
        for kind in
            [ScheduleKind::Constant, ScheduleKind::Linear, ScheduleKind::Cosine, ScheduleKind::Wsd, ScheduleKind::V3]
        {
            check(kind, &[(0, 0.5), (1, 1.0), (2, 1.5), (3, 2.0), (4, 2.0)]);
        }
    }

    #[test]
    fn constant() {
        check(ScheduleKind::Constant, &[(50, 2.0), (103, 2.0), (10_000, 2.0)]);
    }

    #[test]
    fn linear() {
        check(ScheduleKind::Linear, &[(54, 1.1), (104, 0.2), (1_000, 0.2)]);
    }

    #[test]
    fn cosine_reaches_its_floor() {
        // A quarter of the way: 0.2 + 1.8 * (1 + cos(45 degrees)) / 2.
        check(ScheduleKind::Cosine, &[(29, 0.2 + 0.9 * (1.0 + 0.5f64.sqrt())), (54, 1.1), (104, 0.2), (u64::MAX, 0.2)]);
    }

    #[test]
    fn warm_up_stable_decay() {
        check(ScheduleKind::Wsd, &[(83, 2.0), (84, 2.0), (94, 1.1), (103, 0.29), (104, 0.2), (200, 0.2)]);
        let hard = Schedule { decay_steps: 0, ..schedule(ScheduleKind::Wsd) };
        assert_eq!(hard.at(103), 2.0);
    }

    #[test]
    fn v3_is_constant_cosine_constant_constant() {
        // Warm-up to 4, the peak to 69, the cosine to 89, the floor to 99, the last five lower.
        let half = 0.2 + 1.8 * 0.5;
        let values = [(4, 2.0), (68, 2.0), (69, 2.0), (79, half), (89, 0.2), (98, 0.2), (99, 0.06), (103, 0.06)];
        check(ScheduleKind::V3, &values);
        check(ScheduleKind::V3, &[(74, 0.2 + 0.9 * (1.0 + 0.5f64.sqrt()))]);
        let good = schedule(ScheduleKind::V3);
        assert!(good.validated().is_ok());
        assert!(Schedule { decay_steps: 86, ..good }.validated().unwrap_err().to_string().contains("hold_steps"));
    }

    #[test]
    fn degenerate_runs_stay_finite() {
        let all_warmup = Schedule { warmup_steps: 3, total_steps: 3, ..schedule(ScheduleKind::Cosine) };
        assert_eq!((all_warmup.at(2), all_warmup.at(3)), (2.0, 0.2));
        let empty = Schedule { warmup_steps: 0, total_steps: 0, ..schedule(ScheduleKind::Linear) };
        assert!(empty.at(0).is_finite());
    }

    #[test]
    fn ranges_are_checked() {
        let good = schedule(ScheduleKind::Wsd);
        assert!(good.validated().is_ok());
        let message = |s: Schedule| s.validated().unwrap_err().to_string();
        assert_eq!(message(Schedule { peak: 0.0, ..good }), "learning_rate is 0, but must be above 0");
        assert_eq!(message(Schedule { min_ratio: 1.5, ..good }), "min_lr_ratio is 1.5, but must be between 0 and 1");
        assert_eq!(
            message(Schedule { warmup_steps: 105, ..good }),
            "warmup_steps is 105, but must be at most the number of steps"
        );
        assert_eq!(
            message(Schedule { decay_steps: 101, ..good }),
            "decay_steps is 101, but must be at most the steps after the warm-up"
        );
        assert!(Schedule { peak: f64::NAN, ..good }.validated().is_err());
    }
}
