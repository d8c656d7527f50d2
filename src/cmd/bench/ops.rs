//! Every operation against the machine's ceilings: multiply-adds per second from the first-level cache, bytes per second
//! from memory.

use super::{matmul, median, noise};
use crate::args::count;
use crate::output::Output;
use crate::table::table;
use aha_kernels::Precision as kernels;
use aha_kernels::attention::{self, Heads};
use aha_kernels::cpu::gemm::{Extent, Left, NR, Start, gemm, gemm_bf16};
use aha_kernels::{AdamWConfig, Gradients, Init, Layout, Optimizer, ParamStore, Segments, logprob, norm, swiglu};
use aha_pipeline::recipe::Precision;
use rayon::prelude::*;
use serde::Serialize;

/// Every operation, in GFLOP/s or GB/s and as a share of what the machine can do.
#[derive(clap::Args)]
pub struct Args {
    /// Tokens of a batch.
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = count)]
    tokens: usize,
    /// Model width; heads are 64 wide, the feed-forward layer three times as wide.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = count)]
    hidden_size: usize,
    /// Repetitions; the median counts.
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = count)]
    repeat: usize,
    /// Print one JSON object on the last line of stdout.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Row {
    op: String,
    value: f64,
    unit: &'static str,
    ceiling: f64,
    share: f64,
}

/// GFLOP/s of all threads on one tile that stays in the first-level cache.
fn ceiling(bf16: bool, repeat: usize) -> f64 {
    const K: usize = 128;
    const LOOPS: usize = 20_000;
    let threads = rayon::current_num_threads();
    let seconds = median(repeat, || {
        (0..threads).into_par_iter().with_max_len(1).for_each(|_| {
            let (a, b, mut c) = (vec![0f32; 12 * K], vec![0f32; K * NR], vec![0f32; 12 * NR]);
            let e = Extent { m: 12, outer: 1, inner: K, n: NR };
            let left = Left { base: a.as_ptr(), row: K, outer: 0, inner: 1 };
            for _ in 0..LOOPS {
                // SAFETY: the buffers have the sizes of the extent.
                unsafe {
                    match bf16 {
                        true => gemm_bf16(e, left, b.as_ptr(), NR, c.as_mut_ptr(), NR, Start::Zero),
                        false => gemm(e, left, b.as_ptr(), NR, c.as_mut_ptr(), NR, Start::Zero),
                    }
                }
            }
            std::hint::black_box(&c);
        });
    });
    let values = if bf16 { 2.0 } else { 1.0 };
    2e-9 * values * (12 * NR * K * LOOPS * threads) as f64 / seconds
}

