//! Shapes of a completion besides R1-Zero's exact one (`extract::well_formed`): R1's, where the answer is whatever follows
//! the thinking (DeepSeek-R1, section 2.3), and lenient readings of both. A template may have opened the thinking already.

use crate::extract::{ANSWER_CLOSE, ANSWER_OPEN, THINK_CLOSE, THINK_OPEN, tagged_answer, well_formed};
use crate::problem::{Language, Problem, Reference};

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

/// From R1-Zero's format to R1's: the chain, then one line that ends in the answer. Programs stand in backquotes, requests are
/// answered by their answer alone; everything else by a short sentence in the question's language. None when the completion
/// has not exactly R1-Zero's format, or an answer of several lines.
pub fn to_house(problem: &Problem, completion: &str, prefilled_think: bool) -> Option<String> {
    if !well_formed(completion, prefilled_think) {
        return None;
    }
    let chain = chain_of_thought(completion, prefilled_think)?;
    let answer = tagged_answer(completion, prefilled_think)?;
    let opening = if prefilled_think { "" } else { THINK_OPEN };
    let sentence = match problem.language {
        Language::English => "The answer is ",
        Language::Chinese => "答案是",
    };
    let summary = match &problem.reference {
        Reference::Check(_) => answer.to_owned(),
        _ if answer.contains('\n') => return None,
        Reference::Program { .. } => format!("{sentence}`{}`", answer.trim_matches('`')),
        _ => format!("{sentence}{answer}"),
    };
    Some(format!("{opening}{chain}{THINK_CLOSE}{summary}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_house_format_keeps_chain_and_answer() {
        let mut problem = Problem {
            id: String::new(),
            family: String::new(),
            language: Language::English,
            question: String::new(),
            reference: Reference::Integer(7),
            columns: serde_json::Map::new(),
        };
        let zero = "<think>3+4=7.\n</think> <answer> 7 </answer>";
        assert_eq!(to_house(&problem, zero, false).as_deref(), Some("<think>3+4=7.\n</think>The answer is 7"));
        assert_eq!(to_house(&problem, &zero[7..], true).as_deref(), Some("3+4=7.\n</think>The answer is 7"));
        assert_eq!(to_house(&problem, "<think>a</think>7", false), None);
        assert_eq!(to_house(&problem, "<think>a</think><answer>7\n8</answer>", false), None);
        problem.language = Language::Chinese;
        assert_eq!(to_house(&problem, zero, false).as_deref(), Some("<think>3+4=7.\n</think>答案是7"));
        problem.reference = Reference::Program { shown: Vec::new(), hidden: Vec::new() };
        let code = "<think>a</think><answer>def f(x):return x</answer>";
        let house = to_house(&problem, code, false);
        assert_eq!(house.as_deref(), Some("<think>a</think>答案是`def f(x):return x`"));
        problem.reference = Reference::Check(crate::Check::Refused(true));
        let text = "<think></think><answer>Sorry.</answer>";
        assert_eq!(to_house(&problem, text, false).as_deref(), Some("<think></think>Sorry."));
    }

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
