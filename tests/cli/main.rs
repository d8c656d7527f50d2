//! Black-box tests over the built binary: arguments, exit codes, messages, files.
#![allow(clippy::unwrap_used)]

mod annotate;
mod arguments;
mod code;
mod cost;
mod curate;
mod curation_stages;
mod errors;
mod extend;
mod grade;
mod interrupted;
mod judge;
mod models;
mod pretrain;
mod runs;
mod sft;
mod support;
