//! A GGUF file as a checkpoint: metadata to [`ModelConfig`], GGUF tensor names to Hugging Face names, and
//! dequantisation (candle's, block by block). Files of the `llama` architecture hold the rows of q and k in
//! the order of interleaved rotary pairs; here they are put back into the order of halves.

use aha_kernels::quant::QuantRows;
use candle_core::Device;
use candle_core::quantized::GgmlDType;
use candle_core::quantized::ggml_file::qtensor_from_ggml;
use std::path::Path;

use super::gguf_blocks;
use super::gguf_header::{Gguf, GgufTensor, tensor_bytes};
use super::safetensors::{converter, read_chunks};
use crate::config::{Arch, Head, ModelConfig, RopeScaling};
use crate::error::{Error, Result};

/// A GGUF file and which of its matrices is the embedding.
#[derive(Debug)]
pub(super) struct Store {
    gguf: Gguf,
    tied: bool,
}

const EMBED: &str = "token_embd.weight";
const OUTPUT: &str = "output.weight";
/// Llama 3.1 files keep the rotary scaling as a divisor per frequency.
pub(super) const ROPE_FREQS: &str = "rope_freqs.weight";
/// Control tokens that end a turn or a document in the families read here.
const END_TOKENS: [&str; 6] =
    ["<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<｜end▁of▁sentence｜>"];

