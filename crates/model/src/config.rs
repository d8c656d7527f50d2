//! What a decoder looks like: the fields of a Hugging Face `config.json` that decide shapes and arithmetic,
//! the list of its tensors, and its rotary frequencies. Llama, Qwen2 (2.5) and Qwen3, dense; DeepSeek-V3 in `config/deepseek.rs`.
//! Reading and writing the JSON is in `config/json.rs`.
//! Rotary scaling follows `modeling_rope_utils` of transformers (f32, the same order of operations).

mod deepseek;
pub(crate) mod json;

pub use deepseek::{DeepseekConfig, LATENT_NORM_EPS};

use crate::error::{Error, Result};

/// The decoder families; they differ in biases and in the norms on queries and keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Arch {
    /// Llama 1, 2, 3: no biases unless the config asks for them.
    Llama,
    /// Qwen2 and Qwen2.5: biases on q, k and v.
    Qwen2,
    /// Qwen3: RMSNorm per head on queries and keys, explicit head width.
    Qwen3,
    /// DeepSeek-V3 and R1: latent attention, routed experts (see [`DeepseekConfig`]).
    DeepseekV3,
}

impl Arch {
    /// The `model_type` of `config.json`, which is also the architecture name in GGUF.
    pub fn model_type(self) -> &'static str {
        match self {
            Arch::Llama => "llama",
            Arch::Qwen2 => "qwen2",
            Arch::Qwen3 => "qwen3",
            Arch::DeepseekV3 => "deepseek_v3",
        }
    }

    /// The transformers class that loads it with this head.
    pub fn architecture(self, head: Head) -> String {
        let family = match self {
            Arch::Llama => "Llama",
            Arch::Qwen2 => "Qwen2",
            Arch::Qwen3 => "Qwen3",
            Arch::DeepseekV3 => "DeepseekV3",
        };
        let class = match head {
            Head::Vocabulary => "CausalLM",
            Head::Score => "SequenceClassification",
        };
        format!("{family}For{class}")
    }

    /// The inverse of [`Arch::model_type`]; the error names the supported ones.
    pub fn from_model_type(name: &str) -> Result<Self> {
        let all = [Arch::Llama, Arch::Qwen2, Arch::Qwen3, Arch::DeepseekV3];
        all.into_iter().find(|a| a.model_type() == name).ok_or_else(|| {
            let known = "supported are llama, qwen2, qwen3 and deepseek_v3";
            Error::Config(format!("model_type \"{name}\" is not supported; {known}"))
        })
    }
}

/// What reads the last hidden states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Head {
    /// The output matrix: a language model.
    #[default]
    Vocabulary,
    /// One number, `score.weight`: a reward model, in transformers sequence classification with one label.
    Score,
}

/// Name of the weight of [`Head::Score`].
pub const SCORE: &str = "score.weight";

/// How rotary frequencies are stretched for contexts longer than the trained one.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum RopeScaling {
    /// Plain rotary embedding.
    #[default]
    None,
    /// Every frequency divided by `factor`.
    Linear {
        /// Stretch, above 0.
        factor: f64,
    },
    /// Llama 3.1: long wavelengths divided by `factor`, short ones kept, a ramp between.
    Llama3 {
        /// Stretch of the long wavelengths.
        factor: f64,
        /// Wavelengths above `original / low_freq_factor` are stretched in full.
        low_freq_factor: f64,
        /// Wavelengths below `original / high_freq_factor` are kept.
        high_freq_factor: f64,
        /// Context length of pretraining.
        original_max_position_embeddings: usize,
    },
    /// YaRN as DeepSeek-V3 has it: short wavelengths kept, long ones divided by `factor`, scores made larger.
    Yarn {
        /// Stretch of the long wavelengths.
        factor: f64,
        /// Dimensions that turn more often than this within the original length are kept.
        beta_fast: f64,
        /// Dimensions that turn less often than this are stretched in full.
        beta_slow: f64,
        /// Weight of the magnitude factor on cosines and sines; 0 where it is not given.
        mscale: f64,
        /// Weight of the magnitude factor on scores; 0 where it is not given.
        mscale_all_dim: f64,
        /// Context length of pretraining.
        original_max_position_embeddings: usize,
    },
}

/// Name and shape of one parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Hugging Face name, for example `model.layers.0.self_attn.q_proj.weight`.
    pub name: String,
    /// Row-major shape; linear weights are `[out, in]`.
    pub shape: Vec<usize>,
}

