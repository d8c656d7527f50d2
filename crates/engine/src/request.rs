//! What goes into the engine and what comes out.

use std::sync::Arc;

/// How tokens are drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingParams {
    /// Divides the logits; 0 means greedy.
    pub temperature: f32,
    /// Keep the smallest set of tokens with at least this probability mass; 1 keeps all.
    pub top_p: f32,
    /// Keep this many most likely tokens; 0 keeps all.
    pub top_k: usize,
    /// Completion limit in tokens, the stop token included.
    pub max_new_tokens: usize,
    /// Tokens that end a completion (kept as its last token).
    pub stop_tokens: Vec<u32>,
}

impl Default for SamplingParams {
    fn default() -> Self {
        SamplingParams { temperature: 1.0, top_p: 1.0, top_k: 0, max_new_tokens: 256, stop_tokens: Vec::new() }
    }
}

/// A prompt and how many samples of it are wanted.
#[derive(Clone, Debug)]
pub struct Request {
    /// Prompt tokens, at least one.
    pub prompt: Arc<[u32]>,
    /// Samples to draw.
    pub samples: usize,
    /// How.
    pub params: SamplingParams,
    /// Seed of this request's random streams; a function of (run seed, stage, step, problem).
    pub seed: u64,
}

/// Why a completion ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// A stop token was drawn.
    Stop,
    /// The length limit was reached.
    Length,
}

/// One finished sample.
#[derive(Clone, Debug)]
pub struct Completion {
    /// Index of its request in the call.
    pub request: usize,
    /// Sample number within the request.
    pub sample: usize,
    /// Drawn tokens, the stop token included.
    pub tokens: Vec<u32>,
    /// Log-probability of each token under the full distribution at the sampling temperature (1 when greedy).
    pub logprobs: Vec<f32>,
    /// Why it ended.
    pub finish: FinishReason,
}

/// Limits of the engine.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Samples that run together on one worker; 0 chooses: as many as the last-level cache has room for, where it holds the
    /// weights.
    pub max_running: usize,
    /// Cache memory of all workers together, in bytes.
    pub cache_bytes: usize,
    /// Tokens of a prompt prefilled in one pass; several prompts have as many together, but no more than 256.
    pub prefill_chunk: usize,
    /// Workers with sequences of their own; 0 chooses: one per thread for small models, one for large ones.
    pub workers: usize,
    /// Drafts a token with the model's first prediction module and checks it with the next one: the same distribution of
    /// texts, fewer steps. No effect on models without such a module.
    pub speculative: bool,
}

impl Default for EngineConfig {
    fn default() -> Self {
        EngineConfig { max_running: 0, cache_bytes: 2 << 30, prefill_chunk: 1024, workers: 0, speculative: false }
    }
}

/// What the engine refuses.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum EngineError {
    /// A prompt without tokens.
    #[error("request {0}: the prompt is empty; give at least one token (a beginning-of-sequence token will do)")]
    EmptyPrompt(usize),
    /// A token the model does not know.
    #[error(
        "request {request}: token {token} is outside the model's vocabulary of {vocab}; model and tokenizer do not match"
    )]
    Token {
        /// Index of the request.
        request: usize,
        /// The token.
        token: u32,
        /// Vocabulary size.
        vocab: usize,
    },
    /// Prompt and completion do not fit the model's positions.
    #[error(
        "request {request}: {prompt} prompt tokens and {new} new ones exceed the model's {limit} positions; shorten one of them"
    )]
    TooLong {
        /// Index of the request.
        request: usize,
        /// Prompt tokens.
        prompt: usize,
        /// New tokens asked for.
        new: usize,
        /// Positions of the model.
        limit: usize,
    },
    /// A single sample does not fit the cache.
    #[error(
        "request {request}: one sample needs {needed} cache blocks, the cache has {blocks}; raise cache_bytes or shorten it"
    )]
    CacheTooSmall {
        /// Index of the request.
        request: usize,
        /// Blocks needed.
        needed: usize,
        /// Blocks there are.
        blocks: usize,
    },
    /// A setting outside its range.
    #[error("request {request}: {key} is {value}; it must be {wanted}")]
    Setting {
        /// Index of the request.
        request: usize,
        /// The setting.
        key: &'static str,
        /// Its value.
        value: String,
        /// What is allowed.
        wanted: &'static str,
    },
}
