//! Namespaces of the helper itself; the process namespace is made anew for every run (`watch`).
//!
//! As root, user 0 of the new user namespace is the host's root, which keeps the right to reach the interpreter's folder but
//! has no privilege outside, and user 1000 is a user id that nothing else on the host has. Without root, user 1000 is the
//! caller. The program always runs as 1000.

use super::sys;
use std::io;

/// The program's user and group inside a user namespace.
pub const INSIDE: u32 = 1000;
/// First of the user ids that systemd reserves for services without a name; a few thousand follow.
const DYNAMIC_FIRST: u32 = 61_184;
const DYNAMIC_COUNT: u32 = 4_000;

/// The host's user id that the program gets when the host is root: differs between helpers that run at one time.
pub fn outer_user() -> u32 {
    DYNAMIC_FIRST + std::process::id() % DYNAMIC_COUNT
}

/// Enters a new user namespace.
///
/// # Errors
/// What the system said, with the step.
pub fn enter_user(root: bool) -> Result<(), String> {
    if root { enter_user_as_root() } else { enter_user_as_anyone() }
}

fn enter_user_as_anyone() -> Result<(), String> {
    let (uid, gid) = sys::ids();
    sys::unshare(libc::CLONE_NEWUSER).map_err(|e| format!("unshare: {e}"))?;
    let write = |file: &str, text: String| {
        std::fs::write(format!("/proc/self/{file}"), text).map_err(|e| format!("/proc/self/{file}: {e}"))
    };
    write("setgroups", "deny".into())?;
    write("uid_map", format!("{INSIDE} {uid} 1"))?;
    write("gid_map", format!("{INSIDE} {gid} 1"))
}

/// Only a process outside may map two users, so a child that stays behind does.
fn enter_user_as_root() -> Result<(), String> {
    let outer = outer_user();
    let parent = std::process::id();
    let (go_read, go_write) = sys::pipe().map_err(|e| format!("pipe: {e}"))?;
    let child = sys::fork(0).map_err(|e| format!("fork: {e}"))?;
    if child == 0 {
        drop(go_write);
        let mut byte = [0];
        let begun = io::Read::read(&mut std::fs::File::from(go_read), &mut byte);
        if !matches!(begun, Ok(1)) {
            sys::exit_now(1);
        }
        let map = format!("0 0 1\n{INSIDE} {outer} 1\n");
        let write = |file: &str| std::fs::write(format!("/proc/{parent}/{file}"), &map).is_ok();
        sys::exit_now(i32::from(!(write("uid_map") && write("gid_map"))));
    }
    drop(go_read);
    let entered = sys::unshare(libc::CLONE_NEWUSER);
    if entered.is_ok() {
        let _ = io::Write::write_all(&mut std::fs::File::from(go_write), b"g");
    } else {
        drop(go_write);
    }
    let mapped = sys::wait(child, false).ok().flatten().is_some_and(|w| w.status == 0);
    entered.map_err(|e| format!("unshare: {e}"))?;
    if !mapped {
        return Err("cannot write uid_map and gid_map of the new namespace".into());
    }
    sys::become_user(0, 0, true).map_err(|e| format!("become user 0 of the new namespace: {e}"))
}

/// Whether this root can become another user: tried in a child.
///
/// # Errors
/// It cannot, as in a container with a single user.
pub fn can_drop() -> Result<(), String> {
    let user = outer_user();
    match sys::fork(0).map_err(|e| format!("fork: {e}"))? {
        0 => sys::exit_now(i32::from(sys::become_user(user, user, true).is_err())),
        child => match sys::wait(child, false) {
            Ok(Some(ended)) if ended.status == 0 => Ok(()),
            _ => Err(format!("cannot become user {user}")),
        },
    }
}
