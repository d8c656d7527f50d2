//! What DeepSeek-V3 has beyond a dense decoder: latent attention, routed experts, modules that predict further tokens.
//! Field names are those of its `config.json`; shapes and names of the tensors follow the released checkpoints.

use super::json::Keys;
use super::{ModelConfig, RopeScaling, TensorSpec};
use crate::error::{Error, Result};
use serde::Serialize;
use serde_json::{Map, Value};

/// The fields of `model_type` "deepseek_v3" that a dense decoder does not have.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DeepseekConfig {
    /// Width of the compressed queries; none where queries are projected at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub q_lora_rank: Option<usize>,
    /// Width of the latent that keys and values are made from.
    pub kv_lora_rank: usize,
    /// Width of a head's query and key without position.
    pub qk_nope_head_dim: usize,
    /// Width of the rotated part of queries and of the key that all heads share, even.
    pub qk_rope_head_dim: usize,
    /// Width of a head's value.
    pub v_head_dim: usize,
    /// Whether rotary pairs are neighbours (2i, 2i + 1).
    pub rope_interleave: bool,
    /// Leading layers with a dense MLP of `intermediate_size`.
    pub first_k_dense_replace: usize,
    /// Width of a routed expert; the shared ones together have `n_shared_experts` times that.
    pub moe_intermediate_size: usize,
    /// Experts a token may be routed to.
    pub n_routed_experts: usize,
    /// Experts every token goes through.
    pub n_shared_experts: usize,
    /// Routed experts of a token.
    pub num_experts_per_tok: usize,
    /// Groups of experts.
    pub n_group: usize,
    /// Groups a token may choose from.
    pub topk_group: usize,
    /// Factor on the weights of routed experts.
    pub routed_scaling_factor: f64,
    /// Whether the weights of a token's experts are divided by their sum.
    pub norm_topk_prob: bool,
    /// Modules that predict one more token each (multi-token prediction).
    pub num_nextn_predict_layers: usize,
}

/// Epsilon of the norms on latents, which is not configurable in the released code.
pub const LATENT_NORM_EPS: f32 = 1e-6;

impl DeepseekConfig {
    /// Reads the fields; `head_dim` of the model is the rotary width.
    pub(super) fn from_json(json: &Keys) -> Result<Self> {
        let fail = |message: String| Err(Error::Config(message));
        for (key, only) in [("scoring_func", "sigmoid"), ("topk_method", "noaux_tc")] {
            let found = json.text(key)?.unwrap_or(only);
            if found != only {
                return fail(format!(
                    "{key} \"{found}\" is not supported; only {only} is (DeepSeek-V3 and R1 have it)"
                ));
            }
        }
        if json.flag("attention_bias")?.unwrap_or(false) {
            return fail("attention_bias is not supported for deepseek_v3".into());
        }
        if let Some(n) = json.size("moe_layer_freq")?.filter(|n| *n != 1) {
            return fail(format!("moe_layer_freq {n} is not supported; only 1 is"));
        }
        let size = |key| json.required_size(key);
        let heads = size("num_attention_heads")?;
        if let Some(kv) = json.size("num_key_value_heads")?.filter(|kv| *kv != heads) {
            return fail(format!("num_key_value_heads is {kv}; latent attention has as many as query heads ({heads})"));
        }
        Ok(DeepseekConfig {
            q_lora_rank: json.size("q_lora_rank")?,
            kv_lora_rank: size("kv_lora_rank")?,
            qk_nope_head_dim: size("qk_nope_head_dim")?,
            qk_rope_head_dim: size("qk_rope_head_dim")?,
            v_head_dim: size("v_head_dim")?,
            rope_interleave: json.flag("rope_interleave")?.unwrap_or(true),
            first_k_dense_replace: json.size("first_k_dense_replace")?.unwrap_or(0),
            moe_intermediate_size: size("moe_intermediate_size")?,
            n_routed_experts: size("n_routed_experts")?,
            n_shared_experts: size("n_shared_experts")?,
            num_experts_per_tok: size("num_experts_per_tok")?,
            n_group: json.size("n_group")?.unwrap_or(1),
            topk_group: json.size("topk_group")?.unwrap_or(1),
            routed_scaling_factor: json.number("routed_scaling_factor")?.unwrap_or(1.0),
            norm_topk_prob: json.flag("norm_topk_prob")?.unwrap_or(true),
            num_nextn_predict_layers: json.size("num_nextn_predict_layers")?.unwrap_or(0),
        })
    }

    /// Adds the fields to a `config.json`.
    pub(super) fn write(&self, map: &mut Map<String, Value>) {
        let mut put = |key: &str, value: Value| map.insert(key.into(), value);
        put("q_lora_rank", self.q_lora_rank.into());
        put("rope_interleave", self.rope_interleave.into());
        put("norm_topk_prob", self.norm_topk_prob.into());
        put("routed_scaling_factor", self.routed_scaling_factor.into());
        put("scoring_func", "sigmoid".into());
        put("topk_method", "noaux_tc".into());
        put("moe_layer_freq", 1.into());
        put("ep_size", 1.into());
        for (key, value) in self.sizes() {
            put(key, value.into());
        }
    }

