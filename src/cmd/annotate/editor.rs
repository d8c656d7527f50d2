//! A text in the person's own editor, as version-control tools do it.

use anyhow::{Context, bail};
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// A file that goes when this does.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The text as the editor leaves it. A line break at the end is the editor's own where there was none before.
///
/// # Errors
/// No editor is named, it fails, or the file is not UTF-8.
pub fn edit(text: &str, id: &str) -> anyhow::Result<String> {
    let named = |name: &str| std::env::var(name).ok().filter(|editor| !editor.trim().is_empty());
    let Some(editor) = named("VISUAL").or_else(|| named("EDITOR")) else {
        bail!("no editor: set VISUAL or EDITOR, for example EDITOR=nano");
    };
    let path = std::env::temp_dir().join(format!("aha-{id}-{}.txt", std::process::id()));
    let failed = || format!("{}: cannot write", path.display());
    let file = Temporary(path.clone());
    let mut out = std::fs::File::create(&path).with_context(failed)?;
    out.write_all(text.as_bytes()).with_context(failed)?;
    drop(out);
    // Through a shell, as the variable may hold arguments: EDITOR="code --wait".
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("{editor} \"$@\"")).arg(&editor).arg(&path);
    if !std::io::stdin().is_terminal() {
        // What is piped in are commands of ours.
        command.stdin(Stdio::null());
    }
    let status = command.status().with_context(|| format!("cannot start the editor {editor}"))?;
    if !status.success() {
        bail!("the editor {editor} failed ({status}); nothing was changed");
    }
    let edited = std::fs::read_to_string(&path).with_context(|| format!("{}: cannot read", path.display()))?;
    drop(file);
    Ok(match edited.strip_suffix('\n') {
        Some(without) if !text.ends_with('\n') => without.to_owned(),
        _ => edited,
    })
}
