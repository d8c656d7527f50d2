//! What a stage's result depends on, as a hash, and which stages have to run again.
//!
//! The hash covers the seed, the stage's resolved settings and, recursively, the hashes of the stages it uses; not the
//! recipe's name and not the other stages. Keys are sorted first, so the order in which settings are written or stored
//! does not count.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Recipe;
use super::error::RecipeError;
use super::stage::StageKind;

/// Changes when the meaning of the same settings changes, so that old results are not taken for new ones.
const HASH_VERSION: u32 = 1;

/// What will happen to a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StageAction {
    /// Its result is there and still right.
    Keep,
    /// It has not finished yet, or what it left is gone (it resumes from its checkpoint, if there is one of the same hash).
    Run,
    /// It finished once, with other settings or other inputs.
    RunAgain,
}

/// A stage in the plan of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedStage {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: StageKind,
    /// What its result will depend on: 64 hexadecimal digits.
    pub hash: String,
    /// What will happen.
    pub action: StageAction,
}

/// The hash of every stage by name.
///
/// `files` gives the contents of [external inputs](super::Stage::external_inputs) as digests by path; a path that is not
/// in it counts by its name only.
pub fn stage_hashes(recipe: &Recipe, files: &BTreeMap<String, String>) -> HashMap<String, String> {
    let mut hashes: HashMap<String, String> = HashMap::with_capacity(recipe.stages.len());
    // Stages stand after everything they use.
    for stage in &recipe.stages {
        let inputs: BTreeMap<&str, &String> =
            stage.inputs().into_iter().filter_map(|name| Some((name, hashes.get(name)?))).collect();
        let external: BTreeMap<&str, &String> =
            stage.external_inputs().into_iter().filter_map(|path| Some((path, files.get(path)?))).collect();
        let settings = serde_json::to_value(stage).expect("settings are strings, finite numbers, lists and tables");
        let all = json!({
            "version": HASH_VERSION,
            "seed": recipe.seed,
            "stage": settings,
            "inputs": inputs,
            "files": external,
        });
        let digest = Sha256::digest(sorted(all).to_string().as_bytes());
        hashes.insert(stage.name.clone(), digest.iter().map(|byte| format!("{byte:02x}")).collect());
    }
    hashes
}

/// The hash of one stage, with external inputs counted by their path only.
///
/// # Errors
/// There is no stage of this name.
pub fn stage_hash(recipe: &Recipe, stage: &str) -> Result<String, RecipeError> {
    recipe.stage(stage)?;
    Ok(stage_hashes(recipe, &BTreeMap::new()).remove(stage).expect("every stage of the recipe has a hash"))
}

/// What a run has to do when `finished` holds the hashes of the stages that are done, by name.
pub fn plan(recipe: &Recipe, finished: &HashMap<String, String>) -> Vec<PlannedStage> {
    plan_with_files(recipe, &BTreeMap::new(), finished)
}

/// As [`plan`], with digests of external inputs as for [`stage_hashes`].
pub fn plan_with_files(
    recipe: &Recipe,
    files: &BTreeMap<String, String>,
    finished: &HashMap<String, String>,
) -> Vec<PlannedStage> {
    let hashes = stage_hashes(recipe, files);
    let planned = recipe.stages.iter().map(|stage| {
        let hash = hashes[&stage.name].clone();
        let action = match finished.get(&stage.name) {
            Some(done) if *done == hash => StageAction::Keep,
            Some(_) => StageAction::RunAgain,
            None => StageAction::Run,
        };
        PlannedStage { name: stage.name.clone(), kind: stage.kind(), hash, action }
    });
    planned.collect()
}

/// The same value with the keys of every object in alphabetical order, whichever map serde_json was built with.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let entries: BTreeMap<String, Value> = map.into_iter().map(|(key, value)| (key, sorted(value))).collect();
            Value::Object(entries.into_iter().collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        other => other,
    }
}
