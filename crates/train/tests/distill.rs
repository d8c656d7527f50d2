//! Distillation on tiny models: a student learns its teacher's distribution, on given texts and on its own; with alpha 1 it
//! is supervised fine-tuning; an interrupted training and an interrupted teacher end with the same bits.

#![allow(clippy::unwrap_used)]
// A list of one range is meant here: the predicted part of an example.
#![allow(clippy::single_range_in_vec_init)]

use aha_data::corpus::{CorpusConfig, document};
use aha_data::{Example, TopKHeader, TopKStore, TopKWriter};
use aha_engine::{EngineConfig, SamplingParams};
use aha_kernels::{AdamWConfig, Ask, Divergence, Precision};
use aha_model::{Decoder, ModelConfig, TextFiles, Tokenizer};
use aha_tasks::mini::{Family, MiniTask};
use aha_tasks::{JudgeOptions, PromptStyle, Prompter};
use aha_train::distill::{DistillConfig, DistillLoss, OnPolicy, OnPolicyConfig, Taught, run, teach};
use aha_train::fit::FitConfig;
use aha_train::schedule::{Schedule, ScheduleKind};
use aha_train::sft::{self, SftConfig, batches};
use aha_train::{Observer, StepReport, TrainError};
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

fn tokenizer() -> Arc<Tokenizer> {
    static TOKENIZER: OnceLock<Arc<Tokenizer>> = OnceLock::new();
    let make = || {
        let config = CorpusConfig::default();
        let texts = (0..300).map(|i| {
            let d = document(&config, i);
            d.prompt + &d.body
        });
        let json = aha_data::train_tokenizer(texts, 400).expect("trains");
        Arc::new(Tokenizer::from_bytes(json.as_bytes()).expect("loads"))
    };
    TOKENIZER.get_or_init(make).clone()
}

/// Weights of a larger range make a distribution that is far from even.
fn model(vocab: usize, range: f64, seed: u64) -> Decoder {
    let config = format!(
        r#"{{"model_type": "llama", "vocab_size": {vocab}, "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
        "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "hidden_act": "silu", "initializer_range": {range}}}"#
    );
    Decoder::init(ModelConfig::from_json(&config).expect("valid"), seed)
}

const VOCAB: usize = 40;

fn teacher() -> Decoder {
    model(VOCAB, 0.5, 3)
}

fn student() -> Decoder {
    model(VOCAB, 0.05, 4)
}

fn examples(from: u32, count: u32) -> Vec<Example> {
    let example = |seed: u32| {
        let tokens = (0..20 + seed % 7).map(|i| (i * i * 3 + seed * 7 + i * seed) % VOCAB as u32).collect::<Vec<_>>();
        let end = tokens.len();
        Example { tokens, predicted: vec![4..9, 11..end] }
    };
    (from..from + count).map(example).collect()
}

fn fit(steps: u64, peak: f64) -> FitConfig {
    let schedule = Schedule {
        kind: ScheduleKind::Constant,
        peak,
        min_ratio: 0.0,
        warmup_steps: 0,
        total_steps: steps,
        decay_steps: 0,
        tail: Default::default(),
    };
    FitConfig {
        steps,
        schedule,
        optimizer: AdamWConfig { weight_decay: 0.0, ..AdamWConfig::default() }.into(),
        validate_every: 0,
        save_steps: 2,
        precision: Precision::F32,
        gradient_checkpointing: false,
        bias_update_speed: 0.0,
        settings: "test".into(),
    }
}

/// Keeps the metrics; asks to stop after a step.
#[derive(Default)]
struct Watch {
    metrics: Vec<HashMap<String, f64>>,
    rollouts: usize,
    stop_after: Option<u64>,
    step: u64,
}

impl Watch {
    fn all(&self, name: &str) -> Vec<f64> {
        self.metrics.iter().filter_map(|m| m.get(name).copied()).collect()
    }
}

impl Observer for Watch {
    fn step(&mut self, report: StepReport) -> Result<(), TrainError> {
        self.step = report.step;
        self.rollouts += report.rollouts.len();
        self.metrics.push(report.metrics.into_iter().collect());
        Ok(())
    }

    fn stop_requested(&self) -> bool {
        self.stop_after.is_some_and(|s| self.step >= s)
    }
}

const ASK: Ask = Ask { k: 12, temperature: 1.0, vocab: VOCAB };

