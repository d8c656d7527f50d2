//! A GGUF file's tokenizer as a `tokenizer.json`: byte-level BPE with the split pattern that the file names
//! by family (`tokenizer.ggml.pre`). Tokens of unused ids, which only pad the vocabulary, are left out.

use serde_json::{Map, Value, json};

use super::SpecialTokens;
use crate::checkpoint::Gguf;
use crate::error::{Error, Result};

/// Token types of `tokenizer.ggml.token_type` that matter here.
pub(crate) const CONTROL: i64 = 3;
pub(super) const USER_DEFINED: i64 = 4;
pub(super) const UNUSED: i64 = 5;

/// How a family splits text before merging.
struct Family {
    /// Digits per piece.
    digits: &'static str,
    normalizer: Value,
    /// Whether a piece that is a token needs no merges.
    ignore_merges: bool,
    /// Whether a bos is added where the file does not say.
    add_bos: bool,
}

fn family(pre: &str) -> Option<Family> {
    match pre {
        "qwen2" | "deepseek-r1-qwen" => {
            Some(Family { digits: r"\p{N}", normalizer: json!({"type": "NFC"}), ignore_merges: false, add_bos: false })
        }
        "llama-bpe" | "llama3" | "llama-v3" => {
            Some(Family { digits: r"\p{N}{1,3}", normalizer: Value::Null, ignore_merges: true, add_bos: true })
        }
        _ => None,
    }
}

/// The pattern text is split by.
pub(super) fn pattern(digits: &str) -> String {
    format!(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
}

/// The tokenizer as JSON, and its special tokens.
pub(super) fn tokenizer_json(file: &Gguf) -> Result<(Value, SpecialTokens)> {
    let fail = |problem: String| Err(Error::Tokenizer(format!("{}: {problem}", file.path().display())));
    let model = file.text("tokenizer.ggml.model").unwrap_or("none");
    if model != "gpt2" {
        return fail(format!("tokenizer model \"{model}\" is not supported; only byte-level BPE (gpt2) is"));
    }
    let pre = file.text("tokenizer.ggml.pre").unwrap_or("default");
    let Some(family) = family(pre) else {
        return fail(format!(
            "pre-tokenizer \"{pre}\" is not supported; supported are qwen2, deepseek-r1-qwen and llama-bpe"
        ));
    };
    let (Some(tokens), Some(merges)) = (file.texts("tokenizer.ggml.tokens"), file.texts("tokenizer.ggml.merges"))
    else {
        return fail("tokenizer.ggml.tokens or tokenizer.ggml.merges is missing".into());
    };
    let kinds = file.ints("tokenizer.ggml.token_type").unwrap_or(&[]);
    if !kinds.is_empty() && kinds.len() != tokens.len() {
        return fail(format!("{} tokens but {} token types", tokens.len(), kinds.len()));
    }

    let mut vocab = Map::new();
    let mut added = vec![];
    for (id, token) in tokens.iter().enumerate() {
        let kind = kinds.get(id).copied().unwrap_or(1);
        if kind == UNUSED {
            continue;
        }
        if vocab.insert(token.clone(), id.into()).is_some() {
            return fail(format!("token \"{token}\" is there twice"));
        }
        if kind == CONTROL || kind == USER_DEFINED {
            added.push(json!({
                "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": kind == CONTROL,
            }));
        }
    }
    let mut pairs = Vec::with_capacity(merges.len());
    for merge in merges {
        match merge.split_once(' ') {
            Some((a, b)) if vocab.contains_key(a) && vocab.contains_key(b) => {
                pairs.push(json!([a, b]));
            }
            _ => return fail(format!("merge \"{merge}\" does not join two tokens")),
        }
    }

    let token_of = |key: &str| {
        let id = file.unsigned(&format!("tokenizer.ggml.{key}"))?;
        tokens.get(id as usize).cloned()
    };
    let special = SpecialTokens {
        bos: token_of("bos_token_id"),
        eos: token_of("eos_token_id"),
        pad: token_of("padding_token_id"),
        unk: None,
    };
    let add_bos = file.flag("tokenizer.ggml.add_bos_token").unwrap_or(family.add_bos);
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false});
    let post = match special.bos.as_ref().filter(|_| add_bos) {
        None => byte_level.clone(),
        Some(bos) => {
            let mut marker = Map::new();
            marker.insert(bos.clone(), json!({"id": bos, "ids": [vocab[bos]], "tokens": [bos]}));
            let text = |id: &str| json!({"Sequence": {"id": id, "type_id": 0}});
            let mark = json!({"SpecialToken": {"id": bos, "type_id": 0}});
            json!({
                "type": "TemplateProcessing",
                "single": [mark, text("A")],
                "pair": [mark, text("A"), mark, text("B")],
                "special_tokens": marker,
            })
        }
    };
    let pattern = pattern(family.digits);
    let split = json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
    let root = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": family.normalizer,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": post,
        "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": family.ignore_merges, "vocab": vocab, "merges": pairs,
        },
    });
    Ok((root, special))
}
