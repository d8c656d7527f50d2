//! How well a reward model orders what it has not seen: accuracy on pairs, on pairs of equal length, by which side is longer, and
//! whether its confidence is what it says (calibration).

use crate::stats::{mean, standard_error};
use serde::Serialize;
use std::collections::BTreeMap;

/// Two scores and what people said.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoredPair {
    /// Family of the prompt, for the table by family.
    pub family: String,
    /// Score of the response that is preferred.
    pub chosen: f64,
    /// Score of the other.
    pub rejected: f64,
    /// Lengths of the texts that were read, in characters: chosen, rejected.
    pub lengths: [usize; 2],
    /// How much the first is preferred, 0.5 (a tie) to 1.
    pub preference: f64,
}

/// A score and a label.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoredLabel {
    /// Family of the prompt.
    pub family: String,
    /// The score: log-odds of good.
    pub score: f64,
    /// The label.
    pub good: bool,
}

/// A share with its standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Share {
    /// How many it is a share of.
    pub count: usize,
    /// The share; none of nothing.
    pub share: Option<f64>,
    /// Standard error.
    pub se: Option<f64>,
}

impl Share {
    fn of(hits: impl Iterator<Item = f64>) -> Self {
        let hits: Vec<f64> = hits.collect();
        Share { count: hits.len(), share: mean(&hits), se: standard_error(&hits) }
    }
}

/// What a reward model gets right.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RewardSummary {
    /// Pairs whose preferred side has the higher score (equal scores count half), or labels on the right side of 0. Ties
    /// are left out.
    pub accuracy: Share,
    /// The same on pairs whose lengths differ by a tenth at most.
    pub length_matched: Share,
    /// The same where the preferred side is the shorter one.
    pub chosen_shorter: Share,
    /// The same where the preferred side is the longer one.
    pub chosen_longer: Share,
    /// Of labelled responses: share of the bad ones that are found.
    pub bad_found: Share,
    /// Of labelled responses: share of the good ones that are taken for bad.
    pub good_blamed: Share,
    /// Probability that a good response has a higher score than a bad one.
    pub auc: Option<f64>,
    /// Expected calibration error: mean distance of confidence and accuracy over ten classes of confidence.
    pub calibration_error: Option<f64>,
    /// Mean squared distance of the predicted probability and what was said.
    pub brier: Option<f64>,
    /// Accuracy by family.
    pub by_family: BTreeMap<String, Share>,
    /// Mean of all scores.
    pub score_mean: f64,
    /// Their standard deviation.
    pub score_std: f64,
}

/// Texts whose lengths differ by less than this share of the longer one are as long.
const LENGTH_MATCH: f64 = 0.1;

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// The summary of pairs.
pub fn summarise_pairs(pairs: &[ScoredPair]) -> RewardSummary {
    let decided: Vec<&ScoredPair> = pairs.iter().filter(|p| p.preference > 0.5).collect();
    let hit = |p: &ScoredPair| match p.chosen.total_cmp(&p.rejected) {
        std::cmp::Ordering::Greater => 1.0,
        std::cmp::Ordering::Equal => 0.5,
        std::cmp::Ordering::Less => 0.0,
    };
    let share = |keep: &dyn Fn(&ScoredPair) -> bool| Share::of(decided.iter().filter(|p| keep(p)).map(|p| hit(p)));
    let matched = |p: &ScoredPair| {
        let [a, b] = p.lengths;
        a.abs_diff(b) as f64 <= LENGTH_MATCH * a.max(b) as f64
    };
    let (score_mean, score_std) = spread(pairs.iter().flat_map(|p| [p.chosen, p.rejected]));
    // The model's word for a pair is the side it prefers; how sure it is, sigmoid of the difference.
    let said: Vec<(f64, f64)> = decided.iter().map(|p| (sigmoid((p.chosen - p.rejected).abs()), hit(p))).collect();
    let squares: Vec<f64> = pairs.iter().map(|p| (sigmoid(p.chosen - p.rejected) - p.preference).powi(2)).collect();
    RewardSummary {
        accuracy: share(&|_| true),
        length_matched: share(&matched),
        chosen_shorter: share(&|p| p.lengths[0] < p.lengths[1]),
        chosen_longer: share(&|p| p.lengths[0] > p.lengths[1]),
        calibration_error: calibration_error(&said),
        brier: mean(&squares),
        by_family: by_family(decided.iter().map(|p| (p.family.as_str(), hit(p)))),
        score_mean,
        score_std,
        ..RewardSummary::default()
    }
}

/// The summary of labelled responses.
pub fn summarise_labels(labels: &[ScoredLabel]) -> RewardSummary {
    let hit = |l: &ScoredLabel| f64::from(u8::from((l.score > 0.0) == l.good));
    let (score_mean, score_std) = spread(labels.iter().map(|l| l.score));
    let said: Vec<(f64, f64)> = labels.iter().map(|l| (sigmoid(l.score.abs()), hit(l))).collect();
    let squares: Vec<f64> = labels.iter().map(|l| (sigmoid(l.score) - f64::from(u8::from(l.good))).powi(2)).collect();
    RewardSummary {
        accuracy: Share::of(labels.iter().map(hit)),
        bad_found: Share::of(labels.iter().filter(|l| !l.good).map(hit)),
        good_blamed: Share::of(labels.iter().filter(|l| l.good).map(|l| 1.0 - hit(l))),
        auc: auc(labels),
        calibration_error: calibration_error(&said),
        brier: mean(&squares),
        by_family: by_family(labels.iter().map(|l| (l.family.as_str(), hit(l)))),
        score_mean,
        score_std,
        ..RewardSummary::default()
    }
}

