//! Files that are either the old one or the whole new one: temporary name, fsync, rename, fsync of the folder.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::RunsError;

/// Ends the name of every temporary file and folder of this crate; they also begin with a dot.
const TEMPORARY_SUFFIX: &str = ".tmp";

/// Writes `bytes` to `path`, whole or not at all. The parent folder must exist.
///
/// # Errors
/// [`RunsError::DiskFull`] or [`RunsError::Io`]; the old file is then untouched and no temporary file is left.
pub fn write_atomic(path: impl AsRef<Path>, bytes: &[u8]) -> Result<(), RunsError> {
    write_atomic_with(path, |out| out.write_all(bytes))
}

/// Like [`write_atomic`], for content that is too large to hold in memory: `write` is given a buffered writer.
///
/// # Errors
/// As [`write_atomic`]; also whatever `write` returns.
pub fn write_atomic_with(
    path: impl AsRef<Path>,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<(), RunsError> {
    let path = path.as_ref();
    let temporary = temporary_path(path)?;
    let written = write_synced(&temporary, write).and_then(|()| fs::rename(&temporary, path));
    if let Err(error) = written {
        // The first error is the one to report; a leftover is swept when the run is next opened.
        let _ = fs::remove_file(&temporary);
        return Err(RunsError::io("write", path, error));
    }
    sync_dir(parent(path))
}

fn write_synced(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
    write(&mut out)?;
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

/// Makes the names in a folder durable (fsync of the folder).
///
/// # Errors
/// [`RunsError::Io`] if the folder cannot be opened or synced.
pub fn sync_dir(dir: impl AsRef<Path>) -> Result<(), RunsError> {
    let dir = dir.as_ref();
    File::open(dir).and_then(|folder| folder.sync_all()).map_err(|error| RunsError::io("sync the folder", dir, error))
}

/// The folder a path is in; the current one for a bare file name.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

/// `DIR/NAME` -> `DIR/.NAME.PID-COUNT.tmp`: in the same folder, so that the rename cannot cross file systems.
fn temporary_path(path: &Path) -> Result<PathBuf, RunsError> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let Some(name) = path.file_name() else {
        let source = io::Error::new(io::ErrorKind::InvalidInput, "the path does not name a file");
        return Err(RunsError::io("write", path, source));
    };
    let mut temporary = OsString::from(".");
    temporary.push(name);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    temporary.push(format!(".{}-{count}{TEMPORARY_SUFFIX}", std::process::id()));
    Ok(parent(path).join(temporary))
}

/// What is directly in a folder; nothing if there is no such folder.
pub(crate) fn list(dir: &Path) -> Result<Vec<PathBuf>, RunsError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(RunsError::io("list", dir, error)),
    };
    entries.map(|entry| entry.map(|entry| entry.path()).map_err(|error| RunsError::io("list", dir, error))).collect()
}

/// Removes temporary files and folders that a killed process left in `dir` and the folders in it (links are not
/// followed). The caller holds the run's lock.
pub(crate) fn sweep_temporaries(dir: &Path) -> Result<(), RunsError> {
    let mut open = vec![dir.to_path_buf()];
    while let Some(dir) = open.pop() {
        for path in list(&dir)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with('.') && name.ends_with(TEMPORARY_SUFFIX) {
                remove_any(&path)?;
            } else if path.is_dir() && !path.is_symlink() {
                open.push(path);
            }
        }
    }
    Ok(())
}

/// Removes a file or a folder with what is in it; a path that is not there is fine.
pub(crate) fn remove_any(path: &Path) -> Result<(), RunsError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(RunsError::io("remove", path, error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_whole_files_and_leaves_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        write_atomic(&path, b"old, and longer").unwrap();
        write_atomic(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_write_keeps_the_old_file_and_names_the_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        write_atomic(&path, b"old").unwrap();
        let full = || io::Error::from_raw_os_error(28); // ENOSPC
        let error = write_atomic_with(&path, |out| {
            out.write_all(b"half")?;
            out.flush()?;
            Err(full())
        })
        .unwrap_err();
        assert!(error.is_disk_full());
        let message = error.to_string();
        assert!(message.contains("disk is full") && message.contains("a.json"), "{message}");
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_missing_folder_and_a_path_without_a_name_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let error = write_atomic(dir.path().join("missing/a.json"), b"x").unwrap_err();
        assert!(error.to_string().contains("missing/a.json"), "{error}");
        assert!(write_atomic("/", b"x").is_err());
    }

    #[test]
    fn sweeps_only_temporaries_in_all_folders() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("eval/evals");
        fs::create_dir_all(&inner).unwrap();
        for folder in [dir.path(), &inner] {
            for name in [".a.json.1-2.tmp", "a.tmp", ".hidden"] {
                fs::write(folder.join(name), b"").unwrap();
            }
            fs::create_dir(folder.join(".step_3.tmp")).unwrap();
        }
        sweep_temporaries(dir.path()).unwrap();
        for (folder, expected) in [(dir.path(), &[".hidden", "a.tmp", "eval"][..]), (&inner, &[".hidden", "a.tmp"])] {
            let mut left: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            left.sort();
            assert_eq!(left, expected);
        }
    }

    #[cfg(unix)]
    #[test]
    fn what_is_behind_a_link_is_not_swept() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let kept = other.path().join(".a.json.1-2.tmp");
        fs::write(&kept, b"").unwrap();
        std::os::unix::fs::symlink(other.path(), dir.path().join("link")).unwrap();
        sweep_temporaries(dir.path()).unwrap();
        assert!(kept.exists());
    }
}
