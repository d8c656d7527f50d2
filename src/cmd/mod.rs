//! The commands, one file each: its arguments and `run`.

pub mod bench;
pub mod chat;
pub mod eval;
pub mod generate;
pub mod grade;
pub mod grpo;
pub mod inspect;
pub mod recipes;
pub mod run;
pub mod score;
