//! A file of JSON lines that grows by whole steps and can be taken back to one (the part that logs share).
//!
//! Every line is an object with a whole number `"step"`, and steps never fall, so what is kept on resume is a prefix of
//! the file, byte for byte: a killed and resumed run leaves the same file as one that was never interrupted.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::RunsError;
use crate::atomic::{parent, sync_dir, write_atomic, write_atomic_with};

/// The open end of a log.
#[derive(Debug)]
pub(crate) struct StepLines {
    path: PathBuf,
    file: File,
    len: u64,
    last_step: Option<u64>,
}

#[derive(Deserialize)]
struct StepOnly {
    step: u64,
}

/// The part of an existing file that survives.
struct Kept {
    bytes: u64,
    missing_newline: bool,
    last_step: Option<u64>,
}

impl StepLines {
    /// Opens the log for the steps after `resume`, dropping later lines and a torn end; `None` empties it.
    pub fn open(path: &Path, resume: Option<u64>) -> Result<Self, RunsError> {
        let kept = match (File::open(path), resume) {
            (Ok(file), Some(step)) => scan(path, file, step)?,
            (Err(error), _) if error.kind() != io::ErrorKind::NotFound => {
                return Err(RunsError::io("open", path, error));
            }
            _ => Kept { bytes: 0, missing_newline: false, last_step: None },
        };
        let found = path.metadata().map_or(0, |metadata| metadata.len());
        if found != kept.bytes || kept.missing_newline {
            rewrite(path, &kept)?;
        }
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .map_err(|error| RunsError::io("open", path, error))?;
        sync_dir(parent(path))?;
        let len = file.metadata().map_err(|error| RunsError::io("read", path, error))?.len();
        Ok(Self { path: path.to_path_buf(), file, len, last_step: kept.last_step })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The step of the last line, if there is one.
    pub fn last_step(&self) -> Option<u64> {
        self.last_step
    }

    /// Adds the whole lines of one step in one write. After a failed write the file ends where it ended before.
    pub fn append(&mut self, step: u64, lines: &[u8]) -> Result<(), RunsError> {
        if let Err(error) = self.file.write_all(lines) {
            // If this fails too, the torn end is dropped on resume.
            let _ = self.file.set_len(self.len);
            return Err(RunsError::io("write", &self.path, error));
        }
        self.len += lines.len() as u64;
        self.last_step = Some(step);
        Ok(())
    }

    /// Makes everything appended so far durable.
    pub fn sync(&self) -> Result<(), RunsError> {
        self.file.sync_data().map_err(|error| RunsError::io("sync", &self.path, error))
    }
}

/// Finds the prefix of lines with step `<= resume`.
fn scan(path: &Path, file: File, resume: u64) -> Result<Kept, RunsError> {
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let mut kept = Kept { bytes: 0, missing_newline: false, last_step: None };
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let read = reader.read_until(b'\n', &mut line).map_err(|error| RunsError::io("read", path, error))?;
        if read == 0 {
            break;
        }
        let whole = line.last() == Some(&b'\n');
        match serde_json::from_slice::<StepOnly>(&line) {
            Ok(StepOnly { step }) if step > resume => break,
            Ok(StepOnly { step }) => {
                if kept.last_step.is_some_and(|last| step < last) {
                    let reason = format!("step {step} comes after step {}", kept.last_step.unwrap_or(0));
                    return Err(RunsError::BadLine { path: path.to_path_buf(), line: number, reason });
                }
                kept.last_step = Some(step);
                kept.bytes += read as u64;
                // An object that parses is whole even if the kill came between its brace and its newline.
                kept.missing_newline = !whole;
            }
            Err(error) => {
                let at_end = reader.fill_buf().map_err(|error| RunsError::io("read", path, error))?.is_empty();
                if at_end {
                    break;
                }
                return Err(RunsError::BadLine { path: path.to_path_buf(), line: number, reason: error.to_string() });
            }
        }
    }
    Ok(kept)
}

/// Replaces the file by its kept prefix, atomically.
fn rewrite(path: &Path, kept: &Kept) -> Result<(), RunsError> {
    if kept.bytes == 0 {
        return write_atomic(path, b"");
    }
    let file = File::open(path).map_err(|error| RunsError::io("open", path, error))?;
    write_atomic_with(path, |out| {
        io::copy(&mut file.take(kept.bytes), out)?;
        if kept.missing_newline { out.write_all(b"\n") } else { Ok(()) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(text: &[u8], resume: Option<u64>) -> Result<(Vec<u8>, Option<u64>), RunsError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.jsonl");
        std::fs::write(&path, text).unwrap();
        let lines = StepLines::open(&path, resume)?;
        Ok((std::fs::read(&path).unwrap(), lines.last_step()))
    }

    #[test]
    fn keeps_the_prefix_up_to_the_step() {
        let text = b"{\"step\":1}\n{\"step\":2}\n{\"step\":2}\n{\"step\":4}\n";
        assert_eq!(log(text, Some(9)).unwrap(), (text.to_vec(), Some(4)));
        assert_eq!(log(text, Some(3)).unwrap(), (text[..33].to_vec(), Some(2)));
        assert_eq!(log(text, Some(0)).unwrap(), (Vec::new(), None));
        assert_eq!(log(text, None).unwrap(), (Vec::new(), None));
    }

    #[test]
    fn a_torn_end_goes_and_a_bad_middle_is_an_error_with_its_line() {
        assert_eq!(log(b"{\"step\":1}\n{\"st", Some(9)).unwrap().0, b"{\"step\":1}\n");
        assert_eq!(log(b"{\"step\":1}\n\0\0\0\0", Some(9)).unwrap().0, b"{\"step\":1}\n");
        assert_eq!(log(b"{\"step\":1}\n{\"step\":2}", Some(9)).unwrap().0, b"{\"step\":1}\n{\"step\":2}\n");
        let message = log(b"{\"step\":1}\nnonsense\n{\"step\":3}\n", Some(9)).unwrap_err().to_string();
        assert!(message.contains("log.jsonl line 2"), "{message}");
        let message = log(b"{\"step\":2}\n{\"step\":1}\n", Some(9)).unwrap_err().to_string();
        assert!(message.contains("line 2: step 1 comes after step 2"), "{message}");
        assert!(log(b"{\"step\":-1}\n{\"step\":1}\n", Some(9)).is_err());
    }

    #[test]
    fn a_full_disk_is_named() {
        let Ok(file) = OpenOptions::new().append(true).open("/dev/full") else {
            println!("skipped: no /dev/full here");
            return;
        };
        let mut lines = StepLines { path: "/dev/full".into(), file, len: 0, last_step: None };
        let error = lines.append(1, b"{\"step\":1}\n").unwrap_err();
        assert!(error.is_disk_full(), "{error}");
        assert!(error.to_string().contains("/dev/full"), "{error}");
        assert_eq!(lines.last_step(), None);
    }
}
