//! Memory of a step that trains adapters, against one that trains everything. One test, alone in its process, because it reads
//! the process's own numbers.

use aha_kernels::{AdamWConfig, Optimizer, Precision};
use aha_model::{Decoder, LoraConfig, ModelConfig};
use aha_train::lanes::Lanes;
use aha_train::sft::step;

/// The most memory this process ever had, in MiB; `None` where it cannot be read.
fn peak() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find(|l| l.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<f64>().ok().map(|kib| kib / 1024.0)
}

#[test]
fn adapters_need_no_gradients_and_moments_of_the_base() {
    let Some(_) = peak() else {
        println!("skipped: this system has no /proc/self/status");
        return;
    };
    let config = r#"{"model_type": "llama", "vocab_size": 1000, "hidden_size": 512, "intermediate_size": 2048,
        "num_hidden_layers": 7, "num_attention_heads": 8, "num_key_value_heads": 8, "max_position_embeddings": 256,
        "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "hidden_act": "silu"}"#;
    let mut model = Decoder::init(ModelConfig::from_json(config).expect("valid"), 1);
    model.params.set_precision(Precision::Bf16, true);
    let weights = model.bytes() as f64 / f64::from(1 << 20);
    let tokens = (0..64).collect();
    let example = aha_data::Example { tokens, predicted: std::iter::once(1..64).collect() };
    let grown = |model: &mut Decoder| {
        let before = peak().expect("read above");
        let mut optimizer = Optimizer::new(AdamWConfig::default(), &model.params);
        let mut lanes = Lanes::new(&model.params, false);
        let (loss, norm) = step(model, &mut optimizer, &mut lanes, &[&example], 1e-4, 0.0);
        assert!(loss.is_finite() && norm > 0.0);
        peak().expect("read above") - before
    };
    let mut adapted = model.clone();
    let lora = LoraConfig {
        r: 8,
        alpha: 16.0,
        target_modules: vec!["all-linear".into()],
        use_rslora: false,
        modules_to_save: Vec::new(),
    };
    adapted.add_adapters(&lora, "base", 1).expect("fits");
    // The clone shares the base, so neither is it there twice.
    let with_adapters = grown(&mut adapted);
    drop(adapted);
    let whole = grown(&mut model);
    assert!(whole > 2.5 * weights, "a gradient and two moments per weight: {whole:.0} of {weights:.0} MiB");
    assert!(with_adapters < 0.4 * weights, "{with_adapters:.0} of {weights:.0} MiB; all: {whole:.0}");
}
