//! `aha sft`: supervised fine-tuning of one model on files of conversations, as a recipe of one stage.

use crate::args::{LoraFlags, Style, quoted};
use crate::single;
use aha_pipeline::recipe::{RawRecipe, RecipeError};
use std::path::PathBuf;
use std::process::ExitCode;

/// Settings that have no flag of their own and another default than in a recipe: little memory, first numbers soon.
const DEFAULTS: [(&str, &str); 2] = [("batch_tokens", "8192"), ("validate_every", "20")];

/// Train a model on conversations (supervised fine-tuning).
///
/// A recipe of one stage, `sft`: the same files, resuming and reproducibility as `aha run`. Only what the assistant says is
/// predicted. Rows are JSON lines or one JSON list, each with `messages`, `conversations`, or a question and an answer
/// (`prompt` and `completion`, `instruction` and `output`, `question` and `response`). The trained model is OUT/sft/model.
#[derive(clap::Args)]
pub struct Args {
    /// The model to train: a Hugging Face folder (safetensors, tokenizer.json) or a GGUF file.
    #[arg(long, value_name = "DIR_OR_GGUF")]
    model: String,
    /// Conversations; may be given many times.
    #[arg(long, value_name = "FILE", required = true)]
    data: Vec<String>,
    /// Folder of the run.
    #[arg(long, value_name = "DIR", default_value = "runs/sft")]
    out: PathBuf,
    /// Passes over the data.
    #[arg(long, value_name = "N", default_value_t = 2)]
    epochs: u64,
    /// Ends after so many optimizer steps [default: after all epochs].
    #[arg(long, value_name = "N")]
    max_steps: Option<u64>,
    /// Longer conversations are left out.
    #[arg(long, value_name = "TOKENS", default_value_t = 2048)]
    max_length: u64,
    /// Peak learning rate; it falls along a cosine to a tenth.
    #[arg(long, value_name = "X", default_value = "5e-6")]
    learning_rate: String,
    /// How a conversation becomes a prompt.
    #[arg(long, value_enum, default_value_t = Style::Auto)]
    prompt_style: Style,
    /// System message of conversations that have none, for the chat style [default: none].
    #[arg(long, value_name = "TEXT")]
    system_prompt: Option<String>,
    /// Seed of everything random.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Steps between checkpoints; 0 for only the last.
    #[arg(long, value_name = "N", default_value_t = 100)]
    save_steps: u64,
    /// In what numbers matrix products run: f32, bf16, or auto for the faster one on this processor.
    #[arg(long, value_name = "TYPE", default_value = "auto")]
    precision: String,
    #[command(flatten)]
    lora: LoraFlags,
    /// Any other setting of an sft stage, for example batch_tokens=4096; may be given many times.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Print one JSON object (summary.json with "out", "report", "interrupted") on the last line of stdout.
    #[arg(long)]
    json: bool,
}

fn recipe(args: &Args) -> Result<RawRecipe, RecipeError> {
    let data: Vec<String> = args.data.iter().map(|path| quoted(path)).collect();
    let values = [
        ("--model", "model", Some(quoted(&args.model))),
        ("--data", "data", Some(format!("[{}]", data.join(", ")))),
        ("--epochs", "epochs", Some(args.epochs.to_string())),
        ("--max-steps", "max_steps", args.max_steps.map(|n| n.to_string())),
        ("--max-length", "max_length", Some(args.max_length.to_string())),
        ("--learning-rate", "learning_rate", Some(args.learning_rate.clone())),
        ("--prompt-style", "prompt_style", Some(args.prompt_style.name().to_owned())),
        ("--system-prompt", "system_prompt", args.system_prompt.as_deref().map(quoted)),
        ("--save-steps", "save_steps", Some(args.save_steps.to_string())),
        ("--precision", "precision", Some(quoted(&args.precision))),
    ];
    let lora = args.lora.values().map(|(flag, key, value)| (flag, key, Some(value)));
    single::recipe("sft", &DEFAULTS, values.into_iter().chain(lora), args.seed, &args.set)
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    single::run(&recipe(&args)?, "sft", &args.out, args.json)
}
