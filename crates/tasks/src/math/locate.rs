//! Where the answer stands in a response, as people and models write it. One pass per kind of place, linear in the length.
//!
//! Places in the order in which they count: `<answer>` tags, "the final answer is", the last `\boxed{}` (with those right
//! before it), `####`, "the answer is" in English and Chinese, a response that is nothing but the answer, the last
//! mathematics, and the last number of the text.

use std::sync::LazyLock;

use regex::Regex;

use super::formula::{first_formula, last_formula, leading_formula};
use super::parser::parse;
use crate::extract::{ANSWER_CLOSE, ANSWER_OPEN, THINK_CLOSE};

/// Longest answer in bytes that is taken from a phrase.
const MAX_PHRASE: usize = 400;
/// Most places that are looked at one after the other.
const MAX_BOXES: usize = 16;

/// Where an answer was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// Between `<answer>` tags.
    Tags,
    /// Behind "the final answer is".
    FinalAnswer,
    /// In `\boxed{}`.
    Boxed,
    /// Behind `####`.
    Hashes,
    /// Behind "the answer is".
    Phrase,
    /// The whole text.
    Whole,
    /// The last mathematics between dollar signs or the like.
    Formula,
    /// The last number.
    LastNumber,
}

/// An answer as it stands in the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// Its text.
    pub text: String,
    /// Where it was.
    pub place: Place,
}

static FINAL: LazyLock<Regex> = LazyLock::new(|| {
    let pattern = r"(?i)\bfinal\s+answer\b[^\n.=:：]{0,60}?(?:\bis\b|\bare\b|[:：=])[\s:：*_]*|最终答案[^\n。]{0,10}?(?:是|为|[:：])[\s:：*_]*";
    Regex::new(pattern).expect("a valid pattern")
});

static ANSWER: LazyLock<Regex> = LazyLock::new(|| {
    let pattern = r"(?i)\b(?:answers?|réponse|respuesta|resposta|risposta|antwort|ответ)\b[\s*_]*(?:(?:is|are|est|es|é|è|ist)\b|=|[:：])[\s*_:：]*|(?:答案|结果)[\s*_]*(?:是|为|应为|应该是|等于|[:：])[\s*_:：]*|故选[\s:：]*|(?:应|所以|因此)选择?[\s:：]*";
    Regex::new(pattern).expect("a valid pattern")
});

static NUMBER: LazyLock<Regex> = LazyLock::new(|| {
    let pattern = r"[-\u{2212}]?\s?\$?(?:\d+ \d+/\d+|(?:(?:\d{1,3}(?:,\d{3})+\b|\d{1,3}(?: \d{3})+\b|\d+)(?:\.\d+)?|\.\d+)(?:\s?/\s?\d+(?:\.\d+)?)?)(?:\s*(?:\\?%|percent(?:age)?\b|pct\b)|\s(?:thousand|million|billion|trillion)\b)?";
    Regex::new(pattern).expect("a valid pattern")
});

/// Finds the answer of a response; with `last_number`, mathematics and numbers that nothing announces count as well.
pub fn locate(response: &str, last_number: bool) -> Option<Located> {
    let text = match response.rfind(THINK_CLOSE) {
        Some(at) if !response[at + THINK_CLOSE.len()..].trim().is_empty() => &response[at + THINK_CLOSE.len()..],
        _ => response,
    };
    let found =
        |text: String, place| Some(Located { text: text.trim().to_owned(), place }).filter(|l| !l.text.is_empty());
    let tagged = text.rfind(ANSWER_OPEN).map(|at| &text[at + ANSWER_OPEN.len()..]);
    if let Some(inside) = tagged {
        let inside = inside.split(ANSWER_CLOSE).next().unwrap_or(inside);
        let answer = boxed(inside).unwrap_or_else(|| within(inside, last_number));
        if let Some(located) = found(answer, Place::Tags) {
            return Some(located);
        }
    }
    let phrase = |pattern: &Regex| {
        let end = pattern.find_iter(text).last()?.end();
        let rest = &text[end..];
        stated(&rest[..rest.floor_char_boundary(MAX_PHRASE)])
    };
    // "The final answer is positive, because ..." states no answer when there is a box, and a later `####` counts more.
    let last_hashes = text.rfind("####").filter(|at| FINAL.find_iter(text).last().is_some_and(|m| m.end() <= *at));
    (last_hashes.and_then(|_| hashes(text)).and_then(|t| found(t, Place::Hashes)))
        .or_else(|| {
            phrase(&FINAL).filter(|t| !is_prose(t) || boxed(text).is_none()).and_then(|t| found(t, Place::FinalAnswer))
        })
        .or_else(|| boxed(text).and_then(|t| found(t, Place::Boxed)))
        .or_else(|| hashes(text).and_then(|t| found(t, Place::Hashes)))
        .or_else(|| phrase(&ANSWER).and_then(|t| found(t, Place::Phrase)))
        .or_else(|| whole(text).and_then(|t| found(t, Place::Whole)))
        .or_else(|| if last_number { unannounced(text).and_then(|(t, place)| found(t, place)) } else { None })
}

