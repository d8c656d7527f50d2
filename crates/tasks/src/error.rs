//! The error type of this crate.

use std::path::PathBuf;

/// What can go wrong with a task.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// A file that cannot be read.
    #[error("{}: cannot read: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A line of a data file that is not what it should be.
    #[error("{}:{line}: {problem}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A task name nobody knows.
    #[error("unknown task \"{name}\"; known: {known}")]
    Unknown {
        /// The name.
        name: String,
        /// Names there are.
        known: String,
    },
    /// An option that is missing or wrong.
    #[error("task {task}: {problem}")]
    Option {
        /// The task.
        task: String,
        /// What is wrong and what to do.
        problem: String,
    },
}
