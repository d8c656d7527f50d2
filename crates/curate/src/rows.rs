//! Rows from files: candidates as this crate writes them, or other people's rows of question, response and reference under
//! their usual names; and the texts of evaluation sets.

use std::path::{Path, PathBuf};

use aha_tasks::extract::{THINK_CLOSE, THINK_OPEN};
use aha_tasks::language::{Script, TextLanguage};
use aha_tasks::{Check, Language, Problem, Reference, Verdict};
use serde_json::{Map, Value};

use crate::candidate::Candidate;
use crate::decontaminate::EvalText;
use crate::error::CurateError;
use crate::store::{FILE_NAME, read_candidates, words};

type Row = Map<String, Value>;

/// Names of the question; the first one present counts.
const QUESTION: [&str; 5] = ["question", "prompt", "problem", "instruction", "query"];
/// Names of the response.
const RESPONSE: [&str; 6] = ["completion", "response", "trace", "generation", "output", "content"];
/// Names of the reasoning where it stands apart from the response.
const REASONING: [&str; 4] = ["reasoning_content", "reasoning", "thinking", "message_thinking"];
/// Names of the reference answer.
const REFERENCE: [&str; 6] = ["reference", "gt_answer", "gtruth_answer", "expected_answer", "final_answer", "answer"];
/// Names of the task.
const TASK: [&str; 4] = ["family", "task", "category", "type"];
/// Names of further texts of an evaluation row, which count where they are as long as a run of words.
const EVAL_TEXTS: [&str; 5] = ["body", "context", "solution", "reference_solution", "answer"];

/// The files of candidates behind a path: the file itself, or those of a folder and of the folders directly in it (a run's
/// stages).
///
/// # Errors
/// A folder without any.
pub fn candidate_files(path: &Path) -> Result<Vec<PathBuf>, CurateError> {
    if !path.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let list = std::fs::read_dir(path).map_err(|source| CurateError::Read { path: path.to_path_buf(), source })?;
    let mut folders: Vec<PathBuf> = list.filter_map(|entry| Some(entry.ok()?.path())).filter(|p| p.is_dir()).collect();
    folders.sort();
    // A stage that was run again with other settings left its old results under this name.
    folders.retain(|folder| folder.extension().is_none_or(|extension| extension != "previous"));
    folders.insert(0, path.to_path_buf());
    let files: Vec<PathBuf> =
        folders.into_iter().map(|folder| folder.join(FILE_NAME)).filter(|f| f.is_file()).collect();
    if files.is_empty() {
        return Err(CurateError::file(path, format!("there is no {FILE_NAME} in it or in its stages")));
    }
    Ok(files)
}

/// Reads rows: candidates with what was decided about them, or rows with
/// - "question", "prompt", "problem", "instruction" or "query", or "messages" that end in the assistant's;
/// - "completion", "response", "trace", "generation", "output" or "content", with the reasoning in it or apart
///   ("reasoning_content", "reasoning", "thinking", "message_thinking");
/// - a reference, if there is one: "reference", "gt_answer", "gtruth_answer", "expected_answer", "final_answer" or "answer",
///   compared as mathematics; and "id", "family" or "task", "source", "tokens", "finished" or "finish_reason", "verdict".
///
/// # Errors
/// A file that cannot be read, or a bad line, with what is wrong with it.
pub fn read_rows(path: &Path) -> Result<Vec<Candidate>, CurateError> {
    let rows = read_objects(path, true)?;
    let is_candidate = |row: &Row| row.get("problem").is_some_and(Value::is_object);
    if rows.first().is_some_and(|(_, row)| is_candidate(row)) {
        let list = std::fs::read(path).is_ok_and(|bytes| bytes.trim_ascii_start().starts_with(b"["));
        let problem = "a list of candidates; write one per line, so that decisions can be added";
        return if list { Err(CurateError::file(path, problem)) } else { read_candidates(path) };
    }
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    rows.into_iter()
        .map(|(line, row)| foreign(row, &name, line).map_err(|problem| CurateError::line(path, line, problem)))
        .collect()
}

