//! Recipes and the stages they run: what is there already, what resumes, what runs, and the report of it all.

pub mod error;
pub mod models;
mod own_judge;
pub mod recipe;
mod report;
pub mod reward_model;
pub mod run;
mod stages;

pub use error::PipelineError;
pub use models::OpenModel;
pub use own_judge::OwnJudge;
pub use reward_model::RewardModel;
pub use run::{Outcome, RunOptions, run};
