//! An evaluation in numbers: the `evals` of `summary.json`.
//!
//! - pass@1 is the mean over problems of the share of judged samples that are correct.
//! - Its standard error is taken over problems, each problem one value (samples of a problem are not independent):
//!   `sd(share) / sqrt(problems)`. For k Bernoulli(p) samples of n equal problems that is `sqrt(p (1 - p) / (k n))`; where
//!   problems differ in difficulty it also holds the error of having drawn these problems.
//! - pass@16 is the unbiased estimate, see [`pass_at_k`]; cons@16 the majority of the first 16 samples, see [`consensus`].
//!   Both are `None` unless every problem has 16 samples. Of those that could not be judged both know nothing: pass@k
//!   then uses the k that are left, which can only lower it.
//! - `NotJudged` samples are in no numerator and no denominator of these; behaviours are over all samples.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::record::by_problem;
use crate::{SampleRecord, Verdict, consensus, mean, pass_at_k, standard_error};

/// The k of pass@16 and cons@16.
const K: usize = 16;

/// Measures over a set of problems. Shares are 0 to 1; `None` (JSON `null`) where there is nothing to measure.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Measures {
    /// Problems.
    pub problems: usize,
    /// Samples per problem (the most that any problem has).
    pub samples: usize,
    /// Mean over problems of the share of correct samples.
    pub pass_at_1: Option<f64>,
    /// Standard error of `pass_at_1` over problems; `None` for fewer than two problems.
    pub pass_at_1_se: Option<f64>,
    /// Chance that one of 16 samples is correct.
    pub pass_at_16: Option<f64>,
    /// Chance that the majority of 16 samples is correct.
    pub cons_at_16: Option<f64>,
    /// Share of problems that greedy decoding solves.
    pub greedy_pass_at_1: Option<f64>,
    /// Share of samples in the required format.
    pub format_rate: Option<f64>,
    /// Mean length of a response in tokens.
    pub mean_response_tokens: Option<f64>,
    /// Reflective words per response.
    pub reflective_words: Option<f64>,
    /// Mean share of a response that is in its problem's language.
    pub language_consistency: Option<f64>,
    /// As `pass_at_1`, by the lenient reading.
    pub lenient_pass_at_1: Option<f64>,
    /// Share of samples that mix languages.
    pub mixed_language_rate: Option<f64>,
    /// Samples without a verdict.
    pub not_judged: usize,
    /// Share of samples that ended at the length limit.
    pub truncated_rate: Option<f64>,
}

/// An evaluation: all problems together, and each family by itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EvalSummary {
    /// All problems.
    #[serde(flatten)]
    pub overall: Measures,
    /// The same by task family.
    pub by_family: BTreeMap<String, Measures>,
}

/// Sums up an evaluation. `greedy` has one greedily decoded response per problem and may be empty; an evaluation with
/// greedy decoding only passes it as `samples` too. The order of the records does not matter.
pub fn summarise(samples: &[SampleRecord], greedy: &[SampleRecord]) -> EvalSummary {
    let families: BTreeSet<&str> = samples.iter().chain(greedy).map(|sample| sample.family.as_str()).collect();
    let measure_family = |family: &str| {
        let of_family = |sample: &&SampleRecord| sample.family == family;
        measure(samples.iter().filter(of_family), greedy.iter().filter(of_family))
    };
    EvalSummary {
        overall: measure(samples, greedy),
        by_family: families.into_iter().map(|family| (family.to_owned(), measure_family(family))).collect(),
    }
}

