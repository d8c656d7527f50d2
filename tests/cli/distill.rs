//! Distillation: `distill` stages in every method, exact resume after a kill, `aha distill`, a teacher behind an endpoint,
//! and what is refused.

use crate::judge::serve;
use crate::runs::{assert_same, results};
use crate::sft::rows;
use crate::support::{Said, aha_in, lines, start};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

const RECIPE: &str = r#"
name = "taught"
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
name = "teacher"
kind = "sft"
model = "base"
data = ["rows.jsonl"]
prompt_style = "mini"
epochs = 12
batch_tokens = 256
learning_rate = 1e-2
validation_rows = 4

[[stage]]
name = "student"
kind = "distill"
teacher = "teacher"
method = "forward_kl"
data = ["rows.jsonl"]
top_k = 8
prompt_style = "mini"
epochs = 12
batch_tokens = 256
learning_rate = 1e-2
validation_rows = 4
validate_every = 10
save_steps = 2

[stage.model]
hidden_size = 16
intermediate_size = 48
num_hidden_layers = 1
num_attention_heads = 2
max_position_embeddings = 128
"#;

fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("taught.toml"), RECIPE).unwrap();
    std::fs::write(dir.path().join("rows.jsonl"), rows()).unwrap();
    dir
}

fn run(dir: &Path, out: &str, more: &[&str]) -> Said {
    aha_in(dir, &[&["run", "taught.toml", "--out", out, "--json"], more].concat())
}

#[test]
fn a_fresh_student_learns_and_a_killed_stage_ends_the_same() {
    let dir = folder();
    let summary = run(dir.path(), "whole", &[]).json();
    let metrics = &summary["stages"]["student"]["metrics"];
    assert_eq!((&metrics["examples"], &metrics["examples/too_long"]), (&json!(36.0), &json!(1.0)), "{metrics}");
    for name in ["loss/ce", "eval_loss", "eval_kl", "num_predicted_tokens", "epoch"] {
        assert!(metrics[name].as_f64().unwrap() > 0.0, "{name}: {metrics}");
    }
    let mass = metrics["teacher/top_k_mass"].as_f64().unwrap();
    assert!(mass > 0.5 && mass < 1.0, "{metrics}");
    let log = lines(&dir.path().join("whole/student/metrics.jsonl"));
    let kl: Vec<f64> = log.iter().map(|line| line["loss/kl"].as_f64().unwrap()).collect();
    assert!(kl.last().unwrap() < &(0.3 * kl[0]), "{kl:?}");
    let model = dir.path().join("whole/student/model");
    let config: Value = serde_json::from_slice(&std::fs::read(model.join("config.json")).unwrap()).unwrap();
    assert_eq!(config["hidden_size"], 16);
    let read = |name: &str| std::fs::read(dir.path().join(name)).unwrap();
    assert_eq!(read("whole/student/model/tokenizer.json"), read("whole/teacher/model/tokenizer.json"));
    // Killed twice while it trains.
    for _ in 0..2 {
        let mut child = start(dir.path(), &["run", "taught.toml", "--out", "killed"]);
        let begin = Instant::now();
        let steps = || std::fs::read_dir(dir.path().join("killed/student/checkpoints")).map_or(0, |d| d.count());
        let before = steps();
        while steps() <= before.min(1) && begin.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(3));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    run(dir.path(), "killed", &[]).json();
    assert_same(&results(&dir.path().join("whole")), &results(&dir.path().join("killed")), "killed twice");
    assert!(read("whole/student/teacher.topk") == read("killed/student/teacher.topk"));
}