impl TensorSpec {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// True for a tensor with no elements (a valid config has none).
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A decoder's configuration, complete and checked (see [`ModelConfig::check`]).
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Family.
    pub arch: Arch,
    /// V: rows of the embedding, which may exceed the tokenizer's size (padding).
    pub vocab_size: usize,
    /// D: width of the residual stream.
    pub hidden_size: usize,
    /// Width of the gated MLP.
    pub intermediate_size: usize,
    /// Number of decoder layers.
    pub num_hidden_layers: usize,
    /// N: query heads.
    pub num_attention_heads: usize,
    /// K: key/value heads; divides N.
    pub num_key_value_heads: usize,
    /// H: width of a head, even. N·H need not be D.
    pub head_dim: usize,
    /// Epsilon inside every RMSNorm.
    pub rms_norm_eps: f32,
    /// Rotary base.
    pub rope_theta: f64,
    /// Rotary scaling.
    pub rope_scaling: RopeScaling,
    /// Whether the output projection is the embedding (then there is no `lm_head.weight`).
    pub tie_word_embeddings: bool,
    /// Biases on q, k and v (always so in Qwen2).
    pub attention_bias: bool,
    /// Bias on the attention output projection (Llama and Qwen3 with `attention_bias: true`).
    pub attention_out_bias: bool,
    /// Biases in the MLP.
    pub mlp_bias: bool,
    /// RMSNorm of width H on queries and keys (Qwen3).
    pub qk_norm: bool,
    /// Longest sequence the model was made for, in tokens.
    pub max_position_embeddings: usize,
    /// Standard deviation of the initial weights.
    pub initializer_range: f64,
    /// Token that begins a sequence, if any.
    pub bos_token_id: Option<u32>,
    /// Tokens that end a generation (the union of config and generation config).
    pub eos_token_ids: Vec<u32>,
    /// The dtype the checkpoint says it was saved in ("bfloat16").
    pub torch_dtype: Option<String>,
    /// What DeepSeek-V3 has beyond a dense decoder; none for the other families. `head_dim` is the rotary width then.
    pub deepseek: Option<Box<DeepseekConfig>>,
    /// What reads the last hidden states.
    pub head: Head,
}

/// No dimension may exceed this, so that products of two of them times the layers fit in u64.
const MAX_DIM: usize = 1 << 24;
const MAX_LAYERS: usize = 4096;

