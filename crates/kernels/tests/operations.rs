//! Every operation against a slow f64 reference, and its backward against central differences of that reference.

mod common;

use aha_kernels::attention::{self, Heads};
use aha_kernels::rope::Rope;
use aha_kernels::split::Table;
use aha_kernels::{CacheShape, CacheSpan, KvCache, Layout, Precision, Segments, Weight, WeightGradients};
use aha_kernels::{embedding, linear, logprob, norm, swiglu};
use common::{close, differences, noise, wide};

fn ref_linear(x: &[f64], w: &[f64], n: usize, k: usize) -> Vec<f64> {
    (0..x.len() / k * n).map(|i| (0..k).map(|p| x[i / n * k + p] * w[i % n * k + p]).sum()).collect()
}

fn ref_norm(x: &[f64], w: &[f64], eps: f64) -> Vec<f64> {
    let d = w.len();
    x.chunks(d)
        .flat_map(|row| {
            let r = 1.0 / (row.iter().map(|v| v * v).sum::<f64>() / d as f64 + eps).sqrt();
            row.iter().zip(w).map(move |(v, w)| v * r * w).collect::<Vec<_>>()
        })
        .collect()
}

fn ref_swiglu(g: &[f64], u: &[f64]) -> Vec<f64> {
    g.iter().zip(u).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect()
}

/// Causal attention, one (segment, head) at a time.
fn ref_attention(q: &[f64], k: &[f64], v: &[f64], seg: &Segments, h: Heads) -> Vec<f64> {
    let (n, kv, d) = (h.query, h.kv, h.dim);
    let mut out = vec![0.0; q.len()];
    for s in 0..seg.len() {
        for t in seg.range(s) {
            for head in 0..n {
                let g = head / (n / kv);
                let keys: Vec<usize> = seg.before(s).chain(seg.range(s).start..=t).collect();
                let scores: Vec<f64> = keys
                    .iter()
                    .map(|j| {
                        f64::from(h.scale)
                            * (0..d).map(|c| q[(t * n + head) * d + c] * k[(j * kv + g) * d + c]).sum::<f64>()
                    })
                    .collect();
                let max = scores.iter().copied().fold(f64::MIN, f64::max);
                let sum: f64 = scores.iter().map(|s| (s - max).exp()).sum();
                for c in 0..d {
                    out[(t * n + head) * d + c] =
                        scores.iter().zip(&keys).map(|(s, j)| (s - max).exp() / sum * v[(j * kv + g) * d + c]).sum();
                }
            }
        }
    }
    out
}

/// Log-probabilities and entropies.
fn ref_logprob(h: &[f64], w: &[f64], vocab: usize, targets: &[u32], temperature: f64) -> (Vec<f64>, Vec<f64>) {
    let d = w.len() / vocab;
    let z = ref_linear(h, w, vocab, d);
    z.chunks(vocab)
        .zip(targets)
        .map(|(z, t)| {
            let z: Vec<f64> = z.iter().map(|v| v / temperature).collect();
            let max = z.iter().copied().fold(f64::MIN, f64::max);
            let log = max + z.iter().map(|v| (v - max).exp()).sum::<f64>().ln();
            (z[*t as usize] - log, -z.iter().map(|v| (v - log).exp() * (v - log)).sum::<f64>())
        })
        .unzip()
}

#[test]
fn linear_gradients_equal_differences() {
    let (m, n, k) = (5, 7, 6);
    let (x, w, weights) = (noise(m * k, 1), noise(n * k, 2), noise(m * n, 3));
    let layout = Layout::Panels { n, k };
    let panels = layout.store(w.clone());
    let mut d_x = vec![0.0; x.len()];
    let weight = Weight::f32(&panels, n, k);
    linear::backward_input(&mut d_x, &weights, weight, false);
    close("d_x", &d_x, &differences(&wide(&x), &wide(&weights), |x| ref_linear(x, &wide(&w), n, k)), 1e-5);
    let mut d_w = vec![0.0; panels.len()];
    linear::backward_weight(&mut d_w, &weights, &x, weight);
    close(
        "d_w",
        &layout.load(&d_w),
        &differences(&wide(&w), &wide(&weights), |w| ref_linear(&wide(&x), w, n, k)),
        1e-5,
    );
    let mut d_b = vec![0.0; n];
    linear::bias_backward(&mut d_b, &weights);
    let sums: Vec<f64> = (0..n).map(|j| (0..m).map(|i| f64::from(weights[i * n + j])).sum()).collect();
    close("d_b", &d_b, &sums, 1e-6);
}

