//! A candidate: one completion of one prompt that may become training data, with everything that was found out and decided
//! about it (DeepSeek-R1, sections 2.3.1 and 2.3.3; long version, B.3.2 and B.3.3).

use std::collections::BTreeMap;

use aha_tasks::extract::{THINK_OPEN, well_formed};
use aha_tasks::format::chain_of_thought;
use aha_tasks::judge::summary;
use aha_tasks::{AnswerPlace, JudgeOptions, Judgement, Problem, Verdict, judge};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The judge by rule in [`Candidate::verdicts`].
pub const RULE: &str = "rule";

/// What was decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nothing yet.
    #[default]
    New,
    /// Taken as it is.
    Accepted,
    /// Taken in the edited form.
    Edited,
    /// Not taken.
    Rejected,
}

impl State {
    /// The name in files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Accepted => "accepted",
            Self::Edited => "edited",
            Self::Rejected => "rejected",
        }
    }
}

/// How a completion was sampled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sampling {
    /// Temperature.
    pub temperature: f64,
    /// Nucleus.
    pub top_p: f64,
    /// Tokens after which it would have been cut off.
    pub max_new_tokens: usize,
}

/// One completion of one prompt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// Its name, for ever: see [`Candidate::new_id`].
    pub id: String,
    /// The problem; its id is the prompt's.
    pub problem: Problem,
    /// What the model wrote, end-of-text token removed.
    pub completion: String,
    /// Whether the prompt ended in the opening think tag, which then is not in the completion.
    #[serde(default, skip_serializing_if = "is_false")]
    pub prefilled_think: bool,
    /// Length of the completion in tokens, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<usize>,
    /// Whether it ended by itself rather than at the length limit.
    #[serde(default = "yes")]
    pub finished: bool,
    /// Verdicts by judge, e.g. `rule`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub verdicts: BTreeMap<String, Verdict>,
    /// What wrote it: a checkpoint such as `zero`, or a file.
    #[serde(default)]
    pub source: String,
    /// How it was sampled, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampling: Option<Sampling>,
    /// Seed of its request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Which of the prompt's samples it is, from 0.
    #[serde(default)]
    pub sample: usize,
    /// Share of the prompt's samples that are correct: its difficulty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pass_rate: Option<f64>,
    /// What was decided, and by whom.
    #[serde(flatten)]
    pub decision: Decision,
}

/// A decision about a candidate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// What was decided.
    #[serde(default)]
    pub state: State,
    /// Why, may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The person's own text, in state `edited`; it has the opening think tag where the completion has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edited: Option<String>,
    /// Who decided: a person's name or `rule:NAME`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub who: String,
    /// When, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<f64>,
}

fn yes() -> bool {
    true
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !*value
}

impl Candidate {
    /// A new candidate about which nothing is known but its text.
    pub fn new(problem: Problem, completion: String, source: &str, seed: Option<u64>, sample: usize) -> Self {
        let mut candidate = Candidate {
            id: String::new(),
            problem,
            completion,
            prefilled_think: false,
            tokens: None,
            finished: true,
            verdicts: BTreeMap::new(),
            source: source.to_owned(),
            sampling: None,
            seed,
            sample,
            pass_rate: None,
            decision: Decision::default(),
        };
        candidate.id = candidate.new_id();
        candidate
    }

