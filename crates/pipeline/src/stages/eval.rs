//! Measuring models on held-out problems.

use super::few_shot::{self, FewShot};
use super::grpo::{model_path, open_task, style};
use super::observer::store;
use crate::PipelineError;
use crate::models::OpenModel;
use crate::recipe::{EvalStage, StageSettings};
use crate::run::{Context, StageEnd};
use aha_engine::sampler::mix;
use aha_engine::{Control, EngineConfig, SamplingParams};
use aha_eval::{EvalError, EvalSettings, evaluate};
use aha_runs::{Event, Listener};
use aha_tasks::needle;

/// Bytes of hay that a tokenizer is measured on.
const MEASURED_BYTES: usize = 20_000;

pub(crate) fn run(context: &mut Context, name: &str, s: &EvalStage) -> Result<StageEnd, PipelineError> {
    let seed = context.recipe.seed.wrapping_add(s.seed_offset);
    let mut task = open_task(name, &s.task, &options(context, s)?, seed)?;
    if s.few_shot.is_some() {
        let examples = few_shot::examples(context, s.few_shot.as_ref())
            .map_err(|source| PipelineError::Curate { stage: name.to_owned(), source })?;
        task = Box::new(FewShot { task, examples, count: s.few_shot_examples, seed });
    }
    let total_steps = Some(s.model.len() as u64);
    context.listeners.event(&Event::StageStarted {
        stage: name.to_owned(),
        method: "eval".into(),
        resumed_at: None,
        total_steps,
    });
    let paths = context.dir.stage(name)?;
    paths.create()?;
    let mut metrics = Vec::new();
    for (reference, label) in s.model.iter().zip(&s.label) {
        let model = OpenModel::open(&model_path(context, reference)?)?;
        let prompter = model.prompter(style(&s.prompt_style), s.system_prompt.clone(), s.prompt_suffix.clone())?;
        let settings = EvalSettings {
            problems: s.problems as usize,
            samples: s.samples as usize,
            sampling: SamplingParams {
                temperature: s.temperature as f32,
                top_p: s.top_p as f32,
                max_new_tokens: s.max_completion_length,
                ..SamplingParams::default()
            },
            greedy: true,
            seed: mix(seed),
            engine: EngineConfig { speculative: s.speculative_decoding, ..EngineConfig::default() },
        };
        let decoder = model.decoder(s.precision)?;
        let control = control(context, name, label, settings.problems * (settings.samples + 1));
        let result = match evaluate(&decoder, &*task, &prompter, &settings, &control) {
            Err(EvalError::Stopped) => return Ok(StageEnd { metrics, finished: false }),
            result => result.map_err(|source| PipelineError::Eval { stage: name.to_owned(), source })?,
        };
        let step = steps_of(context, reference.stage());
        store(context, paths.root(), label, step, &result)?;
        let pass = context.summary.evals.get(label).and_then(|v| v["pass_at_1"].as_f64());
        metrics.push((format!("{label}/pass_at_1"), pass.unwrap_or(f64::NAN)));
        if context.stopped() {
            return Ok(StageEnd { metrics, finished: false });
        }
    }
    Ok(StageEnd { metrics, finished: true })
}

/// The options of the task; lengths of haystacks are counted in the tokens of the first model.
fn options(context: &Context, s: &EvalStage) -> Result<toml::Table, PipelineError> {
    let mut options = s.task_options.clone();
    if s.task == needle::NAME && !options.contains_key("bytes_per_token") {
        let hay = needle::document(0, 0, MEASURED_BYTES);
        let model = OpenModel::open(&model_path(context, &s.model[0])?)?;
        let tokens = model
            .tokenizer
            .encode(&hay, false)
            .map_err(|source| PipelineError::Model { model: s.model[0].to_string(), source })?;
        options.insert("bytes_per_token".into(), (hay.len() as f64 / tokens.len() as f64).into());
    }
    Ok(options)
}

/// Ends with the run's stop and tells its listeners how many samples are done.
fn control(context: &Context, stage: &str, label: &str, total: usize) -> Control {
    let (listeners, stage, label) = (context.listeners.clone(), stage.to_owned(), label.to_owned());
    let on_sample = move |done| {
        let (stage, activity) = (stage.clone(), format!("{label}: sample"));
        listeners.event(&Event::Progress { stage, activity, done, total: total as u64 });
    };
    Control { stop: context.stop.clone(), on_sample: Some(Box::new(on_sample)), ..Control::default() }
}

/// Reinforcement-learning steps behind a model: those of its stage, 0 for a base.
fn steps_of(context: &Context, stage: Option<&str>) -> u64 {
    match stage.and_then(|name| context.recipe.stage(name).ok()).map(|s| &s.settings) {
        Some(StageSettings::Grpo(s)) => s.steps,
        _ => 0,
    }
}
