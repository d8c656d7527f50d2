//! `aha distill`: a student learns from a teacher, as a recipe of one stage.

use crate::args::{Style, quoted};
use crate::single;
use aha_pipeline::recipe::{RawRecipe, RecipeError};
use std::path::PathBuf;
use std::process::ExitCode;

/// Train a student on what a teacher says, or on what it would have said.
///
/// A recipe of one stage, `distill`: the same files, resuming and reproducibility as `aha run`. --method sft trains on texts
/// alone, as R1's students were: those of --data, of a file of traces (--teacher FILE.jsonl), or of an OpenAI-compatible
/// endpoint that is asked the problems of a task (--teacher http://..., --set task=...). forward_kl, reverse_kl and jsd learn
/// the teacher's distribution on the texts of --data, on_policy on the student's own answers to a task; teacher and student
/// then share a tokenizer. The trained student is OUT/distill/model.
#[derive(clap::Args)]
pub struct Args {
    /// The model to train: a Hugging Face folder (safetensors, tokenizer.json) or a GGUF file.
    #[arg(long, value_name = "DIR_OR_GGUF")]
    student: String,
    /// A model (folder or GGUF), a file of traces (.jsonl), or an http:// address.
    #[arg(long, value_name = "MODEL_OR_FILE_OR_URL")]
    teacher: Option<String>,
    /// sft, forward_kl, reverse_kl, jsd or on_policy.
    #[arg(long, default_value = "sft")]
    method: String,
    /// Conversations to learn on; may be given many times.
    #[arg(long, value_name = "FILE")]
    data: Vec<String>,
    /// Folder of the run.
    #[arg(long, value_name = "DIR", default_value = "runs/distill")]
    out: PathBuf,
    /// The task that gives problems to on_policy and to an endpoint.
    #[arg(long)]
    task: Option<String>,
    /// Optimizer steps: all of on_policy's (needed there), at most so many of the others' [default: all epochs].
    #[arg(long, value_name = "N")]
    max_steps: Option<u64>,
    /// Passes over the data [default: 2].
    #[arg(long, value_name = "N")]
    epochs: Option<u64>,
    /// Tokens of the teacher that are told apart [default: 64].
    #[arg(long, value_name = "N")]
    top_k: Option<u64>,
    /// Divides the logits of both for the comparison [default: 1].
    #[arg(long, value_name = "X")]
    temperature: Option<String>,
    /// Share of the tokens' cross-entropy in the loss [default: 0].
    #[arg(long, value_name = "X")]
    alpha: Option<String>,
    /// Peak learning rate; it falls along a cosine to a tenth.
    #[arg(long, value_name = "X", default_value = "1e-4")]
    learning_rate: String,
    /// How a conversation becomes a prompt.
    #[arg(long, value_enum, default_value_t = Style::Auto)]
    prompt_style: Style,
    /// Seed of everything random.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// In what numbers matrix products run: f32, bf16, or auto for the faster one on this processor.
    #[arg(long, value_name = "TYPE", default_value = "auto")]
    precision: String,
    /// Any other setting of a distill stage, for example batch_tokens=4096; may be given many times.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Print one JSON object (summary.json with "out", "report", "interrupted") on the last line of stdout.
    #[arg(long)]
    json: bool,
}

fn recipe(args: &Args) -> Result<RawRecipe, RecipeError> {
    let on_policy = args.method == "on_policy";
    // Little memory, first numbers soon; the student's own answers have none of these.
    let defaults: &[(&str, &str)] = match on_policy {
        true => &[],
        false => &[("batch_tokens", "8192"), ("max_length", "2048"), ("validate_every", "20")],
    };
    let data: Vec<String> = args.data.iter().map(|path| quoted(path)).collect();
    let steps = if on_policy { "steps" } else { "max_steps" };
    let values = [
        ("--student", "student", Some(quoted(&args.student))),
        ("--teacher", "teacher", args.teacher.as_deref().map(quoted)),
        ("--method", "method", Some(quoted(&args.method))),
        ("--data", "data", (!data.is_empty()).then(|| format!("[{}]", data.join(", ")))),
        ("--task", "task", args.task.as_deref().map(quoted)),
        ("--max-steps", steps, args.max_steps.map(|n| n.to_string())),
        ("--epochs", "epochs", args.epochs.map(|n| n.to_string())),
        ("--top-k", "top_k", args.top_k.map(|n| n.to_string())),
        ("--temperature", "temperature", args.temperature.clone()),
        ("--alpha", "alpha", args.alpha.clone()),
        ("--learning-rate", "learning_rate", Some(args.learning_rate.clone())),
        ("--prompt-style", "prompt_style", Some(args.prompt_style.name().to_owned())),
        ("--precision", "precision", Some(quoted(&args.precision))),
    ];
    single::recipe("distill", defaults, values, args.seed, &args.set)
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    single::run(&recipe(&args)?, "distill", &args.out, args.json)
}
