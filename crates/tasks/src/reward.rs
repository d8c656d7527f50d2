//! Rule rewards: accuracy and format of R1-Zero (DeepSeek-R1, section 2.2), graded and lenient variants of format, R1's
//! language consistency (section 2.3.2), and penalties on length and repetition. No reward model.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::extract::tags_once;
use crate::format::{chain_of_thought, r1_shape, r1_shape_lenient, zero_shape_lenient};
use crate::language::{TextLanguage, share};
use crate::mini::general::quality;
use crate::problem::{Judgement, Language, Problem, Verdict};
use crate::repetition::{NGRAM, length, repetition};

/// What a reward looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RewardKind {
    /// 1 for a correct answer, 0 for a wrong or missing one, none when the answer could not be judged.
    Accuracy,
    /// 1 when the completion has the think/answer shape exactly, else 0.
    Format,
    /// A quarter for each of the four tags that occurs exactly once, and 1 for the exact shape.
    TagCount,
    /// 1 for the think/answer shape with text allowed around it, else 0.
    FormatLenient,
    /// 1 for R1's shape: one think pair at the beginning, then an answer without tags.
    FormatR1,
    /// As `FormatR1`, with the opening tag there or not.
    FormatR1Lenient,
    /// Share of the words of the chain of thought that are in the question's language; 0 without a word in it.
    LanguageConsistency,
    /// Minus the share of the allowed tokens that was used.
    LengthPenalty,
    /// Minus the share of n-grams that occurred before.
    RepetitionPenalty,
    /// True quality of an answer to a request of the miniature world, 0 to 1: a verifier that no reward model has seen, to be
    /// measured with weight 0 beside one. None elsewhere.
    Quality,
}

impl RewardKind {
    /// Every kind.
    pub const ALL: [Self; 10] = [
        Self::Accuracy,
        Self::Format,
        Self::TagCount,
        Self::FormatLenient,
        Self::FormatR1,
        Self::FormatR1Lenient,
        Self::LanguageConsistency,
        Self::LengthPenalty,
        Self::RepetitionPenalty,
        Self::Quality,
    ];

    /// Name as in a recipe.
    pub fn name(self) -> &'static str {
        match self {
            Self::Accuracy => "accuracy",
            Self::Format => "format",
            Self::TagCount => "tag_count",
            Self::FormatLenient => "format_lenient",
            Self::FormatR1 => "format_r1",
            Self::FormatR1Lenient => "format_r1_lenient",
            Self::LanguageConsistency => "language_consistency",
            Self::LengthPenalty => "length_penalty",
            Self::RepetitionPenalty => "repetition_penalty",
            Self::Quality => "quality",
        }
    }
}

impl fmt::Display for RewardKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A reward name nobody knows; the message names the nearest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown reward \"{name}\"; did you mean \"{nearest}\"? Known: {}", names())]
pub struct UnknownReward {
    /// The name.
    pub name: String,
    /// The known name most like it.
    pub nearest: &'static str,
}

impl FromStr for RewardKind {
    type Err = UnknownReward;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        if let Some(kind) = Self::ALL.into_iter().find(|kind| kind.name() == name) {
            return Ok(kind);
        }
        let nearest = Self::ALL
            .into_iter()
            .map(Self::name)
            .min_by_key(|known| strsim::damerau_levenshtein(known, name))
            .expect("there are kinds");
        Err(UnknownReward { name: name.to_owned(), nearest })
    }
}

/// One reward of a recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RewardSpec {
    /// Name in metrics and rollouts.
    pub name: String,
    /// What it looks at.
    pub kind: RewardKind,
    /// Its factor in the sum.
    pub weight: f64,
}

impl RewardSpec {
    /// A reward named after its kind.
    pub fn new(kind: RewardKind, weight: f64) -> Self {
        Self { name: kind.name().to_owned(), kind, weight }
    }
}

/// Every name, for messages.
fn names() -> String {
    RewardKind::ALL.map(RewardKind::name).join(", ")
}

/// A completion and what rewards may look at.
#[derive(Clone, Copy, Debug)]
pub struct Rewarded<'a> {
    /// The problem.
    pub problem: &'a Problem,
    /// The text, without its end-of-text token.
    pub completion: &'a str,
    /// What the judge found.
    pub judgement: &'a Judgement,
    /// Whether the prompt ends in the opening think tag.
    pub prefilled_think: bool,
    /// Whether it ended by itself.
    pub finished: bool,
    /// Its length in tokens.
    pub tokens: usize,
    /// The longest it could have been.
    pub max_tokens: usize,
}

/// The language a question asks to think in: what most of its words are in, or what the problem says when that is Chinese or
/// when the words are too few.
pub fn target(problem: &Problem) -> TextLanguage {
    let declared = match problem.language {
        Language::Chinese => return TextLanguage::CHINESE,
        Language::English => TextLanguage::ENGLISH,
    };
    match TextLanguage::of(&problem.question) {
        Some(found) if found.script != declared.script || found.lang.is_some() => found,
        _ => declared,
    }
}

