//! `aha judge`: a language model's verdicts, preferences and scores on responses.

use crate::lines::{self, Numbered};
use crate::output::{Output, note};
use crate::table::duration;
use aha_judge::{Cache, Chat, Criterion, Endpoint, Judge, JudgeSettings, NotJudged};
use aha_pipeline::OwnJudge;
use aha_pipeline::recipe::Precision;
use anyhow::{Context, anyhow};
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What is asked about each row.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// Is the response right by its reference?
    Reference,
    /// Which of two responses is better? Asked in both orders.
    Pairwise,
    /// How good is the response on each criterion?
    Rubric,
}

/// Judge responses with a language model.
///
/// In, one per line: {"question": ..., "reference": ..., "response": ...} (reference), {"question", "chosen", "rejected"} or
/// {"question", "a", "b"} (pairwise), {"question", "response"} (rubric). Out, the same lines with "verdict" (reference),
/// "preference" (pairwise: how much the first is preferred, 0 to 1) or "score" (rubric, 0 to 1), and "judge" with the reasons.
/// What cannot be judged has the verdict not_judged or null, and "judge" says why; it is never counted as wrong.
#[derive(clap::Args)]
pub struct Args {
    /// What is to be judged.
    #[arg(long, value_name = "FILE.jsonl")]
    input: PathBuf,
    /// What is asked.
    #[arg(long, value_enum, default_value = "reference")]
    kind: Kind,
    /// OpenAI-compatible address, such as http://localhost:8000/v1.
    #[arg(long, value_name = "URL", required_unless_present = "model", conflicts_with = "model")]
    endpoint: Option<String>,
    /// Name of the model at the endpoint.
    #[arg(long, value_name = "NAME", default_value = "default")]
    name: String,
    /// Environment variable that holds the endpoint's key.
    #[arg(long, value_name = "VARIABLE")]
    key_env: Option<String>,
    /// A model of our own as the judge: a Hugging Face folder or a GGUF file with a chat template.
    #[arg(long, value_name = "DIR_OR_GGUF")]
    model: Option<PathBuf>,
    /// In what numbers that model's products run: f32, bf16, quantized.
    #[arg(long, value_name = "TYPE", default_value = "f32")]
    precision: String,
    /// A criterion of the rubric; may be given many times.
    #[arg(long, value_name = "NAME=DESCRIPTION", value_parser = criterion)]
    criterion: Vec<Criterion>,
    /// The highest score of a criterion.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(2..=1000))]
    scale: u32,
    /// Judge whole responses, thinking included [default: what follows the thinking].
    #[arg(long)]
    whole_response: bool,
    /// Where the result goes [default: stdout].
    #[arg(long, value_name = "FILE.jsonl")]
    output: Option<PathBuf>,
    /// Answers of the judge, kept and read again: a second run asks only what is new.
    #[arg(long, value_name = "FILE.jsonl")]
    cache: Option<PathBuf>,
    /// Requests that may be made; the cache's are free.
    #[arg(long, value_name = "N")]
    max_requests: Option<u64>,
    /// Tokens that may be used, as the endpoint counts them.
    #[arg(long, value_name = "N")]
    max_total_tokens: Option<u64>,
    /// Tokens of one reply.
    #[arg(long, value_name = "N", default_value_t = 2048)]
    max_tokens: usize,
    /// Sampling temperature.
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    temperature: f64,
    /// Seconds that one try may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 120.0)]
    timeout: f64,
    /// Tries after one that failed for the moment.
    #[arg(long, value_name = "N", default_value_t = 4)]
    retries: u32,
    /// Seconds before the second try; each further wait is twice as long.
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    first_wait: f64,
    /// Rows that are judged at once; our own model answers them in one batch.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    parallel: u16,
    /// Print one JSON object (rows, judged, what was used) on the last line of stdout.
    #[arg(long)]
    json: bool,
}

fn criterion(text: &str) -> Result<Criterion, String> {
    let (name, description) = text.split_once('=').ok_or("write NAME=DESCRIPTION")?;
    let word = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !word || description.is_empty() {
        return Err("the name is letters, digits and `_`, and the description is not empty".into());
    }
    Ok(Criterion { name: name.to_owned(), description: description.to_owned() })
}

fn chat(args: &Args) -> anyhow::Result<Box<dyn Chat>> {
    let seconds = |name: &str, value: f64| {
        Duration::try_from_secs_f64(value).map_err(|_| anyhow!("{name} {value}: give seconds, 0 or more"))
    };
    if let Some(path) = &args.model {
        let choices = [("f32", Precision::F32), ("bf16", Precision::Bf16), ("quantized", Precision::Quantized)];
        let precision = choices.iter().find(|(name, _)| *name == args.precision);
        let (_, precision) =
            precision.ok_or_else(|| anyhow!("--precision {}: it is one of f32, bf16, quantized", args.precision))?;
        return Ok(Box::new(OwnJudge::open(path, *precision)?));
    }
    let url = args.endpoint.as_deref().expect("one of the two is given");
    let key = args.key_env.as_ref().map(|name| {
        std::env::var(name).with_context(|| format!("--key-env {name}: put the endpoint's key into this variable"))
    });
    let (timeout, wait) = (seconds("--timeout", args.timeout)?, seconds("--first-wait", args.first_wait)?);
    let endpoint = Endpoint::new(url, &args.name, key.transpose()?, timeout, args.retries, wait);
    Ok(Box::new(endpoint.map_err(|problem| anyhow!("--endpoint {problem}"))?))
}

