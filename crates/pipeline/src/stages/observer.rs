//! What a training stage reports, written to the run: metrics, timing, rollouts, evaluations in between.

use crate::run::Context;
use aha_engine::Control;
use aha_eval::{EvalSettings, Evaluated, evaluate, summarise};
use aha_model::Decoder;
use aha_runs::{Event, Listener, Ordered, RolloutRecord, RolloutVerdict, StageRecorder, unix_now};
use aha_tasks::{Prompter, Task, Verdict};
use aha_train::{Observer, Rollout, StepReport, TrainError};
use std::io::Write;

/// Evaluation between steps.
pub(crate) struct Midway<'a> {
    pub task: &'a dyn Task,
    pub prompter: &'a Prompter,
    pub settings: EvalSettings,
}

pub(crate) struct RunObserver<'a, 'c> {
    pub context: &'a mut Context<'c>,
    pub stage: String,
    pub recorder: StageRecorder,
    pub log_rollouts: usize,
    pub midway: Option<Midway<'a>>,
    pub last: Vec<(String, f64)>,
}

impl<'a, 'c> RunObserver<'a, 'c> {
    pub fn open(
        context: &'a mut Context<'c>,
        stage: &str,
        resume: Option<u64>,
        log_rollouts: usize,
        midway: Option<Midway<'a>>,
    ) -> Result<Self, aha_runs::RunsError> {
        let recorder = StageRecorder::open(context.dir, &mut context.db, stage, resume, unix_now())?;
        let last = last_metrics(context, &recorder)?;
        Ok(RunObserver { context, stage: stage.to_owned(), recorder, log_rollouts, midway, last })
    }
}

/// Metrics of the last recorded step, in the order of the log: a stage that was killed after its last checkpoint has no
/// step left to do and still ends with its numbers. The values come from the database, which keeps every bit of them.
fn last_metrics(context: &Context, recorder: &StageRecorder) -> Result<Vec<(String, f64)>, aha_runs::RunsError> {
    let paths = recorder.paths();
    let stage = paths.root().file_name().unwrap_or_default().to_string_lossy().into_owned();
    let text = std::fs::read_to_string(paths.metrics()).unwrap_or_default();
    let line: serde_json::Map<String, serde_json::Value> =
        text.lines().last().and_then(|l| serde_json::from_str(l).ok()).unwrap_or_default();
    let mut last = Vec::new();
    for name in line.keys().filter(|k| *k != "step") {
        let value = context.db.metric(&stage, name)?.last().and_then(|(_, value)| *value);
        last.push((name.clone(), value.unwrap_or(f64::NAN)));
    }
    Ok(last)
}

fn record(step: u64, r: &Rollout) -> RolloutRecord {
    RolloutRecord {
        step,
        prompt: r.prompt.clone(),
        completion: r.completion.clone(),
        rewards: r.rewards.iter().cloned().collect::<Ordered<Option<f64>>>(),
        advantage: r.advantage,
        verdict: match r.verdict {
            Verdict::Correct => RolloutVerdict::Correct,
            Verdict::Incorrect => RolloutVerdict::Incorrect,
            Verdict::NotJudged => RolloutVerdict::NotJudged,
        },
        tokens: r.tokens,
        finished: r.finished,
    }
}

fn failed(e: impl std::fmt::Display) -> TrainError {
    TrainError::Observer(e.to_string())
}

impl Observer for RunObserver<'_, '_> {
    fn step(&mut self, report: StepReport) -> Result<(), TrainError> {
        let metrics: Vec<(&str, f64)> = report.metrics.iter().map(|(k, v)| (k.as_str(), *v)).collect();
        // An even choice over the step, so that every family is seen.
        let stride = report.rollouts.len().div_ceil(self.log_rollouts.max(1)).max(1);
        let kept: Vec<RolloutRecord> = match self.log_rollouts {
            0 => Vec::new(),
            n => report.rollouts.iter().step_by(stride).take(n).map(|r| record(report.step, r)).collect(),
        };
        self.recorder.step(&mut self.context.db, report.step, unix_now(), &metrics, &kept).map_err(failed)?;
        // Wall-clock numbers stand apart: metrics.jsonl is the same for an interrupted and an uninterrupted run.
        let mut line = serde_json::Map::from_iter([("step".to_owned(), report.step.into())]);
        line.extend(report.timing.iter().map(|(k, v)| (k.clone(), serde_json::json!(v))));
        let path = self.recorder.paths().root().join("timing.jsonl");
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(|e| failed(format!("{}: {e}", path.display())))?;
        writeln!(file, "{}", serde_json::Value::Object(line))
            .map_err(|e| failed(format!("{}: {e}", path.display())))?;
        self.last = report.metrics.clone();
        let mut all = report.metrics;
        all.extend(report.timing);
        all.push(("total_steps".into(), report.total as f64));
        self.context.listeners.event(&Event::Step { stage: self.stage.clone(), step: report.step, metrics: all });
        Ok(())
    }

    fn evaluate(&mut self, step: u64, decoder: &Decoder) -> Result<(), TrainError> {
        let Some(m) = &self.midway else { return Ok(()) };
        let result = evaluate(decoder, m.task, m.prompter, &m.settings, &Control::default()).map_err(failed)?;
        let label = format!("{}/step_{step}", self.stage);
        let root = self.recorder.paths().root().to_path_buf();
        store(self.context, &root, &label, step, &result).map_err(failed)
    }

    fn sync(&mut self) -> Result<(), TrainError> {
        self.recorder.sync().map_err(failed)
    }

    fn stop_requested(&self) -> bool {
        self.context.stopped()
    }
}

/// Puts an evaluation into the summary, the database and `evals/LABEL.jsonl` of the stage.
pub(crate) fn store(
    context: &mut Context,
    stage_root: &std::path::Path,
    label: &str,
    step: u64,
    result: &Evaluated,
) -> Result<(), aha_runs::RunsError> {
    let summary = summarise(&result.samples, &result.greedy);
    let value = serde_json::to_value(&summary).expect("numbers and names");
    context.db.put_evaluation_summary(label, &value)?;
    context.summary.evals.insert(label, value.clone());
    // Now and not at the end of the stage: a killed run keeps what it measured.
    context.summary.write(context.dir.summary())?;
    let folder = stage_root.join("evals");
    std::fs::create_dir_all(&folder).map_err(|e| aha_runs::RunsError::io("create", &folder, e))?;
    let file = folder.join(format!("{}.jsonl", label.replace('/', "-")));
    aha_runs::write_atomic_with(&file, |out| {
        for (greedy, samples) in [(false, &result.samples), (true, &result.greedy)] {
            for s in samples {
                let problem = result.problems.iter().find(|p| p.id == s.problem_id);
                let line = serde_json::json!({
                    "checkpoint": label, "step": step, "greedy": greedy,
                    "question": problem.map(|p| &p.question), "reference": problem.map(|p| &p.reference), "sample": s,
                });
                writeln!(out, "{line}")?;
            }
        }
        Ok(())
    })?;
    context.listeners.event(&Event::Evaluated { checkpoint: label.to_owned(), summary: value });
    Ok(())
}
