//! What can be wrong with a recipe. Every message says where (file and line, or the flag), which key, and what to do.

use std::fmt;
use std::sync::Arc;

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A line of a recipe, counted from 1.
    Line {
        /// The file, or `NAME (embedded)`.
        source: Arc<str>,
        /// The line.
        line: usize,
    },
    /// A flag of the command line, as written: `--set zero.beta=0.01` or `--learning-rate 1e-5`.
    Flag(Arc<str>),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line { source, line } => write!(f, "{source}:{line}"),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

/// Why a recipe cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// The recipe's file cannot be read.
    #[error("cannot read the recipe {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Neither a file nor an embedded recipe.
    #[error("there is no recipe `{name}`: no file of that name, and no embedded one; {hint}")]
    UnknownRecipe {
        /// What was asked for.
        name: String,
        /// The nearest embedded name, or all of them.
        hint: String,
    },
    /// Not TOML.
    #[error("{at}: this is not valid TOML: {message}")]
    Syntax {
        /// Where.
        at: Origin,
        /// The parser's words.
        message: String,
    },
    /// A key that nothing reads.
    #[error("{at}: unknown key `{key}`; {hint}")]
    UnknownKey {
        /// Where.
        at: Origin,
        /// The key with its path.
        key: String,
        /// The nearest valid key, or all of them.
        hint: String,
    },
    /// A needed key is absent.
    #[error("{at}: `{key}` is missing; it must be {wanted}")]
    Missing {
        /// Where the table that lacks it begins.
        at: Origin,
        /// The key with its path.
        key: String,
        /// What it must be.
        wanted: String,
    },
    /// A value of the wrong type or outside its range.
    #[error("{at}: `{key}` is {found}, but it must be {wanted}")]
    Value {
        /// Where.
        at: Origin,
        /// The key with its path.
        key: String,
        /// What was found there.
        found: String,
        /// What is wanted and, where it is not plain, why.
        wanted: String,
    },
    /// Values that are fine alone do not go together.
    #[error("{at}: {message}")]
    Conflict {
        /// Where.
        at: Origin,
        /// What does not fit and what to change.
        message: String,
    },
    /// A reference to a stage that is not there.
    #[error("{at}: `{key}` is `{name}`, but there is no such stage before `{stage}`; {hint}")]
    UnknownStage {
        /// Where.
        at: Origin,
        /// The key that refers.
        key: String,
        /// The name it gives.
        name: String,
        /// The stage that refers.
        stage: String,
        /// What could have been meant.
        hint: String,
    },
    /// A stage asked for by name (`--until`, a hash) does not exist.
    #[error("the recipe has no stage `{name}`; {hint}")]
    NoSuchStage {
        /// What was asked for.
        name: String,
        /// The nearest stage, or all of them.
        hint: String,
    },
    /// A malformed `--set` or flag.
    #[error("{at}: {message}")]
    Override {
        /// The flag.
        at: Origin,
        /// What is wrong with it.
        message: String,
    },
    /// The resolved recipe cannot be written as TOML, or not be read back.
    #[error("the recipe cannot be written: {message}")]
    Write {
        /// What the serializer said.
        message: String,
    },
}
