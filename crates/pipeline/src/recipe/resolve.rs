//! From what was written to what will run: names, references between stages, and what must hold across stages.
//! The settings of each kind are in [`super::settings`].

use std::collections::HashMap;

use super::Recipe;
use super::error::RecipeError;
use super::keys;
use super::nearest;
use super::overrides::RECIPE_KEYS;
use super::raw::{RawRecipe, Table};
use super::section::Section;
use super::settings;
use super::stage::{ModelRef, Stage, StageKind, StageSettings};

/// What the settings of a stage may refer to.
pub(crate) struct Context<'a> {
    /// The stage being resolved.
    pub(crate) stage: String,
    /// The stages before it.
    pub(crate) earlier: &'a [Stage],
    /// Every stage of the recipe by name, as far as they have one.
    all_names: &'a [String],
}

impl RawRecipe {
    /// Checks everything and fills in the defaults.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place.
    pub fn resolve(&self) -> Result<Recipe, RecipeError> {
        let root = self.filled()?;
        let top = Section::new(&root, "", &[&RECIPE_KEYS])?;
        let name = top.string("name", NAME_WANTED)?.ok_or_else(|| top.missing("name", NAME_WANTED))?;
        if !is_name(&name) {
            return Err(top.wrong("name", NAME_WANTED));
        }
        let wanted = "a list of stages, each under `[[stage]]`";
        let tables = top.tables("stage", wanted)?.ok_or_else(|| top.missing("stage", wanted))?;
        if tables.is_empty() {
            return Err(top.wrong("stage", format!("{wanted}, at least one")));
        }
        let all_names: Vec<String> = tables.iter().filter_map(|t| t.name()).map(str::to_owned).collect();
        let mut stages: Vec<Stage> = Vec::with_capacity(tables.len());
        for (i, table) in tables.iter().enumerate() {
            let stage = stage(table, i, &stages, &all_names)?;
            stages.push(stage);
        }
        let description = top.string("description", "a text")?;
        let seed = top.integer("seed", 0)?.unwrap_or(1);
        Ok(Recipe { name, description, seed, stages })
    }
}

const NAME_WANTED: &str = "a name of lower-case letters, digits, `-` and `_`";

/// Names become folders and first words of `--set`.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
}

