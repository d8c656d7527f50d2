//! One judged sample, and samples gathered by problem.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How an answer was judged. Not judged is not wrong: it leaves numerator and denominator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The answer is right.
    Correct,
    /// The answer is wrong or missing.
    Incorrect,
    /// There is no verdict, e.g. the judge failed.
    NotJudged,
}

/// One sampled response to one problem, with what the graders found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SampleRecord {
    /// Names the problem within its family.
    pub problem_id: String,
    /// The task family, e.g. `countdown`.
    pub family: String,
    /// Language of the problem, where known, e.g. `en`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// Which of the problem's samples this is, from 0.
    pub sample: usize,
    /// The verdict on the answer.
    pub verdict: Verdict,
    /// Whether a lenient reading (e.g. the last number of the response) is right.
    pub lenient_correct: bool,
    /// The answer as parsed and normalised, for the majority vote; equal answers must be equal strings.
    pub answer: Option<String>,
    /// Whether the response has the required format.
    pub format: bool,
    /// Whether it ended by itself rather than at the length limit.
    pub finished: bool,
    /// Length of the response in tokens.
    pub response_tokens: usize,
    /// Reflective words in the response.
    pub reflective_words: usize,
    /// Share of the chain of thought in the language of its problem, 0 to 1, where that can be told; of the whole response
    /// where there is no thought.
    pub language_consistency: Option<f64>,
    /// Whether languages are mixed in it.
    pub mixed_language: bool,
    /// The response itself, where it is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// How often one problem was solved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProblemScore {
    /// The task family.
    pub family: String,
    /// The problem.
    pub problem_id: String,
    /// Samples with a verdict.
    pub judged: usize,
    /// Those that are correct.
    pub correct: usize,
}

impl ProblemScore {
    /// Share of judged samples that are correct; `None` if none was judged.
    pub fn pass_at_1(&self) -> Option<f64> {
        (self.judged > 0).then(|| self.correct as f64 / self.judged as f64)
    }
}

/// The scores of all problems, sorted by family and name.
pub fn problem_scores<'a>(samples: impl IntoIterator<Item = &'a SampleRecord>) -> Vec<ProblemScore> {
    by_problem(samples)
        .into_iter()
        .map(|((family, problem_id), samples)| ProblemScore {
            family: family.to_owned(),
            problem_id: problem_id.to_owned(),
            judged: samples.iter().filter(|sample| sample.verdict != Verdict::NotJudged).count(),
            correct: samples.iter().filter(|sample| sample.verdict == Verdict::Correct).count(),
        })
        .collect()
}

/// Samples by (family, problem), each problem's in order of their numbers, so that no result depends on their order.
pub(crate) fn by_problem<'a>(
    samples: impl IntoIterator<Item = &'a SampleRecord>,
) -> BTreeMap<(&'a str, &'a str), Vec<&'a SampleRecord>> {
    let mut problems: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for sample in samples {
        problems.entry((sample.family.as_str(), sample.problem_id.as_str())).or_default().push(sample);
    }
    for samples in problems.values_mut() {
        samples.sort_by_key(|sample| sample.sample);
    }
    problems
}

#[cfg(test)]
pub(crate) fn sample(problem: &str, sample: usize, verdict: Verdict, answer: Option<&str>) -> SampleRecord {
    SampleRecord {
        problem_id: problem.to_owned(),
        family: "chain".to_owned(),
        language: None,
        sample,
        verdict,
        lenient_correct: verdict == Verdict::Correct,
        answer: answer.map(str::to_owned),
        format: true,
        finished: true,
        response_tokens: 10,
        reflective_words: 0,
        language_consistency: None,
        mixed_language: false,
        text: None,
    }
}
