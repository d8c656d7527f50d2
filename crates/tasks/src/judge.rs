//! The judge: finds the answer in a completion and compares it with the reference by rule, as R1's accuracy and format
//! rewards do (DeepSeek-R1, section 2.2). Text of a model is only ever parsed, and in time linear in its length.

use serde::{Deserialize, Serialize};

use crate::check::Check;
use crate::expression::Expression;
use crate::extract::{ANSWER_CLOSE, ANSWER_OPEN, THINK_CLOSE, lenient_answers, tagged_answer, unboxed, well_formed};
use crate::format::r1_shape;
use crate::math::{GradeOptions, Grader};
use crate::number::{canonical_number, numbers_in};
use crate::problem::{Judgement, Problem, Reference, Verdict};
use crate::program::{Example, Fault, Program};

/// Where the answer has to stand to count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnswerPlace {
    /// Inside the only pair of answer tags, after the thinking.
    #[default]
    Tags,
    /// The last thing that looks like an answer: tags, a box, "the answer is", "####", else the last number.
    Lenient,
    /// In what follows the thinking, which must have R1's shape: there the last thing that looks like an answer, or all of it
    /// where the reference looks at whole answers. R1-Zero's tags are such a thing, so both formats are read.
    Summary,
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
    let format = finished
        && match options.place {
            AnswerPlace::Summary => r1_shape(completion, options.prefilled_think),
            AnswerPlace::Tags | AnswerPlace::Lenient => well_formed(completion, options.prefilled_think),
        };
    let Some(wanted) = Wanted::new(&problem.reference) else {
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
    let strict = || tagged_answer(completion, options.prefilled_think).map(|text| wanted.read(text));
    let summary = || format.then(|| after_thought(completion)).and_then(|text| wanted.read_leniently(text));
    let lenient = wanted.read_leniently(completion);
    let verdict_of = |reading: &Option<Reading>| reading.as_ref().map_or(Verdict::Incorrect, |r| r.verdict);
    let lenient_verdict = verdict_of(&lenient);
    let chosen = match options.place {
        AnswerPlace::Tags => strict(),
        AnswerPlace::Lenient => lenient,
        AnswerPlace::Summary => summary(),
    };
    Judgement { verdict: verdict_of(&chosen), lenient_verdict, answer: chosen.map(|r| r.canonical), format }
}

/// A reference that has been checked.
enum Wanted<'a> {
    Number(String),
    Countdown { numbers: &'a [i64], target: i64 },
    Text(&'a str),
    Math(Box<Grader>),
    Program { shown: &'a [Example], hidden: &'a [Example] },
    Check(&'a Check),
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
            Reference::Program { shown, hidden } => (!hidden.is_empty()).then_some(Self::Program { shown, hidden }),
            // Programs are judged by the task that has the sandbox.
            Reference::Check(Check::Open { .. }) | Reference::Code(_) => None,
            Reference::Check(check) => Some(Self::Check(check)),
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
            Self::Program { shown, hidden } => program(text, shown, hidden),
            Self::Check(check) => Reading {
                verdict: verdict(check.holds(text)),
                canonical: text.split_whitespace().collect::<Vec<_>>().join(" "),
            },
        }
    }

    /// Reads the last answer anywhere: the last place that looks like one and can be read; for numbers, else the last
    /// number of the text.
    fn read_leniently(&self, completion: &str) -> Option<Reading> {
        if let Self::Math(grader) = self {
            let graded = grader.grade(completion);
            return graded.answer.map(|text| Reading { verdict: graded.verdict, canonical: grader.canonical(&text) });
        }
        if let Self::Check(_) = self {
            let text = summary(completion);
            return (!text.is_empty()).then(|| self.read(text));
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
                Self::Program { .. } => Some(self.read(text.trim_end_matches(['.', '。']))),
                Self::Math(_) | Self::Check(_) => None,
            }
        });
        by_place.or_else(|| match self {
            Self::Number(_) => numbers_in(completion).pop().map(|n| self.read(&n)),
            Self::Program { .. } => Some(last_code(completion)).filter(|c| !c.is_empty()).map(|code| self.read(code)),
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

/// What a program does on all examples; the same outputs are the same answer.
fn program(text: &str, shown: &[Example], hidden: &[Example]) -> Reading {
    let program = match Program::parse(text) {
        Ok(program) => program,
        Err(Fault::Unsupported) => return Reading { verdict: Verdict::NotJudged, ..unreadable(text) },
        Err(Fault::Syntax | Fault::Raises) => return unreadable(text),
    };
    let verdict = match program.passes(shown.iter().chain(hidden)) {
        Some(right) => verdict(right),
        None => Verdict::NotJudged,
    };
    let outputs = shown.iter().chain(hidden).map(|e| match program.call(&e.input) {
        Ok(value) => value.to_string(),
        Err(fault) => format!("{fault:?}"),
    });
    Reading { verdict, canonical: outputs.collect::<Vec<_>>().join(";") }
}

/// The last piece of code in backquotes after the thinking; all of the text when there is none.
fn last_code(completion: &str) -> &str {
    let text = summary(completion);
    let inline = || text.rsplit_once('`').and_then(|(before, _)| before.rsplit_once('`')).map(|(_, code)| code);
    let fenced = || text.rsplit_once("```").and_then(|(before, _)| before.rsplit_once("```")).map(|(_, code)| code);
    let code = if text.contains("```") { fenced() } else { inline() }.unwrap_or(text);
    code.strip_prefix("python\n").unwrap_or(code).trim()
}

/// What follows the thinking.
fn after_thought(completion: &str) -> &str {
    completion.rsplit_once(THINK_CLOSE).map_or(completion, |(_, after)| after).trim()
}

/// What follows the thinking, without R1-Zero's tags around it.
pub fn summary(completion: &str) -> &str {
    let after = after_thought(completion);
    let inside = after.strip_prefix(ANSWER_OPEN).and_then(|t| t.strip_suffix(ANSWER_CLOSE));
    inside.unwrap_or(after).trim()
}

/// An answer that cannot be read as what is wanted: wrong, and for voting its own text without spaces, shortened.
fn unreadable(text: &str) -> Reading {
    let canonical = text.split_whitespace().flat_map(str::chars).take(64).collect();
    Reading { canonical, verdict: Verdict::Incorrect }
}
