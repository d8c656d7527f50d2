//! The loop that methods with a fixed number of steps and an objective of their own share: schedule, checkpoints and exact
//! resume, validation, reports. What a step trains on is the [`Objective`]'s.

use crate::TrainError;
use crate::balance;
use crate::lanes::Lanes;
use crate::observer::{Observer, Rollout, StepReport};
use crate::schedule::Schedule;
use crate::state::{self, TrainerState};
use aha_kernels::{Optimizer, OptimizerConfig, Precision, Tape};
use aha_model::{Decoder, TextFiles};
use std::path::Path;
use std::time::Instant;

/// Settings of the loop.
#[derive(Clone, Debug)]
pub struct FitConfig {
    /// Optimizer steps.
    pub steps: u64,
    /// Learning rate over the steps.
    pub schedule: Schedule,
    /// Optimizer settings.
    pub optimizer: OptimizerConfig,
    /// Validation every so many steps; 0 only at the end.
    pub validate_every: u64,
    /// Checkpoint every so many steps; 0 only the last.
    pub save_steps: u64,
    /// In what numbers products run.
    pub precision: Precision,
    /// Blocks keep only their inputs for the backward.
    pub gradient_checkpointing: bool,
    /// How far the biases of routers move at a step.
    pub bias_update_speed: f64,
    /// Hash of everything the result depends on.
    pub settings: String,
}

/// What the gradients of a step came from.
#[derive(Debug, Default)]
pub struct Accumulated {
    /// The loss, a mean over the whole step.
    pub loss: f64,
    /// Tokens that went through the model.
    pub tokens: usize,
    /// What else is to be logged.
    pub metrics: Vec<(String, f64)>,
    /// Completions sampled for the step.
    pub rollouts: Vec<Rollout>,
}

/// What is trained.
pub trait Objective {
    /// Makes the gradients of step `step` (from 0), which is all that they depend on besides the model.
    ///
    /// # Errors
    /// Inputs that cannot be had.
    fn accumulate(&mut self, step: u64, model: &Decoder, lanes: &mut Lanes) -> Result<Accumulated, TrainError>;

    /// Measures the model on what is held out; nothing where nothing is.
    ///
    /// # Errors
    /// As for [`Objective::accumulate`].
    fn validate(&mut self, model: &Decoder, tape: &mut Tape) -> Result<Vec<(String, f64)>, TrainError>;
}

/// Trains from the newest checkpoint under `checkpoints`, or from `fresh`, whose adapters alone are trained where it has some. Returns the model and whether it is finished
/// (false when a stop was requested).
///
/// # Errors
/// Failed writes, a loss that is not finite, whatever the objective answers.
pub fn run(
    config: &FitConfig,
    fresh: impl FnOnce() -> Result<Decoder, TrainError>,
    objective: &mut dyn Objective,
    checkpoints: &Path,
    text: &TextFiles,
    observer: &mut dyn Observer,
) -> Result<(Decoder, bool), TrainError> {
    let (mut model, mut optimizer, mut state) = match state::latest(checkpoints, &config.settings)? {
        Some(step) => {
            let r = state::load(checkpoints, step, |p| Optimizer::new(config.optimizer, p), fresh)?;
            (r.policy, r.optimizer, r.state)
        }
        None => {
            let model = fresh()?;
            let optimizer = Optimizer::new(config.optimizer, &model.params);
            (model, optimizer, TrainerState { settings: config.settings.clone(), ..TrainerState::default() })
        }
    };
    config.optimizer.prepare(&mut model.params, config.precision);
    let mut lanes = Lanes::in_numbers(&model.params, config.gradient_checkpointing, config.optimizer.gradients);
    let total = config.steps;
    while state.step < total {
        let begin = Instant::now();
        let learning_rate = config.schedule.at(state.step);
        let made = objective.accumulate(state.step, &model, &mut lanes)?;
        let norm = update(&mut model, &mut optimizer, &lanes, learning_rate, config.bias_update_speed);
        state.step += 1;
        if !made.loss.is_finite() || !norm.is_finite() {
            let problem =
                format!("loss is {}, gradient norm {norm}: lower learning_rate or raise warmup_steps", made.loss);
            return Err(TrainError::Diverged { step: state.step, problem });
        }
        let seconds = begin.elapsed().as_secs_f64();
        let mut metrics: Vec<(String, f64)> =
            vec![("loss".into(), made.loss), ("grad_norm".into(), norm), ("learning_rate".into(), learning_rate)];
        metrics.extend(made.metrics);
        metrics.extend(balance::metrics(&lanes.routing()));
        let last = state.step == total;
        if last || config.validate_every > 0 && state.step.is_multiple_of(config.validate_every) {
            metrics.extend(objective.validate(&model, lanes.quiet())?);
        }
        let timing = vec![("step_time".into(), seconds), ("tokens_per_second".into(), made.tokens as f64 / seconds)];
        observer.step(StepReport { step: state.step, total, metrics, timing, rollouts: made.rollouts })?;
        let stop = observer.stop_requested();
        if stop || last || config.save_steps > 0 && state.step.is_multiple_of(config.save_steps) {
            observer.sync()?;
            state.optimizer_step = optimizer.step;
            state::save(checkpoints, &state, &model, &optimizer, None, text, 2)?;
        }
        if stop {
            return Ok((model, last));
        }
    }
    Ok((model, true))
}

/// The optimizer step for what the lanes hold; the norm of the gradient before clipping.
pub(crate) fn update(
    model: &mut Decoder,
    optimizer: &mut Optimizer,
    lanes: &Lanes,
    learning_rate: f64,
    bias_update_speed: f64,
) -> f64 {
    balance::update(model, &lanes.routing(), bias_update_speed);
    optimizer.step(&mut model.params, lanes.grads(), learning_rate)
}
