//! The GRPO loop on a tiny model: what must hold exactly.

use aha_data::corpus::{CorpusConfig, document};
use aha_engine::{EngineConfig, SamplingParams};
use aha_kernels::{AdamWConfig, GradientType, MasterWeights, MomentType, OptimizerConfig, Precision};
use aha_model::{Decoder, LoraConfig, ModelConfig, TextFiles, Tokenizer};
use aha_tasks::mini::{Family, MiniTask};
use aha_tasks::{JudgeOptions, PromptStyle, Prompter, RewardKind, RewardSpec};
use aha_train::advantage::AdvantageConfig;
use aha_train::grpo::{Grpo, GrpoConfig};
use aha_train::policy_loss::{LossType, PolicyLossConfig};
use aha_train::schedule::{Schedule, ScheduleKind};
use aha_train::{Observer, StepReport, TrainError};
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

fn tokenizer() -> Arc<Tokenizer> {
    static TOKENIZER: OnceLock<Arc<Tokenizer>> = OnceLock::new();
    let make = || {
        let config = CorpusConfig::default();
        let texts = (0..500).map(|i| {
            let d = document(&config, i);
            d.prompt + &d.body
        });
        let json = aha_data::train_tokenizer(texts, 400).expect("trains");
        Arc::new(Tokenizer::from_bytes(json.as_bytes()).expect("loads"))
    };
    TOKENIZER.get_or_init(make).clone()
}

fn model() -> Decoder {
    let t = tokenizer();
    let config = format!(
        r#"{{"model_type": "llama", "vocab_size": {}, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128, "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0, "hidden_act": "silu", "initializer_range": 0.1}}"#,
        t.vocab_size()
    );
    Decoder::init(ModelConfig::from_json(&config).expect("valid"), 3)
}

/// Latents, experts, a module that drafts.
fn deepseek() -> Decoder {
    let config = format!(
        r#"{{"model_type": "deepseek_v3", "vocab_size": {}, "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": 2, "num_attention_heads": 2, "kv_lora_rank": 16, "q_lora_rank": null, "qk_nope_head_dim": 16,
        "qk_rope_head_dim": 8, "v_head_dim": 16, "first_k_dense_replace": 1, "moe_intermediate_size": 24,
        "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2, "n_group": 2, "topk_group": 2,
        "routed_scaling_factor": 1.5, "num_nextn_predict_layers": 1, "max_position_embeddings": 128, "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0, "initializer_range": 0.1}}"#,
        tokenizer().vocab_size()
    );
    Decoder::init(ModelConfig::from_json(&config).expect("valid"), 3)
}

fn config() -> GrpoConfig {
    GrpoConfig {
        precision: Precision::F32,
        gradient_checkpointing: false,
        steps: 6,
        num_prompts: 4,
        num_generations: 4,
        steps_per_generation: 1,
        num_iterations: 1,
        sampling: SamplingParams { max_new_tokens: 24, ..SamplingParams::default() },
        schedule: Schedule {
            kind: ScheduleKind::Constant,
            peak: 1e-3,
            min_ratio: 0.0,
            warmup_steps: 0,
            total_steps: 6,
            decay_steps: 0,
            tail: Default::default(),
        },
        optimizer: AdamWConfig::default().into(),
        loss: PolicyLossConfig {
            loss_type: LossType::Grpo,
            beta: 0.01,
            epsilon: 0.2,
            epsilon_high: 0.2,
            dual_clip: None,
            max_completion_length: 24,
        },
        advantage: AdvantageConfig::default(),
        rewards: [RewardKind::TagCount, RewardKind::Accuracy].map(|kind| RewardSpec::new(kind, 1.0).into()).to_vec(),
        mask_truncated_completions: false,
        // Lengths give every group different rewards, so that there is something to learn from.
        overlong: Some((20, 1.0)),
        ref_refresh_steps: 3,
        share_prompts: true,
        micro_batch_tokens: 4096,
        engine: EngineConfig::default(),
        save_steps: 2,
        eval_steps: 0,
        seed: 5,
        bias_update_speed: 0.0,
        settings: "test".into(),
    }
}

/// Keeps the metrics; asks to stop after a step.
#[derive(Default)]
struct Watch {
    metrics: Vec<HashMap<String, f64>>,
    rollouts: Vec<usize>,
    stop_after: Option<u64>,
    step: u64,
}

impl Observer for Watch {
    fn step(&mut self, report: StepReport) -> Result<(), TrainError> {
        self.step = report.step;
        self.rollouts.push(report.rollouts.len());
        self.metrics.push(report.metrics.into_iter().collect());
        Ok(())
    }

