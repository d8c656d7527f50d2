//! DeepSeek-V3: both forms of its attention against transformers, prediction modules in training and in drafting, biases in
//! checkpoints. Golden files as in `golden.rs`.

#![allow(clippy::unwrap_used)]

use aha_engine::{Completion, Control, EngineConfig, Request, SamplingParams, generate};
use aha_kernels::latent::LatentForm;
use aha_kernels::{AdamWConfig, Attend, Gradients, KvCache, Optimizer, Precision, Segments, Tape, linear};
use aha_model::{Checkpoint, Decoder, ModelConfig, SaveDtype, TextFiles};
use aha_train::lanes::Lanes;
use aha_train::pretrain::{Extra, step_with};
use aha_train::{PackedBatch, state};
use safetensors::SafeTensors;
use std::path::PathBuf;
use std::sync::Arc;

const MODELS: [&str; 4] = ["deepseek_plain", "deepseek_groups", "deepseek_yarn", "deepseek_fused"];

fn load(name: &str) -> (Decoder, Vec<u8>) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(name);
    let checkpoint = Checkpoint::open(&folder).unwrap();
    assert!(checkpoint.unexpected().is_empty());
    let decoder = Decoder::from_tensors(checkpoint.config().clone(), |n| checkpoint.read(n)).unwrap();
    (decoder, std::fs::read(folder.join("golden.safetensors")).unwrap())
}

fn floats(golden: &[u8], name: &str) -> Vec<f32> {
    let tensors = SafeTensors::deserialize(golden).unwrap();
    let data = tensors.tensor(name).unwrap().data().to_vec();
    data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

fn tokens(golden: &[u8]) -> Vec<Vec<u32>> {
    let tensors = SafeTensors::deserialize(golden).unwrap();
    let view = tensors.tensor("tokens").unwrap();
    let all: Vec<u32> = view.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as u32).collect();
    all.chunks(view.shape()[1]).map(<[u32]>::to_vec).collect()
}

/// Logits `[T, V]` of a sequence, packed.
fn logits(d: &Decoder, sequence: &[u32]) -> Vec<f32> {
    let segments = Arc::new(Segments::from_lengths([sequence.len()]));
    let mut tape = Tape::new(false);
    let positions: Arc<[u32]> = segments.positions().into();
    let h = d.hidden(&mut tape, &sequence.into(), &positions, &mut Attend::Packed(segments));
    let mut out = vec![0.0; sequence.len() * d.config.vocab_size];
    linear::forward(&mut out, tape.value(h), d.params.weight(d.head()), false);
    out
}

/// The same through a cache, `chunk` tokens at a time.
fn cached_logits(d: &Decoder, sequence: &[u32], chunk: usize) -> Vec<f32> {
    let mut cache = KvCache::new(d.cache_shape());
    let blocks: Vec<u32> = (0..sequence.len().div_ceil(32)).map(|_| cache.grow()).collect();
    let mut tape = Tape::new(false);
    let mut all = Vec::new();
    for start in (0..sequence.len()).step_by(chunk) {
        let rows = chunk.min(sequence.len() - start);
        let spans = [aha_kernels::CacheSpan { rows, start, blocks: &blocks }];
        let positions: Arc<[u32]> = (start as u32..(start + rows) as u32).collect();
        let mut attend = Attend::Cached { cache: &mut cache, spans: &spans };
        let h = d.hidden(&mut tape, &sequence[start..start + rows].into(), &positions, &mut attend);
        let mut out = vec![0.0; rows * d.config.vocab_size];
        linear::forward(&mut out, tape.value(h), d.params.weight(d.head()), false);
        all.extend(out);
        tape.reset();
    }
    all
}

