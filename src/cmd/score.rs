//! `aha score`: log-probabilities of given sequences; of a reward model, scores of responses.

use crate::args::{positive, precision};
use crate::lines::{self, Numbered};
use crate::loaded::Loaded;
use crate::output::Output;
use crate::table::duration;
use aha_engine::score;
use aha_pipeline::recipe::Precision;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// Tokens of one packed forward.
const MAX_TOKENS: usize = 4096;

/// Log-probabilities of the tokens of given sequences.
///
/// In, one per line: {"tokens": [...]}, which needs no tokenizer, or {"text": "..."}. Out, one per line in the same
/// order: {"tokens": [...], "logprobs": [null, ...]}, natural logarithms; the first token has none. The model of a reward_model
/// stage scores responses instead: {"prompt", "response"} or {"prompt", "chosen", "rejected"} in, the same with "score" or
/// "chosen_score" and "rejected_score" out.
#[derive(clap::Args)]
pub struct Args {
    /// A Hugging Face folder or a GGUF file.
    pub(super) model: PathBuf,
    /// The sequences.
    #[arg(long, value_name = "FILE.jsonl")]
    pub(super) input: PathBuf,
    /// Where the result goes [default: stdout].
    #[arg(long, value_name = "FILE.jsonl")]
    pub(super) output: Option<PathBuf>,
    /// Divides the logits.
    #[arg(long, value_name = "T", default_value = "1.0", value_parser = positive)]
    temperature: f32,
    /// In what numbers matrix products run: f32, bf16, auto for the faster of these on this processor, or quantized for the
    /// whole numbers of a GGUF file (8 bits for others), which read the least memory.
    #[arg(long, value_name = "TYPE", default_value = "auto", value_parser = precision)]
    pub(super) precision: Precision,
    /// Print one JSON object (sequences, tokens, mean log-probability, perplexity) on the last line of stdout.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Deserialize)]
struct Sequence {
    tokens: Option<Vec<u32>>,
    text: Option<String>,
}

#[derive(Serialize)]
struct Scored {
    tokens: Vec<u32>,
    logprobs: Vec<Option<f32>>,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    lines::check_output(args.output.as_ref())?;
    if args.model.join(aha_pipeline::reward_model::FILE).exists() {
        return super::reward_scores::run(&args);
    }
    let rows: Vec<Numbered<Sequence>> = lines::read_json(&args.input)?;
    let model = Loaded::open(&args.model)?;
    let mut numbers = Vec::with_capacity(rows.len());
    let mut sequences = Vec::with_capacity(rows.len());
    for Numbered { line, value } in rows {
        numbers.push(line);
        sequences.push(match (value.tokens, value.text) {
            (Some(tokens), None) => tokens,
            (None, Some(text)) => model.need_tokenizer("text")?.encode(&text, true)?,
            _ => return Err(lines::at(&args.input, line, "give either \"tokens\" or \"text\"")),
        });
    }
    let decoder = model.decoder(args.precision)?;
    let begin = Instant::now();
    let slices: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
    let scored = score(&decoder, &slices, args.temperature, MAX_TOKENS)
        .map_err(|e| lines::engine_error(&args.input, &numbers, &e))?;
    let seconds = begin.elapsed().as_secs_f64();
    let (mut sum, mut count, mut tokens) = (0.0, 0usize, 0usize);
    let mut out = Vec::with_capacity(scored.len());
    for (sequence, s) in sequences.into_iter().zip(scored) {
        sum += s.logprobs.iter().map(|l| f64::from(*l)).sum::<f64>();
        count += s.logprobs.len();
        tokens += sequence.len();
        out.push(Scored {
            tokens: sequence,
            logprobs: std::iter::once(None).chain(s.logprobs.into_iter().map(Some)).collect(),
        });
    }
    lines::write_json(args.output.as_deref(), &out)?;
    let mean = (count > 0).then(|| sum / count as f64);
    let output = Output::new(args.json);
    // Without --output, stdout holds the result and nothing else.
    let summary = format!(
        "{} sequences, {tokens} tokens in {}; mean log-probability {}",
        out.len(),
        duration(seconds),
        mean.map_or("-".to_owned(), |m| format!("{m:.4}"))
    );
    crate::output::note(summary);
    output.object(&json!({
        "sequences": out.len(), "tokens": tokens, "mean_logprob": mean, "perplexity": mean.map(|m| (-m).exp()),
        "wall_s": seconds, "output": args.output.map(|p| p.display().to_string()),
    }));
    Ok(ExitCode::SUCCESS)
}
