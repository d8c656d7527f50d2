//! One run of the program: a first process of a new process namespace that collects whatever is left behind, the program
//! below it, and a watcher that reads its output, looks at what it uses, and ends all of it.

use super::confine::confine;
use super::template::Template;
use super::{Setup, root, sys};
use crate::layers::Layer;
use crate::wire::{End, Job};
use std::ffi::CString;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// How often the watcher looks at memory, processor time and the number of processes.
const LOOK_MS: u64 = 50;
/// What is kept of standard error.
const STDERR_KEPT: usize = 16 << 10;
/// A watcher that did not run for so long was itself stopped; the program gets the time back.
const STOPPED: Duration = Duration::from_millis(1000);

/// What one run did.
pub struct Run {
    pub end: End,
    pub cpu_ms: u64,
    pub wall_ms: u64,
    pub peak_memory: u64,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

impl Run {
    /// One that did nothing, for this reason.
    pub fn without(end: End) -> Self {
        Run { end, cpu_ms: 0, wall_ms: 0, peak_memory: 0, stdout: vec![], stderr: vec![] }
    }
}

/// Reads one pipe of the program.
struct Sink {
    pipe: Option<OwnedFd>,
    kept: Vec<u8>,
    seen: u64,
    limit: u64,
    keep_end: bool,
}

impl Sink {
    fn new(pipe: OwnedFd, limit: u64, keep_end: bool) -> io::Result<Self> {
        sys::set_nonblocking(&pipe)?;
        Ok(Self { pipe: Some(pipe), kept: Vec::new(), seen: 0, limit, keep_end })
    }

