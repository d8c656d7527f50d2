//! What is said of a program. "Could not be judged" is a verdict of its own: it is never right and never wrong.

use serde::{Deserialize, Serialize};

/// The verdict on one test or on a whole submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The program did what the test asks for.
    Accepted,
    /// It ended properly with another answer.
    WrongAnswer,
    /// It ended with an exit code other than 0, by a signal, or by an exception.
    RuntimeError,
    /// It used more processor time or more wall-clock time than it may.
    TimeLimit,
    /// It asked for more memory than it may.
    MemoryLimit,
    /// It wrote more than it may.
    OutputLimit,
    /// It does not compile.
    CompileError,
    /// It could not be judged: no compiler, a broken test, or the sandbox itself failed.
    SandboxError,
}

impl Verdict {
    /// Name as in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::WrongAnswer => "wrong_answer",
            Self::RuntimeError => "runtime_error",
            Self::TimeLimit => "time_limit",
            Self::MemoryLimit => "memory_limit",
            Self::OutputLimit => "output_limit",
            Self::CompileError => "compile_error",
            Self::SandboxError => "sandbox_error",
        }
    }
}

/// Where an answer first differs from what was expected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The test, from 0.
    pub test: usize,
    /// The line of the output, from 1; none for function calls and assertions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// What was expected there, cut to 200 characters.
    pub expected: String,
    /// What the program gave, cut to 200 characters.
    pub got: String,
}

/// The verdict on one test.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TestOutcome {
    /// The verdict; none when the test was not run because an earlier one had failed.
    pub verdict: Option<Verdict>,
    /// Why, in words: the exception, the signal, what could not be judged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Processor time in milliseconds, all processes of the test; none where tests share a process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_ms: Option<u64>,
}

impl TestOutcome {
    /// An outcome without a measured time.
    pub fn new(verdict: Verdict, reason: Option<String>) -> Self {
        Self { verdict: Some(verdict), reason, cpu_ms: None }
    }

    /// A test that was not run.
    pub fn skipped() -> Self {
        Self { verdict: None, reason: None, cpu_ms: None }
    }
}

/// The verdict on a submission.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// The verdict over all tests: the first that is not accepted, where one that could not be judged yields to one that
    /// failed.
    pub verdict: Verdict,
    /// Why, in words, when it is not accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The first case that differs, for a wrong answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_difference: Option<Difference>,
    /// One outcome per test, in order.
    pub tests: Vec<TestOutcome>,
}

impl Judged {
    /// The same verdict for every one of `tests` tests.
    pub fn all(verdict: Verdict, reason: impl Into<String>, tests: usize) -> Self {
        let reason = Some(reason.into());
        let one = TestOutcome::new(verdict, None);
        Self { verdict, reason, first_difference: None, tests: vec![one; tests] }
    }

    /// From the outcomes of the tests.
    pub fn from_tests(tests: Vec<TestOutcome>, first_difference: Option<Difference>) -> Self {
        let failed = |t: &&TestOutcome| !matches!(t.verdict, None | Some(Verdict::Accepted | Verdict::SandboxError));
        let unclear = |t: &&TestOutcome| t.verdict == Some(Verdict::SandboxError);
        let decisive = tests.iter().find(failed).or_else(|| tests.iter().find(unclear));
        let (verdict, reason) = match decisive {
            Some(t) => (t.verdict.unwrap_or(Verdict::SandboxError), t.reason.clone()),
            None if tests.iter().any(|t| t.verdict.is_some()) => (Verdict::Accepted, None),
            None => (Verdict::SandboxError, Some("there is no test".to_owned())),
        };
        let first_difference = first_difference.filter(|_| verdict == Verdict::WrongAnswer);
        Self { verdict, reason, first_difference, tests }
    }
}

/// At most `max` characters of a text, on one line.
pub(crate) fn clipped(text: &str, max: usize) -> String {
    let mut out: String = text.chars().take(max).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(max).is_some() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overall(verdicts: &[Option<Verdict>]) -> Verdict {
        let one = |v: &Option<Verdict>| TestOutcome { verdict: *v, reason: None, cpu_ms: None };
        Judged::from_tests(verdicts.iter().map(one).collect(), None).verdict
    }

    #[test]
    fn what_could_not_be_judged_is_neither_right_nor_wrong() {
        use Verdict::{Accepted, SandboxError, TimeLimit, WrongAnswer};
        assert_eq!(overall(&[Some(Accepted), Some(Accepted)]), Accepted);
        assert_eq!(overall(&[Some(Accepted), Some(SandboxError)]), SandboxError);
        assert_eq!(overall(&[Some(SandboxError), Some(WrongAnswer)]), WrongAnswer);
        assert_eq!(overall(&[Some(TimeLimit), None]), TimeLimit);
        assert_eq!(overall(&[]), SandboxError);
    }

    #[test]
    fn clips() {
        assert_eq!(clipped("a\nb", 5), "a b");
        assert_eq!(clipped("äöüß", 2), "äö…");
    }
}
