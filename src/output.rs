//! Where text goes. Results for people are printed to stdout, or to stderr when `--json` keeps stdout for the one object.
//! A reader that goes away (`| head`) ends the program quietly.

use serde::Serialize;
use std::io::{ErrorKind, Write};

/// Where the results of a command go.
#[derive(Clone, Copy)]
pub struct Output {
    json: bool,
}

impl Output {
    /// `json` is the command's `--json`.
    pub fn new(json: bool) -> Self {
        Output { json }
    }

    /// Text for people; may hold several lines.
    pub fn text(self, text: impl AsRef<str>) {
        if self.json { note(text) } else { result(text) }
    }

    /// The object of `--json`; nothing without it.
    pub fn object(self, value: &impl Serialize) {
        if self.json {
            result(serde_json::to_string(value).expect("names are strings, so this is always JSON"));
        }
    }
}

/// A line on stdout.
pub fn result(line: impl AsRef<str>) {
    let mut out = std::io::stdout().lock();
    end_if_gone(out.write_all(line.as_ref().as_bytes()).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush()));
}

/// Text on stdout as it is, at once.
pub fn raw(text: &str) {
    let mut out = std::io::stdout().lock();
    end_if_gone(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}

/// A line on stderr; lost when nobody listens there.
pub fn note(line: impl AsRef<str>) {
    let _ = writeln!(std::io::stderr(), "{}", line.as_ref());
}

fn end_if_gone(written: std::io::Result<()>) {
    match written {
        Ok(()) => {}
        Err(e) if e.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        Err(e) => {
            note(format!("error: cannot write to stdout: {e}"));
            std::process::exit(1);
        }
    }
}
