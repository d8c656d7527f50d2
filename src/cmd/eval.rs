//! `aha eval`: how often a model is right on the held-out problems of tasks, and how it behaves.

use crate::args::{Style, count, not_negative, nucleus, precision};
use crate::output::{Output, note};
use crate::progress::Counter;
use crate::table::{duration, evaluations};
use crate::{interrupt, lines};
use aha_engine::sampler::mix;
use aha_engine::{Control, EngineConfig, SamplingParams};
use aha_eval::{EvalSettings, EvalSummary, Evaluated, SampleRecord, evaluate, summarise};
use aha_pipeline::OpenModel;
use aha_pipeline::recipe::Precision;
use aha_tasks::{TaskOptions, open_task, reads_files};
use anyhow::Context;
use serde::Serialize;
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Measure a model on tasks: pass@1 with its standard error, pass@16, cons@16, lengths, behaviours.
///
/// With --data alone, what is measured on is the tenth of it that `aha grpo --data` holds out (of HumanEval all of it, of MBPP
/// its tasks 11 to 510); with --eval-data, all of that file. Generated tasks (those named mini, and families) need neither.
#[derive(clap::Args)]
pub struct Args {
    /// A Hugging Face folder or a GGUF file.
    model: PathBuf,
    /// Tasks, separated by commas: gsm8k, jsonl, mini, families of mini, mini-code, mini-general, mini-r1; and humaneval, mbpp
    /// and code, whose programs run in the sandbox (Linux).
    #[arg(long, value_name = "NAME[,..]", value_delimiter = ',', required = true)]
    task: Vec<String>,
    /// Problems, one JSON object per line, of which a tenth is held out [default: none].
    #[arg(long, value_name = "FILE.jsonl")]
    data: Option<PathBuf>,
    /// Held-out problems, one JSON object per line [default: a tenth of --data].
    #[arg(long, value_name = "FILE.jsonl")]
    eval_data: Option<PathBuf>,
    /// Problems per task, fewer where there are fewer.
    #[arg(long, value_name = "N", default_value = "200", value_parser = count)]
    problems: usize,
    /// Samples per problem; pass@16 and cons@16 need 16.
    #[arg(long, value_name = "K", default_value = "16", value_parser = count)]
    samples: usize,
    /// Sampling temperature.
    #[arg(long, value_name = "T", default_value = "0.6", value_parser = not_negative)]
    temperature: f32,
    /// Nucleus: keep the likeliest tokens with this much probability, 1 for all.
    #[arg(long, value_name = "P", default_value = "0.95", value_parser = nucleus)]
    top_p: f32,
    /// Tokens after which a completion is cut off [default: 1024, at most half of the model's positions].
    #[arg(long, value_name = "N", value_parser = count)]
    max_completion_length: Option<usize>,
    /// How a problem becomes a prompt.
    #[arg(long, value_enum, default_value_t = Style::Auto)]
    prompt_style: Style,
    /// System message, for the chat style [default: none].
    #[arg(long, value_name = "TEXT")]
    system_prompt: Option<String>,
    /// Text put after every question, on a line of its own [default: none].
    #[arg(long, value_name = "TEXT")]
    prompt_suffix: Option<String>,
    /// One greedy completion per problem and no samples.
    #[arg(long)]
    greedy_only: bool,
    /// Draft tokens with the model's prediction module, where it has one: the same distribution of texts, fewer steps.
    #[arg(long)]
    speculative: bool,
    /// Seed of problems and sampling.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Write every judged sample there, one JSON object per line [default: nowhere].
    #[arg(long, value_name = "FILE.jsonl")]
    output: Option<PathBuf>,
    /// In what numbers matrix products run: f32, bf16, auto for the faster of these on this processor, or quantized for the
    /// whole numbers of a GGUF file (8 bits for others), which read the least memory.
    #[arg(long, value_name = "TYPE", default_value = "auto", value_parser = precision)]
    precision: Precision,
    /// Print one JSON object, {"model", "tasks": {NAME: measures}}, on the last line of stdout.
    #[arg(long)]
    json: bool,
}

