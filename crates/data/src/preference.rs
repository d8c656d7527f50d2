//! What reward models learn from: pairs of responses of which one is better, and responses with a label.
//!
//! A pair is a conversation with `chosen` and `rejected`, which may be texts, messages, lists of messages (the whole
//! conversation, or its end after `prompt`), or whole transcripts of `Human:` and `Assistant:` turns. Beside them may stand
//! `tie` (true: none is better), `preference` (0 to 1: how much the first is preferred, as `aha judge` writes it) and `margin`.
//! A labelled response is a conversation with a `response` (or `completion`, or the last of its messages) and a label, `safe` or
//! `label`: true, 1 or "safe" is good.

use crate::conversation::{question, turn, turns};
use crate::{DataError, json_rows};
use aha_model::Message;
use serde_json::{Map, Value};
use std::path::Path;

/// Two responses to one conversation.
#[derive(Clone, Debug, PartialEq)]
pub struct PreferencePair {
    /// The conversation; its last turn is the user's.
    pub turns: Vec<Message>,
    /// The response that is preferred.
    pub chosen: String,
    /// The other one.
    pub rejected: String,
    /// How much `chosen` is preferred: 1, or less where judges were not of one mind; 0.5 is a tie.
    pub preference: f64,
    /// By how much scores should differ, 0 or more.
    pub margin: f64,
}

/// A response and whether it is good.
#[derive(Clone, Debug, PartialEq)]
pub struct Labelled {
    /// The conversation; its last turn is the user's.
    pub turns: Vec<Message>,
    /// The response.
    pub response: String,
    /// The label.
    pub good: bool,
}

/// The pairs of a file.
///
/// # Errors
/// A file that cannot be read, a row that is no pair: with file and line.
pub fn read_pairs(path: &Path) -> Result<Vec<PreferencePair>, DataError> {
    read(path, pair)
}

/// The labelled responses of a file.
///
/// # Errors
/// A file that cannot be read, a row that is none: with file and line.
pub fn read_labelled(path: &Path) -> Result<Vec<Labelled>, DataError> {
    read(path, labelled)
}

fn read<T>(path: &Path, row: impl Fn(&Value) -> Result<T, String>) -> Result<Vec<T>, DataError> {
    let rows = json_rows::read(path)?.into_iter();
    rows.map(|(line, value)| row(&value).map_err(|problem| json_rows::fail(path, Some(line), problem))).collect()
}

/// The pair of one row.
///
/// # Errors
/// What is missing, in words.
pub fn pair(row: &Value) -> Result<PreferencePair, String> {
    let row = row.as_object().ok_or("a row must be a JSON object")?;
    let side = |key: &str| row.get(key).ok_or_else(|| format!("has no `{key}`"));
    let (chosen, rejected) = (side("chosen")?, side("rejected")?);
    let (turns, chosen, rejected) = match (chosen, rejected) {
        (Value::Array(a), Value::Array(b)) if !row.contains_key("prompt") => {
            let (a, b) = (turns_of(a)?, turns_of(b)?);
            let ((shared, chosen), (other, rejected)) = (split_last(a)?, split_last(b)?);
            if shared != other {
                return Err("`chosen` and `rejected` are conversations that differ before their last message".into());
            }
            (shared, chosen, rejected)
        }
        (Value::String(a), Value::String(b)) if conversation(row).is_err() && is_transcript(a) && is_transcript(b) => {
            let (shared, chosen) = split_last(transcript(a)?)?;
            // Transcripts of the Anthropic sets now and then differ earlier; the conversation is that of the chosen one.
            (shared, chosen, split_last(transcript(b)?)?.1)
        }
        (a, b) => (conversation(row)?, response(a)?, response(b)?),
    };
    let number = |key: &str| match row.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value.as_f64().map(Some).ok_or_else(|| format!("`{key}` must be a number")),
    };
    let tie = match row.get("tie") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(tie)) => *tie,
        Some(_) => return Err("`tie` must be true or false".into()),
    };
    let preference = number("preference")?.unwrap_or(if tie { 0.5 } else { 1.0 });
    if !(0.0..=1.0).contains(&preference) {
        return Err(format!("`preference` is {preference}; it must lie between 0 and 1"));
    }
    let margin = number("margin")?.unwrap_or(0.0);
    if !(margin.is_finite() && margin >= 0.0) {
        return Err(format!("`margin` is {margin}; it must be 0 or more"));
    }
    let mut pair = PreferencePair { turns, chosen, rejected, preference, margin };
    if preference < 0.5 {
        // The second one is better, so it is the chosen one.
        std::mem::swap(&mut pair.chosen, &mut pair.rejected);
        pair.preference = 1.0 - preference;
    }
    Ok(pair)
}

