//! `aha annotate`: decisions from piped commands, each on disk at once; editing, undo, rules, kills, bad input.

use crate::support::{Said, aha, aha_in, command, lines, said, text};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;

fn candidate(id: &str, completion: &str) -> Value {
    let problem = json!({
        "id": format!("sum/{id}"), "family": "sum", "language": "english", "question": format!("{id}: what is 3 plus 4?"),
        "reference": {"integer": 7},
    });
    json!({"id": id, "problem": problem, "completion": completion, "source": "zero", "tokens": 12})
}

/// A run with one stage of four candidates: right, wrong, badly shaped, right.
fn run() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let stage = dir.path().join("cold_start");
    std::fs::create_dir(&stage).unwrap();
    let path = stage.join("candidates.jsonl");
    let rows = [
        candidate("a", "<think>3+4=7, wait, yes</think> <answer>7</answer>"),
        candidate("b", "<think>3+4=8</think> <answer>8</answer>"),
        candidate("c", "7"),
        candidate("d", "<think>four and three</think>7"),
    ];
    std::fs::write(&path, rows.map(|row| format!("{row}\n")).concat()).unwrap();
    (dir, path)
}

/// `aha annotate` with these commands piped in.
fn annotate(dir: &Path, arguments: &[&str], input: &str, editor: Option<&str>) -> Said {
    std::fs::write(dir.join("commands"), input).unwrap();
    let mut command = command(&[&["annotate", text(dir), "--who", "ada"], arguments].concat());
    command.stdin(std::fs::File::open(dir.join("commands")).unwrap()).env_remove("VISUAL").env_remove("EDITOR");
    if let Some(editor) = editor {
        command.env("EDITOR", editor);
    }
    said(&mut command)
}

fn states(path: &Path) -> Vec<(String, String)> {
    let mut states: Vec<(String, String)> = Vec::new();
    for row in lines(path) {
        match row.get("decided") {
            Some(id) => {
                let at = states.iter().position(|s| s.0 == id.as_str().unwrap()).unwrap();
                states[at].1 = row["state"].as_str().unwrap().to_owned();
            }
            None => {
                let state = row.get("state").map_or("new", |s| s.as_str().unwrap());
                states.push((row["id"].as_str().unwrap().to_owned(), state.to_owned()));
            }
        }
    }
    states
}

fn all(path: &Path) -> String {
    states(path).iter().map(|(_, state)| &state[..1]).collect()
}

#[test]
fn accept_reject_skip_and_go_on() {
    let (dir, path) = run();
    let first = annotate(dir.path(), &[], "a\nr the sum is wrong\ns\nq\n", None);
    assert_eq!(first.code, 0, "{}", first.stderr);
    for part in ["[1/4] a", "a: what is 3 plus 4?", "3+4=7, wait, yes", "verdict  correct (reference 7)"] {
        assert!(first.stdout.contains(part), "{part}\n{}", first.stdout);
    }
    assert!(first.stdout.contains("verdict  incorrect"), "{}", first.stdout);
    assert!(first.stdout.contains("thinking not closed"), "{}", first.stdout);
    assert_eq!(all(&path), "arnn");
    let rows = lines(&path);
    assert_eq!((&rows[1]["reason"], &rows[1]["who"]), (&json!("the sum is wrong"), &json!("ada")));
    assert!(rows[1]["when"].as_f64().unwrap() > 1.7e9);
    // Only what is new comes again; the end of the input is the end of the session.
    let second = annotate(dir.path(), &["--stage", "cold_start", "--json"], "?\n\nx\nr\nno tags\n", None);
    assert_eq!(second.json(), json!({"accepted": 1, "edited": 0, "rejected": 2, "new": 1}));
    assert!(second.stderr.contains("[1/2] c") && !second.stderr.contains("[1/2] a"), "{}", second.stderr);
    assert!(second.stderr.contains("unknown command \"x\""), "{}", second.stderr);
    assert_eq!(all(&path), "arrn");
}

#[test]
fn undo_goes_back_as_often_as_wanted() {
    let (dir, path) = run();
    let said = annotate(dir.path(), &[], "u\na\nr no\nu\nu\nr changed my mind\n", None);
    assert!(said.stderr.contains("nothing to undo"), "{}", said.stderr);
    assert_eq!(all(&path), "rnnn");
    assert_eq!(lines(&path)[0]["reason"], "changed my mind");
    // A rejection needs a reason.
    let said = annotate(dir.path(), &[], "r\n\nq\n", None);
    assert!(said.stderr.contains("a reason is needed"), "{}", said.stderr);
    assert_eq!(all(&path), "rnnn");
}

