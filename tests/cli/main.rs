//! Black-box tests over the built binary: arguments, exit codes, messages, files.
#![allow(clippy::unwrap_used)]

mod annotate;
mod arguments;
mod code;
mod cost;
mod curate;
mod curation_stages;
mod distill;
mod errors;
mod extend;
mod grade;
mod interrupted;
mod judge;
mod lora;
mod models;
mod pretrain;
mod reward_model;
mod runs;
mod sft;
mod support;
mod tables;
mod whole;
