//! The head of a GGUF file (versions 2 and 3): metadata and the table of tensors. Parsed here rather than
//! by candle, whose parser divides by an alignment of zero; every length is checked against what is left of
//! the file before memory is taken for it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use candle_core::quantized::GgmlDType;

use crate::error::{Error, Result};

/// A metadata value. Arrays of floats and booleans are skipped over: nothing here needs them.
#[derive(Debug, Clone, PartialEq)]
pub enum GgufValue {
    /// Any integer type; u64 above `i64::MAX` is refused.
    Int(i64),
    /// f32 or f64.
    Float(f64),
    /// A boolean.
    Bool(bool),
    /// A string; bytes that are not UTF-8 are replaced.
    Text(String),
    /// An array of strings.
    Texts(Vec<String>),
    /// An array of integers.
    Ints(Vec<i64>),
    /// An array of another type.
    Skipped,
}

/// One entry of the tensor table.
#[derive(Debug, Clone)]
pub(super) struct GgufTensor {
    pub(super) dtype: GgmlDType,
    /// Row-major, the fastest dimension last.
    pub(super) shape: Vec<usize>,
    /// Byte position in the file.
    pub(super) start: u64,
}

/// A GGUF file whose head has been read and whose tensors lie inside the file.
#[derive(Debug)]
pub struct Gguf {
    path: PathBuf,
    pub(super) file: File,
    meta: HashMap<String, GgufValue>,
    pub(super) tensors: HashMap<String, GgufTensor>,
}

impl Gguf {
    /// Reads the head of a file.
    ///
    /// # Errors
    /// Not a GGUF file, an unsupported version or tensor type, or a file that is cut short.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| Error::io(path, "open", e))?;
        let length = file.metadata().map_err(|e| Error::io(path, "read", e))?.len();
        let mut head = Head { path, reader: BufReader::with_capacity(1 << 16, &file), position: 0, length };
        let (meta, tensors) = head.read()?;
        Ok(Gguf { path: path.to_path_buf(), file, meta, tensors })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A metadata value.
    pub fn get(&self, key: &str) -> Option<&GgufValue> {
        self.meta.get(key)
    }

