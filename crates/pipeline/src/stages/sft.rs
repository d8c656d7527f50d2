//! Supervised fine-tuning on curated data and on files of conversations.

use super::grpo::{model_path, save_results, style};
use super::observer::RunObserver;
use crate::PipelineError;
use crate::models::OpenModel;
use crate::recipe::{DataSettings, ModelRef, SftStage, TuningSettings};
use crate::run::{Context, StageEnd};
use aha_curate::MESSAGES;
use aha_data::Example;
use aha_data::conversation::{self, Conversation};
use aha_engine::sampler::mix;
use aha_model::{Decoder, TextFiles};
use aha_runs::{Event, Listener};
use aha_tasks::Prompter;
use aha_tasks::mini::Rng;
use aha_train::fit::FitConfig;
use aha_train::sft::{SftConfig, batches};
use aha_train::{TrainError, state};
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Examples to train on, examples to validate on, and how many were too long.
pub(super) struct Examples {
    pub train: Vec<Example>,
    pub held_out: Vec<Example>,
    pub too_long: usize,
}

pub(crate) fn run(context: &mut Context, name: &str, s: &SftStage, hash: &str) -> Result<StageEnd, PipelineError> {
    let model = OpenModel::open(&model_path(context, &s.model)?)?;
    let prompter = prompter(&model, &s.tuning)?;
    let most = s.data.max_length.min(model.config().max_position_embeddings);
    let files = files(context, &s.data)?;
    let examples = Examples::read(context, name, (&s.data, &s.tuning), &files, &prompter, most)?;
    let lora = s.tuning.lora.as_ref().map(|l| l.config(&[]));
    let seed = seed(context, &s.tuning);
    let fresh = || model.trainee(lora.as_ref(), seed);
    train(context, name, (&s.data, &s.tuning), hash, "sft", &examples, &model.text, fresh)
}

/// Trains on the tokens of examples, from `fresh`.
pub(super) fn train(
    context: &mut Context,
    name: &str,
    (data, tuning): (&DataSettings, &TuningSettings),
    hash: &str,
    method: &str,
    examples: &Examples,
    text: &TextFiles,
    fresh: impl FnOnce() -> Result<Decoder, TrainError>,
) -> Result<StageEnd, PipelineError> {
    let config = examples.config(context, name, (data, tuning), hash)?;
    let (train, held_out) = (&examples.train, &examples.held_out);
    let mut end = fit(context, name, &config.fit, method, text, 0, |checkpoints, observer| {
        aha_train::sft::run(&config, fresh, train, held_out, checkpoints, text, observer)
    })?;
    end.metrics.extend(examples.counts());
    Ok(end)
}

/// Carries a training out as a stage: who listens, where it resumes, and the model it leaves.
pub(super) fn fit(
    context: &mut Context,
    name: &str,
    config: &FitConfig,
    method: &str,
    text: &TextFiles,
    log_rollouts: u64,
    run: impl FnOnce(&Path, &mut RunObserver) -> Result<(Decoder, bool), TrainError>,
) -> Result<StageEnd, PipelineError> {
    let train_error = |source| PipelineError::Train { stage: name.to_owned(), source };
    let paths = context.dir.stage(name)?;
    let resume = state::latest(&paths.checkpoints_dir(), &config.settings).map_err(train_error)?;
    let (stage, method, total_steps) = (name.to_owned(), method.to_owned(), Some(config.steps));
    context.listeners.event(&Event::StageStarted { stage, method, resumed_at: resume, total_steps });
    let mut observer = RunObserver::open(context, name, resume, log_rollouts as usize, None)?;
    let (model, finished) = run(&paths.checkpoints_dir(), &mut observer).map_err(train_error)?;
    let metrics = observer.last;
    if finished {
        save_results(&paths, &model, text).map_err(train_error)?;
    }
    Ok(StageEnd { metrics, finished })
}

/// Renders conversations for a model as the settings say.
pub(super) fn prompter(model: &OpenModel, s: &TuningSettings) -> Result<Prompter, PipelineError> {
    model.prompter(style(&s.prompt_style), s.system_prompt.clone(), s.prompt_suffix.clone())
}

/// The seed of a stage.
pub(super) fn seed(context: &Context, s: &TuningSettings) -> u64 {
    mix(context.recipe.seed.wrapping_add(s.seed_offset))
}

/// The loop's settings for so many steps.
pub(super) fn fit_config(s: &TuningSettings, seed: u64, steps: u64, validate_every: u64, hash: &str) -> FitConfig {
    FitConfig {
        steps,
        schedule: s.optimizer.schedule(steps),
        optimizer: s.optimizer.config(seed),
        validate_every,
        save_steps: s.save_steps,
        precision: s.precision.resolve(),
        gradient_checkpointing: s.gradient_checkpointing,
        bias_update_speed: s.bias_update_speed,
        settings: hash.to_owned(),
    }
}

