//! `metrics.jsonl` and `rollouts.jsonl` of a stage: JSON lines for people and scripts.
//!
//! Numbers are written in the shortest form that reads back to the same f64; NaN and infinities, which JSON does not
//! have, are written as `null`.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::append::StepLines;
use crate::{Ordered, RunsError};

/// `STAGE/metrics.jsonl`: one flat object per step, `{"step":7,"reward":0.5,...}`, names in the order given.
#[derive(Debug)]
pub struct MetricsLog {
    lines: StepLines,
}

impl MetricsLog {
    /// Opens the log; see the crate's notes on `resume`.
    ///
    /// # Errors
    /// [`RunsError::BadLine`] for a damaged file, else an I/O error.
    pub fn open(path: impl AsRef<Path>, resume: Option<u64>) -> Result<Self, RunsError> {
        Ok(Self { lines: StepLines::open(path.as_ref(), resume)? })
    }

    /// Adds the metrics of a step.
    ///
    /// # Errors
    /// [`RunsError::BadRecord`] if the step is not above the last one, or a name is empty, doubled or `step`.
    pub fn append(&mut self, step: u64, metrics: &[(&str, f64)]) -> Result<(), RunsError> {
        let refuse = |reason: String| RunsError::BadRecord { path: self.lines.path().to_path_buf(), step, reason };
        if let Some(last) = self.lines.last_step().filter(|&last| step <= last) {
            return Err(refuse(format!("step {last} is there already")));
        }
        let mut object = Map::new();
        object.insert("step".to_owned(), step.into());
        for &(name, value) in metrics {
            if name.is_empty() || object.insert(name.to_owned(), number(value)).is_some() {
                return Err(refuse(format!("the metric name {name:?} is empty, doubled or reserved")));
            }
        }
        self.lines.append(step, &line(&object))
    }

    /// The last step in the log.
    pub fn last_step(&self) -> Option<u64> {
        self.lines.last_step()
    }

    /// Makes the log durable; call before a checkpoint is committed.
    ///
    /// # Errors
    /// An I/O error.
    pub fn sync(&self) -> Result<(), RunsError> {
        self.lines.sync()
    }
}

/// How a rollout was judged. Not judged is not wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RolloutVerdict {
    /// The answer is right.
    Correct,
    /// The answer is wrong or missing.
    Incorrect,
    /// There is no verdict, e.g. the judge failed.
    NotJudged,
}

impl RolloutVerdict {
    /// The name in files: `correct`, `incorrect`, `not_judged`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Correct => "correct",
            Self::Incorrect => "incorrect",
            Self::NotJudged => "not_judged",
        }
    }
}

/// One sampled completion and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RolloutRecord {
    /// The training step it was sampled for.
    pub step: u64,
    /// The whole prompt as the model saw it.
    pub prompt: String,
    /// What the model wrote.
    pub completion: String,
    /// Rewards by name; `None` where a reward does not apply.
    pub rewards: Ordered<Option<f64>>,
    /// The advantage that weighted its tokens.
    pub advantage: Option<f64>,
    /// The verdict on its answer.
    pub verdict: RolloutVerdict,
    /// Tokens in the completion.
    pub tokens: usize,
    /// Whether it ended by itself rather than at the length limit.
    pub finished: bool,
}

/// `STAGE/rollouts.jsonl`: one [`RolloutRecord`] per line.
#[derive(Debug)]
pub struct RolloutLog {
    lines: StepLines,
}

impl RolloutLog {
    /// Opens the log; see the crate's notes on `resume`.
    ///
    /// # Errors
    /// [`RunsError::BadLine`] for a damaged file, else an I/O error.
    pub fn open(path: impl AsRef<Path>, resume: Option<u64>) -> Result<Self, RunsError> {
        Ok(Self { lines: StepLines::open(path.as_ref(), resume)? })
    }

    /// Adds the rollouts of one step, all of them or (on an error) none.
    ///
    /// # Errors
    /// [`RunsError::BadRecord`] if the step is not above the last one or a record is of another step.
    pub fn append(&mut self, step: u64, rollouts: &[RolloutRecord]) -> Result<(), RunsError> {
        let refuse = |reason: String| RunsError::BadRecord { path: self.lines.path().to_path_buf(), step, reason };
        if let Some(last) = self.lines.last_step().filter(|&last| step <= last) {
            return Err(refuse(format!("step {last} is there already")));
        }
        if let Some(other) = rollouts.iter().find(|rollout| rollout.step != step) {
            return Err(refuse(format!("one of the rollouts is of step {}", other.step)));
        }
        if rollouts.is_empty() {
            return Ok(());
        }
        let lines: Vec<u8> = rollouts.iter().flat_map(line).collect();
        self.lines.append(step, &lines)
    }

