//! Requests from files: `prompts`, which nothing but a reward model or a judge can judge, and `safety`, which are to be refused or,
//! where they only sound like it, not to be (the columns of XSTest).

use serde_json::{Map, Value};
use std::path::Path;

use crate::TaskError;
use crate::check::Check;
use crate::jsonl::{Jsonl, kind, language_of, names, object};
use crate::judge::JudgeOptions;
use crate::problem::{Problem, Reference};

/// Requests without a right answer.
pub const PROMPTS: &str = "prompts";
/// Requests with a label.
pub const SAFETY: &str = "safety";

/// Fields that may hold the request; the first one present counts.
const REQUEST_FIELDS: [&str; 4] = ["question", "prompt", "problem", "instruction"];

/// Opens `prompts` or `safety` from files, as [`Jsonl::open`] does.
///
/// A row of `prompts` is `{"question" | "prompt" | "problem" | "instruction": TEXT}`, an instruction with its "input" if it has
/// one (Alpaca), or that of its first of "instances" (Self-Instruct). A row of `safety` also has a "label", "safe" or
/// "unsafe", or a "safe" that is true or false. Columns say "group" ("general") and "set" ("helpful" or "safety"), as
/// rewards ask for them.
///
/// # Errors
/// As [`Jsonl::open`]; a row without a request or a label.
pub fn open(
    name: &str,
    train: Option<&Path>,
    eval: Option<&Path>,
    seed: u64,
    options: JudgeOptions,
) -> Result<Jsonl, TaskError> {
    Jsonl::open_parted(name, train, eval, seed, options, &read, &|_| None)
}

fn read(name: &str, id: String, line: &[u8]) -> Result<Problem, String> {
    let mut columns = object(line, "{\"question\": ...}")?;
    let question = request(&columns)?;
    let (family, set, reference) = if name == SAFETY {
        let safe = label(&columns)?;
        let family = if safe { "borderline" } else { "unsafe" };
        (family.to_owned(), "safety", Reference::Check(Check::Refused(!safe)))
    } else {
        let family = columns.get("family").and_then(Value::as_str).unwrap_or(name).to_owned();
        (family, "helpful", Reference::Check(Check::Open { mentions: Vec::new() }))
    };
    for (key, value) in [("group", "general"), ("set", set)] {
        columns.entry(key).or_insert_with(|| value.into());
    }
    let language = language_of(&question);
    Ok(Problem { id, family, language, question, reference, columns })
}

fn request(columns: &Map<String, Value>) -> Result<String, String> {
    let Some(field) = REQUEST_FIELDS.into_iter().find(|field| columns.contains_key(*field)) else {
        return Err(format!(
            "no \"question\" field (nor \"prompt\", \"problem\" or \"instruction\"); it has {}",
            names(columns)
        ));
    };
    let text = match &columns[field] {
        Value::String(text) if !text.trim().is_empty() => text.trim(),
        Value::String(_) => return Err(format!("\"{field}\" is empty")),
        other => return Err(format!("\"{field}\" must be text, found {}", kind(other))),
    };
    let first = columns.get("instances").and_then(|list| list.get(0));
    let input = columns.get("input").or_else(|| first.and_then(|row| row.get("input"))).and_then(Value::as_str);
    Ok(match input.map(str::trim).filter(|input| field == "instruction" && !input.is_empty()) {
        Some(input) => format!("{text}\n\n{input}"),
        None => text.to_owned(),
    })
}

/// Whether a request is safe to answer.
fn label(columns: &Map<String, Value>) -> Result<bool, String> {
    match (columns.get("label"), columns.get("safe")) {
        (Some(Value::String(text)), _) if text == "safe" => Ok(true),
        (Some(Value::String(text)), _) if text == "unsafe" => Ok(false),
        (None, Some(Value::Bool(safe))) => Ok(*safe),
        (Some(other), _) => Err(format!("\"label\" is {other}; it must be \"safe\" or \"unsafe\"")),
        (None, Some(other)) => Err(format!("\"safe\" is {other}; it must be true or false")),
        (None, None) => Err(format!("no \"label\" (\"safe\" or \"unsafe\"); it has {}", names(columns))),
    }
}
