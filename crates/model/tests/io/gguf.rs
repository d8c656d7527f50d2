//! GGUF files written by candle: every tensor type, names, permutation, tied output, tokenizer, cuts.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use aha_model::{Arch, Checkpoint, Gguf, ModelConfig, RopeScaling, Tokenizer};
use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};

use crate::support::{tiny, values, vocabulary};

type Meta = Vec<(String, Value)>;

/// Metadata as a converter writes it.
fn metadata(config: &ModelConfig) -> Meta {
    let arch = config.arch.model_type();
    let mut meta = vec![
        ("general.architecture".to_owned(), Value::String(arch.into())),
        (format!("{arch}.rope.freq_base"), Value::F32(config.rope_theta as f32)),
        (format!("{arch}.attention.layer_norm_rms_epsilon"), Value::F32(config.rms_norm_eps)),
        ("tokenizer.ggml.scores".to_owned(), Value::Array(vec![Value::F32(0.5); 3])),
        ("tokenizer.ggml.eos_token_id".to_owned(), Value::U32(2)),
        ("tokenizer.ggml.bos_token_id".to_owned(), Value::U32(1)),
    ];
    for (key, n) in [
        ("block_count", config.num_hidden_layers),
        ("context_length", config.max_position_embeddings),
        ("embedding_length", config.hidden_size),
        ("feed_forward_length", config.intermediate_size),
        ("attention.head_count", config.num_attention_heads),
        ("attention.head_count_kv", config.num_key_value_heads),
        ("attention.key_length", config.head_dim),
    ] {
        meta.push((format!("{arch}.{key}"), Value::U32(n as u32)));
    }
    meta
}

fn gguf_name(name: &str) -> String {
    let mut name = name.replace("model.layers.", "blk.");
    for (from, to) in [
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("lm_head", "output"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("self_attn.q_norm", "attn_q_norm"),
        ("self_attn.k_norm", "attn_k_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ] {
        name = name.replace(from, to);
    }
    name
}

fn quantized(data: &[f32], shape: &[usize], dtype: GgmlDType) -> QTensor {
    let tensor = Tensor::from_slice(data, shape, &Device::Cpu).unwrap();
    QTensor::quantize(&tensor, dtype).unwrap()
}

fn write(path: &Path, meta: &Meta, tensors: &[(String, QTensor)]) {
    let meta: Vec<(&str, &Value)> = meta.iter().map(|(k, v)| (k.as_str(), v)).collect();
    let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(k, t)| (k.as_str(), t)).collect();
    gguf_file::write(&mut File::create(path).unwrap(), &meta, &tensors).unwrap();
}

/// All tensors in f32 under GGUF names; q and k of Llama in the converter's order.
fn plain_tensors(config: &ModelConfig) -> Vec<(String, QTensor)> {
    config
        .tensors()
        .iter()
        .map(|spec| {
            let mut data = values(spec);
            let heads = match &spec.name {
                n if n.contains("q_proj") => config.num_attention_heads,
                n if n.contains("k_proj") => config.num_key_value_heads,
                _ => 0,
            };
            if config.arch == Arch::Llama && heads > 0 {
                // reshape(heads, 2, H/2, D).swapaxes(1, 2)
                let width = spec.len() / (heads * config.head_dim);
                let source = Tensor::from_slice(&data, (heads, 2, config.head_dim / 2, width), &Device::Cpu);
                let moved = source.unwrap().transpose(1, 2).unwrap().contiguous().unwrap();
                data = moved.flatten_all().unwrap().to_vec1().unwrap();
            }
            (gguf_name(&spec.name), quantized(&data, &spec.shape, GgmlDType::F32))
        })
        .collect()
}

fn open_error(path: &Path) -> String {
    Checkpoint::open(path).unwrap_err().to_string()
}

#[test]
fn every_family_is_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    for (arch, tied) in [(Arch::Llama, false), (Arch::Qwen2, true), (Arch::Qwen3, false)] {
        let config = ModelConfig { tie_word_embeddings: tied, rms_norm_eps: 1e-5, ..tiny(arch) };
        let mut tensors = plain_tensors(&config);
        tensors.push(("extra.weight".into(), quantized(&[0.0; 8], &[8], GgmlDType::F32)));
        write(&path, &metadata(&config), &tensors);
        let checkpoint = Checkpoint::open(&path).unwrap();
        assert_eq!(checkpoint.config(), &config);
        assert_eq!(checkpoint.unexpected(), ["extra.weight"]);
        for spec in config.tensors() {
            assert_eq!(checkpoint.read(&spec.name).unwrap(), values(&spec), "{arch:?} {}", spec.name);
        }
    }
}

