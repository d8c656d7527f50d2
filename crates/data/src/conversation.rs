//! Conversations to imitate: rows of the usual shapes read from JSON files, and the tokens of a conversation with those the
//! assistant wrote marked, which are the only ones that are predicted.
//!
//! A row is one of `{"messages": [{"role", "content"}]}`, `{"conversations": [{"from", "value"}]}`, or a question (`prompt`,
//! `instruction` with `input`, `question`, `problem`) with an answer (`completion`, `output`, `response`, or
//! `message_thinking` and `message_content`). A `prompt` and a `completion` may be lists of messages.

use crate::{DataError, json_rows};
use aha_model::Message;
use aha_tasks::Prompter;
use serde_json::{Map, Value};
use std::ops::Range;
use std::path::Path;

/// A sequence and the tokens in it that are predicted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Example {
    /// The tokens.
    pub tokens: Vec<u32>,
    /// Where the assistant's tokens are, its end of turn included; ascending, never at 0.
    pub predicted: Vec<Range<usize>>,
}

impl Example {
    /// How many tokens are predicted.
    pub fn targets(&self) -> usize {
        self.predicted.iter().map(Range::len).sum()
    }
}

const THINK: &str = "<think>";

/// A row of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Conversation {
    /// What was said.
    pub turns: Vec<Message>,
    /// Its `family`, where it names one: curated data do.
    pub family: Option<String>,
}

/// The conversations of a file: one JSON object per line, or one list of them.
///
/// # Errors
/// A file that cannot be read, a row that is no conversation: with file and line (for a list: the number of the row).
pub fn read(path: &Path) -> Result<Vec<Conversation>, DataError> {
    let conversation = |(line, row): (usize, Value)| {
        let turns = messages(&row).map_err(|problem| json_rows::fail(path, Some(line), problem))?;
        Ok(Conversation { turns, family: row.get("family").and_then(Value::as_str).map(str::to_owned) })
    };
    json_rows::read(path)?.into_iter().map(conversation).collect()
}

/// The conversation of one row.
///
/// # Errors
/// What is missing, in words.
pub fn messages(row: &Value) -> Result<Vec<Message>, String> {
    let row = row.as_object().ok_or("a row must be a JSON object")?;
    let turns = if let Some(list) = row.get("messages").or_else(|| row.get("conversations")) {
        turns(list)?
    } else {
        let asked = match row.get("prompt") {
            Some(list @ Value::Array(_)) => turns(list)?,
            _ => vec![Message::new("user", question(row)?)],
        };
        let said = match row.get("completion") {
            Some(list @ Value::Array(_)) => turns(list)?,
            _ => vec![Message::new("assistant", answer(row)?)],
        };
        asked.into_iter().chain(said).collect()
    };
    let answered = turns.iter().skip(1).any(|m| m.role == "assistant" && !m.content.is_empty());
    if answered { Ok(turns) } else { Err("has no answer of the assistant after a question".into()) }
}

pub(crate) fn turns(list: &Value) -> Result<Vec<Message>, String> {
    let list = list.as_array().ok_or("the messages must be a list")?;
    list.iter().enumerate().map(|(i, m)| turn(m).map_err(|e| format!("message {}: {e}", i + 1))).collect()
}

pub(crate) fn turn(message: &Value) -> Result<Message, String> {
    let fields = message.as_object().ok_or("must be an object with role and content")?;
    let role = fields.get("role").or_else(|| fields.get("from")).and_then(Value::as_str).ok_or("has no role")?;
    let role = match role {
        "human" => "user",
        "gpt" | "model" | "bot" => "assistant",
        other => other,
    };
    let content = match fields.get("content").or_else(|| fields.get("value")) {
        Some(Value::String(text)) => text.clone(),
        None | Some(Value::Null) => String::new(),
        Some(Value::Array(parts)) => {
            let part = |p: &Value| p.get("text").or_else(|| p.get("value")).and_then(Value::as_str).map(str::to_owned);
            parts.iter().map(part).collect::<Option<String>>().ok_or("its content has parts that are no text")?
        }
        Some(_) => return Err("its content must be a text".into()),
    };
    let known = ["role", "from", "content", "value"];
    let more = fields.iter().filter(|(key, _)| !known.contains(&key.as_str()));
    Ok(Message { role: role.to_owned(), content, more: more.map(|(k, v)| (k.clone(), v.clone())).collect() })
}

pub(crate) fn question(row: &Map<String, Value>) -> Result<String, String> {
    let keys = ["prompt", "instruction", "question", "problem"];
    let text = keys.iter().find_map(|key| row.get(*key)?.as_str());
    let text =
        text.ok_or("has neither `messages` nor a question (`prompt`, `instruction`, `question` or `problem`)")?;
    Ok(match row.get("input").and_then(Value::as_str).filter(|input| !input.is_empty()) {
        Some(input) => format!("{text}\n{input}"),
        None => text.to_owned(),
    })
}

