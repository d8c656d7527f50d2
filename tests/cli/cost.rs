//! `aha cost`: what it prints for known models, files and nonsense.

use crate::support::{aha, fixture, text};

#[test]
fn deepseek_v3_from_its_stated_inputs() {
    let said = aha(&[
        "cost",
        "deepseek-v3",
        "--tokens",
        "14.8e12",
        "--tokens-per-second",
        "1543.2",
        "--gpus",
        "2048",
        "--json",
    ]);
    let v = said.json();
    let near = |path: &str, wanted: f64| {
        let found = v.pointer(path).and_then(serde_json::Value::as_f64).unwrap_or_else(|| panic!("no {path} in {v}"));
        assert!((found / wanted - 1.0).abs() < 0.02, "{path}: {found}, wanted {wanted}");
    };
    near("/parameters/total", 671.03e9);
    near("/parameters/active", 37.55e9);
    near("/training/gpu_hours", 2664e3);
    near("/training/dollars", 5.328e6);
    near("/training/days", 54.2); // 3.7 days per trillion tokens
    near("/published/ours", 2788e3);
    near("/published/our_dollars", 5.576e6);
    near("/memory_bytes/cache_per_token", 70_272.0);
    let said = aha(&["cost", "deepseek-v3", "--tokens", "14.8e12"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    for words in ["671.03 B", "3 x forward", "$5.58 M", "x 3600 s"] {
        assert!(said.stdout.contains(words), "no {words:?} in\n{}", said.stdout);
    }
    near_r1();
}

fn near_r1() {
    let v = aha(&["cost", "deepseek-r1", "--json"]).json();
    let dollars = v["published"]["our_dollars"].as_f64().unwrap();
    assert!((dollars / 294e3 - 1.0).abs() < 0.02, "{dollars}");
}

#[test]
fn folders_files_and_mistakes() {
    let folder = fixture("qwen3");
    let v = aha(&["cost", text(&folder), "--json"]).json();
    assert_eq!(v["model_type"], "qwen3");
    let file = folder.join("config.json");
    assert_eq!(aha(&["cost", text(&file), "--json"]).json()["parameters"], v["parameters"]);
    aha(&["cost", "deepseek-v4"]).fails(2, &["deepseek-v4", "deepseek-v3"]);
    aha(&["cost", "nowhere/config.json"]).fails(1, &["nowhere/config.json", "cannot read"]);
    aha(&["cost", "llama-3.1-8b", "--gpu", "abacus"]).fails(2, &["abacus", "h100"]);
    aha(&["cost", "llama-3.1-8b", "--mfu", "0.3", "--tokens-per-second", "10"]).fails(2, &["--mfu"]);
}

#[test]
fn a_recipe_is_counted_stage_by_stage() {
    let args = ["cost", "qwen2.5-0.5b", "--recipe", "r1", "--completion-tokens", "500", "--gpu", "h100"];
    let said = aha(&args);
    for word in ["student-distilled", "rm-safety", "not there, so not counted: ./data/"] {
        assert!(said.stdout.contains(word), "{word}: {}", said.stdout);
    }
    let v = aha(&[&args[..], &["--json"]].concat()).json();
    let stages = v["recipe"]["stages"].as_array().unwrap();
    let zero = stages.iter().find(|s| s["name"] == "zero").unwrap();
    // 200 steps of 32 x 16 completions.
    assert_eq!(zero["sampled"], 200.0 * 512.0 * 500.0);
    assert_eq!((&zero["trained"], &zero["scored"]), (&zero["sampled"], &zero["sampled"]));
    let sum: f64 = stages.iter().map(|s| s["gpu_hours"].as_f64().unwrap()).sum();
    assert!((v["recipe"]["gpu_hours"].as_f64().unwrap() - sum).abs() < 1e-9 && sum > 0.0);
    let more = aha(&[&args[..], &["--set", "steps=400", "--json"]].concat()).json();
    let more = more["recipe"]["stages"].as_array().unwrap().iter().find(|s| s["name"] == "zero").unwrap().clone();
    assert_eq!(more["sampled"].as_f64().unwrap(), 2.0 * zero["sampled"].as_f64().unwrap());
    aha(&["cost", "qwen2.5-0.5b", "--recipe", "r2"]).fails(2, &["r2", "r1"]);
    aha(&["cost", "qwen2.5-0.5b", "--set", "steps=1"]).fails(2, &["--recipe"]);
    aha(&["run", "r1", "--dry-run"]).fails(1, &["`base` has to be given", "--set base="]);
}
