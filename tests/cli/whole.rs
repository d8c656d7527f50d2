//! The whole of `mini-r1`, every stage of it made tiny: killed in every stage it leaves the same bits, and it does only what has to be
//! done.

use crate::runs::{assert_same, results};
use crate::support::{Said, aha_in, start};
use serde_json::Value;
use std::path::Path;
use std::time::{Duration, Instant};

/// Stages of reinforcement learning.
const RL: [&str; 7] = ["zero", "zero-language", "dev2", "dev2-free", "r1", "student-rl", "student-llama-rl"];
const PRETRAIN: [&str; 3] = ["base", "student-base", "student-llama-base"];
const TUNE: [&str; 5] = ["dev1", "dev3", "student-distilled", "student-kl", "student-llama-distilled"];

/// A base that has seen 20,000 tokens solves nothing, so what is kept are demonstrations; all samples go through the filters all the
/// same.
fn settings() -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let mut set = |stages: &[&str], pairs: &[&str]| {
        all.extend(stages.iter().flat_map(|stage| pairs.iter().map(move |pair| format!("{stage}.{pair}"))));
    };
    set(&["corpus"], &["documents_for_tokenizer=300", "vocab_size=400"]);
    set(&PRETRAIN, &["tokens=20480", "batch_tokens=1024", "validation_documents=8", "warmup_steps=2"]);
    set(&["base"], &["save_steps=8"]);
    set(&RL, &["steps=3", "num_prompts=2", "num_generations=4", "max_completion_length=24", "warmup_steps=0"]);
    set(&RL, &["save_steps=1", "ref_refresh_steps=2"]);
    set(&["r1"], &["later.from_step=1", "rewards.helpful.from_step=1", "rewards.safety.from_step=2"]);
    set(&["cold", "reject"], &["problems=70", "samples=2", "max_completion_length=24", "held_out=20"]);
    set(&["cold", "reject"], &["demonstrations=60"]);
    set(&TUNE, &["epochs=1", "batch_tokens=1024", "validation_rows=8", "warmup_steps=0"]);
    set(&["rm-helpful", "rm-safety"], &["generated=100", "validation_rows=20", "warmup_steps=0"]);
    let eval = ["problems=12", "samples=2", "max_completion_length=24"];
    set(&["measure-zero", "measure-few-shot", "measure"], &eval);
    all
}

fn args<'a>(out: &'a str, settings: &'a [String], more: &[&'a str]) -> Vec<&'a str> {
    let sets = settings.iter().flat_map(|setting| ["--set", setting.as_str()]);
    ["run", "mini-r1", "--out", out].into_iter().chain(sets).chain(more.iter().copied()).collect()
}

/// What a dry run says of each stage.
fn plan(said: &Said) -> Vec<(String, String)> {
    let stages = said.json()["stages"].as_array().unwrap().clone();
    let text = |v: &Value| v.as_str().unwrap().to_owned();
    stages.iter().map(|s| (text(&s["name"]), text(&s["action"]))).collect()
}

#[test]
fn killed_in_every_stage_it_leaves_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings();
    let said = aha_in(dir.path(), &args("whole", &settings, &["--json"])).json();
    let stages: Vec<String> = said["stages"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(stages.len(), 24, "{stages:?}");

    let mut torn = 0;
    for (i, stage) in stages.iter().enumerate() {
        let mut child = start(dir.path(), &args("killed", &settings, &[]));
        let begin = Instant::now();
        while !dir.path().join("killed").join(stage).exists() && child.try_wait().unwrap().is_none() {
            assert!(begin.elapsed() < Duration::from_secs(120), "{stage} does not begin");
            std::thread::sleep(Duration::from_millis(1));
        }
        // Somewhere within the stage: at its beginning, later, or between it and the next.
        std::thread::sleep(Duration::from_millis(i as u64 * 7 % 50));
        torn += u32::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(torn > 12, "only {torn} runs were killed before they ended");
    let resumed = aha_in(dir.path(), &args("killed", &settings, &["--json"])).json();
    assert_same(&results(&dir.path().join("killed")), &results(&dir.path().join("whole")), "killed in every stage");
    for stage in &stages {
        assert_eq!(resumed["stages"][stage]["metrics"], said["stages"][stage]["metrics"], "{stage}");
    }
    only_what_depends_on_it(dir.path(), &settings);
}

/// One changed setting runs exactly the stages that depend on it.
fn only_what_depends_on_it(dir: &Path, settings: &[String]) {
    let of = |more: &[&str]| {
        let again = plan(&aha_in(dir, &args("whole", settings, &[&["--dry-run", "--json"], more].concat())));
        again.into_iter().filter(|(_, action)| action != "keep").map(|(stage, _)| stage).collect::<Vec<_>>()
    };
    assert!(of(&[]).is_empty());
    assert_eq!(
        of(&["--set", "rm-safety.epochs=2"]),
        ["rm-safety", "r1", "student-kl", "measure-few-shot", "measure", "tables"]
    );
    assert_eq!(of(&["--set", "student-llama-rl.steps=2"]), ["student-llama-rl", "measure", "tables"]);
    assert_eq!(of(&["--set", "measure-zero.samples=3"]), ["measure-zero", "tables"]);
    let all = of(&["--set", "corpus.vocab_size=402"]);
    assert_eq!(all.len(), 24, "{all:?}");
}
