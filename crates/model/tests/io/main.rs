//! Tests of everything that reads or writes models as files and text, in one binary (it links once).

// Clippy knows test functions, but not the helpers beside them.
#![allow(clippy::unwrap_used)]

mod chat;
mod checkpoint;
mod config;
mod deepseek;
mod gguf;
mod support;
mod think;
mod tokenizer;
