//! Rows made of the miniature world's requests: preference pairs for reward models, safety labels, answers to imitate, and
//! truths that judges are measured on. Each row is a pure function of (settings, index).
//!
//! What is better is decided by the world's true quality ([`general::quality_of`]), not by how an answer was made. Lengths are
//! balanced as DeepSeek-R1 balances its pairs (long version, B.2): chosen answers are longer as often as shorter, by the same
//! amounts.

use crate::DataError;
use crate::source::problem;
use aha_tasks::mini::general::{self, Kind, Manner, Reply, Request, TIE};
use aha_tasks::mini::{self, Rng, Subject, Topic};
use aha_tasks::{Check, Language, Split};
use serde::Serialize;
use serde_json::{Value, json};
use std::io::Write;
use std::path::Path;

/// Where rows come from.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestRows {
    /// Seed of all rows.
    pub seed: u64,
    /// Part of the world; the parts share no request in any wording or language.
    pub split: Split,
    /// Share of requests in Chinese.
    pub chinese: f64,
    /// Share of pairs that are ties.
    pub ties: f64,
    /// The model's own name.
    pub model_name: String,
}

impl RequestRows {
    /// With a quarter in Chinese and one tie in ten.
    pub fn new(seed: u64, split: Split) -> Self {
        RequestRows { seed, split, chinese: 0.25, ties: 0.1, model_name: mini::MODEL_NAME.to_owned() }
    }
}

/// What all rows say of their request.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct About {
    /// Canonical form of the request: what splits are made by.
    pub id: String,
    /// Its kind.
    pub family: &'static str,
    /// "helpful" or "safety".
    pub set: &'static str,
    /// Language of the question.
    pub language: Language,
    /// The last question.
    pub prompt: String,
    /// Turns before it: role and content.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<Value>,
}

/// Two answers, one of them better or both as good.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pair {
    /// The request.
    #[serde(flatten)]
    pub about: About,
    /// The better answer, in R1's format.
    pub chosen: String,
    /// The worse one.
    pub rejected: String,
    /// By how much its true quality is higher, 0 to 1.
    pub margin: f64,
    /// Whether the difference is too small to count.
    pub tie: bool,
}

/// A response and whether it is safe, thoughts included.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SafetyLabel {
    /// The request.
    #[serde(flatten)]
    pub about: About,
    /// The response, in R1's format.
    pub response: String,
    /// The label.
    pub safe: bool,
}

/// A good answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Demonstration {
    /// The request.
    #[serde(flatten)]
    pub about: About,
    /// The response, in R1's format.
    pub response: String,
    /// The whole conversation, as training on messages reads it.
    pub messages: Vec<Value>,
}

/// What a judge who compares should say.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// The request.
    #[serde(flatten)]
    pub about: About,
    /// The answer shown first, without its thought.
    pub a: String,
    /// The answer shown second.
    pub b: String,
    /// "A", "B" or "tie".
    pub verdict: &'static str,
    /// Quality of A minus quality of B.
    pub gap: f64,
}

/// What a judge who has a reference should say.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Graded {
    /// The request.
    #[serde(flatten)]
    pub about: About,
    /// A right answer.
    pub reference: String,
    /// The answer to judge, without its thought.
    pub response: String,
    /// Whether it is right.
    pub correct: bool,
}

/// Odds of each flaw in answers of pairs.
const FLAWS: f64 = 0.35;
/// Candidates among which a pair of the wanted difference in length is looked for.
const CANDIDATES: usize = 48;
/// Largest wanted difference in length, characters.
const LONGEST_DIFFERENCE: i64 = 24;

/// A request in a language.
struct Asked {
    request: Request,
    language: Language,
    check: Check,
}

impl RequestRows {
    fn rng(&self, stream: u64, index: u64) -> Rng {
        Rng::new(self.seed ^ stream << 32 ^ (self.split as u64) << 56, index)
    }

    fn ask(&self, kind: Kind, rng: &mut Rng) -> Asked {
        let Subject::General(request) = mini::draw_subject(Topic::General(kind), self.split, rng) else {
            unreachable!("the topic is general")
        };
        let language = if rng.unit() < self.chinese { Language::Chinese } else { Language::English };
        let check = request.check(language, &self.model_name);
        Asked { request, language, check }
    }

    fn about(&self, asked: &Asked) -> About {
        let Asked { request, language, .. } = asked;
        let turn = |role: &str, content: String| json!({"role": role, "content": content});
        let history = request.history(*language);
        let history = history.map(|(user, other)| vec![turn("user", user), turn("assistant", other)]);
        About {
            id: request.canonical(),
            family: request.kind.name(),
            set: if request.kind.is_safety() { "safety" } else { "helpful" },
            language: *language,
            prompt: request.question(*language),
            history: history.unwrap_or_default(),
        }
    }

    fn reply(&self, asked: &Asked, manner: Manner, rng: &mut Rng) -> Reply {
        general::reply(&asked.request, asked.language, &self.model_name, manner, rng)
    }

    /// Preference pair `index`.
    pub fn pair(&self, index: u64) -> Pair {
        (0..).find_map(|attempt| self.try_pair(index, attempt)).expect("most kinds give a pair at the first attempt")
    }

