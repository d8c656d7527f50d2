//! Supervised fine-tuning: `sft` stages after a base and on data of another stage, `aha sft` on files, exact resume after a
//! kill, and what is refused.

use crate::runs::{assert_same, results};
use crate::support::{Said, aha_in, start};
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};

const RECIPE: &str = r#"
name = "tuned"
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
steps = 20
batch_tokens = 512
context = 128
learning_rate = 1e-2
validation_documents = 8

[stage.model]
hidden_size = 32
intermediate_size = 64
num_hidden_layers = 2
num_attention_heads = 2
max_position_embeddings = 256

[[stage]]
name = "tuned"
kind = "sft"
model = "base"
data = ["rows.jsonl"]
prompt_style = "mini"
epochs = 12
batch_tokens = 256
learning_rate = 1e-2
validation_rows = 4
validate_every = 10
save_steps = 2
"#;

/// Sums with their answers, and one conversation that is too long for the model.
pub fn rows() -> String {
    let row = |a: u32, b: u32| {
        let answer = format!("<think>{a}+{b}={}</think><answer>{}</answer>", a + b, a + b);
        json!({"messages": [{"role": "user", "content": format!("what is {a}+{b}?")}, {"role": "assistant", "content": answer}]})
    };
    let mut lines: Vec<String> = (0..40).map(|i| row(i, i * 7 % 10).to_string()).collect();
    lines.push(json!({"prompt": "count", "completion": "1 2 3 4 ".repeat(300)}).to_string());
    lines.join("\n")
}

pub fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tuned.toml"), RECIPE).unwrap();
    std::fs::write(dir.path().join("rows.jsonl"), rows()).unwrap();
    dir
}

pub fn run(dir: &Path, out: &str, more: &[&str]) -> Said {
    aha_in(dir, &[&["run", "tuned.toml", "--out", out, "--json"], more].concat())
}

#[test]
fn rows_of_a_family_are_seen_as_often_as_asked() {
    let dir = folder();
    let row = |i: usize| {
        let family = if i < 30 { "often" } else { "rare" };
        json!({"family": family, "prompt": format!("say {i}"), "completion": format!("{i}")}).to_string()
    };
    std::fs::write(dir.path().join("rows.jsonl"), (0..36).map(row).collect::<Vec<_>>().join("\n")).unwrap();
    let count = |out: &str, set: &str| {
        let args = ["--set", "tuned.validation_rows=0", "--set", "tuned.epochs=1", "--set", set];
        run(dir.path(), out, &args).json()["stages"]["tuned"]["metrics"]["examples"].as_f64().unwrap()
    };
    assert_eq!(count("once", "tuned.epochs=1"), 36.0);
    assert_eq!(count("thrice", "tuned.repeat={ rare = 3 }"), 48.0);
    let said = run(dir.path(), "none", &["--set", "tuned.repeat={ seldom = 2 }"]);
    assert!(said.code == 0 && said.stderr.contains("repeat names seldom, but no row"), "{}", said.stderr);
    run(dir.path(), "no", &["--set", "tuned.repeat={ rare = 0 }"]).fails(2, &["tuned.repeat.rare"]);
}

#[test]
fn a_base_learns_the_conversations_and_a_killed_stage_ends_the_same() {
    let dir = folder();
    let summary = run(dir.path(), "whole", &[]).json();
    let metrics = &summary["stages"]["tuned"]["metrics"];
    assert_eq!(metrics["examples/too_long"], 1.0, "{metrics}");
    assert_eq!(metrics["examples/held_out"], 4.0, "{metrics}");
    assert_eq!(metrics["epoch"], 12.0, "{metrics}");
    let log = std::fs::read_to_string(dir.path().join("whole/tuned/metrics.jsonl")).unwrap();
    let losses: Vec<f64> = log
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["loss"].as_f64().unwrap())
        .collect();
    assert!(losses.last().unwrap() < &(0.5 * losses[0]), "{losses:?}");
    assert!(dir.path().join("whole/tuned/model/model.safetensors").is_file());
    // Killed twice while it trains.
    for _ in 0..2 {
        let mut child = start(dir.path(), &["run", "tuned.toml", "--out", "killed"]);
        let begin = Instant::now();
        let steps = || std::fs::read_dir(dir.path().join("killed/tuned/checkpoints")).map_or(0, |d| d.count());
        let before = steps();
        while steps() <= before.min(1) && begin.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(3));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    run(dir.path(), "killed", &[]).json();
    assert_same(&results(&dir.path().join("whole")), &results(&dir.path().join("killed")), "killed twice");
}

#[test]
fn the_command_trains_a_folder_on_files() {
    let dir = folder();
    run(dir.path(), "runs/base", &["--until", "base"]).json();
    let list =
        json!([{"instruction": "what is 3+4?", "input": "", "output": "7"}, {"question": "9-2?", "response": "7"}]);
    std::fs::write(dir.path().join("list.json"), list.to_string()).unwrap();
    let args = ["sft", "--model", "runs/base/base/model", "--data", "rows.jsonl", "--data", "list.json"];
    let more = ["--prompt-style", "mini", "--max-steps", "3", "--learning-rate", "1e-3", "--out", "out", "--json"];
    let summary = aha_in(dir.path(), &[&args[..], &more[..]].concat()).json();
    assert_eq!(summary["stages"]["sft"]["metrics"]["examples"], 38.0);
    assert!(dir.path().join("out/sft/model/tokenizer.json").is_file());
}

#[test]
fn what_cannot_be_trained_on_is_refused_with_its_place() {
    let dir = folder();
    run(dir.path(), "out", &["--until", "base"]).json();
    std::fs::write(dir.path().join("rows.jsonl"), "{\"prompt\": \"a\", \"completion\": \"b\"}\n{\"text\": 3}\n")
        .unwrap();
    run(dir.path(), "out", &[]).fails(1, &["rows.jsonl:2", "neither `messages`"]);
    std::fs::write(dir.path().join("rows.jsonl"), rows()).unwrap();
    run(dir.path(), "out", &["--set", "tuned.warmup_steps=900"]).fails(1, &["warmup_steps is 900", "lower it"]);
    run(dir.path(), "out", &["--set", "tuned.prompt_style=chat"]).fails(1, &["chat template"]);
    run(dir.path(), "out", &["--set", "tuned.schedule=wsd"]).fails(2, &["tuned.schedule", "cosine"]);
    run(dir.path(), "out", &["--set", "tuned.max_length=9000"]).fails(2, &["tuned.max_length", "256 positions"]);
    run(dir.path(), "out", &["--set", "tuned.data=base"]).fails(2, &["`base`", "makes no data"]);
    run(dir.path(), "out", &["--set", "tuned.epoch=3"]).fails(2, &["tuned.epoch", "epochs"]);
}
