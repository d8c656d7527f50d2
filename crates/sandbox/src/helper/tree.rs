//! The processes below the helper, read from the host's `/proc` through a folder that was opened before the root changed.

use super::sys;
use std::collections::{HashMap, HashSet};
use std::ffi::CString;
use std::io::Read;
use std::os::fd::OwnedFd;

/// `/proc`.
pub struct Tree {
    proc: Option<OwnedFd>,
    page: u64,
    ticks_per_s: u64,
}

/// What all processes below one use together.
#[derive(Default)]
pub struct Use {
    pub memory: u64,
    pub cpu_ms: u64,
    pub tasks: u64,
}

struct Stat {
    parent: i32,
    ticks: u64,
    tasks: u64,
    pages: u64,
}

impl Tree {
    pub fn open() -> Self {
        let proc = std::fs::File::open("/proc").ok().map(OwnedFd::from);
        // SAFETY: reads two constants of the system.
        let (page, ticks) = unsafe { (libc::sysconf(libc::_SC_PAGESIZE), libc::sysconf(libc::_SC_CLK_TCK)) };
        Self { proc, page: page.max(1) as u64, ticks_per_s: ticks.max(1) as u64 }
    }

    fn stat(&self, pid: i32) -> Option<Stat> {
        let path = CString::new(format!("{pid}/stat")).ok()?;
        let mut text = Vec::new();
        sys::open_below(self.proc.as_ref()?, &path).ok()?.take(4096).read_to_end(&mut text).ok()?;
        // The name in brackets may hold anything, so count from the last bracket; proc(5) numbers fields from 1.
        let after = text.iter().rposition(|b| *b == b')')? + 1;
        let fields: Vec<&str> = std::str::from_utf8(&text[after..]).ok()?.split_ascii_whitespace().collect();
        let number = |field: usize| fields.get(field - 3).and_then(|f| f.parse::<i64>().ok());
        let unsigned = |field: usize| number(field).map(|n| n.max(0) as u64);
        Some(Stat {
            parent: number(4)? as i32,
            ticks: unsigned(14)? + unsigned(15)? + unsigned(16)? + unsigned(17)?,
            tasks: unsigned(20)?,
            pages: unsigned(24)?,
        })
    }

    /// Every process below `root`, itself not included.
    fn below(&self, root: i32) -> HashMap<i32, Stat> {
        let pids = self.proc.as_ref().and_then(|p| sys::numbered_entries(p).ok()).unwrap_or_default();
        let mut all: HashMap<i32, Stat> = pids.into_iter().filter_map(|p| Some((p, self.stat(p)?))).collect();
        let mut inside = HashSet::from([root]);
        loop {
            let before = inside.len();
            inside.extend(all.iter().filter(|(_, s)| inside.contains(&s.parent)).map(|(p, _)| *p).collect::<Vec<_>>());
            if inside.len() == before {
                break;
            }
        }
        inside.remove(&root);
        all.retain(|pid, _| inside.contains(pid));
        all
    }

    /// What everything below `root` uses.
    pub fn usage(&self, root: i32) -> Use {
        let mut sum = Use::default();
        for stat in self.below(root).into_values() {
            sum.memory += stat.pages * self.page;
            sum.cpu_ms += stat.ticks * 1000 / self.ticks_per_s;
            sum.tasks += stat.tasks;
        }
        sum
    }

    /// Ends everything below this process but `kept`, and collects it. Processes are stopped before they are killed, so that
    /// a bomb of forks runs out of forks; what loses its parent becomes a child of this process, which is a subreaper.
    pub fn end_all(&self, kept: Option<i32>) {
        // SAFETY: reads a number.
        let own = unsafe { libc::getpid() };
        loop {
            while let Ok(Some(_)) = sys::wait(-1, true) {}
            if sys::wait(-1, true).is_err() {
                return; // no children at all
            }
            let pids: Vec<i32> = self.below(own).into_keys().filter(|pid| Some(*pid) != kept).collect();
            if kept.is_some() && pids.is_empty() {
                return;
            }
            pids.iter().for_each(|pid| sys::stop(*pid));
            pids.iter().for_each(|pid| sys::kill(*pid));
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }

    /// Tasks of the whole system, an upper bound of those of this user.
    pub fn tasks_of_system(&self) -> u64 {
        let mut text = String::new();
        let read = self.proc.as_ref().and_then(|p| sys::open_below(p, c"loadavg").ok());
        let Some(mut file) = read else { return 4096 };
        if file.read_to_string(&mut text).is_err() {
            return 4096;
        }
        let total = text.split_ascii_whitespace().nth(3).and_then(|f| f.split('/').nth(1)?.parse().ok());
        total.unwrap_or(4096)
    }
}
