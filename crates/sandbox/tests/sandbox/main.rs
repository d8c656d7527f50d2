//! The sandbox through its public interface. Tests that need a tool or a layer that is not here say so and pass.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod escapes;
mod forks;
mod references;
mod speed;
mod verdicts;

use aha_sandbox::{Config, Helper, Language, Limits, Sandbox, Submission, Tests, Verdict};
use std::sync::LazyLock;

/// The helper binary of this crate.
fn config() -> Config {
    let limits = Limits { cpu_ms: 2_000, wall_ms: 6_000, ..Limits::default() };
    Config { limits, ..Config::new(Helper::at(env!("CARGO_BIN_EXE_aha-sandbox-helper"))) }
}

static SANDBOX: LazyLock<Option<Sandbox>> = LazyLock::new(|| match Sandbox::new(config()) {
    Ok(sandbox) => Some(sandbox),
    Err(e) => {
        println!("skipped: {e}");
        None
    }
});

/// The sandbox with every layer this machine gives, when it gives enough and has the tool for `language`.
fn sandbox(language: Language) -> Option<&'static Sandbox> {
    let sandbox = SANDBOX.as_ref()?;
    match sandbox.tool_version(language) {
        Ok(_) => Some(sandbox),
        Err(e) => {
            println!("skipped: {e}");
            None
        }
    }
}

fn submission(json: serde_json::Value) -> Submission {
    Submission::from_json(&json.to_string()).unwrap()
}

/// A program that reads nothing and must print `output`.
fn program(language: Language, code: &str, output: &str) -> Submission {
    let tests = Tests::Io(vec![aha_sandbox::IoTest { input: String::new(), output: output.into() }]);
    Submission { language, code: code.into(), tests, cpu_ms: None, memory: None }
}
