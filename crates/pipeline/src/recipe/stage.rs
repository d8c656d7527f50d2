//! The settings of each kind of stage, resolved: every default filled in, every value in its range.
//!
//! A stage is one `[[stage]]` table. The names are those of the field (TRL's where it has one); a default is R1's where
//! R1 published it (spec B.3) and says so. Scalars stand before tables, which keeps the written recipe readable.

use std::fmt;

use aha_train::advantage::{AdvantageConfig, ScaleRewards, StdKind};
use aha_train::policy_loss::{LossType, PolicyLossConfig};
use serde::Serialize;

use super::corpus::CorpusStage;
use super::curation::CurationStage;
use super::distill::DistillStage;
use super::keys::task_files;
use super::lora::LoraSettings;
pub use super::model_ref::ModelRef;
use super::optimizer::OptimizerSettings;
pub use super::precision::Precision;
use super::reward_model::RewardModelStage;
use super::rewards::RewardWeight;
use super::sft::SftStage;
use super::table::TableStage;
use super::training::TrainingSettings;

/// One stage.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stage {
    /// Its name: lower-case letters, digits, `-` and `_`; the folder of its results.
    pub name: String,
    /// What it does.
    #[serde(flatten)]
    pub settings: StageSettings,
}

/// What a stage does, and how.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[allow(clippy::large_enum_variant, reason = "a recipe has a dozen of them")]
pub enum StageSettings {
    /// Makes the miniature corpus and its tokenizer.
    Corpus(CorpusStage),
    /// Trains a decoder from nothing.
    Pretrain(PretrainStage),
    /// Trains a model on longer contexts.
    Extend(ExtendStage),
    /// Trains a model on conversations.
    Sft(SftStage),
    /// Trains a model to score responses.
    RewardModel(RewardModelStage),
    /// Teaches a student what a teacher knows.
    Distill(DistillStage),
    /// Reinforcement learning with group-relative advantages.
    Grpo(GrpoStage),
    /// Samples a model and makes the data of its cold start.
    ColdStart(CurationStage),
    /// Samples a model and keeps what is good.
    Reject(CurationStage),
    /// Measures models on a task.
    Eval(EvalStage),
    /// Puts evaluations side by side.
    Table(TableStage),
}

/// The kind of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StageKind {
    /// Corpus and tokenizer.
    Corpus,
    /// Pretraining.
    Pretrain,
    /// Context extension.
    Extend,
    /// Supervised fine-tuning.
    Sft,
    /// A reward model.
    RewardModel,
    /// Distillation.
    Distill,
    /// Reinforcement learning.
    Grpo,
    /// Cold-start data.
    ColdStart,
    /// Rejection sampling.
    Reject,
    /// Evaluation.
    Eval,
    /// Tables.
    Table,
}

impl StageKind {
    /// Every kind with its name in a recipe.
    pub const ALL: [(&'static str, Self); 11] = [
        ("corpus", Self::Corpus),
        ("pretrain", Self::Pretrain),
        ("extend", Self::Extend),
        ("sft", Self::Sft),
        ("reward_model", Self::RewardModel),
        ("distill", Self::Distill),
        ("grpo", Self::Grpo),
        ("cold_start", Self::ColdStart),
        ("reject", Self::Reject),
        ("eval", Self::Eval),
        ("table", Self::Table),
    ];

    /// The name in a recipe.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Corpus => "corpus",
            Self::Pretrain => "pretrain",
            Self::Extend => "extend",
            Self::Sft => "sft",
            Self::RewardModel => "reward_model",
            Self::Distill => "distill",
            Self::Grpo => "grpo",
            Self::ColdStart => "cold_start",
            Self::Reject => "reject",
            Self::Eval => "eval",
            Self::Table => "table",
        }
    }

    /// Whether the stage leaves a language model behind.
    pub fn makes_model(self) -> bool {
        matches!(self, Self::Pretrain | Self::Extend | Self::Sft | Self::Distill | Self::Grpo)
    }

    /// Whether the stage leaves conversations to train on behind, `messages.jsonl` in its folder.
    pub fn makes_data(self) -> bool {
        matches!(self, Self::ColdStart | Self::Reject)
    }
}

impl fmt::Display for StageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Stage {
    /// The kind of its settings.
    pub fn kind(&self) -> StageKind {
        match self.settings {
            StageSettings::Corpus(_) => StageKind::Corpus,
            StageSettings::Pretrain(_) => StageKind::Pretrain,
            StageSettings::Extend(_) => StageKind::Extend,
            StageSettings::Sft(_) => StageKind::Sft,
            StageSettings::RewardModel(_) => StageKind::RewardModel,
            StageSettings::Distill(_) => StageKind::Distill,
            StageSettings::Grpo(_) => StageKind::Grpo,
            StageSettings::ColdStart(_) => StageKind::ColdStart,
            StageSettings::Reject(_) => StageKind::Reject,
            StageSettings::Eval(_) => StageKind::Eval,
            StageSettings::Table(_) => StageKind::Table,
        }
    }

