//! The stages `cold_start` and `reject`: sampling, filters, decisions of people, few-shot prompting, kills, bad settings.

use crate::support::{Said, aha, aha_in, lines, start, text};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

/// An untrained model gives nothing that verifies, so what is kept comes from a file and from demonstrations; all samples go
/// through the filters all the same.
const RECIPE: &str = r#"
name = "tiny"
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
max_position_embeddings = 1024

[[stage]]
name = "cold"
kind = "cold_start"
model = "base"
task = "mini"
prompt_style = "mini"
problems = 150
samples = 2
max_completion_length = 40
rows = ["rows.jsonl"]
filters = { per_prompt = { max = 1 }, duplicates = { threshold = 0.7 } }

[[stage]]
name = "reject"
kind = "reject"
model = "base"
task = "mini"
prompt_style = "mini"
few_shot = "cold"
few_shot_examples = 2
problems = 20
samples = 2
max_completion_length = 40
rows = "rows.jsonl"
against = "eval.jsonl"
demonstrations = 40
"#;

const ROWS: &str = concat!(
    r#"{"question": "What is 3 plus 4?", "answer": "7", "response": "<think>3+4=7</think> <answer>7</answer>", "id": "r0"}"#,
    "\n",
    r#"{"question": "What is 2 plus 4?", "answer": "6", "response": "<think>2+4=6</think>\nIt is 6.", "id": "r1"}"#,
    "\n",
    r#"{"question": "What is 9 plus 4?", "answer": "13", "response": "<think>wrong</think>12", "id": "r2"}"#,
    "\n",
);

fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in
        [("tiny.toml", RECIPE), ("rows.jsonl", ROWS), ("eval.jsonl", "{\"question\": \"what is 2 plus 4\"}\n")]
    {
        std::fs::write(dir.path().join(name), content).unwrap();
    }
    dir
}

fn run(dir: &Path, more: &[&str]) -> Said {
    aha_in(dir, &[&["run", "tiny.toml", "--out", "run", "--json"], more].concat())
}

fn ids(path: &Path) -> Vec<String> {
    lines(path).iter().map(|row| row["problem"]["id"].as_str().unwrap().to_owned()).collect()
}

fn bytes(run: &Path) -> Vec<(String, Vec<u8>)> {
    let files = ["sampled.jsonl", "kept.jsonl", "messages.jsonl", "thrown.jsonl", "card.json", "card.md"];
    let names = ["cold", "reject"].iter().flat_map(|stage| files.map(|file| format!("{stage}/{file}")));
    names.map(|name| (name.clone(), std::fs::read(run.join(&name)).unwrap())).collect()
}

#[test]
fn samples_rows_and_demonstrations_become_data() {
    let dir = folder();
    let said = run(dir.path(), &[]).json();
    let (cold, reject) = (dir.path().join("run/cold"), dir.path().join("run/reject"));
    let sampled = lines(&cold.join("sampled.jsonl"));
    assert_eq!(sampled.len(), 300);
    let row = &sampled[3];
    assert_eq!(
        (&row["source"], &row["sample"], &row["sampling"]["temperature"]),
        (&json!("base"), &json!(1), &json!(1.0))
    );
    assert!(row["tokens"].as_u64().unwrap() <= 40 && row["seed"].is_u64());
    assert_eq!(ids(&cold.join("kept.jsonl")), ["r0", "r1"]);
    let kept = lines(&cold.join("candidates.jsonl"));
    assert_eq!((&kept[0]["state"], &kept[0]["who"]), (&json!("accepted"), &json!("rule:filters")));
    let metrics = &said["stages"]["cold"]["metrics"];
    assert_eq!(
        (&metrics["sampled"], &metrics["kept"], &metrics["verified"]),
        (&json!(303.0), &json!(2.0), &json!(2.0))
    );
    let thrown: f64 = metrics
        .as_object()
        .unwrap()
        .iter()
        .filter(|(k, _)| k.starts_with("thrown/"))
        .map(|(_, v)| v.as_f64().unwrap())
        .sum();
    assert_eq!(thrown, 301.0);

    // r1 is a question of the evaluation set; demonstrations need no rule.
    let kept = ids(&reject.join("kept.jsonl"));
    assert_eq!(kept[0], "r0");
    assert!(kept.len() > 20 && !kept.contains(&"r1".to_owned()), "{kept:?}");
    let card: Value = serde_json::from_slice(&std::fs::read(reject.join("card.json")).unwrap()).unwrap();
    assert_eq!(card["input"]["by_source"], json!({"base": 40, "demonstrations": 40, "rows": 3}));
    assert_eq!((&card["checks"]["overlapping"], &card["checks"]["incorrect"]), (&json!(0), &json!(0)));
    assert!(card["checks"]["evaluation_texts"].as_u64().unwrap() > 200);
    let messages = lines(&reject.join("messages.jsonl"));
    assert_eq!(
        messages[0]["messages"][1],
        json!({"role": "assistant", "content": "<think>3+4=7</think>The answer is \\boxed{7}"})
    );

    // Finished stages are kept; a changed filter runs its stage and what depends on it again, and nothing else.
    let again = run(dir.path(), &["--dry-run", "--set", "cold.filters.per_prompt.max=2"]);
    let planned = again.json()["stages"].as_array().unwrap().iter().map(|s| s["action"].clone()).collect::<Vec<_>>();
    assert_eq!(planned, ["keep", "keep", "run again", "run again"]);
    let first = bytes(&dir.path().join("run"));
    run(dir.path(), &[]).json();
    assert!(first == bytes(&dir.path().join("run")));

    // Killed while sampling, it goes on and leaves the same bytes.
    let other = folder();
    let mut child = start(other.path(), &["run", "tiny.toml", "--out", "run"]);
    let (path, begin) = (other.path().join("run/cold/sampled.jsonl"), Instant::now());
    while std::fs::metadata(&path).map_or(0, |m| m.len()) == 0 && begin.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    std::io::Write::write_all(&mut file, b"{\"id\":\"torn").unwrap();
    run(other.path(), &[]).json();
    for (a, b) in first.iter().zip(bytes(&other.path().join("run"))) {
        assert!(*a == b, "{} differs", a.0);
    }
}

