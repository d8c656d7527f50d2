//! A layer of routed experts: gate, choice, experts and their sum, forward and backward.

use super::{median, noise};
use crate::args::{count, precision};
use crate::output::Output;
use aha_kernels::Segments;
use aha_kernels::router::Routing;
use aha_kernels::{Attend, ExpertIds, Gradients, Init, Layout, LossHead, MoeIds, ParamStore, Tape};
use aha_pipeline::recipe::Precision;
use serde_json::json;
use std::sync::Arc;

/// Forward and backward of one layer of routed experts, in tokens/s.
#[derive(clap::Args)]
pub struct Args {
    /// Tokens of a step.
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = count)]
    tokens: usize,
    /// Width D.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = count)]
    hidden_size: usize,
    /// Experts.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = count)]
    experts: usize,
    /// Experts of a token.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = count)]
    experts_per_tok: usize,
    /// Width of an expert.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = count)]
    moe_intermediate_size: usize,
    /// In what numbers matrix products run: f32, bf16, or auto for the faster one on this processor.
    #[arg(long, value_name = "TYPE", default_value = "auto", value_parser = precision)]
    precision: Precision,
    /// Repetitions; the median counts.
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = count)]
    repeat: usize,
    /// Print one JSON object on the last line of stdout.
    #[arg(long)]
    json: bool,
}

/// Rows of the matrix that makes a loss of the layer's output.
const HEAD: usize = 8;

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let (d, f, experts) = (args.hidden_size, args.moe_intermediate_size, args.experts);
    anyhow::ensure!(
        args.experts_per_tok <= experts,
        "--experts-per-tok {} is more than --experts {experts}; lower it",
        args.experts_per_tok
    );
    let mut params = ParamStore::default();
    let mut matrix = |name: String, n: usize, k: usize| {
        params.init(name, Layout::Panels { n, k }, Init::Normal { std: 0.02, seed: 1 })
    };
    let gate = matrix("gate".to_owned(), experts, d);
    let head = matrix("head".to_owned(), HEAD, d);
    let expert = |e: usize| ExpertIds {
        gate: matrix(format!("{e}.gate"), f, d),
        up: matrix(format!("{e}.up"), f, d),
        down: matrix(format!("{e}.down"), d, f),
    };
    let all: Vec<ExpertIds> = (0..experts).map(expert).collect();
    let bias = params.add("bias", Layout::Vector { n: experts }, vec![0.0; experts]);
    params.freeze(bias);
    params.set_precision(args.precision.resolve(), true);
    let routing =
        Routing { experts, chosen: args.experts_per_tok, groups: 1, kept_groups: 1, normalised: true, scale: 1.0 };
    let ids = Arc::new(MoeIds { gate, bias, experts: all, routing, width: f });
    let attend = Attend::Packed(Arc::new(Segments::from_lengths([args.tokens])));
    let (x, targets) = (noise(args.tokens * d), vec![0u32; args.tokens]);
    let d_logp = vec![-1.0 / args.tokens as f32; args.tokens];
    let (mut tape, mut grads) = (Tape::new(true), Gradients::new(&params));
    let seconds = median(args.repeat, || {
        grads.zero();
        let input = tape.constant(&x);
        let h = tape.experts(&params, input, input, &ids, 0, &attend);
        let loss = LossHead { h, head, targets: &targets, temperature: 1.0, d_logp: &d_logp };
        tape.backward_heads(&params, &mut grads, &[loss], &mut |_, _, x| x);
        tape.reset();
    });
    let rate = args.tokens as f64 / seconds;
    let gflops = 1e-9 * (18 * d * f * args.experts_per_tok) as f64 * rate;
    let output = Output::new(args.json);
    output.text(format!("{:.2} ms, {rate:.0} tokens/s, {gflops:.0} GFLOP/s in the experts", seconds * 1e3));
    output.object(&json!({"tokens_per_second": rate, "seconds": seconds, "gflops": gflops}));
    Ok(())
}
