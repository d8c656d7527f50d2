//! `aha reward-model`: training of a reward model on pairs or labelled responses, as a recipe of one stage.

use crate::args::{Style, quoted};
use crate::single;
use aha_pipeline::recipe::{RawRecipe, RecipeError};
use std::path::PathBuf;
use std::process::ExitCode;

/// Settings that have no flag of their own and another default than in a recipe: little memory, first numbers soon.
const DEFAULTS: [(&str, &str); 2] = [("batch_size", "16"), ("max_length", "1024")];

/// What the rows say.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Objective {
    /// Which of two responses is better: `chosen` and `rejected`.
    Pairwise,
    /// Whether a response is good: `safe` or `label`.
    Pointwise,
}

/// What of a response is read.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Reads {
    /// What follows the thinking.
    Answer,
    /// All of it.
    Whole,
}

/// Train a reward model, and measure it on rows it has not seen.
///
/// A recipe of one stage, `reward_model`: the same files, resuming and reproducibility as `aha run`. Rows are JSON lines or one JSON
/// list, gzipped or not: pairs (`chosen` and `rejected` as texts, messages, conversations or `Human:`/`Assistant:` transcripts,
/// with `tie`, `preference` or `margin`), or labelled responses (`response` and `safe` or `label`). The model is
/// OUT/reward_model/model, which transformers loads as sequence classification with one label; `aha score` gives its
/// scores, and a grpo stage uses it by `rewards = [{ name = "helpful", model = "PATH" }]`.
#[derive(clap::Args)]
pub struct Args {
    /// The model it begins as: a Hugging Face folder (safetensors, tokenizer.json) or a GGUF file.
    #[arg(long, value_name = "DIR_OR_GGUF")]
    model: String,
    /// Rows; may be given many times.
    #[arg(long, value_name = "FILE", required = true)]
    data: Vec<String>,
    /// What the rows say.
    #[arg(long, value_enum, default_value = "pairwise")]
    objective: Objective,
    /// What of a response is read [default: answer for pairs, whole for labels].
    #[arg(long, value_enum)]
    reads: Option<Reads>,
    /// Folder of the run.
    #[arg(long, value_name = "DIR", default_value = "runs/reward-model")]
    out: PathBuf,
    /// Passes over the data.
    #[arg(long, value_name = "N", default_value_t = 1)]
    epochs: u64,
    /// Ends after so many optimizer steps [default: after all epochs].
    #[arg(long, value_name = "N")]
    max_steps: Option<u64>,
    /// Peak learning rate; it falls along a cosine to a tenth.
    #[arg(long, value_name = "X", default_value = "6e-6")]
    learning_rate: String,
    /// How a conversation becomes a prompt.
    #[arg(long, value_enum, default_value_t = Style::Auto)]
    prompt_style: Style,
    /// Seed of everything random.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Steps between checkpoints; 0 for only the last.
    #[arg(long, value_name = "N", default_value_t = 100)]
    save_steps: u64,
    /// In what numbers matrix products run: f32, bf16, or auto for the faster one on this processor.
    #[arg(long, value_name = "TYPE", default_value = "auto")]
    precision: String,
    /// Any other setting of a reward_model stage, for example batch_size=32; may be given many times.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Print one JSON object (summary.json with "out", "report", "interrupted") on the last line of stdout.
    #[arg(long)]
    json: bool,
}

fn recipe(args: &Args) -> Result<RawRecipe, RecipeError> {
    let data: Vec<String> = args.data.iter().map(|path| quoted(path)).collect();
    let objective = if args.objective == Objective::Pairwise { "pairwise" } else { "pointwise" };
    let reads = args.reads.map(|reads| if reads == Reads::Answer { "answer" } else { "whole" });
    let values = [
        ("--model", "model", Some(quoted(&args.model))),
        ("--data", "data", Some(format!("[{}]", data.join(", ")))),
        ("--objective", "objective", Some(objective.to_owned())),
        ("--reads", "reads", reads.map(str::to_owned)),
        ("--epochs", "epochs", Some(args.epochs.to_string())),
        ("--max-steps", "max_steps", args.max_steps.map(|n| n.to_string())),
        ("--learning-rate", "learning_rate", Some(args.learning_rate.clone())),
        ("--prompt-style", "prompt_style", Some(args.prompt_style.name().to_owned())),
        ("--save-steps", "save_steps", Some(args.save_steps.to_string())),
        ("--precision", "precision", Some(quoted(&args.precision))),
    ];
    single::recipe("reward_model", &DEFAULTS, values, args.seed, &args.set)
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    single::run(&recipe(&args)?, "reward_model", &args.out, args.json)
}
