//! Sequences that continue another one against the same sequences written out whole: forward the same bits, backward the same
//! sums in another order.

mod common;

use aha_kernels::attention::{self, Heads};
use aha_kernels::latent::packed::{self, Dims};
use aha_kernels::{Precision, Segments, par};
use common::{close, noise};

/// Lengths of what is continued, and of what continues it: within a block of keys, at its end, over several tiles.
const CASES: [(usize, &[usize]); 4] = [(5, &[3, 40]), (32, &[1, 64, 33]), (70, &[20, 131]), (131, &[1, 7])];

/// The tokens of every continuation written out whole, as rows of the shared form.
fn written_out(first: usize, own: &[usize]) -> (Segments, Segments, Vec<usize>) {
    let mut sequences = vec![(first, None)];
    sequences.extend(own.iter().map(|len| (*len, Some(0))));
    let shared = Segments::continuing(&sequences);
    let whole = Segments::from_lengths(own.iter().map(|len| first + len));
    let rows = (1..=own.len()).flat_map(|i| (0..first).chain(shared.range(i))).collect();
    (shared, whole, rows)
}

fn repeat(x: &[f32], rows: &[usize], width: usize) -> Vec<f32> {
    rows.iter().flat_map(|row| &x[row * width..(row + 1) * width]).copied().collect()
}

/// Sums of what the copies of a row got.
fn gathered(x: &[f32], rows: &[usize], width: usize, count: usize) -> Vec<f64> {
    let mut sums = vec![0.0; count * width];
    for (row, values) in rows.iter().zip(x.chunks_exact(width)) {
        sums[row * width..(row + 1) * width].iter_mut().zip(values).for_each(|(s, v)| *s += f64::from(*v));
    }
    sums
}

/// Nothing flows from the copies of the first tokens: they are made once in the shared form, where nothing is wanted of them.
fn only_own(d_out: &mut [f32], rows: &[usize], first: usize, width: usize) {
    for (row, values) in rows.iter().zip(d_out.chunks_exact_mut(width)) {
        if *row < first {
            values.fill(0.0);
        }
    }
}

#[test]
fn grouped_attention_has_the_bits_of_sequences_written_out() {
    let (query, kv, dim) = (4, 2, 24);
    for (precision, (first, own)) in
        [Precision::F32, Precision::Bf16].into_iter().flat_map(|p| CASES.into_iter().map(move |case| (p, case)))
    {
        let h = Heads { query, kv, dim, value: dim, scale: 0.3, precision };
        let (shared, whole, rows) = written_out(first, own);
        let t = shared.tokens();
        let (q, k, v) = (noise(t * query * dim, 1), noise(t * kv * dim, 2), noise(t * kv * dim, 3));
        let mut d_out = noise(q.len(), 4);
        d_out[..first * query * dim].fill(0.0);
        let run = |seg: &Segments, q: &[f32], k: &[f32], v: &[f32], d_out: &[f32]| {
            let (mut out, mut stats) = (vec![0.0; q.len()], vec![0.0; q.len() / dim * 2]);
            attention::forward(&mut out, &mut stats, q, k, v, seg, h);
            let (mut d_q, mut d_k, mut d_v) = (vec![9.0; q.len()], vec![9.0; k.len()], vec![9.0; v.len()]);
            attention::backward(&mut d_q, &mut d_k, &mut d_v, d_out, &out, &stats, (q, k, v), seg, h, false);
            [out, d_q, d_k, d_v]
        };
        let found = run(&shared, &q, &k, &v, &d_out);
        assert!(par::serial(|| run(&shared, &q, &k, &v, &d_out)) == found, "threads change no bit");
        let (wide_q, wide_kv) = (query * dim, kv * dim);
        let mut d = repeat(&d_out, &rows, wide_q);
        only_own(&mut d, &rows, first, wide_q);
        let want =
            run(&whole, &repeat(&q, &rows, wide_q), &repeat(&k, &rows, wide_kv), &repeat(&v, &rows, wide_kv), &d);
        assert!(repeat(&found[0], &rows, wide_q) == want[0], "out of {first} and {own:?} in {precision:?}");
        let tolerance = if precision == Precision::F32 { 1e-5 } else { 2e-2 };
        for (at, name, width) in [(1, "d_q", wide_q), (2, "d_k", wide_kv), (3, "d_v", wide_kv)] {
            let name = format!("{name} of {first} and {own:?} in {precision:?}");
            close(&name, &found[at], &gathered(&want[at], &rows, width, t), tolerance);
        }
    }
}

#[test]
fn latent_attention_has_the_bits_of_sequences_written_out() {
    let absorbed =
        Dims { heads: 4, key_heads: 1, own: 32, shared: 16, value: 0, scale: 0.2, precision: Precision::F32 };
    let expanded =
        Dims { heads: 3, key_heads: 3, own: 12, shared: 5, value: 20, scale: 0.3, precision: Precision::F32 };
    let precisions = [Precision::F32, Precision::Bf16];
    let all = [absorbed, expanded].into_iter().flat_map(|d| precisions.map(|precision| Dims { precision, ..d }));
    for (d, (first, own)) in all.flat_map(|d| CASES.into_iter().map(move |case| (d, case))) {
        let (shared, whole, rows) = written_out(first, own);
        let t = shared.tokens();
        let (wide_q, wide_kv, wide_out) =
            (d.heads * (d.own + d.shared), d.key_heads * (d.own + d.value), d.heads * d.out());
        let (q, kv, common) = (noise(t * wide_q, 5), noise(t * wide_kv, 6), noise(t * d.shared, 7));
        let mut d_out = noise(t * wide_out, 8);
        d_out[..first * wide_out].fill(0.0);
        let run = |seg: &Segments, q: &[f32], kv: &[f32], common: &[f32], d_out: &[f32]| {
            let (mut out, mut stats) = (vec![0.0; d_out.len()], vec![0.0; seg.tokens() * d.heads * 2]);
            packed::forward(&mut out, &mut stats, q, (kv, common), seg, 0, d);
            let (mut d_q, mut d_kv, mut d_s) = (vec![9.0; q.len()], vec![9.0; kv.len()], vec![9.0; common.len()]);
            packed::backward((&mut d_q, &mut d_kv, &mut d_s), d_out, (&out, &stats), (q, kv, common), seg, d);
            [out, d_q, d_kv, d_s]
        };
        let found = run(&shared, &q, &kv, &common, &d_out);
        assert!(par::serial(|| run(&shared, &q, &kv, &common, &d_out)) == found, "threads change no bit");
        let mut d_whole = repeat(&d_out, &rows, wide_out);
        only_own(&mut d_whole, &rows, first, wide_out);
        let (q, kv, common) =
            (repeat(&q, &rows, wide_q), repeat(&kv, &rows, wide_kv), repeat(&common, &rows, d.shared));
        let want = run(&whole, &q, &kv, &common, &d_whole);
        assert!(repeat(&found[0], &rows, wide_out) == want[0], "out of {first} and {own:?} in {:?}", d.precision);
        for (at, name, width) in [(1, "d_q", wide_q), (2, "d_kv", wide_kv), (3, "d_shared", d.shared)] {
            let name = format!("{name} of {first} and {own:?}");
            let tolerance = if d.precision == Precision::F32 { 2e-5 } else { 2e-2 };
            close(&name, &found[at], &gathered(&want[at], &rows, width, t), tolerance);
        }
    }
}
