//! Pretraining on documents from files: mixtures, packing, fill-in-the-middle, Muon, FP8, and exact resume of all of it.

use crate::runs::{assert_same, results};
use crate::support::{aha_in, lines, start};
use std::path::Path;
use std::time::{Duration, Instant};

const RECIPE: &str = r#"
name = "grown"
seed = 5

[[stage]]
name = "corpus"
kind = "corpus"
documents_for_tokenizer = 300
vocab_size = 400
fim_rate = 0.3

[[stage.sources]]
path = "notes"
weight = 2

[[stage.sources]]
path = "tales.jsonl"
field = "body"

[[stage.sources]]
generated = true
weight = 0.5

[[stage]]
name = "base"
kind = "pretrain"
corpus = "corpus"
tokens = 60_000
batch_tokens = 512
batch_tokens_start = 128
batch_ramp_tokens = 20_000
context = 64
packing = "stream"
cross_document_attention = true
learning_rate = 1e-2
schedule = "v3"
warmup_steps = 5
decay_steps = 60
hold_steps = 10
final_steps = 5
optimizer = "muon"
moments = "bf16"
precision = "fp8"
validation_documents = 12
validate_every = 50
save_steps = 20

[stage.model]
hidden_size = 32
intermediate_size = 64
num_hidden_layers = 2
num_attention_heads = 2
max_position_embeddings = 128
"#;

fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let notes = dir.path().join("notes");
    std::fs::create_dir_all(notes.join("more")).unwrap();
    for i in 0..30 {
        let text: String =
            (0..20 + i).map(|j| format!("Note {i}, line {j}: the sum of {i} and {j} is {}.\n", i + j)).collect();
        let place = if i % 2 == 0 { notes.clone() } else { notes.join("more") };
        std::fs::write(place.join(format!("{i:02}.txt")), text).unwrap();
    }
    let tales: String = (0..50)
        .map(|i| {
            format!(
                "{}\n",
                serde_json::json!({"id": i, "body": format!("Tale {i}. Once {i} birds met {} cats. ", i * 3).repeat(3)})
            )
        })
        .collect();
    std::fs::write(dir.path().join("tales.jsonl"), tales).unwrap();
    std::fs::write(dir.path().join("grown.toml"), RECIPE).unwrap();
    dir
}

fn run(dir: &Path, out: &str, threads: &str) {
    let said = aha_in(dir, &["run", "grown.toml", "--out", out, "--threads", threads]);
    assert_eq!(said.code, 0, "{}", said.stderr);
}

#[test]
fn everything_at_once_learns_and_killed_ends_with_the_same_bits() {
    let dir = folder();
    run(dir.path(), "whole", "2");
    let metrics = lines(&dir.path().join("whole/base/metrics.jsonl"));
    let value = |i: usize, key: &str| metrics[i][key].as_f64().unwrap_or_else(|| panic!("no {key} in {}", metrics[i]));
    let last = metrics.len() - 1;
    assert!(value(last, "loss") < 0.5 * value(0, "loss"), "{} to {}", value(0, "loss"), value(last, "loss"));
    assert!(value(last, "eval_loss") < 2.5, "{}", value(last, "eval_loss"));
    // The batch grows, rows are full, the schedule ends low.
    assert_eq!((value(0, "num_tokens"), value(last, "num_tokens")), (128.0, 512.0));
    assert!(metrics.iter().all(|m| m["num_tokens"].as_f64().unwrap() % 64.0 == 0.0));
    assert!((value(last, "learning_rate") - 1e-2 * 7.3 / 220.0).abs() < 1e-9);
    // The written recipe is the same recipe.
    let written = aha_in(dir.path(), &["run", "whole/recipe.toml", "--out", "whole", "--dry-run", "--json"]).json();
    assert!(written["stages"].as_array().unwrap().iter().all(|s| s["action"] == "keep"), "{written}");

    let mut killed = 0;
    for (steps, threads) in [(7, "1"), (33, "2"), (70, "1")] {
        let mut child = start(dir.path(), &["run", "grown.toml", "--out", "parts", "--threads", threads]);
        let begin = Instant::now();
        let metrics = dir.path().join("parts/base/metrics.jsonl");
        let done = || std::fs::read(&metrics).map_or(0, |b| b.iter().filter(|b| **b == b'\n').count());
        while done() < steps && child.try_wait().unwrap().is_none() {
            assert!(begin.elapsed() < Duration::from_secs(120), "the run hangs");
            std::thread::sleep(Duration::from_millis(1));
        }
        killed += usize::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(killed >= 2, "killed only {killed} times");
    run(dir.path(), "parts", "2");
    assert_same(&results(&dir.path().join("parts")), &results(&dir.path().join("whole")), "after kills");
}

#[test]
fn documents_that_cannot_be_read_are_named() {
    let dir = folder();
    let with = |from: &str, to: &str| {
        std::fs::write(dir.path().join("bad.toml"), RECIPE.replace(from, to)).unwrap();
        aha_in(dir.path(), &["run", "bad.toml", "--out", "bad"])
    };
    with("tales.jsonl", "nowhere.jsonl").fails(1, &["nowhere.jsonl"]);
    with("field = \"body\"", "field = \"text\"").fails(1, &["tales.jsonl:1", "id, body", "field"]);
    std::fs::write(dir.path().join("broken.jsonl"), "{\"body\": \"a\"}\n{\"body\"\n").unwrap();
    with("tales.jsonl", "broken.jsonl").fails(1, &["broken.jsonl:2", "not JSON"]);
    with("generated = true", "path = \"tales.jsonl\"").fails(1, &["tales.jsonl", "twice"]);
    with("generated = true", "generated = false").fails(1, &["sources.2", "generated = true"]);
    with("batch_ramp_tokens = 20_000", "").fails(1, &["batch_ramp_tokens"]);
    with("schedule = \"v3\"", "schedule = \"cosine\"").fails(1, &["hold_steps", "v3"]);
    with("optimizer = \"muon\"", "muon_momentum = 0.9").fails(1, &["muon_momentum", "muon"]);
    with("packing = \"stream\"", "packing = \"tetris\"").fails(1, &["packing", "`stream`"]);
}
