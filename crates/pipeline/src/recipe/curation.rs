//! The settings of the stages that sample a model and make training data of what is good: `cold_start` (DeepSeek-R1, section
//! 2.3.1: samples of R1-Zero, made readable, checked by people) and `reject` (section 2.3.3: rejection sampling from the
//! reasoning checkpoint, with general data added).

use aha_curate::CurateError;
use serde::{Deserialize, Serialize};

use super::error::{Origin, RecipeError};
use super::keys::task_files;
use super::raw::{Table, Value};
use super::resolve::Context;
use super::section::{NUCLEUS, POSITIVE, Section};
use super::settings::{MODEL_WANTED, TASK_WANTED, completion_length, few_shot, precision, prompt_style};
use super::stage::{ModelRef, Precision, StageKind};

pub(crate) const CURATION_KEYS: &[&str] = &[
    "model",
    "task",
    "task_options",
    "prompt_style",
    "system_prompt",
    "prompt_suffix",
    "few_shot",
    "few_shot_examples",
    "problems",
    "samples",
    "temperature",
    "top_p",
    "max_completion_length",
    "seed_offset",
    "precision",
    "speculative_decoding",
    "decide",
    "held_out",
    "against",
    "rows",
    "demonstrations",
    "filters",
];

/// Who decides about what the filters keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decide {
    /// Nobody: it is data.
    None,
    /// A rule: all of it is accepted, and can be looked at in `candidates.jsonl`.
    Rule,
    /// People: the run waits until `aha annotate` has decided on every candidate.
    People,
}

/// Samples a model on training problems and makes data of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CurationStage {
    /// The model that is sampled.
    pub model: ModelRef,
    /// The task that gives problems and references.
    pub task: String,
    /// How a problem becomes a prompt. Default `auto`.
    pub prompt_style: String,
    /// A system message before every question, for chat templates. Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_prompt: Option<String>,
    /// Text on a line of its own after every question. Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_suffix: Option<String>,
    /// Worked examples that stand before every question: an earlier stage of curated data, or a file of rows. Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub few_shot: Option<ModelRef>,
    /// How many of them. Default 1.
    pub few_shot_examples: usize,
    /// Training problems, from the first on. Default 1,000.
    pub problems: u64,
    /// Samples per problem. Default 4.
    pub samples: usize,
    /// Sampling temperature. Default 1.0 (R1's cold start).
    pub temperature: f64,
    /// Nucleus. Default 1.0.
    pub top_p: f64,
    /// Tokens after which a completion is cut off. Default 32,768 (R1).
    pub max_completion_length: usize,
    /// Added to the recipe's seed. Default 0.
    pub seed_offset: u64,
    /// In what numbers products run. Default `f32`.
    pub precision: Precision,
    /// Drafts tokens with the model's prediction module while sampling. Default false.
    pub speculative_decoding: bool,
    /// Who decides about what the filters keep. Default `rule` for cold_start, `none` for reject.
    pub decide: Decide,
    /// Held-out problems of the task that no row may overlap with. Default 1,000.
    pub held_out: u64,
    /// Files of other evaluation sets that no row may overlap with. Default none.
    pub against: Vec<String>,
    /// Files of rows that are added, e.g. general data; they pass the same filters. Default none.
    pub rows: Vec<String>,
    /// Demonstrations of the miniature world's requests that are added. Default 0.
    pub demonstrations: u64,
    /// Options of the task (`data`, ...), read by the tasks crate.
    #[serde(skip_serializing_if = "toml::Table::is_empty")]
    pub task_options: toml::Table,
    /// The filters.
    pub filters: aha_curate::Settings,
}

impl CurationStage {
    /// Names of the earlier stages whose results it uses.
    pub(super) fn inputs(&self) -> Vec<&str> {
        [Some(&self.model), self.few_shot.as_ref()].into_iter().flatten().filter_map(ModelRef::stage).collect()
    }

    /// Files and folders outside the run that it reads, each once.
    pub(super) fn external_inputs(&self) -> Vec<&str> {
        let references = [Some(&self.model), self.few_shot.as_ref()].into_iter().flatten().filter_map(ModelRef::path);
        let options = task_files(&self.task_options);
        let files = self.against.iter().chain(&self.rows).map(String::as_str);
        let mut paths: Vec<&str> = references.chain(options).chain(files).collect();
        paths.sort_unstable();
        paths.dedup();
        paths
    }
}

