//! Black-box tests over the built binary: arguments, exit codes, messages, files.
#![allow(clippy::unwrap_used)]

mod arguments;
mod cost;
mod errors;
mod extend;
mod grade;
mod interrupted;
mod models;
mod pretrain;
mod runs;
mod support;
