//! DeepSeek-V3: the official configuration, what is refused, YaRN, and the forms its checkpoints come in.

use crate::support::values;
use aha_model::{Arch, Checkpoint, ModelConfig, RopeScaling, SaveDtype, TextFiles, save_checkpoint};
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::path::Path;

/// `config.json` as released, but for its comments on code.
fn official() -> Value {
    json!({
        "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "attention_bias": false,
        "attention_dropout": 0.0, "bos_token_id": 0, "eos_token_id": 1, "ep_size": 1, "first_k_dense_replace": 3,
        "hidden_act": "silu", "hidden_size": 7168, "initializer_range": 0.02, "intermediate_size": 18432,
        "kv_lora_rank": 512, "max_position_embeddings": 163840, "moe_intermediate_size": 2048, "moe_layer_freq": 1,
        "n_group": 8, "n_routed_experts": 256, "n_shared_experts": 1, "norm_topk_prob": true,
        "num_attention_heads": 128, "num_experts_per_tok": 8, "num_hidden_layers": 61, "num_key_value_heads": 128,
        "num_nextn_predict_layers": 1, "q_lora_rank": 1536, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
        "quantization_config": {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8",
            "weight_block_size": [128, 128]},
        "rms_norm_eps": 1e-6, "rope_theta": 10000, "routed_scaling_factor": 2.5, "scoring_func": "sigmoid",
        "rope_scaling": {"type": "yarn", "factor": 40, "beta_fast": 32, "beta_slow": 1, "mscale": 1.0,
            "mscale_all_dim": 1.0, "original_max_position_embeddings": 4096},
        "tie_word_embeddings": false, "topk_group": 4, "topk_method": "noaux_tc", "torch_dtype": "bfloat16",
        "use_cache": true, "v_head_dim": 128, "vocab_size": 129280,
    })
}

fn parse(value: &Value) -> Result<ModelConfig, String> {
    ModelConfig::from_json(&value.to_string()).map_err(|e| e.to_string())
}

#[test]
fn the_official_shape_has_671_billion_parameters() {
    let config = parse(&official()).unwrap();
    assert_eq!(config.arch, Arch::DeepseekV3);
    assert_eq!(config.num_parameters(), 671_026_404_352);
    assert_eq!((config.num_active_parameters() as f64 / 1e7).round() / 100.0, 37.55);
    let shape = |name: &str| config.tensors().into_iter().find(|t| t.name == name).map(|t| t.shape);
    for (name, wanted) in [
        ("model.layers.60.self_attn.kv_a_proj_with_mqa.weight", vec![576, 7168]),
        ("model.layers.0.self_attn.q_b_proj.weight", vec![24576, 1536]),
        ("model.layers.5.self_attn.kv_b_proj.weight", vec![32768, 512]),
        ("model.layers.2.mlp.down_proj.weight", vec![7168, 18432]),
        ("model.layers.3.mlp.experts.255.up_proj.weight", vec![2048, 7168]),
        ("model.layers.3.mlp.gate.e_score_correction_bias", vec![256]),
        ("model.layers.61.eh_proj.weight", vec![7168, 14336]),
        ("model.layers.61.shared_head.norm.weight", vec![7168]),
    ] {
        assert_eq!(shape(name), Some(wanted), "{name}");
    }
    assert_eq!(shape("model.layers.2.mlp.gate.weight"), None);
    let saved: Vec<String> = config.saved_tensors().into_iter().map(|(t, _)| t.name).collect();
    for copy in ["model.layers.61.embed_tokens.weight", "model.layers.61.shared_head.head.weight"] {
        assert!(saved.iter().any(|n| n == copy) && shape(copy).is_none(), "{copy}");
    }
}

#[test]
fn yarn_ramps_between_dimensions_10_and_23_and_scales_scores() {
    let config = parse(&official()).unwrap();
    let plain = ModelConfig { rope_scaling: RopeScaling::None, ..config.clone() }.inv_freq();
    let yarn = config.inv_freq();
    let ratio = |i: usize| f64::from(plain[i] / yarn[i]);
    assert!((0..=10).all(|i| (ratio(i) - 1.0).abs() < 1e-6));
    assert!((23..32).all(|i| (ratio(i) - 40.0).abs() < 1e-3));
    assert!((11..23).all(|i| ratio(i) > ratio(i - 1) && ratio(i) < 40.0));
    let scale = config.deepseek.as_ref().unwrap().softmax_scale(&config.rope_scaling);
    assert!((scale - 0.135_234).abs() < 1e-6 && config.rope_factor() == 1.0);
    let scale = config.deepseek.as_ref().unwrap().softmax_scale(&RopeScaling::None);
    assert!((scale - 0.072_168_8).abs() < 1e-6);
}

#[test]
fn survives_a_round_trip() {
    let mut root = official();
    for (key, value) in [("q_lora_rank", Value::Null), ("rope_scaling", Value::Null), ("q_lora_rank", json!(24))] {
        root[key] = value;
        let config = parse(&root).unwrap();
        let text = config.to_json();
        assert_eq!(ModelConfig::from_json(&text).unwrap(), config, "{text}");
    }
}