impl ModelConfig {
    /// Checks that the fields fit together. [`ModelConfig::from_json`] has done it already; call it on a
    /// configuration made by hand.
    ///
    /// # Errors
    /// [`Error::Config`] naming the first field that is wrong.
    pub fn check(&self) -> Result<()> {
        let fail = |message: String| Err(Error::Config(message));
        for (key, value) in [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads),
            ("head_dim", self.head_dim),
            ("max_position_embeddings", self.max_position_embeddings),
        ] {
            if value == 0 || (value > MAX_DIM && key != "max_position_embeddings") {
                return fail(format!("{key} is {value}; it must be 1 to {MAX_DIM}"));
            }
        }
        if self.num_hidden_layers == 0 || self.num_hidden_layers > MAX_LAYERS {
            return fail(format!("num_hidden_layers is {}; it must be 1 to {MAX_LAYERS}", self.num_hidden_layers));
        }
        if !self.num_attention_heads.is_multiple_of(self.num_key_value_heads) {
            return fail(format!(
                "num_attention_heads ({}) must be a multiple of num_key_value_heads ({})",
                self.num_attention_heads, self.num_key_value_heads
            ));
        }
        if !self.head_dim.is_multiple_of(2) {
            return fail(format!("head_dim is {}; rotary embedding needs an even one", self.head_dim));
        }
        if self.num_attention_heads.saturating_mul(self.head_dim) > MAX_DIM {
            return fail(format!("num_attention_heads x head_dim is above {MAX_DIM}"));
        }
        if !(self.rms_norm_eps.is_finite() && self.rms_norm_eps >= 0.0) {
            return fail(format!("rms_norm_eps is {}; it must be 0 or more", self.rms_norm_eps));
        }
        for (key, value) in [("rope_theta", self.rope_theta)].into_iter().chain(self.rope_scaling.numbers()) {
            if !(value.is_finite() && value > 0.0) {
                return fail(format!("{key} is {value}; it must be above 0"));
            }
        }
        if let RopeScaling::Llama3 { low_freq_factor, high_freq_factor, .. } = self.rope_scaling
            && low_freq_factor >= high_freq_factor
        {
            return fail(format!(
                "rope_scaling: high_freq_factor ({high_freq_factor}) must be above low_freq_factor ({low_freq_factor})"
            ));
        }
        match (&self.deepseek, self.arch) {
            (Some(deepseek), Arch::DeepseekV3) => deepseek.check(self)?,
            (None, Arch::DeepseekV3) => return fail("deepseek_v3 needs the widths of its latents and experts".into()),
            (Some(_), _) => return fail(format!("{} has no latents and experts", self.arch.model_type())),
            (None, _) if matches!(self.rope_scaling, RopeScaling::Yarn { .. }) => {
                return fail("rope type \"yarn\" is supported for deepseek_v3 only".into());
            }
            (None, _) => {}
        }
        for &id in self.bos_token_id.iter().chain(&self.eos_token_ids) {
            if id as usize >= self.vocab_size {
                return fail(format!("bos or eos token id {id} is outside the vocabulary of {}", self.vocab_size));
            }
        }
        Ok(())
    }

    /// The same decoder as a reward model: a score instead of the output matrix, and no prediction modules.
    pub fn with_score(&self) -> Self {
        let mut config = ModelConfig { head: Head::Score, ..self.clone() };
        if let Some(deepseek) = &mut config.deepseek {
            deepseek.num_nextn_predict_layers = 0;
        }
        config
    }

    /// Every parameter under its Hugging Face name, in a fixed order: embedding, layers, final norm, and
    /// `lm_head.weight` unless it is tied to the embedding; then prediction modules. A reward model has `score.weight` last
    /// and no output matrix.
    pub fn tensors(&self) -> Vec<TensorSpec> {
        let mut all = self.decoder_tensors();
        if self.head == Head::Score {
            all.retain(|t| t.name != "lm_head.weight");
            all.push(TensorSpec { name: SCORE.into(), shape: vec![1, self.hidden_size] });
        }
        all
    }

    fn decoder_tensors(&self) -> Vec<TensorSpec> {
        if let Some(deepseek) = &self.deepseek {
            return deepseek.tensors(self);
        }
        let (d, f, h) = (self.hidden_size, self.intermediate_size, self.head_dim);
        let q = self.num_attention_heads * h;
        let kv = self.num_key_value_heads * h;
        let mut all = Vec::with_capacity(self.num_hidden_layers * 14 + 3);
        let mut push = |name: String, shape: &[usize]| {
            all.push(TensorSpec { name, shape: shape.to_vec() });
        };
        push("model.embed_tokens.weight".into(), &[self.vocab_size, d]);
        for layer in 0..self.num_hidden_layers {
            let p = format!("model.layers.{layer}");
            push(format!("{p}.input_layernorm.weight"), &[d]);
            for (name, out) in [("q_proj", q), ("k_proj", kv), ("v_proj", kv)] {
                push(format!("{p}.self_attn.{name}.weight"), &[out, d]);
                if self.attention_bias {
                    push(format!("{p}.self_attn.{name}.bias"), &[out]);
                }
            }
            if self.qk_norm {
                push(format!("{p}.self_attn.q_norm.weight"), &[h]);
                push(format!("{p}.self_attn.k_norm.weight"), &[h]);
            }
            push(format!("{p}.self_attn.o_proj.weight"), &[d, q]);
            if self.attention_out_bias {
                push(format!("{p}.self_attn.o_proj.bias"), &[d]);
            }
            push(format!("{p}.post_attention_layernorm.weight"), &[d]);
            for (name, out, inp) in [("gate_proj", f, d), ("up_proj", f, d), ("down_proj", d, f)] {
                push(format!("{p}.mlp.{name}.weight"), &[out, inp]);
                if self.mlp_bias {
                    push(format!("{p}.mlp.{name}.bias"), &[out]);
                }
            }
        }
        push("model.norm.weight".into(), &[d]);
        if !self.tie_word_embeddings {
            push("lm_head.weight".into(), &[self.vocab_size, d]);
        }
        all
    }

    /// Number of parameters; a tied output projection counts once. Prediction modules and the biases of routers, which are
    /// not trained by gradients, do not count, as usual.
    pub fn num_parameters(&self) -> u64 {
        let counts = |t: &&TensorSpec| !is_correction_bias(&t.name) && !self.in_prediction_module(&t.name);
        self.tensors().iter().filter(counts).map(|t| t.len() as u64).sum()
    }

    /// Parameters that a token meets: all but the routed experts it does not go to.
    pub fn num_active_parameters(&self) -> u64 {
        let Some(c) = &self.deepseek else { return self.num_parameters() };
        let routed_layers = self.num_hidden_layers.saturating_sub(c.first_k_dense_replace) as u64;
        let expert = 3 * (self.hidden_size * c.moe_intermediate_size) as u64;
        self.num_parameters() - routed_layers * expert * (c.n_routed_experts - c.num_experts_per_tok) as u64
    }

    /// Whether a tensor belongs to a module that predicts further tokens.
    fn in_prediction_module(&self, name: &str) -> bool {
        let layer = name.strip_prefix("model.layers.").and_then(|rest| rest.split('.').next()?.parse::<usize>().ok());
        layer.is_some_and(|i| i >= self.num_hidden_layers)
    }

    /// Every tensor a checkpoint of this model is written with, and the parameter it is taken from: prediction modules
    /// repeat embedding and output matrix.
    pub fn saved_tensors(&self) -> Vec<(TensorSpec, String)> {
        let own = self.tensors().into_iter().map(|t| (t.clone(), t.name));
        let copies = self.deepseek.iter().flat_map(|d| d.shared_copies(self));
        own.chain(copies.map(|(t, of)| (t, of.to_owned()))).collect()
    }

    /// The H/2 rotary frequencies in radians per position, scaling applied. Every step is rounded to f32,
    /// as transformers does on the CPU (whose `pow` may differ in the last bit).
    pub fn inv_freq(&self) -> Vec<f32> {
        let dim = self.head_dim as f32;
        let base = f64::from(self.rope_theta as f32);
        let plain = (0..self.head_dim / 2).map(|i| {
            let exponent = (2 * i) as f32 / dim;
            1.0 / (base.powf(f64::from(exponent)) as f32)
        });
        if let RopeScaling::Yarn { factor, beta_fast, beta_slow, original_max_position_embeddings: old, .. } =
            self.rope_scaling
        {
            let plain: Vec<f32> = plain.collect();
            return deepseek::yarn(&plain, self.rope_theta, factor, (beta_fast, beta_slow), old);
        }
        plain.map(|f| self.rope_scaling.apply(f)).collect()
    }

    /// Factor on every cosine and sine: YaRN's, else 1.
    pub fn rope_factor(&self) -> f32 {
        deepseek::attention_factor(&self.rope_scaling)
    }
}