fn measure<'a>(
    samples: impl IntoIterator<Item = &'a SampleRecord>,
    greedy: impl IntoIterator<Item = &'a SampleRecord>,
) -> Measures {
    let (samples, greedy) = (by_problem(samples), by_problem(greedy));
    let over_problems = |value: &dyn Fn(&[&SampleRecord]) -> Option<f64>| -> Vec<f64> {
        samples.values().filter_map(|problem| value(problem)).collect()
    };
    let over_samples = |value: &dyn Fn(&SampleRecord) -> Option<f64>| -> Option<f64> {
        mean(&samples.values().flatten().filter_map(|sample| value(sample)).collect::<Vec<_>>())
    };
    let rate = |holds: &dyn Fn(&SampleRecord) -> bool| over_samples(&|sample| Some(f64::from(u8::from(holds(sample)))));

    let scores = over_problems(&|problem| share(problem, |sample| sample.verdict == Verdict::Correct));
    let lenient = over_problems(&|problem| share(problem, |sample| sample.lenient_correct));
    let greedy_scores: Vec<f64> =
        greedy.values().filter_map(|problem| share(problem, |sample| sample.verdict == Verdict::Correct)).collect();
    let enough = samples.values().all(|problem| problem.len() >= K);
    let at_k = |value: &dyn Fn(&[&SampleRecord]) -> Option<f64>| mean(&over_problems(value)).filter(|_| enough);

    Measures {
        problems: samples.keys().chain(greedy.keys()).collect::<BTreeSet<_>>().len(),
        samples: samples.values().map(Vec::len).max().unwrap_or(0),
        pass_at_1: mean(&scores),
        pass_at_1_se: standard_error(&scores),
        pass_at_16: at_k(&|problem| {
            let judged = judged(problem).count();
            let correct = problem.iter().filter(|sample| sample.verdict == Verdict::Correct).count();
            pass_at_k(judged, correct, K.min(judged))
        }),
        cons_at_16: at_k(&|problem| consensus(problem.iter().take(K).copied())),
        greedy_pass_at_1: mean(&greedy_scores),
        format_rate: rate(&|sample| sample.format),
        mean_response_tokens: over_samples(&|sample| Some(sample.response_tokens as f64)),
        reflective_words: over_samples(&|sample| Some(sample.reflective_words as f64)),
        language_consistency: over_samples(&|sample| sample.language_consistency.filter(|share| share.is_finite())),
        lenient_pass_at_1: mean(&lenient),
        mixed_language_rate: rate(&|sample| sample.mixed_language),
        not_judged: samples.values().flatten().filter(|sample| sample.verdict == Verdict::NotJudged).count(),
        truncated_rate: rate(&|sample| !sample.finished),
    }
}

fn judged<'a>(problem: &'a [&SampleRecord]) -> impl Iterator<Item = &'a SampleRecord> {
    problem.iter().copied().filter(|sample| sample.verdict != Verdict::NotJudged)
}

