//! The filters that look at one row (DeepSeek-R1, section 2.3.3: mixed languages, long paragraphs, code blocks in the chain of
//! thought; long version, B.3.2: correct, readable, no repetition). Those that look at all rows are in `select`.

use std::fmt;

use aha_tasks::Verdict;
use aha_tasks::language::share;
use aha_tasks::repetition::repetition;
use aha_tasks::reward::target;
use serde::{Deserialize, Serialize};

use crate::candidate::{Candidate, RULE, State};
use crate::settings::{Settings, Unjudged};

/// A filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FilterName {
    /// People's decisions.
    Decided,
    /// Ended by itself.
    Finished,
    /// R1's shape; R1-Zero's is rewritten.
    Shape,
    /// Verified again.
    Correct,
    /// Language of the chain of thought.
    Language,
    /// Repetition.
    Repetition,
    /// Over-long paragraphs.
    Paragraphs,
    /// Code in the chain of thought.
    Code,
    /// Bounds of length.
    Length,
    /// Overlap with evaluation sets.
    Decontamination,
    /// Near-duplicates.
    Duplicates,
    /// Pass rate of the prompt.
    Difficulty,
    /// Answers per prompt.
    PerPrompt,
    /// Balance by task and difficulty.
    Balance,
}

impl FilterName {
    /// Every filter in the order in which they are applied.
    pub const ALL: [Self; 14] = [
        Self::Decided,
        Self::Finished,
        Self::Shape,
        Self::Correct,
        Self::Language,
        Self::Repetition,
        Self::Paragraphs,
        Self::Code,
        Self::Length,
        Self::Decontamination,
        Self::Duplicates,
        Self::Difficulty,
        Self::PerPrompt,
        Self::Balance,
    ];

    /// The name in settings and files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Decided => "decided",
            Self::Finished => "finished",
            Self::Shape => "shape",
            Self::Correct => "correct",
            Self::Language => "language",
            Self::Repetition => "repetition",
            Self::Paragraphs => "paragraphs",
            Self::Code => "code",
            Self::Length => "length",
            Self::Decontamination => "decontamination",
            Self::Duplicates => "duplicates",
            Self::Difficulty => "difficulty",
            Self::PerPrompt => "per_prompt",
            Self::Balance => "balance",
        }
    }

    /// What it keeps, for the data card.
    pub fn about(self) -> &'static str {
        match self {
            Self::Decided => "not rejected by people",
            Self::Finished => "ended by itself, not cut off at the length limit",
            Self::Shape => "reasoning in think tags, then a summary; R1-Zero's format is rewritten",
            Self::Correct => "the answer verifies again in the text as it will be trained on",
            Self::Language => "the chain of thought is in the question's language",
            Self::Repetition => "few n-grams occur twice",
            Self::Paragraphs => "no over-long paragraph",
            Self::Code => "no code in the chain of thought",
            Self::Length => "within the bounds of length",
            Self::Decontamination => "no overlap with an evaluation set",
            Self::Duplicates => "no near-duplicate of an earlier row",
            Self::Difficulty => "the prompt's pass rate is within bounds",
            Self::PerPrompt => "not too many answers of one prompt",
            Self::Balance => "balanced by task and difficulty",
        }
    }
}

impl fmt::Display for FilterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a row was thrown out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// One of a few kinds, which are counted.
    pub kind: &'static str,
    /// What exactly, with the numbers or the words in question.
    pub detail: String,
}

/// Characters of a quotation in a detail.
const QUOTED: usize = 80;

impl Reason {
    /// A reason; a long detail is shortened.
    pub fn new(kind: &'static str, detail: impl AsRef<str>) -> Self {
        Self { kind, detail: shortened(detail.as_ref(), QUOTED) }
    }
}

/// The beginning of a text, on one line.
pub(crate) fn shortened(text: &str, chars: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(chars) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line,
    }
}

/// A row after a filter that looks at it alone: kept, or thrown out for a reason.
pub(crate) fn judge_row(filter: FilterName, row: &Candidate, settings: &Settings) -> Option<Reason> {
    match filter {
        FilterName::Decided => decided(row, settings.decided.required),
        FilterName::Finished => {
            let cut = !row.finished && row.decision.edited.is_none();
            cut.then(|| Reason::new("cut off", row.tokens.map_or_else(String::new, |n| format!("after {n} tokens"))))
        }
        FilterName::Correct => correct(row, settings),
        FilterName::Language => language(row, settings.language.min_share),
        FilterName::Repetition => {
            let found = repetition(row.text(), settings.repetition.ngram);
            let most = settings.repetition.max;
            (found > most)
                .then(|| Reason::new("repetition", format!("{found:.3} of the n-grams are repeats, more than {most}")))
        }
        FilterName::Paragraphs => paragraphs(row.text(), settings.paragraphs.max_chars),
        FilterName::Code => row.thought().and_then(code),
        FilterName::Length => length(row, settings),
        FilterName::Difficulty => {
            let (rate, bounds) = (row.pass_rate?, &settings.difficulty);
            let kind = if rate < bounds.min_pass_rate {
                "too hard"
            } else if rate > bounds.max_pass_rate {
                "too easy"
            } else {
                return None;
            };
            Some(Reason::new(kind, format!("pass rate {rate:.3}")))
        }
        _ => None,
    }
}

