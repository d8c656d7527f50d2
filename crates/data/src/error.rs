//! The error type of this crate.

/// What can go wrong with data.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A tokenizer that cannot be trained.
    #[error("cannot train the tokenizer: {0}")]
    Tokenizer(String),
    /// Documents on disk.
    #[error("{}{line}: {problem}", path.display())]
    Source {
        /// The file or folder.
        path: std::path::PathBuf,
        /// `:LINE`, or nothing.
        line: String,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A task that gives no problems.
    #[error(transparent)]
    Task(#[from] aha_tasks::TaskError),
}
