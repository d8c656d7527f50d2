//! Adapters: the numbers of PEFT, supervised training of adapters alone, checkpoints that resume bit for bit, memory.

#![allow(clippy::unwrap_used)]
#![allow(clippy::single_range_in_vec_init)]

use aha_data::Example;
use aha_kernels::{AdamWConfig, Attend, Gradients, Optimizer, OptimizerConfig, Precision, Segments, Tape, linear};
use aha_model::{Adapter, Checkpoint, Decoder, LoraConfig, ModelConfig, SaveDtype, TextFiles};
use aha_train::fit::FitConfig;
use aha_train::schedule::{Schedule, ScheduleKind};
use aha_train::sft::{SftConfig, run};
use aha_train::{Observer, PackedBatch, StepReport, TrainError, state};
use safetensors::SafeTensors;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn lora(r: usize, alpha: f64, target_modules: &[&str]) -> LoraConfig {
    LoraConfig {
        r,
        alpha,
        target_modules: target_modules.iter().map(|t| (*t).to_owned()).collect(),
        use_rslora: false,
        modules_to_save: Vec::new(),
    }
}

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures")
}

fn open(path: &Path) -> Decoder {
    let checkpoint = Checkpoint::open(path).unwrap();
    Decoder::from_tensors(checkpoint.config().clone(), |n| checkpoint.read(n)).unwrap()
}

/// The models of `tools/lora_reference.py` with their settings.
fn cases() -> [(&'static str, LoraConfig); 2] {
    let llama = lora(4, 8.0, &["q_proj", "v_proj", "down_proj", "lm_head"]);
    [("llama_untied", llama), ("qwen2_tied", LoraConfig { use_rslora: true, ..lora(3, 6.0, &["all-linear"]) })]
}

fn golden(name: &str) -> (Decoder, Vec<u8>) {
    let (_, config) = cases().into_iter().find(|(n, _)| *n == name).unwrap();
    let mut d = open(&fixtures().join(name));
    d.add_adapters(&config, name, 1).unwrap();
    let folder = fixtures().join(format!("lora_{name}"));
    Adapter::open(&folder).unwrap().restore(&mut d).unwrap();
    (d, std::fs::read(folder.join("golden.safetensors")).unwrap())
}

fn floats(file: &[u8], name: &str) -> Vec<f32> {
    let tensors = SafeTensors::deserialize(file).unwrap();
    let view = tensors.tensor(name).unwrap_or_else(|_| panic!("{name}"));
    view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

fn tokens(file: &[u8]) -> Vec<Vec<u32>> {
    let tensors = SafeTensors::deserialize(file).unwrap();
    let view = tensors.tensor("tokens").unwrap();
    let all: Vec<u32> = view.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as u32).collect();
    all.chunks(*view.shape().last().unwrap()).map(<[u32]>::to_vec).collect()
}

fn close(what: &str, ours: &[f32], theirs: &[f32], tolerance: f32) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    let worst = ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < tolerance, "{what}: largest difference {worst}");
}

fn logits(d: &Decoder, sequences: &[Vec<u32>]) -> Vec<f32> {
    let segments = Arc::new(Segments::from_lengths(sequences.iter().map(Vec::len)));
    let (mut tape, positions) = (Tape::new(false), Arc::from(segments.positions()));
    let h = d.hidden(&mut tape, &sequences.concat().into(), &positions, &mut Attend::Packed(segments.clone()));
    let mut out = vec![0.0; segments.tokens() * d.config.vocab_size];
    linear::forward(&mut out, tape.value(h), d.params.weight(d.head()), false);
    out
}

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
fn logits_and_gradients_and_four_steps_equal_peft() {
    for (name, _) in cases() {
        let (mut d, file) = golden(name);
        let sequences = tokens(&file);
        close(name, &logits(&d, &sequences), &floats(&file, "logits"), 1e-4);
        let merged = open(&fixtures().join(format!("lora_{name}")));
        close("merged", &logits(&merged, &sequences), &floats(&file, "logits"), 1e-4);
        let adamw = AdamWConfig { weight_decay: 0.1, ..AdamWConfig::default() };
        let mut optimizer = Optimizer::new(adamw, &d.params);
        let mut grads = Gradients::new(&d.params);
        for (step, (loss, norm)) in floats(&file, "losses").into_iter().zip(floats(&file, "grad_norms")).enumerate() {
            grads.zero();
            let ours = loss_and_gradients(&d, &sequences, &mut grads);
            assert!((ours - f64::from(loss)).abs() < 1e-4, "{name} step {step}: {ours} {loss}");
            for (id, p) in d.params.iter().filter(|(_, p)| p.trainable && step == 0) {
                let ours = p.layout.load(grads.get(id));
                close(&p.name, &ours, &floats(&file, &format!("grad.{}", p.name)), 1e-4);
            }
            let ours = optimizer.step(&mut d.params, &grads, 1e-2);
            assert!((ours - f64::from(norm)).abs() < 1e-3, "{name} step {step}: norm {ours} {norm}");
        }
        for (_, p) in d.params.iter().filter(|(_, p)| p.trainable) {
            close(&p.name, &p.layout.load(&p.data), &floats(&file, &format!("param.{}", p.name)), 1e-3);
        }
    }
}

