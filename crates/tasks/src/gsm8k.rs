//! GSM8K: grade-school word problems. A row is `{"question", "answer"}`; the answer is a worked solution that ends in
//! `#### NUMBER`.

use std::path::Path;

use serde_json::Value;

use crate::TaskError;
use crate::jsonl::{Jsonl, kind};
use crate::judge::JudgeOptions;
use crate::number::canonical_number;
use crate::problem::Reference;

/// Name of the task.
pub const NAME: &str = "gsm8k";

/// Opens the data set from its files, as [`Jsonl::open`] does; the worked solution stays in the column `answer`.
///
/// # Errors
/// As [`Jsonl::open`]; also a solution without a final `#### NUMBER`.
pub fn open(train: Option<&Path>, eval: Option<&Path>, seed: u64, options: JudgeOptions) -> Result<Jsonl, TaskError> {
    Jsonl::open_with(NAME, train, eval, seed, options, reference)
}

fn reference(answer: &Value) -> Result<Reference, String> {
    let Value::String(solution) = answer else {
        return Err(format!("\"answer\" must be text, found {}", kind(answer)));
    };
    let (_, number) = solution.rsplit_once("####").ok_or("\"answer\" does not end in \"#### NUMBER\"")?;
    let number = number.trim();
    canonical_number(number)
        .map(Reference::Math)
        .ok_or_else(|| format!("\"answer\" ends in \"#### {number}\", which is not a number"))
}
