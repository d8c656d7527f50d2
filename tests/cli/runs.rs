//! A whole run in miniature: every file of the design, keeping what is finished, plans, the one-stage commands.

use crate::support::{add_tokenizer, aha, aha_in, copy_of, lines, text};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Everything at its smallest. Untrained as the base is, only the overlong penalty tells completions apart, and that is
/// enough for gradients.
const RECIPE: &str = r#"
name = "tiny"
description = "for tests"
seed = 3

[[stage]]
name = "corpus"
kind = "corpus"
documents_for_tokenizer = 200
vocab_size = 380

[[stage]]
name = "base"
kind = "pretrain"
corpus = "corpus"
steps = 300
batch_tokens = 512
context = 128
learning_rate = 1e-2
validation_documents = 8
validate_every = 100
save_steps = 50

[stage.model]
hidden_size = 32
intermediate_size = 64
num_hidden_layers = 2
num_attention_heads = 2
max_position_embeddings = 256

[[stage]]
name = "eval-base"
kind = "eval"
model = "base"
task = "mini"
prompt_style = "mini"
problems = 12
samples = 2
max_completion_length = 48

[[stage]]
name = "zero"
kind = "grpo"
model = "base"
task = "mini"
prompt_style = "mini"
steps = 8
num_prompts = 4
num_generations = 4
steps_per_generation = 1
max_completion_length = 64
overlong_penalty = { cache_length = 64 }
learning_rate = 1e-3
beta = 0.01
ref_refresh_steps = 3
save_steps = 2
eval_steps = 3
eval_problems = 4
eval_samples = 2
log_rollouts = 8

[[stage]]
name = "eval-zero"
kind = "eval"
model = "zero"
task = "mini"
prompt_style = "mini"
problems = 12
samples = 2
max_completion_length = 48
"#;

pub const STAGES: [&str; 5] = ["corpus", "base", "eval-base", "zero", "eval-zero"];

/// A folder with the recipe in it.
pub fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tiny.toml"), RECIPE).unwrap();
    dir
}

/// Everything a run leaves that must not depend on how often it was interrupted, by path.
pub fn results(run: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![run.to_path_buf()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            // Times of the clock, and files that are appended to with them.
            if [
                "run.db",
                "run.db-wal",
                "run.db-shm",
                "summary.json",
                "report.html",
                ".lock",
                "timing.jsonl",
                "tensorboard",
            ]
            .contains(&name.as_str())
            {
                continue;
            }
            if path.is_dir() {
                if !is_old_checkpoint(&path) {
                    open.push(path);
                }
            } else {
                found.insert(path.strip_prefix(run).unwrap().to_path_buf(), std::fs::read(&path).unwrap());
            }
        }
    }
    let summary: Value = serde_json::from_slice(&std::fs::read(run.join("summary.json")).unwrap()).unwrap();
    found.insert("summary.json: evals".into(), summary["evals"].to_string().into_bytes());
    let metrics: Vec<String> = STAGES.iter().map(|s| summary["stages"][s]["metrics"].to_string()).collect();
    found.insert("summary.json: metrics".into(), metrics.join("\n").into_bytes());
    found
}

/// A checkpoint with a newer one beside it: a kill just before it would have been deleted leaves one more.
fn is_old_checkpoint(path: &Path) -> bool {
    let step = |p: &Path| p.file_name()?.to_str()?.strip_prefix("step_")?.parse::<u64>().ok();
    let beside = || std::fs::read_dir(path.parent().unwrap()).unwrap().filter_map(|e| step(&e.unwrap().path()));
    step(path).is_some_and(|own| beside().any(|other| other > own))
}

