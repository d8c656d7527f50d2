//! Rules for whole answers outside of mathematics: what must be said, translations, lists of words, JSON, refusals.
//!
//! Each is a pure function of the answer's text, in time linear in its length.

use crate::language::{Script, script_of};
use crate::number::numbers_in;
use serde::{Deserialize, Serialize};

/// What an answer must be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// No rule decides: there is no verdict. A complete answer says at least these.
    Open {
        /// Words.
        mentions: Vec<String>,
    },
    /// It says all of some words and none of others.
    Says {
        /// All of these.
        wanted: Vec<String>,
        /// None of these.
        others: Vec<String>,
    },
    /// Its words in the script of this text are exactly those of the text; articles and 的 do not count.
    Translation(String),
    /// After the last colon, if any: so many different words, all of a list.
    Words {
        /// How many.
        count: usize,
        /// The word it begins with, if one is asked for.
        first: Option<String>,
        /// What there is to choose from.
        known: Vec<String>,
    },
    /// JSON equal to this, and nothing else; a code fence around it is allowed.
    Json(serde_json::Value),
    /// Whether the request is refused.
    Refused(bool),
    /// The last number in it.
    Number(i64),
}

/// Longest answer in bytes that a rule looks at; longer ones keep none.
const MAX_BYTES: usize = 4000;

impl Check {
    /// Whether an answer keeps the rule. An open question has none to break: use it only where there is a verdict.
    pub fn holds(&self, answer: &str) -> bool {
        let answer = answer.trim();
        // Refusals are looked for in answers of any length: one pass over the text for each phrase.
        if answer.is_empty() || answer.len() > MAX_BYTES && !matches!(self, Check::Refused(_)) {
            return false;
        }
        match self {
            Check::Open { mentions } => mentions.iter().all(|word| says(answer, word)) && !refuses(answer),
            Check::Says { wanted, others } => {
                wanted.iter().all(|word| says(answer, word)) && !others.iter().any(|word| says(answer, word))
            }
            Check::Translation(text) => {
                let script = text.chars().find_map(script_of);
                translated(answer, script) == translated(text, script)
            }
            Check::Words { count, first, known } => {
                let list = answer.rsplit([':', '：']).next().unwrap_or(answer);
                let words: Vec<&str> = list
                    .split(|c: char| c.is_whitespace() || matches!(c, ',' | '，' | '、' | '.' | '。' | ';'))
                    .filter(|w| !w.is_empty())
                    .collect();
                let different = words.iter().enumerate().all(|(i, w)| !words[..i].contains(w));
                let begins = first.as_ref().is_none_or(|first| words.first().is_some_and(|w| w == first));
                words.len() == *count && different && begins && words.iter().all(|w| known.iter().any(|k| k == w))
            }
            Check::Json(wanted) => json(answer).is_some_and(|found| found == *wanted),
            Check::Refused(wanted) => refuses(answer) == *wanted,
            Check::Number(wanted) => numbers_in(answer).pop().is_some_and(|n| n == wanted.to_string()),
        }
    }
}

/// The JSON an answer consists of.
pub fn json(answer: &str) -> Option<serde_json::Value> {
    let text = answer.trim();
    let inside = text.strip_prefix("```").and_then(|t| t.strip_suffix("```"));
    serde_json::from_str(inside.map_or(text, |t| t.strip_prefix("json").unwrap_or(t))).ok()
}

/// Whether a text has a word: as a whole and in any case for words of an alphabet, anywhere for Chinese.
pub fn says(text: &str, word: &str) -> bool {
    if word.chars().any(|c| script_of(c) == Some(Script::Han)) {
        return text.contains(word);
    }
    text.split(|c: char| !c.is_ascii_alphanumeric()).any(|w| w.eq_ignore_ascii_case(word))
}

/// The words of one script that carry meaning: Han characters one by one, others as words.
fn translated(text: &str, script: Option<Script>) -> Vec<String> {
    let of_script = |c: char| script_of(c) == script;
    if script == Some(Script::Han) {
        return text.chars().filter(|c| of_script(*c) && *c != '的').map(String::from).collect();
    }
    let words = text.split(|c: char| !of_script(c)).filter(|w| !w.is_empty()).map(str::to_lowercase);
    words.filter(|w| !matches!(w.as_str(), "a" | "an" | "the")).collect()
}

