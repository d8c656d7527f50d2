//! Conversations to prompts: the Jinja chat template that comes with a model, rendered by minijinja as
//! transformers renders it (trimmed blocks, Python string methods, `raise_exception`, `strftime_now`,
//! Python's JSON).

mod functions;

use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::{Environment, Error as JinjaError, ErrorKind, Value};
use serde::{Deserialize, Serialize};

use crate::checkpoint::Gguf;
use crate::error::{Error, Result};
use crate::tokenizer::SpecialTokens;

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// "system", "user" or "assistant".
    pub role: String,
    /// The text; empty where a message has none (`null` beside tool calls).
    #[serde(default, deserialize_with = "text_or_null")]
    pub content: String,
    /// Further fields some templates read (`reasoning_content`, `tool_calls`, ...).
    #[serde(flatten)]
    pub more: serde_json::Map<String, serde_json::Value>,
}

fn text_or_null<'de, D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<String, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.unwrap_or_default())
}

impl Message {
    /// A turn of the given role.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Message { role: role.into(), content: content.into(), more: serde_json::Map::new() }
    }
}

/// A compiled chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    special: SpecialTokens,
}

const NAME: &str = "chat_template";

impl ChatTemplate {
    /// Compiles a template; it sees the special tokens as `bos_token`, `eos_token` and so on.
    ///
    /// # Errors
    /// [`Error::Template`] with the line of a syntax error.
    pub fn new(source: &str, special: SpecialTokens) -> Result<Self> {
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_filter("tojson", functions::tojson);
        environment.add_function("raise_exception", |message: String| {
            Err::<Value, _>(JinjaError::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_template_owned(NAME, source.to_owned()).map_err(template_error)?;
        let template = ChatTemplate { environment, source: source.to_owned(), special };
        Ok(template.with_clock(None))
    }

    /// Fixes what `strftime_now` takes for now, in seconds since 1970 (UTC), so that a prompt does not change
    /// from one day to the next; `None` is the system's clock.
    pub fn with_clock(mut self, unix_s: Option<i64>) -> Self {
        self.environment.add_function("strftime_now", move |format: String| {
            let now = unix_s
                .unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64));
            functions::strftime(&format, now)
        });
        self
    }

    /// The template of a `tokenizer_config.json`: a string, or the one named "default" of a list.
    ///
    /// # Errors
    /// Malformed JSON, or a template that does not compile.
    pub fn from_config_json(text: &str) -> Result<Option<Self>> {
        let special = SpecialTokens::from_config_json(text)?;
        let root: serde_json::Value = serde_json::from_str(text).map_err(|e| Error::Template(e.to_string()))?;
        let source = match root.get("chat_template") {
            None | Some(serde_json::Value::Null) => return Ok(None),
            Some(serde_json::Value::String(source)) => source.as_str(),
            Some(serde_json::Value::Array(named)) => named
                .iter()
                .find(|t| t.get("name").and_then(|n| n.as_str()) == Some("default"))
                .and_then(|t| t.get("template")?.as_str())
                .ok_or_else(|| Error::Template("the list of templates has none named \"default\"".into()))?,
            Some(_) => {
                return Err(Error::Template("chat_template must be a string or a list of named templates".into()));
            }
        };
        Self::new(source, special).map(Some)
    }

    /// The template of a model directory: `chat_template.jinja` if there is one, else that of
    /// `tokenizer_config.json`.
    ///
    /// # Errors
    /// A file that cannot be read, or a template that does not compile.
    pub fn from_dir(dir: &Path) -> Result<Option<Self>> {
        let read = |name: &str| {
            let path = dir.join(name);
            match fs::read_to_string(&path) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
                other => other.map(Some).map_err(|e| Error::io(&path, "read", e)),
            }
        };
        let config = read("tokenizer_config.json")?;
        if let Some(source) = read("chat_template.jinja")? {
            let special = config.as_deref().map(SpecialTokens::from_config_json).transpose()?;
            return Self::new(&source, special.unwrap_or_default()).map(Some);
        }
        config.map_or(Ok(None), |text| Self::from_config_json(&text))
    }

    /// The template in the metadata of a GGUF file.
    ///
    /// # Errors
    /// A template that does not compile.
    pub fn from_gguf(file: &Gguf) -> Result<Option<Self>> {
        let Some(source) = file.text("tokenizer.chat_template") else {
            return Ok(None);
        };
        let tokens = file.texts("tokenizer.ggml.tokens").unwrap_or(&[]);
        let token = |key: &str| {
            let id = file.unsigned(&format!("tokenizer.ggml.{key}"))?;
            tokens.get(id as usize).cloned()
        };
        let special = SpecialTokens {
            bos: token("bos_token_id"),
            eos: token("eos_token_id"),
            pad: token("padding_token_id"),
            unk: None,
        };
        Self::new(source, special).map(Some)
    }

    /// The template's text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The prompt for a conversation; with `add_generation_prompt` it ends where the assistant begins.
    ///
    /// # Errors
    /// [`Error::Template`]: what the template raised, or where it failed.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        self.render_with(messages, add_generation_prompt, &serde_json::Map::new())
    }

    /// As [`ChatTemplate::render`], with further variables for the template (`enable_thinking`, `tools`).
    ///
    /// # Errors
    /// As [`ChatTemplate::render`].
    pub fn render_with(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        variables: &serde_json::Map<String, serde_json::Value>,
    ) -> Result<String> {
        let mut context = serde_json::Map::new();
        let special = &self.special;
        for (key, token) in [
            ("bos_token", &special.bos),
            ("eos_token", &special.eos),
            ("pad_token", &special.pad),
            ("unk_token", &special.unk),
        ] {
            if let Some(token) = token {
                context.insert(key.into(), token.as_str().into());
            }
        }
        // transformers passes these two always.
        context.insert("tools".into(), serde_json::Value::Null);
        context.insert("documents".into(), serde_json::Value::Null);
        context.extend(variables.clone());
        context.insert("messages".into(), serde_json::to_value(messages).map_err(|e| Error::Template(e.to_string()))?);
        context.insert("add_generation_prompt".into(), add_generation_prompt.into());
        self.environment
            .get_template(NAME)
            .and_then(|t| t.render(Value::from_serialize(&context)))
            .map_err(template_error)
    }
}

fn template_error(error: JinjaError) -> Error {
    Error::Template(error.to_string())
}
