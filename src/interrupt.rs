//! Ctrl-C: the first press asks the work to stop and save, the second ends the program.

use crate::output::note;
use anyhow::Context;
use std::sync::atomic::{AtomicBool, Ordering};

/// Calls `stop` at the first press and says `message`.
///
/// # Errors
/// The system refuses the handler.
pub fn on_ctrl_c(message: &'static str, stop: impl Fn() + Send + 'static) -> anyhow::Result<()> {
    let pressed = AtomicBool::new(false);
    let handler = move || {
        if pressed.swap(true, Ordering::SeqCst) {
            note("\nstopped at once; what was saved before stays");
            std::process::exit(1);
        }
        note(format!("\n{message}"));
        stop();
    };
    ctrlc::set_handler(handler).context("cannot listen to Ctrl-C")
}

/// This command line, quoted for a shell.
pub fn this_command() -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    let quote = |word: String| {
        if !word.is_empty() && word.chars().all(plain) { word } else { format!("'{}'", word.replace('\'', "'\\''")) }
    };
    std::env::args_os().map(|word| quote(word.to_string_lossy().into_owned())).collect::<Vec<_>>().join(" ")
}

/// Calls `pressed` at every press.
///
/// # Errors
/// The system refuses the handler.
pub fn on_every_ctrl_c(pressed: impl Fn() + Send + 'static) -> anyhow::Result<()> {
    ctrlc::set_handler(pressed).context("cannot listen to Ctrl-C")
}
