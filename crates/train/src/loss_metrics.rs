//! What a policy loss reports, as sums that add across micro-batches and ranks; means are taken once, at the end.
//! Names follow TRL's GRPO trainer.

/// Sums over the loss tokens (or sequences) of a micro-batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossMetrics {
    /// Loss tokens.
    pub tokens: usize,
    /// Sequences with a loss token.
    pub sequences: usize,
    /// Sum over tokens of k3, unbounded, in nats; `None` without reference log-probabilities.
    pub kl_sum: Option<f64>,
    /// The loss without its KL term, normalised by the window: parts of a window add to its `policy_loss`.
    pub policy_loss: f64,
    /// `beta` times k3, normalised by the window.
    pub kl_loss: f64,
    /// Importance ratios counted: one per token, or one per sequence for GSPO.
    pub ratios: usize,
    /// Their sum.
    pub ratio_sum: f64,
    /// The smallest; +infinity when there is none.
    pub ratio_min: f64,
    /// The largest; -infinity when there is none.
    pub ratio_max: f64,
    /// Ratios below `1 - epsilon` with a negative advantage: the minimum took the clipped branch.
    pub clipped_low: usize,
    /// Ratios above `1 + epsilon_high` with a positive advantage.
    pub clipped_high: usize,
    /// Ratios above the dual clip with a negative advantage.
    pub clipped_dual: usize,
    /// CISPO: weights cut at `1 + epsilon_high` with a positive advantage; `None` for the other losses.
    pub cispo_clipped: Option<usize>,
    /// Sum over tokens of `old_logprob - logprob`: the plain estimate of how far one generation's updates have moved.
    pub old_kl_sum: f64,
}

impl Default for LossMetrics {
    fn default() -> Self {
        Self {
            tokens: 0,
            sequences: 0,
            kl_sum: None,
            policy_loss: 0.0,
            kl_loss: 0.0,
            ratios: 0,
            ratio_sum: 0.0,
            ratio_min: f64::INFINITY,
            ratio_max: f64::NEG_INFINITY,
            clipped_low: 0,
            clipped_high: 0,
            clipped_dual: 0,
            cispo_clipped: None,
            old_kl_sum: 0.0,
        }
    }
}

impl LossMetrics {
    /// Adds the sums of another micro-batch of the same window.
    pub fn merge(&mut self, other: &Self) {
        self.tokens += other.tokens;
        self.sequences += other.sequences;
        self.kl_sum = merge_optional(self.kl_sum, other.kl_sum);
        self.policy_loss += other.policy_loss;
        self.kl_loss += other.kl_loss;
        self.ratios += other.ratios;
        self.ratio_sum += other.ratio_sum;
        self.ratio_min = self.ratio_min.min(other.ratio_min);
        self.ratio_max = self.ratio_max.max(other.ratio_max);
        self.clipped_low += other.clipped_low;
        self.clipped_high += other.clipped_high;
        self.clipped_dual += other.clipped_dual;
        self.cispo_clipped = merge_optional(self.cispo_clipped, other.cispo_clipped);
        self.old_kl_sum += other.old_kl_sum;
    }

    /// The metrics to log, by name. Means over nothing are left out rather than reported as 0 or NaN.
    pub fn summary(&self) -> Vec<(&'static str, f64)> {
        let mut rows = vec![("policy_loss", self.policy_loss)];
        if self.tokens > 0 {
            if let Some(sum) = self.kl_sum {
                rows.push(("kl", sum / self.tokens as f64));
                rows.push(("kl_loss", self.kl_loss));
            }
            rows.push(("old_kl", self.old_kl_sum / self.tokens as f64));
        }
        if self.ratios > 0 {
            let share = |count: usize| count as f64 / self.ratios as f64;
            rows.push(("ratio/min", self.ratio_min));
            rows.push(("ratio/mean", self.ratio_sum / self.ratios as f64));
            rows.push(("ratio/max", self.ratio_max));
            match self.cispo_clipped {
                Some(count) => rows.push(("cispo_clip_ratio", share(count))),
                None => {
                    rows.push(("clip_ratio/region_mean", share(self.clipped_low + self.clipped_high)));
                    rows.push(("clip_ratio/low_mean", share(self.clipped_low)));
                    rows.push(("clip_ratio/high_mean", share(self.clipped_high)));
                    if self.clipped_dual > 0 {
                        rows.push(("clip_ratio/dual_mean", share(self.clipped_dual)));
                    }
                }
            }
        }
        rows
    }
}

fn merge_optional<T: std::ops::Add<Output = T>>(a: Option<T>, b: Option<T>) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a + b),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_reported_for_nothing() {
        assert_eq!(LossMetrics::default().summary(), vec![("policy_loss", 0.0)]);
    }

    #[test]
    fn parts_add_up() {
        let one = LossMetrics {
            tokens: 3,
            sequences: 1,
            kl_sum: Some(0.6),
            ratios: 3,
            ratio_sum: 3.3,
            ratio_min: 0.9,
            ratio_max: 1.3,
            clipped_high: 1,
            ..LossMetrics::default()
        };
        let mut sum = LossMetrics::default();
        sum.merge(&one);
        sum.merge(&LossMetrics {
            tokens: 1,
            kl_sum: Some(0.2),
            ratios: 1,
            ratio_sum: 0.7,
            ratio_min: 0.7,
            ratio_max: 0.7,
            clipped_low: 1,
            ..LossMetrics::default()
        });
        let rows: std::collections::HashMap<_, _> = sum.summary().into_iter().collect();
        assert!((rows["kl"] - 0.2).abs() < 1e-12);
        assert!((rows["ratio/mean"] - 1.0).abs() < 1e-12);
        assert_eq!((rows["ratio/min"], rows["ratio/max"]), (0.7, 1.3));
        assert_eq!((rows["clip_ratio/low_mean"], rows["clip_ratio/high_mean"]), (0.25, 0.25));
        assert_eq!(rows["clip_ratio/region_mean"], 0.5);
        assert!(!rows.contains_key("cispo_clip_ratio") && !rows.contains_key("clip_ratio/dual_mean"));
    }
}