    /// Takes what is there; true when it was more than allowed.
    fn take(&mut self) -> bool {
        let Some(pipe) = &self.pipe else { return false };
        let Ok(pipe) = pipe.try_clone() else { return false };
        let mut file = std::fs::File::from(pipe);
        let mut block = [0; 64 << 10];
        loop {
            match file.read(&mut block) {
                Ok(0) => self.pipe = None,
                Ok(n) => {
                    self.seen += n as u64;
                    let room = self.limit.saturating_sub(self.kept.len() as u64).min(n as u64) as usize;
                    let room = if self.keep_end { n } else { room };
                    self.kept.extend_from_slice(&block[..room]);
                    if self.keep_end && self.kept.len() > 2 * STDERR_KEPT {
                        self.kept.drain(..self.kept.len() - STDERR_KEPT);
                    }
                    if self.seen <= self.limit {
                        continue;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => {}
            }
            return self.seen > self.limit;
        }
    }
}

/// The three numbers the first process of the namespace sends when the program has ended.
type Status = [u64; 3];

/// The host closed its end.
pub struct HostGone;

/// Runs the program once on `input`. `Err` when the host went away: then all processes have been ended.
pub fn run(
    setup: &Setup,
    template: Option<&mut Template>,
    job: &Job,
    input: &[u8],
    host: &OwnedFd,
) -> Result<Run, HostGone> {
    let kept = template.as_ref().map(|t| t.pid());
    match try_run(setup, template, job, input, host) {
        Ok(run) => run,
        Err(words) => {
            setup.tree.end_all(kept);
            Ok(Run::without(End::Failed(words)))
        }
    }
}

fn try_run(
    setup: &Setup,
    template: Option<&mut Template>,
    job: &Job,
    input: &[u8],
    host: &OwnedFd,
) -> Result<Result<Run, HostGone>, String> {
    let failed = |e: io::Error| format!("cannot start a process: {e}");
    let stdin = sys::sealed_memory(input).map_err(failed)?;
    let (out_read, out_write) = sys::pipe().map_err(failed)?;
    let (err_read, err_write) = sys::pipe().map_err(failed)?;
    let (status_read, status_write) = sys::pipe().map_err(failed)?;
    let (problem_read, problem_write) = sys::pipe().map_err(failed)?;
    let begin = Instant::now();
    let own_pids = job.layers.contains(&Layer::Pid);
    let first = if let Some(template) = template {
        template.fork(setup, job, [&stdin, &out_write, &err_write], &problem_write, &status_write)?
    } else {
        let tasks = setup.tree.tasks_of_system();
        let first = sys::fork(if own_pids { libc::CLONE_NEWPID } else { 0 }).map_err(failed)?;
        if first == 0 {
            let streams = [stdin.as_raw_fd(), out_write.as_raw_fd(), err_write.as_raw_fd()];
            first_process(setup, job, streams, &status_write, problem_write, tasks);
        }
        first
    };
    drop((stdin, out_write, err_write, status_write, problem_write));
    if job.channel {
        // Only the program may hold the channel, so that the other side sees it close; a read end swallows nothing.
        sys::duplicate(status_read.as_raw_fd(), 2).map_err(failed)?;
    }
    let mut out = Sink::new(out_read, job.limits.output, false).map_err(failed)?;
    let mut err = Sink::new(err_read, job.limits.output.max(STDERR_KEPT as u64), true).map_err(failed)?;
    // Without a process namespace, what loses its parent becomes a child of the helper.
    let top = if own_pids { first } else { std::process::id() as i32 };
    let watched = watch(setup, job, (begin, top), [&mut out, &mut err], &status_read, host);
    sys::kill(first);
    if own_pids {
        // The end of the first process is reported when everything in its namespace has ended.
        sys::wait(first, false).map_err(failed)?;
    } else {
        setup.tree.end_all(None);
    }
    let mut ended = match watched.map_err(failed)? {
        Some(watched) => watched,
        None => return Ok(Err(HostGone)),
    };
    // Nobody writes any more, so what is left in the pipes is all there is.
    for sink in [&mut out, &mut err] {
        if sink.take() && ended.over.is_none() {
            ended.over = Some(End::OutputLimit);
        }
    }
    let mut problem = String::new();
    let _ = std::fs::File::from(problem_read).read_to_string(&mut problem);
    let cpu_ms = ended.status.map_or(ended.cpu_ms, |s| s[1] / 1000).max(ended.cpu_ms);
    let peak_memory = ended.status.map_or(0, |s| s[2]).max(ended.peak);
    let excess = err.kept.len().saturating_sub(STDERR_KEPT);
    let stderr = err.kept.split_off(excess);
    let end = if problem.is_empty() {
        ended.over.unwrap_or_else(|| classify(job, ended.status, cpu_ms, peak_memory, &stderr))
    } else {
        End::Failed(problem)
    };
    Ok(Ok(Run { end, cpu_ms, wall_ms: begin.elapsed().as_millis() as u64, peak_memory, stdout: out.kept, stderr }))
}

/// What the watcher saw.
struct Watched {
    over: Option<End>,
    status: Option<Status>,
    cpu_ms: u64,
    peak: u64,
}

fn watch(
    setup: &Setup,
    job: &Job,
    (begin, top): (Instant, i32),
    mut sinks: [&mut Sink; 2],
    status: &OwnedFd,
    host: &OwnedFd,
) -> io::Result<Option<Watched>> {
    let mut watched = Watched { over: None, status: None, cpu_ms: 0, peak: 0 };
    let mut deadline = begin + Duration::from_millis(job.limits.wall_ms);
    let (mut look, mut last) = (begin + Duration::from_millis(LOOK_MS), begin);
    loop {
        let mut fds = vec![status.as_raw_fd(), host.as_raw_fd()];
        fds.extend(sinks.iter().filter_map(|s| s.pipe.as_ref()).map(AsRawFd::as_raw_fd));
        let wait = look.min(deadline).saturating_duration_since(Instant::now()).as_millis() as i32 + 1;
        let ready = sys::poll(&fds, wait)?;
        let now = Instant::now();
        if now - last > Duration::from_millis(wait as u64) + STOPPED {
            deadline += now - last;
        }
        last = now;
        if ready[1] {
            watched.over = Some(End::Cancelled);
            return Ok(sys::has_bytes(host).then_some(watched));
        }
        if ready[2..].contains(&true) && sinks.iter_mut().any(|s| s.take()) {
            watched.over = Some(End::OutputLimit);
            return Ok(Some(watched));
        }
        if ready[0] {
            let mut bytes = [0; size_of::<Status>()];
            let whole = std::fs::File::from(status.try_clone()?).read_exact(&mut bytes).is_ok();
            let number = |i: usize| u64::from_ne_bytes(bytes[i * 8..][..8].try_into().expect("eight bytes"));
            watched.status = whole.then(|| [number(0), number(1), number(2)]);
            return Ok(Some(watched));
        }
        if now >= look {
            look = now + Duration::from_millis(LOOK_MS);
            let used = setup.tree.usage(top);
            watched.cpu_ms = watched.cpu_ms.max(used.cpu_ms);
            watched.peak = watched.peak.max(used.memory);
            if used.memory > job.limits.memory + (16 << 20) {
                watched.over = Some(End::MemoryLimit);
            } else if used.cpu_ms > job.limits.cpu_ms {
                watched.over = Some(End::TimeLimit);
            } else if used.tasks > job.limits.processes + 4 {
                watched.over = Some(End::Signaled(libc::SIGKILL));
            }
        }
        if now >= deadline {
            watched.over = Some(End::TimeLimit);
        }
        if watched.over.is_some() {
            return Ok(Some(watched));
        }
    }
}

/// What the exit status means, in the light of the limits.
fn classify(job: &Job, status: Option<Status>, cpu_ms: u64, peak: u64, stderr: &[u8]) -> End {
    let Some([status, ..]) = status else { return End::Failed("the first process of the run was killed".into()) };
    let status = status as i32;
    let signal = libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status));
    if cpu_ms > job.limits.cpu_ms || signal == Some(libc::SIGXCPU) {
        return End::TimeLimit;
    }
    if signal == Some(libc::SIGXFSZ) {
        return End::OutputLimit;
    }
    let end = signal.map_or_else(|| End::Exited(libc::WEXITSTATUS(status)), End::Signaled);
    if end == End::Exited(0) {
        return end;
    }
    // The words of Python, C++ and Rust when an allocation is refused.
    let refused: [&[u8]; 4] = [b"MemoryError", b"std::bad_alloc", b"memory allocation of ", b"out of memory"];
    let says = |words: &[u8]| stderr.windows(words.len()).any(|w| w == words);
    if peak > job.limits.memory / 100 * 98 || refused.into_iter().any(says) { End::MemoryLimit } else { end }
}

/// Never returns: the parent of the program, process 1 of the namespace.
fn first_process(setup: &Setup, job: &Job, streams: [i32; 3], status: &OwnedFd, problem: OwnedFd, tasks: u64) -> ! {
    let _ = sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as u64);
    let program = match sys::fork(0) {
        Ok(0) => {
            let words = become_program(setup, job, streams, problem.as_raw_fd(), tasks);
            let _ = io::Write::write_all(&mut std::fs::File::from(problem), words.as_bytes());
            sys::exit_now(127);
        }
        Ok(pid) => pid,
        Err(e) => {
            let _ = io::Write::write_all(&mut std::fs::File::from(problem), format!("fork: {e}").as_bytes());
            sys::exit_now(127);
        }
    };
    // The pipes must close when the program does, not when this process does.
    drop(problem);
    drop(sys::standard(2));
    for fd in streams {
        drop(sys::standard(fd));
    }
    while let Ok(Some(ended)) = sys::wait(-1, false) {
        if ended.pid == program {
            let numbers: Status = [ended.status as u64, ended.cpu_us, ended.max_rss];
            let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_ne_bytes()).collect();
            if let Ok(fd) = status.try_clone() {
                let _ = io::Write::write_all(&mut std::fs::File::from(fd), &bytes);
            }
            break;
        }
    }
    sys::exit_now(0);
}