/// The objects of a `.jsonl` file by line, or of the list in a `.json` file by number.
fn read_objects(path: &Path, first_decides: bool) -> Result<Vec<(usize, Row)>, CurateError> {
    let bytes = std::fs::read(path).map_err(|source| CurateError::Read { path: path.to_path_buf(), source })?;
    let text = std::str::from_utf8(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes))
        .map_err(|e| CurateError::file(path, format!("not UTF-8 (byte {})", e.valid_up_to() + 1)))?;
    if text.trim_start().starts_with('[') {
        let rows: Vec<Row> = serde_json::from_str(text)
            .map_err(|e| CurateError::line(path, e.line(), format!("not a list of objects: {}", words(&e))))?;
        return Ok(rows.into_iter().enumerate().map(|(i, row)| (i + 1, row)).collect());
    }
    let mut rows = Vec::new();
    for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let row: Row = serde_json::from_str(line)
            .map_err(|e| CurateError::line(path, i + 1, format!("not a JSON object: {}", words(&e))))?;
        let candidate = row.get("problem").is_some_and(Value::is_object);
        rows.push((i + 1, row));
        if first_decides && candidate {
            break;
        }
    }
    if rows.is_empty() {
        return Err(CurateError::file(path, "there is nothing in it"));
    }
    Ok(rows)
}

/// The text of the first of some keys.
fn text<'a>(row: &'a Row, keys: &[&str]) -> Option<&'a str> {
    keys.iter().find_map(|key| row.get(*key)?.as_str())
}

/// A row of someone else's as a candidate.
fn foreign(mut row: Row, file: &str, line: usize) -> Result<Candidate, String> {
    let (question, completion, history) = match row.get("messages") {
        Some(messages) => conversation(messages)?,
        None => {
            let question = text(&row, &QUESTION).ok_or("no \"question\", \"prompt\" or \"messages\"")?.to_owned();
            let question = match row.get("input").and_then(Value::as_str).filter(|input| !input.trim().is_empty()) {
                Some(input) => format!("{question}\n{input}"),
                None => question,
            };
            let response = text(&row, &RESPONSE).or_else(|| text(&row, &["message_content"]));
            let response = response.ok_or("no \"completion\" or \"response\"")?;
            (question, with_reasoning(text(&row, &REASONING), response), Vec::new())
        }
    };
    let reference = match REFERENCE.iter().find_map(|key| row.get(*key).filter(|v| !v.is_null())) {
        // Of a worked answer with `####`, what follows counts.
        Some(Value::String(text)) => Reference::Math(text.rsplit("####").next().unwrap_or(text).trim().to_owned()),
        Some(Value::Number(number)) => Reference::Math(number.to_string()),
        Some(_) => return Err("the reference answer must be text or a number".to_owned()),
        None => Reference::Check(Check::Open { mentions: Vec::new() }),
    };
    let id = match row.get("id").or_else(|| row.get("problem_id")) {
        Some(Value::String(id)) => id.clone(),
        Some(Value::Number(id)) => format!("{file}/{id}"),
        // Equal questions are one prompt, wherever they stand.
        _ => format!("{file}/{}", short_hash(&question)),
    };
    let mut columns = Map::new();
    if !history.is_empty() {
        columns.insert("history".to_owned(), Value::Array(history));
    }
    let han = TextLanguage::of(&question).is_some_and(|found| found.script == Script::Han);
    let problem = Problem {
        id,
        family: text(&row, &TASK).unwrap_or(file).to_owned(),
        language: if han { Language::Chinese } else { Language::English },
        question,
        reference,
        columns,
    };
    let sample = row.get("sample").and_then(Value::as_u64).map_or(line, |n| n as usize);
    let source = text(&row, &["source"]).unwrap_or(file).to_owned();
    let mut candidate = Candidate::new(problem, completion, &source, None, sample);
    candidate.tokens =
        ["tokens", "completion_tokens", "response_tokens"].iter().find_map(|key| match row.get(*key)? {
            Value::Array(tokens) => Some(tokens.len()),
            count => count.as_u64().map(|n| n as usize),
        });
    candidate.finished = match (row.get("finished"), text(&row, &["finish_reason"])) {
        (Some(finished), _) => finished.as_bool().ok_or("\"finished\" must be true or false")?,
        (None, reason) => reason != Some("length"),
    };
    if let Some(verdict) = row.remove("verdict") {
        let verdict: Verdict = serde_json::from_value(verdict)
            .map_err(|_| "\"verdict\" must be \"correct\", \"incorrect\" or \"not_judged\"")?;
        candidate.verdicts.insert("file".to_owned(), verdict);
    }
    Ok(candidate)
}

fn short_hash(text: &str) -> String {
    let hash = crate::words::word_hashes(text, crate::words::Signs::Words);
    format!("{:016x}", hash.iter().fold(0, |all, word| crate::words::mix(all ^ word)))
}