/// Where the conversations lie.
pub(super) fn files(context: &Context, s: &DataSettings) -> Result<Vec<PathBuf>, PipelineError> {
    let file = |source: &ModelRef| {
        Ok(match source {
            ModelRef::Stage(stage) => context.dir.stage(stage)?.root().join(MESSAGES),
            ModelRef::Path(path) => PathBuf::from(path),
        })
    };
    s.data.iter().map(file).collect()
}

/// How often each conversation is seen in a pass, and the families among `repeat` that none of them has.
fn copies<'a>(conversations: &[Conversation], repeat: &'a BTreeMap<String, usize>) -> (Vec<usize>, Vec<&'a str>) {
    let families: BTreeSet<&str> = conversations.iter().filter_map(|c| c.family.as_deref()).collect();
    let absent = repeat.keys().map(String::as_str).filter(|family| !families.contains(family)).collect();
    let copies = |c: &Conversation| c.family.as_ref().and_then(|family| repeat.get(family)).copied().unwrap_or(1);
    (conversations.iter().map(copies).collect(), absent)
}

impl Examples {
    /// Reads conversations and encodes them; those of more than `most` tokens are left out, with a note.
    pub(super) fn read(
        context: &Context,
        name: &str,
        (data, tuning): (&DataSettings, &TuningSettings),
        files: &[PathBuf],
        prompter: &Prompter,
        most: usize,
    ) -> Result<Self, PipelineError> {
        let fail = |problem: String| PipelineError::Stage { stage: name.to_owned(), problem };
        let mut conversations = Vec::new();
        for path in files {
            conversations.extend(conversation::read(path).map_err(|e| fail(e.to_string()))?);
        }
        // Whole conversations are held out, so that none of their turns is trained on.
        Rng::new(seed(context, tuning), u64::MAX).shuffle(&mut conversations);
        let held_out = (data.validation_rows as usize).min(conversations.len() / 10);
        let (copies, absent) = copies(&conversations[held_out..], &data.repeat);
        if !absent.is_empty() {
            let text = format!("repeat names {}, but no row that is trained on has this family", absent.join(", "));
            context.listeners.event(&Event::Note { stage: name.to_owned(), text });
        }
        let encode = |c: &Conversation| conversation::examples(prompter, &c.turns);
        let encoded: Result<Vec<Vec<Example>>, _> = conversations.par_iter().map(encode).collect();
        let encoded = encoded.map_err(|e| fail(e.to_string()))?;
        let fits = |e: &&Example| e.tokens.len() <= most;
        let kept = |part: &[Vec<Example>]| part.iter().flatten().filter(fits).cloned().collect::<Vec<_>>();
        let held = kept(&encoded[..held_out]);
        let train: Vec<Example> = encoded[held_out..]
            .iter()
            .zip(copies)
            .flat_map(|(examples, copies)| std::iter::repeat_n(kept(std::slice::from_ref(examples)), copies).flatten())
            .collect();
        let too_long = encoded.iter().flatten().filter(|e| !fits(e)).count();
        if train.is_empty() {
            return Err(fail(format!(
                "no conversation has at most {most} tokens; raise max_length or give other data"
            )));
        }
        if too_long > 0 {
            let text = format!("{too_long} conversations of more than {most} tokens are left out");
            context.listeners.event(&Event::Note { stage: name.to_owned(), text });
        }
        Ok(Examples { train, held_out: held, too_long })
    }

    /// Which of them each step trains on.
    pub(super) fn config(
        &self,
        context: &Context,
        name: &str,
        (data, tuning): (&DataSettings, &TuningSettings),
        hash: &str,
    ) -> Result<SftConfig, PipelineError> {
        let lengths: Vec<usize> = self.train.iter().map(|e| e.tokens.len()).collect();
        let mut all = batches(&lengths, data.batch_tokens, data.epochs, seed(context, tuning));
        let whole = all.len() as u64;
        all.truncate(data.max_steps.unwrap_or(whole).min(whole) as usize);
        let steps = all.len() as u64;
        let warmup = tuning.optimizer.warmup_steps;
        if warmup > steps {
            let problem = format!("warmup_steps is {warmup}, but the data are only {steps} steps; lower it");
            return Err(PipelineError::Stage { stage: name.to_owned(), problem });
        }
        let fit = fit_config(tuning, seed(context, tuning), steps, data.validate_every, hash);
        Ok(SftConfig { batches: all, epochs: data.epochs, fit })
    }

    /// How many there are, for the summary.
    pub(super) fn counts(&self) -> Vec<(String, f64)> {
        let counts = [
            ("examples", self.train.len()),
            ("examples/held_out", self.held_out.len()),
            ("examples/too_long", self.too_long),
        ];
        counts.map(|(key, count)| (key.to_owned(), count as f64)).to_vec()
    }
}
