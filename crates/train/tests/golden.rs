//! The decoder against transformers: logits, every gradient, ten optimizer steps, packing, decoding.
//!
//! Fixtures are made by `tools/make_fixtures.py`; `tests/fixtures/README.md` names every tensor.

#![allow(clippy::unwrap_used)]

use aha_engine::{Control, EngineConfig, Request, SamplingParams, generate, score};
use aha_kernels::{
    AdamWConfig, Attend, GradientType, Gradients, MasterWeights, Optimizer, OptimizerConfig, Precision, Segments, Tape,
    linear,
};
use aha_model::{Checkpoint, Decoder};
use aha_train::PackedBatch;
use safetensors::SafeTensors;
use std::path::PathBuf;
use std::sync::Arc;

const DENSE: [&str; 5] = ["llama_untied", "llama_tied", "qwen2_untied", "qwen2_tied", "qwen3"];
const MODELS: [&str; 9] = [
    "llama_untied",
    "llama_tied",
    "qwen2_untied",
    "qwen2_tied",
    "qwen3",
    "deepseek_plain",
    "deepseek_groups",
    "deepseek_yarn",
    "deepseek_fused",
];

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures")
}

fn load(name: &str) -> Decoder {
    let checkpoint = Checkpoint::open(&fixtures().join(name)).unwrap();
    assert!(checkpoint.unexpected().is_empty());
    Decoder::from_tensors(checkpoint.config().clone(), |n| checkpoint.read(n)).unwrap()
}

struct Golden(Vec<u8>);

impl Golden {
    fn of(path: &str) -> Self {
        Golden(std::fs::read(fixtures().join(path)).unwrap())
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        let tensors = SafeTensors::deserialize(&self.0).unwrap();
        let view = tensors.tensor(name).unwrap_or_else(|_| panic!("{name}"));
        view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    }

    /// Token rows.
    fn tokens(&self, name: &str) -> Vec<Vec<u32>> {
        let tensors = SafeTensors::deserialize(&self.0).unwrap();
        let view = tensors.tensor(name).unwrap_or_else(|_| panic!("{name}"));
        let all: Vec<u32> =
            view.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as u32).collect();
        all.chunks(*view.shape().last().unwrap()).map(<[u32]>::to_vec).collect()
    }

    fn names(&self) -> Vec<String> {
        SafeTensors::deserialize(&self.0).unwrap().names().into_iter().map(String::from).collect()
    }
}

fn close(what: &str, ours: &[f32], theirs: &[f32], tolerance: f32) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    let worst = ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < tolerance && ours.iter().all(|v| v.is_finite()), "{what}: largest difference {worst}");
}

/// Logits `[T, V]` of packed sequences.
fn logits(d: &Decoder, sequences: &[Vec<u32>]) -> Vec<f32> {
    let segments = Arc::new(Segments::from_lengths(sequences.iter().map(Vec::len)));
    let mut tape = Tape::new(false);
    let positions: Arc<[u32]> = segments.positions().into();
    let h = d.hidden(&mut tape, &sequences.concat().into(), &positions, &mut Attend::Packed(segments.clone()));
    let vocab = d.config.vocab_size;
    let mut out = vec![0.0; segments.tokens() * vocab];
    linear::forward(&mut out, tape.value(h), d.params.weight(d.head()), false);
    out
}

/// Mean next-token loss; gradients added to `grads`.
fn loss_and_gradients(d: &Decoder, sequences: &[Vec<u32>], grads: &mut Gradients) -> f64 {
    let batch = PackedBatch::new(sequences.iter().map(|s| s.split_at(1)));
    let mut loss = 0.0;
    batch.train(d, &mut Tape::new(true), grads, 1.0, |logp, _| {
        loss = -logp.iter().map(|v| f64::from(*v)).sum::<f64>() / logp.len() as f64;
        vec![-1.0 / logp.len() as f32; logp.len()]
    });
    loss
}

#[test]
fn logits_equal_transformers() {
    for name in MODELS.iter().chain(&["llama_bf16", "llama_f16"]) {
        let golden = Golden::of(&format!("{name}/golden.safetensors"));
        close(name, &logits(&load(name), &golden.tokens("tokens")), &golden.floats("logits"), 1e-4);
    }
}

#[test]
fn loss_and_every_gradient_equal_transformers() {
    for name in MODELS {
        let golden = Golden::of(&format!("{name}/golden.safetensors"));
        let d = load(name);
        let mut grads = Gradients::new(&d.params);
        let loss = loss_and_gradients(&d, &golden.tokens("tokens"), &mut grads);
        assert!((loss - f64::from(golden.floats("loss")[0])).abs() < 1e-5, "{name}: {loss}");
        let mut compared = 0;
        for (id, p) in d.params.iter().filter(|(_, p)| p.trainable) {
            let ours = p.layout.load(grads.get(id));
            close(&format!("{name} {}", p.name), &ours, &golden.floats(&format!("grad.{}", p.name)), 1e-4);
            assert!(ours.iter().any(|g| *g != 0.0), "{name}: {} gets no gradient", p.name);
            compared += 1;
        }
        assert_eq!(compared, golden.names().iter().filter(|n| n.starts_with("grad.")).count(), "{name}");
    }
}

