//! Rows of code data sets: what the question is, and which columns are tests.

use super::{CodeLanguage, CodeReference, Kind};
use crate::jsonl::{kind, names, without_position};
use crate::problem::{Language, Problem, Reference};
use crate::text::language_consistency;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Columns that say how a program is judged, as in the input of `aha sandbox`.
const OF_TESTS: [&str; 11] = [
    "language",
    "tests",
    "assert",
    "test",
    "test_list",
    "test_imports",
    "test_setup_code",
    "entry_point",
    "atol",
    "time_ms",
    "memory_mb",
];

/// Reads one row. Numbers in tests keep their digits, so they are taken from the text itself.
pub fn read(kind_of: Kind, name: &str, id: String, line: &[u8]) -> Result<Problem, String> {
    let text =
        std::str::from_utf8(line).map_err(|e| format!("not UTF-8 (byte {} of the line)", e.valid_up_to() + 1))?;
    let raw: BTreeMap<String, Box<RawValue>> =
        serde_json::from_str(text).map_err(|e| format!("not an object of JSON: {}", without_position(&e)))?;
    let mut columns: Map<String, Value> =
        serde_json::from_str(text).map_err(|e| format!("not JSON: {}", without_position(&e)))?;
    let language = match columns.get("language") {
        None => CodeLanguage::Python,
        Some(value) => CodeLanguage::parse(value.as_str().unwrap_or_default())
            .ok_or_else(|| format!("\"language\" must be \"python\", \"cpp\" or \"rust\", found {value}"))?,
    };
    let entry_point = text_of(&columns, &["entry_point"])?;
    let question = question(kind_of, &columns, language, entry_point.as_deref())?;
    let opening = if kind_of == Kind::HumanEval { text_of(&columns, &["prompt"])? } else { None };
    // MBPP+ has all tests in one script, beside the published list.
    let double = columns.contains_key("test") && columns.contains_key("test_list");
    let parts: Vec<String> = OF_TESTS
        .into_iter()
        .filter(|key| !(double && *key == "test_list"))
        .filter_map(|key| Some(format!("\"{key}\":{}", raw.get(key).filter(|v| v.get() != "null")?.get())))
        .collect();
    let tests = format!("{{{}}}", parts.join(","));
    let reference = CodeReference { language, entry_point, opening, tests };
    super::check(&reference)?;
    OF_TESTS.iter().for_each(|key| drop(columns.remove(*key)));
    let family = columns.get("family").and_then(Value::as_str).unwrap_or(name).to_owned();
    let chinese = language_consistency(&question, Language::Chinese).is_some_and(|share| share > 0.5);
    let language = if chinese { Language::Chinese } else { Language::English };
    let id = match columns.get("task_id") {
        Some(Value::String(given)) => format!("{name}/{given}"),
        Some(Value::Number(given)) => format!("{name}/{given}"),
        _ => id,
    };
    Ok(Problem { id, family, language, question, reference: Reference::Code(Box::new(reference)), columns })
}

/// The first of these columns that is there, which must be text.
fn text_of(columns: &Map<String, Value>, fields: &[&str]) -> Result<Option<String>, String> {
    let Some(field) = fields.iter().find(|f| columns.get(**f).is_some_and(|v| !v.is_null())) else { return Ok(None) };
    match &columns[*field] {
        Value::String(text) if !text.trim().is_empty() => Ok(Some(text.clone())),
        Value::String(_) => Err(format!("\"{field}\" is empty")),
        other => Err(format!("\"{field}\" must be text, found {}", kind(other))),
    }
}

fn question(
    kind_of: Kind,
    columns: &Map<String, Value>,
    language: CodeLanguage,
    entry_point: Option<&str>,
) -> Result<String, String> {
    let fields: &[&str] = match kind_of {
        Kind::HumanEval => &["prompt"],
        Kind::Mbpp => &["prompt", "text"],
        Kind::Rows => &["question", "prompt", "problem"],
    };
    let missing = || format!("no \"{}\" field; it has {}", fields.join("\" or \""), names(columns));
    let text = text_of(columns, fields)?.ok_or_else(missing)?;
    let text = text.trim_end();
    Ok(match kind_of {
        Kind::HumanEval => {
            if entry_point.is_none() {
                return Err("no \"entry_point\" field, the name of the function".into());
            }
            format!(
                "Complete this Python function. Answer with the whole function in one code block.\n```python\n{text}\n```"
            )
        }
        Kind::Mbpp => {
            let first = columns.get("test_list").and_then(|list| list.get(0)).and_then(Value::as_str);
            let first = first.ok_or("no \"test_list\" field, a list of assertions")?.trim();
            format!(
                "{text}\nYour Python code must pass this test and others like it:\n```python\n{first}\n```\nAnswer with one code block."
            )
        }
        Kind::Rows => {
            let starter = text_of(columns, &["starter_code"])?;
            let starter = starter.map_or(String::new(), |s| {
                format!("\nBegin with this:\n```{}\n{}\n```", language.name(), s.trim_end())
            });
            let what = match (entry_point, language) {
                (Some(f), _) => format!("Python that defines `{f}`"),
                (None, CodeLanguage::Python) if !reads_input(columns) => "Python".into(),
                (None, language) => {
                    format!("a {} program that reads standard input and writes standard output", language.title())
                }
            };
            format!("{text}{starter}\nAnswer with one code block: {what}.")
        }
    })
}

/// Whether the tests are inputs and outputs.
fn reads_input(columns: &Map<String, Value>) -> bool {
    columns.get("tests").and_then(|t| t.get(0)).is_some_and(|t| t.get("output").is_some())
}
