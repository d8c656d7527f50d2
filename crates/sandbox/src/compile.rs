//! Compiles C++ and Rust inside the sandbox and keeps the result under the hash of compiler, options and text.

use crate::run::{File, Spec, environment};
use crate::sandbox::Sandbox;
use crate::submission::Language;
use crate::toolchain::system_paths;
use crate::verdict::{Verdict, clipped};
use crate::wire::End;
use sha2::{Digest, Sha256};
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

/// Largest program in bytes.
const MAX_PROGRAM: u64 = 64 << 20;
/// Total size in bytes above which the oldest programs leave the cache.
const MAX_CACHE: u64 = 1 << 30;

/// Compiled programs on disk.
pub struct Cache {
    folder: PathBuf,
    _temporary: Option<tempfile::TempDir>,
}

impl Cache {
    /// A folder that only this user can enter; a temporary one when none is given.
    pub fn open(folder: Option<PathBuf>) -> Result<Self, String> {
        let Some(folder) = folder else {
            let made = tempfile::Builder::new().prefix("aha-sandbox-cache-").tempdir();
            let made = made.map_err(|e| format!("cannot make a folder for compiled programs: {e}"))?;
            return Ok(Self { folder: made.path().to_owned(), _temporary: Some(made) });
        };
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.map_err(|e| format!("{}: cannot make the folder for compiled programs: {e}", folder.display()))?;
        Ok(Self { folder, _temporary: None })
    }

    fn get(&self, key: &str) -> Option<Result<Vec<u8>, String>> {
        if let Ok(program) = fs::read(self.folder.join(key)) {
            return Some(Ok(program));
        }
        fs::read_to_string(self.folder.join(format!("{key}.error"))).ok().map(Err)
    }

    /// A cache that cannot be written is slower, not wrong, so failures are ignored.
    fn put(&self, key: &str, result: &Result<Vec<u8>, String>) {
        let (name, bytes) = match result {
            Ok(program) => (key.to_owned(), program.as_slice()),
            Err(words) => (format!("{key}.error"), words.as_bytes()),
        };
        let written = tempfile::NamedTempFile::new_in(&self.folder).and_then(|mut file| {
            std::io::Write::write_all(&mut file, bytes)?;
            file.persist(self.folder.join(name)).map(drop).map_err(|e| e.error)
        });
        if written.is_ok() {
            self.prune();
        }
    }

    fn prune(&self) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        let mut files: Vec<_> = entries
            .flatten()
            .filter_map(|e| e.metadata().ok().and_then(|m| Some((m.modified().ok()?, m.len(), e.path()))))
            .collect();
        let mut total: u64 = files.iter().map(|f| f.1).sum();
        files.sort();
        for (_, len, path) in files {
            if total <= MAX_CACHE {
                break;
            }
            if fs::remove_file(path).is_ok() {
                total -= len;
            }
        }
    }
}

/// The compiled program, or the verdict and the words that stand for it.
pub fn compile(sandbox: &Sandbox, language: Language, code: &str) -> Result<Vec<u8>, (Verdict, String)> {
    let unclear = |words: String| (Verdict::SandboxError, words);
    let tool = sandbox.tool(language).map_err(unclear)?;
    let compiler = tool.program.display().to_string();
    let (source, mut argv): (&str, Vec<&str>) = match language {
        Language::Cpp => ("solution.cpp", vec![&compiler, "-std=c++17", "-O2", "-pipe", "-w"]),
        _ => ("solution.rs", vec![&compiler, "--edition=2021", "-Copt-level=2", "-Ccodegen-units=1", "-Awarnings"]),
    };
    let root = tool.paths.first().map(|p| p.display().to_string());
    if let Some(root) = &root {
        // Rust's own linker looks for itself in /proc; the system's does not.
        argv.extend(["--sysroot", root, "--crate-name", "solution", "-Clink-arg=-fuse-ld=bfd"]);
    }
    let path = format!("@box/{source}");
    argv.extend(["-o", "@box/out/program", &path]);
    let mut hash = Sha256::new();
    for part in [tool.version.as_str(), &argv.join("\0"), code] {
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    let key: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
    if let Some(known) = sandbox.cache.get(&key) {
        return known.map_err(|words| (Verdict::CompileError, words));
    }
    let mut env = environment(&[]);
    env.retain(|(name, _)| name != "TMPDIR");
    env.push(("TMPDIR".into(), "@box/out".into()));
    if let Some(root) = &root {
        // The loader finds libraries next to a program through /proc, which does not exist here.
        env.push(("LD_LIBRARY_PATH".into(), format!("{root}/lib")));
    }
    let spec = Spec {
        argv: argv.iter().map(|a| (*a).to_owned()).collect(),
        env,
        readable: system_paths().into_iter().chain(tool.readable.iter().cloned()).collect(),
        files: vec![File { name: source, bytes: code.as_bytes(), executable: false }],
        limits: sandbox.config.compile_limits.clone(),
        fetch: Some("program".into()),
        channel: None,
        template: false,
    };
    let report = sandbox.start(spec).and_then(|mut p| p.run(b"")).map_err(unclear)?;
    let words = clipped(String::from_utf8_lossy(&report.stderr).trim(), 2000);
    let result = match (report.end, report.fetched) {
        (End::Exited(0), Some(program)) if program.len() as u64 <= MAX_PROGRAM => Ok(program),
        (End::Exited(0), Some(_)) => Err("the program is too large".to_owned()),
        (End::Exited(1..=125), _) => Err(words),
        (End::TimeLimit, _) => return Err((Verdict::CompileError, "the compiler took too long".into())),
        (End::MemoryLimit, _) => return Err((Verdict::CompileError, "the compiler took too much memory".into())),
        (End::OutputLimit, _) => return Err((Verdict::CompileError, "the compiler wrote too much".into())),
        (End::Failed(words), _) => return Err(unclear(words)),
        (end, _) => return Err(unclear(format!("the compiler ended with {end:?}: {words}"))),
    };
    sandbox.cache.put(&key, &result);
    result.map_err(|words| (Verdict::CompileError, words))
}
