//! `aha grade`: verdicts in the order of the lines, what it says about bad input.

use crate::support::{aha, aha_in, text};
use serde_json::Value;

/// A folder of one test, removed at its end.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("aha-grade-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, content: &str) -> std::path::PathBuf {
        let path = self.0.join("in.jsonl");
        std::fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const LINES: &str = concat!(
    r#"{"id": "a", "reference": "\\frac{1}{2}", "response": "So it is \\boxed{0.5}."}"#,
    "\n",
    r#"{"id": "b", "reference": "\\frac{1}{2}", "response": "所以答案是 $\\frac{2}{3}$。"}"#,
    "\n\n",
    r#"{"id": "c", "reference": 1250, "response": "He pays $1,250 in all"}"#,
    "\n",
    r#"{"id": "d", "reference": " ", "response": "7"}"#,
    "\n",
    r#"{"id": "e", "reference": "7", "response": "10^{10^{10}}"}"#,
    "\n",
);

#[test]
fn verdicts_in_order() {
    let folder = Folder::new("order");
    let input = folder.file(LINES);
    let said = aha_in(&folder.0, &["grade", "--input", text(&input), "--output", "out.jsonl", "--json"]);
    let totals = said.json();
    for (key, wanted) in [("responses", 5), ("correct", 2), ("incorrect", 2), ("not_judged", 1)] {
        assert_eq!(totals[key], wanted, "{totals}");
    }
    let out = std::fs::read_to_string(folder.0.join("out.jsonl")).unwrap();
    let rows: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let seen: Vec<_> = rows.iter().map(|r| (r["id"].as_str().unwrap(), r["verdict"].as_str().unwrap())).collect();
    assert_eq!(seen, [("a", "correct"), ("b", "incorrect"), ("c", "correct"), ("d", "not_judged"), ("e", "incorrect")]);
    assert_eq!(rows[0]["parsed"]["answer"], "0.5");
    assert_eq!(rows[0]["parsed"]["place"], "boxed");
    assert_eq!(rows[2]["parsed"]["place"], "last_number");
    assert!(rows[3]["parsed"]["reference"].is_null());
}

#[test]
fn settings() {
    let folder = Folder::new("settings");
    let input = folder.file(
        "{\"reference\": \"0.67\", \"response\": \"The answer is 2/3\"}\n{\"reference\": \"18\", \"response\": \"She makes 18 every day\"}\n",
    );
    let correct = |options: &[&str]| {
        let arguments = [&["grade", "--input", text(&input), "--output", "out.jsonl", "--json"], options].concat();
        aha_in(&folder.0, &arguments).json()["correct"].clone()
    };
    assert_eq!(correct(&[]), 1);
    assert_eq!(correct(&["--decimals", "2"]), 2);
    assert_eq!(correct(&["--no-last-number"]), 0);
    assert_eq!(correct(&["--decimals", "2", "--no-last-number"]), 1);
}

#[test]
fn bad_input() {
    let folder = Folder::new("bad");
    let said = |content: &str| aha(&["grade", "--input", text(&folder.file(content))]);
    said("{\"reference\": \"7\"}\n").fails(1, &["in.jsonl", "no \"response\""]);
    said("{\"reference\": \"7\", \"response\": \"7\"}\n{\"reference\": [], \"response\": \"7\"}\n")
        .fails(1, &["in.jsonl:2", "\"reference\" must be text or a number"]);
    said("nonsense\n").fails(1, &["in.jsonl"]);
    aha(&["grade", "--input", "no-such-file.jsonl"]).fails(1, &["no-such-file.jsonl"]);
    aha(&["grade", "--input", "x", "--decimals", "99"]).fails(2, &["--decimals"]);
}
