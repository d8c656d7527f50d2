//! Standard input and output: one process per test, and the comparison, which happens in the host alone.

use crate::compile::compile;
use crate::limits::Limits;
use crate::process_judge;
use crate::python::{Lease, Script};
use crate::run::{File, Report, Spec, environment};
use crate::sandbox::Sandbox;
use crate::submission::{IoTest, Language, Submission, Tests};
use crate::toolchain::system_paths;
use crate::verdict::{Difference, Judged, TestOutcome, Verdict, clipped};
use crate::wire::End;

/// Judges a submission in whatever form its tests are.
pub(crate) fn judge(sandbox: &Sandbox, submission: &Submission) -> Judged {
    let limits = limits_of(sandbox, submission);
    match &submission.tests {
        Tests::Io(tests) => judge_io(sandbox, submission, tests, limits),
        tests => process_judge::judge(sandbox, &submission.code, tests, limits),
    }
}

fn limits_of(sandbox: &Sandbox, submission: &Submission) -> Limits {
    let mut limits = sandbox.config.limits.clone();
    if let Some(cpu_ms) = submission.cpu_ms {
        limits = limits.with_cpu_ms(cpu_ms);
    }
    limits.memory = submission.memory.unwrap_or(limits.memory);
    limits
}

fn judge_io(sandbox: &Sandbox, submission: &Submission, tests: &[IoTest], limits: Limits) -> Judged {
    let mut process = match start(sandbox, submission, limits) {
        Ok(process) => process,
        Err((verdict, words)) => return Judged::all(verdict, words, tests.len()),
    };
    let mut outcomes: Vec<TestOutcome> = Vec::with_capacity(tests.len());
    let mut difference = None;
    for (i, test) in tests.iter().enumerate() {
        let failed = outcomes.last().is_some_and(|o| o.verdict != Some(Verdict::Accepted));
        if sandbox.config.stop_early && failed {
            outcomes.push(TestOutcome::skipped());
            continue;
        }
        let report = match process.run(test.input.as_bytes()) {
            Ok(report) => report,
            Err(words) => {
                outcomes.push(TestOutcome::new(Verdict::SandboxError, Some(words.clone())));
                match start(sandbox, submission, limits_of(sandbox, submission)) {
                    Ok(fresh) => process = fresh,
                    Err(_) => {
                        let rest = TestOutcome::new(Verdict::SandboxError, Some(words));
                        outcomes.resize(tests.len(), rest);
                        break;
                    }
                }
                continue;
            }
        };
        let (mut verdict, mut reason) = verdict_of(&report);
        if verdict == Verdict::Accepted
            && let Some(mut found) = compare(&report.stdout, &test.output)
        {
            found.test = i;
            verdict = Verdict::WrongAnswer;
            let line = found.line.unwrap_or_default();
            reason = Some(format!("line {line}: expected {:?}, got {:?}", found.expected, found.got));
            difference.get_or_insert(found);
        }
        outcomes.push(TestOutcome { verdict: Some(verdict), reason, cpu_ms: Some(report.cpu_ms) });
    }
    Judged::from_tests(outcomes, difference)
}

/// Starts the program of a submission, compiled where need be.
fn start<'a>(sandbox: &'a Sandbox, submission: &Submission, limits: Limits) -> Result<Lease<'a>, (Verdict, String)> {
    let unclear = |words: String| (Verdict::SandboxError, words);
    if submission.language == Language::Python {
        return sandbox.python.start(sandbox, Script::Run, submission.code.as_bytes(), limits, None).map_err(unclear);
    }
    let program = compile(sandbox, submission.language, &submission.code)?;
    let spec = Spec {
        argv: vec!["@box/program".into()],
        env: environment(&[]),
        readable: system_paths(),
        files: vec![File { name: "program", bytes: &program, executable: true }],
        limits,
        fetch: None,
        channel: None,
        template: false,
    };
    sandbox.start(spec).map(Lease::own).map_err(unclear)
}

/// What the end of a run means before its output is looked at.
pub(crate) fn verdict_of(report: &Report) -> (Verdict, Option<String>) {
    let last_line = || {
        let text = String::from_utf8_lossy(&report.stderr);
        let line = text.lines().rev().find(|l| !l.trim().is_empty()).map(|l| clipped(l.trim(), 300));
        line.map_or(String::new(), |l| format!(": {l}"))
    };
    match &report.end {
        End::Exited(0) => (Verdict::Accepted, None),
        End::Exited(code) => (Verdict::RuntimeError, Some(format!("exit code {code}{}", last_line()))),
        End::Signaled(signal) => (Verdict::RuntimeError, Some(format!("signal {signal}{}", last_line()))),
        End::TimeLimit => (Verdict::TimeLimit, None),
        End::MemoryLimit => (Verdict::MemoryLimit, None),
        End::OutputLimit => (Verdict::OutputLimit, None),
        End::Cancelled => (Verdict::SandboxError, Some("it was ended before it was judged".into())),
        End::Failed(words) => (Verdict::SandboxError, Some(words.clone())),
    }
}

/// The first line that differs; trailing white space of lines and trailing empty lines do not count.
fn compare(got: &[u8], expected: &str) -> Option<Difference> {
    let got = String::from_utf8_lossy(got);
    let mut ours = got.trim_end().lines().map(str::trim_end);
    let mut theirs = expected.trim_end().lines().map(str::trim_end);
    let mut line = 0;
    loop {
        line += 1;
        match (ours.next(), theirs.next()) {
            (None, None) => return None,
            (Some(a), Some(b)) if a == b => {}
            (a, b) => {
                let words = |text: Option<&str>| text.map_or_else(|| "(end of output)".into(), |t| clipped(t, 200));
                return Some(Difference { test: 0, line: Some(line), expected: words(b), got: words(a) });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparison() {
        assert_eq!(compare(b"1 2 \n3\n\n", "1 2\n3"), None);
        assert_eq!(compare(b"", "\n"), None);
        let first = compare(b"1\n2\n4\n", "1\n3\n4\n").unwrap();
        assert_eq!((first.line, first.expected.as_str(), first.got.as_str()), (Some(2), "3", "2"));
        assert_eq!(compare(b"1\n", "1\n2\n").unwrap().got, "(end of output)");
        assert!(compare(b"1 2", "1  2").is_some());
    }
}
