//! Counting against what the papers publish.
#![allow(clippy::unwrap_used)]

use aha_model::cost::{Pace, Policy, Shape, cache_bytes_per_token, flops, hours, known, memory, published};

fn within(found: f64, wanted: f64, share: f64, what: &str) {
    assert!((found / wanted - 1.0).abs() <= share, "{what}: {found:.5e}, published {wanted:.5e}");
}

fn shape(name: &str) -> Shape {
    known::known(name).unwrap()
}

#[test]
fn parameters_are_those_the_models_are_known_for() {
    // Total, active: model cards and reports, in billions.
    let all = [
        ("deepseek-v3", 671.03, 37.55),
        ("deepseek-v2", 235.7, 21.4),
        ("deepseek-v2-lite", 15.7, 2.66),
        ("llama-3.1-405b", 405.85, 405.85),
        ("llama-3.1-70b", 70.55, 70.55),
        ("llama-3.1-8b", 8.03, 8.03),
        ("mixtral-8x7b", 46.7, 12.9),
        ("qwen2.5-0.5b", 0.494, 0.494),
        ("qwen2.5-7b", 7.616, 7.616),
        ("qwen2.5-32b", 32.76, 32.76),
        ("qwen3-30b-a3b", 30.53, 3.35),
    ];
    for (name, total, active) in all {
        let (t, a) = shape(name).num_parameters();
        within(t as f64, total * 1e9, 0.001, name);
        within(a as f64, active * 1e9, 0.005, name);
    }
    // To the last parameter: Meta's 8B and DeepSeek's attention layer.
    assert_eq!(shape("llama-3.1-8b").num_parameters().0, 8_030_261_248);
    let (matrices, vectors) = shape("deepseek-v3").attention_params();
    assert_eq!(matrices + vectors, 187_107_328);
    within(shape("deepseek-v3").mtp().total as f64, 11.6e9, 0.01, "multi-token prediction");
}

#[test]
fn a_config_of_the_decoder_counts_the_same_here() {
    for fixture in ["llama_tied", "llama_untied", "qwen2_tied", "qwen2_untied", "qwen3"] {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(fixture);
        let text = std::fs::read_to_string(path.join("config.json")).unwrap();
        let config = aha_model::ModelConfig::from_json(&text).unwrap();
        assert_eq!(Shape::from_json(&text).unwrap().num_parameters().0, config.num_parameters(), "{fixture}");
    }
}

#[test]
fn arithmetic_per_token_is_the_published_one() {
    // "Insights into DeepSeek-V3" (2025), table 2: training GFLOPs per token at 4K, causal.
    within(flops(&shape("deepseek-v3"), 4096).training(), 250e9, 0.02, "V3");
    within(flops(&shape("deepseek-v2"), 4096).training(), 155e9, 0.02, "V2");
    within(flops(&shape("llama-3.1-405b"), 4096).training(), 2448e9, 0.02, "405B");
    // The Llama 3 paper's budget, 3.8e25, is 6 N D.
    let six_n_d = 6.0 * shape("llama-3.1-405b").num_parameters().0 as f64 * 15.6e12;
    within(six_n_d, 3.8e25, 0.02, "405B budget");
    let with_attention = flops(&shape("llama-3.1-405b"), 8192).training() * 15.6e12;
    within(with_attention, 3.8e25, 0.04, "405B budget with attention");
}

#[test]
fn v3_hours_and_dollars() {
    let run = published("deepseek-v3").unwrap();
    let per_token = flops(&shape("deepseek-v3"), 4096).training();
    let hours: Vec<f64> = run.phases.iter().map(|p| p.pace.gpu_hours(p.tokens.unwrap_or(0.0), per_token)).collect();
    for (phase, hours) in run.phases.iter().zip(&hours) {
        within(*hours, phase.gpu_hours, 0.02, phase.name);
    }
    within(hours.iter().sum::<f64>() * run.price.unwrap(), 5.576e6, 0.02, "dollars");
    // The same hours from arithmetic alone: 38.9 % of the bf16 peak ("Insights into DeepSeek-V3", table 4).
    let mfu = Pace::Utilisation { mfu: 0.3894, peak: 989e12 };
    within(mfu.gpu_hours(14.8e12, per_token), 2664e3, 0.02, "from utilisation");
    // And backwards: what the stated hours say about utilisation, which the paper's 1M-token speed says too.
    within(hours::implied_mfu(14.8e12, per_token, 2664e3, 989e12), 0.3894, 0.02, "utilisation");
}

