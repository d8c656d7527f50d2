//! The shape of a DeepSeek-V3 decoder in a recipe, `architecture = "deepseek_v3"`, in the names of its `config.json`; and what its
//! pretraining has beside a dense decoder's: balancing of experts, weight of the prediction modules.

use super::error::RecipeError;
use super::raw::Table;
use super::section::{NOT_NEGATIVE, POSITIVE, SHARE, Section};
use super::stage::ModelShape;
use aha_model::DeepseekConfig;
use aha_train::balance::Balance;
use aha_train::prediction::PredictionWeight;
use serde::Serialize;

/// Keys of the model's table.
pub(crate) const SHAPE_KEYS: &[&str] = &[
    "architecture",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "rope_theta",
    "rope_interleave",
    "tie_word_embeddings",
    "max_position_embeddings",
    "q_lora_rank",
    "kv_lora_rank",
    "qk_nope_head_dim",
    "qk_rope_head_dim",
    "v_head_dim",
    "first_k_dense_replace",
    "moe_intermediate_size",
    "n_routed_experts",
    "n_shared_experts",
    "num_experts_per_tok",
    "n_group",
    "topk_group",
    "routed_scaling_factor",
    "norm_topk_prob",
    "num_nextn_predict_layers",
];

/// Keys of the pretraining stage that only such a model has.
pub(crate) const TRAINING_KEYS: &[&str] = &[
    "bias_update_speed",
    "bias_update_share",
    "aux_loss_alpha",
    "mtp_loss_weight",
    "mtp_loss_weight_later",
    "mtp_loss_weight_share",
];

/// The part of a model's shape that only DeepSeek-V3 has.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DeepseekShape {
    /// "deepseek_v3".
    pub architecture: &'static str,
    /// Names as in its `config.json`.
    #[serde(flatten)]
    pub config: DeepseekConfig,
}

/// Reads the model's table.
pub(crate) fn shape(table: &Table, path: &str) -> Result<ModelShape, RecipeError> {
    let section = Section::new(table, path, &[SHAPE_KEYS])?;
    let needed = |key| section.size(key, 1)?.ok_or_else(|| section.missing(key, "a whole number of at least 1"));
    let or = |key, default: usize| Ok::<_, RecipeError>(section.size(key, 0)?.unwrap_or(default));
    let heads = needed("num_attention_heads")?;
    let rope = needed("qk_rope_head_dim")?;
    if !rope.is_multiple_of(2) {
        let message = format!("`{}` is {rope}; RoPE needs an even one", section.key("qk_rope_head_dim"));
        return Err(section.conflict("qk_rope_head_dim", message));
    }
    // Keys of a resolved recipe that have one possible value.
    for (key, only) in [("num_key_value_heads", heads), ("head_dim", rope)] {
        if let Some(found) = section.size(key, 1)?.filter(|found| *found != only) {
            let message = format!("`{}` is {found}; with latent attention it is {only}", section.key(key));
            return Err(section.conflict(key, message));
        }
    }
    let config = DeepseekConfig {
        q_lora_rank: section.size("q_lora_rank", 1)?,
        kv_lora_rank: needed("kv_lora_rank")?,
        qk_nope_head_dim: needed("qk_nope_head_dim")?,
        qk_rope_head_dim: rope,
        v_head_dim: needed("v_head_dim")?,
        rope_interleave: section.boolean("rope_interleave")?.unwrap_or(true),
        first_k_dense_replace: or("first_k_dense_replace", 1)?,
        moe_intermediate_size: needed("moe_intermediate_size")?,
        n_routed_experts: needed("n_routed_experts")?,
        n_shared_experts: section.size("n_shared_experts", 1)?.unwrap_or(1),
        num_experts_per_tok: needed("num_experts_per_tok")?,
        n_group: section.size("n_group", 1)?.unwrap_or(1),
        topk_group: section.size("topk_group", 1)?.unwrap_or(1),
        routed_scaling_factor: section.number("routed_scaling_factor", &POSITIVE)?.unwrap_or(1.0),
        norm_topk_prob: section.boolean("norm_topk_prob")?.unwrap_or(true),
        num_nextn_predict_layers: or("num_nextn_predict_layers", 0)?,
    };
    Ok(ModelShape {
        architecture: None,
        hidden_size: needed("hidden_size")?,
        intermediate_size: needed("intermediate_size")?,
        num_hidden_layers: needed("num_hidden_layers")?,
        num_attention_heads: heads,
        num_key_value_heads: heads,
        head_dim: rope,
        rope_theta: section.number("rope_theta", &POSITIVE)?.unwrap_or(10_000.0),
        tie_word_embeddings: section.boolean("tie_word_embeddings")?.unwrap_or(false),
        max_position_embeddings: needed("max_position_embeddings")?,
        deepseek: Some(DeepseekShape { architecture: "deepseek_v3", config }),
    })
}