    /// A setting that changes nothing on this processor, and why.
    pub fn without_effect(&self) -> Option<String> {
        let (optimizer, precision) = match &self.settings {
            StageSettings::Pretrain(PretrainStage { training, .. })
            | StageSettings::Extend(ExtendStage { training, .. }) => (&training.optimizer, training.precision),
            StageSettings::Sft(SftStage { tuning, .. })
            | StageSettings::RewardModel(RewardModelStage { tuning, .. })
            | StageSettings::Distill(DistillStage { tuning, .. }) => (&tuning.optimizer, tuning.precision),
            StageSettings::Grpo(s) => (&s.optimizer, s.precision),
            _ => return None,
        };
        optimizer.without_effect(precision)
    }

    /// Names of the earlier stages whose results it uses, without repetition.
    pub fn inputs(&self) -> Vec<&str> {
        let mut names: Vec<&str> = match &self.settings {
            StageSettings::Corpus(_) => Vec::new(),
            StageSettings::Pretrain(s) => vec![&s.training.corpus],
            StageSettings::Extend(s) => std::iter::once(s.training.corpus.as_str()).chain(s.model.stage()).collect(),
            StageSettings::Sft(s) => s.references().filter_map(ModelRef::stage).collect(),
            StageSettings::RewardModel(s) => s.model.stage().into_iter().collect(),
            StageSettings::Distill(s) => s.references().filter_map(ModelRef::stage).collect(),
            StageSettings::Grpo(s) => s.references().filter_map(ModelRef::stage).collect(),
            StageSettings::ColdStart(s) | StageSettings::Reject(s) => s.inputs(),
            StageSettings::Eval(s) => s.references().filter_map(ModelRef::stage).collect(),
            StageSettings::Table(s) => {
                let stages = s.evaluations.iter().map(String::as_str);
                stages.chain(s.preference_model.as_ref().and_then(ModelRef::stage)).collect()
            }
        };
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Files and folders outside the run that it reads: documents, a tokenizer, models given by path, and `data` and `eval_data` of its task.
    pub fn external_inputs(&self) -> Vec<&str> {
        let (models, options): (Vec<&ModelRef>, _) = match &self.settings {
            StageSettings::Corpus(s) => return s.external_inputs(),
            StageSettings::Pretrain(_) => return Vec::new(),
            StageSettings::Extend(s) => return s.model.path().into_iter().collect(),
            StageSettings::Sft(s) => return s.references().filter_map(ModelRef::path).collect(),
            StageSettings::RewardModel(s) => {
                return s.model.path().into_iter().chain(s.data.iter().map(String::as_str)).collect();
            }
            StageSettings::Distill(s) => return s.external_inputs(),
            StageSettings::Grpo(s) => (s.references().collect(), &s.task_options),
            StageSettings::ColdStart(s) | StageSettings::Reject(s) => return s.external_inputs(),
            StageSettings::Eval(s) => (s.references().collect(), &s.task_options),
            StageSettings::Table(s) => return s.preference_model.iter().filter_map(ModelRef::path).collect(),
        };
        let mut paths: Vec<&str> = models.into_iter().filter_map(ModelRef::path).collect();
        let later = match &self.settings {
            StageSettings::Grpo(s) => s.later.as_ref().map(|l| &l.task_options),
            _ => None,
        };
        for options in std::iter::once(options).chain(later) {
            paths.extend(task_files(options));
        }
        paths.sort_unstable();
        paths.dedup();
        paths
    }
}

/// The shape of a decoder that is trained from nothing. Names as in Hugging Face's Llama configuration.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelShape {
    /// "qwen2" or "qwen3"; none for Llama's, and for DeepSeek-V3's, which says so itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub architecture: Option<&'static str>,
    /// D.
    pub hidden_size: usize,
    /// Width of the SwiGLU layer.
    pub intermediate_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// N.
    pub num_attention_heads: usize,
    /// K; divides N. Default N.
    pub num_key_value_heads: usize,
    /// H, even. Default D / N.
    pub head_dim: usize,
    /// Base of the rotary frequencies. Default 10,000.
    pub rope_theta: f64,
    /// One matrix for embedding and output. Default false.
    pub tie_word_embeddings: bool,
    /// The longest sequence.
    pub max_position_embeddings: usize,
    /// What `architecture = "deepseek_v3"` has beyond that. Default none: a Llama.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub deepseek: Option<super::DeepseekShape>,
}

/// Trains a decoder from nothing.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PretrainStage {
    /// How it is trained, and on what.
    #[serde(flatten)]
    pub training: TrainingSettings,
    /// The decoder.
    pub model: ModelShape,
}

