//! Checkpoints of a training: the model as transformers reads it, and beside it everything an exact resume needs.
//!
//! `step_N/` holds `model.safetensors` and its companions, `optimizer.safetensors` (first and second moments under
//! `m.NAME` and `v.NAME`), `reference.safetensors` when there is a reference model, and `trainer.json`, written last: a
//! directory without it is an unfinished one and is ignored; one without moments belongs to a finished stage ([`retire`]).
//! A model with adapters is saved as its adapter alone, in PEFT's files, and so is its reference: what is frozen lies with
//! the base.

use crate::TrainError;
use aha_kernels::{Optimizer, Param, ParamId, ParamStore};
use aha_model::{
    Adapter, Checkpoint, Decoder, SaveDtype, TensorSpec, TextFiles, is_adapter, save_adapter, save_checkpoint_pieces,
    save_tensors,
};
use safetensors::tensor::{Dtype, Metadata};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

const OPTIMIZER: &str = "optimizer.safetensors";
/// Bytes of the longest header that is read, as in the safetensors library.
const LONGEST_HEADER: u64 = 100_000_000;

/// The small part of a trainer's state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TrainerState {
    /// Optimizer steps done.
    pub step: u64,
    /// Steps the optimizer's bias correction has counted (skipped steps are not).
    pub optimizer_step: u64,
    /// Where the data stream goes on.
    pub next_document: u64,
    /// The first token of that document not yet used, where documents are cut.
    #[serde(default)]
    pub next_token: u64,
    /// Hash of the settings this state belongs to; a resume with other settings is refused by the caller.
    pub settings: String,
}

/// A whole training state in memory.
pub struct Resumed {
    /// Step and cursors.
    pub state: TrainerState,
    /// The model.
    pub policy: Decoder,
    /// Its optimizer.
    pub optimizer: Optimizer,
    /// The reference, when one was saved.
    pub reference: Option<ParamStore>,
}

fn problem(path: &Path, problem: impl std::fmt::Display) -> TrainError {
    TrainError::State { path: path.to_path_buf(), problem: problem.to_string() }
}

/// Writes a model directory that transformers loads; adapters are merged.
///
/// # Errors
/// A failed write, naming the file.
pub fn save_model(dir: &Path, decoder: &Decoder, dtype: SaveDtype, text: &TextFiles) -> Result<(), TrainError> {
    let params: HashMap<&str, ParamId> = decoder.params.iter().map(|(id, p)| (p.name.as_str(), id)).collect();
    save_checkpoint_pieces(dir, &decoder.config, dtype, text, &mut |spec, put| {
        let id = params.get(spec.name.as_str()).expect("the decoder holds every tensor of its config");
        decoder.params.merged_pieces(*id, put);
        Ok(())
    })?;
    Ok(())
}

/// Loads a model from a Hugging Face directory or a GGUF file.
///
/// # Errors
/// Whatever is wrong with the files.
pub fn load_model(checkpoint: &Checkpoint) -> Result<Decoder, TrainError> {
    Ok(Decoder::from_tensors(checkpoint.config().clone(), |name| checkpoint.read(name))?)
}