#[test]
fn temperature_log_probabilities_and_entropies_equal_torch() {
    for name in MODELS {
        let golden = Golden::of(&format!("{name}/golden.safetensors"));
        let sequences = golden.tokens("tokens");
        let refs: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
        let scored = score(&load(name), &refs, 0.7, 64).unwrap();
        let logprobs: Vec<f32> = scored.iter().flat_map(|s| s.logprobs.clone()).collect();
        let entropies: Vec<f32> = scored.iter().flat_map(|s| s.entropies.clone()).collect();
        close(name, &logprobs, &golden.floats("logprobs_temperature_0.7"), 1e-4);
        close(name, &entropies, &golden.floats("entropy_temperature_0.7"), 1e-4);
    }
}

/// bf16 has 8 bits of mantissa: its products are as close to the golden ones as that allows, and no closer.
#[test]
fn bf16_loss_and_gradients_are_those_of_f32_but_for_rounding() {
    // Not those with experts: rounding changes some choices, and with them gradients as a whole.
    for name in DENSE {
        let golden = Golden::of(&format!("{name}/golden.safetensors"));
        let mut d = load(name);
        // With little memory, too: weights in two halves or rounded alone, and gradients in bf16.
        let whole = (MasterWeights::Whole, GradientType::F32);
        let little = [MasterWeights::Split, MasterWeights::Bf16].map(|master| (master, GradientType::Bf16));
        for (master, gradients) in [whole, little[0], little[1], whole] {
            let config = OptimizerConfig { master, gradients, ..OptimizerConfig::default() };
            config.prepare(&mut d.params, Precision::Bf16);
            let mut grads = Gradients::in_numbers(&d.params, gradients);
            let loss = loss_and_gradients(&d, &golden.tokens("tokens"), &mut grads);
            let wanted = f64::from(golden.floats("loss")[0]);
            assert!(loss != wanted && (loss - wanted).abs() < 1e-2, "{name}: {loss} {wanted}");
            for (id, p) in d.params.iter() {
                let (ours, theirs) = (p.layout.load(&grads.values(id)), golden.floats(&format!("grad.{}", p.name)));
                let square = |v: &mut dyn Iterator<Item = f32>| v.map(|v| f64::from(v).powi(2)).sum::<f64>().sqrt();
                let difference = square(&mut ours.iter().zip(&theirs).map(|(a, b)| a - b));
                let off = difference / square(&mut theirs.iter().copied());
                // A bias on keys shifts all scores of a query alike but for the rotation: its gradient is a small difference.
                let tolerance = if p.name.ends_with("k_proj.bias") { 0.15 } else { 0.07 };
                assert!(off < tolerance, "{name} {}: relative error {off}", p.name);
            }
        }
    }
}

#[test]
fn packed_sequences_do_not_see_each_other() {
    for name in MODELS {
        let golden = Golden::of(&format!("{name}/golden.safetensors"));
        let d = load(name);
        let sequences = [golden.tokens("packed.tokens_0").concat(), golden.tokens("packed.tokens_1").concat()];
        let both = logits(&d, &sequences);
        let want = [golden.floats("packed.logits_0"), golden.floats("packed.logits_1")].concat();
        close(name, &both, &want, 1e-4);
        let apart = [logits(&d, &sequences[..1]), logits(&d, &sequences[1..])].concat();
        assert_eq!(both, apart, "{name}: packing changed bits");
        let mut grads = Gradients::new(&d.params);
        let loss = loss_and_gradients(&d, &sequences, &mut grads);
        assert!((loss - f64::from(golden.floats("packed.loss")[0])).abs() < 1e-5, "{name}");
    }
}

#[test]
fn greedy_text_equals_transformers() {
    for name in MODELS {
        let golden = Golden::of(&format!("{name}/golden.safetensors"));
        let params = SamplingParams { temperature: 0.0, max_new_tokens: 16, ..SamplingParams::default() };
        let request = Request { prompt: golden.tokens("greedy.prompt").concat().into(), samples: 1, params, seed: 0 };
        let out = generate(&load(name), &[request], &EngineConfig::default(), &Control::default()).unwrap();
        assert_eq!(out[0].tokens, golden.tokens("greedy.tokens").concat(), "{name}");
    }
}

