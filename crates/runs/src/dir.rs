//! The folder of a run: where everything lies (design: "What a run leaves"), and checkpoints that appear whole.

use std::fs::{self, File};
use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use crate::atomic::{parent, remove_any, sweep_temporaries};
use crate::{RunLock, RunsError, sync_dir};

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

    /// `checkpoints/step_N`.
    pub fn checkpoint(&self, step: u64) -> PathBuf {
        self.checkpoints_dir().join(format!("step_{step}"))
    }

    /// Makes the stage's folder.
    ///
    /// # Errors
    /// [`RunsError::Io`] or [`RunsError::DiskFull`].
    pub fn create(&self) -> Result<(), RunsError> {
        create_dir(&self.root)
    }

    /// The finished checkpoints by step, oldest first. Unfinished ones are not among them.
    ///
    /// # Errors
    /// [`RunsError::Io`] if the folder exists but cannot be listed.
    pub fn checkpoints(&self) -> Result<Vec<(u64, PathBuf)>, RunsError> {
        let dir = self.checkpoints_dir();
        let mut found = Vec::new();
        for path in list(&dir)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let step = name.strip_prefix("step_").and_then(|digits| digits.parse().ok());
            if let (Some(step), true) = (step, path.is_dir()) {
                found.push((step, path));
            }
        }
        found.sort();
        Ok(found)
    }

    /// Starts a checkpoint: an empty folder to write into, which [`StagePaths::commit_checkpoint`] then puts in place.
    ///
    /// # Errors
    /// [`RunsError::Io`] or [`RunsError::DiskFull`].
    pub fn begin_checkpoint(&self, step: u64) -> Result<PathBuf, RunsError> {
        begin_dir(&self.checkpoint(step))
    }

    /// Puts the folder of [`StagePaths::begin_checkpoint`] in place, durably; an older one of this step is replaced.
    /// Returns the final path.
    ///
    /// # Errors
    /// [`RunsError::Io`] or [`RunsError::DiskFull`]; there is then no checkpoint of this step.
    pub fn commit_checkpoint(&self, step: u64) -> Result<PathBuf, RunsError> {
        commit_dir(&self.checkpoint(step))
    }

    /// Starts the finished model's folder, as [`StagePaths::begin_checkpoint`].
    ///
    /// # Errors
    /// [`RunsError::Io`] or [`RunsError::DiskFull`].
    pub fn begin_model(&self) -> Result<PathBuf, RunsError> {
        begin_dir(&self.model())
    }

    /// Puts the finished model in place, as [`StagePaths::commit_checkpoint`].
    ///
    /// # Errors
    /// [`RunsError::Io`] or [`RunsError::DiskFull`].
    pub fn commit_model(&self) -> Result<PathBuf, RunsError> {
        commit_dir(&self.model())
    }

    /// Deletes all but the newest `keep` checkpoints, oldest first.
    ///
    /// # Errors
    /// [`RunsError::Io`].
    pub fn prune_checkpoints(&self, keep: usize) -> Result<(), RunsError> {
        let found = self.checkpoints()?;
        let surplus = found.len().saturating_sub(keep);
        for (_, path) in &found[..surplus] {
            retire(path)?;
        }
        Ok(())
    }

    /// Deletes checkpoints of steps above `step`; all of them for `None`.
    ///
    /// # Errors
    /// [`RunsError::Io`].
    pub fn drop_checkpoints_after(&self, step: Option<u64>) -> Result<(), RunsError> {
        for (found, path) in self.checkpoints()? {
            if step.is_none_or(|step| found > step) {
                retire(&path)?;
            }
        }
        Ok(())
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
        for stage in list(&paths.root)? {
            if stage.is_dir() {
                sweep_temporaries(&stage)?;
                sweep_temporaries(&stage.join("checkpoints"))?;
            }
        }
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

/// What is directly in a folder; nothing if there is no such folder.
fn list(dir: &Path) -> Result<Vec<PathBuf>, RunsError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(RunsError::io("list", dir, error)),
    };
    entries.map(|entry| entry.map(|entry| entry.path()).map_err(|error| RunsError::io("list", dir, error))).collect()
}

