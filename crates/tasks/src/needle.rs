//! Needle in a haystack: one fact somewhere in a long text of others, asked for at the end.
//!
//! A test of how far back a model can read, for every length and depth. The hay is plain sentences; a needle is a name and a
//! number of four digits. The same generator writes training documents, which hide several needles and ask for all of them.

use crate::TaskError;
use crate::judge::{self, JudgeOptions};
use crate::mini::Rng;
use crate::problem::{Judgement, Language, Problem, Reference, Split, Task};

/// Name of the task.
pub const NAME: &str = "needle";

/// Bytes of a token unless measured: small vocabularies on plain English.
const BYTES_PER_TOKEN: f64 = 3.0;
/// Bytes of a token of a needle or a question: names and numbers take more tokens than the hay.
const DENSE_BYTES_PER_TOKEN: f64 = 1.5;
/// Some hay takes more tokens than the average: a text of n tokens by the average may have n (1 + SPREAD / √n).
const SPREAD: f64 = 2.5;
/// Room kept free, in tokens: the answer, and what a template adds.
const MARGIN: usize = 24;
/// Sentences of hay per needle in a training document, at least.
const HAY_PER_NEEDLE: usize = 3;

const NAMES: [&str; 24] = [
    "Anna", "Boris", "Clara", "David", "Elena", "Felix", "Greta", "Hugo", "Irina", "Jonas", "Karla", "Leo", "Marta",
    "Nils", "Olga", "Pavel", "Rosa", "Simon", "Tara", "Uwe", "Vera", "Wanda", "Yusuf", "Zoe",
];
const THINGS: [&str; 8] = ["river", "market", "garden", "old mill", "harbour", "library", "bakery", "station"];
const STATES: [&str; 8] = [
    "is quiet in the morning",
    "lies at the end of the road",
    "is open until late",
    "was painted last year",
    "has a green door",
    "smells of rain",
    "is loved by everyone",
    "looks small from the hill",
];

/// Lengths and depths that are asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct NeedleOptions {
    /// Lengths of the whole prompt in tokens, at most.
    pub lengths: Vec<usize>,
    /// Where the needle lies: 0 at the beginning, 1 right before the question.
    pub depths: Vec<f64>,
    /// Bytes of hay per token of the model's tokenizer.
    pub bytes_per_token: f64,
}

impl Default for NeedleOptions {
    fn default() -> Self {
        NeedleOptions {
            lengths: vec![128, 256, 512, 1024, 2048],
            depths: vec![0.0, 0.25, 0.5, 0.75, 1.0],
            bytes_per_token: BYTES_PER_TOKEN,
        }
    }
}

/// The task: problems go through all lengths and depths in turn.
#[derive(Clone, Debug)]
pub struct NeedleTask {
    seed: u64,
    options: NeedleOptions,
    judge: JudgeOptions,
}

impl NeedleTask {
    /// Problems of every length and depth in `options`.
    ///
    /// # Errors
    /// No length or depth, a length too short for a question, a depth outside 0 to 1.
    pub fn new(seed: u64, options: NeedleOptions, judge: JudgeOptions) -> Result<Self, TaskError> {
        let refuse = |problem: String| Err(TaskError::Option { task: NAME.to_owned(), problem });
        let shortest = 4 * MARGIN;
        if options.lengths.is_empty() || options.depths.is_empty() {
            return refuse("lengths and depths need at least one number each".to_owned());
        }
        if let Some(length) = options.lengths.iter().find(|l| **l < shortest) {
            return refuse(format!("length {length} is too short for a question; take {shortest} tokens or more"));
        }
        if let Some(depth) = options.depths.iter().find(|d| !(0.0..=1.0).contains(*d)) {
            return refuse(format!("depth {depth} must lie between 0 (the beginning) and 1 (the end)"));
        }
        if !(options.bytes_per_token > 0.0 && options.bytes_per_token.is_finite()) {
            return refuse(format!("bytes_per_token is {}; it must be above 0", options.bytes_per_token));
        }
        Ok(NeedleTask { seed, options, judge })
    }

    /// The name of a cell of the map, for example `2048 @ 0.50`.
    pub fn cell(length: usize, depth: f64) -> String {
        format!("{length} @ {depth:.2}")
    }