fn stage(table: &Table, index: usize, earlier: &[Stage], all_names: &[String]) -> Result<Stage, RecipeError> {
    let path = table.name().map_or_else(|| format!("stage {}", index + 1), str::to_owned);
    // Which keys are valid depends on the kind, so name and kind come first, whatever else there is.
    let any: Vec<&str> = table.entries.iter().map(|(key, _)| key.as_str()).collect();
    let head = Section::new(table, &path, &[&any])?;
    let name = head.string("name", NAME_WANTED)?.ok_or_else(|| head.missing("name", NAME_WANTED))?;
    if !is_name(&name) {
        return Err(head.wrong("name", NAME_WANTED));
    }
    if RECIPE_KEYS.contains(&name.as_str()) {
        let message = format!("a stage cannot be called `{name}`, which is a key of the recipe; choose another name");
        return Err(head.conflict("name", message));
    }
    if earlier.iter().any(|stage| stage.name == name) {
        let message = format!("there are two stages called `{name}`; give one of them another name");
        return Err(head.conflict("name", message));
    }
    if !head.has("kind") {
        let kinds = StageKind::ALL.map(|(kind, _)| format!("`{kind}`")).join(", ");
        return Err(head.missing("kind", &format!("one of {kinds}")));
    }
    let kind = head.choice("kind", &StageKind::ALL)?.expect("the key was found above");
    let context = Context { stage: name.clone(), earlier, all_names };
    let section = |keys: &[&str]| Section::new(table, &name, &[&["name", "kind"], keys]);
    let settings = match kind {
        StageKind::Corpus => StageSettings::Corpus(super::corpus::corpus(&section(keys::CORPUS_STAGE_KEYS)?)?),
        StageKind::Pretrain => {
            let keys = [keys::PRETRAIN_KEYS, keys::OPTIMIZER_KEYS, super::deepseek::TRAINING_KEYS].concat();
            StageSettings::Pretrain(settings::pretrain(&section(&keys)?, &context)?)
        }
        StageKind::Extend => {
            let keys =
                [keys::PRETRAIN_KEYS, keys::EXTEND_KEYS, keys::OPTIMIZER_KEYS, super::deepseek::TRAINING_KEYS].concat();
            StageSettings::Extend(settings::extend(&section(&keys)?, &context)?)
        }
        StageKind::Sft => {
            use super::sft::{DATA_KEYS, SFT_KEYS, TUNING_KEYS};
            let keys = [SFT_KEYS, DATA_KEYS, TUNING_KEYS, keys::OPTIMIZER_KEYS].concat();
            StageSettings::Sft(super::sft::sft(&section(&keys)?, &context)?)
        }
        StageKind::RewardModel => {
            let keys = [super::reward_model::REWARD_MODEL_KEYS, super::sft::TUNING_KEYS, keys::OPTIMIZER_KEYS].concat();
            StageSettings::RewardModel(super::reward_model::reward_model(&section(&keys)?, &context)?)
        }
        StageKind::Distill => {
            use super::distill::{COMPARISON_KEYS, DISTILL_KEYS, ON_POLICY_KEYS, PROBLEM_KEYS};
            let own = [DISTILL_KEYS, COMPARISON_KEYS, ON_POLICY_KEYS, PROBLEM_KEYS].concat();
            let keys = [&own[..], super::sft::DATA_KEYS, super::sft::TUNING_KEYS, keys::OPTIMIZER_KEYS].concat();
            StageSettings::Distill(super::distill::distill(&section(&keys)?, &context)?)
        }
        StageKind::Grpo => {
            let keys = [keys::GRPO_KEYS, keys::OPTIMIZER_KEYS].concat();
            StageSettings::Grpo(settings::grpo(&section(&keys)?, &context)?)
        }
        StageKind::ColdStart | StageKind::Reject => {
            let settings = super::curation::curation(&section(super::curation::CURATION_KEYS)?, &context, kind)?;
            if kind == StageKind::Reject { StageSettings::Reject(settings) } else { StageSettings::ColdStart(settings) }
        }
        StageKind::Eval => StageSettings::Eval(settings::eval(&section(keys::EVAL_KEYS)?, &context)?),
        StageKind::Table => StageSettings::Table(super::table::table(&section(super::table::TABLE_KEYS)?, &context)?),
    };
    Ok(Stage { name, settings })
}

