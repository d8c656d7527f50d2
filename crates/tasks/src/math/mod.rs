//! Grading of mathematical answers: find the answer in a response, read it and the reference, decide whether they are equal.
//!
//! [`grade`] does all three. The parts are public for use on their own: [`locate::locate`] finds answers,
//! [`parser::parse`] reads LaTeX and plain text, [`compare::answers_equal`] decides. Time and memory are bounded by the
//! length of the response; what is too large to decide is [`Verdict::NotJudged`].
//!
//! What counts as equal follows the conventions of Math-Verify (Hugging Face, 2025) where they are what a person would
//! say; the reference sets the form. Where we differ on purpose: a number in a stated base is not equal to one in
//! another base; decimals that are both tiny are compared by their digits, not rounded to zero; inequalities may be
//! written with sides exchanged or scaled; an interval may be answered by a solved inequality.

pub mod command;
pub mod compare;
pub mod complex;
pub mod digits;
pub mod enclose;
pub mod evaluate;
pub mod factor;
pub mod formula;
pub mod fraction;
pub mod lexer;
pub mod locate;
pub mod matrix;
pub mod node;
pub mod normal;
pub mod parser;
pub mod poly;
pub mod precision;
pub mod prepare;
pub mod region;
pub mod relation;
pub mod scalar;
pub mod token;
pub mod words;
pub mod work;

use crate::number::canonical_number;
use crate::problem::Verdict;
use compare::{Rounding, answers_equal};
use locate::{Located, Place, boxed, is_prose, locate};
use node::Node;
use parser::{ParseError, parse};
use scalar::Equality;

/// Longest response in bytes; more is cut off at the front, because answers stand at the end.
const MAX_RESPONSE: usize = 1 << 20;

/// How to grade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GradeOptions {
    /// Whether mathematics and numbers that nothing announces may be the answer: the last of them.
    pub last_number: bool,
    /// Where the reference or the answer is a decimal number, both are rounded to this many places.
    pub decimals: u32,
}

impl Default for GradeOptions {
    fn default() -> Self {
        Self { last_number: true, decimals: 6 }
    }
}

/// What a grading found.
#[derive(Clone, Debug, PartialEq)]
pub struct Graded {
    /// Whether the answer equals the reference. A missing answer is incorrect; an empty reference, or a comparison that is
    /// too large to decide, is not judged.
    pub verdict: Verdict,
    /// The reference as it was read, without its wrapping.
    pub reference: Option<String>,
    /// The answer as it was found.
    pub answer: Option<String>,
    /// Where the answer was found.
    pub place: Option<Place>,
}

/// A reference that has been read once, to grade many responses.
#[derive(Clone, Debug)]
pub struct Grader {
    text: String,
    gold: Result<Node, ParseError>,
    rounding: Rounding,
    options: GradeOptions,
}

impl Grader {
    /// Reads a reference: bare, between dollar signs, in `\boxed{}`, behind `####`, or at the end of a solution. `None`
    /// when there is nothing in it.
    pub fn new(reference: &str, options: GradeOptions) -> Option<Self> {
        let text = reference_text(reference)?;
        let gold = parse(&text);
        let rounding = precision::rounding(reference, gold.as_ref().ok(), options.decimals);
        Some(Self { text, gold, rounding, options })
    }

    /// The reference as it was read.
    pub fn reference(&self) -> &str {
        &self.text
    }

    /// Grades a response.
    pub fn grade(&self, response: &str) -> Graded {
        let from = response.len().saturating_sub(MAX_RESPONSE);
        let response = &response[response.ceil_char_boundary(from)..];
        let located = locate(response, self.options.last_number);
        let same_text = || words::same_words(&self.text, response);
        let verdict = match &located {
            Some(Located { text, .. }) => match self.compare(text) {
                Verdict::Incorrect | Verdict::NotJudged if response.len() < 1_000 && same_text() => Verdict::Correct,
                verdict => verdict,
            },
            None if response.len() < 4_000 && same_text() => Verdict::Correct,
            None => self.spoken_choice(response),
        };
        let (answer, place) = located.map(|l| (l.text, l.place)).unzip();
        let answer = answer.or_else(|| (verdict == Verdict::Correct).then(|| response.trim().to_owned()));
        Graded { verdict, reference: Some(self.text.clone()), answer, place }
    }

