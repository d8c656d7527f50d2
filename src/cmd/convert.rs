//! `aha convert`: a model in other files, with an adapter merged, in other numbers.

use crate::failure::usage;
use crate::loaded::Loaded;
use crate::output::Output;
use aha_model::{Adapter, GgufDtype, SaveDtype, save_checkpoint, save_gguf};
use anyhow::Context;
use serde_json::json;
use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Write a model in other files: safetensors or GGUF, other numbers, an adapter merged.
///
/// OUT is a GGUF file where its name ends with .gguf (Llama, Qwen2 and Qwen3, for llama.cpp), else a folder that transformers
/// loads. Everything is read in f32 and rounded once, after merging.
#[derive(clap::Args)]
pub struct Args {
    /// A model: a Hugging Face folder, a GGUF file, or the folder of an adapter whose base is found.
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// The folder, or the .gguf file, to write.
    #[arg(value_name = "OUT")]
    out: PathBuf,
    /// An adapter (LoRA, PEFT's files) to merge.
    #[arg(long, value_name = "ADAPTER")]
    merge: Option<PathBuf>,
    /// Numbers of the matrices: f32, bf16 or f16 [default: f32].
    #[arg(long, value_name = "TYPE", value_parser = dtype, conflicts_with = "quantize")]
    dtype: Option<GgufDtype>,
    /// Whole numbers for the matrices of a GGUF file: q8_0, q6_k, q5_k, q4_k or q4_0.
    #[arg(long, value_name = "TYPE", value_parser = quantized)]
    quantize: Option<GgufDtype>,
    /// Print one JSON object on the last line of stdout.
    #[arg(long)]
    json: bool,
}

fn named(text: &str, names: &[&str]) -> Result<GgufDtype, String> {
    let lower = text.to_lowercase();
    let found = GgufDtype::ALL.iter().find(|(name, _)| *name == lower && names.contains(name));
    found.map(|(_, dtype)| *dtype).ok_or_else(|| format!("must be one of {}", names.join(", ")))
}

fn dtype(text: &str) -> Result<GgufDtype, String> {
    named(text, &["f32", "bf16", "f16"])
}

fn quantized(text: &str) -> Result<GgufDtype, String> {
    named(text, &["q8_0", "q6_k", "q5_k", "q4_k", "q4_0"])
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let output = Output::new(args.json);
    let is_gguf = args.out.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf"));
    if args.quantize.is_some() && !is_gguf {
        return Err(usage("--quantize is for a GGUF file: give OUT a name that ends with .gguf".to_owned()));
    }
    if args.out.exists() {
        return Err(anyhow::anyhow!("{}: exists already; give another OUT, or remove it", args.out.display()));
    }
    let mut model = Loaded::open(&args.input)?;
    if let Some(path) = &args.merge {
        let adapter = Adapter::open(path)?;
        model.checkpoint = model.checkpoint.with_adapter(adapter)?;
    }
    let dtype = args.quantize.or(args.dtype).unwrap_or(GgufDtype::F32);
    if is_gguf {
        let chat = model.chat_template()?;
        let config = model.checkpoint.config();
        let mut read = |name: &str| model.checkpoint.read(name);
        save_gguf(&args.out, config, dtype, model.tokenizer(), chat.as_ref(), &mut read)?;
    } else {
        folder(&model, &args.out, dtype)?;
    }
    let name = GgufDtype::ALL.iter().find(|(_, d)| *d == dtype).map_or("", |(name, _)| name);
    let bytes = size(&args.out)?;
    let merged = model.checkpoint.adapter().map(|a| a.path().display().to_string());
    output.text(format!("{}: {name}, {:.1} MB", args.out.display(), bytes as f64 / 1e6));
    output.object(&json!({ "out": args.out, "dtype": name, "bytes": bytes, "merged": merged }));
    Ok(ExitCode::SUCCESS)
}

fn folder(model: &Loaded, out: &Path, dtype: GgufDtype) -> anyhow::Result<()> {
    let dtype = match dtype {
        GgufDtype::F16 => SaveDtype::F16,
        GgufDtype::Bf16 => SaveDtype::Bf16,
        _ => SaveDtype::F32,
    };
    let text = match model.tokenizer() {
        Some(_) => model.checkpoint.text_files()?,
        None => aha_model::TextFiles::default(),
    };
    let mut read = |spec: &aha_model::TensorSpec| Ok(Cow::Owned(model.checkpoint.read(&spec.name)?));
    save_checkpoint(out, model.checkpoint.config(), dtype, &text, &mut read)?;
    Ok(())
}

/// Bytes of a file, or of the files in a folder.
fn size(path: &Path) -> anyhow::Result<u64> {
    let problem = || format!("{}: cannot be read back", path.display());
    if path.is_file() {
        return Ok(std::fs::metadata(path).with_context(problem)?.len());
    }
    let entries = std::fs::read_dir(path).with_context(problem)?;
    Ok(entries.filter_map(|e| e.ok()?.metadata().ok()).map(|m| m.len()).sum())
}