fn header(examples: &[&Example], ask: Ask) -> TopKHeader {
    let rows = examples.iter().map(|e| e.targets() as u64).sum();
    TopKHeader { k: ask.k, vocab: VOCAB, rows, temperature: ask.temperature, of: "test".into() }
}

fn taught(folder: &Path, examples: &[&Example], ask: Ask) -> TopKStore {
    let path = folder.join("teacher.topk");
    let mut writer = TopKWriter::open(&path, &header(examples, ask)).unwrap();
    assert!(teach(&teacher(), examples, ask, &mut writer, &|| false).unwrap());
    writer.finish().unwrap();
    TopKStore::open(&path).unwrap()
}

/// Distils on texts; the student and what was reported.
fn distil(loss: DistillLoss, epochs: u64, stop_after: &[u64]) -> (Decoder, Watch) {
    let folder = tempfile::tempdir().unwrap();
    let (train, held) = (examples(0, 24), examples(500, 4));
    let all: Vec<&Example> = train.iter().chain(&held).collect();
    let store = taught(folder.path(), &all, Ask { temperature: loss.temperature, ..ASK });
    let lengths: Vec<usize> = train.iter().map(|e| e.tokens.len()).collect();
    let batches = batches(&lengths, 200, epochs, 1);
    let fit = fit(batches.len() as u64, 1e-2);
    let config = DistillConfig { sft: SftConfig { batches, epochs, fit }, loss };
    let data = Taught { examples: &train, validation: &held, teacher: &store };
    let mut watch = Watch::default();
    for stop in stop_after.iter().map(|s| Some(*s)).chain([None]) {
        watch.stop_after = stop;
        let checkpoints = folder.path().join("checkpoints");
        let (model, finished) =
            run(&config, || Ok(student()), &data, &checkpoints, &TextFiles::default(), &mut watch).unwrap();
        if finished {
            return (model, watch);
        }
    }
    panic!("never finished")
}

const FORWARD: DistillLoss = DistillLoss { divergence: Divergence::Forward, temperature: 1.0, alpha: 0.0 };

fn assert_same(a: &Decoder, b: &Decoder) {
    for ((_, p), (_, q)) in a.params.iter().zip(b.params.iter()) {
        assert_eq!(p.data, q.data, "{}", p.name);
    }
}

#[test]
fn a_student_learns_its_teachers_distribution() {
    // What the student does not say yet has little weight where its own probabilities are the weights: it takes longer.
    for (divergence, temperature, epochs) in [
        (Divergence::Forward, 1.0, 40),
        (Divergence::Reverse, 1.0, 120),
        (Divergence::JensenShannon { beta: 0.5 }, 1.0, 120),
        (Divergence::Forward, 2.0, 40),
    ] {
        let (_, watch) = distil(DistillLoss { divergence, temperature, alpha: 0.0 }, epochs, &[]);
        let kl = watch.all("loss/kl");
        let (first, last) = (kl[0], kl[kl.len() - 1]);
        assert!(first > 0.1 && last < first / 10.0, "{divergence:?} at {temperature}: {first} to {last}");
        assert!(watch.all("loss")[0] - kl[0] * f64::from(temperature).powi(2) < 1e-9);
        let mass = watch.all("teacher/top_k_mass")[0];
        assert!(mass > 0.5 && mass < 1.0, "{mass}");
        assert!(watch.all("eval_kl")[0] > 0.0 && watch.all("eval_loss")[0] > 0.0);
    }
}

