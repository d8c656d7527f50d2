//! `aha grade`: verdicts on answers to mathematical problems.

use crate::lines::{self, Numbered};
use crate::output::Output;
use crate::table::duration;
use aha_tasks::Verdict;
use aha_tasks::math::{GradeOptions, grade, locate::Place};
use rayon::prelude::*;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// Grade responses to mathematical problems.
///
/// In, one per line: {"reference": ..., "response": ...}. Out, the same lines in the same order with "verdict" (correct,
/// incorrect or not_judged) and "parsed" ({"reference", "answer", "place"}), what was read of both and where the answer
/// stood; null where nothing was found.
#[derive(clap::Args)]
pub struct Args {
    /// References and responses.
    #[arg(long, value_name = "FILE.jsonl")]
    input: PathBuf,
    /// Where the result goes [default: stdout].
    #[arg(long, value_name = "FILE.jsonl")]
    output: Option<PathBuf>,
    /// Take an answer only where something announces it (a box, tags, "the answer is", ####) or where it is the whole
    /// response; without this, the last mathematics and the last number of a response count too.
    #[arg(long)]
    no_last_number: bool,
    /// Where either side is a decimal number, both are rounded to this many places.
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u32).range(0..=30))]
    decimals: u32,
    /// Print one JSON object (responses, correct, incorrect, not judged) on the last line of stdout.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Parsed {
    reference: Option<String>,
    answer: Option<String>,
    place: Option<Place>,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    lines::check_output(args.output.as_ref())?;
    let rows: Vec<Numbered<Map<String, Value>>> = lines::read_json(&args.input)?;
    let text = |row: &Numbered<Map<String, Value>>, field: &str| match row.value.get(field) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Number(number)) => Ok(number.to_string()),
        Some(_) => Err(lines::at(&args.input, row.line, format!("\"{field}\" must be text or a number"))),
        None => {
            let problem = format!("no \"{field}\"; a line is {{\"reference\": ..., \"response\": ...}}");
            Err(lines::at(&args.input, row.line, problem))
        }
    };
    // Every line is checked before any is graded, so that a bad one costs nothing.
    let pairs: Vec<(String, String)> =
        rows.iter().map(|row| Ok((text(row, "reference")?, text(row, "response")?))).collect::<anyhow::Result<_>>()?;
    let options = GradeOptions { last_number: !args.no_last_number, decimals: args.decimals };
    let begin = Instant::now();
    let graded: Vec<_> = pairs.par_iter().map(|(reference, response)| grade(reference, response, options)).collect();
    let seconds = begin.elapsed().as_secs_f64();
    let count = |verdict| graded.iter().filter(|g| g.verdict == verdict).count();
    let (correct, incorrect, not_judged) =
        (count(Verdict::Correct), count(Verdict::Incorrect), count(Verdict::NotJudged));
    let out: Vec<Map<String, Value>> = rows
        .into_iter()
        .zip(graded)
        .map(|(row, graded)| {
            let mut value = row.value;
            let parsed = Parsed { reference: graded.reference, answer: graded.answer, place: graded.place };
            value.insert("verdict".to_owned(), json!(graded.verdict));
            value.insert("parsed".to_owned(), json!(parsed));
            value
        })
        .collect();
    lines::write_json(args.output.as_deref(), &out)?;
    crate::output::note(format!(
        "{} responses in {}: {correct} correct, {incorrect} incorrect, {not_judged} not judged",
        out.len(),
        duration(seconds)
    ));
    Output::new(args.json).object(&json!({
        "responses": out.len(), "correct": correct, "incorrect": incorrect, "not_judged": not_judged,
        "wall_s": seconds, "output": args.output.map(|p| p.display().to_string()),
    }));
    Ok(ExitCode::SUCCESS)
}