/// The texts of a row that a kind needs: question, then one or two more.
fn texts(args: &Args, row: &Numbered<Map<String, Value>>) -> anyhow::Result<Vec<String>> {
    let fields: &[&[&str]] = match args.kind {
        Kind::Reference => &[&["question", "prompt"], &["reference", "answer"], &["response", "completion"]],
        Kind::Pairwise => &[&["question", "prompt"], &["a", "chosen"], &["b", "rejected"]],
        Kind::Rubric => &[&["question", "prompt"], &["response", "completion"]],
    };
    let text = |names: &&[&str]| match names.iter().find_map(|name| row.value.get(*name)) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Number(number)) => Ok(number.to_string()),
        Some(_) => Err(lines::at(&args.input, row.line, format!("{:?} must be a text", names[0]))),
        None => Err(lines::at(&args.input, row.line, format!("no {:?}", names[0]))),
    };
    fields.iter().map(text).collect()
}

/// The keys that a judgement adds to its row.
fn judged(args: &Args, judge: &Judge<&dyn Chat>, texts: &[String]) -> Result<(&'static str, Value, Value), NotJudged> {
    Ok(match args.kind {
        Kind::Reference => {
            let ruling = judge.reference(&texts[0], &texts[1], &texts[2])?;
            let verdict = if ruling.correct { "correct" } else { "incorrect" };
            ("verdict", json!(verdict), json!({"reason": ruling.reason}))
        }
        Kind::Pairwise => {
            let preference = judge.pairwise(&texts[0], &texts[1], &texts[2])?;
            ("preference", json!(preference.score), json!(preference))
        }
        Kind::Rubric => {
            let scores = judge.rubric(&texts[0], &texts[1], &args.criterion, args.scale)?;
            ("score", json!(scores.score), json!({"scores": scores.scores, "reason": scores.reason}))
        }
    })
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    lines::check_output(args.output.as_ref())?;
    if args.kind == Kind::Rubric && args.criterion.is_empty() {
        return Err(anyhow!("a rubric needs criteria: give --criterion NAME=DESCRIPTION, as often as you like"));
    }
    let rows: Vec<Numbered<Map<String, Value>>> = lines::read_json(&args.input)?;
    // Every line is checked before any is judged, so that a bad one costs nothing.
    let asked: Vec<Vec<String>> = rows.iter().map(|row| texts(&args, row)).collect::<anyhow::Result<_>>()?;
    let cache = match &args.cache {
        Some(path) => Cache::open(path).map_err(|problem| anyhow!("{problem}"))?,
        None => Cache::new(),
    };
    let chat = chat(&args)?;
    let settings = JudgeSettings {
        temperature: args.temperature,
        max_tokens: args.max_tokens,
        max_requests: args.max_requests,
        max_total_tokens: args.max_total_tokens,
        whole_response: args.whole_response,
        ..JudgeSettings::default()
    };
    let judge = Judge::new(&*chat, settings, cache);
    let begin = Instant::now();
    let next = AtomicUsize::new(0);
    let results: Vec<Mutex<Option<Result<_, NotJudged>>>> = asked.iter().map(|_| Mutex::new(None)).collect();
    // Threads that wait for the network, not for the processor.
    std::thread::scope(|scope| {
        for _ in 0..usize::from(args.parallel).min(asked.len()) {
            scope.spawn(|| {
                while let Some(i) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|i| *i < asked.len()) {
                    let result = judged(&args, &judge, &asked[i]);
                    *results[i].lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(result);
                }
            });
        }
    });
    let (mut out, mut sum, mut not_judged, mut first) = (Vec::with_capacity(rows.len()), 0.0, 0usize, None);
    for (row, result) in rows.into_iter().zip(results) {
        let mut value = row.value;
        let result = result.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        match result.expect("every row was judged") {
            Ok((key, judgement, details)) => {
                sum += judgement.as_f64().unwrap_or(f64::from(u8::from(judgement == "correct")));
                value.insert(key.to_owned(), judgement);
                value.insert("judge".to_owned(), details);
            }
            Err(failure) => {
                let (key, nothing) = match args.kind {
                    Kind::Reference => ("verdict", json!("not_judged")),
                    Kind::Pairwise => ("preference", Value::Null),
                    Kind::Rubric => ("score", Value::Null),
                };
                value.insert(key.to_owned(), nothing);
                value.insert("judge".to_owned(), json!({"not_judged": failure.reason, "problem": failure.problem}));
                not_judged += 1;
                first.get_or_insert(failure.problem);
            }
        }
        out.push(value);
    }
    lines::write_json(args.output.as_deref(), &out)?;
    let (spent, judged) = (judge.spent(), out.len() - not_judged);
    let mean = (judged > 0).then(|| sum / judged as f64);
    note(format!(
        "{judged} of {} rows judged in {}: mean {}, {} requests, {} from the cache, {} tokens",
        out.len(),
        duration(begin.elapsed().as_secs_f64()),
        crate::table::number(mean),
        spent.requests,
        spent.cached,
        spent.tokens
    ));
    Output::new(args.json).object(&json!({
        "rows": out.len(), "judged": judged, "not_judged": not_judged, "mean": mean, "spent": spent,
        "wall_s": begin.elapsed().as_secs_f64(), "output": args.output.map(|p| p.display().to_string()),
    }));
    match first {
        Some(problem) if judged == 0 => Err(anyhow!("nothing could be judged: {problem}")),
        _ => Ok(ExitCode::SUCCESS),
    }
}