#[test]
fn norm_equals_reference_and_differences() {
    for (rows, d) in [(3, 5), (4, 32), (600, 7)] {
        let (x, w, weights) = (noise(rows * d, 4), noise(d, 5), noise(rows * d, 6));
        let (mut y, mut rstd) = (vec![0.0; x.len()], vec![0.0; rows]);
        norm::forward(&mut y, &mut rstd, &x, &w, 1e-3);
        close("y", &y, &ref_norm(&wide(&x), &wide(&w), 1e-3), 1e-5);
        if rows > 10 {
            continue;
        }
        let (mut d_x, mut d_w) = (vec![0.0; x.len()], vec![0.0; d]);
        norm::backward(&mut d_x, &mut d_w, &weights, &x, &w, &rstd);
        close("d_x", &d_x, &differences(&wide(&x), &wide(&weights), |x| ref_norm(x, &wide(&w), 1e-3)), 1e-4);
        close("d_w", &d_w, &differences(&wide(&w), &wide(&weights), |w| ref_norm(&wide(&x), w, 1e-3)), 1e-4);
    }
}

#[test]
fn swiglu_equals_reference_and_differences() {
    let (g, u, weights) = (noise(37, 7), noise(37, 8), noise(37, 9));
    let g: Vec<f32> = g.iter().map(|v| v * 6.0).collect();
    let mut y = vec![0.0; 37];
    swiglu::forward(&mut y, &g, &u);
    close("y", &y, &ref_swiglu(&wide(&g), &wide(&u)), 1e-6);
    let (mut d_g, mut d_u) = (vec![0.0; 37], vec![0.0; 37]);
    swiglu::backward(&mut d_g, &mut d_u, &weights, &g, &u, true);
    close("d_g", &d_g, &differences(&wide(&g), &wide(&weights), |g| ref_swiglu(g, &wide(&u))), 1e-5);
    close("d_u", &d_u, &differences(&wide(&u), &wide(&weights), |u| ref_swiglu(&wide(&g), u)), 1e-5);
}

#[test]
fn rope_rotates_pairs_keeps_relative_scores_and_undoes_itself() {
    let inv_freq = vec![1.0f32, 0.1, 0.01];
    let rope = Rope::new(inv_freq.clone(), 2000);
    let x = noise(2 * 6, 10);
    let mut y = x.clone();
    rope.apply(&mut y, &[3, 700], 1.0);
    for (t, position) in [3.0f64, 700.0].iter().enumerate() {
        for i in 0..3 {
            let (a, b) = (f64::from(x[t * 6 + i]), f64::from(x[t * 6 + i + 3]));
            let angle = position * f64::from(inv_freq[i]);
            let want = [a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()];
            close("pair", &[y[t * 6 + i], y[t * 6 + i + 3]], &want, 1e-4);
        }
    }
    // The rotation is orthogonal, so rotating back is both inverse and backward.
    rope.apply(&mut y, &[3, 700], -1.0);
    close("inverse", &y, &wide(&x), 1e-5);
    let score = |p: u32, r: u32| {
        let (mut a, mut b) = (x[..6].to_vec(), x[6..].to_vec());
        rope.apply(&mut a, &[p], 1.0);
        rope.apply(&mut b, &[r], 1.0);
        a.iter().zip(&b).map(|(a, b)| f64::from(a * b)).sum::<f64>()
    };
    assert!((score(9, 4) - score(1009, 1004)).abs() < 1e-3);
}

#[test]
fn embedding_reads_and_scatters_in_both_layouts() {
    let (vocab, d) = (40, 3);
    let table = noise(vocab * d, 11);
    let tokens = [5u32, 39, 5, 0];
    let weights = noise(tokens.len() * d, 12);
    for layout in [Layout::Rows { rows: vocab, cols: d }, Layout::Panels { n: vocab, k: d }] {
        let stored = layout.store(table.clone());
        let mut out = vec![0.0; tokens.len() * d];
        embedding::forward(&mut out, Table::Whole(&stored), layout, &tokens);
        let want: Vec<f64> = tokens.iter().flat_map(|t| wide(&table[*t as usize * d..(*t as usize + 1) * d])).collect();
        close("rows", &out, &want, 1e-9);
        let mut d_table = vec![0.0; stored.len()];
        embedding::backward(&mut d_table, layout, &weights, &tokens);
        let mut want = vec![0.0; vocab * d];
        for (i, t) in tokens.iter().enumerate() {
            (0..d).for_each(|j| want[*t as usize * d + j] += f64::from(weights[i * d + j]));
        }
        close("gradient", &layout.load(&d_table), &want, 1e-6);
    }
}

