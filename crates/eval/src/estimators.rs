//! pass@k and cons@k of one problem.

use crate::{SampleRecord, Verdict};

/// Unbiased estimate of the chance that at least one of `k` samples is correct, from `correct` of `judged` samples:
/// `1 - C(judged - correct, k) / C(judged, k)`, the share of k-subsets that have a correct one (Chen et al. 2021,
/// arXiv 2107.03374). Summed as logarithms, so that neither large k nor tiny results lose digits.
///
/// `None` if `k` is 0 or above `judged`, or `correct` is above `judged`.
pub fn pass_at_k(judged: usize, correct: usize, k: usize) -> Option<f64> {
    if k == 0 || k > judged || correct > judged {
        return None;
    }
    let wrong = judged - correct;
    if wrong < k {
        return Some(1.0);
    }
    // C(n-c, k) / C(n, k) is the product over i in n-c+1..=n of (1 - k / i).
    let log_all_wrong: f64 = (wrong + 1..=judged).map(|i| (-(k as f64) / i as f64).ln_1p()).sum();
    Some(-log_all_wrong.exp_m1())
}

/// Expected correctness of the majority answer among `samples` of one problem; `None` if none was judged.
///
/// Each judged sample with an answer is a vote; a missing answer never wins, so samples without any answer score 0.
/// A tie is scored by its expected value, the mean over the tied answers, as if one were drawn: this depends on no
/// order and gives no advantage. Where the same answer was judged both ways (say, its format counts), its score is the
/// share of its votes that are correct.
pub fn consensus<'a>(samples: impl IntoIterator<Item = &'a SampleRecord>) -> Option<f64> {
    let mut judged = 0_usize;
    let mut votes: std::collections::BTreeMap<&str, (usize, usize)> = Default::default();
    for sample in samples {
        if sample.verdict == Verdict::NotJudged {
            continue;
        }
        judged += 1;
        if let Some(answer) = &sample.answer {
            let (cast, correct) = votes.entry(answer).or_default();
            *cast += 1;
            *correct += usize::from(sample.verdict == Verdict::Correct);
        }
    }
    if judged == 0 {
        return None;
    }
    let most = votes.values().map(|&(cast, _)| cast).max().unwrap_or(0);
    let winners: Vec<f64> = votes
        .values()
        .filter(|&&(cast, _)| cast == most)
        .map(|&(cast, correct)| correct as f64 / cast as f64)
        .collect();
    Some(crate::mean(&winners).unwrap_or(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Verdict::{Correct, Incorrect, NotJudged};
    use crate::record::sample;

    /// The definition, by counting subsets as bit masks.
    fn by_counting(judged: usize, correct: usize, k: usize) -> f64 {
        let subsets: Vec<u32> = (0..1u32 << judged).filter(|set| set.count_ones() as usize == k).collect();
        let hits = subsets.iter().filter(|&&set| set & ((1 << correct) - 1) != 0).count();
        hits as f64 / subsets.len() as f64
    }

    #[test]
    fn pass_at_k_counts_subsets() {
        for judged in 1..=9 {
            for correct in 0..=judged {
                for k in 1..=judged {
                    let got = pass_at_k(judged, correct, k).unwrap();
                    assert!((got - by_counting(judged, correct, k)).abs() < 1e-12, "{judged} {correct} {k}: {got}");
                }
            }
        }
    }

    #[test]
    fn pass_at_k_holds_at_the_edges() {
        assert_eq!(pass_at_k(16, 0, 16), Some(0.0));
        assert_eq!(pass_at_k(16, 1, 16), Some(1.0));
        assert_eq!(pass_at_k(4, 2, 5), None);
        assert_eq!(pass_at_k(4, 2, 0), None);
        assert_eq!(pass_at_k(4, 5, 1), None);
        // One correct in n: the chance is k / n, whatever the size.
        let got = pass_at_k(10_000_000, 1, 3).unwrap();
        assert!((got / 3e-7 - 1.0).abs() < 1e-9, "{got}");
        let large = pass_at_k(100_000, 50_000, 40_000).unwrap();
        assert_eq!(large, 1.0);
    }

    fn vote(cast: &[(Verdict, Option<&str>)]) -> Option<f64> {
        let samples: Vec<_> =
            cast.iter().enumerate().map(|(i, &(verdict, answer))| sample("p", i, verdict, answer)).collect();
        consensus(&samples)
    }

    #[test]
    fn the_majority_wins_and_missing_answers_do_not_vote() {
        assert_eq!(vote(&[(Correct, Some("7")), (Incorrect, Some("8")), (Correct, Some("7"))]), Some(1.0));
        let missing = (Incorrect, None);
        assert_eq!(vote(&[missing, missing, missing, (Correct, Some("7"))]), Some(1.0));
        assert_eq!(vote(&[missing, missing]), Some(0.0));
        assert_eq!(vote(&[]), None);
    }

    #[test]
    fn ties_score_their_expected_value_and_unjudged_votes_are_not_cast() {
        assert_eq!(vote(&[(Correct, Some("7")), (Incorrect, Some("8"))]), Some(0.5));
        let three = [(Incorrect, Some("1")), (Correct, Some("7")), (Incorrect, Some("8"))];
        assert!((vote(&three).unwrap() - 1.0 / 3.0).abs() < 1e-15);
        let unjudged = (NotJudged, Some("8"));
        assert_eq!(vote(&[(Correct, Some("7")), unjudged, unjudged]), Some(1.0));
        assert_eq!(vote(&[unjudged]), None);
        // The same answer, once without the format that the verdict asks for.
        assert_eq!(vote(&[(Correct, Some("7")), (Incorrect, Some("7"))]), Some(0.5));
    }

    #[test]
    fn a_majority_of_60_percent_tends_to_1_as_votes_grow() {
        // Spec C.12.7: correct with 0.6, otherwise scattered over a thousand wrong answers.
        let score = |votes: usize| {
            let problems = 400;
            let total: f64 = (0..problems)
                .map(|problem| {
                    let samples: Vec<_> = (0..votes)
                        .map(|i| {
                            let bits = crate::stats::random(7, problem, i as u64);
                            let wrong = format!("w{}", bits >> 54);
                            if (bits & 0xffff) < 39322 {
                                sample("p", i, Correct, Some("7"))
                            } else {
                                sample("p", i, Incorrect, Some(&wrong))
                            }
                        })
                        .collect();
                    consensus(&samples).unwrap()
                })
                .sum();
            total / problems as f64
        };
        let (few, many) = (score(2), score(64));
        assert!(few < 0.75, "{few}");
        assert_eq!(many, 1.0);
    }
}
