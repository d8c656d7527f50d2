//! What each kind of stage does, one file each.

pub mod corpus;
pub mod curation;
pub(crate) mod distill;
pub(crate) mod documents;
pub mod eval;
pub(crate) mod extend;
pub mod grpo;
mod observer;
pub mod pretrain;
pub(crate) mod sft;
mod traces;