/// The last formula, or the last number when it stands in a later sentence or the formula is nothing but names.
fn unannounced(text: &str) -> Option<(String, Place)> {
    let Some((formula, end)) = last_formula(text) else {
        return number_in(text, true).map(|number| (number, Place::LastNumber));
    };
    let behind = &text[end..];
    let names = !formula.contains(|c: char| c.is_ascii_digit());
    let number = number_in(behind, true).filter(|number| {
        let before = &behind[..behind.rfind(number.as_str()).unwrap_or(0)];
        names || formula.trim_end().ends_with('.') || before.contains(['。', '\n']) || before.contains(". ")
    });
    Some(number.map_or((formula, Place::Formula), |number| (number, Place::LastNumber)))
}

/// The text behind the last `####`, up to the end of its line.
fn hashes(text: &str) -> Option<String> {
    let at = text.rfind("####")? + 4;
    let line = text[at..].lines().find(|l| !l.trim().is_empty())?;
    // A heading of the fourth level holds no digits.
    line.chars().any(|c| c.is_ascii_digit() || c == '\\' || c == '$').then(|| within(line, true))
}

/// The answer in a text that should be nothing else.
fn within(text: &str, last_number: bool) -> String {
    let text = text.trim();
    if let Some(inner) = whole(text) {
        return inner;
    }
    stated(text)
        .filter(|_| text.len() < MAX_PHRASE)
        .or_else(|| last_number.then(|| last_formula(text)).flatten().map(|(formula, _)| formula))
        .unwrap_or_else(|| text.to_owned())
}

/// The whole text, when it can be an answer and is not prose.
fn whole(text: &str) -> Option<String> {
    let text = text.trim().trim_matches('*').trim();
    if text.is_empty() || text.len() > super::parser::MAX_BYTES || text.matches('\n').count() > 12 {
        return None;
    }
    // Numbers below each other are no mixed number.
    let lines = text.contains('\n') && !text.contains(['\\', ',', '=']);
    (!lines && !is_prose(text) && parse(text).is_ok()).then(|| text.to_owned())
}

/// Words of two letters that are no product of variables.
const SHORT_WORDS: [&str; 20] = [
    "is", "of", "to", "in", "it", "we", "he", "as", "at", "by", "so", "no", "be", "if", "an", "my", "do", "on", "up",
    "us",
];