fn cases() -> Vec<(Segments, Heads)> {
    let heads = |query, kv, dim| Heads { query, kv, dim, value: dim, scale: 0.37, precision: Precision::F32 };
    let lengths = |lengths: &[usize]| Segments::from_lengths(lengths.iter().copied());
    vec![
        (lengths(&[3, 1, 4]), heads(2, 1, 6)),
        (lengths(&[5]), heads(4, 2, 34)),
        (lengths(&[2, 0, 3]), heads(3, 3, 2)),
        (Segments::continuing(&[(3, None), (2, Some(0)), (0, Some(0)), (1, Some(0)), (2, None)]), heads(4, 2, 5)),
    ]
}

#[test]
fn attention_equals_reference_and_differences() {
    for (seg, h) in cases() {
        let t = seg.tokens();
        let (q, k, v) = (noise(t * h.query * h.dim, 13), noise(t * h.kv * h.dim, 14), noise(t * h.kv * h.dim, 15));
        let weights = noise(q.len(), 16);
        let (mut out, mut stats) = (vec![0.0; q.len()], vec![0.0; t * h.query * 2]);
        attention::forward(&mut out, &mut stats, &q, &k, &v, &seg, h);
        let (wq, wk, wv, ww) = (wide(&q), wide(&k), wide(&v), wide(&weights));
        close("out", &out, &ref_attention(&wq, &wk, &wv, &seg, h), 1e-5);
        let (mut d_q, mut d_k, mut d_v) = (vec![0.0; q.len()], vec![0.0; k.len()], vec![0.0; v.len()]);
        attention::backward(&mut d_q, &mut d_k, &mut d_v, &weights, &out, &stats, (&q, &k, &v), &seg, h, true);
        close("d_q", &d_q, &differences(&wq, &ww, |q| ref_attention(q, &wk, &wv, &seg, h)), 1e-4);
        close("d_k", &d_k, &differences(&wk, &ww, |k| ref_attention(&wq, k, &wv, &seg, h)), 1e-4);
        close("d_v", &d_v, &differences(&wv, &ww, |v| ref_attention(&wq, &wk, v, &seg, h)), 1e-4);
        let once = d_k.clone();
        attention::backward(&mut d_q, &mut d_k, &mut d_v, &weights, &out, &stats, (&q, &k, &v), &seg, h, true);
        close("d_k twice", &d_k, &wide(&once.iter().map(|d| 2.0 * d).collect::<Vec<_>>()), 1e-5);
    }
}

#[test]
fn long_attention_equals_reference_across_tiles_and_blocks() {
    let h = Heads { query: 2, kv: 1, dim: 16, value: 16, scale: 0.25, precision: Precision::F32 };
    let seg = Segments::from_lengths([131, 33, 64, 1]);
    let t = seg.tokens();
    let (q, k, v) = (noise(t * 32, 17), noise(t * 16, 18), noise(t * 16, 19));
    let (mut out, mut stats) = (vec![0.0; q.len()], vec![0.0; t * 4]);
    attention::forward(&mut out, &mut stats, &q, &k, &v, &seg, h);
    close("out", &out, &ref_attention(&wide(&q), &wide(&k), &wide(&v), &seg, h), 1e-5);
}

#[test]
fn attention_in_bf16_is_as_close_to_f32_as_its_rounding() {
    for (query, kv, dim) in [(4, 2, 16), (2, 1, 33), (3, 3, 64)] {
        let seg = Segments::from_lengths([70, 1, 49, 128]);
        let t = seg.tokens();
        let (q, k, v) = (noise(t * query * dim, 40), noise(t * kv * dim, 41), noise(t * kv * dim, 42));
        let d_out = noise(q.len(), 43);
        let run = |precision| {
            let h = Heads { query, kv, dim, value: dim, scale: (dim as f32).powf(-0.5), precision };
            let (mut out, mut stats) = (vec![0.0; q.len()], vec![0.0; t * query * 2]);
            attention::forward(&mut out, &mut stats, &q, &k, &v, &seg, h);
            let (mut d_q, mut d_k, mut d_v) = (vec![0.0; q.len()], vec![0.0; k.len()], vec![0.0; v.len()]);
            attention::backward(&mut d_q, &mut d_k, &mut d_v, &d_out, &out, &stats, (&q, &k, &v), &seg, h, false);
            [out, d_q, d_k, d_v]
        };
        let (want, got) = (run(Precision::F32), run(Precision::Bf16));
        for ((want, got), name) in want.iter().zip(&got).zip(["out", "d_q", "d_k", "d_v"]) {
            let (mut apart, mut size) = (0f64, 0f64);
            for (w, g) in want.iter().zip(got) {
                apart += f64::from(w - g).powi(2);
                size += f64::from(*w).powi(2);
            }
            let error = (apart / size).sqrt();
            assert!(error > 0.0 && error < 6e-3, "{name} with heads of {dim}: {error}");
        }
    }
}

