//! What a curation leaves in its folder: `kept.jsonl`, `messages.jsonl`, `thrown.jsonl`, `card.json`, `card.md`.

use std::collections::HashMap;
use std::path::Path;

use aha_runs::write_atomic;
use serde_json::{Value, json};

use crate::candidate::{Candidate, State};
use crate::card::{Card, FileDigest};
use crate::error::CurateError;
use crate::pipeline::Curated;
use crate::store::{read_candidates, write_lines};

/// The rows that stay, as candidates.
pub const KEPT: &str = "kept.jsonl";
/// The same as conversations to train on: `{"id", "family", "language", "source", "messages"}`.
pub const MESSAGES: &str = "messages.jsonl";
/// The rows that went, with filter and reason.
pub const THROWN: &str = "thrown.jsonl";
/// The data card for programs.
pub const CARD_JSON: &str = "card.json";
/// The data card for people.
pub const CARD_MARKDOWN: &str = "card.md";

/// Rows of several files as one list: of rows with the same id the first stays, with whatever was decided in any of them.
/// Gives the rows and how many were left out.
pub fn unite(files: impl IntoIterator<Item = Vec<Candidate>>) -> (Vec<Candidate>, usize) {
    let (mut rows, mut places, mut repeated) = (Vec::<Candidate>::new(), HashMap::new(), 0);
    for row in files.into_iter().flatten() {
        let Some(&at) = places.get(&row.id) else {
            places.insert(row.id.clone(), rows.len());
            rows.push(row);
            continue;
        };
        repeated += 1;
        let known: &mut Candidate = &mut rows[at];
        if known.decision.when < row.decision.when || known.decision.state == State::New {
            known.decision = row.decision;
        }
    }
    (rows, repeated)
}

/// Refuses a folder whose `kept.jsonl` holds decisions that are not among the rows: they would be lost.
///
/// # Errors
/// Such decisions, or a `kept.jsonl` that is none of ours.
pub fn check_folder(dir: &Path, rows: &[Candidate]) -> Result<(), CurateError> {
    let path = dir.join(KEPT);
    if !path.exists() {
        return Ok(());
    }
    let known: HashMap<&str, &Candidate> = rows.iter().map(|row| (row.id.as_str(), row)).collect();
    let old = read_candidates(&path)?;
    let has =
        |row: &Candidate| known.get(row.id.as_str()).is_some_and(|known| known.decision.state == row.decision.state);
    let lost = old.iter().filter(|row| row.decision.state != State::New && !has(row)).count();
    if lost > 0 {
        let problem =
            format!("holds {lost} decisions that would be lost; add it to the rows that go in, or write elsewhere");
        return Err(CurateError::file(&path, problem));
    }
    Ok(())
}

/// A row as a conversation to train on.
fn conversation(row: &Candidate) -> Value {
    json!({
        "id": row.id, "family": row.problem.family, "language": row.problem.language, "source": row.source,
        "messages": row.messages(),
    })
}

/// Writes everything, each file whole or not at all, and puts the files' hashes into the card. The folder must exist.
///
/// # Errors
/// A file that cannot be written.
pub fn write_outputs(dir: &Path, curated: &Curated, card: &mut Card) -> Result<(), CurateError> {
    write_lines(&dir.join(KEPT), &curated.kept)?;
    let conversations: Vec<Value> = curated.kept.iter().map(conversation).collect();
    write_lines(&dir.join(MESSAGES), &conversations)?;
    write_lines(&dir.join(THROWN), &curated.thrown)?;
    let counts = [(KEPT, curated.kept.len()), (MESSAGES, conversations.len()), (THROWN, curated.thrown.len())];
    card.outputs =
        counts.into_iter().map(|(name, rows)| FileDigest::of(&dir.join(name), name, rows)).collect::<Result<_, _>>()?;
    write_atomic(dir.join(CARD_JSON), card.json().as_bytes())?;
    write_atomic(dir.join(CARD_MARKDOWN), card.markdown().as_bytes())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::candidate::Decision;
    use crate::candidate::tests::sum;
    use crate::pipeline::curate;
    use crate::settings::Settings;

    #[test]
    fn files_agree_with_the_card_and_can_go_in_again() {
        let dir = tempfile::tempdir().unwrap();
        let rows = vec![sum(1, 2, "<think>a</think><answer>3</answer>"), sum(1, 3, "<think>a</think>9")];
        let settings = Settings::default();
        let curated = curate(rows.clone(), Vec::new(), &settings, |_| ()).unwrap();
        let mut card = Card::new("aha", &curated, &settings);
        write_outputs(dir.path(), &curated, &mut card).unwrap();
        assert_eq!(crate::read_rows(&dir.path().join(KEPT)).unwrap(), curated.kept);
        let messages = crate::read_rows(&dir.path().join(MESSAGES)).unwrap();
        assert_eq!(messages[0].completion, "<think>a</think>The answer is 3");
        let thrown: Value = serde_json::from_slice(&std::fs::read(dir.path().join(THROWN)).unwrap()).unwrap();
        assert_eq!((&thrown["filter"], &thrown["row"]["completion"]), (&json!("correct"), &json!("<think>a</think>9")));
        assert_eq!(card.outputs[0], FileDigest::of(&dir.path().join(KEPT), KEPT, 1).unwrap());
        assert_eq!(std::fs::read_to_string(dir.path().join(CARD_JSON)).unwrap(), card.json());
        // What was kept once is kept again, and says the same.
        let again = curate(curated.kept.clone(), Vec::new(), &settings, |_| ()).unwrap();
        assert_eq!(again.kept, curated.kept);

        check_folder(dir.path(), &rows).unwrap();
        let mut decided = curated.kept.clone();
        decided[0].decision = Decision { state: State::Accepted, when: Some(1.0), ..Decision::default() };
        write_lines(&dir.path().join(KEPT), &decided).unwrap();
        assert!(check_folder(dir.path(), &rows).unwrap_err().to_string().contains("1 decisions that would be lost"));
        let (united, repeated) = unite([rows, decided.clone()]);
        assert_eq!((united.len(), repeated, united[0].decision.state), (2, 1, State::Accepted));
        check_folder(dir.path(), &united).unwrap();
    }
}
