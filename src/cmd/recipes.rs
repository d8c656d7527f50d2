//! `aha recipes`: what `aha run` knows by name.

use crate::output::Output;
use crate::table::left;
use aha_pipeline::recipe::{Recipe, list_embedded};
use serde_json::json;
use std::process::ExitCode;

/// List the recipes that come with the program.
#[derive(clap::Args)]
pub struct Args {
    /// Print one JSON object on the last line of stdout.
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let output = Output::new(args.json);
    let recipes = list_embedded().map(Recipe::embedded).collect::<Result<Vec<_>, _>>()?;
    let stages = |r: &Recipe| r.stages.iter().map(|s| s.name.clone()).collect::<Vec<_>>();
    let rows: Vec<Vec<String>> = recipes
        .iter()
        .map(|r| vec![r.name.clone(), r.description.clone().unwrap_or_default(), stages(r).join(" > ")])
        .collect();
    output.text(left(&rows));
    let list: Vec<_> =
        recipes.iter().map(|r| json!({"name": r.name, "description": r.description, "stages": stages(r)})).collect();
    output.object(&json!({ "recipes": list }));
    Ok(ExitCode::SUCCESS)
}
