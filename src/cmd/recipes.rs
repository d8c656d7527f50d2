//! `aha recipes`: what `aha run` knows by name.

use crate::output::Output;
use crate::table::left;
use aha_pipeline::recipe::{Outline, RawRecipe, RecipeError, list_embedded};
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
    let recipes = list_embedded().map(|name| Ok(RawRecipe::embedded(name)?.outline()));
    let recipes = recipes.collect::<Result<Vec<Outline>, RecipeError>>()?;
    let given = |r: &Outline| r.parameters.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>();
    let rows: Vec<Vec<String>> = recipes
        .iter()
        .map(|r| {
            let stages = [&given(r)[..], &[r.stages.join(" > ")]].concat().join("  ");
            vec![r.name.clone(), r.description.clone(), stages]
        })
        .collect();
    output.text(left(&rows));
    let object = |r: &Outline| {
        let parameters: serde_json::Map<_, _> = r.parameters.iter().map(|(n, v)| (n.clone(), json!(v))).collect();
        json!({"name": r.name, "description": r.description, "stages": r.stages, "parameters": parameters})
    };
    output.object(&json!({ "recipes": recipes.iter().map(object).collect::<Vec<_>>() }));
    Ok(ExitCode::SUCCESS)
}
