//! The settings of reward models (DeepSeek-R1, section 3.1 and B.2 of the long version).

use serde::Serialize;

use super::error::RecipeError;
use super::resolve::Context;
use super::section::{NOT_NEGATIVE, SHARE, Section};
use super::settings::MODEL_WANTED;
use super::sft::{TuningSettings, tuning};
use super::stage::ModelRef;
use crate::reward_model::{Objective, Reads};

pub(crate) const REWARD_MODEL_KEYS: &[&str] = &[
    "model",
    "objective",
    "reads",
    "data",
    "generated",
    "chinese",
    "epochs",
    "max_steps",
    "batch_size",
    "max_length",
    "margin_weight",
    "centering",
    "validation_rows",
    "validate_every",
];

/// Trains a model to score responses.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RewardModelStage {
    /// The model it begins as; a score takes the place of its output matrix.
    pub model: ModelRef,
    /// Pairs or labels.
    pub objective: Objective,
    /// What of a response it reads. Default `answer` for pairs, `whole` for labels (R1).
    pub reads: Reads,
    /// Files of rows.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub data: Vec<String>,
    /// Rows of the miniature world's requests, instead of files. Default 0.
    #[serde(skip_serializing_if = "is_none")]
    pub generated: u64,
    /// Share of those that are in Chinese. Default 0.25.
    pub chinese: f64,
    /// Passes over the data. Default 1 (R1).
    pub epochs: u64,
    /// Ends after so many steps. Default none: all epochs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_steps: Option<u64>,
    /// Pairs or labelled responses per step. Default 256 (R1).
    pub batch_size: usize,
    /// Examples with a longer sequence are left out (and counted). Default 8,192 (R1), at most what the model has positions for.
    pub max_length: usize,
    /// Factor on the margins that rows ask for. Default 1.
    pub margin_weight: f64,
    /// Factor on the squared sum of a pair's scores. Default 0.01.
    pub centering: f64,
    /// Rows that are only measured on; of files, at most a tenth. Default 500.
    pub validation_rows: u64,
    /// Steps between measurements; 0 for only the last. Default 0.
    pub validate_every: u64,
    /// How it is trained. Defaults: learning rate 6e-6 (R1), schedule `cosine` to a tenth, weight decay 0.1. With `lora`, adapters
    /// and the score are trained instead of the whole model.
    #[serde(flatten)]
    pub tuning: TuningSettings,
}

fn is_none(n: &u64) -> bool {
    *n == 0
}

const DATA_WANTED: &str = "the path of a file of pairs or labelled responses, or a list of paths";

pub(crate) fn reward_model(section: &Section<'_>, context: &Context<'_>) -> Result<RewardModelStage, RecipeError> {
    let name = section.string("model", MODEL_WANTED)?.ok_or_else(|| section.missing("model", MODEL_WANTED))?;
    let model = context.model(section, "model", &name)?;
    let objectives = [("pairwise", Objective::Pairwise), ("pointwise", Objective::Pointwise)];
    let objective = section.choice("objective", &objectives)?.unwrap_or(Objective::Pairwise);
    let reads = section.choice("reads", &[("answer", Reads::Answer), ("whole", Reads::Whole)])?;
    let by_default = if objective == Objective::Pairwise { Reads::Answer } else { Reads::Whole };
    let data = section.strings("data", DATA_WANTED)?.unwrap_or_default();
    let generated = section.integer("generated", 0)?.unwrap_or(0);
    match (data.is_empty(), generated) {
        (true, 0) => return Err(section.missing("data", DATA_WANTED)),
        (false, 1..) => {
            let message =
                format!("`{}` and `{}` are both given; keep one", section.key("data"), section.key("generated"));
            return Err(section.conflict("generated", message));
        }
        _ => {}
    }
    let positions = context.max_positions(&model).map_or(8192, |(_, most)| most.min(8192));
    let max_steps = section.integer("max_steps", 1)?;
    Ok(RewardModelStage {
        model,
        objective,
        reads: reads.unwrap_or(by_default),
        data,
        generated,
        chinese: section.number("chinese", &SHARE)?.unwrap_or(0.25),
        epochs: section.integer("epochs", 1)?.unwrap_or(1),
        max_steps,
        batch_size: section.size("batch_size", 1)?.unwrap_or(256),
        max_length: section.size("max_length", 2)?.unwrap_or(positions),
        margin_weight: section.number("margin_weight", &NOT_NEGATIVE)?.unwrap_or(1.0),
        centering: section.number("centering", &NOT_NEGATIVE)?.unwrap_or(0.01),
        validation_rows: section.integer("validation_rows", 1)?.unwrap_or(500),
        validate_every: section.integer("validate_every", 0)?.unwrap_or(0),
        tuning: tuning(section, max_steps, 6e-6)?,
    })
}
