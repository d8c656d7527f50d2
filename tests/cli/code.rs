//! Programs of a model judged by hidden tests: evaluation and reinforcement learning. The model speaks comments only, so that
//! every text it ends is a program that does nothing, and what is right is known without it.
#![cfg(target_os = "linux")]

use crate::support::{aha, aha_in, copy_of, lines, text};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// A model whose words are all comments, and that ends a text at two words of three.
fn commenting_model(dir: &Path) -> PathBuf {
    let model = copy_of("llama_untied", dir);
    let vocab: serde_json::Map<String, Value> = (0..=60).map(|i| (format!("#{i}"), i.into())).collect();
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "#3"},
    });
    std::fs::write(model.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    for file in ["config.json", "generation_config.json"] {
        let path = model.join(file);
        let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        config["eos_token_id"] = (20..=60).collect();
        std::fs::write(path, config.to_string()).unwrap();
    }
    model
}

/// Whether programs can be judged here at all.
fn skipped() -> bool {
    let layers = aha(&["sandbox", "--layers", "--json"]);
    let python = std::process::Command::new("python3").arg("--version").output().is_ok_and(|o| o.status.success());
    layers.code != 0 || !python
}

/// Rows that a program which does nothing solves, and rows that it does not.
fn rows(count: usize) -> String {
    let row = |i: usize| json!({"question": format!("#{i}"), "tests": [{"output": if i.is_multiple_of(2) { "" } else { "x" }}]});
    (0..count).map(|i| format!("{}\n", row(i))).collect()
}

#[test]
fn evaluation_runs_programs() {
    if skipped() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let model = commenting_model(dir.path());
    std::fs::write(dir.path().join("d.jsonl"), rows(4)).unwrap();
    let args = [
        "eval",
        text(&model),
        "--task",
        "code",
        "--eval-data",
        "d.jsonl",
        "--samples",
        "6",
        "--temperature",
        "1",
        "--top-p",
        "1",
        "--max-completion-length",
        "16",
        "--prompt-style",
        "mini",
        "--output",
        "out.jsonl",
        "--json",
    ];
    let json = aha_in(dir.path(), &args).json();
    assert_eq!(json["tasks"]["code"]["problems"], 4);
    let out = lines(&dir.path().join("out.jsonl"));
    assert_eq!(out.len(), 4 * 7);
    let mut solved = 0;
    for line in &out {
        let number: usize = line["problem_id"].as_str().unwrap().rsplit('/').next().unwrap().parse().unwrap();
        // Numbers of lines begin with 1. An empty text is no program.
        let does_nothing = line["finished"] == true && !line["text"].as_str().unwrap().trim().is_empty();
        let right = does_nothing && number % 2 == 1;
        assert_eq!(line["verdict"], if right { "correct" } else { "incorrect" }, "{line}");
        solved += usize::from(right);
    }
    assert!(solved > 0, "no text was ended after a word: {out:?}");
}

#[test]
fn reinforcement_learning_runs_programs() {
    if skipped() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let model = commenting_model(dir.path());
    std::fs::write(dir.path().join("d.jsonl"), rows(20)).unwrap();
    let args = [
        "grpo",
        "--model",
        text(&model),
        "--task",
        "code",
        "--data",
        "d.jsonl",
        "--out",
        "out",
        "--max-steps",
        "2",
        "--num-prompts",
        "4",
        "--num-generations",
        "4",
        "--max-completion-length",
        "16",
        "--prompt-style",
        "mini",
        "--reward",
        "accuracy=1",
        "--set",
        "task_options.time_ms=2000",
        "--json",
    ];
    let json = aha_in(dir.path(), &args).json();
    assert_eq!(json["stages"]["grpo"]["status"], "finished");
    let rollouts = lines(&dir.path().join("out/grpo/rollouts.jsonl"));
    assert_eq!(rollouts.len(), 2 * 16);
    let right = |line: &Value| {
        let asked = line["prompt"].as_str().unwrap().split('#').nth(1).unwrap();
        let digits: String = asked.chars().take_while(char::is_ascii_digit).collect();
        let number: usize = digits.parse().unwrap();
        let said = !line["completion"].as_str().unwrap().trim().is_empty();
        line["finished"] == true && said && number.is_multiple_of(2)
    };
    for line in &rollouts {
        assert_eq!(line["verdict"], if right(line) { "correct" } else { "incorrect" }, "{line}");
        assert_eq!(line["rewards"]["accuracy"], f64::from(u8::from(right(line))), "{line}");
    }
    assert!(rollouts.iter().any(right));
}

#[test]
fn mistakes_in_rows_are_named() {
    if skipped() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("d.jsonl"), rows(2) + "{\"question\": \"a?\", \"tests\": [{\"outputs\": 1}]}\n")
        .unwrap();
    let args = ["eval", "m", "--task", "code", "--eval-data", "d.jsonl"];
    aha_in(dir.path(), &args).fails(1, &["d.jsonl:3", "outputs"]);
    let args = ["eval", "m", "--task", "humanevl", "--eval-data", "d.jsonl"];
    aha_in(dir.path(), &args).fails(2, &["humanevl", "humaneval"]);
}
