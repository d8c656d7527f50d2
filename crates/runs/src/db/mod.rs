//! `run.db`: the run as SQLite, for pages and questions that cut across stages.
//!
//! The logs are what a resumed run is judged by; the database holds the same facts indexed, plus annotations. It is in
//! WAL mode, so a page may read while the run writes; a step goes in as one transaction.

mod annotations;
mod schema;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, named_params, params};
use serde_json::Value;

pub use annotations::{Annotation, AnnotationState};

use crate::{Event, Ordered, RolloutRecord, RolloutVerdict, RunsError, StageStatus};

/// One row of `stages`.
#[derive(Clone, Debug, PartialEq)]
pub struct StageRow {
    /// The stage's name.
    pub name: String,
    /// What it does, e.g. `grpo`.
    pub kind: String,
    /// Where it stands.
    pub status: StageStatus,
    /// Hash of its settings and inputs.
    pub hash: String,
    /// When it was first begun, seconds since 1970.
    pub started: Option<f64>,
    /// When it ended, seconds since 1970.
    pub finished: Option<f64>,
    /// Seconds it took, over all its sittings.
    pub wall_s: f64,
}

/// One row of `evaluations`.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// The checkpoint, e.g. `base`.
    pub checkpoint: String,
    /// The measure, e.g. `pass_at_1`.
    pub name: String,
    /// Its value, where it is a number.
    pub value: Option<f64>,
    /// More of it, e.g. the same by family.
    pub json: Option<Value>,
}

/// An open `run.db`.
#[derive(Debug)]
pub struct RunDb {
    connection: Connection,
    path: PathBuf,
}

