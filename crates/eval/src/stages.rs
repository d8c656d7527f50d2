//! What a checkpoint's samples say for the tables of R1's paper: by group of families, readability, agreement of the samples with
//! each other, and how often one checkpoint's answers are preferred to another's.

use crate::record::by_problem;
use crate::{Cell, ProblemScore, SampleRecord, consensus, mean, problem_scores};
use std::collections::BTreeMap;

/// Samples that a majority is taken over.
const K: usize = 16;

/// pass@1 over the samples that `keep` names, its error over problems.
pub fn pass_at_1<'a>(samples: impl IntoIterator<Item = &'a SampleRecord>) -> Cell {
    Cell::mean(&problem_scores(samples).iter().filter_map(ProblemScore::pass_at_1).collect::<Vec<_>>())
}

/// Share of problems whose majority of the first 16 samples is right.
pub fn cons_at_16<'a>(samples: impl IntoIterator<Item = &'a SampleRecord>) -> Cell {
    let problems = by_problem(samples);
    if problems.values().any(|p| p.len() < K) {
        return Cell::default();
    }
    let values = problems.values().filter_map(|p| consensus(p.iter().take(K).copied()));
    Cell::mean(&values.collect::<Vec<_>>())
}

/// Mean over problems of the share of samples with the commonest answer; samples without an answer agree with none.
pub fn self_consistency<'a>(samples: impl IntoIterator<Item = &'a SampleRecord>) -> Cell {
    let agreement = |problem: &Vec<&SampleRecord>| {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for answer in problem.iter().filter_map(|s| s.answer.as_deref()) {
            *counts.entry(answer).or_default() += 1;
        }
        counts.values().copied().max().unwrap_or(0) as f64 / problem.len().max(1) as f64
    };
    let problems = by_problem(samples);
    if problems.values().any(|p| p.len() < 2) {
        return Cell::default();
    }
    Cell::mean(&problems.values().map(agreement).collect::<Vec<_>>())
}

/// Mean of a measure over samples; its error over problems.
pub fn average<'a>(
    samples: impl IntoIterator<Item = &'a SampleRecord>,
    value: impl Fn(&SampleRecord) -> Option<f64>,
) -> Cell {
    let of = |problem: &Vec<&SampleRecord>| mean(&problem.iter().filter_map(|s| value(s)).collect::<Vec<_>>());
    Cell::mean(&by_problem(samples).values().filter_map(of).collect::<Vec<_>>())
}

/// How often `a` is preferred to `b`: over the problems both answered, the mean share of pairs of samples (the first of one with
/// the first of the other, and so on) that `a` wins; no difference, or one of less than `tie`, is half a win.
pub fn win_rate(
    a: &[SampleRecord],
    b: &[SampleRecord],
    tie: f64,
    worth: impl Fn(&SampleRecord) -> Option<f64>,
) -> Cell {
    let (a, b) = (by_problem(a), by_problem(b));
    let rate = |(problem, first): (&(&str, &str), &Vec<&SampleRecord>)| {
        let second = b.get(problem)?;
        let wins = first.iter().zip(second).filter_map(|(x, y)| {
            let difference = worth(x)? - worth(y)?;
            Some(if difference == 0.0 || difference.abs() < tie { 0.5 } else { f64::from(u8::from(difference > 0.0)) })
        });
        mean(&wins.collect::<Vec<_>>())
    };
    Cell::mean(&a.iter().filter_map(rate).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Verdict::{Correct, Incorrect, NotJudged};
    use crate::record::sample;

    fn answers(problem: &str, answers: &[&str]) -> Vec<SampleRecord> {
        let one = |(i, answer): (usize, &&str)| {
            let verdict = if *answer == "7" { Correct } else { Incorrect };
            sample(problem, i, verdict, Some(*answer).filter(|a| !a.is_empty()))
        };
        answers.iter().enumerate().map(one).collect()
    }

    #[test]
    fn by_hand() {
        let all = [answers("p", &["7", "7", "8", "7"]), answers("q", &["1", "2", "", ""])].concat();
        let p = pass_at_1(&all);
        assert_eq!(p.value, Some(0.375));
        assert!((p.se.unwrap() - 0.375).abs() < 1e-12);
        assert_eq!(self_consistency(&all).value, Some((0.75 + 0.25) / 2.0));
        assert_eq!(cons_at_16(&all).value, None);
        assert_eq!(average(&all, |s| Some(f64::from(u8::from(s.answer.is_none())))).value, Some(0.25));
        let unjudged = [sample("p", 0, NotJudged, None), sample("p", 1, Correct, None)];
        assert_eq!(pass_at_1(&unjudged).value, Some(1.0));
    }

    #[test]
    fn wins_are_counted_pair_by_pair_and_ties_are_half() {
        let (a, b) = (answers("p", &["7", "7", "8", "8"]), answers("p", &["8", "7", "8", "7"]));
        let worth = |s: &SampleRecord| Some(f64::from(u8::from(s.verdict == Correct)));
        assert_eq!(win_rate(&a, &b, 0.1, worth).value, Some(0.5));
        let c = answers("p", &["8", "8", "8", "7"]);
        assert_eq!(win_rate(&a, &c, 0.1, worth).value, Some((1.0 + 1.0 + 0.5 + 0.0) / 4.0));
        assert_eq!(win_rate(&c, &a, 0.1, worth).value, Some(1.0 - 2.5 / 4.0));
        // Equal is a tie even where every difference counts.
        assert_eq!(win_rate(&a, &a, 0.0, worth).value, Some(0.5));
        // Without common problems there is nothing to say.
        assert_eq!(win_rate(&a, &answers("z", &["7"]), 0.1, worth).value, None);
    }
}
