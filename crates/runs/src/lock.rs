//! One writer per run: an exclusive lock on `DIR/.lock`, held by the open file.
//!
//! The kernel drops the lock when its process ends, however it ends, so a stale lock cannot stay. Where the file system
//! has no locks (some cluster file systems), the process id in the file decides: a dead one is taken over.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::RunsError;

/// The right to write a run; given back when dropped or when the process ends.
#[derive(Debug)]
pub struct RunLock {
    _file: File,
    path: PathBuf,
}

impl RunLock {
    /// Takes the lock of the run in `dir`, without waiting.
    ///
    /// # Errors
    /// [`RunsError::Locked`] when another living process (or another [`RunLock`] in this one) has it.
    pub fn acquire(dir: &Path) -> Result<Self, RunsError> {
        let path = dir.join(".lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|error| RunsError::io("open", &path, error))?;
        let mut holder = String::new();
        // The content only serves the message and file systems without locks, so a failed read is no error.
        let _ = file.read_to_string(&mut holder);
        let holder: Option<u32> = holder.trim().parse().ok();
        let locked = || RunsError::Locked {
            path: dir.to_path_buf(),
            holder: holder.map_or_else(|| "pid unknown".to_owned(), |pid| format!("pid {pid}")),
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(locked()),
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
                if holder.is_some_and(is_alive) {
                    return Err(locked());
                }
            }
            Err(TryLockError::Error(error)) => return Err(RunsError::io("lock", &path, error)),
        }
        file.set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| write!(file, "{}", std::process::id()))
            .map_err(|error| RunsError::io("write", &path, error))?;
        Ok(Self { _file: file, path })
    }
}

impl Drop for RunLock {
    fn drop(&mut self) {
        // Emptied rather than removed: removing a lock file lets two processes hold two files of one name.
        let _ = OpenOptions::new().write(true).truncate(true).open(&self.path);
    }
}

/// Whether a process of this id runs here. Only Linux can tell without unsafe code; elsewhere the answer is yes.
fn is_alive(pid: u32) -> bool {
    !Path::new("/proc/self").exists() || Path::new("/proc").join(pid.to_string()).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_writer_is_refused_by_name_and_may_come_back_later() {
        let dir = tempfile::tempdir().unwrap();
        let first = RunLock::acquire(dir.path()).unwrap();
        let message = RunLock::acquire(dir.path()).unwrap_err().to_string();
        assert!(message.contains(&format!("pid {}", std::process::id())), "{message}");
        assert!(message.contains("--out"), "{message}");
        drop(first);
        RunLock::acquire(dir.path()).unwrap();
    }

    #[test]
    fn the_lock_of_a_dead_process_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        for stale in ["4194305", "", "nonsense"] {
            std::fs::write(dir.path().join(".lock"), stale).unwrap();
            let _lock = RunLock::acquire(dir.path()).unwrap();
            let content = std::fs::read_to_string(dir.path().join(".lock")).unwrap();
            assert_eq!(content, std::process::id().to_string());
        }
    }

    #[test]
    fn tells_the_living_from_the_dead() {
        assert!(is_alive(std::process::id()));
        if Path::new("/proc/self").exists() {
            assert!(!is_alive(4_194_305)); // one above the largest process id Linux gives out
        }
    }
}
