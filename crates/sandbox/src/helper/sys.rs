//! The system calls that the standard library does not have, each as a safe function. The helper is single-threaded, which
//! is what makes a fork without exec sound here.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

fn check(result: i64) -> io::Result<i64> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A path as the kernel wants it.
pub fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

/// Forks into the namespaces of `flags`; 0 in the child.
pub fn fork(flags: i32) -> io::Result<i32> {
    // SAFETY: a plain fork of a single-threaded process: no new stack, no thread ids are passed.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone, flags | libc::SIGCHLD, 0usize, 0usize, 0usize, 0usize) })?;
    Ok(pid as i32)
}

/// Ends this process without running destructors of the parent's state.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` never returns and touches nothing.
    unsafe { libc::_exit(code) }
}

/// What `wait4` says.
#[derive(Clone, Copy)]
pub struct Waited {
    pub pid: i32,
    pub status: i32,
    pub cpu_us: u64,
    pub max_rss: u64,
}

/// Waits for a child (-1: any); none when `nohang` and nobody ended. The times are those of the child and of all it waited
/// for.
pub fn wait(pid: i32, nohang: bool) -> io::Result<Option<Waited>> {
    let mut status = 0;
    // SAFETY: rusage is plain numbers, for which all zeros are a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both pointers are to live variables of the right type.
        let got = unsafe { libc::wait4(pid, &mut status, if nohang { libc::WNOHANG } else { 0 }, &mut usage) };
        if got < 0 {
            let error = io::Error::last_os_error();
            if error.kind() == io::ErrorKind::Interrupted {
                continue;
            }
            return Err(error);
        }
        let us = |t: libc::timeval| t.tv_sec as u64 * 1_000_000 + t.tv_usec as u64;
        let waited = Waited {
            pid: got,
            status,
            cpu_us: us(usage.ru_utime) + us(usage.ru_stime),
            max_rss: usage.ru_maxrss as u64 * 1024,
        };
        return Ok((got > 0).then_some(waited));
    }
}

/// Sends SIGKILL.
pub fn kill(pid: i32) {
    // SAFETY: sends a signal, touches no memory. A process that is gone is no error for the caller.
    unsafe { libc::kill(pid, libc::SIGKILL) };
}

/// Sends SIGSTOP.
pub fn stop(pid: i32) {
    // SAFETY: as for `kill`.
    unsafe { libc::kill(pid, libc::SIGSTOP) };
}

/// A pipe: read end, write end, both closed on exec.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    // SAFETY: the array has room for both descriptors, which are then owned by nobody else.
    unsafe {
        check(i64::from(libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC)))?;
        Ok((OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])))
    }
}

/// Makes reads of a descriptor return at once.
pub fn set_nonblocking(fd: &OwnedFd) -> io::Result<()> {
    // SAFETY: sets a flag of an open descriptor.
    check(i64::from(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) })).map(drop)
}

/// A file in memory that holds `bytes`, cannot be written any more, and is read from its beginning.
pub fn sealed_memory(bytes: &[u8]) -> io::Result<OwnedFd> {
    use std::io::{Seek, Write};
    // SAFETY: the name is a C string; the new descriptor is owned by nobody else.
    let fd = unsafe {
        let fd = check(i64::from(libc::memfd_create(c"input".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING)))?;
        OwnedFd::from_raw_fd(fd as RawFd)
    };
    let mut file = std::fs::File::from(fd);
    file.write_all(bytes)?;
    file.rewind()?;
    let seals = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;
    // SAFETY: sets seals on an open descriptor.
    check(i64::from(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) }))?;
    Ok(file.into())
}

/// Waits until one of `fds` has something to read or is closed, or `timeout_ms` passed; true for each that has.
pub fn poll(fds: &[RawFd], timeout_ms: i32) -> io::Result<Vec<bool>> {
    let mut polled: Vec<libc::pollfd> =
        fds.iter().map(|fd| libc::pollfd { fd: *fd, events: libc::POLLIN, revents: 0 }).collect();
    // SAFETY: the pointer and the length are those of one live array.
    let result = unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, timeout_ms) };
    match check(i64::from(result)) {
        Err(e) if e.kind() != io::ErrorKind::Interrupted => Err(e),
        _ => Ok(polled.iter().map(|p| p.revents != 0).collect()),
    }
}

