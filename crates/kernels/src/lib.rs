//! The compute of aha: fused operations, each with its backward beside it, and the tape that composes them.
//!
//! Legend of shape suffixes: B batch, T tokens (packed over sequences), D model width, N query heads, K key/value heads,
//! H head width, F feed-forward width, V vocabulary. All buffers are row-major `f32` unless a type says otherwise.
//!
//! One promise runs through every file: the value of an output row depends on that row's inputs alone, in an order of
//! summation that is fixed, never on the batch around it or on the number of threads. That is what makes the generator's
//! log-probabilities equal to the trainer's, bit for bit.

pub mod adamw;
pub mod attention;
pub mod cache;
pub mod cpu;
pub mod dice;
pub mod divergence;
pub mod e4m3;
pub mod embedding;
pub mod experts;
pub mod gradients;
mod init;
pub mod latent;
mod layout;
pub mod linear;
pub mod linear_bf16;
mod linear_f32;
pub mod linear_fp8;
pub mod logprob;
pub mod lora;
pub mod memory;
pub mod moments;
pub mod muon;
pub mod norm;
pub mod optimizer;
pub mod par;
pub mod params;
pub mod quant;
pub mod rope;
pub mod router;
pub mod rows;
mod scratch;
mod segments;
mod softmax;
pub mod split;
pub mod swiglu;
pub mod tape;
pub mod values;

pub use adamw::AdamWConfig;
pub use cache::{BLOCK_TOKENS, CacheShape, CacheSpan, KvCache};
pub use divergence::{Ask, Compared, Comparison, Divergence, TopK};
pub use gradients::{GradientType, Gradients, WeightGradients};
pub use muon::{MuonConfig, StepSize};
pub use optimizer::{MasterWeights, MomentType, Optimizer, OptimizerConfig};
pub use params::{AdapterIds, Init, Layout, Param, ParamId, ParamStore, Precision, Weight, normal};
pub use rows::Rows;
pub use segments::Segments;
pub use tape::{Attend, ExpertIds, LossHead, MoeIds, RoutingStats, Tape, Var};
pub use values::Values;
