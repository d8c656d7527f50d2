//! `config.json`: round trips, both generations of keys, refusals, sizes and rotary frequencies.

use aha_model::{Arch, ModelConfig, RopeScaling};
use serde_json::{Value, json};

use crate::support::tiny;

fn qwen25() -> Value {
    json!({
        "model_type": "qwen2", "vocab_size": 151936, "hidden_size": 896, "intermediate_size": 4864,
        "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2,
        "hidden_act": "silu", "max_position_embeddings": 32768, "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0, "sliding_window": 32768, "use_sliding_window": false,
        "max_window_layers": 24, "tie_word_embeddings": true, "torch_dtype": "bfloat16",
        "bos_token_id": 151643, "eos_token_id": [151645, 151643],
    })
}

fn parse(value: &Value) -> Result<ModelConfig, String> {
    ModelConfig::from_json(&value.to_string()).map_err(|e| e.to_string())
}

/// Sets one key of the Qwen2.5 config and expects an error that mentions all of `words`.
fn refused(key: &str, value: Value, words: &[&str]) {
    let mut root = qwen25();
    root[key] = value;
    let message = parse(&root).expect_err(key);
    for word in words {
        assert!(message.contains(word), "{key}: {message:?} lacks {word:?}");
    }
}

#[test]
fn reads_qwen25_and_counts_its_parameters() {
    let config = parse(&qwen25()).unwrap();
    assert_eq!(config.arch, Arch::Qwen2);
    assert_eq!(config.head_dim, 64);
    assert!(config.attention_bias && !config.attention_out_bias && !config.qk_norm);
    assert_eq!(config.eos_token_ids, [151645, 151643]);
    assert_eq!(config.num_parameters(), 494_032_768);
    assert!(!config.tensors().iter().any(|t| t.name == "lm_head.weight"));
}

#[test]
fn published_parameter_counts() {
    let llama = json!({
        "model_type": "llama", "vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192,
        "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64,
        "tie_word_embeddings": true, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
        "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
            "original_max_position_embeddings": 8192, "rope_type": "llama3"},
        "max_position_embeddings": 131072,
    });
    assert_eq!(parse(&llama).unwrap().num_parameters(), 1_235_814_400);
    let qwen3 = json!({
        "model_type": "qwen3", "vocab_size": 151936, "hidden_size": 1024, "intermediate_size": 3072,
        "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
        "tie_word_embeddings": true, "rope_theta": 1000000, "attention_bias": false,
    });
    let qwen3 = parse(&qwen3).unwrap();
    assert_eq!(qwen3.num_parameters(), 596_049_920);
    assert!(qwen3.qk_norm && !qwen3.attention_bias);
}

#[test]
fn survives_a_round_trip() {
    let mut all = vec![tiny(Arch::Llama), tiny(Arch::Qwen2), tiny(Arch::Qwen3)];
    all.push(ModelConfig {
        rope_scaling: RopeScaling::Llama3 {
            factor: 32.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192,
        },
        attention_bias: true,
        attention_out_bias: true,
        mlp_bias: true,
        rms_norm_eps: 1e-5,
        rope_theta: 500_000.0,
        eos_token_ids: vec![3, 5, 4],
        bos_token_id: None,
        torch_dtype: Some("bfloat16".into()),
        ..tiny(Arch::Llama)
    });
    all.push(ModelConfig {
        rope_scaling: RopeScaling::Linear { factor: 2.5 },
        tie_word_embeddings: true,
        head_dim: 6,
        eos_token_ids: vec![],
        ..tiny(Arch::Qwen2)
    });
    for config in all {
        let text = config.to_json();
        assert_eq!(ModelConfig::from_json(&text).unwrap(), config, "{text}");
        // Readers of only the older or only the newer keys see the same.
        for hidden in [&["rope_parameters"][..], &["rope_theta", "rope_scaling"][..]] {
            let mut root: Value = serde_json::from_str(&text).unwrap();
            for key in hidden {
                root.as_object_mut().unwrap().remove(*key);
            }
            assert_eq!(parse(&root).unwrap(), config);
        }
    }
}

#[test]
fn reads_the_older_scaling_key_and_llama_defaults() {
    let config = parse(&json!({
        "model_type": "llama", "vocab_size": 100, "hidden_size": 32, "intermediate_size": 64,
        "num_hidden_layers": 1, "num_attention_heads": 4, "rope_scaling": {"type": "linear", "factor": 2},
    }))
    .unwrap();
    assert_eq!(config.num_key_value_heads, 4);
    assert_eq!(config.rope_scaling, RopeScaling::Linear { factor: 2.0 });
    assert_eq!(config.rope_theta, 10_000.0);
    assert_eq!(config.max_position_embeddings, 2048);
    assert_eq!(config.eos_token_ids, Vec::<u32>::new());
}

