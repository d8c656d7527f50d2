//! The system calls a program may use. Everything that is not listed fails with EPERM: sockets, ptrace, mounts, namespaces,
//! io_uring, bpf, userfaultfd, keys, modules, and whatever a later kernel adds.

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition as Condition,
    SeccompFilter, SeccompRule, TargetArch,
};
use std::collections::BTreeMap;

/// Flags of `clone` that make namespaces.
const NAMESPACES: u64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u64;

/// Calls without conditions that every architecture has.
#[rustfmt::skip]
const COMMON: &[i64] = &[
    // files
    libc::SYS_read, libc::SYS_write, libc::SYS_readv, libc::SYS_writev, libc::SYS_pread64, libc::SYS_pwrite64,
    libc::SYS_preadv, libc::SYS_pwritev, libc::SYS_preadv2, libc::SYS_pwritev2, libc::SYS_openat, libc::SYS_openat2,
    libc::SYS_close, libc::SYS_close_range, libc::SYS_lseek, libc::SYS_fstat, libc::SYS_newfstatat, libc::SYS_statx,
    libc::SYS_statfs, libc::SYS_fstatfs, libc::SYS_faccessat, libc::SYS_faccessat2, libc::SYS_getdents64,
    libc::SYS_getcwd, libc::SYS_chdir, libc::SYS_fchdir, libc::SYS_mkdirat, libc::SYS_unlinkat, libc::SYS_renameat,
    libc::SYS_renameat2, libc::SYS_linkat, libc::SYS_symlinkat, libc::SYS_readlinkat, libc::SYS_fchmod,
    libc::SYS_fchmodat, libc::SYS_fchown, libc::SYS_fchownat, libc::SYS_utimensat, libc::SYS_umask,
    libc::SYS_ftruncate, libc::SYS_truncate, libc::SYS_fallocate, libc::SYS_fsync, libc::SYS_fdatasync,
    libc::SYS_flock, libc::SYS_dup, libc::SYS_dup3, libc::SYS_fcntl, libc::SYS_pipe2, libc::SYS_sendfile,
    libc::SYS_copy_file_range, libc::SYS_fadvise64, libc::SYS_ppoll, libc::SYS_pselect6, libc::SYS_eventfd2,
    libc::SYS_epoll_create1, libc::SYS_epoll_ctl, libc::SYS_epoll_pwait,
    // memory
    libc::SYS_mmap, libc::SYS_munmap, libc::SYS_mprotect, libc::SYS_mremap, libc::SYS_madvise, libc::SYS_brk,
    libc::SYS_msync, libc::SYS_mincore, libc::SYS_membarrier,
    // processes, threads, signals
    libc::SYS_execve, libc::SYS_exit, libc::SYS_exit_group, libc::SYS_wait4, libc::SYS_waitid, libc::SYS_futex,
    libc::SYS_set_robust_list, libc::SYS_get_robust_list, libc::SYS_set_tid_address, libc::SYS_rseq,
    libc::SYS_sched_yield, libc::SYS_sched_getaffinity, libc::SYS_sched_getparam, libc::SYS_sched_getscheduler,
    libc::SYS_sched_get_priority_max, libc::SYS_sched_get_priority_min, libc::SYS_getpriority,
    libc::SYS_rt_sigaction, libc::SYS_rt_sigprocmask, libc::SYS_rt_sigreturn, libc::SYS_rt_sigpending,
    libc::SYS_rt_sigsuspend, libc::SYS_rt_sigtimedwait, libc::SYS_sigaltstack, libc::SYS_restart_syscall,
    libc::SYS_setsid, libc::SYS_setpgid, libc::SYS_getpgid, libc::SYS_getsid, libc::SYS_capget,
    // who and when
    libc::SYS_getpid, libc::SYS_getppid, libc::SYS_gettid, libc::SYS_getuid, libc::SYS_geteuid, libc::SYS_getgid,
    libc::SYS_getegid, libc::SYS_getgroups, libc::SYS_getresuid, libc::SYS_getresgid, libc::SYS_getrlimit,
    libc::SYS_getrusage, libc::SYS_times, libc::SYS_uname, libc::SYS_sysinfo, libc::SYS_getrandom, libc::SYS_getcpu,
    libc::SYS_clock_gettime, libc::SYS_clock_getres, libc::SYS_clock_nanosleep, libc::SYS_nanosleep,
    libc::SYS_gettimeofday, libc::SYS_getitimer, libc::SYS_setitimer, libc::SYS_timer_create,
    libc::SYS_timer_settime, libc::SYS_timer_gettime, libc::SYS_timer_delete, libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime, libc::SYS_timerfd_gettime,
    // always refused by the second filter, with another error
    libc::SYS_clone3,
];

