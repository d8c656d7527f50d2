//! Supervised fine-tuning on curated data and on files of conversations.

use super::grpo::{model_path, save_results, style};
use super::observer::RunObserver;
use crate::PipelineError;
use crate::models::OpenModel;
use crate::recipe::{ModelRef, SftStage};
use crate::run::{Context, StageEnd};
use aha_curate::MESSAGES;
use aha_data::{Example, conversation};
use aha_engine::sampler::mix;
use aha_runs::{Event, Listener};
use aha_tasks::Prompter;
use aha_tasks::mini::Rng;
use aha_train::sft::{SftConfig, batches};
use aha_train::state;
use rayon::prelude::*;
use std::path::PathBuf;

/// Examples to train on, examples to validate on, and how many were too long.
struct Examples {
    train: Vec<Example>,
    held_out: Vec<Example>,
    too_long: usize,
}

pub(crate) fn run(context: &mut Context, name: &str, s: &SftStage, hash: &str) -> Result<StageEnd, PipelineError> {
    let fail = |problem: String| PipelineError::Stage { stage: name.to_owned(), problem };
    let train_error = |source| PipelineError::Train { stage: name.to_owned(), source };
    let model = OpenModel::open(&model_path(context, &s.model)?)?;
    let prompter = model.prompter(style(&s.prompt_style), s.system_prompt.clone(), s.prompt_suffix.clone())?;
    let seed = mix(context.recipe.seed.wrapping_add(s.seed_offset));
    let most = s.max_length.min(model.config().max_position_embeddings);
    let examples = examples(context, name, s, &prompter, most, seed)?;
    if examples.train.is_empty() {
        return Err(fail(format!("no conversation has at most {most} tokens; raise max_length or give other data")));
    }
    let lengths: Vec<usize> = examples.train.iter().map(|e| e.tokens.len()).collect();
    let mut all = batches(&lengths, s.batch_tokens, s.epochs, seed);
    let whole = all.len() as u64;
    all.truncate(s.max_steps.unwrap_or(whole).min(whole) as usize);
    let steps = all.len() as u64;
    if s.optimizer.warmup_steps > steps {
        let warmup = s.optimizer.warmup_steps;
        return Err(fail(format!("warmup_steps is {warmup}, but the data are only {steps} steps; lower it")));
    }
    let config = SftConfig {
        batches: all,
        epochs: s.epochs,
        schedule: s.optimizer.schedule(steps),
        optimizer: s.optimizer.config(),
        validate_every: s.validate_every,
        save_steps: s.save_steps,
        precision: s.precision.resolve(),
        gradient_checkpointing: s.gradient_checkpointing,
        bias_update_speed: s.bias_update_speed,
        settings: hash.to_owned(),
    };
    let paths = context.dir.stage(name)?;
    let resume = state::latest(&paths.checkpoints_dir(), hash).map_err(train_error)?;
    let stage = name.to_owned();
    let method = "sft".to_owned();
    context.listeners.event(&Event::StageStarted { stage, method, resumed_at: resume, total_steps: Some(steps) });
    let counts = [
        ("examples", examples.train.len()),
        ("examples/held_out", examples.held_out.len()),
        ("examples/too_long", examples.too_long),
    ];
    if examples.too_long > 0 {
        let text = format!("{} conversations of more than {most} tokens are left out", examples.too_long);
        context.listeners.event(&Event::Note { stage: name.to_owned(), text });
    }
    let mut observer = RunObserver::open(context, name, resume, 0, None)?;
    let lora = s.lora.as_ref().map(|l| l.config(&[]));
    let fresh = || model.trainee(lora.as_ref(), seed);
    let (policy, finished) = aha_train::sft::run(
        &config,
        fresh,
        &examples.train,
        &examples.held_out,
        &paths.checkpoints_dir(),
        &model.text,
        &mut observer,
    )
    .map_err(train_error)?;
    let mut metrics = observer.last;
    metrics.extend(counts.map(|(key, count)| (key.to_owned(), count as f64)));
    if finished {
        save_results(&paths, &policy, &model).map_err(train_error)?;
    }
    Ok(StageEnd { metrics, finished })
}

fn examples(
    context: &Context,
    name: &str,
    s: &SftStage,
    prompter: &Prompter,
    most: usize,
    seed: u64,
) -> Result<Examples, PipelineError> {
    let fail = |problem: String| PipelineError::Stage { stage: name.to_owned(), problem };
    let mut conversations = Vec::new();
    for source in &s.data {
        let path = match source {
            ModelRef::Stage(stage) => context.dir.stage(stage)?.root().join(MESSAGES),
            ModelRef::Path(path) => PathBuf::from(path),
        };
        conversations.extend(conversation::read(&path).map_err(|e| fail(e.to_string()))?);
    }
    // Whole conversations are held out, so that none of their turns is trained on.
    Rng::new(seed, u64::MAX).shuffle(&mut conversations);
    let held_out = (s.validation_rows as usize).min(conversations.len() / 10);
    let encode = |turns: &Vec<aha_model::Message>| conversation::examples(prompter, turns);
    let encoded: Result<Vec<Vec<Example>>, _> = conversations.par_iter().map(encode).collect();
    let encoded = encoded.map_err(|e| fail(e.to_string()))?;
    let fits = |e: &&Example| e.tokens.len() <= most;
    let kept = |part: &[Vec<Example>]| part.iter().flatten().filter(fits).cloned().collect::<Vec<_>>();
    let (held, train) = (kept(&encoded[..held_out]), kept(&encoded[held_out..]));
    let too_long = encoded.iter().flatten().count() - held.len() - train.len();
    Ok(Examples { train, held_out: held, too_long })
}
