//! Table stages: evaluations side by side in `tables.json`, `tables.md` and the report; few-shot evaluation; what is refused.

use crate::support::aha_in;
use serde_json::Value;

const RECIPE: &str = r#"
name = "compared"
seed = 5

[[stage]]
name = "corpus"
kind = "corpus"
documents_for_tokenizer = 300
vocab_size = 400
corpus = { general = 0.6, code = 0.1 }

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
architecture = "qwen3"
hidden_size = 32
intermediate_size = 64
num_hidden_layers = 2
num_attention_heads = 2
max_position_embeddings = 512

[[stage]]
name = "liked"
kind = "reward_model"
model = "base"
generated = 120
validation_rows = 20
prompt_style = "mini"
batch_size = 16
learning_rate = 3e-3

[[stage]]
name = "measure"
kind = "eval"
model = ["base", "base"]
label = ["first", "second"]
task = "mini-r1"
task_options = { shares = { reasoning = 0.3, code = 0.1, general = 0.6 } }
prompt_style = "mini"
problems = 40
samples = 2
max_completion_length = 24

[[stage]]
name = "shown"
kind = "eval"
model = "base"
label = "shown"
few_shot = "rows.jsonl"
few_shot_examples = 2
task = "mini-r1"
prompt_style = "mini"
problems = 4
samples = 2
max_completion_length = 24

[[stage]]
name = "tables"
kind = "table"
checkpoints = ["first", "second"]
prompting = ["first", "shown"]
preferences = ["first:second"]
preference_model = "liked"
"#;

fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("compared.toml"), RECIPE).unwrap();
    let row = |a: u32| format!(r#"{{"prompt": "what is {a} plus 1?", "completion": "<think>{a}+1</think>{}"}}"#, a + 1);
    std::fs::write(dir.path().join("rows.jsonl"), (1..6).map(|a| row(a) + "\n").collect::<String>()).unwrap();
    dir
}

#[test]
fn evaluations_stand_side_by_side() {
    let dir = folder();
    let run = ["run", "compared.toml", "--out", "run", "--json"];
    aha_in(dir.path(), &run).json();
    let read = |name: &str| std::fs::read_to_string(dir.path().join("run").join(name)).unwrap();
    let tables: Vec<Value> = serde_json::from_str(&read("tables/tables.json")).unwrap();
    let titles: Vec<&str> = tables.iter().map(|t| t["title"].as_str().unwrap()).collect();
    assert_eq!(titles, ["Stages", "Safety", "What R1 is weak at", "Preferences", "Prompting"]);
    let columns: Vec<&str> = tables[0]["columns"].as_array().unwrap().iter().map(|c| c.as_str().unwrap()).collect();
    for group in ["pass@1 reasoning", "pass@1 code", "pass@1 helpful", "pass@1 safety", "readable", "format"] {
        assert!(columns.contains(&group), "{columns:?}");
    }
    // Both labels are one model with one seed: nobody is preferred, by anybody.
    for cell in tables[3]["rows"][0][1].as_array().unwrap() {
        assert_eq!(cell["value"], 0.5, "{}", tables[3]);
    }
    let rows = tables[0]["rows"].as_array().unwrap();
    assert_eq!((&rows[0][0], &rows[1][0]), (&"first".into(), &"second".into()));
    assert_eq!(rows[0][1], rows[1][1]);
    let prompting = tables[4]["rows"].as_array().unwrap();
    assert_ne!(prompting[0][1], prompting[1][1], "worked examples change nothing");
    assert!(read("tables/tables.md").contains("| first over second | 0.500"));
    assert!(read("report.html").contains("first over second"));
    // What a table is made of decides whether it is made again.
    let plan = |set: &str| aha_in(dir.path(), &[&run[..4], &["--dry-run", "--set", set]].concat()).stdout;
    let line = |text: &str, stage: &str| -> Vec<String> {
        let found = text.lines().find(|l| l.starts_with(stage)).unwrap_or_default();
        found.split_whitespace().map(str::to_owned).collect()
    };
    let same = plan("seed=5");
    assert_eq!(line(&same, "tables")[..3], ["tables", "table", "keep"], "{same}");
    let other = plan("measure.samples=3");
    assert_ne!(line(&other, "tables")[2], "keep", "{other}");
    assert_eq!(line(&same, "liked"), line(&other, "liked"));
}

#[test]
fn labels_that_are_not_there_are_refused() {
    let dir = folder();
    let with = |from: &str, to: &str| {
        std::fs::write(dir.path().join("bad.toml"), RECIPE.replace(from, to)).unwrap();
        aha_in(dir.path(), &["run", "bad.toml", "--out", "bad", "--dry-run"])
    };
    with("checkpoints = [\"first\", \"second\"]", "checkpoints = [\"hut\"]").fails(1, &["bad.toml:", "hut"]);
    with("[\"first:second\"]", "[\"first\"]").fails(1, &["bad.toml:", "A:B"]);
    with("preference_model = \"liked\"", "preference_model = \"base\"").fails(1, &["reward_model stage"]);
}