/// Writes `checkpoints/step_N` and removes the oldest beyond `keep`.
///
/// # Errors
/// A failed write, naming the file; earlier checkpoints stay.
pub fn save(
    root: &Path,
    state: &TrainerState,
    policy: &Decoder,
    optimizer: &Optimizer,
    reference: Option<&ParamStore>,
    text: &TextFiles,
    keep: usize,
) -> Result<PathBuf, TrainError> {
    let dir = root.join(format!("step_{}", state.step));
    if dir.exists() {
        std::fs::remove_dir_all(&dir).map_err(|e| problem(&dir, e))?;
    }
    let adapted = policy.lora().is_some();
    if adapted {
        save_adapter(&dir, policy)?;
    } else {
        save_model(&dir, policy, SaveDtype::F32, text)?;
    }
    let mut moments: Vec<(String, Values)> = Vec::new();
    for (id, p) in policy.params.iter().filter(|(_, p)| p.trainable) {
        let kept = 1 + usize::from(optimizer.has_second(id));
        for (prefix, second) in [("m", false), ("v", true)].into_iter().take(kept) {
            let source = Source::Moment { optimizer, id, second };
            moments.push((format!("{prefix}.{}", p.name), Values { source, layout: p.layout }));
        }
    }
    write_tensors(&dir.join(OPTIMIZER), &moments)?;
    if let Some(r) = reference {
        let tensors = r.iter().filter(|(_, p)| p.trainable || !adapted);
        let tensors = tensors.map(|(_, p)| (p.name.clone(), Values { source: Source::Plain(p), layout: p.layout }));
        write_tensors(&dir.join("reference.safetensors"), &tensors.collect::<Vec<_>>())?;
    }
    let json = serde_json::to_string_pretty(state).expect("plain numbers and text");
    write_atomic(&dir.join("trainer.json"), |path| std::fs::write(path, json.as_bytes()))?;
    let mut all = list(root)?;
    while all.len() > keep.max(1) {
        let oldest = root.join(format!("step_{}", all.remove(0)));
        // First what makes it count as complete: a kill in between leaves no half checkpoint that looks whole.
        std::fs::remove_file(oldest.join("trainer.json")).map_err(|e| problem(&oldest, e))?;
        std::fs::remove_dir_all(&oldest).map_err(|e| problem(&oldest, e))?;
    }
    Ok(dir)
}

/// Takes from the checkpoints of a finished training what only a resume needs, which is most of their size: the models stay.
///
/// # Errors
/// A file that cannot be removed.
pub fn retire(root: &Path) -> Result<(), TrainError> {
    for step in list(root)? {
        // The one that makes it count as complete goes last, so that a kill in between does not end this half way.
        for name in ["reference.safetensors", OPTIMIZER] {
            let file = root.join(format!("step_{step}")).join(name);
            match std::fs::remove_file(&file) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(problem(&file, e)),
                _ => {}
            }
        }
    }
    Ok(())
}

/// Steps of the complete checkpoints under `root`, ascending.
///
/// # Errors
/// A directory that cannot be read.
pub fn list(root: &Path) -> Result<Vec<u64>, TrainError> {
    if !root.exists() {
        return Ok(Vec::new());
    }
    let entries = std::fs::read_dir(root).map_err(|e| problem(root, e))?;
    let mut steps: Vec<u64> = entries
        .filter_map(|e| e.ok())
        .filter(|e| ["trainer.json", OPTIMIZER].iter().all(|file| e.path().join(file).exists()))
        .filter_map(|e| e.file_name().to_str()?.strip_prefix("step_")?.parse().ok())
        .collect();
    steps.sort_unstable();
    Ok(steps)
}

/// Step of the newest complete checkpoint if it belongs to these settings.
///
/// # Errors
/// A checkpoint that is complete but cannot be read.
pub fn latest(root: &Path, settings: &str) -> Result<Option<u64>, TrainError> {
    let Some(step) = list(root)?.pop() else { return Ok(None) };
    let state = read_state(&root.join(format!("step_{step}")))?;
    Ok((state.settings == settings).then_some(step))
}

fn read_state(dir: &Path) -> Result<TrainerState, TrainError> {
    let path = dir.join("trainer.json");
    let json = std::fs::read_to_string(&path).map_err(|e| problem(&path, e))?;
    serde_json::from_str(&json).map_err(|e| problem(&path, e))
}

/// Loads the newest complete checkpoint of a model without adapters, if there is one and it belongs to these settings.
///
/// # Errors
/// A checkpoint that is complete but cannot be read.
pub fn load_latest(
    root: &Path,
    settings: &str,
    optimizer: impl Fn(&ParamStore) -> Optimizer,
) -> Result<Option<Resumed>, TrainError> {
    let Some(step) = latest(root, settings)? else { return Ok(None) };
    let base = || Err(problem(root, "holds an adapter, but this stage trains the whole model"));
    load(root, step, optimizer, base).map(Some)
}

