//! Trained weights on disk, read one tensor at a time as f32 under Hugging Face names. Two layouts: a
//! Hugging Face directory (`config.json` and safetensors, single or sharded) and a single GGUF file.
//! Reading is by position in the file, so memory holds only the tensor asked for.

mod adapter;
mod deepseek;
mod gguf;
mod gguf_blocks;
mod gguf_header;
mod gguf_write;
mod safetensors;
mod save;

use aha_kernels::quant::QuantRows;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

pub use adapter::{Adapter, is_adapter, save_adapter};
pub use gguf_header::{Gguf, GgufValue};
pub use gguf_write::{GgufDtype, save_gguf};
pub use save::{SaveDtype, TensorSource, save_checkpoint, save_checkpoint_pieces, save_tensors};

use crate::chat::ChatTemplate;
use crate::config::json::generation_eos;
use crate::config::{ModelConfig, TensorSpec};
use crate::error::{Error, Result};
use crate::text_files::TextFiles;
use crate::tokenizer::Tokenizer;

/// An opened checkpoint: its configuration is known, and every tensor the configuration asks for is there
/// with the right shape and lies inside its file.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    config: ModelConfig,
    wanted: HashMap<String, Vec<usize>>,
    source: Source,
    adapter: Option<Adapter>,
}

#[derive(Debug)]
enum Source {
    Safetensors(safetensors::Store),
    Gguf(gguf::Store),
}

impl Checkpoint {
    /// Opens a Hugging Face directory or a `.gguf` file and checks it against its configuration. The folder of an adapter is
    /// its base model with the adapter merged.
    ///
    /// # Errors
    /// A missing or malformed `config.json`, an unsupported model, a truncated or malformed weight file, a
    /// missing tensor, or one of the wrong shape; each names the file and what was expected.
    pub fn open(path: &Path) -> Result<Self> {
        let meta = fs::metadata(path).map_err(|e| Error::io(path, "open", e))?;
        if is_adapter(path) {
            let adapter = Adapter::open(path)?;
            return Checkpoint::open_base(&adapter.base()?, path)?.with_adapter(adapter);
        }
        let (config, source) = if meta.is_dir() {
            let mut config = read_config(path)?;
            let store = safetensors::Store::open(path)?;
            deepseek::adapt(&mut config, &store)?;
            (config, Source::Safetensors(store))
        } else if path.extension().is_some_and(|e| e == "safetensors") {
            return Err(Error::format(
                path,
                "a single safetensors file has no config; give the directory that holds it and config.json",
            ));
        } else {
            let store = gguf::Store::open(path)?;
            (store.config()?, Source::Gguf(store))
        };
        let wanted = config.tensors().into_iter().map(|TensorSpec { name, shape }| (name, shape)).collect();
        let checkpoint = Checkpoint { path: path.to_path_buf(), config, wanted, source, adapter: None };
        for spec in checkpoint.config.tensors() {
            checkpoint.check_shape(&spec.name, &spec.shape)?;
        }
        Ok(checkpoint)
    }

    fn open_base(base: &Path, adapter: &Path) -> Result<Self> {
        if is_adapter(base) {
            return Err(Error::format(
                adapter,
                format!("its base {} is an adapter itself; merge that one first", base.display()),
            ));
        }
        Checkpoint::open(base)
    }

    /// The same model with an adapter merged into what is read.
    ///
    /// # Errors
    /// An adapter of another model.
    pub fn with_adapter(mut self, adapter: Adapter) -> Result<Self> {
        if self.adapter.is_some() {
            return Err(Error::format(adapter.path(), "the model has an adapter already; merge that one first"));
        }
        adapter.check(&self.wanted)?;
        self.adapter = Some(adapter);
        Ok(self)
    }

    /// The adapter that is merged into what is read, if there is one.
    pub fn adapter(&self) -> Option<&Adapter> {
        self.adapter.as_ref()
    }

    /// The configuration, with the eos ids of `generation_config.json` merged in.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The directory or file it was opened from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads one tensor, row-major, converted to f32 (exact for f32, f16 and bf16; dequantised from GGUF and from
    /// 8-bit floats with block scales).
    ///
    /// # Errors
    /// A name that [`ModelConfig::tensors`] does not list, a dtype that is not a float, or a failed read.
    pub fn read(&self, name: &str) -> Result<Vec<f32>> {
        if !self.wanted.contains_key(name) {
            return Err(Error::MissingTensor { name: name.into(), path: self.path.clone() });
        }
        let values = match &self.source {
            Source::Safetensors(store) => deepseek::read(store, name),
            Source::Gguf(store) => store.read(name, &self.config),
        }?;
        match &self.adapter {
            Some(adapter) => adapter.apply(name, values),
            None => Ok(values),
        }
    }

