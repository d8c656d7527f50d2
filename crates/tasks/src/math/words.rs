//! Answers in words, and letters of choices.

use std::sync::LazyLock;

use regex::Regex;

/// An answer in words in the form in which it is compared: lower case, without spaces, mathematics signs and the like.
pub fn folded(text: &str) -> String {
    let mut text = text.trim().to_owned();
    for command in [
        "\\textbf",
        "\\textit",
        "\\textrm",
        "\\textnormal",
        "\\text",
        "\\mbox",
        "\\mathrm",
        "\\mathbf",
        "\\operatorname",
        "\\left",
        "\\right",
        "\\!",
        "\\,",
        "\\;",
        "\\:",
        "\\ ",
        "\\quad",
    ] {
        text = text.replace(command, " ");
    }
    // What is left of a formula keeps its braces: `\frac{1}{23}` is not `\frac{12}{3}`.
    let formula = text.contains(['\\', '^', '_']);
    let dropped = |c: char| {
        c.is_whitespace() || matches!(c, '$' | '"' | '`' | '~') || (!formula && matches!(c, '{' | '}' | '\\'))
    };
    let text = text.trim_matches(['*', ' ']);
    let text = text.strip_prefix('\'').and_then(|t| t.strip_suffix('\'')).unwrap_or(text);
    let mut kept = String::with_capacity(text.len());
    let mut gap = false;
    for c in text.chars() {
        if dropped(c) {
            gap = true;
            continue;
        }
        // "1 2" is not "12"
        let digits = c.is_ascii_digit() && kept.ends_with(|c: char| c.is_ascii_digit());
        if gap && (digits || (formula && c.is_alphanumeric() && kept.ends_with(char::is_alphanumeric))) {
            kept.push(' ');
        }
        kept.push(c);
        gap = false;
    }
    let kept = kept.trim_end_matches(['.', ',', ';', ':', '。', '，']).trim_start_matches([',', ';', ':']).to_owned();
    if kept.chars().count() < 2 {
        return kept;
    }
    let lower = if formula { kept } else { kept.to_lowercase() };
    // "p.m." is "pm"; the points of numbers stay.
    let chars: Vec<char> = lower.chars().collect();
    let letter = |i: Option<usize>| i.and_then(|i| chars.get(i)).is_some_and(|c| c.is_alphabetic());
    (0..chars.len())
        .filter(|&i| !(chars[i] == '.' && (letter(i.checked_sub(1)) || letter(Some(i + 1)))))
        .map(|i| chars[i])
        .collect()
}

/// Whether two answers in words are the same: character by character, or as lists of single letters in any order.
pub fn same_words(gold: &str, answer: &str) -> bool {
    let (gold, answer) = (folded(gold), folded(answer));
    if gold.is_empty() || answer.is_empty() {
        return false;
    }
    let letters = |text: &str| -> Option<Vec<String>> {
        let mut parts: Vec<String> = text.split(',').map(str::to_owned).collect();
        parts.sort();
        (parts.len() > 1 && parts.iter().all(|p| p.chars().count() == 1)).then_some(parts)
    };
    let bare = |text: &str| text.trim_matches(['(', ')', '[', ']']).to_owned();
    gold == answer
        || letters(&gold).is_some_and(|l| letters(&answer).is_some_and(|m| l == m))
        || (gold.chars().any(char::is_alphabetic)
            && !gold.contains(['^', '=', '\\', ','])
            && bare(&gold) == bare(&answer))
}

/// A single number with a decimal comma, with a point instead; a comma before three digits groups thousands unless a lone
/// zero stands before it.
pub fn decimal_comma(text: &str) -> Option<String> {
    let text = text.trim().trim_matches('$').trim();
    let (whole, fraction) = text.split_once(',')?;
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let magnitude = whole.strip_prefix('-').unwrap_or(whole);
    let groups = fraction.len() == 3 && magnitude != "0";
    (digits(magnitude) && digits(fraction) && !groups).then(|| format!("{whole}.{fraction}"))
}

/// The letter of a choice when that is all there is: `C`, `(C)`, `\text{(C)}`.
pub fn choice(text: &str) -> Option<char> {
    let folded = folded(text);
    let mut letters = folded.trim_matches(['(', ')', '[', ']', '.', ':']).chars();
    let (letter, None) = (letters.next()?, letters.next()) else { return None };
    let upper = letter.to_ascii_uppercase();
    (upper.is_ascii_uppercase() && upper <= 'J').then_some(upper)
}

/// The letter that an answer chooses, with words behind it: `(C) 42`, `C. because`, `option C`.
pub fn chosen(text: &str) -> Option<char> {
    if let Some(letter) = choice(text) {
        return Some(letter);
    }
    let text = text.trim().trim_start_matches(['$', '*', '\\', '{']).trim();
    let text = text.strip_prefix("text{").or_else(|| text.strip_prefix("textbf{")).unwrap_or(text);
    let lower = text.to_lowercase();
    let rest =
        ["option ", "choice ", "answer "].iter().find(|w| lower.starts_with(**w)).map_or(text, |w| &text[w.len()..]);
    let bracketed = rest.starts_with('(');
    let mut chars = rest.trim_start_matches('(').chars();
    let letter = chars.next().filter(|c| c.is_ascii_uppercase() && *c <= 'J')?;
    let next = chars.next();
    let free = |c: char| matches!(c, ')' | '.' | ':' | ',' | '。' | '，' | '：' | '、') || super::lexer::is_han(c);
    let ends = if bracketed { next == Some(')') } else { next.is_none_or(free) };
    ends.then_some(letter)
}

/// The letter with which an announced answer begins: `B because ...`. "A" and "I" may be words there.
pub fn leading_choice(text: &str) -> Option<char> {
    let mut chars = text.trim_start_matches(['$', '*', '(']).chars();
    let letter = chars.next().filter(|c| matches!(c, 'B'..='H'))?;
    (chars.next() == Some(' ')).then_some(letter)
}

static SPOKEN: LazyLock<Regex> = LazyLock::new(|| {
    let pattern = r"(?:(?i:\b(?:is|it's|be|choose|select|option|choice|sure|definitely|est))\s+|是\s*|选\s*)\*{0,2}\(?([A-J])\)?\*{0,2}(?:$|[^\w]\W*(\w*))";
    Regex::new(pattern).expect("a valid pattern")
});

/// The letter that prose chooses last: "so I think it's B". A letter that may be a word, as in "is A cat", is none.
pub fn spoken_choice(text: &str) -> Option<char> {
    let letters = SPOKEN.captures_iter(text).filter_map(|found| {
        let letter = found[1].chars().next()?;
        let word = matches!(letter, 'A' | 'I') && found.get(2).is_some_and(|next| !next.as_str().is_empty()) && {
            let end = found.get(1).map_or(0, |m| m.end());
            text[end..].starts_with(' ')
        };
        (!word).then_some(letter)
    });
    letters.last()
}