impl Store {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let gguf = Gguf::open(path)?;
        let mut store = Store { gguf, tied: true };
        store.tied = store.output_is_embedding()?;
        Ok(store)
    }

    pub(super) fn header(&self) -> &Gguf {
        &self.gguf
    }

    fn bad(&self, problem: impl Into<String>) -> Error {
        Error::format(self.gguf.path(), problem)
    }

    fn tensor(&self, name: &str) -> Option<&GgufTensor> {
        self.gguf.tensors.get(name)
    }

    /// Converters write an output matrix even where the model's is tied to the embedding, in another
    /// quantisation. Two roundings of one matrix point the same way (cosine above 0.95 over 64 rows);
    /// separately trained ones do not.
    fn output_is_embedding(&self) -> Result<bool> {
        let (Some(embed), Some(output)) = (self.tensor(EMBED), self.tensor(OUTPUT)) else {
            return Ok(true);
        };
        let &[rows, width] = embed.shape.as_slice() else {
            return Ok(false);
        };
        if embed.shape != output.shape || rows == 0 || width == 0 {
            return Ok(false);
        }
        let (mut dot, mut a2, mut b2) = (0f64, 0f64, 0f64);
        for i in 0..rows.min(64) {
            let row = i * rows / rows.min(64);
            let a = self.read_range(embed, row * width, width)?;
            let b = self.read_range(output, row * width, width)?;
            for (&a, &b) in a.iter().zip(&b) {
                let (a, b) = (f64::from(a), f64::from(b));
                dot += a * b;
                a2 += a * a;
                b2 += b * b;
            }
        }
        Ok(dot > 0.95 * (a2 * b2).sqrt())
    }

    /// The configuration that the metadata and the tensor table describe.
    pub(super) fn config(&self) -> Result<ModelConfig> {
        let g = &self.gguf;
        let name = g.text("general.architecture").ok_or_else(|| self.bad("metadata has no general.architecture"))?;
        let arch = Arch::from_model_type(name).map_err(|_| {
            self.bad(format!("architecture \"{name}\" is not supported; supported are llama, qwen2 and qwen3"))
        })?;
        let key = |suffix: &str| format!("{name}.{suffix}");
        let size = |suffix: &str| {
            g.unsigned(&key(suffix))
                .map(|n| n as usize)
                .ok_or_else(|| self.bad(format!("metadata has no {}", key(suffix))))
        };
        if g.unsigned(&key("expert_count")).unwrap_or(0) > 0 {
            return Err(self.bad("mixture-of-experts models are not supported"));
        }
        if g.unsigned(&key("attention.sliding_window")).unwrap_or(0) > 0 {
            return Err(self.bad("sliding-window attention is not supported"));
        }
        let hidden_size = size("embedding_length")?;
        let heads = size("attention.head_count")?;
        let head_dim = match g.unsigned(&key("attention.key_length")) {
            Some(width) => width as usize,
            None if heads > 0 && hidden_size.is_multiple_of(heads) => hidden_size / heads,
            None => {
                return Err(self.bad(format!("embedding_length {hidden_size} is not a multiple of head_count {heads}")));
            }
        };
        if let Some(rotated) = g.unsigned(&key("rope.dimension_count"))
            && rotated as usize != head_dim
        {
            return Err(self.bad(format!(
                "rope.dimension_count is {rotated} of a head width of {head_dim}; partial rotary embedding is not supported"
            )));
        }
        let rope_theta = g.float(&key("rope.freq_base")).unwrap_or(10_000.0);
        let embed = self.tensor(EMBED).ok_or_else(|| self.bad(format!("no tensor {EMBED}")))?;
        let bos = g.unsigned("tokenizer.ggml.bos_token_id").map(|id| id as u32);
        let mut config = ModelConfig {
            arch,
            vocab_size: embed.shape.first().copied().unwrap_or(0),
            hidden_size,
            intermediate_size: size("feed_forward_length")?,
            num_hidden_layers: size("block_count")?,
            num_attention_heads: heads,
            num_key_value_heads: g.unsigned(&key("attention.head_count_kv")).map_or(heads, |n| n as usize),
            head_dim,
            rms_norm_eps: g.float(&key("attention.layer_norm_rms_epsilon")).unwrap_or(1e-6) as f32,
            rope_theta,
            rope_scaling: RopeScaling::None,
            tie_word_embeddings: self.tied,
            attention_bias: self.tensor("blk.0.attn_q.bias").is_some(),
            attention_out_bias: self.tensor("blk.0.attn_output.bias").is_some(),
            mlp_bias: self.tensor("blk.0.ffn_up.bias").is_some(),
            qk_norm: arch == Arch::Qwen3,
            max_position_embeddings: size("context_length")?,
            initializer_range: 0.02,
            bos_token_id: bos,
            eos_token_ids: self.end_tokens(),
            torch_dtype: None,
            deepseek: None,
            head: Head::default(),
        };
        if arch == Arch::Qwen2 && !config.attention_bias {
            return Err(self.bad("a qwen2 file without blk.0.attn_q.bias"));
        }
        let in_file = |e: Error| match e {
            Error::Config(problem) => self.bad(problem),
            other => other,
        };
        config.check().map_err(in_file)?;
        config.rope_scaling = self.rope_scaling(&config, name)?;
        config.check().map_err(in_file)?;
        Ok(config)
    }

    /// The eos and end-of-turn ids of the metadata, then other control tokens known to end a generation.
    fn end_tokens(&self) -> Vec<u32> {
        let mut ids: Vec<u32> = ["eos_token_id", "eot_token_id", "eom_token_id"]
            .iter()
            .filter_map(|k| self.gguf.unsigned(&format!("tokenizer.ggml.{k}")))
            .map(|id| id as u32)
            .collect();
        let tokens = self.gguf.texts("tokenizer.ggml.tokens").unwrap_or(&[]);
        let kinds = self.gguf.ints("tokenizer.ggml.token_type").unwrap_or(&[]);
        for (id, (token, &kind)) in tokens.iter().zip(kinds).enumerate() {
            if kind == crate::tokenizer::GGUF_CONTROL && END_TOKENS.contains(&token.as_str()) {
                ids.push(id as u32);
            }
        }
        let mut seen = std::collections::HashSet::new();
        ids.retain(|id| seen.insert(*id));
        ids
    }

    fn rope_scaling(&self, config: &ModelConfig, arch: &str) -> Result<RopeScaling> {
        let key = |suffix: &str| format!("{arch}.rope.scaling.{suffix}");
        if let Some(divisors) = self.tensor(ROPE_FREQS) {
            let count = divisors.shape.iter().product();
            let divisors = self.read_range(divisors, 0, count)?;
            return llama3_scaling(config, &divisors)
                .ok_or_else(|| self.bad(format!("{ROPE_FREQS} is not the rotary scaling of Llama 3")));
        }
        match self.gguf.text(&key("type")).unwrap_or("none") {
            "none" => Ok(RopeScaling::None),
            "linear" => {
                let factor = self
                    .gguf
                    .float(&key("factor"))
                    .ok_or_else(|| self.bad(format!("metadata has no {}", key("factor"))))?;
                Ok(RopeScaling::Linear { factor })
            }
            other => {
                Err(self
                    .bad(format!("rope scaling \"{other}\" is not supported; supported are none, linear and llama3")))
            }
        }
    }

    /// The tensor that holds a Hugging Face tensor's values.
    fn find(&self, name: &str) -> Option<&GgufTensor> {
        let found = self.tensor(&gguf_name(name)?);
        if name != "model.embed_tokens.weight" || !self.tied {
            return found;
        }
        // Of two copies of the tied matrix, the one with more bits per weight.
        let bits = |t: &GgufTensor| t.dtype.type_size() * 1024 / t.dtype.block_size();
        match (found, self.tensor(OUTPUT)) {
            (Some(e), Some(o)) if bits(o) > bits(e) => Some(o),
            _ => found,
        }
    }

    pub(super) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.find(name).map(|t| t.shape.as_slice())
    }

    pub(super) fn unexpected(&self, config: &ModelConfig) -> Vec<String> {
        let used: std::collections::HashSet<String> = config
            .tensors()
            .iter()
            .filter_map(|t| gguf_name(&t.name))
            .chain([OUTPUT.to_owned(), ROPE_FREQS.to_owned()])
            .collect();
        let all = self.gguf.tensors.keys();
        all.filter(|n| !used.contains(*n)).cloned().collect()
    }

    /// The values under a Hugging Face name (one that [`Store::shape`] knows).
    pub(super) fn read(&self, name: &str, config: &ModelConfig) -> Result<Vec<f32>> {
        let tensor = self.find(name).ok_or_else(|| self.bad(format!("no tensor for {name}")))?;
        let values = self.read_range(tensor, 0, tensor.shape.iter().product())?;
        Ok(match rotated_heads(name, config) {
            Some(heads) => pairs_to_halves(&values, heads, config.head_dim),
            None => values,
        })
    }

    /// A matrix as the whole numbers it is stored as; `None` for a type that is not taken apart here.
    pub(super) fn read_quantized(&self, name: &str, config: &ModelConfig) -> Result<Option<QuantRows>> {
        let tensor = self.find(name).ok_or_else(|| self.bad(format!("no tensor for {name}")))?;
        let &[n, k] = tensor.shape.as_slice() else { return Ok(None) };
        if !gguf_blocks::supported(tensor.dtype) {
            return Ok(None);
        }
        let mut raw = Vec::with_capacity(n * k / tensor.dtype.block_size() * tensor.dtype.type_size());
        let bytes = raw.capacity() as u64;
        read_chunks(self.gguf.path(), &self.gguf.file, tensor.start, bytes, |part| raw.extend_from_slice(part))?;
        let mut rows = gguf_blocks::rows(tensor.dtype, &raw, n, k);
        if let Some(heads) = rotated_heads(name, config) {
            rows.q = pairs_to_halves(&rows.q, heads, config.head_dim);
            rows.d = pairs_to_halves(&rows.d, heads, config.head_dim);
            rows.m = pairs_to_halves(&rows.m, heads, config.head_dim);
        }
        Ok(Some(rows))
    }

    /// `count` values from element `from` on; both are whole blocks.
    fn read_range(&self, tensor: &GgufTensor, from: usize, count: usize) -> Result<Vec<f32>> {
        let whole = tensor_bytes(tensor).unwrap_or(0);
        let (block, bytes) = (tensor.dtype.block_size(), tensor.dtype.type_size());
        let start = tensor.start + (from / block * bytes) as u64;
        let length = (count / block * bytes) as u64;
        debug_assert!(start - tensor.start + length <= whole);
        let (path, file) = (self.gguf.path(), &self.gguf.file);
        let mut values = Vec::with_capacity(count);
        let plain = match tensor.dtype {
            GgmlDType::F32 => Some("F32"),
            GgmlDType::F16 => Some("F16"),
            GgmlDType::BF16 => Some("BF16"),
            _ => None,
        };
        if let Some(convert) = plain.and_then(converter) {
            read_chunks(path, file, start, length, |raw| convert(raw, &mut values))?;
            return Ok(values);
        }
        let mut done = 0;
        while done < count {
            let piece = (count - done).min(1 << 20);
            let at = start + (done / block * bytes) as u64;
            let mut raw = Vec::with_capacity(piece / block * bytes);
            read_chunks(path, file, at, (piece / block * bytes) as u64, |part| {
                raw.extend_from_slice(part);
            })?;
            let decoded = qtensor_from_ggml(tensor.dtype, &raw, vec![piece], &Device::Cpu)
                .and_then(|q| q.dequantize(&Device::Cpu))
                .and_then(|t| t.to_vec1::<f32>())
                .map_err(|e| self.bad(format!("cannot dequantise {:?}: {e}", tensor.dtype)))?;
            values.extend_from_slice(&decoded);
            done += piece;
        }
        Ok(values)
    }
}

