//! The workings: what stands between question and answer, per style and family.
//!
//! Every step of a long working is small enough to be learned, and every try is written next to what is wanted: without
//! that, a small model stops its search at a wrong value.

use super::{CorpusConfig, number};
use aha_tasks::Language;
use aha_tasks::mini::{Operation, Puzzle, Rng, Try};

/// The few words workings are made of.
pub(super) struct Words {
    pub easy: &'static str,
    pub want: &'static str,
    pub wrong: &'static str,
    pub yes: &'static str,
    wait: &'static str,
    check: &'static str,
    pub give_up: &'static str,
}

pub(super) fn words(language: Language) -> Words {
    match language {
        Language::English => Words {
            easy: "easy.",
            want: " want ",
            wrong: " wrong.\n",
            yes: " yes.",
            wait: " wait, wrong.\n",
            check: "check ",
            give_up: "no luck.\n",
        },
        Language::Chinese => Words {
            easy: "简单。",
            want: "要",
            wrong: "不对。\n",
            yes: "对。",
            wait: "等等,不对。\n",
            check: "检查",
            give_up: "算了。\n",
        },
    }
}

/// No working, and an answer that is right with the configured share.
pub(super) fn blunt(puzzle: &Puzzle, config: &CorpusConfig, language: Language, rng: &mut Rng) -> (String, String) {
    let right = rng.unit() < config.blunt_correct;
    (words(language).easy.to_owned(), guess(puzzle, right, rng))
}

/// An answer, right or wrong by a plausible amount. A blunt countdown answer is any admissible combination.
fn guess(puzzle: &Puzzle, right: bool, rng: &mut Rng) -> String {
    match puzzle {
        Puzzle::Countdown { numbers, .. } => rng.pick(&Puzzle::tries(*numbers)).expression(),
        Puzzle::Remainder { b, .. } if !right => rng.range(0, b - 1).to_string(),
        Puzzle::Missing { .. } if !right => rng.range(1, 10).to_string(),
        _ if right => number(puzzle).to_string(),
        _ => (number(puzzle) + rng.pick(&[-10, -2, -1, 1, 2, 10])).max(0).to_string(),
    }
}

/// One step, then an answer.
pub(super) fn short(puzzle: &Puzzle, config: &CorpusConfig, language: Language, rng: &mut Rng) -> (String, String) {
    let right = rng.unit() < config.short_correct;
    match puzzle {
        Puzzle::Chain { first, rest } => {
            let (op, x) = rest[0];
            (format!("{first}{}{x}={}.\n", op.sign(), op.apply(*first, x)), guess(puzzle, right, rng))
        }
        Puzzle::Countdown { numbers, .. } => {
            let t = *rng.pick(&Puzzle::tries(*numbers));
            (format!("{}.\n", line(&t)), t.expression())
        }
        Puzzle::Remainder { a, b } => (format!("{a}-{b}={}.\n", a - b), guess(puzzle, right, rng)),
        Puzzle::Missing { a, b, .. } => {
            let x = if right { number(puzzle) } else { rng.range(1, 10) };
            (format!("{x}*{a}={},{}+{b}={}.{}\n", x * a, x * a, x * a + b, words(language).yes), x.to_string())
        }
    }
}

/// Everything written out; the answer is right unless the search was given up.
pub(super) fn long(puzzle: &Puzzle, config: &CorpusConfig, language: Language, rng: &mut Rng) -> (String, String) {
    let w = words(language);
    match puzzle {
        Puzzle::Chain { first, rest } => (chain(*first, rest, config, &w, rng), number(puzzle).to_string()),
        Puzzle::Countdown { numbers, target } => search(*numbers, *target, config, &w, rng),
        Puzzle::Remainder { a, b } => {
            let mut text = String::new();
            let mut left = *a;
            while left >= *b {
                text += &format!("{left}-{b}={}.\n", left - b);
                left -= b;
            }
            text += &format!("{}{left}<{b}{}\n", w.check, w.yes);
            (text, left.to_string())
        }
        Puzzle::Missing { a, b, c } => guess_and_check(*a, *b, *c, config, &w, rng),
    }
}

/// Partial results one by one, now and then a slip that is noticed, and a check of the last step backwards.
fn chain(first: i64, rest: &[(Operation, i64)], config: &CorpusConfig, w: &Words, rng: &mut Rng) -> String {
    let mut text = String::new();
    let mut value = first;
    for (op, x) in rest {
        let next = op.apply(value, *x);
        if rng.unit() < config.slip {
            let off = (next + rng.pick(&[-10, -1, 1, 10])).max(0);
            if off != next {
                text += &format!("{value}{}{x}={off}{}", op.sign(), w.wait);
            }
        }
        text += &format!("{value}{}{x}={next}.\n", op.sign());
        value = next;
    }
    let (op, x) = rest[rest.len() - 1];
    let (back, before) = match op {
        Operation::Subtract => ('+', value + x),
        _ => ('-', value - x),
    };
    text + &format!("{}{value}{back}{x}={before}{}\n", w.check, w.yes)
}