#[test]
fn every_tensor_type_is_dequantised() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    let config = ModelConfig {
        // The embedding is larger than one piece of reading.
        vocab_size: 4200,
        hidden_size: 256,
        intermediate_size: 256,
        num_hidden_layers: 1,
        head_dim: 128,
        tie_word_embeddings: true,
        ..tiny(Arch::Qwen2)
    };
    for (dtype, tolerance) in [
        (GgmlDType::F32, 0.0),
        (GgmlDType::F16, 1e-3),
        (GgmlDType::BF16, 1e-2),
        (GgmlDType::Q4_0, 0.5),
        (GgmlDType::Q4_1, 0.3),
        (GgmlDType::Q5_0, 0.3),
        (GgmlDType::Q5_1, 0.2),
        (GgmlDType::Q8_0, 0.03),
        (GgmlDType::Q2K, 1.5),
        (GgmlDType::Q3K, 1.0),
        (GgmlDType::Q4K, 0.4),
        (GgmlDType::Q5K, 0.2),
        (GgmlDType::Q6K, 0.2),
    ] {
        let tensors: Vec<(String, QTensor)> = config
            .tensors()
            .iter()
            .map(|s| {
                let dtype = if s.shape.len() == 1 { GgmlDType::F32 } else { dtype };
                (gguf_name(&s.name), quantized(&values(s), &s.shape, dtype))
            })
            .collect();
        write(&path, &metadata(&config), &tensors);
        let checkpoint = Checkpoint::open(&path).unwrap();
        for (spec, (_, stored)) in config.tensors().iter().zip(&tensors) {
            let read = checkpoint.read(&spec.name).unwrap();
            let whole = stored.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap();
            assert_eq!(read, whole.to_vec1::<f32>().unwrap(), "{dtype:?} {}", spec.name);
            for (r, v) in read.iter().zip(values(spec)) {
                assert!((r - v).abs() <= tolerance, "{dtype:?} {}: {r} for {v}", spec.name);
            }
        }
    }
}

#[test]
fn a_copy_of_the_embedding_as_output_is_a_tied_model() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    let tied = ModelConfig { hidden_size: 32, vocab_size: 100, tie_word_embeddings: true, ..tiny(Arch::Qwen2) };
    let embed = values(&tied.tensors()[0]);
    let mut tensors = plain_tensors(&tied);
    tensors[0].1 = quantized(&embed, &[100, 32], GgmlDType::Q4_0);
    let better = quantized(&embed, &[100, 32], GgmlDType::Q8_0);
    let wanted: Vec<f32> = better.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    tensors.push(("output.weight".into(), better));
    write(&path, &metadata(&tied), &tensors);
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert_eq!(checkpoint.config(), &tied);
    // The finer of the two copies is the one that is read.
    assert_eq!(checkpoint.read("model.embed_tokens.weight").unwrap(), wanted);
    assert_eq!(checkpoint.unexpected(), Vec::<String>::new());

    let other: Vec<f32> = embed.iter().rev().copied().collect();
    tensors.pop();
    tensors.push(("output.weight".into(), quantized(&other, &[100, 32], GgmlDType::F32)));
    write(&path, &metadata(&tied), &tensors);
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert!(!checkpoint.config().tie_word_embeddings);
    assert_eq!(checkpoint.read("lm_head.weight").unwrap(), other);
}

