//! What people decided about candidates (`aha annotate`): the table `annotations` of `run.db`.

use rusqlite::{Row, params};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{RunDb, from_json, unknown};
use crate::RunsError;

/// What was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnnotationState {
    /// Nothing yet.
    New,
    /// Taken as it is.
    Accepted,
    /// Taken in the edited form.
    Edited,
    /// Not taken.
    Rejected,
}

impl AnnotationState {
    /// The name in the database: `new`, `accepted`, `edited`, `rejected`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Accepted => "accepted",
            Self::Edited => "edited",
            Self::Rejected => "rejected",
        }
    }
}

/// One row of `annotations`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Annotation {
    /// Its number.
    pub id: i64,
    /// The stage the candidate belongs to.
    pub stage: String,
    /// The candidate as it was put in; never changed.
    pub candidate: Value,
    /// The person's own version, in state `Edited`.
    pub edited: Option<Value>,
    /// What was decided.
    pub state: AnnotationState,
    /// The person's note, may be empty.
    pub note: String,
    /// When it was put in, seconds since 1970.
    pub created: f64,
    /// When it was last decided on, seconds since 1970.
    pub updated: f64,
}

impl RunDb {
    /// Puts candidates in, in state `New`, in one transaction; gives their numbers in order.
    ///
    /// # Errors
    /// [`RunsError::Database`] or [`RunsError::DiskFull`].
    pub fn add_candidates(&mut self, stage: &str, candidates: &[Value], now: f64) -> Result<Vec<i64>, RunsError> {
        self.transaction(|connection| {
            let mut insert = connection.prepare_cached(
                "INSERT INTO annotations (stage, candidate, state, note, created, updated)
                 VALUES (?1, ?2, 'new', '', ?3, ?3)",
            )?;
            candidates.iter().map(|candidate| insert.insert(params![stage, candidate.to_string(), now])).collect()
        })
    }

    /// Decides on a candidate. `edited` is kept only in state `Edited`.
    ///
    /// # Errors
    /// [`RunsError::Missing`] if there is no such number.
    pub fn annotate(
        &mut self,
        id: i64,
        state: AnnotationState,
        note: &str,
        edited: Option<&Value>,
        now: f64,
    ) -> Result<(), RunsError> {
        let edited = edited.filter(|_| state == AnnotationState::Edited).map(Value::to_string);
        let changed = self.run(|connection| {
            connection.execute(
                "UPDATE annotations SET state = ?2, note = ?3, edited = ?4, updated = ?5 WHERE id = ?1",
                params![id, state.as_str(), note, edited, now],
            )
        })?;
        if changed == 0 {
            return Err(RunsError::Missing { path: self.path.clone(), what: format!("annotation {id}") });
        }
        Ok(())
    }

    /// A stage's annotations by number; only those in `state` if one is given.
    ///
    /// # Errors
    /// [`RunsError::Database`].
    pub fn annotations(&self, stage: &str, state: Option<AnnotationState>) -> Result<Vec<Annotation>, RunsError> {
        let sql = "SELECT id, stage, candidate, edited, state, note, created, updated FROM annotations
                   WHERE stage = ?1 AND (?2 IS NULL OR state = ?2) ORDER BY id";
        let state = state.map(AnnotationState::as_str);
        self.run(|connection| connection.prepare_cached(sql)?.query_map(params![stage, state], annotation)?.collect())
    }
}

fn annotation(row: &Row<'_>) -> rusqlite::Result<Annotation> {
    use AnnotationState::{Accepted, Edited, New, Rejected};
    let edited: Option<String> = row.get(3)?;
    let state: String = row.get(4)?;
    Ok(Annotation {
        id: row.get(0)?,
        stage: row.get(1)?,
        candidate: from_json(2, &row.get::<_, String>(2)?)?,
        edited: edited.map(|edited| from_json(3, &edited)).transpose()?,
        state: [New, Accepted, Edited, Rejected]
            .into_iter()
            .find(|known| known.as_str() == state)
            .ok_or_else(|| unknown(4, &state))?,
        note: row.get(5)?,
        created: row.get(6)?,
        updated: row.get(7)?,
    })
}
