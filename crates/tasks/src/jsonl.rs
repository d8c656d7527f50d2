//! Tasks from JSON Lines or CSV files: one object per line with a question and its answer.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::TaskError;
use crate::judge::{JudgeOptions, judge};
use crate::math::{GradeOptions, Grader};
use crate::mini::Rng;
use crate::number::canonical_number;
use crate::problem::{Judgement, Language, Problem, Reference, Split, Task};
use crate::text::language_consistency;

/// Fields that may hold the question; the first one present counts.
const QUESTION_FIELDS: [&str; 3] = ["question", "prompt", "problem"];
/// Fields that may hold the answer; the first one present counts.
const ANSWER_FIELDS: [&str; 3] = ["answer", "expected_answer", "final_answer"];
/// One in this many questions is held out when there is only a training file.
const HELD_OUT_ONE_IN: u64 = 10;

/// Makes the reference out of a row's answer; the error says what is wrong with it.
pub(crate) type ReadReference = fn(&Value) -> Result<Reference, String>;

/// Makes a problem out of a row: name of the task, id of the row, its text.
pub(crate) type ReadRow<'a> = &'a dyn Fn(&str, String, &[u8]) -> Result<Problem, String>;

/// A data set in memory.
#[derive(Debug)]
pub struct Jsonl {
    name: String,
    train: Vec<Problem>,
    eval: Vec<Problem>,
    seed: u64,
    options: JudgeOptions,
    /// The epoch whose order was asked for last, with that order.
    order: Mutex<Option<(u64, Arc<Vec<usize>>)>>,
}

impl Jsonl {
    /// Reads `{"question" | "prompt" | "problem": TEXT, "answer": TEXT | NUMBER}` rows; the answer may also be called
    /// "expected_answer" or "final_answer", be a list of one, or be the last box of a "solution". Answers are compared by the
    /// math grader, in mathematics or in words; of an answer with `####`, what follows counts.
    ///
    /// With a training file alone, one question in ten is held out for evaluation, chosen by a hash of its text. With an
    /// evaluation file alone, all of it is for evaluation and there is nothing to train on. With both, training questions
    /// that are also in the evaluation file are left out.
    ///
    /// # Errors
    /// No file, a file that cannot be read or is empty, or a bad line, with its number and what is wrong with it.
    pub fn open(
        name: &str,
        train: Option<&Path>,
        eval: Option<&Path>,
        seed: u64,
        options: JudgeOptions,
    ) -> Result<Self, TaskError> {
        Self::open_with(name, train, eval, seed, options, any_reference)
    }

    pub(crate) fn open_with(
        name: &str,
        train: Option<&Path>,
        eval: Option<&Path>,
        seed: u64,
        options: JudgeOptions,
        reference: ReadReference,
    ) -> Result<Self, TaskError> {
        let read = move |name: &str, id: String, line: &[u8]| read_row(name, id, line, reference);
        Self::open_parted(name, train, eval, seed, options, &read, &|_| None)
    }

    /// As [`Jsonl::open`], with a reader of rows; `part` says of a row to which part of a single file it belongs, where the
    /// data set says so, and the part for pretraining is left out.
    pub(crate) fn open_parted(
        name: &str,
        train: Option<&Path>,
        eval: Option<&Path>,
        seed: u64,
        options: JudgeOptions,
        row: ReadRow<'_>,
        part: &dyn Fn(&Problem) -> Option<Split>,
    ) -> Result<Self, TaskError> {
        let refuse = |problem: String| Err(TaskError::Option { task: name.to_owned(), problem });
        let read = |path: Option<&Path>, what: &str| path.map(|p| read_file(name, what, p, row)).transpose();
        let (train_rows, eval_rows) = (read(train, "train")?, read(eval, "eval")?);
        let (train_rows, eval_rows) = match (train_rows, eval_rows) {
            (None, None) => return refuse("needs a file of problems; give data = \"FILE.jsonl\"".to_owned()),
            (Some(rows), None) => match parts(&rows, part) {
                Some((train, eval)) => (train, eval),
                None => hold_out(rows),
            },
            (None, Some(rows)) => (Vec::new(), rows),
            (Some(mut rows), Some(held_out)) => {
                let known: HashSet<&str> = held_out.iter().map(|p| p.question.trim()).collect();
                rows.retain(|p| !known.contains(p.question.trim()));
                if rows.is_empty() {
                    return refuse(
                        "every training question is also in the evaluation file; give different files".to_owned(),
                    );
                }
                (rows, held_out)
            }
        };
        Ok(Self { name: name.to_owned(), train: train_rows, eval: eval_rows, seed, options, order: Mutex::new(None) })
    }

