//! Adapters from the command line: `sft` and `grpo` stages that train them, their folders as models, `aha convert`.

use crate::runs::{assert_same, results};
use crate::sft::{folder, run};
use crate::support::{aha, aha_in, fixture, golden, lines, start, text};
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};

/// With the output head: that of a base of twenty steps is nearly random, and frozen it leaves the blocks little to learn.
const LORA: [&str; 2] = ["--set", "tuned.lora={ r = 8, alpha = 32, target_modules = [\"all-linear\", \"lm_head\"] }"];

fn losses(stage: &Path) -> Vec<f64> {
    lines(&stage.join("metrics.jsonl")).iter().map(|line| line["loss"].as_f64().unwrap()).collect()
}

#[test]
fn a_stage_trains_adapters_and_a_killed_one_ends_the_same() {
    let dir = folder();
    run(dir.path(), "whole", &LORA).json();
    let stage = dir.path().join("whole/tuned");
    let losses = losses(&stage);
    assert!(losses.last().unwrap() < &(0.6 * losses[0]), "{losses:?}");
    for file in ["model/model.safetensors", "adapter/adapter_model.safetensors", "adapter/adapter_config.json"] {
        assert!(stage.join(file).is_file(), "{file}");
    }
    let newest = std::fs::read_dir(stage.join("checkpoints")).unwrap().next().unwrap().unwrap().path();
    assert!(newest.join("adapter_config.json").is_file() && !newest.join("model.safetensors").exists());
    let mut child = start(dir.path(), &[&["run", "tuned.toml", "--out", "killed"][..], &LORA].concat());
    let begin = Instant::now();
    let steps = || std::fs::read_dir(dir.path().join("killed/tuned/checkpoints")).map_or(0, |d| d.count());
    while steps() < 2 && begin.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(3));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    run(dir.path(), "killed", &LORA).json();
    // The adapter names the folder of its own run's base; all numbers are the same.
    let all =
        |out: &str| results(&dir.path().join(out)).into_iter().filter(|(n, _)| !n.ends_with("adapter_config.json"));
    assert_same(&all("whole").collect(), &all("killed").collect(), "killed");

    // The adapter's folder is the merged model, for every command and for further stages.
    let input = dir.path().join("in.jsonl");
    std::fs::write(&input, json!({"tokens": [1, 5, 9, 30, 22, 17]}).to_string()).unwrap();
    let scores = |model: &Path| aha(&["score", text(model), "--input", text(&input), "--precision", "f32"]).stdout;
    let merged = scores(&stage.join("model"));
    assert_eq!(scores(&stage.join("adapter")), merged);
    assert_ne!(scores(&dir.path().join("whole/base/model")), merged);
    let out = dir.path().join("again");
    let base = dir.path().join("whole/base/model");
    aha(&["convert", text(&base), text(&out), "--merge", text(&stage.join("adapter")), "--json"]).json();
    assert_eq!(scores(&out), merged);
    let adapter = "whole/tuned/adapter";
    let args = ["sft", "--model", adapter, "--data", "rows.jsonl", "--prompt-style", "mini", "--max-steps", "1"];
    aha_in(dir.path(), &[&args[..], &["--lora-r", "2", "--out", "further", "--json"]].concat()).json();
    assert!(dir.path().join("further/sft/adapter/adapter_config.json").is_file());
}