#[test]
fn rope_scaling_of_llama_3_is_recognised() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    let plain = ModelConfig { rope_theta: 500_000.0, head_dim: 64, ..tiny(Arch::Llama) };
    let scaled = ModelConfig {
        rope_scaling: RopeScaling::Llama3 {
            factor: 32.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192,
        },
        ..plain.clone()
    };
    let mut divisors: Vec<f32> = plain.inv_freq().iter().zip(scaled.inv_freq()).map(|(p, s)| p / s).collect();
    let mut tensors = plain_tensors(&scaled);
    tensors.push(("rope_freqs.weight".into(), quantized(&divisors, &[32], GgmlDType::F32)));
    write(&path, &metadata(&scaled), &tensors);
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert_eq!(checkpoint.config(), &scaled);
    assert_eq!(checkpoint.unexpected(), Vec::<String>::new());

    divisors[20] *= 1.1;
    tensors.last_mut().unwrap().1 = quantized(&divisors, &[32], GgmlDType::F32);
    write(&path, &metadata(&scaled), &tensors);
    assert!(open_error(&path).contains("rope_freqs"));
}

#[test]
fn refuses_what_it_cannot_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    let config = tiny(Arch::Qwen2);
    let tensors = plain_tensors(&config);
    let with = |key: &str, value: Value| {
        let mut meta = metadata(&config);
        meta.retain(|(k, _)| k != key);
        meta.push((key.into(), value));
        write(&path, &meta, &tensors);
        open_error(&path)
    };
    for (key, value, word) in [
        ("general.architecture", Value::String("mamba".into()), "mamba"),
        ("general.alignment", Value::U32(0), "alignment"),
        ("qwen2.expert_count", Value::U32(8), "mixture"),
        ("qwen2.attention.sliding_window", Value::U32(8), "sliding"),
        ("qwen2.rope.scaling.type", Value::String("yarn".into()), "yarn"),
        ("qwen2.rope.dimension_count", Value::U32(2), "rope.dimension_count"),
        ("qwen2.attention.head_count_kv", Value::U32(3), "num_key_value_heads"),
        ("qwen2.block_count", Value::String("x".into()), "block_count"),
        ("tokenizer.ggml.eos_token_id", Value::U32(99), "99"),
        ("qwen2.feed_forward_length", Value::U32(17), "[16, 8]"),
        ("qwen2.block_count", Value::U32(3), "model.layers.2"),
    ] {
        let message = with(key, value);
        assert!(message.contains(word), "{key}: {message}");
    }
}

#[test]
fn a_file_cut_anywhere_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    let config = ModelConfig { num_hidden_layers: 1, ..tiny(Arch::Qwen2) };
    write(&path, &metadata(&config), &plain_tensors(&config));
    let whole = fs::read(&path).unwrap();
    assert!(Checkpoint::open(&path).is_ok());
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    for length in (0..whole.len() as u64).rev() {
        file.set_len(length).unwrap();
        let message = open_error(&path);
        assert!(message.contains("m.gguf"), "{length}: {message}");
    }
}

#[test]
fn corrupt_bytes_never_panic() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    let config = ModelConfig { num_hidden_layers: 1, ..tiny(Arch::Llama) };
    write(&path, &metadata(&config), &plain_tensors(&config));
    let whole = fs::read(&path).unwrap();
    let data: usize = config.num_parameters() as usize * 4;
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    for at in 0..whole.len() - data {
        for byte in [0u8, 1, 0x7f, 0xff] {
            file.write_all_at(&[byte], at as u64).unwrap();
            if let Ok(checkpoint) = Checkpoint::open(&path) {
                for spec in checkpoint.config().tensors() {
                    let _ = checkpoint.read(&spec.name);
                }
            }
        }
        file.write_all_at(&whole[at..=at], at as u64).unwrap();
    }
}

