//! The settings of supervised fine-tuning (DeepSeek-R1, sections 2.3.1 and 2.3.3; long version, B.4.2).

use std::collections::BTreeMap;

use aha_train::schedule::ScheduleKind;
use serde::Serialize;

use super::error::RecipeError;
use super::lora::{LoraSettings, lora};
use super::optimizer::{Defaults, OptimizerSettings, optimizer};
use super::resolve::Context;
use super::section::{NOT_NEGATIVE, Section};
use super::settings::{MODEL_WANTED, precision, prompt_style};
use super::stage::{ModelRef, Precision, is_zero};

pub(crate) const SFT_KEYS: &[&str] = &["model"];

/// Keys of [`DataSettings`].
pub(crate) const DATA_KEYS: &[&str] =
    &["data", "repeat", "epochs", "max_steps", "batch_tokens", "max_length", "validation_rows", "validate_every"];

/// Keys of [`TuningSettings`] beside those of the optimizer.
pub(crate) const TUNING_KEYS: &[&str] = &[
    "prompt_style",
    "system_prompt",
    "prompt_suffix",
    "save_steps",
    "seed_offset",
    "precision",
    "gradient_checkpointing",
    "bias_update_speed",
    "lora",
];

/// Trains a model to answer as its data do.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SftStage {
    /// The model to train.
    pub model: ModelRef,
    /// What it is trained on.
    #[serde(flatten)]
    pub data: DataSettings,
    /// How it is trained.
    #[serde(flatten)]
    pub tuning: TuningSettings,
}

/// Conversations and how often they are seen.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DataSettings {
    /// Conversations: earlier stages of curated data, files of rows. None where a teacher's traces are all there is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub data: Vec<ModelRef>,
    /// How often a pass sees the conversations of a family (what curated rows call their task): families of which there are few
    /// otherwise drown in the others. Default once.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub repeat: BTreeMap<String, usize>,
    /// Passes over the data. Default 2 (R1).
    pub epochs: u64,
    /// Ends after so many steps; the learning rate then falls over these. Default none: all epochs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_steps: Option<u64>,
    /// Tokens of a step, about: conversations stay whole. Default 65,536.
    pub batch_tokens: usize,
    /// Longer conversations are left out (and counted). Default 32,768 (R1), at most what the model has positions for.
    pub max_length: usize,
    /// Conversations that are only validated on, at most a tenth of all. Default 64.
    pub validation_rows: u64,
    /// Steps between validations; 0 for only the last. Default 50.
    pub validate_every: u64,
}

/// How a model is tuned, whatever to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TuningSettings {
    /// How a conversation becomes a prompt. Default `auto`.
    pub prompt_style: String,
    /// A system message before conversations that have none, for chat templates. Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_prompt: Option<String>,
    /// Text on a line of its own after every question. Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_suffix: Option<String>,
    /// Steps between checkpoints; 0 for only the last. Default 100.
    pub save_steps: u64,
    /// Added to the recipe's seed. Default 0.
    pub seed_offset: u64,
    /// Optimizer. Defaults: learning rate 5e-6, schedule `cosine` to a tenth (R1), weight decay 0.1.
    #[serde(flatten)]
    pub optimizer: OptimizerSettings,
    /// In what numbers products run. Default `f32`.
    #[serde(skip_serializing_if = "Precision::is_default")]
    pub precision: Precision,
    /// Blocks keep only their inputs for the backward: less memory, more work, the same bits. Default false.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub gradient_checkpointing: bool,
    /// How far the biases of routers move at a step. Default 0: routing stays as pretrained.
    #[serde(skip_serializing_if = "is_zero")]
    pub bias_update_speed: f64,
    /// Trains adapters instead of the whole model. Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraSettings>,
}

impl SftStage {
    /// Everything it starts from.
    pub(super) fn references(&self) -> impl Iterator<Item = &ModelRef> {
        std::iter::once(&self.model).chain(&self.data.data)
    }
}

const DATA_WANTED: &str = "the name of an earlier stage of data or the path of a file, or a list of them";