fn answer(row: &Map<String, Value>) -> Result<String, String> {
    let text = |key: &str| row.get(key).and_then(Value::as_str);
    if let Some(content) = text("message_content") {
        return Ok(match text("message_thinking") {
            Some(thought) => format!("{THINK}\n{thought}\n</think>\n\n{content}"),
            None => content.to_owned(),
        });
    }
    let answer = ["completion", "output", "response"].iter().find_map(|key| text(key));
    answer.map(str::to_owned).ok_or_else(|| "has no answer (`completion`, `output` or `response`)".into())
}

/// The sequences of a conversation. Every turn of the assistant follows exactly the prompt it is sampled after; where a
/// template leaves earlier turns as they were written, they share one sequence, else (templates that drop earlier thoughts)
/// each turn has one of its own. An opening think tag that the prompt ends with is not repeated.
///
/// # Errors
/// A chat template that refuses the conversation, a style that has no place for a role.
pub fn examples(prompter: &Prompter, messages: &[Message]) -> Result<Vec<Example>, aha_model::Error> {
    let mut all: Vec<Example> = Vec::new();
    for (i, message) in messages.iter().enumerate() {
        if i == 0 || message.role != "assistant" || message.content.is_empty() {
            continue;
        }
        let (tokens, start) = sequence(prompter, &prompter.render(&messages[..i])?, &message.content)?;
        if start == 0 {
            continue;
        }
        let span = start..tokens.len();
        match all.last_mut() {
            Some(last) if tokens.starts_with(&last.tokens) => {
                last.tokens = tokens;
                last.predicted.push(span);
            }
            _ => all.push(Example { tokens, predicted: vec![span] }),
        }
    }
    Ok(all)
}

/// The tokens of a prompt and of the assistant's turn after it, its end included, and where that turn begins. An opening think
/// tag that the prompt ends with is not repeated.
///
/// # Errors
/// A tokenizer that fails.
pub fn sequence(prompter: &Prompter, prompt: &str, content: &str) -> Result<(Vec<u32>, usize), aha_model::Error> {
    let mut content = content;
    if prompt.trim_end().ends_with(THINK)
        && let Some(rest) = content.trim_start().strip_prefix(THINK)
    {
        content = if prompt.ends_with('\n') { rest.strip_prefix('\n').unwrap_or(rest) } else { rest };
    }
    let mut tokens = prompter.tokenizer().encode(prompt, false)?;
    let start = tokens.len();
    tokens.extend(prompter.tokenizer().encode(content, false)?);
    tokens.push(prompter.end_of_turn());
    Ok((tokens, start))
}

#[cfg(test)]
mod tests {
    use super::*;
    use aha_model::{ChatTemplate, SpecialTokens};
    use aha_tasks::PromptStyle;
    use serde_json::json;
    use std::sync::Arc;

    fn shape(row: Value) -> Result<Vec<(String, String)>, String> {
        Ok(messages(&row)?.into_iter().map(|m| (m.role, m.content)).collect())
    }

