//! The three products of a linear layer at one shape.

use super::{median, noise};
use crate::args::{count, precision};
use crate::output::Output;
use aha_kernels::cpu::bf16::halve;
use aha_kernels::linear;
use aha_kernels::quant::QuantRows;
use aha_kernels::{Init, Layout, ParamStore, Rows};
use aha_pipeline::recipe::Precision;
use serde_json::json;

/// Forward, input gradient and weight gradient of one linear layer, in GFLOP/s.
#[derive(clap::Args)]
pub struct Args {
    /// Rows of the activations.
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = count)]
    m: usize,
    /// Input width.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = count)]
    k: usize,
    /// Output width.
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = count)]
    n: usize,
    /// Repetitions; the median counts.
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = count)]
    repeat: usize,
    /// In what numbers: f32, bf16, or auto for the faster one on this processor.
    #[arg(long, value_name = "TYPE", default_value = "bf16", value_parser = precision)]
    precision: Precision,
    /// Print one JSON object on the last line of stdout.
    #[arg(long)]
    json: bool,
}

/// GFLOP/s of forward, input gradient, weight gradient.
pub(super) fn measure(m: usize, k: usize, n: usize, repeat: usize, precision: Precision) -> [f64; 3] {
    if precision == Precision::Quantized {
        return [quantized(m, k, n, repeat), 0.0, 0.0];
    }
    let mut params = ParamStore::default();
    let id = params.init("weight", Layout::Panels { n, k }, Init::Normal { std: 0.02, seed: 1 });
    params.set_precision(precision.resolve(), true);
    let w = params.weight(id);
    let (x, d_y) = (noise(m * k), noise(m * n));
    // As training keeps what only products read.
    let [low_x, low_d_y] = [&x, &d_y].map(|values| {
        let mut low = vec![0u16; if w.reads_pairs() { values.len() } else { 0 }];
        halve(&mut low, values);
        low
    });
    let (x, d_y) = match w.reads_pairs() {
        true => (Rows::Pairs(&low_x), Rows::Pairs(&low_d_y)),
        false => (Rows::Singles(&x), Rows::Singles(&d_y)),
    };
    let (mut y, mut d_x, mut d_w) = (vec![0f32; m * n], vec![0f32; m * k], vec![0f32; params.data(id).len()]);
    let work = 2e-9 * (m * n * k) as f64;
    [
        work / median(repeat, || linear::forward(&mut y, x, w, false)),
        work / median(repeat, || linear::backward_input(&mut d_x, d_y, w, false)),
        work / median(repeat, || linear::backward_weight(&mut d_w, d_y, x, w)),
    ]
}

/// Billions of operations a second of a forward with weights of 8 bits.
fn quantized(m: usize, k: usize, n: usize, repeat: usize) -> f64 {
    let mut params = ParamStore::default();
    let k = k.next_multiple_of(32);
    let id = params.add_quantized("weight", Layout::Panels { n, k }, &QuantRows::from_f32(&noise(n * k), n, k));
    let (x, mut y, w) = (noise(m * k), vec![0f32; m * n], params.weight(id));
    2e-9 * (m * n * k) as f64 / median(repeat, || linear::forward(&mut y, &x, w, false))
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let [forward, input, weight] = measure(args.m, args.k, args.n, args.repeat, args.precision);
    let output = Output::new(args.json);
    output.text(format!("forward {forward:.0}  input gradient {input:.0}  weight gradient {weight:.0} GFLOP/s"));
    output.object(&json!({"forward": forward, "input": input, "weight": weight}));
    Ok(())
}
