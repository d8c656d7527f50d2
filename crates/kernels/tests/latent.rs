//! Latent attention against a slow f64 reference, its backward against central differences, and its two forms against each
//! other, packed and over a cache.

mod common;

use aha_kernels::Segments;
use aha_kernels::cpu::bf16::round;
use aha_kernels::cpu::gemm::bf16_tiles;
use aha_kernels::latent::packed::{self, Dims};
use aha_kernels::latent::{LatentForm, LatentHeads, absorb};
use aha_kernels::rope::{Rope, RopePart};
use aha_kernels::{Attend, CacheShape, CacheSpan, Init, KvCache, Layout, ParamStore, Precision, Tape};
use common::{close, differences, noise, wide};
use std::sync::Arc;

fn heads(heads: usize, nope: usize, rope: usize, lora: usize, value: usize, form: LatentForm) -> LatentHeads {
    LatentHeads { heads, nope, rope, lora, value, scale: 0.31, form, precision: Precision::F32 }
}

/// Causal attention with keys `[own(t, g) ; shared(t)]`, in f64.
fn reference(q: &[f64], kv: &[f64], shared: &[f64], seg: &Segments, d: Dims) -> Vec<f64> {
    let (block, key) = (d.own + d.value, d.own + d.shared);
    let (out_width, group) = (d.out(), d.heads / d.key_heads);
    let mut out = vec![0.0; seg.tokens() * d.heads * out_width];
    for (s, h) in (0..seg.len()).flat_map(|s| (0..d.heads).map(move |h| (s, h))) {
        for t in seg.range(s) {
            let own = |j: usize| (j * d.key_heads + h / group) * block;
            let keys: Vec<usize> = seg.before(s).chain(seg.range(s).start..=t).collect();
            let scores: Vec<f64> = keys
                .iter()
                .map(|&j| {
                    let q = &q[(t * d.heads + h) * key..][..key];
                    let a: f64 = q[..d.own].iter().zip(&kv[own(j)..]).map(|(a, b)| a * b).sum();
                    let b: f64 = q[d.own..].iter().zip(&shared[j * d.shared..]).map(|(a, b)| a * b).sum();
                    f64::from(d.scale) * (a + b)
                })
                .collect();
            let max = scores.iter().copied().fold(f64::MIN, f64::max);
            let sum: f64 = scores.iter().map(|s| (s - max).exp()).sum();
            for (j, s) in keys.into_iter().zip(&scores) {
                let at = own(j) + if d.value == 0 { 0 } else { d.own };
                for c in 0..out_width {
                    out[(t * d.heads + h) * out_width + c] += (s - max).exp() / sum * kv[at + c];
                }
            }
        }
    }
    out
}

#[test]
fn attention_with_wide_keys_equals_reference_and_differences() {
    let many = Dims { heads: 3, key_heads: 3, own: 5, shared: 2, value: 4, scale: 0.4, precision: Precision::F32 };
    let one = Dims { heads: 4, key_heads: 1, own: 6, shared: 3, value: 0, scale: 0.4, precision: Precision::F32 };
    let continuing = Segments::continuing(&[(3, None), (2, Some(0)), (0, Some(0)), (1, Some(0)), (2, None)]);
    for (seg, d) in [
        (Segments::from_lengths([3, 1, 4]), many),
        (Segments::from_lengths([2, 0, 5]), one),
        (
            Segments::from_lengths([6]),
            Dims { heads: 2, key_heads: 1, own: 34, shared: 4, value: 0, scale: 0.3, precision: Precision::F32 },
        ),
        (continuing.clone(), many),
        (continuing, one),
    ] {
        let t = seg.tokens();
        let q = noise(t * d.heads * (d.own + d.shared), 1);
        let (kv, shared) = (noise(t * d.key_heads * (d.own + d.value), 2), noise(t * d.shared, 3));
        let (mut out, mut stats) = (vec![0.0; t * d.heads * d.out()], vec![0.0; t * d.heads * 2]);
        packed::forward(&mut out, &mut stats, &q, (&kv, &shared), &seg, 0, d);
        let (wq, wkv, ws) = (wide(&q), wide(&kv), wide(&shared));
        close("out", &out, &reference(&wq, &wkv, &ws, &seg, d), 1e-5);
        let weights = noise(out.len(), 4);
        let (mut d_q, mut d_kv, mut d_s) = (vec![9.0; q.len()], vec![9.0; kv.len()], vec![9.0; shared.len()]);
        let forwarded = (out.as_slice(), stats.as_slice());
        packed::backward((&mut d_q, &mut d_kv, &mut d_s), &weights, forwarded, (&q, &kv, &shared), &seg, d);
        let ww = wide(&weights);
        close("d_q", &d_q, &differences(&wq, &ww, |q| reference(q, &wkv, &ws, &seg, d)), 1e-4);
        close("d_kv", &d_kv, &differences(&wkv, &ww, |kv| reference(&wq, kv, &ws, &seg, d)), 1e-4);
        close("d_shared", &d_s, &differences(&ws, &ww, |s| reference(&wq, &wkv, s, &seg, d)), 1e-4);
    }
}

