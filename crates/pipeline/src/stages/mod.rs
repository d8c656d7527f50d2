//! What each kind of stage does, one file each.

pub mod corpus;
pub mod curation;
pub(crate) mod distill;
pub(crate) mod documents;
pub mod eval;
pub(crate) mod extend;
mod few_shot;
pub mod grpo;
mod observer;
pub mod pretrain;
pub(crate) mod reward_model;
mod rewards;
pub(crate) mod sft;
pub(crate) mod table;
mod traces;

pub(crate) use grpo::style;