fn with_reasoning(reasoning: Option<&str>, response: &str) -> String {
    match reasoning {
        Some(reasoning) if !response.contains(THINK_CLOSE) => {
            format!("{THINK_OPEN}\n{}\n{THINK_CLOSE}\n\n{}", reasoning.trim(), response.trim_start())
        }
        _ => response.to_owned(),
    }
}

/// Question, response and the turns before them.
fn conversation(messages: &Value) -> Result<(String, String, Vec<Value>), String> {
    let wrong = || "\"messages\" must be a list of {\"role\", \"content\"} that ends with a user's and the assistant's";
    let list = messages.as_array().ok_or_else(wrong)?;
    let turn = |message: &Value| {
        let (role, content) = (message.get("role")?.as_str()?, message.get("content")?.as_str()?);
        Some((role.to_owned(), with_reasoning(message.get("reasoning_content").and_then(Value::as_str), content)))
    };
    let mut turns: Vec<(String, String)> = list.iter().map(turn).collect::<Option<_>>().ok_or_else(wrong)?;
    let (last, completion) = turns.pop().ok_or_else(wrong)?;
    let (asker, question) = turns.pop().ok_or_else(wrong)?;
    if last != "assistant" || asker != "user" {
        return Err(wrong().to_owned());
    }
    let history = turns.into_iter().map(|(role, content)| serde_json::json!({"role": role, "content": content}));
    Ok((question, completion, history.collect()))
}

