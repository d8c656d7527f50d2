//! The corpus stage: where documents come from, and the tokenizer.

use serde::Serialize;

use super::error::RecipeError;
use super::keys::{CORPUS_KEYS, SOURCE_KEYS};
use super::section::{POSITIVE, SHARE, Section};
use super::stage::is_zero;

/// Gathers documents and trains the tokenizer on them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CorpusStage {
    /// Documents that the tokenizer is trained on. Default 20,000.
    pub documents_for_tokenizer: u64,
    /// Tokens of the tokenizer, special ones included; at least the 256 bytes. Default 640.
    pub vocab_size: usize,
    /// Share of documents in fill-in-the-middle form (V3: 0.1). Default 0.
    #[serde(skip_serializing_if = "is_zero")]
    pub fim_rate: f64,
    /// A `tokenizer.json` to use instead of training one. Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<String>,
    /// The token that ends a document. Default `<|end|>`, which our own tokenizers have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eos_token: Option<String>,
    /// Settings of the generated corpus, read by the data crate; the keys are [`CORPUS_KEYS`](super::CORPUS_KEYS).
    pub corpus: toml::Table,
    /// Sources of documents. Default: the generated corpus alone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<SourceSettings>,
}

/// A source of documents.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SourceSettings {
    /// A `.jsonl`, `.parquet`, `.txt` or `.md` file, or a folder of these; none for what is generated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The generated corpus.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub generated: bool,
    /// Generated documents that hide facts and ask for them, up to this many bytes long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub needle: Option<usize>,
    /// The key of the text in JSON lines, the column in Parquet. Default `text`.
    pub field: String,
    /// Share of the text that comes from here, relative to the other sources. Default 1.
    pub weight: f64,
}

impl CorpusStage {
    /// Whether it is the generated corpus and nothing else, as it was before there were sources.
    pub fn is_plain(&self) -> bool {
        self.sources.is_empty() && self.fim_rate == 0.0 && self.tokenizer.is_none()
    }

    /// Files and folders that it reads.
    pub(crate) fn external_inputs(&self) -> Vec<&str> {
        let mut paths: Vec<&str> =
            self.sources.iter().filter_map(|s| s.path.as_deref()).chain(self.tokenizer.as_deref()).collect();
        paths.sort_unstable();
        paths.dedup();
        paths
    }
}

pub(crate) fn corpus(section: &Section<'_>) -> Result<CorpusStage, RecipeError> {
    let corpus = match section.table("corpus")? {
        Some(table) => {
            Section::new(table, &section.key("corpus"), &[CORPUS_KEYS])?;
            table.to_toml()
        }
        None => toml::Table::new(),
    };
    let documents_for_tokenizer = section.integer("documents_for_tokenizer", 1)?.unwrap_or(20_000);
    let vocab = section
        .integer_because("vocab_size", 351, ": the 256 bytes, the 90 two-digit numbers, the end token and four tags")?
        .unwrap_or(640);
    let vocab_size = usize::try_from(vocab).map_err(|_| section.wrong("vocab_size", "a smaller number"))?;
    let tokenizer = section.string("tokenizer", "the path of a tokenizer.json")?;
    let eos_token = section.string("eos_token", "a token of the tokenizer")?;
    if eos_token.is_some() && tokenizer.is_none() {
        let message = format!(
            "`{}` is only for a given `tokenizer`; one that is trained ends with <|end|>",
            section.key("eos_token")
        );
        return Err(section.conflict("eos_token", message));
    }
    let fim_rate = section.number("fim_rate", &SHARE)?.unwrap_or(0.0);
    if fim_rate > 0.0 && tokenizer.is_none() && vocab_size < 354 {
        let message = format!(
            "`{}` is {vocab_size}, too small for the three tokens of `fim_rate`; take 354 or more",
            section.key("vocab_size")
        );
        return Err(section.conflict("vocab_size", message));
    }
    Ok(CorpusStage {
        documents_for_tokenizer,
        vocab_size,
        fim_rate,
        tokenizer,
        eos_token,
        corpus,
        sources: sources(section)?,
    })
}

fn sources(section: &Section<'_>) -> Result<Vec<SourceSettings>, RecipeError> {
    let wanted = "a list such as [{ path = \"documents.jsonl\", weight = 2 }, { generated = true }], at least one";
    let Some(tables) = section.tables("sources", wanted)? else { return Ok(Vec::new()) };
    if tables.is_empty() {
        return Err(section.wrong("sources", wanted));
    }
    let mut sources: Vec<SourceSettings> = Vec::with_capacity(tables.len());
    for (i, table) in tables.into_iter().enumerate() {
        let own = Section::new(table, &section.key(&format!("sources.{i}")), &[SOURCE_KEYS])?;
        let path = own.string("path", "the path of a file or folder")?;
        let generated = own.boolean("generated")?.unwrap_or(false);
        let needle = own.size("needle", 200)?;
        if usize::from(generated) + usize::from(path.is_some()) + usize::from(needle.is_some()) != 1 {
            let message = format!(
                "`{}` needs one of a `path`, `generated = true` or `needle = BYTES`",
                section.key(&format!("sources.{i}"))
            );
            return Err(own.conflict("path", message));
        }
        if sources.iter().any(|s| s.path == path && s.generated == generated && s.needle == needle) {
            let what = path.unwrap_or_else(|| "the generated documents".to_owned());
            let message = format!("`{}` has {what} twice; give it one weight", section.key("sources"));
            return Err(own.conflict("path", message));
        }
        sources.push(SourceSettings {
            path,
            generated,
            needle,
            field: own.string("field", "the key of the text")?.unwrap_or_else(|| "text".to_owned()),
            weight: own.number("weight", &POSITIVE)?.unwrap_or(1.0),
        });
    }
    Ok(sources)
}
