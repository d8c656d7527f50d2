//! Where a model or data come from: an earlier stage, or a path.

use serde::{Serialize, Serializer};
use std::fmt;

/// A model: an earlier stage's, or one on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelRef {
    /// The stage of this name.
    Stage(String),
    /// A folder or a GGUF file.
    Path(String),
}

impl ModelRef {
    /// The stage's name, if it is one.
    pub fn stage(&self) -> Option<&str> {
        match self {
            Self::Stage(name) => Some(name),
            Self::Path(_) => None,
        }
    }

    /// The path, if it is one.
    pub fn path(&self) -> Option<&str> {
        match self {
            Self::Stage(_) => None,
            Self::Path(path) => Some(path),
        }
    }
}

impl fmt::Display for ModelRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Stage(text) | Self::Path(text)) = self;
        f.write_str(text)
    }
}

impl Serialize for ModelRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
