//! Decoding a stream of tokens. A token may hold part of a character, so text is given out only up to where
//! the characters are complete; what is given out in all is the decoding of all tokens together.

use super::Tokenizer;
use crate::error::Result;

/// Decodes tokens as they come; see [`Tokenizer::stream`].
#[derive(Debug)]
pub struct StreamDecoder<'a> {
    tokenizer: &'a Tokenizer,
    skip_special: bool,
    /// The last tokens given out, kept because decoding depends on what is before, then those held back.
    ids: Vec<u32>,
    /// How many of `ids` have been given out.
    done: usize,
}

impl<'a> StreamDecoder<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer, skip_special: bool) -> Self {
        StreamDecoder { tokenizer, skip_special, ids: vec![], done: 0 }
    }

    /// Takes a token and returns the text that became complete, which may be empty.
    ///
    /// # Errors
    /// Those of [`Tokenizer::decode`].
    pub fn push(&mut self, id: u32) -> Result<String> {
        self.ids.push(id);
        let (before, text) = self.texts()?;
        if text.ends_with(char::REPLACEMENT_CHARACTER) || text.len() <= before.len() {
            return Ok(String::new());
        }
        self.ids.drain(..self.done);
        self.done = self.ids.len();
        Ok(rest(&before, &text))
    }

    /// The text still held back: an unfinished character comes out as U+FFFD.
    ///
    /// # Errors
    /// Those of [`Tokenizer::decode`].
    pub fn finish(self) -> Result<String> {
        let (before, text) = self.texts()?;
        Ok(rest(&before, &text))
    }

    /// The text already given out of `ids`, and all of it.
    fn texts(&self) -> Result<(String, String)> {
        let decode = |ids| self.tokenizer.decode(ids, self.skip_special);
        Ok((decode(&self.ids[..self.done])?, decode(&self.ids)?))
    }
}

/// `text` without its beginning, which has been given out.
fn rest(before: &str, text: &str) -> String {
    text.get(before.len()..).unwrap_or_default().to_owned()
}
