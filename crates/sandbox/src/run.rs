//! The host's side of a helper: starts it, gives it a job, asks for one run after another. Dropping a [`Process`] ends
//! everything below it.

use crate::layers::{Layer, Layers};
use crate::limits::Limits;
use crate::pass;
use crate::wire::{
    BoxFile, Case, Change, End, Job, Ready, ReportHeader, Request, SCRATCH, read_blob, read_header, write_header,
};
use std::ffi::OsString;
use std::io::{self, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The argument that makes a binary a helper.
pub const HELPER_ARGUMENT: &str = "__aha-sandbox-helper";
/// How much longer than its wall-clock limit a run may stay silent before the helper counts as lost.
const GRACE: Duration = Duration::from_secs(60);

/// The program that is started again as helper.
#[derive(Clone, Debug)]
pub struct Helper {
    program: PathBuf,
    args: Vec<OsString>,
}

impl Helper {
    /// This binary; its `main` must begin with [`crate::run_helper_if_asked`].
    ///
    /// # Errors
    /// The path of this binary is not known.
    pub fn this_binary() -> io::Result<Self> {
        Ok(Self::at(std::env::current_exe()?))
    }

    /// Another binary whose `main` begins with [`crate::run_helper_if_asked`].
    pub fn at(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), args: vec![HELPER_ARGUMENT.into()] }
    }
}

/// A file for the box.
pub struct File<'a> {
    pub name: &'a str,
    pub bytes: &'a [u8],
    pub executable: bool,
}

impl File<'_> {
    fn header(&self) -> BoxFile {
        BoxFile { name: self.name.to_owned(), len: self.bytes.len() as u64, executable: self.executable }
    }
}

/// What to run.
pub struct Spec<'a> {
    pub argv: Vec<String>,
    pub env: Vec<(String, String)>,
    pub readable: Vec<PathBuf>,
    pub files: Vec<File<'a>>,
    pub limits: Limits,
    pub fetch: Option<String>,
    pub channel: Option<OwnedFd>,
    /// Whether the program is an interpreter that is started once and forked for every run.
    pub template: bool,
}

/// What the runs of a template do until the next change.
pub struct Work<'a> {
    /// The script of the template and its arguments.
    pub argv: Vec<String>,
    /// Files of the box.
    pub files: Vec<File<'a>>,
    /// Limits of a run.
    pub limits: Limits,
    /// Descriptor 3 of the next run.
    pub channel: Option<OwnedFd>,
}

/// What one run did.
#[derive(Debug)]
pub struct Report {
    pub end: End,
    pub cpu_ms: u64,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub fetched: Option<Vec<u8>>,
}

/// Whether a helper can be asked for more.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Ready,
    /// A run has begun and not ended.
    Running,
    /// Something went wrong on its side.
    Spoiled,
}

/// A helper with a job.
pub struct Process {
    child: Child,
    socket: BufReader<UnixStream>,
    /// Where channels go, for a template.
    hand: Option<UnixStream>,
    /// The change that the next run brings, with the bytes of its files.
    change: Option<(Change, Vec<u8>)>,
    state: State,
    // Removed after the helper has ended.
    _folder: Option<tempfile::TempDir>,
}

impl Process {
    /// Starts a helper that sets up `layers` for `spec`; the layers it reports are all of them unless probing.
    ///
    /// # Errors
    /// The helper cannot be started or could not set up a layer, in words.
    pub fn start(helper: &Helper, layers: &[Layer], probe: bool, spec: Spec<'_>) -> Result<(Self, Layers), String> {
        let (ours, theirs) = UnixStream::pair().map_err(|e| format!("cannot make a socket: {e}"))?;
        let timeout = Some(GRACE + Duration::from_millis(spec.limits.wall_ms));
        let timeouts = ours.set_read_timeout(timeout).and_then(|()| ours.set_write_timeout(Some(GRACE)));
        timeouts.map_err(|e| format!("cannot set a timeout: {e}"))?;
        let folder = if probe || !layers.contains(&Layer::Mount) { Some(plain_folder()?) } else { None };
        let channel = spec.channel.is_some();
        let (hand, theirs_hand) = match spec.template.then(UnixStream::pair).transpose() {
            Ok(pair) => pair.unzip(),
            Err(e) => return Err(format!("cannot make a socket: {e}")),
        };
        let stderr = spec.channel.or(theirs_hand.map(OwnedFd::from));
        let child = Command::new(&helper.program)
            .args(&helper.args)
            .env_clear()
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .stderr(stderr.map_or_else(Stdio::null, Stdio::from))
            .spawn()
            .map_err(|e| format!("cannot start the helper {}: {e}", helper.program.display()))?;
        let box_dir = folder.as_ref().map(|f| f.path().to_owned());
        let socket = BufReader::new(ours);
        let mut process = Self { child, socket, hand, change: None, state: State::Ready, _folder: folder };
        let job = Job {
            layers: layers.to_vec(),
            probe,
            limits: spec.limits,
            argv: spec.argv,
            env: spec.env,
            readable: spec.readable,
            files: spec.files.iter().map(File::header).collect(),
            writable_out: spec.fetch.is_some(),
            fetch: spec.fetch,
            channel,
            template: spec.template,
            box_dir,
        };
        let lost = |e: io::Error| format!("the helper was lost: {e}");
        write_header(process.socket.get_mut(), &job).map_err(lost)?;
        for f in &spec.files {
            process.socket.get_mut().write_all(f.bytes).map_err(lost)?;
        }
        match read_header(&mut process.socket).map_err(lost)? {
            Some(Ready::Ok(layers)) => Ok((process, layers)),
            Some(Ready::Failed(words)) => Err(words),
            None => Err("the helper ended at once: does its main call run_helper_if_asked first?".into()),
        }
    }