/// `DIR/NAME` -> `DIR/.NAME.tmp`.
fn unfinished(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.tmp"))
}

fn begin_dir(path: &Path) -> Result<PathBuf, RunsError> {
    let unfinished = unfinished(path);
    remove_any(&unfinished)?;
    create_dir(&unfinished)?;
    Ok(unfinished)
}

fn commit_dir(path: &Path) -> Result<PathBuf, RunsError> {
    let unfinished = unfinished(path);
    sync_tree(&unfinished)?;
    retire(path)?;
    fs::rename(&unfinished, path).map_err(|error| RunsError::io("put in place", path, error))?;
    sync_dir(parent(path))?;
    Ok(path.to_path_buf())
}

/// Removes a finished folder so that a kill in between leaves a temporary name, never a finished name with parts missing.
fn retire(path: &Path) -> Result<(), RunsError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let retired = path.with_file_name(format!(".{name}.old.tmp"));
    remove_any(&retired)?;
    match fs::rename(path, &retired) {
        Ok(()) => remove_any(&retired),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(RunsError::io("remove", path, error)),
    }
}

fn sync_tree(dir: &Path) -> Result<(), RunsError> {
    for path in list(dir)? {
        if path.is_dir() {
            sync_tree(&path)?;
        } else {
            File::open(&path).and_then(|file| file.sync_all()).map_err(|error| RunsError::io("sync", &path, error))?;
        }
    }
    sync_dir(dir)
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
    fn an_unfinished_checkpoint_is_never_listed_and_is_swept() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("runs/a");
        let run = RunDir::create_or_open(&root).unwrap();
        let stage = run.stage("rl").unwrap();
        assert_eq!(stage.checkpoints().unwrap(), []);
        for step in [100, 20] {
            let into = stage.begin_checkpoint(step).unwrap();
            fs::write(into.join("model.safetensors"), step.to_string()).unwrap();
            stage.commit_checkpoint(step).unwrap();
        }
        let half = stage.begin_checkpoint(120).unwrap();
        fs::write(half.join("model.safetensors"), b"half").unwrap();
        let steps = |stage: &StagePaths| -> Vec<u64> { stage.checkpoints().unwrap().iter().map(|c| c.0).collect() };
        assert_eq!(steps(&stage), [20, 100]);
        drop(run);
        let run = RunDir::create_or_open(&root).unwrap();
        assert!(!half.exists());
        assert_eq!(steps(&run.stage("rl").unwrap()), [20, 100]);
    }

    #[test]
    fn a_checkpoint_can_be_replaced_pruned_and_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let stage = RunPaths::new(dir.path()).stage("rl").unwrap();
        for (step, text) in [(1, "a"), (2, "b"), (3, "c"), (3, "d")] {
            fs::write(stage.begin_checkpoint(step).unwrap().join("w"), text).unwrap();
            stage.commit_checkpoint(step).unwrap();
        }
        assert_eq!(fs::read_to_string(stage.checkpoint(3).join("w")).unwrap(), "d");
        stage.prune_checkpoints(2).unwrap();
        assert_eq!(stage.checkpoints().unwrap().iter().map(|c| c.0).collect::<Vec<_>>(), [2, 3]);
        stage.drop_checkpoints_after(Some(2)).unwrap();
        assert_eq!(stage.checkpoints().unwrap().iter().map(|c| c.0).collect::<Vec<_>>(), [2]);
        stage.drop_checkpoints_after(None).unwrap();
        assert_eq!(stage.checkpoints().unwrap(), []);
        assert_eq!(fs::read_dir(stage.checkpoints_dir()).unwrap().count(), 0);
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