/// `dup2`.
pub fn duplicate(from: RawFd, to: RawFd) -> io::Result<()> {
    // SAFETY: whatever was open at `to` is replaced on purpose; the caller uses raw numbers only after this.
    check(i64::from(unsafe { libc::dup2(from, to) })).map(drop)
}

/// Closes every descriptor from `first` on.
pub fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: called right before exec or in a process that owns no Rust handle it will use again.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0u32) }).map(drop)
}

/// `unshare`.
pub fn unshare(flags: i32) -> io::Result<()> {
    // SAFETY: changes namespaces of this single-threaded process.
    check(i64::from(unsafe { libc::unshare(flags) })).map(drop)
}

/// `mount`; an empty text stands for none.
pub fn mount(source: &Path, target: &Path, kind: &CStr, flags: libc::c_ulong, data: &str) -> io::Result<()> {
    let (source, target) = (c_path(source)?, c_path(target)?);
    let data = CString::new(data).map_err(io::Error::other)?;
    // SAFETY: all pointers are to C strings that outlive the call.
    let result = unsafe { libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, data.as_ptr().cast()) };
    check(i64::from(result)).map(drop)
}

/// Detaches a mount.
pub fn unmount(target: &CStr) -> io::Result<()> {
    // SAFETY: the pointer is to a C string.
    check(i64::from(unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) })).map(drop)
}

/// Adds `MOUNT_ATTR_*` to a mount, with all below it when `recursive`.
pub fn restrict_mount(target: &Path, attributes: u64, recursive: bool) -> io::Result<()> {
    change_mount(target, attributes, 0, recursive)
}

/// Adds some `MOUNT_ATTR_*` and takes others away.
pub fn change_mount(target: &Path, add: u64, remove: u64, recursive: bool) -> io::Result<()> {
    let target = c_path(target)?;
    let attr = libc::mount_attr { attr_set: add, attr_clr: remove, propagation: 0, userns_fd: 0 };
    let flags = if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a C string, the structure and its size belong together.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            target.as_ptr(),
            flags,
            &attr as *const libc::mount_attr,
            size_of::<libc::mount_attr>(),
        )
    };
    check(result).map(drop)
}

/// Makes the current folder the root and forgets the old root.
pub fn pivot_here() -> io::Result<()> {
    // SAFETY: the pointers are to C strings.
    check(unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) })?;
    unmount(c".")?;
    std::env::set_current_dir("/")
}

/// `prctl` with numbers only.
pub fn prctl(option: i32, value: u64) -> io::Result<i64> {
    // SAFETY: only options whose arguments are numbers are passed.
    check(i64::from(unsafe { libc::prctl(option, value, 0u64, 0u64, 0u64) }))
}

/// Sets both the soft and the hard limit.
pub fn set_limit(resource: libc::__rlimit_resource_t, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: the pointer is to a live structure.
    check(i64::from(unsafe { libc::setrlimit(resource, &limit) })).map(drop)
}

/// Sets the soft limit, to the hard one where that is lower.
pub fn set_soft_limit(resource: libc::__rlimit_resource_t, soft: u64) -> io::Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a live structure.
    check(i64::from(unsafe { libc::getrlimit(resource, &mut limit) }))?;
    set_limit(resource, soft.min(limit.rlim_max), limit.rlim_max)
}

/// Whether a socket holds bytes; false when the other side is gone.
pub fn has_bytes(socket: &OwnedFd) -> bool {
    let mut byte = 0u8;
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    // SAFETY: the kernel writes at most one byte to a live variable.
    unsafe { libc::recv(socket.as_raw_fd(), (&raw mut byte).cast(), 1, flags) > 0 }
}

/// Becomes a user and a group, without further groups when `groups`.
pub fn become_user(uid: u32, gid: u32, groups: bool) -> io::Result<()> {
    // SAFETY: numbers only; no group is read when their count is 0.
    unsafe {
        if groups {
            check(i64::from(libc::setgroups(0, std::ptr::null())))?;
        }
        check(i64::from(libc::setresgid(gid, gid, gid)))?;
        check(i64::from(libc::setresuid(uid, uid, uid))).map(drop)
    }
}

