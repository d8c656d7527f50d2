//! A block of DeepSeek-V3, and the modules that predict further tokens.
//!
//! x = x + MLA(RMSNorm(x)); x = x + FFN(RMSNorm(x)), where the feed-forward part is a dense SwiGLU in the first layers and a
//! shared expert plus routed ones in the others (DeepSeek-V3 section 2.1). A prediction module joins the embedding of the next
//! token with the hidden state before the final norm, embedding first as the released checkpoints have it (section 2.2).

use super::{Decoder, Mlp};
use crate::config::{LATENT_NORM_EPS, ModelConfig};
use aha_kernels::latent::LatentHeads;
use aha_kernels::rope::RopePart;
use aha_kernels::router::Routing;
use aha_kernels::{Attend, ExpertIds, MoeIds, ParamId, Tape, Var};
use std::sync::Arc;

/// How queries are made.
#[derive(Clone, Debug)]
enum Query {
    Plain(ParamId),
    Compressed { down: ParamId, norm: ParamId, up: ParamId },
}

/// The feed-forward part.
#[derive(Clone, Debug)]
enum FeedForward {
    Dense(Mlp),
    Routed { shared: Mlp, routed: Arc<MoeIds> },
}

/// Parameters of one block.
#[derive(Clone, Debug)]
pub(super) struct Block {
    attention_norm: ParamId,
    query: Query,
    kv_down: ParamId,
    kv_norm: ParamId,
    kv_up: ParamId,
    o: ParamId,
    mlp_norm: ParamId,
    feed_forward: FeedForward,
}

/// Parameters of one prediction module.
#[derive(Clone, Debug)]
pub(super) struct Module {
    embedding_norm: ParamId,
    hidden_norm: ParamId,
    join: ParamId,
    block: Block,
    head_norm: ParamId,
}

impl Block {
    /// Finds the parameters of layer `i` by their names.
    pub(super) fn find(config: &ModelConfig, i: usize, find: &dyn Fn(String) -> ParamId) -> Self {
        let d = config.deepseek.as_ref().expect("a deepseek_v3 config has its widths");
        let weight = |name: &str| find(format!("model.layers.{i}.{name}.weight"));
        let mlp = |name: &str| Mlp {
            gate: weight(&format!("{name}.gate_proj")),
            up: weight(&format!("{name}.up_proj")),
            down: weight(&format!("{name}.down_proj")),
        };
        let query = match d.q_lora_rank {
            None => Query::Plain(weight("self_attn.q_proj")),
            Some(_) => Query::Compressed {
                down: weight("self_attn.q_a_proj"),
                norm: weight("self_attn.q_a_layernorm"),
                up: weight("self_attn.q_b_proj"),
            },
        };
        let routed = || MoeIds {
            gate: weight("mlp.gate"),
            bias: find(format!("model.layers.{i}.mlp.gate.e_score_correction_bias")),
            experts: (0..d.n_routed_experts)
                .map(|e| mlp(&format!("mlp.experts.{e}")))
                .map(|m| ExpertIds { gate: m.gate, up: m.up, down: m.down })
                .collect(),
            routing: Routing {
                experts: d.n_routed_experts,
                chosen: d.num_experts_per_tok,
                groups: d.n_group,
                kept_groups: d.topk_group,
                normalised: d.norm_topk_prob,
                scale: d.routed_scaling_factor as f32,
            },
            width: d.moe_intermediate_size,
        };
        Block {
            attention_norm: weight("input_layernorm"),
            query,
            kv_down: weight("self_attn.kv_a_proj_with_mqa"),
            kv_norm: weight("self_attn.kv_a_layernorm"),
            kv_up: weight("self_attn.kv_b_proj"),
            o: weight("self_attn.o_proj"),
            mlp_norm: weight("post_attention_layernorm"),
            feed_forward: if i < d.first_k_dense_replace {
                FeedForward::Dense(mlp("mlp"))
            } else {
                FeedForward::Routed { shared: mlp("mlp.shared_experts"), routed: Arc::new(routed()) }
            },
        }
    }

    /// The routed layer's parameters, if it is one.
    pub(super) fn routed(&self) -> Option<&MoeIds> {
        match &self.feed_forward {
            FeedForward::Routed { routed, .. } => Some(routed),
            FeedForward::Dense(_) => None,
        }
    }
}

impl Module {
    /// Finds the parameters of the module that is layer `i`.
    pub(super) fn find(config: &ModelConfig, i: usize, find: &dyn Fn(String) -> ParamId) -> Self {
        let weight = |name: &str| find(format!("model.layers.{i}.{name}.weight"));
        Module {
            embedding_norm: weight("enorm"),
            hidden_norm: weight("hnorm"),
            join: weight("eh_proj"),
            block: Block::find(config, i, find),
            head_norm: weight("shared_head.norm"),
        }
    }

    pub(super) fn block(&self) -> &Block {
        &self.block
    }
}

impl Decoder {
    /// Widths of the latent attention.
    ///
    /// # Panics
    /// When the model has none.
    pub(super) fn latent_heads(&self) -> LatentHeads {
        let d = self.config.deepseek.as_ref().expect("only deepseek_v3 has latents");
        LatentHeads {
            heads: self.config.num_attention_heads,
            nope: d.qk_nope_head_dim,
            rope: d.qk_rope_head_dim,
            lora: d.kv_lora_rank,
            value: d.v_head_dim,
            scale: d.softmax_scale(&self.config.rope_scaling),
            form: self.latent_form,
            precision: self.params.precision(),
        }
    }

