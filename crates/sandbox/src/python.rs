//! Interpreters for runs of Python. Where the layers allow it they are started once and forked for every run: a start is most
//! of what a short program takes. Those that run programs never hold tests, and the other way round, so that the two kinds
//! are kept apart for ever.

use crate::layers::{Layer, Layers};
use crate::limits::Limits;
use crate::run::{File, Process, Spec, Work, environment};
use crate::sandbox::{Config, Sandbox};
use crate::submission::Language;
use crate::toolchain::{Tool, system_paths};
use std::ops::{Deref, DerefMut};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};

const fn script(name: &'static str, text: &'static str) -> File<'static> {
    File { name, bytes: text.as_bytes(), executable: false }
}
const CODEC: File<'static> = script("codec.py", include_str!("python/codec.py"));
const RUN: File<'static> = script("run.py", include_str!("python/run.py"));
const SERVE: File<'static> = script("serve.py", include_str!("python/serve.py"));
const JUDGE: File<'static> = script("judge.py", include_str!("python/judge.py"));
const TEMPLATE: File<'static> = script("template.py", include_str!("python/template.py"));

/// What an interpreter does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Script {
    /// Runs a program on standard input.
    Run,
    /// Loads a program and calls its functions for another process.
    Serve,
    /// Runs tests whose calls go to another process.
    Judge,
}

impl Script {
    /// Script and arguments.
    fn argv(self) -> [&'static str; 2] {
        match self {
            Self::Run => ["@box/run.py", "@box/solution.py"],
            Self::Serve => ["@box/serve.py", "@box"],
            Self::Judge => ["@box/judge.py", "@box"],
        }
    }

    /// The file that is different for every submission.
    fn file(self, bytes: &[u8]) -> File<'_> {
        File { name: if self == Self::Judge { "tests.json" } else { "solution.py" }, bytes, executable: false }
    }
}

/// The interpreters of a sandbox.
pub struct Python {
    /// The interpreter itself, once it has been looked for.
    pub tool: OnceLock<Result<Tool, String>>,
    fork: bool,
    /// Why there are no templates although there could be.
    unfit: OnceLock<String>,
    programs: Mutex<Vec<Process>>,
    judges: Mutex<Vec<Process>>,
}

impl Python {
    pub fn new(config: &Config, layers: &Layers) -> Self {
        // A template must be out of the reach of programs, and its forks must not see each other.
        let apart = [Layer::User, Layer::Pid, Layer::Mount].into_iter().all(|l| layers.has(l));
        let (tool, unfit) = (OnceLock::new(), OnceLock::new());
        let (programs, judges) = (Mutex::default(), Mutex::default());
        Self { tool, fork: config.fork_python && apart, unfit, programs, judges }
    }

    /// An interpreter with a script, the text it works on, limits, and descriptor 3.
    ///
    /// # Errors
    /// There is no interpreter, or the helper failed.
    pub fn start<'a>(
        &'a self,
        sandbox: &Sandbox,
        script: Script,
        text: &[u8],
        limits: Limits,
        channel: Option<OwnedFd>,
    ) -> Result<Lease<'a>, String> {
        let tool = sandbox.tool(Language::Python)?;
        if self.fork && self.unfit.get().is_none() {
            let home = if script == Script::Judge { &self.judges } else { &self.programs };
            let waiting = home.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let template = waiting.map_or_else(|| new_template(sandbox, tool, &limits), Ok);
            match template {
                Ok(process) => {
                    let mut lease = Lease { process: Some(process), home: Some(home) };
                    let argv = script.argv().map(str::to_owned).to_vec();
                    lease.change(Work { argv, files: vec![script.file(text)], limits, channel })?;
                    return Ok(lease);
                }
                Err(words) => drop(self.unfit.set(words)),
            }
        }
        let files =
            vec![CODEC, RUN, SERVE, JUDGE].into_iter().filter(|f| f.name != "codec.py" || script != Script::Run);
        let files = files.chain([script.file(text)]).collect();
        sandbox.start(spec(tool, &script.argv(), files, limits, channel, false)).map(Lease::own)
    }
}

fn new_template(sandbox: &Sandbox, tool: &Tool, limits: &Limits) -> Result<Process, String> {
    let files = vec![CODEC, RUN, SERVE, JUDGE, TEMPLATE];
    sandbox.start(spec(tool, &["@box/template.py", "@box"], files, limits.clone(), None, true))
}

/// The interpreter, without the site module: it costs up to 30 ms, and packages are reached by their path.
fn spec<'a>(
    tool: &Tool,
    args: &[&str],
    files: Vec<File<'a>>,
    limits: Limits,
    channel: Option<OwnedFd>,
    template: bool,
) -> Spec<'a> {
    let packages: Vec<String> = tool.paths.iter().map(|p| p.display().to_string()).collect();
    let packages = PathBuf::from(packages.join(":"));
    let interpreter = tool.program.display().to_string();
    let argv = [&*interpreter, "-S", "-s", "-B"].into_iter().chain(args.iter().copied());
    let zero = PathBuf::from("0");
    let one = PathBuf::from("1");
    Spec {
        argv: argv.map(str::to_owned).collect(),
        env: environment(&[("PYTHONPATH", &packages), ("PYTHONHASHSEED", &zero), ("PYTHONSAFEPATH", &one)]),
        readable: system_paths().into_iter().chain(tool.readable.iter().cloned()).collect(),
        files,
        limits,
        fetch: None,
        channel,
        template,
    }
}

/// A helper that is given back when nobody needs it any more and it is in order, where it can be used again.
pub struct Lease<'a> {
    process: Option<Process>,
    home: Option<&'a Mutex<Vec<Process>>>,
}

impl Lease<'_> {
    /// A helper that ends with its lease.
    pub fn own(process: Process) -> Self {
        Self { process: Some(process), home: None }
    }
}

impl Deref for Lease<'_> {
    type Target = Process;

    fn deref(&self) -> &Process {
        self.process.as_ref().expect("only dropping takes it")
    }
}

impl DerefMut for Lease<'_> {
    fn deref_mut(&mut self) -> &mut Process {
        self.process.as_mut().expect("only dropping takes it")
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let (Some(mut process), Some(home)) = (self.process.take(), self.home) else { return };
        if process.settle() {
            home.lock().unwrap_or_else(PoisonError::into_inner).push(process);
        }
    }
}
