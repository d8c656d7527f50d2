//! Writing a checkpoint that transformers loads: one `model.safetensors` under Hugging Face names with its
//! `config.json`, `generation_config.json` and tokenizer files. Tensors are asked for one at a time.
//! Everything is written and synced in a directory beside the target and then renamed, so a killed process
//! or a full disk leaves the old checkpoint or none.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use serde_json::{Map, Value, json};

use crate::config::json::eos_json;
use crate::config::{ModelConfig, TensorSpec, is_correction_bias};
use crate::error::{Error, Result};
use crate::text_files::TextFiles;

/// The number format of the saved weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaveDtype {
    /// Exact.
    F32,
    /// Rounded to nearest, ties to even.
    Bf16,
    /// The same; values beyond its range become infinite.
    F16,
}

impl SaveDtype {
    fn safetensors_name(self) -> &'static str {
        match self {
            SaveDtype::F32 => "F32",
            SaveDtype::Bf16 => "BF16",
            SaveDtype::F16 => "F16",
        }
    }

    fn torch_name(self) -> &'static str {
        match self {
            SaveDtype::F32 => "float32",
            SaveDtype::Bf16 => "bfloat16",
            SaveDtype::F16 => "float16",
        }
    }

    fn bytes(self) -> usize {
        match self {
            SaveDtype::F32 => 4,
            SaveDtype::Bf16 | SaveDtype::F16 => 2,
        }
    }
}

/// Gives the values of a tensor, row-major, in pieces of any length: one is written before the next is made.
pub type TensorSource<'s> = dyn FnMut(&TensorSpec, &mut dyn FnMut(&[f32])) -> Result<()> + 's;

/// Writes a model into the directory `dir`. `tensor` is called once per entry of
/// [`ModelConfig::saved_tensors`], with the name of the parameter it is taken from, and returns the values, row-major. Where `dir` does not exist it
/// appears complete; where it exists, each file is replaced whole and other files in it are left alone.
///
/// # Errors
/// A failed write (naming the file; nothing final is touched), an error of `tensor`, or a tensor of the
/// wrong length.
pub fn save_checkpoint<'t>(
    dir: &Path,
    config: &ModelConfig,
    dtype: SaveDtype,
    text: &TextFiles,
    tensor: &mut dyn FnMut(&TensorSpec) -> Result<Cow<'t, [f32]>>,
) -> Result<()> {
    save_checkpoint_pieces(dir, config, dtype, text, &mut |spec, put| tensor(spec).map(|values| put(&values)))
}

/// The same for tensors that come in pieces.
///
/// # Errors
/// As there.
pub fn save_checkpoint_pieces(
    dir: &Path,
    config: &ModelConfig,
    dtype: SaveDtype,
    text: &TextFiles,
    tensor: &mut TensorSource,
) -> Result<()> {
    config.check()?;
    save_folder(dir, &mut |scratch| write_files(scratch, config, dtype, text, tensor))
}

/// Writes tensors in f32 as one safetensors file at `path`, synced.
///
/// # Errors
/// A failed write, an error of `tensor`, or a tensor of the wrong length.
pub fn save_tensors(path: &Path, specs: &[TensorSpec], tensor: &mut TensorSource) -> Result<()> {
    let specs: Vec<_> = specs.iter().map(|spec| (spec.clone(), spec.name.clone())).collect();
    write_file(path, &mut |out| write_tensors(out, &specs, SaveDtype::F32, tensor))
}

/// Fills a folder beside `dir` with files, whose names `fill` answers, and moves them to their place when all are there.
pub(super) fn save_folder(dir: &Path, fill: &mut dyn FnMut(&Path) -> Result<Vec<&'static str>>) -> Result<()> {
    let name = dir.file_name().ok_or_else(|| Error::format(dir, "is not a directory name to save into"))?;
    let parent = match dir.parent() {
        Some(p) if !p.as_os_str().is_empty() => p.to_path_buf(),
        _ => PathBuf::from("."),
    };
    fs::create_dir_all(&parent).map_err(|e| Error::io(&parent, "create", e))?;
    let mut scratch_name = OsString::from(".");
    scratch_name.push(name);
    scratch_name.push(".saving");
    let scratch = parent.join(scratch_name);
    if scratch.exists() {
        // Left by a process that was killed.
        fs::remove_dir_all(&scratch).map_err(|e| Error::io(&scratch, "remove", e))?;
    }
    fs::create_dir(&scratch).map_err(|e| Error::io(&scratch, "create", e))?;
    let done = fill(&scratch).and_then(|files| publish(&scratch, dir, &parent, &files));
    if done.is_err() {
        // The first error is the one to report.
        let _ = fs::remove_dir_all(&scratch);
    }
    done
}

/// Writes all files into `scratch`; returns their names, the weights last.
fn write_files(
    scratch: &Path,
    config: &ModelConfig,
    dtype: SaveDtype,
    text: &TextFiles,
    tensor: &mut TensorSource,
) -> Result<Vec<&'static str>> {
    let mut config = config.clone();
    config.torch_dtype = Some(dtype.torch_name().into());
    let mut texts = vec![("config.json", config.to_json()), ("generation_config.json", generation_config(&config))];
    if let Some(tokenizer) = &text.tokenizer_json {
        texts.push(("tokenizer.json", tokenizer.clone()));
    }
    if let Some(tokenizer_config) = &text.tokenizer_config_json {
        texts.push(("tokenizer_config.json", tokenizer_config.clone()));
    }
    let mut names = vec![];
    for (name, content) in texts {
        write_file(&scratch.join(name), &mut |out| out.write_all(content.as_bytes()).map_err(Failure::Write))?;
        names.push(name);
    }
    let weights = "model.safetensors";
    let mut specs = config.saved_tensors();
    // What is always f32 goes first, so that every tensor begins at a multiple of its numbers' size.
    specs.sort_by_key(|(spec, _)| !is_correction_bias(&spec.name));
    write_file(&scratch.join(weights), &mut |out| write_tensors(out, &specs, dtype, tensor))?;
    names.push(weights);
    Ok(names)
}

