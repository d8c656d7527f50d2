//! The miniature world, in English and Chinese: four families of puzzles that a rule can check, tiny programming exercises,
//! and requests of every other kind.
//!
//! Every puzzle has a canonical form in which wording, language and the order of given numbers play no part; a hash of that
//! form assigns it once and for all to pretraining, training or evaluation. That keeps the three disjoint by construction.

mod exercise;
pub mod general;
mod puzzle;
mod rng;
mod topic;

pub use exercise::{ARRANGEMENTS, Exercise, PICKS, Shape};
pub use puzzle::{Family, MAX_TRIES, Operation, Puzzle, Try};
pub use rng::Rng;
use topic::Schedule;
pub use topic::{CODE, Subject, Topic, history};

use crate::problem::{Judgement, Language, Problem, Split, Task};
use crate::{TaskError, judge};

/// Share of canonical forms in percent that belong to pretraining; the next [`TRAIN_PERCENT`] belong to training.
const PRETRAIN_PERCENT: u64 = 75;
/// Share of canonical forms in percent that reinforcement learning may use; the rest is held out.
const TRAIN_PERCENT: u64 = 15;
/// Seed of the held-out problems of every run.
const HELD_OUT_SEED: u64 = 0x00e7_a1ed;

/// The part of the world a puzzle belongs to.
pub fn split_of(puzzle: &Puzzle) -> Split {
    split_of_canonical(&puzzle.canonical())
}

/// The part of the world to which what has this canonical form belongs.
pub fn split_of_canonical(canonical: &str) -> Split {
    let hash =
        canonical.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    match Rng::new(hash, 0).next() % 100 {
        r if r < PRETRAIN_PERCENT => Split::Pretrain,
        r if r < PRETRAIN_PERCENT + TRAIN_PERCENT => Split::Train,
        _ => Split::Eval,
    }
}

/// A puzzle of a family and split: draws until one belongs there.
pub fn draw(family: Family, split: Split, rng: &mut Rng) -> Puzzle {
    loop {
        let puzzle = Puzzle::draw(family, rng);
        if split_of(&puzzle) == split {
            return puzzle;
        }
    }
}

/// Something of a topic and split: draws until one belongs there.
pub fn draw_subject(topic: Topic, split: Split, rng: &mut Rng) -> Subject {
    loop {
        let subject = Subject::draw(topic, rng);
        if split_of_canonical(&subject.canonical()) == split {
            return subject;
        }
    }
}

/// The generated task over some or all topics.
#[derive(Clone, Debug)]
pub struct MiniTask {
    name: String,
    seed: u64,
    topics: Vec<Topic>,
    schedule: Schedule,
    chinese: f64,
    model_name: String,
    options: judge::JudgeOptions,
    held_out: Vec<Vec<Subject>>,
}

/// The model's own name unless it is given one.
pub const MODEL_NAME: &str = "Aha";

/// Most distinct held-out problems per topic; later indices begin again.
const HELD_OUT: usize = 50;
/// Draws after which a small topic is taken to have no more.
const MAX_DRAWS: usize = 2000;

impl MiniTask {
    /// Puzzles of `families` in turn, a share `chinese` of them asked in Chinese.
    pub fn new(name: &str, seed: u64, families: Vec<Family>, chinese: f64, options: judge::JudgeOptions) -> Self {
        Self::of_topics(name, seed, families.into_iter().map(Topic::Puzzle).collect(), None, chinese, options)
    }

    /// Problems of `topics`: in turn, or in proportion to shares above 0.
    pub fn of_topics(
        name: &str,
        seed: u64,
        topics: Vec<Topic>,
        shares: Option<&[f64]>,
        chinese: f64,
        options: judge::JudgeOptions,
    ) -> Self {
        let held_out = topics.iter().map(|t| held_out(*t)).collect();
        let schedule = shares.map_or(Schedule::even(topics.len()), Schedule::shares);
        let (name, model_name) = (name.to_owned(), MODEL_NAME.to_owned());
        MiniTask { name, seed, topics, schedule, chinese, model_name, options, held_out }
    }

