//! From a problem to prompt tokens and from completion tokens back to text.

use crate::mini::history;
use crate::problem::Problem;
use crate::prompt::{self, PromptStyle};
use aha_model::{ChatTemplate, Message, Tokenizer};
use std::sync::Arc;

/// Renders problems for one model.
#[derive(Clone)]
pub struct Prompter {
    tokenizer: Arc<Tokenizer>,
    style: PromptStyle,
    chat: Option<Arc<ChatTemplate>>,
    system: Option<String>,
    suffix: Option<String>,
    stop_tokens: Vec<u32>,
}

impl Prompter {
    /// For a tokenizer; the chat style needs a template. `suffix` is added to every question ("put the answer in a box").
    ///
    /// # Errors
    /// The chat style without a template; no stop token at all.
    pub fn new(
        tokenizer: Arc<Tokenizer>,
        style: PromptStyle,
        chat: Option<Arc<ChatTemplate>>,
        system: Option<String>,
        suffix: Option<String>,
        stop_tokens: Vec<u32>,
    ) -> Result<Self, String> {
        if style == PromptStyle::Chat && chat.is_none() {
            return Err("prompt_style \"chat\" needs a chat template, and the model has none; use \"r1_zero\"".into());
        }
        if stop_tokens.is_empty() {
            return Err(
                "the model names no end-of-text token (eos_token_id in config.json or generation_config.json)".into()
            );
        }
        Ok(Prompter { tokenizer, style, chat, system, suffix, stop_tokens })
    }

    /// Tokens that end a completion.
    pub fn stop_tokens(&self) -> &[u32] {
        &self.stop_tokens
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The token that ends a turn of the assistant: the one its chat template writes, else the first that ends a text.
    pub fn end_of_turn(&self) -> u32 {
        const MARK: &str = "MARK";
        let turns = [Message::new("user", "a"), Message::new("assistant", MARK)];
        let whole = self.chat.as_ref().filter(|_| self.style == PromptStyle::Chat).map(|c| c.render(&turns, false));
        let written = whole.and_then(|whole| {
            let whole = whole.ok()?;
            let after = self.tokenizer.encode(whole.split_once(MARK)?.1, false).ok()?;
            after.into_iter().find(|token| self.stop_tokens.contains(token))
        });
        written.unwrap_or(self.stop_tokens[0])
    }

    /// The prompt as text, after the earlier turns of the problem if its columns have a "history".
    ///
    /// # Errors
    /// A chat template that refuses the conversation.
    pub fn text(&self, problem: &Problem) -> Result<String, aha_model::Error> {
        let turns = history(problem).into_iter().map(|(role, text)| Message::new(role, text));
        let turns: Vec<Message> = turns.chain([Message::new("user", &problem.question)]).collect();
        self.render(&turns)
    }

    /// The prompt for the assistant's next turn after these ones; the suffix is added to the last.
    ///
    /// # Errors
    /// A chat template that refuses the conversation; a system message or a tool's where the style has no place for it.
    pub fn render(&self, turns: &[Message]) -> Result<String, aha_model::Error> {
        let Some((last, earlier)) = turns.split_last() else {
            return Err(aha_model::Error::Template("a prompt needs at least one message".into()));
        };
        let mut last = last.clone();
        if let Some(suffix) = &self.suffix {
            last.content = format!("{}\n{suffix}", last.content);
        }
        if self.style != PromptStyle::Chat
            && let Some(other) = turns.iter().find(|m| !matches!(m.role.as_str(), "user" | "assistant"))
        {
            let problem =
                format!("prompt_style {:?} has no place for the role `{}`; use \"chat\"", self.style, other.role);
            return Err(aha_model::Error::Template(problem));
        }
        let history: Vec<(&str, &str)> = earlier.iter().map(|m| (m.role.as_str(), m.content.as_str())).collect();
        if let Some(text) = prompt::render_turns(self.style, &history, &last.content) {
            return Ok(text);
        }
        let own = turns[0].role == "system";
        let system = self.system.iter().filter(|_| !own).map(|s| Message::new("system", s));
        let messages: Vec<Message> = system.chain(earlier.iter().cloned()).chain([last]).collect();
        self.chat.as_ref().expect("checked when it was made").render(&messages, true)
    }

    /// The prompt as tokens; marker tokens of a chat template count as such.
    ///
    /// # Errors
    /// As for [`Prompter::text`].
    pub fn tokens(&self, problem: &Problem) -> Result<Arc<[u32]>, aha_model::Error> {
        Ok(self.tokenizer.encode_with(&self.text(problem)?, false, true)?.into())
    }

    /// A completion as text, without its stop token; marker tokens in between are kept.
    ///
    /// # Errors
    /// A token the tokenizer does not know.
    pub fn completion(&self, tokens: &[u32]) -> Result<String, aha_model::Error> {
        let end = tokens.len() - usize::from(tokens.last().is_some_and(|t| self.stop_tokens.contains(t)));
        self.tokenizer.decode(&tokens[..end], false)
    }
}
