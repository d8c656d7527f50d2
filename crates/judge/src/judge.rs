//! The judge: asks, reads, asks once more where the form is wrong, keeps to its budget.

use crate::cache::Cache;
use crate::chat::{Chat, ChatRequest, Reply, Turn};
use crate::parse::{CorrectReply, PairReply, RubricReply, object};
use crate::prompt::{self, Criterion, Label};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// How the judge works.
#[derive(Clone, Debug)]
pub struct JudgeSettings {
    /// Sampling temperature. Default 0.
    pub temperature: f64,
    /// Tokens of a reply, thinking included. Default 2,048.
    pub max_tokens: usize,
    /// Seed. Default 0.
    pub seed: u64,
    /// Requests it may make; what the cache knows is free. Default none: without limit.
    pub max_requests: Option<u64>,
    /// Tokens it may use, as the endpoint counts them; the request that crosses the limit is the last. Default none.
    pub max_total_tokens: Option<u64>,
    /// Judges whole responses, thinking included. Default false: what follows the thinking.
    pub whole_response: bool,
}

impl Default for JudgeSettings {
    fn default() -> Self {
        JudgeSettings {
            temperature: 0.0,
            max_tokens: 2048,
            seed: 0,
            max_requests: None,
            max_total_tokens: None,
            whole_response: false,
        }
    }
}

/// What kind of thing went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The budget is spent.
    Budget,
    /// No answer from the model.
    Unreachable,
    /// The model does not answer in the asked form.
    Form,
    /// The cache could not be written.
    Cache,
}

/// No judgement, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("not judged: {problem}")]
pub struct NotJudged {
    /// What kind of thing went wrong.
    pub reason: Reason,
    /// In words.
    pub problem: String,
}

/// Whether an answer is right by its reference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ruling {
    /// It is.
    pub correct: bool,
    /// The judge's reason.
    pub reason: String,
}

/// Which of two answers is better, asked in both orders.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Preference {
    /// How much the first is preferred, 0 to 1: the mean of both orders. 0.5 where they contradict each other.
    pub score: f64,
    /// Both orders name the same winner, or one of them none.
    pub consistent: bool,
    /// What was said with the first answer shown first, and with it shown second.
    pub labels: [Label; 2],
    /// The reasons for both.
    pub reasons: [String; 2],
}

/// Scores by criterion.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Scores {
    /// The mean, 0 (lowest) to 1 (highest).
    pub score: f64,
    /// As given.
    pub scores: BTreeMap<String, u32>,
    /// The judge's reason.
    pub reason: String,
}

/// What was used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Spent {
    /// Requests made.
    pub requests: u64,
    /// Answers taken from the cache.
    pub cached: u64,
    /// Tokens, as far as they were told.
    pub tokens: u64,
}

/// A model as a judge.
pub struct Judge<C> {
    chat: C,
    settings: JudgeSettings,
    cache: Cache,
    requests: AtomicU64,
    cached: AtomicU64,
    tokens: AtomicU64,
}

/// What follows the thinking; the text itself where there is none. A thought that never ends leaves nothing to judge.
pub fn answer_only(response: &str) -> &str {
    match response.rsplit_once("</think>") {
        Some((_, answer)) => answer.trim(),
        None if response.trim_start().starts_with("<think>") => "",
        None => response.trim(),
    }
}

impl<C: Chat> Judge<C> {
    /// A judge with a cache of answers.
    pub fn new(chat: C, settings: JudgeSettings, cache: Cache) -> Self {
        let [requests, cached, tokens] = [const { AtomicU64::new(0) }; 3];
        Judge { chat, settings, cache, requests, cached, tokens }
    }

    /// What was used so far.
    pub fn spent(&self) -> Spent {
        let read = |n: &AtomicU64| n.load(Ordering::Relaxed);
        Spent { requests: read(&self.requests), cached: read(&self.cached), tokens: read(&self.tokens) }
    }

