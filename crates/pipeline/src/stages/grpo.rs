//! Reinforcement learning on verifiable rewards, from an earlier stage's model or one on disk.

use super::observer::{Midway, RunObserver};
use super::rewards::rewards;
use crate::PipelineError;
use crate::models::OpenModel;
use crate::recipe::{GrpoStage, ModelRef};
use crate::run::{Context, StageEnd};
use aha_engine::sampler::mix;
use aha_engine::{EngineConfig, SamplingParams};
use aha_eval::EvalSettings;
use aha_model::{Decoder, SaveDtype, TextFiles};
use aha_runs::{Event, Listener, StagePaths};
use aha_tasks::{PromptStyle, Task};
use aha_train::grpo::{Grpo, GrpoConfig};
use aha_train::{TrainError, state};
use std::path::PathBuf;

/// Where a model of the recipe lies.
pub(crate) fn model_path(context: &Context, model: &ModelRef) -> Result<PathBuf, PipelineError> {
    Ok(match model {
        ModelRef::Stage(name) => context.dir.stage(name)?.model(),
        ModelRef::Path(path) => PathBuf::from(path),
    })
}

/// The task of a stage.
pub(crate) fn open_task(
    stage: &str,
    name: &str,
    options: &toml::Table,
    seed: u64,
) -> Result<Box<dyn Task>, PipelineError> {
    let options: aha_tasks::TaskOptions = options.clone().try_into().map_err(|e: toml::de::Error| {
        PipelineError::Stage { stage: stage.to_owned(), problem: format!("task_options: {}", e.message()) }
    })?;
    Ok(aha_tasks::open_task(name, seed, &options)?)
}

/// What a finished training leaves: the whole model, adapters merged, and these as PEFT has them.
pub(crate) fn save_results(paths: &StagePaths, policy: &Decoder, text: &TextFiles) -> Result<(), TrainError> {
    if policy.lora().is_some() {
        aha_model::save_adapter(&paths.root().join("adapter"), policy)?;
    }
    state::save_model(&paths.model(), policy, SaveDtype::F32, text)
}

/// The prompt style of a recipe; "auto" leaves it to the model.
pub(crate) fn style(name: &str) -> Option<PromptStyle> {
    match name {
        "mini" => Some(PromptStyle::Mini),
        "r1_zero" => Some(PromptStyle::R1Zero),
        "chat" => Some(PromptStyle::Chat),
        _ => None,
    }
}

pub(crate) fn run(context: &mut Context, name: &str, s: &GrpoStage, hash: &str) -> Result<StageEnd, PipelineError> {
    let seed = mix(context.recipe.seed.wrapping_add(s.seed_offset));
    let train_error = |source| PipelineError::Train { stage: name.to_owned(), source };
    let model = OpenModel::open(&model_path(context, &s.model)?)?;
    let prompter = model.prompter(style(&s.prompt_style), s.system_prompt.clone(), s.prompt_suffix.clone())?;
    let task = open_task(name, &s.task, &s.task_options, seed)?;
    let rewards = rewards(context, name, s)?;
    let later = s.later.as_ref().map(|l| open_task(name, &l.task, &l.task_options, seed)).transpose()?;
    let sampling = SamplingParams {
        temperature: s.temperature as f32,
        top_p: s.top_p as f32,
        max_new_tokens: s.max_completion_length,
        ..SamplingParams::default()
    };
    let config = GrpoConfig {
        steps: s.steps,
        num_prompts: s.num_prompts,
        num_generations: s.num_generations,
        steps_per_generation: s.steps_per_generation as usize,
        num_iterations: s.num_iterations as usize,
        sampling: sampling.clone(),
        schedule: s.optimizer.schedule(s.steps),
        optimizer: s.optimizer.config(seed),
        loss: s.loss_config(),
        advantage: s.advantage_config(),
        rewards,
        mask_truncated_completions: s.mask_truncated_completions,
        overlong: s.overlong_penalty.as_ref().map(|o| (o.cache_length, o.weight)),
        ref_refresh_steps: s.ref_refresh_steps,
        micro_batch_tokens: s.micro_batch_tokens,
        share_prompts: s.shares_prompts(),
        engine: EngineConfig { speculative: s.speculative_decoding, ..EngineConfig::default() },
        save_steps: s.save_steps,
        eval_steps: s.eval_steps,
        seed,
        precision: s.precision.resolve(),
        gradient_checkpointing: s.gradient_checkpointing,
        bias_update_speed: s.bias_update_speed,
        settings: hash.to_owned(),
    };
    let paths = context.dir.stage(name)?;
    let resume = state::latest(&paths.checkpoints_dir(), hash).map_err(train_error)?;
    context.listeners.event(&Event::StageStarted {
        stage: name.to_owned(),
        method: "grpo".into(),
        resumed_at: resume,
        total_steps: Some(s.steps),
    });
    let reference = match &s.reference {
        Some(r) => Some(OpenModel::open(&model_path(context, r)?)?.decoder(s.precision)?),
        None => None,
    };
    let midway = Midway {
        task: &*task,
        prompter: &prompter,
        settings: EvalSettings {
            problems: s.eval_problems as usize,
            samples: s.eval_samples as usize,
            sampling,
            greedy: false,
            seed: mix(context.recipe.seed),
            engine: EngineConfig { speculative: s.speculative_decoding, ..EngineConfig::default() },
        },
    };
    let mut observer = RunObserver::open(context, name, resume, s.log_rollouts as usize, Some(midway))?;
    let later = s.later.as_ref().map(|l| l.from_step).zip(later.as_deref());
    let trainer = Grpo { config: &config, task: &*task, later, prompter: &prompter, text: &model.text };
    let lora = s.lora.as_ref().map(|l| l.config(&[]));
    let fresh = || model.trainee(lora.as_ref(), seed);
    let (policy, finished) =
        trainer.run(fresh, reference, &paths.checkpoints_dir(), &mut observer).map_err(train_error)?;
    let metrics = observer.last;
    if finished {
        save_results(&paths, &policy, &model.text).map_err(train_error)?;
    }
    Ok(StageEnd { metrics, finished })
}
