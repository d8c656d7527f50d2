//! The published data sets: every reference solution passes, and what a mutation changes fails. Skipped where the data is
//! not there. One row in eight is judged, all of them when AHA_ALL_REFERENCES is set.

use super::{Language, Verdict, config};
use aha_sandbox::{Config, Limits, Sandbox, Submission};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// The shared data folder.
fn data(file: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let path = std::env::var_os("AHA_DATA").map_or(root, PathBuf::from).join(file);
    if !path.is_file() {
        println!("skipped: {} is not there", path.display());
        return None;
    }
    Some(path)
}

/// Rows of a JSON or JSONL file, unpacked by `gzip` when it ends in `.gz`.
fn rows(file: &str) -> Option<Vec<Value>> {
    let path = data(file)?;
    let text = if file.ends_with(".gz") {
        let out = Command::new("gzip").arg("-dc").arg(&path).output().ok()?;
        String::from_utf8(out.stdout).unwrap()
    } else {
        std::fs::read_to_string(&path).unwrap()
    };
    if file.ends_with(".json") {
        return serde_json::from_str(&text).unwrap();
    }
    Some(text.lines().map(|l| serde_json::from_str(l).unwrap()).collect())
}

/// A sandbox for data sets; `numpy` says whether the interpreter must have it.
fn sandbox(numpy: bool) -> Option<Sandbox> {
    let python = std::env::var_os("AHA_PYTHON").map(PathBuf::from);
    if numpy {
        let program = python.clone().unwrap_or_else(|| "python3".into());
        let has = Command::new(program).args(["-c", "import numpy"]).output().is_ok_and(|o| o.status.success());
        if !has {
            println!("skipped: these tests import numpy, and python3 (or AHA_PYTHON) has none");
            return None;
        }
    }
    let limits = Limits { memory: 4 << 30, ..Limits::default() }.with_cpu_ms(30_000);
    match Sandbox::new(Config { python, limits, stop_early: true, ..config() }) {
        Ok(sandbox) if sandbox.tool_version(Language::Python).is_ok() => Some(sandbox),
        Ok(_) => {
            println!("skipped: no Python");
            None
        }
        Err(e) => {
            println!("skipped: {e}");
            None
        }
    }
}

/// Judges and checks that every one has the verdict.
fn all(sandbox: &Sandbox, what: &str, rows: &[(String, Value)], accepted: bool) -> usize {
    let submissions: Vec<Submission> = rows
        .iter()
        .map(|(id, v)| Submission::from_json(&v.to_string()).unwrap_or_else(|e| panic!("{id}: {e}")))
        .collect();
    let begin = Instant::now();
    let good = AtomicUsize::new(0);
    let verdicts = sandbox.judge_all(&submissions, 2, |_, judged| {
        good.fetch_add(
            usize::from((judged.verdict == Verdict::Accepted) == accepted && judged.verdict != Verdict::SandboxError),
            Ordering::Relaxed,
        );
    });
    for ((id, _), judged) in rows.iter().zip(&verdicts) {
        if (judged.verdict == Verdict::Accepted) != accepted || judged.verdict == Verdict::SandboxError {
            println!("{what} {id}: {:?} {:?}", judged.verdict, judged.reason);
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    let good = good.into_inner();
    println!("{what}: {good} of {} as expected, {:.1} s, {:.1}/s", rows.len(), seconds, rows.len() as f64 / seconds);
    rows.len() - good
}

fn text<'a>(row: &'a Value, key: &str) -> &'a str {
    row[key].as_str().unwrap()
}

fn id(row: &Value) -> String {
    row["task_id"].to_string()
}

/// A wrong variant of any solution: its function answers with another value, and with another truth.
fn broken(code: &str, entry_point: &str) -> String {
    format!(
        "{code}\n_right = {entry_point}\ndef {entry_point}(*a, **k):\n    out = _right(*a, **k)\n    \
         if isinstance(out, bool): return not out\n    if isinstance(out, (int, float)): return 0 if out else 1\n    \
         if isinstance(out, str): return '' if out else 'x'\n    \
         if isinstance(out, list): return [] if out else [None]\n    return None if out else ('not', out)\n"
    )
}