#[test]
fn cached_attention_has_the_bits_of_the_packed_form_in_any_chunking() {
    let heads = |query, kv, dim, precision| Heads { query, kv, dim, value: dim, scale: 0.25, precision };
    let shapes = [(4, 2, 16), (6, 2, 34), (7, 1, 33), (3, 3, 64), (8, 2, 32), (5, 5, 8)];
    let all = shapes.into_iter().flat_map(|s| [Precision::F32, Precision::Bf16].map(|p| heads(s.0, s.1, s.2, p)));
    for h in all {
        let length = 150;
        let seg = Segments::from_lengths([length]);
        let (q, k, v) =
            (noise(length * h.query * h.dim, 20), noise(length * h.kv * h.dim, 21), noise(length * h.kv * h.dim, 22));
        let (mut want, mut stats) = (vec![0.0; q.len()], vec![0.0; length * h.query * 2]);
        attention::forward(&mut want, &mut stats, &q, &k, &v, &seg, h);
        for chunk in [1, 7, 32, 50, 150] {
            let (head_dim, precision) = (h.dim, h.precision);
            let mut cache =
                KvCache::new(CacheShape { layers: 2, kv_heads: h.kv, head_dim, value_dim: h.dim, precision });
            // Blocks in an order of their own.
            let mut blocks: Vec<u32> = (0..length.div_ceil(32)).map(|_| cache.grow()).collect();
            blocks.reverse();
            let (wide_q, wide_k) = (h.query * h.dim, h.kv * h.dim);
            let mut out = vec![0.0; q.len()];
            for start in (0..length).step_by(chunk) {
                let rows = (length - start).min(chunk);
                let spans = [CacheSpan { rows, start, blocks: &blocks }];
                let (kv, qs) = (start * wide_k..(start + rows) * wide_k, start * wide_q..(start + rows) * wide_q);
                cache.write(1, &k[kv.clone()], &v[kv], &spans);
                cache.attend(1, &mut out[qs.clone()], &q[qs], &spans, h);
            }
            assert_eq!(out, want, "{h:?} chunk {chunk}");
        }
    }
}

#[test]
fn sequences_have_the_same_bits_in_one_call_and_alone() {
    for precision in [Precision::F32, Precision::Bf16] {
        let h = Heads { query: 8, kv: 4, dim: 32, value: 32, scale: 0.25, precision };
        let shape = CacheShape { layers: 1, kv_heads: 4, head_dim: 32, value_dim: 32, precision };
        let mut cache = KvCache::new(shape);
        // (where they begin, new tokens): steps of one token between a prompt and a piece of one.
        let sequences: [(usize, usize); 7] = [(40, 1), (0, 33), (95, 1), (31, 1), (64, 7), (0, 1), (130, 1)];
        let blocks: Vec<Vec<u32>> = sequences
            .iter()
            .map(|(start, rows)| (0..(start + rows).div_ceil(32)).map(|_| cache.grow()).collect())
            .collect();
        for (i, ((start, _), blocks)) in sequences.iter().zip(&blocks).enumerate() {
            let past = [CacheSpan { rows: *start, start: 0, blocks }];
            let (k, v) = (noise(start * 128, 30 + i as u64), noise(start * 128, 40 + i as u64));
            cache.write(0, &k, &v, &past);
        }
        let spans: Vec<CacheSpan> =
            sequences.iter().zip(&blocks).map(|(&(start, rows), blocks)| CacheSpan { rows, start, blocks }).collect();
        let rows: usize = spans.iter().map(|s| s.rows).sum();
        let (q, k, v) = (noise(rows * 256, 50), noise(rows * 128, 51), noise(rows * 128, 52));
        cache.write(0, &k, &v, &spans);
        let mut together = vec![0.0; q.len()];
        cache.attend(0, &mut together, &q, &spans, h);
        let mut serial = vec![0.0; q.len()];
        aha_kernels::par::serial(|| cache.attend(0, &mut serial, &q, &spans, h));
        assert_eq!(together, serial, "{precision:?}: threads");
        let mut t = 0;
        for (i, span) in spans.iter().enumerate() {
            let own = t * 256..(t + span.rows) * 256;
            let mut alone = vec![0.0; own.len()];
            cache.attend(0, &mut alone, &q[own.clone()], &[*span], h);
            assert!(alone == together[own] && alone.iter().any(|x| *x != 0.0), "{precision:?}: sequence {i} alone");
            t += span.rows;
        }
    }
}