/// Whether plain text holds words that mathematics has not: letters side by side, with white space around; `3xy` is a
/// product.
pub fn is_prose(text: &str) -> bool {
    if !text.trim().contains(char::is_whitespace) {
        return false;
    }
    let bytes = text.as_bytes();
    let (mut at, mut depth) = (0usize, 0usize);
    while at < bytes.len() {
        match bytes[at] {
            b'{' => depth += 1,
            b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if !bytes[at].is_ascii_alphabetic() {
            at += 1;
            continue;
        }
        let begin = at;
        while at < bytes.len() && bytes[at].is_ascii_alphabetic() {
            at += 1;
        }
        let word = &text[begin..at];
        let command = begin > 0 && bytes[begin - 1] == b'\\';
        let known = matches!(word, "and" | "or")
            || super::token::word_command(word).is_some()
            || (begin > 0 && (super::token::is_unit(word) || super::token::magnitude(word).is_some()));
        let product = begin > 0 && bytes[begin - 1].is_ascii_digit();
        let long = word.len() > 2 || SHORT_WORDS.contains(&word.to_ascii_lowercase().as_str());
        if long && depth == 0 && !command && !known && !product {
            return true;
        }
    }
    false
}

/// What a phrase states: a formula right behind it, or the text up to the end of the sentence, or the first number.
fn stated(rest: &str) -> Option<String> {
    let rest = rest.trim_start_matches(|c: char| c.is_whitespace() || matches!(c, '*' | ':' | '：' | '_'));
    if let Some(content) = boxed(rest.lines().next().unwrap_or("")) {
        return Some(content);
    }
    if let Some(formula) = leading_formula(rest) {
        return Some(formula);
    }
    let line = rest.lines().next().unwrap_or("").split("</").next().unwrap_or("");
    let sentence = line.split(['。', '！']).next().unwrap_or(line);
    let sentence = sentence.split(". ").next().unwrap_or(sentence);
    let sentence = sentence.trim().trim_end_matches(['*', '.', '!', '`']).trim_start_matches(['*', '`']).trim();
    if sentence.is_empty() {
        return None;
    }
    if !is_prose(sentence) && parse(sentence).is_ok() {
        return Some(sentence.to_owned());
    }
    let choice = sentence.trim_start_matches('(').as_bytes();
    if choice[..].first().is_some_and(u8::is_ascii_uppercase)
        && choice.get(1).is_none_or(|c| matches!(c, b')' | b'.' | b':' | b',') || !c.is_ascii())
    {
        return Some(sentence.to_owned());
    }
    // "the answer is 5 because ...", "the answer is that $x = 5$"
    let near = &sentence[..sentence.floor_char_boundary(120)];
    let first_letters = near.split_whitespace().next().unwrap_or("");
    if first_letters.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '\u{2212}' | '$' | '.'))
        && let Some(number) = number_in(near, false)
    {
        return Some(number);
    }
    if let Some(value) = said_to_be(near) {
        return Some(value);
    }
    first_formula(near).or_else(|| number_in(near, false)).or_else(|| Some(sentence.to_owned()))
}

static IS: LazyLock<Regex> = LazyLock::new(|| {
    let pattern = r"\b(?:is|are|equals|be)\s+(?:equal\s+to\s+)?|(?:是|为|等于)\s*";
    Regex::new(pattern).expect("a valid pattern")
});

static CONDITION: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?i)[,;]?\s\b(?:when|if|where|since|because|for|which|as)\b").expect("a valid pattern")
});

/// "the largest $n$ is 34": the value behind the last verb, before any condition.
fn said_to_be(sentence: &str) -> Option<String> {
    let value = |at: usize| {
        let rest = &sentence[at..];
        rest.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '\u{2212}' | '$' | '\\' | '.'))
            .then_some(rest)
    };
    let end = CONDITION.find_iter(sentence).find(|m| IS.is_match(&sentence[..m.start()])).map(|m| m.start());
    let verbs = IS.find_iter(&sentence[..end.unwrap_or(sentence.len())]);
    let rest = verbs.filter_map(|m| value(m.end())).last()?;
    let plain = || number_in(rest, false).filter(|number| rest.starts_with(number.as_str()));
    leading_formula(rest).or_else(plain)
}

/// The first or last number of a text, not glued to letters before it.
fn number_in(text: &str, last: bool) -> Option<String> {
    let free = |m: &regex::Match<'_>| {
        let before = text[..m.start()].chars().next_back();
        let digit_first = m.as_str().starts_with(|c: char| c.is_ascii_digit() || c == '.');
        !(digit_first && before.is_some_and(|c| c.is_ascii_alphabetic() || c == '_' || c == '.'))
    };
    let mut all = NUMBER.find_iter(text).filter(free);
    let found = if last { all.last() } else { all.next() }?;
    let mut number = found.as_str().trim();
    // A decimal comma: `2,74`, but no list `1,2,74`.
    let before = &text[..found.start()];
    if last
        && let Some(whole) = before.strip_suffix(',')
        && number.starts_with(|c: char| c.is_ascii_digit())
    {
        let begin = whole.rfind(|c: char| !c.is_ascii_digit()).map_or(0, |i| i + 1);
        let begin = if whole.is_char_boundary(begin) { begin } else { whole.len() };
        if begin < whole.len() && !whole[..begin].ends_with([',', '.', '_']) {
            return Some(text[begin..found.end()].trim().to_owned());
        }
    }
    // `20-5` and `3 - 5` hold a difference, not a negative number.
    let before = text[..found.start()].trim_end().chars().next_back();
    if before.is_some_and(|c| c.is_alphanumeric() || matches!(c, ')' | ']' | '}' | '%')) {
        let glued = !text[..found.start()].ends_with(char::is_whitespace) || number.starts_with("- ");
        if glued {
            number = number.trim_start_matches(['-', '\u{2212}', ' ']);
        }
    }
    Some(number.to_owned())
}

