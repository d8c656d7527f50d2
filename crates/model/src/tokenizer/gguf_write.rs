//! A tokenizer as the metadata of a GGUF file: tokens, their types, merges, the family of its split pattern.

use std::collections::HashMap;

use serde_json::Value;

use super::Tokenizer;
use super::gguf::{CONTROL, UNUSED, USER_DEFINED};
use crate::checkpoint::GgufValue;
use crate::config::ModelConfig;
use crate::error::{Error, Result};

/// A token like any other.
const NORMAL: i64 = 1;

/// What a GGUF file says about a tokenizer, for the vocabulary of `config`.
///
/// # Errors
/// A tokenizer that is not byte-level BPE, or splits text in a way that GGUF has no name for.
pub(crate) fn metadata(tokenizer: &Tokenizer, config: &ModelConfig) -> Result<Vec<(String, GgufValue)>> {
    let json: Value = serde_json::from_str(&tokenizer.to_json()).expect("a tokenizer serialises to JSON");
    let fail = |problem: &str| Err(Error::Tokenizer(format!("cannot be written to GGUF: {problem}")));
    let (Some(vocab), Some(merges)) = (json["model"]["vocab"].as_object(), json["model"]["merges"].as_array()) else {
        return fail("only byte-level BPE is");
    };
    let mut tokens: Vec<String> = (0..config.vocab_size).map(|i| format!("[PAD{i}]")).collect();
    let mut kinds = vec![UNUSED; config.vocab_size];
    let mut put = |id: Option<u64>, token: &str, kind: i64| {
        if let Some(at) = id.map(|id| id as usize).filter(|at| *at < kinds.len()) {
            (tokens[at], kinds[at]) = (token.to_owned(), kind);
        }
    };
    vocab.iter().for_each(|(token, id)| put(id.as_u64(), token, NORMAL));
    for added in json["added_tokens"].as_array().into_iter().flatten() {
        let kind = if added["special"].as_bool() == Some(true) { CONTROL } else { USER_DEFINED };
        put(added["id"].as_u64(), added["content"].as_str().unwrap_or_default(), kind);
    }
    let merge = |m: &Value| match m {
        Value::String(text) => Some(text.clone()),
        Value::Array(pair) => Some(format!("{} {}", pair.first()?.as_str()?, pair.get(1)?.as_str()?)),
        _ => None,
    };
    let Some(merges) = merges.iter().map(merge).collect::<Option<Vec<String>>>() else {
        return fail("a merge that does not join two tokens");
    };
    let Some(pre) = family(&json["pre_tokenizer"]) else {
        return fail("its split pattern is neither Qwen2's nor Llama 3's");
    };
    let special = tokenizer.special();
    let id = |token: &Option<String>| token.as_ref().and_then(|t| tokenizer.token_to_id(t)).map(i64::from);
    let bos = id(&special.bos).or(config.bos_token_id.map(i64::from));
    let eos = id(&special.eos).or(config.eos_token_ids.first().map(|id| i64::from(*id)));
    let begins_with_bos = tokenizer.encode("a", true)?.first().map(|t| i64::from(*t)) == bos && bos.is_some();
    let mut all = vec![
        ("model", GgufValue::Text("gpt2".into())),
        ("pre", GgufValue::Text(pre.into())),
        ("tokens", GgufValue::Texts(tokens)),
        ("token_type", GgufValue::Ints(kinds)),
        ("merges", GgufValue::Texts(merges)),
        ("add_bos_token", GgufValue::Bool(begins_with_bos)),
    ];
    let roles = [("bos_token_id", bos), ("eos_token_id", eos), ("padding_token_id", id(&special.pad))];
    all.extend(roles.into_iter().filter_map(|(key, id)| Some((key, GgufValue::Int(id?)))));
    Ok(all.into_iter().map(|(key, value)| (format!("tokenizer.ggml.{key}"), value)).collect())
}

/// The name of the family that splits text so, by the only place where the two patterns differ.
fn family(pre_tokenizer: &Value) -> Option<&'static str> {
    fn patterns<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(map) => {
                found.extend(map.get("Regex").and_then(Value::as_str));
                map.values().for_each(|v| patterns(v, found));
            }
            Value::Array(items) => items.iter().for_each(|v| patterns(v, found)),
            _ => {}
        }
    }
    let known =
        HashMap::from([(super::gguf::pattern(r"\p{N}"), "qwen2"), (super::gguf::pattern(r"\p{N}{1,3}"), "llama-bpe")]);
    let mut found = Vec::new();
    patterns(pre_tokenizer, &mut found);
    match found[..] {
        [only] => known.get(only).copied(),
        _ => None,
    }
}
