//! The miniature world: four families of problems that a rule can check, in English and Chinese.
//!
//! Every puzzle has a canonical form in which wording, language and the order of given numbers play no part; a hash of that
//! form assigns it once and for all to pretraining, training or evaluation. That keeps the three disjoint by construction.

mod puzzle;
mod rng;

pub use puzzle::{Family, MAX_TRIES, Operation, Puzzle, Try};
pub use rng::Rng;

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
    let hash = puzzle
        .canonical()
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
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

/// The generated task over some or all families.
#[derive(Clone, Debug)]
pub struct MiniTask {
    name: String,
    seed: u64,
    families: Vec<Family>,
    chinese: f64,
    options: judge::JudgeOptions,
    held_out: Vec<Vec<Puzzle>>,
}

/// Distinct held-out puzzles per family; later indices begin again.
const HELD_OUT: usize = 50;

impl MiniTask {
    /// Problems of `families` in turn, a share `chinese` of them asked in Chinese.
    pub fn new(name: &str, seed: u64, families: Vec<Family>, chinese: f64, options: judge::JudgeOptions) -> Self {
        let held_out = families.iter().map(|f| held_out(*f)).collect();
        MiniTask { name: name.to_owned(), seed, families, chinese, options, held_out }
    }
}

impl Task for MiniTask {
    fn name(&self) -> &str {
        &self.name
    }

    fn families(&self) -> Vec<String> {
        self.families.iter().map(|f| f.name().to_owned()).collect()
    }

    fn len(&self, _split: Split) -> Option<usize> {
        None
    }

    fn problem(&self, split: Split, index: u64) -> Result<Problem, TaskError> {
        let family = self.families[(index % self.families.len() as u64) as usize];
        // Held-out problems do not depend on the run's seed: every run is measured on the same ones.
        let seed = if split == Split::Eval { HELD_OUT_SEED } else { self.seed };
        let mut rng = Rng::new(seed ^ (split as u64) << 56, index);
        let puzzle = match split {
            Split::Eval => {
                let of_family = &self.held_out[(index % self.families.len() as u64) as usize];
                of_family[(index / self.families.len() as u64) as usize % HELD_OUT].clone()
            }
            _ => draw(family, split, &mut rng),
        };
        let language = if rng.unit() < self.chinese { Language::Chinese } else { Language::English };
        Ok(Problem {
            id: puzzle.canonical(),
            family: family.name().to_owned(),
            language,
            question: puzzle.question(language),
            reference: puzzle.reference(),
            columns: serde_json::Map::new(),
        })
    }

    fn prefilled_think(&self) -> bool {
        self.options.prefilled_think
    }

    fn judge(&self, problem: &Problem, completion: &str, finished: bool) -> Judgement {
        judge::judge(problem, completion, finished, &self.options)
    }
}

/// The first [`HELD_OUT`] distinct held-out puzzles of a family.
fn held_out(family: Family) -> Vec<Puzzle> {
    let mut rng = Rng::new(HELD_OUT_SEED, family as u64);
    let mut seen = std::collections::HashSet::new();
    let mut puzzles = Vec::with_capacity(HELD_OUT);
    while puzzles.len() < HELD_OUT {
        let puzzle = draw(family, Split::Eval, &mut rng);
        if seen.insert(puzzle.canonical()) {
            puzzles.push(puzzle);
        }
    }
    puzzles
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
