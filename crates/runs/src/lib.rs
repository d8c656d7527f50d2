//! What a run leaves on disk, and who hears about it while it goes on.
//!
//! - [`RunDir`]: the folder of one run, its layout and its lock.
//! - [`write_atomic`]: a file is either the old one or the whole new one.
//! - [`MetricsLog`], [`RolloutLog`], [`tensorboard::EventWriter`], [`RunDb`]: the same facts for four kinds of reader.
//! - [`StageRecorder`]: writes a step to all four in one call, and takes them back to a step on resume.
//! - [`Summary`]: the content of `summary.json`.
//! - [`Event`], [`Listener`]: progress for bars and pages.
//!
//! Resuming after a kill: everything takes the step to go back to as an `Option<u64>`. `None` starts afresh, `Some(s)`
//! keeps what was recorded for steps `<= s` (so the trainer's state is that after step `s`) and drops the rest.

mod append;
mod atomic;
mod db;
mod dir;
mod error;
mod event;
mod lock;
mod logs;
mod ordered;
mod recorder;
mod summary;
pub mod tensorboard;

pub use atomic::{sync_dir, write_atomic, write_atomic_with};
pub use db::{Annotation, AnnotationState, Evaluation, RunDb, StageRow};
pub use dir::{RunDir, RunPaths, StagePaths};
pub use error::RunsError;
pub use event::{Broadcast, Event, Listener};
pub use lock::RunLock;
pub use logs::{MetricsLog, RolloutLog, RolloutRecord, RolloutVerdict};
pub use ordered::Ordered;
pub use recorder::StageRecorder;
pub use summary::{StageStatus, StageSummary, Summary};

/// Seconds since 1970 by this machine's clock; 0 if the clock stands before that.
pub fn unix_now() -> f64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0.0, |elapsed| elapsed.as_secs_f64())
}