/// Older forms of the same calls that only x86-64 has.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const OLDER: &[i64] = &[
    libc::SYS_open, libc::SYS_creat, libc::SYS_stat, libc::SYS_lstat, libc::SYS_access, libc::SYS_getdents,
    libc::SYS_mkdir, libc::SYS_rmdir, libc::SYS_unlink, libc::SYS_rename, libc::SYS_link, libc::SYS_symlink,
    libc::SYS_readlink, libc::SYS_chmod, libc::SYS_chown, libc::SYS_lchown, libc::SYS_utime, libc::SYS_utimes,
    libc::SYS_futimesat, libc::SYS_dup2, libc::SYS_pipe, libc::SYS_poll, libc::SYS_select, libc::SYS_eventfd,
    libc::SYS_epoll_create, libc::SYS_epoll_wait, libc::SYS_fork, libc::SYS_vfork, libc::SYS_alarm, libc::SYS_pause,
    libc::SYS_time, libc::SYS_getpgrp, libc::SYS_arch_prctl,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[i64] = &[];

/// Changes to owner, mode and times, which Landlock does not govern: refused where the files of the host are in reach.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const METADATA: &[i64] = &[
    libc::SYS_fchmod, libc::SYS_fchmodat, libc::SYS_fchown, libc::SYS_fchownat, libc::SYS_utimensat, libc::SYS_chmod,
    libc::SYS_chown, libc::SYS_lchown, libc::SYS_utime, libc::SYS_utimes, libc::SYS_futimesat,
];
#[cfg(not(target_arch = "x86_64"))]
#[rustfmt::skip]
const METADATA: &[i64] =
    &[libc::SYS_fchmod, libc::SYS_fchmodat, libc::SYS_fchown, libc::SYS_fchownat, libc::SYS_utimensat];

/// `prctl` options: names, reading, and the one musl and jemalloc ask for.
const PRCTL: [i32; 5] =
    [libc::PR_SET_NAME, libc::PR_GET_NAME, libc::PR_GET_DUMPABLE, libc::PR_GET_NO_NEW_PRIVS, libc::PR_SET_VMA];
/// `ioctl` requests: sizes and modes of what may be a terminal, bytes waiting, flags of descriptors.
const IOCTL: [u64; 7] =
    [libc::TCGETS, libc::TIOCGWINSZ, libc::TIOCGPGRP, libc::FIONREAD, libc::FIONBIO, libc::FIOCLEX, libc::FIONCLEX];

/// Installs the filters, with what rustc needs to start a linker when a compiler runs. Without a process namespace a process may signal nobody but itself.
///
/// # Errors
/// An architecture without a table, or the kernel refuses.
pub fn install(own_pids: bool, own_root: bool, compiler: bool) -> Result<(), String> {
    let problem = |e: &dyn std::fmt::Display| format!("seccomp: {e}");
    for program in programs(own_pids, own_root, compiler).map_err(|e| problem(&e))? {
        seccompiler::apply_filter(&program).map_err(|e| problem(&e))?;
    }
    Ok(())
}