    /// Compares an answer that has been found.
    pub fn compare(&self, answer: &str) -> Verdict {
        let verdict = |equality| match equality {
            Equality::Equal => Verdict::Correct,
            Equality::Different => Verdict::Incorrect,
            Equality::Unknown => Verdict::NotJudged,
        };
        if answer.len() <= parser::MAX_BYTES && words::same_words(&self.text, answer) {
            return Verdict::Correct;
        }
        if let Some(wanted) = words::choice(&self.text) {
            let chosen = (words::chosen(answer))
                .or_else(|| words::leading_choice(answer))
                .or_else(|| words::spoken_choice(answer));
            match chosen {
                Some(chosen) => return verdict(Equality::from_bool(wanted == chosen)),
                // In "a whole number" the letter is a word.
                None if is_prose(answer) => return Verdict::Incorrect,
                None => {}
            }
        }
        match (&self.gold, parse(answer)) {
            (Ok(gold), Ok(found)) => match verdict(answers_equal(gold, &found, self.rounding)) {
                Verdict::Incorrect => verdict(self.with_decimal_comma(gold, answer, &found)),
                decided => decided,
            },
            (Err(ParseError::TooLarge), _) => Verdict::NotJudged,
            // What a long reference in words says, only the same words can repeat for certain.
            (Err(_), _) if self.text.len() > 60 && is_prose(&self.text) => Verdict::NotJudged,
            // An answer that is too large to be read may be right only if the reference is large as well.
            _ => Verdict::Incorrect,
        }
    }

    /// `2,75` may be a list or, as in much of Europe, a decimal number: a decimal number on the other side decides.
    fn with_decimal_comma(&self, gold: &Node, answer: &str, found: &Node) -> Equality {
        let decimal = |node: &Node| scalar::written_decimals(node).is_some();
        let pointed = |text: &str| words::decimal_comma(text).and_then(|text| parse(&text).ok());
        let compared = |gold: &Node, found: &Node| answers_equal(gold, found, self.rounding);
        match (pointed(&self.text), pointed(answer)) {
            (None, Some(found)) if decimal(gold) => compared(gold, &found),
            (Some(gold), None) if decimal(found) => compared(&gold, found),
            _ => Equality::Different,
        }
    }

    /// A form of an answer for counting votes: the letter of a choice, a rational number in lowest terms, a decimal number
    /// without needless digits, else the text with single spaces. Answers with one form get one verdict.
    pub fn canonical(&self, answer: &str) -> String {
        if words::choice(&self.text).is_some()
            && let Some(letter) = words::chosen(answer).or_else(|| words::spoken_choice(answer))
        {
            return letter.to_string();
        }
        let text = answer.trim().trim_matches('$').trim();
        if let Some(number) = canonical_number(text) {
            return number;
        }
        match parse(text) {
            Ok(node)
                if !node.any(&|n| {
                    matches!(n, Node::Number { decimals: Some(_), .. } | Node::Percent(_) | Node::Based { .. })
                }) =>
            {
                scalar::constant(&node).map(|value| value.to_string())
            }
            _ => None,
        }
        .unwrap_or_else(|| text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(200).collect())
    }

    /// A choice that stands in prose without any announcement.
    fn spoken_choice(&self, response: &str) -> Verdict {
        let chosen = words::choice(&self.text).zip(words::chosen(response).or_else(|| words::spoken_choice(response)));
        if chosen.is_some_and(|(wanted, chosen)| wanted == chosen) { Verdict::Correct } else { Verdict::Incorrect }
    }
}

/// The answer that a reference states, without dollar signs, boxes and prose.
fn reference_text(reference: &str) -> Option<String> {
    let text = reference.trim();
    if text.is_empty() {
        return None;
    }
    if text.contains("\\boxed") || text.contains("\\fbox") {
        return boxed(text).filter(|t| !t.is_empty());
    }
    if text.contains("####") || (is_prose(text) && text.len() > 30) {
        // Of prose with several formulas and no announcement, none is the answer by itself.
        let stated =
            |l: &Located| !matches!(l.place, Place::Formula | Place::LastNumber) || text.matches('$').count() <= 2;
        return locate(text, true).filter(stated).map(|l| l.text).or_else(|| Some(text.to_owned()));
    }
    let single = text.strip_prefix('$').and_then(|t| t.strip_suffix('$')).filter(|t| !t.contains('$'));
    let text = single.unwrap_or(text).trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// Grades a response against a reference.
///
/// ```
/// use aha_tasks::Verdict;
/// use aha_tasks::math::{GradeOptions, grade};
///
/// let graded = grade(r"\frac{1}{2}", "so the answer is 0.5.", GradeOptions::default());
/// assert_eq!(graded.verdict, Verdict::Correct);
/// ```
pub fn grade(reference: &str, response: &str, options: GradeOptions) -> Graded {
    match Grader::new(reference, options) {
        Some(grader) => grader.grade(response),
        None => Graded { verdict: Verdict::NotJudged, reference: None, answer: None, place: None },
    }
}