    /// Gives a template other work, from the next run on.
    ///
    /// # Errors
    /// The helper was lost.
    pub fn change(&mut self, work: Work<'_>) -> Result<(), String> {
        let lost = |e: io::Error| format!("the helper was lost: {e}");
        let timeout = Some(GRACE + Duration::from_millis(work.limits.wall_ms));
        self.socket.get_ref().set_read_timeout(timeout).map_err(lost)?;
        if let (Some(channel), Some(hand)) = (&work.channel, &self.hand) {
            pass::send(hand.as_fd(), b"c", &[channel.as_raw_fd()]).map_err(lost)?;
        }
        let bytes = work.files.iter().flat_map(|f| f.bytes).copied().collect();
        let files = work.files.iter().map(File::header).collect();
        let change = Change { argv: work.argv, files, limits: work.limits, channel: work.channel.is_some() };
        self.change = Some((change, bytes));
        Ok(())
    }

    /// Begins a run without waiting for its end.
    ///
    /// # Errors
    /// The helper was lost.
    pub fn begin(&mut self, input: &[u8]) -> Result<(), String> {
        let (change, files) = self.change.take().unzip();
        let request = Request::Case(Case { input_len: input.len() as u64, change });
        self.state = State::Running;
        let socket = self.socket.get_mut();
        let sent = write_header(socket, &request)
            .and_then(|()| socket.write_all(input))
            .and_then(|()| socket.write_all(&files.unwrap_or_default()));
        sent.map_err(|e| self.lost(&e))
    }

    /// Waits for the end of the run.
    ///
    /// # Errors
    /// The helper was lost.
    pub fn finish(&mut self) -> Result<Report, String> {
        let report = self.read_report().map_err(|e| self.lost(&e))?;
        self.state = if matches!(report.end, End::Failed(_)) { State::Spoiled } else { State::Ready };
        Ok(report)
    }

    /// Ends what is running; whether the helper can be asked for more.
    pub fn settle(&mut self) -> bool {
        if self.state == State::Running {
            match write_header(self.socket.get_mut(), &Request::Cancel) {
                Ok(()) => drop(self.finish()),
                Err(e) => drop(self.lost(&e)),
            }
        }
        // A change that was never begun has its channel on the way.
        self.state == State::Ready && self.change.is_none()
    }

    fn lost(&mut self, e: &io::Error) -> String {
        self.state = State::Spoiled;
        format!("the helper was lost: {e}")
    }

    fn read_report(&mut self) -> io::Result<Report> {
        let header: ReportHeader = read_header(&mut self.socket)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let stdout = read_blob(&mut self.socket, header.stdout_len)?;
        let stderr = read_blob(&mut self.socket, header.stderr_len)?;
        let fetched = header.fetched_len.map(|len| read_blob(&mut self.socket, len)).transpose()?;
        Ok(Report { end: header.end, cpu_ms: header.cpu_ms, stdout, stderr, fetched })
    }

    /// One run on `input`.
    ///
    /// # Errors
    /// The helper was lost.
    pub fn run(&mut self, input: &[u8]) -> Result<Report, String> {
        self.begin(input)?;
        self.finish()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The helper ends all processes when its socket closes, then itself; it is killed only if it does not.
        let socket = self.socket.get_mut();
        let _ = socket.shutdown(Shutdown::Write);
        let _ = socket.set_read_timeout(Some(Duration::from_secs(20)));
        let gone = loop {
            match socket.read(&mut [0; 64 << 10]) {
                Ok(0) => break true,
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => break e.kind() == io::ErrorKind::ConnectionReset,
            }
        };
        if !gone {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

/// A folder for the box that another user can enter.
fn plain_folder() -> Result<tempfile::TempDir, String> {
    use std::os::unix::fs::PermissionsExt;
    let failed = |e: io::Error| format!("cannot make a folder for the program: {e}");
    let folder = tempfile::Builder::new().prefix("aha-sandbox-").tempdir().map_err(failed)?;
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).map_err(failed)?;
    Ok(folder)
}

/// The environment every program gets.
pub fn environment(extra: &[(&str, &Path)]) -> Vec<(String, String)> {
    let fixed = [
        ("PATH", "/usr/bin:/bin"),
        ("HOME", SCRATCH),
        ("TMPDIR", SCRATCH),
        ("LANG", "C.UTF-8"),
        ("MALLOC_ARENA_MAX", "1"),
        ("OPENBLAS_NUM_THREADS", "1"),
        ("OMP_NUM_THREADS", "1"),
    ];
    let fixed = fixed.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned()));
    fixed.chain(extra.iter().map(|(k, v)| ((*k).to_owned(), v.display().to_string()))).collect()
}
