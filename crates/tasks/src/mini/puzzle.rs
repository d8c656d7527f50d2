//! The puzzles themselves: how they are drawn, asked and solved.

use super::Rng;
use crate::problem::{Language, Reference};

/// Kinds of puzzles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// A sum of three or four terms.
    Chain,
    /// Reach a target with three numbers.
    Countdown,
    /// The remainder of a division.
    Remainder,
    /// The unknown in a x + b = c.
    Missing,
}

impl Family {
    /// All of them, in report order.
    pub const ALL: [Family; 4] = [Family::Chain, Family::Countdown, Family::Remainder, Family::Missing];

    /// Name in recipes and reports.
    pub fn name(self) -> &'static str {
        match self {
            Family::Chain => "chain",
            Family::Countdown => "countdown",
            Family::Remainder => "remainder",
            Family::Missing => "missing",
        }
    }

    /// The inverse of [`Family::name`].
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|f| f.name() == name)
    }
}

/// An arithmetic operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Addition.
    Add,
    /// Subtraction.
    Subtract,
    /// Multiplication.
    Multiply,
}

impl Operation {
    /// The sign.
    pub fn sign(self) -> char {
        match self {
            Operation::Add => '+',
            Operation::Subtract => '-',
            Operation::Multiply => '*',
        }
    }

    /// x op y.
    pub fn apply(self, x: i64, y: i64) -> i64 {
        match self {
            Operation::Add => x + y,
            Operation::Subtract => x - y,
            Operation::Multiply => x * y,
        }
    }
}

/// One puzzle.
#[derive(Clone, Debug, PartialEq)]
pub enum Puzzle {
    /// `first` and then operations, left to right; every partial result is 0 to 60.
    Chain {
        /// First term.
        first: i64,
        /// Operation and term, two or three times.
        rest: Vec<(Operation, i64)>,
    },
    /// Three numbers 1 to 10 and a solvable target.
    Countdown {
        /// The numbers in the order they are given.
        numbers: [i64; 3],
        /// The target, 1 to 60.
        target: i64,
    },
    /// `a` mod `b` with a quotient of at most 6.
    Remainder {
        /// Dividend.
        a: i64,
        /// Divisor.
        b: i64,
    },
    /// x * a + b = c, x from 1 to 10.
    Missing {
        /// Factor.
        a: i64,
        /// Summand.
        b: i64,
        /// Result.
        c: i64,
    },
}

/// One way to combine the numbers of a countdown puzzle: (a op b) op c.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Try {
    /// First number.
    pub a: i64,
    /// First operation.
    pub first: Operation,
    /// Second number.
    pub b: i64,
    /// Its result.
    pub middle: i64,
    /// Second operation.
    pub second: Operation,
    /// Third number.
    pub c: i64,
    /// The final value.
    pub value: i64,
}

impl Try {
    /// As an answer.
    pub fn expression(&self) -> String {
        format!("({}{}{}){}{}", self.a, self.first.sign(), self.b, self.second.sign(), self.c)
    }
}

/// Upper bound on the number of admissible tries of a countdown puzzle.
pub const MAX_TRIES: usize = 54;

impl Puzzle {
    /// A random puzzle of a family.
    pub fn draw(family: Family, rng: &mut Rng) -> Puzzle {
        match family {
            Family::Chain => loop {
                let first = rng.range(1, 20);
                let mut value = first;
                let count = rng.range(2, 3);
                let rest: Vec<_> = (0..count)
                    .map(|_| (*rng.pick(&[Operation::Add, Operation::Subtract]), rng.range(1, 20)))
                    .inspect(|(op, x)| value = if (0..=60).contains(&value) { op.apply(value, *x) } else { -1 })
                    .collect();
                if (0..=60).contains(&value) {
                    return Puzzle::Chain { first, rest };
                }
            },
            Family::Countdown => loop {
                let numbers = [rng.range(1, 10), rng.range(1, 10), rng.range(1, 10)];
                let tries: Vec<Try> = Self::tries(numbers).into_iter().filter(|t| t.value >= 1).collect();
                if !tries.is_empty() {
                    return Puzzle::Countdown { numbers, target: rng.pick(&tries).value };
                }
            },
            Family::Remainder => {
                let b = rng.range(3, 15);
                Puzzle::Remainder { a: b * rng.range(1, 6) + rng.range(0, b - 1), b }
            }
            Family::Missing => {
                let (x, a, b) = (rng.range(1, 10), rng.range(2, 8), rng.range(1, 12));
                Puzzle::Missing { a, b, c: x * a + b }
            }
        }
    }