/// Heads of a matrix whose rows the `llama` architecture keeps in the order of rotary pairs.
pub(super) fn rotated_heads(name: &str, config: &ModelConfig) -> Option<usize> {
    match name {
        _ if config.arch != Arch::Llama => None,
        n if n.contains(".q_proj.") => Some(config.num_attention_heads),
        n if n.contains(".k_proj.") => Some(config.num_key_value_heads),
        _ => None,
    }
}

/// Rows of `heads` heads of width H, each head's rows ordered (pair, member), into (member, pair): row
/// `2 i + j` of a head becomes row `j H/2 + i`.
fn pairs_to_halves<T: Copy>(values: &[T], heads: usize, head_dim: usize) -> Vec<T> {
    let width = values.len() / (heads * head_dim);
    let mut out = Vec::with_capacity(values.len());
    for head in 0..heads {
        for member in 0..2 {
            for pair in 0..head_dim / 2 {
                let row = head * head_dim + 2 * pair + member;
                out.extend_from_slice(&values[row * width..(row + 1) * width]);
            }
        }
    }
    out
}

/// The other way, as converters write them.
pub(super) fn halves_to_pairs(values: &[f32], heads: usize, head_dim: usize) -> Vec<f32> {
    let width = values.len() / (heads * head_dim);
    let mut out = Vec::with_capacity(values.len());
    for head in 0..heads {
        for pair in 0..head_dim / 2 {
            for member in 0..2 {
                let row = head * head_dim + member * head_dim / 2 + pair;
                out.extend_from_slice(&values[row * width..(row + 1) * width]);
            }
        }
    }
    out
}

