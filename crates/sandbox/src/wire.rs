//! What goes between the host and its helper over one socket: a header as one line of JSON, then the bytes it announces.
//! The helper is told the program and the inputs, never an expected answer.

use crate::layers::{Layer, Layers};
use crate::limits::Limits;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead, Read, Write};
use std::path::PathBuf;

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

/// One case: the bytes of standard input follow.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Case {
    /// Size of the input in bytes.
    pub input_len: u64,
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
