//! How documents fill the rows of a pretraining, and how its batch grows.

use aha_data::{Packing, Rows};
use aha_train::ramp::BatchRamp;
use serde::Serialize;

use super::error::RecipeError;
use super::section::Section;

/// Packing and batch growth; what is left at its default is not written, so that recipes from before keep their hash.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PackingSettings {
    /// `documents`: whole documents, cut at `context`; `stream`: one stream of tokens cut into rows. Default `documents`.
    #[serde(rename = "packing", serialize_with = "name", skip_serializing_if = "is_documents")]
    pub kind: Packing,
    /// Documents of a row see those before them, as V3 trains. Default false.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub cross_document_attention: bool,
    /// Tokens of the first step, where the batch grows. Default `batch_tokens`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_tokens_start: Option<usize>,
    /// Tokens over which it grows to `batch_tokens`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_ramp_tokens: Option<u64>,
}

const PACKINGS: [(&str, Packing); 2] = [("documents", Packing::Documents), ("stream", Packing::Stream)];

fn is_documents(kind: &Packing) -> bool {
    *kind == Packing::Documents
}

fn name<S: serde::Serializer>(kind: &Packing, serializer: S) -> Result<S::Ok, S::Error> {
    let found = PACKINGS.iter().find(|(_, k)| k == kind).map_or("", |(name, _)| name);
    serializer.serialize_str(found)
}

impl PackingSettings {
    /// The rows of `context` tokens.
    pub fn rows(&self, context: usize) -> Rows {
        Rows { packing: self.kind, cross_document_attention: self.cross_document_attention, context }
    }

    /// The batch over the steps.
    pub fn batch(&self, batch_tokens: usize, context: usize) -> BatchRamp {
        match (self.batch_tokens_start, self.batch_ramp_tokens) {
            (Some(start), Some(ramp)) => BatchRamp::new(start, batch_tokens, ramp, context),
            _ => BatchRamp::constant(batch_tokens),
        }
    }
}

pub(crate) fn packing(
    section: &Section<'_>,
    batch_tokens: usize,
    context: usize,
) -> Result<PackingSettings, RecipeError> {
    let start = section.size("batch_tokens_start", 1)?;
    let ramp = section.integer("batch_ramp_tokens", 1)?;
    let (has, lacks) = ("batch_tokens_start", "batch_ramp_tokens");
    if start.is_some() != ramp.is_some() {
        let (has, lacks) = if start.is_some() { (has, lacks) } else { (lacks, has) };
        let message = format!("`{}` needs `{}` beside it", section.key(has), section.key(lacks));
        return Err(section.conflict(has, message));
    }
    if let Some(start) = start
        && (start > batch_tokens || !start.is_multiple_of(context))
    {
        let message = format!(
            "`{}` is {start}; it must be a whole number of rows of {context} tokens and at most the batch_tokens of {batch_tokens}",
            section.key("batch_tokens_start")
        );
        return Err(section.conflict("batch_tokens_start", message));
    }
    Ok(PackingSettings {
        kind: section.choice("packing", &PACKINGS)?.unwrap_or_default(),
        cross_document_attention: section.boolean("cross_document_attention")?.unwrap_or(false),
        batch_tokens_start: start,
        batch_ramp_tokens: ramp,
    })
}
