//! `aha sandbox`: verdicts on untrusted programs.

use crate::lines::{self, Numbered};
use crate::output::{Output, note};
use crate::table::{duration, left};
use aha_sandbox::{Config, Helper, Layer, Limits, Required, Sandbox, Submission, Verdict};
use anyhow::{Context, anyhow};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// Run untrusted programs against tests and say what they do.
///
/// In, one per line: {"language": "python" | "cpp" | "rust", "code": "...", "tests": [{"input": "...", "output": "..."}]}.
/// Python also by function: {"entry_point": "f", "tests": [{"args": [...], "expected": ...}]}, or by assertions:
/// {"assert": "..."}, {"tests": [{"assert": "..."}]}, and the rows of HumanEval, MBPP and EvalPlus as they are. A line may
/// set "time_ms" and "memory_mb". Out, in the same order: the same lines with "verdict", "reason", "first_difference" and
/// "test_verdicts".
///
/// Verdicts: accepted, wrong_answer, runtime_error, time_limit, memory_limit, output_limit, compile_error, and
/// sandbox_error for what could not be judged, which is neither right nor wrong.
#[derive(clap::Args)]
pub struct Args {
    /// The programs.
    #[arg(long, value_name = "FILE.jsonl", required_unless_present = "layers")]
    input: Option<PathBuf>,
    /// Where the result goes [default: stdout].
    #[arg(long, value_name = "FILE.jsonl")]
    output: Option<PathBuf>,
    /// Say which layers of confinement this machine gives, and stop.
    #[arg(long)]
    layers: bool,
    /// A layer that must be active, else nothing runs; may be given many times, "all" for every layer, "none" for whatever
    /// there is [default: rlimits, seccomp, and mount or landlock; never as root].
    #[arg(long, value_name = "LAYER")]
    require: Vec<String>,
    /// A layer not to use; may be given many times.
    #[arg(long, value_name = "LAYER")]
    disable: Vec<Layer>,
    /// Processor time of one test, or of all calls and assertions of one line together.
    #[arg(long, value_name = "MS", default_value_t = 4_000, value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    time_ms: u64,
    /// Memory of one test.
    #[arg(long, value_name = "MB", default_value_t = 512, value_parser = clap::value_parser!(u64).range(1..=1_048_576))]
    memory_mb: u64,
    /// Output of one test.
    #[arg(long, value_name = "MB", default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=1_024))]
    output_mb: u64,
    /// Processes and threads of one test.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=1_024))]
    processes: u64,
    /// Lines judged at one time [default: twice the processors, since a start is mostly waiting for the kernel].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Skip the tests of a line after its first that fails.
    #[arg(long)]
    stop_early: bool,
    /// Folder that keeps compiled programs between runs [default: none].
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// The Python interpreter [default: python3 in PATH].
    #[arg(long, value_name = "FILE")]
    python: Option<PathBuf>,
    /// The C++ compiler [default: g++ in PATH].
    #[arg(long, value_name = "FILE")]
    cpp: Option<PathBuf>,
    /// The Rust compiler [default: rustc in PATH].
    #[arg(long, value_name = "FILE")]
    rust: Option<PathBuf>,
    /// Print one JSON object (programs, counts by verdict, active layers) on the last line of stdout.
    #[arg(long)]
    json: bool,
}

fn config(args: &Args) -> anyhow::Result<Config> {
    let helper = Helper::this_binary().context("cannot find this program to start it as helper")?;
    let one = |name: &String| name.parse::<Layer>().map_err(|e| anyhow!("--require {name}: {e}, all, none"));
    let required = match args.require.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => Required::Default,
        ["none"] => Required::Nothing,
        ["all"] => Required::These(Layer::ALL.into_iter().filter(|l| *l != Layer::DropUser).collect()),
        _ => Required::These(args.require.iter().map(one).collect::<Result<_, _>>()?),
    };
    let limits = Limits {
        output: args.output_mb << 20,
        processes: args.processes,
        memory: args.memory_mb << 20,
        ..Limits::default()
    };
    Ok(Config {
        required,
        disabled: args.disable.clone(),
        limits: limits.with_cpu_ms(args.time_ms),
        stop_early: args.stop_early,
        cache: args.cache.clone(),
        python: args.python.clone(),
        cpp: args.cpp.clone(),
        rust: args.rust.clone(),
        ..Config::new(helper)
    })
}

/// `aha sandbox --layers`.
fn show_layers(config: &Config, output: Output) -> anyhow::Result<ExitCode> {
    let layers = Sandbox::layers_here(config)?;
    let active = layers.active.iter().map(|l| vec![l.to_string(), "active".to_owned(), String::new()]);
    let missing = layers.missing.iter().map(|m| vec![m.layer.to_string(), "missing".to_owned(), m.reason.clone()]);
    output.text(left(&active.chain(missing).collect::<Vec<_>>()));
    let lacks = layers.lacks(&config.required);
    if let Some(words) = &lacks {
        note(format!("programs would not run here: {words}"));
    }
    output.object(&json!({"active": layers.active, "missing": layers.missing, "lacks": lacks}));
    Ok(if lacks.is_none() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let config = config(&args)?;
    let output = Output::new(args.json);
    if args.layers {
        return show_layers(&config, output);
    }
    lines::check_output(args.output.as_ref())?;
    let input = args.input.clone().context("give --input")?;
    // Every line is read before the first program runs, so that a bad one costs nothing.
    let mut rows: Vec<Map<String, Value>> = Vec::new();
    let mut submissions = Vec::new();
    for Numbered { line, value } in lines::read(&input)? {
        submissions.push(Submission::from_json(&value).map_err(|e| lines::at(&input, line, e))?);
        rows.push(serde_json::from_str(&value).map_err(|e| lines::at(&input, line, e))?);
    }
    let sandbox = Sandbox::new(config)?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let begin = Instant::now();
    let jobs = args.jobs.map_or(2 * cores, usize::from);
    let verdicts = sandbox.judge_all(&submissions, jobs, |_, _| {});
    let seconds = begin.elapsed().as_secs_f64();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (row, judged) in rows.iter_mut().zip(&verdicts) {
        *counts.entry(judged.verdict.name()).or_default() += 1;
        row.insert("verdict".into(), json!(judged.verdict));
        row.insert("reason".into(), json!(judged.reason));
        row.insert("first_difference".into(), json!(judged.first_difference));
        row.insert("test_verdicts".into(), json!(judged.tests));
    }
    lines::write_json(args.output.as_deref(), &rows)?;
    let names: Vec<&str> = sandbox.layers().active.iter().map(|l| l.name()).collect();
    let list: Vec<String> = counts.iter().map(|(name, n)| format!("{n} {name}")).collect();
    note(format!(
        "{} programs in {}: {}; layers: {}",
        rows.len(),
        duration(seconds),
        list.join(", "),
        names.join(", ")
    ));
    if let Some(judged) = verdicts.iter().find(|j| j.verdict == Verdict::SandboxError) {
        note(format!("not judged, for example: {}", judged.reason.as_deref().unwrap_or("no reason")));
    }
    output.object(&json!({
        "programs": rows.len(), "verdicts": counts, "layers": names, "wall_s": seconds,
        "output": args.output.map(|p| p.display().to_string()),
    }));
    Ok(ExitCode::SUCCESS)
}