impl RunDb {
    /// Opens or makes the database, and brings an older schema up to date.
    ///
    /// # Errors
    /// [`RunsError::NewerSchema`] if a newer program wrote it, [`RunsError::Database`] if it is no database.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, RunsError> {
        let path = path.as_ref();
        let connection = Connection::open(path).map_err(|error| RunsError::database(path, error))?;
        let mut db = Self { connection, path: path.to_path_buf() };
        db.run(|connection| {
            connection.busy_timeout(Duration::from_secs(30))?;
            connection.pragma_update(None, "journal_mode", "WAL")?;
            // In WAL mode this cannot corrupt; a power cut may lose the last steps, which resuming writes again.
            connection.pragma_update(None, "synchronous", "NORMAL")?;
            connection.pragma_update(None, "foreign_keys", "ON")
        })?;
        schema::migrate(&mut db)?;
        Ok(db)
    }

    /// Opens an existing database for reading only.
    ///
    /// # Errors
    /// [`RunsError::Database`] if there is none, [`RunsError::NewerSchema`] if a newer program wrote it.
    pub fn open_read_only(path: impl AsRef<Path>) -> Result<Self, RunsError> {
        let path = path.as_ref();
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(|error| RunsError::database(path, error))?;
        let db = Self { connection, path: path.to_path_buf() };
        db.run(|connection| connection.busy_timeout(Duration::from_secs(30)))?;
        schema::check(&db)?;
        Ok(db)
    }

    /// Runs SQL, giving its errors the file's name.
    fn run<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, RunsError> {
        work(&self.connection).map_err(|error| RunsError::database(&self.path, error))
    }

    /// Runs SQL as one transaction.
    fn transaction<T>(&mut self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, RunsError> {
        let run = || {
            let transaction = self.connection.transaction()?;
            let value = work(&transaction)?;
            transaction.commit()?;
            Ok(value)
        };
        run().map_err(|error| RunsError::database(&self.path, error))
    }

    /// Puts a stage in or replaces it.
    ///
    /// # Errors
    /// [`RunsError::Database`] or [`RunsError::DiskFull`], as all below.
    pub fn put_stage(&mut self, stage: &StageRow) -> Result<(), RunsError> {
        self.run(|connection| {
            connection.execute(
                "INSERT INTO stages (name, kind, status, hash, started, finished, wall_s)
                 VALUES (:name, :kind, :status, :hash, :started, :finished, :wall_s)
                 ON CONFLICT (name) DO UPDATE SET kind = :kind, status = :status, hash = :hash, started = :started,
                 finished = :finished, wall_s = :wall_s",
                named_params! {
                    ":name": stage.name, ":kind": stage.kind, ":status": stage.status.as_str(), ":hash": stage.hash,
                    ":started": stage.started, ":finished": stage.finished, ":wall_s": stage.wall_s,
                },
            )
        })?;
        Ok(())
    }

    /// A stage by name.
    ///
    /// # Errors
    /// [`RunsError::Database`].
    pub fn stage(&self, name: &str) -> Result<Option<StageRow>, RunsError> {
        let sql = "SELECT name, kind, status, hash, started, finished, wall_s FROM stages WHERE name = ?1";
        self.run(|connection| connection.query_row(sql, [name], stage_row).optional())
    }

    /// All stages in the order they were first put in.
    ///
    /// # Errors
    /// [`RunsError::Database`].
    pub fn stages(&self) -> Result<Vec<StageRow>, RunsError> {
        let sql = "SELECT name, kind, status, hash, started, finished, wall_s FROM stages ORDER BY rowid";
        self.run(|connection| connection.prepare(sql)?.query_map([], stage_row)?.collect())
    }

    /// Takes a stage back to a step: rows of later steps go, all rows for `None`.
    ///
    /// # Errors
    /// [`RunsError::Database`] or [`RunsError::DiskFull`].
    pub fn rewind(&mut self, stage: &str, resume: Option<u64>) -> Result<(), RunsError> {
        // Steps are not negative, so -1 keeps none.
        let last = resume.map_or(-1, |step| step as i64);
        self.transaction(|connection| {
            connection.execute("DELETE FROM metrics WHERE stage = ?1 AND step > ?2", params![stage, last])?;
            connection.execute("DELETE FROM rollouts WHERE stage = ?1 AND step > ?2", params![stage, last])
        })?;
        Ok(())
    }

    /// Adds a step's metrics and rollouts in one transaction. NaN and the infinities become NULL.
    ///
    /// # Errors
    /// [`RunsError::Database`], also when the step is there already; then nothing of it is added.
    pub fn add_step(
        &mut self,
        stage: &str,
        step: u64,
        metrics: &[(&str, f64)],
        rollouts: &[RolloutRecord],
    ) -> Result<(), RunsError> {
        self.transaction(|connection| {
            let mut insert =
                connection.prepare_cached("INSERT INTO metrics (stage, step, name, value) VALUES (?1, ?2, ?3, ?4)")?;
            for &(name, value) in metrics {
                insert.execute(params![stage, step as i64, name, Some(value).filter(|value| value.is_finite())])?;
            }
            let mut insert = connection.prepare_cached(
                "INSERT INTO rollouts (stage, step, prompt, completion, rewards, advantage, verdict, tokens, finished)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            )?;
            for rollout in rollouts {
                insert.execute(params![
                    stage,
                    step as i64,
                    rollout.prompt,
                    rollout.completion,
                    serde_json::to_string(&rollout.rewards).unwrap_or_default(),
                    rollout.advantage.filter(|value| value.is_finite()),
                    rollout.verdict.as_str(),
                    rollout.tokens as i64,
                    rollout.finished,
                ])?;
            }
            Ok(())
        })
    }

    /// One metric of a stage as (step, value), by step.
    ///
    /// # Errors
    /// [`RunsError::Database`].
    pub fn metric(&self, stage: &str, name: &str) -> Result<Vec<(u64, Option<f64>)>, RunsError> {
        let sql = "SELECT step, value FROM metrics WHERE stage = ?1 AND name = ?2 ORDER BY step";
        let row = |row: &Row<'_>| Ok((row.get::<_, i64>(0)? as u64, row.get(1)?));
        self.run(|connection| connection.prepare_cached(sql)?.query_map([stage, name], row)?.collect())
    }

    /// The names of a stage's metrics, sorted.
    ///
    /// # Errors
    /// [`RunsError::Database`].
    pub fn metric_names(&self, stage: &str) -> Result<Vec<String>, RunsError> {
        let sql = "SELECT DISTINCT name FROM metrics WHERE stage = ?1 ORDER BY name";
        self.run(|connection| connection.prepare_cached(sql)?.query_map([stage], |row| row.get(0))?.collect())
    }

    /// The rollouts of a step in the order they were added.
    ///
    /// # Errors
    /// [`RunsError::Database`].
    pub fn rollouts(&self, stage: &str, step: u64) -> Result<Vec<RolloutRecord>, RunsError> {
        let sql = "SELECT step, prompt, completion, rewards, advantage, verdict, tokens, finished
                   FROM rollouts WHERE stage = ?1 AND step = ?2 ORDER BY id";
        self.run(|connection| {
            connection.prepare_cached(sql)?.query_map(params![stage, step as i64], rollout_row)?.collect()
        })
    }

    /// Puts an evaluated measure in or replaces it.
    ///
    /// # Errors
    /// [`RunsError::Database`] or [`RunsError::DiskFull`].
    pub fn put_evaluation(&mut self, evaluation: &Evaluation) -> Result<(), RunsError> {
        let json = evaluation.json.as_ref().map(Value::to_string);
        let value = evaluation.value.filter(|value| value.is_finite());
        self.run(|connection| {
            connection.execute(
                "INSERT INTO evaluations (checkpoint, name, value, json) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (checkpoint, name) DO UPDATE SET value = ?3, json = ?4",
                params![evaluation.checkpoint, evaluation.name, value, json],
            )
        })?;
        Ok(())
    }

    /// Puts a whole summary in: each of its fields becomes a row, numbers as values and the rest as JSON.
    ///
    /// # Errors
    /// [`RunsError::Database`] or [`RunsError::DiskFull`].
    pub fn put_evaluation_summary(&mut self, checkpoint: &str, summary: &Value) -> Result<(), RunsError> {
        for (name, field) in summary.as_object().into_iter().flatten() {
            let value = field.as_f64();
            let json = (value.is_none() && !field.is_null()).then(|| field.clone());
            let (checkpoint, name) = (checkpoint.to_owned(), name.clone());
            self.put_evaluation(&Evaluation { checkpoint, name, value, json })?;
        }
        Ok(())
    }

    /// All evaluations in the order they were first put in.
    ///
    /// # Errors
    /// [`RunsError::Database`].
    pub fn evaluations(&self) -> Result<Vec<Evaluation>, RunsError> {
        let sql = "SELECT checkpoint, name, value, json FROM evaluations ORDER BY rowid";
        let row = |row: &Row<'_>| {
            let json: Option<String> = row.get(3)?;
            Ok(Evaluation {
                checkpoint: row.get(0)?,
                name: row.get(1)?,
                value: row.get(2)?,
                json: json.map(|json| from_json(3, &json)).transpose()?,
            })
        };
        self.run(|connection| connection.prepare(sql)?.query_map([], row)?.collect())
    }

    /// Records an event at a time (seconds since 1970).
    ///
    /// # Errors
    /// [`RunsError::Database`] or [`RunsError::DiskFull`].
    pub fn add_event(&mut self, time: f64, event: &Event) -> Result<(), RunsError> {
        let json = serde_json::to_string(event).unwrap_or_default();
        self.run(|connection| {
            connection.execute(
                "INSERT INTO events (time, stage, json) VALUES (?1, ?2, ?3)",
                params![time, event.stage(), json],
            )
        })?;
        Ok(())
    }

    /// Events after the given id as (id, time, event), oldest first, at most `limit`; a page asks with the last id it saw.
    ///
    /// # Errors
    /// [`RunsError::Database`].
    pub fn events_after(&self, id: i64, limit: usize) -> Result<Vec<(i64, f64, Value)>, RunsError> {
        let sql = "SELECT id, time, json FROM events WHERE id > ?1 ORDER BY id LIMIT ?2";
        let row = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, from_json(2, &row.get::<_, String>(2)?)?));
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.run(|connection| connection.prepare_cached(sql)?.query_map(params![id, limit], row)?.collect())
    }
}

