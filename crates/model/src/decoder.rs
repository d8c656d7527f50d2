//! The decoder, defined once: training, scoring, prefill and decoding all run [`Decoder::hidden`].
//!
//! x = x + Attention(RMSNorm(x)); x = x + SwiGLU-MLP(RMSNorm(x)); logits = head(RMSNorm(x)). Grouped-query attention with
//! rotary positions; biases and per-head norms where the family has them.

mod deepseek;

use crate::config::{ModelConfig, RopeScaling, SCORE, is_correction_bias};
use crate::error::Error;
use crate::lora::Lora;
use aha_kernels::attention::Heads;
use aha_kernels::latent::LatentForm;
use aha_kernels::quant::QuantRows;
use aha_kernels::rope::Rope;
use aha_kernels::{Attend, CacheShape, Init, Layout, ParamId, ParamStore, Tape, Var};
use std::collections::HashMap;
use std::sync::Arc;

/// Parameters of one linear layer.
#[derive(Clone, Copy, Debug)]
struct Linear {
    weight: ParamId,
    bias: Option<ParamId>,
}

/// Weights of a SwiGLU without biases.
#[derive(Clone, Copy, Debug)]
struct Mlp {
    gate: ParamId,
    up: ParamId,
    down: ParamId,
}

/// The layers of a family.
#[derive(Clone, Debug)]
enum Layers {
    Dense(Vec<Block>),
    Latent(Vec<deepseek::Block>),
}

/// Parameters of one block.
#[derive(Clone, Debug)]
struct Block {
    attention_norm: ParamId,
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    q_norm: Option<ParamId>,
    k_norm: Option<ParamId>,
    mlp_norm: ParamId,
    gate: Linear,
    up: Linear,
    down: Linear,
}

/// A decoder (Llama, Qwen2, Qwen3, DeepSeek-V3) and its parameters.
#[derive(Clone, Debug)]
pub struct Decoder {
    /// Shape and constants.
    pub config: ModelConfig,
    /// Parameters under their Hugging Face names.
    pub params: ParamStore,
    /// Which form latent attention takes, where the model has it.
    pub latent_form: LatentForm,
    embedding: ParamId,
    layers: Layers,
    modules: Vec<deepseek::Module>,
    norm: ParamId,
    head: ParamId,
    score: Option<ParamId>,
    rope: Arc<Rope>,
    pub(crate) lora: Option<Lora>,
}

impl Decoder {
    /// Fresh weights: norms 1, biases 0, matrices normal with `initializer_range`, the two matrices that write into the
    /// residual stream scaled down by sqrt(2 layers).
    pub fn init(config: ModelConfig, seed: u64) -> Self {
        let depth = (2.0 * config.num_hidden_layers as f64).sqrt();
        let std = config.initializer_range;
        let mut params = ParamStore::default();
        for spec in config.tensors() {
            let init = match spec.name.as_str() {
                n if n.ends_with("norm.weight") || n.ends_with(".enorm.weight") || n.ends_with(".hnorm.weight") => {
                    Init::One
                }
                n if n.ends_with(".bias") || is_correction_bias(n) => Init::Zero,
                n if n.ends_with("o_proj.weight") || n.ends_with("down_proj.weight") => {
                    Init::Normal { std: (std / depth) as f32, seed }
                }
                _ => Init::Normal { std: std as f32, seed },
            };
            params.init(&spec.name, layout(&config, &spec.name, &spec.shape), init);
        }
        Self::assemble(config, params)
    }

    /// Weights from `read(name)`, row-major f32 in the shapes of [`ModelConfig::tensors`].
    ///
    /// # Errors
    /// Whatever `read` answers.
    pub fn from_tensors<E>(config: ModelConfig, mut read: impl FnMut(&str) -> Result<Vec<f32>, E>) -> Result<Self, E> {
        let mut params = ParamStore::default();
        for spec in config.tensors() {
            let values = read(&spec.name)?;
            params.add(&spec.name, layout(&config, &spec.name, &spec.shape), values);
        }
        Ok(Self::assemble(config, params))
    }

    /// A decoder for inference whose matrices stay in whole numbers where `quantized(name)` gives them.
    ///
    /// # Errors
    /// Whatever the two readers answer.
    pub fn quantized<E>(
        config: ModelConfig,
        mut read: impl FnMut(&str) -> Result<Vec<f32>, E>,
        mut quantized: impl FnMut(&str) -> Result<Option<QuantRows>, E>,
    ) -> Result<Self, E> {
        let mut params = ParamStore::default();
        for spec in config.tensors() {
            let layout = layout(&config, &spec.name, &spec.shape);
            // The absorbed form reads the up-projection itself; gates and scores always run in f32.
            let whole = spec.name.ends_with(".kv_b_proj.weight")
                || spec.name.ends_with(".mlp.gate.weight")
                || spec.name == SCORE;
            match if whole { None } else { quantized(&spec.name)? } {
                Some(rows) => params.add_quantized(&spec.name, layout, &rows),
                None => params.add(&spec.name, layout, read(&spec.name)?),
            };
        }
        Ok(Self::assemble(config, params))
    }

