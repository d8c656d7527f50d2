//! Writing a GGUF file (version 3) that llama.cpp and the reader here load: metadata, tokenizer, tensors under GGUF names.
//!
//! Vectors are f32. Matrices are in the type asked for; where rows are no multiple of a type's blocks it takes the smaller
//! blocks that llama.cpp takes then, and for 4 and 5 bits the embedding and the output matrix have 6. Tensors are converted and
//! written one at a time. Quantised blocks are candle's.

use std::fs;
use std::io::Write;
use std::path::Path;

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use half::{bf16, f16};

use super::gguf::{ROPE_FREQS, gguf_name, halves_to_pairs, rotated_heads};
use super::gguf_header::GgufValue;
use super::save::{Failure, write_file};
use crate::chat::ChatTemplate;
use crate::config::{Arch, ModelConfig, RopeScaling, TensorSpec};
use crate::error::{Error, Result};
use crate::tokenizer::{Tokenizer, gguf_metadata};

const ALIGNMENT: usize = 32;

/// The number format of the matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GgufDtype {
    /// Exact.
    F32,
    /// Rounded to half precision.
    F16,
    /// Rounded to bf16.
    Bf16,
    /// 8 bits in blocks of 32.
    Q8_0,
    /// 4 bits in blocks of 32.
    Q4_0,
    /// 4 bits in blocks of 256 with scales and minima per 32.
    Q4K,
    /// 5 bits of the same kind.
    Q5K,
    /// 6 bits in blocks of 256 with scales per 16.
    Q6K,
}

impl GgufDtype {
    /// Every format with its name on a command line.
    pub const ALL: [(&'static str, Self); 8] = [
        ("f32", Self::F32),
        ("f16", Self::F16),
        ("bf16", Self::Bf16),
        ("q8_0", Self::Q8_0),
        ("q4_0", Self::Q4_0),
        ("q4_k", Self::Q4K),
        ("q5_k", Self::Q5K),
        ("q6_k", Self::Q6K),
    ];

    /// Number of the format in `general.file_type`.
    fn file_type(self) -> i64 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q8_0 => 7,
            Self::Q4K => 14,
            Self::Q5K => 16,
            Self::Q6K => 18,
            Self::Bf16 => 32,
        }
    }

    /// What a tensor is stored as.
    fn of(self, spec: &TensorSpec) -> GgmlDType {
        let &[_, k] = spec.shape.as_slice() else { return GgmlDType::F32 };
        let outer = matches!(spec.name.as_str(), "model.embed_tokens.weight" | "lm_head.weight");
        let (wanted, smaller) = match self {
            Self::F32 => return GgmlDType::F32,
            Self::F16 => return GgmlDType::F16,
            Self::Bf16 => return GgmlDType::BF16,
            Self::Q8_0 => (GgmlDType::Q8_0, GgmlDType::Q8_0),
            Self::Q4_0 => (GgmlDType::Q4_0, GgmlDType::Q4_0),
            Self::Q4K | Self::Q5K if outer => (GgmlDType::Q6K, GgmlDType::Q8_0),
            Self::Q4K => (GgmlDType::Q4K, GgmlDType::Q5_0),
            Self::Q5K => (GgmlDType::Q5K, GgmlDType::Q5_1),
            Self::Q6K => (GgmlDType::Q6K, GgmlDType::Q8_0),
        };
        let fits = |dtype: &GgmlDType| k.is_multiple_of(dtype.block_size());
        [wanted, smaller].into_iter().find(fits).unwrap_or(GgmlDType::F16)
    }
}

/// Number of a type in the tensor table.
fn type_number(dtype: GgmlDType) -> u32 {
    match dtype {
        GgmlDType::F16 => 1,
        GgmlDType::Q4_0 => 2,
        GgmlDType::Q5_0 => 6,
        GgmlDType::Q5_1 => 7,
        GgmlDType::Q8_0 => 8,
        GgmlDType::Q4K => 12,
        GgmlDType::Q5K => 13,
        GgmlDType::Q6K => 14,
        GgmlDType::BF16 => 30,
        _ => 0,
    }
}