#[test]
fn editing_is_judged_again() {
    let (dir, path) = run();
    let fix = "sed -i s/8/7/g";
    let said = annotate(dir.path(), &[], "s\ne\ne\nd\nq\n", Some(fix));
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert_eq!(all(&path), "nenn");
    let row = &lines(&path)[1];
    assert_eq!(row["edited"], "<think>3+4=7</think> <answer>7</answer>");
    assert_eq!(row["completion"], "<think>3+4=8</think> <answer>8</answer>", "the original stays");
    assert!(said.stderr.contains("nothing was changed"), "sed changes nothing in c: {}", said.stderr);

    // An edit that makes it wrong is only kept when asked for.
    let spoil = "sed -i s/7/9/g";
    let said = annotate(dir.path(), &[], "e\nd\ne\nk\nq\n", Some(spoil));
    assert!(said.stderr.contains("is judged incorrect"), "{}", said.stderr);
    assert_eq!(all(&path), "eenn");
    for (editor, problem) in [(None, "no editor"), (Some("false"), "the editor false failed")] {
        let said = annotate(dir.path(), &[], "e\nq\n", editor);
        assert!(said.code == 0 && said.stderr.contains(problem), "{}", said.stderr);
    }
    assert_eq!(all(&path), "eenn");
}

#[test]
fn a_rule_decides_what_it_can() {
    let (dir, path) = run();
    annotate(dir.path(), &[], "r by hand\nq\n", None);
    let mut open = candidate("e", "<think>x</think>hello");
    open["problem"]["reference"] = json!({"check": {"open": {"mentions": []}}});
    let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    writeln!(file, "{open}").unwrap();
    let said = aha(&["annotate", text(dir.path()), "--rule", "accept-correct", "--json"]);
    assert_eq!(said.json(), json!({"accepted": 1, "edited": 0, "rejected": 3, "new": 1}));
    assert_eq!(all(&path), "rrran");
    let rows = lines(&path);
    assert_eq!((&rows[0]["reason"], &rows[0]["who"]), (&json!("by hand"), &json!("ada")));
    let by_rule = |i: usize| (rows[i]["reason"].as_str().unwrap_or(""), rows[i]["who"].as_str().unwrap());
    assert_eq!(by_rule(1), ("incorrect", "rule:accept-correct"));
    assert_eq!(by_rule(2), ("thinking not closed", "rule:accept-correct"));
    assert_eq!(by_rule(3), ("", "rule:accept-correct"));

    // What was decided is what goes on.
    let out = dir.path().join("out");
    let arguments = ["curate", "--in", text(&path), "--out", text(&out), "--filter", "decided.required=true", "--json"];
    let said = aha(&arguments).json();
    assert_eq!((&said["kept"], &said["thrown"]["decided"]), (&json!(1), &json!(4)));
    // kept.jsonl can be annotated too, and is then not overwritten.
    assert_eq!(aha(&["annotate", text(&out.join("kept.jsonl")), "--json"]).json()["accepted"], 1);
    let mut kept = lines(&out.join("kept.jsonl"));
    kept[0]["state"] = json!("rejected");
    std::fs::write(out.join("kept.jsonl"), format!("{}\n", kept[0])).unwrap();
    aha(&arguments).fails(1, &["kept.jsonl", "1 decisions that would be lost"]);
}

/// Killed after the second decision was acknowledged by showing the third candidate: both are there.
#[test]
fn a_kill_loses_nothing() {
    let (dir, path) = run();
    let mut child = command(&["annotate", text(dir.path()), "--who", "ada"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"a fine\nr wrong\n").unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("[3/4]") {
        line.clear();
        assert!(out.read_line(&mut line).unwrap() > 0, "the third candidate is shown");
    }
    // Somebody else may not decide meanwhile.
    aha(&["annotate", text(dir.path())]).fails(1, &["candidates.jsonl", "someone else"]);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(all(&path), "arnn");
    // A line torn by the kill is dropped.
    let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"{\"decided\":\"c\",\"sta").unwrap();
    let said = annotate(dir.path(), &["--json"], "r no tags\n", None);
    assert_eq!(said.json(), json!({"accepted": 1, "edited": 0, "rejected": 2, "new": 1}));
    assert_eq!((all(&path), lines(&path).len()), ("arrn".to_owned(), 4));
}

#[test]
fn bad_input() {
    let (dir, path) = run();
    aha(&["annotate", "no-such-run"]).fails(1, &["no-such-run", "no such file or folder"]);
    aha(&["annotate", text(dir.path()), "--stage", "other"]).fails(1, &["other", "no such file or folder"]);
    aha(&["annotate", text(&path), "--stage", "other"]).fails(1, &["--stage"]);
    let empty = tempfile::tempdir().unwrap();
    aha(&["annotate", text(empty.path())]).fails(1, &["no candidates.jsonl"]);
    std::fs::write(empty.path().join("x.jsonl"), "{\"question\": \"a\", \"response\": \"b\"}\n\n").unwrap();
    aha_in(empty.path(), &["annotate", "x.jsonl"]).fails(1, &["x.jsonl:1", "not a candidate", "aha curate"]);
    aha(&["annotate", text(dir.path()), "--rule", "accept-all"]).fails(2, &["accept-all", "accept-correct"]);
}
