//! What a process does to itself right before it becomes the program: limits, user, capabilities, Landlock, seccomp. A process
//! of another language that becomes the program without exec does the same from a list of system calls.

use super::{namespaces, seccomp, sys};
use crate::layers::Layer;
use crate::wire::Job;
use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetStatus, Scope,
};
use serde::Serialize;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Address space beyond the memory limit: libraries and files that are mapped but not written.
const MAPPED: u64 = 4 << 30;

/// Confines this process for good. It is single-threaded and about to call exec.
///
/// # Errors
/// The step and what the system said.
pub fn confine(job: &Job, folder: &Path, root: bool, tasks_of_system: u64) -> Result<(), String> {
    let has = |layer| job.layers.contains(&layer);
    for (resource, soft, hard) in limits(job, if has(Layer::User) { 2 } else { tasks_of_system }) {
        sys::set_limit(resource, soft, hard).map_err(|e| format!("rlimits: {e}"))?;
    }
    // The rules are made while the paths are still reachable for the one who makes them.
    let rules = if has(Layer::Landlock) { Some(rules(job, folder)?) } else { None };
    if has(Layer::User) && root {
        sys::become_user(namespaces::INSIDE, namespaces::INSIDE, true).map_err(|e| format!("become user: {e}"))?;
    } else if has(Layer::DropUser) {
        let user = namespaces::outer_user();
        sys::become_user(user, user, true).map_err(|e| format!("become user {user}: {e}"))?;
    }
    sys::drop_capabilities().map_err(|e| format!("capset: {e}"))?;
    sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1).map_err(|e| format!("no_new_privs: {e}"))?;
    sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as u64).map_err(|e| format!("pdeathsig: {e}"))?;
    if let Some(rules) = rules {
        let status = rules.restrict_self().map_err(|e| format!("landlock: {e}"))?;
        if status.ruleset == RulesetStatus::NotEnforced {
            return Err("landlock: not enforced by this kernel".into());
        }
    }
    if has(Layer::Seccomp) {
        seccomp::install(has(Layer::Pid), has(Layer::Mount), job.writable_out)?;
    }
    Ok(())
}

/// What each resource is limited to; `others` are the tasks of the program's user that are not the program's.
fn limits(job: &Job, others: u64) -> [(libc::__rlimit_resource_t, u64, u64); 13] {
    let l = &job.limits;
    let both = |resource, value| (resource, value, value);
    let seconds = l.cpu_ms.div_ceil(1000) + 1;
    [
        both(libc::RLIMIT_CORE, 0),
        both(libc::RLIMIT_DATA, l.memory),
        both(libc::RLIMIT_AS, l.memory.saturating_add(MAPPED)),
        both(libc::RLIMIT_STACK, l.stack),
        both(libc::RLIMIT_FSIZE, l.scratch),
        both(libc::RLIMIT_NOFILE, 256),
        both(libc::RLIMIT_NPROC, l.processes.saturating_add(others)),
        both(libc::RLIMIT_MEMLOCK, 64 << 10),
        both(libc::RLIMIT_MSGQUEUE, 0),
        both(libc::RLIMIT_SIGPENDING, 256),
        both(libc::RLIMIT_NICE, 0),
        both(libc::RLIMIT_RTPRIO, 0),
        (libc::RLIMIT_CPU, seconds, seconds + 1),
    ]
}

/// An argument of a system call that another process makes: a number, bytes it gets the address of, or a seccomp filter.
#[derive(Serialize)]
#[serde(untagged)]
pub enum Argument {
    Number(i64),
    Bytes(String),
    Filter([String; 1]),
}

