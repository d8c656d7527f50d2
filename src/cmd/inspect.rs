//! `aha inspect`: what a model, a run or a recipe is.

use crate::execute::evals;
use crate::failure::usage;
use crate::loaded::Loaded;
use crate::output::Output;
use crate::table::{duration, evaluations, left};
use aha_model::{RopeScaling, is_adapter};
use aha_pipeline::recipe::{RawRecipe, Recipe, list_embedded};
use aha_runs::{RunPaths, Summary};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Say what a model, a run or a recipe is.
#[derive(clap::Args)]
pub struct Args {
    /// A model (folder or GGUF file), a run's folder, a recipe's TOML file or the name of an embedded recipe.
    path: PathBuf,
    /// List a model's tensors with their shapes.
    #[arg(long)]
    tensors: bool,
    /// Print one JSON object on the last line of stdout.
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let output = Output::new(args.json);
    let path = &args.path;
    let name = path.to_string_lossy();
    let is_run = ["summary.json", "recipe.toml", "run.db"].iter().any(|f| path.join(f).exists());
    if path.join("config.json").exists() || is_adapter(path) || path.is_file() && !name.ends_with(".toml") {
        model(path, args.tensors, output)?;
    } else if is_run {
        run_folder(path, output)?;
    } else if path.is_dir() {
        let problem = "neither a model (config.json) nor a run (summary.json) is in this folder";
        return Err(anyhow::anyhow!("{}: {problem}", path.display()));
    } else if path.exists() || list_embedded().any(|n| n == name) {
        recipe(&name, output)?;
    } else if name.contains(['/', '.']) {
        return Err(anyhow::anyhow!("{}: there is no such file or folder", path.display()));
    } else {
        let known: Vec<&str> = list_embedded().collect();
        return Err(usage(format!(
            "{name}: no file or folder of that name, and no embedded recipe ({})",
            known.join(", ")
        )));
    }
    Ok(ExitCode::SUCCESS)
}

fn model(path: &Path, tensors: bool, output: Output) -> anyhow::Result<()> {
    let model = Loaded::open(path)?;
    let c = model.checkpoint.config();
    let chat = model.chat_template()?.is_some();
    let rope = match c.rope_scaling {
        RopeScaling::None => "none".to_owned(),
        RopeScaling::Linear { factor } => format!("linear, factor {factor}"),
        RopeScaling::Yarn { factor, .. } => format!("yarn, factor {factor}"),
        RopeScaling::Llama3 { factor, .. } => format!("llama3, factor {factor}"),
    };
    let tokenizer = model.tokenizer().map(|t| t.vocab_size());
    let (parameters, bytes) = (c.num_parameters(), weight_bytes(path));
    let facts = [
        ("architecture", json!(c.arch.architecture(c.head))),
        ("parameters", json!(parameters)),
        ("dtype", json!(c.torch_dtype)),
        ("bytes", json!(bytes)),
        ("vocab_size", json!(c.vocab_size)),
        ("hidden_size", json!(c.hidden_size)),
        ("intermediate_size", json!(c.intermediate_size)),
        ("num_hidden_layers", json!(c.num_hidden_layers)),
        ("num_attention_heads", json!(c.num_attention_heads)),
        ("num_key_value_heads", json!(c.num_key_value_heads)),
        ("head_dim", json!(c.head_dim)),
        ("rope_theta", json!(c.rope_theta)),
        ("rope_scaling", json!(rope)),
        ("tie_word_embeddings", json!(c.tie_word_embeddings)),
        ("max_position_embeddings", json!(c.max_position_embeddings)),
        ("bos_token_id", json!(c.bos_token_id)),
        ("eos_token_ids", json!(c.eos_token_ids)),
        ("tokenizer_size", json!(tokenizer)),
        ("chat_template", json!(chat)),
        ("unexpected_tensors", json!(model.checkpoint.unexpected())),
    ];
    let show = |value: &Value| match value {
        Value::Null => "none".to_owned(),
        Value::Bool(b) => (if *b { "yes" } else { "no" }).to_owned(),
        Value::String(s) => s.clone(),
        Value::Array(a) if a.is_empty() => "none".to_owned(),
        Value::Array(a) => {
            a.iter().map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned)).collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    };
    let rows: Vec<Vec<String>> = facts.iter().map(|(key, value)| vec![(*key).to_owned(), show(value)]).collect();
    let mut text = left(&rows);
    if tensors {
        let rows: Vec<Vec<String>> = c.tensors().into_iter().map(|t| vec![t.name, format!("{:?}", t.shape)]).collect();
        text += &format!("\n\n{}", left(&rows));
    }
    output.text(text);
    let mut object = json!({"kind": "model", "path": path.display().to_string()});
    for (key, value) in facts {
        object[key] = value;
    }
    if tensors {
        object["tensors"] = c.tensors().into_iter().map(|t| json!({"name": t.name, "shape": t.shape})).collect();
    }
    output.object(&object);
    Ok(())
}

