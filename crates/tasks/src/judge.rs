//! The judge: finds the answer in a completion and compares it with the reference by rule, as R1's accuracy and format
//! rewards do (DeepSeek-R1, section 2.2). Text of a model is only ever parsed, and in time linear in its length.

use serde::{Deserialize, Serialize};

use crate::expression::Expression;
use crate::extract::{lenient_answers, tagged_answer, unboxed, well_formed};
use crate::math::{GradeOptions, Grader};
use crate::number::{canonical_number, numbers_in};
use crate::problem::{Judgement, Problem, Reference, Verdict};

/// Where the answer has to stand to count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnswerPlace {
    /// Inside the only pair of answer tags, after the thinking.
    #[default]
    Tags,
    /// The last thing that looks like an answer: tags, a box, "the answer is", "####", else the last number.
    Lenient,
}

/// How to judge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JudgeOptions {
    /// Where the answer has to stand.
    pub place: AnswerPlace,
    /// Whether the prompt ends in the opening think tag, which then counts as present.
    pub prefilled_think: bool,
}

/// An answer as read: its canonical form for voting, and what the reference says of it.
struct Reading {
    canonical: String,
    verdict: Verdict,
}

/// Judges a completion whose end-of-text token has been removed. A completion that was cut off (`finished` false) has no
/// answer and no format. A reference that is itself broken gives [`Verdict::NotJudged`].
///
/// Equal answers have equal canonical forms, and answers with one canonical form always get one verdict: numbers are
/// normalised decimals, countdown expressions are their value with the numbers they use, text is itself. Of mathematics only
/// rational numbers have one form however they are written; the rest is its text.
pub fn judge(problem: &Problem, completion: &str, finished: bool, options: &JudgeOptions) -> Judgement {
    let Some(wanted) = Wanted::new(&problem.reference) else {
        let format = finished && well_formed(completion, options.prefilled_think);
        return Judgement { verdict: Verdict::NotJudged, lenient_verdict: Verdict::NotJudged, answer: None, format };
    };
    if !finished {
        return Judgement {
            verdict: Verdict::Incorrect,
            lenient_verdict: Verdict::Incorrect,
            answer: None,
            format: false,
        };
    }
    let strict = tagged_answer(completion, options.prefilled_think).map(|text| wanted.read(text));
    let lenient = wanted.read_leniently(completion);
    let verdict_of = |reading: &Option<Reading>| reading.as_ref().map_or(Verdict::Incorrect, |r| r.verdict);
    let lenient_verdict = verdict_of(&lenient);
    let chosen = match options.place {
        AnswerPlace::Tags => strict,
        AnswerPlace::Lenient => lenient,
    };
    Judgement {
        verdict: verdict_of(&chosen),
        lenient_verdict,
        answer: chosen.map(|r| r.canonical),
        format: well_formed(completion, options.prefilled_think),
    }
}

/// A reference that has been checked.
enum Wanted<'a> {
    Number(String),
    Countdown { numbers: &'a [i64], target: i64 },
    Text(&'a str),
    Math(Box<Grader>),
}

impl<'a> Wanted<'a> {
    fn new(reference: &'a Reference) -> Option<Self> {
        match reference {
            Reference::Integer(n) => Some(Self::Number(n.to_string())),
            Reference::Number(text) => canonical_number(text).map(Self::Number),
            Reference::Countdown { numbers, target } => {
                (!numbers.is_empty()).then_some(Self::Countdown { numbers, target: *target })
            }
            Reference::Text(text) => Some(text.trim()).filter(|t| !t.is_empty()).map(Self::Text),
            Reference::Math(text) => Grader::new(text, GradeOptions::default()).map(|g| Self::Math(Box::new(g))),
        }
    }

    /// Reads an answer that stands where it should: the whole text is the answer.
    fn read(&self, text: &str) -> Reading {
        let text = unboxed(text);
        match self {
            Self::Number(wanted) => match canonical_number(text) {
                Some(number) => Reading { verdict: verdict(number == *wanted), canonical: number },
                None => unreadable(text),
            },
            Self::Countdown { numbers, target } => match Expression::parse(text) {
                Some(e) => Reading {
                    verdict: verdict(e.value == *target && e.uses_exactly(numbers)),
                    canonical: format!("{} from {:?}", e.value, e.numbers),
                },
                None => unreadable(text),
            },
            Self::Text(wanted) => Reading { verdict: verdict(text == *wanted), canonical: text.to_owned() },
            Self::Math(grader) => Reading { verdict: grader.compare(text), canonical: grader.canonical(text) },
        }
    }

    /// Reads the last answer anywhere: the last place that looks like one and can be read; for numbers, else the last
    /// number of the text.
    fn read_leniently(&self, completion: &str) -> Option<Reading> {
        if let Self::Math(grader) = self {
            let graded = grader.grade(completion);
            return graded.answer.map(|text| Reading { verdict: graded.verdict, canonical: grader.canonical(&text) });
        }
        let places = lenient_answers(completion);
        let by_place = places.iter().find_map(|text| {
            let text = unboxed(text);
            match self {
                Self::Number(_) => number_in_phrase(text).map(|n| self.read(&n)),
                Self::Countdown { .. } => {
                    let left = text.split('=').next().unwrap_or(text);
                    let left =
                        left.trim().trim_end_matches(['.', '。', '`', '*', '$']).trim_start_matches(['`', '*', '$']);
                    Expression::parse(left).map(|_| self.read(left))
                }
                Self::Text(wanted) => {
                    let trimmed = text.trim_end_matches(['.', '。']).trim();
                    (!text.is_empty()).then(|| self.read(if text == *wanted { text } else { trimmed }))
                }
                Self::Math(_) => None,
            }
        });
        by_place.or_else(|| match self {
            Self::Number(_) => numbers_in(completion).pop().map(|n| self.read(&n)),
            _ => None,
        })
    }
}

/// The number a phrase such as `5 + 13 = 18 dollars` states: the whole of it, else the first after the last equals sign.
fn number_in_phrase(text: &str) -> Option<String> {
    canonical_number(text).or_else(|| {
        let stated = text.rsplit('=').next().unwrap_or(text);
        numbers_in(stated).into_iter().next().or_else(|| numbers_in(text).into_iter().next_back())
    })
}

fn verdict(right: bool) -> Verdict {
    if right { Verdict::Correct } else { Verdict::Incorrect }
}

/// An answer that cannot be read as what is wanted: wrong, and for voting its own text without spaces, shortened.
fn unreadable(text: &str) -> Reading {
    let canonical = text.split_whitespace().flat_map(str::chars).take(64).collect();
    Reading { canonical, verdict: Verdict::Incorrect }
}