/// Says which files differ instead of printing all their bytes.
pub fn assert_same(found: &BTreeMap<PathBuf, Vec<u8>>, wanted: &BTreeMap<PathBuf, Vec<u8>>, what: &str) {
    let differs = |path: &&PathBuf| found.get(*path) != wanted.get(*path);
    let mut paths: Vec<&PathBuf> = found.keys().chain(wanted.keys()).filter(differs).collect();
    paths.dedup();
    let sizes: Vec<String> = paths
        .iter()
        .map(|p| {
            format!(
                "{}: {:?} bytes, uninterrupted {:?}",
                p.display(),
                found.get(*p).map(Vec::len),
                wanted.get(*p).map(Vec::len)
            )
        })
        .collect();
    assert!(paths.is_empty(), "{what}: these differ from the uninterrupted run:\n{}", sizes.join("\n"));
}

#[test]
fn a_run_leaves_everything_and_is_not_run_again() {
    let dir = folder();
    let first = aha_in(dir.path(), &["run", "tiny.toml", "--json"]);
    let json = first.json();
    let run = dir.path().join("runs/tiny");
    assert_eq!((&json["recipe"], &json["seed"], &json["interrupted"]), (&json!("tiny"), &json!(3), &json!(false)));
    assert_eq!(json["out"], "runs/tiny");
    assert_eq!(json["report"], "runs/tiny/report.html");
    assert_eq!(json["stages"].as_object().unwrap().keys().collect::<Vec<_>>(), STAGES);
    for name in ["base", "zero/step_3", "zero/step_6", "zero"] {
        assert!(json["evals"][name]["pass_at_1"].is_f64(), "{name} in {}", json["evals"]);
    }
    for file in [
        "recipe.toml",
        "summary.json",
        "run.db",
        "report.html",
        "corpus/tokenizer.json",
        "base/metrics.jsonl",
        "base/checkpoints/step_300/model.safetensors",
        "base/checkpoints/step_300/config.json",
        "base/checkpoints/step_300/tokenizer.json",
        "base/checkpoints/step_300/generation_config.json",
        "base/checkpoints/step_300/trainer.json",
        "base/model/model.safetensors",
        "base/model/config.json",
        "base/model/tokenizer.json",
        "base/model/tokenizer_config.json",
        "base/model/generation_config.json",
        "zero/metrics.jsonl",
        "zero/rollouts.jsonl",
        "zero/checkpoints/step_8/model.safetensors",
        "zero/model/model.safetensors",
    ] {
        assert!(run.join(file).metadata().is_ok_and(|m| m.len() > 0), "{file}");
    }
    // What only a resume needs is gone: these stages are finished.
    for file in ["base/checkpoints/step_300/optimizer.safetensors", "zero/checkpoints/step_8/reference.safetensors"] {
        assert!(!run.join(file).exists(), "{file}");
    }
    for stage in ["base", "zero"] {
        assert!(std::fs::read_dir(run.join(stage).join("tensorboard")).unwrap().count() > 0, "{stage}");
    }
    let metrics = lines(&run.join("zero/metrics.jsonl"));
    assert_eq!(metrics.iter().map(|m| m["step"].as_u64().unwrap()).collect::<Vec<_>>(), (1..=8).collect::<Vec<_>>());
    assert!(metrics.iter().any(|m| m["grad_norm"].as_f64().unwrap() > 0.0), "something was learned");
    let rollouts = lines(&run.join("zero/rollouts.jsonl"));
    assert_eq!(rollouts.len(), 8 * 8);
    for key in ["step", "prompt", "completion", "rewards", "advantage", "verdict"] {
        assert!(rollouts[0].get(key).is_some(), "{key} in {}", rollouts[0]);
    }
    assert!(rollouts[0]["rewards"].get("accuracy").is_some());
    for word in ["base", "300/300", "loss", "zero", "8/8", "reward", "kl", "pass@1", "report: runs/tiny/report.html"] {
        assert!(first.stderr.contains(word), "{word} in {}", first.stderr);
    }
    assert_eq!(first.stdout.lines().count(), 1, "with --json stdout has the object alone");

    let before = results(&run);
    let plan = aha_in(dir.path(), &["run", "tiny.toml", "--dry-run", "--json"]).json();
    assert!(plan["stages"].as_array().unwrap().iter().all(|s| s["action"] == "keep"), "{plan}");
    let again = aha_in(dir.path(), &["run", "tiny.toml"]);
    assert_eq!(again.code, 0);
    assert_eq!(again.stderr.matches("kept").count(), 5, "{}", again.stderr);
    assert!(!again.stderr.contains("finished in") && !again.stderr.contains("300/300"), "{}", again.stderr);
    assert!(again.stdout.contains("checkpoint") && again.stdout.contains("reflective words"), "{}", again.stdout);
    assert_same(&results(&run), &before, "after running it again");
    std::fs::remove_dir_all(run.join("zero")).unwrap();
    let plan = aha_in(dir.path(), &["run", "tiny.toml", "--dry-run", "--json"]).json();
    let gone: Vec<_> = plan["stages"].as_array().unwrap().iter().filter(|s| s["action"] != "keep").collect();
    assert_eq!((&gone[0]["name"], &gone[0]["why"]), (&json!("zero"), &json!("finished, but its folder is gone")));
    assert_eq!(aha_in(dir.path(), &["run", "tiny.toml"]).code, 0);
    assert_same(&results(&run), &before, "after a folder was deleted");

    let model = run.join("zero/model");
    let said = aha(&[
        "eval",
        text(&model),
        "--task",
        "mini",
        "--problems",
        "12",
        "--samples",
        "2",
        "--max-completion-length",
        "48",
        "--prompt-style",
        "mini",
        "--seed",
        "3",
        "--precision",
        "f32",
        "--json",
    ]);
    assert_eq!(said.json()["tasks"]["mini"], json["evals"]["zero"], "the command and the stage measure the same");
    let facts = aha(&["inspect", text(&run), "--json"]).json();
    assert_eq!((&facts["kind"], &facts["stages"][3]["status"]), (&json!("run"), &json!("finished")));
    assert_eq!(facts["stages"][3]["checkpoint_step"], 8);
    assert!(aha(&["inspect", text(&run)]).stdout.contains("pass@1"));
}

