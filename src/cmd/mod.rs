//! The commands, one file each: its arguments and `run`.

pub mod annotate;
pub mod bench;
pub mod chat;
pub mod convert;
pub mod cost;
pub mod curate;
pub mod distill;
pub mod eval;
pub mod generate;
pub mod grade;
pub mod grpo;
pub mod inspect;
pub mod judge;
pub mod recipes;
pub mod reward_model;
mod reward_scores;
pub mod run;
#[cfg(target_os = "linux")]
pub mod sandbox;
pub mod score;
pub mod sft;