/// The labelled response of one row.
///
/// # Errors
/// What is missing, in words.
pub fn labelled(row: &Value) -> Result<Labelled, String> {
    let row = row.as_object().ok_or("a row must be a JSON object")?;
    let label = row.get("safe").or_else(|| row.get("label")).ok_or("has no label (`safe` or `label`)")?;
    let good = match label {
        Value::Bool(good) => *good,
        Value::Number(n) if n.as_f64() == Some(1.0) => true,
        Value::Number(n) if n.as_f64() == Some(0.0) => false,
        Value::String(text) if text.eq_ignore_ascii_case("safe") => true,
        Value::String(text) if text.eq_ignore_ascii_case("unsafe") => false,
        other => return Err(format!("the label is {other}; it must be true, false, 1, 0, \"safe\" or \"unsafe\"")),
    };
    let said = ["response", "completion", "output"].iter().find_map(|key| row.get(*key));
    let (turns, response) = match said {
        Some(value) => (conversation(row)?, response(value)?),
        None => split_last(conversation(row)?)?,
    };
    Ok(Labelled { turns, response, good })
}

/// The conversation before the response: messages, or a question after its `history`.
///
/// # Errors
/// What is missing, in words.
pub fn conversation(row: &Map<String, Value>) -> Result<Vec<Message>, String> {
    let list = ["messages", "conversations", "prompt"].iter().find_map(|key| row.get(*key).filter(|v| v.is_array()));
    if let Some(list) = list {
        return turns(list);
    }
    let earlier = row.get("history").map_or(Ok(Vec::new()), turns)?;
    Ok(earlier.into_iter().chain([Message::new("user", question(row)?)]).collect())
}

/// A text, a message, or a list of one message.
fn response(value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Object(_) => Ok(turn(value)?.content),
        Value::Array(list) if list.len() == 1 => Ok(turn(&list[0])?.content),
        _ => Err("a response must be a text or one message".into()),
    }
}

fn turns_of(list: &[Value]) -> Result<Vec<Message>, String> {
    list.iter().enumerate().map(|(i, m)| turn(m).map_err(|e| format!("message {}: {e}", i + 1))).collect()
}

fn split_last(mut turns: Vec<Message>) -> Result<(Vec<Message>, String), String> {
    match turns.pop() {
        Some(last) if last.role == "assistant" && !turns.is_empty() => Ok((turns, last.content)),
        _ => Err("must end in an answer of the assistant after a question".into()),
    }
}

const MARKS: [(&str, &str); 2] = [("\n\nHuman:", "user"), ("\n\nAssistant:", "assistant")];

fn is_transcript(text: &str) -> bool {
    text.starts_with(MARKS[0].0) && text.contains(MARKS[1].0)
}

