//! Training of the miniature tokenizer: byte-level BPE with numbers split into groups of up to three digits, as in
//! DeepSeek-V3's. Every number below 100 is one token, Chinese and Latin never share one, and a punctuation mark is its own
//! token, so that arithmetic is read the same way wherever it stands.

use std::collections::BTreeMap;

use tokenizers::decoders::byte_level::ByteLevel;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{
    AddedToken, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, PreTokenizerWrapper,
    SplitDelimiterBehavior, Tokenizer,
};

use crate::DataError;

/// End of text, the only special token.
pub const EOS: &str = "<|end|>";
/// Opens the thinking.
pub const THINK_OPEN: &str = "<think>";
/// Closes the thinking.
pub const THINK_CLOSE: &str = "</think>";
/// Opens the answer.
pub const ANSWER_OPEN: &str = "<answer>";
/// Closes the answer.
pub const ANSWER_CLOSE: &str = "</answer>";
/// The tags, one token each but ordinary text.
pub const TAGS: [&str; 4] = [THINK_OPEN, THINK_CLOSE, ANSWER_OPEN, ANSWER_CLOSE];

/// Smallest vocabulary: 256 bytes, the 90 two-digit numbers and the five added tokens.
pub const MIN_VOCAB_SIZE: usize = 256 + 90 + ADDED;

const ADDED: usize = 1 + TAGS.len();
const NUMBERS: &str = r"\p{N}{1,3}";
/// Runs of Han, other letters with a space before them, single marks with a space before and line breaks after them (as V3's
/// tokenizer joins marks and line breaks), white space.
const WORDS: &str = r"\p{Han}+| ?(?:(?!\p{Han})\p{L})+| ?[^\s\p{L}\p{N}][\r\n]*|\s+(?!\S)|\s+";
/// Weight of a two-digit number in training: above any real count, so that its merge comes first.
const ALWAYS: u64 = 1 << 30;

/// Trains a tokenizer and returns its `tokenizer.json`, which the Hugging Face libraries load. The vocabulary has
/// `vocab_size` entries, or fewer when the texts do not have that many pairs that occur twice. The same texts give the same
/// bytes; their order does not matter.
///
/// # Errors
/// A vocabulary below [`MIN_VOCAB_SIZE`], or no text at all.
pub fn train_tokenizer(texts: impl Iterator<Item = String>, vocab_size: usize) -> Result<String, DataError> {
    train_tokenizer_with(texts, vocab_size, &[])
}

/// As [`train_tokenizer`], with `special` tokens beside [`EOS`]; they count as part of the vocabulary.
///
/// # Errors
/// As [`train_tokenizer`].
pub fn train_tokenizer_with(
    texts: impl Iterator<Item = String>,
    vocab_size: usize,
    special: &[&str],
) -> Result<String, DataError> {
    let smallest = MIN_VOCAB_SIZE + special.len();
    if vocab_size < smallest {
        return Err(DataError::Tokenizer(format!(
            "vocab_size = {vocab_size} is below the smallest possible, {smallest}"
        )));
    }
    let pre_tokenizer = pre_tokenizer().map_err(failed)?;
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for text in texts {
        count_words(&pre_tokenizer, &text, &mut counts).map_err(failed)?;
    }
    if counts.is_empty() {
        return Err(DataError::Tokenizer("there is no text to train on".to_owned()));
    }
    counts.extend((10..100).map(|number: u32| (number.to_string(), ALWAYS)));

    let trainer = BpeTrainer::builder()
        .show_progress(false)
        .min_frequency(2)
        .vocab_size(vocab_size - ADDED - special.len())
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    let mut model = BPE::default();
    let counts = counts.into_iter().map(|(word, count)| (word.into(), count)).collect();
    trainer.do_train(&counts, &mut model).map_err(failed)?;

    let mut tokenizer = Tokenizer::new(model);
    tokenizer.with_pre_tokenizer(Some(pre_tokenizer));
    tokenizer.with_decoder(Some(ByteLevel::new(false, false, false)));
    tokenizer.add_special_tokens([AddedToken::from(EOS, true).normalized(false)]).map_err(failed)?;
    tokenizer
        .add_special_tokens(special.iter().map(|t| AddedToken::from(*t, true).normalized(false)))
        .map_err(failed)?;
    tokenizer.add_tokens(TAGS.map(|tag| AddedToken::from(tag, false).normalized(false))).map_err(failed)?;
    tokenizer.to_string(true).map_err(failed)
}

fn failed(error: tokenizers::Error) -> DataError {
    DataError::Tokenizer(error.to_string())
}

fn pre_tokenizer() -> tokenizers::Result<Sequence> {
    let split = |pattern: &str| {
        Split::new(SplitPattern::Regex(pattern.to_owned()), SplitDelimiterBehavior::Isolated, false)
            .map(PreTokenizerWrapper::Split)
    };
    Ok(Sequence::new(vec![
        split(NUMBERS)?,
        split(WORDS)?,
        PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, false, false)),
    ]))
}

/// Counts the pieces of a text between its added tokens.
fn count_words(pre_tokenizer: &Sequence, text: &str, counts: &mut BTreeMap<String, u64>) -> tokenizers::Result<()> {
    let mut text = text.replace(EOS, "\0");
    for tag in TAGS {
        text = text.replace(tag, "\0");
    }
    for part in text.split('\0').filter(|part| !part.is_empty()) {
        let mut pieces = PreTokenizedString::from(part);
        pre_tokenizer.pre_tokenize(&mut pieces)?;
        for (piece, _, _) in pieces.get_splits(OffsetReferential::Normalized, OffsetType::Byte) {
            match counts.get_mut(piece) {
                Some(count) => *count += 1,
                None => {
                    counts.insert(piece.to_owned(), 1);
                }
            }
        }
    }
    Ok(())
}
