//! No way to end leaves a process or an open descriptor behind: a short round in every test run, ten thousand runs when
//! asked for. This test is a binary of its own, so that nobody else has helpers below it.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use aha_sandbox::{Config, HELPER_ARGUMENT, Helper, Language, Limits, Sandbox, Submission, Verdict};
use serde_json::json;

/// Ways to end: by itself, by a signal, by each limit, with children that hide.
const WAYS: [&str; 10] = [
    "print(1)",
    "exit(3)",
    "import os\nos.abort()",
    "while True: pass",
    "import time\ntime.sleep(100)",
    "while True: print('x' * 10000)",
    "x = []\nwhile True: x.append(bytearray(1 << 20))",
    "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0: time.sleep(1000)\n    os._exit(0)",
    "import os, time\nfor _ in range(5):\n    if os.fork() == 0: time.sleep(1000)",
    "import os\nos.close(1)\nos.kill(os.getppid(), 9)\nos.kill(-1, 9)",
];

/// A way to end as a program, and inside a function that tests call.
fn submission(i: usize) -> Submission {
    let way = WAYS[i % WAYS.len()];
    let inside: String = way.lines().map(|l| format!("    {l}\n")).collect();
    let function = format!("def f(x):\n{inside}    return x");
    let line = match i / WAYS.len() % 4 {
        0 | 1 => json!({"code": way, "tests": [{"input": "", "output": "1"}]}),
        2 => json!({"code": function, "entry_point": "f", "tests": [{"args": [1], "expected": 1}]}),
        _ => json!({"code": function, "test_list": ["assert f(1) == 1"]}),
    };
    Submission::from_json(&line.to_string()).unwrap()
}

/// Helpers, waiting interpreters and programs below this process, with what they were started as.
fn below() -> Vec<(i32, String)> {
    let mut parents = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else { continue };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        let parent = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().nth(1).unwrap().parse::<i32>().unwrap();
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        parents.push((pid, parent, String::from_utf8_lossy(&line).replace('\0', " ")));
    }
    let mut found = vec![std::process::id() as i32];
    loop {
        let more: Vec<i32> =
            parents.iter().filter(|p| found.contains(&p.1) && !found.contains(&p.0)).map(|p| p.0).collect();
        if more.is_empty() {
            break;
        }
        found.extend(more);
    }
    // Orphans would be below process 1; other tests that run at the same time have helpers of their own.
    let ours = |line: &str| line.contains(HELPER_ARGUMENT) || line.contains("/box/") || line.contains("@box");
    let counted = parents.into_iter().filter(|p| p.0 != found[0] && (found.contains(&p.0) || p.1 == 1 && ours(&p.2)));
    counted.map(|p| (p.0, p.2)).collect()
}

/// Open descriptors of a process.
fn descriptors(pid: i32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

fn rounds(runs: usize) {
    let limits = Limits { cpu_ms: 200, wall_ms: 400, output: 1 << 16, memory: 128 << 20, ..Limits::default() };
    let own = std::process::id() as i32;
    let before = descriptors(own);
    for fork_python in [true, false] {
        let helper = Helper::at(env!("CARGO_BIN_EXE_aha-sandbox-helper"));
        let sandbox = match Sandbox::new(Config { limits: limits.clone(), fork_python, ..Config::new(helper) }) {
            Ok(sandbox) if sandbox.tool_version(Language::Python).is_ok() => sandbox,
            Ok(_) => return println!("skipped: no Python"),
            Err(e) => return println!("skipped: {e}"),
        };
        // Interpreters of their own take longer; a tenth of the runs is enough for them.
        let runs = if fork_python { runs } else { runs.div_ceil(10) };
        let list: Vec<Submission> = (0..runs).map(submission).collect();
        let first = sandbox.judge_all(&list[..runs.min(4 * WAYS.len())], 4, |_, _| {});
        let waiting: Vec<(i32, usize)> = below().into_iter().map(|(pid, _)| (pid, descriptors(pid))).collect();
        let verdicts = sandbox.judge_all(&list, 4, |_, _| {});
        let unclear: Vec<_> =
            first.iter().chain(&verdicts).filter(|v| v.verdict == Verdict::SandboxError).take(3).collect();
        assert!(unclear.is_empty(), "{unclear:?}");
        // Helpers that waited then wait now, with as many open descriptors.
        for (pid, count) in waiting {
            let now = descriptors(pid);
            assert!(now == count || now == 0, "process {pid} had {count} descriptors and has {now}");
        }
        let kept = below().len();
        drop(sandbox);
        let left = below();
        let after = descriptors(own);
        println!(
            "{} runs, forks {fork_python}: {kept} processes waited, {} left; descriptors {before} before, {after} after",
            first.len() + verdicts.len(),
            left.len()
        );
        assert!(left.is_empty(), "{left:?}");
        assert_eq!(before, after, "open descriptors");
        assert!(kept <= if fork_python { 16 } else { 0 }, "{kept} processes waited");
    }
}

#[test]
fn some_hundred_runs_leave_nothing() {
    rounds(240);
}

#[test]
#[ignore = "ten thousand runs, by hand and alone: cargo test --release -p aha-sandbox --test leaks -- --ignored"]
fn ten_thousand_runs_leave_nothing() {
    rounds(10_000);
}