    fn stop_requested(&self) -> bool {
        self.stop_after.is_some_and(|s| self.step >= s)
    }
}

fn train(config: &GrpoConfig, folder: &Path, watch: &mut Watch) -> Decoder {
    train_from(model, config, folder, watch)
}

fn train_from(model: fn() -> Decoder, config: &GrpoConfig, folder: &Path, watch: &mut Watch) -> Decoder {
    let tokenizer = tokenizer();
    let eos = tokenizer.token_to_id("<|end|>").expect("there");
    let prompter = Prompter::new(tokenizer, PromptStyle::Mini, None, None, None, vec![eos]).expect("valid");
    let task = MiniTask::new("chain", 1, vec![Family::Chain], 0.0, JudgeOptions::default());
    let text = TextFiles::default();
    let grpo = Grpo { config, task: &task, later: None, prompter: &prompter, text: &text };
    grpo.run(|| Ok(model()), None, folder, watch).expect("runs").0
}

fn adapted(mut d: Decoder, r: usize) -> Decoder {
    let lora = LoraConfig {
        r,
        alpha: 16.0,
        target_modules: vec!["all-linear".into()],
        use_rslora: false,
        modules_to_save: Vec::new(),
    };
    d.add_adapters(&lora, "base", 9).expect("fits");
    d
}

fn bits(d: &Decoder) -> Vec<u32> {
    d.params.iter().flat_map(|(_, p)| p.all().iter().map(|v| v.to_bits()).collect::<Vec<_>>()).collect()
}

#[test]
fn first_ratios_are_one_and_sampler_equals_trainer() {
    for precision in [Precision::F32, Precision::Bf16, Precision::Fp8] {
        let folder = tempfile::tempdir().unwrap();
        let mut watch = Watch::default();
        train(&GrpoConfig { precision, ..config() }, folder.path(), &mut watch);
        assert_eq!(watch.metrics.len(), 6);
        for m in &watch.metrics {
            assert_eq!((m["ratio/min"], m["ratio/max"], m["sampling/sampling_logp_difference/max"]), (1.0, 1.0, 0.0));
            assert_eq!(m["clip_ratio/region_mean"], 0.0);
            assert!(m["grad_norm"] > 0.0 && m["entropy"] > 0.0 && m["kl"] >= 0.0);
        }
    }
}

#[test]
fn first_ratios_are_one_with_experts_latents_and_drafts_too() {
    let plain = [Precision::F32, Precision::Bf16, Precision::Fp8].map(|precision| (precision, false));
    for (precision, speculative) in plain.into_iter().chain([(Precision::Bf16, true)]) {
        let folder = tempfile::tempdir().unwrap();
        let mut watch = Watch::default();
        let engine = EngineConfig { speculative, ..EngineConfig::default() };
        let c = GrpoConfig { precision, engine, bias_update_speed: 1e-2, ..config() };
        train_from(deepseek, &c, folder.path(), &mut watch);
        for m in &watch.metrics {
            assert_eq!((m["ratio/min"], m["ratio/max"], m["sampling/sampling_logp_difference/max"]), (1.0, 1.0, 0.0));
            assert!(m["grad_norm"] > 0.0 && m["moe/max_violation"] >= 0.0 && m["moe/coldest_expert"] <= 1.0);
            assert_eq!(m.contains_key("speculative/acceptance"), speculative);
        }
    }
}

#[test]
fn experts_change_no_bit_with_checkpointing_threads_or_a_resume() {
    let c = GrpoConfig { precision: Precision::Bf16, bias_update_speed: 1e-2, micro_batch_tokens: 150, ..config() };
    let run = |gradient_checkpointing, threads| {
        let folder = tempfile::tempdir().unwrap();
        let c = GrpoConfig { gradient_checkpointing, ..c.clone() };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| bits(&train_from(deepseek, &c, folder.path(), &mut Watch::default())))
    };
    let want = run(false, 1);
    assert!(run(true, 2) == want && run(false, 3) == want);
    let folder = tempfile::tempdir().unwrap();
    let mut watch = Watch { stop_after: Some(3), ..Watch::default() };
    train_from(deepseek, &c, folder.path(), &mut watch);
    let resumed = train_from(deepseek, &c, folder.path(), &mut Watch::default());
    assert!(bits(&resumed) == want, "biases of routers are part of a checkpoint");
    assert!(
        resumed
            .params
            .iter()
            .any(|(_, p)| p.name.ends_with("e_score_correction_bias") && p.data.iter().any(|b| *b != 0.0))
    );
}