#[test]
fn reinforcement_learning_trains_adapters_too() {
    let dir = folder();
    run(dir.path(), "out", &["--until", "base"]).json();
    let args = ["grpo", "--model", "out/base/model", "--task", "chain", "--prompt-style", "mini", "--max-steps", "3"];
    let more =
        ["--max-completion-length", "16", "--beta", "0.01", "--learning-rate", "1e-2", "--reward", "tag_count=1"];
    let lora = ["--lora-target-modules", "q_proj,v_proj", "--lora-alpha", "8", "--out", "rl", "--json"];
    aha_in(dir.path(), &[&args[..], &more, &lora].concat()).json();
    let config = std::fs::read_to_string(dir.path().join("rl/grpo/adapter/adapter_config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    assert_eq!((&config["r"], &config["lora_alpha"]), (&json!(16), &json!(8)));
    assert_eq!(config["target_modules"], json!(["q_proj", "v_proj"]));
}

#[test]
fn what_does_not_go_with_adapters_is_refused() {
    let dir = folder();
    let fails = |more: &[&str], words: &[&str]| run(dir.path(), "out", &[&LORA[..], more].concat()).fails(2, words);
    fails(&["--set", "tuned.lora.rank=8"], &["tuned.lora.rank", "the keys here"]);
    fails(&["--set", "tuned.lora.alpha=0"], &["tuned.lora.alpha", "above 0"]);
    fails(&["--set", "tuned.optimizer=muon"], &["tuned.lora", "adamw"]);
    fails(&["--set", "tuned.bias_update_speed=0.1"], &["tuned.bias_update_speed", "frozen"]);
    let said = run(dir.path(), "out", &["--set", "tuned.lora={ target_modules = [\"q_porj\"] }"]);
    said.fails(1, &["q_porj", "q_proj"]);
}

#[test]
fn an_adapter_of_peft_is_merged_and_converted() {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("in.jsonl");
    let (shape, tokens) = golden("llama_untied", "tokens");
    let row: Vec<u32> = tokens[..shape[1]].iter().map(|t| *t as u32).collect();
    std::fs::write(&input, json!({ "tokens": row }).to_string()).unwrap();
    let scores = |model: &Path| {
        let said = aha(&["score", text(model), "--input", text(&input), "--precision", "f32"]);
        assert_eq!(said.code, 0, "{}", said.stderr);
        let line: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
        line["logprobs"].as_array().unwrap()[1..].iter().map(|v| v.as_f64().unwrap()).collect::<Vec<_>>()
    };
    let (_, logits) = golden("lora_llama_untied", "logits");
    let vocab = logits.len() / tokens.len();
    let wanted: Vec<f64> = (1..row.len())
        .map(|i| {
            let z = &logits[(i - 1) * vocab..i * vocab];
            z[row[i] as usize] - z.iter().map(|v| v.exp()).sum::<f64>().ln()
        })
        .collect();
    let close = |what: &str, found: &[f64], tolerance: f64| {
        let worst = found.iter().zip(&wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(found.len() == wanted.len() && worst < tolerance, "{what}: {worst}");
    };
    let adapter = fixture("lora_llama_untied");
    close("adapter", &scores(&adapter), 1e-4);
    for (out, more, tolerance) in [
        ("f32", &[][..], 1e-4),
        ("bf16", &["--dtype", "bf16"], 0.05),
        ("f16", &["--dtype", "f16"], 0.01),
        ("f32.gguf", &[], 1e-4),
        ("f16.gguf", &["--dtype", "f16"], 0.01),
        ("q8.gguf", &["--quantize", "q8_0"], 0.1),
    ] {
        let path = dir.path().join(out);
        aha(&[&["convert", text(&adapter), text(&path), "--json"], more].concat()).json();
        close(out, &scores(&path), tolerance);
    }
    // Once more through a folder in f32 (one in f16 would round the norms, which GGUF keeps in f32): the same file.
    let (one, two) = (dir.path().join("f16.gguf"), dir.path().join("two.gguf"));
    let folder = dir.path().join("folder");
    aha(&["convert", text(&one), text(&folder), "--json"]).json();
    aha(&["convert", text(&folder), text(&two), "--dtype", "f16", "--json"]).json();
    assert_eq!(std::fs::read(&one).unwrap(), std::fs::read(&two).unwrap());
    aha(&["convert", text(&one), text(&two)]).fails(1, &["exists already"]);
    aha(&["convert", text(&one), text(&dir.path().join("x")), "--quantize", "q8_0"]).fails(2, &[".gguf"]);
    let other = fixture("qwen2_tied");
    let merge = ["--merge", text(&adapter)];
    aha(&[&["convert", text(&other), text(&dir.path().join("x"))], &merge[..]].concat()).fails(1, &["fits no layer"]);
}