/// Returns only on failure, with words for the host.
fn become_program(setup: &Setup, job: &Job, streams: [i32; 3], problem: i32, tasks: u64) -> String {
    let c_string = |text: &str| CString::new(job.placed(text, &setup.folder));
    let argv: Result<Vec<_>, _> = job.argv.iter().map(|a| c_string(a)).collect();
    let env: Result<Vec<_>, _> = job.env.iter().map(|(k, v)| c_string(&format!("{k}={v}"))).collect();
    let (Ok(argv), Ok(env)) = (argv, env) else { return "a zero byte in an argument".into() };
    if argv.is_empty() {
        return "no program".into();
    }
    // The channel is the helper's standard error until here; move everything out of the way of 0 to 4 first.
    let arrange = || -> io::Result<()> {
        const HIGH: i32 = 200;
        let channel = if job.channel { 2 } else { streams[2] };
        for (i, fd) in streams.into_iter().chain([channel, problem]).enumerate() {
            sys::duplicate(fd, HIGH + i as i32)?;
        }
        for i in 0..5 {
            sys::duplicate(HIGH + i, i)?;
        }
        sys::close_from(5)
    };
    if let Err(e) = arrange() {
        return format!("file descriptors: {e}");
    }
    sys::reset_signals();
    let words = (|| {
        std::env::set_current_dir(if job.layers.contains(&Layer::Mount) {
            job.scratch().as_ref()
        } else {
            setup.folder.as_path()
        })
        .map_err(|e| format!("working folder: {e}"))?;
        confine(job, &setup.folder, setup.root, tasks)?;
        Ok::<(), String>(())
    })();
    // Descriptor 4 still reaches the host: for words about a failure, and closed by a successful exec.
    let failed = |words: String| {
        let _ = io::Write::write_all(&mut std::fs::File::from(sys::standard(4)), words.as_bytes());
        sys::exit_now(127)
    };
    if let Err(words) = words {
        failed(words);
    }
    if !job.channel {
        drop(sys::standard(3));
    }
    if let Err(e) = sys::close_on_exec(4) {
        failed(format!("file descriptors: {e}"));
    }
    let error = sys::exec(&argv, &env);
    failed(format!("{}: {error}", job.argv[0]))
}

/// Prepares the next run.
///
/// # Errors
/// The scratch folder cannot be renewed.
pub fn renew(job: &Job) -> Result<(), String> {
    if job.layers.contains(&Layer::Mount) { root::renew_scratch(job) } else { Ok(()) }
}
