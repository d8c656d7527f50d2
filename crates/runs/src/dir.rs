//! The folder of a run: where everything lies (design: "What a run leaves").

use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use crate::atomic::{list, sweep_temporaries};
use crate::{RunLock, RunsError};

/// Where the files of a run are. Reads and writes nothing by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunPaths {
    root: PathBuf,
}

impl RunPaths {
    /// The layout under `root`, which need not exist.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The run's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `recipe.toml`: the recipe as resolved.
    pub fn recipe(&self) -> PathBuf {
        self.root.join("recipe.toml")
    }

    /// `summary.json`, see [`crate::Summary`].
    pub fn summary(&self) -> PathBuf {
        self.root.join("summary.json")
    }

    /// `run.db`, see [`crate::RunDb`].
    pub fn db(&self) -> PathBuf {
        self.root.join("run.db")
    }

    /// `report.html`.
    pub fn report(&self) -> PathBuf {
        self.root.join("report.html")
    }

    /// The folder of a stage.
    ///
    /// # Errors
    /// [`RunsError::BadName`] if the name is not a plain folder name.
    pub fn stage(&self, name: &str) -> Result<StagePaths, RunsError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
            return Err(RunsError::BadName { name: name.to_owned() });
        }
        Ok(StagePaths { root: self.root.join(name) })
    }
}

/// Where the files of one stage are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StagePaths {
    root: PathBuf,
}

impl StagePaths {
    /// The stage's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `metrics.jsonl`, see [`crate::MetricsLog`].
    pub fn metrics(&self) -> PathBuf {
        self.root.join("metrics.jsonl")
    }

    /// `rollouts.jsonl`, see [`crate::RolloutLog`].
    pub fn rollouts(&self) -> PathBuf {
        self.root.join("rollouts.jsonl")
    }

    /// `tensorboard/`, see [`crate::tensorboard::EventWriter`].
    pub fn tensorboard(&self) -> PathBuf {
        self.root.join("tensorboard")
    }

    /// `model/`: the finished model.
    pub fn model(&self) -> PathBuf {
        self.root.join("model")
    }

    /// `checkpoints/`.
    pub fn checkpoints_dir(&self) -> PathBuf {
        self.root.join("checkpoints")
    }

    /// Makes the stage's folder.
    ///
    /// # Errors
    /// [`RunsError::Io`] or [`RunsError::DiskFull`].
    pub fn create(&self) -> Result<(), RunsError> {
        create_dir(&self.root)
    }

    /// The finished checkpoints by step, oldest first: those with a `trainer.json`, which is written last.
    ///
    /// # Errors
    /// [`RunsError::Io`] if the folder exists but cannot be listed.
    pub fn checkpoints(&self) -> Result<Vec<(u64, PathBuf)>, RunsError> {
        let dir = self.checkpoints_dir();
        let mut found = Vec::new();
        for path in list(&dir)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let step = name.strip_prefix("step_").and_then(|digits| digits.parse().ok());
            if let (Some(step), true) = (step, path.join("trainer.json").exists()) {
                found.push((step, path));
            }
        }
        found.sort();
        Ok(found)
    }
}

/// An opened run: the layout (through `Deref`) and the right to write it.
#[derive(Debug)]
pub struct RunDir {
    paths: RunPaths,
    _lock: RunLock,
}

impl RunDir {
    /// Opens the run in `path`, making the folder if needed, and sweeps what a killed process left half written.
    ///
    /// # Errors
    /// [`RunsError::Locked`] when another process writes this run; [`RunsError::Io`], e.g. when `path` is a file.
    pub fn create_or_open(path: impl Into<PathBuf>) -> Result<Self, RunsError> {
        let paths = RunPaths::new(path);
        create_dir(&paths.root)?;
        let lock = RunLock::acquire(&paths.root)?;
        sweep_temporaries(&paths.root)?;
        Ok(Self { paths, _lock: lock })
    }

    /// The layout alone, e.g. to hand to another thread.
    pub fn paths(&self) -> &RunPaths {
        &self.paths
    }
}

impl Deref for RunDir {
    type Target = RunPaths;

    fn deref(&self) -> &RunPaths {
        &self.paths
    }
}

fn create_dir(path: &Path) -> Result<(), RunsError> {
    fs::create_dir_all(path).map_err(|error| RunsError::io("create the folder", path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stage_names_stay_inside_the_run() {
        let paths = RunPaths::new("runs/x");
        assert_eq!(paths.stage("rl-1.b").unwrap().metrics(), Path::new("runs/x/rl-1.b/metrics.jsonl"));
        for bad in ["", ".", "..", "../x", "a/b", ".hidden", "a b", "é"] {
            assert!(matches!(paths.stage(bad), Err(RunsError::BadName { .. })), "{bad:?}");
        }
    }

    #[test]
    fn an_unfinished_checkpoint_is_never_listed_and_temporaries_are_swept() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("runs/a");
        let run = RunDir::create_or_open(&root).unwrap();
        let stage = run.stage("rl").unwrap();
        assert_eq!(stage.checkpoints().unwrap(), []);
        for (step, last) in [(100, "trainer.json"), (20, "trainer.json"), (120, "model.safetensors")] {
            let path = stage.checkpoints_dir().join(format!("step_{step}"));
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join(last), b"{}").unwrap();
        }
        let half = stage.checkpoints_dir().join(".step_140.tmp");
        fs::create_dir(&half).unwrap();
        drop(run);
        let run = RunDir::create_or_open(&root).unwrap();
        assert!(!half.exists());
        let found = run.stage("rl").unwrap().checkpoints().unwrap();
        assert_eq!(found.iter().map(|c| c.0).collect::<Vec<_>>(), [20, 100]);
    }

    #[test]
    fn a_file_in_the_way_is_a_clear_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("taken");
        fs::write(&path, b"").unwrap();
        let message = RunDir::create_or_open(&path).unwrap_err().to_string();
        assert!(message.contains("taken"), "{message}");
    }
}
