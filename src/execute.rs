//! Running a recipe with everything around it: progress, Ctrl-C, the table at the end.

use crate::output::{Output, note};
use crate::progress::Progress;
use crate::table::{duration, evaluations};
use crate::{failure, interrupt};
use aha_eval::EvalSummary;
use aha_pipeline::recipe::Recipe;
use aha_pipeline::{Outcome, RunOptions, run};
use aha_runs::{Broadcast, RunPaths, Summary};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Runs what `recipe` still needs in `out`.
///
/// # Errors
/// Whatever ends the run.
pub fn execute(recipe: &Recipe, out: PathBuf, until: Option<String>, output: Output) -> anyhow::Result<ExitCode> {
    let progress = Arc::new(Progress::new());
    let mut listeners = Broadcast::new();
    listeners.add(progress.clone());
    let options = RunOptions { out, until, listeners, ..RunOptions::default() };
    let stop = options.stop.clone();
    interrupt::on_ctrl_c("saving; press again to stop at once", move || stop.store(true, Ordering::SeqCst))?;
    let result = run(recipe, &options);
    progress.close();
    let Outcome { summary, interrupted } = result?;
    output.text(describe(&summary, &options.out));
    let mut object = serde_json::to_value(&summary).expect("names are strings, so this is always JSON");
    object["out"] = options.out.display().to_string().into();
    object["report"] = RunPaths::new(&options.out).report().display().to_string().into();
    object["interrupted"] = interrupted.into();
    if interrupted {
        note(format!("interrupted; everything so far is saved, to go on run:\n  {}", interrupt::this_command()));
    }
    output.object(&object);
    Ok(ExitCode::from(u8::from(interrupted)))
}

/// Evaluations of a summary as they are in the file; those of another shape are left out.
pub fn evals(summary: &Summary) -> Vec<(String, EvalSummary)> {
    let parse = |(name, value): (&str, &serde_json::Value)| {
        Some((name.to_owned(), serde_json::from_value(value.clone()).ok()?))
    };
    summary.evals.iter().filter_map(parse).collect()
}

fn describe(summary: &Summary, out: &Path) -> String {
    let mut text = format!("\n{} (seed {}), {} in all\n", summary.recipe, summary.seed, duration(summary.wall_s));
    let evals = evals(summary);
    if !evals.is_empty() {
        text += &format!("\n{}\n", evaluations("checkpoint", &evals));
    }
    text + &format!("\nreport: {}", RunPaths::new(out).report().display())
}

/// The error for a folder that is to be a run and is something else.
///
/// # Errors
/// `out` is a file, or a model.
pub fn check_out(out: &Path) -> anyhow::Result<()> {
    if out.is_file() {
        return Err(failure::usage(format!(
            "--out {}: this is a file; give a folder, which may be new",
            out.display()
        )));
    }
    if out.join("config.json").exists() {
        return Err(failure::usage(format!("--out {}: this is a model; give a folder for the run", out.display())));
    }
    Ok(())
}