#[test]
fn long_sequences_cross_tiles_and_blocks() {
    let d = Dims { heads: 4, key_heads: 1, own: 32, shared: 16, value: 0, scale: 0.2, precision: Precision::F32 };
    let seg = Segments::from_lengths([131, 33, 64, 1]);
    let t = seg.tokens();
    let (q, kv, shared) = (noise(t * 4 * 48, 5), noise(t * 32, 6), noise(t * 16, 7));
    let (mut out, mut stats) = (vec![0.0; t * 4 * 32], vec![0.0; t * 8]);
    packed::forward(&mut out, &mut stats, &q, (&kv, &shared), &seg, 0, d);
    close("out", &out, &reference(&wide(&q), &wide(&kv), &wide(&shared), &seg, d), 1e-5);
}

/// x as bf16 keeps it.
fn rounded(x: &[f32]) -> Vec<f64> {
    x.iter().map(|x| f64::from(round(*x))).collect()
}

#[test]
fn in_bf16_it_is_that_of_rounded_queries_keys_and_values() {
    let precision = Precision::Bf16;
    let one = Dims { heads: 4, key_heads: 1, own: 32, shared: 16, value: 0, scale: 0.2, precision };
    let odd = Dims { own: 7, shared: 4, ..one };
    let many = Dims { heads: 3, key_heads: 3, own: 12, shared: 5, value: 20, scale: 0.3, precision };
    for (d, seg) in [one, odd, many].into_iter().flat_map(|d| {
        [Segments::from_lengths([70, 1, 33]), Segments::continuing(&[(40, None), (30, Some(0)), (9, Some(0))])]
            .map(|seg| (d, seg))
    }) {
        let t = seg.tokens();
        let q = noise(t * d.heads * (d.own + d.shared), 1);
        let (kv, shared) = (noise(t * d.key_heads * (d.own + d.value), 2), noise(t * d.shared, 3));
        let (mut out, mut stats) = (vec![0.0; t * d.heads * d.out()], vec![0.0; t * d.heads * 2]);
        packed::forward(&mut out, &mut stats, &q, (&kv, &shared), &seg, 0, d);
        // Probabilities are rounded, too: 2^-9 of a value.
        close("out", &out, &reference(&rounded(&q), &rounded(&kv), &rounded(&shared), &seg, d), 3e-3);
        let weights = noise(out.len(), 4);
        let gradients = |d: Dims| {
            let (mut out, mut stats) = (vec![0.0; out.len()], vec![0.0; stats.len()]);
            packed::forward(&mut out, &mut stats, &q, (&kv, &shared), &seg, 0, d);
            let (mut d_q, mut d_kv, mut d_s) = (vec![9.0; q.len()], vec![9.0; kv.len()], vec![9.0; shared.len()]);
            packed::backward((&mut d_q, &mut d_kv, &mut d_s), &weights, (&out, &stats), (&q, &kv, &shared), &seg, d);
            [d_q, d_kv, d_s]
        };
        let (found, want) = (gradients(d), gradients(Dims { precision: Precision::F32, ..d }));
        for ((found, want), name) in found.iter().zip(&want).zip(["d_q", "d_kv", "d_shared"]) {
            // Of the largest gradient: what is left of sums that cancel has the rounding of their terms.
            let largest = want.iter().fold(0f32, |a, x| a.max(x.abs()));
            let apart = found.iter().zip(want).fold(0f32, |a, (x, y)| a.max((x - y).abs()));
            assert!(apart > 0.0 && apart <= 0.02 * largest, "{name}: {apart} of {largest} in {d:?}");
        }
    }
}