/// Arguments of `capset` for no capability at all: a header of version 3 for the calling thread, and two words of each set.
pub fn no_capabilities() -> ([u8; 8], [u8; 24]) {
    let mut header = [0; 8];
    header[..4].copy_from_slice(&0x2008_0522u32.to_ne_bytes());
    (header, [0; 24])
}

/// Gives up every capability of this thread.
pub fn drop_capabilities() -> io::Result<()> {
    let (header, sets) = no_capabilities();
    // SAFETY: header and data have the layout of version 3; the kernel copies them and asks for no alignment.
    check(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) }).map(drop)
}

/// Lets programs that this process starts keep the capability to make namespaces, whoever their user is.
pub fn keep_admin() -> io::Result<()> {
    const ADMIN: u64 = 21;
    let (mut header, mut sets) = no_capabilities();
    // SAFETY: as above; this time the kernel writes the sets.
    check(unsafe { libc::syscall(libc::SYS_capget, header.as_mut_ptr(), sets.as_mut_ptr()) })?;
    // Words: effective, permitted, inheritable, for capabilities 0 to 31 and again for the rest.
    let mut inheritable = u32::from_ne_bytes([sets[8], sets[9], sets[10], sets[11]]);
    inheritable |= 1 << ADMIN;
    sets[8..12].copy_from_slice(&inheritable.to_ne_bytes());
    // SAFETY: as above.
    check(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) })?;
    // SAFETY: numbers only.
    let raised = unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, ADMIN, 0u64, 0u64) };
    check(i64::from(raised)).map(drop)
}

/// Replaces this process by a program; returns only on failure.
pub fn exec(argv: &[CString], env: &[CString]) -> io::Error {
    let pointers = |list: &[CString]| -> Vec<*const libc::c_char> {
        list.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (argv, env) = (pointers(argv), pointers(env));
    // SAFETY: both arrays end in a null pointer and point to C strings that outlive the call.
    unsafe { libc::execve(argv[0], argv.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Gives every signal its default action and blocks none, as a new program expects.
pub fn reset_signals() {
    // SAFETY: sets dispositions to a constant and the mask to an empty set that is initialised first.
    unsafe {
        for signal in 1..=64 {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut empty: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut empty);
        libc::sigprocmask(libc::SIG_SETMASK, &empty, std::ptr::null_mut());
        libc::setsid();
    }
}

/// User and group of this process.
pub fn ids() -> (u32, u32) {
    // SAFETY: these calls only read numbers and cannot fail.
    unsafe { (libc::geteuid(), libc::getegid()) }
}

/// Opens a file below a folder that stays open.
pub fn open_below(folder: &OwnedFd, path: &CStr) -> io::Result<std::fs::File> {
    // SAFETY: the path is a C string; the new descriptor is owned by nobody else.
    unsafe {
        let fd = check(i64::from(libc::openat(folder.as_raw_fd(), path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC)))?;
        Ok(OwnedFd::from_raw_fd(fd as RawFd).into())
    }
}

/// Names in a folder that are numbers.
pub fn numbered_entries(folder: &OwnedFd) -> io::Result<Vec<i32>> {
    let mut numbers = Vec::new();
    // SAFETY: the descriptor given to fdopendir is a fresh one that the stream owns and closedir closes; each entry is read
    // before the next call, and its name ends in a zero byte.
    unsafe {
        let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
        let fd = check(i64::from(libc::openat(folder.as_raw_fd(), c".".as_ptr(), flags)))? as RawFd;
        let stream = libc::fdopendir(fd);
        if stream.is_null() {
            let error = io::Error::last_os_error();
            libc::close(fd);
            return Err(error);
        }
        loop {
            let entry = libc::readdir(stream);
            if entry.is_null() {
                break;
            }
            let name = CStr::from_ptr((*entry).d_name.as_ptr());
            if let Some(number) = name.to_str().ok().and_then(|n| n.parse().ok()) {
                numbers.push(number);
            }
        }
        libc::closedir(stream);
    }
    Ok(numbers)
}

/// The standard streams of the helper as owned descriptors.
pub fn standard(fd: RawFd) -> OwnedFd {
    // SAFETY: called once per stream at the start; nothing else in the helper uses the standard streams.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Closes a descriptor when a program starts.
pub fn close_on_exec(fd: RawFd) -> io::Result<()> {
    // SAFETY: sets a flag of an open descriptor.
    check(i64::from(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) })).map(drop)
}
