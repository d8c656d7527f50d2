//! What each kind of stage does, one file each.

pub mod corpus;
pub(crate) mod documents;
pub mod eval;
pub mod grpo;
mod observer;
pub mod pretrain;
