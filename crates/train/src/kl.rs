//! The k3 estimate of `KL(policy || reference)` that GRPO adds to its loss (DeepSeekMath eq. 4):
//! `k3 = R - ln R - 1` with `R = pi_ref / pi`, so `k3 >= 0`, and 0 exactly where the two agree.
//!
//! Its gradient with respect to the policy's log-probability is `1 - R`; with the policy-gradient term it makes
//! `A + beta (pi_ref / pi - 1)` at ratio 1 (DeepSeekMath eq. 21). `R` would overflow once the policy has almost given up
//! a token that the reference likes, so beyond |ln R| = 20 the loss goes on as its tangent: still convex, still pulling
//! back, never infinite. (Others clamp there, and the pull disappears.) The metric is left as the formula has it.

/// |ln R| beyond which the loss follows its tangent.
pub const MAX_LOG_RATIO: f64 = 20.0;

/// k3 for the loss and its derivative with respect to `logprob`; both finite for finite inputs. In nats.
pub fn k3_with_gradient(logprob: f64, ref_logprob: f64) -> (f64, f64) {
    let log_r = ref_logprob - logprob;
    let bounded = log_r.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO);
    let r = bounded.exp();
    // exp_m1 keeps the digits that exp(x) - 1 loses near 0, so k3 cannot come out negative there.
    let value = if log_r == bounded { log_r.exp_m1() - log_r } else { r * (1.0 + log_r - bounded) - log_r - 1.0 };
    (value.max(0.0), 1.0 - r)
}

/// k3 as the formula has it, for metrics: no bound, so it may be huge or infinite for extreme inputs. In nats.
pub fn k3(logprob: f64, ref_logprob: f64) -> f64 {
    let log_r = ref_logprob - logprob;
    (log_r.exp_m1() - log_r).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hand_computed_values() {
        // pi = 1/4, pi_ref = 1/2: R = 2, k3 = 2 - ln 2 - 1 = 0.306853, gradient 1 - 2.
        let (value, gradient) = k3_with_gradient(0.25f64.ln(), 0.5f64.ln());
        assert!((value - 0.306_852_819_440_054_7).abs() < 1e-14);
        assert!((gradient + 1.0).abs() < 1e-14);
        assert_eq!(k3_with_gradient(-1.25, -1.25), (0.0, 0.0));
    }

    #[test]
    fn never_negative_and_never_infinite() {
        for i in -4000..=4000 {
            let log_r = f64::from(i) * 0.02;
            let (value, gradient) = k3_with_gradient(-1.0, -1.0 + log_r);
            assert!(value >= 0.0 && value.is_finite() && gradient.is_finite(), "{log_r}");
            if log_r.abs() < MAX_LOG_RATIO {
                assert!((value - k3(-1.0, -1.0 + log_r)).abs() <= 1e-12 * value.max(1.0));
            }
        }
        assert!(k3_with_gradient(0.0, 1e-9).0 >= 0.0);
        assert!(k3_with_gradient(-1e4, 0.0).0.is_finite());
        assert!(k3(-1e4, 0.0).is_infinite(), "the metric is not bounded");
    }

    #[test]
    fn gradient_is_the_slope_also_beyond_the_bound() {
        for log_r in [-35.0, -20.5, -3.0, -0.1, 0.3, 2.0, 19.0, 20.5, 24.0] {
            let h = 1e-6;
            let up = k3_with_gradient(-40.0 + h, -40.0 + log_r).0;
            let down = k3_with_gradient(-40.0 - h, -40.0 + log_r).0;
            let (_, gradient) = k3_with_gradient(-40.0, -40.0 + log_r);
            let slope = (up - down) / (2.0 * h);
            assert!((slope - gradient).abs() < 1e-5 * gradient.abs().max(1.0), "{log_r}: {slope} {gradient}");
        }
    }

    #[test]
    fn expectation_under_the_policy_is_the_exact_kl() {
        let policy = [0.5, 0.3, 0.15, 0.05f64];
        let reference = [0.1, 0.2, 0.3, 0.4f64];
        let exact: f64 = policy.iter().zip(&reference).map(|(p, q)| p * (p / q).ln()).sum();
        let estimate: f64 = policy.iter().zip(&reference).map(|(p, q)| p * k3(p.ln(), q.ln())).sum();
        assert!((exact - estimate).abs() < 1e-14);
    }
}