    /// Length and depth of [`NeedleTask::cell`].
    pub fn parse_cell(name: &str) -> Option<(usize, f64)> {
        let (length, depth) = name.split_once(" @ ")?;
        Some((length.parse().ok()?, depth.parse().ok()?))
    }
}

impl Task for NeedleTask {
    fn name(&self) -> &str {
        NAME
    }

    fn families(&self) -> Vec<String> {
        let o = &self.options;
        o.lengths.iter().flat_map(|l| o.depths.iter().map(|d| Self::cell(*l, *d))).collect()
    }

    fn len(&self, _: Split) -> Option<usize> {
        None
    }

    fn problem(&self, split: Split, index: u64) -> Result<Problem, TaskError> {
        let o = &self.options;
        let cell = (index % (o.lengths.len() * o.depths.len()) as u64) as usize;
        let (length, depth) = (o.lengths[cell / o.depths.len()], o.depths[cell % o.depths.len()]);
        let part = match split {
            Split::Pretrain => 0,
            Split::Train => 1,
            Split::Eval => 2,
        };
        let mut rng = Rng::new(self.seed ^ 0x6eee_d1e5, index * 3 + part);
        let needle = Needle::draw(&mut rng, &mut NAMES.to_vec());
        let dense = (needle.fact().len() + needle.question().len()) as f64 / DENSE_BYTES_PER_TOKEN;
        let room = (length - MARGIN) as f64 - dense;
        let hay = hay(&mut rng, (room / (1.0 + SPREAD / room.sqrt()) * o.bytes_per_token) as usize);
        let at = (depth * hay.len() as f64).round() as usize;
        let text: Vec<String> =
            hay[..at].iter().cloned().chain([needle.fact()]).chain(hay[at..].iter().cloned()).collect();
        Ok(Problem {
            id: format!("{NAME}/{}/{index}", Self::cell(length, depth)),
            family: Self::cell(length, depth),
            language: Language::English,
            question: format!("{}\n{}", text.join(" "), needle.question()),
            reference: Reference::Integer(needle.number),
            columns: serde_json::Map::new(),
        })
    }

    fn judge(&self, problem: &Problem, completion: &str, finished: bool) -> Judgement {
        // Training documents ask on after an answer, and so does the model: the answer ends with its line.
        match completion.trim_start().split_once('\n') {
            Some((line, _)) => judge::judge(problem, line, true, &self.judge),
            None => judge::judge(problem, completion, finished, &self.judge),
        }
    }

    fn prefilled_think(&self) -> bool {
        self.judge.prefilled_think
    }
}

/// A name and its number.
struct Needle {
    name: &'static str,
    number: i64,
}

impl Needle {
    /// A needle whose name leaves `names`.
    fn draw(rng: &mut Rng, names: &mut Vec<&'static str>) -> Self {
        let name = names.swap_remove(rng.range(0, names.len() as i64 - 1) as usize);
        Needle { name, number: rng.range(1000, 9999) }
    }

    fn fact(&self) -> String {
        format!("The key of {} is {}.", self.name, self.number)
    }

    fn question(&self) -> String {
        format!("What is the key of {}?", self.name)
    }
}

/// Sentences of at most `bytes` bytes with the spaces between them; at least one.
fn hay(rng: &mut Rng, bytes: usize) -> Vec<String> {
    let (mut all, mut used) = (Vec::new(), 0);
    loop {
        let sentence = format!("The {} {}.", rng.pick(&THINGS), rng.pick(&STATES));
        used += sentence.len() + 1;
        if used > bytes && !all.is_empty() {
            return all;
        }
        all.push(sentence);
    }
}