/// Share of a problem's judged samples for which something holds; `None` if none was judged.
fn share(problem: &[&SampleRecord], holds: impl Fn(&SampleRecord) -> bool) -> Option<f64> {
    let all = judged(problem).count();
    let hits = judged(problem).filter(|sample| holds(sample)).count();
    (all > 0).then(|| hits as f64 / all as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Verdict::{Correct, Incorrect, NotJudged};
    use crate::record::sample;

    fn close(got: Option<f64>, want: f64) {
        let got = got.expect("a number");
        assert!((got - want).abs() < 1e-12, "{got} is not {want}");
    }

    /// `correct` of `k` samples right, the right ones first.
    fn problem(name: &str, correct: usize, k: usize) -> Vec<SampleRecord> {
        (0..k)
            .map(
                |i| {
                    if i < correct {
                        sample(name, i, Correct, Some("7"))
                    } else {
                        sample(name, i, Incorrect, Some("8"))
                    }
                },
            )
            .collect()
    }

    #[test]
    fn hand_computed_with_16_samples() {
        let mut samples = problem("a", 16, 16);
        samples.extend(problem("b", 8, 16));
        samples.extend(problem("c", 0, 16));
        let greedy = [sample("a", 0, Correct, None), sample("b", 0, Incorrect, None), sample("c", 0, NotJudged, None)];
        let got = summarise(&samples, &greedy).overall;
        assert_eq!((got.problems, got.samples, got.not_judged), (3, 16, 0));
        close(got.pass_at_1, 0.5);
        close(got.pass_at_1_se, (0.25_f64 / 3.0).sqrt());
        close(got.pass_at_16, 2.0 / 3.0);
        close(got.cons_at_16, 0.5);
        close(got.greedy_pass_at_1, 0.5);
        close(got.lenient_pass_at_1, 0.5);
    }

    #[test]
    fn behaviours_are_means_over_responses() {
        let mut samples = problem("a", 1, 2);
        samples.extend(problem("b", 1, 2));
        samples[0].format = false;
        samples[1].finished = false;
        samples[1].response_tokens = 50;
        samples[2].reflective_words = 6;
        samples[2].language_consistency = Some(0.5);
        samples[3].language_consistency = Some(1.0);
        samples[3].mixed_language = true;
        samples[3].lenient_correct = true;
        let got = summarise(&samples, &[]).overall;
        close(got.format_rate, 0.75);
        close(got.truncated_rate, 0.25);
        close(got.mean_response_tokens, 20.0);
        close(got.reflective_words, 1.5);
        close(got.language_consistency, 0.75);
        close(got.mixed_language_rate, 0.25);
        close(got.pass_at_1, 0.5);
        close(got.lenient_pass_at_1, 0.75);
        assert_eq!((got.pass_at_16, got.cons_at_16, got.greedy_pass_at_1), (None, None, None));
    }

    #[test]
    fn what_was_not_judged_is_in_no_denominator() {
        let mut samples = problem("a", 2, 16);
        for unjudged in &mut samples[4..] {
            unjudged.verdict = NotJudged;
            unjudged.lenient_correct = true;
        }
        samples.extend((0..16).map(|i| sample("all unjudged", i, NotJudged, Some("7"))));
        let got = summarise(&samples, &[]).overall;
        assert_eq!((got.problems, got.not_judged), (2, 28));
        close(got.pass_at_1, 0.5);
        close(got.lenient_pass_at_1, 0.5);
        close(got.pass_at_16, 1.0);
        close(got.cons_at_16, 0.5);
        assert_eq!(got.pass_at_1_se, None);
    }

    #[test]
    fn families_are_measured_apart_and_order_does_not_matter() {
        let mut samples = problem("a", 3, 4);
        samples.extend(problem("a", 1, 4).into_iter().map(|s| SampleRecord { family: "countdown".into(), ..s }));
        for (i, sample) in samples.iter_mut().enumerate() {
            sample.language_consistency = Some(1.0 / (i as f64 + 3.0));
        }
        let got = summarise(&samples, &[]);
        assert_eq!(got.overall.problems, 2);
        close(got.by_family["chain"].pass_at_1, 0.75);
        close(got.by_family["countdown"].pass_at_1, 0.25);
        samples.reverse();
        assert_eq!(summarise(&samples, &[]), got);
    }

    #[test]
    fn the_standard_error_is_that_of_bernoulli_samples() {
        // Spec C.12.7: sqrt(p (1 - p) / (k n)) on synthetic Bernoulli(p) answers.
        let (n, k, p) = (4000_u64, 16_u64, 0.3);
        let samples: Vec<_> = (0..n)
            .flat_map(|problem| {
                (0..k).map(move |i| {
                    let uniform = (crate::stats::random(5, problem, i) >> 11) as f64 / (1u64 << 53) as f64;
                    let verdict = if uniform < p { Correct } else { Incorrect };
                    sample(&problem.to_string(), i as usize, verdict, None)
                })
            })
            .collect();
        let got = summarise(&samples, &[]).overall;
        let expected = (p * (1.0 - p) / (k * n) as f64).sqrt();
        let error = got.pass_at_1_se.unwrap();
        assert!((error / expected - 1.0).abs() < 0.05, "{error} against {expected}");
        assert!((got.pass_at_1.unwrap() - p).abs() < 4.0 * expected);
    }

    #[test]
    fn nothing_gives_nulls_and_json_has_the_fields_of_the_design() {
        let empty = summarise(&[], &[]);
        assert_eq!(empty, EvalSummary::default());
        let json = serde_json::to_value(summarise(&problem("a", 1, 16), &[])).unwrap();
        let keys: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
        let overall = [
            "problems",
            "samples",
            "pass_at_1",
            "pass_at_1_se",
            "pass_at_16",
            "cons_at_16",
            "greedy_pass_at_1",
            "format_rate",
            "mean_response_tokens",
            "reflective_words",
            "language_consistency",
            "lenient_pass_at_1",
            "mixed_language_rate",
            "not_judged",
            "truncated_rate",
            "by_family",
        ];
        assert_eq!(keys, overall);
        assert_eq!(json["by_family"]["chain"]["pass_at_1"], 0.0625);
        assert_eq!(json["greedy_pass_at_1"], serde_json::Value::Null);
        let back: EvalSummary = serde_json::from_value(json).unwrap();
        assert_eq!(back, summarise(&problem("a", 1, 16), &[]));
        let line = serde_json::to_string(&sample("a", 0, NotJudged, None)).unwrap();
        assert!(line.contains("\"verdict\":\"not_judged\""), "{line}");
        assert_eq!(serde_json::from_str::<SampleRecord>(&line).unwrap(), sample("a", 0, NotJudged, None));
    }
}