    /// Every size but the optional one, by its key.
    fn sizes(&self) -> [(&'static str, usize); 12] {
        [
            ("kv_lora_rank", self.kv_lora_rank),
            ("qk_nope_head_dim", self.qk_nope_head_dim),
            ("qk_rope_head_dim", self.qk_rope_head_dim),
            ("v_head_dim", self.v_head_dim),
            ("moe_intermediate_size", self.moe_intermediate_size),
            ("n_routed_experts", self.n_routed_experts),
            ("n_shared_experts", self.n_shared_experts),
            ("num_experts_per_tok", self.num_experts_per_tok),
            ("n_group", self.n_group),
            ("topk_group", self.topk_group),
            ("first_k_dense_replace", self.first_k_dense_replace),
            ("num_nextn_predict_layers", self.num_nextn_predict_layers),
        ]
    }

    /// Checks that the fields fit together.
    pub(super) fn check(&self, config: &ModelConfig) -> Result<()> {
        let fail = |message: String| Err(Error::Config(message));
        let needed = self.sizes().into_iter().take(10).chain(self.q_lora_rank.map(|n| ("q_lora_rank", n)));
        if let Some((key, value)) = needed.into_iter().find(|(_, v)| *v == 0 || *v > super::MAX_DIM) {
            return fail(format!("{key} is {value}; it must be 1 to {}", super::MAX_DIM));
        }
        if config.head_dim != self.qk_rope_head_dim {
            return fail(format!(
                "head_dim is {}; it must be qk_rope_head_dim ({})",
                config.head_dim, self.qk_rope_head_dim
            ));
        }
        if self.num_nextn_predict_layers > 16 {
            return fail(format!("num_nextn_predict_layers is {}; it must be 0 to 16", self.num_nextn_predict_layers));
        }
        let (experts, groups) = (self.n_routed_experts, self.n_group);
        if !experts.is_multiple_of(groups) || groups > 1 && experts / groups < 2 {
            return fail(format!("n_routed_experts ({experts}) must be n_group ({groups}) groups of at least 2"));
        }
        if self.topk_group > groups {
            return fail(format!("topk_group ({}) is above n_group ({groups})", self.topk_group));
        }
        let open = self.topk_group * (experts / groups);
        if self.num_experts_per_tok > open {
            return fail(format!(
                "num_experts_per_tok is {}; topk_group leaves {open} experts",
                self.num_experts_per_tok
            ));
        }
        if !(self.routed_scaling_factor.is_finite() && self.routed_scaling_factor > 0.0) {
            return fail(format!("routed_scaling_factor is {}; it must be above 0", self.routed_scaling_factor));
        }
        Ok(())
    }

    /// Factor on the attention scores: the width of a head, and YaRN's mscale squared.
    pub fn softmax_scale(&self, rope: &RopeScaling) -> f32 {
        let width = (self.qk_nope_head_dim + self.qk_rope_head_dim) as f64;
        let mscale = match rope {
            RopeScaling::Yarn { factor, mscale_all_dim, .. } if *mscale_all_dim > 0.0 => {
                mscale(*factor, *mscale_all_dim)
            }
            _ => 1.0,
        };
        (width.powf(-0.5) * mscale * mscale) as f32
    }

    /// Tensors of layer `i`'s block, under `model.layers.i`; layers from `num_hidden_layers` on are prediction modules.
    fn block(&self, c: &ModelConfig, i: usize, push: &mut impl FnMut(String, &[usize])) {
        let (d, n, p) = (c.hidden_size, c.num_attention_heads, format!("model.layers.{i}"));
        let query = n * (self.qk_nope_head_dim + self.qk_rope_head_dim);
        push(format!("{p}.input_layernorm.weight"), &[d]);
        match self.q_lora_rank {
            Some(rank) => {
                push(format!("{p}.self_attn.q_a_proj.weight"), &[rank, d]);
                push(format!("{p}.self_attn.q_a_layernorm.weight"), &[rank]);
                push(format!("{p}.self_attn.q_b_proj.weight"), &[query, rank]);
            }
            None => push(format!("{p}.self_attn.q_proj.weight"), &[query, d]),
        }
        push(format!("{p}.self_attn.kv_a_proj_with_mqa.weight"), &[self.kv_lora_rank + self.qk_rope_head_dim, d]);
        push(format!("{p}.self_attn.kv_a_layernorm.weight"), &[self.kv_lora_rank]);
        let up = n * (self.qk_nope_head_dim + self.v_head_dim);
        push(format!("{p}.self_attn.kv_b_proj.weight"), &[up, self.kv_lora_rank]);
        push(format!("{p}.self_attn.o_proj.weight"), &[d, n * self.v_head_dim]);
        push(format!("{p}.post_attention_layernorm.weight"), &[d]);
        let mut mlp = |name: String, f: usize| {
            for (part, shape) in [("gate_proj", [f, d]), ("up_proj", [f, d]), ("down_proj", [d, f])] {
                push(format!("{name}.{part}.weight"), &shape);
            }
        };
        if i < self.first_k_dense_replace {
            return mlp(format!("{p}.mlp"), c.intermediate_size);
        }
        mlp(format!("{p}.mlp.shared_experts"), self.moe_intermediate_size * self.n_shared_experts);
        for e in 0..self.n_routed_experts {
            mlp(format!("{p}.mlp.experts.{e}"), self.moe_intermediate_size);
        }
        push(format!("{p}.mlp.gate.weight"), &[self.n_routed_experts, d]);
        push(format!("{p}.mlp.gate.e_score_correction_bias"), &[self.n_routed_experts]);
    }

    /// Every tensor of the model, prediction modules last, without their copies of embedding and output matrix.
    pub(super) fn tensors(&self, c: &ModelConfig) -> Vec<TensorSpec> {
        let mut all = Vec::new();
        let mut push = |name: String, shape: &[usize]| all.push(TensorSpec { name, shape: shape.to_vec() });
        let d = c.hidden_size;
        push("model.embed_tokens.weight".into(), &[c.vocab_size, d]);
        for i in 0..c.num_hidden_layers {
            self.block(c, i, &mut push);
        }
        push("model.norm.weight".into(), &[d]);
        if !c.tie_word_embeddings {
            push("lm_head.weight".into(), &[c.vocab_size, d]);
        }
        for i in c.num_hidden_layers..c.num_hidden_layers + self.num_nextn_predict_layers {
            for norm in ["enorm", "hnorm", "shared_head.norm"] {
                push(format!("model.layers.{i}.{norm}.weight"), &[d]);
            }
            push(format!("model.layers.{i}.eh_proj.weight"), &[d, 2 * d]);
            self.block(c, i, &mut push);
        }
        all
    }

    /// Tensors that a released checkpoint repeats for every prediction module, and the ones they are copies of.
    pub fn shared_copies(&self, c: &ModelConfig) -> Vec<(TensorSpec, &'static str)> {
        let embedding = "model.embed_tokens.weight";
        let head = if c.tie_word_embeddings { embedding } else { "lm_head.weight" };
        (c.num_hidden_layers..c.num_hidden_layers + self.num_nextn_predict_layers)
            .flat_map(|i| [("embed_tokens", embedding), ("shared_head.head", head)].map(|(name, of)| (i, name, of)))
            .map(|(i, name, of)| {
                let shape = vec![c.vocab_size, c.hidden_size];
                (TensorSpec { name: format!("model.layers.{i}.{name}.weight"), shape }, of)
            })
            .collect()
    }
}

/// YaRN's magnitude factor, 0.1 m ln s + 1.
pub(super) fn mscale(scale: f64, m: f64) -> f64 {
    if scale <= 1.0 { 1.0 } else { 0.1 * m * scale.ln() + 1.0 }
}

/// The factor on YaRN's cosines and sines.
pub(super) fn attention_factor(rope: &RopeScaling) -> f32 {
    match rope {
        RopeScaling::Yarn { factor, mscale: m, mscale_all_dim, .. } if *m > 0.0 && *mscale_all_dim > 0.0 => {
            (mscale(*factor, *m) / mscale(*factor, *mscale_all_dim)) as f32
        }
        RopeScaling::Yarn { factor, .. } => mscale(*factor, 1.0) as f32,
        _ => 1.0,
    }
}

/// YaRN's frequencies: short wavelengths kept, long ones divided by `factor`, a ramp between the dimensions that turn
/// `beta_fast` and `beta_slow` times within the original length.
pub(super) fn yarn(plain: &[f32], theta: f64, factor: f64, (fast, slow): (f64, f64), original: usize) -> Vec<f32> {
    let dim = 2.0 * plain.len() as f64;
    let corrected =
        |turns: f64| dim * (original as f64 / (turns * 2.0 * std::f64::consts::PI)).ln() / (2.0 * theta.ln());
    let low = corrected(fast).floor().max(0.0);
    let high = corrected(slow).ceil().min(dim - 1.0);
    let high = if low == high { high + 0.001 } else { high };
    plain
        .iter()
        .enumerate()
        .map(|(i, f)| {
            let ramp = ((i as f32 - low as f32) / (high - low) as f32).clamp(0.0, 1.0);
            let kept = 1.0 - ramp;
            (*f / factor as f32) * (1.0 - kept) + f * kept
        })
        .collect()
}