    /// Position in the training set of training problem `index`: every epoch is a shuffle of its own.
    fn shuffled(&self, index: u64) -> usize {
        let length = self.train.len() as u64;
        let (epoch, place) = (index / length, (index % length) as usize);
        // A poisoned lock only means that a thread died; the order in it is whole.
        let mut cached = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, order)) = cached.as_ref()
            && *known == epoch
        {
            return order[place];
        }
        let mut order: Vec<usize> = (0..self.train.len()).collect();
        Rng::new(self.seed, epoch).shuffle(&mut order);
        let found = order[place];
        *cached = Some((epoch, Arc::new(order)));
        found
    }
}

impl Task for Jsonl {
    fn name(&self) -> &str {
        &self.name
    }

    fn families(&self) -> Vec<String> {
        let mut families: Vec<String> = Vec::new();
        for problem in self.eval.iter().chain(&self.train) {
            if !families.contains(&problem.family) {
                families.push(problem.family.clone());
            }
        }
        families
    }

    fn len(&self, split: Split) -> Option<usize> {
        Some(match split {
            Split::Pretrain => 0,
            Split::Train => self.train.len(),
            Split::Eval => self.eval.len(),
        })
    }

    fn problem(&self, split: Split, index: u64) -> Result<Problem, TaskError> {
        let missing = |what: &str| TaskError::Option { task: self.name.clone(), problem: what.to_owned() };
        match split {
            Split::Pretrain => Err(missing("has no problems for pretraining")),
            Split::Train if self.train.is_empty() => {
                Err(missing("has no training problems; give data = \"FILE.jsonl\""))
            }
            Split::Train => Ok(self.train[self.shuffled(index)].clone()),
            Split::Eval if self.eval.is_empty() => {
                Err(missing("has no held-out problems; give eval_data = \"FILE.jsonl\""))
            }
            Split::Eval => Ok(self.eval[(index % self.eval.len() as u64) as usize].clone()),
        }
    }

    fn prefilled_think(&self) -> bool {
        self.options.prefilled_think
    }

    fn judge(&self, problem: &Problem, completion: &str, finished: bool) -> Judgement {
        judge(problem, completion, finished, &self.options)
    }
}

/// The parts for training and evaluation as the data set has them, when it says so of every row and neither is empty.
fn parts(rows: &[Problem], part: &dyn Fn(&Problem) -> Option<Split>) -> Option<(Vec<Problem>, Vec<Problem>)> {
    let all: Vec<Split> = rows.iter().map(part).collect::<Option<_>>()?;
    let of = |wanted: Split| -> Vec<Problem> {
        rows.iter().zip(&all).filter(|(_, split)| **split == wanted).map(|(row, _)| row.clone()).collect()
    };
    let (train, eval) = (of(Split::Train), of(Split::Eval));
    (!train.is_empty() && !eval.is_empty()).then_some((train, eval))
}

/// Parts rows into training and held-out by a hash of the question, so that equal questions stay together and rows added
/// later move nothing. A file of at least two questions gets at least one of each.
fn hold_out(rows: Vec<Problem>) -> (Vec<Problem>, Vec<Problem>) {
    let hash = |p: &Problem| {
        let folded = p
            .question
            .trim()
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        Rng::new(folded, 0).next()
    };
    let limit = u64::MAX / HELD_OUT_ONE_IN;
    let lowest = rows.iter().map(hash).min().unwrap_or(u64::MAX);
    let highest = rows.iter().map(hash).max().unwrap_or(0);
    let limit = if lowest == highest { 0 } else { limit.clamp(lowest, highest - 1) };
    rows.into_iter().partition(|p| hash(p) > limit)
}

/// Reads a file, one row per line or one list of rows; every row must be good.
fn read_file(name: &str, part: &str, path: &Path, row: ReadRow<'_>) -> Result<Vec<Problem>, TaskError> {
    let bytes = std::fs::read(path).map_err(|source| TaskError::Io { path: path.to_owned(), source })?;
    let at = |line: usize, problem: String| TaskError::Line { path: path.to_owned(), line, problem };
    if bytes.starts_with(&[0x1f, 0x8b]) {
        return Err(at(1, "is packed; unpack it first: gzip -d FILE".to_owned()));
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("csv")) {
        return read_csv(name, part, path, bytes, row);
    }
    let list: Vec<Box<RawValue>>;
    let texts: Vec<&[u8]> = if bytes.trim_ascii_start().starts_with(b"[") {
        list = serde_json::from_slice(bytes).map_err(|e| at(e.line(), format!("not a list of rows: {e}")))?;
        list.iter().map(|row| row.get().as_bytes()).collect()
    } else {
        bytes.split(|b| *b == b'\n').collect()
    };
    let mut rows = Vec::new();
    for (i, text) in texts.into_iter().enumerate() {
        if text.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let id = format!("{name}/{part}/{}", i + 1);
        rows.push(row(name, id, text).map_err(|problem| at(i + 1, problem))?);
    }
    if rows.is_empty() {
        return Err(no_rows(name, path.to_owned()));
    }
    Ok(rows)
}

