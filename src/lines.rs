//! Files of lines, in and out: every mistake in one names `FILE:LINE`, and an output file appears whole or not at all.

use aha_engine::EngineError;
use anyhow::{Context, anyhow};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::Write;
use std::path::{Path, PathBuf};

/// A value and the line it stands on, from 1.
pub struct Numbered<T> {
    pub line: usize,
    pub value: T,
}

/// The lines of a file that are not blank.
///
/// # Errors
/// A file that cannot be read, is not UTF-8 (with the line) or has no line.
pub fn read(path: &Path) -> anyhow::Result<Vec<Numbered<String>>> {
    let bytes = std::fs::read(path).with_context(|| format!("{}: cannot read", path.display()))?;
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let mut lines = Vec::new();
    for (i, line) in bytes.split(|b| *b == b'\n').enumerate() {
        let text = std::str::from_utf8(line)
            .map_err(|e| at(path, i + 1, format!("not UTF-8 (byte {})", e.valid_up_to() + 1)))?;
        if !text.trim().is_empty() {
            lines.push(Numbered { line: i + 1, value: text.trim_end_matches('\r').to_owned() });
        }
    }
    if lines.is_empty() {
        return Err(anyhow!("{}: there is nothing in it", path.display()));
    }
    Ok(lines)
}

/// One JSON object per line.
///
/// # Errors
/// As [`read`], and the first line that is not what `T` wants.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> anyhow::Result<Vec<Numbered<T>>> {
    let parse = |n: Numbered<String>| match serde_json::from_str(&n.value) {
        Ok(value) => Ok(Numbered { line: n.line, value }),
        Err(e) => Err(at(path, n.line, json_problem(&e))),
    };
    read(path)?.into_iter().map(parse).collect()
}

/// The parser's words without its own line number, which is always 1 here.
fn json_problem(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let words = text.split(" at line ").next().unwrap_or(&text).to_owned();
    match error.classify() {
        serde_json::error::Category::Data => words,
        _ => format!("not JSON: {words} (column {})", error.column()),
    }
}

/// An error about a line.
pub fn at(path: &Path, line: usize, problem: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("{}:{line}: {problem}", path.display())
}

/// An error of the engine about one of the requests that were read from `lines` of `path`.
pub fn engine_error(path: &Path, lines: &[usize], error: &EngineError) -> anyhow::Error {
    let index = match error {
        EngineError::EmptyPrompt(request)
        | EngineError::Token { request, .. }
        | EngineError::TooLong { request, .. }
        | EngineError::CacheTooSmall { request, .. }
        | EngineError::Setting { request, .. } => *request,
    };
    let text = error.to_string();
    let problem = text.strip_prefix(&format!("request {index}: ")).unwrap_or(&text);
    at(path, lines.get(index).copied().unwrap_or(index + 1), problem)
}

/// Writes values as JSON lines to a file, whole or not at all, or to stdout.
///
/// # Errors
/// A failed write, naming the file.
pub fn write_json<T: Serialize>(path: Option<&Path>, values: &[T]) -> anyhow::Result<()> {
    let line = |value: &T| serde_json::to_string(value).expect("names are strings, so this is always JSON");
    let Some(path) = path else {
        values.iter().for_each(|value| crate::output::result(line(value)));
        return Ok(());
    };
    aha_runs::write_atomic_with(path, |out| values.iter().try_for_each(|value| writeln!(out, "{}", line(value))))?;
    Ok(())
}

/// Refuses an output whose folder does not exist before hours of work go into it.
///
/// # Errors
/// The folder is missing, or the path is a folder itself.
pub fn check_output(path: Option<&PathBuf>) -> anyhow::Result<()> {
    let Some(path) = path else { return Ok(()) };
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if path.is_dir() {
        return Err(anyhow!("{}: this is a folder; give the name of a file", path.display()));
    }
    if !folder.is_dir() {
        return Err(anyhow!("{}: the folder {} does not exist; make it first", path.display(), folder.display()));
    }
    Ok(())
}
