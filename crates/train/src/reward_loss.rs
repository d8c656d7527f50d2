//! Losses of reward models as pure functions of scores: Bradley-Terry on pairs, cross-entropy on labelled responses.
//!
//! With d = s_chosen - s_rejected, preference p and margin m, the loss of a pair is the cross-entropy of p against
//! sigmoid(d - (2p - 1) m), plus `centering` (s_chosen + s_rejected)^2, which keeps scores near 0. At p = 1 and m = 0 that is
//! Bradley-Terry, -log sigmoid(d) (InstructGPT, section 3.4); m > 0 is Llama 2's margin (section 3.2.2); p = 1/2 is a tie, whose
//! best d is 0.

/// A loss and its derivative with respect to each score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScoreLoss<const N: usize> {
    /// In nats.
    pub loss: f64,
    /// dLoss/dscore.
    pub d_scores: [f64; N],
}

/// log(1 + e^x) without overflow.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// 1 / (1 + e^-x).
pub fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 { 1.0 / (1.0 + (-x).exp()) } else { x.exp() / (1.0 + x.exp()) }
}

/// The loss of one pair.
pub fn pair_loss(chosen: f64, rejected: f64, preference: f64, margin: f64, centering: f64) -> ScoreLoss<2> {
    let x = chosen - rejected - (2.0 * preference - 1.0) * margin;
    let sum = chosen + rejected;
    let loss = preference * softplus(-x) + (1.0 - preference) * softplus(x) + centering * sum * sum;
    let (d, centre) = (sigmoid(x) - preference, 2.0 * centering * sum);
    ScoreLoss { loss, d_scores: [d + centre, centre - d] }
}

/// The loss of one labelled response: its score is the log-odds of the good label.
pub fn label_loss(score: f64, good: bool) -> ScoreLoss<1> {
    let (loss, wanted) = if good { (softplus(-score), 1.0) } else { (softplus(score), 0.0) };
    ScoreLoss { loss, d_scores: [sigmoid(score) - wanted] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_the_formula() {
        let plain = pair_loss(1.5, 0.5, 1.0, 0.0, 0.0);
        assert!((plain.loss - (1.0 + (-1.0_f64).exp()).ln()).abs() < 1e-12);
        assert_eq!(plain.d_scores[0], -plain.d_scores[1]);
        // A margin asks for more; a tie wants equal scores and ignores it.
        assert!(pair_loss(1.5, 0.5, 1.0, 0.5, 0.0).loss > plain.loss);
        assert_eq!(pair_loss(0.7, 0.7, 0.5, 3.0, 0.0).d_scores, [0.0, 0.0]);
        assert!(pair_loss(2.0, 0.7, 0.5, 0.0, 0.0).loss > pair_loss(0.7, 0.7, 0.5, 0.0, 0.0).loss);
        // Far out nothing overflows.
        assert_eq!(pair_loss(1e6, -1e6, 1.0, 0.0, 0.0).loss, 0.0);
        assert_eq!(pair_loss(-1e6, 1e6, 1.0, 0.0, 0.0).loss, 2e6);
        assert!((label_loss(0.0, true).loss - 2.0_f64.ln()).abs() < 1e-12);
        assert_eq!(label_loss(-1e6, true).loss, 1e6);
    }

    #[test]
    fn derivatives_equal_differences() {
        let e = 1e-6;
        for (a, b, p, m, c) in [(0.3, -0.2, 1.0, 0.0, 0.0), (1.0, 2.0, 0.75, 0.4, 0.01), (-3.0, 0.5, 0.5, 1.0, 0.1)] {
            let f = |a, b| pair_loss(a, b, p, m, c).loss;
            let d = pair_loss(a, b, p, m, c).d_scores;
            assert!((d[0] - (f(a + e, b) - f(a - e, b)) / (2.0 * e)).abs() < 1e-8, "{a} {b}");
            assert!((d[1] - (f(a, b + e) - f(a, b - e)) / (2.0 * e)).abs() < 1e-8, "{a} {b}");
        }
        for good in [false, true] {
            let difference = (label_loss(0.4 + e, good).loss - label_loss(0.4 - e, good).loss) / (2.0 * e);
            assert!((label_loss(0.4, good).d_scores[0] - difference).abs() < 1e-8);
        }
    }
}
