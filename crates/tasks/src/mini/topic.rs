//! What the miniature world asks about: puzzles, programming exercises, requests; and their turn in a task.

use super::general::{Kind, Request};
use super::{Exercise, Family, Puzzle, Rng};
use crate::problem::{Language, Problem, Reference};
use serde_json::{Map, Value, json};

/// Name of the family of programming exercises.
pub const CODE: &str = "code";

/// A family of problems.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Topic {
    /// Puzzles with a number or an expression for an answer.
    Puzzle(Family),
    /// Programming exercises.
    Code,
    /// Requests of a kind.
    General(Kind),
}

impl Topic {
    /// All of them, in report order.
    pub fn all() -> Vec<Topic> {
        let puzzles = Family::ALL.map(Topic::Puzzle);
        puzzles.into_iter().chain([Topic::Code]).chain(Kind::ALL.map(Topic::General)).collect()
    }

    /// Name in recipes and reports.
    pub fn name(self) -> &'static str {
        match self {
            Topic::Puzzle(family) => family.name(),
            Topic::Code => CODE,
            Topic::General(kind) => kind.name(),
        }
    }

    /// The inverse of [`Topic::name`].
    pub fn parse(name: &str) -> Option<Self> {
        Self::all().into_iter().find(|t| t.name() == name)
    }

    /// A number of its own, for seeds; that of a puzzle's family is the family's.
    pub fn number(self) -> u64 {
        match self {
            Topic::Puzzle(family) => family as u64,
            Topic::Code => 16,
            Topic::General(kind) => 32 + kind as u64,
        }
    }
}

/// Something to ask.
#[derive(Clone, Debug, PartialEq)]
pub enum Subject {
    /// A puzzle.
    Puzzle(Puzzle),
    /// A programming exercise.
    Code(Exercise),
    /// A request.
    General(Request),
}

impl Subject {
    /// A random one.
    pub fn draw(topic: Topic, rng: &mut Rng) -> Self {
        match topic {
            Topic::Puzzle(family) => Subject::Puzzle(Puzzle::draw(family, rng)),
            Topic::Code => Subject::Code(Exercise::draw(rng)),
            Topic::General(kind) => Subject::General(Request::draw(kind, rng)),
        }
    }

    /// Its family.
    pub fn topic(&self) -> Topic {
        match self {
            Subject::Puzzle(p) => Topic::Puzzle(p.family()),
            Subject::Code(_) => Topic::Code,
            Subject::General(r) => Topic::General(r.kind),
        }
    }

    /// The form that identifies it whatever its wording; its hash decides the split.
    pub fn canonical(&self) -> String {
        match self {
            Subject::Puzzle(p) => p.canonical(),
            Subject::Code(e) => e.canonical(),
            Subject::General(r) => r.canonical(),
        }
    }

    /// The canonical form, and which wording where there are several.
    pub fn id(&self) -> String {
        match self {
            Subject::General(r) if r.wording > 0 => format!("{}/{}", r.canonical(), r.wording),
            _ => self.canonical(),
        }
    }

    /// The question, in a language; in a conversation, the last one.
    pub fn question(&self, language: Language) -> String {
        match self {
            Subject::Puzzle(p) => p.question(language),
            Subject::Code(e) => e.question(language),
            Subject::General(r) => r.question(language),
        }
    }

    /// The reference for the judge; `model` is the model's own name.
    pub fn reference(&self, language: Language, model: &str) -> Reference {
        match self {
            Subject::Puzzle(p) => p.reference(),
            Subject::Code(e) => e.reference(),
            Subject::General(r) => Reference::Check(r.check(language, model)),
        }
    }

    /// As a problem. Its columns say the "group" ("reasoning", "code" or "general"); requests also whether their "set" is "helpful"
    /// or "safety", and the turns before the question as "history".
    pub fn problem(&self, language: Language, model: &str) -> Problem {
        let group = match self {
            Subject::Puzzle(_) => "reasoning",
            Subject::Code(_) => "code",
            Subject::General(_) => "general",
        };
        let mut columns = Map::from_iter([("group".to_owned(), Value::from(group))]);
        if let Subject::General(r) = self {
            columns.insert("set".into(), if r.kind.is_safety() { "safety" } else { "helpful" }.into());
            if let Some((user, assistant)) = r.history(language) {
                let turns = json!([{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]);
                columns.insert("history".into(), turns);
            }
        }
        Problem {
            id: self.id(),
            family: self.topic().name().to_owned(),
            language,
            question: self.question(language),
            reference: self.reference(language, model),
            columns,
        }
    }
}

/// The turns before the question of a problem: role and text.
pub fn history(problem: &Problem) -> Vec<(&str, &str)> {
    let turns = problem.columns.get("history").and_then(Value::as_array);
    turns.into_iter().flatten().filter_map(|v| Some((v.get("role")?.as_str()?, v.get("content")?.as_str()?))).collect()
}

/// Whose turn it is at every index: topics with shares, spread evenly over a cycle.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Schedule {
    /// For each place of the cycle its topic, and how many times that topic came before in the cycle.
    places: Vec<(usize, usize)>,
    /// Places of each topic in a cycle.
    counts: Vec<usize>,
}

/// Places of a cycle where shares are given.
const CYCLE: usize = 100;

impl Schedule {
    /// One place each, in order.
    pub fn even(topics: usize) -> Self {
        Schedule { places: (0..topics).map(|t| (t, 0)).collect(), counts: vec![1; topics] }
    }

    /// Places in proportion to `shares`, at least one each; what is left by rounding goes to the largest remainders.
    pub fn shares(shares: &[f64]) -> Self {
        let total: f64 = shares.iter().sum();
        let exact: Vec<f64> = shares.iter().map(|s| s / total * CYCLE as f64).collect();
        let mut counts: Vec<usize> = exact.iter().map(|e| (e.floor() as usize).max(1)).collect();
        let mut order: Vec<usize> = (0..shares.len()).collect();
        order.sort_by(|a, b| (exact[*b] - exact[*b].floor()).total_cmp(&(exact[*a] - exact[*a].floor())));
        for t in order {
            if counts.iter().sum::<usize>() < CYCLE {
                counts[t] += 1;
            }
        }
        let mut places: Vec<(usize, usize)> =
            counts.iter().enumerate().flat_map(|(t, count)| (0..*count).map(move |k| (t, k))).collect();
        let at = |(t, k): &(usize, usize)| (*k as f64 + 0.5) / counts[*t] as f64;
        places.sort_by(|a, b| at(a).total_cmp(&at(b)).then(a.cmp(b)));
        Schedule { places, counts }
    }

    /// The topic of an index, and how often it had its turn before.
    pub fn at(&self, index: u64) -> (usize, u64) {
        let cycle = self.places.len() as u64;
        let (topic, before) = self.places[(index % cycle) as usize];
        (topic, index / cycle * self.counts[topic] as u64 + before as u64)
    }
}