/// Turns of `\n\nHuman: ... \n\nAssistant: ...`.
fn transcript(text: &str) -> Result<Vec<Message>, String> {
    let mut turns: Vec<Message> = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let Some((mark, role)) = MARKS.iter().find(|(mark, _)| rest.starts_with(mark)) else {
            return Err("a transcript must begin with a blank line and `Human:`".into());
        };
        let body = &rest[mark.len()..];
        let end = MARKS.iter().filter_map(|(mark, _)| body.find(mark)).min().unwrap_or(body.len());
        let content = body[..end].trim();
        match turns.last_mut() {
            // Two turns of one side in a row are one turn.
            Some(last) if last.role == *role => last.content = format!("{}\n\n{content}", last.content),
            _ => turns.push(Message::new(*role, content)),
        }
        rest = &body[end..];
    }
    Ok(turns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn asked() -> Vec<Message> {
        vec![Message::new("user", "3+4=?")]
    }

    #[test]
    fn pairs_of_every_shape() {
        let user = json!({"role": "user", "content": "3+4=?"});
        let said = |text: &str| json!({"role": "assistant", "content": text});
        for row in [
            json!({"prompt": "3+4=?", "chosen": "7", "rejected": "8"}),
            json!({"instruction": "3+4=?", "input": "", "output": "7", "chosen": "7", "rejected": "8"}),
            json!({"prompt": [user], "chosen": [said("7")], "rejected": [said("8")]}),
            json!({"chosen": [user, said("7")], "rejected": [user, said("8")]}),
            json!({"conversations": [{"from": "human", "value": "3+4=?"}], "chosen": {"from": "gpt", "value": "7"}, "rejected": {"from": "gpt", "value": "8"}}),
            json!({"chosen": "\n\nHuman: 3+4=?\n\nAssistant: 7", "rejected": "\n\nHuman: 3+4=?\n\nAssistant: 8"}),
            json!({"prompt": "3+4=?", "chosen": "8", "rejected": "7", "preference": 0.0}),
        ] {
            let found = pair(&row).unwrap_or_else(|e| panic!("{row}: {e}"));
            let turns = asked();
            let want = PreferencePair { turns, chosen: "7".into(), rejected: "8".into(), preference: 1.0, margin: 0.0 };
            assert_eq!(found, want, "{row}");
        }
        let row = json!({"prompt": "b", "history": [user, said("7")], "chosen": "x", "rejected": "y", "tie": true, "margin": 0.05});
        let found = pair(&row).unwrap();
        assert_eq!((found.turns.len(), found.preference, found.margin), (3, 0.5, 0.05));
        assert_eq!(
            pair(&json!({"prompt": "b", "chosen": "x", "rejected": "y", "preference": 0.25})).unwrap().chosen,
            "y"
        );
    }

    #[test]
    fn mistakes_in_pairs_are_named() {
        for (row, word) in [
            (json!({"prompt": "x", "chosen": "a"}), "no `rejected`"),
            (json!({"chosen": "a", "rejected": "b"}), "neither"),
            (json!({"prompt": "x", "chosen": "a", "rejected": "b", "preference": 2}), "between 0 and 1"),
            (json!({"prompt": "x", "chosen": "a", "rejected": "b", "margin": -1}), "0 or more"),
            (json!({"prompt": "x", "chosen": "a", "rejected": "b", "tie": 1}), "`tie`"),
            (json!({"prompt": "x", "chosen": 3, "rejected": "b"}), "a text or one message"),
            (json!({"chosen": [{"role": "user", "content": "x"}], "rejected": []}), "end in an answer"),
        ] {
            let problem = pair(&row).unwrap_err();
            assert!(problem.contains(word), "{row}: {problem}");
        }
        let whole =
            |question: &str| json!([{"role": "user", "content": question}, {"role": "assistant", "content": "x"}]);
        let problem = pair(&json!({"chosen": whole("a"), "rejected": whole("b")})).unwrap_err();
        assert!(problem.contains("differ before"), "{problem}");
    }

    #[test]
    fn labelled_responses() {
        let want = Labelled { turns: asked(), response: "7".into(), good: true };
        let messages = json!([{"role": "user", "content": "3+4=?"}, {"role": "assistant", "content": "7"}]);
        for row in [
            json!({"prompt": "3+4=?", "response": "7", "safe": true}),
            json!({"prompt": "3+4=?", "completion": "7", "label": 1}),
            json!({"prompt": "3+4=?", "completion": "7", "label": "safe"}),
            json!({"messages": messages, "label": true}),
        ] {
            assert_eq!(labelled(&row).as_ref(), Ok(&want), "{row}");
        }
        assert!(labelled(&json!({"prompt": "x", "response": "y", "label": 3})).unwrap_err().contains("must be true"));
        assert!(labelled(&json!({"prompt": "x", "response": "y"})).unwrap_err().contains("no label"));
        assert!(labelled(&json!({"prompt": "x", "label": 1})).unwrap_err().contains("end in an answer"));
    }

    #[test]
    fn compressed_files_are_read() {
        use std::io::Write;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pairs.jsonl.gz");
        let mut gz = flate2::write::GzEncoder::new(std::fs::File::create(&path).unwrap(), flate2::Compression::fast());
        gz.write_all(b"{\"prompt\": \"x\", \"chosen\": \"a\", \"rejected\": \"b\"}\n{}\n").unwrap();
        gz.finish().unwrap();
        let problem = read_pairs(&path).unwrap_err().to_string();
        assert!(problem.contains("pairs.jsonl.gz:2: has no `chosen`"), "{problem}");
        std::fs::write(&path, "no gzip").unwrap();
        assert!(read_pairs(&path).unwrap_err().to_string().contains("cannot be read"));
    }
}