#[test]
fn every_method_runs_and_on_policy_learns_from_its_own_answers() {
    let dir = folder();
    let set = |more: &[&str]| -> Value {
        let sets: Vec<&str> = more.iter().flat_map(|set| ["--set", set]).collect();
        run(dir.path(), "out", &sets).json()["stages"]["student"]["metrics"].clone()
    };
    set(&["student.max_steps=3", "student.alpha=0.5"]);
    for method in ["student.method=reverse_kl", "student.method=jsd"] {
        let metrics = set(&["student.max_steps=3", method]);
        assert!(metrics["loss"].as_f64() == metrics["loss/kl"].as_f64(), "{metrics}");
    }
    let recipe = RECIPE.replace("top_k = 8\n", "").replace("forward_kl", "sft");
    std::fs::write(dir.path().join("taught.toml"), &recipe).unwrap();
    let metrics = set(&["student.max_steps=3"]);
    assert!(metrics.get("loss/kl").is_none() && metrics["loss"].as_f64().unwrap() > 0.0, "{metrics}");
    let (before, mut stage) = RECIPE.split_once("name = \"student\"").map(|(a, b)| (a, b.to_owned())).unwrap();
    stage = stage.replace("data = [\"rows.jsonl\"]\n", "task = \"chain\"\nsteps = 4\nnum_prompts = 4\n");
    for key in ["epochs = 12\n", "batch_tokens = 256\n", "validation_rows = 4\n"] {
        stage = stage.replace(key, "");
    }
    let held_out = "max_completion_length = 24\nvalidation_problems = 3\nvalidate_every = 2\n";
    stage = stage.replace("validate_every = 10\n", held_out).replace("forward_kl", "on_policy");
    std::fs::write(dir.path().join("taught.toml"), format!("{before}name = \"student\"{stage}")).unwrap();
    let metrics = set(&[]);
    for name in ["loss/kl", "accuracy", "completions/mean_length", "completions/clipped_ratio", "eval_accuracy"] {
        assert!(metrics[name].as_f64().is_some(), "{name}: {metrics}");
    }
    let validated = |line: &Value| line["eval_kl"].as_f64().is_some_and(|kl| kl > 0.0);
    let log = lines(&dir.path().join("out/student/metrics.jsonl"));
    assert_eq!(log.iter().map(validated).collect::<Vec<_>>(), [false, true, false, true], "{log:?}");
    assert_eq!(lines(&dir.path().join("out/student/rollouts.jsonl")).len(), 16);
}

#[test]
fn the_command_teaches_a_folder() {
    let dir = folder();
    run(dir.path(), "runs", &["--until", "teacher"]).json();
    let args = ["distill", "--student", "runs/base/model", "--data", "rows.jsonl", "--prompt-style", "mini", "--json"];
    let with = |more: &[&str]| aha_in(dir.path(), &[&args[..], &["--max-steps", "3"], more].concat());
    let kl = ["--teacher", "runs/teacher/model", "--method", "forward_kl", "--top-k", "16", "--out", "a"];
    let summary = with(&kl).json();
    assert!(summary["stages"]["distill"]["metrics"]["loss/kl"].as_f64().unwrap() > 0.0, "{summary}");
    assert!(dir.path().join("a/distill/model/tokenizer.json").is_file());
    // A file of traces is a teacher of texts.
    std::fs::write(dir.path().join("more.jsonl"), json!({"prompt": "3+4?", "completion": "7"}).to_string()).unwrap();
    let summary = with(&["--teacher", "more.jsonl", "--out", "b"]).json();
    assert_eq!(summary["stages"]["distill"]["metrics"]["examples"], 37.0, "{summary}");
    with(&["--teacher", "more.jsonl", "--method", "reverse_kl"]).fails(2, &["distill.teacher", "distribution"]);
}

#[test]
fn other_tokens_are_refused_where_distributions_are_compared() {
    let dir = folder();
    run(dir.path(), "one", &["--until", "base"]).json();
    run(dir.path(), "two", &["--until", "base", "--set", "corpus.vocab_size=370"]).json();
    let args = ["distill", "--student", "one/base/model", "--teacher", "two/base/model", "--data", "rows.jsonl"];
    let more = ["--prompt-style", "mini", "--max-steps", "2", "--json"];
    let with =
        |method: &str| aha_in(dir.path(), &[&args[..], &more[..], &["--method", method, "--out", method]].concat());
    with("forward_kl").fails(1, &["two/base/model", "token ", "method = \"sft\""]);
    with("sft").json();
}

/// The number that a chat template of the endpoint's would have been asked for.
fn asked(request: &Value) -> String {
    request["messages"].as_array().unwrap().last().unwrap()["content"].as_str().unwrap().to_owned()
}