/// A system call for another process to make: what it is for, its number, its arguments.
pub type Call = (&'static str, i64, Vec<Argument>);

/// What [`confine`] does, in the same order, as system calls for a process that cannot run it, and the Landlock rules that it
/// finds at descriptor `rules_at`. User and process namespaces are there.
///
/// # Errors
/// The step and what the system said.
pub fn confinement(
    job: &Job,
    folder: &Path,
    root: bool,
    rules_at: i32,
) -> Result<(Vec<Call>, Option<OwnedFd>), String> {
    let has = |layer| job.layers.contains(&layer);
    let number = |value: i64| Argument::Number(value);
    let mut calls: Vec<Call> = Vec::new();
    // The helper, the template and the first process may belong to the program's user.
    for (resource, soft, hard) in limits(job, 3) {
        let limit = [soft.to_ne_bytes(), hard.to_ne_bytes()].concat();
        let arguments = vec![number(0), number(i64::from(resource)), Argument::Bytes(hex(&limit)), number(0)];
        calls.push(("rlimits", libc::SYS_prlimit64, arguments));
    }
    if root {
        let user = i64::from(namespaces::INSIDE);
        calls.push(("setgroups", libc::SYS_setgroups, vec![number(0), number(0)]));
        for (name, call) in [("setresgid", libc::SYS_setresgid), ("setresuid", libc::SYS_setresuid)] {
            calls.push((name, call, vec![number(user), number(user), number(user)]));
        }
    }
    let (header, sets) = sys::no_capabilities();
    let arguments = [header.as_slice(), sets.as_slice()].map(|part| Argument::Bytes(hex(part)));
    calls.push(("capset", libc::SYS_capset, arguments.into()));
    for (name, option, value) in [
        ("no_new_privs", libc::PR_SET_NO_NEW_PRIVS, 1),
        ("pdeathsig", libc::PR_SET_PDEATHSIG, i64::from(libc::SIGKILL)),
    ] {
        let arguments = vec![number(i64::from(option)), number(value), number(0), number(0), number(0)];
        calls.push((name, libc::SYS_prctl, arguments));
    }
    let rules = if has(Layer::Landlock) {
        calls.push(("landlock", libc::SYS_landlock_restrict_self, vec![number(i64::from(rules_at)), number(0)]));
        let made: Option<OwnedFd> = rules(job, folder)?.into();
        Some(made.ok_or("landlock: not enforced by this kernel")?)
    } else {
        None
    };
    if has(Layer::Seccomp) {
        for filter in seccomp::filters()? {
            let arguments =
                vec![number(libc::SECCOMP_SET_MODE_FILTER.into()), number(0), Argument::Filter([hex(&filter)])];
            calls.push(("seccomp", libc::SYS_seccomp, arguments));
        }
    }
    Ok((calls, rules))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Landlock: read and run what is visible, write to the scratch folder (which only a mount namespace can bound, so without
/// one there is none), no TCP, no signals and no abstract sockets to the outside.
fn rules(job: &Job, folder: &Path) -> Result<RulesetCreated, String> {
    let abi = ABI::V6;
    let read = AccessFs::from_read(abi);
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))
        .and_then(|r| r.handle_access(AccessNet::from_all(abi)))
        .and_then(|r| r.scope(Scope::from_all(abi)))
        .and_then(Ruleset::create)
        .map_err(|e| format!("landlock: {e}"))?;
    let mut allow = |path: &Path, access| -> Result<(), String> {
        let Ok(fd) = PathFd::new(path) else { return Ok(()) };
        // A rule for a single file must not name rights of folders.
        let access = if path.is_dir() { access } else { access & AccessFs::from_file(abi) };
        (&mut rules).add_rule(PathBeneath::new(fd, access)).map(drop).map_err(|e| format!("landlock: {e}"))
    };
    let devices = ["/dev/null", "/dev/zero", "/dev/random", "/dev/urandom"];
    for path in job.readable.iter().map(PathBuf::as_path).chain([folder]) {
        allow(path, read)?;
    }
    for path in devices {
        allow(Path::new(path), AccessFs::ReadFile | AccessFs::WriteFile)?;
    }
    let write = (AccessFs::from_all(abi) & !AccessFs::Execute)
        & !(AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::MakeSock | AccessFs::IoctlDev);
    if job.layers.contains(&Layer::Mount) {
        allow(Path::new(job.scratch()), write)?;
    }
    if job.writable_out {
        allow(&folder.join("out"), write)?;
    }
    Ok(rules)
}

/// Whether this kernel has Landlock and it is switched on.
///
/// # Errors
/// It has not.
pub fn landlock_works() -> Result<(), String> {
    let made = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V1))
        .and_then(Ruleset::create);
    made.map(drop).map_err(|e| format!("landlock: {e}"))
}
