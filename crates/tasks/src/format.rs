//! Shapes of a completion besides R1-Zero's exact one (`extract::well_formed`): R1's, where the answer is whatever follows
//! the thinking (DeepSeek-R1, section 2.3), and lenient readings of both. A template may have opened the thinking already.

const THINK_OPEN: &str = "<think>";
const THINK_CLOSE: &str = "</think>";
const ANSWER_OPEN: &str = "<answer>";
const ANSWER_CLOSE: &str = "</answer>";

/// The chain of thought: what stands before the first closing tag, after an opening one where there is one; the whole text
/// when nothing closes it and it was opened; none when no tag says where it is.
pub fn chain_of_thought(completion: &str, prefilled_think: bool) -> Option<&str> {
    let opened = completion.find(THINK_OPEN);
    let begin = opened.map_or(0, |at| at + THINK_OPEN.len());
    match completion[begin..].find(THINK_CLOSE) {
        Some(end) => Some(&completion[begin..begin + end]),
        None if opened.is_some() || prefilled_think => Some(&completion[begin..]),
        None => None,
    }
}

/// R1's shape: the thinking in one pair of tags at the very beginning, then an answer that is not empty.
pub fn r1_shape(completion: &str, prefilled_think: bool) -> bool {
    let opens = usize::from(!prefilled_think);
    let text = completion.trim_start();
    completion.matches(THINK_OPEN).count() == opens
        && completion.matches(THINK_CLOSE).count() == 1
        && (prefilled_think || text.starts_with(THINK_OPEN))
        && text.split_once(THINK_CLOSE).is_some_and(|(_, answer)| !answer.trim().is_empty())
}

/// As [`r1_shape`], but the opening tag may be there or not, and tags may be repeated in the thinking.
pub fn r1_shape_lenient(completion: &str) -> bool {
    completion
        .rsplit_once(THINK_CLOSE)
        .is_some_and(|(_, answer)| !answer.contains(THINK_OPEN) && !answer.trim().is_empty())
}

/// R1-Zero's shape, with text allowed around the pairs and the opening think tag there or not: thinking that closes before
/// the last pair of answer tags, which is not empty.
pub fn zero_shape_lenient(completion: &str) -> bool {
    let Some((_, after)) = completion.split_once(THINK_CLOSE) else { return false };
    let Some((_, answer)) = after.rsplit_once(ANSWER_OPEN) else { return false };
    answer
        .split_once(ANSWER_CLOSE)
        .is_some_and(|(inside, rest)| !inside.trim().is_empty() && !rest.contains(THINK_CLOSE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thoughts() {
        assert_eq!(chain_of_thought("<think>a</think>b", false), Some("a"));
        assert_eq!(chain_of_thought("a</think>b", true), Some("a"));
        assert_eq!(chain_of_thought("<think>a", false), Some("a"));
        assert_eq!(chain_of_thought("a", true), Some("a"));
        assert_eq!(chain_of_thought("a", false), None);
    }

    #[test]
    fn shapes() {
        assert!(r1_shape("<think>a</think> b", false) && r1_shape("a</think>b", true));
        for bad in ["", "a", "<think>a</think> ", "x<think>a</think>b", "<think>a</think>b</think>c", "a</think>b"] {
            assert!(!r1_shape(bad, false), "{bad}");
        }
        assert!(!r1_shape("<think>a</think>b", true));
        assert!(r1_shape_lenient("so a</think>b") && r1_shape_lenient("x <think>a</think>b"));
        assert!(!r1_shape_lenient("a</think>") && !r1_shape_lenient("b"));
        assert!(zero_shape_lenient("a</think> so <answer>1</answer>."));
        assert!(!zero_shape_lenient("<answer>1</answer>") && !zero_shape_lenient("a</think><answer> </answer>"));
        assert!(!zero_shape_lenient("<think><answer>1</answer></think>"));
    }
}
