//! The errors of this crate. Each names the file and says what to do.

use std::io;
use std::path::{Path, PathBuf};

/// What can go wrong while recording a run.
#[derive(Debug, thiserror::Error)]
pub enum RunsError {
    /// The file system has no room left for this file.
    #[error("the disk is full: cannot {action} {}; free some space and run the same command again, it resumes", path.display())]
    DiskFull {
        /// What was being done, e.g. "write".
        action: &'static str,
        /// The file in question.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Any other input or output error.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was being done, e.g. "write".
        action: &'static str,
        /// The file in question.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Another process is writing this run.
    #[error("{} is being written by another process ({holder}); wait for it, stop it, or choose another --out", path.display())]
    Locked {
        /// The folder of the run.
        path: PathBuf,
        /// Who holds it, e.g. "pid 123".
        holder: String,
    },
    /// A stage name that cannot be a folder name.
    #[error("{name:?} cannot name a stage: use letters, digits, '-', '_' and '.', and do not begin with '.'")]
    BadName {
        /// The name.
        name: String,
    },
    /// A log has a line in its middle that is not one of ours.
    #[error("{} line {line}: {reason}; move the file away or start the stage afresh", path.display())]
    BadLine {
        /// The log.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A record that the log cannot take.
    #[error("cannot record step {step} in {}: {reason}", path.display())]
    BadRecord {
        /// The log.
        path: PathBuf,
        /// The step of the record.
        step: u64,
        /// Why it is refused.
        reason: String,
    },
    /// A file that should hold JSON of a known shape does not.
    #[error("{}: {source}; delete it or restore it, then run again", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// SQLite refused.
    #[error("{}: {source}", path.display())]
    Database {
        /// The database file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// The database was written by a newer version of this program.
    #[error("{} has schema version {found}, this program knows up to {known}: use the newer program that wrote it", path.display())]
    NewerSchema {
        /// The database file.
        path: PathBuf,
        /// The version found in the file.
        found: i64,
        /// The newest version this program knows.
        known: i64,
    },
    /// A row that is not there.
    #[error("{} has no {what}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        what: String,
    },
}

impl RunsError {
    /// Wraps an I/O error, telling a full disk (or quota) from the rest.
    pub fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { action, path, source },
            _ => Self::Io { action, path, source },
        }
    }

    /// Wraps a SQLite error, telling a full disk from the rest.
    pub(crate) fn database(path: &Path, source: rusqlite::Error) -> Self {
        if source.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull) {
            let source = io::Error::new(io::ErrorKind::StorageFull, source);
            return Self::DiskFull { action: "write", path: path.to_path_buf(), source };
        }
        Self::Database { path: path.to_path_buf(), source }
    }

    /// Whether the cause is a full disk.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::DiskFull { .. })
    }
}
