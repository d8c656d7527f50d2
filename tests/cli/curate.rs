//! `aha curate`: rows in, training data and a data card out, what it says about bad settings and files.

use crate::support::{aha, aha_in, lines, text};
use serde_json::Value;
use std::path::Path;

const ROWS: &str = concat!(
    r#"{"question": "What is 3 plus 4?", "answer": "7", "response": "<think>3+4=7</think> <answer>7</answer>", "task": "sum"}"#,
    "\n",
    r#"{"question": "What is 3 plus 4?", "answer": "7", "response": "<think>it must be nine</think>9", "task": "sum"}"#,
    "\n",
    r#"{"question": "What is 2 plus 2?", "answer": "4", "response": "<think>所以答案是四</think>4", "task": "sum"}"#,
    "\n",
    r#"{"question": "A duck lays 16 eggs per day and three of them are eaten, how many are left?", "answer": "13", "response": "<think>16-3=13</think>13", "task": "word"}"#,
    "\n",
    r#"{"question": "What is 5 plus 4?", "answer": "9", "response": "9", "task": "sum"}"#,
    "\n",
    r#"{"question": "What is 6 plus 4?", "answer": "10", "response": "<think>6+4=10</think>\nIt is 10.", "task": "sum"}"#,
    "\n",
);

const EVAL: &str =
    "{\"question\": \"Ann's duck lays 16 eggs per day, and three of them are eaten. How many remain?\"}\n";

fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("rows.jsonl"), ROWS).unwrap();
    std::fs::write(dir.path().join("eval.jsonl"), EVAL).unwrap();
    dir
}

fn thrown(dir: &Path) -> Vec<(String, String)> {
    let name = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
    lines(&dir.join("out/thrown.jsonl")).iter().map(|row| (name(row, "filter"), name(row, "kind"))).collect()
}

#[test]
fn rows_become_training_data_with_a_card() {
    let dir = folder();
    let arguments = ["curate", "--in", "rows.jsonl", "--out", "out", "--against", "eval.jsonl"];
    let arguments = [&arguments[..], &["--filter", "decontamination.words=8", "--json"]].concat();
    let said = aha_in(dir.path(), &arguments).json();
    assert_eq!((&said["rows"], &said["kept"]), (&6.into(), &2.into()), "{said}");
    assert_eq!(said["checks"]["verified"], 2);
    assert_eq!(said["checks"]["overlapping"], 0);
    let wanted = [
        ("shape", "thinking not closed"),
        ("correct", "incorrect"),
        ("language", "mixed languages"),
        ("decontamination", "words of an evaluation problem"),
    ];
    let found = thrown(dir.path());
    assert_eq!(found.iter().map(|(f, k)| (f.as_str(), k.as_str())).collect::<Vec<_>>(), wanted);
    let kept = lines(&dir.path().join("out/kept.jsonl"));
    assert_eq!(kept[0]["completion"], "<think>3+4=7</think>The answer is \\boxed{7}");
    assert_eq!(kept[0]["pass_rate"], 0.5);
    let messages = lines(&dir.path().join("out/messages.jsonl"));
    assert_eq!(messages[1]["messages"][0]["content"], "What is 6 plus 4?");
    let card = std::fs::read_to_string(dir.path().join("out/card.md")).unwrap();
    for part in ["2 of 6 rows kept", "mixed languages 1", "rows.jsonl", "16 eggs per day"] {
        assert!(card.contains(part), "{part}\n{card}");
    }
    let card: Value = serde_json::from_slice(&std::fs::read(dir.path().join("out/card.json")).unwrap()).unwrap();
    assert_eq!(card["inputs"][0]["rows"], 6);
    assert_eq!(card["settings"]["decontamination"]["words"], 8);

    // The same rows and settings give the same bytes; what was kept is kept again.
    let read = |name: &str| std::fs::read(dir.path().join(name)).unwrap();
    let before = ["out/kept.jsonl", "out/thrown.jsonl", "out/card.json", "out/card.md"].map(read);
    aha_in(dir.path(), &arguments).json();
    assert_eq!(before, ["out/kept.jsonl", "out/thrown.jsonl", "out/card.json", "out/card.md"].map(read));
    let again = aha_in(dir.path(), &["curate", "--in", "out/kept.jsonl", "--out", "again", "--json"]).json();
    assert_eq!(again["kept"], 2);
    assert_eq!(read("out/kept.jsonl"), read("again/kept.jsonl"));
}

#[test]
fn settings_of_file_and_flags() {
    let dir = folder();
    std::fs::write(dir.path().join("s.toml"), "[language]\nmin_share = 0.0\n[per_prompt]\nmax = 1\n").unwrap();
    let kept = |more: &[&str]| {
        let arguments = [&["curate", "--in", "rows.jsonl", "--out", "out", "--json"], more].concat();
        aha_in(dir.path(), &arguments).json()["kept"].clone()
    };
    assert_eq!(kept(&[]), 3);
    assert_eq!(kept(&["--settings", "s.toml"]), 4);
    assert_eq!(kept(&["--settings", "s.toml", "--filter", "language.min_share=1"]), 3);
    assert_eq!(kept(&["--filter", "language=off", "--filter", "correct=off"]), 5);
    assert_eq!(kept(&["--filter", "balance.tasks.word=1"]), 1);
    assert_eq!(kept(&["--filter", "per_prompt.choose=shortest", "--filter", "duplicates.of=question"]), 3);
}

#[test]
fn bad_settings_and_files() {
    let dir = folder();
    let said = |more: &[&str]| aha_in(dir.path(), &[&["curate", "--in", "rows.jsonl", "--out", "out"], more].concat());
    said(&["--filter", "languages.min_share=1"]).fails(2, &["languages.min_share=1", "unknown field", "language"]);
    said(&["--filter", "language.min_share"]).fails(2, &["KEY=VALUE"]);
    said(&["--filter", "language.min_share=2"]).fails(2, &["language.min_share", "between 0 and 1"]);
    said(&["--filter", "skip=code"]).fails(2, &["skip=code"]);
    std::fs::write(dir.path().join("s.toml"), "\n[length]\nmost = 1\n").unwrap();
    said(&["--settings", "s.toml"]).fails(1, &["s.toml", "line 3", "unknown field `most`"]);
    said(&["--against", "none.jsonl"]).fails(1, &["none.jsonl"]);
    std::fs::write(dir.path().join("bad.jsonl"), "{\"question\": \"a\", \"response\": \"b\"}\n{\"question\": 1}\n")
        .unwrap();
    aha_in(dir.path(), &["curate", "--in", "bad.jsonl", "--out", "out"]).fails(1, &["bad.jsonl:2", "\"question\""]);
    aha(&["curate", "--in", "rows.jsonl"]).fails(2, &["--out"]);
    assert!(!dir.path().join("out").exists(), "nothing is written before everything is read");
    aha(&["curate", "--in", text(dir.path()), "--out", "out"]).fails(1, &["cannot read"]);
}