    /// With another name for the model itself.
    pub fn with_model_name(mut self, model_name: &str) -> Self {
        model_name.clone_into(&mut self.model_name);
        self
    }
}

impl Task for MiniTask {
    fn name(&self) -> &str {
        &self.name
    }

    fn families(&self) -> Vec<String> {
        self.topics.iter().map(|t| t.name().to_owned()).collect()
    }

    fn len(&self, _split: Split) -> Option<usize> {
        None
    }

    fn problem(&self, split: Split, index: u64) -> Result<Problem, TaskError> {
        let (topic, turn) = self.schedule.at(index);
        // Held-out problems do not depend on the run's seed: every run is measured on the same ones.
        let seed = if split == Split::Eval { HELD_OUT_SEED } else { self.seed };
        let mut rng = Rng::new(seed ^ (split as u64) << 56, index);
        let subject = match split {
            Split::Eval => {
                let of_topic = &self.held_out[topic];
                of_topic[turn as usize % of_topic.len()].clone()
            }
            _ => draw_subject(self.topics[topic], split, &mut rng),
        };
        let language = if rng.unit() < self.chinese { Language::Chinese } else { Language::English };
        Ok(subject.problem(language, &self.model_name))
    }

    fn prefilled_think(&self) -> bool {
        self.options.prefilled_think
    }

    fn judge(&self, problem: &Problem, completion: &str, finished: bool) -> Judgement {
        judge::judge(problem, completion, finished, &self.options)
    }
}

/// The first [`HELD_OUT`] distinct held-out problems of a topic, or as many as it has.
fn held_out(topic: Topic) -> Vec<Subject> {
    let mut rng = Rng::new(HELD_OUT_SEED, topic.number());
    let mut seen = std::collections::HashSet::new();
    let mut subjects = Vec::with_capacity(HELD_OUT);
    for _ in 0..MAX_DRAWS {
        let subject = draw_subject(topic, Split::Eval, &mut rng);
        if seen.insert(subject.id()) {
            subjects.push(subject);
        }
        if subjects.len() == HELD_OUT {
            break;
        }
    }
    subjects
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn task() -> MiniTask {
        MiniTask::new("mini", 1, Family::ALL.to_vec(), 0.25, judge::JudgeOptions::default())
    }

    #[test]
    fn the_three_parts_never_share_a_puzzle_in_any_language_or_order() {
        let task = task();
        let ids = |split| (0..8000).map(|i| task.problem(split, i).expect("generated").id).collect::<HashSet<_>>();
        let (pretrain, train, eval) = (ids(Split::Pretrain), ids(Split::Train), ids(Split::Eval));
        assert!(pretrain.is_disjoint(&train) && pretrain.is_disjoint(&eval) && train.is_disjoint(&eval));
        assert!(eval.len() == 200, "{}", eval.len());
        let a = Puzzle::Countdown { numbers: [3, 8, 2], target: 22 };
        let b = Puzzle::Countdown { numbers: [8, 2, 3], target: 22 };
        assert_eq!(split_of(&a), split_of(&b));
    }

    #[test]
    fn held_out_problems_are_distinct_cycle_through_families_and_ignore_the_seed() {
        let task = task();
        let other = MiniTask { seed: 9, ..task.clone() };
        let mut seen = HashSet::new();
        for i in 0..200 {
            let p = task.problem(Split::Eval, i).expect("generated");
            assert_eq!(p.family, Family::ALL[(i % 4) as usize].name());
            assert_eq!(p.id, other.problem(Split::Eval, i).expect("generated").id);
            assert!(seen.insert(p.id));
        }
        let train = |t: &MiniTask| t.problem(Split::Train, 5).expect("generated");
        assert_eq!(train(&task), train(&task));
        assert_ne!(train(&task).id, train(&other).id);
    }

    #[test]
    fn a_quarter_is_chinese() {
        let task = task();
        let chinese = (0..2000)
            .filter(|i| task.problem(Split::Train, *i).expect("generated").language == Language::Chinese)
            .count();
        assert!((420..580).contains(&chinese), "{chinese}");
    }
}
