//! `aha run`: a recipe from where it stands to its end.

use crate::execute::{check_out, execute};
use crate::output::Output;
use crate::table::left;
use aha_pipeline::recipe::{PlannedStage, RawRecipe, Recipe, Stage, StageAction, plan_with_files};
use aha_pipeline::run::{external_digests, finished};
use aha_runs::{RunDb, RunPaths, StageRow, StageStatus};
use serde_json::json;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Run a recipe; what is finished is kept, what was interrupted resumes.
///
/// The same command again goes on where it stopped, after Ctrl-C, a kill or a power cut alike, and ends with the same
/// bits as an uninterrupted run.
#[derive(clap::Args)]
pub struct Args {
    /// A recipe's TOML file, or the name of an embedded one (see `aha recipes`).
    #[arg(default_value = "mini-zero")]
    recipe: String,
    /// Folder of the run [default: runs/NAME, with another seed than the recipe's own runs/NAME-seedN].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Seed of everything random [default: the recipe's, 1 if it has none].
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Put a value over the recipe's, for example zero.learning_rate=1e-4; may be given many times.
    #[arg(long, value_name = "STAGE.KEY=VALUE")]
    set: Vec<String>,
    /// Stop after this stage [default: run all].
    #[arg(long, value_name = "STAGE")]
    until: Option<String>,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON object (summary.json with "out", "report", "interrupted") on the last line of stdout.
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut raw = RawRecipe::open(&args.recipe)?;
    let own_seed = raw.resolve().ok().map(|recipe| recipe.seed);
    for assignment in &args.set {
        raw.set(assignment)?;
    }
    if let Some(seed) = args.seed {
        raw.set_flag("--seed", "seed", &seed.to_string())?;
    }
    let recipe = raw.resolve()?;
    if let Some(name) = &args.until {
        recipe.stage(name)?;
    }
    let folder = match own_seed {
        Some(own) if own != recipe.seed => format!("{}-seed{}", recipe.name, recipe.seed),
        _ => recipe.name.clone(),
    };
    let out = args.out.unwrap_or_else(|| Path::new("runs").join(folder));
    check_out(&out)?;
    let output = Output::new(args.json);
    if args.dry_run {
        dry_run(&recipe, &out, args.until.as_deref(), output)
    } else {
        execute(&recipe, out, args.until, output)
    }
}

/// The plan of a run, from what lies in `out`; writes nothing.
fn dry_run(recipe: &Recipe, out: &Path, until: Option<&str>, output: Output) -> anyhow::Result<ExitCode> {
    let paths = RunPaths::new(out);
    let rows = if paths.db().exists() { RunDb::open_read_only(paths.db())?.stages()? } else { Vec::new() };
    let planned = plan_with_files(recipe, &external_digests(recipe)?, &finished(&rows, &paths));
    let before = paths.recipe().to_str().and_then(|p| RawRecipe::open(p).ok()?.resolve().ok());
    let mut lines = vec![["stage", "kind", "action", "why"].map(str::to_owned).to_vec()];
    let mut stages = Vec::new();
    let mut running: HashSet<&str> = HashSet::new();
    for (stage, plan) in recipe.stages.iter().zip(&planned) {
        let action = match plan.action {
            StageAction::Keep => "keep",
            StageAction::Run => "run",
            StageAction::RunAgain => "run again",
        };
        let row = rows.iter().find(|r| r.name == stage.name);
        let why = why(stage, plan, row, before.as_ref(), &paths, &running);
        if plan.action != StageAction::Keep {
            running.insert(&stage.name);
        }
        lines.push(vec![stage.name.clone(), plan.kind.to_string(), action.to_owned(), why.clone()]);
        stages.push(
            json!({"name": stage.name, "kind": plan.kind.as_str(), "action": action, "why": why, "hash": plan.hash}),
        );
        if until == Some(stage.name.as_str()) {
            break;
        }
    }
    output.text(format!("{} (seed {}) in {}\n\n{}", recipe.name, recipe.seed, out.display(), left(&lines)));
    let out = out.display().to_string();
    output.object(&json!({"recipe": recipe.name, "seed": recipe.seed, "out": out, "stages": stages}));
    Ok(ExitCode::SUCCESS)
}

/// Why a stage is kept or run, in a few words.
fn why(
    stage: &Stage,
    plan: &PlannedStage,
    row: Option<&StageRow>,
    before: Option<&Recipe>,
    paths: &RunPaths,
    running: &HashSet<&str>,
) -> String {
    let Some(row) = row else { return "not run yet".to_owned() };
    if row.hash == plan.hash {
        return match row.status {
            StageStatus::Finished if plan.action != StageAction::Keep => "finished, but its folder is gone".to_owned(),
            StageStatus::Finished => "finished with the same settings and inputs".to_owned(),
            status => {
                let steps = paths.stage(&stage.name).and_then(|s| s.checkpoints()).unwrap_or_default();
                let from = steps
                    .last()
                    .map_or("goes on from its beginning".to_owned(), |(n, _)| format!("resumes after step {n}"));
                format!("{}; {from}", if status == StageStatus::Failed { "failed" } else { "interrupted" })
            }
        };
    }
    if let Some(input) = stage.inputs().into_iter().find(|name| running.contains(name)) {
        return format!("{input}, which it uses, runs");
    }
    match before {
        Some(before) if before.stage(&stage.name).is_ok_and(|old| old == stage) => {
            "the seed or a file it reads has changed".to_owned()
        }
        _ => "its settings have changed".to_owned(),
    }
}
