//! A training step: forward, cross-entropy, backward, clipping, AdamW.

use super::{Shape, sequences};
use crate::args::count;
use crate::output::Output;
use aha_kernels::{AdamWConfig, Optimizer};
use aha_train::lanes::Lanes;
use aha_train::pretrain;
use serde_json::json;
use std::time::Instant;

/// Training steps of a Llama with random weights, in tokens/s.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    shape: Shape,
    /// Sequences of a batch.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = count)]
    batch: usize,
    /// Tokens of a sequence.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = count)]
    sequence: usize,
    /// Steps that count, after one that does not.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = count)]
    steps: usize,
    /// Keep only the inputs of blocks for the backward.
    #[arg(long)]
    gradient_checkpointing: bool,
    /// Print one JSON object on the last line of stdout.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let mut model = args.shape.decoder(args.sequence, true)?;
    let mut optimizer = Optimizer::new(AdamWConfig::default(), &model.params);
    let mut lanes = Lanes::new(&model.params, args.gradient_checkpointing);
    let data = sequences(args.batch, args.sequence, model.config.vocab_size);
    let mut seconds = Vec::new();
    for _ in 0..=args.steps {
        let begin = Instant::now();
        pretrain::step(&mut model, &mut optimizer, &mut lanes, &data, 1e-4);
        seconds.push(begin.elapsed().as_secs_f64());
    }
    seconds.remove(0);
    seconds.sort_by(f64::total_cmp);
    let median = seconds[seconds.len() / 2];
    let rate = (args.batch * args.sequence) as f64 / median;
    let parameters: usize = model.params.iter().map(|(_, p)| p.layout.shape().iter().product::<usize>()).sum();
    let output = Output::new(args.json);
    output.text(format!("{parameters} parameters, {:.1} ms a step, {rate:.0} tokens/s", median * 1e3));
    output.object(&json!({"tokens_per_second": rate, "seconds": median, "parameters": parameters}));
    Ok(())
}
