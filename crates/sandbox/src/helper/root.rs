//! The file system of a run: an empty root in memory, with system folders and the interpreter bound read-only, the files of
//! the job in `/box`, a scratch `/tmp` bounded in bytes and files, four devices, and neither `/proc` nor `/sys`.

use super::sys;
use crate::wire::{BoxFile, Job};
use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

const DEVICES: [&str; 4] = ["/dev/null", "/dev/zero", "/dev/random", "/dev/urandom"];
const LOCKED: libc::c_ulong = libc::MS_NOSUID | libc::MS_NODEV;

/// Builds the root and moves into it. The helper is in a mount namespace of its own already.
///
/// # Errors
/// The step and what the system said.
pub fn build(job: &Job, files: &[Vec<u8>]) -> Result<(), String> {
    let none = Path::new("");
    sys::mount(none, Path::new("/"), c"", libc::MS_REC | libc::MS_PRIVATE, "").map_err(step("make mounts private"))?;
    let base = base_folder(&job.readable)?;
    let size = (64 << 20) + files.iter().map(|f| f.len() as u64).sum::<u64>();
    let options = format!("mode=755,size={size},nr_inodes=4096");
    sys::mount(Path::new("none"), &base, c"tmpfs", LOCKED, &options).map_err(step("mount the root"))?;
    for path in &job.readable {
        expose(&base, path)?;
    }
    for device in DEVICES.map(Path::new).into_iter().filter(|d| d.exists()) {
        bind(&base, device, libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC)?;
    }
    let folder = base.join("box");
    for dir in [inside(&base, Path::new(job.scratch())), folder.clone(), folder.join("out")] {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(&dir).map_err(step("make a folder"))?;
    }
    write_files(&folder, &job.files, files)?;
    std::env::set_current_dir(&base).map_err(step("enter the new root"))?;
    sys::pivot_here().map_err(step("change the root"))?;
    let attributes = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
    sys::restrict_mount(Path::new("/"), attributes, false).map_err(step("make the root read-only"))?;
    if job.writable_out {
        scratch(job, Path::new("/box/out"), 0)?;
    }
    scratch(job, Path::new(job.scratch()), libc::MS_NOEXEC)
}

/// Mounts an empty scratch folder, over what a case before has left.
///
/// # Errors
/// What the system said.
pub fn scratch(job: &Job, at: &Path, flags: libc::c_ulong) -> Result<(), String> {
    let limits = &job.limits;
    let options = format!("mode=1777,size={},nr_inodes={}", limits.scratch.max(4096), limits.scratch_files.max(2));
    sys::mount(Path::new("none"), at, c"tmpfs", LOCKED | flags, &options).map_err(step("mount a scratch folder"))
}

/// Empties the scratch folder for the next case.
///
/// # Errors
/// What the system said.
pub fn renew_scratch(job: &Job) -> Result<(), String> {
    let folder = sys::c_path(Path::new(job.scratch())).map_err(step("name the scratch folder"))?;
    sys::unmount(&folder).map_err(step("unmount the scratch folder"))?;
    scratch(job, Path::new(job.scratch()), libc::MS_NOEXEC)
}

/// Puts the job's files into the box folder, readable by all and writable by none but the owner.
///
/// # Errors
/// What the system said.
pub fn write_files(folder: &Path, files: &[BoxFile], contents: &[Vec<u8>]) -> Result<(), String> {
    for (file, bytes) in files.iter().zip(contents) {
        let path = folder.join(&file.name);
        fs::write(&path, bytes).map_err(step("write a file of the box"))?;
        let mode = if file.executable { 0o555 } else { 0o444 };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).map_err(step("set permissions in the box"))?;
    }
    Ok(())
}

/// Puts other files into the box in place of those of the run before. No program runs meanwhile.
///
/// # Errors
/// What the system said; then nothing must run.
pub fn replace_files(folder: &Path, old: &[String], new: &[BoxFile], bytes: &[Vec<u8>]) -> Result<(), String> {
    let change = |add, remove| sys::change_mount(Path::new("/"), add, remove, false).map_err(step("change the root"));
    change(0, libc::MOUNT_ATTR_RDONLY)?;
    let written = (|| {
        for name in old {
            fs::remove_file(folder.join(name)).map_err(step("remove a file of the box"))?;
        }
        write_files(folder, new, bytes)
    })();
    change(libc::MOUNT_ATTR_RDONLY, 0)?;
    written
}

fn step(words: &'static str) -> impl Fn(std::io::Error) -> String {
    move |e| format!("{words}: {e}")
}

/// A folder to mount the new root on: what it hides must not be needed.
fn base_folder(readable: &[PathBuf]) -> Result<PathBuf, String> {
    let usable = |dir: &&str| Path::new(dir).is_dir() && !readable.iter().any(|p| p.starts_with(dir));
    let found = ["/mnt", "/media", "/srv", "/opt", "/home", "/var", "/tmp"].into_iter().find(usable);
    found.map(PathBuf::from).ok_or_else(|| "no folder to mount the new root on".to_owned())
}

fn inside(base: &Path, path: &Path) -> PathBuf {
    base.join(path.strip_prefix("/").unwrap_or(path))
}

/// Makes `path` visible: a link as a link, a folder or file bound read-only.
fn expose(base: &Path, path: &Path) -> Result<(), String> {
    let Ok(kind) = fs::symlink_metadata(path).map(|m| m.file_type()) else { return Ok(()) };
    if inside(base, path)
        .symlink_metadata()
        .is_ok_and(|m| !m.is_dir() || fs::read_dir(inside(base, path)).is_ok_and(|mut d| d.next().is_some()))
    {
        return Ok(()); // visible already as part of another path
    }
    if kind.is_symlink() {
        let target = fs::read_link(path).map_err(step("read a link"))?;
        return std::os::unix::fs::symlink(target, inside(base, path)).map_err(step("make a link"));
    }
    bind(base, path, libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV)
}

fn bind(base: &Path, path: &Path, attributes: u64) -> Result<(), String> {
    if path.components().any(|c| c == Component::ParentDir) || !path.is_absolute() {
        return Err(format!("{} is not an absolute path", path.display()));
    }
    let target = inside(base, path);
    let parent = if path.is_dir() { target.as_path() } else { target.parent().unwrap_or(base) };
    fs::DirBuilder::new().recursive(true).mode(0o755).create(parent).map_err(step("make a folder of the root"))?;
    if !path.is_dir() {
        fs::write(&target, b"").map_err(step("make a file of the root"))?;
    }
    let failed = |e: std::io::Error| format!("bind {}: {e}", path.display());
    sys::mount(path, &target, c"", libc::MS_BIND | libc::MS_REC, "").map_err(failed)?;
    sys::restrict_mount(&target, attributes, true).map_err(failed)
}
