//! The settings of all filters, as they stand in a recipe or behind `--filter`. Every default is stated here; the paper gives
//! no numbers for its filters (DeepSeek-R1, section 2.3.3), so they are ours unless a line says otherwise.

use std::collections::BTreeMap;

use aha_tasks::AnswerPlace;
use serde::{Deserialize, Serialize};

use crate::error::CurateError;
use crate::filters::FilterName;
use crate::minhash::NearDuplicates;

/// All of them. Unknown keys are refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Filters that are left out.
    pub skip: Vec<FilterName>,
    /// Rows each filter threw out that the data card shows.
    pub examples: usize,
    /// Seed of choices among equals.
    pub seed: u64,
    /// Decisions of people.
    pub decided: Decided,
    /// Shape and rewriting.
    pub shape: Shape,
    /// Verdicts.
    pub correct: Correct,
    /// Languages.
    pub language: LanguageShare,
    /// Repetition.
    pub repetition: Repetition,
    /// Paragraphs.
    pub paragraphs: Paragraphs,
    /// Lengths.
    pub length: Length,
    /// Overlap with evaluation sets.
    pub decontamination: Decontamination,
    /// Near-duplicates.
    pub duplicates: Duplicates,
    /// Difficulty.
    pub difficulty: Difficulty,
    /// Answers per prompt.
    pub per_prompt: PerPrompt,
    /// Balance.
    pub balance: Balance,
}

/// Rejected rows always go.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Decided {
    /// Keep only what someone accepted or edited, not what nobody has looked at.
    pub required: bool,
}

/// R1's shape, into which R1-Zero's is rewritten.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Shape {
    /// Rewrite R1-Zero's format as reasoning and a summary; otherwise it is thrown out.
    pub rewrite: bool,
    /// Put answers in mathematics into a box when rewriting.
    pub boxed: bool,
    /// Give rows of files that have no think tags an empty thought: simple requests need no thinking. Samples of a model are never
    /// mended like that.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unthinking: bool,
}

/// What happens where no rule can judge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unjudged {
    /// Thrown out.
    Drop,
    /// Kept if a person accepted it, or if a recorded verdict (of a judging model) is "correct" and none is "incorrect".
    #[default]
    Recorded,
    /// Kept.
    Keep,
}

/// Verdicts are made again on the text that will be trained on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Correct {
    /// Where the answer must stand.
    pub place: AnswerPlace,
    /// What happens where no rule can judge.
    pub unjudged: Unjudged,
}

/// Share of the words of the chain of thought that are in the question's language.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LanguageShare {
    /// Least share, from 0 to 1.
    pub min_share: f64,
}

/// Share of n-grams that occurred before in the same text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Repetition {
    /// Words of an n-gram.
    pub ngram: usize,
    /// Largest share, from 0 to 1.
    pub max: f64,
}

/// A paragraph ends at a line break.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Paragraphs {
    /// Characters of the longest paragraph.
    pub max_chars: usize,
}

/// Bounds; 0 is none. Tokens count only where their number is known.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Length {
    /// Tokens of the completion.
    pub min_tokens: usize,
    /// Tokens of the completion.
    pub max_tokens: usize,
    /// Characters of the chain of thought.
    pub min_thought_chars: usize,
    /// Characters of the chain of thought.
    pub max_thought_chars: usize,
}

/// Words that a row may not share with an evaluation set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Decontamination {
    /// Words of a run; 13 as usual, 10 in R1, 8 for short problems.
    pub words: usize,
    /// Runs in more evaluation texts than this are wording of the set, not of a problem, and do not count; 0: all count.
    pub common: u32,
    /// Look at the completion too, not only at the question.
    pub completions: bool,
}

/// Which text is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compared {
    /// Question and completion together.
    #[default]
    Sample,
    /// The question alone.
    Question,
    /// The completion alone.
    Completion,
}

/// MinHash with bands, see [`NearDuplicates`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Duplicates {
    /// Which text is compared.
    pub of: Compared,
    /// Words of a shingle.
    pub ngram: usize,
    /// Jaccard similarity from which two texts are duplicates.
    pub threshold: f64,
    /// Bands.
    pub bands: usize,
    /// MinHash values of a band.
    pub rows: usize,
}

/// Share of a prompt's samples that are correct; prompts without a verdict stay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Difficulty {
    /// Least pass rate.
    pub min_pass_rate: f64,
    /// Largest pass rate.
    pub max_pass_rate: f64,
}

/// Which answers of a prompt are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Choose {
    /// The shortest.
    Shortest,
    /// The shortest, then always the one that is least similar to those already taken.
    Diverse,
    /// At random.
    #[default]
    Random,
}

/// At most so many answers of a prompt.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PerPrompt {
    /// How many; 0: all.
    pub max: usize,
    /// Which.
    pub choose: Choose,
}

/// How many rows of each task and difficulty.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Balance {
    /// Rows in all; 0: as many as there are, or as the shares of `tasks` allow.
    pub total: usize,
    /// Shares by task (the family of the problems); tasks that are not named go. Empty: as they come.
    pub tasks: BTreeMap<String, f64>,
    /// Edges of pass rate between classes that are to be equally large within a task, e.g. [0.25, 0.5, 0.75].
    pub difficulty: Vec<f64>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            skip: Vec::new(),
            examples: 3,
            seed: 0,
            decided: Decided::default(),
            shape: Shape::default(),
            correct: Correct::default(),
            language: LanguageShare::default(),
            repetition: Repetition::default(),
            paragraphs: Paragraphs::default(),
            length: Length::default(),
            decontamination: Decontamination::default(),
            duplicates: Duplicates::default(),
            difficulty: Difficulty::default(),
            per_prompt: PerPrompt::default(),
            balance: Balance::default(),
        }
    }
}