#[test]
fn ten_optimizer_steps_equal_torch() {
    let golden = Golden::of("ten_steps.safetensors");
    let mut d = load("llama_untied");
    let config = AdamWConfig { weight_decay: 0.1, ..AdamWConfig::default() };
    let mut optimizer = Optimizer::new(config, &d.params);
    let mut grads = Gradients::new(&d.params);
    let rows = golden.tokens("tokens");
    let (losses, norms) = (golden.floats("losses"), golden.floats("grad_norms"));
    for (step, batch) in rows.chunks(rows.len() / 10).enumerate() {
        grads.zero();
        let loss = loss_and_gradients(&d, batch, &mut grads);
        let norm = optimizer.step(&mut d.params, &grads, 1e-2);
        assert!((loss - f64::from(losses[step])).abs() < 1e-4, "step {step}: loss {loss} {}", losses[step]);
        assert!((norm - f64::from(norms[step])).abs() < 5e-4, "step {step}: norm {norm} {}", norms[step]);
    }
    for (_, p) in d.params.iter() {
        close(&p.name, &p.layout.load(&p.data), &golden.floats(&format!("param.{}", p.name)), 2e-4);
    }
}

/// The promise of the house: whatever the batch, the chunking, the packing or the threads, a token's log-probability is
/// the same number.
#[test]
fn generator_and_trainer_agree_bit_for_bit() {
    for (name, precision) in MODELS.iter().flat_map(|name| [(name, Precision::F32), (name, Precision::Bf16)]) {
        let mut d = load(name);
        d.params.set_precision(precision, true);
        let vocab = d.config.vocab_size as u32;
        let requests: Vec<Request> = (0..5u32)
            .map(|i| Request {
                // Prompts of even number begin alike: a full block of the cache is theirs together.
                prompt: (0..3 + i * 20).map(|j| (i % 2 * 31 * i + j * 7) % vocab).collect(),
                samples: 1 + i as usize,
                params: SamplingParams {
                    temperature: 0.9,
                    max_new_tokens: 40,
                    stop_tokens: vec![1],
                    ..SamplingParams::default()
                },
                seed: u64::from(i),
            })
            .collect();
        let base = generate(&d, &requests, &EngineConfig::default(), &Control::default()).unwrap();
        // Room for one sample of the longest prompt and nothing else, for a block more, for two samples.
        let tight = [4, 5, 8].map(|blocks| EngineConfig {
            workers: 1,
            max_running: 3,
            cache_bytes: blocks * d.cache_shape().block_bytes(),
            ..EngineConfig::default()
        });
        for config in tight.into_iter().chain([
            EngineConfig { workers: 1, max_running: 2, prefill_chunk: 7, ..EngineConfig::default() },
            EngineConfig {
                workers: 3,
                max_running: 64,
                prefill_chunk: 1,
                cache_bytes: 40 * d.cache_shape().block_bytes(),
                ..EngineConfig::default()
            },
        ]) {
            let other = generate(&d, &requests, &config, &Control::default()).unwrap();
            assert_eq!(base.len(), other.len());
            for (a, b) in base.iter().zip(&other) {
                assert_eq!(
                    (a.request, a.sample, &a.tokens, a.finish),
                    (b.request, b.sample, &b.tokens, b.finish),
                    "{name}"
                );
                assert_eq!(a.logprobs, b.logprobs, "{name}");
            }
        }
        let sequences: Vec<_> = base.iter().map(|c| (&*requests[c.request].prompt, c.tokens.as_slice())).collect();
        let (whole, shared) = (PackedBatch::new(sequences.iter().copied()), PackedBatch::sharing(&sequences));
        assert!(shared.tokens.len() < whole.tokens.len(), "prompts are shared");
        let gradients = [whole, shared].map(|batch| {
            let (mut seen, mut grads) = (Vec::new(), Gradients::new(&d.params));
            batch.train(&d, &mut Tape::new(true), &mut grads, 0.9, |logp, _| {
                seen = logp.to_vec();
                (0..logp.len()).map(|i| 0.1 * (i % 7) as f32 - 0.2).collect()
            });
            assert_eq!(seen, base.iter().flat_map(|c| c.logprobs.clone()).collect::<Vec<_>>(), "{name}");
            let (again, _) = batch.logprobs(&d, &mut Tape::new(false), 0.9);
            assert_eq!(seen, again, "{name}");
            grads
        });
        for (id, param) in d.params.iter() {
            let [whole, shared] = [&gradients[0], &gradients[1]].map(|g| g.values(id));
            let (mut apart, mut size) = (0f64, 0f64);
            for (a, b) in whole.iter().zip(shared.iter()) {
                (apart, size) = (apart + f64::from(a - b).powi(2), size + f64::from(*a).powi(2));
            }
            let limit = if precision == Precision::F32 { 1e-4 } else { 2e-2 };
            assert!(apart.sqrt() <= limit * size.sqrt(), "{name}, {}: {apart:e} of {size:e}", param.name);
        }
    }
}