#[test]
fn refuses_what_it_cannot_do() {
    for (key, value, words) in [
        ("scoring_func", json!("softmax"), &["scoring_func", "softmax", "sigmoid"][..]),
        ("topk_method", json!("greedy"), &["topk_method", "noaux_tc"]),
        ("attention_bias", json!(true), &["attention_bias"]),
        ("moe_layer_freq", json!(2), &["moe_layer_freq"]),
        ("num_key_value_heads", json!(8), &["num_key_value_heads", "128"]),
        ("n_group", json!(7), &["n_routed_experts", "n_group"]),
        ("topk_group", json!(9), &["topk_group"]),
        ("num_experts_per_tok", json!(200), &["num_experts_per_tok", "128"]),
        ("kv_lora_rank", Value::Null, &["kv_lora_rank", "missing"]),
        ("v_head_dim", json!(0), &["v_head_dim"]),
        ("qk_rope_head_dim", json!(63), &["63", "even"]),
        ("routed_scaling_factor", json!(0.0), &["routed_scaling_factor"]),
        ("quantization_config", json!({"quant_method": "gptq"}), &["gptq"]),
        ("quantization_config", json!({"quant_method": "fp8", "weight_block_size": [64, 64]}), &["fp8"]),
        ("rope_scaling", json!({"type": "yarn", "factor": 4.0}), &["original_max_position_embeddings"]),
    ] {
        let mut root = official();
        root[key] = value;
        let message = parse(&root).expect_err(key);
        assert!(words.iter().all(|w| message.contains(w)), "{key}: {message}");
    }
}

fn tiny() -> ModelConfig {
    parse(&json!({
        "model_type": "deepseek_v3", "vocab_size": 20, "hidden_size": 136, "intermediate_size": 130,
        "num_hidden_layers": 2, "num_attention_heads": 2, "kv_lora_rank": 16, "q_lora_rank": 12, "qk_nope_head_dim": 8,
        "qk_rope_head_dim": 4, "v_head_dim": 6, "first_k_dense_replace": 1, "moe_intermediate_size": 10,
        "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2, "num_nextn_predict_layers": 1,
        "max_position_embeddings": 64,
    }))
    .unwrap()
}

/// A safetensors file: name, dtype, shape, bytes.
fn write(dir: &Path, config: &ModelConfig, tensors: &[(String, &str, Vec<usize>, Vec<u8>)]) {
    std::fs::write(dir.join("config.json"), config.to_json()).unwrap();
    let (mut header, mut data) = (Map::new(), Vec::new());
    for (name, dtype, shape, bytes) in tensors {
        let begin = data.len();
        data.extend_from_slice(bytes);
        let entry = json!({"dtype": dtype, "shape": shape, "data_offsets": [begin, data.len()]});
        header.insert(name.clone(), entry);
    }
    let header = Value::Object(header).to_string();
    let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
    std::fs::write(dir.join("model.safetensors"), file).unwrap();
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

#[test]
fn eight_bit_checkpoints_are_dequantised_block_by_block() {
    let (config, dir) = (tiny(), tempfile::tempdir().unwrap());
    let mut tensors = Vec::new();
    for spec in config.tensors() {
        let count = spec.len();
        if spec.name.ends_with("_proj.weight") && spec.shape.len() == 2 {
            let (rows, columns) = (spec.shape[0].div_ceil(128), spec.shape[1].div_ceil(128));
            // 1, 1.125, 1.25, ... in every row.
            let raw = (0..count).map(|i| 0x38 + (i % 8) as u8).collect();
            tensors.push((spec.name.clone(), "F8_E4M3", spec.shape.clone(), raw));
            let scales: Vec<f32> = (0..rows * columns).map(|i| 2f32.powi(i as i32)).collect();
            tensors.push((format!("{}_scale_inv", spec.name), "F32", vec![rows, columns], bytes(&scales)));
        } else {
            tensors.push((spec.name.clone(), "F32", spec.shape.clone(), bytes(&values(&spec))));
        }
    }
    write(dir.path(), &config, &tensors);
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    assert!(checkpoint.unexpected().is_empty());
    // [136, 130]: four blocks.
    let down = checkpoint.read("model.layers.0.mlp.down_proj.weight").unwrap();
    let at = |i: usize, j: usize| (1.0 + ((i * 130 + j) % 8) as f32 / 8.0) * 2f32.powi((i / 128 * 2 + j / 128) as i32);
    for (i, j) in [(0, 0), (0, 127), (0, 128), (127, 129), (128, 0), (135, 129)] {
        assert_eq!(down[i * 130 + j], at(i, j), "{i} {j}");
    }
    // Without its scales a tensor cannot be read.
    tensors.retain(|t| t.0 != "model.layers.0.mlp.down_proj.weight_scale_inv");
    write(dir.path(), &config, &tensors);
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let message = checkpoint.read("model.layers.0.mlp.down_proj.weight").unwrap_err().to_string();
    assert!(message.contains("weight_scale_inv"), "{message}");
}

#[test]
fn modules_are_saved_with_their_copies_and_may_be_absent() {
    let (config, dir) = (tiny(), tempfile::tempdir().unwrap());
    let path = dir.path().join("model");
    save_checkpoint(&path, &config, SaveDtype::Bf16, &TextFiles::default(), &mut |spec| Ok(Cow::Owned(values(spec))))
        .unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert!(checkpoint.unexpected().is_empty());
    assert_eq!(checkpoint.config().deepseek.as_ref().unwrap().num_nextn_predict_layers, 1);
    let name = "model.layers.1.mlp.gate.e_score_correction_bias";
    let spec = config.tensors().into_iter().find(|t| t.name == name).unwrap();
    assert_eq!(checkpoint.read(name).unwrap(), values(&spec), "biases are not rounded");
    // As transformers leaves it: named in the config, not in the file.
    let main = config.tensors().into_iter().filter(|t| !t.name.starts_with("model.layers.2."));
    let tensors: Vec<_> = main.map(|t| (t.name.clone(), "F32", t.shape.clone(), bytes(&values(&t)))).collect();
    write(dir.path(), &config, &tensors);
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    assert_eq!(checkpoint.config().deepseek.as_ref().unwrap().num_nextn_predict_layers, 0);
}