/// Loads the checkpoint of a step. `base` is asked for where only adapters were saved: the model with fresh ones.
///
/// # Errors
/// A checkpoint that cannot be read; whatever `base` answers.
pub fn load(
    root: &Path,
    step: u64,
    optimizer: impl Fn(&ParamStore) -> Optimizer,
    base: impl FnOnce() -> Result<Decoder, TrainError>,
) -> Result<Resumed, TrainError> {
    let dir = root.join(format!("step_{step}"));
    let state = read_state(&dir)?;
    let adapted = is_adapter(&dir);
    let policy = if adapted {
        let mut policy = base()?;
        Adapter::open(&dir)?.restore(&mut policy)?;
        policy
    } else {
        load_model(&Checkpoint::open(&dir)?)?
    };
    let mut optimizer = optimizer(&policy.params);
    optimizer.step = state.optimizer_step;
    let mut moments = Tensors::open(&dir.join(OPTIMIZER))?;
    for (id, p) in policy.params.iter().filter(|(_, p)| p.trainable) {
        let mut read = |prefix: &str| -> Result<Vec<f32>, TrainError> {
            Ok(p.layout.store(moments.get(&format!("{prefix}.{}", p.name), &p.layout.shape())?))
        };
        let second = optimizer.has_second(id);
        let (m, v) = (read("m")?, if second { Some(read("v")?) } else { None });
        optimizer.restore(id, m, v);
    }
    let file = dir.join("reference.safetensors");
    let reference = if file.exists() {
        let mut tensors = Tensors::open(&file)?;
        // A copy that shares what is frozen.
        let mut store = policy.params.clone();
        let saved: Vec<ParamId> = store.iter().filter(|(_, p)| p.trainable || !adapted).map(|(id, _)| id).collect();
        for id in saved {
            let p = store.get_mut(id);
            p.data = p.layout.store(tensors.get(&p.name, &p.layout.shape())?).into();
        }
        Some(store)
    } else {
        None
    };
    Ok(Resumed { state, policy, optimizer, reference })
}

/// Where values come from. Moments may be in fewer bits, and weights in two halves or in bf16; they are widened a piece at a time: a
/// model's worth of f32 moments is more than all else that training keeps, and its largest matrix is a quarter of a small model.
enum Source<'a> {
    Plain(&'a Param),
    Moment { optimizer: &'a Optimizer, id: ParamId, second: bool },
}

/// Values in a parameter's layout, converted to rows only when written.
struct Values<'a> {
    source: Source<'a>,
    layout: aha_kernels::Layout,
}

impl Values<'_> {
    fn pieces(&self, put: &mut dyn FnMut(&[f32])) {
        for (range, layout) in self.layout.pieces() {
            put(&match self.source {
                Source::Plain(param) => layout.load(&param.values(range)),
                Source::Moment { optimizer, id, second } => layout.load(&optimizer.moment_piece(id, second, range)),
            });
        }
    }
}

fn write_tensors(path: &Path, tensors: &[(String, Values)]) -> Result<(), TrainError> {
    let by_name: HashMap<&str, &Values> = tensors.iter().map(|(name, values)| (name.as_str(), values)).collect();
    let specs: Vec<TensorSpec> =
        tensors.iter().map(|(name, v)| TensorSpec { name: name.clone(), shape: v.layout.shape() }).collect();
    write_atomic(path, |temporary| {
        let written = save_tensors(temporary, &specs, &mut |spec, put| {
            by_name[spec.name.as_str()].pieces(put);
            Ok(())
        });
        written.map_err(|e| std::io::Error::other(e.to_string()))
    })
}

