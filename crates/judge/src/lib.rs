//! A language model as a judge (DeepSeek-R1, section 2.3.3 and long version B.2, B.3): is an answer right by its reference,
//! which of two answers is better, how good is one by a rubric.
//!
//! The model is anything that implements [`Chat`]: an OpenAI-compatible [`Endpoint`] or an engine of our own. What it says must
//! be one JSON object of the asked form; it is asked once more if it is not. Whatever cannot be had, by time, budget, network
//! or form, is [`NotJudged`] with its reason, never right and never wrong.

mod cache;
mod chat;
mod collect;
mod http;
mod judge;
mod parse;
mod prompt;

pub use cache::Cache;
pub use chat::{Chat, ChatError, ChatRequest, Reply, Turn};
pub use collect::{Answer, collect};
pub use http::Endpoint;
pub use judge::{Judge, JudgeSettings, NotJudged, Preference, Reason, Ruling, Scores, Spent, answer_only};
pub use prompt::{Criterion, Label};
