//! Runs that are killed, stopped or run out of disk end with the same bits as one that was left alone.

use crate::runs::{assert_same, folder, results};
use crate::support::{aha_in, command, fixture, start, text};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// What an uninterrupted run leaves; made once.
fn uninterrupted() -> &'static BTreeMap<PathBuf, Vec<u8>> {
    static RESULTS: OnceLock<BTreeMap<PathBuf, Vec<u8>>> = OnceLock::new();
    RESULTS.get_or_init(|| {
        let dir = folder();
        let said = aha_in(dir.path(), &["run", "tiny.toml", "--out", "run", "--threads", "2"]);
        assert_eq!(said.code, 0, "{}", said.stderr);
        results(&dir.path().join("run"))
    })
}

/// Whether the moment to kill has come.
type Moment = Box<dyn Fn() -> bool>;

const LIMIT: Duration = Duration::from_secs(60);

fn count_lines(path: PathBuf) -> usize {
    std::fs::read(path).map_or(0, |b| b.iter().filter(|b| **b == b'\n').count())
}

/// Starts the run and kills it as soon as `when` holds; true if it was still running then.
fn kill_when(dir: &Path, threads: &str, when: impl Fn() -> bool) -> bool {
    let mut child = start(dir, &["run", "tiny.toml", "--out", "run", "--threads", threads]);
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "the run ended by itself with {status}");
            return false;
        }
        if when() {
            child.kill().unwrap();
            let status = child.wait().unwrap();
            return !status.success();
        }
        assert!(begin.elapsed() < LIMIT, "the run hangs");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn killed_at_any_moment_it_ends_with_the_same_bits() {
    let dir = folder();
    let run = dir.path().join("run");
    let after = |file: &'static str, lines: usize| {
        let path = run.join(file);
        Box::new(move || count_lines(path.clone()) >= lines) as Moment
    };
    let there = |file: &'static str| {
        let path = run.join(file);
        Box::new(move || path.exists()) as Moment
    };
    let moments: [(&str, Moment); 11] = [
        ("making the corpus", there("corpus")),
        ("base before the first checkpoint", after("base/metrics.jsonl", 7)),
        ("base between checkpoints", after("base/metrics.jsonl", 130)),
        ("base while a checkpoint is written", there("base/checkpoints/step_200/config.json")),
        ("base between its last checkpoint and its model", there("base/checkpoints/step_300/trainer.json")),
        ("evaluating the base", there("eval-base")),
        ("zero at its first step", after("zero/metrics.jsonl", 1)),
        ("zero after an evaluation", there("zero/evals/zero-step_3.jsonl")),
        ("zero between checkpoints", after("zero/metrics.jsonl", 5)),
        ("zero between its last checkpoint and its model", there("zero/checkpoints/step_8/trainer.json")),
        ("evaluating zero", there("eval-zero")),
    ];
    let mut killed = 0;
    for (i, (what, moment)) in moments.iter().enumerate() {
        let hit = kill_when(dir.path(), ["1", "2"][i % 2], moment);
        println!("{what}: {}", if hit { "killed" } else { "it was done before" });
        killed += usize::from(hit);
    }
    assert!(killed >= 8, "only {killed} of {} kills hit a running program", moments.len());
    let said = aha_in(dir.path(), &["run", "tiny.toml", "--out", "run", "--threads", "1"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert_same(&results(&run), uninterrupted(), "after kills");
}

#[test]
fn killed_again_and_again_it_gets_there() {
    let dir = folder();
    let run = dir.path().join("run");
    let mut killed = 0;
    for i in 0..12 {
        // Whatever it is doing then, loading and saving included.
        let (begin, wait) = (Instant::now(), Duration::from_millis(150 + 60 * i));
        if !kill_when(dir.path(), "2", || begin.elapsed() > wait) {
            break;
        }
        killed += 1;
    }
    assert!(killed >= 2, "killed only {killed} times");
    let said = aha_in(dir.path(), &["run", "tiny.toml", "--out", "run"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert_same(&results(&run), uninterrupted(), &format!("after {killed} kills"));
}

fn interrupt(pid: u32) {
    assert!(Command::new("kill").args(["-INT", &pid.to_string()]).status().unwrap().success());
}

#[test]
fn ctrl_c_saves_and_says_how_to_go_on() {
    let dir = folder();
    let run = dir.path().join("run");
    for (file, lines) in [("base/metrics.jsonl", 77), ("zero/metrics.jsonl", 3)] {
        let mut child = command(&["run", "tiny.toml", "--out", "run", "--json"]);
        let child = child.current_dir(dir.path()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let begin = Instant::now();
        while count_lines(run.join(file)) < lines {
            assert!(begin.elapsed() < LIMIT, "the run hangs");
            std::thread::sleep(Duration::from_millis(1));
        }
        interrupt(child.id());
        let out = child.wait_with_output().unwrap();
        let stderr = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains("saving; press again to stop at once"), "{stderr}");
        assert!(stderr.contains("interrupted"), "{stderr}");
        let object: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
        assert_eq!(object["interrupted"], true);
        // Everything up to the stop is saved: the next sitting begins after the last step that was recorded.
        let stage = file.split('/').next().unwrap();
        let plan = aha_in(dir.path(), &["run", "tiny.toml", "--out", "run", "--dry-run", "--json"]).json();
        let planned = plan["stages"].as_array().unwrap().iter().find(|s| s["name"] == stage).unwrap();
        let why = format!("interrupted; resumes after step {}", count_lines(run.join(file)));
        assert_eq!(planned["why"], why.as_str());
        if stage == "zero" {
            let line = stderr.lines().last().unwrap();
            assert!(line.contains("run tiny.toml --out run --json"), "{line}");
            let resumed = Command::new("sh").args(["-c", line.trim()]).current_dir(dir.path()).output().unwrap();
            assert!(resumed.status.success(), "{}", String::from_utf8_lossy(&resumed.stderr));
            assert!(String::from_utf8_lossy(&resumed.stderr).contains("resumed after step"));
        }
    }
    assert_same(&results(&run), uninterrupted(), "after Ctrl-C");
}

#[test]
fn ctrl_c_ends_a_generation_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let prompts = dir.path().join("p.jsonl");
    std::fs::write(&prompts, "{\"tokens\": [5]}\n").unwrap();
    let model = fixture("llama_untied");
    let args = ["generate", text(&model), "--prompts", "p.jsonl", "--output", "out.jsonl", "--samples", "1000000"];
    let mut child = command(&args);
    let child = child.current_dir(dir.path()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(700));
    interrupt(child.id());
    let out = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("press again") && stderr.contains("interrupted; nothing was written"), "{stderr}");
    assert!(!dir.path().join("out.jsonl").exists());
}

#[test]
fn two_programs_cannot_write_one_run() {
    let dir = folder();
    let mut first = start(dir.path(), &["run", "tiny.toml", "--out", "run"]);
    let begin = Instant::now();
    while count_lines(dir.path().join("run/base/metrics.jsonl")) == 0 {
        assert!(begin.elapsed() < LIMIT, "the run hangs");
        std::thread::sleep(Duration::from_millis(1));
    }
    aha_in(dir.path(), &["run", "tiny.toml", "--out", "run"]).fails(1, &["another process", "--out"]);
    first.kill().unwrap();
    first.wait().unwrap();
}

/// A small file system of its own, unmounted when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs", text(dir.path())])
            .stderr(Stdio::null())
            .status();
        mounted.is_ok_and(|s| s.success()).then(|| SmallDisk(dir))
    }

    fn grow(&self, size: &str) {
        let options = format!("remount,size={size}");
        assert!(Command::new("mount").args(["-o", &options, text(self.0.path())]).status().unwrap().success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l", text(self.0.path())]).status();
    }
}

#[test]
fn a_full_disk_is_said_plainly_and_the_run_goes_on_with_more_room() {
    let Some(disk) = SmallDisk::mount("256k") else {
        println!("skipped: this user may not mount a tmpfs");
        return;
    };
    let dir = folder();
    let out = disk.0.path().join("run");
    let run = || aha_in(dir.path(), &["run", "tiny.toml", "--out", text(&out)]);
    let mut failures = 0;
    for size in ["600k", "1400k", "2600k", "64m"] {
        let said = run();
        if said.code != 0 {
            failures += 1;
            said.fails(1, &[]);
            let message = said.stderr.to_lowercase();
            assert!(message.contains("no space left") || message.contains("disk is full"), "{}", said.stderr);
            assert!(message.contains("free some space"), "what to do: {}", said.stderr);
            assert!(message.contains(&text(&out).to_lowercase()), "which file: {}", said.stderr);
        }
        disk.grow(size);
    }
    assert!(failures >= 2, "the disk was never full");
    let said = run();
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert_same(&results(&out), uninterrupted(), "after a full disk");
}