/// Temporary name, write, sync, rename.
fn write_atomic(path: &Path, write: impl FnOnce(&Path) -> std::io::Result<()>) -> Result<(), TrainError> {
    let temporary = path.with_extension("tmp");
    let done = write(&temporary)
        .and_then(|()| std::fs::File::open(&temporary)?.sync_all())
        .and_then(|()| std::fs::rename(&temporary, path));
    done.map_err(|e| {
        // The write's own error is the one to report.
        let _ = std::fs::remove_file(&temporary);
        problem(path, format!("cannot write: {e}; free some space or choose another --out, then run the same command"))
    })
}

/// Tensors of a file, read one at a time.
struct Tensors {
    path: PathBuf,
    file: std::fs::File,
    metadata: Metadata,
    /// Where the values begin.
    begin: u64,
}

impl Tensors {
    fn open(path: &Path) -> Result<Self, TrainError> {
        let failed = |e| problem(path, e);
        let mut file = std::fs::File::open(path).map_err(failed)?;
        let mut length = [0; 8];
        file.read_exact(&mut length).map_err(failed)?;
        let (length, size) = (u64::from_le_bytes(length), file.metadata().map_err(failed)?.len());
        if length > size.saturating_sub(8).min(LONGEST_HEADER) {
            return Err(problem(path, format!("a header of {length} bytes in a file of {size}")));
        }
        let mut header = vec![0; length as usize];
        file.read_exact(&mut header).map_err(failed)?;
        let metadata: Metadata = serde_json::from_slice(&header).map_err(|e| problem(path, e))?;
        let wanted = (metadata.data_len() as u64).saturating_add(8 + length);
        if wanted != size {
            return Err(problem(path, format!("it has {size} bytes, and its header wants {wanted}: it was cut off")));
        }
        Ok(Tensors { path: path.to_path_buf(), file, metadata, begin: 8 + length })
    }

    fn get(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, TrainError> {
        let info = self.metadata.info(name).ok_or_else(|| problem(&self.path, format!("{name} is not in it")))?;
        let (from, to) = info.data_offsets;
        let bytes = 4 * shape.iter().product::<usize>();
        if info.shape != shape || info.dtype != Dtype::F32 || to.checked_sub(from) != Some(bytes) {
            let found = format!("{name}: shape {:?} in {:?}, wanted {shape:?} in F32", info.shape, info.dtype);
            return Err(problem(&self.path, found));
        }
        let mut values = vec![0; bytes];
        let read = self
            .file
            .seek(SeekFrom::Start(self.begin.saturating_add(from as u64)))
            .and_then(|_| self.file.read_exact(&mut values));
        read.map_err(|e| problem(&self.path, format!("{name}: {e}")))?;
        Ok(values.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(OPTIMIZER);
        let header = br#"{"m.a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"m.b":{"dtype":"BF16","shape":[2],"data_offsets":[8,12]}}"#;
        let file = |length: u64, values: usize| {
            let mut bytes = length.to_le_bytes().to_vec();
            bytes.extend_from_slice(header);
            bytes.extend((0..values).map(|i| i as u8));
            std::fs::write(&path, bytes).unwrap();
            Tensors::open(&path)
        };
        let length = header.len() as u64;
        let mut whole = file(length, 12).unwrap();
        let values: Vec<u32> = whole.get("m.a", &[2]).unwrap().iter().map(|v| v.to_bits()).collect();
        assert_eq!(values, [0x0302_0100, 0x0706_0504]);
        let wrong = [whole.get("m.a", &[1, 2]), whole.get("m.b", &[2]), whole.get("m.c", &[2])];
        let opened = [(length, 11), (length, 13), (length - 1, 13), (length + 100, 12), (u64::MAX, 12)];
        let damaged = opened.into_iter().map(|(length, values)| file(length, values).err());
        for error in wrong.into_iter().map(|read| read.err()).chain(damaged) {
            let text = error.expect("an error").to_string();
            assert!(text.contains(OPTIMIZER), "{text}");
        }
        std::fs::write(&path, [1, 2]).unwrap();
        assert!(Tensors::open(&path).is_err());
    }
}
