//! Random strings: no panic, and a verdict for each. `cargo test -p aha-tasks --release --test math -- --ignored fuzz`
//! runs ten million; FUZZ_STRINGS sets another number.

use std::time::Instant;

use aha_tasks::Verdict;
use aha_tasks::math::{GradeOptions, grade};

/// Pieces from which strings that are nearly mathematics are put together.
const PIECES: [&str; 133] = [
    r"\frac",
    r"\dfrac",
    "{",
    "}",
    "{",
    "}",
    "(",
    ")",
    "[",
    "]",
    "^",
    "_",
    "1",
    "2",
    "3",
    "7",
    "10",
    "0",
    "0.5",
    "100",
    "1,000",
    "x",
    "y",
    "n",
    "e",
    "i",
    "f",
    "a",
    "A",
    r"\pi",
    "π",
    r"\sqrt",
    "√",
    r"\sqrt[3]",
    "+",
    "-",
    "*",
    "/",
    "=",
    "<",
    ">",
    r"\le",
    r"\ge",
    r"\ne",
    r"\pm",
    r"\mp",
    "±",
    "%",
    r"\%",
    "$",
    r"\$",
    ",",
    ";",
    ".",
    ":",
    "!",
    "|",
    "'",
    "&",
    r"\\",
    r"\{",
    r"\}",
    r"\left",
    r"\right",
    r"\left(",
    r"\right]",
    r"\infty",
    r"\cup",
    r"\cap",
    r"\setminus",
    r"\in",
    r"\mathbb{R}",
    r"\emptyset",
    r"\text{",
    r"\text{ and }",
    r"\text{cm}",
    "and",
    "or",
    " ",
    "\n",
    r"\boxed{",
    r"\boxed",
    "####",
    "the answer is ",
    "answer: ",
    "<answer>",
    "</answer>",
    "</think>",
    "final answer: ",
    "答案是",
    "，",
    "。",
    "米",
    r"\sin",
    r"\cos",
    r"\tan",
    r"\log",
    r"\log_2",
    r"\ln",
    "sin",
    "^\\circ",
    "°",
    r"\begin{pmatrix}",
    r"\end{pmatrix}",
    r"\begin{cases}",
    r"\overline",
    r"\binom",
    r"\lfloor",
    r"\rfloor",
    r"\cdot",
    r"\times",
    "e5",
    "²",
    "½",
    r"\approx",
    "U",
    r"\sum_{k=1}^{n}",
    r"\int_0",
    r"\begin{vmatrix}",
    r"\end{vmatrix}",
    "^T",
    r"\quad",
    r"\foo",
    "is ",
    "final answer ",
    "B",
    "orx",
    "2,5",
    "million",
    "万",
    "...",
    r"\sum_{k=1}^{5}",
    r"\prod_{i=0}^{40}",
];

/// Splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (((self.next() >> 32) * n as u64) >> 32) as usize
    }

    fn piece(&mut self) -> &'static str {
        PIECES[self.below(PIECES.len())]
    }

    /// A string of one of four kinds: bytes, printable ASCII, pieces, or a well-formed formula with one change.
    fn string(&mut self) -> String {
        let kind = self.below(8);
        let longest = if self.below(16) == 0 { 60 } else { 14 };
        let length = 1 + self.below(longest);
        match kind {
            0 => String::from_utf8_lossy(&(0..length).map(|_| self.next() as u8).collect::<Vec<_>>()).into_owned(),
            1 => (0..length).map(|_| char::from(32 + self.below(95) as u8)).collect(),
            2..=4 => (0..length).map(|_| self.piece()).collect(),
            _ => {
                let mut text = String::new();
                self.formula(&mut text, 3);
                if self.below(2) == 0 {
                    let at = text.floor_char_boundary(self.below(text.len() + 1));
                    text.insert_str(at, self.piece());
                }
                text
            }
        }
    }

    fn formula(&mut self, out: &mut String, depth: usize) {
        let mut nested = |r: &mut Self, parts: &[&str]| {
            for part in parts {
                match *part {
                    "?" => r.formula(out, depth.saturating_sub(1)),
                    text => out.push_str(text),
                }
            }
        };
        match self.below(if depth == 0 { 4 } else { 22 }) {
            0 | 1 => {
                let digits = self.next() % 1_000;
                out.push_str(&digits.to_string());
            }
            2 => out.push_str(["x", "y", "n", r"\pi", "e", "i"][self.below(6)]),
            3 => out.push_str(["0.25", r"\infty", "3.14", "1/2", r"\frac12", "50\\%"][self.below(6)]),
            4 | 5 => nested(self, &["?", "+", "?"]),
            6 => nested(self, &["?", "-", "?"]),
            7 => nested(self, &["?", r"\cdot ", "?"]),
            8 => nested(self, &[r"\frac{", "?", "}{", "?", "}"]),
            9 => nested(self, &["(", "?", ")^{", "?", "}"]),
            10 => nested(self, &[r"\sqrt{", "?", "}"]),
            11 => nested(self, &[r"\sin(", "?", ")"]),
            12 => nested(self, &["(", "?", ",", "?", "]"]),
            13 => nested(self, &[r"\{", "?", ",", "?", r"\}"]),
            14 => nested(self, &["?", "=", "?"]),
            15 => nested(self, &["?", r"\le ", "?", "<", "?"]),
            16 => nested(self, &["?", r"\pm ", "?"]),
            17 => nested(self, &["|", "?", "|<", "?"]),
            18 => nested(self, &["f(x)=", "?", "=", "?"]),
            19 => nested(self, &[r"\begin{pmatrix}", "?", "&", "?", r"\\", "?", "&", "?", r"\end{pmatrix}"]),
            20 => nested(self, &["?", r"\begin{vmatrix}", "?", "&1", r"\\", "x&", "?", r"\end{vmatrix}"]),
            _ => nested(self, &[r"\log_{", "?", "}{", "?", "}"]),
        }
    }
}

/// Longest time for one string, with room for a busy machine.
const LIMIT_SECONDS: f64 = 4.0;

/// Grades `count` strings against references that are random as well, and themselves.
fn run(count: usize, seed: u64) {
    let mut random = Random(seed);
    let begin = Instant::now();
    let (mut verdicts, mut slowest) = ([0usize; 3], (0.0, String::new()));
    for i in 0..count {
        let response = random.string();
        let reference = match i % 4 {
            0 => response.clone(),
            1 => "7".to_owned(),
            _ => random.string(),
        };
        let response = if i % 8 < 4 { format!(r"\boxed{{{response}}}") } else { response };
        let at = Instant::now();
        let graded = grade(&reference, &response, GradeOptions::default());
        let seconds = at.elapsed().as_secs_f64();
        if seconds > slowest.0 {
            slowest = (seconds, format!("{reference:?} {response:?}"));
        }
        verdicts[match graded.verdict {
            Verdict::Correct => 0,
            Verdict::Incorrect => 1,
            Verdict::NotJudged => 2,
        }] += 1;
    }
    println!(
        "{count} strings in {:.1} s: {} correct, {} incorrect, {} not judged; slowest {:.3} s: {}",
        begin.elapsed().as_secs_f64(),
        verdicts[0],
        verdicts[1],
        verdicts[2],
        slowest.0,
        slowest.1
    );
    assert!(slowest.0 < LIMIT_SECONDS, "{slowest:?}");
    assert_eq!(verdicts.iter().sum::<usize>(), count);
    assert!(verdicts.iter().all(|n| *n > 0), "{verdicts:?}");
}

#[test]
fn fuzz_short() {
    run(100_000, 1);
}

#[test]
#[ignore = "many minutes, by hand after a change of the grader: cargo test --release -p aha-tasks --test math -- --ignored fuzz_long"]
fn fuzz_long() {
    let count = std::env::var("FUZZ_STRINGS").ok().map_or(10_000_000, |n| n.parse().unwrap());
    run(count, 2);
}