fn worst(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn both_forms_give_the_logits_and_gradients_of_transformers() {
    for (name, form) in MODELS.iter().flat_map(|n| [(n, LatentForm::Absorbed), (n, LatentForm::Mixed)]) {
        let (mut d, golden) = load(name);
        d.latent_form = form;
        let sequences = tokens(&golden);
        let ours: Vec<f32> = sequences.iter().flat_map(|s| logits(&d, s)).collect();
        assert!(worst(&ours, &floats(&golden, "logits")) < 1e-4, "{name} {form:?}");
        let mut grads = Gradients::new(&d.params);
        let batch = PackedBatch::new(sequences.iter().map(|s| s.split_at(1)));
        batch.train(&d, &mut Tape::new(true), &mut grads, 1.0, |l, _| vec![-1.0 / l.len() as f32; l.len()]);
        for (id, p) in d.params.iter().filter(|(_, p)| p.trainable) {
            let (ours, theirs) = (p.layout.load(grads.get(id)), floats(&golden, &format!("grad.{}", p.name)));
            let square = |v: &mut dyn Iterator<Item = f32>| v.map(|v| f64::from(v).powi(2)).sum::<f64>().sqrt();
            let off = square(&mut ours.iter().zip(&theirs).map(|(a, b)| a - b)) / square(&mut theirs.iter().copied());
            assert!(off < 1e-4, "{name} {form:?} {}: relative error {off}", p.name);
        }
    }
}

#[test]
fn absorbed_decoding_equals_expanded_prefill_at_every_prefix() {
    for name in MODELS {
        let (mut d, golden) = load(name);
        let sequence: Vec<u32> = tokens(&golden).concat();
        d.latent_form = LatentForm::Mixed;
        let want = logits(&d, &sequence);
        let scale = want.iter().fold(1f32, |m, v| m.max(v.abs()));
        for chunk in [1, 20, sequence.len()] {
            let off = worst(&cached_logits(&d, &sequence, chunk), &want) / scale;
            assert!(off < 1e-5, "{name} in chunks of {chunk}: {off}");
        }
        d.latent_form = LatentForm::Absorbed;
        let exact = logits(&d, &sequence);
        for chunk in [1, 2, 7, sequence.len()] {
            assert!(cached_logits(&d, &sequence, chunk) == exact, "{name}: one form, one set of bits");
        }
    }
}

/// A small model with a module that predicts one more token.
fn with_module(modules: usize) -> Decoder {
    let config = format!(
        r#"{{"model_type": "deepseek_v3", "vocab_size": 50, "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": 2, "num_attention_heads": 2, "kv_lora_rank": 16, "q_lora_rank": 12, "qk_nope_head_dim": 16,
        "qk_rope_head_dim": 8, "v_head_dim": 16, "first_k_dense_replace": 1, "moe_intermediate_size": 24,
        "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2, "num_nextn_predict_layers": {modules},
        "max_position_embeddings": 128, "rope_theta": 10000.0, "initializer_range": 0.1}}"#
    );
    Decoder::init(ModelConfig::from_json(&config).unwrap(), 5)
}

/// Sequences in which a token says what comes next, most of the time.
fn chains(count: usize, length: usize, seed: u32) -> Vec<Vec<u32>> {
    (0..count as u32)
        .map(|i| {
            let mut x = (i * 7 + seed) % 50;
            (0..length as u32)
                .map(|j| {
                    x = if (i * 31 + j * 17 + seed).is_multiple_of(11) { (x * 3 + 11) % 50 } else { (x * 7 + 3) % 50 };
                    x
                })
                .collect()
        })
        .collect()
}

#[test]
fn modules_leave_the_main_model_alone_and_start_at_the_loss_of_guessing() {
    let d = with_module(2);
    let without = ModelConfig {
        deepseek: d.config.deepseek.clone().map(|mut c| {
            c.num_nextn_predict_layers = 0;
            c
        }),
        ..d.config.clone()
    };
    let read = |name: &str| {
        let p = d.params.iter().find(|(_, p)| p.name == name).unwrap().1;
        Ok::<_, ()>(p.layout.load(&p.data))
    };
    let discarded = Decoder::from_tensors(without, read).unwrap();
    let sequence = &chains(1, 40, 1)[0];
    assert!(logits(&d, sequence) == logits(&discarded, sequence));
    assert!(d.config.num_parameters() == discarded.config.num_parameters());

    let sequences = chains(4, 30, 2);
    let batch = PackedBatch::new(sequences.iter().map(|s| s.split_at(1)));
    let mut quiet = Gradients::new(&d.params);
    let count = 4.0 * 29.0;
    let (main, further) = batch.train_predicting(&d, &mut Tape::new(true), &mut quiet, count, 0.3);
    assert!((main - 50f64.ln()).abs() < 0.8 && (further - 50f64.ln()).abs() < 0.8, "{main} {further}");
    // Gradients: along them both losses fall as they say.
    let square: f64 =
        d.params.iter().map(|(id, _)| quiet.get(id).iter().map(|g| f64::from(*g).powi(2)).sum::<f64>()).sum();
    let along = |h: f32| {
        let mut moved = d.clone();
        let ids: Vec<_> = moved.params.iter().map(|(id, _)| id).collect();
        for id in ids {
            let g = quiet.get(id).to_vec();
            moved.params.get_mut(id).data.iter_mut().zip(g).for_each(|(p, g)| *p += h * g);
        }
        let (a, b) = batch.train_predicting(&moved, &mut Tape::new(true), &mut Gradients::new(&d.params), count, 0.3);
        a + 0.3 * b
    };
    let h = 3e-3;
    let slope = (along(h) - along(-h)) / (2.0 * f64::from(h));
    assert!((slope / square - 1.0).abs() < 0.02, "{slope} {square}");
    // Running blocks again changes nothing, modules included.
    let mut tape = Tape::new(true);
    tape.gradient_checkpointing = true;
    let mut again = Gradients::new(&d.params);
    batch.train_predicting(&d, &mut tape, &mut again, count, 0.3);
    assert!(d.params.iter().all(|(id, _)| quiet.get(id) == again.get(id)));
}

