//! Small models and tokenizers made on the spot.

use std::borrow::Cow;
use std::path::Path;

use aha_model::{Arch, Head, ModelConfig, RopeScaling, SaveDtype, TensorSpec, TextFiles, save_checkpoint};
use serde_json::{Map, Value, json};

pub fn tiny(arch: Arch) -> ModelConfig {
    ModelConfig {
        arch,
        vocab_size: 32,
        hidden_size: 8,
        intermediate_size: 16,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        num_key_value_heads: 1,
        head_dim: 4,
        rms_norm_eps: 1e-6,
        rope_theta: 10_000.0,
        rope_scaling: RopeScaling::None,
        tie_word_embeddings: false,
        attention_bias: arch == Arch::Qwen2,
        attention_out_bias: false,
        mlp_bias: false,
        qk_norm: arch == Arch::Qwen3,
        max_position_embeddings: 64,
        initializer_range: 0.02,
        bos_token_id: Some(1),
        eos_token_ids: vec![2],
        torch_dtype: None,
        deepseek: None,
        head: Head::default(),
    }
}

/// Values that depend on the name and the position, with all signs and magnitudes.
pub fn values(spec: &TensorSpec) -> Vec<f32> {
    let mut state =
        spec.name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    (0..spec.len())
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            ((state >> 40) as f32 / (1u64 << 23) as f32 - 1.0) * 3.0
        })
        .collect()
}

pub fn save(dir: &Path, config: &ModelConfig, dtype: SaveDtype) {
    save_checkpoint(dir, config, dtype, &TextFiles::default(), &mut |spec| Ok(Cow::Owned(values(spec)))).unwrap();
}

/// The visible characters by which byte-level tokenizers write the 256 bytes.
pub fn byte_chars() -> Vec<char> {
    let plain = |b: u32| (33..=126).contains(&b) || (161..=172).contains(&b) || (174..=255).contains(&b);
    let mut next = 256;
    (0..256)
        .map(|b| {
            let code = if plain(b) {
                b
            } else {
                next += 1;
                next - 1
            };
            char::from_u32(code).unwrap()
        })
        .collect()
}

/// A byte-level BPE vocabulary: 256 bytes, then "th", "the", " the", "12", "123", then three specials.
pub fn vocabulary() -> (Vec<String>, Vec<String>, Vec<i64>) {
    let mut tokens: Vec<String> = byte_chars().into_iter().map(String::from).collect();
    tokens.extend(["th", "the", "Ġthe", "12", "123"].map(String::from));
    let merges = ["t h", "th e", "Ġ the", "1 2", "12 3"].map(String::from).to_vec();
    tokens.extend(["<s>", "<end>", "<think>"].map(String::from));
    let mut kinds = vec![1; tokens.len()];
    let n = kinds.len();
    kinds[n - 3..].copy_from_slice(&[3, 3, 4]);
    (tokens, merges, kinds)
}

/// That vocabulary as a `tokenizer.json`.
pub fn tokenizer_json() -> Value {
    let (tokens, merges, _) = vocabulary();
    let vocab: Map<String, Value> = tokens.iter().enumerate().map(|(id, t)| (t.clone(), id.into())).collect();
    let merges: Vec<Value> = merges.iter().map(|m| json!(m.split_once(' ').unwrap())).collect();
    let added = |id: usize, special: bool| {
        json!({"id": id, "content": tokens[id], "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": special})
    };
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": true});
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [added(261, true), added(262, true), added(263, false)],
        "normalizer": null, "pre_tokenizer": byte_level, "post_processor": null, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": merges},
    })
}
