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

    /// The prompt as text, after the earlier turns of the problem if its columns have a "history".
    ///
    /// # Errors
    /// A chat template that refuses the conversation.
    pub fn text(&self, problem: &Problem) -> Result<String, aha_model::Error> {
        let question = match &self.suffix {
            Some(s) => format!("{}\n{s}", problem.question),
            None => problem.question.clone(),
        };
        let history = history(problem);
        if let Some(text) = prompt::render_turns(self.style, &history, &question) {
            return Ok(text);
        }
        let system = self.system.iter().map(|s| Message::new("system", s));
        let turns = history.into_iter().map(|(role, text)| Message::new(role, text));
        let messages: Vec<Message> = system.chain(turns).chain([Message::new("user", &question)]).collect();
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
