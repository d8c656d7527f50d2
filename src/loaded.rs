//! A model for commands that can do without text: its tokenizer is only asked for when something needs it.

use aha_model::{ChatTemplate, Checkpoint, Decoder, Head, Tokenizer};
use aha_pipeline::recipe::Precision;
use anyhow::{Context, anyhow};
use std::path::Path;

/// An opened model.
pub struct Loaded {
    name: String,
    pub checkpoint: Checkpoint,
    tokenizer: Option<Tokenizer>,
}

impl Loaded {
    /// Opens a Hugging Face folder or a GGUF file. A model without a tokenizer is fine, a broken tokenizer is not.
    ///
    /// # Errors
    /// What is wrong with the model, naming the file.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let name = path.display().to_string();
        let checkpoint = Checkpoint::open(path).with_context(|| name.clone())?;
        let tokenizer = checkpoint.has_tokenizer().then(|| checkpoint.tokenizer()).transpose();
        let tokenizer = tokenizer.with_context(|| name.clone())?;
        Ok(Loaded { name, checkpoint, tokenizer })
    }

    /// The tokenizer, if there is one.
    pub fn tokenizer(&self) -> Option<&Tokenizer> {
        self.tokenizer.as_ref()
    }

    /// The tokenizer; `need` says for what.
    ///
    /// # Errors
    /// There is none.
    pub fn need_tokenizer(&self, need: &str) -> anyhow::Result<&Tokenizer> {
        self.tokenizer.as_ref().ok_or_else(|| {
            anyhow!("{}: no tokenizer.json here, and {need} needs one; give {{\"tokens\": [...]}} lines, or put it beside the model", self.name)
        })
    }

    /// The chat template, if there is one.
    ///
    /// # Errors
    /// One that does not compile.
    pub fn chat_template(&self) -> anyhow::Result<Option<ChatTemplate>> {
        self.checkpoint.chat_template().with_context(|| self.name.clone())
    }

    /// Tokens that end a completion.
    pub fn stop_tokens(&self) -> Vec<u32> {
        let config = self.checkpoint.config();
        self.tokenizer.as_ref().map_or_else(|| config.eos_token_ids.clone(), |t| t.eos_ids(config))
    }

    /// Reads the weights; products run in `precision`.
    ///
    /// # Errors
    /// A tensor that cannot be read; a reward model, which has no log-probabilities.
    pub fn decoder(&self, precision: Precision) -> anyhow::Result<Decoder> {
        let config = self.checkpoint.config().clone();
        if config.head == Head::Score {
            return Err(anyhow!(
                "{}: is a reward model: it scores responses and writes none; give a language model",
                self.name
            ));
        }
        let read = |name: &str| self.checkpoint.read(name);
        let decoder = match precision {
            Precision::Quantized => Decoder::quantized(config, read, |name| self.checkpoint.read_quantized(name)),
            _ => Decoder::from_tensors(config, read),
        };
        let mut decoder = decoder.with_context(|| self.name.clone())?;
        decoder.params.set_precision(precision.resolve(), false);
        Ok(decoder)
    }
}
