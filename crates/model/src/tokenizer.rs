//! Text to token ids and back: the `tokenizers` library behind `tokenizer.json`, special tokens by role,
//! and decoding of a stream of tokens into whole characters.

mod gguf;
mod gguf_write;
mod stream;

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use serde_json::Value;

pub(crate) use gguf::CONTROL as GGUF_CONTROL;
pub(crate) use gguf_write::metadata as gguf_metadata;
pub use stream::StreamDecoder;

use crate::checkpoint::Gguf;
use crate::config::ModelConfig;
use crate::error::{Error, Result};

/// The tokens with a role, as strings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Begins a sequence.
    pub bos: Option<String>,
    /// Ends a turn or a document.
    pub eos: Option<String>,
    /// Fills a batch.
    pub pad: Option<String>,
    /// Stands for what cannot be encoded.
    pub unk: Option<String>,
}

impl SpecialTokens {
    /// Reads the roles from the text of a `tokenizer_config.json` (a string, or an object with `content`).
    ///
    /// # Errors
    /// Text that is not JSON.
    pub fn from_config_json(text: &str) -> Result<Self> {
        let root: Value = serde_json::from_str(text)
            .map_err(|e| Error::Tokenizer(format!("tokenizer_config.json is not valid JSON: {e}")))?;
        let role = |key: &str| {
            let value = root.get(key)?;
            let token = value.as_str().or_else(|| value.get("content")?.as_str())?;
            Some(token.to_owned())
        };
        Ok(SpecialTokens {
            bos: role("bos_token"),
            eos: role("eos_token"),
            pad: role("pad_token"),
            unk: role("unk_token"),
        })
    }
}

/// A tokenizer with its special tokens.
#[derive(Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// A copy that treats special-token strings as plain text, made when first needed.
    plain: OnceLock<tokenizers::Tokenizer>,
    special: SpecialTokens,
    /// The largest id and its token.
    last: (u32, String),
}

