//! Completions of the same problem over time, side by side: thinking dimmed, the answer plain, reflective words marked,
//! and the first response that reconsiders itself pointed out.

use std::fmt::Write as _;

use super::html::{escape, number};
use super::{SampleEntry, SampleGroup};
use crate::Verdict;

/// Characters of a problem that are shown.
const LONGEST_PROBLEM: usize = 800;

/// What a part of a completion is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Think,
    Answer,
    /// Outside of all tags.
    Plain,
}

/// The section; nothing without samples. `terms` are the words to mark.
pub(super) fn section(page: &mut String, groups: &[SampleGroup], terms: &[String]) {
    if groups.is_empty() {
        return;
    }
    page.push_str(
        "<section>\n<h2>In its own words</h2>\n<p class=\"lede\">The same problem for several checkpoints. \
         <mark>Marked</mark> words reconsider; the first response that has one in its thinking is framed.</p>\n",
    );
    let mut terms: Vec<&str> = terms.iter().map(String::as_str).filter(|term| !term.is_empty()).collect();
    terms.sort_by_key(|term| std::cmp::Reverse(term.len()));
    for group in groups {
        let _ = write!(
            page,
            "<article class=\"group\">\n<div class=\"problem\"><span class=\"tag\">{}</span><pre>{}</pre>",
            escape(&group.family),
            escape(&shortened(group.problem.trim()))
        );
        if !group.reference.is_empty() {
            let _ = write!(page, "<p>reference <b>{}</b></p>", escape(&group.reference));
        }
        page.push_str("</div>\n<div class=\"cards\">\n");
        let first = first_reconsideration(group, &terms);
        for (i, entry) in group.entries.iter().enumerate() {
            let word = first.as_ref().filter(|(at, _)| *at == i).map(|(_, word)| word.as_str());
            card(page, entry, word, &terms);
        }
        page.push_str("</div>\n</article>\n");
    }
    page.push_str("</section>\n");
}

/// A long problem without its middle.
fn shortened(problem: &str) -> String {
    let chars = problem.chars().count();
    if chars <= LONGEST_PROBLEM {
        return problem.to_owned();
    }
    let half = LONGEST_PROBLEM / 2;
    let head: String = problem.chars().take(half).collect();
    let tail: String = problem.chars().skip(chars - half).collect();
    format!("{head} […{} characters…] {tail}", chars - 2 * half)
}

fn card(page: &mut String, entry: &SampleEntry, reconsiders: Option<&str>, terms: &[&str]) {
    let (class, verdict) = match entry.verdict {
        Verdict::Correct => ("ok", "correct"),
        Verdict::Incorrect => ("bad", "incorrect"),
        Verdict::NotJudged => ("open", "not judged"),
    };
    let frame = if reconsiders.is_some() { " aha" } else { "" };
    let checkpoint = escape(&entry.checkpoint);
    let _ = write!(page, "<div class=\"card sample{frame}\">\n<div class=\"bar-top\"><b>{checkpoint}</b>");
    let _ = write!(page, "<span class=\"badge {class}\">{verdict}</span>");
    if let Some(reward) = entry.reward {
        let _ = write!(page, "<span class=\"reward\">reward {}</span>", number(reward));
    }
    page.push_str("</div>\n");
    if let Some(word) = reconsiders {
        let _ = writeln!(page, "<p class=\"ribbon\">first reconsideration: “{}”</p>", escape(word));
    }
    page.push_str("<div class=\"text\">");
    let parts = parts(&entry.completion);
    let untagged = parts.iter().all(|(part, _)| *part == Part::Plain);
    if untagged {
        page.push_str("<span class=\"label\">no tags</span>");
    }
    let mut first_mark = reconsiders.is_some();
    for (part, text) in parts {
        let (class, label) = match part {
            Part::Think => ("think", "think"),
            Part::Answer => ("answer", "answer"),
            Part::Plain if untagged => ("plain", ""),
            Part::Plain => ("plain", "outside the tags"),
        };
        if !label.is_empty() {
            let _ = write!(page, "<span class=\"label\">{label}</span>");
        }
        let _ = write!(page, "<div class=\"{class}\">");
        marked(page, text, terms, part == Part::Think && std::mem::take(&mut first_mark));
        page.push_str("</div>");
    }
    page.push_str("</div>\n");
    if entry.reflective_words > 0 {
        let plural = if entry.reflective_words == 1 { "" } else { "s" };
        let _ = writeln!(page, "<p class=\"count\">{} reflective word{plural}</p>", entry.reflective_words);
    }
    page.push_str("</div>\n");
}

/// The entry of the lowest step with a reflective word in its thinking, and that word as written.
fn first_reconsideration(group: &SampleGroup, terms: &[&str]) -> Option<(usize, String)> {
    let mut order: Vec<usize> = (0..group.entries.len()).collect();
    order.sort_by_key(|&i| group.entries[i].step);
    order.into_iter().find_map(|i| {
        let parts = parts(&group.entries[i].completion);
        let word = parts
            .into_iter()
            .filter(|(part, _)| *part == Part::Think)
            .find_map(|(_, text)| matches(text, terms).first().map(|&(from, to)| text[from..to].to_owned()))?;
        Some((i, word))
    })
}

/// Writes text with its reflective words marked; `first` marks the first of them more strongly.
fn marked(page: &mut String, text: &str, terms: &[&str], mut first: bool) {
    let mut done = 0;
    for (from, to) in matches(text, terms) {
        let class = if std::mem::take(&mut first) { " class=\"first\"" } else { "" };
        let _ = write!(page, "{}<mark{class}>{}</mark>", escape(&text[done..from]), escape(&text[from..to]));
        done = to;
    }
    page.push_str(&escape(&text[done..]));
}

