//! Formulas in running text: `$...$`, `$$...$$`, `\(...\)`, `\[...\]`, and bare fractions.

use super::locate::is_prose;

/// A formula and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Formula<'a> {
    begin: usize,
    end: usize,
    content: &'a str,
}

/// Every formula of a text, in order.
fn formulas(text: &str) -> Vec<Formula<'_>> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let (open, close) = match (bytes[at], bytes.get(at + 1)) {
            (b'\\', Some(b'(')) => ("\\(", "\\)"),
            (b'\\', Some(b'[')) => ("\\[", "\\]"),
            (b'\\', Some(_)) => {
                at += 2;
                continue;
            }
            (b'$', Some(b'$')) => ("$$", "$$"),
            (b'$', _) => ("$", "$"),
            _ => {
                at += 1;
                continue;
            }
        };
        let begin = at + open.len();
        // A backslash may have stepped into a character.
        if !text.is_char_boundary(begin) {
            at += 1;
            continue;
        }
        let Some(length) = closing(&text[begin..], close) else {
            at += open.len();
            continue;
        };
        let content = &text[begin..begin + length];
        let spaced = |side: Option<char>| side.is_some_and(char::is_whitespace);
        let behind = text[begin + length + close.len()..].chars().next();
        let money = open == "$"
            && (content.is_empty()
                // `$20+$3`
                || behind.is_some_and(|c| c.is_ascii_digit())
                || spaced(content.chars().next()) != spaced(content.chars().next_back())
                || (!content.contains('\\') && is_prose(content)));
        if money || content.trim().is_empty() {
            at += open.len();
            continue;
        }
        found.push(Formula { begin: at, end: begin + length + close.len(), content });
        at = begin + length + close.len();
    }
    found
}

/// Where the closing sign stands; single dollars close on their own line.
fn closing(rest: &str, close: &str) -> Option<usize> {
    let bytes = rest.as_bytes();
    let mut i = 0;
    // No formula of an answer is longer, and the search stays linear.
    let limit = rest.len().min(2_000);
    while i < limit {
        if rest.is_char_boundary(i) && rest[i..].starts_with(close) {
            return Some(i);
        }
        match bytes[i] {
            b'\\' => i += 2,
            b'\n' if close == "$" => return None,
            _ => i += 1,
        }
    }
    None
}

/// Formulas from `first` on that connectives join, as one list.
fn joined(text: &str, formulas: &[Formula<'_>]) -> Option<String> {
    let first = formulas.first()?;
    let mut out = first.content.trim().to_owned();
    for pair in formulas.windows(2).take(12) {
        let between = text[pair[0].end..pair[1].begin].trim();
        let joint = match between.trim_start_matches(',').trim() {
            "" if between == "," => ", ",
            "and" | "和" | "以及" => " and ",
            "or" | "或" | "或者" => " or ",
            _ => break,
        };
        out.push_str(joint);
        out.push_str(pair[1].content.trim());
    }
    let after = text[first.end..].trim_start();
    if formulas.len() == 1 && (after.starts_with('%') || after.starts_with("percent")) {
        out.push('%');
    }
    Some(out)
}

/// The formula that a text begins with, and those joined to it.
pub fn leading_formula(text: &str) -> Option<String> {
    let found = formulas(&text[..text.floor_char_boundary(2_000)]);
    (found.first()?.begin == 0).then(|| joined(text, &found)).flatten()
}

/// The first formula of a text, and those joined to it.
pub fn first_formula(text: &str) -> Option<String> {
    let text = &text[..text.floor_char_boundary(MAX_TAIL)];
    joined(text, &formulas(text))
}

/// Bytes at the end of a text in which the last formula is looked for.
const MAX_TAIL: usize = 12_000;

/// The last formula of a text with those before it that are joined to it, or a bare fraction behind all of them, and where
/// it ends.
pub fn last_formula(text: &str) -> Option<(String, usize)> {
    let skipped = text.ceil_char_boundary(text.len().saturating_sub(MAX_TAIL));
    let text = &text[skipped..];
    let found = formulas(text);
    let fraction = text.rfind("\\frac").into_iter().chain(text.rfind("\\dfrac")).max();
    if let Some(at) = fraction
        && found.last().is_none_or(|f| f.end <= at)
    {
        return bare_fraction(text, at).map(|(fraction, end)| (fraction, skipped + end));
    }
    let mut begin = found.len().checked_sub(1)?;
    while begin > 0 {
        let between = text[found[begin - 1].end..found[begin].begin].trim().trim_start_matches(',').trim();
        let comma = text[found[begin - 1].end..found[begin].begin].trim() == ",";
        if !(comma || matches!(between, "and" | "or" | "和" | "或")) {
            break;
        }
        begin -= 1;
    }
    let end = skipped + found[found.len() - 1].end;
    joined(text, &found[begin..]).map(|formula| (formula, end))
}

/// `-\frac{1}{2}` without signs around it.
fn bare_fraction(text: &str, at: usize) -> Option<(String, usize)> {
    let mut end = at + text[at..].find('{')?;
    for _ in 0..2 {
        let mut depth = 0usize;
        let begin = end;
        if !matches!(text.as_bytes().get(begin), Some(b'{' | b'0'..=b'9')) {
            return None;
        }
        for (i, byte) in text.bytes().enumerate().skip(begin).take(400) {
            match byte {
                b'{' => depth += 1,
                b'}' => depth = depth.checked_sub(1)?,
                _ => {}
            }
            if depth == 0 {
                end = i + 1;
                break;
            }
        }
        if end == begin {
            return None;
        }
    }
    let sign = if text[..at].ends_with('-') { "-" } else { "" };
    Some((format!("{sign}{}", &text[at..end]), end))
}