/// Whether a tensor is the bias of a router: moved by the balancing, never by a gradient, and kept in f32.
pub fn is_correction_bias(name: &str) -> bool {
    name.ends_with(".e_score_correction_bias")
}

impl RopeScaling {
    /// The numbers that must be above 0, with their keys.
    fn numbers(&self) -> Vec<(&'static str, f64)> {
        match *self {
            RopeScaling::None => vec![],
            RopeScaling::Linear { factor } => vec![("rope_scaling.factor", factor)],
            RopeScaling::Yarn { factor, beta_fast, beta_slow, original_max_position_embeddings: old, .. } => vec![
                ("rope_scaling.factor", factor),
                ("rope_scaling.beta_fast", beta_fast),
                ("rope_scaling.beta_slow", beta_slow),
                ("rope_scaling.original_max_position_embeddings", old as f64),
            ],
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => {
                vec![
                    ("rope_scaling.factor", factor),
                    ("rope_scaling.low_freq_factor", low_freq_factor),
                    ("rope_scaling.high_freq_factor", high_freq_factor),
                    ("rope_scaling.original_max_position_embeddings", original_max_position_embeddings as f64),
                ]
            }
        }
    }

    /// The scaled frequency of a plain one.
    fn apply(&self, inv_freq: f32) -> f32 {
        match *self {
            RopeScaling::None | RopeScaling::Yarn { .. } => inv_freq,
            RopeScaling::Linear { factor } => inv_freq / factor as f32,
            RopeScaling::Llama3 {
                factor,
                low_freq_factor: low,
                high_freq_factor: high,
                original_max_position_embeddings: old,
            } => {
                let old = old as f64;
                let wavelength = (2.0 * std::f64::consts::PI) as f32 / inv_freq;
                if wavelength > (old / low) as f32 {
                    inv_freq / factor as f32
                } else if wavelength < (old / high) as f32 {
                    inv_freq
                } else {
                    let smooth = (old as f32 / wavelength - low as f32) / (high - low) as f32;
                    (1.0 - smooth) * inv_freq / factor as f32 + smooth * inv_freq
                }
            }
        }
    }
}
