//! The helper: the same binary, started again with one hidden argument, single-threaded, which sets up the layers once and
//! then runs the program on one input after another. It knows the program and the inputs and no expected answer.

mod confine;
mod namespaces;
mod root;
mod seccomp;
mod sys;
mod template;
mod tree;
mod watch;

use crate::layers::{Layer, Layers, Missing};
use crate::pass;
use crate::wire::{Change, End, Job, Ready, ReportHeader, Request, read_blob, read_header, write_header};
use std::io::{BufReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use template::Template;

/// What stays the same over the runs of a job.
struct Setup {
    tree: tree::Tree,
    folder: PathBuf,
    root: bool,
}

/// Serves one job over the socket that is standard input.
pub fn serve() -> std::process::ExitCode {
    let socket = UnixStream::from(sys::standard(0));
    match serve_on(socket) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(_) => std::process::ExitCode::FAILURE,
    }
}

fn serve_on(socket: UnixStream) -> std::io::Result<()> {
    let host: OwnedFd = socket.as_fd().try_clone_to_owned()?;
    let mut output = socket.try_clone()?;
    let mut input = BufReader::new(socket);
    let Some(mut job) = read_header::<Job>(&mut input)? else { return Ok(()) };
    let files: Vec<Vec<u8>> = job.files.iter().map(|f| read_blob(&mut input, f.len)).collect::<Result<_, _>>()?;
    let (setup, layers) = match set_up(&mut job, &files) {
        Ok(done) => done,
        Err(words) => return write_header(&mut output, &Ready::Failed(words)),
    };
    drop(files);
    let template = job.template.then(|| Template::start(&job, &setup.folder)).transpose();
    let mut template = match template {
        Ok(template) => template,
        Err(words) => return write_header(&mut output, &Ready::Failed(words)),
    };
    write_header(&mut output, &Ready::Ok(layers))?;
    let mut clean = Ok(());
    while let Some(request) = read_header::<Request>(&mut input)? {
        let Request::Case(case) = request else { continue };
        let bytes = read_blob(&mut input, case.input_len)?;
        let changed = match (case.change, &mut template) {
            (Some(new), Some(template)) => change(&setup, template, &mut job, new, &mut input)?,
            _ => Ok(()),
        };
        let run = match clean.and(changed) {
            // What came in with the case can only be the request to end it.
            Ok(()) if !input.buffer().is_empty() => watch::Run::without(End::Cancelled),
            Ok(()) => match watch::run(&setup, template.as_mut(), &job, &bytes, &host) {
                Ok(run) => run,
                Err(watch::HostGone) => return Ok(()),
            },
            Err(words) => watch::Run::without(End::Failed(words)),
        };
        let fetched = job.fetch.as_ref().and_then(|name| std::fs::read(setup.folder.join("out").join(name)).ok());
        let header = ReportHeader {
            end: run.end,
            cpu_ms: run.cpu_ms,
            wall_ms: run.wall_ms,
            peak_memory: run.peak_memory,
            stdout_len: run.stdout.len() as u64,
            stderr_len: run.stderr.len() as u64,
            fetched_len: fetched.as_ref().map(|f| f.len() as u64),
        };
        write_header(&mut output, &header)?;
        output.write_all(&run.stdout)?;
        output.write_all(&run.stderr)?;
        output.write_all(&fetched.unwrap_or_default())?;
        clean = watch::renew(&job);
    }
    Ok(())
}

/// Takes over what is new with a case; the inner error is one of this case alone.
fn change(
    setup: &Setup,
    template: &mut Template,
    job: &mut Job,
    new: Change,
    input: &mut impl Read,
) -> std::io::Result<Result<(), String>> {
    let contents: Vec<Vec<u8>> = new.files.iter().map(|f| read_blob(input, f.len)).collect::<Result<_, _>>()?;
    let other = (job.limits.scratch, job.limits.scratch_files) != (new.limits.scratch, new.limits.scratch_files);
    job.limits = new.limits;
    template.argv = new.argv;
    template.channel = None;
    if new.channel {
        template.channel = pass::receive(std::io::stderr().as_fd(), 1)?.1.pop();
    }
    let names = new.files.iter().map(|f| f.name.clone()).collect();
    let old = std::mem::replace(&mut template.files, names);
    let written = root::replace_files(&setup.folder, &old, &new.files, &contents);
    Ok(written.and_then(|()| if other { watch::renew(job) } else { Ok(()) }))
}

fn set_up(job: &mut Job, files: &[Vec<u8>]) -> Result<(Setup, Layers), String> {
    sys::prctl(libc::PR_SET_CHILD_SUBREAPER, 1).map_err(|e| format!("subreaper: {e}"))?;
    let mut setup = Setup { tree: tree::Tree::open(), folder: PathBuf::from("/box"), root: sys::ids().0 == 0 };
    if setup.tree.usage(0).tasks == 0 {
        return Err("/proc cannot be read, so processes cannot be watched".into());
    }
    let mut layers = Layers::default();
    for layer in job.layers.clone() {
        // A user namespace gives the program a user of its own already, and who is not root stays who he is.
        if layer == Layer::DropUser && (!setup.root || layers.has(Layer::User)) {
            continue;
        }
        match enter(layer, job, &setup, files) {
            Ok(()) => layers.active.push(layer),
            Err(reason) if job.probe => layers.missing.push(Missing { layer, reason }),
            Err(reason) => return Err(format!("{layer}: {reason}")),
        }
    }
    job.layers.clone_from(&layers.active);
    if !layers.has(Layer::Mount) {
        let folder = job.box_dir.clone().ok_or("no folder for the box")?;
        plain_box(&folder, job, files, setup.root)?;
        setup.folder = folder;
    }
    Ok((setup, layers))
}

/// Sets up one layer, or finds out whether it can be set up later.
fn enter(layer: Layer, job: &Job, setup: &Setup, files: &[Vec<u8>]) -> Result<(), String> {
    let unshare = |flag| sys::unshare(flag).map_err(|e| format!("unshare: {e}"));
    match layer {
        Layer::User => namespaces::enter_user(setup.root),
        Layer::Net => unshare(libc::CLONE_NEWNET),
        Layer::Ipc => unshare(libc::CLONE_NEWIPC),
        Layer::Mount => {
            unshare(libc::CLONE_NEWNS)?;
            root::build(job, files)
        }
        Layer::Pid => {
            let child = sys::fork(libc::CLONE_NEWPID).map_err(|e| format!("clone: {e}"))?;
            if child == 0 {
                sys::exit_now(0);
            }
            sys::wait(child, false).map(drop).map_err(|e| format!("wait: {e}"))
        }
        Layer::Landlock => confine::landlock_works(),
        Layer::Seccomp => seccomp::works(),
        Layer::DropUser => namespaces::can_drop(),
        Layer::Rlimits => Ok(()),
    }
}

/// The box as a plain folder that the host made and will remove.
fn plain_box(folder: &Path, job: &Job, files: &[Vec<u8>], root: bool) -> Result<(), String> {
    root::write_files(folder, &job.files, files)?;
    let out = folder.join("out");
    std::fs::create_dir(&out).map_err(|e| format!("make {}: {e}", out.display()))?;
    if root && job.writable_out && job.layers.contains(&Layer::DropUser) {
        let user = Some(namespaces::outer_user());
        std::os::unix::fs::chown(&out, user, user).map_err(|e| format!("chown {}: {e}", out.display()))?;
    }
    Ok(())
}
