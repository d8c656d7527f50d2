//! Errors as people read them: one `error: ...` line with its causes, and the exit code that says whose mistake it was.

use aha_pipeline::PipelineError;
use aha_pipeline::recipe::{Origin, RecipeError};
use aha_tasks::TaskError;
use std::fmt;
use std::io::Write;
use std::process::ExitCode;

/// Arguments that parse but cannot be meant: exit code 2.
#[derive(Debug)]
pub struct Usage(pub String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// An error of [`Usage`].
pub fn usage(message: impl Into<String>) -> anyhow::Error {
    Usage(message.into()).into()
}

/// Prints an error and gives the exit code.
pub fn report(error: &anyhow::Error) -> ExitCode {
    // Nobody is left to tell when stderr is gone.
    let _ = writeln!(std::io::stderr(), "error: {}", message(error));
    ExitCode::from(if is_usage(error) { 2 } else { 1 })
}

/// The message with its causes; a cause that the message already quotes is not said twice.
fn message(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text += &format!(": {cause}");
        }
    }
    if disk_is_full(error, &text) && !text.contains("free some space") {
        text += "; free some space and run the same command again";
    }
    text
}

/// Some causes come as text only, hence the look at the message.
fn disk_is_full(error: &anyhow::Error, message: &str) -> bool {
    let full = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::StorageFull)
    };
    error.chain().any(full) || message.contains("No space left on device") || message.contains("disk is full")
}

/// Whether the command line is to blame, not a file or the machine.
fn is_usage(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        if let Some(PipelineError::Recipe(error)) = cause.downcast_ref() {
            return recipe_usage(error);
        }
        if let Some(PipelineError::Task(error)) = cause.downcast_ref() {
            return matches!(error, TaskError::Unknown { .. });
        }
        cause.is::<Usage>()
            || cause.downcast_ref().is_some_and(recipe_usage)
            || matches!(cause.downcast_ref(), Some(TaskError::Unknown { .. }))
    })
}

fn recipe_usage(error: &RecipeError) -> bool {
    match error {
        RecipeError::UnknownRecipe { .. } | RecipeError::NoSuchStage { .. } | RecipeError::Override { .. } => true,
        RecipeError::Syntax { at, .. }
        | RecipeError::UnknownKey { at, .. }
        | RecipeError::Missing { at, .. }
        | RecipeError::Value { at, .. }
        | RecipeError::Conflict { at, .. }
        | RecipeError::UnknownStage { at, .. } => matches!(at, Origin::Flag(_)),
        RecipeError::Read { .. } | RecipeError::Write { .. } => false,
    }
}

/// Says a panic in one line: it is our mistake, and a backtrace helps nobody who uses the program.
pub fn report_panics() {
    std::panic::set_hook(Box::new(|info| {
        let payload = info.payload();
        let what = payload.downcast_ref::<&str>().map(|s| (*s).to_owned());
        let what = what.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default();
        let place = info.location().map_or(String::new(), |l| format!(" at {}:{}", l.file(), l.line()));
        let _ = writeln!(std::io::stderr(), "error: this is a mistake in aha itself{place}: {what}");
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn causes_are_said_once_and_usage_is_told_apart() {
        let io = || std::io::Error::other("no room");
        let quoting = aha_model::Error::io(std::path::Path::new("a.json"), "read", io());
        assert_eq!(message(&anyhow::Error::new(quoting).context("loading")), "loading: a.json: cannot read: no room");
        let plain: anyhow::Error = Err::<(), _>(io()).context("writing b").unwrap_err();
        assert_eq!(message(&plain), "writing b: no room");
        assert!(!is_usage(&plain));
        assert!(is_usage(&usage("no such thing").context("grpo")));
        let full =
            anyhow::Error::new(std::io::Error::from(std::io::ErrorKind::StorageFull)).context("a.json: cannot write");
        assert!(message(&full).ends_with("; free some space and run the same command again"), "{}", message(&full));
    }
}