/// Trains a model on longer documents after stretching its positions with YaRN (V3, section 4.3).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ExtendStage {
    /// The model; its tokenizer stays.
    pub model: ModelRef,
    /// How far positions are stretched. Default: `context` over the length of pretraining.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub yarn_factor: Option<f64>,
    /// Dimensions that turn more often than this within the length of pretraining are kept. Default 32 (V3).
    pub yarn_beta_fast: f64,
    /// Those that turn less often than this are stretched in full. Default 1 (V3).
    pub yarn_beta_slow: f64,
    /// How it is trained, and on what; `context` is the new length.
    #[serde(flatten)]
    pub training: TrainingSettings,
}

/// The soft overlong punishment of DAPO: up to `-weight` over the last `cache_length` tokens before
/// `max_completion_length`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OverlongPenalty {
    /// Tokens over which the penalty grows.
    pub cache_length: usize,
    /// The penalty at the limit. Default 1.
    pub weight: f64,
}

/// Other problems from a step on: R1 adds general prompts in the last part of its second stage (long version, 3.2.2).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LaterProblems {
    /// Steps before the first with these problems; whole generations.
    pub from_step: u64,
    /// The task they come from. Default the stage's.
    pub task: String,
    /// Its options. Default the stage's.
    #[serde(skip_serializing_if = "toml::Table::is_empty")]
    pub task_options: toml::Table,
}

/// Reinforcement learning with group-relative advantages (R1-Zero).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GrpoStage {
    /// The model to train.
    pub model: ModelRef,
    /// The first reference of the KL term. Default: the model itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<ModelRef>,
    /// The task that gives problems and verdicts.
    pub task: String,
    /// How a problem becomes a prompt, one of [`PROMPT_STYLES`](super::PROMPT_STYLES). Default `auto`.
    pub prompt_style: String,
    /// A system message before every question, for chat templates. Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_prompt: Option<String>,
    /// Text on a line of its own after every question. Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_suffix: Option<String>,
    /// Optimizer steps (`max_steps`). Default 10,400 (R1).
    pub steps: u64,
    /// Problems per optimizer step. Default 32 (R1).
    pub num_prompts: usize,
    /// Samples per problem, the group. Default 16 (R1).
    pub num_generations: usize,
    /// Optimizer steps served by one generation of `steps_per_generation * num_prompts` problems. Default 16 (R1);
    /// 1 is on-policy. A last generation that the remaining steps do not need in full is made shorter.
    pub steps_per_generation: u64,
    /// Passes over each generation. Default 1 (R1).
    pub num_iterations: u64,
    /// Tokens after which a completion is cut off. Default 32,768 (R1).
    pub max_completion_length: usize,
    /// Sampling temperature, which also divides the logits in training. Default 1.0 (R1).
    pub temperature: f64,
    /// Nucleus; below 1 the sampled distribution is not the trained one. Default 1.0.
    pub top_p: f64,
    /// Optimizer. Defaults: learning rate 3e-6 (R1), schedule `constant`, weight decay 0.
    #[serde(flatten)]
    pub optimizer: OptimizerSettings,
    /// KL coefficient. Default 0.001 (R1).
    pub beta: f64,
    /// Steps after which the policy becomes the reference; 0 for never. Default 400 (R1).
    pub ref_refresh_steps: u64,
    /// Lower clip. Default 0.2: R1-Zero's is not published, R1's first RL stage has 10.
    pub epsilon: f64,
    /// Upper clip. Default `epsilon`. For `cispo` the bound is `1 + epsilon_high` (TRL's value minus 1).
    pub epsilon_high: f64,
    /// Dual clip, above 1. Default off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dual_clip: Option<f64>,
    /// How token losses are weighted. Default `grpo`.
    pub loss_type: LossType,
    /// What centred rewards are divided by. Default `group`.
    pub scale_rewards: ScaleRewards,
    /// Which standard deviation. Default `population`.
    pub std_kind: StdKind,
    /// Leaves completions that were cut off out of the loss. Default false.
    pub mask_truncated_completions: bool,
    /// Token budget of one forward and backward; a longer sequence has one to itself. Default 16,384. No effect on the
    /// gradient but its rounding.
    pub micro_batch_tokens: usize,
    /// Computes a prompt once for the completions of it in a micro-batch: the same log-probabilities, gradients up to rounding;
    /// routers count its tokens once. See [`GrpoStage::shares_prompts`] for the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share_prompts: Option<bool>,
    /// Steps between checkpoints; 0 for only the last. Default 100.
    pub save_steps: u64,
    /// Steps between evaluations on held-out problems; 0 for none. Default 0.
    pub eval_steps: u64,
    /// Problems of such an evaluation. Default 100.
    pub eval_problems: u64,
    /// Samples per problem of such an evaluation. Default 4.
    pub eval_samples: u64,
    /// Completions per step that go into the log of rollouts; 0 for none. Default 16.
    pub log_rollouts: u64,
    /// Added to the recipe's seed. Default 0.
    pub seed_offset: u64,
    /// In what numbers products run, in sampling and training alike. Default `f32`.
    #[serde(skip_serializing_if = "Precision::is_default")]
    pub precision: Precision,
    /// Blocks keep only their inputs for the backward: less memory, more work, the same bits. Default false.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub gradient_checkpointing: bool,
    /// How far the biases of routers move at a step. Default 0: routing stays as pretrained.
    #[serde(skip_serializing_if = "is_zero")]
    pub bias_update_speed: f64,
    /// Drafts tokens with the model's prediction module while sampling. Default false.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub speculative_decoding: bool,
    /// The soft overlong punishment. Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overlong_penalty: Option<OverlongPenalty>,
    /// Trains adapters instead of the whole model; the reference is then the base. Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraSettings>,
    /// Options of the task (`data`, `eval_data`, ...), read by the tasks crate.
    #[serde(skip_serializing_if = "toml::Table::is_empty")]
    pub task_options: toml::Table,
    /// Other problems from a step on. Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub later: Option<LaterProblems>,
    /// The rewards. Default `accuracy` and `format` with equal weight (R1).
    pub rewards: Vec<RewardWeight>,
}

