//! Black-box tests over the built binary: arguments, exit codes, messages, files.

mod arguments;
mod errors;
mod interrupted;
mod models;
mod runs;
mod support;