/// "3+4=7,7*2=14"
fn line(t: &Try) -> String {
    format!("{}{}{}={},{}{}{}={}", t.a, t.first.sign(), t.b, t.middle, t.middle, t.second.sign(), t.c, t.value)
}

/// Tries until one reaches the target, each compared with what is wanted. Who has tried the most tries there may be gives up
/// and names the last one; so does who misread the target and has gone once round.
fn search(numbers: [i64; 3], target: i64, config: &CorpusConfig, w: &Words, rng: &mut Rng) -> (String, String) {
    if config.misread > 0.0 && rng.unit() < config.misread {
        return round_trip(numbers, target, w, rng);
    }
    let count = (-config.mean_wrong_tries * (1.0 - rng.unit()).ln()) as usize;
    let most = count.min(config.max_wrong_tries);
    let (wrong, right) = if rng.unit() < config.orderly {
        in_order(numbers, target, most, rng)
    } else {
        at_random(numbers, target, most, rng)
    };
    let mut text = String::new();
    for t in &wrong {
        text += &format!("{}{}{target}{}", line(t), w.want, w.wrong);
    }
    if count > config.max_wrong_tries
        && wrong.len() == config.max_wrong_tries
        && let Some(last) = wrong.last()
    {
        return (text + w.give_up, last.expression());
    }
    text += &format!("{}{}{target}{}\n", line(&right), w.want, w.yes);
    (text, right.expression())
}

/// All tries in order against a target that none of them reaches, and giving up.
fn round_trip(numbers: [i64; 3], target: i64, w: &Words, rng: &mut Rng) -> (String, String) {
    let mut tries = in_rows(numbers);
    let first = rng.range(0, tries.len() as i64 - 1) as usize;
    tries.rotate_left(first);
    let mut read = target;
    while tries.iter().any(|t| t.value == read) {
        read = rng.range(1, 60);
    }
    let text: String = tries.iter().map(|t| format!("{}{}{read}{}", line(t), w.want, w.wrong)).collect();
    (text + w.give_up, tries[tries.len() - 1].expression())
}

/// The tries of the numbers from large to small, in the order of [`Puzzle::tries`].
fn in_rows(numbers: [i64; 3]) -> Vec<Try> {
    let mut sorted = numbers;
    sorted.sort_unstable_by(|x, y| y.cmp(x));
    Puzzle::tries(sorted)
}

/// At most `most` wrong tries and the right one after them, in the order of [`Puzzle::tries`] of the numbers from large to
/// small, beginning anywhere and going round: each try follows from the one before, so that a search ends.
fn in_order(numbers: [i64; 3], target: i64, most: usize, rng: &mut Rng) -> (Vec<Try>, Try) {
    let tries = in_rows(numbers);
    let ends: Vec<usize> = (0..tries.len()).filter(|&i| tries[i].value == target).collect();
    let end = *rng.pick(&ends);
    let before = |back: usize| tries[(end + tries.len() - back) % tries.len()];
    let clear = (1..tries.len()).take_while(|&back| before(back).value != target).count();
    ((1..=clear.min(most)).rev().map(before).collect(), tries[end])
}

/// At most `most` wrong tries in random order, none with a value that was had before, and a right one.
fn at_random(numbers: [i64; 3], target: i64, most: usize, rng: &mut Rng) -> (Vec<Try>, Try) {
    let mut tries = Puzzle::tries(numbers);
    rng.shuffle(&mut tries);
    let right = *tries.iter().find(|t| t.value == target).expect("countdown puzzles are solvable");
    let mut wrong: Vec<Try> = Vec::new();
    for t in tries.iter().filter(|t| t.value != target) {
        if wrong.len() < most && !wrong.iter().any(|w| w.value == t.value) {
            wrong.push(*t);
        }
    }
    (wrong, right)
}

/// Guesses after which some give up.
const PATIENCE: usize = 4;

/// A first guess anywhere, then in the right direction until it fits, or until patience ends (for half of the people).
/// Who misread what is wanted gives up when no number is left.
fn guess_and_check(a: i64, b: i64, c: i64, config: &CorpusConfig, w: &Words, rng: &mut Rng) -> (String, String) {
    let (mut low, mut high) = (1, 10);
    let mut c = c;
    if config.misread > 0.0 && rng.unit() < config.misread {
        while (c - b) % a == 0 {
            c = rng.range(b + 1, b + 10 * a);
        }
    }
    let mut text = String::new();
    let patience = if rng.unit() < 0.5 { PATIENCE } else { usize::MAX };
    for guesses in 1.. {
        let x = rng.range(low, high);
        let value = x * a + b;
        text += &format!("{x}*{a}={},{}+{b}={value}{}{c}", x * a, x * a, w.want);
        if value == c {
            return (text + w.yes + "\n", x.to_string());
        }
        text += w.wrong;
        if guesses >= patience {
            return (text + w.give_up, x.to_string());
        }
        if value < c {
            low = x + 1
        } else {
            high = x - 1
        }
        if low > high {
            return (text + w.give_up, x.to_string());
        }
    }
    unreachable!("every guess halves what is left")
}
