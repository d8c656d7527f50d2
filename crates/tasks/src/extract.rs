//! Where answers stand in a completion: the think/answer shape of R1 (DeepSeek-R1, table 1), and the looser places chat
//! models use. Everything here is one pass over the text.

use std::sync::LazyLock;

use regex::Regex;

/// Opens the thinking.
pub const THINK_OPEN: &str = "<think>";
/// Closes the thinking.
pub const THINK_CLOSE: &str = "</think>";
/// Opens the answer.
pub const ANSWER_OPEN: &str = "<answer>";
/// Closes the answer.
pub const ANSWER_CLOSE: &str = "</answer>";

/// Longest answer phrase in bytes that is looked at.
const MAX_PHRASE: usize = 400;

/// Whether the completion is exactly one think pair, then one answer pair that is not empty, with nothing but white space
/// around and between.
pub fn well_formed(completion: &str, prefilled_think: bool) -> bool {
    let opens = usize::from(!prefilled_think);
    if count(completion, THINK_OPEN) != opens
        || [THINK_CLOSE, ANSWER_OPEN, ANSWER_CLOSE].iter().any(|tag| count(completion, tag) != 1)
    {
        return false;
    }
    let text = completion.trim();
    let thinking = if prefilled_think { Some(text) } else { text.strip_prefix(THINK_OPEN) };
    thinking
        .and_then(|t| t.split_once(THINK_CLOSE))
        .and_then(|(_, rest)| rest.trim_start().strip_prefix(ANSWER_OPEN))
        .and_then(|rest| rest.strip_suffix(ANSWER_CLOSE))
        .is_some_and(|answer| !answer.trim().is_empty())
}

/// The trimmed text of the only pair of answer tags, `None` when there is not exactly one pair, when it stands inside the
/// thinking, or when it is empty.
pub fn tagged_answer(completion: &str, prefilled_think: bool) -> Option<&str> {
    if count(completion, ANSWER_OPEN) != 1 || count(completion, ANSWER_CLOSE) != 1 {
        return None;
    }
    let (before, rest) = completion.split_once(ANSWER_OPEN)?;
    let (answer, _) = rest.split_once(ANSWER_CLOSE)?;
    let thinking = match (before.rfind(THINK_OPEN), before.rfind(THINK_CLOSE)) {
        (open, Some(close)) => open.is_some_and(|open| open > close),
        (Some(_), None) => true,
        (None, None) => prefilled_think,
    };
    let answer = answer.trim();
    (!thinking && !answer.is_empty() && !rest.contains(THINK_CLOSE)).then_some(answer)
}

/// How often each of the four tags occurs exactly once, from 0 to 4.
pub fn tags_once(completion: &str) -> usize {
    [THINK_OPEN, THINK_CLOSE, ANSWER_OPEN, ANSWER_CLOSE].iter().filter(|tag| count(completion, tag) == 1).count()
}

fn count(text: &str, tag: &str) -> usize {
    text.matches(tag).count()
}

/// The text inside `\boxed{...}` when that is all there is, dollar signs of mathematics around it removed.
pub fn unboxed(text: &str) -> &str {
    let text = text.trim();
    let inner = text.trim_matches('$').trim().trim_end_matches('.');
    match inner.strip_prefix("\\boxed{").and_then(|t| t.strip_suffix('}')) {
        Some(content) if balanced(content) => content.trim(),
        _ => text,
    }
}

fn balanced(text: &str) -> bool {
    let mut depth = 0i64;
    for byte in text.bytes() {
        depth += i64::from(byte == b'{') - i64::from(byte == b'}');
        if depth < 0 {
            return false;
        }
    }
    depth == 0
}

static PHRASE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?i)(?:\banswer\b[\s*_]*(?:(?:is|are)\b|=|[:：])|答案[\s*]*(?:是|为|应为|应该是|[:：]))[\s*:：]*")
        .expect("a valid pattern")
});

/// The last answer of every kind: tags, `\boxed{}`, "the answer is" in English and Chinese, and `####`. Last in the text
/// first.
pub fn lenient_answers(completion: &str) -> Vec<&str> {
    let phrase_at = PHRASE.find_iter(completion).last().map(|m| (m.end(), line(&completion[m.end()..])));
    let after = |tag: &str| completion.rfind(tag).map(|at| at + tag.len());
    let tag_at = after(ANSWER_OPEN).map(|at| (at, cut(&completion[at..], ANSWER_CLOSE)));
    let hash_at = after("####").map(|at| (at, line(&completion[at..])));
    let mut places: Vec<(usize, &str)> =
        [phrase_at, tag_at, hash_at, last_boxed(completion)].into_iter().flatten().collect();
    places.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    places.into_iter().map(|(_, text)| text.trim()).filter(|text| !text.is_empty()).collect()
}

/// `text` up to `end`, at most a phrase long.
fn cut<'a>(text: &'a str, end: &str) -> &'a str {
    let stop = text.find(end).unwrap_or(text.len()).min(text.floor_char_boundary(MAX_PHRASE));
    &text[..stop]
}

