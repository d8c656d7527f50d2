//! Prefill and decoding of a real model.

use super::{median, sequences};
use crate::args::{count, precision};
use crate::loaded::Loaded;
use crate::output::Output;
use aha_engine::{Control, EngineConfig, Request, SamplingParams, generate};
use aha_pipeline::recipe::Precision;
use serde_json::{Map, json};
use std::path::PathBuf;
use std::time::Instant;

/// Prefill and decoding of a model on disk, in tokens/s.
#[derive(clap::Args)]
pub struct Args {
    /// A Hugging Face folder or a GGUF file.
    #[arg(long, value_name = "DIR_OR_GGUF")]
    model: PathBuf,
    /// Tokens of the prompt whose prefill is measured.
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = count)]
    prefill: usize,
    /// Numbers of sequences that are decoded together.
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "1,16,32")]
    sequences: Vec<usize>,
    /// Tokens of a prompt before decoding.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = count)]
    prompt_tokens: usize,
    /// Tokens drawn for each sequence.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = count)]
    new_tokens: usize,
    /// Repetitions; the median counts.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = count)]
    repeat: usize,
    /// In what numbers: f32, bf16, quantized, or auto for the faster of the first two on this processor.
    #[arg(long, value_name = "TYPE", default_value = "auto", value_parser = precision)]
    precision: Precision,
    /// Print one JSON object on the last line of stdout.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let model = Loaded::open(&args.model)?;
    let decoder = model.decoder(args.precision)?;
    let vocab = decoder.config.vocab_size;
    let engine = EngineConfig { workers: 1, ..EngineConfig::default() };
    let request = |prompt: Vec<u32>, new: usize| Request {
        prompt: prompt.into(),
        samples: 1,
        params: SamplingParams { max_new_tokens: new, ..SamplingParams::default() },
        seed: 1,
    };
    let time = |requests: &[Request]| -> anyhow::Result<f64> {
        let begin = Instant::now();
        generate(&decoder, requests, &engine, &Control::default())?;
        Ok(begin.elapsed().as_secs_f64())
    };
    let prompt = request(sequences(1, args.prefill, vocab).remove(0), 1);
    time(std::slice::from_ref(&prompt))?;
    let prefill = args.prefill as f64
        / median(args.repeat, || {
            time(std::slice::from_ref(&prompt)).expect("it worked before");
        });
    let output = Output::new(args.json);
    output.text(format!("prefill of {} tokens: {prefill:.1} tokens/s", args.prefill));
    let mut decode = Map::new();
    for count in &args.sequences {
        let prompts = sequences(*count, args.prompt_tokens, vocab);
        let requests = |new| prompts.iter().map(|p| request(p.clone(), new)).collect::<Vec<_>>();
        // What the prompts take is measured apart and taken off.
        let (short, long) = (requests(1), requests(args.new_tokens + 1));
        let mut rates = Vec::new();
        for _ in 0..args.repeat {
            rates.push((count * args.new_tokens) as f64 / (time(&long)? - time(&short)?));
        }
        rates.sort_by(f64::total_cmp);
        let rate = rates[rates.len() / 2];
        output.text(format!("decoding {count} sequences: {rate:.1} tokens/s"));
        decode.insert(count.to_string(), json!(rate));
    }
    output.object(&json!({"prefill": prefill, "decode": decode}));
    Ok(())
}
