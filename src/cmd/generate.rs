//! `aha generate`: completions of many prompts.

use crate::args::{count, not_negative, nucleus, precision};
use crate::failure::usage;
use crate::interrupt;
use crate::lines::{self, Numbered};
use crate::loaded::Loaded;
use crate::output::{Output, note};
use crate::progress::Counter;
use crate::table::duration;
use aha_engine::sampler::mix;
use aha_engine::{Control, EngineConfig, FinishReason, Request, SamplingParams, generate};
use aha_model::{ChatTemplate, Message};
use aha_pipeline::recipe::Precision;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Complete the prompts of a file.
///
/// Prompts: a .jsonl file with {"prompt": "..."}, {"messages": [{"role", "content"}, ...]} or {"tokens": [...]} per line,
/// or any other file with one prompt per line. Messages go through the model's chat template, prompts are completed as
/// they are; --chat makes every prompt the message of a user. The same seed gives the same completions.
#[derive(clap::Args)]
pub struct Args {
    /// A Hugging Face folder or a GGUF file.
    model: PathBuf,
    /// The prompts.
    #[arg(long, value_name = "FILE")]
    prompts: PathBuf,
    /// Where completions go, one JSON object per line [default: stdout].
    #[arg(long, value_name = "FILE.jsonl")]
    output: Option<PathBuf>,
    /// Samples per prompt.
    #[arg(long, value_name = "N", default_value = "1", value_parser = count)]
    samples: usize,
    /// Tokens after which a completion is cut off [default: 1024, at most half of the model's positions].
    #[arg(long, value_name = "N", value_parser = count)]
    max_new_tokens: Option<usize>,
    /// Sampling temperature; 0 takes the likeliest token always.
    #[arg(long, value_name = "T", default_value = "1.0", value_parser = not_negative)]
    temperature: f32,
    /// Nucleus: keep the likeliest tokens with this much probability, 1 for all.
    #[arg(long, value_name = "P", default_value = "1.0", value_parser = nucleus)]
    top_p: f32,
    /// Keep this many of the likeliest tokens, 0 for all.
    #[arg(long, value_name = "K", default_value_t = 0)]
    top_k: usize,
    /// Seed of the sampling.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Put every prompt into the model's chat template.
    #[arg(long, conflicts_with = "raw")]
    chat: bool,
    /// Never use the chat template; messages are refused.
    #[arg(long)]
    raw: bool,
    /// In what numbers matrix products run: f32, bf16, auto for the faster of these on this processor, or quantized for the
    /// whole numbers of a GGUF file (8 bits for others), which read the least memory.
    #[arg(long, value_name = "TYPE", default_value = "auto", value_parser = precision)]
    precision: Precision,
    /// Draft tokens with the model's prediction module, where it has one: the same distribution of texts, fewer steps.
    #[arg(long)]
    speculative: bool,
    /// Print one JSON object (prompts, completions, tokens, speed) on the last line of stdout.
    #[arg(long)]
    json: bool,
}

#[derive(Deserialize)]
struct Line {
    prompt: Option<String>,
    messages: Option<Vec<Message>>,
    tokens: Option<Vec<u32>>,
}

/// What a line asks for.
enum Prompt {
    Text(String),
    Messages(Vec<Message>),
    Tokens(Vec<u32>),
}

#[derive(Serialize)]
struct Completed {
    prompt: Option<String>,
    completion: Option<String>,
    prompt_tokens: Vec<u32>,
    completion_tokens: Vec<u32>,
    logprobs: Vec<f32>,
    finish_reason: &'static str,
    sample: usize,
}

fn read(path: &Path) -> anyhow::Result<Vec<Numbered<Prompt>>> {
    if path.extension().is_none_or(|e| e != "jsonl") {
        let text = |n: Numbered<String>| Numbered { line: n.line, value: Prompt::Text(n.value) };
        return Ok(lines::read(path)?.into_iter().map(text).collect());
    }
    let prompt = |n: Numbered<Line>| {
        let value = match (n.value.prompt, n.value.messages, n.value.tokens) {
            (Some(text), None, None) => Prompt::Text(text),
            (None, Some(messages), None) if !messages.is_empty() => Prompt::Messages(messages),
            (None, None, Some(tokens)) => Prompt::Tokens(tokens),
            _ => {
                return Err(lines::at(
                    path,
                    n.line,
                    "give one of \"prompt\", \"messages\" (at least one) and \"tokens\"",
                ));
            }
        };
        Ok(Numbered { line: n.line, value })
    };
    lines::read_json(path)?.into_iter().map(prompt).collect()
}

