//! A training step and a generation of the mini recipe's model: tokens per second.
//!
//! `cargo bench -p aha-train`; ratios between versions belong into one run on one machine.

use aha_engine::{Control, EngineConfig, Request, SamplingParams, generate, score};
use aha_kernels::{AdamWConfig, Gradients, Optimizer, Tape};
use aha_model::{Decoder, ModelConfig};
use aha_train::PackedBatch;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;

/// The decoder of `mini-zero`: 1 M parameters.
fn mini() -> Decoder {
    let config = r#"{"model_type": "llama", "vocab_size": 464, "hidden_size": 128, "intermediate_size": 384,
        "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 512,
        "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": false, "hidden_act": "silu"}"#;
    Decoder::init(ModelConfig::from_json(config).expect("a valid config"), 1)
}

fn sequences(count: usize, vocab: usize) -> Vec<Vec<u32>> {
    (0..count).map(|i| (0..40 + i % 24).map(|j| ((i * 7 + j * 13) % vocab) as u32).collect()).collect()
}

fn training_step(c: &mut Criterion) {
    let mut model = mini();
    let data = sequences(160, model.config.vocab_size);
    let batch = PackedBatch::new(data.iter().map(|s| s.split_at(1)));
    let (mut tape, mut grads) = (Tape::new(true), Gradients::new(&model.params));
    let mut optimizer = Optimizer::new(AdamWConfig::default(), &model.params);
    let mut group = c.benchmark_group("train");
    group.sample_size(20).throughput(Throughput::Elements(batch.tokens.len() as u64));
    group.bench_function("step", |b| {
        b.iter(|| {
            grads.zero();
            batch.train(&model, &mut tape, &mut grads, 1.0, |logp, _| vec![-1.0 / logp.len() as f32; logp.len()]);
            optimizer.step(&mut model.params, &grads, 1e-4)
        })
    });
    group.finish();
}

fn decoding(c: &mut Criterion) {
    let model = mini();
    let data = sequences(32, model.config.vocab_size);
    let params = SamplingParams { max_new_tokens: 64, ..SamplingParams::default() };
    let requests: Vec<Request> = data
        .iter()
        .enumerate()
        .map(|(i, s)| Request { prompt: s[..16].into(), samples: 16, params: params.clone(), seed: i as u64 })
        .collect();
    let mut group = c.benchmark_group("engine");
    group.sample_size(10).throughput(Throughput::Elements(32 * 16 * 64));
    group.bench_function("generate 32 x 16 x 64", |b| {
        b.iter(|| {
            generate(&model, black_box(&requests), &EngineConfig::default(), &Control::default()).map(|c| c.len())
        })
    });
    let refs: Vec<&[u32]> = data.iter().map(Vec::as_slice).collect();
    group.throughput(Throughput::Elements(data.iter().map(|s| s.len() as u64).sum()));
    group.bench_function("score", |b| b.iter(|| score(&model, black_box(&refs), 1.0, 8192).map(|s| s.len())));
    group.finish();
}

criterion_group!(benches, training_step, decoding);
criterion_main!(benches);
