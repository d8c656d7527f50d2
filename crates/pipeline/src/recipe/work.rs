//! How many tokens a recipe's stages sample, train on and score, from its settings alone: what `aha cost` multiplies.

use super::Recipe;
use super::curation::CurationStage;
use super::distill::DistillStage;
use super::sft::DataSettings;
use super::stage::{ModelRef, Stage, StageSettings};
use std::collections::HashMap;

/// The work of one stage in tokens. Bounds from above: every completion is as long as it is said to be, and of what is sampled all
/// is kept that may be. Prompts are not counted.
#[derive(Clone, Debug, PartialEq)]
pub struct Work {
    /// Name of the stage.
    pub stage: String,
    /// Its kind.
    pub kind: String,
    /// Tokens drawn.
    pub sampled: f64,
    /// Tokens trained on.
    pub trained: f64,
    /// Tokens that another model scores: the reference, a teacher.
    pub scored: f64,
    /// Files whose rows could not be counted.
    pub uncounted: Vec<String>,
}

/// The work of every stage that does any. `completion` is the length of a completion in tokens; without it the longest that each
/// stage allows.
pub fn work(recipe: &Recipe, completion: Option<f64>) -> Vec<Work> {
    let mut kept = HashMap::new();
    let stages = recipe.stages.iter().map(|stage| {
        let work = Counting { completion, kept: &kept }.stage(stage);
        if let StageSettings::ColdStart(s) | StageSettings::Reject(s) = &stage.settings {
            kept.insert(stage.name.clone(), rows_kept(s));
        }
        work
    });
    stages.filter(|w| w.sampled + w.trained + w.scored > 0.0 || !w.uncounted.is_empty()).collect()
}

/// The most rows that a stage leaves, and the files that add to them.
fn rows_kept(s: &CurationStage) -> (f64, Vec<String>) {
    let each = if s.filters.per_prompt.max == 0 { s.samples } else { s.samples.min(s.filters.per_prompt.max) };
    let (rows, uncounted) = count(&s.rows);
    (s.problems as f64 * each as f64 + s.demonstrations as f64 + rows, uncounted)
}

struct Counting<'a> {
    completion: Option<f64>,
    kept: &'a HashMap<String, (f64, Vec<String>)>,
}

impl Counting<'_> {
    /// Tokens of a completion of which `longest` are allowed.
    fn length(&self, longest: usize) -> f64 {
        self.completion.map_or(longest as f64, |tokens| tokens.min(longest as f64))
    }

    fn stage(&self, stage: &Stage) -> Work {
        let (mut sampled, mut trained, mut scored, mut uncounted) = (0.0, 0.0, 0.0, Vec::new());
        match &stage.settings {
            StageSettings::Corpus(_) | StageSettings::Table(_) => {}
            StageSettings::Pretrain(s) => trained = s.training.steps as f64 * s.training.batch_tokens as f64,
            StageSettings::Extend(s) => trained = s.training.steps as f64 * s.training.batch_tokens as f64,
            StageSettings::Sft(s) => (trained, uncounted) = self.data(&s.data),
            StageSettings::Distill(s) => (sampled, trained, scored, uncounted) = self.distill(s),
            StageSettings::RewardModel(s) => {
                let (rows, files) = count(&s.data);
                let rows = (rows + s.generated as f64) * s.epochs as f64;
                let rows = s.max_steps.map_or(rows, |steps| rows.min((steps * s.batch_size as u64) as f64));
                (trained, uncounted) = (rows * 2.0 * self.length(s.max_length), files);
            }
            StageSettings::Grpo(s) => {
                let completions = s.steps as f64 * (s.num_prompts * s.num_generations) as f64;
                // Every step trains on its own share; a generation serves as many passes as there are iterations.
                trained = completions * self.length(s.max_completion_length);
                sampled = trained / s.num_iterations as f64;
                scored = if s.beta > 0.0 { sampled } else { 0.0 };
            }
            StageSettings::ColdStart(s) | StageSettings::Reject(s) => {
                sampled = s.problems as f64 * s.samples as f64 * self.length(s.max_completion_length);
            }
            StageSettings::Eval(s) => {
                // One greedy answer beside the samples.
                let answers = (s.model.len() as u64 * s.problems * (s.samples + 1)) as f64;
                sampled = answers * self.length(s.max_completion_length);
            }
        }
        Work { stage: stage.name.clone(), kind: stage.kind().to_string(), sampled, trained, scored, uncounted }
    }

    /// Tokens trained on, and files that could not be counted.
    fn data(&self, data: &DataSettings) -> (f64, Vec<String>) {
        let (mut rows, mut uncounted) = (0.0, Vec::new());
        for source in &data.data {
            let (more, files) = match source {
                ModelRef::Stage(name) => self.kept.get(name).cloned().unwrap_or_default(),
                ModelRef::Path(path) => count(std::slice::from_ref(path)),
            };
            rows += more;
            uncounted.extend(files);
        }
        let tokens = rows * self.length(data.max_length) * data.epochs as f64;
        let most = data.max_steps.map_or(f64::INFINITY, |steps| steps as f64 * data.batch_tokens as f64);
        (tokens.min(most), uncounted)
    }

    fn distill(&self, s: &DistillStage) -> (f64, f64, f64, Vec<String>) {
        let teacher = s.teacher_model().is_some();
        if let Some(own) = &s.on_policy {
            let answers = own.steps as f64 * (own.num_prompts * own.num_generations) as f64;
            let tokens = answers * self.length(own.max_completion_length);
            return (tokens, tokens, tokens, Vec::new());
        }
        let (trained, uncounted) = s.data.as_ref().map(|data| self.data(data)).unwrap_or_default();
        (0.0, trained, if teacher { trained } else { 0.0 }, uncounted)
    }
}

/// Rows of files, and those of the files that cannot be counted.
fn count(paths: &[String]) -> (f64, Vec<String>) {
    let (mut rows, mut uncounted) = (0.0, Vec::new());
    for path in paths {
        match aha_data::count_rows(std::path::Path::new(path)) {
            Ok(n) => rows += n as f64,
            Err(_) => uncounted.push(path.clone()),
        }
    }
    (rows, uncounted)
}
