//! `summary.json`: what became of a run, for people, scripts and the next command.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Ordered, RunsError, write_atomic};

/// Where a stage stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StageStatus {
    /// Not begun.
    Pending,
    /// Begun; after a kill it also reads so.
    Running,
    /// Done; not run again while its settings and inputs stay the same.
    Finished,
    /// Ended by an error.
    Failed,
    /// Stopped by the user; resumes.
    Interrupted,
}

impl StageStatus {
    /// The name in files: `pending`, `running`, `finished`, `failed`, `interrupted`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Finished => "finished",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
        }
    }

    /// The status of a name in a file.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Pending, Self::Running, Self::Finished, Self::Failed, Self::Interrupted]
            .into_iter()
            .find(|status| status.as_str() == name)
    }
}

/// One stage in `summary.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageSummary {
    /// Where it stands.
    pub status: StageStatus,
    /// Seconds it took, over all its sittings.
    pub wall_s: f64,
    /// Its last metrics; `null` for NaN and the infinities.
    pub metrics: Ordered<Option<f64>>,
}

impl StageSummary {
    /// A stage with its metrics in the order given.
    pub fn new<N: Into<String>>(status: StageStatus, wall_s: f64, metrics: impl IntoIterator<Item = (N, f64)>) -> Self {
        let metrics = metrics.into_iter().map(|(name, value)| (name, Some(value).filter(|v| v.is_finite()))).collect();
        Self { status, wall_s, metrics }
    }
}

/// The whole of `summary.json`. Stages and evaluations are in the order in which they were first put in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The recipe's name.
    pub recipe: String,
    /// The run's seed.
    pub seed: u64,
    /// Seconds the run took, over all its sittings.
    pub wall_s: f64,
    /// Stages by name.
    pub stages: Ordered<StageSummary>,
    /// Evaluations by checkpoint, e.g. `base`, `zero`; the shape is that of `aha_eval::EvalSummary`.
    pub evals: Ordered<Value>,
}

impl Summary {
    /// A summary with nothing in it yet.
    pub fn new(recipe: impl Into<String>, seed: u64) -> Self {
        Self { recipe: recipe.into(), seed, wall_s: 0.0, stages: Ordered::new(), evals: Ordered::new() }
    }

    /// The summary of an earlier sitting, or `None` where there is none.
    ///
    /// # Errors
    /// [`RunsError::Json`] if the file is of another shape, [`RunsError::Io`] if it cannot be read.
    pub fn read(path: impl AsRef<Path>) -> Result<Option<Self>, RunsError> {
        let path = path.as_ref();
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(RunsError::io("read", path, error)),
        };
        let json = |source| RunsError::Json { path: path.to_path_buf(), source };
        serde_json::from_slice(&bytes).map(Some).map_err(json)
    }

    /// Writes the file, atomically and indented.
    ///
    /// # Errors
    /// [`RunsError::Io`] or [`RunsError::DiskFull`].
    pub fn write(&self, path: impl AsRef<Path>) -> Result<(), RunsError> {
        let mut bytes = serde_json::to_vec_pretty(self).expect("names are strings, so this is always JSON");
        bytes.push(b'\n');
        write_atomic(path, &bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shape_is_that_of_the_design_and_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("summary.json");
        assert_eq!(Summary::read(&path).unwrap(), None);
        let mut summary = Summary::new("mini-zero", 2);
        summary.wall_s = 12.5;
        summary.stages.insert("zero", StageSummary::new(StageStatus::Running, 1.0, [("kl", 0.1)]));
        summary.stages.insert("base", StageSummary::new(StageStatus::Finished, 2.0, [("loss", f64::NAN)]));
        summary.stages.insert("zero", StageSummary::new(StageStatus::Finished, 3.0, [("reward", 1.0)]));
        summary.evals.insert("zero", serde_json::json!({"problems": 3, "pass_at_1": 0.5}));
        summary.write(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let compact: String = text.split_whitespace().collect();
        assert_eq!(
            compact,
            concat!(
                r#"{"recipe":"mini-zero","seed":2,"wall_s":12.5,"stages":{"#,
                r#""zero":{"status":"finished","wall_s":3.0,"metrics":{"reward":1.0}},"#,
                r#""base":{"status":"finished","wall_s":2.0,"metrics":{"loss":null}}},"#,
                r#""evals":{"zero":{"problems":3,"pass_at_1":0.5}}}"#
            )
        );
        assert_eq!(Summary::read(&path).unwrap().unwrap(), summary);
    }

    #[test]
    fn a_damaged_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("summary.json");
        std::fs::write(&path, b"{\"recipe\": 3").unwrap();
        let message = Summary::read(&path).unwrap_err().to_string();
        assert!(message.contains("summary.json"), "{message}");
    }

    #[test]
    fn status_names_round_trip() {
        for status in ["pending", "running", "finished", "failed", "interrupted"] {
            assert_eq!(StageStatus::parse(status).unwrap().as_str(), status);
        }
        assert_eq!(StageStatus::parse("done"), None);
    }
}
