//! What one run of a program may use. Times come in two kinds: processor time, which does not depend on how busy the
//! machine is and decides `time_limit`, and a looser wall-clock time that ends sleepers.

use serde::{Deserialize, Serialize};

/// Limits of one run (one test case, or one process that answers all calls of a submission).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Processor time of all its processes together, milliseconds.
    pub cpu_ms: u64,
    /// Wall-clock time, milliseconds.
    pub wall_ms: u64,
    /// Memory in bytes: of one process by the kernel, and of all together by a watcher that looks every 50 ms.
    pub memory: u64,
    /// Standard output in bytes; standard error may hold as much again, of which the last 16 KiB are kept.
    pub output: u64,
    /// Processes and threads at one time.
    pub processes: u64,
    /// Size in bytes of what it writes below `/tmp`, and of one file there.
    pub scratch: u64,
    /// Files and folders it may make below `/tmp`.
    pub scratch_files: u64,
    /// Stack of the main thread, bytes.
    pub stack: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            cpu_ms: 4_000,
            wall_ms: 12_000,
            memory: 512 << 20,
            output: 16 << 20,
            processes: 16,
            scratch: 64 << 20,
            scratch_files: 1_024,
            stack: 64 << 20,
        }
    }
}

impl Limits {
    /// Limits of a compiler: the program under test is not running yet, only its text is untrusted.
    pub fn compiler() -> Self {
        Self {
            cpu_ms: 60_000,
            wall_ms: 120_000,
            memory: 3 << 30,
            output: 1 << 20,
            processes: 32,
            scratch: 512 << 20,
            scratch_files: 1_024,
            stack: 64 << 20,
        }
    }

    /// Sets the processor time and the wall-clock time that goes with it: three times as much and two seconds.
    pub fn with_cpu_ms(mut self, cpu_ms: u64) -> Self {
        self.cpu_ms = cpu_ms;
        self.wall_ms = cpu_ms.saturating_mul(3).saturating_add(2_000);
        self
    }
}
