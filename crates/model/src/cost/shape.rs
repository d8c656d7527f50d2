//! The shape of a decoder as far as counting needs it, read from a Hugging Face `config.json`.
//!
//! A reader of its own beside [`crate::ModelConfig`]: it also knows families that the decoder does not run, and asks for
//! nothing but sizes. Families: llama, mistral, qwen2, qwen3 (dense), mixtral, qwen3_moe, deepseek_v2, deepseek_v3.

use crate::error::{Error, Result};
use serde_json::{Map, Value};

/// How a layer attends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Attention {
    /// Query heads share key/value heads.
    Grouped {
        /// Key/value heads K.
        kv_heads: u64,
        /// Head width H.
        head_dim: u64,
        /// Biases on q, k and v.
        bias: bool,
        /// Bias on the output projection.
        out_bias: bool,
        /// RMSNorm on queries and keys.
        qk_norm: bool,
    },
    /// Multi-head latent attention (DeepSeek-V2, V3).
    Latent {
        /// Width of the compressed query; `None` for a plain projection.
        q_lora_rank: Option<u64>,
        /// Width of the compressed keys and values.
        kv_lora_rank: u64,
        /// Query/key width without position, per head.
        nope_dim: u64,
        /// Query/key width with rotary position; the key's is shared by all heads.
        rope_dim: u64,
        /// Value width per head.
        value_dim: u64,
    },
}

/// A mixture of experts in place of the dense MLP.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Experts {
    /// Routed experts.
    pub routed: u64,
    /// Routed experts a token visits.
    pub per_token: u64,
    /// Experts every token visits.
    pub shared: u64,
    /// Width of an expert.
    pub width: u64,
    /// Leading layers that keep the dense MLP.
    pub first_dense: u64,
    /// Whether the router has a bias per expert (V3's balancing).
    pub bias: bool,
}

/// A decoder's sizes.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// `model_type`.
    pub family: String,
    /// V.
    pub vocab_size: u64,
    /// D.
    pub hidden_size: u64,
    /// Width of the dense MLP.
    pub intermediate_size: u64,
    /// Layers.
    pub layers: u64,
    /// Query heads N.
    pub heads: u64,
    /// Attention.
    pub attention: Attention,
    /// Experts, if any.
    pub experts: Option<Experts>,
    /// Biases in the dense MLP.
    pub mlp_bias: bool,
    /// One matrix for embedding and output.
    pub tied: bool,
    /// Multi-token prediction modules, which training runs and plain inference drops.
    pub mtp_layers: u64,
}

/// A group of parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// What it is.
    pub name: &'static str,
    /// All of its parameters.
    pub total: u64,
    /// Those a token meets.
    pub active: u64,
    /// Those of `active` that lie in matrices a token is multiplied by (not looked up, not a norm or bias).
    pub multiplied: u64,
}

/// No size may exceed this, so that every product of a count fits in 64 bits.
const MAX_SIZE: u64 = 1 << 24;

struct Keys<'a>(&'a Map<String, Value>);

impl Keys<'_> {
    fn size(&self, key: &str) -> Result<Option<u64>> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(v) => match v.as_u64() {
                Some(n) if n <= MAX_SIZE => Ok(Some(n)),
                _ => Err(Error::Config(format!("{key} is {v}; a whole number of at most {MAX_SIZE} is needed"))),
            },
        }
    }

    fn needed(&self, key: &str) -> Result<u64> {
        match self.size(key)? {
            Some(n) if n > 0 => Ok(n),
            Some(_) => Err(Error::Config(format!("{key} is 0; it must be at least 1"))),
            None => Err(Error::Config(format!("{key} is missing"))),
        }
    }

    fn flag(&self, key: &str) -> bool {
        self.0.get(key).and_then(Value::as_bool).unwrap_or(false)
    }
}

