//! Reading safetensors: eight bytes of header length, a JSON header, then the data of all tensors back to
//! back. Every bound is checked before anything is read, so a cut or corrupt file is an error.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use serde_json::Value;

use crate::error::{Error, Result};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// The limit of the reference implementation.
const MAX_HEADER: u64 = 100_000_000;
/// Bytes read at a time, so that a large tensor is not held twice.
const CHUNK: usize = 1 << 20;

/// Where one tensor lies.
#[derive(Debug, Clone)]
struct Entry {
    shard: usize,
    dtype: String,
    shape: Vec<usize>,
    /// Byte position in the file.
    start: u64,
    bytes: u64,
}

/// All safetensors files of a directory.
#[derive(Debug)]
pub(super) struct Store {
    shards: Vec<(PathBuf, File)>,
    entries: HashMap<String, Entry>,
}

impl Store {
    /// Opens `model.safetensors`, else the shards that the index names.
    pub(super) fn open(dir: &Path) -> Result<Self> {
        let mut store = Store { shards: vec![], entries: HashMap::new() };
        let single = dir.join(SINGLE);
        let index = dir.join(INDEX);
        if single.exists() {
            store.add_shard(&single)?;
        } else if index.exists() {
            store.open_index(dir, &index)?;
        } else {
            let hint = if dir.join("pytorch_model.bin").exists() {
                "; pytorch_model.bin is not read, convert it to safetensors first"
            } else {
                ""
            };
            return Err(Error::format(dir, format!("neither {SINGLE} nor {INDEX} here{hint}")));
        }
        Ok(store)
    }

    /// Opens one file.
    pub(super) fn open_file(path: &Path) -> Result<Self> {
        let mut store = Store { shards: vec![], entries: HashMap::new() };
        store.add_shard(path)?;
        Ok(store)
    }

    fn open_index(&mut self, dir: &Path, index: &Path) -> Result<()> {
        let text = fs::read_to_string(index).map_err(|e| Error::io(index, "read", e))?;
        let json: Value =
            serde_json::from_str(&text).map_err(|e| Error::format(index, format!("not valid JSON: {e}")))?;
        let map = json
            .get("weight_map")
            .and_then(Value::as_object)
            .ok_or_else(|| Error::format(index, "no weight_map object"))?;
        let mut files: Vec<&str> = vec![];
        for (name, file) in map {
            let file = file.as_str().filter(|f| !f.is_empty() && !f.contains(['/', '\\'])).ok_or_else(|| {
                Error::format(
                    index,
                    format!("weight_map: {name} must name a file in the same directory, but has {file}"),
                )
            })?;
            if !files.contains(&file) {
                files.push(file);
            }
        }
        for file in files {
            self.add_shard(&dir.join(file))?;
        }
        for (name, file) in map {
            let held = self.entries.get(name).map(|e| &self.shards[e.shard].0);
            if held.is_none_or(|path| path.file_name().and_then(|f| f.to_str()) != file.as_str()) {
                return Err(Error::format(
                    index,
                    format!("weight_map puts {name} into {file}, which does not hold it"),
                ));
            }
        }
        Ok(())
    }

    fn add_shard(&mut self, path: &Path) -> Result<()> {
        let file = File::open(path).map_err(|e| Error::io(path, "open", e))?;
        let shard = self.shards.len();
        for (name, entry) in read_header(path, &file, shard)? {
            if self.entries.insert(name.clone(), entry).is_some() {
                return Err(Error::format(path, format!("tensor {name} is in two files")));
            }
        }
        self.shards.push((path.to_path_buf(), file));
        Ok(())
    }

    pub(super) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.entries.get(name).map(|e| e.shape.as_slice())
    }

    pub(super) fn names_except(&self, used: impl Fn(&str) -> bool) -> Vec<String> {
        self.entries.keys().filter(|n| !used(n)).cloned().collect()
    }

    /// Whether a tensor's values are 8-bit floats, to be multiplied by scales.
    pub(super) fn is_fp8(&self, name: &str) -> bool {
        self.entries.get(name).is_some_and(|e| e.dtype == "F8_E4M3")
    }

    /// An error about the file that holds a tensor.
    pub(super) fn bad(&self, name: &str, problem: String) -> Error {
        Error::format(&self.shards[self.entries[name].shard].0, problem)
    }

    /// The tensor's values as f32.
    pub(super) fn read(&self, name: &str) -> Result<Vec<f32>> {
        self.read_part(name, 0, self.entries[name].shape.iter().product())
    }

    /// `count` values from number `first` on.
    pub(super) fn read_part(&self, name: &str, first: usize, count: usize) -> Result<Vec<f32>> {
        let entry = &self.entries[name];
        let (path, file) = &self.shards[entry.shard];
        let convert = converter(&entry.dtype).ok_or_else(|| {
            Error::format(path, format!("tensor {name} is {}; only F32, F16, BF16 and F8_E4M3 are read", entry.dtype))
        })?;
        let each = element_bytes(&entry.dtype).expect("a dtype that is read has a size");
        let mut values = Vec::with_capacity(count);
        read_chunks(path, file, entry.start + first as u64 * each, count as u64 * each, |raw| {
            convert(raw, &mut values)
        })?;
        Ok(values)
    }
}

/// Appends little-endian values to a vector of f32.
pub(super) type Convert = fn(&[u8], &mut Vec<f32>);