/// Writes a model to one GGUF file. `read` answers a tensor of [`ModelConfig::tensors`], row-major.
///
/// # Errors
/// A model that GGUF has no form for here (DeepSeek-V3, YaRN), a tokenizer likewise, a failed write, an error of `read`.
pub fn save_gguf(
    path: &Path,
    config: &ModelConfig,
    dtype: GgufDtype,
    tokenizer: Option<&Tokenizer>,
    chat: Option<&ChatTemplate>,
    read: &mut dyn FnMut(&str) -> Result<Vec<f32>>,
) -> Result<()> {
    let mut meta = model_metadata(path, config, dtype)?;
    if let Some(tokenizer) = tokenizer {
        meta.extend(gguf_metadata(tokenizer, config)?);
    }
    if let Some(chat) = chat {
        meta.push(("tokenizer.chat_template".into(), GgufValue::Text(chat.source().to_owned())));
    }
    let specs = config.tensors();
    let divisors = rope_divisors(config);
    let mut table: Vec<(String, Vec<usize>, GgmlDType)> = Vec::with_capacity(specs.len() + 1);
    for spec in &specs {
        let name = gguf_name(&spec.name)
            .ok_or_else(|| Error::format(path, format!("tensor {} has no name in GGUF", spec.name)))?;
        table.push((name, spec.shape.clone(), dtype.of(spec)));
    }
    if let Some(divisors) = &divisors {
        table.push((ROPE_FREQS.into(), vec![divisors.len()], GgmlDType::F32));
    }
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = Path::new(&temporary);
    let written = write_file(temporary, &mut |out| {
        out.write_all(&head(&meta, &table))?;
        for (spec, (_, _, dtype)) in specs.iter().zip(&table) {
            let mut values = read(&spec.name).map_err(Failure::Data)?;
            if let Some(heads) = rotated_heads(&spec.name, config) {
                values = halves_to_pairs(&values, heads, config.head_dim);
            }
            let raw = encode(values, *dtype)
                .map_err(|e| Failure::Data(Error::format(path, format!("{}: {e}", spec.name))))?;
            write_padded(out, &raw)?;
        }
        if let Some(divisors) = &divisors {
            write_padded(out, &divisors.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())?;
        }
        Ok(())
    });
    let done = written.and_then(|()| fs::rename(temporary, path).map_err(|e| Error::io(path, "create", e)));
    if done.is_err() {
        // The first error is the one to report.
        let _ = fs::remove_file(temporary);
    }
    done
}

fn model_metadata(path: &Path, c: &ModelConfig, dtype: GgufDtype) -> Result<Vec<(String, GgufValue)>> {
    let arch = match c.arch {
        Arch::Llama => "llama",
        Arch::Qwen2 => "qwen2",
        Arch::Qwen3 => "qwen3",
        _ => return Err(Error::format(path, "only Llama, Qwen2 and Qwen3 are written to GGUF; give a folder instead")),
    };
    let int = |v: usize| GgufValue::Int(v as i64);
    let mut all = vec![
        ("general.architecture".to_owned(), GgufValue::Text(arch.into())),
        ("general.file_type".to_owned(), GgufValue::Int(dtype.file_type())),
        ("general.quantization_version".to_owned(), GgufValue::Int(2)),
    ];
    let own = [
        ("vocab_size", int(c.vocab_size)),
        ("context_length", int(c.max_position_embeddings)),
        ("embedding_length", int(c.hidden_size)),
        ("block_count", int(c.num_hidden_layers)),
        ("feed_forward_length", int(c.intermediate_size)),
        ("attention.head_count", int(c.num_attention_heads)),
        ("attention.head_count_kv", int(c.num_key_value_heads)),
        ("attention.key_length", int(c.head_dim)),
        ("attention.value_length", int(c.head_dim)),
        ("rope.dimension_count", int(c.head_dim)),
        ("attention.layer_norm_rms_epsilon", GgufValue::Float(f64::from(c.rms_norm_eps))),
        ("rope.freq_base", GgufValue::Float(c.rope_theta)),
    ];
    all.extend(own.into_iter().map(|(key, value)| (format!("{arch}.{key}"), value)));
    match c.rope_scaling {
        RopeScaling::None | RopeScaling::Llama3 { .. } => {}
        RopeScaling::Linear { factor } => {
            all.push((format!("{arch}.rope.scaling.type"), GgufValue::Text("linear".into())));
            all.push((format!("{arch}.rope.scaling.factor"), GgufValue::Float(factor)));
        }
        RopeScaling::Yarn { .. } => {
            return Err(Error::format(path, "YaRN is not written to GGUF; give a folder instead"));
        }
    }
    Ok(all)
}

