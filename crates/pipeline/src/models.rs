//! Opening a model with everything around it: weights, tokenizer, chat template, stop tokens.

use crate::PipelineError;
use crate::recipe::Precision;
use aha_model::{ChatTemplate, Checkpoint, Decoder, Head, LoraConfig, ModelConfig, SCORE, TextFiles, Tokenizer};
use aha_tasks::{PromptStyle, Prompter};
use aha_train::TrainError;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A model on disk, opened; weights are read by [`OpenModel::decoder`].
pub struct OpenModel {
    name: String,
    path: PathBuf,
    checkpoint: Checkpoint,
    /// Its tokenizer.
    pub tokenizer: Arc<Tokenizer>,
    /// Its chat template, if it has one.
    pub chat: Option<Arc<ChatTemplate>>,
    /// Files saved beside models trained from it.
    pub text: TextFiles,
    /// Tokens that end a completion.
    pub stop_tokens: Vec<u32>,
}

impl OpenModel {
    /// Opens a Hugging Face directory or a GGUF file and checks that model and tokenizer belong together.
    ///
    /// # Errors
    /// Whatever is missing or malformed, naming the file.
    pub fn open(path: &Path) -> Result<Self, PipelineError> {
        let name = path.display().to_string();
        let fail = |source| PipelineError::Model { model: name.clone(), source };
        let checkpoint = Checkpoint::open(path).map_err(fail)?;
        let tokenizer = checkpoint.tokenizer().map_err(fail)?;
        let chat = checkpoint.chat_template().map_err(fail)?.map(Arc::new);
        let text = checkpoint.text_files().map_err(fail)?;
        let stop_tokens = tokenizer.eos_ids(checkpoint.config());
        Ok(OpenModel {
            name,
            path: path.to_path_buf(),
            checkpoint,
            tokenizer: Arc::new(tokenizer),
            chat,
            text,
            stop_tokens,
        })
    }

    /// Shape and constants.
    pub fn config(&self) -> &ModelConfig {
        self.checkpoint.config()
    }

    /// Reads the weights; products run in `precision`, for inference.
    ///
    /// # Errors
    /// A tensor that cannot be read; a reward model, which writes nothing.
    pub fn decoder(&self, precision: Precision) -> Result<Decoder, PipelineError> {
        if self.config().head == Head::Score {
            let problem = "is a reward model: it scores responses and writes none; give a language model".to_owned();
            return Err(PipelineError::Stage { stage: self.name.clone(), problem });
        }
        self.weights(precision)
    }

    /// Reads the weights of a reward model.
    ///
    /// # Errors
    /// A tensor that cannot be read; a model that is none.
    pub fn reward_decoder(&self, precision: Precision) -> Result<Decoder, PipelineError> {
        if self.config().head != Head::Score {
            let problem = "is no reward model; give the `model` folder of a reward_model stage".to_owned();
            return Err(PipelineError::Stage { stage: self.name.clone(), problem });
        }
        self.weights(precision)
    }

    /// The model with a fresh score in the place of its output matrix; a reward model as it is.
    ///
    /// # Errors
    /// A tensor that cannot be read.
    pub fn with_score(&self, seed: u64) -> Result<Decoder, PipelineError> {
        let config = self.config().with_score();
        let (width, std) = (config.hidden_size, config.initializer_range as f32);
        let read = |name: &str| match name {
            SCORE if self.config().head != Head::Score => Ok(aha_kernels::normal(width, std, seed, name)),
            _ => self.checkpoint.read(name),
        };
        Decoder::from_tensors(config, read).map_err(|source| PipelineError::Model { model: self.name.clone(), source })
    }

    fn weights(&self, precision: Precision) -> Result<Decoder, PipelineError> {
        let config = self.checkpoint.config().clone();
        let read = |name: &str| self.checkpoint.read(name);
        let decoder = match precision {
            Precision::Quantized => Decoder::quantized(config, read, |name| self.checkpoint.read_quantized(name)),
            _ => Decoder::from_tensors(config, read),
        };
        let mut decoder = decoder.map_err(|source| PipelineError::Model { model: self.name.clone(), source })?;
        decoder.params.set_precision(precision.resolve(), false);
        Ok(decoder)
    }

    /// Reads the weights for the training of a reward model, as [`OpenModel::trainee`] does for a language model.
    ///
    /// # Errors
    /// As [`OpenModel::with_score`]; layers that the model does not have.
    pub fn reward_trainee(&self, lora: Option<&LoraConfig>, seed: u64) -> Result<Decoder, TrainError> {
        let decoder = self.with_score(seed).map_err(|e| TrainError::Observer(e.to_string()))?;
        self.adapted(decoder, lora, seed)
    }

    /// Reads the weights for a training: with adapters, where they are asked for, beside a frozen base. Adapters begin as a
    /// function of `seed`.
    ///
    /// # Errors
    /// As [`OpenModel::decoder`]; layers that the model does not have.
    pub fn trainee(&self, lora: Option<&LoraConfig>, seed: u64) -> Result<Decoder, TrainError> {
        let decoder = self.decoder(Precision::F32).map_err(|e| TrainError::Observer(e.to_string()))?;
        self.adapted(decoder, lora, seed)
    }

    fn adapted(&self, mut decoder: Decoder, lora: Option<&LoraConfig>, seed: u64) -> Result<Decoder, TrainError> {
        if let Some(lora) = lora {
            // A path that holds wherever the adapter is opened from.
            let base = std::fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
            decoder.add_adapters(lora, &base.to_string_lossy(), seed)?;
        }
        Ok(decoder)
    }

    /// Renders problems for this model. `style` `None` chooses the chat template where there is one, else R1-Zero's.
    ///
    /// # Errors
    /// A chat style without a template; no stop token.
    pub fn prompter(
        &self,
        style: Option<PromptStyle>,
        system: Option<String>,
        suffix: Option<String>,
    ) -> Result<Prompter, PipelineError> {
        let style = style.unwrap_or(if self.chat.is_some() { PromptStyle::Chat } else { PromptStyle::R1Zero });
        Prompter::new(self.tokenizer.clone(), style, self.chat.clone(), system, suffix, self.stop_tokens.clone())
            .map_err(|problem| PipelineError::Stage { stage: self.name.clone(), problem })
    }
}
