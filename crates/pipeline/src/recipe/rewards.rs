//! The rewards of a grpo stage: rules by name, reward models, judging models and programs, each with a weight, for some problems or
//! all, from some step on.

use aha_tasks::RewardKind;
use serde::Serialize;

use super::error::RecipeError;
use super::resolve::Context;
use super::section::{FINITE, POSITIVE, Section};
use super::settings::precision;
use super::stage::{ModelRef, Precision, is_no_count};
use crate::reward_model::Normalise;

const KEYS: &[&str] = &["name", "weight", "only", "from_step", "model", "normalise", "command", "judge", "timeout_s"];
const JUDGE_KEYS: &[&str] = &[
    "endpoint",
    "name",
    "key_env",
    "model",
    "precision",
    "kind",
    "criteria",
    "scale",
    "cache",
    "max_requests",
    "max_tokens",
];

/// One reward and its weight in the sum.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RewardWeight {
    /// The rule; or, where a model, a judge or a command gives the reward, its name in metrics.
    pub name: String,
    /// Its weight; 0 measures without rewarding. Default 1.
    pub weight: f64,
    /// Families, groups ("reasoning", "code", "general") or sets ("helpful", "safety") of problems it is for. Default all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub only: Vec<String>,
    /// Steps before the first that uses it. Default 0.
    #[serde(skip_serializing_if = "is_no_count")]
    pub from_step: u64,
    /// A reward model: an earlier stage, or the path of one's `model` folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelRef>,
    /// How its scores become rewards. Default `standard`.
    #[serde(skip_serializing_if = "is_default")]
    pub normalise: Normalise,
    /// A program and its arguments: a JSON line in, a number out, for every completion.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Seconds a command may take for one completion, a judge behind an endpoint for one try. Default 30.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<f64>,
    /// A judging model, behind an endpoint or of our own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub judge: Option<JudgeSettings>,
}

/// What a judging model is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum JudgeKind {
    /// Whether the response is right by the problem's reference: 1 or 0.
    #[default]
    Reference,
    /// How good it is on each criterion: the mean, 0 to 1.
    Rubric,
}

/// A judging model: behind an OpenAI-compatible endpoint, or one of ours.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct JudgeSettings {
    /// The endpoint's address, such as `http://localhost:8000/v1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Name of the model there. Default `default`.
    pub name: String,
    /// A language model of ours instead: an earlier stage, or a path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelRef>,
    /// In what numbers that model's products run. Default `f32`.
    #[serde(skip_serializing_if = "Precision::is_default")]
    pub precision: Precision,
    /// Environment variable that holds the key. Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_env: Option<String>,
    /// What it is asked. Default `reference`.
    pub kind: JudgeKind,
    /// Criteria of a rubric, each `NAME=DESCRIPTION`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub criteria: Vec<String>,
    /// The highest score of a criterion. Default 10.
    pub scale: u64,
    /// File of answers that are known. Default none: `judge.jsonl` in the stage's folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<String>,
    /// Requests that may be made in a sitting. Default none: without limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_requests: Option<u64>,
    /// Tokens of one reply. Default 2,048.
    pub max_tokens: u64,
}

fn is_default(n: &Normalise) -> bool {
    *n == Normalise::default()
}

impl RewardWeight {
    /// Models that give it.
    pub(super) fn references(&self) -> impl Iterator<Item = &ModelRef> {
        self.model.iter().chain(self.judge.as_ref().and_then(|j| j.model.as_ref()))
    }

    /// A rule.
    pub fn rule(name: &str, weight: f64) -> Self {
        RewardWeight { name: name.to_owned(), weight, ..RewardWeight::default() }
    }

    /// Whether a rule gives it, which is then called by the rule's name.
    pub fn is_rule(&self) -> bool {
        self.model.is_none() && self.command.is_empty() && self.judge.is_none()
    }
}

pub(super) fn rewards(section: &Section<'_>, context: &Context<'_>) -> Result<Vec<RewardWeight>, RecipeError> {
    let wanted = "a list such as [{ name = \"accuracy\", weight = 1.0 }], at least one";
    let Some(tables) = section.tables("rewards", wanted)? else {
        return Ok(["accuracy", "format"].map(|name| RewardWeight::rule(name, 1.0)).to_vec());
    };
    if tables.is_empty() {
        return Err(section.wrong("rewards", wanted));
    }
    let mut rewards: Vec<RewardWeight> = Vec::with_capacity(tables.len());
    for (i, table) in tables.into_iter().enumerate() {
        let path = section.key(&format!("rewards.{}", table.name().map_or_else(|| i.to_string(), str::to_owned)));
        let own = Section::new(table, &path, &[KEYS])?;
        let reward = reward(&own, context)?;
        if rewards.iter().any(|other| other.name == reward.name) {
            let message = format!("the reward `{}` is in `{}` twice", reward.name, section.key("rewards"));
            return Err(own.conflict("name", message));
        }
        rewards.push(reward);
    }
    if rewards.iter().all(|reward| reward.weight == 0.0) {
        let message = format!("all weights in `{}` are 0, so there is nothing to learn", section.key("rewards"));
        return Err(section.conflict("rewards", message));
    }
    Ok(rewards)
}

