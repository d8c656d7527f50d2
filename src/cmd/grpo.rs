//! `aha grpo`: reinforcement learning on one model and one task, as a recipe of one stage.

use crate::args::{LoraFlags, Style, quoted};
use crate::single;
use aha_pipeline::recipe::{RawRecipe, RecipeError};
use aha_tasks::RewardKind;
use std::path::PathBuf;
use std::process::ExitCode;

/// Settings that have no flag of their own and another default than in a recipe, for a model of some hundred million
/// parameters on a CPU: on-policy, and little memory for activations.
const DEFAULTS: [(&str, &str); 2] = [("steps_per_generation", "1"), ("micro_batch_tokens", "1024")];

/// Train a model with GRPO on verifiable rewards.
///
/// A recipe of one stage, `grpo`: the same files, resuming and reproducibility as `aha run`. The defaults suit a model of
/// some hundred million parameters on a CPU and a first look; R1's were 10400 steps of 32 prompts x 16 samples, learning
/// rate 3e-6, beta 0.001. The trained model is OUT/grpo/model; measure it with `aha eval`.
#[derive(clap::Args)]
pub struct Args {
    /// The model to train: a Hugging Face folder (safetensors, tokenizer.json) or a GGUF file.
    #[arg(long, value_name = "DIR_OR_GGUF")]
    model: String,
    /// The task that gives problems and verdicts: gsm8k, jsonl, mini, a family of mini, mini-code, mini-general, mini-r1, or
    /// mbpp and code, whose programs run in the sandbox (Linux).
    #[arg(long)]
    task: String,
    /// Problems to train on, one JSON object per line (or a folder with train.jsonl and test.jsonl); without --eval-data
    /// a tenth of them is held out [default: none, generated tasks need none].
    #[arg(long, value_name = "FILE.jsonl")]
    data: Option<String>,
    /// Problems to evaluate on [default: a tenth of --data].
    #[arg(long, value_name = "FILE.jsonl")]
    eval_data: Option<String>,
    /// Folder of the run.
    #[arg(long, value_name = "DIR", default_value = "runs/grpo")]
    out: PathBuf,
    /// Optimizer steps.
    #[arg(long, value_name = "N", default_value_t = 100)]
    max_steps: u64,
    /// Problems per step.
    #[arg(long, value_name = "N", default_value_t = 4)]
    num_prompts: u64,
    /// Samples per problem (the group), at least 2.
    #[arg(long, value_name = "N", default_value_t = 8)]
    num_generations: u64,
    /// Tokens after which a completion is cut off.
    #[arg(long, value_name = "N", default_value_t = 256)]
    max_completion_length: u64,
    /// Learning rate of AdamW.
    #[arg(long, value_name = "X", default_value = "1e-6")]
    learning_rate: String,
    /// Coefficient of the KL term; 0 keeps no reference model and so saves its memory.
    #[arg(long, value_name = "X", default_value = "0.0")]
    beta: String,
    /// Sampling temperature, which also divides the logits in training.
    #[arg(long, value_name = "X", default_value = "1.0")]
    temperature: String,
    /// How token losses are weighted: grpo, dr_grpo, dapo, gspo or cispo.
    #[arg(long, value_name = "TYPE", default_value = "grpo")]
    loss_type: String,
    /// What centred rewards are divided by: group, batch or none.
    #[arg(long, value_name = "BY", default_value = "group")]
    scale_rewards: String,
    /// A reward and its weight: accuracy, format, format_lenient, format_r1, format_r1_lenient, tag_count,
    /// language_consistency, length_penalty or repetition_penalty; may be given many times [default: accuracy=1 format=1].
    #[arg(long, value_name = "NAME=WEIGHT", value_parser = reward)]
    reward: Vec<(RewardKind, f64)>,
    /// How a problem becomes a prompt.
    #[arg(long, value_enum, default_value_t = Style::Auto)]
    prompt_style: Style,
    /// System message, for the chat style [default: none].
    #[arg(long, value_name = "TEXT")]
    system_prompt: Option<String>,
    /// Text put after every question, on a line of its own [default: none].
    #[arg(long, value_name = "TEXT")]
    prompt_suffix: Option<String>,
    /// Seed of everything random.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Steps between checkpoints; 0 for only the last.
    #[arg(long, value_name = "N", default_value_t = 20)]
    save_steps: u64,
    /// Steps between evaluations on held-out problems; 0 for none.
    #[arg(long, value_name = "N", default_value_t = 0)]
    eval_steps: u64,
    /// In what numbers matrix products run: f32, bf16, or auto for the faster one on this processor.
    #[arg(long, value_name = "TYPE", default_value = "auto")]
    precision: String,
    #[command(flatten)]
    lora: LoraFlags,
    /// Any other setting of a grpo stage, for example epsilon_high=0.28; may be given many times.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Print one JSON object (summary.json with "out", "report", "interrupted") on the last line of stdout.
    #[arg(long)]
    json: bool,
}

/// `NAME=WEIGHT`.
fn reward(text: &str) -> Result<(RewardKind, f64), String> {
    let (name, weight) = text.split_once('=').unwrap_or((text, "1"));
    let kind = name.parse::<RewardKind>().map_err(|e| e.to_string())?;
    let weight: f64 = weight.parse().map_err(|_| format!("the weight {weight:?} is not a number; write {name}=0.5"))?;
    Ok((kind, weight))
}

fn recipe(args: &Args) -> Result<RawRecipe, RecipeError> {
    let texts = [
        ("--model", "model", Some(&args.model)),
        ("--task", "task", Some(&args.task)),
        ("--data", "task_options.data", args.data.as_ref()),
        ("--eval-data", "task_options.eval_data", args.eval_data.as_ref()),
        ("--system-prompt", "system_prompt", args.system_prompt.as_ref()),
        ("--prompt-suffix", "prompt_suffix", args.prompt_suffix.as_ref()),
    ];
    let texts = texts.map(|(flag, key, text)| (flag, key, text.map(|text| quoted(text))));
    let values = [
        ("--max-steps", "steps", args.max_steps.to_string()),
        ("--num-prompts", "num_prompts", args.num_prompts.to_string()),
        ("--num-generations", "num_generations", args.num_generations.to_string()),
        ("--max-completion-length", "max_completion_length", args.max_completion_length.to_string()),
        ("--learning-rate", "learning_rate", args.learning_rate.clone()),
        ("--beta", "beta", args.beta.clone()),
        ("--temperature", "temperature", args.temperature.clone()),
        ("--loss-type", "loss_type", args.loss_type.clone()),
        ("--scale-rewards", "scale_rewards", args.scale_rewards.clone()),
        ("--prompt-style", "prompt_style", args.prompt_style.name().to_owned()),
        ("--precision", "precision", quoted(&args.precision)),
        ("--save-steps", "save_steps", args.save_steps.to_string()),
        ("--eval-steps", "eval_steps", args.eval_steps.to_string()),
    ];
    let one = |(kind, weight): &(RewardKind, f64)| format!("{{ name = \"{}\", weight = {weight:?} }}", kind.name());
    let list: Vec<String> = args.reward.iter().map(one).collect();
    let rewards = ("--reward", "rewards", (!list.is_empty()).then(|| format!("[{}]", list.join(", "))));
    let given = values.into_iter().chain(args.lora.values()).map(|(flag, key, value)| (flag, key, Some(value)));
    single::recipe("grpo", &DEFAULTS, texts.into_iter().chain(given).chain([rewards]), args.seed, &args.set)
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    single::run(&recipe(&args)?, "grpo", &args.out, args.json)
}
