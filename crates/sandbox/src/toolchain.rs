//! The interpreter and the compilers of the host: where they are, and which folders they need to see.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A program of the host and what it needs.
#[derive(Clone, Debug)]
pub struct Tool {
    /// Its real path.
    pub program: PathBuf,
    /// Folders and files beyond the system's that it reads.
    pub readable: Vec<PathBuf>,
    /// Name and version, for the cache of compiled programs.
    pub version: String,
    /// Folders of packages (Python), or the root of the toolchain (Rust).
    pub paths: Vec<PathBuf>,
}

/// Paths of the system that every program may read. Links stay links.
pub fn system_paths() -> Vec<PathBuf> {
    ["/usr", "/bin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/etc/ld.so.cache", "/etc/alternatives"]
        .into_iter()
        .map(PathBuf::from)
        .filter(|p| p.symlink_metadata().is_ok())
        .collect()
}

/// Every `name` in the search path, in order.
fn in_path(name: &str) -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    std::env::split_paths(&path).map(|dir| dir.join(name)).filter(|p| p.is_file()).collect()
}

fn output(program: &Path, args: &[&str]) -> Option<String> {
    let out = Command::new(program).args(args).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    out.status.success().then(|| String::from_utf8_lossy(&out.stdout).trim().to_owned())
}

/// Whether users other than the owner can reach a path.
fn reachable_by_all(path: &Path) -> bool {
    path.ancestors().all(|p| p.metadata().is_ok_and(|m| m.permissions().mode() & 0o005 == 0o005))
}

/// Candidates of which the first that works is taken; only those all users can reach when `by_all`.
fn first_working(
    given: Option<&Path>,
    name: &str,
    by_all: bool,
    probe: impl Fn(&Path) -> Option<Tool>,
) -> Result<Tool, String> {
    let candidates = given.map_or_else(|| in_path(name), |p| vec![p.to_owned()]);
    let found = candidates.iter().filter_map(|p| probe(p)).find(|t| !by_all || reachable_by_all(&t.program));
    found.ok_or_else(|| match given {
        Some(path) => format!("{} does not work as {name}", path.display()),
        None => format!("no {name} in PATH that works{}", if by_all { " and that all users can reach" } else { "" }),
    })
}

/// Python 3.8 or later.
///
/// # Errors
/// There is none.
pub fn python(given: Option<&Path>, by_all: bool) -> Result<Tool, String> {
    const QUESTION: &str = "import sys, sysconfig, site
assert sys.version_info >= (3, 8)
p = sysconfig.get_paths()
print(sys.version.split()[0])
print(getattr(sys, '_base_executable', '') or sys.executable)
print(sys.base_prefix)
print(*dict.fromkeys([p['purelib'], p['platlib'], *site.getsitepackages()]), sep='\\n')";
    first_working(given, "python3", by_all, |path| {
        let text = output(path, &["-c", QUESTION])?;
        let mut lines = text.lines();
        let (version, program, prefix) = (lines.next()?, lines.next()?, lines.next()?);
        let program = Path::new(program).canonicalize().ok()?;
        let paths: Vec<PathBuf> = lines.filter_map(|p| Path::new(p).canonicalize().ok()).collect();
        let mut readable = vec![Path::new(prefix).canonicalize().ok()?];
        readable.extend(paths.iter().cloned());
        let version = format!("python {version}");
        Some(Tool { program, readable: beyond_system(readable), version, paths })
    })
}

/// A C++17 compiler that understands GCC's options.
///
/// # Errors
/// There is none.
pub fn cpp(given: Option<&Path>, by_all: bool) -> Result<Tool, String> {
    first_working(given, "g++", by_all, |path| {
        let version = output(path, &["--version"])?.lines().next()?.to_owned();
        let program = path.canonicalize().ok()?;
        let readable = program.parent().and_then(Path::parent).map(Path::to_owned).into_iter().collect();
        Some(Tool { program, readable: beyond_system(readable), version, paths: vec![] })
    })
}

/// The Rust compiler itself, not the proxy that rustup puts in its place.
///
/// # Errors
/// There is none.
pub fn rust(given: Option<&Path>, by_all: bool) -> Result<Tool, String> {
    first_working(given, "rustc", by_all, |path| {
        let root = PathBuf::from(output(path, &["--print", "sysroot"])?).canonicalize().ok()?;
        let program = root.join("bin/rustc").canonicalize().ok()?;
        let version = output(&program, &["--version"])?;
        Some(Tool { program, readable: beyond_system(vec![root.clone()]), version, paths: vec![root] })
    })
}

/// The paths that are not part of the system's, none inside another.
fn beyond_system(paths: Vec<PathBuf>) -> Vec<PathBuf> {
    let mut kept: Vec<PathBuf> = system_paths();
    let system = kept.len();
    for path in paths {
        if path != Path::new("/") && !kept.iter().any(|k| path.starts_with(k)) {
            kept.push(path);
        }
    }
    kept.split_off(system)
}
