//! The `aha` command.
fn main() {}