    /// A pair, or none where no two answers differ as wanted.
    fn try_pair(&self, index: u64, attempt: u64) -> Option<Pair> {
        let mut rng = self.rng(16 + attempt, index);
        let kind = *rng.pick(&Kind::ALL);
        let asked = self.ask(kind, &mut rng);
        let tie = rng.unit() < self.ties;
        let sign = if rng.unit() < 0.5 { -1 } else { 1 };
        let difference = sign * rng.range(0, LONGEST_DIFFERENCE);
        let mut best: Option<(i64, Reply, Reply, f64)> = None;
        for tried in 0.. {
            let mut draw = || {
                let manner = Manner::draw(FLAWS, &mut rng);
                let reply = self.reply(&asked, manner, &mut rng);
                let quality = general::quality_of(kind, &asked.check, asked.language, &reply.summary);
                (reply, quality)
            };
            let ((mut chosen, high), (mut rejected, low)) = (draw(), draw());
            let margin = (high - low).abs();
            if chosen.summary == rejected.summary || tie != (margin < TIE) {
                if tried > 4 * CANDIDATES && best.is_none() {
                    return None;
                }
                continue;
            }
            if high < low {
                std::mem::swap(&mut chosen, &mut rejected);
            }
            let length = |r: &Reply| r.summary.chars().count() as i64;
            let miss = (length(&chosen) - length(&rejected) - difference).abs();
            if best.as_ref().is_none_or(|b| miss < b.0) {
                best = Some((miss, chosen, rejected, margin));
            }
            if tried >= CANDIDATES || miss == 0 {
                break;
            }
        }
        let (_, chosen, rejected, margin) = best.expect("the loop ends with one");
        Some(Pair { about: self.about(&asked), chosen: chosen.house(), rejected: rejected.house(), margin, tie })
    }

    /// Comparison `index`: a pair in either order.
    pub fn comparison(&self, index: u64) -> Comparison {
        let pair = self.pair(index);
        let answer = |text: &str| aha_tasks::judge::summary(text).to_owned();
        let (first, second) = (answer(&pair.chosen), answer(&pair.rejected));
        let swap = self.rng(2, index).unit() < 0.5;
        let (a, b, gap) = if swap { (second, first, -pair.margin) } else { (first, second, pair.margin) };
        let verdict = match (pair.tie, swap) {
            (true, _) => "tie",
            (false, false) => "A",
            (false, true) => "B",
        };
        Comparison { about: pair.about, a, b, verdict, gap }
    }

    /// Safety label `index`: two in three are of unsafe requests, and of those three in four are of unsafe responses, one
    /// third of which are unsafe in the thought alone or in the answer alone.
    pub fn safety(&self, index: u64) -> SafetyLabel {
        let mut rng = self.rng(3, index);
        let kind = if rng.range(0, 2) < 2 { Kind::Unsafe } else { *rng.pick(&Kind::ALL[1..]) };
        let asked = self.ask(kind, &mut rng);
        let manner = Manner::draw(0.3, &mut rng);
        if kind != Kind::Unsafe {
            let response = self.reply(&asked, manner, &mut rng).house();
            return SafetyLabel { about: self.about(&asked), response, safe: true };
        }
        let case = rng.range(0, 7);
        let right = matches!(case, 0 | 1 | 7);
        let mut reply = self.reply(&asked, Manner { right, ..manner }, &mut rng);
        if case > 2 {
            reply.thought = general::unsafe_thought(&asked.request, asked.language);
        }
        SafetyLabel { about: self.about(&asked), response: reply.house(), safe: matches!(case, 0 | 1) }
    }

    /// Demonstration `index`: a flawless answer, with a close now and then.
    pub fn demonstration(&self, index: u64) -> Demonstration {
        let mut rng = self.rng(4, index);
        let kind = *rng.pick(&Kind::ALL);
        let asked = self.ask(kind, &mut rng);
        let manner = Manner { close: rng.unit() < 0.25, ..Manner::GOOD };
        let response = self.reply(&asked, manner, &mut rng).house();
        let about = self.about(&asked);
        let mut messages = about.history.clone();
        messages.push(json!({"role": "user", "content": about.prompt}));
        messages.push(json!({"role": "assistant", "content": response}));
        Demonstration { about, response, messages }
    }

    /// Graded answer `index`, right half of the time; only of requests that have a rule.
    pub fn graded(&self, index: u64) -> Graded {
        let mut rng = self.rng(5, index);
        let kind = *rng.pick(&Kind::ALL[1..]);
        let asked = self.ask(kind, &mut rng);
        let reference = self.reply(&asked, Manner::GOOD, &mut rng).summary;
        let manner =
            Manner { right: rng.unit() < 0.5, own_language: true, rambling: false, ..Manner::draw(0.3, &mut rng) };
        let response = self.reply(&asked, manner, &mut rng).summary;
        let correct = asked.check.holds(&response);
        Graded { about: self.about(&asked), reference, response, correct }
    }
}

/// Writes rows as JSON lines; gives their number.
///
/// # Errors
/// A file that cannot be written.
pub fn write_rows<R: Serialize>(path: &Path, rows: impl IntoIterator<Item = R>) -> Result<u64, DataError> {
    let failed = |e: std::io::Error| problem(path, None, format!("cannot write: {e}"));
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).map_err(failed)?);
    let mut count = 0;
    for row in rows {
        let line = serde_json::to_string(&row).map_err(|e| problem(path, None, e.to_string()))?;
        writeln!(file, "{line}").map_err(failed)?;
        count += 1;
    }
    file.flush().map_err(failed)?;
    Ok(count)
}

#[cfg(test)]
mod tests;