    /// Reads one matrix in whole numbers: as a GGUF file has it, otherwise rounded to 8 bits. `None` for vectors and for
    /// rows that are no multiple of 32 long.
    ///
    /// # Errors
    /// Those of [`Checkpoint::read`].
    pub fn read_quantized(&self, name: &str) -> Result<Option<QuantRows>> {
        let Some(&[n, k]) = self.wanted.get(name).map(Vec::as_slice) else { return Ok(None) };
        if !k.is_multiple_of(32) {
            return Ok(None);
        }
        if let Source::Gguf(store) = &self.source
            && !self.adapter.as_ref().is_some_and(|a| a.changes(name))
            && let Some(rows) = store.read_quantized(name, &self.config)?
        {
            return Ok(Some(rows));
        }
        Ok(Some(QuantRows::from_f32(&self.read(name)?, n, k)))
    }

    /// Tensors in the files that the model does not use, sorted, under the names they have there.
    pub fn unexpected(&self) -> Vec<String> {
        let mut names = match &self.source {
            Source::Safetensors(store) => {
                store.names_except(|n| self.wanted.contains_key(n) || deepseek::is_part(&self.config, n))
            }
            Source::Gguf(store) => store.unexpected(&self.config),
        };
        names.sort();
        names
    }

    /// The tokenizer that comes with the weights.
    ///
    /// # Errors
    /// No tokenizer, one of a kind that is not supported, or one whose ids do not fit the vocabulary.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        let tokenizer = match &self.source {
            Source::Safetensors(_) => Tokenizer::from_dir(&self.path)?,
            Source::Gguf(store) => Tokenizer::from_gguf(store.header())?,
        };
        tokenizer.check(&self.config)?;
        Ok(tokenizer)
    }

    /// Whether a tokenizer comes with the weights; it may still be one that is not supported.
    pub fn has_tokenizer(&self) -> bool {
        match &self.source {
            Source::Safetensors(_) => self.path.join("tokenizer.json").exists(),
            Source::Gguf(store) => store.header().text("tokenizer.ggml.model").is_some_and(|model| model != "none"),
        }
    }

    /// The chat template that comes with the weights, if there is one.
    ///
    /// # Errors
    /// A template that does not compile.
    pub fn chat_template(&self) -> Result<Option<ChatTemplate>> {
        match &self.source {
            Source::Safetensors(_) => ChatTemplate::from_dir(&self.path),
            Source::Gguf(store) => ChatTemplate::from_gguf(store.header()),
        }
    }

    /// The texts to hand to [`save_checkpoint`], so that a saved model keeps its tokenizer and template.
    ///
    /// # Errors
    /// Those of [`Checkpoint::tokenizer`] and [`Checkpoint::chat_template`].
    pub fn text_files(&self) -> Result<TextFiles> {
        let template = self.chat_template()?;
        Ok(TextFiles::new(Some(&self.tokenizer()?), template.as_ref().map(ChatTemplate::source)))
    }

    fn check_shape(&self, name: &str, wanted: &[usize]) -> Result<()> {
        let found = match &self.source {
            Source::Safetensors(store) => deepseek::shape(store, name),
            Source::Gguf(store) => store.shape(name).map(<[usize]>::to_vec),
        };
        match found {
            None => Err(Error::MissingTensor { name: name.into(), path: self.path.clone() }),
            Some(found) if found != wanted => Err(Error::Shape { name: name.into(), found, wanted: wanted.to_vec() }),
            Some(_) => Ok(()),
        }
    }
}

/// `config.json`, with the eos ids of `generation_config.json` appended where it has others.
fn read_config(dir: &Path) -> Result<ModelConfig> {
    let path = dir.join("config.json");
    let text = match fs::read_to_string(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::format(
                dir,
                "no config.json here; expected a Hugging Face model directory or a .gguf file",
            ));
        }
        other => other.map_err(|e| Error::io(&path, "read", e))?,
    };
    let in_file = |path: &Path, e: Error| match e {
        Error::Config(problem) => Error::format(path, problem),
        other => other,
    };
    let mut config = ModelConfig::from_json(&text).map_err(|e| in_file(&path, e))?;
    let path = dir.join("generation_config.json");
    if path.exists() {
        let text = fs::read_to_string(&path).map_err(|e| Error::io(&path, "read", e))?;
        for id in generation_eos(&text).map_err(|e| in_file(&path, e))? {
            if !config.eos_token_ids.contains(&id) {
                config.eos_token_ids.push(id);
            }
        }
        config.check().map_err(|e| in_file(&path, e))?;
    }
    Ok(config)
}
