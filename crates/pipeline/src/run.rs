//! Running a recipe: stage after stage, each skipped when its result is there, resumed when it was interrupted.

use crate::recipe::{Recipe, Stage, StageAction, StageSettings, plan_with_files};
use crate::{PipelineError, report, stages};
use aha_runs::{
    Broadcast, Event, Listener, RunDb, RunDir, RunPaths, StageRow, StageStatus, StageSummary, Summary, unix_now,
};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// How a run is carried out; nothing here changes its results.
#[derive(Clone, Default)]
pub struct RunOptions {
    /// Folder of the run.
    pub out: PathBuf,
    /// Stop after this stage.
    pub until: Option<String>,
    /// Who hears about it.
    pub listeners: Broadcast,
    /// Set to save and stop.
    pub stop: Arc<AtomicBool>,
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What it leaves in summary.json.
    pub summary: Summary,
    /// True when a stop was requested before the end.
    pub interrupted: bool,
}

/// Everything a stage needs of its run.
pub(crate) struct Context<'a> {
    pub recipe: &'a Recipe,
    pub dir: &'a RunDir,
    pub db: RunDb,
    pub listeners: Broadcast,
    pub stop: Arc<AtomicBool>,
    pub summary: Summary,
}

/// What a stage leaves in the summary.
pub(crate) struct StageEnd {
    pub metrics: Vec<(String, f64)>,
    pub finished: bool,
}

impl Context<'_> {
    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Hashes of the stages that are finished, by name. One whose folder was deleted is not: what it left is wanted again.
pub fn finished(rows: &[StageRow], paths: &RunPaths) -> HashMap<String, String> {
    let there = |row: &&StageRow| paths.stage(&row.name).is_ok_and(|stage| stage.root().exists());
    let done = rows.iter().filter(|row| row.status == StageStatus::Finished).filter(there);
    done.map(|row| (row.name.clone(), row.hash.clone())).collect()
}

/// Digests of files and folders outside the run that stages read, by path as written in the recipe.
///
/// # Errors
/// A path that does not exist.
pub fn external_digests(recipe: &Recipe) -> Result<BTreeMap<String, String>, PipelineError> {
    let mut digests = BTreeMap::new();
    for stage in &recipe.stages {
        for path in stage.external_inputs() {
            let digest = digest(Path::new(path)).map_err(|e| PipelineError::Stage {
                stage: stage.name.clone(),
                problem: format!("{path}: {e}; give the path of an existing file or model folder"),
            })?;
            digests.insert(path.to_owned(), digest);
        }
    }
    Ok(digests)
}

/// Contents of small files, size and time of change of large ones (a 500 GB model is not read to see that it is the same).
fn digest(path: &Path) -> std::io::Result<String> {
    const SMALL: u64 = 64 << 20;
    let mut hash = Sha256::new();
    let mut files = vec![path.to_path_buf()];
    if path.is_dir() {
        files = std::fs::read_dir(path)?.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>()?;
        files.sort();
    }
    for file in files.iter().filter(|f| !f.is_dir()) {
        let meta = std::fs::metadata(file)?;
        hash.update(file.file_name().unwrap_or_default().as_encoded_bytes());
        if meta.len() <= SMALL {
            hash.update(std::fs::read(file)?);
        } else {
            hash.update(meta.len().to_le_bytes());
            let changed = meta.modified()?.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            hash.update(changed.as_nanos().to_le_bytes());
        }
    }
    if aha_model::is_adapter(path) {
        // The base counts as well; what is wrong with either is said when it is opened.
        if let Some(base) =
            aha_model::Adapter::open(path).and_then(|a| a.base()).ok().filter(|b| !aha_model::is_adapter(b))
        {
            hash.update(digest(&base)?);
        }
    }
    Ok(hash.finalize().iter().map(|b| format!("{b:02x}")).collect())
}

/// Runs what the recipe still needs in `options.out`; what is finished with the same settings and inputs is kept.
///
/// # Errors
/// The first thing that goes wrong; everything finished before stays and is not run again.
pub fn run(recipe: &Recipe, options: &RunOptions) -> Result<Outcome, PipelineError> {
    let begin = Instant::now();
    if let Some(name) = &options.until {
        recipe.stage(name)?;
    }
    let files = external_digests(recipe)?;
    let dir = RunDir::create_or_open(&options.out)?;
    let db = RunDb::open(dir.db())?;
    let rows = db.stages()?;
    let planned = plan_with_files(recipe, &files, &finished(&rows, &dir));
    aha_runs::write_atomic(dir.recipe(), recipe.to_toml()?.as_bytes())?;
    let mut summary = Summary::read(dir.summary())?.unwrap_or_else(|| Summary::new(&recipe.name, recipe.seed));
    (summary.recipe, summary.seed) = (recipe.name.clone(), recipe.seed);
    let before = summary.wall_s;
    let mut context =
        Context { recipe, dir: &dir, db, listeners: options.listeners.clone(), stop: options.stop.clone(), summary };
    let mut interrupted = false;
    for (stage, plan) in recipe.stages.iter().zip(&planned) {
        if context.stopped() {
            interrupted = true;
            break;
        }
        if plan.action == StageAction::Keep {
            let text = "finished before with the same settings and inputs; kept".to_owned();
            context.listeners.event(&Event::Note { stage: stage.name.clone(), text });
            retire(&dir, stage)?;
        } else {
            // Also what an interrupted sitting with other settings left: its checkpoints are not ours to resume.
            if rows.iter().any(|r| r.name == stage.name && r.hash != plan.hash) {
                set_aside(&dir, stage)?;
                forget(&mut context.summary, stage);
            }
            interrupted = !run_stage(&mut context, stage, &plan.hash)?;
            if !interrupted {
                retire(&dir, stage)?;
            }
            context.summary.wall_s = before + begin.elapsed().as_secs_f64();
            context.summary.write(dir.summary())?;
            report::write(&context)?;
        }
        if interrupted || options.until.as_deref() == Some(stage.name.as_str()) {
            break;
        }
    }
    context.summary.wall_s = before + begin.elapsed().as_secs_f64();
    context.summary.write(dir.summary())?;
    report::write(&context)?;
    Ok(Outcome { summary: context.summary, interrupted })
}

