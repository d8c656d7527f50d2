//! Training methods, one readable file each, and the losses as pure functions.

pub mod advantage;
pub mod balance;
pub mod distill;
pub mod error;
pub mod fit;
pub mod grpo;
pub mod grpo_error;
mod judging;
pub mod kl;
pub mod lanes;
pub mod loss_metrics;
pub mod normaliser;
pub mod observer;
pub mod overlong;
pub mod policy_loss;
pub mod prediction;
pub mod pretrain;
pub mod ramp;
pub mod reward_loss;
pub mod reward_model;
pub mod schedule;
pub mod sft;
pub mod state;
pub mod step;

pub use error::TrainError;
pub use observer::{Observer, Rollout, StepReport};
pub use step::PackedBatch;