#[test]
fn r1_hours_and_dollars() {
    let run = published("deepseek-r1").unwrap();
    let hours: Vec<f64> = run.phases.iter().map(|p| p.pace.gpu_hours(0.0, 0.0)).collect();
    for (phase, hours) in run.phases.iter().zip(&hours) {
        within(*hours, phase.gpu_hours, 0.02, phase.name);
    }
    within(hours.iter().sum(), 147e3, 0.02, "hours");
    within(hours.iter().sum::<f64>() * run.price.unwrap(), 294e3, 0.02, "dollars");
}

#[test]
fn llama_hours_are_the_published_ones_less_what_the_speed_leaves_out() {
    let run = published("llama-3.1-405b").unwrap();
    let phase = run.phases[0];
    let budget = 3.8e25 / 15.6e12;
    let ideal = phase.pace.gpu_hours(15.6e12, budget);
    // 400 TFLOP/s and the stated budget give 26.4 M hours; the card's 30.84 M are those at 86 %: the paper reports above
    // 90 % effective time for the main phase alone.
    within(ideal, 26.4e6, 0.02, "ideal hours");
    let share = ideal / phase.gpu_hours;
    assert!((0.84..0.90).contains(&share), "{share}");
    // Utilisation of table 4 from its TFLOP/s per GPU.
    for (tflops, mfu) in [(430.0, 0.43), (400.0, 0.41), (380.0, 0.38)] {
        within(tflops / 989.4, mfu, 0.02, "utilisation");
    }
}

#[test]
fn memory_by_hand() {
    let v3 = shape("deepseek-v3");
    let [f32, bf16, lean, fp8] = Policy::ALL;
    // 61 layers of 512 + 64 values in bf16; a Llama 8B keeps 2 x 8 heads x 128 x 32 layers.
    assert_eq!(cache_bytes_per_token(&v3, &bf16), 70_272.0);
    assert_eq!(cache_bytes_per_token(&shape("llama-3.1-8b"), &bf16), 131_072.0);
    let llama = shape("llama-3.1-8b");
    let m = memory::training(&llama, &f32, 0, false);
    assert_eq!((m.total(), m.activations), (16.0 * 8_030_261_248.0, 0.0));
    assert_eq!(memory::training(&llama, &bf16, 0, false).total(), 18.0 * 8_030_261_248.0);
    // Two bytes each for weights, gradients and moments, and a 32nd for the scales of those.
    assert_eq!(memory::training(&llama, &lean, 0, false).total(), 6.03125 * 8_030_261_248.0);
    // V3's moments in bf16 save a quarter of f32's sixteen bytes and the FP8 copy costs one.
    let n = (v3.num_parameters().0 + v3.mtp().total) as f64;
    assert_eq!(memory::training(&v3, &fp8, 0, false).total(), 13.0 * n);
    // Per token and layer: 4 x 4096 + (2 x 32 + 2 x 8) x 128 + 3 x 14336 = 69,632 values.
    assert_eq!(memory::training(&llama, &bf16, 1, false).activations, 2.0 * 32.0 * 69_632.0);
    assert_eq!(memory::training(&llama, &bf16, 1, true).activations, 2.0 * (32.0 * 4096.0 + 69_632.0));
}

#[test]
fn wrong_configs_name_the_key() {
    let message = |text: &str| Shape::from_json(text).unwrap_err().to_string();
    assert!(message("[").contains("not a JSON object"));
    assert!(message(r#"{"model_type":"llama"}"#).contains("hidden_size is missing"));
    assert!(message(r#"{"hidden_size":0}"#).contains("hidden_size is 0"));
    assert!(message(r#"{"hidden_size":-1}"#).contains("hidden_size is -1"));
    let base = r#""hidden_size":8,"num_attention_heads":2,"num_hidden_layers":1,"vocab_size":9,"intermediate_size":4"#;
    assert!(message(&format!(r#"{{"model_type":"gpt2",{base}}}"#)).contains("gpt2"));
    assert!(message(&format!(r#"{{"model_type":"deepseek_v3",{base}}}"#)).contains("kv_lora_rank"));
    let moe = r#""num_local_experts":2,"num_experts_per_tok":3"#;
    assert!(message(&format!(r#"{{"model_type":"mixtral",{base},{moe}}}"#)).contains("more than the 2 experts"));
}