/// The filters of a program with process and mount namespaces, each as the bytes of its instructions, in the order in which
/// they are installed.
///
/// # Errors
/// An architecture without a table.
pub fn filters() -> Result<[Vec<u8>; 2], String> {
    let bytes = |program: &BpfProgram| -> Vec<u8> {
        program
            .iter()
            .flat_map(|i| {
                let [a, b] = i.code.to_ne_bytes();
                let [c, d, e, f] = i.k.to_ne_bytes();
                [a, b, i.jt, i.jf, c, d, e, f]
            })
            .collect()
    };
    let programs = programs(true, true, false).map_err(|e| format!("seccomp: {e}"))?;
    Ok([bytes(&programs[0]), bytes(&programs[1])])
}

fn programs(own_pids: bool, own_root: bool, compiler: bool) -> Result<[BpfProgram; 2], seccompiler::BackendError> {
    let arch: TargetArch = std::env::consts::ARCH.try_into()?;
    let condition = |argument, len, op, value| Condition::new(argument, len, op, value);
    let when = |conditions: Vec<Condition>| SeccompRule::new(conditions);
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = COMMON.iter().chain(OLDER).map(|call| (*call, vec![])).collect();
    rules.insert(libc::SYS_clone, vec![when(vec![condition(0, Len::Qword, Op::MaskedEq(NAMESPACES), 0)?])?]);
    // Reading limits only; of oneself or of a process one may see.
    rules.insert(libc::SYS_prlimit64, vec![when(vec![condition(2, Len::Qword, Op::Eq, 0)?])?]);
    let each = |argument, values: &mut dyn Iterator<Item = u64>| {
        values.map(|v| when(vec![condition(argument, Len::Dword, Op::Eq, v)?])).collect::<Result<Vec<_>, _>>()
    };
    rules.insert(libc::SYS_prctl, each(0, &mut PRCTL.iter().map(|o| *o as u64))?);
    rules.insert(libc::SYS_ioctl, each(1, &mut IOCTL.into_iter())?);
    if !own_root && !compiler {
        METADATA.iter().for_each(|call| drop(rules.remove(call)));
    }
    if compiler {
        rules.insert(libc::SYS_socketpair, each(0, &mut [libc::AF_UNIX as u64].into_iter())?);
        for call in [libc::SYS_sendmsg, libc::SYS_recvmsg, libc::SYS_sendto, libc::SYS_recvfrom] {
            rules.insert(call, vec![]);
        }
    }
    if own_pids {
        for call in [libc::SYS_kill, libc::SYS_tkill, libc::SYS_tgkill] {
            rules.insert(call, vec![]);
        }
    } else {
        let own = u64::from(std::process::id());
        rules.insert(libc::SYS_kill, each(0, &mut [own].into_iter())?);
        rules.insert(libc::SYS_tgkill, each(0, &mut [own].into_iter())?);
    }
    let allow = SeccompFilter::new(rules, SeccompAction::Errno(libc::EPERM as u32), SeccompAction::Allow, arch)?;
    // The flags of clone3 lie in memory, where a filter cannot look; ENOSYS makes every C library use clone.
    let clone3 = BTreeMap::from([(libc::SYS_clone3, vec![])]);
    let refuse = SeccompFilter::new(clone3, SeccompAction::Allow, SeccompAction::Errno(libc::ENOSYS as u32), arch)?;
    // In this order: the second forbids installing more.
    Ok([refuse.try_into()?, allow.try_into()?])
}

/// Whether filters can be made and installed: tried in a child.
///
/// # Errors
/// They cannot.
pub fn works() -> Result<(), String> {
    let programs = programs(true, true, false).map_err(|e| e.to_string())?;
    match super::sys::fork(0).map_err(|e| format!("fork: {e}"))? {
        0 => {
            let installed = programs.iter().all(|p| seccompiler::apply_filter(p).is_ok());
            super::sys::exit_now(i32::from(!installed))
        }
        child => match super::sys::wait(child, false) {
            Ok(Some(ended)) if ended.status == 0 => Ok(()),
            _ => Err("the kernel refuses the filter".into()),
        },
    }
}
