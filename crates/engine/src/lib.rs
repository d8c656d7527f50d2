//! The generator: token ids in, token ids and log-probabilities out. It knows nothing about text or training.
//!
//! The life of a request: (1) it waits in the queue; (2) a worker admits it when cache blocks for all its samples are free;
//! (3) its prompt is prefilled once, in chunks; (4) its samples fork: full prompt blocks are shared by reference count, the
//! last partial one is copied; (5) every step decodes all running samples together; (6) each draws its next token from its
//! own random stream; (7) a stop token or the length limit ends it and returns its blocks; (8) the completion goes out.
//!
//! The numbers of a sample depend on its request alone, not on the batch it ran in, nor on the number of workers.

pub mod blocks;
mod prefix;
pub mod request;
pub mod reward;
mod running;
pub mod sampler;
pub mod score;
mod speculative;
mod worker;

pub use request::{Completion, EngineConfig, EngineError, FinishReason, Request, SamplingParams};
pub use reward::reward;
pub use score::score;
pub use worker::{CompletionListener, Control, TokenListener, generate};