#[test]
fn gradient_checkpointing_changes_no_bit() {
    for precision in [Precision::F32, Precision::Bf16, Precision::Fp8] {
        let run = |gradient_checkpointing| {
            let folder = tempfile::tempdir().unwrap();
            let c = GrpoConfig { precision, gradient_checkpointing, steps: 3, ..config() };
            bits(&train(&c, folder.path(), &mut Watch::default()))
        };
        assert!(run(true) == run(false), "{precision:?}");
    }
}

#[test]
fn weights_do_not_depend_on_the_number_of_threads() {
    for precision in [Precision::F32, Precision::Bf16, Precision::Fp8] {
        let c = GrpoConfig { precision, micro_batch_tokens: 150, steps: 3, ..config() };
        let run = |threads| {
            let folder = tempfile::tempdir().unwrap();
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| bits(&train(&c, folder.path(), &mut Watch::default())))
        };
        let one = run(1);
        assert!([2, 3, 7].iter().all(|threads| run(*threads) == one), "{precision:?}");
    }
}

#[test]
fn kl_starts_at_zero_grows_and_is_zero_again_when_the_reference_is_refreshed() {
    let folder = tempfile::tempdir().unwrap();
    let mut watch = Watch::default();
    train(&config(), folder.path(), &mut watch);
    let kl: Vec<f64> = watch.metrics.iter().map(|m| m["kl"]).collect();
    assert_eq!((kl[0], kl[3]), (0.0, 0.0), "{kl:?}");
    assert!([1, 2, 4, 5].iter().all(|i| kl[*i] > 0.0), "{kl:?}");
}

#[test]
fn micro_batches_and_shared_prompts_change_nothing_but_rounding() {
    let run = |tokens, share_prompts| {
        let folder = tempfile::tempdir().unwrap();
        let mut watch = Watch::default();
        let c = GrpoConfig { micro_batch_tokens: tokens, share_prompts, steps: 1, ..config() };
        train(&c, folder.path(), &mut watch);
        watch.metrics.remove(0)
    };
    let whole = run(100_000, false);
    for (tokens, share_prompts) in [(1, true), (120, true), (120, false), (333, true), (333, false), (100_000, true)] {
        let split = run(tokens, share_prompts);
        for name in ["loss", "grad_norm", "kl", "entropy"] {
            let apart = (whole[name] - split[name]).abs();
            assert!(apart < 1e-5 * (1.0 + whole[name].abs()), "{name} at {tokens}, shared: {share_prompts}");
        }
    }
}

#[test]
fn equal_rewards_teach_nothing_but_kl() {
    let folder = tempfile::tempdir().unwrap();
    let mut c = config();
    c.overlong = None;
    c.rewards = vec![RewardSpec::new(RewardKind::Format, 1.0).into()];
    c.loss.beta = 0.0;
    let mut watch = Watch::default();
    let trained = train(&c, folder.path(), &mut watch);
    for m in &watch.metrics {
        assert_eq!((m["frac_reward_zero_std"], m["grad_norm"]), (1.0, 0.0));
    }
    assert_eq!(bits(&trained), bits(&model()));
    // With a reference that has moved away the KL term alone gives a gradient.
    let folder = tempfile::tempdir().unwrap();
    let mut c = config();
    c.ref_refresh_steps = 0;
    let mut watch = Watch::default();
    train(&c, folder.path(), &mut watch);
    assert!(watch.metrics[5]["kl_loss"] > 0.0);
}

#[test]
fn a_stopped_and_resumed_training_has_the_bits_of_an_uninterrupted_one() {
    let (whole, split) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut all = Watch::default();
    let want = train(&config(), whole.path(), &mut all);
    let mut metrics = Vec::new();
    for stop_after in [Some(1), Some(4), None] {
        let mut watch = Watch { stop_after, ..Watch::default() };
        let got = train(&config(), split.path(), &mut watch);
        metrics.extend(watch.metrics);
        if stop_after.is_none() {
            assert_eq!(bits(&got), bits(&want));
        }
    }
    assert_eq!(metrics, all.metrics);
    // Other settings do not resume from these checkpoints.
    let mut watch = Watch::default();
    train(&GrpoConfig { settings: "other".into(), ..config() }, split.path(), &mut watch);
    assert_eq!(watch.metrics.len(), 6);
}