impl Shape {
    /// Reads the text of a `config.json`.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key: malformed JSON, an unknown `model_type`, a size that is missing or absurd.
    pub fn from_json(text: &str) -> Result<Self> {
        let root: Map<String, Value> =
            serde_json::from_str(text).map_err(|e| Error::Config(format!("config.json is not a JSON object: {e}")))?;
        let keys = Keys(&root);
        let family = root.get("model_type").and_then(Value::as_str).unwrap_or_default().to_owned();
        let (hidden_size, heads) = (keys.needed("hidden_size")?, keys.needed("num_attention_heads")?);
        let layers = keys.needed("num_hidden_layers")?;
        let attention = match family.as_str() {
            "deepseek_v2" | "deepseek_v3" => Attention::Latent {
                q_lora_rank: keys.size("q_lora_rank")?,
                kv_lora_rank: keys.needed("kv_lora_rank")?,
                nope_dim: keys.needed("qk_nope_head_dim")?,
                rope_dim: keys.needed("qk_rope_head_dim")?,
                value_dim: keys.needed("v_head_dim")?,
            },
            "llama" | "mistral" | "mixtral" | "qwen2" | "qwen3" | "qwen3_moe" => Attention::Grouped {
                kv_heads: keys.size("num_key_value_heads")?.unwrap_or(heads).max(1),
                head_dim: keys.size("head_dim")?.unwrap_or(hidden_size / heads).max(1),
                bias: family == "qwen2" || keys.flag("attention_bias"),
                out_bias: family != "qwen2" && keys.flag("attention_bias"),
                qk_norm: family.starts_with("qwen3"),
            },
            _ => {
                let known = "llama, mistral, mixtral, qwen2, qwen3, qwen3_moe, deepseek_v2, deepseek_v3";
                return Err(Error::Config(format!("model_type \"{family}\" cannot be counted; known are {known}")));
            }
        };
        let experts = match family.as_str() {
            "deepseek_v2" | "deepseek_v3" if keys.size("n_routed_experts")?.unwrap_or(0) > 0 => Some(Experts {
                routed: keys.needed("n_routed_experts")?,
                per_token: keys.needed("num_experts_per_tok")?,
                shared: keys.size("n_shared_experts")?.unwrap_or(0),
                width: keys.needed("moe_intermediate_size")?,
                first_dense: keys.size("first_k_dense_replace")?.unwrap_or(0).min(layers),
                bias: family == "deepseek_v3",
            }),
            "mixtral" | "qwen3_moe" => {
                let mixtral = family == "mixtral";
                if keys.size("decoder_sparse_step")?.unwrap_or(1) != 1 {
                    return Err(Error::Config("decoder_sparse_step other than 1 cannot be counted".into()));
                }
                Some(Experts {
                    routed: keys.needed(if mixtral { "num_local_experts" } else { "num_experts" })?,
                    per_token: keys.needed("num_experts_per_tok")?,
                    shared: 0,
                    width: keys.needed(if mixtral { "intermediate_size" } else { "moe_intermediate_size" })?,
                    first_dense: 0,
                    bias: false,
                })
            }
            _ => None,
        };
        if let Some(e) = &experts
            && e.per_token > e.routed
        {
            let message = format!("num_experts_per_tok is {}, more than the {} experts", e.per_token, e.routed);
            return Err(Error::Config(message));
        }
        Ok(Shape {
            vocab_size: keys.needed("vocab_size")?,
            hidden_size,
            intermediate_size: keys.needed("intermediate_size")?,
            layers,
            heads,
            attention,
            experts,
            mlp_bias: keys.flag("mlp_bias"),
            tied: keys.flag("tie_word_embeddings"),
            mtp_layers: keys.size("num_nextn_predict_layers")?.unwrap_or(0),
            family,
        })
    }

    /// Layers whose MLP is dense, and layers of experts.
    pub fn dense_and_expert_layers(&self) -> (u64, u64) {
        match &self.experts {
            Some(e) => (e.first_dense, self.layers - e.first_dense),
            None => (self.layers, 0),
        }
    }