    fn part<'t>(&self, response: &'t str) -> &'t str {
        if self.settings.whole_response { response.trim() } else { answer_only(response) }
    }

    /// Whether `response` is right by `reference`. An empty answer is wrong without asking.
    ///
    /// # Errors
    /// No judgement could be had.
    pub fn reference(&self, question: &str, reference: &str, response: &str) -> Result<Ruling, NotJudged> {
        let answer = self.part(response);
        if answer.is_empty() {
            return Ok(Ruling { correct: false, reason: "there is no answer".into() });
        }
        let said: CorrectReply = self.ask(prompt::reference(question, reference, answer), |_| Ok(()))?;
        Ok(Ruling { correct: said.correct, reason: said.reason })
    }

    /// Which of two responses is better, asked in both orders.
    ///
    /// # Errors
    /// No judgement could be had in one of the orders.
    pub fn pairwise(&self, question: &str, first: &str, second: &str) -> Result<Preference, NotJudged> {
        let (first, second) = (self.part(first), self.part(second));
        let one: PairReply = self.ask(prompt::pairwise(question, first, second), |_| Ok(()))?;
        let two: PairReply = self.ask(prompt::pairwise(question, second, first), |_| Ok(()))?;
        let (a, b) = (one.label.score(), 1.0 - two.label.score());
        let consistent = (a - 0.5) * (b - 0.5) >= 0.0;
        Ok(Preference {
            score: if consistent { f64::midpoint(a, b) } else { 0.5 },
            consistent,
            labels: [one.label, two.label],
            reasons: [one.reason, two.reason],
        })
    }

    /// Scores of a response by criterion, 1 to `scale`.
    ///
    /// # Errors
    /// No judgement could be had.
    pub fn rubric(
        &self,
        question: &str,
        response: &str,
        criteria: &[Criterion],
        scale: u32,
    ) -> Result<Scores, NotJudged> {
        let prompt = prompt::rubric(question, self.part(response), criteria, scale);
        let said: RubricReply = self.ask(prompt, |r: &RubricReply| r.check(criteria, scale))?;
        let top = f64::from(scale.max(2) - 1);
        let sum: f64 = said.scores.values().map(|s| (f64::from(*s) - 1.0) / top).sum();
        Ok(Scores { score: sum / said.scores.len().max(1) as f64, scores: said.scores, reason: said.reason })
    }

    /// Asks until the form is right, at most twice.
    fn ask<T: DeserializeOwned>(
        &self,
        prompt: String,
        check: impl Fn(&T) -> Result<(), String>,
    ) -> Result<T, NotJudged> {
        let mut messages = vec![Turn::new("user", prompt)];
        let mut again = true;
        loop {
            let text = self.complete(&messages)?.text;
            let said = object::<T>(&text).and_then(|said| check(&said).map(|()| said));
            match said {
                Ok(said) => return Ok(said),
                Err(problem) if again => {
                    again = false;
                    let repair = format!(
                        "That cannot be read: {problem}. Reply with the JSON object alone, exactly in the form asked for."
                    );
                    messages.extend([Turn::new("assistant", text), Turn::new("user", repair)]);
                }
                Err(problem) => {
                    return Err(NotJudged {
                        reason: Reason::Form,
                        problem: format!("the judge's reply cannot be read: {problem}"),
                    });
                }
            }
        }
    }

    /// One answer, from the cache or within the budget.
    pub(crate) fn complete(&self, messages: &[Turn]) -> Result<Reply, NotJudged> {
        let s = &self.settings;
        let request = ChatRequest {
            messages: messages.to_vec(),
            temperature: s.temperature,
            max_tokens: s.max_tokens,
            seed: s.seed,
        };
        let key = Cache::key(self.chat.name(), &request);
        if let Some(reply) = self.cache.get(&key) {
            self.cached.fetch_add(1, Ordering::Relaxed);
            return Ok(reply);
        }
        let spent = |problem: &str| NotJudged { reason: Reason::Budget, problem: problem.to_owned() };
        if s.max_total_tokens.is_some_and(|most| self.tokens.load(Ordering::Relaxed) >= most) {
            return Err(spent("the budget of tokens is spent"));
        }
        let within = |made: u64| s.max_requests.is_none_or(|most| made < most).then_some(made + 1);
        if self.requests.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within).is_err() {
            return Err(spent("the budget of requests is spent"));
        }
        let reply = self
            .chat
            .complete(&request)
            .map_err(|e| NotJudged { reason: Reason::Unreachable, problem: e.to_string() })?;
        self.tokens.fetch_add(reply.tokens, Ordering::Relaxed);
        self.cache.put(&key, &reply).map_err(|problem| NotJudged { reason: Reason::Cache, problem })?;
        Ok(reply)
    }
}
