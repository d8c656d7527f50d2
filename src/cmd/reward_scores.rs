//! `aha score` of a reward model: a score for every response.

use super::score::Args;
use crate::lines::{self, Numbered};
use crate::output::{Output, note};
use crate::table::{duration, number};
use aha_data::preference::conversation;
use aha_model::Message;
use aha_pipeline::RewardModel;
use anyhow::anyhow;
use serde_json::{Map, Value, json};
use std::process::ExitCode;
use std::time::Instant;

/// The responses of a row that are scored, by the key that their score gets.
const RESPONSES: [(&str, &str); 5] = [
    ("response", "score"),
    ("completion", "score"),
    ("output", "score"),
    ("chosen", "chosen_score"),
    ("rejected", "rejected_score"),
];

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let rows: Vec<Numbered<Map<String, Value>>> = lines::read_json(&args.input)?;
    let model = RewardModel::open(&args.model, args.precision)?;
    let mut asked: Vec<(usize, &str, Vec<Message>, String)> = Vec::new();
    for (i, row) in rows.iter().enumerate() {
        let at = |problem: String| lines::at(&args.input, row.line, problem);
        let turns = conversation(&row.value).map_err(at)?;
        let before = asked.len();
        for (field, key) in RESPONSES {
            if let Some(Value::String(text)) = row.value.get(field)
                && asked[before..].iter().all(|(_, known, ..)| *known != key)
            {
                asked.push((i, key, turns.clone(), text.clone()));
            }
        }
        if asked.len() == before {
            return Err(at("has no \"response\" (nor \"completion\", or \"chosen\" and \"rejected\")".into()));
        }
    }
    let begin = Instant::now();
    let responses: Vec<(&[Message], &str)> =
        asked.iter().map(|(_, _, turns, text)| (&turns[..], text.as_str())).collect();
    let scores = model.scores(&responses).map_err(|e| anyhow!("{}: {e}", args.input.display()))?;
    let seconds = begin.elapsed().as_secs_f64();
    let known: Vec<f64> = scores.iter().copied().flatten().collect();
    let mean = (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64);
    let mut out: Vec<Map<String, Value>> = rows.into_iter().map(|row| row.value).collect();
    for ((i, key, ..), score) in asked.iter().zip(&scores) {
        out[*i].insert((*key).to_owned(), json!(score));
    }
    lines::write_json(args.output.as_deref(), &out)?;
    let too_long = scores.len() - known.len();
    note(format!(
        "{} responses scored in {}: mean {}{}",
        known.len(),
        duration(seconds),
        number(mean),
        if too_long > 0 { format!("; {too_long} are too long for the model and have no score") } else { String::new() }
    ));
    Output::new(args.json).object(&json!({
        "responses": known.len(), "too_long": too_long, "mean_score": mean, "wall_s": seconds,
        "output": args.output.as_ref().map(|p| p.display().to_string()),
    }));
    Ok(ExitCode::SUCCESS)
}