/// Size of the weight files.
fn weight_bytes(path: &Path) -> u64 {
    let size = |p: &Path| std::fs::metadata(p).map_or(0, |m| m.len());
    if path.is_file() {
        return size(path);
    }
    let Ok(entries) = std::fs::read_dir(path) else { return 0 };
    let weights = |p: &PathBuf| {
        p.file_name()
            .is_some_and(|n| n.to_string_lossy().starts_with("model") && n.to_string_lossy().ends_with(".safetensors"))
    };
    entries.filter_map(Result::ok).map(|e| e.path()).filter(weights).map(|p| size(&p)).sum()
}

fn run_folder(path: &Path, output: Output) -> anyhow::Result<()> {
    let paths = RunPaths::new(path);
    let summary = Summary::read(paths.summary())?;
    let recipe = match paths.recipe() {
        file if file.exists() => Some(RawRecipe::open(&file.to_string_lossy())?.resolve()?),
        _ => None,
    };
    let rows = if paths.db().exists() { aha_runs::RunDb::open_read_only(paths.db())?.stages()? } else { Vec::new() };
    let mut names: Vec<String> = recipe.iter().flat_map(|r| r.stages.iter().map(|s| s.name.clone())).collect();
    names.extend(rows.iter().map(|r| r.name.clone()).filter(|n| !names.contains(n)).collect::<Vec<_>>());
    let mut lines = vec![["stage", "kind", "status", "time", "checkpoint"].map(str::to_owned).to_vec()];
    let mut stages = Vec::new();
    for name in names {
        let row = rows.iter().find(|r| r.name == name);
        let planned = recipe.as_ref().and_then(|r| r.stage(&name).ok()).map(|s| s.kind().as_str().to_owned());
        let kind = row.map(|r| r.kind.clone()).or(planned).unwrap_or_default();
        let status = row.map_or("pending", |r| r.status.as_str());
        let wall_s = row.map_or(0.0, |r| r.wall_s);
        let step =
            paths.stage(&name).and_then(|s| s.checkpoints()).ok().and_then(|all| all.last().map(|(step, _)| *step));
        let shown = step.map_or("-".to_owned(), |s| format!("step {s}"));
        lines.push(vec![name.clone(), kind.clone(), status.to_owned(), duration(wall_s), shown]);
        stages.push(json!({"name": name, "kind": kind, "status": status, "wall_s": wall_s, "checkpoint_step": step}));
    }
    let evals = summary.as_ref().map(evals).unwrap_or_default();
    let name =
        recipe.as_ref().map(|r| r.name.clone()).or(summary.as_ref().map(|s| s.recipe.clone())).unwrap_or_default();
    let seed = recipe.as_ref().map(|r| r.seed).or(summary.as_ref().map(|s| s.seed));
    let description = recipe.and_then(|r: Recipe| r.description).map_or(String::new(), |d| format!("\n{d}"));
    let mut text = format!("{name} (seed {}){description}\n\n{}", seed.unwrap_or_default(), left(&lines));
    if !evals.is_empty() {
        text += &format!("\n\n{}", evaluations("checkpoint", &evals));
    }
    output.text(text);
    output.object(&json!({
        "kind": "run", "path": path.display().to_string(), "recipe": name, "seed": seed,
        "wall_s": summary.as_ref().map(|s| s.wall_s), "stages": stages, "evals": summary.map(|s| json!(s.evals)),
    }));
    Ok(())
}

fn recipe(name: &str, output: Output) -> anyhow::Result<()> {
    let mut raw = RawRecipe::open(name)?;
    // Looked at before it is run: `./base` stands where a base has to be given.
    raw.give_missing();
    let recipe = raw.resolve()?;
    output.text(recipe.to_toml()?.trim_end());
    let mut object = serde_json::to_value(&recipe)?;
    object["kind"] = "recipe".into();
    output.object(&object);
    Ok(())
}
