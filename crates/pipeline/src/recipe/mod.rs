//! Recipes: a TOML file with a list of named stages.
//!
//! What a person wrote is a [`RawRecipe`] (a file or an embedded name, with `--set` and flags put over it); what will run
//! is a [`Recipe`], in which every default is filled in and everything has been checked. [`plan`] says which stages a run
//! still has to do.
//!
//! ```toml
//! name = "mini-zero"
//! seed = 1
//!
//! [[stage]]
//! name = "zero"
//! kind = "grpo"
//! model = "base"          # an earlier stage, or a path
//! task = "mini"
//! ```

mod corpus;
mod curation;
mod deepseek;
mod distill;
mod embedded;
mod error;
mod keys;
mod lora;
mod model_ref;
mod nearest;
mod optimizer;
mod overrides;
mod packing;
mod parameters;
mod plan;
mod precision;
mod raw;
mod resolve;
mod reward_model;
mod rewards;
mod section;
mod settings;
mod sft;
mod stage;
mod table;
mod training;
mod work;

use serde::Serialize;

pub use corpus::{CorpusStage, SourceSettings};
pub use curation::{CurationStage, Decide};
pub use deepseek::{DeepseekShape, DeepseekTraining};
pub use distill::{
    ComparisonSettings, DistillMethod, DistillStage, EndpointSettings, OnPolicySettings, ProblemSettings, Teacher,
};
pub use embedded::list_embedded;
pub use error::{Origin, RecipeError};
pub use keys::{CORPUS_KEYS, PROMPT_STYLES};
pub use lora::LoraSettings;
pub use optimizer::{MuonSettings, OptimizerSettings, TailSettings};
pub use packing::PackingSettings;
pub use parameters::Outline;
pub use plan::{PlannedStage, StageAction, plan, plan_with_files, stage_hash, stage_hashes};
pub use raw::RawRecipe;
pub use reward_model::RewardModelStage;
pub use rewards::{JudgeKind, JudgeSettings, RewardWeight};
pub use sft::{DataSettings, SftStage, TuningSettings};
pub use stage::{
    EvalStage, ExtendStage, GrpoStage, LaterProblems, ModelRef, ModelShape, OverlongPenalty, Precision, PretrainStage,
    Stage, StageKind, StageSettings,
};
pub use table::TableStage;
pub use training::TrainingSettings;
pub use work::{Work, work};

/// A recipe as resolved: complete and checked.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Recipe {
    /// Its name, the default name of its runs.
    pub name: String,
    /// What it shows, for lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The seed of everything random. Default 1.
    pub seed: u64,
    /// The stages; each stands after everything it uses.
    #[serde(rename = "stage")]
    pub stages: Vec<Stage>,
}

impl Recipe {
    /// The embedded recipe called `name`, as it is.
    ///
    /// # Errors
    /// There is none; the nearest name is given.
    pub fn embedded(name: &str) -> Result<Self, RecipeError> {
        RawRecipe::embedded(name)?.resolve()
    }

    /// A recipe of one stage that was put together in code; the recipe is called like the stage.
    ///
    /// # Errors
    /// Settings that a file with the same stage would be refused for.
    pub fn single(stage: Stage, seed: u64) -> Result<Self, RecipeError> {
        let recipe = Self { name: stage.name.clone(), description: None, seed, stages: vec![stage] };
        RawRecipe::parse(&recipe.to_toml()?, "command line")?.resolve()
    }

    /// The recipe as TOML, every setting written out; reading it back gives the same recipe.
    ///
    /// # Errors
    /// A value that TOML cannot hold (a seed above 2^63 - 1).
    pub fn to_toml(&self) -> Result<String, RecipeError> {
        let body = toml::to_string(self).map_err(|error| RecipeError::Write { message: error.to_string() })?;
        Ok(format!("# As resolved by aha {}: every setting is written out.\n{body}", env!("CARGO_PKG_VERSION")))
    }

    /// The stage called `name`.
    ///
    /// # Errors
    /// There is none; the nearest name is given.
    pub fn stage(&self, name: &str) -> Result<&Stage, RecipeError> {
        self.stages.iter().find(|stage| stage.name == name).ok_or_else(|| {
            let names: Vec<&str> = self.stages.iter().map(|stage| stage.name.as_str()).collect();
            RecipeError::NoSuchStage { name: name.to_owned(), hint: nearest::hint(name, &names, "its stages") }
        })
    }
}
