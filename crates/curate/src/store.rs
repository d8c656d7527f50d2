//! The file of candidates: JSON lines, one candidate each, and after them one line per decision.
//!
//! A decision is appended and synced before the next candidate is shown, so a kill loses nothing; a line that was being
//! written when the process died is dropped when the file is next opened. The last decision about a candidate holds. When
//! the file is closed in order it is rewritten whole (temporary name, sync, rename) with every candidate's decision in its
//! own line.

use std::collections::HashMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use aha_runs::{RunsError, write_atomic_with};
use serde::{Deserialize, Serialize};

use crate::candidate::{Candidate, Decision};
use crate::error::CurateError;

/// Name of the file in a stage's folder.
pub const FILE_NAME: &str = "candidates.jsonl";

/// A line about an earlier one.
#[derive(Serialize, Deserialize)]
struct DecisionLine {
    decided: String,
    #[serde(flatten)]
    decision: Decision,
}

/// An open file of candidates, and the right to write it.
#[derive(Debug)]
pub struct CandidateStore {
    path: PathBuf,
    file: File,
    _lock: File,
    candidates: Vec<Candidate>,
    by_id: HashMap<String, usize>,
    appended: usize,
}

/// What a file holds.
struct Content {
    candidates: Vec<Candidate>,
    by_id: HashMap<String, usize>,
    decisions: usize,
    torn: bool,
}

/// Reads the candidates of a file with the decisions about them. A last line that is torn is left out.
///
/// # Errors
/// A file that cannot be read, a line that is neither candidate nor decision, an id that occurs twice.
pub fn read_candidates(path: &Path) -> Result<Vec<Candidate>, CurateError> {
    Ok(read(path)?.candidates)
}

fn read(path: &Path) -> Result<Content, CurateError> {
    let bytes = std::fs::read(path).map_err(|source| CurateError::Read { path: path.to_path_buf(), source })?;
    let mut content = Content { candidates: Vec::new(), by_id: HashMap::new(), decisions: 0, torn: false };
    let whole = bytes.ends_with(b"\n");
    let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    let last = lines.iter().rposition(|line| !line.trim_ascii().is_empty());
    for (i, line) in lines.iter().enumerate() {
        if line.trim_ascii().is_empty() {
            continue;
        }
        if let Err(problem) = content.take(line) {
            // An append is one write that ends in a newline: without it the line was never acknowledged.
            if Some(i) == last && !whole {
                content.torn = true;
                break;
            }
            return Err(CurateError::line(path, i + 1, problem));
        }
    }
    content.torn |= !whole && last.is_some();
    Ok(content)
}

impl Content {
    fn take(&mut self, line: &[u8]) -> Result<(), String> {
        // Told apart by their first key, so that a wrong candidate is reported as one.
        if line.trim_ascii_start().starts_with(b"{\"decided\"") {
            let DecisionLine { decided, decision } = serde_json::from_slice(line).map_err(|e| words(&e))?;
            let at =
                self.by_id.get(&decided).ok_or_else(|| format!("a decision about {decided}, which is not above"))?;
            self.candidates[*at].decision = decision;
            self.decisions += 1;
            return Ok(());
        }
        let candidate: Candidate = serde_json::from_slice(line)
            .map_err(|e| format!("not a candidate: {}; `aha curate` makes candidates of other rows", words(&e)))?;
        if self.by_id.insert(candidate.id.clone(), self.candidates.len()).is_some() {
            return Err(format!("the id {} occurs a second time; ids must be unique", candidate.id));
        }
        self.candidates.push(candidate);
        Ok(())
    }
}

/// The parser's words without its line number, which is always 1 here.
pub(crate) fn words(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or(&text).to_owned()
}

