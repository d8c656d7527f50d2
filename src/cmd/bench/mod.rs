//! `aha bench`: how fast this machine does the parts, against its own ceilings.

mod decode;
mod matmul;
mod model;
mod ops;
mod train;

use crate::args::{count, precision};
use aha_model::{Decoder, ModelConfig};
use aha_pipeline::recipe::Precision;
use anyhow::Context;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Measure the parts on this machine.
///
/// Medians over repetitions; nothing is kept on disk. Compare only numbers of one run on a quiet machine. The comparison
/// with other programs is bench/run.sh in the repository.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    Ops(ops::Args),
    Matmul(matmul::Args),
    Train(train::Args),
    Decode(decode::Args),
    Model(model::Args),
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.what {
        What::Ops(args) => ops::run(&args),
        What::Matmul(args) => matmul::run(&args),
        What::Train(args) => train::run(&args),
        What::Decode(args) => decode::run(&args),
        What::Model(args) => model::run(&args),
    }?;
    Ok(ExitCode::SUCCESS)
}

/// The shape of a Llama with random weights.
#[derive(clap::Args)]
struct Shape {
    /// Width D.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = count)]
    hidden_size: usize,
    /// Layers.
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = count)]
    layers: usize,
    /// Query heads.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = count)]
    heads: usize,
    /// Key/value heads.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = count)]
    kv_heads: usize,
    /// Width of the SwiGLU layer.
    #[arg(long, value_name = "N", default_value_t = 768, value_parser = count)]
    intermediate_size: usize,
    /// Words of the vocabulary.
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = count)]
    vocab_size: usize,
    /// A config.json instead of the shape.
    #[arg(long, value_name = "FILE")]
    config: Option<std::path::PathBuf>,
    /// In what numbers matrix products run: f32, bf16, or auto for the faster one on this processor.
    #[arg(long, value_name = "TYPE", default_value = "auto", value_parser = precision)]
    precision: Precision,
}

impl Shape {
    fn decoder(&self, positions: usize, gradients: bool) -> anyhow::Result<Decoder> {
        let shape = serde_json::json!({
            "model_type": "llama", "vocab_size": self.vocab_size, "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size, "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads, "num_key_value_heads": self.kv_heads,
            "max_position_embeddings": positions, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
            "tie_word_embeddings": false, "hidden_act": "silu",
        });
        let text = match &self.config {
            Some(path) => std::fs::read_to_string(path).with_context(|| path.display().to_string())?,
            None => shape.to_string(),
        };
        let mut config = ModelConfig::from_json(&text).context("this shape is no model")?;
        config.max_position_embeddings = config.max_position_embeddings.max(positions);
        let mut decoder = Decoder::init(config, 1);
        decoder.params.set_precision(self.precision.resolve(), gradients);
        Ok(decoder)
    }
}

/// Time that a measurement takes at least: shorter ones say more about what else the machine did just then.
const AT_LEAST: Duration = Duration::from_millis(700);

/// Median seconds of `work`, after one run that does not count, over at least `repeat` runs.
fn median(repeat: usize, work: impl FnMut() + Send) -> f64 {
    aha_kernels::par::inside(|| median_here(repeat, work))
}

fn median_here(repeat: usize, mut work: impl FnMut()) -> f64 {
    work();
    let (begin, mut seconds) = (Instant::now(), Vec::new());
    while seconds.len() < repeat.max(1) || begin.elapsed() < AT_LEAST {
        let begin = Instant::now();
        work();
        seconds.push(begin.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

/// Numbers in [-0.5, 0.5) without a pattern.
fn noise(count: usize) -> Vec<f32> {
    (0..count as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 24) as f32 - 0.5).collect()
}

/// Sequences of tokens without a pattern.
fn sequences(count: usize, length: usize, vocab: usize) -> Vec<Vec<u32>> {
    let token = |i: usize| (i as u32).wrapping_mul(2_654_435_761) >> 8;
    (0..count).map(|i| (0..length).map(|j| token(i * length + j) % vocab as u32).collect()).collect()
}