/// The function of `code` that a test calls.
fn called(code: &str, test: &str) -> String {
    let mut names = code.lines().filter_map(|l| l.strip_prefix("def ")?.split('(').next()).map(str::trim);
    let found = names.rfind(|n| test.contains(&format!("{n}(")) || test.contains(&format!("{n} (")));
    found.unwrap_or_else(|| panic!("{code}\n{test}")).to_owned()
}

/// References pass; the same with `code` and the entry point that `broken` needs fail.
fn check(what: &str, file: &str, numpy: bool, parts: impl Fn(&Value) -> (String, String)) {
    let (Some(rows), Some(sandbox)) = (rows(file), sandbox(numpy)) else { return };
    let step = if std::env::var_os("AHA_ALL_REFERENCES").is_some() { 1 } else { 8 };
    let rows: Vec<Value> = rows.into_iter().step_by(step).collect();
    // The published script of HumanEval+ 32 unpacks a float with a star, so that no solution passes it anywhere.
    let rows: Vec<Value> = rows.into_iter().filter(|r| !(numpy && id(r) == "\"HumanEval/32\"")).collect();
    let references: Vec<_> = rows.iter().map(|r| (id(r), r.clone())).collect();
    // These scripts of MBPP+ compare and do not assert, so that any answer passes.
    let assert_nothing = |r: &&Value| numpy && ["737", "787", "794"].contains(&id(r).as_str());
    let mutated: Vec<_> = rows
        .iter()
        .filter(|r| !assert_nothing(r))
        .map(|r| {
            let ((code, entry_point), mut row) = (parts(r), r.clone());
            row["code"] = broken(&code, &entry_point).into();
            (id(r), row)
        })
        .collect();
    let right = all(&sandbox, what, &references, true);
    let wrong = all(&sandbox, &format!("{what} mutated"), &mutated, false);
    assert_eq!((right, wrong), (0, 0), "{what}: not as expected (references, mutated)");
}

fn human_eval_parts(r: &Value) -> (String, String) {
    (format!("{}{}", text(r, "prompt"), text(r, "canonical_solution")), text(r, "entry_point").to_owned())
}

fn mbpp_parts(r: &Value) -> (String, String) {
    (text(r, "code").to_owned(), called(text(r, "code"), r["test_list"][0].as_str().unwrap()))
}

#[test]
fn human_eval() {
    check("HumanEval", "code-humaneval/HumanEval.jsonl.gz", false, human_eval_parts);
}

#[test]
fn mbpp_sanitized() {
    check("MBPP sanitized", "code-mbpp/mbpp_sanitized.json", false, mbpp_parts);
}

#[test]
fn human_eval_plus() {
    check("HumanEval+", "code-evalplus/HumanEvalPlus-OriginFmt.jsonl.gz", true, human_eval_parts);
}

#[test]
fn mbpp_plus() {
    // The column test_list holds the original tests, the column test all of them.
    let Some(rows) = rows("code-evalplus/MbppPlus-OriginFmt.jsonl.gz") else { return };
    let file = tempfile::Builder::new().suffix(".jsonl").tempfile().unwrap();
    let lines: Vec<String> = rows
        .into_iter()
        .map(|mut r| {
            let list = r.as_object_mut().unwrap().remove("test_list").unwrap();
            r["tests_of_mbpp"] = list;
            r.to_string()
        })
        .collect();
    std::fs::write(file.path(), lines.join("\n")).unwrap();
    let parts =
        |r: &Value| (text(r, "code").to_owned(), called(text(r, "code"), r["tests_of_mbpp"][0].as_str().unwrap()));
    check("MBPP+", file.path().to_str().unwrap(), true, parts);
}