/// A finished stage is never resumed: what its checkpoints hold beside the model would only fill the disk.
fn retire(dir: &RunDir, stage: &Stage) -> Result<(), PipelineError> {
    let checkpoints = dir.stage(&stage.name)?.checkpoints_dir();
    aha_train::state::retire(&checkpoints).map_err(|source| PipelineError::Train { stage: stage.name.clone(), source })
}

/// Results made with other settings are moved to `STAGE.previous`, not deleted.
fn set_aside(dir: &RunDir, stage: &Stage) -> Result<(), PipelineError> {
    let paths = dir.stage(&stage.name)?;
    let old = paths.root().with_extension("previous");
    let fail = |e: std::io::Error| PipelineError::Stage {
        stage: stage.name.clone(),
        problem: format!("cannot set {} aside: {e}", paths.root().display()),
    };
    if old.exists() {
        std::fs::remove_dir_all(&old).map_err(fail)?;
    }
    if paths.root().exists() { std::fs::rename(paths.root(), &old).map_err(fail) } else { Ok(()) }
}

/// Takes a stage's old evaluations out of the summary.
fn forget(summary: &mut Summary, stage: &Stage) {
    let prefix = format!("{}/", stage.name);
    let labels: &[String] = match &stage.settings {
        StageSettings::Eval(s) => &s.label,
        _ => &[],
    };
    let kept = summary.evals.iter().filter(|(name, _)| !name.starts_with(&prefix) && !labels.iter().any(|l| l == name));
    summary.evals = kept.map(|(name, value)| (name.to_owned(), value.clone())).collect();
}

/// True when the stage is finished, false when it was interrupted.
fn run_stage(context: &mut Context, stage: &Stage, hash: &str) -> Result<bool, PipelineError> {
    let begin = Instant::now();
    let kind = stage.kind().as_str().to_owned();
    // Of a stage that was finished, nothing is left that this sitting goes on with.
    let goes_on = |r: &StageRow| r.hash == hash && r.status != StageStatus::Finished;
    let previous = context.db.stage(&stage.name)?.filter(goes_on).map_or(0.0, |r| r.wall_s);
    let mut row = StageRow {
        name: stage.name.clone(),
        kind: kind.clone(),
        status: StageStatus::Running,
        hash: hash.to_owned(),
        started: Some(unix_now()),
        finished: None,
        wall_s: previous,
    };
    context.db.put_stage(&row)?;
    if let Some(text) = stage.without_effect() {
        context.listeners.event(&Event::Note { stage: stage.name.clone(), text });
    }
    let result = match &stage.settings {
        StageSettings::Corpus(s) => stages::corpus::run(context, &stage.name, s),
        StageSettings::Pretrain(s) => stages::pretrain::run(context, &stage.name, s, hash),
        StageSettings::Extend(s) => stages::extend::run(context, &stage.name, s, hash),
        StageSettings::Sft(s) => stages::sft::run(context, &stage.name, s, hash),
        StageSettings::RewardModel(s) => stages::reward_model::run(context, &stage.name, s, hash),
        StageSettings::Distill(s) => stages::distill::run(context, &stage.name, s, hash),
        StageSettings::Grpo(s) => stages::grpo::run(context, &stage.name, s, hash),
        StageSettings::ColdStart(s) | StageSettings::Reject(s) => stages::curation::run(context, &stage.name, s),
        StageSettings::Eval(s) => stages::eval::run(context, &stage.name, s),
        StageSettings::Table(s) => stages::table::run(context, &stage.name, s),
    };
    row.wall_s = previous + begin.elapsed().as_secs_f64();
    row.status = match &result {
        Ok(end) if end.finished => StageStatus::Finished,
        Ok(_) => StageStatus::Interrupted,
        Err(_) => StageStatus::Failed,
    };
    row.finished = (row.status == StageStatus::Finished).then(unix_now);
    if let Ok(end) = &result {
        // First the summary, then the row that makes a stage finished: killed in between, the stage ends once more.
        let ended = StageSummary::new(row.status, row.wall_s, end.metrics.clone());
        context.summary.stages.insert(stage.name.clone(), ended);
        context.summary.write(context.dir.summary())?;
    }
    // A failed stage's own error is the one to report, even when the disk is too full to note it.
    let noted = context.db.put_stage(&row);
    let end = result?;
    noted?;
    context.listeners.event(&Event::StageEnded { stage: stage.name.clone(), status: row.status, wall_s: row.wall_s });
    Ok(end.finished)
}