fn decided(row: &Candidate, required: bool) -> Option<Reason> {
    match row.decision.state {
        State::Rejected => Some(Reason::new("rejected", &row.decision.reason)),
        State::New if required => Some(Reason::new("nobody decided", "")),
        _ => None,
    }
}

/// Every verdict is made again: what a file says of itself does not count where a rule can judge.
fn correct(row: &Candidate, settings: &Settings) -> Option<Reason> {
    let judgement = row.judge(settings.correct.place);
    match judgement.verdict {
        Verdict::Correct => None,
        Verdict::Incorrect => {
            let detail = judgement.answer.unwrap_or_else(|| "no answer found".to_owned());
            Some(Reason::new("incorrect", detail))
        }
        Verdict::NotJudged => {
            let people = matches!(row.decision.state, State::Accepted | State::Edited);
            let others = || row.verdicts.iter().filter(|(judge, _)| *judge != RULE).map(|(_, verdict)| *verdict);
            let good = others().any(|v| v == Verdict::Correct) && !others().any(|v| v == Verdict::Incorrect);
            let kept = match settings.correct.unjudged {
                Unjudged::Keep => true,
                Unjudged::Recorded => people || good,
                Unjudged::Drop => false,
            };
            (!kept).then(|| Reason::new("no verdict", "no rule can judge it and nobody else did"))
        }
    }
}

fn language(row: &Candidate, least: f64) -> Option<Reason> {
    let thought = row.thought().filter(|thought| !thought.trim().is_empty()).unwrap_or_else(|| row.text());
    let found = share(thought, target(&row.problem))?;
    (found < least)
        .then(|| Reason::new("mixed languages", format!("{found:.3} of the words are in the question's language")))
}

fn paragraphs(text: &str, most: usize) -> Option<Reason> {
    let longest = text.lines().max_by_key(|line| line.len()).unwrap_or_default();
    // Bytes bound characters from above, so most texts are not counted.
    let long = longest.len() > most && text.lines().any(|line| line.chars().count() > most);
    long.then(|| Reason::new("long paragraph", longest))
}

/// Lines in a row that look like code.
const CODE_LINES: usize = 3;

/// A fence, or several lines in a row that are code by their look.
fn code(thought: &str) -> Option<Reason> {
    let mut run = 0;
    for line in thought.lines() {
        let trimmed = line.trim();
        if trimmed.starts_with("```") || trimmed.starts_with("~~~") || trimmed.contains("```") {
            return Some(Reason::new("code block", trimmed));
        }
        run = if looks_like_code(trimmed) { run + 1 } else { 0 };
        if run == CODE_LINES {
            return Some(Reason::new("lines of code", trimmed));
        }
    }
    None
}

fn looks_like_code(line: &str) -> bool {
    let header = ["def ", "class ", "for ", "while ", "if ", "elif ", "else:", "try:", "except", "with ", "async def "];
    let statement = ["import ", "from ", "return ", "#include", "print(", "using ", "fn ", "let ", "var ", "const "];
    let block = header.iter().any(|word| line.starts_with(word)) && (line.ends_with(':') || line.ends_with('{'));
    let short = |word: &&str| {
        line.starts_with(*word) && (line.ends_with([';', ')', '>']) || line.split_whitespace().count() <= 4)
    };
    let assigned = line.split_once(" = ").is_some_and(|(name, value)| {
        let name = name.trim();
        !name.is_empty()
            && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '[' | ']' | '.'))
            && (line.ends_with(';') || value.contains('(') && value.ends_with(')'))
    });
    block || statement.iter().any(short) || assigned || matches!(line, "}" | "{" | "};")
}

