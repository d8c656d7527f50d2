//! `aha curate`: filters over rows of question and completion, with a data card.

use crate::failure::usage;
use crate::output::{Output, note};
use crate::table::{duration, table};
use aha_curate::{
    Card, Curated, EvalText, FileDigest, FilterName, FilterReport, Settings, check_folder, curate, read_eval_texts,
    read_rows, unite, write_outputs,
};
use anyhow::Context;
use serde::Deserialize;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

/// Filter completions into training data, with a data card.
///
/// Rows: candidates of a run (candidates.jsonl, kept.jsonl), or .jsonl/.json rows with a question ("question", "prompt",
/// "problem", "instruction"), a "completion" or "response", and a reference ("reference", "gt_answer", "answer") if there is
/// one; or "messages". Filters, in this order: decided, finished, shape, correct, language, repetition, paragraphs, code,
/// length, decontamination, duplicates, difficulty, per_prompt, balance. docs/curation.md has all settings.
///
/// Leaves kept.jsonl, messages.jsonl (the same as conversations to train on), thrown.jsonl (with filter and reason), card.md
/// and card.json. The same rows and settings give the same files.
#[derive(clap::Args)]
pub struct Args {
    /// Files of rows.
    #[arg(long = "in", value_name = "ROWS", required = true, num_args = 1..)]
    rows: Vec<PathBuf>,
    /// Where the results go.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Evaluation sets that no row may overlap with: .jsonl or .json rows with a question, or text with one per line.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    against: Vec<PathBuf>,
    /// A TOML file of settings.
    #[arg(long, value_name = "FILE.toml")]
    settings: Option<PathBuf>,
    /// A setting, over those of the file: language.min_share=0.9, decontamination.words=8, per_prompt.max=4; NAME=off leaves
    /// a filter out.
    #[arg(long = "filter", value_name = "KEY=VALUE")]
    filters: Vec<String>,
    /// Print one JSON object (rows, kept, thrown by filter, checks) on the last line of stdout.
    #[arg(long)]
    json: bool,
}

/// Seconds from which a filter's time is reported.
const SLOW_S: f64 = 1.0;

/// The settings of file and flags.
fn settings(args: &Args) -> anyhow::Result<Settings> {
    let mut table = toml::Table::new();
    if let Some(path) = &args.settings {
        let text = std::fs::read_to_string(path).with_context(|| format!("{}: cannot read", path.display()))?;
        // By itself first, so that a mistake is shown with its line.
        toml::from_str::<Settings>(&text).map_err(|e| anyhow::anyhow!("{}: {}", path.display(), place(&text, &e)))?;
        table = text.parse()?;
    }
    for flag in &args.filters {
        let wrong = |problem: String| usage(format!("--filter {flag}: {problem}"));
        let (key, value) = flag.split_once('=').ok_or_else(|| wrong("write KEY=VALUE".into()))?;
        put(&mut table, key.trim(), value.trim()).map_err(wrong)?;
        // After each flag, so that a mistake is shown with the flag it is in.
        Settings::deserialize(table.clone()).map_err(|e| wrong(e.message().to_owned()))?;
    }
    let settings = Settings::deserialize(table).map_err(|e| usage(e.message().to_owned()))?;
    settings.check().map_err(|e| usage(e.to_string()))?;
    Ok(settings)
}

/// A mistake in a file of settings: line and words.
fn place(text: &str, error: &toml::de::Error) -> String {
    let line = error.span().map(|span| text[..span.start].matches('\n').count() + 1);
    line.map_or_else(String::new, |line| format!("line {line}: ")) + error.message()
}