    /// The id of a new candidate: the first 16 hexadecimal digits of the SHA-256 of prompt, language, completion, source,
    /// seed and sample. So sampling again gives the same ids. Ids are given once; a rewritten text keeps its id.
    pub fn new_id(&self) -> String {
        let mut hash = Sha256::new();
        let seed = self.seed.map_or_else(String::new, |seed| seed.to_string());
        let language = format!("{:?}", self.problem.language);
        let parts = [&self.problem.id, &language, &self.problem.question, &self.completion, &self.source, &seed];
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.update((self.sample as u64).to_le_bytes());
        hash.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The text that counts: the edited one if there is one.
    pub fn text(&self) -> &str {
        self.decision.edited.as_deref().unwrap_or(&self.completion)
    }

    /// The chain of thought of [`text`](Self::text), none where no tag says where it is.
    pub fn thought(&self) -> Option<&str> {
        chain_of_thought(self.text(), self.prefilled_think)
    }

    /// What follows the thinking, R1-Zero's tags around it removed.
    pub fn answer(&self) -> &str {
        summary(self.text())
    }

    /// Judges the text that counts; a person's own text counts as finished. In exactly R1-Zero's format the answer is what
    /// stands in the tags, also where a summary would be read more leniently.
    pub fn judge(&self, place: AnswerPlace) -> Judgement {
        let tags = place == AnswerPlace::Summary && well_formed(self.text(), self.prefilled_think);
        let place = if tags { AnswerPlace::Tags } else { place };
        let options = JudgeOptions { place, prefilled_think: self.prefilled_think };
        judge(&self.problem, self.text(), self.finished || self.decision.edited.is_some(), &options)
    }

    /// The text with its opening think tag, whether or not the prompt held it.
    pub fn whole_text(&self) -> String {
        if self.prefilled_think { format!("{THINK_OPEN}{}", self.text()) } else { self.text().to_owned() }
    }

    /// What makes two candidates answers to the same prompt: id and language of the problem.
    pub fn prompt_key(&self) -> (&str, aha_tasks::Language) {
        (&self.problem.id, self.problem.language)
    }

    /// The whole conversation as training on messages reads it: earlier turns, the question, the text.
    pub fn messages(&self) -> Vec<serde_json::Value> {
        let turn = |role: &str, content: &str| serde_json::json!({"role": role, "content": content});
        let mut turns: Vec<_> =
            aha_tasks::mini::history(&self.problem).into_iter().map(|(role, text)| turn(role, text)).collect();
        turns.push(turn("user", &self.problem.question));
        turns.push(turn("assistant", &self.whole_text()));
        turns
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use aha_tasks::{Language, Reference};

    /// A sum, answered.
    pub fn sum(a: i64, b: i64, completion: &str) -> Candidate {
        let problem = Problem {
            id: format!("sum/{a}-{b}"),
            family: "sum".into(),
            language: Language::English,
            question: format!("what is {a} plus {b}?"),
            reference: Reference::Integer(a + b),
            columns: serde_json::Map::new(),
        };
        Candidate::new(problem, completion.to_owned(), "zero", Some(1), 0)
    }

    #[test]
    fn ids_are_stable_and_different() {
        let a = sum(3, 4, "<think>x</think>7");
        assert_eq!(a.id, sum(3, 4, "<think>x</think>7").id);
        assert_eq!(a.id.len(), 16);
        let mut others = vec![sum(3, 4, "<think>y</think>7"), sum(4, 3, "<think>x</think>7"), a.clone(), a.clone()];
        others[2].sample = 1;
        others[3].source = "dev2".into();
        for other in others {
            assert_ne!(other.new_id(), a.id);
        }
    }

    #[test]
    fn rows_survive_json_and_old_rows_may_lack_what_is_not_known() {
        let mut row = sum(3, 4, "<think>x</think>7");
        row.verdicts.insert(RULE.into(), Verdict::Correct);
        row.decision = Decision {
            state: State::Edited,
            reason: "clearer".into(),
            edited: Some("<think>y</think>7".into()),
            who: "ada".into(),
            when: Some(1.5),
        };
        let json = serde_json::to_string(&row).unwrap();
        assert!(json.contains("\"state\":\"edited\""), "{json}");
        assert_eq!(serde_json::from_str::<Candidate>(&json).unwrap(), row);
        let problem = serde_json::to_string(&row.problem).unwrap();
        let short = format!("{{\"id\":\"a\",\"problem\":{problem},\"completion\":\"7\"}}");
        let short: Candidate = serde_json::from_str(&short).unwrap();
        assert_eq!((short.decision.state, short.finished, short.tokens), (State::New, true, None));
    }

    #[test]
    fn an_edited_text_is_the_one_that_counts() {
        let mut row = sum(3, 4, "<think>x</think>8");
        assert_eq!(row.judge(AnswerPlace::Summary).verdict, Verdict::Incorrect);
        row.finished = false;
        row.decision.edited = Some("<think>3+4</think>7".into());
        assert_eq!(row.judge(AnswerPlace::Summary).verdict, Verdict::Correct);
        assert_eq!((row.thought(), row.answer()), (Some("3+4"), "7"));
        row.prefilled_think = true;
        row.decision.edited = Some("3+4</think>7".into());
        assert_eq!(row.whole_text(), "<think>3+4</think>7");
        assert_eq!(row.messages()[1]["content"], "<think>3+4</think>7");
    }
}
