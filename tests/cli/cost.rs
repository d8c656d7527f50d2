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