/// A training document of about `bytes` bytes: needles at random depths, all asked for at the end, in random order.
/// A function of its arguments alone.
pub fn document(seed: u64, index: u64, bytes: usize) -> String {
    let mut rng = Rng::new(seed ^ 0x000d_0c5e, index);
    let mut names = NAMES.to_vec();
    let mut text = hay(&mut rng, bytes);
    let most = (text.len() / HAY_PER_NEEDLE).clamp(1, NAMES.len() / 2);
    let count = rng.range(1, most as i64) as usize;
    let mut needles: Vec<Needle> = (0..count).map(|_| Needle::draw(&mut rng, &mut names)).collect();
    // What needles and questions take comes out of the hay.
    let room = needles.iter().map(|n| n.fact().len() + n.question().len() + 24).sum::<usize>();
    while text.len() > 1 && text.iter().map(|s| s.len() + 1).sum::<usize>() + room > bytes {
        text.pop();
    }
    for needle in &needles {
        let at = rng.range(0, text.len() as i64) as usize;
        text.insert(at, needle.fact());
    }
    rng.shuffle(&mut needles);
    let asked: Vec<String> = needles.iter().map(|n| format!("{}\nAssistant: {}", n.question(), n.number)).collect();
    format!("User: {}\n{}", text.join(" "), asked.join("\nUser: "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::AnswerPlace;
    use crate::problem::Verdict;

    fn task() -> NeedleTask {
        let judge = JudgeOptions { place: AnswerPlace::Lenient, prefilled_think: false };
        NeedleTask::new(3, NeedleOptions::default(), judge).unwrap()
    }

    #[test]
    fn a_needle_lies_where_it_should_and_answers_are_judged() {
        let task = task();
        assert_eq!(task.families().len(), 25);
        for index in 0..50 {
            let p = task.problem(Split::Eval, index).unwrap();
            let (length, depth) = NeedleTask::parse_cell(&p.family).unwrap();
            assert!(p.question.len() <= (length as f64 * BYTES_PER_TOKEN) as usize, "{}", p.question.len());
            assert!(p.question.len() > if length > 1000 { 2 * length } else { length }, "{}", p.question.len());
            let at = p.question.find("The key of").unwrap() as f64 / p.question.len() as f64;
            assert!((at - depth).abs() < 0.4 * 128.0 / length as f64 + 0.05, "{at} {depth} {length}");
            assert_eq!(p.question.matches("The key of").count(), 1);
            let Reference::Integer(number) = p.reference else { panic!("a number") };
            assert_eq!(task.judge(&p, &format!(" {number}"), true).verdict, Verdict::Correct);
            assert_eq!(task.judge(&p, &format!(" {}", number + 1), true).verdict, Verdict::Incorrect);
            assert_eq!(task.judge(&p, &format!(" {number}\nUser: "), false).verdict, Verdict::Correct);
            assert_eq!(task.judge(&p, &format!(" {number}"), false).verdict, Verdict::Incorrect);
            assert_eq!(task.problem(Split::Eval, index).unwrap(), p);
        }
        assert_ne!(task.problem(Split::Eval, 0).unwrap(), task.problem(Split::Train, 0).unwrap());
    }

    #[test]
    fn documents_ask_for_what_they_hide() {
        for (index, bytes) in [(0, 300), (1, 1500), (2, 6000)] {
            let text = document(1, index, bytes);
            assert!(text.len() <= bytes.max(200) && text.len() * 10 > bytes * 6, "{} of {bytes}", text.len());
            assert_eq!(text, document(1, index, bytes));
            let asked: Vec<&str> = text.split("What is the key of ").skip(1).collect();
            assert!(!asked.is_empty());
            for question in asked {
                let (name, rest) = question.split_once("?\nAssistant: ").unwrap();
                let number = &rest[..4];
                assert!(text.contains(&format!("The key of {name} is {number}.")), "{name} {number}");
            }
        }
    }

    #[test]
    fn what_cannot_be_asked_is_refused() {
        let judge = JudgeOptions { place: AnswerPlace::Lenient, prefilled_think: false };
        let with = |change: fn(&mut NeedleOptions)| {
            let mut options = NeedleOptions::default();
            change(&mut options);
            NeedleTask::new(1, options, judge).unwrap_err().to_string()
        };
        assert!(with(|o| o.lengths = vec![8]).contains("length 8 is too short"));
        assert!(with(|o| o.depths = vec![1.5]).contains("depth 1.5"));
        assert!(with(|o| o.lengths.clear()).contains("at least one"));
        assert!(with(|o| o.bytes_per_token = 0.0).contains("bytes_per_token"));
    }
}
