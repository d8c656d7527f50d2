//! Is one evaluation better than another on the same problems? Paired by problem, which removes how hard the problems
//! are from the error.

use std::collections::BTreeMap;

use crate::{SampleRecord, mean, problem_scores, standard_error};

/// The mean over common problems of (second pass@1 - first pass@1).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairedDifference {
    /// Problems judged in both.
    pub problems: usize,
    /// Problems judged in only one of them, left out.
    pub unmatched: usize,
    /// The mean difference, positive if the second is better.
    pub difference: f64,
    /// Its standard error over problems; `None` for a single problem.
    pub standard_error: Option<f64>,
}

/// Compares two evaluations; `None` if no problem was judged in both.
pub fn paired_difference(first: &[SampleRecord], second: &[SampleRecord]) -> Option<PairedDifference> {
    let scores = |samples| -> BTreeMap<(String, String), f64> {
        problem_scores(samples)
            .into_iter()
            .filter_map(|score| Some((score.pass_at_1()?, score)))
            .map(|(pass_at_1, score)| ((score.family, score.problem_id), pass_at_1))
            .collect()
    };
    let (first, second) = (scores(first), scores(second));
    let differences: Vec<f64> =
        first.iter().filter_map(|(problem, before)| Some(second.get(problem)? - before)).collect();
    Some(PairedDifference {
        problems: differences.len(),
        unmatched: first.len() + second.len() - 2 * differences.len(),
        difference: mean(&differences)?,
        standard_error: standard_error(&differences),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Verdict::{Correct, Incorrect, NotJudged};
    use crate::record::sample;

    #[test]
    fn hand_computed_on_the_common_problems() {
        let before = [
            sample("a", 0, Correct, None),
            sample("a", 1, Incorrect, None),
            sample("b", 0, Incorrect, None),
            sample("c", 0, Correct, None),
            sample("only before", 0, Correct, None),
        ];
        let after = [
            sample("a", 0, Correct, None),
            sample("b", 0, Correct, None),
            sample("c", 0, Correct, None),
            sample("c", 1, NotJudged, None),
            sample("only after", 0, Correct, None),
            sample("unjudged", 0, NotJudged, None),
        ];
        // Differences 0.5, 1, 0: mean 0.5, variance 0.25.
        let got = paired_difference(&before, &after).unwrap();
        assert_eq!((got.problems, got.unmatched, got.difference), (3, 2, 0.5));
        assert!((got.standard_error.unwrap() - (0.25_f64 / 3.0).sqrt()).abs() < 1e-15);
        let same = paired_difference(&before, &before).unwrap();
        assert_eq!((same.difference, same.standard_error), (0.0, Some(0.0)));
        assert_eq!(paired_difference(&before, &[]), None);
    }
}
