//! What goes between the host and its helper over one socket: a header as one line of JSON, then the bytes it announces.
//! The helper is told the program and the inputs, never an expected answer.

use crate::layers::{Layer, Layers};
use crate::limits::Limits;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead, Read, Write};
use std::path::{Path, PathBuf};

/// Longest header in bytes.
const MAX_HEADER: u64 = 1 << 20;
/// Stands for the folder of the program in arguments and environment.
pub const BOX: &str = "@box";

/// Stands for the scratch folder.
pub const SCRATCH: &str = "@scratch";

impl Job {
    /// The scratch folder: `/tmp`, unless something the program must see lies there.
    pub fn scratch(&self) -> &'static str {
        if self.readable.iter().any(|p| p.starts_with("/tmp")) { "/scratch" } else { "/tmp" }
    }

    /// A text with the folders that its marks stand for.
    pub fn placed(&self, text: &str, folder: &Path) -> String {
        text.replace(BOX, &folder.to_string_lossy()).replace(SCRATCH, self.scratch())
    }
}

/// What to run; the bytes of `files` follow the header in order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    /// Layers to set up: all of them or none, except when probing.
    pub layers: Vec<Layer>,
    /// Whether layers that cannot be set up are reported instead of failing the job.
    pub probe: bool,
    /// Limits of every case.
    pub limits: Limits,
    /// Program and arguments; `@box` stands for the folder with the files.
    pub argv: Vec<String>,
    /// Environment.
    pub env: Vec<(String, String)>,
    /// Paths that are visible, read-only.
    pub readable: Vec<PathBuf>,
    /// Files to put into the box.
    pub files: Vec<BoxFile>,
    /// Whether `@box/out` is writable, for compilers.
    pub writable_out: bool,
    /// File of `@box/out` to send back after each case.
    pub fetch: Option<String>,
    /// Whether the helper's standard error is a channel that the program gets as file descriptor 3.
    pub channel: bool,
    /// Whether the program is an interpreter that waits, and every case a fork of it. The helper's standard error is then a
    /// socket over which the channels of cases come.
    pub template: bool,
    /// The folder of the box where there is no mount namespace.
    pub box_dir: Option<PathBuf>,
}

/// A file of the box.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BoxFile {
    /// Name, without folders.
    pub name: String,
    /// Size in bytes.
    pub len: u64,
    /// Whether it may be run.
    pub executable: bool,
}

/// The answer to a job, before the first case.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Ready {
    /// Set up.
    Ok(Layers),
    /// Not set up, and why.
    Failed(String),
}

/// What the host asks for after the job.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Request {
    /// To run one case, which is answered by a report.
    Case(Case),
    /// To end the running case, whose report comes at once. Without one it means nothing.
    Cancel,
}

/// One case: the bytes of standard input follow, then those of the files.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Case {
    /// Size of the input in bytes.
    pub input_len: u64,
    /// What is new since the case before, for a template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<Change>,
}

/// What the cases of a template do from now on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Change {
    /// The script and its arguments.
    pub argv: Vec<String>,
    /// Files in place of those of the change before.
    pub files: Vec<BoxFile>,
    /// Limits of a case.
    pub limits: Limits,
    /// Whether a channel for the next case was sent.
    pub channel: bool,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// By itself, with this code.
    Exited(i32),
    /// By this signal.
    Signaled(i32),
    /// Too much time.
    TimeLimit,
    /// Too much memory.
    MemoryLimit,
    /// Too much output.
    OutputLimit,
    /// The host asked for its end.
    Cancelled,
    /// It did not begin: the sandbox failed.
    Failed(String),
}

/// Header of the report on one case; the three blobs follow in this order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReportHeader {
    /// How it ended.
    pub end: End,
    /// Processor time of all processes, milliseconds.
    pub cpu_ms: u64,
    /// Wall-clock time, milliseconds.
    pub wall_ms: u64,
    /// Largest memory seen, bytes.
    pub peak_memory: u64,
    /// Bytes of standard output.
    pub stdout_len: u64,
    /// Bytes of the end of standard error.
    pub stderr_len: u64,
    /// Bytes of the fetched file; none when it does not exist.
    pub fetched_len: Option<u64>,
}

/// Writes a header.
///
/// # Errors
/// The other side is gone.
pub fn write_header<T: Serialize>(out: &mut impl Write, header: &T) -> io::Result<()> {
    let mut line = serde_json::to_vec(header).map_err(io::Error::other)?;
    line.push(b'\n');
    out.write_all(&line)
}

/// Reads a header; none at the end of the stream.
///
/// # Errors
/// The stream broke, or this is no such header.
pub fn read_header<T: DeserializeOwned>(input: &mut impl BufRead) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    input.take(MAX_HEADER).read_until(b'\n', &mut line)?;
    match line.last() {
        None => Ok(None),
        Some(b'\n') => serde_json::from_slice(&line).map(Some).map_err(io::Error::other),
        Some(_) => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Reads exactly `len` bytes.
///
/// # Errors
/// The stream ended before.
pub fn read_blob(input: &mut impl Read, len: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    input.take(len).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == len { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}
