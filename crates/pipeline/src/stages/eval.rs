//! Measuring models on held-out problems.

use super::grpo::{model_path, style, task};
use super::observer::store;
use crate::PipelineError;
use crate::models::OpenModel;
use crate::recipe::{EvalStage, StageSettings};
use crate::run::{Context, StageEnd};
use aha_engine::sampler::mix;
use aha_engine::{Control, EngineConfig, SamplingParams};
use aha_eval::{EvalError, EvalSettings, evaluate};
use aha_runs::{Event, Listener};

pub(crate) fn run(context: &mut Context, name: &str, s: &EvalStage) -> Result<StageEnd, PipelineError> {
    let seed = context.recipe.seed.wrapping_add(s.seed_offset);
    let task = task(name, &s.task, &s.task_options, seed)?;
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
