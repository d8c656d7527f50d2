//! What the judge said, read strictly: one JSON object of the asked form, after its thinking if it thinks, and in a code fence
//! if it likes. Nothing is guessed from prose.

use crate::prompt::{Criterion, Label};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CorrectReply {
    #[serde(default)]
    pub reason: String,
    pub correct: bool,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PairReply {
    #[serde(default)]
    pub reason: String,
    pub label: Label,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RubricReply {
    #[serde(default)]
    pub reason: String,
    pub scores: BTreeMap<String, u32>,
}

impl RubricReply {
    /// Whether there is a score in range for every criterion and for nothing else.
    pub fn check(&self, criteria: &[Criterion], scale: u32) -> Result<(), String> {
        for c in criteria {
            match self.scores.get(&c.name) {
                None => return Err(format!("no score for {:?}", c.name)),
                Some(score) if !(1..=scale).contains(score) => {
                    return Err(format!("the score for {:?} is {score}, not 1 to {scale}", c.name));
                }
                Some(_) => {}
            }
        }
        if self.scores.len() > criteria.len() { Err("scores for what was not asked".into()) } else { Ok(()) }
    }
}

pub(crate) fn object<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let text = text.rsplit_once("</think>").map_or(text, |(_, rest)| rest).trim();
    let inner = text.strip_prefix("```json").or_else(|| text.strip_prefix("```"));
    let text = inner.and_then(|t| t.trim_end().strip_suffix("```")).unwrap_or(text).trim();
    if !text.starts_with('{') {
        return Err("it is no JSON object".into());
    }
    serde_json::from_str(text).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_asked_form_counts() {
        let read = object::<CorrectReply>;
        for text in [
            r#"{"reason": "same", "correct": true}"#,
            "  {\"correct\": true}\n",
            "<think>{\"correct\": false}</think>\n{\"correct\": true}",
            "```json\n{\"correct\": true}\n```",
        ] {
            assert!(read(text).unwrap().correct, "{text}");
        }
        for text in [
            "",
            "correct",
            "true",
            "Yes: {\"correct\": true}",
            "{\"correct\": \"true\"}",
            "{\"correct\": true, \"sure\": 1}",
            "{\"correct\": true} {\"correct\": false}",
            "{\"correct\": true, \"correct\": false}",
            "{\"reason\": \"x\"}",
            "[true]",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
        assert_eq!(object::<PairReply>(r#"{"label": "B>>A"}"#).unwrap().label, Label::MuchWorse);
        assert!(object::<PairReply>(r#"{"label": "A<B"}"#).is_err());
    }

    #[test]
    fn rubrics_need_every_score_in_range() {
        let criteria = ["true", "clear"].map(|n| Criterion { name: n.into(), description: String::new() });
        let check = |text: &str| object::<RubricReply>(text)?.check(&criteria, 10);
        assert_eq!(check(r#"{"scores": {"true": 10, "clear": 1}}"#), Ok(()));
        for text in [
            r#"{"scores": {"true": 10}}"#,
            r#"{"scores": {"true": 11, "clear": 1}}"#,
            r#"{"scores": {"true": 0, "clear": 1}}"#,
            r#"{"scores": {"true": 3.5, "clear": 1}}"#,
            r#"{"scores": {"true": 3, "clear": 1, "kind": 2}}"#,
        ] {
            assert!(check(text).is_err(), "{text}");
        }
    }
}