    /// A string, if the key is there and holds one.
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.get(key)? {
            GgufValue::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A whole number of 0 or more, if the key is there and holds one.
    pub fn unsigned(&self, key: &str) -> Option<u64> {
        match self.get(key)? {
            GgufValue::Int(value) => u64::try_from(*value).ok(),
            _ => None,
        }
    }

    /// A number, if the key is there and holds one.
    pub fn float(&self, key: &str) -> Option<f64> {
        match self.get(key)? {
            GgufValue::Float(value) => Some(*value),
            GgufValue::Int(value) => Some(*value as f64),
            _ => None,
        }
    }

    /// A boolean, if the key is there and holds one.
    pub fn flag(&self, key: &str) -> Option<bool> {
        match self.get(key)? {
            GgufValue::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// An array of strings, if the key is there and holds one.
    pub fn texts(&self, key: &str) -> Option<&[String]> {
        match self.get(key)? {
            GgufValue::Texts(values) => Some(values),
            _ => None,
        }
    }

    /// An array of whole numbers, if the key is there and holds one.
    pub fn ints(&self, key: &str) -> Option<&[i64]> {
        match self.get(key)? {
            GgufValue::Ints(values) => Some(values),
            _ => None,
        }
    }
}

type Parsed = (HashMap<String, GgufValue>, HashMap<String, GgufTensor>);

struct Head<'a> {
    path: &'a Path,
    reader: BufReader<&'a File>,
    position: u64,
    length: u64,
}

impl Head<'_> {
    fn bad(&self, problem: impl std::fmt::Display) -> Error {
        Error::format(self.path, format!("GGUF: {problem}"))
    }

    fn read(&mut self) -> Result<Parsed> {
        if self.length < 4 || &self.bytes::<4>()? != b"GGUF" {
            return Err(Error::format(
                self.path,
                "does not begin with GGUF; expected a .gguf file or a Hugging Face model directory",
            ));
        }
        let version = self.u32()?;
        if version != 2 && version != 3 {
            return Err(self.bad(format!("version {version} is not supported; 2 and 3 are (big-endian files are not)")));
        }
        let num_tensors = self.u64()?;
        let num_values = self.u64()?;
        // A tensor entry has at least 24 bytes, a value at least 13.
        self.fits(num_tensors, 24)?;
        self.fits(num_values, 13)?;
        let mut meta = HashMap::new();
        for _ in 0..num_values {
            let key = self.text()?;
            let kind = self.u32()?;
            let value = self.value(kind).map_err(|e| self.bad(format!("key {key}: {e}")))?;
            meta.insert(key, value);
        }
        let mut tensors = HashMap::new();
        for _ in 0..num_tensors {
            let name = self.text()?;
            let tensor = self.tensor(&name)?;
            if tensors.insert(name.clone(), tensor).is_some() {
                return Err(self.bad(format!("tensor {name} is there twice")));
            }
        }
        let alignment = match meta.get("general.alignment") {
            None => 32,
            Some(GgufValue::Int(a)) if *a > 0 && *a <= 1 << 20 => *a as u64,
            Some(other) => {
                return Err(self.bad(format!("general.alignment is {other:?}")));
            }
        };
        let data_start = self.position.div_ceil(alignment) * alignment;
        for (name, tensor) in &mut tensors {
            tensor.start = tensor.start.saturating_add(data_start);
            let end = tensor_bytes(tensor).and_then(|n| n.checked_add(tensor.start));
            if end.is_none_or(|end| end > self.length) {
                return Err(self.bad(format!(
                    "tensor {name} {:?} {:?} at byte {} goes past the end of the file ({} bytes); it is truncated",
                    tensor.dtype, tensor.shape, tensor.start, self.length
                )));
            }
        }
        Ok((meta, tensors))
    }

    fn tensor(&mut self, name: &str) -> Result<GgufTensor> {
        let dims = self.u32()?;
        if dims > 4 {
            return Err(self.bad(format!("tensor {name} has {dims} dimensions")));
        }
        let mut shape = vec![];
        for _ in 0..dims {
            shape.push(self.u64()? as usize);
        }
        shape.reverse();
        let kind = self.u32()?;
        let dtype = ggml_type(kind).ok_or_else(|| {
            self.bad(format!(
                "tensor {name} has quantisation type {kind}, which is not supported; supported are \
                 F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 and Q2_K to Q6_K"
            ))
        })?;
        let start = self.u64()?;
        let row = shape.last().copied().unwrap_or(1);
        if !row.is_multiple_of(dtype.block_size()) {
            return Err(self.bad(format!(
                "tensor {name}: rows of {row} are not whole {dtype:?} blocks of {}",
                dtype.block_size()
            )));
        }
        Ok(GgufTensor { dtype, shape, start })
    }

    fn value(&mut self, kind: u32) -> Result<GgufValue> {
        if kind != 9 {
            return self.scalar(kind);
        }
        let item = self.u32()?;
        let count = self.u64()?;
        let each = match item {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            8 | 10..=12 => 8,
            other => return Err(self.bad(format!("array of type {other} is not supported"))),
        };
        self.fits(count, each)?;
        match item {
            8 => (0..count).map(|_| self.text()).collect::<Result<_>>().map(GgufValue::Texts),
            6 | 7 | 12 => {
                for _ in 0..count {
                    self.scalar(item)?;
                }
                Ok(GgufValue::Skipped)
            }
            _ => {
                let mut values = vec![];
                for _ in 0..count {
                    if let GgufValue::Int(value) = self.scalar(item)? {
                        values.push(value);
                    }
                }
                Ok(GgufValue::Ints(values))
            }
        }
    }

    fn scalar(&mut self, kind: u32) -> Result<GgufValue> {
        Ok(match kind {
            0 => GgufValue::Int(u8::from_le_bytes(self.bytes()?).into()),
            1 => GgufValue::Int(i8::from_le_bytes(self.bytes()?).into()),
            2 => GgufValue::Int(u16::from_le_bytes(self.bytes()?).into()),
            3 => GgufValue::Int(i16::from_le_bytes(self.bytes()?).into()),
            4 => GgufValue::Int(self.u32()?.into()),
            5 => GgufValue::Int(i32::from_le_bytes(self.bytes()?).into()),
            6 => GgufValue::Float(f32::from_le_bytes(self.bytes()?).into()),
            7 => GgufValue::Bool(self.bytes::<1>()? != [0]),
            8 => GgufValue::Text(self.text()?),
            10 => {
                let value = self.u64()?;
                GgufValue::Int(i64::try_from(value).map_err(|_| self.bad(format!("number {value}")))?)
            }
            11 => GgufValue::Int(i64::from_le_bytes(self.bytes()?)),
            12 => GgufValue::Float(f64::from_le_bytes(self.bytes()?)),
            other => return Err(self.bad(format!("value type {other} is unknown"))),
        })
    }

    /// Refuses a count of things of at least `each` bytes that cannot fit into what is left of the file.
    fn fits(&self, count: u64, each: u64) -> Result<()> {
        let left = self.length - self.position;
        if count.checked_mul(each).is_none_or(|bytes| bytes > left) {
            return Err(self.bad(format!(
                "at byte {} the file announces {count} entries but has only {left} bytes left; it is truncated",
                self.position
            )));
        }
        Ok(())
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut raw = [0; N];
        self.fill(&mut raw)?;
        Ok(raw)
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.bytes()?))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.bytes()?))
    }

    fn text(&mut self) -> Result<String> {
        let length = self.u64()?;
        self.fits(length, 1)?;
        let mut raw = vec![0; length as usize];
        self.fill(&mut raw)?;
        Ok(String::from_utf8(raw).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
    }

    fn fill(&mut self, raw: &mut [u8]) -> Result<()> {
        self.fits(raw.len() as u64, 1)?;
        self.reader.read_exact(raw).map_err(|e| Error::io(self.path, "read", e))?;
        self.position += raw.len() as u64;
        Ok(())
    }
}

/// Size of a tensor's data; none where it overflows.
pub(super) fn tensor_bytes(tensor: &GgufTensor) -> Option<u64> {
    let count = tensor.shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d as u64))?;
    (count / tensor.dtype.block_size() as u64).checked_mul(tensor.dtype.type_size() as u64)
}

/// The GGML type numbers that candle can turn into f32.
fn ggml_type(kind: u32) -> Option<GgmlDType> {
    Some(match kind {
        0 => GgmlDType::F32,
        1 => GgmlDType::F16,
        2 => GgmlDType::Q4_0,
        3 => GgmlDType::Q4_1,
        6 => GgmlDType::Q5_0,
        7 => GgmlDType::Q5_1,
        8 => GgmlDType::Q8_0,
        10 => GgmlDType::Q2K,
        11 => GgmlDType::Q3K,
        12 => GgmlDType::Q4K,
        13 => GgmlDType::Q5K,
        14 => GgmlDType::Q6K,
        30 => GgmlDType::BF16,
        _ => return None,
    })
}
