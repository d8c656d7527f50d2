//! The texts saved next to weights: `tokenizer.json` and a `tokenizer_config.json` that transformers loads
//! as a plain fast tokenizer, chat template included.

use serde_json::{Map, Value, json};

use crate::tokenizer::Tokenizer;

/// What is written beside the weights; absent files are not written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TextFiles {
    /// Contents of `tokenizer.json`.
    pub tokenizer_json: Option<String>,
    /// Contents of `tokenizer_config.json`.
    pub tokenizer_config_json: Option<String>,
}

impl TextFiles {
    /// Both files for a tokenizer, with a Jinja chat template if there is one.
    pub fn new(tokenizer: Option<&Tokenizer>, chat_template: Option<&str>) -> Self {
        let Some(tokenizer) = tokenizer else {
            return TextFiles::default();
        };
        let mut config = Map::new();
        config.insert("tokenizer_class".into(), "PreTrainedTokenizerFast".into());
        let special = tokenizer.special();
        for (key, token) in [
            ("bos_token", &special.bos),
            ("eos_token", &special.eos),
            ("pad_token", &special.pad),
            ("unk_token", &special.unk),
        ] {
            if let Some(token) = token {
                config.insert(key.into(), json!(token));
            }
        }
        config.insert("clean_up_tokenization_spaces".into(), false.into());
        if let Some(template) = chat_template {
            config.insert("chat_template".into(), template.into());
        }
        let mut text = serde_json::to_string_pretty(&Value::Object(config)).expect("plain values serialise");
        text.push('\n');
        TextFiles { tokenizer_json: Some(tokenizer.to_json()), tokenizer_config_json: Some(text) }
    }
}