/// Reads the texts of an evaluation set: of `.jsonl` and `.json` rows the question ("question", "prompt", "problem",
/// "instruction", "query") and the longer texts beside it; of any other file each line.
///
/// # Errors
/// A file that cannot be read, or a row without a question.
pub fn read_eval_texts(path: &Path) -> Result<Vec<EvalText>, CurateError> {
    let set = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    let make = |id: String, question: bool, text: &str| EvalText {
        set: set.clone(),
        id,
        global_id: false,
        question,
        text: text.to_owned(),
    };
    if matches!(extension.as_str(), "parquet" | "csv" | "gz" | "zst") {
        return Err(CurateError::file(
            path,
            "give evaluation sets as .jsonl, .json, or text with one question per line",
        ));
    }
    if !matches!(extension.as_str(), "jsonl" | "json") {
        let bytes = std::fs::read(path).map_err(|source| CurateError::Read { path: path.to_path_buf(), source })?;
        let text = String::from_utf8(bytes).map_err(|_| CurateError::file(path, "not UTF-8"))?;
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        return Ok(lines.map(|(i, line)| make(format!("line {}", i + 1), true, line)).collect());
    }
    let mut texts = Vec::new();
    for (line, row) in read_objects(path, false)? {
        let row: Row = row.into_iter().map(|(key, value)| (key.to_lowercase(), value)).collect();
        // A candidate's own problem, as in kept.jsonl.
        let inner = row.get("problem").and_then(Value::as_object).filter(|_| !row.contains_key("question"));
        let question = text(inner.unwrap_or(&row), &QUESTION);
        let Some(question) = question else {
            let names = QUESTION.map(|name| format!("\"{name}\"")).join(", ");
            return Err(CurateError::line(path, line, format!("no question; it must be called one of {names}")));
        };
        let id = format!("line {line}");
        texts.push(make(id.clone(), true, question));
        texts.extend(EVAL_TEXTS.iter().filter_map(|key| text(&row, &[key])).map(|text| make(id.clone(), false, text)));
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::candidate::tests::sum;
    use aha_tasks::AnswerPlace;

    fn file(name: &str, content: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        (dir, path)
    }

    #[test]
    fn rows_under_their_usual_names() {
        let (_dir, path) = file(
            "traces.jsonl",
            concat!(
                r#"{"problem": "1+1?", "gt_answer": "2", "answer": "3", "trace": "<think>x</think>\\boxed{2}", "id": "p"}"#,
                "\n\n",
                r#"{"question": "q", "answer": "so #### 1,000", "response": "<think></think>\\boxed{1000}", "tokens": [1, 2]}"#,
                "\n",
                r#"{"messages": [{"role": "user", "content": "你好吗,朋友"}, {"role": "assistant", "content": "好"}, {"role": "user", "content": "谢谢你,再见"}, {"role": "assistant", "content": "再见", "reasoning_content": "想"}]}"#,
                "\n",
                r#"{"instruction": "add", "input": "1 2", "output": "3", "verdict": "correct", "finish_reason": "length"}"#,
                "\n",
            ),
        );
        let rows = read_rows(&path).unwrap();
        assert_eq!((rows[0].problem.id.as_str(), rows[0].problem.family.as_str()), ("p", "traces"));
        assert_eq!(rows[0].judge(AnswerPlace::Summary).verdict, Verdict::Correct);
        assert_eq!((rows[1].judge(AnswerPlace::Summary).verdict, rows[1].tokens), (Verdict::Correct, Some(2)));
        assert_eq!(
            (rows[2].completion.as_str(), rows[2].problem.language),
            ("<think>\n想\n</think>\n\n再见", Language::Chinese)
        );
        assert_eq!(rows[2].messages().len(), 4);
        assert_eq!((rows[3].problem.question.as_str(), rows[3].finished), ("add\n1 2", false));
        assert_eq!(rows[3].verdicts["file"], Verdict::Correct);
        assert_eq!(rows[3].judge(AnswerPlace::Summary).verdict, Verdict::NotJudged);
    }

    #[test]
    fn candidates_keep_their_ids_and_decisions() {
        let row = sum(1, 2, "<think></think>3");
        let line = serde_json::to_string(&row).unwrap();
        let (_dir, path) = file("a.jsonl", &format!("{line}\n{{\"decided\":\"{}\",\"state\":\"accepted\"}}\n", row.id));
        let rows = read_rows(&path).unwrap();
        assert_eq!((rows[0].id.clone(), rows[0].decision.state), (row.id, crate::State::Accepted));
        let (_dir, path) = file("a.json", &format!("[{line}]"));
        assert!(read_rows(&path).unwrap_err().to_string().contains("one per line"));
    }

    #[test]
    fn bad_rows_are_named() {
        let message = |content: &str| read_rows(&file("x.jsonl", content).1).unwrap_err().to_string();
        assert!(
            message("{\"question\": \"a\", \"response\": \"b\"}\n{\"question\": \"a\"}\n")
                .contains("x.jsonl:2: no \"completion\"")
        );
        assert!(message("{\"response\": \"b\"}\n").contains("x.jsonl:1: no \"question\""));
        assert!(message("nonsense\n").contains("x.jsonl:1: not a JSON object"));
        assert!(
            message("{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}\n")
                .contains("x.jsonl:1: \"messages\" must")
        );
        assert!(message(" \n").contains("nothing in it"));
        assert!(read_rows(Path::new("no-such.jsonl")).unwrap_err().to_string().contains("no-such.jsonl: cannot read"));
    }

    #[test]
    fn evaluation_texts() {
        let content = "{\"Body\": \"There are 87 oranges\", \"Question\": \"How big?\", \"ID\": 3}\n{\"problem\": \"p\", \"answer\": 7}\n";
        let texts = read_eval_texts(&file("svamp.jsonl", content).1).unwrap();
        let found: Vec<_> =
            texts.iter().map(|t| (t.set.as_str(), t.id.as_str(), t.question, t.text.as_str())).collect();
        let wanted = [
            ("svamp.jsonl", "line 1", true, "How big?"),
            ("svamp.jsonl", "line 1", false, "There are 87 oranges"),
            ("svamp.jsonl", "line 2", true, "p"),
        ];
        assert_eq!(found, wanted);
        assert_eq!(read_eval_texts(&file("a.txt", "one\n\ntwo\n").1).unwrap().len(), 2);
        assert!(read_eval_texts(&file("a.csv", "x").1).unwrap_err().to_string().contains(".jsonl"));
        assert!(
            read_eval_texts(&file("a.jsonl", "{\"x\": 1}\n").1)
                .unwrap_err()
                .to_string()
                .contains("a.jsonl:1: no question")
        );
    }

    #[test]
    fn the_files_of_a_run() {
        let dir = tempfile::tempdir().unwrap();
        assert!(candidate_files(dir.path()).unwrap_err().to_string().contains("no candidates.jsonl"));
        for stage in ["cold", "reject", "cold.previous"] {
            std::fs::create_dir(dir.path().join(stage)).unwrap();
            std::fs::write(dir.path().join(stage).join(FILE_NAME), "").unwrap();
        }
        let names: Vec<PathBuf> = candidate_files(dir.path()).unwrap();
        assert_eq!(names, [dir.path().join("cold").join(FILE_NAME), dir.path().join("reject").join(FILE_NAME)]);
    }
}
