//! How many Python cases a second of processor time, all processes of a case together. Processor time does not depend on who
//! else works on the machine, so the bar is checked in every test run.

use super::{Language, Verdict, config};
use aha_sandbox::{Config, IoTest, Sandbox, Submission, Tests};
use std::time::Instant;

/// Seconds of processor time of this process and of all that it waited for.
fn processor_s() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = text.rsplit_once(')').unwrap().1.split_ascii_whitespace().collect();
    // utime, stime, cutime, cstime: fields 14 to 17 of proc(5), in ticks of 10 ms.
    fields[11..15].iter().map(|f| f.parse::<f64>().unwrap()).sum::<f64>() / 100.0
}

/// Cases per second of processor time, and of the clock.
fn measure(what: &str, config: Config, list: &[Submission], threads: usize) -> Option<f64> {
    let sandbox = Sandbox::new(config).ok()?;
    sandbox.tool_version(Language::Python).ok()?;
    let (begin, before) = (Instant::now(), processor_s());
    let verdicts = sandbox.judge_all(list, threads, |_, _| {});
    let seconds = begin.elapsed().as_secs_f64();
    // Helpers are waited for when the sandbox goes, and then their children's time is known.
    drop(sandbox);
    let processor = processor_s() - before;
    assert!(verdicts.iter().all(|v| v.verdict == Verdict::Accepted), "{what}: {:?}", verdicts[0]);
    let cases = list.iter().map(|s| s.tests.len()).sum::<usize>() as f64;
    let (each, rate) = (1000.0 * processor / cases, cases / processor);
    println!(
        "{what}, {threads} threads: {rate:.0} cases per processor second ({each:.1} ms), {:.0} per second",
        cases / seconds
    );
    Some(rate)
}

// The other tests of this binary also spend processor time; they would count, so this one is run alone.
#[test]
#[ignore = "a measurement by hand: cargo test --release -p aha-sandbox --test sandbox -- --ignored speed --nocapture"]
fn speed() {
    let one = |cases: usize| Submission {
        language: Language::Python,
        code: "print(int(input()) * 2)".into(),
        tests: Tests::Io((0..cases).map(|i| IoTest { input: i.to_string(), output: (2 * i).to_string() }).collect()),
        cpu_ms: None,
        memory: None,
    };
    let script = super::submission(serde_json::json!({
        "code": "def f(a): return a * 2", "test": "def check(c):\n    assert c(2) == 4\n    assert c(3) == 6\n", "entry_point": "f",
    }));
    let calls = super::submission(serde_json::json!({
        "code": "def f(a): return a * 2", "tests": [{"args": [2], "expected": 4}, {"args": [3], "expected": 6}], "entry_point": "f",
    }));
    for (threads, fork_python) in [(1, true), (2, true), (2, false)] {
        let config = || Config { fork_python, ..config() };
        let how = if fork_python { "" } else { ", an interpreter started for each" };
        let rates = [
            measure(&format!("one case per program{how}"), config(), &vec![one(1); 100], threads),
            measure(&format!("ten cases per program{how}"), config(), &vec![one(10); 20], threads),
            measure(&format!("assert scripts{how}"), config(), &vec![script.clone(); 100], threads),
            measure(&format!("pairs of calls{how}"), config(), &vec![calls.clone(); 100], threads),
        ];
        if fork_python && rates.iter().flatten().any(|rate| *rate < 20.0) {
            panic!("fewer than 20 cases per second of processor time");
        }
    }
}
