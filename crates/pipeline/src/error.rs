//! What can end a run.

use aha_eval::EvalError;
use aha_runs::RunsError;
use aha_train::TrainError;

/// The error of a run; messages name what to do.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// The recipe.
    #[error(transparent)]
    Recipe(#[from] crate::recipe::RecipeError),
    /// Files of the run.
    #[error(transparent)]
    Runs(#[from] RunsError),
    /// A model or tokenizer.
    #[error("{model}: {source}")]
    Model {
        /// The model as named in the recipe.
        model: String,
        /// What is wrong with it.
        source: aha_model::Error,
    },
    /// A task.
    #[error(transparent)]
    Task(#[from] aha_tasks::TaskError),
    /// A training stage.
    #[error("stage {stage}: {source}")]
    Train {
        /// The stage.
        stage: String,
        /// What happened.
        source: TrainError,
    },
    /// An evaluation.
    #[error("stage {stage}: {source}")]
    Eval {
        /// The stage.
        stage: String,
        /// What happened.
        source: EvalError,
    },
    /// Candidates, their filters or their files.
    #[error("stage {stage}: {source}")]
    Curate {
        /// The stage.
        stage: String,
        /// What happened.
        source: aha_curate::CurateError,
    },
    /// Anything else about a stage.
    #[error("stage {stage}: {problem}")]
    Stage {
        /// The stage.
        stage: String,
        /// What is wrong and what to do.
        problem: String,
    },
}
