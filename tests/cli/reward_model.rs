//! Reward models: `reward_model` stages on generated rows, `aha reward-model` on files, `aha score` with the result, a grpo stage
//! that is rewarded by one, by a program and by a judge, exact resume after a kill, and what is refused.

use crate::runs::{assert_same, results};
use crate::support::{aha_in, lines, start};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

const RECIPE: &str = r#"
name = "liked"
seed = 3

[[stage]]
name = "corpus"
kind = "corpus"
documents_for_tokenizer = 300
vocab_size = 400
corpus = { general = 1.0 }

[[stage]]
name = "base"
kind = "pretrain"
corpus = "corpus"
steps = 30
batch_tokens = 1024
context = 128
learning_rate = 1e-2
validation_documents = 8

[stage.model]
architecture = "deepseek_v3"
hidden_size = 32
intermediate_size = 64
num_hidden_layers = 2
num_attention_heads = 2
max_position_embeddings = 2048
kv_lora_rank = 8
qk_nope_head_dim = 8
qk_rope_head_dim = 4
v_head_dim = 8
moe_intermediate_size = 16
n_routed_experts = 4
num_experts_per_tok = 2
num_nextn_predict_layers = 1

[[stage]]
name = "helpful"
kind = "reward_model"
model = "base"
generated = 400
validation_rows = 60
prompt_style = "mini"
batch_size = 16
learning_rate = 3e-3
save_steps = 4

[[stage]]
name = "safe"
kind = "reward_model"
model = "base"
objective = "pointwise"
generated = 300
validation_rows = 60
prompt_style = "mini"
batch_size = 16
epochs = 3
learning_rate = 1e-2

[[stage]]
name = "liked"
kind = "grpo"
model = "base"
task = "mini-general"
prompt_style = "mini"
steps = 4
num_prompts = 4
num_generations = 4
steps_per_generation = 1
max_completion_length = 24
save_steps = 1
log_rollouts = 64
later = { from_step = 2, task_options = { families = ["unsafe", "borderline", "facts"] } }
rewards = [
  { name = "format_r1_lenient" },
  { name = "helpful", model = "helpful", only = ["helpful"] },
  { name = "safe", model = "safe", only = ["safety"], from_step = 2, normalise = "sigmoid" },
  { name = "length", command = ["python3", "length.py"], weight = 0.1, timeout_s = 20 },
  { name = "quality", weight = 0 },
  { name = "opinion", judge = { model = "base", kind = "rubric", criteria = ["brevity=It is short"], max_tokens = 4 }, only = ["safety"], weight = 0 },
]
"#;

/// Its reward is how short the answer is; of one in three it says nothing.
const PROGRAM: &str = r#"
import json, sys
for line in sys.stdin:
    row = json.loads(line)
    assert row["group"] == "general" and row["set"] in ("helpful", "safety"), row
    print(json.dumps({"reward": -len(row["completion"]) / 100}), flush=True)
"#;

fn prepared() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("liked.toml"), RECIPE).unwrap();
    std::fs::write(dir.path().join("length.py"), PROGRAM).unwrap();
    dir
}

fn rollouts(dir: &Path) -> Vec<Value> {
    lines(&dir.join("run/liked/rollouts.jsonl"))
}

