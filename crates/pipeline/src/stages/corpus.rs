//! The corpus: checks its settings, stores documents from files, trains the tokenizer, leaves some documents to read.

use super::documents;
use crate::PipelineError;
use crate::recipe::CorpusStage;
use crate::run::{Context, StageEnd};
use aha_data::corpus::{CorpusConfig, Style, document};
use aha_runs::{Event, Listener, write_atomic};
use std::path::{Path, PathBuf};

/// Documents written out for people to read.
const SHOWN: u64 = 200;

/// The corpus settings of a stage; its seed is the run's.
pub(crate) fn config(stage: &str, settings: &CorpusStage, seed: u64) -> Result<CorpusConfig, PipelineError> {
    let fail = |problem: String| PipelineError::Stage { stage: stage.to_owned(), problem };
    let mut config: CorpusConfig =
        settings.corpus.clone().try_into().map_err(|e: toml::de::Error| fail(e.message().to_owned()))?;
    if !settings.corpus.contains_key("seed") {
        config.seed = seed;
    }
    config.check().map_err(fail)?;
    Ok(config)
}

/// Where a corpus stage leaves its tokenizer.
pub(crate) fn tokenizer_path(stage_root: &Path) -> PathBuf {
    stage_root.join("tokenizer.json")
}

/// A document as the tokenizer and the model see it, without the end-of-text token.
pub(crate) fn text(config: &CorpusConfig, index: u64) -> String {
    let d = document(config, index);
    d.prompt + &d.body
}

pub(crate) fn run(context: &mut Context, name: &str, settings: &CorpusStage) -> Result<StageEnd, PipelineError> {
    let fail = |problem: String| PipelineError::Stage { stage: name.to_owned(), problem };
    let config = config(name, settings, context.recipe.seed)?;
    context.listeners.event(&Event::StageStarted {
        stage: name.to_owned(),
        method: "corpus".into(),
        resumed_at: None,
        total_steps: None,
    });
    let paths = context.dir.stage(name)?;
    paths.create()?;
    if !settings.is_plain() {
        return mixed(context, name, settings, paths.root());
    }
    let texts = (0..settings.documents_for_tokenizer).map(|i| text(&config, i));
    let json = aha_data::train_tokenizer(texts, settings.vocab_size).map_err(|e| fail(e.to_string()))?;
    write_atomic(tokenizer_path(paths.root()), json.as_bytes())?;
    let mut lines = String::new();
    for i in 0..SHOWN {
        let d = document(&config, i);
        let style = match d.style {
            Style::Blunt => "blunt",
            Style::Short => "short",
            Style::Long => "long",
        };
        let line = serde_json::json!({
            "family": d.subject.topic().name(),
            "style": style,
            "tagged": d.tagged,
            "text": d.prompt + &d.body,
        });
        lines += &format!("{line}\n");
    }
    write_atomic(paths.root().join("documents.jsonl"), lines.as_bytes())?;
    let metrics = vec![
        ("documents_for_tokenizer".to_owned(), settings.documents_for_tokenizer as f64),
        ("vocab_size".to_owned(), settings.vocab_size as f64),
    ];
    Ok(StageEnd { metrics, finished: true })
}

/// A corpus with sources, a tokenizer of its own or fill-in-the-middle.
fn mixed(context: &Context, name: &str, settings: &CorpusStage, root: &Path) -> Result<StageEnd, PipelineError> {
    let fail = |problem: String| PipelineError::Stage { stage: name.to_owned(), problem };
    let counts = documents::store(name, settings, root)?;
    let mixture = documents::open(name, settings, root, context.recipe.seed, 0)?;
    let first = |n: u64| mixture.documents(0..n).map_err(|e| fail(e.to_string()));
    let json = match &settings.tokenizer {
        Some(path) => std::fs::read_to_string(path)
            .map_err(|e| fail(format!("tokenizer {path}: cannot read: {e}; give a tokenizer.json")))?,
        None => {
            let texts = first(settings.documents_for_tokenizer)?.into_iter().map(|(_, text)| text);
            let special: &[&str] = if settings.fim_rate > 0.0 { &aha_data::fim::TOKENS } else { &[] };
            aha_data::train_tokenizer_with(texts, settings.vocab_size, special).map_err(|e| fail(e.to_string()))?
        }
    };
    write_atomic(tokenizer_path(root), json.as_bytes())?;
    let mut lines = String::new();
    for (source, text) in first(SHOWN)? {
        lines += &format!("{}\n", serde_json::json!({ "source": source, "text": text }));
    }
    write_atomic(root.join("documents.jsonl"), lines.as_bytes())?;
    let mut metrics: Vec<(String, f64)> = counts.into_iter().map(|(name, n)| (name, n as f64)).collect();
    if settings.tokenizer.is_none() {
        metrics.push(("documents_for_tokenizer".to_owned(), settings.documents_for_tokenizer as f64));
        metrics.push(("vocab_size".to_owned(), settings.vocab_size as f64));
    }
    Ok(StageEnd { metrics, finished: true })
}