/// The rows of a table whose first line names its columns; all values are texts.
fn read_csv(name: &str, part: &str, path: &Path, bytes: &[u8], row: ReadRow<'_>) -> Result<Vec<Problem>, TaskError> {
    let at = |line: u64, problem: String| TaskError::Line { path: path.to_owned(), line: line as usize, problem };
    let mut reader = csv::Reader::from_reader(bytes);
    let bad = |e: &csv::Error| {
        at(e.position().map_or(1, csv::Position::line), format!("not a table of comma-separated values: {e}"))
    };
    let columns = reader.headers().map_err(|e| bad(&e))?.clone();
    let mut rows = Vec::new();
    for (i, record) in reader.records().enumerate() {
        let record = record.map_err(|e| bad(&e))?;
        let line = record.position().map_or(i as u64 + 2, csv::Position::line);
        let object: Map<String, Value> =
            columns.iter().zip(&record).map(|(key, value)| (key.to_owned(), Value::from(value))).collect();
        let text = Value::Object(object).to_string();
        rows.push(row(name, format!("{name}/{part}/{}", i + 1), text.as_bytes()).map_err(|p| at(line, p))?);
    }
    if rows.is_empty() {
        return Err(no_rows(name, path.to_owned()));
    }
    Ok(rows)
}

fn no_rows(name: &str, path: PathBuf) -> TaskError {
    TaskError::Option { task: name.to_owned(), problem: format!("{} holds no problems; it is empty", path.display()) }
}

/// The fields of a row.
pub(crate) fn object(line: &[u8], like: &str) -> Result<Map<String, Value>, String> {
    let text =
        std::str::from_utf8(line).map_err(|e| format!("not UTF-8 (byte {} of the line)", e.valid_up_to() + 1))?;
    match serde_json::from_str(text).map_err(|e| format!("not JSON: {}", without_position(&e)))? {
        Value::Object(columns) => Ok(columns),
        other => Err(format!("expected an object like {like}, found {}", kind(&other))),
    }
}

/// The language of a question; what is not Chinese counts as English.
pub(crate) fn language_of(question: &str) -> Language {
    let chinese = language_consistency(question, Language::Chinese).is_some_and(|share| share > 0.5);
    if chinese { Language::Chinese } else { Language::English }
}

fn read_row(name: &str, id: String, line: &[u8], reference: ReadReference) -> Result<Problem, String> {
    let mut columns = object(line, "{\"question\": ..., \"answer\": ...}")?;
    let Some(field) = QUESTION_FIELDS.into_iter().find(|f| columns.contains_key(*f)) else {
        return Err(format!("no \"question\" field (nor \"prompt\" or \"problem\"); it has {}", names(&columns)));
    };
    let boxed = |columns: &Map<String, Value>| {
        columns.get("solution").filter(|s| s.as_str().is_some_and(|s| s.contains("\\boxed"))).cloned()
    };
    let answer = ANSWER_FIELDS.iter().find_map(|field| columns.get(*field).cloned()).or_else(|| boxed(&columns));
    let answer = match answer.ok_or_else(|| format!("no \"answer\" field; it has {}", names(&columns)))? {
        Value::Array(mut items) if items.len() == 1 => items.remove(0),
        other => other,
    };
    let reference = reference(&answer)?;
    let question = match columns.remove(field) {
        Some(Value::String(text)) if !text.trim().is_empty() => text,
        Some(Value::String(_)) => return Err(format!("\"{field}\" is empty")),
        other => return Err(format!("\"{field}\" must be text, found {}", kind(&other.unwrap_or_default()))),
    };
    let family = columns.get("family").and_then(Value::as_str).unwrap_or(name).to_owned();
    let language = language_of(&question);
    Ok(Problem { id, family, language, question, reference, columns })
}

/// The reference of a generic row.
fn any_reference(answer: &Value) -> Result<Reference, String> {
    let text = match answer {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        other => return Err(format!("\"answer\" must be text or a number, found {}", kind(other))),
    };
    let answer = text.rsplit("####").next().unwrap_or(&text).trim();
    if answer.is_empty() {
        return Err("\"answer\" is empty".to_owned());
    }
    if let Some(number) = canonical_number(answer) {
        return Ok(Reference::Math(number));
    }
    // The box of a worked solution, or the answer as it is.
    let grader = Grader::new(answer, GradeOptions::default()).ok_or("\"answer\" holds no answer")?;
    Ok(Reference::Math(if answer.contains("\\boxed") { grader.reference() } else { answer }.to_owned()))
}

pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

pub(crate) fn names(columns: &Map<String, Value>) -> String {
    if columns.is_empty() {
        return "no fields".to_owned();
    }
    columns.keys().map(|key| format!("\"{key}\"")).collect::<Vec<_>>().join(", ")
}

/// The message of a JSON error with its column; the line is known better outside.
pub(crate) fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let message = text.split(" at line ").next().unwrap_or(&text);
    format!("{message} at column {}", error.column())
}
