//! The errors of this crate. Each names the file, line or key and says what to do.

use std::path::PathBuf;

/// What can go wrong with candidates.
#[derive(Debug, thiserror::Error)]
pub enum CurateError {
    /// A file that cannot be read.
    #[error("{}: cannot read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file that cannot be written.
    #[error(transparent)]
    Write(#[from] aha_runs::RunsError),
    /// A line that is not what it should be.
    #[error("{}:{line}: {problem}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A file that as a whole is not what it should be.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A setting out of its range.
    #[error("filter setting {key}: {problem}")]
    Setting {
        /// The key, e.g. `duplicates.threshold`.
        key: &'static str,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A candidate nobody knows.
    #[error("{}: there is no candidate {id}", path.display())]
    Unknown {
        /// The file.
        path: PathBuf,
        /// The id.
        id: String,
    },
}

impl CurateError {
    pub(crate) fn line(path: &std::path::Path, line: usize, problem: impl ToString) -> Self {
        Self::Line { path: path.to_path_buf(), line, problem: problem.to_string() }
    }

    pub(crate) fn file(path: &std::path::Path, problem: impl ToString) -> Self {
        Self::File { path: path.to_path_buf(), problem: problem.to_string() }
    }
}