/// Mean and standard deviation; 0 and 1 of nothing or of equal values, so that scores can be divided by it.
fn spread(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let values: Vec<f64> = values.collect();
    let centre = mean(&values).unwrap_or(0.0);
    let variance = values.iter().map(|v| (v - centre).powi(2)).sum::<f64>() / values.len().max(1) as f64;
    (centre, if variance > 0.0 { variance.sqrt() } else { 1.0 })
}

fn by_family<'a>(hits: impl Iterator<Item = (&'a str, f64)>) -> BTreeMap<String, Share> {
    let mut families: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for (family, hit) in hits {
        families.entry(family.to_owned()).or_default().push(hit);
    }
    families.into_iter().map(|(family, hits)| (family, Share::of(hits.into_iter()))).collect()
}

/// Confidence (0.5 to 1) and hit of each prediction, in ten classes of confidence.
fn calibration_error(said: &[(f64, f64)]) -> Option<f64> {
    let mut classes = [(0usize, 0.0, 0.0); 10];
    for (confidence, hit) in said {
        let class = &mut classes[(((confidence - 0.5) * 20.0) as usize).min(9)];
        *class = (class.0 + 1, class.1 + confidence, class.2 + hit);
    }
    let error: f64 = classes.iter().map(|(_, confidence, hits)| (confidence - hits).abs()).sum();
    (!said.is_empty()).then(|| error / said.len() as f64)
}

/// Area under the curve of hits against false alarms, by ranks; equal scores share theirs.
fn auc(labels: &[ScoredLabel]) -> Option<f64> {
    let mut sorted: Vec<&ScoredLabel> = labels.iter().collect();
    sorted.sort_by(|a, b| a.score.total_cmp(&b.score));
    let good = labels.iter().filter(|l| l.good).count();
    let bad = labels.len() - good;
    if good == 0 || bad == 0 {
        return None;
    }
    let (mut ranks, mut first) = (0.0, 0);
    while first < sorted.len() {
        let same = sorted[first..].iter().take_while(|l| l.score == sorted[first].score).count();
        let rank = first as f64 + (same + 1) as f64 / 2.0;
        ranks += rank * sorted[first..first + same].iter().filter(|l| l.good).count() as f64;
        first += same;
    }
    let (good, bad) = (good as f64, bad as f64);
    Some((ranks - good * (good + 1.0) / 2.0) / (good * bad))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(chosen: f64, rejected: f64, lengths: [usize; 2]) -> ScoredPair {
        ScoredPair { family: "f".into(), chosen, rejected, lengths, preference: 1.0 }
    }

    fn label(score: f64, good: bool) -> ScoredLabel {
        ScoredLabel { family: "f".into(), score, good }
    }

    #[test]
    fn pairs_by_hand() {
        let tie = ScoredPair { preference: 0.5, ..pair(-5.0, 5.0, [3, 3]) };
        let pairs =
            [pair(1.0, 0.0, [10, 10]), pair(0.0, 1.0, [10, 11]), pair(2.0, 1.0, [20, 10]), pair(1.0, 1.0, [5, 9]), tie];
        let s = summarise_pairs(&pairs);
        assert_eq!((s.accuracy.count, s.accuracy.share), (4, Some(0.625)));
        assert_eq!((s.length_matched.count, s.length_matched.share), (2, Some(0.5)));
        assert_eq!((s.chosen_longer.count, s.chosen_longer.share), (1, Some(1.0)));
        assert_eq!((s.chosen_shorter.count, s.chosen_shorter.share), (2, Some(0.25)));
        assert_eq!(s.by_family["f"].count, 4);
        assert!((s.score_mean - 0.7).abs() < 1e-12);
        assert_eq!(summarise_pairs(&[]).accuracy.share, None);
    }

    #[test]
    fn a_calibrated_model_has_no_calibration_error() {
        // Right as often as it says: sigmoid(ln 3) = 0.75.
        let gap = 3.0_f64.ln();
        let pairs: Vec<ScoredPair> =
            (0..400).map(|i| if i % 4 == 0 { pair(0.0, gap, [1, 1]) } else { pair(gap, 0.0, [1, 1]) }).collect();
        assert!(summarise_pairs(&pairs).calibration_error.unwrap() < 1e-9);
        // The same answers, said with certainty.
        let sure: Vec<ScoredPair> = pairs.iter().map(|p| pair(p.chosen * 20.0, p.rejected * 20.0, [1, 1])).collect();
        assert!((summarise_pairs(&sure).calibration_error.unwrap() - 0.25).abs() < 1e-3);
    }

    #[test]
    fn labels_by_hand() {
        let labels = [label(2.0, true), label(-1.0, true), label(-2.0, false), label(1.0, false), label(-3.0, false)];
        let s = summarise_labels(&labels);
        assert_eq!(s.accuracy.share, Some(0.6));
        assert!((s.bad_found.share.unwrap() - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!(s.good_blamed.share, Some(0.5));
        // Of six pairs of a good and a bad one, five are in order.
        assert!((s.auc.unwrap() - 5.0 / 6.0).abs() < 1e-12);
        assert_eq!(summarise_labels(&[label(1.0, true)]).auc, None);
        assert_eq!(summarise_labels(&[label(1.0, true), label(1.0, false)]).auc, Some(0.5));
    }
}