fn tokenizer_file(path: &Path, pre: &str, change: impl Fn(&mut Meta)) -> Gguf {
    let (tokens, merges, kinds) = vocabulary();
    let texts = |all: Vec<String>| Value::Array(all.into_iter().map(Value::String).collect());
    let mut meta: Meta = [
        ("model", Value::String("gpt2".into())),
        ("pre", Value::String(pre.into())),
        ("tokens", texts([tokens, vec!["[PAD264]".into()]].concat())),
        ("merges", texts(merges)),
        ("token_type", Value::Array(kinds.iter().chain([&5]).map(|&k| Value::I32(k as i32)).collect())),
        ("bos_token_id", Value::U32(261)),
        ("eos_token_id", Value::U32(262)),
    ]
    .map(|(k, v)| (format!("tokenizer.ggml.{k}"), v))
    .into();
    change(&mut meta);
    write(path, &meta, &[("x".into(), quantized(&[0.0; 8], &[8], GgmlDType::F32))]);
    Gguf::open(path).unwrap()
}

#[test]
fn tokenizers_are_rebuilt() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.gguf");
    let qwen = Tokenizer::from_gguf(&tokenizer_file(&path, "qwen2", |_| {})).unwrap();
    assert_eq!(qwen.vocab_size(), 264);
    assert_eq!(qwen.special().eos.as_deref(), Some("<end>"));
    // Qwen splits digits one by one, so "12" never forms.
    assert_eq!(qwen.encode("the the123", true).unwrap(), [257, 258, 49, 50, 51]);
    // NFC: e and a combining acute become one character.
    assert_eq!(qwen.encode("e\u{301}", true).unwrap(), [0xc3, 0xa9]);
    assert_eq!(qwen.encode("<s>the<think><end>", true).unwrap(), [261, 257, 263, 262]);
    assert_eq!(qwen.decode(&[261, 257, 263, 262], true).unwrap(), "the<think>");
    assert_eq!(qwen.encode_with("<s>", true, false).unwrap(), [60, 115, 62]);

    let llama = Tokenizer::from_gguf(&tokenizer_file(&path, "llama-bpe", |_| {})).unwrap();
    assert_eq!(llama.encode("the1231", true).unwrap(), [261, 257, 260, 49]);
    assert_eq!(llama.encode("the1231", false).unwrap(), [257, 260, 49]);
    let again = Tokenizer::from_bytes(llama.to_json().as_bytes()).unwrap();
    assert_eq!(again.encode("the1231", true).unwrap(), [261, 257, 260, 49]);
    let without = tokenizer_file(&path, "llama-bpe", |m| {
        m.push(("tokenizer.ggml.add_bos_token".into(), Value::Bool(false)));
    });
    assert_eq!(Tokenizer::from_gguf(&without).unwrap().encode("the", true).unwrap(), [257]);
}

#[test]
fn bad_tokenizers_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.gguf");
    let fails = |pre: &str, change: &dyn Fn(&mut Meta), word: &str| {
        let message = Tokenizer::from_gguf(&tokenizer_file(&path, pre, change)).unwrap_err().to_string();
        assert!(message.contains(word), "{message}");
    };
    fails("tekken", &|_| {}, "tekken");
    fails("qwen2", &|m| m[0].1 = Value::String("llama".into()), "llama");
    fails("qwen2", &|m| m[3].1 = Value::Array(vec![Value::String("a zz".into())]), "a zz");
    fails("qwen2", &|m| m[4].1 = Value::Array(vec![Value::I32(1)]), "token types");
    fails("qwen2", &|m| drop(m.remove(2)), "tokens");
    fails("qwen2", &|m| m[2].1 = Value::Array(vec![Value::String("a".into()); 265]), "twice");
}
