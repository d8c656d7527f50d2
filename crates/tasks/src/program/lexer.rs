//! Tokens of the subset of Python.

use super::Fault;

/// One token.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    Int(i64),
    Text(String),
    Name(String),
    /// An operator or a bracket.
    Sign(&'static str),
    /// The end of a line, outside of brackets, and whether the next one is indented.
    Line(bool),
    /// Something of Python outside of the subset; always the last, as nothing after it is read.
    Foreign,
}

/// Longest first, so that `//` is not two signs.
const SIGNS: [&str; 13] = ["//", "+", "-", "*", "%", "(", ")", "[", "]", ",", ":", ".", "="];
/// Signs of Python that the subset has no use for; two together before one alone.
const FOREIGN: [&str; 24] = [
    "**", "==", "!=", "<=", ">=", "->", ":=", "+=", "-=", "*=", "%=", "/=", "<<", ">>", "<", ">", "/", "&", "|", "^",
    "~", "{", "}", "@",
];
/// Words of Python with a meaning of their own.
const KEYWORDS: [&str; 34] = [
    "False", "None", "True", "and", "as", "assert", "async", "await", "break", "class", "continue", "del", "elif",
    "else", "except", "finally", "for", "from", "global", "if", "import", "in", "is", "nonlocal", "not", "or", "pass",
    "raise", "try", "while", "with", "yield", "match", "type",
];

/// All tokens of a text, or those before the first that is not of the subset.
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, Fault> {
    let mut out = Vec::new();
    match read(text, &mut out) {
        Err(Fault::Unsupported) => out.push(Token::Foreign),
        other => other?,
    }
    Ok(out)
}

fn read(text: &str, out: &mut Vec<Token>) -> Result<(), Fault> {
    let (mut rest, mut depth) = (text, 0i32);
    while let Some(c) = rest.chars().next() {
        let length = match c {
            ' ' | '\t' => 1,
            '\n' => {
                if depth == 0 {
                    out.push(Token::Line(rest[1..].starts_with([' ', '\t'])));
                }
                1
            }
            '0'..='9' => number(rest, out)?,
            '\'' | '"' => string(rest, c, out)?,
            _ if c.is_alphabetic() || c == '_' => name(rest, out)?,
            _ => {
                let foreign = FOREIGN.iter().any(|s| rest.starts_with(s)) && !rest.starts_with("//");
                if foreign || c == '#' || c == '\\' || c == ';' || rest.starts_with("//=") {
                    return Err(Fault::Unsupported);
                }
                if c == '.' && rest[1..].starts_with(|d: char| d.is_ascii_digit() || d == '.') {
                    return Err(Fault::Unsupported); // a decimal number, an ellipsis
                }
                let sign = SIGNS.iter().find(|s| rest.starts_with(**s)).ok_or(Fault::Syntax)?;
                depth += i32::from(matches!(*sign, "(" | "[")) - i32::from(matches!(*sign, ")" | "]"));
                out.push(Token::Sign(sign));
                sign.len()
            }
        };
        rest = &rest[length..];
    }
    Ok(())
}

/// Decimal digits; other ways to write numbers are left to Python.
fn number(text: &str, out: &mut Vec<Token>) -> Result<usize, Fault> {
    let length = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, after) = text.split_at(length);
    if after.starts_with(['.', '_']) || after.starts_with(char::is_alphabetic) {
        return Err(Fault::Unsupported);
    }
    if digits.len() > 1 && digits.starts_with('0') {
        return Err(if digits.bytes().all(|b| b == b'0') { Fault::Unsupported } else { Fault::Syntax });
    }
    out.push(Token::Int(digits.parse().map_err(|_| Fault::Unsupported)?));
    Ok(length)
}

fn string(text: &str, quote: char, out: &mut Vec<Token>) -> Result<usize, Fault> {
    let end = text[1..].find(quote).ok_or(Fault::Syntax)? + 1;
    let inside = &text[1..end];
    let tripled = inside.is_empty() && text[end + 1..].starts_with(quote);
    if inside.contains('\\') || !inside.is_ascii() || tripled {
        return Err(Fault::Unsupported);
    }
    if inside.contains('\n') {
        return Err(Fault::Syntax);
    }
    // Neighbouring strings are joined in Python.
    if matches!(out.last(), Some(Token::Text(_))) {
        return Err(Fault::Unsupported);
    }
    out.push(Token::Text(inside.to_owned()));
    Ok(end + 1)
}

fn name(text: &str, out: &mut Vec<Token>) -> Result<usize, Fault> {
    let length = text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
    let word = &text[..length];
    // Python normalises letters: only plain ones and Han are themselves for sure.
    if !word.chars().all(|c| c.is_ascii() || ('\u{4e00}'..='\u{9fff}').contains(&c)) {
        return Err(Fault::Unsupported);
    }
    if KEYWORDS.contains(&word) || text[length..].starts_with(['\'', '"']) {
        return Err(Fault::Unsupported);
    }
    out.push(Token::Name(word.to_owned()));
    Ok(length)
}
