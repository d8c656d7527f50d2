//! Starting the binary and looking at what it leaves.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// What a command said.
pub struct Said {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Said {
    /// Asserts success and gives the JSON object of the last line.
    pub fn json(&self) -> Value {
        assert_eq!(self.code, 0, "{}", self.stderr);
        let last = self.stdout.lines().last().expect("a last line");
        serde_json::from_str(last).unwrap_or_else(|e| panic!("{e}: {last}"))
    }

    /// Asserts success.
    pub fn works(&self) {
        assert_eq!(self.code, 0, "{}", self.stderr);
    }

    /// Asserts that it failed with one short message that has all the words, and neither panic nor backtrace.
    pub fn fails(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "stdout {}\nstderr {}", self.stdout, self.stderr);
        let message = self.stderr.lines().skip_while(|l| !l.starts_with("error:")).collect::<Vec<_>>().join("\n");
        assert!(!message.is_empty(), "no `error:` in {}", self.stderr);
        for word in words {
            assert!(message.contains(word), "no {word:?} in {message}");
        }
        for word in ["panicked", "backtrace", "mistake in aha"] {
            assert!(!self.stderr.contains(word), "{}", self.stderr);
        }
        if code == 1 {
            assert!(message.lines().count() <= 2, "{message}");
        }
    }
}

pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aha"));
    command.args(args).stdin(Stdio::null());
    command
}

/// Runs `aha ARGS` in `dir`.
pub fn aha_in(dir: &Path, args: &[&str]) -> Said {
    said(command(args).current_dir(dir))
}

pub fn aha(args: &[&str]) -> Said {
    said(&mut command(args))
}

pub fn said(command: &mut Command) -> Said {
    let out = command.output().expect("the binary starts");
    Said {
        code: out.status.code().unwrap_or(-1),
        stdout: String::from_utf8(out.stdout).expect("UTF-8"),
        stderr: String::from_utf8(out.stderr).expect("UTF-8"),
    }
}

/// Starts a command with its output thrown away.
pub fn start(dir: &Path, args: &[&str]) -> Child {
    command(args).current_dir(dir).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary starts")
}

pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// A copy of a model fixture, to be spoilt or to be given a tokenizer.
pub fn copy_of(name: &str, to: &Path) -> PathBuf {
    let target = to.join(name);
    std::fs::create_dir_all(&target).unwrap();
    for entry in std::fs::read_dir(fixture(name)).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap() != "golden.safetensors" {
            std::fs::copy(&path, target.join(path.file_name().unwrap())).unwrap();
        }
    }
    target
}

/// Gives a model a tokenizer of whole words: w0, w1, ... up to the id `last`.
pub fn add_tokenizer(model: &Path, last: usize) {
    let vocab: serde_json::Map<String, Value> = (0..=last).map(|i| (format!("w{i}"), i.into())).collect();
    let json = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "w3"},
    });
    std::fs::write(model.join("tokenizer.json"), json.to_string()).unwrap();
}

/// Reads a JSON-lines file.
pub fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

/// Tensors of a golden file as f64 with their shapes.
pub fn golden(model: &str, tensor: &str) -> (Vec<usize>, Vec<f64>) {
    let bytes = std::fs::read(fixture(model).join("golden.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let view = file.tensor(tensor).unwrap();
    let values = match view.dtype() {
        safetensors::Dtype::I64 => {
            view.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f64).collect()
        }
        _ => view.data().chunks_exact(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap()))).collect(),
    };
    (view.shape().to_vec(), values)
}
