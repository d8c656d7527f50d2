//! The data work between R1's stages (DeepSeek-R1, sections 2.3.1 and 2.3.3): candidates sampled from a model, what people
//! decide about them, filters with counts and examples, the house format, and a data card.
//!
//! - [`Candidate`], [`CandidateStore`]: a completion that may become training data, and the file of them.
//! - [`curate`]: all filters in order, with [`Settings`]; every row that goes has one filter and one reason.
//! - [`NearDuplicates`], [`Decontaminator`]: MinHash with exact comparison; overlap with evaluation sets, with an exact re-check.
//! - [`house_text`]: R1-Zero's format rewritten as reasoning and a summary.

mod candidate;
mod card;
mod decontaminate;
mod error;
mod filters;
mod house;
mod minhash;
mod output;
mod pipeline;
mod rows;
mod select;
mod settings;
mod store;
pub mod words;

pub use candidate::{Candidate, Decision, RULE, Sampling, State};
pub use card::{Card, Contents, FileDigest, Spread};
pub use decontaminate::{Decontaminator, EvalText, Overlap, recheck};
pub use error::CurateError;
pub use filters::{FilterName, Reason};
pub use house::{house_text, language_name};
pub use minhash::{NearDuplicates, jaccard, shingles};
pub use output::{CARD_JSON, CARD_MARKDOWN, KEPT, MESSAGES, THROWN, check_folder, unite, write_outputs};
pub use pipeline::{Checks, Curated, Example, FilterReport, Thrown, add_verdicts, check, curate};
pub use rows::{candidate_files, read_eval_texts, read_rows};
pub use settings::{
    Balance, Choose, Compared, Correct, Decided, Decontamination, Difficulty, Duplicates, LanguageShare, Length,
    Paragraphs, PerPrompt, Repetition, Settings, Shape, Unjudged,
};
pub use store::{CandidateStore, FILE_NAME, read_candidates, write_lines};