impl GrpoStage {
    /// Every model it uses.
    pub(super) fn references(&self) -> impl Iterator<Item = &ModelRef> {
        let rewards = self.rewards.iter().flat_map(RewardWeight::references);
        std::iter::once(&self.model).chain(&self.reference).chain(rewards)
    }

    /// Whether a prompt is computed once for its completions: by default unless biases of routers move, which count tokens.
    pub fn shares_prompts(&self) -> bool {
        self.share_prompts.unwrap_or(self.bias_update_speed == 0.0)
    }

    /// The settings of the loss.
    pub fn loss_config(&self) -> PolicyLossConfig {
        PolicyLossConfig {
            loss_type: self.loss_type,
            beta: self.beta,
            epsilon: self.epsilon,
            epsilon_high: self.epsilon_high,
            dual_clip: self.dual_clip,
            max_completion_length: self.max_completion_length,
        }
    }

    /// The settings of the advantages.
    pub fn advantage_config(&self) -> AdvantageConfig {
        AdvantageConfig { scale: self.scale_rewards, std_kind: self.std_kind, ..AdvantageConfig::default() }
    }
}

/// Measures models on a task.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EvalStage {
    /// The models; a recipe may give one name or a list.
    pub model: Vec<ModelRef>,
    /// One per model: its key under `evals` in summary.json. Default: the stage's name, or the path's last part.
    pub label: Vec<String>,
    /// The task.
    pub task: String,
    /// How a problem becomes a prompt. Default `auto`.
    pub prompt_style: String,
    /// A system message before every question, for chat templates. Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_prompt: Option<String>,
    /// Text on a line of its own after every question. Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_suffix: Option<String>,
    /// Worked examples that stand before every question: an earlier stage of curated data, or a file of rows. Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub few_shot: Option<ModelRef>,
    /// How many of them. Default 1.
    #[serde(skip_serializing_if = "is_one")]
    pub few_shot_examples: usize,
    /// Held-out problems. Default 200.
    pub problems: u64,
    /// Samples per problem. Default 16.
    pub samples: u64,
    /// Sampling temperature. Default 0.6 (R1's evaluations).
    pub temperature: f64,
    /// Nucleus. Default 0.95 (R1's evaluations).
    pub top_p: f64,
    /// Tokens after which a completion is cut off. Default 32,768 (R1).
    pub max_completion_length: usize,
    /// Added to the recipe's seed. Default 0.
    pub seed_offset: u64,
    /// In what numbers products run. Default `f32`.
    #[serde(skip_serializing_if = "Precision::is_default")]
    pub precision: Precision,
    /// Drafts tokens with the model's prediction module while sampling. Default false.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub speculative_decoding: bool,
    /// Options of the task (`data`, ...), read by the tasks crate.
    #[serde(skip_serializing_if = "toml::Table::is_empty")]
    pub task_options: toml::Table,
}

impl EvalStage {
    /// Every stage and path it uses.
    pub(super) fn references(&self) -> impl Iterator<Item = &ModelRef> {
        self.model.iter().chain(&self.few_shot)
    }
}

fn is_one(count: &usize) -> bool {
    *count == 1
}

/// Left out where it says nothing, so that hashes of older recipes stay.
pub(super) fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

/// The same for a count.
pub(super) fn is_no_count(value: &u64) -> bool {
    *value == 0
}