#[test]
fn absorbed_products_equal_reference_and_differences() {
    for (n, nope, rope, lora, value) in [(3, 10, 6, 18, 14), (2, 32, 4, 40, 32), (2, 33, 2, 7, 5)] {
        let d = heads(n, nope, rope, lora, value, LatentForm::Absorbed);
        let (t, rows) = (5, nope + value);
        let (q, w) = (noise(t * n * (nope + rope), 8), noise(n * rows * lora, 9));
        let layout = Layout::Panels { n: n * rows, k: lora };
        let panels = layout.store(w.clone());
        let up = |q: &[f64], w: &[f64]| -> Vec<f64> {
            let lat = |i: usize, c: usize| {
                let (q, w) = (&q[i * (nope + rope)..], &w[i % n * rows * lora..]);
                if c < lora { (0..nope).map(|p| q[p] * w[p * lora + c]).sum() } else { q[nope + c - lora] }
            };
            (0..t * n).flat_map(|i| (0..lora + rope).map(move |c| (i, c))).map(|(i, c)| lat(i, c)).collect()
        };
        let mut qa = vec![0.0; t * n * (lora + rope)];
        absorb::queries(&mut qa, &q, &panels, d);
        let (wq, ww) = (wide(&q), wide(&w));
        close("queries", &qa, &up(&wq, &ww), 1e-5);
        let weights = noise(qa.len(), 10);
        let (mut d_q, mut d_w) = (vec![9.0; q.len()], vec![0.0; panels.len()]);
        absorb::queries_backward(&mut d_q, &mut d_w, &weights, &q, &panels, d);
        close("d_q", &d_q, &differences(&wq, &wide(&weights), |q| up(q, &ww)), 1e-4);
        close("d_w", &layout.load(&d_w), &differences(&ww, &wide(&weights), |w| up(&wq, w)), 1e-4);

        let ctx = noise(t * n * lora, 11);
        let down = |ctx: &[f64], w: &[f64]| -> Vec<f64> {
            (0..t * n * value)
                .map(|i| {
                    let (row, j) = (i / value, i % value);
                    let w = &w[(row % n * rows + nope + j) * lora..];
                    (0..lora).map(|c| ctx[row * lora + c] * w[c]).sum()
                })
                .collect()
        };
        let mut out = vec![0.0; t * n * value];
        absorb::outputs(&mut out, &ctx, &panels, d);
        let wc = wide(&ctx);
        close("outputs", &out, &down(&wc, &ww), 1e-5);
        let weights = noise(out.len(), 12);
        let (mut d_ctx, mut d_w) = (vec![9.0; ctx.len()], vec![0.0; panels.len()]);
        absorb::outputs_backward(&mut d_ctx, &mut d_w, &weights, &ctx, &panels, d);
        close("d_ctx", &d_ctx, &differences(&wc, &wide(&weights), |c| down(c, &ww)), 1e-4);
        close("d_w", &layout.load(&d_w), &differences(&ww, &wide(&weights), |w| down(&wc, w)), 1e-4);
    }
}

/// The attention of a layer over a sequence, in some form, packed or through a cache in chunks.
fn run(d: LatentHeads, length: usize, chunk: Option<usize>) -> Vec<f32> {
    let mut params = ParamStore::default();
    let layout = Layout::Panels { n: d.heads * d.rows(), k: d.lora };
    let up = params.init("up", layout, Init::Normal { std: 0.3, seed: 1 });
    let (q, latent, shared) =
        (noise(length * d.heads * d.query(), 13), noise(length * d.lora, 14), noise(length * d.rope, 15));
    let mut tape = Tape::new(false);
    let Some(chunk) = chunk else {
        let inputs = (tape.constant(&q), tape.constant(&latent), tape.constant(&shared));
        let mut attend = Attend::Packed(Arc::new(Segments::from_lengths([length])));
        let out = tape.latent_attention(&params, inputs, up, 1, &mut attend, d);
        return tape.value(out).to_vec();
    };
    let mut cache = KvCache::new(CacheShape {
        layers: 2,
        kv_heads: 1,
        head_dim: d.absorbed(),
        value_dim: 0,
        precision: d.precision,
    });
    // In bf16 matrix tiles want whole steps of 32 numbers.
    let bytes = match d.precision {
        Precision::F32 => 4 * d.absorbed(),
        _ if bf16_tiles() => 2 * d.absorbed().next_multiple_of(32),
        _ => 2 * d.absorbed().next_multiple_of(2),
    };
    assert_eq!(cache.shape().block_bytes(), 2 * 32 * bytes, "nothing but latents and shared keys");
    let mut blocks: Vec<u32> = (0..length.div_ceil(32)).map(|_| cache.grow()).collect();
    blocks.reverse();
    let mut all = Vec::new();
    for start in (0..length).step_by(chunk) {
        let rows = (length - start).min(chunk);
        let cut = |x: &[f32]| x[start * (x.len() / length)..(start + rows) * (x.len() / length)].to_vec();
        let inputs = (tape.constant(&cut(&q)), tape.constant(&cut(&latent)), tape.constant(&cut(&shared)));
        let spans = [CacheSpan { rows, start, blocks: &blocks }];
        let mut attend = Attend::Cached { cache: &mut cache, spans: &spans };
        let out = tape.latent_attention(&params, inputs, up, 1, &mut attend, d);
        all.extend_from_slice(tape.value(out));
        tape.reset();
    }
    all
}