#[test]
fn plans_say_why() {
    let dir = folder();
    let plan =
        |more: &[&str]| aha_in(dir.path(), &[&["run", "tiny.toml", "--dry-run", "--json"], more].concat()).json();
    let short = |plan: &Value| -> Vec<String> {
        let stages = plan["stages"].as_array().unwrap().iter();
        stages
            .map(|s| {
                format!(
                    "{}: {}, {}",
                    s["name"].as_str().unwrap(),
                    s["action"].as_str().unwrap(),
                    s["why"].as_str().unwrap()
                )
            })
            .collect()
    };
    assert!(short(&plan(&[])).iter().all(|s| s.ends_with("run, not run yet")));
    assert_eq!(plan(&["--seed", "4"])["out"], "runs/tiny-seed4");
    assert_eq!(plan(&["--seed", "3"])["out"], "runs/tiny");
    assert_eq!(plan(&["--set", "seed=5"])["out"], "runs/tiny-seed5");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "a plan writes nothing");

    let args =
        ["run", "tiny.toml", "--set", "base.steps=12", "--set", "zero.steps=2", "--until", "eval-base", "--json"];
    let json = aha_in(dir.path(), &args).json();
    assert_eq!(json["stages"].as_object().unwrap().len(), 3);
    // SQLite's own two files beside a database come and go with its readers.
    let own = |e: &std::fs::DirEntry| !e.file_name().to_string_lossy().starts_with("run.db-");
    let files =
        || std::fs::read_dir(dir.path().join("runs/tiny")).unwrap().filter(|e| own(e.as_ref().unwrap())).count();
    let before = files();
    let same = ["--set", "base.steps=12"];
    assert_eq!(
        short(&plan(&same)),
        [
            "corpus: keep, finished with the same settings and inputs",
            "base: keep, finished with the same settings and inputs",
            "eval-base: keep, finished with the same settings and inputs",
            "zero: run, not run yet",
            "eval-zero: run, not run yet",
        ]
    );
    let changed = short(&plan(&["--set", "base.steps=12", "--set", "base.learning_rate=2e-2"]));
    assert_eq!(
        changed[1..3],
        ["base: run again, its settings have changed", "eval-base: run again, base, which it uses, runs"]
    );
    let seed = short(&plan(&["--set", "base.steps=12", "--seed", "9", "--out", "runs/tiny"]));
    assert_eq!(seed[0], "corpus: run again, the seed or a file it reads has changed");
    assert_eq!(files(), before, "a plan writes nothing");
    assert!(aha_in(dir.path(), &["run", "tiny.toml", "--dry-run"]).stdout.contains("run again"));

    // Other settings: the old results are set aside, not lost.
    let args = ["run", "tiny.toml", "--set", "base.steps=6", "--until", "base", "--json"];
    aha_in(dir.path(), &args).json();
    assert_eq!(lines(&dir.path().join("runs/tiny/base.previous/metrics.jsonl")).len(), 12);
    assert_eq!(lines(&dir.path().join("runs/tiny/base/metrics.jsonl")).len(), 6);
}