#[test]
fn log_probabilities_entropies_and_gradients_equal_reference() {
    for (m, d, vocab, temperature) in [(4, 5, 37, 1.0f32), (3, 8, 64, 0.6)] {
        let (h, w) = (noise(m * d, 23), noise(vocab * d, 24));
        let h: Vec<f32> = h.iter().map(|v| v * 2.0).collect();
        let targets: Vec<u32> = (0..m as u32).map(|i| (i * 17 + 3) % vocab as u32).collect();
        let weights = noise(m, 25);
        let layout = Layout::Panels { n: vocab, k: d };
        let panels = layout.store(w.clone());
        let (mut logp, mut entropy) = (vec![0.0; m], vec![0.0; m]);
        let weight = Weight::f32(&panels, vocab, d);
        logprob::forward(&mut logp, &mut entropy, &h, weight, &targets, temperature);
        let t = f64::from(temperature);
        let (want, want_entropy) = ref_logprob(&wide(&h), &wide(&w), vocab, &targets, t);
        close("logp", &logp, &want, 1e-5);
        close("entropy", &entropy, &want_entropy, 1e-5);
        let (mut d_h, mut d_w) = (vec![0.0; h.len()], vec![0.0; panels.len()]);
        logprob::backward(&mut d_h, &mut WeightGradients::plain(&mut d_w), &weights, &h, weight, &targets, temperature);
        let ww = wide(&weights);
        close("d_h", &d_h, &differences(&wide(&h), &ww, |h| ref_logprob(h, &wide(&w), vocab, &targets, t).0), 1e-5);
        let d_w = layout.load(&d_w);
        close("d_w", &d_w, &differences(&wide(&w), &ww, |w| ref_logprob(&wide(&h), w, vocab, &targets, t).0), 1e-5);
    }
}

/// The bits of values rounded to bf16.
fn halves(values: &[f32]) -> Vec<u16> {
    values.iter().map(|v| (aha_kernels::cpu::bf16::round(*v).to_bits() >> 16) as u16).collect()
}

#[test]
fn results_in_bf16_are_the_f32_ones_rounded() {
    for (rows, d) in [(1, 6), (5, 40), (9, 128), (4, 1030)] {
        let (x, u, w, d_out) = (noise(rows * d, 1), noise(rows * d, 2), noise(d, 3), noise(rows * d, 4));
        let (mut y, mut low) = (vec![0.0; rows * d], vec![0; rows * d]);
        let (mut rstd, mut low_rstd) = (vec![0.0; rows], vec![0.0; rows]);
        norm::forward(&mut y, &mut rstd, &x, &w, 1e-6);
        norm::forward_pairs(&mut low, &mut low_rstd, &x, &w, 1e-6);
        assert!(low == halves(&y) && rstd == low_rstd, "norm {rows} {d}");
        swiglu::forward(&mut y, &x, &u);
        swiglu::forward_pairs(&mut low, &x, &u);
        assert_eq!(low, halves(&y), "swiglu {rows} {d}");
        let (mut d_g, mut d_u) = (vec![7.0; rows * d], vec![7.0; rows * d]);
        swiglu::backward(&mut d_g, &mut d_u, &d_out, &x, &u, false);
        let mut low_u = vec![0; rows * d];
        swiglu::backward_pairs(&mut low, &mut low_u, &d_out, &x, &u);
        assert!(low == halves(&d_g) && low_u == halves(&d_u), "swiglu backward {rows} {d}");
    }
}

#[test]
fn a_norm_has_the_same_bits_alone_and_beside_other_rows() {
    for d in [5, 16, 24, 96] {
        let (rows, w) = (7, noise(d, 1));
        let (x, d_y) = (noise(rows * d, 2), noise(rows * d, 3));
        let (mut y, mut rstd, mut d_x) = (vec![0.0; rows * d], vec![0.0; rows], vec![0.0; rows * d]);
        norm::forward(&mut y, &mut rstd, &x, &w, 1e-6);
        norm::backward(&mut d_x, &mut [], &d_y, &x, &w, &rstd);
        for i in 0..rows {
            let row = i * d..(i + 1) * d;
            let (mut one, mut r, mut d_one) = (vec![0.0; d], [0.0], vec![0.0; d]);
            norm::forward(&mut one, &mut r, &x[row.clone()], &w, 1e-6);
            norm::backward(&mut d_one, &mut [], &d_y[row.clone()], &x[row.clone()], &w, &r);
            assert!(one == y[row.clone()] && d_one == d_x[row], "row {i} of width {d}");
        }
    }
}
