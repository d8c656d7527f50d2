//! Recipes and the stages they run: what is there already, what resumes, what runs, and the report of it all.

pub mod error;
pub mod models;
pub mod recipe;
mod report;
pub mod reward_model;
pub mod run;
mod stages;

pub use error::PipelineError;
pub use models::OpenModel;
pub use reward_model::RewardModel;
pub use run::{Outcome, RunOptions, run};