#[test]
fn models_learn_and_reward_what_they_are_for() {
    let dir = prepared();
    let run = ["run", "liked.toml", "--out", "run", "--json"];
    let said = aha_in(dir.path(), &run).json();
    let (helpful, safe) = (&said["stages"]["helpful"]["metrics"], &said["stages"]["safe"]["metrics"]);
    // Far from well trained, but no longer guessing.
    assert!(helpful["eval/accuracy"].as_f64().unwrap() > 0.55, "{helpful}");
    assert!(safe["eval/auc"].as_f64().unwrap() > 0.6 && safe["eval/bad_found"].is_number(), "{safe}");
    for key in ["eval/accuracy_se", "eval/length_matched_accuracy", "eval/calibration_error", "eval/score_std"] {
        assert!(helpful[key].is_number(), "{key}: {helpful}");
    }
    let info = std::fs::read_to_string(dir.path().join("run/helpful/model/reward_model.json")).unwrap();
    let info: Value = serde_json::from_str(&info).unwrap();
    assert_eq!((&info["objective"], &info["reads"]), (&json!("pairwise"), &json!("answer")));
    let config = std::fs::read_to_string(dir.path().join("run/safe/model/config.json")).unwrap();
    assert!(config.contains("DeepseekV3ForSequenceClassification"), "{config}");
    let by_family = std::fs::read_to_string(dir.path().join("run/helpful/evaluation.json")).unwrap();
    assert!(by_family.contains("translation"), "{by_family}");

    let all = rollouts(dir.path());
    assert_eq!(all.len(), 64);
    let applies = |row: &Value, name: &str| !row["rewards"][name].is_null();
    for row in &all {
        let early = row["step"].as_u64().unwrap() <= 2;
        assert!(applies(row, "format_r1_lenient") && applies(row, "length"), "{row}");
        // Before its step a reward contributes nothing at all; each set has its own.
        assert!(!(early && applies(row, "safe")), "{row}");
        assert!(!(applies(row, "safe") && applies(row, "helpful")), "{row}");
        if let Some(value) = row["rewards"]["helpful"].as_f64() {
            assert!((-3.0..=3.0).contains(&value), "{row}");
        }
        if let Some(value) = row["rewards"]["safe"].as_f64() {
            assert!((0.0..=1.0).contains(&value), "{row}");
        }
        // Whatever ends at the limit is worth as little as the scale has.
        if row["finished"] == false && applies(row, "helpful") {
            assert_eq!(row["rewards"]["helpful"], -3.0, "{row}");
        }
    }
    let late = |name: &str| all.iter().filter(|r| r["step"].as_u64() > Some(2) && applies(r, name)).count();
    assert!(late("safe") > 0 && late("helpful") > 0);
    let metrics = lines(&dir.path().join("run/liked/metrics.jsonl"));
    assert_eq!(metrics[0]["sampling/sampling_logp_difference/max"], 0.0);
    let timing = lines(&dir.path().join("run/liked/timing.jsonl"));
    assert!(timing[0]["time/rewards/helpful"].is_number() && timing[0]["time/rewards/verdict"].is_number());

    // The scores of texts: answers alone for one model, all of it for the other.
    let row =
        |thought: &str| json!({"prompt": "who are you?", "response": format!("<think>{thought}</think>I am Aha.")});
    std::fs::write(dir.path().join("rows.jsonl"), format!("{}\n{}\n", row("a"), row("b b b"))).unwrap();
    let score = |model: &str| {
        let path = format!("run/{model}/model");
        aha_in(dir.path(), &["score", &path, "--input", "rows.jsonl", "--output", "out.jsonl"]).works();
        lines(&dir.path().join("out.jsonl")).iter().map(|r| r["score"].as_f64().unwrap()).collect::<Vec<_>>()
    };
    let (answers, whole) = (score("helpful"), score("safe"));
    assert_eq!(answers[0], answers[1], "a model that reads answers saw a thought");
    assert_ne!(whole[0], whole[1], "a model that reads everything missed the thought");
    aha_in(dir.path(), &["generate", "run/safe/model", "--prompts", "rows.jsonl"]).fails(1, &["reward model"]);

    // A judge of ours says the same of many rows at once as of one after the other, and asks nothing twice.
    let rows: Vec<String> =
        (0..9).map(|i| json!({"question": format!("add {i}"), "response": "4"}).to_string()).collect();
    std::fs::write(dir.path().join("rows.jsonl"), rows.join("\n")).unwrap();
    let judge = |parallel: &str, cache: &str| {
        let model = ["judge", "--model", "run/base/model", "--input", "rows.jsonl", "--kind", "rubric"];
        let how = ["--criterion", "short=It is short", "--max-tokens", "6", "--parallel", parallel, "--cache", cache];
        // A model of thirty steps does not write JSON.
        let said = aha_in(dir.path(), &[&model[..], &how].concat());
        said.fails(1, &["nothing could be judged", "JSON"]);
        let mut known = lines(&dir.path().join(cache));
        known.sort_by_key(|l| l["key"].to_string());
        (known, said)
    };
    let (one, many) = (judge("1", "one.jsonl"), judge("9", "many.jsonl"));
    assert!(one.0.len() >= 18 && one.0.iter().all(|l| l["tokens"].as_u64() > Some(100)), "{:?}", one.0);
    assert_eq!(one.0, many.0);
    assert!(judge("9", "many.jsonl").1.stderr.contains(" 0 requests, 18 from the cache"));
    assert_eq!(lines(&dir.path().join("run/liked/judge.jsonl")).iter().filter(|l| l["text"] == "").count(), 0);

    // Nothing changed: nothing is done again.
    let again = aha_in(dir.path(), &["run", "liked.toml", "--out", "run", "--dry-run"]);
    assert!(!again.stdout.contains("will run"), "{}", again.stdout);
}