#[test]
fn grpo_is_a_recipe_of_one_stage() {
    let dir = tempfile::tempdir().unwrap();
    let model = copy_of("llama_untied", dir.path());
    add_tokenizer(&model, 60);
    let data = dir.path().join("d.jsonl");
    let rows: String =
        (5..25).map(|i| format!("{{\"question\": \"w{i} w{}\", \"answer\": \"{i}\"}}\n", i + 1)).collect();
    std::fs::write(&data, rows).unwrap();
    let args = [
        "grpo",
        "--model",
        text(&model),
        "--task",
        "jsonl",
        "--data",
        "d.jsonl",
        "--out",
        "out",
        "--max-steps",
        "3",
        "--num-prompts",
        "2",
        "--num-generations",
        "2",
        "--max-completion-length",
        "8",
        "--learning-rate",
        "1e-3",
        "--beta",
        "0.1",
        "--loss-type",
        "dapo",
        "--scale-rewards",
        "none",
        "--reward",
        "accuracy=1",
        "--reward",
        "format=0.5",
        "--prompt-style",
        "mini",
        "--prompt-suffix",
        "w7",
        "--save-steps",
        "1",
        "--eval-steps",
        "2",
        "--set",
        "eval_problems=2",
        "--set",
        "grpo.overlong_penalty.cache_length=8",
        "--seed",
        "6",
        "--json",
    ];
    let json = aha_in(dir.path(), &args).json();
    assert_eq!(
        (&json["recipe"], &json["seed"], &json["stages"]["grpo"]["status"]),
        (&json!("grpo"), &json!(6), &json!("finished"))
    );
    assert!(json["evals"]["grpo/step_2"].is_object());
    let out = dir.path().join("out");
    assert_eq!(lines(&out.join("grpo/metrics.jsonl")).len(), 3);
    let recipe = aha(&["inspect", text(&out.join("recipe.toml")), "--json"]).json();
    let stage = &recipe["stage"][0];
    for (key, value) in [
        ("steps", json!(3)),
        ("num_prompts", json!(2)),
        ("beta", json!(0.1)),
        ("loss_type", json!("dapo")),
        ("scale_rewards", json!("none")),
        ("prompt_style", json!("mini")),
        ("prompt_suffix", json!("w7")),
        ("steps_per_generation", json!(1)),
        ("rewards", json!([{"name": "accuracy", "weight": 1.0}, {"name": "format", "weight": 0.5}])),
        ("task_options", json!({"data": "d.jsonl"})),
    ] {
        assert_eq!(stage[key], value, "{key} in {stage}");
    }
    let trained = out.join("grpo/model");
    assert_ne!(
        std::fs::read(trained.join("model.safetensors")).unwrap(),
        std::fs::read(model.join("model.safetensors")).unwrap()
    );
    assert_eq!(aha(&["inspect", text(&trained)]).code, 0);
    let again = aha_in(dir.path(), &args);
    assert!(
        again.json()["stages"]["grpo"]["status"] == "finished" && again.stderr.contains("kept"),
        "{}",
        again.stderr
    );
}
