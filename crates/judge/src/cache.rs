//! Answers that were had before: a file of JSON lines, `{"key": SHA-256, "text": ..., "tokens": ...}`, appended as they come.

use crate::chat::{ChatRequest, Reply};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

#[derive(Serialize, Deserialize)]
struct Line {
    key: String,
    #[serde(flatten)]
    reply: Reply,
}

/// Answers by model and request; with a file they outlive the process.
pub struct Cache {
    known: Mutex<HashMap<String, Reply>>,
    file: Option<(PathBuf, Mutex<File>)>,
}

impl Cache {
    /// A cache in memory.
    pub fn new() -> Self {
        Cache { known: Mutex::default(), file: None }
    }

    /// A cache in a file, made if it is not there. A last line that a kill tore is cut off.
    ///
    /// # Errors
    /// A file that cannot be read or written, a line that is no answer.
    pub fn open(path: &Path) -> Result<Self, String> {
        let fail = |e: std::io::Error| format!("{}: {e}", path.display());
        let mut text = match std::fs::read_to_string(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            text => text.map_err(fail)?,
        };
        text.truncate(text.rfind('\n').map_or(0, |end| end + 1));
        let mut known = HashMap::new();
        for (i, line) in text.lines().enumerate() {
            let line: Line = serde_json::from_str(line)
                .map_err(|e| format!("{}:{}: {e}; delete the line", path.display(), i + 1))?;
            known.insert(line.key, line.reply);
        }
        let file = File::options().create(true).append(true).open(path).map_err(fail)?;
        file.set_len(text.len() as u64).map_err(fail)?;
        Ok(Cache { known: Mutex::new(known), file: Some((path.to_path_buf(), Mutex::new(file))) })
    }

    pub(crate) fn key(model: &str, request: &ChatRequest) -> String {
        let json = serde_json::to_string(&(model, request)).expect("plain data");
        Sha256::digest(json).iter().map(|b| format!("{b:02x}")).collect()
    }

    pub(crate) fn get(&self, key: &str) -> Option<Reply> {
        self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get(key).cloned()
    }

    /// Remembers an answer.
    pub(crate) fn put(&self, key: &str, reply: &Reply) -> Result<(), String> {
        self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(key.to_owned(), reply.clone());
        let Some((path, file)) = &self.file else { return Ok(()) };
        let line =
            serde_json::to_string(&Line { key: key.to_owned(), reply: reply.clone() }).expect("plain data") + "\n";
        let mut file = file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        file.write_all(line.as_bytes()).and_then(|()| file.flush()).map_err(|e| format!("{}: {e}", path.display()))
    }
}

impl Default for Cache {
    fn default() -> Self {
        Self::new()
    }
}
