//! What a training loop tells the world, and what it asks it. The loops write no logs themselves.

use crate::TrainError;
use aha_model::Decoder;
use aha_tasks::Verdict;

/// One sampled completion with everything that was decided about it.
#[derive(Clone, Debug)]
pub struct Rollout {
    /// Name of the problem.
    pub problem: String,
    /// Family of the problem.
    pub family: String,
    /// The prompt as the model saw it.
    pub prompt: String,
    /// What it answered, end-of-text token removed.
    pub completion: String,
    /// Rewards by name; `None` where one did not apply.
    pub rewards: Vec<(String, Option<f64>)>,
    /// Advantage within its group; `None` when the sample had no reward.
    pub advantage: Option<f64>,
    /// Verdict on the answer.
    pub verdict: Verdict,
    /// Tokens drawn.
    pub tokens: usize,
    /// False when it was cut at the length limit.
    pub finished: bool,
}

/// Everything one optimizer step reports.
#[derive(Clone, Debug, Default)]
pub struct StepReport {
    /// Steps done, this one included.
    pub step: u64,
    /// Steps of the whole stage.
    pub total: u64,
    /// Numbers that are a function of recipe and seed alone; names as in TRL.
    pub metrics: Vec<(String, f64)>,
    /// Wall-clock measurements; never part of the metrics, which must be reproducible.
    pub timing: Vec<(String, f64)>,
    /// Completions sampled for this step.
    pub rollouts: Vec<Rollout>,
}

/// The listener of a training loop.
pub trait Observer {
    /// A step is done. Called before the checkpoint of that step is written.
    ///
    /// # Errors
    /// A failed write ends the training.
    fn step(&mut self, report: StepReport) -> Result<(), TrainError>;

    /// The weights after `step` are ready to be measured; called every `eval_steps`.
    ///
    /// # Errors
    /// As for [`Observer::step`].
    fn evaluate(&mut self, _step: u64, _decoder: &Decoder) -> Result<(), TrainError> {
        Ok(())
    }

    /// A checkpoint will be written next: bring everything reported so far to the disk.
    ///
    /// # Errors
    /// As for [`Observer::step`].
    fn sync(&mut self) -> Result<(), TrainError> {
        Ok(())
    }

    /// Whether to save and stop at the next possible step.
    fn stop_requested(&self) -> bool {
        false
    }
}