/// Moves the written files to their place: the whole directory if the target is new, else file by file.
fn publish(scratch: &Path, dir: &Path, parent: &Path, files: &[&str]) -> Result<()> {
    sync_dir(scratch)?;
    if dir.exists() {
        for name in files {
            let target = dir.join(name);
            fs::rename(scratch.join(name), &target).map_err(|e| Error::io(&target, "replace", e))?;
        }
        fs::remove_dir(scratch).map_err(|e| Error::io(scratch, "remove", e))?;
        sync_dir(dir)
    } else {
        fs::rename(scratch, dir).map_err(|e| Error::io(dir, "create", e))?;
        sync_dir(parent)
    }
}

fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(|e| Error::io(dir, "sync", e))
}

/// Why filling a file stopped: the disk, or the caller's data.
pub(super) enum Failure {
    Write(std::io::Error),
    Data(Error),
}

impl From<std::io::Error> for Failure {
    fn from(e: std::io::Error) -> Self {
        Failure::Write(e)
    }
}

pub(super) fn write_file(
    path: &Path,
    fill: &mut dyn FnMut(&mut dyn Write) -> std::result::Result<(), Failure>,
) -> Result<()> {
    let file = File::create(path).map_err(|e| Error::io(path, "create", e))?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    fill(&mut out).and_then(|()| out.flush().map_err(Failure::Write)).map_err(|failure| match failure {
        Failure::Write(e) => Error::io(path, "write", e),
        Failure::Data(e) => e,
    })?;
    out.get_ref().sync_all().map_err(|e| Error::io(path, "sync", e))
}

/// The safetensors format: header length, JSON header padded with spaces to 8 bytes, data in header order.
pub(super) fn write_tensors(
    out: &mut dyn Write,
    specs: &[(TensorSpec, String)],
    saved_as: SaveDtype,
    tensor: &mut TensorSource,
) -> std::result::Result<(), Failure> {
    let mut header = Map::new();
    header.insert("__metadata__".into(), json!({"format": "pt"}));
    let mut end = 0u64;
    // The biases of routers are kept in full: rounding them would change choices.
    let dtype_of = |spec: &TensorSpec| if is_correction_bias(&spec.name) { SaveDtype::F32 } else { saved_as };
    for (spec, _) in specs {
        let (begin, dtype) = (end, dtype_of(spec));
        end += (spec.len() * dtype.bytes()) as u64;
        header.insert(
            spec.name.clone(),
            json!({"dtype": dtype.safetensors_name(), "shape": spec.shape, "data_offsets": [begin, end]}),
        );
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    out.write_all(&(header.len() as u64).to_le_bytes())
        .and_then(|()| out.write_all(&header))
        .map_err(Failure::Write)?;
    let mut raw = Vec::new();
    for (spec, of) in specs {
        let dtype = dtype_of(spec);
        // A piece beyond the tensor's length is counted and not written: the file would be wrong from there on.
        let (mut found, mut written) = (0, Ok(()));
        let mut put = |values: &[f32]| {
            found += values.len();
            for piece in values.chunks(1 << 16).take_while(|_| found <= spec.len()) {
                raw.clear();
                match dtype {
                    SaveDtype::F32 => raw.extend(piece.iter().flat_map(|v| v.to_le_bytes())),
                    SaveDtype::Bf16 => raw.extend(piece.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes())),
                    SaveDtype::F16 => raw.extend(piece.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes())),
                }
                if written.is_ok() {
                    written = out.write_all(&raw);
                }
            }
        };
        tensor(&TensorSpec { name: of.clone(), shape: spec.shape.clone() }, &mut put).map_err(Failure::Data)?;
        written.map_err(Failure::Write)?;
        if found != spec.len() {
            return Err(Failure::Data(Error::Shape {
                name: spec.name.clone(),
                found: vec![found],
                wanted: spec.shape.clone(),
            }));
        }
    }
    Ok(())
}

fn generation_config(config: &ModelConfig) -> String {
    let root = json!({
        "bos_token_id": config.bos_token_id,
        "eos_token_id": eos_json(&config.eos_token_ids),
    });
    let mut text = serde_json::to_string_pretty(&root).expect("plain values serialise");
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk with room for so many bytes.
    struct SmallDisk(usize);

    impl Write for SmallDisk {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            if self.0 == 0 {
                return Err(std::io::ErrorKind::StorageFull.into());
            }
            let taken = bytes.len().min(self.0);
            self.0 -= taken;
            Ok(taken)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn full_disk_is_reported_wherever_it_fills() {
        let specs = [(TensorSpec { name: "w".into(), shape: vec![3, 2] }, "w".to_owned())];
        let mut whole = Vec::new();
        let mut give = |_: &TensorSpec, put: &mut dyn FnMut(&[f32])| {
            put(&[1.0; 4]);
            put(&[1.0; 2]);
            Ok(())
        };
        assert!(write_tensors(&mut whole, &specs, SaveDtype::F32, &mut give).is_ok());
        for room in 0..whole.len() {
            let result = write_tensors(&mut SmallDisk(room), &specs, SaveDtype::F32, &mut give);
            assert!(matches!(result, Err(Failure::Write(e)) if e.kind() == std::io::ErrorKind::StorageFull));
        }
        assert!(write_tensors(&mut SmallDisk(whole.len()), &specs, SaveDtype::F32, &mut give).is_ok());
    }
}