#[test]
fn refuses_what_it_cannot_do() {
    refused("model_type", json!("gpt2"), &["gpt2", "llama", "qwen2", "qwen3"]);
    refused("model_type", json!(null), &["model_type"]);
    refused("use_sliding_window", json!(true), &["sliding"]);
    refused("layer_types", json!(["full_attention", "sliding_attention"]), &["sliding_attention"]);
    refused("hidden_act", json!("gelu"), &["gelu", "silu"]);
    refused("rope_scaling", json!({"type": "yarn", "factor": 4.0}), &["yarn", "llama3"]);
    refused("rope_parameters", json!({"rope_type": "llama3", "factor": 4.0}), &["rope_parameters.low_freq_factor"]);
    refused("rope_scaling", json!({"type": "linear", "factor": 0.0}), &["factor", "above 0"]);
    refused("quantization_config", json!({"quant_method": "awq"}), &["awq"]);
    refused("num_key_value_heads", json!(4), &["14", "4"]);
    refused("num_key_value_heads", json!(0), &["num_key_value_heads"]);
    refused("num_key_value_heads", json!(null), &["num_key_value_heads", "missing"]);
    refused("head_dim", json!(63), &["head_dim", "63", "even"]);
    refused("num_attention_heads", json!(15), &["896", "15"]);
    refused("hidden_size", json!("896"), &["hidden_size", "\"896\""]);
    refused("hidden_size", json!(-1), &["hidden_size", "-1"]);
    refused("vocab_size", json!(u64::MAX), &["vocab_size"]);
    refused("num_hidden_layers", json!(1_000_000_000), &["num_hidden_layers"]);
    refused("eos_token_id", json!(151936), &["151936"]);
    refused("eos_token_id", json!([1, "x"]), &["eos_token_id"]);
    refused("rms_norm_eps", json!(-1.0), &["rms_norm_eps"]);
    refused("partial_rotary_factor", json!(0.5), &["partial_rotary_factor"]);
    assert!(ModelConfig::from_json("{").is_err());
    assert!(ModelConfig::from_json("[]").is_err());
}

#[test]
fn qwen2_biases_are_implicit_and_llama_ones_explicit() {
    let mut root = qwen25();
    root["attention_bias"] = json!(false);
    assert!(parse(&root).unwrap().attention_bias);
    root["model_type"] = json!("llama");
    root["sliding_window"] = Value::Null;
    assert!(!parse(&root).unwrap().attention_bias);
    root["attention_bias"] = json!(true);
    let config = parse(&root).unwrap();
    assert!(config.attention_bias && config.attention_out_bias);
    let shape = |name: &str| config.tensors().into_iter().find(|t| t.name == name).map(|t| t.shape);
    assert_eq!(shape("model.layers.23.self_attn.k_proj.weight"), Some(vec![128, 896]));
    assert_eq!(shape("model.layers.0.self_attn.k_proj.bias"), Some(vec![128]));
    assert_eq!(shape("model.layers.0.self_attn.o_proj.bias"), Some(vec![896]));
    assert_eq!(shape("model.layers.0.mlp.down_proj.weight"), Some(vec![896, 4864]));
    assert_eq!(shape("model.layers.0.mlp.down_proj.bias"), None);
}

/// Reference values printed by transformers 5.23 (float32).
#[test]
fn rotary_frequencies_match_transformers() {
    let llama3 = RopeScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 256,
    };
    for (theta, rope_scaling, wanted) in [
        (
            10_000.0,
            llama3,
            [1.0, 0.316_227_76, 0.1, 0.006_613_107, 0.00125, 0.000_395_284_73, 0.000_125, 3.952_847_3e-5],
        ),
        (
            10_000.0,
            RopeScaling::Linear { factor: 4.0 },
            [0.25, 0.079_056_94, 0.025, 0.007_905_695, 0.0025, 0.000_790_569_47, 0.000_25, 7.905_695e-5],
        ),
        (
            1e6,
            RopeScaling::None,
            [1.0, 0.177_827_94, 0.031_622_78, 0.005_623_413, 0.001, 0.000_177_827_94, 3.162_277_4e-5, 5.623_413_5e-6],
        ),
    ] {
        let config = ModelConfig { head_dim: 16, rope_theta: theta, rope_scaling, ..tiny(Arch::Llama) };
        let found = config.inv_freq();
        assert_eq!(found.len(), 8);
        for (f, w) in found.iter().zip(wanted) {
            // One unit in the last place for the two libraries' pow.
            assert!(f.to_bits().abs_diff(f32::to_bits(w)) <= 2, "{f} for {w}");
        }
    }
}