    /// One block. `x` is released.
    pub(super) fn latent_block(
        &self,
        tape: &mut Tape,
        b: &Block,
        i: usize,
        x: Var,
        positions: &Arc<[u32]>,
        attend: &mut Attend,
    ) -> Var {
        let (p, eps, heads) = (&self.params, self.config.rms_norm_eps, self.latent_heads());
        let interleaved = self.config.deepseek.as_ref().is_some_and(|d| d.rope_interleave);
        let (Query::Plain(q) | Query::Compressed { down: q, .. }) = b.query;
        let h = tape.norm_for(p, x, b.attention_norm, eps, &[q, b.kv_down]);
        let q = match b.query {
            Query::Plain(w) => tape.linear(p, h, w, None, None),
            Query::Compressed { down, norm, up } => {
                let wide = tape.linear(p, h, down, None, None);
                let c = tape.norm_for(p, wide, norm, LATENT_NORM_EPS, &[up]);
                tape.release(wide);
                let q = tape.linear(p, c, up, None, None);
                tape.release(c);
                q
            }
        };
        let kv = tape.linear(p, h, b.kv_down, None, None);
        tape.release(h);
        let [plain, shared] = tape.split(kv, heads.lora, heads.rope);
        tape.release(kv);
        let latent = tape.norm(p, plain, b.kv_norm, LATENT_NORM_EPS);
        tape.release(plain);
        tape.rope_part(q, &self.rope, positions, RopePart { width: heads.query(), interleaved });
        tape.rope_part(shared, &self.rope, positions, RopePart { width: heads.rope, interleaved });
        let a = tape.latent_attention(p, (q, latent, shared), b.kv_up, i, attend, heads);
        for used in [q, latent, shared] {
            tape.release(used);
        }
        let y = tape.linear(p, a, b.o, None, Some(x));
        tape.release(a);
        tape.release(x);
        let readers = match &b.feed_forward {
            FeedForward::Dense(mlp) => &[mlp.gate, mlp.up][..],
            // The gate reads it in f32.
            FeedForward::Routed { .. } => &[],
        };
        let h = tape.norm_for(p, y, b.mlp_norm, eps, readers);
        let out = match &b.feed_forward {
            FeedForward::Dense(mlp) => self.mlp(tape, mlp, h, y),
            FeedForward::Routed { shared, routed } => {
                let s = self.mlp(tape, shared, h, y);
                let out = tape.experts(p, h, s, routed, i, attend);
                tape.release(s);
                out
            }
        };
        tape.release(h);
        tape.release(y);
        out
    }

    /// residual + SwiGLU(h); both stay.
    fn mlp(&self, tape: &mut Tape, mlp: &Mlp, h: Var, residual: Var) -> Var {
        let [gate, up] = tape.linears(&self.params, h, [mlp.gate, mlp.up].map(|w| (w, None)));
        let m = tape.swiglu(&self.params, gate, up, mlp.down);
        tape.release(gate);
        tape.release(up);
        let out = tape.linear(&self.params, m, mlp.down, None, Some(residual));
        tape.release(m);
        out
    }

    /// Prediction modules D.
    pub fn prediction_modules(&self) -> usize {
        self.modules.len()
    }

    /// Hidden states of module `k` (from 0), before its norm, from those `h` `[T, D]` of the module before it (of the main
    /// model, before the final norm, for the first) and the tokens that follow: row i joins h of position i with
    /// `tokens[i]`, the token at position i + k + 1, and says something about the one after that. `h` stays.
    pub fn module(
        &self,
        tape: &mut Tape,
        k: usize,
        h: Var,
        tokens: &Arc<[u32]>,
        positions: &Arc<[u32]>,
        attend: &mut Attend,
    ) -> Var {
        let (p, d, eps, m) = (&self.params, self.config.hidden_size, self.config.rms_norm_eps, &self.modules[k]);
        let layer = self.config.num_hidden_layers + k;
        let e = tape.embedding(p, self.embedding, tokens);
        let normed = tape.norm(p, e, m.embedding_norm, eps);
        tape.release(e);
        let hidden = tape.norm(p, h, m.hidden_norm, eps);
        let both = tape.concat((normed, d), (hidden, d));
        tape.release(normed);
        tape.release(hidden);
        let x = tape.linear(p, both, m.join, None, None);
        tape.release(both);
        tape.block(layer, x, |tape| self.latent_block(tape, &m.block, layer, x, positions, attend))
    }

    /// The norm before the output matrix for hidden states of module `k`.
    pub fn module_norm(&self, tape: &mut Tape, k: usize, h: Var) -> Var {
        tape.norm(&self.params, h, self.modules[k].head_norm, self.config.rms_norm_eps)
    }

    /// Routed layers, prediction modules included: number of the layer and its parameters.
    pub fn routed_layers(&self) -> Vec<(usize, &MoeIds)> {
        let layers = self.latent_blocks().iter().chain(self.modules.iter().map(Module::block));
        layers.enumerate().filter_map(|(i, b)| Some((i, b.routed()?))).collect()
    }
}
