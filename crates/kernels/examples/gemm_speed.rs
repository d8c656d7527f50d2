//! Scratch.
use aha_kernels::*;
use std::time::Instant;
fn time(label: &str, flops: f64, mut f: impl FnMut()) {
    f();
    let mut best = f64::MAX;
    for _ in 0..12 {
        let t = Instant::now();
        f();
        best = best.min(t.elapsed().as_secs_f64());
    }
    println!("{label}: {:.2} ms {:.0} GFLOP/s", best * 1e3, flops / best / 1e9);
}
fn main() {
    for (m, n, k) in [
        (8192usize, 128usize, 128usize),
        (8192, 384, 128),
        (8192, 128, 384),
        (8192, 512, 128),
        (256, 128, 128),
        (256, 384, 128),
        (2048, 1024, 1024),
    ] {
        let x = vec![0.5f32; m * k];
        let w = vec![0.25f32; n.div_ceil(32) * 32 * k];
        let mut y = vec![0f32; m * n];
        let fl = 2.0 * (m * n * k) as f64;
        time(&format!("fwd {m}x{n}x{k}"), fl, || linear::forward(&mut y, &x, &w, n, k, false));
        par::serial(|| time(&format!("fwd serial {m}x{n}x{k}"), fl, || linear::forward(&mut y, &x, &w, n, k, false)));
        let mut dx = vec![0f32; m * k];
        let mut dw = vec![0f32; w.len()];
        time("   dx", fl, || linear::backward_input(&mut dx, &y, &w, n, k));
        time("   dw", fl, || linear::backward_weight(&mut dw, &y, &x, n, k));
    }
    let segs = Segments::from_lengths(std::iter::repeat_n(40usize, 200));
    let heads = attention::Heads { query: 4, kv: 4, dim: 32, scale: 0.2 };
    let t = segs.tokens();
    let q = vec![0.1f32; t * 128];
    let mut o = vec![0f32; t * 128];
    let mut st = vec![0f32; t * 8];
    time("attn fwd 8000 tokens", 1e9, || attention::forward(&mut o, &mut st, &q, &q, &q, &segs, heads));
    let (mut a, mut b, mut c) = (vec![0f32; t * 128], vec![0f32; t * 128], vec![0f32; t * 128]);
    time("attn bwd", 1e9, || attention::backward(&mut a, &mut b, &mut c, &o, &o, &st, (&q, &q, &q), &segs, heads));
    let mut y = vec![0f32; t * 384];
    let g = vec![0.3f32; t * 384];
    time("swiglu fwd", 1e9, || swiglu::forward(&mut y, &g, &g));
    let mut d1 = vec![0f32; t * 384];
    let mut d2 = vec![0f32; t * 384];
    time("swiglu bwd", 1e9, || swiglu::backward(&mut d1, &mut d2, &y, &g, &g));
    let w = vec![1f32; 128];
    let mut r = vec![0f32; t];
    let mut y = vec![0f32; t * 128];
    time("norm fwd", 1e9, || norm::forward(&mut y, &mut r, &q, &w, 1e-6));
    let mut dw = vec![0f32; 128];
    time("norm bwd", 1e9, || norm::backward(&mut a, &mut dw, &y, &q, &w, &r));
    let wv = vec![0.01f32; 512 * 128];
    let tg = vec![3u32; t];
    let mut lp = vec![0f32; t];
    let mut en = vec![0f32; t];
    time("logprob fwd", 2.0 * t as f64 * 512.0 * 128.0, || logprob::forward(&mut lp, &mut en, &q, &wv, 512, &tg, 1.0));
    let mut dwv = vec![0f32; 512 * 128];
    time("logprob bwd", 6.0 * t as f64 * 512.0 * 128.0, || {
        logprob::backward(&mut a, &mut dwv, &lp, &q, &wv, 512, &tg, 1.0)
    });
}