    /// Matrices and vectors (norms, biases) of one layer's attention.
    pub fn attention_params(&self) -> (u64, u64) {
        let (d, n) = (self.hidden_size, self.heads);
        match self.attention {
            Attention::Grouped { kv_heads, head_dim, bias, out_bias, qk_norm } => {
                let biases = if bias { (n + 2 * kv_heads) * head_dim } else { 0 } + if out_bias { d } else { 0 };
                (d * (2 * n + 2 * kv_heads) * head_dim, biases + if qk_norm { 2 * head_dim } else { 0 })
            }
            Attention::Latent { q_lora_rank, kv_lora_rank, nope_dim, rope_dim, value_dim } => {
                let q_width = n * (nope_dim + rope_dim);
                let q = q_lora_rank.map_or(d * q_width, |r| d * r + r * q_width);
                let kv = d * (kv_lora_rank + rope_dim) + kv_lora_rank * n * (nope_dim + value_dim);
                (q + kv + n * value_dim * d, q_lora_rank.unwrap_or(0) + kv_lora_rank)
            }
        }
    }

    /// One expert's three matrices, or the dense MLP's for its own width.
    fn swiglu(&self, width: u64) -> u64 {
        3 * self.hidden_size * width
    }

    /// Routed experts (all, met by a token), shared experts, router matrix, router bias: of one layer.
    fn expert_params(&self, e: &Experts) -> (u64, u64, u64, u64, u64) {
        let one = self.swiglu(e.width);
        let bias = if e.bias { e.routed } else { 0 };
        (e.routed * one, e.per_token * one, e.shared * one, e.routed * self.hidden_size, bias)
    }

    /// The model in parts; multi-token prediction is not one of them.
    pub fn parts(&self) -> Vec<Part> {
        let (d, l) = (self.hidden_size, self.layers);
        let (dense, sparse) = self.dense_and_expert_layers();
        let table = self.vocab_size * d;
        let all = |name, n: u64| Part { name, total: n, active: n, multiplied: n };
        let (matrices, vectors) = self.attention_params();
        let mut parts = vec![
            // A tied table is counted once, where it is multiplied: as the head.
            Part { name: "embedding", total: if self.tied { 0 } else { table }, active: 0, multiplied: 0 },
            all("attention", l * matrices),
            all("dense MLP", dense * self.swiglu(self.intermediate_size)),
        ];
        let mut small = l * (vectors + 2 * d) + d;
        if self.mlp_bias {
            small += dense * (2 * self.intermediate_size + d);
        }
        if let Some(e) = &self.experts {
            let (routed, met, shared, router, bias) = self.expert_params(e);
            let routed =
                Part { name: "routed experts", total: sparse * routed, active: sparse * met, multiplied: sparse * met };
            parts.extend([routed, all("shared experts", sparse * shared), all("router", sparse * router)]);
            small += sparse * bias;
        }
        parts.push(Part { name: "norms and biases", total: small, active: small, multiplied: 0 });
        parts.push(all("output head", table));
        // A token meets one row of the embedding; by custom the whole table counts as active.
        if !self.tied {
            parts[0].active = table;
        }
        parts.retain(|p| p.total > 0);
        parts
    }

    /// Parameters of all multi-token-prediction modules that are not shared with the model: projection, norms, a block.
    pub fn mtp(&self) -> Part {
        let d = self.hidden_size;
        let (matrices, vectors) = self.attention_params();
        let (total, met, small) = match &self.experts {
            Some(e) => {
                let (routed, met, shared, router, bias) = self.expert_params(e);
                (routed + shared + router, met + shared + router, bias)
            }
            None => (self.swiglu(self.intermediate_size), self.swiglu(self.intermediate_size), 0),
        };
        let (projection, small) = (2 * d * d, small + vectors + 2 * d + 3 * d);
        Part {
            name: "multi-token prediction",
            total: self.mtp_layers * (projection + matrices + total + small),
            active: self.mtp_layers * (projection + matrices + met + small),
            multiplied: self.mtp_layers * (projection + matrices + met),
        }
    }

    /// Parameters without multi-token prediction: all, and those a token meets.
    pub fn num_parameters(&self) -> (u64, u64) {
        self.parts().iter().fold((0, 0), |(t, a), p| (t + p.total, a + p.active))
    }
}