/// The Llama 3 scaling whose divisors these are, if they are: the published ones differ only in `factor`.
fn llama3_scaling(config: &ModelConfig, divisors: &[f32]) -> Option<RopeScaling> {
    let factor = divisors.iter().copied().fold(1.0, f32::max);
    let scaling = RopeScaling::Llama3 {
        factor: f64::from(factor),
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 8192,
    };
    let plain = ModelConfig { rope_scaling: RopeScaling::None, ..config.clone() }.inv_freq();
    let scaled = ModelConfig { rope_scaling: scaling, ..config.clone() }.inv_freq();
    let same = divisors.len() == plain.len()
        && plain.iter().zip(&scaled).zip(divisors).all(|((p, s), d)| (p / s - d).abs() <= 1e-3 * d.abs());
    same.then_some(scaling)
}

/// The GGUF name of a Hugging Face tensor.
pub(super) fn gguf_name(name: &str) -> Option<String> {
    match name {
        "model.embed_tokens.weight" => return Some(EMBED.into()),
        "model.norm.weight" => return Some("output_norm.weight".into()),
        "lm_head.weight" => return Some(OUTPUT.into()),
        _ => {}
    }
    let (layer, rest) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let (module, kind) = rest.rsplit_once('.')?;
    let module = match module {
        "input_layernorm" => "attn_norm",
        "self_attn.q_proj" => "attn_q",
        "self_attn.k_proj" => "attn_k",
        "self_attn.v_proj" => "attn_v",
        "self_attn.o_proj" => "attn_output",
        "self_attn.q_norm" => "attn_q_norm",
        "self_attn.k_norm" => "attn_k_norm",
        "post_attention_layernorm" => "ffn_norm",
        "mlp.gate_proj" => "ffn_gate",
        "mlp.up_proj" => "ffn_up",
        "mlp.down_proj" => "ffn_down",
        _ => return None,
    };
    Some(format!("blk.{layer}.{module}.{kind}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permutation_is_undone() {
        assert_eq!(pairs_to_halves(&[0f32, 1., 2., 3., 4., 5.], 1, 6), [0., 2., 4., 1., 3., 5.]);
        let rows: Vec<f32> = (0..24).map(|i| i as f32).collect();
        assert_eq!(pairs_to_halves(&halves_to_pairs(&rows, 3, 8), 3, 8), rows);
        // The converter's `reshape(heads, 2, H/2).swapaxes(1, 2)`.
        assert_eq!(halves_to_pairs(&[0f32, 2., 4., 1., 3., 5.], 1, 6), [0., 1., 2., 3., 4., 5.]);
        // Whole rows move together.
        assert_eq!(
            pairs_to_halves(&[0f32, 0.5, 1., 1.5, 2., 2.5, 3., 3.5], 1, 4),
            [0., 0.5, 2., 2.5, 1., 1.5, 3., 3.5]
        );
    }

    #[test]
    fn names_map() {
        assert_eq!(gguf_name("model.layers.12.self_attn.k_proj.bias").as_deref(), Some("blk.12.attn_k.bias"));
        assert_eq!(gguf_name("model.layers.12.rotary.inv_freq"), None);
    }
}