#[test]
fn with_alpha_one_it_is_supervised_fine_tuning() {
    let (distilled, watch) = distil(DistillLoss { alpha: 1.0, ..FORWARD }, 2, &[]);
    let train = examples(0, 24);
    let lengths: Vec<usize> = train.iter().map(|e| e.tokens.len()).collect();
    let batches = batches(&lengths, 200, 2, 1);
    let fit = fit(batches.len() as u64, 1e-2);
    let config = SftConfig { batches, epochs: 2, fit };
    let folder = tempfile::tempdir().unwrap();
    let mut plain = Watch::default();
    let (tuned, _) = sft::run(
        &config,
        || Ok(student()),
        &train,
        &examples(500, 4),
        folder.path(),
        &TextFiles::default(),
        &mut plain,
    )
    .unwrap();
    for (a, b) in watch.all("loss").iter().zip(plain.all("loss")) {
        assert!((a - b).abs() < 1e-5 * b, "{a} {b}");
    }
    assert!((watch.all("eval_loss")[0] - plain.all("eval_loss")[0]).abs() < 1e-4);
    for ((_, p), (_, q)) in distilled.params.iter().zip(tuned.params.iter()) {
        let apart = p.data.iter().zip(q.data.iter()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(apart < 1e-3, "{}: {apart}", p.name);
    }
}

#[test]
fn interrupted_training_ends_the_same() {
    let loss = DistillLoss { alpha: 0.3, temperature: 1.5, ..FORWARD };
    let (whole, a) = distil(loss, 3, &[]);
    let (parts, b) = distil(loss, 3, &[1, 4]);
    assert_same(&whole, &parts);
    assert_eq!(a.metrics, b.metrics);
}

#[test]
fn an_interrupted_teacher_writes_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let all = examples(0, 300);
    let all: Vec<&Example> = all.iter().collect();
    taught(folder.path(), &all, ASK);
    let path = folder.path().join("teacher.topk");
    let whole = std::fs::read(&path).unwrap();
    // Killed in the middle of a block, which begins in the middle of an example.
    std::fs::write(path.with_extension("part"), &whole[..whole.len() * 2 / 3]).unwrap();
    let mut writer = TopKWriter::open(&path, &header(&all, ASK)).unwrap();
    assert!(writer.rows() > 0 && writer.rows() < 5000);
    assert!(!teach(&teacher(), &all, ASK, &mut writer, &|| true).unwrap(), "stopped at once");
    assert!(teach(&teacher(), &all, ASK, &mut writer, &|| false).unwrap());
    writer.finish().unwrap();
    assert!(std::fs::read(&path).unwrap() == whole);
}

/// On-policy distillation of a student from a teacher over the miniature task's tokens.
fn on_policy(steps: u64, stop_after: &[u64]) -> (Decoder, Watch) {
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = tokenizer();
    let vocab = tokenizer.vocab_size();
    let eos = tokenizer.token_to_id("<|end|>").expect("there");
    let prompter = Prompter::new(tokenizer, PromptStyle::Mini, None, None, None, vec![eos]).expect("valid");
    let task = MiniTask::new("chain", 1, vec![Family::Chain], 0.0, JudgeOptions::default());
    let teacher = model(vocab, 0.4, 3);
    let config = OnPolicyConfig {
        fit: FitConfig { validate_every: 5, ..fit(steps, 3e-3) },
        loss: DistillLoss { divergence: Divergence::Reverse, ..FORWARD },
        top_k: 64,
        num_prompts: 6,
        num_generations: 2,
        validation_problems: 4,
        sampling: SamplingParams { max_new_tokens: 24, ..SamplingParams::default() },
        engine: EngineConfig::default(),
        seed: 5,
    };
    let mut watch = Watch::default();
    for stop in stop_after.iter().map(|s| Some(*s)).chain([None]) {
        watch.stop_after = stop;
        let trainer = OnPolicy { config: &config, teacher: &teacher, task: &task, prompter: &prompter };
        // The same weights but smaller ones: near enough to its teacher to learn it from few texts.
        let fresh = || Ok(model(vocab, 0.2, 3));
        let (model, finished) = trainer.run(fresh, folder.path(), &TextFiles::default(), &mut watch).unwrap();
        if finished {
            return (model, watch);
        }
    }
    panic!("never finished")
}

#[test]
fn on_its_own_texts_a_student_comes_to_its_teacher() {
    let (_, watch) = on_policy(80, &[]);
    let kl = watch.all("loss/kl");
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    let (first, last) = (mean(&kl[..3]), mean(&kl[77..]));
    assert!(first > 0.2 && last < 0.5 * first, "{first} to {last}");
    assert_eq!(watch.rollouts, 80 * 12);
    assert!(watch.all("accuracy").iter().all(|a| (0.0..=1.0).contains(a)));
    // What is held out comes nearer, too; the same problems and draws every time.
    let kl = watch.all("eval_kl");
    let last = kl[kl.len() - 1];
    assert!(kl.len() > 1 && last > 0.0 && last < 0.8 * kl[0], "{kl:?}");
    assert!(watch.all("eval_completions/mean_length").iter().all(|n| *n > 0.0 && *n <= 24.0));
}

#[test]
fn interrupted_on_policy_distillation_ends_the_same() {
    let (whole, a) = on_policy(7, &[]);
    let (parts, b) = on_policy(7, &[1, 4]);
    assert_same(&whole, &parts);
    assert_eq!(a.metrics, b.metrics);
}
