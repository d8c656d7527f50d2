//! The error type of the training loops.

/// What can end a training.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A setting or input of the loss.
    #[error(transparent)]
    Grpo(#[from] crate::grpo_error::GrpoError),
    /// A document could not be had.
    #[error(transparent)]
    Data(#[from] aha_data::DataError),
    /// A problem could not be had.
    #[error(transparent)]
    Task(#[from] aha_tasks::TaskError),
    /// The engine refused a request.
    #[error("sampling: {0}")]
    Engine(#[from] aha_engine::EngineError),
    /// A model or tokenizer file.
    #[error(transparent)]
    Model(#[from] aha_model::Error),
    /// Trainer state that cannot be written or read back.
    #[error("{}: {problem}", path.display())]
    State {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// The numbers went wrong.
    #[error("step {step}: {problem}")]
    Diverged {
        /// The step.
        step: u64,
        /// What happened and what to try.
        problem: String,
    },
    /// Whoever listens could not go on (a log that cannot be written, an evaluation that failed).
    #[error("{0}")]
    Observer(String),
}
