//! No way to end leaves a process behind: a short round in every test run, ten thousand runs when asked for.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use aha_sandbox::{Config, HELPER_ARGUMENT, Helper, IoTest, Language, Limits, Sandbox, Submission, Tests};

/// Ways to end: by itself, by a signal, by each limit, with children that hide.
const WAYS: [&str; 8] = [
    "print(1)",
    "exit(3)",
    "import os\nos.abort()",
    "while True: pass",
    "import time\ntime.sleep(100)",
    "while True: print('x' * 10000)",
    "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0: time.sleep(1000)\n    os._exit(0)",
    "import os, time\nfor _ in range(5):\n    if os.fork() == 0: time.sleep(1000)",
];

/// Helpers and programs under test on this machine: this test is a binary of its own, so that nobody else has any.
fn left_behind() -> Vec<String> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|e| std::fs::read(e.path().join("cmdline")).ok());
    let lines = lines.map(|l| String::from_utf8_lossy(&l).replace('\0', " "));
    lines.filter(|l| l.contains(HELPER_ARGUMENT) || l.contains("/run.py ")).collect()
}

fn rounds(runs: usize) {
    let limits = Limits { cpu_ms: 200, wall_ms: 400, output: 1 << 16, ..Limits::default() };
    let sandbox =
        match Sandbox::new(Config { limits, ..Config::new(Helper::at(env!("CARGO_BIN_EXE_aha-sandbox-helper"))) }) {
            Ok(sandbox) if sandbox.tool_version(Language::Python).is_ok() => sandbox,
            Ok(_) => return println!("skipped: no Python"),
            Err(e) => return println!("skipped: {e}"),
        };
    let submission = |i: usize| Submission {
        language: Language::Python,
        code: WAYS[i % WAYS.len()].into(),
        tests: Tests::Io(vec![IoTest { input: String::new(), output: "1".into() }]),
        cpu_ms: None,
        memory: None,
    };
    let list: Vec<Submission> = (0..runs).map(submission).collect();
    let verdicts = sandbox.judge_all(&list, 4, |_, _| {});
    let unclear = verdicts.iter().filter(|v| v.verdict == aha_sandbox::Verdict::SandboxError).count();
    let left = left_behind();
    println!("{runs} runs, {unclear} not judged, {} processes left", left.len());
    assert!(left.is_empty() && unclear == 0, "{left:?}");
}

#[test]
fn a_hundred_runs_leave_nothing() {
    rounds(104);
}

#[test]
#[ignore = "ten thousand runs, alone: --test leaks -- --ignored"]
fn ten_thousand_runs_leave_nothing() {
    rounds(10_000);
}