impl Context<'_> {
    /// The model that `text`, the value of `key`, means.
    ///
    /// A word is a stage; anything with a separator or a dot in it is a path. In a recipe of one stage, which has no other
    /// stage to name, everything is a path.
    pub(crate) fn model(&self, section: &Section<'_>, key: &str, text: &str) -> Result<ModelRef, RecipeError> {
        if text.contains(['/', '\\', '.']) || self.all_names.len() <= 1 {
            return Ok(ModelRef::Path(text.to_owned()));
        }
        let stage = self.earlier_stage(section, key, text, " (for a folder, write `./NAME`)")?;
        if !stage.kind().makes_model() {
            let message = format!(
                "`{}` is `{text}`, a {} stage, which makes no model; models come from pretrain, extend, sft, distill and grpo stages",
                section.key(key),
                stage.kind()
            );
            return Err(section.conflict(key, message));
        }
        Ok(ModelRef::Stage(text.to_owned()))
    }

    /// The reward model that `text` means.
    pub(crate) fn reward_model(&self, section: &Section<'_>, key: &str, text: &str) -> Result<ModelRef, RecipeError> {
        if text.contains(['/', '\\', '.']) || self.all_names.len() <= 1 {
            return Ok(ModelRef::Path(text.to_owned()));
        }
        let stage = self.earlier_stage(section, key, text, " (for a folder, write `./NAME`)")?;
        if stage.kind() != StageKind::RewardModel {
            let message =
                format!("`{}` is `{text}`, a {} stage; name a reward_model stage", section.key(key), stage.kind());
            return Err(section.conflict(key, message));
        }
        Ok(ModelRef::Stage(text.to_owned()))
    }

    /// The stage whose data `text` means; `None` when it is a path.
    pub(crate) fn data(&self, section: &Section<'_>, key: &str, text: &str) -> Result<Option<String>, RecipeError> {
        if text.contains(['/', '\\', '.']) || self.all_names.len() <= 1 {
            return Ok(None);
        }
        let stage = self.earlier_stage(section, key, text, " (for a file, write `./NAME`)")?;
        if !stage.kind().makes_data() {
            let message = format!(
                "`{}` is `{text}`, a {} stage, which makes no data; data come from cold_start and reject stages",
                section.key(key),
                stage.kind()
            );
            return Err(section.conflict(key, message));
        }
        Ok(Some(text.to_owned()))
    }

    /// The corpus stage that `text` names.
    pub(crate) fn corpus(&self, section: &Section<'_>, key: &str, text: &str) -> Result<String, RecipeError> {
        let stage = self.earlier_stage(section, key, text, "")?;
        if stage.kind() != StageKind::Corpus {
            let message = format!("`{}` is `{text}`, a {} stage; name a corpus stage", section.key(key), stage.kind());
            return Err(section.conflict(key, message));
        }
        Ok(text.to_owned())
    }

    /// The stage before this one that is called `name`.
    fn earlier_stage(
        &self,
        section: &Section<'_>,
        key: &str,
        name: &str,
        or_else: &str,
    ) -> Result<&Stage, RecipeError> {
        if let Some(stage) = self.earlier.iter().find(|stage| stage.name == name) {
            return Ok(stage);
        }
        let hint = if name == self.stage {
            "a stage cannot use its own result".to_owned()
        } else if self.all_names.iter().any(|n| n == name) {
            format!("`{name}` comes later: move it up")
        } else {
            let names: Vec<&str> = self.earlier.iter().map(|stage| stage.name.as_str()).collect();
            nearest::hint(name, &names, "the stages before it") + or_else
        };
        Err(RecipeError::UnknownStage {
            at: section.at(key),
            key: section.key(key),
            name: name.to_owned(),
            stage: self.stage.clone(),
            hint,
        })
    }

    /// The longest sequence of a model that the recipe itself trains, with the stage that decides it.
    pub(crate) fn max_positions<'s>(&'s self, model: &'s ModelRef) -> Option<(&'s str, usize)> {
        let by_name: HashMap<&str, &Stage> = self.earlier.iter().map(|s| (s.name.as_str(), s)).collect();
        let mut name = model.stage()?;
        // References only point backwards, so this ends.
        loop {
            match &by_name.get(name)?.settings {
                StageSettings::Pretrain(s) => return Some((name, s.model.max_position_embeddings)),
                StageSettings::Extend(s) => return Some((name, s.training.context)),
                StageSettings::Sft(s) => name = s.model.stage()?,
                StageSettings::Distill(s) => match &s.model {
                    Some(shape) => return Some((name, shape.max_position_embeddings)),
                    None => name = s.student.as_ref()?.stage()?,
                },
                StageSettings::Grpo(s) => name = s.model.stage()?,
                StageSettings::Corpus(_)
                | StageSettings::ColdStart(_)
                | StageSettings::Reject(_)
                | StageSettings::RewardModel(_)
                | StageSettings::Eval(_)
                | StageSettings::Table(_) => return None,
            }
        }
    }

    /// Labels that earlier evaluations have taken, with the stage.
    pub(crate) fn taken_label(&self, label: &str) -> Option<&str> {
        self.earlier.iter().find_map(|stage| match &stage.settings {
            StageSettings::Eval(s) if s.label.iter().any(|l| l == label) => Some(stage.name.as_str()),
            _ => None,
        })
    }
}