impl CandidateStore {
    /// Opens a file for deciding, or makes an empty one.
    ///
    /// # Errors
    /// As [`read_candidates`]; [`RunsError::Locked`] when another process has it open; a file that cannot be written.
    pub fn open(path: &Path) -> Result<Self, CurateError> {
        let lock = lock(path)?;
        let failed = |action| move |source| RunsError::Io { action, path: path.to_path_buf(), source };
        let existing = path.exists();
        let content = if existing {
            read(path)?
        } else {
            Content { candidates: Vec::new(), by_id: HashMap::new(), decisions: 0, torn: false }
        };
        if content.torn {
            rewrite(path, &content.candidates)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(failed("open"))?;
        let appended = if content.torn { 0 } else { content.decisions };
        let Content { candidates, by_id, .. } = content;
        Ok(Self { path: path.to_path_buf(), file, _lock: lock, candidates, by_id, appended })
    }

    /// The candidates in the order they were put in.
    pub fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    /// A candidate by id.
    pub fn get(&self, id: &str) -> Option<&Candidate> {
        self.by_id.get(id).map(|at| &self.candidates[*at])
    }

    /// Adds candidates that are not there yet, durably; gives their number. What was decided about others stays.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn add(&mut self, candidates: impl IntoIterator<Item = Candidate>) -> Result<usize, CurateError> {
        let mut lines = Vec::new();
        let before = self.candidates.len();
        for candidate in candidates {
            if self.by_id.contains_key(&candidate.id) {
                continue;
            }
            push_line(&mut lines, &candidate);
            self.by_id.insert(candidate.id.clone(), self.candidates.len());
            self.candidates.push(candidate);
        }
        self.append(&lines)?;
        Ok(self.candidates.len() - before)
    }

    /// Decides, durably: when this returns, a kill loses nothing.
    ///
    /// # Errors
    /// An unknown id, a file that cannot be written; then nothing is decided.
    pub fn decide(&mut self, id: &str, decision: Decision) -> Result<(), CurateError> {
        self.decide_all([(id.to_owned(), decision)])
    }

    /// Decides on many in one write.
    ///
    /// # Errors
    /// As [`decide`](Self::decide).
    pub fn decide_all(&mut self, decisions: impl IntoIterator<Item = (String, Decision)>) -> Result<(), CurateError> {
        let decisions: Vec<_> =
            decisions.into_iter().map(|(decided, decision)| DecisionLine { decided, decision }).collect();
        let mut lines = Vec::new();
        for line in &decisions {
            if !self.by_id.contains_key(&line.decided) {
                return Err(CurateError::Unknown { path: self.path.clone(), id: line.decided.clone() });
            }
            push_line(&mut lines, line);
        }
        self.append(&lines)?;
        self.appended += decisions.len();
        for DecisionLine { decided, decision } in decisions {
            self.candidates[self.by_id[&decided]].decision = decision;
        }
        Ok(())
    }

    fn append(&mut self, lines: &[u8]) -> Result<(), CurateError> {
        let failed = |source| RunsError::Io { action: "write", path: self.path.clone(), source };
        let before = self.file.metadata().map_err(failed)?.len();
        if let Err(error) = self.file.write_all(lines).and_then(|()| self.file.sync_data()) {
            // If this fails too, the torn end is dropped when the file is next opened.
            let _ = self.file.set_len(before);
            return Err(failed(error).into());
        }
        Ok(())
    }

    /// Closes the file, every decision moved into its candidate's line.
    ///
    /// # Errors
    /// A file that cannot be written; it then still holds everything, as it was appended.
    pub fn close(self) -> Result<(), CurateError> {
        if self.appended > 0 { rewrite(&self.path, &self.candidates) } else { Ok(()) }
    }
}

fn push_line(lines: &mut Vec<u8>, value: &impl Serialize) {
    serde_json::to_writer(&mut *lines, value).expect("names are strings, so this is always JSON");
    lines.push(b'\n');
}

fn rewrite(path: &Path, candidates: &[Candidate]) -> Result<(), CurateError> {
    write_lines(path, candidates)
}

/// Writes values as JSON lines, whole or not at all.
///
/// # Errors
/// A file that cannot be written.
pub fn write_lines<'a, T: Serialize + 'a>(
    path: &Path,
    values: impl IntoIterator<Item = &'a T>,
) -> Result<(), CurateError> {
    write_atomic_with(path, |out| {
        for value in values {
            serde_json::to_writer(&mut *out, value)?;
            out.write_all(b"\n")?;
        }
        Ok(())
    })?;
    Ok(())
}