    fn assemble(config: ModelConfig, mut params: ParamStore) -> Self {
        let biases: Vec<ParamId> =
            params.iter().filter(|(_, p)| is_correction_bias(&p.name)).map(|(id, _)| id).collect();
        for bias in biases {
            params.freeze(bias);
        }
        let ids: HashMap<&str, ParamId> = params.iter().map(|(id, p)| (p.name.as_str(), id)).collect();
        let find = |name: String| *ids.get(name.as_str()).expect("every tensor of the config was added");
        let linear = |name: String| Linear {
            weight: find(format!("{name}.weight")),
            bias: ids.get(format!("{name}.bias").as_str()).copied(),
        };
        let latent = config.deepseek.is_some();
        let blocks = (0..if latent { 0 } else { config.num_hidden_layers })
            .map(|i| {
                let p = format!("model.layers.{i}");
                Block {
                    attention_norm: find(format!("{p}.input_layernorm.weight")),
                    q: linear(format!("{p}.self_attn.q_proj")),
                    k: linear(format!("{p}.self_attn.k_proj")),
                    v: linear(format!("{p}.self_attn.v_proj")),
                    o: linear(format!("{p}.self_attn.o_proj")),
                    q_norm: ids.get(format!("{p}.self_attn.q_norm.weight").as_str()).copied(),
                    k_norm: ids.get(format!("{p}.self_attn.k_norm.weight").as_str()).copied(),
                    mlp_norm: find(format!("{p}.post_attention_layernorm.weight")),
                    gate: linear(format!("{p}.mlp.gate_proj")),
                    up: linear(format!("{p}.mlp.up_proj")),
                    down: linear(format!("{p}.mlp.down_proj")),
                }
            })
            .collect();
        let modules = config.deepseek.as_ref().map_or(0, |d| d.num_nextn_predict_layers);
        let modules = (0..modules).map(|k| config.num_hidden_layers + k);
        let modules = modules.map(|i| deepseek::Module::find(&config, i, &find)).collect();
        let layers = if latent {
            Layers::Latent((0..config.num_hidden_layers).map(|i| deepseek::Block::find(&config, i, &find)).collect())
        } else {
            Layers::Dense(blocks)
        };
        let embedding = find("model.embed_tokens.weight".into());
        let head = ids.get("lm_head.weight").copied().unwrap_or(embedding);
        let (norm, score) = (find("model.norm.weight".into()), ids.get(SCORE).copied());
        let (rope, latent_form) = (Arc::new(rope(&config)), LatentForm::default());
        Decoder { config, params, latent_form, embedding, layers, modules, norm, head, score, rope, lora: None }
    }

    /// Gives the model other positions: how they are stretched, and how many there are. Weights stay.
    ///
    /// # Errors
    /// A stretch that the family does not have.
    pub fn set_positions(&mut self, scaling: RopeScaling, max_position_embeddings: usize) -> Result<(), Error> {
        let config = ModelConfig { rope_scaling: scaling, max_position_embeddings, ..self.config.clone() };
        config.check()?;
        self.rope = Arc::new(rope(&config));
        self.config = config;
        Ok(())
    }

    /// The output matrix `[V, D]` (the embedding when tied).
    pub fn head(&self) -> ParamId {
        self.head
    }

    /// Scores `[M]` of hidden states `[M, D]` after the last norm.
    ///
    /// # Panics
    /// When the model is no reward model.
    pub fn score(&self, tape: &mut Tape, h: Var) -> Var {
        tape.score(&self.params, h, self.score.expect("the caller has a reward model"))
    }

    /// What a key/value cache for this model looks like.
    pub fn cache_shape(&self) -> CacheShape {
        if let Some(d) = &self.config.deepseek {
            return CacheShape {
                layers: self.config.num_hidden_layers + self.modules.len(),
                kv_heads: 1,
                head_dim: d.kv_lora_rank + d.qk_rope_head_dim,
                value_dim: 0,
                precision: self.params.precision(),
            };
        }
        CacheShape {
            layers: self.config.num_hidden_layers,
            kv_heads: self.config.num_key_value_heads,
            head_dim: self.config.head_dim,
            precision: self.params.precision(),
            value_dim: self.config.head_dim,
        }
    }

    /// Bytes of all parameters in f32.
    pub fn bytes(&self) -> u64 {
        self.params.iter().map(|(_, p)| p.layout.stored() as u64 * 4).sum()
    }