/// Settings of a pretraining stage whose model has routed experts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DeepseekTraining {
    /// Gamma: how far the bias of an expert moves at a step. Default 0.001 (V3).
    pub bias_update_speed: f64,
    /// Share of the steps in which biases move. Default 0.97 (V3).
    pub bias_update_share: f64,
    /// Alpha of the sequence-wise balance loss. Default 0.0001 (V3).
    pub aux_loss_alpha: f64,
    /// Lambda, the weight of the prediction modules. Default 0.3 (V3).
    pub mtp_loss_weight: f64,
    /// Lambda after `mtp_loss_weight_share` of the steps. Default 0.1 (V3).
    pub mtp_loss_weight_later: f64,
    /// See `mtp_loss_weight_later`. Default 0.67 (V3).
    pub mtp_loss_weight_share: f64,
}

impl DeepseekTraining {
    /// Defaults of pretraining (V3, section 4.2).
    pub(crate) const PRETRAINING: Self = DeepseekTraining {
        bias_update_speed: 1e-3,
        bias_update_share: 0.97,
        aux_loss_alpha: 1e-4,
        mtp_loss_weight: 0.3,
        mtp_loss_weight_later: 0.1,
        mtp_loss_weight_share: 0.67,
    };
    /// Defaults of context extension: what pretraining ended with.
    pub(crate) const EXTENSION: Self =
        DeepseekTraining { bias_update_speed: 0.0, mtp_loss_weight: 0.1, ..Self::PRETRAINING };

    /// Reads the stage's keys over these defaults; none where the model has no experts.
    pub(crate) fn read(section: &Section<'_>, defaults: Option<&Self>) -> Result<Option<Self>, RecipeError> {
        let Some(d) = defaults else {
            return match TRAINING_KEYS.iter().find(|key| section.has(key)) {
                None => Ok(None),
                Some(key) => {
                    let message = format!("`{}` is for models of architecture \"deepseek_v3\"", section.key(key));
                    Err(section.conflict(key, message))
                }
            };
        };
        let number = |key, default| Ok::<_, RecipeError>(section.number(key, &NOT_NEGATIVE)?.unwrap_or(default));
        let share = |key, default| Ok::<_, RecipeError>(section.number(key, &SHARE)?.unwrap_or(default));
        Ok(Some(DeepseekTraining {
            bias_update_speed: number("bias_update_speed", d.bias_update_speed)?,
            bias_update_share: share("bias_update_share", d.bias_update_share)?,
            aux_loss_alpha: number("aux_loss_alpha", d.aux_loss_alpha)?,
            mtp_loss_weight: number("mtp_loss_weight", d.mtp_loss_weight)?,
            mtp_loss_weight_later: number("mtp_loss_weight_later", d.mtp_loss_weight_later)?,
            mtp_loss_weight_share: share("mtp_loss_weight_share", d.mtp_loss_weight_share)?,
        }))
    }

    /// As the trainer has it, for a stage of so many steps.
    pub fn balance(&self, steps: u64) -> Balance {
        Balance {
            bias_update_speed: self.bias_update_speed,
            bias_update_steps: Some((steps as f64 * self.bias_update_share).round() as u64),
            sequence_alpha: self.aux_loss_alpha,
        }
    }

    /// As the trainer has it, for a stage of so many steps.
    pub fn prediction(&self, steps: u64) -> PredictionWeight {
        let from = (steps as f64 * self.mtp_loss_weight_share).round() as u64;
        PredictionWeight { weight: self.mtp_loss_weight, later: Some((from, self.mtp_loss_weight_later)) }
    }
}