/// Puts a value at a dotted key.
fn put(table: &mut toml::Table, key: &str, value: &str) -> Result<(), String> {
    let filter = FilterName::ALL.iter().find(|name| name.as_str() == key);
    if let (Some(name), "off") = (filter, value) {
        let skip = table.entry("skip").or_insert_with(|| toml::Value::Array(Vec::new()));
        let skip = skip.as_array_mut().ok_or("\"skip\" is not a list")?;
        skip.push(toml::Value::String(name.to_string()));
        return Ok(());
    }
    // A bare word is a text.
    let parsed = format!("value = {value}").parse::<toml::Table>().ok().and_then(|mut t| t.remove("value"));
    let parsed = parsed.unwrap_or_else(|| toml::Value::String(value.to_owned()));
    let words: Vec<&str> = key.split('.').collect();
    let (last, folders) = words.split_last().ok_or("an empty key")?;
    let mut at = table;
    for word in folders {
        let inner = at.entry(*word).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        at = inner.as_table_mut().ok_or_else(|| format!("{word} is not a table"))?;
    }
    at.insert((*last).to_owned(), parsed);
    Ok(())
}

fn digest(path: &Path, rows: usize) -> anyhow::Result<FileDigest> {
    Ok(FileDigest::of(path, &path.display().to_string(), rows)?)
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let settings = settings(&args)?;
    let begin = Instant::now();
    let (mut files, mut inputs) = (Vec::new(), Vec::new());
    for path in &args.rows {
        let rows = read_rows(path)?;
        inputs.push(digest(path, rows.len())?);
        files.push(rows);
    }
    let (mut against, mut sets): (Vec<EvalText>, Vec<FileDigest>) = (Vec::new(), Vec::new());
    for path in &args.against {
        let texts = read_eval_texts(path)?;
        sets.push(digest(path, texts.iter().filter(|text| text.question).count())?);
        against.extend(texts);
    }
    let (rows, repeated) = unite(files);
    check_folder(&args.out, &rows)?;
    std::fs::create_dir_all(&args.out).with_context(|| format!("{}: cannot make the folder", args.out.display()))?;
    let mut last = Instant::now();
    let mut lap = || std::mem::replace(&mut last, Instant::now()).elapsed().as_secs_f64();
    let said = |report: &FilterReport| {
        let took = lap();
        // What neither throws out nor takes time is not worth a line.
        if report.thrown > 0 || took > SLOW_S {
            let name = report.name.as_str();
            note(format!("{name:>16}  {} of {} thrown out, {}", report.thrown, report.rows, duration(took)));
        }
    };
    let curated = curate(rows, against, &settings, said)?;
    let mut card = Card::new(concat!("aha ", env!("CARGO_PKG_VERSION")), &curated, &settings);
    (card.inputs, card.against, card.repeated_ids) = (inputs, sets, repeated);
    write_outputs(&args.out, &curated, &mut card)?;
    let seconds = begin.elapsed().as_secs_f64();
    let output = Output::new(args.json);
    output.text(summary(&curated, &card));
    note(format!("{} in {}; see {}", args.out.display(), duration(seconds), args.out.join("card.md").display()));
    let thrown: serde_json::Map<String, serde_json::Value> =
        card.filters.iter().map(|f| (f.name.to_string(), json!(f.thrown))).collect();
    output.object(&json!({
        "rows": card.input.rows, "kept": card.kept.rows, "prompts": card.kept.prompts, "thrown": thrown,
        "checks": card.checks, "wall_s": seconds, "out": args.out.display().to_string(),
    }));
    Ok(ExitCode::SUCCESS)
}

fn summary(curated: &Curated, card: &Card) -> String {
    let mut rows = vec![["filter", "rows in", "thrown out"].map(str::to_owned).to_vec()];
    for f in &curated.filters {
        let thrown = if f.used { f.thrown.to_string() } else { "left out".to_owned() };
        rows.push(vec![f.name.to_string(), f.rows.to_string(), thrown]);
    }
    let c = &card.checks;
    format!(
        "{}\n{} of {} rows kept, of {} prompts; {} verified again, {} overlap with {} evaluation texts",
        table(&rows),
        card.kept.rows,
        card.input.rows,
        card.kept.prompts,
        c.verified,
        c.overlapping,
        c.evaluation_texts
    )
}
