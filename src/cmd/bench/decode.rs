//! Decoding many sequences with a small model.

use super::{Shape, median, sequences};
use crate::args::count;
use crate::output::Output;
use aha_engine::{Control, EngineConfig, Request, SamplingParams, generate};
use serde_json::json;

/// Sampling from a Llama with random weights, in new tokens/s.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    shape: Shape,
    /// Sequences, each with a prompt of its own.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = count)]
    sequences: usize,
    /// Tokens of a prompt.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = count)]
    prompt_tokens: usize,
    /// Tokens drawn for each.
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = count)]
    new_tokens: usize,
    /// Draft tokens with the model's prediction module (random weights: few are kept).
    #[arg(long)]
    speculative: bool,
    /// Repetitions; the median counts.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = count)]
    repeat: usize,
    /// Print one JSON object on the last line of stdout.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let model = args.shape.decoder(args.prompt_tokens + args.new_tokens, false)?;
    let params = SamplingParams { max_new_tokens: args.new_tokens, ..SamplingParams::default() };
    let requests: Vec<Request> = sequences(args.sequences, args.prompt_tokens, model.config.vocab_size)
        .into_iter()
        .enumerate()
        .map(|(i, prompt)| Request { prompt: prompt.into(), samples: 1, params: params.clone(), seed: i as u64 })
        .collect();
    let engine = EngineConfig { speculative: args.speculative, ..EngineConfig::default() };
    generate(&model, &requests, &engine, &Control::default())?;
    let seconds = median(args.repeat, || {
        generate(&model, &requests, &engine, &Control::default()).expect("it worked before");
    });
    let rate = (args.sequences * args.new_tokens) as f64 / seconds;
    let output = Output::new(args.json);
    output.text(format!(
        "{} sequences x {} tokens in {seconds:.2} s, {rate:.0} tokens/s",
        args.sequences, args.new_tokens
    ));
    output.object(&json!({"tokens_per_second": rate, "seconds": seconds}));
    Ok(())
}
