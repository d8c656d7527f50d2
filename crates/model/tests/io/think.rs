//! The reasoning parser: every way of cutting the same text gives the same parts.

use aha_model::{ThinkEvent, ThinkParser, ThinkStatus, Thought, prefills_think, split_thought};

fn by_chunks<'a>(chunks: impl IntoIterator<Item = &'a str>, prefilled: bool) -> (Thought, bool) {
    let mut parser = ThinkParser::new(prefilled);
    let mut events = vec![];
    for chunk in chunks {
        events.extend(parser.push(chunk));
    }
    let (rest, status) = parser.finish();
    events.extend(rest);
    let (mut reasoning, mut answer, mut closed) = (String::new(), String::new(), false);
    for event in events {
        match event {
            ThinkEvent::Reasoning(t) => {
                assert!(!closed && answer.is_empty() && !t.is_empty());
                reasoning += &t;
            }
            ThinkEvent::Closed => {
                assert!(!closed);
                closed = true;
            }
            ThinkEvent::Answer(t) => {
                assert!(!t.is_empty());
                answer += &t;
            }
        }
    }
    (Thought { reasoning, answer, status }, closed)
}

/// Text, prefilled, then what is expected: reasoning, answer, status.
const CASES: [(&str, bool, &str, &str, ThinkStatus); 17] = [
    ("<think>\na b\n</think>\n\nc d", false, "a b", "c d", ThinkStatus::Closed),
    ("  \n<think>a</think>b", false, "a", "b", ThinkStatus::Closed),
    ("a\n</think>\nb", true, "a", "b", ThinkStatus::Closed),
    ("<think>a</think>b", true, "a", "b", ThinkStatus::Closed),
    ("<think></think>b", false, "", "b", ThinkStatus::Closed),
    ("<think>\n\n</think>\n\nb ", false, "", "b ", ThinkStatus::Closed),
    ("<think>a", false, "a", "", ThinkStatus::Unclosed),
    ("<think>a </thi", false, "a </thi", "", ThinkStatus::Unclosed),
    ("a < b </ c", true, "a < b </ c", "", ThinkStatus::Unclosed),
    ("plain <think>no</think>", false, "", "plain <think>no</think>", ThinkStatus::Absent),
    (" <thin", false, "", " <thin", ThinkStatus::Absent),
    ("", false, "", "", ThinkStatus::Absent),
    ("", true, "", "", ThinkStatus::Unclosed),
    ("<think>a</think>", false, "a", "", ThinkStatus::Closed),
    ("<think>a</think>b</think>c", false, "a", "b</think>c", ThinkStatus::Closed),
    ("<think>想\n 一\n想</think>答 案", false, "想\n 一\n想", "答 案", ThinkStatus::Closed),
    ("<think>x<</think>y", false, "x<", "y", ThinkStatus::Closed),
];

#[test]
fn whole_texts() {
    for (text, prefilled, reasoning, answer, status) in CASES {
        let thought = split_thought(text, prefilled);
        assert_eq!(
            (thought.reasoning.as_str(), thought.answer.as_str(), thought.status),
            (reasoning, answer, status),
            "{text:?}"
        );
    }
}

#[test]
fn any_cut_gives_the_same() {
    for (text, prefilled, _, _, status) in CASES {
        let whole = split_thought(text, prefilled);
        let chars: Vec<String> = text.chars().map(String::from).collect();
        let single = by_chunks(chars.iter().map(String::as_str), prefilled);
        assert_eq!(single, (whole.clone(), status == ThinkStatus::Closed), "{text:?}");
        let cuts: Vec<usize> = (0..=text.len()).filter(|&i| text.is_char_boundary(i)).collect();
        for &i in &cuts {
            for &j in cuts.iter().filter(|&&j| j >= i) {
                let parts = by_chunks([&text[..i], &text[i..j], &text[j..]], prefilled);
                assert_eq!(parts.0, whole, "{text:?} cut at {i} and {j}");
            }
        }
    }
}

#[test]
fn reasoning_is_given_out_as_it_comes() {
    let mut parser = ThinkParser::new(false);
    assert_eq!(parser.push("<thi"), []);
    assert_eq!(parser.push("nk>one "), [ThinkEvent::Reasoning("one".into())]);
    assert_eq!(parser.push("two</th"), [ThinkEvent::Reasoning(" two".into())]);
    assert_eq!(parser.push("ink"), []);
    assert_eq!(parser.push(">\n"), [ThinkEvent::Closed]);
    assert_eq!(parser.push("\n3"), [ThinkEvent::Answer("3".into())]);
    assert_eq!(parser.push(" "), [ThinkEvent::Answer(" ".into())]);
    assert_eq!(parser.finish(), (vec![], ThinkStatus::Closed));
}

#[test]
fn prefilled_prompts_are_recognised() {
    assert!(prefills_think("User: hi\nAssistant: <think>\n"));
    assert!(!prefills_think("Assistant: <think></think>"));
}