/// A line of `--output`.
#[derive(Serialize)]
struct Line<'a> {
    task: &'a str,
    greedy: bool,
    question: Option<&'a str>,
    #[serde(flatten)]
    sample: &'a SampleRecord,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    lines::check_output(args.output.as_ref())?;
    let mut tasks = Vec::new();
    for name in &args.task {
        // Of several tasks, those that make their own problems have no use for the files.
        let files = args.task.len() == 1 || reads_files(name);
        let given = |path: &Option<PathBuf>| path.clone().filter(|_| files);
        let options =
            TaskOptions { data: given(&args.data), eval_data: given(&args.eval_data), ..TaskOptions::default() };
        tasks.push(open_task(name, args.seed, &options)?);
    }
    let model = OpenModel::open(&args.model)?;
    let prompter =
        model.prompter(args.prompt_style.prompt_style(), args.system_prompt.clone(), args.prompt_suffix.clone())?;
    let positions = model.config().max_position_embeddings;
    let settings = EvalSettings {
        problems: args.problems,
        samples: if args.greedy_only { 0 } else { args.samples },
        sampling: SamplingParams {
            temperature: args.temperature,
            top_p: args.top_p,
            max_new_tokens: args.max_completion_length.unwrap_or((positions / 2).clamp(1, 1024)),
            ..SamplingParams::default()
        },
        greedy: true,
        seed: mix(args.seed),
        engine: EngineConfig { speculative: args.speculative, ..EngineConfig::default() },
    };
    let decoder = model.decoder(args.precision)?;
    let control = Arc::new(Control::default());
    let stop = control.clone();
    interrupt::on_ctrl_c("stopping; press again to stop at once", move || stop.stop.store(true, Ordering::SeqCst))?;
    let begin = Instant::now();
    let mut results: Vec<(String, Evaluated)> = Vec::new();
    for task in &tasks {
        let counter = Counter::start(task.name(), &control);
        let result = evaluate(&decoder, &**task, &prompter, &settings, &control);
        drop(counter);
        results.push((task.name().to_owned(), result.with_context(|| format!("task {}", task.name()))?));
    }
    let seconds = begin.elapsed().as_secs_f64();
    let tokens = control.tokens.load(Ordering::Relaxed);
    let summaries: Vec<(String, EvalSummary)> = results.iter().map(|(name, r)| (name.clone(), summary(r))).collect();
    if let Some(path) = &args.output {
        let rows: Vec<Line> = results.iter().flat_map(|(name, r)| rows(name, r)).collect();
        lines::write_json(Some(path), &rows)?;
    }
    let output = Output::new(args.json);
    output.text(evaluations("task", &summaries));
    note(format!("{tokens} tokens in {}, {:.0} tokens/s", duration(seconds), tokens as f64 / seconds.max(1e-9)));
    let tasks: serde_json::Map<String, serde_json::Value> =
        summaries.into_iter().map(|(name, s)| (name, json!(s))).collect();
    output.object(&json!({"model": args.model.display().to_string(), "tasks": tasks}));
    Ok(ExitCode::SUCCESS)
}

/// Greedy completions stand in for samples where there are none, so that behaviours are measured on them.
fn summary(r: &Evaluated) -> EvalSummary {
    summarise(if r.samples.is_empty() { &r.greedy } else { &r.samples }, &r.greedy)
}

fn rows<'a>(task: &'a str, r: &'a Evaluated) -> impl Iterator<Item = Line<'a>> {
    let all = r.samples.iter().map(|s| (false, s)).chain(r.greedy.iter().map(|s| (true, s)));
    all.map(move |(greedy, sample)| {
        let problem = r.problems.iter().find(|p| p.id == sample.problem_id);
        Line { task, greedy, question: problem.map(|p| p.question.as_str()), sample }
    })
}