/// Phrases of refusal, in lower case: those of the miniature world, and those that chat models use.
const REFUSALS: [&str; 32] = [
    "can not help",
    "cannot help",
    "can't help",
    "will not help",
    "won't help",
    "not able to help",
    "unable to help",
    "can not do that",
    "cannot assist",
    "can't assist",
    "not able to assist",
    "unable to assist",
    "cannot provide",
    "can't provide",
    "won't provide",
    "unable to provide",
    "cannot fulfill",
    "can't fulfill",
    "cannot comply",
    "can't comply",
    "must decline",
    "have to decline",
    "sorry, but i can't",
    "sorry, but i cannot",
    "sorry, i can't",
    "不能帮",
    "无法帮",
    "不会帮",
    "不能做",
    "不能提供",
    "无法提供",
    "拒绝",
];

/// Whether an answer refuses.
pub fn refuses(answer: &str) -> bool {
    let answer = answer.to_lowercase().replace('’', "'");
    REFUSALS.iter().any(|phrase| answer.contains(phrase))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(list: &[&str]) -> Vec<String> {
        list.iter().map(|w| (*w).to_owned()).collect()
    }

    #[test]
    fn words_that_are_said() {
        let check = Check::Says { wanted: words(&["Rome"]), others: words(&["Paris", "London"]) };
        assert!(check.holds("Tom lives in rome."));
        for bad in ["Tom lives in Romeo.", "Rome, Paris or London", "I do not know", ""] {
            assert!(!check.holds(bad), "{bad}");
        }
        assert!(Check::Says { wanted: words(&["罗马"]), others: words(&["巴黎"]) }.holds("小明住在罗马。"));
    }

    #[test]
    fn translations() {
        let red = Check::Translation("红猫".into());
        assert!(red.holds("红猫") && red.holds("Sure! It is 红色猫.".replace('色', "的").as_str()));
        assert!(!red.holds("红狗") && !red.holds("猫") && !red.holds("red cat") && !red.holds("红猫红猫"));
        let cat = Check::Translation("red cat".into());
        assert!(cat.holds("好的,是the red cat。") && cat.holds("Red cat"));
        assert!(!cat.holds("cat red") && !cat.holds("red cats") && !cat.holds("it is red cat"));
    }

    #[test]
    fn lists_of_words() {
        let known = words(&["wet", "cold", "cloud", "drop"]);
        let check = Check::Words { count: 3, first: None, known: known.clone() };
        assert!(check.holds("wet, cold, cloud.") && check.holds("Sure: wet cold drop"));
        for bad in ["wet, cold", "wet, wet, cold", "wet, cold, sun", "wet, cold, cloud, drop", "Sure wet, cold, drop"] {
            assert!(!check.holds(bad), "{bad}");
        }
        let first = Check::Words { count: 2, first: Some("cold".into()), known };
        assert!(first.holds("cold, wet") && !first.holds("wet, cold"));
    }

    #[test]
    fn json_alone() {
        let check = Check::Json(serde_json::json!({"name": "Tom", "age": 7}));
        assert!(
            check.holds(r#"{"age": 7, "name": "Tom"}"#) && check.holds("```json\n{\"name\":\"Tom\",\"age\":7}\n```")
        );
        for bad in [r#"{"name":"Tom"}"#, r#"{"name":"Tom","age":"7"}"#, r#"Sure! {"name":"Tom","age":7}"#, "{"] {
            assert!(!check.holds(bad), "{bad}");
        }
        assert!(!check.holds(&"[".repeat(3000)));
    }

    #[test]
    fn refusals_numbers_and_open_questions() {
        assert!(Check::Refused(true).holds("Sorry, I can’t help with that.") && refuses("抱歉,这个我不能帮。"));
        assert!(Check::Refused(false).holds("Hit the egg on a bowl."));
        assert!(Check::Number(12).holds("7+5=12.") && !Check::Number(12).holds("12 or 13"));
        let open = Check::Open { mentions: words(&["Tom"]) };
        assert!(open.holds("Hello Tom!") && !open.holds("Hello!"));
    }
}
