//! Documents in one file, found by number: `NAME.text` holds them end to end, `NAME.index` the byte where each one ends.
//!
//! Whatever the documents came from, training reads this: random access, nothing in memory but eight bytes per document, and
//! a resumed run does not depend on files that may have changed.

use crate::DataError;
use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// A store opened for reading.
#[derive(Debug)]
pub struct TextStore {
    path: PathBuf,
    file: Mutex<File>,
    ends: Vec<u64>,
}

fn failed(path: &Path) -> impl Fn(std::io::Error) -> DataError {
    let path = path.to_path_buf();
    move |e| DataError::Source { path: path.clone(), line: String::new(), problem: e.to_string() }
}

impl TextStore {
    /// Writes a store from what `fill` gives to its argument. The index comes last and makes the store complete.
    ///
    /// # Errors
    /// A failed write, and whatever `fill` answers.
    pub fn write(
        stem: &Path,
        fill: impl FnOnce(&mut dyn FnMut(&str) -> Result<(), DataError>) -> Result<u64, DataError>,
    ) -> Result<u64, DataError> {
        let (text, index) = (stem.with_extension("text"), stem.with_extension("index"));
        let fail = failed(&text);
        let mut out = BufWriter::new(File::create(&text).map_err(&fail)?);
        let (mut at, mut ends) = (0u64, Vec::new());
        let count = fill(&mut |document| {
            out.write_all(document.as_bytes()).map_err(failed(&text))?;
            at += document.len() as u64;
            ends.extend_from_slice(&at.to_le_bytes());
            Ok(())
        })?;
        out.into_inner().map_err(|e| fail(e.into_error()))?.sync_all().map_err(&fail)?;
        let temporary = stem.with_extension("tmp");
        std::fs::write(&temporary, &ends).and_then(|()| std::fs::rename(&temporary, &index)).map_err(failed(&index))?;
        Ok(count)
    }

    /// Opens a store.
    ///
    /// # Errors
    /// Files that are missing or do not belong together.
    pub fn open(stem: &Path) -> Result<Self, DataError> {
        let (path, index) = (stem.with_extension("text"), stem.with_extension("index"));
        let bytes = std::fs::read(&index).map_err(failed(&index))?;
        let ends: Vec<u64> =
            bytes.chunks_exact(8).map(|b| b.iter().rev().fold(0, |n, byte| n << 8 | u64::from(*byte))).collect();
        let file = File::open(&path).map_err(failed(&path))?;
        let length = file.metadata().map_err(failed(&path))?.len();
        if ends.last() != Some(&length) || ends.windows(2).any(|w| w[0] > w[1]) {
            let problem = "does not match its index; remove the stage's folder and run again".to_owned();
            return Err(DataError::Source { path, line: String::new(), problem });
        }
        Ok(TextStore { path, file: Mutex::new(file), ends })
    }

    /// Number of documents.
    pub fn len(&self) -> u64 {
        self.ends.len() as u64
    }

    /// Whether there are none; an opened store has some.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Mean length of a document in bytes.
    pub fn mean_bytes(&self) -> f64 {
        self.ends.last().map_or(0.0, |end| *end as f64 / self.ends.len() as f64)
    }

    /// Document `i`.
    ///
    /// # Errors
    /// A failed read.
    ///
    /// # Panics
    /// When `i` is not below [`TextStore::len`].
    pub fn get(&self, i: u64) -> Result<String, DataError> {
        let end = self.ends[i as usize];
        let start = if i == 0 { 0 } else { self.ends[i as usize - 1] };
        let mut bytes = vec![0; (end - start) as usize];
        let read = {
            let mut file = self.file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            file.seek(SeekFrom::Start(start)).and_then(|_| file.read_exact(&mut bytes))
        };
        read.map_err(failed(&self.path))?;
        String::from_utf8(bytes).map_err(|_| failed(&self.path)(std::io::Error::other("text is not UTF-8")))
    }
}