/// The conversion of a float dtype (safetensors name), if it is one that is read.
pub(super) fn converter(dtype: &str) -> Option<Convert> {
    fn f32s(raw: &[u8], out: &mut Vec<f32>) {
        let (values, _) = raw.as_chunks();
        out.extend(values.iter().map(|b| f32::from_le_bytes(*b)));
    }
    fn f16s(raw: &[u8], out: &mut Vec<f32>) {
        let (values, _) = raw.as_chunks();
        out.extend(values.iter().map(|b| f16::from_le_bytes(*b).to_f32()));
    }
    fn bf16s(raw: &[u8], out: &mut Vec<f32>) {
        let (values, _) = raw.as_chunks();
        out.extend(values.iter().map(|b| bf16::from_le_bytes(*b).to_f32()));
    }
    fn f8s(raw: &[u8], out: &mut Vec<f32>) {
        out.extend(raw.iter().map(|b| super::deepseek::e4m3(*b)));
    }
    match dtype {
        "F8_E4M3" => Some(f8s),
        "F32" => Some(f32s),
        "F16" => Some(f16s),
        "BF16" => Some(bf16s),
        _ => None,
    }
}

/// Hands `bytes` bytes from `start` on to `take`, in pieces of at most [`CHUNK`].
pub(super) fn read_chunks(path: &Path, file: &File, start: u64, bytes: u64, mut take: impl FnMut(&[u8])) -> Result<()> {
    let mut buffer = vec![0u8; CHUNK.min(bytes as usize)];
    let mut done = 0;
    while done < bytes {
        let piece = (bytes - done).min(CHUNK as u64) as usize;
        file.read_exact_at(&mut buffer[..piece], start + done).map_err(|e| Error::io(path, "read", e))?;
        take(&buffer[..piece]);
        done += piece as u64;
    }
    Ok(())
}

/// Bytes per element; none for a dtype this reader has never heard of.
fn element_bytes(dtype: &str) -> Option<u64> {
    Some(match dtype {
        "BOOL" | "U8" | "I8" | "F8_E4M3" | "F8_E5M2" | "F8_E8M0" => 1,
        "U16" | "I16" | "F16" | "BF16" => 2,
        "U32" | "I32" | "F32" => 4,
        "U64" | "I64" | "F64" => 8,
        _ => return None,
    })
}

/// Parses and checks the header: every tensor inside the file, its length that of its shape, and together
/// they cover the data exactly.
fn read_header(path: &Path, file: &File, shard: usize) -> Result<Vec<(String, Entry)>> {
    let bad = |problem: String| Error::format(path, problem);
    let file_bytes = file.metadata().map_err(|e| Error::io(path, "read", e))?.len();
    if file_bytes < 8 {
        return Err(bad(format!("{file_bytes} bytes is too short for a safetensors file; is the download complete?")));
    }
    let mut length = [0u8; 8];
    file.read_exact_at(&mut length, 0).map_err(|e| Error::io(path, "read", e))?;
    let header_bytes = u64::from_le_bytes(length);
    if header_bytes > MAX_HEADER {
        return Err(bad(format!("header length {header_bytes} is above {MAX_HEADER}; this is not a safetensors file")));
    }
    if header_bytes > file_bytes - 8 {
        return Err(bad(format!(
            "the header should have {header_bytes} bytes but the file ends after {}; it is truncated",
            file_bytes - 8
        )));
    }
    let mut header = vec![0u8; header_bytes as usize];
    file.read_exact_at(&mut header, 8).map_err(|e| Error::io(path, "read", e))?;
    let json: Value = serde_json::from_slice(&header).map_err(|e| bad(format!("the header is not valid JSON: {e}")))?;
    let map = json.as_object().ok_or_else(|| bad("the header is not a JSON object".into()))?;

    let data_start = 8 + header_bytes;
    let data_bytes = file_bytes - data_start;
    let mut entries = Vec::with_capacity(map.len());
    for (name, info) in map.iter().filter(|(name, _)| *name != "__metadata__") {
        entries.push((
            name.clone(),
            read_entry(info, shard, data_start)
                .ok_or_else(|| bad(format!("tensor {name}: malformed header entry {info}")))?,
        ));
    }
    let mut order: Vec<&(String, Entry)> = entries.iter().collect();
    order.sort_by_key(|(_, e)| (e.start, e.bytes));
    let mut end = data_start;
    for (name, entry) in order {
        if entry.start != end {
            return Err(bad(format!(
                "tensor {name} starts at data byte {}, but the one before ends at {}",
                entry.start - data_start,
                end - data_start
            )));
        }
        end = entry.start.saturating_add(entry.bytes);
        if end - data_start > data_bytes {
            return Err(bad(format!(
                "tensor {name} ends at data byte {}, but the file has only {data_bytes}; it is truncated",
                end - data_start
            )));
        }
    }
    if end - data_start != data_bytes {
        return Err(bad(format!("the tensors cover {} of {data_bytes} data bytes", end - data_start)));
    }
    Ok(entries)
}

/// One header entry; none if it is malformed or its length is not that of its shape.
fn read_entry(info: &Value, shard: usize, data_start: u64) -> Option<Entry> {
    let dtype = info.get("dtype")?.as_str()?;
    let shape = info
        .get("shape")?
        .as_array()?
        .iter()
        .map(|d| usize::try_from(d.as_u64()?).ok())
        .collect::<Option<Vec<usize>>>()?;
    let [begin, end] = info.get("data_offsets")?.as_array()?.as_slice() else {
        return None;
    };
    let (begin, end) = (begin.as_u64()?, end.as_u64()?);
    let bytes = end.checked_sub(begin)?;
    if let Some(each) = element_bytes(dtype) {
        let count = shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d as u64))?;
        if count.checked_mul(each)? != bytes {
            return None;
        }
    }
    Some(Entry { shard, dtype: dtype.into(), shape, start: data_start.checked_add(begin)?, bytes })
}