fn length(row: &Candidate, settings: &Settings) -> Option<Reason> {
    let bounds = &settings.length;
    let chars = row.thought().map_or(0, |thought| thought.chars().count());
    let checks = [
        (row.tokens, bounds.min_tokens, bounds.max_tokens, "tokens"),
        (Some(chars), bounds.min_thought_chars, bounds.max_thought_chars, "characters of reasoning"),
    ];
    checks.into_iter().find_map(|(count, least, most, unit)| {
        let count = count?;
        let kind = if count < least {
            "too short"
        } else if most > 0 && count > most {
            "too long"
        } else {
            return None;
        };
        Some(Reason::new(kind, format!("{count} {unit}")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::candidate::tests::sum;

    fn kind(filter: FilterName, row: &Candidate) -> Option<&'static str> {
        judge_row(filter, row, &Settings::default()).map(|reason| reason.kind)
    }

    #[test]
    fn names_are_those_of_settings() {
        for filter in FilterName::ALL {
            assert_eq!(serde_json::to_string(&filter).unwrap(), format!("\"{filter}\""));
        }
        assert!(FilterName::ALL.is_sorted());
    }

    #[test]
    fn people_and_ends() {
        let mut row = sum(3, 4, "<think>a</think>7");
        assert_eq!((kind(FilterName::Decided, &row), kind(FilterName::Finished, &row)), (None, None));
        row.finished = false;
        assert_eq!(kind(FilterName::Finished, &row), Some("cut off"));
        row.decision.edited = Some("<think>b</think>7".into());
        assert_eq!(kind(FilterName::Finished, &row), None);
        row.decision.state = State::Rejected;
        assert_eq!(kind(FilterName::Decided, &row), Some("rejected"));
    }

    #[test]
    fn verdicts_are_made_again() {
        let mut row = sum(3, 4, "<think>a</think>8");
        row.verdicts.insert(RULE.into(), Verdict::Correct);
        row.verdicts.insert("judge".into(), Verdict::Correct);
        row.decision.state = State::Accepted;
        assert_eq!(kind(FilterName::Correct, &row), Some("incorrect"));
        row.problem.reference = aha_tasks::Reference::Check(aha_tasks::Check::Open { mentions: vec![] });
        assert_eq!(kind(FilterName::Correct, &row), None);
        row.decision.state = State::New;
        assert_eq!(kind(FilterName::Correct, &row), None);
        row.verdicts.insert("judge".into(), Verdict::Incorrect);
        assert_eq!(kind(FilterName::Correct, &row), Some("no verdict"));
    }

    #[test]
    fn languages() {
        assert_eq!(kind(FilterName::Language, &sum(3, 4, "<think>so 3+4=7 it is</think>7")), None);
        assert_eq!(
            kind(FilterName::Language, &sum(3, 4, "<think>所以 3+4=7</think>the sum is 7")),
            Some("mixed languages")
        );
        assert_eq!(kind(FilterName::Language, &sum(3, 4, "<think>3+4=7</think>7")), None);
    }

    #[test]
    fn repetition_and_paragraphs() {
        let often = format!("<think>{}</think>7", "wait let me check that again ".repeat(20));
        assert_eq!(kind(FilterName::Repetition, &sum(3, 4, &often)), Some("repetition"));
        assert_eq!(kind(FilterName::Repetition, &sum(3, 4, "<think>a b c d e f g</think>7")), None);
        let long = |text: &str| kind(FilterName::Paragraphs, &sum(3, 4, &format!("<think>{text}</think>\n7")));
        assert_eq!(long(&"字".repeat(2001)), Some("long paragraph"));
        // 2,000 characters are allowed, however many bytes they take.
        assert_eq!(long(&"字".repeat(1985)), None);
        assert_eq!(long(&"a line\n".repeat(2000)), None);
    }

    #[test]
    fn code_in_the_chain_only() {
        let in_chain = |text: &str| kind(FilterName::Code, &sum(3, 4, &format!("<think>{text}</think>7")));
        assert_eq!(in_chain("so\n```python\nprint(7)\n```"), Some("code block"));
        assert_eq!(in_chain("def f(x):\n    y = g(x)\n    return y"), Some("lines of code"));
        assert_eq!(in_chain("int main() {\n}\nfoo();"), None);
        assert_eq!(in_chain("for (i = 0; i < n; i++) {\n a = b;\n }"), Some("lines of code"));
        for prose in [
            "if x is 3:\nthen y = 4.\nfor all z we have w",
            "x = 3\ny = 4\nz = 5",
            "f(x) = (x+1)(x-1)\nlet us see what this gives us now\nreturn to the start of the problem please",
            "try `max(x)` on 3 1 2: 3",
        ] {
            assert_eq!(in_chain(prose), None, "{prose}");
        }
        assert_eq!(kind(FilterName::Code, &sum(3, 4, "<think>a</think>```\nprint(7)\n```")), None);
    }

    #[test]
    fn bounds() {
        let mut settings = Settings::default();
        settings.length.max_tokens = 10;
        settings.length.min_thought_chars = 2;
        settings.difficulty.max_pass_rate = 0.9;
        let mut row = sum(3, 4, "<think>abc</think>7");
        let kinds = |row: &Candidate| {
            [FilterName::Length, FilterName::Difficulty].map(|f| judge_row(f, row, &settings).map(|r| r.kind))
        };
        assert_eq!(kinds(&row), [None, None]);
        (row.tokens, row.pass_rate) = (Some(11), Some(1.0));
        assert_eq!(kinds(&row), [Some("too long"), Some("too easy")]);
        (row.tokens, row.completion) = (Some(10), "<think>a</think>7".into());
        assert_eq!(kinds(&row)[0], Some("too short"));
    }
}