/// `text` up to the end of its line or the next tag.
fn line(text: &str) -> &str {
    let text = cut(text, "\n");
    cut(cut(text, "</"), "<think>")
}

/// The content of the last `\boxed{...}` that is closed, braces matched, with where it begins.
fn last_boxed(text: &str) -> Option<(usize, &str)> {
    const BOXED: &[u8] = b"\\boxed";
    let bytes = text.as_bytes();
    let mut open: Vec<Option<usize>> = Vec::new(); // for each open brace, where its content begins if it is a box
    let mut last = None;
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if matches!(bytes.get(at + 1), Some(b'{' | b'}' | b'\\')) => at += 1,
            b'{' => open.push(bytes[..at].ends_with(BOXED).then_some(at + 1)),
            b'}' => {
                if let Some(Some(begin)) = open.pop() {
                    last = Some((begin, &text[begin..at]));
                }
            }
            _ => {}
        }
        at += 1;
    }
    last.filter(|(_, content)| content.len() <= MAX_PHRASE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shape_is_exact() {
        for good in [
            "<think>a</think><answer>1</answer>",
            " <think> a </think> <answer> 14 </answer> ",
            "\n<think>\nno\n</think>\n\n<answer>x</answer>\n",
            "<think></think><answer>1</answer>",
        ] {
            assert!(well_formed(good, false), "{good}");
            assert!(well_formed(good.trim_start().trim_start_matches("<think>"), true), "{good}");
        }
        for bad in [
            "",
            "14",
            "<answer>1</answer>",
            "<think>a</think>",
            "<think>a</think><answer>1",
            "<think>a</think><answer></answer>",
            "<think>a</think><answer> \n </answer>",
            "<think>a</think>so <answer>1</answer>",
            "so <think>a</think><answer>1</answer>",
            "<think>a</think><answer>1</answer> done",
            "<think>a</think><answer>1</answer><answer>2</answer>",
            "<think><think>a</think></think><answer>1</answer>",
            "<think>a<answer>1</answer></think>",
            "<think>a<answer>0</answer></think><answer>1</answer>",
            "<answer>1</answer><think>a</think>",
            "<think>a</think><answer><answer>1</answer></answer>",
            "<THINK>a</THINK><ANSWER>1</ANSWER>",
            "<think>a</answer><answer>1</think>",
        ] {
            assert!(!well_formed(bad, false), "{bad}");
        }
        assert!(!well_formed("<think>a</think><answer>1</answer>", true));
        assert!(!well_formed("a</think><answer>1</answer>", false));
    }

    #[test]
    fn tagged_answers() {
        assert_eq!(tagged_answer("<think>a</think><answer> 1 </answer>", false), Some("1"));
        assert_eq!(tagged_answer("<answer>1</answer>", false), Some("1"));
        assert_eq!(tagged_answer("<answer>1</answer>", true), None);
        assert_eq!(tagged_answer("a</think> <answer>1</answer>", true), Some("1"));
        for none in [
            "<think><answer>1</answer></think>",
            "<think><answer>1</answer>",
            "<think>a</think><answer>1</answer><answer>2</answer>",
            "<think><answer>0</answer></think><answer>1</answer>",
            "<think>a</think><answer>1",
            "<think>a</think>1</answer>",
            "<think>a</think></answer>1<answer>",
            "<think>a</think><answer></answer>",
            "<answer>1</answer></think>",
        ] {
            assert_eq!(tagged_answer(none, false), None, "{none}");
        }
    }

    #[test]
    fn boxes_match_braces() {
        assert_eq!(last_boxed(r"so \boxed{\frac{1}{2}} ok").map(|b| b.1), Some(r"\frac{1}{2}"));
        assert_eq!(last_boxed(r"\boxed{1} \boxed{2}").map(|b| b.1), Some("2"));
        assert_eq!(last_boxed(r"\boxed{1} \boxed{2").map(|b| b.1), Some("1"));
        assert_eq!(last_boxed(r"{ \boxed{3}").map(|b| b.1), Some("3"));
        assert_eq!(last_boxed(r"\boxed{\{4\}}").map(|b| b.1), Some(r"\{4\}"));
        assert_eq!(last_boxed("boxed 4"), None);
        assert_eq!(unboxed(r"$\boxed{840}$."), "$\\boxed{840}$.");
        assert_eq!(unboxed(r"\boxed{840}."), "840");
        assert_eq!(unboxed(r"$\boxed{840}$"), "840");
        assert_eq!(unboxed(r"\boxed{1}+\boxed{2}"), r"\boxed{1}+\boxed{2}");
        assert_eq!(last_boxed(&r"\boxed{".repeat(20_000)), None);
    }

    #[test]
    fn last_place_first() {
        assert_eq!(lenient_answers(r"The answer is 5. No: #### 6"), ["6", "5. No: #### 6"]);
        assert_eq!(lenient_answers("**Answer:** 7\n"), ["7"]);
        assert_eq!(lenient_answers("所以答案是 9。"), ["9。"]);
        assert_eq!(lenient_answers("<answer>3</answer> the answer: 4"), ["4", "3"]);
        assert!(lenient_answers("nothing here").is_empty());
    }
}
