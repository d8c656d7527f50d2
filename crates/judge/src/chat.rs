//! What a judge needs of a model: one answer to one conversation.

use serde::{Deserialize, Serialize};

/// One turn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// "system", "user" or "assistant".
    pub role: String,
    /// The text.
    pub content: String,
}

impl Turn {
    /// A turn of the given role.
    pub fn new(role: &str, content: impl Into<String>) -> Self {
        Turn { role: role.to_owned(), content: content.into() }
    }
}

/// A conversation to answer. Its JSON is the key of the cache.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChatRequest {
    /// The conversation.
    pub messages: Vec<Turn>,
    /// Sampling temperature; 0 is greedy.
    pub temperature: f64,
    /// Tokens after which the answer is cut off.
    pub max_tokens: usize,
    /// Seed, where the model takes one.
    pub seed: u64,
}

/// An answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The text.
    pub text: String,
    /// Tokens of the conversation and of the answer; 0 where they are not told.
    #[serde(default)]
    pub tokens: u64,
    /// It was cut off at the limit of tokens.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChatError {
    /// Trying again can help: no connection, a timeout, too many requests, an error of the server.
    #[error("{0}")]
    Temporary(String),
    /// Trying again is no use: a wrong key, an unknown model, a request that is refused.
    #[error("{0}")]
    Permanent(String),
}

/// A model that answers conversations; many threads may ask at once.
pub trait Chat: Send + Sync {
    /// Its name, part of the key of the cache.
    fn name(&self) -> &str;

    /// The answer.
    ///
    /// # Errors
    /// None could be had.
    fn complete(&self, request: &ChatRequest) -> Result<Reply, ChatError>;
}

impl<C: Chat + ?Sized> Chat for &C {
    fn name(&self) -> &str {
        (**self).name()
    }

    fn complete(&self, request: &ChatRequest) -> Result<Reply, ChatError> {
        (**self).complete(request)
    }
}

impl<C: Chat + ?Sized> Chat for Box<C> {
    fn name(&self) -> &str {
        (**self).name()
    }

    fn complete(&self, request: &ChatRequest) -> Result<Reply, ChatError> {
        (**self).complete(request)
    }
}
