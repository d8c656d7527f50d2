//! Recipes of one stage, made of a command's flags.

use crate::execute::{check_out, execute};
use crate::output::{Output, note};
use aha_pipeline::recipe::{RawRecipe, RecipeError};
use std::path::Path;
use std::process::ExitCode;

/// A flag, the key it sets, and its value where it was given.
pub type Setting<'a> = (&'a str, &'a str, Option<String>);

/// A recipe of one stage of a kind, which is also its name: defaults first, then flags, the seed, and `--set`.
///
/// # Errors
/// A value that is not valid TOML.
pub fn recipe<'a>(
    kind: &str,
    defaults: &[(&str, &str)],
    settings: impl IntoIterator<Item = Setting<'a>>,
    seed: u64,
    set: &[String],
) -> Result<RawRecipe, RecipeError> {
    let mut raw = RawRecipe::single(kind);
    for (key, value) in defaults {
        raw.set_flag("the default of", &format!("{kind}.{key}"), value)?;
    }
    for (flag, key, value) in settings {
        if let Some(value) = value {
            raw.set_flag(flag, &format!("{kind}.{key}"), &value)?;
        }
    }
    raw.set_flag("--seed", "seed", &seed.to_string())?;
    for assignment in set {
        let whole = assignment.starts_with(&format!("{kind}.")) || assignment.starts_with("seed=");
        raw.set(&if whole { assignment.clone() } else { format!("{kind}.{assignment}") })?;
    }
    Ok(raw)
}

/// Runs it in a folder and says where the model is.
///
/// # Errors
/// Whatever is wrong with the recipe, the folder or the run.
pub fn run(raw: &RawRecipe, kind: &str, out: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let recipe = raw.resolve()?;
    check_out(out)?;
    let code = execute(&recipe, out.to_path_buf(), None, Output::new(json))?;
    if code == ExitCode::SUCCESS {
        let stage = out.join(kind);
        note(format!("model: {}", stage.join("model").display()));
        if stage.join("adapter").is_dir() {
            note(format!("adapter: {}", stage.join("adapter").display()));
        }
    }
    Ok(code)
}
