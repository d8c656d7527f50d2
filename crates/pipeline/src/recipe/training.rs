//! Next-token training on the documents of a corpus: what pretraining and context extension have in common.

use aha_train::schedule::ScheduleKind;
use serde::Serialize;

use super::deepseek::DeepseekTraining;
use super::error::RecipeError;
use super::optimizer::{Defaults, OptimizerSettings, optimizer};
use super::packing::{PackingSettings, packing};
use super::resolve::Context;
use super::section::Section;
use super::settings::precision;
use super::stage::Precision;

/// How a model is trained on documents.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TrainingSettings {
    /// The corpus stage.
    pub corpus: String,
    /// Optimizer steps; a recipe may give `tokens` instead, which are rounded up to whole steps.
    pub steps: u64,
    /// Tokens per step, a multiple of `context`.
    pub batch_tokens: usize,
    /// Tokens per row, at most `max_position_embeddings`.
    pub context: usize,
    /// How documents fill rows, and the growth of the batch.
    #[serde(flatten)]
    pub packing: PackingSettings,
    /// Optimizer. Defaults: schedule `cosine`, weight decay 0.1 (V3); the learning rate has none.
    #[serde(flatten)]
    pub optimizer: OptimizerSettings,
    /// Documents of the validation set. Default 256.
    pub validation_documents: u64,
    /// Steps between validations; 0 for only the last. Default 100.
    pub validate_every: u64,
    /// Steps between checkpoints; 0 for only the last. Default 100.
    pub save_steps: u64,
    /// In what numbers products run. Default `f32`.
    #[serde(skip_serializing_if = "Precision::is_default")]
    pub precision: Precision,
    /// Blocks keep only their inputs for the backward: less memory, more work, the same bits. Default false.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub gradient_checkpointing: bool,
    /// What a model with routed experts is trained with.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub deepseek: Option<DeepseekTraining>,
}

/// Reads the keys; `max_positions` is the longest row where that is known, `deepseek` the defaults for routed experts where the
/// model has them, `schedule` the default schedule.
pub(crate) fn training(
    section: &Section<'_>,
    context: &Context<'_>,
    max_positions: Option<usize>,
    deepseek: Option<&DeepseekTraining>,
    schedule: ScheduleKind,
) -> Result<TrainingSettings, RecipeError> {
    let wanted = "the name of an earlier corpus stage";
    let name = section.string("corpus", wanted)?.ok_or_else(|| section.missing("corpus", wanted))?;
    let corpus = context.corpus(section, "corpus", &name)?;
    let row = section.size("context", 2)?.ok_or_else(|| section.missing("context", "the tokens of a row"))?;
    if let Some(longest) = max_positions.filter(|longest| row > *longest) {
        let message = format!(
            "`{}` is {row}, more than the model's max_position_embeddings of {longest}; lower the one or raise the other",
            section.key("context"),
        );
        return Err(section.conflict("context", message));
    }
    let batch_tokens =
        section.size("batch_tokens", 1)?.ok_or_else(|| section.missing("batch_tokens", "the tokens of a step"))?;
    if !batch_tokens.is_multiple_of(row) {
        let message = format!(
            "`{}` is {batch_tokens}, which is not a whole number of rows of {row} tokens (`{}`); take {}",
            section.key("batch_tokens"),
            section.key("context"),
            batch_tokens.next_multiple_of(row)
        );
        return Err(section.conflict("batch_tokens", message));
    }
    let packing = packing(section, batch_tokens, row)?;
    let steps = match (section.integer("steps", 1)?, section.integer("tokens", 1)?) {
        (Some(steps), None) => steps,
        (None, Some(tokens)) => packing.batch(batch_tokens, row).steps(tokens),
        (Some(_), Some(_)) => {
            let message = format!(
                "`{}` and `{}` say the same thing twice; keep one",
                section.key("steps"),
                section.key("tokens")
            );
            return Err(section.conflict("tokens", message));
        }
        (None, None) => {
            return Err(section.missing("tokens", "the length of the training in tokens (or `steps`)"));
        }
    };
    let defaults = Defaults { learning_rate: None, schedule, weight_decay: 0.1 };
    Ok(TrainingSettings {
        corpus,
        steps,
        batch_tokens,
        context: row,
        packing,
        optimizer: optimizer(section, steps, &defaults)?,
        validation_documents: section.integer("validation_documents", 1)?.unwrap_or(256),
        validate_every: section.integer("validate_every", 0)?.unwrap_or(100),
        save_steps: section.integer("save_steps", 0)?.unwrap_or(100),
        precision: precision(section, &Precision::TRAINING)?,
        gradient_checkpointing: section.boolean("gradient_checkpointing")?.unwrap_or(false),
        deepseek: DeepseekTraining::read(section, deepseek)?,
    })
}