#[test]
fn every_adapter_has_a_gradient_and_nothing_else_does() {
    for name in ["llama_untied", "qwen2_tied", "qwen3", "deepseek_groups", "deepseek_plain"] {
        let mut d = open(&fixtures().join(name));
        d.add_adapters(&lora(2, 4.0, &["all-linear"]), name, 1).unwrap();
        let before = open(&fixtures().join(name));
        for (id, p) in before.params.iter() {
            assert!(d.params.get(id).data == p.data && !d.params.get(id).trainable, "{}", p.name);
        }
        // A fresh adapter changes no bit; B has to move before A can have a gradient.
        let sequences = tokens(&std::fs::read(fixtures().join(name).join("golden.safetensors")).unwrap());
        assert_eq!(logits(&d, &sequences), logits(&before, &sequences), "{name}");
        let ids: Vec<_> = d.params.iter().filter(|(_, p)| p.trainable).map(|(id, _)| id).collect();
        for id in &ids {
            d.params.get_mut(*id).data.iter_mut().enumerate().for_each(|(i, v)| *v += 0.01 * (i % 7) as f32 - 0.02);
        }
        let mut grads = Gradients::new(&d.params);
        loss_and_gradients(&d, &sequences, &mut grads);
        for (id, p) in d.params.iter() {
            let some = grads.get(id).iter().any(|g| *g != 0.0);
            assert_eq!(some, p.name.contains(".lora_"), "{name}: {}", p.name);
        }
    }
}

#[test]
fn what_cannot_be_adapted_is_refused_by_name() {
    let try_it = |model: &str, target: &str| {
        let mut d = open(&fixtures().join(model));
        d.add_adapters(&lora(2, 4.0, &[target]), model, 1).unwrap_err().to_string()
    };
    assert!(try_it("deepseek_plain", "kv_b_proj").contains("absorbed form"));
    assert!(try_it("qwen2_tied", "lm_head").contains("tied"));
    let unknown = try_it("llama_untied", "q_porj");
    assert!(unknown.contains("q_proj") && unknown.contains("all-linear"), "{unknown}");
}

fn model() -> Decoder {
    let config: ModelConfig = ModelConfig::from_json(
        r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 40, "hidden_size": 32,
        "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "rms_norm_eps": 1e-6, "max_position_embeddings": 64, "tie_word_embeddings": false}"#,
    )
    .unwrap();
    Decoder::init(config, 3)
}

#[derive(Default)]
struct Watch {
    losses: Vec<f64>,
    stop_after: Option<u64>,
    step: u64,
}

impl Observer for Watch {
    fn step(&mut self, report: StepReport) -> Result<(), TrainError> {
        self.step = report.step;
        self.losses.push(report.metrics.iter().find(|(name, _)| name == "loss").unwrap().1);
        Ok(())
    }

    fn stop_requested(&self) -> bool {
        self.stop_after.is_some_and(|s| self.step >= s)
    }
}

fn train(root: &Path, watch: &mut Watch, precision: Precision) -> Decoder {
    let examples: Vec<Example> = (0..4u32)
        .map(|s| Example { tokens: (0..20).map(|i| (i * i + s * 7 + i) % 40).collect(), predicted: vec![6..20] })
        .collect();
    let config = SftConfig {
        batches: vec![vec![0, 1, 2, 3]; 80],
        epochs: 80,
        fit: FitConfig {
            steps: 80,
            schedule: Schedule {
                kind: ScheduleKind::Constant,
                peak: 2e-2,
                min_ratio: 0.0,
                warmup_steps: 0,
                total_steps: 80,
                decay_steps: 0,
                tail: Default::default(),
            },
            optimizer: OptimizerConfig::default(),
            validate_every: 0,
            save_steps: 30,
            precision,
            gradient_checkpointing: false,
            bias_update_speed: 0.0,
            settings: "test".into(),
        },
    };
    let fresh = || {
        let mut d = model();
        let targets = LoraConfig { modules_to_save: vec!["lm_head".into()], ..lora(8, 16.0, &["all-linear"]) };
        d.add_adapters(&targets, "base", 7)?;
        Ok(d)
    };
    run(&config, fresh, &examples, &[], root, &TextFiles::default(), watch).unwrap().0
}

#[test]
fn adapters_learn_what_they_are_shown_and_resume_bit_for_bit() {
    for precision in [Precision::F32, Precision::Bf16, Precision::Fp8] {
        let (whole, cut) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut watch = Watch::default();
        let d = train(whole.path(), &mut watch, precision);
        assert!(watch.losses[0] > 3.0 && watch.losses[79] < 0.5, "{precision:?}: {:?}", watch.losses);
        let mut first = Watch { stop_after: Some(41), ..Watch::default() };
        train(cut.path(), &mut first, precision);
        let resumed = train(cut.path(), &mut Watch::default(), precision);
        for ((_, a), (_, b)) in d.params.iter().zip(resumed.params.iter()) {
            assert!(a.data == b.data, "{precision:?}: {}", a.name);
        }
        // The base is as it was, and a checkpoint holds the adapter alone.
        for ((_, a), (_, b)) in d.params.iter().zip(model().params.iter()) {
            assert!(a.data == b.data || b.name == "lm_head.weight", "{}", a.name);
        }
        let step = whole.path().join("step_80");
        assert!(step.join("adapter_model.safetensors").exists() && !step.join("model.safetensors").exists());
        // Opened as a model, with the base beside it, it is what the trained one merges to.
        state::save_model(&step.join("base"), &model(), SaveDtype::F32, &TextFiles::default()).unwrap();
        let merged = open(&step);
        for (id, p) in merged.params.iter() {
            assert_eq!(p.layout.load(&p.data), d.params.merged(id), "{}", p.name);
        }
    }
}
