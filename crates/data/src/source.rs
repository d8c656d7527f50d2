//! Documents on disk: JSON lines, plain text, folders of these.
//!
//! A line of `.jsonl` is an object with the text under a key; a `.txt` or `.md` file is one document. Folders are read in
//! the order of their names, deeper folders included.

use crate::DataError;
use std::io::BufRead;
use std::path::{Path, PathBuf};

/// The kinds of file that can be read, for messages.
const KINDS: &str = ".jsonl, .txt or .md";

/// Calls `each` with every document of a file or folder, in order; empty ones are left out. Returns their number.
///
/// # Errors
/// A path that cannot be read, a kind of file that is not known, a line that is no object or has no text under `field`.
pub fn read(path: &Path, field: &str, each: &mut dyn FnMut(&str) -> Result<(), DataError>) -> Result<u64, DataError> {
    let mut count = 0;
    let mut counted = |text: &str| {
        if text.is_empty() {
            return Ok(());
        }
        count += 1;
        each(text)
    };
    for file in files(path)? {
        match extension(&file) {
            Some("jsonl") => lines(&file, field, &mut counted)?,
            Some("txt" | "md") => {
                let text =
                    std::fs::read_to_string(&file).map_err(|e| problem(&file, None, format!("cannot read: {e}")))?;
                counted(&text)?;
            }
            _ => return Err(problem(&file, None, format!("cannot tell what it holds; give {KINDS}"))),
        }
    }
    if count == 0 {
        return Err(problem(path, None, "holds no documents".to_owned()));
    }
    Ok(count)
}

fn problem(path: &Path, line: Option<usize>, problem: String) -> DataError {
    DataError::Source { path: path.to_path_buf(), line: line.map_or(String::new(), |l| format!(":{l}")), problem }
}

fn extension(path: &Path) -> Option<&str> {
    path.extension().and_then(|e| e.to_str())
}

/// The file itself, or the readable files of a folder in order.
fn files(path: &Path) -> Result<Vec<PathBuf>, DataError> {
    let failed =
        |e: std::io::Error| problem(path, None, format!("cannot read: {e}; give a file or folder that exists"));
    if !std::fs::metadata(path).map_err(failed)?.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut entries: Vec<PathBuf> = std::fs::read_dir(path)
        .map_err(failed)?
        .map(|e| e.map(|e| e.path()))
        .collect::<Result<_, _>>()
        .map_err(failed)?;
    entries.sort();
    let mut all = Vec::new();
    for entry in entries {
        if entry.is_dir() {
            all.extend(files(&entry)?);
        } else if matches!(extension(&entry), Some("jsonl" | "txt" | "md")) {
            all.push(entry);
        }
    }
    Ok(all)
}

fn lines(file: &Path, field: &str, each: &mut dyn FnMut(&str) -> Result<(), DataError>) -> Result<(), DataError> {
    let open = std::fs::File::open(file).map_err(|e| problem(file, None, format!("cannot read: {e}")))?;
    for (i, line) in std::io::BufReader::new(open).lines().enumerate() {
        let fail = |text: String| problem(file, Some(i + 1), text);
        let line = line.map_err(|e| fail(format!("cannot read: {e}")))?;
        if line.trim().is_empty() {
            continue;
        }
        let value: serde_json::Value = serde_json::from_str(&line).map_err(|e| fail(format!("not JSON: {e}")))?;
        match value.get(field).map(|v| v.as_str()) {
            Some(Some(text)) => each(text)?,
            Some(None) => return Err(fail(format!("\"{field}\" is not a text"))),
            None => {
                let keys: Vec<&str> =
                    value.as_object().into_iter().flat_map(|o| o.keys()).map(String::as_str).take(8).collect();
                let has =
                    if keys.is_empty() { "it is no object".to_owned() } else { format!("it has {}", keys.join(", ")) };
                return Err(fail(format!("no \"{field}\" ({has}); name the key of the text with `field`")));
            }
        }
    }
    Ok(())
}