fn stage_row(row: &Row<'_>) -> rusqlite::Result<StageRow> {
    let status: String = row.get(2)?;
    Ok(StageRow {
        name: row.get(0)?,
        kind: row.get(1)?,
        status: StageStatus::parse(&status).ok_or_else(|| unknown(2, &status))?,
        hash: row.get(3)?,
        started: row.get(4)?,
        finished: row.get(5)?,
        wall_s: row.get(6)?,
    })
}

fn rollout_row(row: &Row<'_>) -> rusqlite::Result<RolloutRecord> {
    let rewards: String = row.get(3)?;
    let rewards: Ordered<Option<f64>> = from_json(3, &rewards)?;
    let verdict: String = row.get(5)?;
    let verdicts = [RolloutVerdict::Correct, RolloutVerdict::Incorrect, RolloutVerdict::NotJudged];
    Ok(RolloutRecord {
        step: row.get::<_, i64>(0)? as u64,
        prompt: row.get(1)?,
        completion: row.get(2)?,
        rewards,
        advantage: row.get(4)?,
        verdict: verdicts.into_iter().find(|v| v.as_str() == verdict).ok_or_else(|| unknown(5, &verdict))?,
        tokens: row.get::<_, i64>(6)? as usize,
        finished: row.get(7)?,
    })
}

fn from_json<T: serde::de::DeserializeOwned>(column: usize, json: &str) -> rusqlite::Result<T> {
    serde_json::from_str(json).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
    })
}

/// The error for a name in the database that this program does not know.
fn unknown(column: usize, name: &str) -> rusqlite::Error {
    let message = format!("unknown name {name:?}");
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, message.into())
}