/// The prompt as text (where it is one) and as tokens.
fn encode(
    prompt: Prompt,
    args: &Args,
    model: &Loaded,
    chat: Option<&ChatTemplate>,
) -> anyhow::Result<(Option<String>, Vec<u32>)> {
    let messages = match prompt {
        Prompt::Tokens(tokens) => {
            let text = model.tokenizer().map(|t| t.decode(&tokens, false)).transpose()?;
            return Ok((text, tokens));
        }
        Prompt::Text(text) if !args.chat => {
            let tokens = model.need_tokenizer("a prompt of text")?.encode(&text, true)?;
            return Ok((Some(text), tokens));
        }
        Prompt::Text(text) => vec![Message::new("user", text)],
        Prompt::Messages(_) if args.raw => {
            return Err(usage("--raw takes no messages; give prompts, or leave --raw out"));
        }
        Prompt::Messages(messages) => messages,
    };
    let template =
        chat.ok_or_else(|| usage("the model has no chat template; give prompts of text and leave --chat out"))?;
    let text = template.render(&messages, true)?;
    // The template writes the tokenizer's own special tokens itself.
    let tokens = model.need_tokenizer("a chat template")?.encode(&text, false)?;
    Ok((Some(text), tokens))
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    lines::check_output(args.output.as_ref())?;
    let prompts = read(&args.prompts)?;
    let model = Loaded::open(&args.model)?;
    let chat = model.chat_template()?;
    let positions = model.checkpoint.config().max_position_embeddings;
    let params = SamplingParams {
        temperature: args.temperature,
        top_p: args.top_p,
        top_k: args.top_k,
        max_new_tokens: args.max_new_tokens.unwrap_or((positions / 2).clamp(1, 1024)),
        stop_tokens: model.stop_tokens(),
    };
    let (mut numbers, mut texts, mut requests) = (Vec::new(), Vec::new(), Vec::new());
    for (i, Numbered { line, value }) in prompts.into_iter().enumerate() {
        let (text, tokens) = encode(value, &args, &model, chat.as_ref())
            .map_err(|e| e.context(format!("{}:{line}", args.prompts.display())))?;
        let seed = mix(args.seed ^ mix(i as u64));
        requests.push(Request { prompt: tokens.into(), samples: args.samples, params: params.clone(), seed });
        numbers.push(line);
        texts.push(text);
    }
    let decoder = model.decoder(args.precision)?;
    let control = Arc::new(Control::default());
    let stop = control.clone();
    interrupt::on_ctrl_c("stopping; press again to stop at once", move || stop.stop.store(true, Ordering::SeqCst))?;
    let begin = Instant::now();
    let counter = Counter::start("generating", &control);
    let engine = EngineConfig { speculative: args.speculative, ..EngineConfig::default() };
    let completions = generate(&decoder, &requests, &engine, &control);
    drop(counter);
    let completions = completions.map_err(|e| lines::engine_error(&args.prompts, &numbers, &e))?;
    if control.stop.load(Ordering::SeqCst) {
        anyhow::bail!("interrupted; nothing was written");
    }
    let seconds = begin.elapsed().as_secs_f64();
    let mut out = Vec::with_capacity(completions.len());
    for c in completions {
        let end = c.tokens.len() - usize::from(c.finish == FinishReason::Stop);
        out.push(Completed {
            prompt: texts[c.request].clone(),
            completion: model.tokenizer().map(|t| t.decode(&c.tokens[..end], false)).transpose()?,
            prompt_tokens: requests[c.request].prompt.to_vec(),
            completion_tokens: c.tokens,
            logprobs: c.logprobs,
            finish_reason: match c.finish {
                FinishReason::Stop => "stop",
                FinishReason::Length => "length",
            },
            sample: c.sample,
        });
    }
    lines::write_json(args.output.as_deref(), &out)?;
    let tokens = control.tokens.load(Ordering::Relaxed);
    let speed = tokens as f64 / seconds.max(1e-9);
    note(format!("{} completions, {tokens} tokens in {}, {speed:.0} tokens/s", out.len(), duration(seconds)));
    if let Some((acceptance, per_step)) = control.speculation() {
        note(format!("{:.1} % of the drafts kept, {per_step:.2} tokens a step", acceptance * 100.0));
    }
    Output::new(args.json).object(&json!({
        "speculative_acceptance": control.speculation().map(|s| s.0),
        "prompts": requests.len(), "completions": out.len(), "completion_tokens": tokens, "wall_s": seconds,
        "tokens_per_second": speed, "output": args.output.map(|p| p.display().to_string()),
    }));
    Ok(ExitCode::SUCCESS)
}