    #[test]
    fn rows_of_every_shape() {
        let want = vec![("user".to_owned(), "3+4=?".to_owned()), ("assistant".to_owned(), "7".to_owned())];
        for row in [
            json!({"messages": [{"role": "user", "content": "3+4=?"}, {"role": "assistant", "content": "7"}]}),
            json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "3+4=?"}]}, {"role": "assistant", "content": "7"}]}),
            json!({"conversations": [{"from": "human", "value": "3+4=?"}, {"from": "gpt", "value": "7"}]}),
            json!({"prompt": "3+4=?", "completion": "7"}),
            json!({"prompt": [{"role": "user", "content": "3+4=?"}], "completion": [{"role": "assistant", "content": "7"}]}),
            json!({"instruction": "3+4=?", "input": "", "output": "7"}),
            json!({"question": "3+4=?", "response": "7"}),
        ] {
            assert_eq!(shape(row.clone()).as_ref(), Ok(&want), "{row}");
        }
        let thought = shape(json!({"problem": "3+4=?", "message_thinking": "easy", "message_content": "7"})).unwrap();
        assert_eq!(thought[1].1, "<think>\neasy\n</think>\n\n7");
        assert_eq!(shape(json!({"instruction": "add", "input": "3 4", "output": "7"})).unwrap()[0].1, "add\n3 4");
        for (row, word) in [
            (json!([]), "object"),
            (json!({"text": "x"}), "neither"),
            (json!({"prompt": "x"}), "no answer"),
            (json!({"messages": [{"role": "user", "content": "x"}]}), "no answer"),
            (json!({"messages": [{"content": "x"}]}), "message 1: has no role"),
        ] {
            let problem = shape(row).unwrap_err();
            assert!(problem.contains(word), "{problem}");
        }
    }

    #[test]
    fn files_are_lines_or_a_list_and_mistakes_have_a_place() {
        let dir = tempfile::tempdir().unwrap();
        let file = |text: &str| {
            let path = dir.path().join("rows.json");
            std::fs::write(&path, text).unwrap();
            path
        };
        let row = r#"{"prompt": "a", "completion": "b"}"#;
        assert_eq!(read(&file(&format!("{row}\n\n{row}\n"))).unwrap().len(), 2);
        assert_eq!(read(&file(&format!("[{row},\n{row}]"))).unwrap().len(), 2);
        let problem = read(&file(&format!("{row}\n{{}}\n"))).unwrap_err().to_string();
        assert!(problem.contains("rows.json:2: has neither"), "{problem}");
        let problem = read(&file(&format!("{row}\n{{\n"))).unwrap_err().to_string();
        assert!(problem.contains("rows.json:2: "), "{problem}");
        assert!(read(&file("")).unwrap_err().to_string().contains("no rows"));
        assert!(read(&dir.path().join("none")).unwrap_err().to_string().contains("cannot be read"));
    }

    fn prompter(style: PromptStyle, template: Option<&str>) -> Prompter {
        let texts = ["User: 3+4=?\nAssistant:7 and 12<think>no</think>\n"; 4];
        let json = crate::train_tokenizer(texts.iter().map(|t| (*t).to_owned()), 360).unwrap();
        let tokenizer = aha_model::Tokenizer::from_bytes(json.as_bytes()).unwrap();
        let eos = tokenizer.token_to_id(crate::tokenizer::EOS).unwrap();
        let chat = template.map(|t| Arc::new(ChatTemplate::new(t, SpecialTokens::default()).unwrap()));
        Prompter::new(Arc::new(tokenizer), style, chat, None, None, vec![eos]).unwrap()
    }

    fn told(p: &Prompter, e: &Example) -> Vec<String> {
        e.predicted.iter().map(|r| p.tokenizer().decode(&e.tokens[r.clone()], false).unwrap()).collect()
    }

    fn two_turns() -> Vec<Message> {
        let turn = |role: &str, text: &str| Message::new(role, text);
        vec![
            turn("user", "3+4=?"),
            turn("assistant", "<think>no</think>7"),
            turn("user", "add 5"),
            turn("assistant", "<think>no</think>12"),
        ]
    }

    #[test]
    fn only_the_assistants_tokens_are_predicted() {
        let p = prompter(PromptStyle::Mini, None);
        let end = p.tokenizer().decode(&[p.end_of_turn()], false).unwrap();
        let all = examples(&p, &two_turns()).unwrap();
        let said: Vec<String> = all.iter().flat_map(|e| told(&p, e)).collect();
        assert_eq!(said, [format!("<think>no</think>7{end}"), format!("<think>no</think>12{end}")]);
        for e in &all {
            assert!(e.predicted[0].start > 0 && e.predicted.last().unwrap().end == e.tokens.len());
            // The prompt of the sequence is what the engine is given.
            let prompt = p.tokenizer().decode(&e.tokens[..e.predicted[0].start], false).unwrap();
            assert!(prompt.starts_with("User: 3+4=?\nAssistant:"), "{prompt}");
        }
    }

    #[test]
    fn turns_share_a_sequence_where_the_template_keeps_them() {
        let keeps = format!(
            "{{% for m in messages %}}{{% if m.role == 'user' %}}User: {{{{ m.content }}}}\nAssistant:{{% else %}}{{{{ m.content }}}}{}{{% endif %}}{{% endfor %}}",
            crate::tokenizer::EOS
        );
        let p = prompter(PromptStyle::Chat, Some(&keeps));
        let all = examples(&p, &two_turns()).unwrap();
        assert_eq!((all.len(), all[0].predicted.len()), (1, 2), "{all:?}");
        // A template that opens the thought, and drops earlier ones.
        let opens = keeps
            .replace("Assistant:{%", "Assistant:<think>\n{%")
            .replace("{{ m.content }}<", "{{ m.content.split('</think>')[-1] }}<");
        let p = prompter(PromptStyle::Chat, Some(&opens));
        let all = examples(&p, &two_turns()).unwrap();
        assert_eq!(all.len(), 2);
        assert!(told(&p, &all[1])[0].starts_with("no</think>12"), "{:?}", told(&p, &all[1]));
    }

    #[test]
    fn a_role_without_a_place_is_refused() {
        let p = prompter(PromptStyle::Mini, None);
        let mut turns = two_turns();
        turns.insert(0, Message::new("system", "be kind"));
        let problem = examples(&p, &turns).unwrap_err().to_string();
        assert!(problem.contains("system"), "{problem}");
    }
}