/// Byte ranges of the terms in the text, in order, without overlap; the longest term wins (`terms` are sorted by
/// falling length). Letters compare without case; a term of ASCII letters must stand as a word by itself, as a script
/// without spaces does not ask.
fn matches(text: &str, terms: &[&str]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut from = 0;
    let mut before: Option<char> = None;
    while let Some(c) = text[from..].chars().next() {
        let hit = terms.iter().find(|term| {
            let Some(candidate) = text.get(from..from + term.len()) else {
                return false;
            };
            let after = text[from + term.len()..].chars().next();
            let joins = |edge: Option<char>, next: Option<char>| {
                edge.is_some_and(|c| c.is_ascii_alphanumeric()) && next.is_some_and(|c| c.is_ascii_alphanumeric())
            };
            candidate.eq_ignore_ascii_case(term)
                && !joins(term.chars().next(), before)
                && !joins(term.chars().next_back(), after)
        });
        let length = hit.map_or(c.len_utf8(), |term| term.len());
        if hit.is_some() {
            found.push((from, from + length));
        }
        from += length;
        before = text[..from].chars().next_back();
    }
    found
}

/// Splits a completion at its tags. A prompt may have opened `<think>` already, and a response may be cut off in any part.
fn parts(completion: &str) -> Vec<(Part, &str)> {
    let mut parts = Vec::new();
    let rest = match completion.split_once("</think>") {
        Some((thinking, rest)) => {
            let (before, thinking) = thinking.split_once("<think>").unwrap_or(("", thinking));
            push(&mut parts, Part::Plain, before);
            push(&mut parts, Part::Think, thinking);
            rest
        }
        None => match completion.split_once("<think>") {
            Some((before, thinking)) => {
                push(&mut parts, Part::Plain, before);
                push(&mut parts, Part::Think, thinking);
                ""
            }
            None => completion,
        },
    };
    match rest.split_once("<answer>") {
        Some((before, answer)) => {
            let (answer, after) = answer.split_once("</answer>").unwrap_or((answer, ""));
            push(&mut parts, Part::Plain, before);
            push(&mut parts, Part::Answer, answer);
            push(&mut parts, Part::Plain, after);
        }
        None => push(&mut parts, Part::Plain, rest),
    }
    parts
}

/// Adds a part unless it is blank, without the blank lines around it.
fn push<'a>(parts: &mut Vec<(Part, &'a str)>, part: Part, text: &'a str) {
    let text = text.trim_matches('\n').trim_end();
    if !text.trim().is_empty() {
        parts.push((part, text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Part::{Answer, Plain, Think};

    #[test]
    fn completions_split_at_their_tags() {
        assert_eq!(parts("<think>\n3+4=7\n</think>\n<answer>7</answer>"), [(Think, "3+4=7"), (Answer, "7")]);
        assert_eq!(parts("3+4=7</think><answer>7"), [(Think, "3+4=7"), (Answer, "7")]);
        assert_eq!(parts("<think>cut o"), [(Think, "cut o")]);
        assert_eq!(parts("</think>\n\nThe answer is 7."), [(Plain, "The answer is 7.")]);
        assert_eq!(parts("so <think>a</think> b <answer>c</answer> d").len(), 5);
        assert_eq!(parts("7"), [(Plain, "7")]);
        assert_eq!(parts(" \n"), []);
        assert_eq!(parts("<answer></answer></think><think>"), [(Think, "<answer></answer>"), (Plain, "<think>")]);
    }

    #[test]
    fn words_are_found_whole_and_in_any_case() {
        let text = "Wait, no: await nothing. 等等，不对 no";
        let hits: Vec<_> = matches(text, &["wait", "等等", "no"]).into_iter().map(|(a, b)| &text[a..b]).collect();
        assert_eq!(hits, ["Wait", "no", "等等", "no"]);
        let text = "that is not right, not";
        let hits: Vec<_> = matches(text, &["not right", "not"]).into_iter().map(|(a, b)| &text[a..b]).collect();
        assert_eq!(hits, ["not right", "not"]);
        assert_eq!(matches("éwaité", &["wait"]), [(2, 6)]);
    }

    fn entry(step: u64, completion: &str) -> SampleEntry {
        SampleEntry {
            checkpoint: if step == 0 { "base".into() } else { format!("step {step}") },
            step,
            completion: completion.into(),
            verdict: Verdict::Correct,
            reward: None,
            reflective_words: 0,
        }
    }

    #[test]
    fn the_first_reconsideration_is_by_step_and_only_in_thinking() {
        let group = SampleGroup {
            entries: vec![
                entry(40, "<think>7? Wait, 8</think>"),
                entry(0, "wait"),
                entry(20, "<think>no wait</think>"),
                entry(10, "<think>7</think><answer>wait</answer>"),
            ],
            ..SampleGroup::default()
        };
        assert_eq!(first_reconsideration(&group, &["wait"]), Some((2, "wait".into())));
        assert_eq!(first_reconsideration(&group, &[]), None);
        let mut page = String::new();
        section(&mut page, &[group], &["wait".into()]);
        assert_eq!(page.matches("first reconsideration: “wait”").count(), 1);
        assert_eq!(page.matches("<mark class=\"first\">wait</mark>").count(), 1);
        assert_eq!(page.matches("<mark>").count(), 4, "{page}");
    }
}