fn reward(own: &Section<'_>, context: &Context<'_>) -> Result<RewardWeight, RecipeError> {
    let name_wanted = "the name of a reward";
    let name = own.string("name", name_wanted)?.ok_or_else(|| own.missing("name", name_wanted))?;
    let model = own.string("model", REWARD_MODEL_WANTED)?;
    let model = model.map(|text| context.reward_model(own, "model", &text)).transpose()?;
    let judge =
        own.table("judge")?.map(|table| judge(&Section::new(table, &own.key("judge"), &[JUDGE_KEYS])?, context));
    let reward = RewardWeight {
        name,
        weight: own.number("weight", &FINITE)?.unwrap_or(1.0),
        only: own.strings("only", "a family, group or set of problems, or a list of them")?.unwrap_or_default(),
        from_step: own.integer("from_step", 0)?.unwrap_or(0),
        model,
        normalise: own.choice("normalise", &NORMALISE)?.unwrap_or_default(),
        command: own.strings("command", "a list: a program and its arguments")?.unwrap_or_default(),
        timeout_s: own.number("timeout_s", &POSITIVE)?,
        judge: judge.transpose()?,
    };
    let sources = [reward.model.is_some(), !reward.command.is_empty(), reward.judge.is_some()];
    if sources.iter().filter(|given| **given).count() > 1 {
        let message = format!("`{}` has more than one of `model`, `command` and `judge`; keep one", own.key("name"));
        return Err(own.conflict("name", message));
    }
    if reward.is_rule()
        && let Err(unknown) = reward.name.parse::<RewardKind>()
    {
        let message =
            format!("`{}`: {unknown}; any other name needs a `model`, a `command` or a `judge`", own.key("name"));
        return Err(own.conflict("name", message));
    }
    if own.has("timeout_s") && reward.judge.as_ref().is_some_and(|j| j.model.is_some()) {
        let message = format!("`{}`: what a judge of ours may take is `judge.max_tokens`", own.key("timeout_s"));
        return Err(own.conflict("timeout_s", message));
    }
    if own.has("normalise") && reward.model.is_none() {
        let message = format!("`{}` is for reward models; there is no `model` here", own.key("normalise"));
        return Err(own.conflict("normalise", message));
    }
    Ok(reward)
}

const NORMALISE: [(&str, Normalise); 3] =
    [("standard", Normalise::Standard), ("sigmoid", Normalise::Sigmoid), ("none", Normalise::None)];
const REWARD_MODEL_WANTED: &str = "the name of an earlier reward_model stage, or the path of a reward model";

fn judge(own: &Section<'_>, context: &Context<'_>) -> Result<JudgeSettings, RecipeError> {
    let wanted = "an address such as \"http://localhost:8000/v1\"";
    let model = own.string("model", "the name of an earlier stage, or the path of a model")?;
    let model = model.map(|text| context.model(own, "model", &text)).transpose()?;
    let endpoint = own.string("endpoint", wanted)?;
    match (&endpoint, &model) {
        (None, None) => return Err(own.missing("endpoint", "an address, or `model` for a model of ours")),
        (Some(_), Some(_)) => {
            let message = format!("`{}` and `{}` are two judges; keep one", own.key("endpoint"), own.key("model"));
            return Err(own.conflict("model", message));
        }
        (Some(_), None) if own.has("precision") => {
            let message = format!("`{}` is for a `model` of ours; an endpoint decides itself", own.key("precision"));
            return Err(own.conflict("precision", message));
        }
        (None, Some(_)) => {
            if let Some(key) = ["name", "key_env"].into_iter().find(|key| own.has(key)) {
                let message = format!("`{}` is for an `endpoint`; there is none here", own.key(key));
                return Err(own.conflict(key, message));
            }
        }
        _ => {}
    }
    let settings = JudgeSettings {
        endpoint,
        model,
        precision: precision(own, &Precision::ALL)?,
        name: own.string("name", "the name of a model")?.unwrap_or_else(|| "default".to_owned()),
        key_env: own.string("key_env", "the name of an environment variable")?,
        kind: own
            .choice("kind", &[("reference", JudgeKind::Reference), ("rubric", JudgeKind::Rubric)])?
            .unwrap_or_default(),
        criteria: own.strings("criteria", "a list of NAME=DESCRIPTION")?.unwrap_or_default(),
        scale: own.integer("scale", 2)?.unwrap_or(10),
        cache: own.string("cache", "the path of a file")?,
        max_requests: own.integer("max_requests", 1)?,
        max_tokens: own.integer("max_tokens", 1)?.unwrap_or(2048),
    };
    if settings.kind == JudgeKind::Rubric {
        if settings.criteria.is_empty() {
            return Err(own.missing("criteria", "a list of NAME=DESCRIPTION, at least one"));
        }
        if settings.criteria.iter().any(|c| !c.contains('=')) {
            return Err(own.wrong("criteria", "a list of NAME=DESCRIPTION"));
        }
    }
    Ok(settings)
}
