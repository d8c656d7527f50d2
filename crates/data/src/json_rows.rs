//! Rows of a JSON file: one object per line, or one list of them; compressed where the name ends in `.gz`.

use crate::DataError;
use serde_json::Value;
use std::io::Read;
use std::path::Path;

/// What is wrong with a file, or with a line of it.
pub(crate) fn fail(path: &Path, line: Option<usize>, problem: String) -> DataError {
    DataError::Source { path: path.to_path_buf(), line: line.map_or(String::new(), |l| format!(":{l}")), problem }
}

/// The rows with their line (in a list: their number), never none.
///
/// # Errors
/// A file that cannot be read, a line that is no JSON, no rows.
pub(crate) fn read(path: &Path) -> Result<Vec<(usize, Value)>, DataError> {
    let text = text(path).map_err(|e| fail(path, None, format!("cannot be read: {e}")))?;
    let rows: Vec<(usize, Value)> = if text.trim_start().starts_with('[') {
        let rows: Vec<Value> = serde_json::from_str(&text).map_err(|e| {
            fail(path, Some(e.line()), format!("{e}; a file that begins with `[` is one list of objects"))
        })?;
        rows.into_iter().enumerate().map(|(i, row)| (i + 1, row)).collect()
    } else {
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let parse = |(i, line): (usize, &str)| match serde_json::from_str(line) {
            Ok(row) => Ok((i + 1, row)),
            Err(e) => Err(fail(path, Some(i + 1), format!("{e}; each line is one JSON object"))),
        };
        lines.map(parse).collect::<Result<_, _>>()?
    };
    if rows.is_empty() { Err(fail(path, None, "has no rows".into())) } else { Ok(rows) }
}

fn text(path: &Path) -> std::io::Result<String> {
    if path.extension().is_none_or(|e| e != "gz") {
        return std::fs::read_to_string(path);
    }
    let mut text = String::new();
    flate2::read::MultiGzDecoder::new(std::fs::File::open(path)?).read_to_string(&mut text)?;
    Ok(text)
}

/// How many rows a file has.
///
/// # Errors
/// As for whoever reads them: a file that cannot be read, a line that is no JSON, no rows.
pub fn count_rows(path: &Path) -> Result<usize, DataError> {
    read(path).map(|rows| rows.len())
}