impl Tokenizer {
    /// Reads a `tokenizer.json`, and the roles of special tokens from a `tokenizer_config.json` beside it.
    ///
    /// # Errors
    /// A missing or malformed file.
    pub fn from_file(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).map_err(|e| Error::io(path, "read", e))?;
        let tokenizer = Self::from_bytes(&bytes).map_err(|e| Error::format(path, e.to_string()))?;
        let config = path.with_file_name("tokenizer_config.json");
        if !config.exists() {
            return Ok(tokenizer);
        }
        let text = fs::read_to_string(&config).map_err(|e| Error::io(&config, "read", e))?;
        let special = SpecialTokens::from_config_json(&text).map_err(|e| Error::format(&config, e.to_string()))?;
        tokenizer.with_special(special)
    }

    /// Reads the `tokenizer.json` of a model directory.
    ///
    /// # Errors
    /// As [`Tokenizer::from_file`]; a directory with only another kind of tokenizer says so.
    pub fn from_dir(dir: &Path) -> Result<Self> {
        let path = dir.join("tokenizer.json");
        if !path.exists() {
            let other = ["tokenizer.model", "vocab.json"].into_iter().find(|f| dir.join(f).exists());
            let hint = other.map_or(String::new(), |f| {
                format!("; {f} is not read, convert it by saving it with a fast tokenizer of transformers")
            });
            return Err(Error::format(dir, format!("no tokenizer.json here{hint}")));
        }
        Self::from_file(&path)
    }

    /// Parses the contents of a `tokenizer.json`; no special token has a role yet.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] for malformed contents or an empty vocabulary.
    pub fn from_bytes(json: &[u8]) -> Result<Self> {
        let inner = tokenizers::Tokenizer::from_bytes(json)
            .map_err(|e| Error::Tokenizer(format!("not a valid tokenizer.json: {e}")))?;
        let last = inner
            .get_vocab(true)
            .into_iter()
            .map(|(token, id)| (id, token))
            .max()
            .ok_or_else(|| Error::Tokenizer("the vocabulary is empty".into()))?;
        Ok(Tokenizer { inner, plain: OnceLock::new(), special: SpecialTokens::default(), last })
    }

    /// Rebuilds the byte-level BPE tokenizer that a GGUF file describes (the `qwen2` and `llama-bpe`
    /// families).
    ///
    /// # Errors
    /// [`Error::Tokenizer`] for another kind of tokenizer, or missing or inconsistent metadata.
    pub fn from_gguf(file: &Gguf) -> Result<Self> {
        let (json, special) = gguf::tokenizer_json(file)?;
        Self::from_bytes(json.to_string().as_bytes())?.with_special(special)
    }

    /// Gives special tokens their roles.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] naming a bos or eos token that is not in the vocabulary.
    pub fn with_special(mut self, special: SpecialTokens) -> Result<Self> {
        for (role, token) in [("bos", &special.bos), ("eos", &special.eos)] {
            if let Some(token) = token
                && self.token_to_id(token).is_none()
            {
                return Err(Error::Tokenizer(format!("the {role} token \"{token}\" is not in the vocabulary")));
            }
        }
        self.special = special;
        Ok(self)
    }

    /// The tokens with a role.
    pub fn special(&self) -> &SpecialTokens {
        &self.special
    }

    /// Token ids of a text. Special-token strings in it become those tokens, as in Hugging Face; for text
    /// from users see [`Tokenizer::encode_with`]. `add_special` lets the tokenizer add its own (a bos).
    ///
    /// # Errors
    /// [`Error::Tokenizer`] where the tokenizer has no token for some input.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        self.encode_with(text, add_special, true)
    }

    /// As [`Tokenizer::encode`]; with `parse_special` false, special-token strings are encoded as the plain
    /// characters they are made of.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_with(&self, text: &str, add_special: bool, parse_special: bool) -> Result<Vec<u32>> {
        let inner = if parse_special {
            &self.inner
        } else {
            self.plain.get_or_init(|| {
                let mut plain = self.inner.clone();
                plain.set_encode_special_tokens(true);
                plain
            })
        };
        let encoding =
            inner.encode_fast(text, add_special).map_err(|e| Error::Tokenizer(format!("cannot encode: {e}")))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Text of token ids. Bytes that are not UTF-8 become U+FFFD; ids without a token are left out, and
    /// special tokens too if `skip_special`.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the tokenizer's decoder fails.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        self.inner.decode(ids, skip_special).map_err(|e| Error::Tokenizer(format!("cannot decode: {e}")))
    }

    /// A decoder for tokens that arrive one by one.
    pub fn stream(&self, skip_special: bool) -> StreamDecoder<'_> {
        StreamDecoder::new(self, skip_special)
    }

    /// One more than the largest id, which is what a model's `vocab_size` must at least be.
    pub fn vocab_size(&self) -> usize {
        self.last.0 as usize + 1
    }

    /// The id of a token, special or not.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The token of an id, in the vocabulary's own spelling.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The ids that end a generation: those of the config, then the tokenizer's eos token.
    pub fn eos_ids(&self, config: &ModelConfig) -> Vec<u32> {
        let mut ids = config.eos_token_ids.clone();
        let own = self.special.eos.as_deref();
        if let Some(id) = own.and_then(|token| self.token_to_id(token))
            && !ids.contains(&id)
        {
            ids.push(id);
        }
        ids
    }

    /// The contents of a `tokenizer.json` that gives this tokenizer back.
    pub fn to_json(&self) -> String {
        self.inner.to_string(false).expect("a tokenizer that was parsed serialises")
    }

    /// Checks that every id fits the model's vocabulary. A model vocabulary that is larger (padding) is fine.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] with both numbers.
    pub fn check(&self, config: &ModelConfig) -> Result<()> {
        let (id, token) = &self.last;
        if *id as usize >= config.vocab_size {
            return Err(Error::Tokenizer(format!(
                "token \"{token}\" has id {id}, but the model's vocab_size is {}; the tokenizer belongs to another model",
                config.vocab_size
            )));
        }
        Ok(())
    }
}
