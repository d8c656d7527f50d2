//! An interpreter that has started and waits: every run of it is a fork, which costs a tenth of a start. It is confined by the
//! helper's namespaces alone and keeps the capability to make a process namespace, so it runs nothing but its own script;
//! the processes that become programs confine themselves as everywhere (`confine::confinement`).

use super::{Setup, confine, sys};
use crate::pass;
use crate::wire::Job;
use serde_json::json;
use std::ffi::CString;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::Path;

/// Where a process that becomes a program finds the pipe for its problems and the Landlock rules, until it is confined.
const PROBLEM: RawFd = 200;
const RULES: RawFd = 201;
/// How long an interpreter may take to start, or to fork, on a machine that is very busy.
const PATIENCE_MS: i32 = 60_000;

/// A waiting interpreter, and what the next case is.
pub struct Template {
    pid: i32,
    control: OwnedFd,
    words: OwnedFd,
    /// The script and its arguments.
    pub argv: Vec<String>,
    /// Names of the files of the case in the box.
    pub files: Vec<String>,
    /// The channel of the next case.
    pub channel: Option<OwnedFd>,
}

impl Template {
    /// Starts the interpreter and waits until it is ready.
    ///
    /// # Errors
    /// It does not start, in its own words.
    pub fn start(job: &Job, folder: &Path) -> Result<Self, String> {
        let failed = |e: std::io::Error| format!("the template of the interpreter: {e}");
        let (control, theirs) = pass::message_pair().map_err(failed)?;
        // The standard streams are of the kinds that a run has, since the interpreter looks at them when it starts.
        let stdin = sys::sealed_memory(b"").map_err(failed)?;
        let (_, out) = sys::pipe().map_err(failed)?;
        let (words, err) = sys::pipe().map_err(failed)?;
        // Nobody reads its words while it works, so they must not make it wait.
        sys::set_nonblocking(&err).map_err(failed)?;
        let pid = sys::fork(0).map_err(failed)?;
        if pid == 0 {
            let error = become_template(job, folder, [&stdin, &out, &err, &theirs]);
            let _ = std::io::Write::write_all(&mut std::fs::File::from(err), error.as_bytes());
            sys::exit_now(127);
        }
        drop((stdin, out, err, theirs));
        let files = Vec::new();
        let mut template = Self { pid, control, words, argv: vec![], files, channel: None };
        match template.answer()?.as_str() {
            "ready" => Ok(template),
            other => Err(format!("the template of the interpreter says {other:?}")),
        }
    }

    /// Its process.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// What the interpreter says next.
    fn answer(&mut self) -> Result<String, String> {
        let failed = |e: std::io::Error| format!("the template of the interpreter: {e}");
        if !sys::poll(&[self.control.as_raw_fd()], PATIENCE_MS).map_err(failed)?[0] {
            return Err("the template of the interpreter does not answer".into());
        }
        let (bytes, _) = pass::receive(self.control.as_fd(), 4096).map_err(failed)?;
        if bytes.is_empty() {
            sys::kill(self.pid);
            let mut words = String::new();
            let _ =
                self.words.try_clone().map(std::fs::File::from).and_then(|f| f.take(4096).read_to_string(&mut words));
            let last = words.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or("without a word");
            return Err(format!("the template of the interpreter ended: {last}"));
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Has the interpreter fork a run: the first process of a new process namespace, a child of the helper, and below it the
    /// program with these streams. `problem` gets words when the program did not begin, `status` the numbers of its end.
    ///
    /// # Errors
    /// There is no such process.
    pub fn fork(
        &mut self,
        setup: &Setup,
        job: &Job,
        streams: [&OwnedFd; 3],
        problem: &OwnedFd,
        status: &OwnedFd,
    ) -> Result<i32, String> {
        let failed = |e: std::io::Error| format!("the template of the interpreter: {e}");
        let (calls, rules) = confine::confinement(job, &setup.folder, setup.root, RULES)?;
        let mut places = vec![0, 1, 2, PROBLEM];
        let mut fds: Vec<RawFd> = streams.iter().map(|s| s.as_raw_fd()).collect();
        fds.extend([problem.as_raw_fd(), status.as_raw_fd()]);
        if let Some(rules) = &rules {
            places.push(RULES);
            fds.push(rules.as_raw_fd());
        }
        let channel = self.channel.take();
        if let Some(channel) = &channel {
            places.push(3);
            fds.push(channel.as_raw_fd());
        }
        let argv: Vec<String> = self.argv.iter().map(|a| job.placed(a, &setup.folder)).collect();
        let message = json!({"argv": argv, "scratch": job.scratch(), "places": places, "calls": calls}).to_string();
        pass::send(self.control.as_fd(), message.as_bytes(), &fds).map_err(failed)?;
        let answer = self.answer()?;
        answer.parse().map_err(|_| format!("the template of the interpreter: {answer}"))
    }
}

impl Drop for Template {
    fn drop(&mut self) {
        sys::kill(self.pid);
        let _ = sys::wait(self.pid, false);
    }
}

/// Returns only on failure, with words.
fn become_template(job: &Job, folder: &Path, fds: [&OwnedFd; 4]) -> String {
    let become_it = || -> std::io::Result<std::io::Error> {
        const HIGH: RawFd = 200;
        sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as u64)?;
        // The place of the stack in memory is chosen at exec, by the limit that its forks will have.
        sys::set_soft_limit(libc::RLIMIT_STACK, job.limits.stack)?;
        sys::keep_admin()?;
        for (i, fd) in fds.into_iter().enumerate() {
            sys::duplicate(fd.as_raw_fd(), HIGH + i as RawFd)?;
        }
        for i in 0..4 {
            sys::duplicate(HIGH + i, i)?;
        }
        sys::close_from(4)?;
        sys::reset_signals();
        std::env::set_current_dir("/")?;
        let argv = job.argv.iter().map(|a| job.placed(a, folder)).chain([libc::SYS_clone.to_string()]);
        let argv: Vec<_> = argv.map(CString::new).collect::<Result<_, _>>()?;
        let env = job.env.iter().map(|(k, v)| job.placed(&format!("{k}={v}"), folder));
        let env: Vec<_> = env.map(CString::new).collect::<Result<_, _>>()?;
        Ok(sys::exec(&argv, &env))
    };
    let (Ok(error) | Err(error)) = become_it();
    format!("cannot start {}: {error}", job.argv[0])
}
