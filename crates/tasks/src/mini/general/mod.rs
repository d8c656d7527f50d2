//! Requests that are no puzzles: greetings, who are you, translation, facts, short writing, JSON, tools, conversations, and
//! what is to be refused or only sounds like it. Each belongs to the helpful or to the safety set (DeepSeek-R1, 2.3.4).
//!
//! `request`: what is asked and the rule for answers; `answer`: good and flawed answers; `quality`: what an answer is worth.

mod answer;
pub mod lexicon;
mod quality;
mod request;

pub use answer::{Manner, Reply, reply, unsafe_thought};
pub use quality::{TIE, quality, quality_of};
pub use request::{Kind, Request};

#[cfg(test)]
mod tests;