#[test]
fn the_absorbed_form_has_the_same_bits_packed_and_cached_in_any_chunking() {
    let shapes = [(4, 32, 16, 32, 32), (3, 10, 6, 18, 14), (9, 16, 8, 70, 24), (2, 6, 4, 7, 5), (70, 6, 4, 12, 5)];
    for ((n, nope, rope, lora, value), precision) in
        shapes.into_iter().flat_map(|shape| [Precision::F32, Precision::Bf16].map(|p| (shape, p)))
    {
        let d = LatentHeads { precision, ..heads(n, nope, rope, lora, value, LatentForm::Absorbed) };
        let want = run(d, 150, None);
        assert_eq!(want == run(LatentHeads { precision: Precision::F32, ..d }, 150, None), precision == Precision::F32);
        for chunk in [1, 2, 3, 7, 32, 50, 150] {
            assert!(run(d, 150, Some(chunk)) == want, "{n} heads, chunk {chunk}, {precision:?}");
        }
    }
}

#[test]
fn absorbed_and_expanded_forms_agree_at_every_prefix() {
    for (n, nope, rope, lora, value) in [(4, 32, 16, 32, 32), (3, 10, 6, 18, 14)] {
        let absorbed = heads(n, nope, rope, lora, value, LatentForm::Absorbed);
        let mixed = heads(n, nope, rope, lora, value, LatentForm::Mixed);
        let want: Vec<f64> = wide(&run(mixed, 150, None));
        // One token at a time is absorbed in either form; long chunks are expanded over the cache.
        for (d, chunk) in
            [(absorbed, Some(1)), (absorbed, None), (mixed, Some(1)), (mixed, Some(40)), (mixed, Some(150))]
        {
            close("form", &run(d, 150, chunk), &want, 1e-5);
        }
    }
}

#[test]
fn interleaved_rotation_turns_neighbours_and_undoes_itself() {
    let rope = Rope::scaled(vec![1.0, 0.1], 1.25, 2000);
    let part = RopePart { width: 7, interleaved: true };
    let x = noise(2 * 2 * 7, 16);
    let mut y = x.clone();
    rope.apply_part(&mut y, &[3, 700], part, 1.0);
    for (row, (old, new)) in x.chunks(7).zip(y.chunks(7)).enumerate() {
        assert_eq!(old[..3], new[..3]);
        let position = [3.0f64, 700.0][row / 2];
        for i in 0..2 {
            let (a, b) = (f64::from(old[3 + 2 * i]), f64::from(old[4 + 2 * i]));
            let (sin, cos) = (position * [1.0, f64::from(0.1f32)][i]).sin_cos();
            close("pair", &new[3 + 2 * i..5 + 2 * i], &[1.25 * (a * cos - b * sin), 1.25 * (b * cos + a * sin)], 1e-4);
        }
    }
    rope.apply_part(&mut y, &[3, 700], part, -1.0);
    let back: Vec<f64> = x
        .chunks(7)
        .flat_map(|r| r.iter().enumerate().map(|(i, v)| f64::from(*v) * if i < 3 { 1.0 } else { 1.25 * 1.25 }))
        .collect();
    close("inverse times the factor squared", &y, &back, 1e-5);
    // Scores depend on the distance alone.
    let plain = Rope::new(vec![1.0, 0.1], 2000);
    let score = |p: u32, r: u32| {
        let (mut a, mut b) = (x[..7].to_vec(), x[7..14].to_vec());
        plain.apply_part(&mut a, &[p], part, 1.0);
        plain.apply_part(&mut b, &[r], part, 1.0);
        a[3..].iter().zip(&b[3..]).map(|(a, b)| f64::from(a * b)).sum::<f64>()
    };
    assert!((score(9, 4) - score(1009, 1004)).abs() < 1e-3);
}
