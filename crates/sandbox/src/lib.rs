//! Runs untrusted Python, C++ and Rust on Linux without privileges and judges what it does.
//!
//! A program runs below a helper: the host's own binary, started again, which enters namespaces, builds an empty read-only
//! root, and starts the program with limits, without capabilities, under Landlock and seccomp. See [`Layer`] for the layers
//! and [`Required`] for what happens when a machine does not give them all.
//!
//! What the program cannot learn: expected outputs never leave the host's process (standard input and output), and the text
//! of assertions and expected values of calls are in another sandbox that runs no line of the program; only arguments
//! travel. It can see its own arguments and inputs, how many calls have been made, and the system's read-only folders.
#![cfg(target_os = "linux")]

mod compile;
mod helper;
mod judge;
mod layers;
mod limits;
mod pass;
mod process_judge;
mod python;
mod run;
mod sandbox;
mod submission;
mod toolchain;
mod verdict;
mod wire;

pub use layers::{Layer, Layers, Missing, Required};
pub use limits::Limits;
pub use run::{HELPER_ARGUMENT, Helper};
pub use sandbox::{Config, Refused, Sandbox};
pub use submission::{IoTest, Language, Submission, Tests};
pub use verdict::{Difference, Judged, TestOutcome, Verdict};

/// The first line of `main` in every binary that judges programs: serves as helper when it was started as one. `Some` is
/// the exit code to return at once.
pub fn run_helper_if_asked() -> Option<std::process::ExitCode> {
    let mut args = std::env::args_os().skip(1);
    let asked = args.next().is_some_and(|a| a == HELPER_ARGUMENT) && args.next().is_none();
    asked.then(helper::serve)
}