pub(crate) fn sft(section: &Section<'_>, context: &Context<'_>) -> Result<SftStage, RecipeError> {
    let name = section.string("model", MODEL_WANTED)?.ok_or_else(|| section.missing("model", MODEL_WANTED))?;
    let model = context.model(section, "model", &name)?;
    if !section.has("data") {
        return Err(section.missing("data", DATA_WANTED));
    }
    let data = data(section, context, context.max_positions(&model))?;
    Ok(SftStage { tuning: tuning(section, data.max_steps, 5e-6)?, data, model })
}

/// Reads the keys of the data, which may be none; `positions` is what the model has, with the stage that says so.
pub(crate) fn data(
    section: &Section<'_>,
    context: &Context<'_>,
    positions: Option<(&str, usize)>,
) -> Result<DataSettings, RecipeError> {
    let data = section.strings("data", DATA_WANTED)?.unwrap_or_default();
    let data = data.into_iter().map(|text| {
        let stage = context.data(section, "data", &text)?;
        Ok(stage.map_or(ModelRef::Path(text), ModelRef::Stage))
    });
    let data = data.collect::<Result<_, _>>()?;
    let max_length = section.size("max_length", 2)?;
    if let (Some(length), Some((stage, most))) = (max_length, positions)
        && length > most
    {
        let message = format!(
            "`{}` is {length}, but the model of stage `{stage}` has {most} positions",
            section.key("max_length")
        );
        return Err(section.conflict("max_length", message));
    }
    Ok(DataSettings {
        data,
        repeat: repeat(section)?,
        epochs: section.integer("epochs", 1)?.unwrap_or(2),
        max_steps: section.integer("max_steps", 1)?,
        batch_tokens: section.size("batch_tokens", 1)?.unwrap_or(65_536),
        max_length: max_length.unwrap_or_else(|| positions.map_or(32_768, |(_, most)| most.min(32_768))),
        validation_rows: section.integer("validation_rows", 0)?.unwrap_or(64),
        validate_every: section.integer("validate_every", 0)?.unwrap_or(50),
    })
}

fn repeat(section: &Section<'_>) -> Result<BTreeMap<String, usize>, RecipeError> {
    let Some(table) = section.table("repeat")? else { return Ok(BTreeMap::new()) };
    let families: Vec<&str> = table.entries.iter().map(|(family, _)| family.as_str()).collect();
    let own = Section::new(table, &section.key("repeat"), &[&families])?;
    let times = |family: &&str| Ok((family.to_string(), own.size(family, 1)?.unwrap_or(1)));
    families.iter().map(times).collect()
}

/// Reads the keys of the tuning; `steps` is how long it is, where that is known.
pub(crate) fn tuning(
    section: &Section<'_>,
    steps: Option<u64>,
    learning_rate: f64,
) -> Result<TuningSettings, RecipeError> {
    let defaults = Defaults { learning_rate: Some(learning_rate), schedule: ScheduleKind::Cosine, weight_decay: 0.1 };
    // How many steps there are is known when the data are; no schedule here needs to know before.
    let mut optimizer = optimizer(section, steps.unwrap_or(1 << 40), &defaults)?;
    if matches!(optimizer.schedule, ScheduleKind::Wsd | ScheduleKind::V3) {
        let message = format!("`{}` of such a stage is `constant`, `linear` or `cosine`", section.key("schedule"));
        return Err(section.conflict("schedule", message));
    }
    optimizer.decay_steps = 0;
    let bias_update_speed = section.number("bias_update_speed", &NOT_NEGATIVE)?.unwrap_or(0.0);
    let lora = lora(section, optimizer.muon.is_some(), bias_update_speed)?;
    Ok(TuningSettings {
        prompt_style: prompt_style(section)?,
        system_prompt: section.string("system_prompt", "a text")?,
        prompt_suffix: section.string("prompt_suffix", "a text")?,
        save_steps: section.integer("save_steps", 0)?.unwrap_or(100),
        seed_offset: section.integer("seed_offset", 0)?.unwrap_or(0),
        optimizer,
        precision: precision(section, &Precision::TRAINING)?,
        gradient_checkpointing: section.boolean("gradient_checkpointing")?.unwrap_or(false),
        bias_update_speed,
        lora,
    })
}
