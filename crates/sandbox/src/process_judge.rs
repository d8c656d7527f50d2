//! Function calls and assertions: the program in one sandbox, the tests in another, a socket between them. The second never
//! runs a line of the program, so neither the program's frames nor its files hold an expected value.

use crate::judge::verdict_of;
use crate::limits::Limits;
use crate::python::Script;
use crate::run::Report;
use crate::sandbox::Sandbox;
use crate::submission::Tests;
use crate::verdict::{Difference, Judged, TestOutcome, Verdict, clipped};
use serde::Deserialize;
use serde_json::json;
use std::os::unix::net::UnixStream;

/// How a test went, in the words of `judge.py`.
#[derive(Deserialize)]
struct One {
    v: What,
    reason: Option<String>,
    expected: Option<String>,
    got: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum What {
    Ok,
    Wrong,
    Error,
    Compile,
    Memory,
    /// The program's process ended in the middle.
    Gone,
    /// The test cannot be put to a program in another process.
    Unsupported,
}

pub(crate) fn judge(sandbox: &Sandbox, code: &str, tests: &Tests, limits: Limits) -> Judged {
    match try_judge(sandbox, code, tests, limits) {
        Ok(judged) => judged,
        Err(words) => Judged::all(Verdict::SandboxError, words, tests.len()),
    }
}

fn try_judge(sandbox: &Sandbox, code: &str, tests: &Tests, limits: Limits) -> Result<Judged, String> {
    let plan = plan(tests, sandbox.config.stop_early)?;
    let (ours, theirs) = UnixStream::pair().map_err(|e| format!("cannot make a socket: {e}"))?;
    let python = &sandbox.python;
    let mut program = python.start(sandbox, Script::Serve, code.as_bytes(), limits.clone(), Some(theirs.into()))?;
    program.begin(b"")?;
    // The tests wait for the program, so they get its time and some of their own, and room for its answers.
    let own = Limits {
        cpu_ms: limits.cpu_ms + 5_000,
        wall_ms: limits.wall_ms + limits.wall_ms / 4 + 5_000,
        memory: limits.memory.max(1 << 30),
        ..limits
    };
    let mut judge = python.start(sandbox, Script::Judge, plan.as_bytes(), own, Some(ours.into()))?;
    let verdicts = judge.run(b"")?;
    let list: Vec<One> = match verdict_of(&verdicts) {
        (Verdict::Accepted, _) => serde_json::from_slice(&verdicts.stdout)
            .map_err(|e| format!("the process of the tests said nothing that can be read: {e}"))?,
        // What a program sends can make the comparison take too long or too much memory, a crash it cannot make.
        (verdict @ (Verdict::TimeLimit | Verdict::MemoryLimit | Verdict::OutputLimit), reason) => {
            let reason = reason.unwrap_or_else(|| "while comparing".into());
            return Ok(Judged::all(verdict, reason, tests.len()));
        }
        (_, reason) => return Err(format!("the process of the tests failed: {}", reason.unwrap_or_default())),
    };
    let ended = if list.iter().any(|o| o.v == What::Gone) { Some(program.finish()?) } else { None };
    drop((judge, program));
    let mut difference = None;
    let mut outcomes: Vec<TestOutcome> = Vec::with_capacity(tests.len());
    for (i, one) in list.into_iter().take(tests.len()).enumerate() {
        if one.v == What::Wrong {
            let text = |t: Option<String>| clipped(&t.unwrap_or_default(), 200);
            let found = Difference { test: i, line: None, expected: text(one.expected), got: text(one.got) };
            let reason = Some(format!("expected {}, got {}", found.expected, found.got));
            difference.get_or_insert(found);
            outcomes.push(TestOutcome::new(Verdict::WrongAnswer, reason));
            continue;
        }
        outcomes.push(outcome(&one, ended.as_ref()));
    }
    // After the program has gone, what was left unasked has the same verdict.
    let rest = outcomes.last().filter(|_| ended.is_some() && !sandbox.config.stop_early).cloned();
    outcomes.resize(tests.len(), rest.unwrap_or_else(TestOutcome::skipped));
    Ok(Judged::from_tests(outcomes, difference))
}

fn outcome(one: &One, ended: Option<&Report>) -> TestOutcome {
    let reason = one.reason.as_deref().map(|r| clipped(r, 500));
    match one.v {
        What::Ok => TestOutcome::new(Verdict::Accepted, None),
        What::Wrong => TestOutcome::new(Verdict::WrongAnswer, reason),
        What::Error => TestOutcome::new(Verdict::RuntimeError, reason),
        What::Compile => TestOutcome::new(Verdict::CompileError, reason),
        What::Memory => TestOutcome::new(Verdict::MemoryLimit, reason),
        What::Unsupported => TestOutcome::new(Verdict::SandboxError, reason),
        What::Gone => {
            let (verdict, reason) = ended.map_or((Verdict::SandboxError, None), verdict_of);
            match verdict {
                // A program that leaves, or closes its end, with exit code 0 has not answered.
                Verdict::Accepted => {
                    TestOutcome::new(Verdict::RuntimeError, Some("it ended before it answered".into()))
                }
                verdict => TestOutcome::new(verdict, reason),
            }
        }
    }
}

/// The plan as `judge.py` reads it. Arguments and expected values keep their text, so that large numbers stay exact.
fn plan(tests: &Tests, stop_early: bool) -> Result<String, String> {
    match tests {
        Tests::Calls { entry_point, tests, atol } => {
            let list: Vec<&str> = tests.iter().map(|t| t.get()).collect();
            let head = json!({"kind": "calls", "entry_point": entry_point, "atol": atol, "stop_early": stop_early});
            let head = head.to_string();
            let head = head.strip_suffix('}').unwrap_or(&head);
            Ok(format!("{head},\"tests\":[{}]}}", list.join(",")))
        }
        Tests::Asserts { setup, tests, entry_point } => Ok(json!({
            "kind": "asserts", "setup": setup, "tests": tests, "entry_point": entry_point, "stop_early": stop_early,
        })
        .to_string()),
        Tests::Io(_) => Err("not a form with calls".into()),
    }
}