/// Llama 3's scaling as a divisor per frequency.
fn rope_divisors(config: &ModelConfig) -> Option<Vec<f32>> {
    if !matches!(config.rope_scaling, RopeScaling::Llama3 { .. }) {
        return None;
    }
    let plain = ModelConfig { rope_scaling: RopeScaling::None, ..config.clone() }.inv_freq();
    Some(plain.iter().zip(config.inv_freq()).map(|(p, s)| p / s).collect())
}

/// Everything before the data of the tensors, padded.
fn head(meta: &[(String, GgufValue)], table: &[(String, Vec<usize>, GgmlDType)]) -> Vec<u8> {
    let mut out = b"GGUF".to_vec();
    let put_text = |out: &mut Vec<u8>, text: &str| {
        out.extend((text.len() as u64).to_le_bytes());
        out.extend(text.as_bytes());
    };
    out.extend(3u32.to_le_bytes());
    out.extend((table.len() as u64).to_le_bytes());
    out.extend((meta.len() as u64).to_le_bytes());
    for (key, value) in meta {
        put_text(&mut out, key);
        let kind = |out: &mut Vec<u8>, kind: u32| out.extend(kind.to_le_bytes());
        match value {
            GgufValue::Int(v) => {
                kind(&mut out, 4);
                out.extend((*v as u32).to_le_bytes());
            }
            GgufValue::Float(v) => {
                kind(&mut out, 6);
                out.extend((*v as f32).to_le_bytes());
            }
            GgufValue::Bool(v) => {
                kind(&mut out, 7);
                out.push(u8::from(*v));
            }
            GgufValue::Text(text) => {
                kind(&mut out, 8);
                put_text(&mut out, text);
            }
            GgufValue::Texts(texts) => {
                kind(&mut out, 9);
                kind(&mut out, 8);
                out.extend((texts.len() as u64).to_le_bytes());
                texts.iter().for_each(|text| put_text(&mut out, text));
            }
            GgufValue::Ints(values) => {
                kind(&mut out, 9);
                kind(&mut out, 5);
                out.extend((values.len() as u64).to_le_bytes());
                values.iter().for_each(|v| out.extend((*v as i32).to_le_bytes()));
            }
            GgufValue::Skipped => unreachable!("only what was read can be skipped"),
        }
    }
    let mut offset = 0u64;
    for (name, shape, dtype) in table {
        put_text(&mut out, name);
        out.extend((shape.len() as u32).to_le_bytes());
        // The fastest dimension first.
        shape.iter().rev().for_each(|d| out.extend((*d as u64).to_le_bytes()));
        out.extend(type_number(*dtype).to_le_bytes());
        out.extend(offset.to_le_bytes());
        let bytes = shape.iter().product::<usize>() / dtype.block_size() * dtype.type_size();
        offset += bytes.next_multiple_of(ALIGNMENT) as u64;
    }
    out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
    out
}

fn write_padded(out: &mut dyn Write, raw: &[u8]) -> std::io::Result<()> {
    out.write_all(raw)?;
    out.write_all(&[0; ALIGNMENT][..raw.len().next_multiple_of(ALIGNMENT) - raw.len()])
}

fn encode(values: Vec<f32>, dtype: GgmlDType) -> candle_core::Result<Vec<u8>> {
    Ok(match dtype {
        GgmlDType::F32 => values.into_iter().flat_map(f32::to_le_bytes).collect(),
        GgmlDType::F16 => values.into_iter().flat_map(|v| f16::from_f32(v).to_le_bytes()).collect(),
        GgmlDType::BF16 => values.into_iter().flat_map(|v| bf16::from_f32(v).to_le_bytes()).collect(),
        // Blocks do not cross rows, whose length they divide.
        _ => {
            let count = values.len();
            QTensor::quantize(&Tensor::from_vec(values, count, &Device::Cpu)?, dtype)?.data()?.into_owned()
        }
    })
}