    /// All admissible combinations of three numbers: intermediate and final values 0 to 60, sums and products with the
    /// larger number first (their mirror images are the same attempt).
    pub fn tries(numbers: [i64; 3]) -> Vec<Try> {
        let [x, y, z] = numbers;
        let ops = [Operation::Add, Operation::Subtract, Operation::Multiply];
        let mut out: Vec<Try> = Vec::new();
        for (a, b, c) in [(x, y, z), (x, z, y), (y, x, z), (y, z, x), (z, x, y), (z, y, x)] {
            for first in ops {
                if first != Operation::Subtract && a < b {
                    continue;
                }
                for second in ops {
                    let middle = first.apply(a, b);
                    let value = second.apply(middle, c);
                    let t = Try { a, first, b, middle, second, c, value };
                    if (0..=60).contains(&middle) && (0..=60).contains(&value) && !out.contains(&t) {
                        out.push(t);
                    }
                }
            }
        }
        out
    }

    /// Family.
    pub fn family(&self) -> Family {
        match self {
            Puzzle::Chain { .. } => Family::Chain,
            Puzzle::Countdown { .. } => Family::Countdown,
            Puzzle::Remainder { .. } => Family::Remainder,
            Puzzle::Missing { .. } => Family::Missing,
        }
    }

    /// The form that identifies the puzzle whatever its wording.
    pub fn canonical(&self) -> String {
        match self {
            Puzzle::Chain { .. } => format!("chain/{}", self.term()),
            Puzzle::Countdown { numbers, target } => {
                let mut sorted = *numbers;
                sorted.sort_unstable();
                format!("countdown/{}-{}-{}/{target}", sorted[0], sorted[1], sorted[2])
            }
            Puzzle::Remainder { a, b } => format!("remainder/{a}/{b}"),
            Puzzle::Missing { a, b, c } => format!("missing/{a}/{b}/{c}"),
        }
    }

    /// The chain as a term; empty for other families.
    fn term(&self) -> String {
        match self {
            Puzzle::Chain { first, rest } => {
                rest.iter().fold(first.to_string(), |s, (op, x)| format!("{s}{}{x}", op.sign()))
            }
            _ => String::new(),
        }
    }

    /// The question, in a language.
    pub fn question(&self, language: Language) -> String {
        let english = language == Language::English;
        match self {
            Puzzle::Chain { .. } if english => format!("{}=?", self.term()),
            Puzzle::Chain { .. } => format!("{}等于?", self.term()),
            Puzzle::Countdown { numbers: [x, y, z], target } if english => format!("make {target} from {x},{y},{z}"),
            Puzzle::Countdown { numbers: [x, y, z], target } => format!("用{x},{y},{z}得到{target}"),
            Puzzle::Remainder { a, b } if english => format!("{a} mod {b}"),
            Puzzle::Remainder { a, b } => format!("{a}除以{b}余数?"),
            Puzzle::Missing { a, b, c } if english => format!("x*{a}+{b}={c}, x?"),
            Puzzle::Missing { a, b, c } => format!("x*{a}+{b}={c},求x"),
        }
    }

    /// The reference for the judge.
    pub fn reference(&self) -> Reference {
        match self {
            Puzzle::Chain { first, rest } => Reference::Integer(rest.iter().fold(*first, |v, (op, x)| op.apply(v, *x))),
            Puzzle::Countdown { numbers, target } => {
                Reference::Countdown { numbers: numbers.to_vec(), target: *target }
            }
            Puzzle::Remainder { a, b } => Reference::Integer(a % b),
            Puzzle::Missing { a, b, c } => Reference::Integer((c - b) / a),
        }
    }
}