    /// The last step in the log.
    pub fn last_step(&self) -> Option<u64> {
        self.lines.last_step()
    }

    /// Makes the log durable; call before a checkpoint is committed.
    ///
    /// # Errors
    /// An I/O error.
    pub fn sync(&self) -> Result<(), RunsError> {
        self.lines.sync()
    }
}

/// A JSON number, or null for NaN and the infinities.
fn number(value: f64) -> Value {
    serde_json::Number::from_f64(value).map_or(Value::Null, Value::Number)
}

fn line(record: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(record).expect("names are strings and values plain, so this is always JSON");
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn write_metrics(log: &mut MetricsLog, steps: impl Iterator<Item = u64>) {
        for step in steps {
            let kl = if step == 3 { f64::NAN } else { 0.1 * step as f64 };
            log.append(step, &[("reward", 1.0 / step as f64), ("kl", kl), ("completions/mean_length", 44.0)]).unwrap();
        }
    }

    fn rollouts(step: u64) -> Vec<RolloutRecord> {
        (0..2)
            .map(|i| RolloutRecord {
                step,
                prompt: "3+4=\n\"?\"".into(),
                completion: format!("<think>等等 {i}\u{2028}</think>"),
                rewards: [("accuracy", Some(1.0)), ("language", None)].into_iter().collect(),
                advantage: (i == 0).then_some(-0.25),
                verdict: RolloutVerdict::NotJudged,
                tokens: 5,
                finished: i == 0,
            })
            .collect()
    }

    #[test]
    fn metrics_read_as_promised() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let mut log = MetricsLog::open(&path, None).unwrap();
        log.append(1, &[("reward", 0.5), ("kl", f64::NAN), ("lr", 1e-6), ("x", f64::INFINITY)]).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, "{\"step\":1,\"reward\":0.5,\"kl\":null,\"lr\":1e-6,\"x\":null}\n");
        for bad in [vec![("a", 1.0), ("a", 2.0)], vec![("step", 1.0)], vec![("", 1.0)]] {
            assert!(matches!(log.append(2, &bad), Err(RunsError::BadRecord { .. })), "{bad:?}");
        }
        assert!(log.append(1, &[]).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }

    #[test]
    fn killed_anywhere_and_resumed_the_metrics_are_the_same_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        write_metrics(&mut MetricsLog::open(&path, None).unwrap(), 1..=5);
        let whole = fs::read(&path).unwrap();
        for cut in 0..=whole.len() {
            let lines = whole[..cut].iter().filter(|&&byte| byte == b'\n').count() as u64;
            // Checkpoints may be older than the last line, down to none at all.
            for resume in 0..=lines {
                fs::write(&path, &whole[..cut]).unwrap();
                let mut log = MetricsLog::open(&path, Some(resume)).unwrap();
                assert_eq!(log.last_step(), (resume > 0).then_some(resume));
                write_metrics(&mut log, resume + 1..=5);
                assert_eq!(fs::read(&path).unwrap(), whole, "cut {cut}, resumed at {resume}");
            }
        }
    }

    #[test]
    fn killed_anywhere_and_resumed_the_rollouts_are_the_same_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rollouts.jsonl");
        let write = |log: &mut RolloutLog, steps: std::ops::RangeInclusive<u64>| {
            for step in steps {
                log.append(step, &rollouts(step)).unwrap();
            }
        };
        write(&mut RolloutLog::open(&path, None).unwrap(), 1..=3);
        let whole = fs::read(&path).unwrap();
        for cut in 0..=whole.len() {
            let lines = whole[..cut].iter().filter(|&&byte| byte == b'\n').count() as u64;
            let resume = lines / 2;
            fs::write(&path, &whole[..cut]).unwrap();
            write(&mut RolloutLog::open(&path, Some(resume)).unwrap(), resume + 1..=3);
            assert_eq!(fs::read(&path).unwrap(), whole, "cut {cut}");
        }
    }

    #[test]
    fn rollouts_round_trip_and_are_one_per_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rollouts.jsonl");
        let mut log = RolloutLog::open(&path, None).unwrap();
        log.append(1, &rollouts(1)).unwrap();
        log.append(2, &[]).unwrap();
        assert!(matches!(log.append(3, &rollouts(2)), Err(RunsError::BadRecord { .. })));
        let text = fs::read_to_string(&path).unwrap();
        let read: Vec<RolloutRecord> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(read, rollouts(1));
        assert!(text.starts_with("{\"step\":1,\"prompt\":"), "{text}");
        assert!(text.contains("\"rewards\":{\"accuracy\":1.0,\"language\":null}"), "{text}");
        assert!(text.contains("\"verdict\":\"not_judged\""), "{text}");
    }
}