pub(crate) fn curation(
    section: &Section<'_>,
    context: &Context<'_>,
    kind: StageKind,
) -> Result<CurationStage, RecipeError> {
    let name = section.string("model", MODEL_WANTED)?.ok_or_else(|| section.missing("model", MODEL_WANTED))?;
    let model = context.model(section, "model", &name)?;
    let choices = [("none", Decide::None), ("rule", Decide::Rule), ("people", Decide::People)];
    let decide = if kind == StageKind::Reject { Decide::None } else { Decide::Rule };
    let max_completion_length = completion_length(section, context, &[&model])?;
    Ok(CurationStage {
        model,
        task: section.string("task", TASK_WANTED)?.ok_or_else(|| section.missing("task", TASK_WANTED))?,
        prompt_style: prompt_style(section)?,
        system_prompt: section.string("system_prompt", "a text")?,
        prompt_suffix: section.string("prompt_suffix", "a text")?,
        few_shot: few_shot(section, context)?,
        few_shot_examples: section.size("few_shot_examples", 1)?.unwrap_or(1),
        problems: section.integer("problems", 1)?.unwrap_or(1000),
        samples: section.size("samples", 1)?.unwrap_or(4),
        temperature: section.number("temperature", &POSITIVE)?.unwrap_or(1.0),
        top_p: section.number("top_p", &NUCLEUS)?.unwrap_or(1.0),
        max_completion_length,
        seed_offset: section.integer("seed_offset", 0)?.unwrap_or(0),
        precision: precision(section, &Precision::ALL)?,
        speculative_decoding: section.boolean("speculative_decoding")?.unwrap_or(false),
        decide: section.choice("decide", &choices)?.unwrap_or(decide),
        held_out: section.integer("held_out", 0)?.unwrap_or(1000),
        against: files(section, "against")?,
        rows: files(section, "rows")?,
        demonstrations: section.integer("demonstrations", 0)?.unwrap_or(0),
        task_options: section.table("task_options")?.map(Table::to_toml).unwrap_or_default(),
        filters: filters(section)?,
    })
}

/// A file or a list of files; an empty list, as a resolved recipe has it, is none.
fn files(section: &Section<'_>, key: &str) -> Result<Vec<String>, RecipeError> {
    if section.is_empty_list(key) {
        return Ok(Vec::new());
    }
    Ok(section.strings(key, "the path of a file, or a list of paths")?.unwrap_or_default())
}

fn filters(section: &Section<'_>) -> Result<aha_curate::Settings, RecipeError> {
    let Some(table) = section.table("filters")? else { return Ok(aha_curate::Settings::default()) };
    let path = section.key("filters");
    let wrong = |key: &str, at: &Origin, problem: &str| {
        let message = format!("`{path}{key}`: {problem}");
        Err(RecipeError::Conflict { at: at.clone(), message })
    };
    // One key after the other first, so that a mistake is shown where it stands.
    for (key, node) in &table.entries {
        let alone =
            |value: toml::Value| aha_curate::Settings::deserialize(toml::Table::from_iter([(key.clone(), value)]));
        let Value::Table(inner) = &node.value else {
            if let Err(error) = alone(node.value.to_toml()) {
                return wrong(&format!(".{key}"), &node.origin, error.message());
            }
            continue;
        };
        for (word, node) in &inner.entries {
            let value = toml::Table::from_iter([(word.clone(), node.value.to_toml())]);
            if let Err(error) = alone(toml::Value::Table(value)) {
                return wrong(&format!(".{key}.{word}"), &node.origin, error.message());
            }
        }
    }
    let settings = match aha_curate::Settings::deserialize(table.to_toml()) {
        Ok(settings) => settings,
        Err(error) => return wrong("", &section.at("filters"), error.message()),
    };
    if let Err(CurateError::Setting { key, problem }) = settings.check() {
        let (first, last) = key.split_once('.').unwrap_or((key, ""));
        let node = table.get(first);
        let inner = node.and_then(|node| match &node.value {
            Value::Table(inner) => inner.get(last),
            _ => None,
        });
        let at = inner.or(node).map_or_else(|| section.at("filters"), |node| node.origin.clone());
        return wrong(&format!(".{key}"), &at, &problem);
    }
    Ok(settings)
}