    /// Final hidden states `[T, D]`, after the last norm, of packed `tokens` at `positions`.
    ///
    /// # Panics
    /// When a position is at or beyond `max_position_embeddings` rounded up to 512, or a token is outside the vocabulary;
    /// callers check both.
    pub fn hidden(&self, tape: &mut Tape, tokens: &Arc<[u32]>, positions: &Arc<[u32]>, attend: &mut Attend) -> Var {
        let x = self.trunk(tape, tokens, positions, attend);
        let out = self.final_norm(tape, x);
        tape.release(x);
        out
    }

    /// The same before the last norm, which is what prediction modules go on from.
    pub fn trunk(&self, tape: &mut Tape, tokens: &Arc<[u32]>, positions: &Arc<[u32]>, attend: &mut Attend) -> Var {
        let mut x = tape.embedding(&self.params, self.embedding, tokens);
        for i in 0..self.config.num_hidden_layers {
            x = tape.block(i, x, |tape| self.block(tape, i, x, positions, attend));
        }
        x
    }

    /// The last norm. `x` stays.
    pub fn final_norm(&self, tape: &mut Tape, x: Var) -> Var {
        tape.norm(&self.params, x, self.norm, self.config.rms_norm_eps)
    }

    fn latent_blocks(&self) -> &[deepseek::Block] {
        match &self.layers {
            Layers::Latent(blocks) => blocks,
            Layers::Dense(_) => &[],
        }
    }

    /// One block: x + Attention(RMSNorm(x)), and its MLP; numbers from `num_hidden_layers` on are prediction modules'. `x` is
    /// released.
    pub fn block(&self, tape: &mut Tape, i: usize, x: Var, positions: &Arc<[u32]>, attend: &mut Attend) -> Var {
        let blocks = match &self.layers {
            Layers::Dense(blocks) => blocks,
            Layers::Latent(blocks) => {
                let module = |k: usize| self.modules[k].block();
                let block = blocks.get(i).unwrap_or_else(|| module(i - blocks.len()));
                return self.latent_block(tape, block, i, x, positions, attend);
            }
        };
        let (c, p, b) = (&self.config, &self.params, &blocks[i]);
        let heads = Heads {
            query: c.num_attention_heads,
            kv: c.num_key_value_heads,
            dim: c.head_dim,
            value: c.head_dim,
            scale: (c.head_dim as f32).powf(-0.5),
            precision: p.precision(),
        };
        let readers = [b.q, b.k, b.v].map(|l| l.weight);
        let h = tape.norm_for(p, x, b.attention_norm, c.rms_norm_eps, &readers);
        let [mut q, mut k, v] = tape.linears(p, h, [b.q, b.k, b.v].map(|l| (l.weight, l.bias)));
        tape.release(h);
        if let (Some(q_norm), Some(k_norm)) = (b.q_norm, b.k_norm) {
            let (plain_q, plain_k) = (q, k);
            q = tape.norm(p, q, q_norm, c.rms_norm_eps);
            k = tape.norm(p, k, k_norm, c.rms_norm_eps);
            tape.release(plain_q);
            tape.release(plain_k);
        }
        tape.rope(q, &self.rope, positions);
        tape.rope(k, &self.rope, positions);
        let a = tape.attention(q, k, v, i, attend, heads);
        for used in [q, k, v] {
            tape.release(used);
        }
        let y = tape.linear(p, a, b.o.weight, b.o.bias, Some(x));
        tape.release(a);
        tape.release(x);
        let h = tape.norm_for(p, y, b.mlp_norm, c.rms_norm_eps, &[b.gate, b.up].map(|l| l.weight));
        let [gate, up] = tape.linears(p, h, [b.gate, b.up].map(|l| (l.weight, l.bias)));
        tape.release(h);
        let m = tape.swiglu(p, gate, up, b.down.weight);
        tape.release(gate);
        tape.release(up);
        let out = tape.linear(p, m, b.down.weight, b.down.bias, Some(y));
        tape.release(m);
        tape.release(y);
        out
    }
}

/// The rotary tables of a configuration.
fn rope(config: &ModelConfig) -> Rope {
    Rope::scaled(config.inv_freq(), config.rope_factor(), config.max_position_embeddings)
}

/// Where a tensor lives: linear weights and a tied embedding as panels, a separate embedding as rows.
fn layout(config: &ModelConfig, name: &str, shape: &[usize]) -> Layout {
    match *shape {
        [n] => Layout::Vector { n },
        [rows, cols] if name == SCORE => Layout::Rows { rows, cols },
        [rows, cols] if name == "model.embed_tokens.weight" && !config.tie_word_embeddings => {
            Layout::Rows { rows, cols }
        }
        [n, k] => Layout::Panels { n, k },
        _ => unreachable!("decoders have vectors and matrices only"),
    }
}
