//! The tables of `run.db` and how older files become newer ones. `PRAGMA user_version` holds the schema's version:
//! a file of version v is brought up by the steps `MIGRATIONS[v..]`, each in a transaction with its new version.

use super::RunDb;
use crate::RunsError;

/// Step v takes a file from version v to v + 1. Steps that have been released are never changed.
const MIGRATIONS: &[&str] = &["
    CREATE TABLE stages (
        name TEXT PRIMARY KEY, kind TEXT NOT NULL, status TEXT NOT NULL, hash TEXT NOT NULL,
        started REAL, finished REAL, wall_s REAL NOT NULL
    );
    CREATE TABLE metrics (
        stage TEXT NOT NULL, step INTEGER NOT NULL, name TEXT NOT NULL, value REAL,
        PRIMARY KEY (stage, name, step)
    ) WITHOUT ROWID;
    CREATE TABLE rollouts (
        id INTEGER PRIMARY KEY, stage TEXT NOT NULL, step INTEGER NOT NULL, prompt TEXT NOT NULL,
        completion TEXT NOT NULL, rewards TEXT NOT NULL, advantage REAL, verdict TEXT NOT NULL,
        tokens INTEGER NOT NULL, finished INTEGER NOT NULL
    );
    CREATE INDEX rollouts_by_step ON rollouts (stage, step);
    CREATE TABLE evaluations (
        checkpoint TEXT NOT NULL, name TEXT NOT NULL, value REAL, json TEXT,
        PRIMARY KEY (checkpoint, name)
    );
    CREATE TABLE annotations (
        id INTEGER PRIMARY KEY, stage TEXT NOT NULL, candidate TEXT NOT NULL, edited TEXT,
        state TEXT NOT NULL CHECK (state IN ('new', 'accepted', 'edited', 'rejected')),
        note TEXT NOT NULL, created REAL NOT NULL, updated REAL NOT NULL
    );
    CREATE INDEX annotations_by_state ON annotations (stage, state);
    CREATE TABLE events (id INTEGER PRIMARY KEY, time REAL NOT NULL, stage TEXT, json TEXT NOT NULL);
"];

/// The version of the file.
fn version(db: &RunDb) -> Result<i64, RunsError> {
    let found = db.run(|connection| connection.pragma_query_value(None, "user_version", |row| row.get(0)))?;
    let known = MIGRATIONS.len() as i64;
    if found > known {
        return Err(RunsError::NewerSchema { path: db.path.clone(), found, known });
    }
    Ok(found)
}

/// Refuses a file that a newer program wrote, and one that still has to be migrated.
pub(super) fn check(db: &RunDb) -> Result<(), RunsError> {
    if version(db)? < MIGRATIONS.len() as i64 {
        let what = "up-to-date tables; open it once for writing".to_owned();
        return Err(RunsError::Missing { path: db.path.clone(), what });
    }
    Ok(())
}

/// Brings the file to the newest version.
pub(super) fn migrate(db: &mut RunDb) -> Result<(), RunsError> {
    for from in version(db)?..MIGRATIONS.len() as i64 {
        let sql = usize::try_from(from).ok().and_then(|from| MIGRATIONS.get(from)).unwrap_or(&"");
        db.transaction(|connection| {
            connection.execute_batch(sql)?;
            connection.pragma_update(None, "user_version", from + 1)
        })?;
    }
    Ok(())
}
