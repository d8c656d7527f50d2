//! The documents of a corpus stage that has sources: stored by the stage, mixed and tokenized for training.

use super::corpus;
use crate::PipelineError;
use crate::recipe::CorpusStage;
use aha_data::{DataError, Mixture, Origin, TextStore, fim};
use aha_model::Tokenizer;
use aha_train::pretrain::Documents;
use rayon::prelude::*;
use std::path::{Path, PathBuf};

/// Where source `i` of a stage lies.
fn stem(stage_root: &Path, i: usize) -> PathBuf {
    stage_root.join("documents").join(format!("{i}"))
}

fn fail(stage: &str, problem: impl ToString) -> PipelineError {
    PipelineError::Stage { stage: stage.to_owned(), problem: problem.to_string() }
}

/// Reads every source that is on disk into the stage's folder; number of documents by source.
pub(crate) fn store(stage: &str, settings: &CorpusStage, root: &Path) -> Result<Vec<(String, u64)>, PipelineError> {
    std::fs::create_dir_all(root.join("documents")).map_err(|e| fail(stage, e))?;
    let mut counts = Vec::new();
    for (i, source) in settings.sources.iter().enumerate() {
        if let Some(path) = &source.path {
            let fill = |each: &mut dyn FnMut(&str) -> Result<(), DataError>| {
                aha_data::source::read(Path::new(path), &source.field, each)
            };
            let count = TextStore::write(&stem(root, i), fill).map_err(|e| fail(stage, e))?;
            counts.push((format!("documents/{i}"), count));
        }
    }
    Ok(counts)
}

/// The mixture of a stage whose sources were stored; without sources, the generated corpus alone.
pub(crate) fn open(
    stage: &str,
    settings: &CorpusStage,
    root: &Path,
    seed: u64,
    held_out: u64,
) -> Result<Mixture, PipelineError> {
    let generated = || corpus::config(stage, settings, seed).map(|config| Origin::Generated(Box::new(config)));
    let mut sources = Vec::new();
    for (i, source) in settings.sources.iter().enumerate() {
        let origin = match &source.path {
            Some(_) => Origin::Store(TextStore::open(&stem(root, i)).map_err(|e| fail(stage, e))?),
            None => generated()?,
        };
        sources.push((origin, source.weight));
    }
    if sources.is_empty() {
        sources.push((generated()?, 1.0));
    }
    Ok(Mixture::new(seed, sources, held_out))
}

/// A mixture as tokens, a share of it in fill-in-the-middle form.
pub(crate) struct Tokenized {
    pub mixture: Mixture,
    pub tokenizer: Tokenizer,
    pub eos: u32,
    seed: u64,
    /// The rate, and the tokens before prefix, suffix and middle.
    fim: Option<(f64, [u32; 3])>,
}

impl Tokenized {
    /// `fim_rate` above 0 needs a tokenizer with the three tokens.
    pub fn new(
        stage: &str,
        mixture: Mixture,
        tokenizer: Tokenizer,
        eos: u32,
        seed: u64,
        fim_rate: f64,
    ) -> Result<Self, PipelineError> {
        let find = |names: [&str; 3]| {
            let ids = names.map(|n| tokenizer.token_to_id(n));
            Some([ids[0]?, ids[1]?, ids[2]?])
        };
        let fim = match find(fim::TOKENS).or_else(|| find(fim::DEEPSEEK_TOKENS)) {
            _ if fim_rate == 0.0 => None,
            Some(tokens) => Some((fim_rate, tokens)),
            None => {
                let names = fim::TOKENS.join(", ");
                return Err(fail(
                    stage,
                    format!(
                        "fim_rate is {fim_rate}, but the tokenizer has no {names}; use one that has them, or set fim_rate = 0"
                    ),
                ));
            }
        };
        Ok(Tokenized { mixture, tokenizer, eos, seed, fim })
    }

    fn encode(&self, text: &str) -> Result<Vec<u32>, DataError> {
        self.tokenizer.encode(text, false).map_err(|e| DataError::Tokenizer(e.to_string()))
    }

    /// A document as it stands, with the end token, cut at `context` tokens.
    pub fn plain(&self, text: &str, context: usize) -> Result<Vec<u32>, DataError> {
        let mut tokens = self.encode(text)?;
        tokens.push(self.eos);
        tokens.truncate(context);
        Ok(tokens)
    }

    fn document(&self, i: u64, text: &str) -> Result<Vec<u32>, DataError> {
        let Some((rate, [begin, hole, end])) = self.fim else { return self.plain(text, usize::MAX) };
        let Some((prefix, middle, suffix)) = fim::cut(text, rate, self.seed, i) else {
            return self.plain(text, usize::MAX);
        };
        let mut tokens = vec![begin];
        for (part, after) in [(prefix, hole), (suffix, end), (middle, self.eos)] {
            tokens.extend(self.encode(part)?);
            tokens.push(after);
        }
        Ok(tokens)
    }
}

impl Documents for Tokenized {
    fn tokens(&self, range: std::ops::Range<u64>) -> Result<Vec<Vec<u32>>, DataError> {
        let first = range.start;
        let documents = self.mixture.documents(range)?;
        documents.into_par_iter().enumerate().map(|(i, (_, text))| self.document(first + i as u64, &text)).collect()
    }
}