/// Takes the lock beside the file; the system gives it back when the process ends, however it ends.
fn lock(path: &Path) -> Result<File, CurateError> {
    let name = path.file_name().ok_or_else(|| CurateError::file(path, "give the name of a file"))?;
    let lock_path = path.with_file_name(format!(".{}.lock", name.to_string_lossy()));
    let failed = |action: &'static str, source| RunsError::Io { action, path: lock_path.clone(), source };
    let file =
        OpenOptions::new().create(true).truncate(false).write(true).open(&lock_path).map_err(|e| failed("open", e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(CurateError::file(path, "someone else is deciding on these candidates; wait until they are done"))
        }
        // Some cluster file systems have no locks.
        Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => Ok(file),
        Err(TryLockError::Error(error)) => Err(failed("lock", error).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::candidate::State;
    use crate::candidate::tests::sum;

    fn decision(state: State, reason: &str) -> Decision {
        Decision { state, reason: reason.into(), edited: None, who: "ada".into(), when: Some(2.0) }
    }

    #[test]
    fn decisions_are_there_without_closing_and_after_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        let rows = [sum(1, 2, "<think></think>3"), sum(3, 4, "<think></think>8")];
        let mut store = CandidateStore::open(&path).unwrap();
        assert_eq!(store.add(rows.clone()).unwrap(), 2);
        assert_eq!(store.add(rows.clone()).unwrap(), 0);
        store.decide(&rows[1].id, decision(State::Rejected, "wrong")).unwrap();
        store.decide(&rows[0].id, decision(State::Rejected, "oops")).unwrap();
        store.decide(&rows[0].id, decision(State::Accepted, "")).unwrap();
        drop(store);
        let states = |path: &Path| read_candidates(path).unwrap().iter().map(|c| c.decision.state).collect::<Vec<_>>();
        let lines = |path: &Path| std::fs::read_to_string(path).unwrap().lines().count();
        assert_eq!((states(&path), lines(&path)), (vec![State::Accepted, State::Rejected], 5));
        CandidateStore::open(&path).unwrap().close().unwrap();
        assert_eq!((states(&path), lines(&path)), (vec![State::Accepted, State::Rejected], 2));
        assert_eq!(read_candidates(&path).unwrap()[1].decision.reason, "wrong");
    }

    /// Whatever byte a kill cuts the file at, everything before the torn line is there and the file can be gone on with.
    #[test]
    fn a_cut_at_any_byte_loses_only_the_line_being_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        let row = sum(1, 2, "<think>一</think>3");
        let mut store = CandidateStore::open(&path).unwrap();
        store.add([row.clone()]).unwrap();
        let kept = std::fs::metadata(&path).unwrap().len() as usize;
        store.decide(&row.id, decision(State::Accepted, "好")).unwrap();
        drop(store);
        let bytes = std::fs::read(&path).unwrap();
        for cut in 0..=bytes.len() {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            let mut store = CandidateStore::open(&path).unwrap();
            // A whole object without its newline is whole.
            let rows = usize::from(cut + 1 >= kept);
            assert_eq!(store.candidates().len(), rows, "cut at {cut}");
            let accepted = cut + 1 >= bytes.len();
            assert_eq!(
                store.candidates().iter().any(|c| c.decision.state == State::Accepted),
                accepted,
                "cut at {cut}"
            );
            store.add([row.clone()]).unwrap();
            store.decide(&row.id, decision(State::Rejected, "")).unwrap();
            drop(store);
            assert_eq!(read_candidates(&path).unwrap()[0].decision.state, State::Rejected);
        }
    }

    #[test]
    fn bad_files_are_refused_with_their_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.jsonl");
        let row = serde_json::to_string(&sum(1, 2, "3")).unwrap();
        let message = |text: String| {
            std::fs::write(&path, text).unwrap();
            CandidateStore::open(&path).unwrap_err().to_string()
        };
        assert!(message(format!("{row}\nnonsense\n{row}\n")).contains("x.jsonl:2: not a candidate"));
        assert!(message(format!("{row}\n{row}\n")).contains("occurs a second time"));
        assert!(message("{\"decided\":\"zz\",\"state\":\"new\"}\n".into()).contains("a decision about zz"));
        assert!(
            message(format!("{row}\nnonsense\n")).contains("x.jsonl:2"),
            "a bad last line that is whole is no torn one"
        );
        std::fs::write(&path, format!("{row}\n")).unwrap();
        let store = CandidateStore::open(&path).unwrap();
        assert!(CandidateStore::open(&path).unwrap_err().to_string().contains("someone else"));
        let mut store = store;
        assert!(matches!(store.decide("zz", Decision::default()), Err(CurateError::Unknown { .. })));
    }
}
