//! Context extension: what a stage leaves, exact resume, the map in the report, and what it refuses.

use crate::runs::{assert_same, results};
use crate::support::{aha_in, lines, start};
use std::path::Path;
use std::time::{Duration, Instant};

const RECIPE: &str = r#"
name = "long"
seed = 4

[[stage]]
name = "corpus"
kind = "corpus"
documents_for_tokenizer = 200
vocab_size = 400
sources = [{ needle = 300 }, { generated = true }]

[[stage]]
name = "base"
kind = "pretrain"
corpus = "corpus"
steps = 10
batch_tokens = 256
context = 64
learning_rate = 1e-2
validation_documents = 8

[stage.model]
architecture = "deepseek_v3"
hidden_size = 32
intermediate_size = 64
num_hidden_layers = 2
num_attention_heads = 2
max_position_embeddings = 64
kv_lora_rank = 8
qk_nope_head_dim = 8
qk_rope_head_dim = 8
v_head_dim = 8
moe_intermediate_size = 16
n_routed_experts = 4
num_experts_per_tok = 2
num_nextn_predict_layers = 1

[[stage]]
name = "four"
kind = "extend"
model = "base"
corpus = "corpus"
steps = 30
batch_tokens = 512
context = 256
learning_rate = 1e-3
validation_documents = 8
save_steps = 3

[[stage]]
name = "sixteen"
kind = "extend"
model = "four"
corpus = "corpus"
steps = 3
batch_tokens = 1024
context = 1024
learning_rate = 1e-3
validation_documents = 8

[[stage]]
name = "needle"
kind = "eval"
model = "sixteen"
task = "needle"
prompt_style = "mini"
problems = 8
samples = 2
max_completion_length = 8
task_options = { lengths = [128, 512], depths = [0.0, 1.0] }
"#;

fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("long.toml"), RECIPE).unwrap();
    dir
}

fn run(dir: &Path, out: &str, more: &[&str]) -> crate::support::Said {
    aha_in(dir, &[&["run", "long.toml", "--out", out], more].concat())
}

#[test]
fn positions_are_stretched_twice_and_killed_ends_with_the_same_bits() {
    let dir = folder();
    let said = run(dir.path(), "whole", &[]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let config = |stage: &str| -> serde_json::Value {
        let path = dir.path().join("whole").join(stage).join("model/config.json");
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    };
    for (stage, positions, factor) in [("four", 256, 4.0), ("sixteen", 1024, 16.0)] {
        let c = config(stage);
        let yarn = if c["rope_parameters"].is_object() { &c["rope_parameters"] } else { &c["rope_scaling"] };
        assert_eq!(c["max_position_embeddings"], positions, "{c}");
        assert_eq!(
            (yarn["factor"].as_f64(), yarn["original_max_position_embeddings"].as_u64()),
            (Some(factor), Some(64))
        );
    }
    let summary: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(dir.path().join("whole/summary.json")).unwrap()).unwrap();
    for stage in ["four", "sixteen"] {
        let loss = |key: &str| summary["stages"][stage]["metrics"][key].as_f64().unwrap_or_else(|| panic!("no {key}"));
        let (before, after) = (loss("short_eval_loss/before"), loss("short_eval_loss/after"));
        assert!(before.is_finite() && after.is_finite() && before != after, "{stage}: {before} {after}");
    }
    assert_eq!(summary["evals"]["sixteen"]["by_family"].as_object().unwrap().len(), 4);
    let page = std::fs::read_to_string(dir.path().join("whole/report.html")).unwrap();
    assert!(page.contains("Needle in a haystack") && page.contains("<th>512</th>"));

    let mut killed = 0;
    for steps in [4, 20] {
        let mut child = start(dir.path(), &["run", "long.toml", "--out", "parts"]);
        let begin = Instant::now();
        let metrics = dir.path().join("parts/four/metrics.jsonl");
        while child.try_wait().unwrap().is_none() {
            let done = std::fs::read_to_string(&metrics).map_or(0, |text| text.lines().count());
            if done >= steps || begin.elapsed() > Duration::from_secs(60) {
                child.kill().unwrap();
                killed += usize::from(done < 30);
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        child.wait().unwrap();
    }
    let said = run(dir.path(), "parts", &[]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(killed > 0, "every stage was finished before it could be killed");
    assert_eq!(lines(&dir.path().join("parts/four/metrics.jsonl")).len(), 30);
    assert_same(&results(&dir.path().join("parts")), &results(&dir.path().join("whole")), "after kills");
}

#[test]
fn what_cannot_be_extended_is_refused() {
    let dir = folder();
    let refused = |set: &str, words: &[&str]| run(dir.path(), "bad", &["--set", set]).fails(1, words);
    refused("four.context=64", &["context is 64", "already has 64 positions"]);
    let usage = |set: &str, words: &[&str]| run(dir.path(), "bad", &["--set", set]).fails(2, words);
    usage("four.yarn_beta_slow=40", &["yarn_beta_slow", "below"]);
    usage("four.yarn_factor=0.5", &["yarn_factor"]);
    usage("needle.max_completion_length=1024", &["sixteen", "max_position_embeddings of 1024"]);
    usage("corpus.sources=[{ needle = 300, generated = true }]", &["needs one of"]);
}
