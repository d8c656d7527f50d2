//! The error type of this crate. Every message names the file, tensor or key it is about and, where it
//! can, what to do.

use std::path::{Path, PathBuf};

/// What can go wrong while reading or writing configurations, checkpoints, tokenizers and templates.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused a file operation.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was being done, as a verb phrase ("read", "create").
        action: &'static str,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A model configuration that is malformed or asks for something this crate does not do.
    #[error("model config: {0}")]
    Config(String),
    /// A model file whose contents are malformed (truncated, wrong magic, bad offsets, wrong dtype).
    #[error("{}: {problem}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A tensor whose shape is not the one the configuration asks for.
    #[error("tensor {name}: shape {found:?} in the file, but the config asks for {wanted:?}")]
    Shape {
        /// Hugging Face tensor name.
        name: String,
        /// Shape in the file.
        found: Vec<usize>,
        /// Shape the configuration asks for.
        wanted: Vec<usize>,
    },
    /// A tensor the configuration asks for that no file has.
    #[error("tensor {name}: not in {}", path.display())]
    MissingTensor {
        /// Hugging Face tensor name.
        name: String,
        /// The checkpoint it was looked for in.
        path: PathBuf,
    },
    /// A tokenizer that cannot be read or does not do what was asked of it.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// A chat template that does not compile or refuses the conversation.
    #[error("chat template: {0}")]
    Template(String),
}

/// Result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Wraps an operating-system error with the path and the action ("read", "create").
    pub fn io(path: &Path, action: &'static str, source: std::io::Error) -> Self {
        Error::Io { path: path.to_path_buf(), action, source }
    }

    /// A malformed file.
    pub fn format(path: &Path, problem: impl Into<String>) -> Self {
        Error::Format { path: path.to_path_buf(), problem: problem.into() }
    }
}