/// GB/s of all threads reading a buffer far larger than the caches and writing another.
fn bandwidth(repeat: usize) -> f64 {
    let source = noise(64 << 20);
    let mut target = vec![0f32; source.len()];
    let piece = source.len() / rayon::current_num_threads();
    let seconds = median(repeat, || {
        target.par_chunks_mut(piece).zip(source.par_chunks(piece)).for_each(|(t, s)| t.copy_from_slice(s));
    });
    (source.len() * 8) as f64 / seconds * 1e-9
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let (t, d, repeat) = (args.tokens, args.hidden_size, args.repeat);
    let f = 3 * d;
    let (f32_peak, bf16_peak, memory) = (ceiling(false, repeat), ceiling(true, repeat), bandwidth(repeat));
    let mut rows = Vec::new();
    let mut add = |op: String, value: f64, unit, ceiling: f64| {
        rows.push(Row { op, value, unit, ceiling, share: value / ceiling });
    };
    for (precision, name, peak) in [(Precision::F32, "f32", f32_peak), (Precision::Bf16, "bf16", bf16_peak)] {
        for (k, n) in [(d, d), (d, f), (f, d)] {
            let rates = matmul::measure(t, k, n, repeat, precision);
            for (rate, product) in rates.into_iter().zip(["forward", "input gradient", "weight gradient"]) {
                add(format!("matmul {name} {t}x{k}x{n} {product}"), rate, "GFLOP/s", peak);
            }
        }
    }
    let count = (d / 64).max(1);
    let width = count * 64;
    for (length, precision) in [64, 512].into_iter().flat_map(|l| [(l, kernels::F32), (l, kernels::Bf16)]) {
        let (name, peak) = if precision == kernels::F32 { ("f32", f32_peak) } else { ("bf16", bf16_peak) };
        let heads = Heads { query: count, kv: count, dim: 64, value: 64, scale: 0.125, precision };
        let segments = Segments::from_lengths(std::iter::repeat_n(length, t / length));
        let rows = segments.tokens();
        let (q, k, v) = (noise(rows * width), noise(rows * width), noise(rows * width));
        let (mut out, mut stats) = (vec![0f32; q.len()], vec![0f32; rows * heads.query * 2]);
        let work = 4e-9 * (rows * length / 2 * width) as f64;
        let seconds = median(repeat, || attention::forward(&mut out, &mut stats, &q, &k, &v, &segments, heads));
        add(format!("attention {name} {length} forward"), work / seconds, "GFLOP/s", peak);
        let (mut d_q, mut d_k, mut d_v) = (q.clone(), q.clone(), q.clone());
        let d_out = noise(q.len());
        let seconds = median(repeat, || {
            attention::backward(
                &mut d_q,
                &mut d_k,
                &mut d_v,
                &d_out,
                &out,
                &stats,
                (&q, &k, &v),
                &segments,
                heads,
                false,
            );
        });
        add(format!("attention {name} {length} backward"), 2.5 * work / seconds, "GFLOP/s", peak);
    }
    let gigabytes = |floats: usize| floats as f64 * 4e-9;
    let (x, w) = (noise(t * d), vec![1f32; d]);
    let (mut y, mut rstd) = (vec![0f32; t * d], vec![0f32; t]);
    let seconds = median(repeat, || norm::forward(&mut y, &mut rstd, &x, &w, 1e-6));
    add("RMSNorm forward".into(), gigabytes(2 * t * d) / seconds, "GB/s", memory);
    let (mut d_x, mut d_w) = (vec![0f32; t * d], vec![0f32; d]);
    let seconds = median(repeat, || norm::backward(&mut d_x, &mut d_w, &y, &x, &w, &rstd));
    add("RMSNorm backward".into(), gigabytes(4 * t * d) / seconds, "GB/s", memory);
    let (g, u) = (noise(t * f), noise(t * f));
    let mut out = vec![0f32; t * f];
    let seconds = median(repeat, || swiglu::forward(&mut out, &g, &u));
    add("SwiGLU forward".into(), gigabytes(3 * t * f) / seconds, "GB/s", memory);
    let (mut d_g, mut d_u) = (vec![0f32; t * f], vec![0f32; t * f]);
    let seconds = median(repeat, || swiglu::backward(&mut d_g, &mut d_u, &out, &g, &u, false));
    add("SwiGLU backward".into(), gigabytes(5 * t * f) / seconds, "GB/s", memory);
    let vocab = 8192;
    let mut params = ParamStore::default();
    let head = params.init("head", Layout::Panels { n: vocab, k: d }, Init::Normal { std: 0.02, seed: 1 });
    params.set_precision(Precision::Auto.resolve(), true);
    let targets: Vec<u32> = (0..t as u32).map(|i| i % vocab as u32).collect();
    let (mut logp, mut entropy) = (vec![0f32; t], vec![0f32; t]);
    let seconds = median(repeat, || logprob::forward(&mut logp, &mut entropy, &x, params.weight(head), &targets, 1.0));
    let peak = if params.weight(head).packed.is_some() { bf16_peak } else { f32_peak };
    add(format!("log-prob + entropy over {vocab}"), 2e-9 * (t * d * vocab) as f64 / seconds, "GFLOP/s", peak);
    let mut many = ParamStore::default();
    many.init("w", Layout::Panels { n: 4096, k: 2048 }, Init::Zero);
    let (mut optimizer, grads) = (Optimizer::new(AdamWConfig::default(), &many), Gradients::new(&many));
    let seconds = median(repeat, || {
        optimizer.step(&mut many, &grads, 1e-4);
    });
    add("AdamW with norm".into(), gigabytes(8 * 4096 * 2048) / seconds, "GB/s", memory);
    let output = Output::new(args.json);
    let mut lines = vec![["operation", "achieved", "unit", "ceiling", "share"].map(str::to_owned).to_vec()];
    lines.extend(rows.iter().map(|r| {
        let (value, ceiling) = (format!("{:.0}", r.value), format!("{:.0}", r.ceiling));
        vec![r.op.clone(), value, r.unit.to_owned(), ceiling, format!("{:.0} %", 100.0 * r.share)]
    }));
    output.text(table(&lines));
    output.object(&serde_json::json!({"rows": rows, "f32": f32_peak, "bf16": bf16_peak, "memory": memory}));
    Ok(())
}