/// The rewards of one completion before their weights, in the order of `specs`. `None` means that there is no verdict: such
/// a completion must leave the group's baseline, it is not worth zero.
pub fn rewards(specs: &[RewardSpec], of: &Rewarded<'_>) -> Vec<Option<f64>> {
    let (completion, judgement) = (of.completion, of.judgement);
    let shape = |right: bool| Some(f64::from(u8::from(of.finished && right)));
    let value = |kind| match kind {
        RewardKind::Accuracy => match judgement.verdict {
            Verdict::Correct => Some(1.0),
            Verdict::Incorrect => Some(0.0),
            Verdict::NotJudged => None,
        },
        RewardKind::Format => Some(f64::from(u8::from(judgement.format))),
        // Under a prefilled think tag the completion itself holds three tags, hence the exact shape first.
        RewardKind::TagCount if judgement.format => Some(1.0),
        RewardKind::TagCount => Some(tags_once(completion) as f64 * 0.25),
        RewardKind::FormatLenient => shape(zero_shape_lenient(completion)),
        RewardKind::FormatR1 => shape(r1_shape(completion, of.prefilled_think)),
        RewardKind::FormatR1Lenient => shape(r1_shape_lenient(completion)),
        // Without tags all of it counts, so that leaving them out hides nothing, and so where nothing had to be thought about;
        // without words there is nothing to praise.
        RewardKind::LanguageConsistency => {
            let thought = chain_of_thought(completion, of.prefilled_think).filter(|t| !t.trim().is_empty());
            let thought = thought.unwrap_or(completion);
            Some(share(thought, target(of.problem)).unwrap_or(0.0))
        }
        RewardKind::LengthPenalty => Some(-length(of.tokens, of.max_tokens)),
        RewardKind::RepetitionPenalty => Some(-repetition(completion, NGRAM)),
        RewardKind::Quality => quality(of.problem, completion).map(|q| if of.finished { q } else { 0.0 }),
    };
    specs.iter().map(|spec| value(spec.kind)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judgement(verdict: Verdict, format: bool) -> Judgement {
        Judgement { verdict, lenient_verdict: verdict, answer: None, format }
    }

    fn problem(question: &str) -> Problem {
        Problem {
            id: "x".into(),
            family: "x".into(),
            language: Language::English,
            question: question.into(),
            reference: crate::problem::Reference::Integer(1),
            columns: serde_json::Map::new(),
        }
    }

    fn all(question: &str, completion: &str, judgement: &Judgement) -> Vec<Option<f64>> {
        let specs: Vec<_> = RewardKind::ALL.into_iter().map(|kind| RewardSpec::new(kind, 0.5)).collect();
        let problem = problem(question);
        let (prefilled_think, finished, tokens, max_tokens) = (false, true, 5, 10);
        let of = Rewarded { problem: &problem, completion, judgement, prefilled_think, finished, tokens, max_tokens };
        assert!(rewards(&[], &of).is_empty());
        rewards(&specs, &of)
    }

    #[test]
    fn values() {
        let whole = "<think>so it is</think><answer>1</answer>";
        let got = all("How many are there?", whole, &judgement(Verdict::Correct, true));
        assert_eq!(got[..9], [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, -0.5, 0.0].map(Some));
        assert_eq!(got[9..], [None]);
        let open = "<think>so it is</think><answer>1";
        let got = all("How many are there?", open, &judgement(Verdict::Incorrect, false));
        assert_eq!(got[..6], [0.0, 0.0, 0.75, 0.0, 1.0, 1.0].map(Some));
        let got = all("How many are there?", "", &judgement(Verdict::NotJudged, false));
        assert_eq!(got[..3], [None, Some(0.0), Some(0.0)]);
        assert_eq!(got[6], Some(0.0));
        let doubled = "<think><think></think><answer>1</answer>";
        assert_eq!(all("x", doubled, &judgement(Verdict::Incorrect, false))[2], Some(0.75));
    }

    #[test]
    fn language_of_the_question_decides() {
        let got = |question, completion| all(question, completion, &judgement(Verdict::Correct, true))[6];
        assert_eq!(got("小明有三个苹果，又买了两个，一共有几个？", "<think>three and two</think>5"), Some(0.0));
        assert_eq!(got("小明有三个苹果，又买了两个，一共有几个？", "<think>三加二</think>five"), Some(1.0));
        assert_eq!(got("What is 3 + 2?", "<think>two words 两字</think>5"), Some(0.5));
        assert_eq!(got("What is 3 + 2?", "<think>3 + 2</think>5"), Some(0.0));
        // A dozen English words in which trigrams see Danish.
        let question = "Can you help me get some apples so I can bake a pie at home?";
        assert_eq!(got(question, "<think>They ask for apples and want to bake a pie.</think>Yes."), Some(1.0));
        assert_eq!(got("hello", "<think></think>Hello Tom!"), Some(1.0));
        assert_eq!(got("hello", "<think></think>5"), Some(0.0));
    }

    #[test]
    fn names() {
        for kind in RewardKind::ALL {
            assert_eq!(kind.name().parse(), Ok(kind));
        }
        assert_eq!("acuracy".parse::<RewardKind>().unwrap_err().nearest, "accuracy");
        assert_eq!("tag-count".parse::<RewardKind>().unwrap_err().nearest, "tag_count");
        let message = "formt".parse::<RewardKind>().unwrap_err().to_string();
        assert!(message.contains("\"formt\"") && message.contains("did you mean \"format\""), "{message}");
    }
}
