//! The sandbox of a caller: configuration, the layers this machine gives, and a pool of threads that judge.

use crate::layers::{Layer, Layers, Required};
use crate::limits::Limits;
use crate::python::Python;
use crate::run::{Helper, Process, Spec, environment};
use crate::submission::{Language, Submission};
use crate::toolchain::{self, Tool};
use crate::verdict::Judged;
use crate::wire::End;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How to judge.
#[derive(Clone, Debug)]
pub struct Config {
    /// The binary that is started as helper.
    pub helper: Helper,
    /// Layers without which nothing runs.
    pub required: Required,
    /// Layers not to use even where they work.
    pub disabled: Vec<Layer>,
    /// Limits of a run.
    pub limits: Limits,
    /// Limits of a compiler.
    pub compile_limits: Limits,
    /// Whether the tests after the first that fails are skipped.
    pub stop_early: bool,
    /// Whether runs of Python are forks of an interpreter that has started, where the layers allow it; else each starts one.
    pub fork_python: bool,
    /// Where compiled programs are kept, for this user only; none: only as long as this value lives.
    pub cache: Option<PathBuf>,
    /// The Python interpreter; none: the first `python3` in `PATH` that works. Likewise below.
    pub python: Option<PathBuf>,
    /// The C++ compiler, `g++`.
    pub cpp: Option<PathBuf>,
    /// The Rust compiler, `rustc`.
    pub rust: Option<PathBuf>,
}

impl Config {
    /// The defaults with a helper.
    pub fn new(helper: Helper) -> Self {
        Self {
            helper,
            required: Required::Default,
            disabled: vec![],
            limits: Limits::default(),
            compile_limits: Limits::compiler(),
            stop_early: false,
            fork_python: true,
            cache: None,
            python: None,
            cpp: None,
            rust: None,
        }
    }
}

/// Why nothing will be run.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// A required layer is not active.
    #[error("the sandbox lacks required layers: {0}; run where they are allowed, or require fewer")]
    Layers(String),
    /// Not even a trivial program ran.
    #[error("the sandbox does not work here: {0}")]
    Broken(String),
}

/// Judges programs; shared by threads.
pub struct Sandbox {
    pub(crate) config: Config,
    layers: Layers,
    /// Interpreters.
    pub(crate) python: Python,
    cpp: OnceLock<Result<Tool, String>>,
    rust: OnceLock<Result<Tool, String>>,
    pub(crate) cache: crate::compile::Cache,
}

impl Sandbox {
    /// Finds out which layers work here, by setting them up and running a program.
    ///
    /// # Errors
    /// A required layer is missing, or nothing runs at all.
    pub fn new(config: Config) -> Result<Self, Refused> {
        let layers = probe(&config).map_err(Refused::Broken)?;
        if let Some(words) = layers.lacks(&config.required) {
            return Err(Refused::Layers(words));
        }
        let cache = crate::compile::Cache::open(config.cache.clone()).map_err(Refused::Broken)?;
        let python = Python::new(&config, &layers);
        Ok(Self { config, layers, python, cpp: OnceLock::new(), rust: OnceLock::new(), cache })
    }

    /// The layers this machine gives, whatever is required.
    ///
    /// # Errors
    /// As for [`Sandbox::new`], but for what is required.
    pub fn layers_here(config: &Config) -> Result<Layers, Refused> {
        probe(config).map_err(Refused::Broken)
    }

    /// The active layers.
    pub fn layers(&self) -> &Layers {
        &self.layers
    }

    /// Name and version of the tool for a language.
    ///
    /// # Errors
    /// There is none, in words.
    pub fn tool_version(&self, language: Language) -> Result<String, String> {
        self.tool(language).map(|t| t.version.clone())
    }

    pub(crate) fn tool(&self, language: Language) -> Result<&Tool, String> {
        let by_all = self.layers.has(Layer::DropUser) && !self.layers.has(Layer::Mount);
        let c = &self.config;
        let found = match language {
            Language::Python => self.python.tool.get_or_init(|| toolchain::python(c.python.as_deref(), by_all)),
            Language::Cpp => self.cpp.get_or_init(|| toolchain::cpp(c.cpp.as_deref(), by_all)),
            Language::Rust => self.rust.get_or_init(|| toolchain::rust(c.rust.as_deref(), by_all)),
        };
        found.as_ref().map_err(Clone::clone)
    }

    pub(crate) fn start(&self, spec: Spec<'_>) -> Result<Process, String> {
        Process::start(&self.config.helper, &self.layers.active, false, spec).map(|(process, _)| process)
    }

    /// Judges one submission on this thread.
    pub fn judge(&self, submission: &Submission) -> Judged {
        crate::judge::judge(self, submission)
    }

    /// Judges many, `threads` at a time, and tells each verdict as it comes; the verdicts are in the order of the
    /// submissions.
    pub fn judge_all(
        &self,
        submissions: &[Submission],
        threads: usize,
        done: impl Fn(usize, &Judged) + Sync,
    ) -> Vec<Judged> {
        let next = AtomicUsize::new(0);
        let verdicts: Vec<OnceLock<Judged>> = submissions.iter().map(|_| OnceLock::new()).collect();
        std::thread::scope(|scope| {
            for _ in 0..threads.clamp(1, submissions.len().max(1)) {
                scope.spawn(|| {
                    while let Some((i, submission)) = {
                        let i = next.fetch_add(1, Ordering::Relaxed);
                        submissions.get(i).map(|s| (i, s))
                    } {
                        let judged = self.judge(submission);
                        done(i, &judged);
                        let _ = verdicts[i].set(judged);
                    }
                });
            }
        });
        verdicts.into_iter().map(|v| v.into_inner().expect("every index was taken by a thread")).collect()
    }
}

/// Namespaces first, the root of files last among them; what confines the program itself at the end.
const ORDER: [Layer; 9] = [
    Layer::Rlimits,
    Layer::Landlock,
    Layer::Seccomp,
    Layer::User,
    Layer::Net,
    Layer::Ipc,
    Layer::Pid,
    Layer::Mount,
    Layer::DropUser,
];

fn probe(config: &Config) -> Result<Layers, String> {
    let wanted: Vec<Layer> =
        ORDER.into_iter().filter(|l| *l == Layer::Rlimits || !config.disabled.contains(l)).collect();
    let spec = || Spec {
        argv: vec!["/bin/true".into()],
        env: environment(&[]),
        readable: toolchain::system_paths(),
        files: vec![],
        limits: Limits::default(),
        fetch: None,
        channel: None,
        template: false,
    };
    let (_, mut layers) = Process::start(&config.helper, &wanted, true, spec())?;
    for layer in &config.disabled {
        layers.missing.push(crate::layers::Missing { layer: *layer, reason: "disabled".into() });
    }
    let (mut process, _) = Process::start(&config.helper, &layers.active, false, spec())?;
    match process.run(b"")?.end {
        End::Exited(0) => Ok(layers),
        End::Failed(words) => Err(words),
        other => Err(format!("/bin/true ended with {other:?}")),
    }
}