/// The contents of the last box and of those that belong to it, joined by commas: boxes side by side, or joined by "and"
/// or "or", state one answer together.
pub fn boxed(text: &str) -> Option<String> {
    let boxes = boxes(text);
    let last = boxes.len().checked_sub(1)?;
    let mut first = last;
    while first > 0 && last - first < MAX_BOXES {
        let (before, after) = (&boxes[first - 1], &boxes[first]);
        let between = text[before.end..after.begin].trim_matches(|c: char| c.is_whitespace() || matches!(c, '$' | '.'));
        if between.len() >= 70 || !joins(between) {
            break;
        }
        first -= 1;
    }
    let mut contents: Vec<&str> = boxes[first..].iter().map(|b| b.content.trim()).collect();
    contents.dedup();
    Some(contents.join(", "))
}

static WORD: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\\?[A-Za-z]+|[和或及与]|\p{Han}+|[.!?;=](?:\s|$)").expect("a valid pattern"));

/// Whether what stands between two boxes makes them parts of one answer: nothing but signs and spaces, or words with an
/// "and" or "or" that begin no new thought.
fn joins(between: &str) -> bool {
    // "+++++", "-----"
    let marks = between.trim_matches(|c: char| c.is_whitespace() || c == '\\');
    let line = marks.len() > 2 && marks.starts_with(['+', '-', '*', '=', '_']);
    if line && marks.bytes().all(|b| b == marks.as_bytes()[0]) {
        return true;
    }
    let (mut connective, mut words) = (false, false);
    for word in WORD.find_iter(between).map(|m| m.as_str().trim_end()) {
        match word.to_ascii_lowercase().as_str() {
            "and" | "or" | "和" | "或" | "及" | "与" => connective = true,
            "\\quad" | "\\qquad" | "\\text" | "\\mbox" | "\\textbf" | "\\mathrm" | "=" | ";" => {}
            "but" | "not" | "no" | "then" | "so" | "thus" | "hence" | "wrong" | "wait" | "actually" | "instead"
            | "however" | "is" | "answer" | "check" | "got" | "get" | "because" | "since" | "." | "!" | "?" => {
                return false;
            }
            _ => words = true,
        }
    }
    connective || (!words && !between.contains(['+', '-', '*', '/', '<', '>', '=']))
}

struct Boxed<'a> {
    begin: usize,
    end: usize,
    content: &'a str,
}

/// Every outermost `\boxed{...}` or `\fbox{...}`; one that never closes counts up to the end of its line when it is the
/// last.
fn boxes(text: &str) -> Vec<Boxed<'_>> {
    let mut found: Vec<Boxed<'_>> = Vec::new();
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(next) = text[at..].find('\\') {
        let begin = at + next;
        let name = match &bytes[begin + 1..] {
            [b'b', b'o', b'x', b'e', b'd', ..] => 6,
            [b'f', b'b', b'o', b'x', ..] => 5,
            _ => {
                at = begin + 1;
                continue;
            }
        };
        let mut open = begin + name;
        while bytes.get(open) == Some(&b' ') {
            open += 1;
        }
        at = begin + name;
        if bytes.get(open) != Some(&b'{') {
            // `\boxed 5`
            let length = text[open..].find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(text.len() - open);
            if length > 0 {
                found.push(Boxed { begin, end: open + length, content: &text[open..open + length] });
            }
            continue;
        }
        let (mut depth, mut i) = (0usize, open);
        let end = loop {
            match bytes.get(i) {
                None => break None,
                Some(b'\\') if matches!(bytes.get(i + 1), Some(b'{' | b'}' | b'\\')) => i += 1,
                Some(b'{') => depth += 1,
                Some(b'}') => {
                    depth -= 1;
                    if depth == 0 {
                        break Some(i);
                    }
                }
                _ => {}
            }
            i += 1;
        };
        match end {
            Some(end) => {
                found.push(Boxed { begin, end: end + 1, content: &text[open + 1..end] });
                at = end + 1;
            }
            None => {
                // The rest holds no closed box around this one; those inside were never reached, so try them once.
                let rest = &text[open + 1..];
                let line = rest.lines().next().unwrap_or("");
                if !rest.contains("\\boxed") && !line.trim().is_empty() {
                    found.push(Boxed { begin, end: text.len(), content: line.trim_end_matches(['$', ' ', '.']) });
                }
                if let Some(inner) = rest.rfind("\\boxed") {
                    // Only the last can still be the answer; this keeps the search linear.
                    at = open + 1 + inner;
                    continue;
                }
                break;
            }
        }
    }
    found
}
