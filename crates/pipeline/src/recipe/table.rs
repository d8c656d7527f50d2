//! The settings of the stage that puts evaluations side by side: the tables of R1's paper.

use serde::Serialize;

use super::error::RecipeError;
use super::resolve::Context;
use super::section::Section;
use super::stage::ModelRef;

pub(crate) const TABLE_KEYS: &[&str] =
    &["checkpoints", "students", "ablation", "prompting", "preferences", "preference_model"];

/// Puts evaluations side by side. Everything names labels of earlier eval stages.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TableStage {
    /// The checkpoints of the stages, in order.
    pub checkpoints: Vec<String>,
    /// Students: distilled ones and those trained by reinforcement learning alone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub students: Vec<String>,
    /// The reasoning stage with and without the language reward.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ablation: Vec<String>,
    /// One checkpoint under different prompts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prompting: Vec<String>,
    /// Pairs `A:B`: how often A's answers are preferred to B's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub preferences: Vec<String>,
    /// A reward model whose preferences stand beside the true ones. Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preference_model: Option<ModelRef>,
    /// The eval stages of these labels.
    #[serde(skip)]
    pub evaluations: Vec<String>,
}

impl TableStage {
    /// Every label it names, without repetition.
    pub fn labels(&self) -> Vec<&str> {
        let pairs = self.preferences.iter().filter_map(|p| p.split_once(':')).flat_map(|(a, b)| [a, b]);
        let lists = [&self.checkpoints, &self.students, &self.ablation, &self.prompting];
        let mut all: Vec<&str> = lists.into_iter().flatten().map(String::as_str).chain(pairs).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

const WANTED: &str = "a list of labels of earlier eval stages";

pub(crate) fn table(section: &Section<'_>, context: &Context<'_>) -> Result<TableStage, RecipeError> {
    let list = |key: &str| -> Result<Vec<String>, RecipeError> {
        let labels = section.strings(key, WANTED)?.unwrap_or_default();
        for label in &labels {
            let names = label
                .split_once(':')
                .filter(|_| key == "preferences")
                .map_or(vec![label.as_str()], |(a, b)| vec![a, b]);
            if key == "preferences" && names.len() != 2 {
                let message = format!("`{}` has `{label}`; write A:B, two labels", section.key(key));
                return Err(section.conflict(key, message));
            }
            if let Some(name) = names.into_iter().find(|name| context.taken_label(name).is_none()) {
                let message =
                    format!("`{}` names `{name}`, which is no label of an eval stage before it", section.key(key));
                return Err(section.conflict(key, message));
            }
        }
        Ok(labels)
    };
    let checkpoints = list("checkpoints")?;
    if checkpoints.is_empty() {
        return Err(section.missing("checkpoints", WANTED));
    }
    let model =
        section.string("preference_model", "the name of a reward_model stage, or the path of a reward model")?;
    let preference_model = model.map(|text| context.reward_model(section, "preference_model", &text)).transpose()?;
    let mut settings = TableStage {
        checkpoints,
        students: list("students")?,
        ablation: list("ablation")?,
        prompting: list("prompting")?,
        preferences: list("preferences")?,
        preference_model,
        evaluations: Vec::new(),
    };
    let stages = settings.labels().into_iter().filter_map(|label| context.taken_label(label)).map(str::to_owned);
    settings.evaluations = stages.collect();
    Ok(settings)
}