fn train(d: &mut Decoder, steps: usize) -> Vec<(f64, Vec<(String, f64)>)> {
    d.params.set_precision(Precision::F32, true);
    let mut optimizer = Optimizer::new(AdamWConfig::default(), &d.params);
    let mut lanes = Lanes::new(&d.params, false);
    let extra = Extra { balance_alpha: 1e-4, bias_update_speed: 1e-2, prediction_weight: 0.3 };
    (0..steps)
        .map(|i| {
            let stepped = step_with(d, &mut optimizer, &mut lanes, &chains(16, 60, i as u32), 3e-3, &extra);
            (stepped.loss, stepped.metrics)
        })
        .collect()
}

fn draw(d: &Decoder, temperature: f32, speculative: bool, workers: usize) -> (Vec<Completion>, Option<(f64, f64)>) {
    let requests: Vec<Request> = chains(6, 20, 9)
        .into_iter()
        .enumerate()
        .map(|(i, mut prompt)| {
            // Prompts that fill blocks exactly, and others.
            prompt.extend(chains(1, 12 * (i % 2) + i / 4, 4).concat());
            let params = SamplingParams {
                temperature,
                max_new_tokens: 41 + i,
                stop_tokens: vec![49],
                ..SamplingParams::default()
            };
            Request { prompt: prompt.into(), samples: 1 + i % 3, params, seed: i as u64 }
        })
        .collect();
    let config = EngineConfig {
        speculative,
        workers,
        max_running: 4 * workers,
        prefill_chunk: 9 * workers,
        ..EngineConfig::default()
    };
    let control = Control::default();
    let out = generate(d, &requests, &config, &control).unwrap();
    if temperature > 0.0 {
        let batch = PackedBatch::new(out.iter().map(|c| (&*requests[c.request].prompt, c.tokens.as_slice())));
        let (logp, _) = batch.logprobs(d, &mut Tape::new(false), temperature);
        assert!(
            logp == out.iter().flat_map(|c| c.logprobs.clone()).collect::<Vec<_>>(),
            "the trainer's own, bit for bit"
        );
    }
    (out, control.speculation())
}

#[test]
fn drafts_leave_greedy_text_as_it_is_and_log_probabilities_exact() {
    let mut d = with_module(1);
    let log = train(&mut d, 60);
    let metric = |i: usize, name: &str| log[i].1.iter().find(|m| m.0 == name).unwrap().1;
    assert!(log[59].0 < log[0].0 - 1.0 && metric(59, "mtp_loss") < metric(0, "mtp_loss") - 1.0);
    assert!(metric(59, "moe/balance_loss") > 0.0 && metric(59, "moe/coldest_expert") > 0.0);
    for precision in [Precision::F32, Precision::Bf16] {
        d.params.set_precision(precision, true);
        let text = |c: &[Completion]| c.iter().map(|c| (c.tokens.clone(), c.finish)).collect::<Vec<_>>();
        let (plain, none) = draw(&d, 0.0, false, 1);
        let (drafted, some) = draw(&d, 0.0, true, 1);
        assert_eq!(text(&plain), text(&drafted));
        assert!(plain.iter().zip(&drafted).all(|(a, b)| a.logprobs == b.logprobs), "and so are log-probabilities");
        let (acceptance, tokens_per_step) = some.unwrap();
        assert!(none.is_none() && acceptance > 0.5 && tokens_per_step == 1.0 + acceptance, "{acceptance}");
        // Sampled texts do not depend on workers or chunks.
        let (one, two) = (draw(&d, 0.9, true, 1).0, draw(&d, 0.9, true, 2).0);
        assert_eq!(text(&one), text(&two));
    }
}

#[test]
fn a_saved_model_is_the_same_with_its_biases_in_full_and_its_modules() {
    let mut d = with_module(1);
    train(&mut d, 3);
    for dtype in [SaveDtype::F32, SaveDtype::Bf16] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model");
        state::save_model(&path, &d, dtype, &TextFiles::default()).unwrap();
        let checkpoint = Checkpoint::open(&path).unwrap();
        assert!(checkpoint.unexpected().is_empty(), "{:?}", checkpoint.unexpected());
        let again = state::load_model(&checkpoint).unwrap();
        assert_eq!(again.prediction_modules(), 1);
        for ((_, a), (_, b)) in d.params.iter().zip(again.params.iter()) {
            let exact = dtype == SaveDtype::F32 || a.name.ends_with("e_score_correction_bias");
            assert!(!exact || a.data == b.data, "{}", a.name);
            assert_eq!((&a.name, a.trainable), (&b.name, b.trainable));
        }
    }
}
