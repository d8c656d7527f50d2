//! Rule rewards of R1-Zero: accuracy and format (DeepSeek-R1, section 2.2), and a graded variant of format. No reward model.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::extract::tags_once;
use crate::problem::{Judgement, Verdict};

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
}

impl RewardKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Accuracy, Self::Format, Self::TagCount];

    /// Name as in a recipe.
    pub fn name(self) -> &'static str {
        match self {
            Self::Accuracy => "accuracy",
            Self::Format => "format",
            Self::TagCount => "tag_count",
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
#[error("unknown reward \"{name}\"; did you mean \"{nearest}\"? Known: accuracy, format, tag_count")]
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

/// The rewards of one completion before their weights, in the order of `specs`. `None` means that there is no verdict: such
/// a completion must leave the group's baseline, it is not worth zero.
pub fn rewards(specs: &[RewardSpec], completion: &str, judgement: &Judgement) -> Vec<Option<f64>> {
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
    };
    specs.iter().map(|spec| value(spec.kind)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn specs() -> Vec<RewardSpec> {
        RewardKind::ALL.into_iter().map(|kind| RewardSpec::new(kind, 0.5)).collect()
    }

    fn judgement(verdict: Verdict, format: bool) -> Judgement {
        Judgement { verdict, lenient_verdict: verdict, answer: None, format }
    }

    #[test]
    fn values() {
        let whole = "<think>a</think><answer>1</answer>";
        assert_eq!(rewards(&specs(), whole, &judgement(Verdict::Correct, true)), [Some(1.0), Some(1.0), Some(1.0)]);
        let open = "<think>a</think><answer>1";
        assert_eq!(rewards(&specs(), open, &judgement(Verdict::Incorrect, false)), [Some(0.0), Some(0.0), Some(0.75)]);
        assert_eq!(rewards(&specs(), "", &judgement(Verdict::NotJudged, false)), [None, Some(0.0), Some(0.0)]);
        let doubled = "<think><think></think><answer>1</answer>";
        assert_eq!(rewards(&specs(), doubled, &judgement(Verdict::Incorrect, false))[2], Some(0.75));
        assert!(rewards(&[], whole, &judgement(Verdict::Correct, true)).is_empty());
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