#[test]
fn a_run_waits_for_people() {
    let dir = folder();
    let people = ["--set", "cold.decide=people", "--until", "cold"];
    let waiting = run(dir.path(), &people);
    assert_eq!(waiting.code, 1, "{}", waiting.stderr);
    assert!(
        waiting.stderr.contains("2 candidates wait for people: `aha annotate run --stage cold`"),
        "{}",
        waiting.stderr
    );
    assert!(!dir.path().join("run/cold/kept.jsonl").exists());
    let annotate = |commands: &str| {
        std::fs::write(dir.path().join("commands"), commands).unwrap();
        let mut command = crate::support::command(&["annotate", text(&dir.path().join("run")), "--json"]);
        command.env("EDITOR", "sed -i s/3+4=7/7/").stdin(std::fs::File::open(dir.path().join("commands")).unwrap());
        crate::support::said(&mut command).json()
    };
    annotate("e\n");
    let still = run(dir.path(), &people);
    assert!(still.code == 1 && still.stderr.contains("1 candidates wait for people"), "{}", still.stderr);
    annotate("r says too little\n");
    run(dir.path(), &people).json();
    let kept = lines(&dir.path().join("run/cold/kept.jsonl"));
    assert_eq!((kept.len(), &kept[0]["completion"]), (1, &json!("<think>7</think>The answer is \\boxed{7}")));
    let card = std::fs::read_to_string(dir.path().join("run/cold/card.md")).unwrap();
    assert!(card.contains("### decided: rejected 1") && card.contains("says too little"), "{card}");
}

#[test]
fn bad_settings_are_named() {
    let dir = folder();
    let said = |set: &str| aha_in(dir.path(), &["run", "tiny.toml", "--out", "run", "--dry-run", "--set", set]);
    said("cold.filters.langage.min_share=1")
        .fails(2, &["cold.filters.langage.min_share", "unknown field", "`language`"]);
    said("cold.filters.language.min_share=3").fails(2, &["cold.filters.language.min_share", "between 0 and 1"]);
    said("cold.filters.duplicates.band=3").fails(2, &["cold.filters.duplicates.band", "`bands`"]);
    said("cold.filters.skip=[\"codes\"]").fails(2, &["cold.filters.skip", "`code`"]);
    said("cold.decide=everyone").fails(2, &["cold.decide", "people"]);
    said("reject.few_shot=base").fails(2, &["reject.few_shot", "pretrain stage", "makes no data"]);
    said("reject.model=cold").fails(2, &["reject.model", "makes no model"]);
    said("reject.few_shot=cald").fails(2, &["cold"]);
    said("reject.sample=4").fails(2, &["reject.sample", "samples"]);
    said("reject.rows=none.jsonl").fails(1, &["none.jsonl"]);
    aha(&["run", text(&dir.path().join("tiny.toml")), "--out", text(&dir.path().join("x")), "--set", "cold.samples=0"])
        .fails(2, &["cold.samples", "at least 1"]);
}