impl Default for Shape {
    fn default() -> Self {
        Self { rewrite: true, boxed: true, unthinking: false }
    }
}

impl Default for Correct {
    fn default() -> Self {
        Self { place: AnswerPlace::Summary, unjudged: Unjudged::Recorded }
    }
}

impl Default for LanguageShare {
    fn default() -> Self {
        Self { min_share: 0.95 }
    }
}

impl Default for Repetition {
    fn default() -> Self {
        Self { ngram: aha_tasks::repetition::NGRAM, max: 0.5 }
    }
}

impl Default for Paragraphs {
    fn default() -> Self {
        Self { max_chars: 2000 }
    }
}

impl Default for Decontamination {
    fn default() -> Self {
        Self { words: 13, common: 0, completions: true }
    }
}

impl Default for Duplicates {
    fn default() -> Self {
        Self { of: Compared::Sample, ngram: 5, threshold: 0.8, bands: 24, rows: 7 }
    }
}

impl Default for Difficulty {
    fn default() -> Self {
        Self { min_pass_rate: 0.0, max_pass_rate: 1.0 }
    }
}

impl Duplicates {
    /// The search these settings describe.
    pub fn search(&self) -> NearDuplicates {
        NearDuplicates { ngram: self.ngram, threshold: self.threshold, bands: self.bands, rows: self.rows }
    }
}

impl Settings {
    /// Whether a filter is in use.
    pub fn uses(&self, filter: FilterName) -> bool {
        !self.skip.contains(&filter)
    }

    /// Refuses values out of range.
    ///
    /// # Errors
    /// The first such value, by its key.
    pub fn check(&self) -> Result<(), CurateError> {
        let wrong = |key, problem: String| Err(CurateError::Setting { key, problem });
        let shares = [
            ("language.min_share", self.language.min_share),
            ("repetition.max", self.repetition.max),
            ("duplicates.threshold", self.duplicates.threshold),
            ("difficulty.min_pass_rate", self.difficulty.min_pass_rate),
            ("difficulty.max_pass_rate", self.difficulty.max_pass_rate),
        ];
        if let Some((key, value)) = shares.into_iter().find(|(_, value)| !(0.0..=1.0).contains(value)) {
            return wrong(key, format!("{value} must lie between 0 and 1"));
        }
        let counts = [
            ("repetition.ngram", self.repetition.ngram, 100),
            ("paragraphs.max_chars", self.paragraphs.max_chars, usize::MAX),
            ("decontamination.words", self.decontamination.words, 1000),
            ("duplicates.ngram", self.duplicates.ngram, 100),
            ("duplicates.bands", self.duplicates.bands, 256),
            ("duplicates.rows", self.duplicates.rows, 256),
        ];
        if let Some((key, value, most)) = counts.into_iter().find(|(_, value, most)| *value == 0 || value > most) {
            let range = if most == usize::MAX { "at least 1".to_owned() } else { format!("from 1 to {most}") };
            return wrong(key, format!("{value} must be {range}; a filter is left out by skip"));
        }
        if self.difficulty.min_pass_rate > self.difficulty.max_pass_rate {
            return wrong("difficulty.min_pass_rate", "is larger than difficulty.max_pass_rate".to_owned());
        }
        let edges = &self.balance.difficulty;
        if !edges.iter().all(|edge| (0.0..=1.0).contains(edge)) || !edges.is_sorted_by(|a, b| a < b) {
            return wrong("balance.difficulty", format!("{edges:?} must rise and lie between 0 and 1"));
        }
        let shares = || self.balance.tasks.values();
        if shares().any(|share| !(*share >= 0.0 && share.is_finite())) {
            return wrong("balance.tasks", "shares must be numbers of 0 or more".to_owned());
        }
        if !self.balance.tasks.is_empty() && shares().sum::<f64>() <= 0.0 {
            return wrong("balance.tasks", "no task has a share above 0".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_in_range_and_wrong_values_are_named() {
        Settings::default().check().unwrap();
        let message = |json: &str| serde_json::from_str::<Settings>(json).unwrap().check().unwrap_err().to_string();
        assert!(message(r#"{"language":{"min_share":2}}"#).contains("language.min_share: 2 must lie"));
        assert!(message(r#"{"duplicates":{"bands":0}}"#).contains("duplicates.bands: 0 must be from 1 to 256"));
        assert!(message(r#"{"balance":{"difficulty":[0.5,0.2]}}"#).contains("balance.difficulty"));
        assert!(message(r#"{"balance":{"tasks":{"a":0}}}"#).contains("no task"));
        assert!(message(r#"{"difficulty":{"min_pass_rate":1,"max_pass_rate":0.5}}"#).contains("min_pass_rate"));
        assert!(serde_json::from_str::<Settings>(r#"{"languages":{}}"#).is_err());
        assert!(serde_json::from_str::<Settings>(r#"{"skip":["codes"]}"#).is_err());
        let skip: Settings = serde_json::from_str(r#"{"skip":["code"]}"#).unwrap();
        assert!(!skip.uses(FilterName::Code) && skip.uses(FilterName::Shape));
    }
}
