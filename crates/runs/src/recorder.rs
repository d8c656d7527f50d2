//! One call per step: the logs, TensorBoard and the database of a stage together.

use crate::tensorboard::EventWriter;
use crate::{MetricsLog, RolloutLog, RolloutRecord, RunDb, RunDir, RunsError, StagePaths};

/// Records the steps of one stage everywhere. The database stays with the caller, who shares it between stages.
#[derive(Debug)]
pub struct StageRecorder {
    name: String,
    paths: StagePaths,
    metrics: MetricsLog,
    rollouts: RolloutLog,
    events: EventWriter,
}

impl StageRecorder {
    /// Opens a stage's records for the steps after `resume` (`None`: afresh), taking back what lies beyond.
    /// `now` is in seconds since 1970.
    ///
    /// # Errors
    /// [`RunsError::BadName`], [`RunsError::BadLine`], [`RunsError::Database`] or an I/O error.
    pub fn open(run: &RunDir, db: &mut RunDb, stage: &str, resume: Option<u64>, now: f64) -> Result<Self, RunsError> {
        let paths = run.stage(stage)?;
        paths.create()?;
        db.rewind(stage, resume)?;
        Ok(Self {
            name: stage.to_owned(),
            metrics: MetricsLog::open(paths.metrics(), resume)?,
            rollouts: RolloutLog::open(paths.rollouts(), resume)?,
            events: EventWriter::open(paths.tensorboard(), resume, now)?,
            paths,
        })
    }

    /// Records a step: its metrics, and the rollouts to keep (may be none).
    ///
    /// # Errors
    /// [`RunsError::BadRecord`] for a step that is not above the last, [`RunsError::DiskFull`], or another I/O error.
    /// The stage is then to be reopened at its last checkpoint, which takes back what was recorded by halves.
    pub fn step(
        &mut self,
        db: &mut RunDb,
        step: u64,
        now: f64,
        metrics: &[(&str, f64)],
        rollouts: &[RolloutRecord],
    ) -> Result<(), RunsError> {
        self.metrics.append(step, metrics)?;
        self.rollouts.append(step, rollouts)?;
        self.events.add_scalars(step, now, metrics)?;
        db.add_step(&self.name, step, metrics, rollouts)
    }

    /// Makes the logs durable. Call before a checkpoint is committed: a checkpoint never has steps the logs do not.
    ///
    /// # Errors
    /// An I/O error.
    pub fn sync(&self) -> Result<(), RunsError> {
        self.metrics.sync()?;
        self.rollouts.sync()
    }

    /// Where the stage's files are.
    pub fn paths(&self) -> &StagePaths {
        &self.paths
    }

    /// The last step recorded.
    pub fn last_step(&self) -> Option<u64> {
        self.metrics.last_step()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RolloutVerdict;
    use std::fs;

    fn train(root: &std::path::Path, resume: Option<u64>, until: u64) {
        let run = RunDir::create_or_open(root).unwrap();
        let mut db = RunDb::open(run.db()).unwrap();
        let mut recorder = StageRecorder::open(&run, &mut db, "rl", resume, 1.0).unwrap();
        for step in resume.unwrap_or(0) + 1..=until {
            let rollout = RolloutRecord {
                step,
                prompt: "p".into(),
                completion: "c".into(),
                rewards: [("accuracy", Some(1.0))].into_iter().collect(),
                advantage: Some(0.5),
                verdict: RolloutVerdict::Correct,
                tokens: 3,
                finished: true,
            };
            recorder.step(&mut db, step, 2.0, &[("reward", 1.0 / step as f64)], &[rollout]).unwrap();
        }
        recorder.sync().unwrap();
        assert_eq!(recorder.last_step(), Some(until));
    }

    #[test]
    fn a_run_resumed_at_a_checkpoint_leaves_what_an_uninterrupted_one_leaves() {
        let dir = tempfile::tempdir().unwrap();
        let (whole, resumed) = (dir.path().join("whole"), dir.path().join("resumed"));
        train(&whole, None, 6);
        train(&resumed, None, 5);
        train(&resumed, Some(2), 4);
        train(&resumed, Some(3), 6);
        for file in ["rl/metrics.jsonl", "rl/rollouts.jsonl"] {
            assert_eq!(fs::read(whole.join(file)).unwrap(), fs::read(resumed.join(file)).unwrap(), "{file}");
        }
        let rows = |root: &std::path::Path| {
            let db = RunDb::open_read_only(root.join("run.db")).unwrap();
            let rollouts: Vec<_> = (0..8).flat_map(|step| db.rollouts("rl", step).unwrap()).collect();
            (db.metric("rl", "reward").unwrap(), rollouts)
        };
        assert_eq!(rows(&whole), rows(&resumed));
        assert_eq!(rows(&whole).0.len(), 6);
    }
}