#[test]
fn a_teacher_behind_an_endpoint_is_asked_once_and_only_its_right_answers_are_kept() {
    let dir = folder();
    run(dir.path(), "runs", &["--until", "base"]).json();
    let problems: Vec<String> =
        (0..12).map(|i| json!({"question": format!("what is {i}+1?"), "answer": i + 1}).to_string()).collect();
    std::fs::write(dir.path().join("problems.jsonl"), problems.join("\n")).unwrap();
    // Thinks apart from its answer, is wrong about 3, is cut off at 4, and fails once.
    let server = serve(|number, r| {
        let n: i64 = asked(r).trim_start_matches("what is ").split('+').next().unwrap().parse().unwrap();
        if number == 2 {
            return (503, "Retry-After: 0\r\n".into(), "busy".into());
        }
        let answer = if n == 3 { 99 } else { n + 1 };
        let message = json!({"content": format!("<answer>{answer}</answer>"), "reasoning_content": "one more"});
        let finish = if n == 4 { "length" } else { "stop" };
        let body = json!({"choices": [{"message": message, "finish_reason": finish}], "usage": {"total_tokens": 10}});
        (200, String::new(), body.to_string())
    });
    let data = format!("task_options.data={}", dir.path().join("problems.jsonl").display());
    let args = ["distill", "--student", "runs/base/model", "--teacher", &server.url, "--task", "jsonl"];
    let more = ["--prompt-style", "mini", "--max-steps", "2", "--set", &data, "--set", "endpoint.concurrency=1"];
    let with = |last: &[&str]| aha_in(dir.path(), &[&args[..], &more[..], &["--json"], last].concat());
    let said = with(&["--out", "out"]);
    said.json();
    assert!(said.stderr.contains("answers are kept"), "{}", said.stderr);
    let kept = lines(&dir.path().join("out/distill/messages.jsonl"));
    let answers = lines(&dir.path().join("out/distill/answers.jsonl")).len();
    // The task holds some of its rows out.
    assert!(answers > 7 && kept.len() + 2 >= answers && kept.len() < answers, "{} of {answers}", kept.len());
    let text = kept[0]["messages"][1]["content"].as_str().unwrap();
    assert!(text.starts_with("<think>\none more\n</think>\n\n<answer>"), "{text}");
    let made = server.asked.lock().unwrap().len();
    assert_eq!(made, answers + 1);
    // Finished: nothing is asked. Begun again in the same folder: what was answered is known.
    with(&["--out", "out"]).json();
    std::fs::remove_file(dir.path().join("out/run.db")).unwrap();
    with(&["--out", "out"]).json();
    assert_eq!(server.asked.lock().unwrap().len(), made);
    with(&["--out", "few", "--set", "endpoint.max_requests=1", "--set", "endpoint.only_correct=false"]).json();
    assert_eq!(lines(&dir.path().join("few/distill/messages.jsonl")).len(), 1);
}

/// A refusal with the exit code that belongs to its place.
struct Mistake {
    code: i32,
    said: Said,
}

impl Mistake {
    fn fails(&self, words: &[&str]) {
        self.said.fails(self.code, words);
    }
}

#[test]
fn bad_settings_are_named() {
    let dir = folder();
    let said = |sets: &[&str]| {
        let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
        let said = aha_in(dir.path(), &[&["run", "taught.toml", "--out", "x", "--dry-run"], &sets[..]].concat());
        // What stands in the file is the recipe's mistake, a flag is wrong usage.
        Mistake { code: if said.stderr.contains("taught.toml:") { 1 } else { 2 }, said }
    };
    said(&["student.topk=3"]).fails(&["student.topk", "top_k"]);
    said(&["student.top_k=0"]).fails(&["student.top_k", "at least 1"]);
    said(&["student.method=backward_kl"]).fails(&["student.method", "`reverse_kl`"]);
    said(&["student.student=base"]).fails(&["student.student", "student.model", "one of"]);
    said(&["student.jsd_beta=0.5"]).fails(&["student.jsd_beta", "jsd"]);
    said(&["student.method=jsd", "student.jsd_beta=0"]).fails(&["student.jsd_beta", "above 0"]);
    said(&["student.alpha=2"]).fails(&["student.alpha", "between 0 and 1"]);
    said(&["student.num_prompts=2"]).fails(&["student.num_prompts", "on_policy"]);
    said(&["student.method=on_policy"]).fails(&["student.data", "on_policy"]);
    said(&["student.method=sft"]).fails(&["student.top_k", "compare distributions"]);
    said(&["student.teacher=http://localhost:1/v1"]).fails(&["student.teacher", "tokenizer"]);
    said(&["student.teacher=corpus"]).fails(&["student.teacher", "makes no model"]);
    said(&["student.endpoint.name=x"]).fails(&["student.endpoint", "address"]);
    said(&["student.max_length=9000"]).fails(&["student.max_length", "128 positions"]);
    said(&["student.data=base"]).fails(&["`base`", "makes no data"]);
}