#[test]
fn with_little_memory_bits_do_not_depend_on_threads_or_a_resume_either() {
    let optimizer = |master| OptimizerConfig {
        moments: MomentType::EightBit,
        gradients: GradientType::Bf16,
        master,
        ..AdamWConfig::default().into()
    };
    let (split, bf16) = (MasterWeights::Split, MasterWeights::Bf16);
    let adapters = || adapted(model(), 5);
    let cases: [(fn() -> Decoder, MasterWeights); 6] =
        [(model, split), (deepseek, split), (adapters, split), (model, bf16), (deepseek, bf16), (adapters, bf16)];
    for (model, master) in cases {
        let optimizer = optimizer(master);
        let c = GrpoConfig { precision: Precision::Bf16, optimizer, micro_batch_tokens: 150, ..config() };
        let run = |gradient_checkpointing, threads| {
            let folder = tempfile::tempdir().unwrap();
            let c = GrpoConfig { gradient_checkpointing, ..c.clone() };
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let mut watch = Watch::default();
            let trained = pool.install(|| bits(&train_from(model, &c, folder.path(), &mut watch)));
            for m in &watch.metrics {
                assert_eq!(
                    (m["ratio/min"], m["ratio/max"], m["sampling/sampling_logp_difference/max"]),
                    (1.0, 1.0, 0.0)
                );
            }
            // The reference is the policy of the beginning, then that of the third step.
            assert!(watch.metrics[0]["kl"] == 0.0 && watch.metrics[3]["kl"] == 0.0 && watch.metrics[5]["kl"] > 0.0);
            (trained, watch.metrics[5]["loss"])
        };
        let want = run(false, 1);
        assert!(run(true, 2) == want && run(false, 3) == want);
        let folder = tempfile::tempdir().unwrap();
        train_from(model, &c, folder.path(), &mut Watch { stop_after: Some(5), ..Watch::default() });
        let mut watch = Watch::default();
        let resumed = train_from(model, &c, folder.path(), &mut watch);
        assert!(bits(&resumed) == want.0 && watch.metrics.last().unwrap()["loss"] == want.1);
    }
}

#[test]
fn a_generation_can_serve_several_steps_and_iterations() {
    let folder = tempfile::tempdir().unwrap();
    let mut watch = Watch::default();
    let c = GrpoConfig { steps_per_generation: 2, num_iterations: 2, steps: 6, ..config() };
    train(&c, folder.path(), &mut watch);
    // Two generations: 8 problems x 4 samples each, sampled at steps 1 and 5; the first window of each is on policy.
    assert_eq!(watch.rollouts, [32, 0, 0, 0, 32, 0]);
    for (i, m) in watch.metrics.iter().enumerate() {
        let on_policy = m["ratio/min"] == 1.0 && m["ratio/max"] == 1.0;
        assert_eq!(on_policy, i % 4 == 0, "step {}", i + 1);
    }
}

#[test]
fn adapters_sample_as_they_train_and_resume_bit_for_bit() {
    let models: [fn() -> Decoder; 2] = [|| adapted(model(), 4), || adapted(deepseek(), 4)];
    for (model, precision) in [(models[0], Precision::F32), (models[0], Precision::Bf16), (models[1], Precision::Bf16)]
    {
        let schedule = Schedule { peak: 1e-2, ..config().schedule };
        let c = GrpoConfig { precision, schedule, steps: 8, ..config() };
        let (whole, cut) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut watch = Watch::default();
        let trained = train_from(model, &c, whole.path(), &mut watch);
        for m in &watch.metrics {
            assert_eq!((m["ratio/min"], m["ratio/max"], m["sampling/sampling_logp_difference/max"]), (1.0, 1.0, 0.0));
        }
        // The first reference is the base, to which a fresh adapter adds nothing; then the policy moves away from it.
        assert_eq!(watch.metrics[0]["kl"], 0.0);
        assert!(watch.metrics[2]["kl"] > 0.0, "the adapter learns nothing");
        // A refresh after three steps brings it back.
        assert_eq!(watch.metrics[3]["kl"], 0.0);
        for ((_, a), (_, b)) in trained.params.iter().zip(model().params.iter()) {
            let moved = a.data != b.data;
            assert!(moved == b.trainable, "{} {}", a.name, if moved { "moved" } else { "did not move" });
        }
        // Stopped after a refresh, so that the reference is neither the base nor the policy.
        let mut first = Watch { stop_after: Some(5), ..Watch::default() };
        train_from(model, &c, cut.path(), &mut first);
        let resumed = train_from(model, &c, cut.path(), &mut Watch::default());
        assert!(bits(&resumed) == bits(&trained), "{precision:?}");
        assert!(!cut.path().join("step_8/model.safetensors").exists());
    }
}