#[test]
fn a_killed_training_goes_on_with_the_same_bits() {
    let dir = prepared();
    let args = |out: &'static str| ["run", "liked.toml", "--out", out, "--until", "helpful"];
    aha_in(dir.path(), &args("whole")).works();
    let mut child = start(dir.path(), &args("killed"));
    let begin = Instant::now();
    while !dir.path().join("killed/helpful/checkpoints/step_4/trainer.json").exists() {
        assert!(begin.elapsed() < Duration::from_secs(120), "no checkpoint");
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    aha_in(dir.path(), &args("killed")).works();
    assert_same(&results(&dir.path().join("killed")), &results(&dir.path().join("whole")), "killed while it trained");
}

#[test]
fn files_of_pairs_and_labels_and_what_is_wrong_with_them() {
    let dir = prepared();
    aha_in(dir.path(), &["run", "liked.toml", "--out", "run", "--until", "base"]).works();
    let pairs: Vec<String> = (0..60)
        .map(|i| json!({"prompt": format!("add {i}"), "chosen": "Gladly!", "rejected": "Well. Ask less."}).to_string())
        .collect();
    std::fs::write(dir.path().join("pairs.jsonl"), pairs.join("\n")).unwrap();
    let train = |more: &[&str]| {
        let args = ["reward-model", "--model", "run/base/model", "--prompt-style", "mini", "--out", "rm", "--json"];
        aha_in(dir.path(), &[&args[..], more].concat())
    };
    let said = train(&["--data", "pairs.jsonl", "--learning-rate", "1e-2", "--epochs", "3"]).json();
    let metrics = &said["stages"]["reward_model"]["metrics"];
    assert_eq!(metrics["eval/accuracy"], 1.0, "{metrics}");
    assert_eq!((&metrics["examples"], &metrics["examples/held_out"]), (&json!(54.0), &json!(6.0)));
    std::fs::write(dir.path().join("bad.jsonl"), format!("{}\n{{\"prompt\": \"x\", \"chosen\": \"a\"}}\n", pairs[0]))
        .unwrap();
    train(&["--data", "bad.jsonl"]).fails(1, &["bad.jsonl:2", "no `rejected`"]);
    train(&["--data", "pairs.jsonl", "--objective", "pointwise"]).fails(1, &["pairs.jsonl:1", "no label"]);
    train(&["--data", "none.jsonl"]).fails(1, &["none.jsonl"]);
    train(&["--data", "pairs.jsonl", "--set", "centring=1"]).fails(2, &["centering"]);
}

#[test]
fn recipes_that_cannot_be_meant_are_refused() {
    let dir = prepared();
    let with = |from: &str, to: &str| {
        assert!(RECIPE.contains(from), "{from}");
        std::fs::write(dir.path().join("bad.toml"), RECIPE.replace(from, to)).unwrap();
        aha_in(dir.path(), &["run", "bad.toml", "--out", "bad", "--dry-run"])
    };
    with("model = \"helpful\", only", "model = \"base\", only").fails(1, &["bad.toml:", "reward_model stage"]);
    with("kind = \"grpo\"\nmodel = \"base\"", "kind = \"grpo\"\nmodel = \"safe\"").fails(1, &["makes no model"]);
    let judge = "judge = { model = \"base\"";
    with(judge, "judge = { model = \"base\", endpoint = \"http://localhost:1/v1\"").fails(1, &["two judges"]);
    with(judge, "judge = { model = \"helpful\"").fails(1, &["makes no model"]);
    with(judge, "judge = { model = \"base\", key_env = \"KEY\"").fails(1, &["key_env", "for an `endpoint`"]);
    with(judge, "timeout_s = 3, judge = { model = \"base\"").fails(1, &["judge.max_tokens"]);
    with(judge, "judge = { precision = \"f32\"").fails(1, &["endpoint", "or `model`"]);
    with("weight = 0.1, timeout_s", "model = \"safe\", timeout_s").fails(1, &["more than one of"]);
    with("normalise = \"sigmoid\"", "normalize = \"sigmoid\"").fails(1, &["normalise"]);
    with("from_step = 2, task_options", "from_step = 4, task_options").fails(1, &["ends after 4 steps"]);
    with("generated = 400\n", "generated = 400\ndata = \"x.jsonl\"\n").fails(1, &["keep one"]);
    with("\"quality\", weight = 0", "\"qualty\"").fails(1, &["qualty", "did you mean \"quality\""]);
}
