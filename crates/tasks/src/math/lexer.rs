//! From the text of one answer to tokens. LaTeX and plain text go through the same rules; spacing, sizes and fonts disappear.

use super::node::Relation;
use super::token::{
    FONT_COMMANDS, IGNORED, TEXT_COMMANDS, Token, fold_char, greek, is_unit, magnitude, relation, word_command,
};

/// More tokens than this are no answer.
pub const MAX_TOKENS: usize = 2_000;

/// Deepest nesting of `\text{}`.
const MAX_TEXT_DEPTH: usize = 12;

/// A token, and whether white space stands before it.
#[derive(Clone, Debug, PartialEq)]
pub struct Lexed {
    /// The token.
    pub token: Token,
    /// Whether white space stands before it.
    pub spaced: bool,
}

/// Splits `text` into tokens; `None` when there are too many or braces of a command do not close.
pub fn tokens(text: &str) -> Option<Vec<Lexed>> {
    tokens_inside(text, 0)
}

fn tokens_inside(text: &str, depth: usize) -> Option<Vec<Lexed>> {
    let mut folded = String::with_capacity(text.len());
    for c in text.chars() {
        match fold_char(c) {
            Some(as_text) => folded.push_str(as_text),
            None if ('０'..='９').contains(&c) => folded.push(char::from(b'0' + (c as u32 - '０' as u32) as u8)),
            None => folded.push(c),
        }
    }
    let doubled = !folded.contains("\\begin");
    let mut lexer =
        Lexer { chars: folded.chars().collect(), at: 0, out: Vec::new(), spaced: false, brackets: 0, doubled, depth };
    lexer.run()?;
    Some(lexer.out)
}

struct Lexer {
    chars: Vec<char>,
    at: usize,
    out: Vec<Lexed>,
    spaced: bool,
    /// Open brackets other than grouping braces: a comma inside separates, outside it may group digits.
    brackets: usize,
    /// Whether `\\frac` stands for `\frac`, as in text that was escaped twice.
    doubled: bool,
    /// How many commands for text stand around this.
    depth: usize,
}

impl Lexer {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn push(&mut self, token: Token) {
        self.out.push(Lexed { token, spaced: self.spaced });
        self.spaced = false;
    }

    fn run(&mut self) -> Option<()> {
        while let Some(c) = self.peek(0) {
            if self.out.len() > MAX_TOKENS {
                return None;
            }
            match c {
                ' ' | '~' => {
                    self.spaced = true;
                    self.at += 1;
                }
                '$' | '€' | '£' | '¥' | '￥' | '₹' | '"' | '`' => self.at += 1,
                '\\' => self.command()?,
                c if c.is_ascii_digit() => self.number(),
                '.' if self.peek(1) == Some('.') && self.peek(2) == Some('.') => {
                    self.at += 3;
                    self.push(Token::Command("ldots".to_owned()));
                }
                '.' if self.peek(1).is_some_and(|d| d.is_ascii_digit()) => self.number(),
                c if c.is_ascii_alphabetic() => self.word(),
                c if is_han(c) => self.han(),
                c if c.is_alphabetic() => {
                    self.at += 1;
                    self.push(Token::Letter(c));
                }
                '<' | '>' | '=' | '!' | ':' => self.relation_or_sign(c),
                '*' if self.peek(1) == Some('*') && self.out.last().is_some_and(|l| l.token != Token::Sign('*')) => {
                    self.at += 2;
                    self.push(Token::Sign('^'));
                }
                _ => {
                    match c {
                        '(' | '[' => self.brackets += 1,
                        ')' | ']' => self.brackets = self.brackets.saturating_sub(1),
                        _ => {}
                    }
                    self.at += 1;
                    self.push(Token::Sign(c));
                }
            }
        }
        Some(())
    }

    fn relation_or_sign(&mut self, c: char) {
        let then_equal = self.peek(1) == Some('=');
        let (token, length) = match (c, then_equal) {
            ('<', true) => (Token::Relation(Relation::LessEqual), 2),
            ('>', true) => (Token::Relation(Relation::GreaterEqual), 2),
            ('!', true) => (Token::Relation(Relation::NotEqual), 2),
            (':' | '=', true) => (Token::Relation(Relation::Equal), 2),
            ('=', false) => (Token::Relation(Relation::Equal), 1),
            ('<', false) => (Token::Relation(Relation::Less), 1),
            ('>', false) => (Token::Relation(Relation::Greater), 1),
            _ => (Token::Sign(c), 1),
        };
        self.at += length;
        self.push(token);
    }

    /// The content of `{...}` at the position, which moves behind it; `None` when it does not close.
    fn braced(&mut self) -> Option<Option<String>> {
        while self.peek(0) == Some(' ') {
            self.at += 1;
        }
        if self.peek(0) != Some('{') {
            return Some(None);
        }
        let (begin, mut depth) = (self.at + 1, 0usize);
        for i in self.at..self.chars.len() {
            match self.chars[i] {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                self.at = i + 1;
                return Some(Some(self.chars[begin..i].iter().collect()));
            }
        }
        None
    }

    fn command(&mut self) -> Option<()> {
        self.at += 1;
        let Some(c) = self.peek(0) else { return Some(()) };
        if !c.is_ascii_alphabetic() {
            self.at += 1;
            match c {
                '{' => {
                    self.brackets += 1;
                    self.push(Token::SetOpen);
                }
                '}' => {
                    self.brackets = self.brackets.saturating_sub(1);
                    self.push(Token::SetClose);
                }
                '\\' if self.doubled && self.peek(0).is_some_and(|c| c.is_ascii_alphabetic()) => {
                    self.at -= 1;
                    return self.command();
                }
                '\\' => self.push(Token::NewRow),
                '%' => self.push(Token::Sign('%')),
                '|' => self.push(Token::Sign('|')),
                '#' | '&' | '_' | '$' | '(' | ')' | '[' | ']' => {}
                _ => self.spaced = true,
            }
            return Some(());
        }
        let begin = self.at;
        while self.peek(0).is_some_and(|c| c.is_ascii_alphabetic()) {
            self.at += 1;
        }
        let name: String = self.chars[begin..self.at].iter().collect();
        self.named(name)
    }

    fn named(&mut self, name: String) -> Option<()> {
        // `\quadx_1` can only be a space and a letter.
        if let Some(rest) = name.strip_prefix("qquad").or_else(|| name.strip_prefix("quad"))
            && !rest.is_empty()
        {
            self.at -= rest.len();
            self.spaced = true;
            return Some(());
        }
        if IGNORED.contains(&name.as_str()) {
            if matches!(name.as_str(), "left" | "right") && self.peek(0) == Some('.') {
                self.at += 1;
            }
            return Some(());
        }
        if TEXT_COMMANDS.contains(&name.as_str()) || FONT_COMMANDS.contains(&name.as_str()) {
            return self.words(&name);
        }
        if let Some(relation) = relation(&name) {
            self.push(Token::Relation(relation));
        } else if let Some(letter) = greek(&name) {
            self.push(Token::Letter(letter));
        } else {
            match name.as_str() {
                "begin" => {
                    let environment = self.braced()??;
                    if environment == "array" {
                        self.braced()?;
                    }
                    self.push(Token::Begin(environment));
                }
                "end" => {
                    self.braced()?;
                    self.push(Token::End);
                }
                "phantom" | "hspace" | "vspace" | "color" | "hphantom" | "vphantom" | "label" | "tag" => {
                    self.braced()?;
                }
                "cdot" | "times" | "ast" | "bullet" => self.push(Token::Sign('*')),
                "div" | "slash" => self.push(Token::Sign('/')),
                "colon" => self.push(Token::Sign(':')),
                "lbrace" => self.push(Token::SetOpen),
                "rbrace" => self.push(Token::SetClose),
                "lbrack" => self.push(Token::Sign('[')),
                "rbrack" => self.push(Token::Sign(']')),
                "lparen" => self.push(Token::Sign('(')),
                "rparen" => self.push(Token::Sign(')')),
                "lvert" | "rvert" | "vert" | "lVert" | "rVert" | "Vert" => self.push(Token::Sign('|')),
                "prime" => self.push(Token::Sign('\'')),
                "newline" => self.push(Token::NewRow),
                "dfrac" | "tfrac" | "cfrac" => self.push(Token::Command("frac".to_owned())),
                "dbinom" | "tbinom" => self.push(Token::Command("binom".to_owned())),
                "circ" | "degree" => self.push(Token::Command("degree".to_owned())),
                "backslash" | "smallsetminus" => self.push(Token::Command("setminus".to_owned())),
                "varnothing" => self.push(Token::Command("emptyset".to_owned())),
                "dots" | "ldots" | "cdots" => self.push(Token::Command("ldots".to_owned())),
                "imath" => self.push(Token::Letter('i')),
                "land" | "wedge" => self.push(Token::Text("and".to_owned())),
                "lor" | "vee" => self.push(Token::Text("or".to_owned())),
                "mathbb" => {
                    let set = match self.braced()?.as_deref().map(str::trim) {
                        Some("R") => "reals",
                        Some("Z") => "integers",
                        Some("N") => "naturals",
                        Some("Q") => "rationals",
                        Some("C") => "complexes",
                        _ => return None,
                    };
                    self.push(Token::Command(set.to_owned()));
                }
                _ => self.push(Token::Command(name)),
            }
        }
        Some(())
    }

    /// `\text{...}` and fonts: numbers and single letters are read as mathematics, the rest is words.
    fn words(&mut self, command: &str) -> Option<()> {
        let font = FONT_COMMANDS.contains(&command);
        let Some(content) = self.braced()? else { return Some(()) };
        let inner = content.trim();
        let letters = inner.chars().filter(|c| c.is_alphabetic()).count();
        if inner.is_empty() {
            self.spaced = true;
        } else if let Some(word) = word_command(inner) {
            self.push(Token::Command(word.to_owned()));
        } else if matches!(command, "mathbf" | "boldsymbol" | "bm") && matches!(inner, "i" | "j" | "k") {
            // Unit vectors, not the imaginary unit.
            let bold = if inner == "i" {
                '𝐢'
            } else if inner == "j" {
                '𝐣'
            } else {
                '𝐤'
            };
            self.push(Token::Letter(bold));
        } else if letters == 0 || inner.contains('\\') || (font && letters == 1) || inner.contains('$') {
            if self.depth >= MAX_TEXT_DEPTH {
                return None;
            }
            let inside = tokens_inside(inner, self.depth + 1)?;
            if self.out.len() + inside.len() > MAX_TOKENS {
                return None;
            }
            self.out.extend(inside);
        } else if !self.magnitude(inner) {
            self.push(Token::Text(inner.to_owned()));
        }
        Some(())
    }

    /// `2.5 million`: the word as a factor.
    fn magnitude(&mut self, word: &str) -> bool {
        let behind_digits = matches!(self.out.last().map(|l| &l.token), Some(Token::Digits(_)));
        let Some(power) = magnitude(word).filter(|_| behind_digits) else { return false };
        self.push(Token::Sign('*'));
        self.push(Token::Digits(format!("1{}", "0".repeat(power as usize))));
        true
    }

    fn word(&mut self) {
        let begin = self.at;
        while self.peek(0).is_some_and(|c| c.is_ascii_alphabetic()) {
            self.at += 1;
        }
        let word: String = self.chars[begin..self.at].iter().collect();
        let after_number = self.out.last().is_some_and(|l| {
            matches!(l.token, Token::Digits(_) | Token::Sign(')' | '}' | '%') | Token::Text(_) | Token::Command(_))
        });
        if self.magnitude(&word) {
            return;
        }
        // `x=1orx=2`
        let glued = ["and", "or"].into_iter().find(|w| word.strip_prefix(w).is_some_and(|rest| rest.len() == 1));
        if let Some(connective) = glued.filter(|_| after_number && begin > 0 && self.chars[begin - 1] != ' ') {
            self.push(Token::Text(connective.to_owned()));
            self.at -= 1;
            self.word();
        } else if matches!(word.as_str(), "and" | "or") {
            self.push(Token::Text(word));
        } else if let Some(command) = word_command(&word) {
            self.push(Token::Command(command.to_owned()));
        } else if word.len() > 1 && (word.len() > 4 || (after_number && is_unit(&word))) {
            self.push(Token::Text(word));
        } else {
            for letter in word.chars() {
                self.push(Token::Letter(letter));
            }
        }
    }

    fn han(&mut self) {
        let begin = self.at;
        while self.peek(0).is_some_and(is_han) {
            self.at += 1;
        }
        let word: String = self.chars[begin..self.at].iter().collect();
        // `3万元`
        let leading = ["万亿", "百万", "万", "亿", "千"].into_iter().find(|m| word.starts_with(*m));
        let kilo = ["千克", "千米", "千瓦", "千卡"].iter().any(|unit| word.starts_with(unit));
        if let Some(leading) = leading.filter(|m| !kilo && self.magnitude(m)) {
            self.at = begin + leading.chars().count();
            return;
        }
        self.push(match word.as_str() {
            "和" | "与" | "且" | "及" => Token::Text("and".to_owned()),
            "或" | "或者" => Token::Text("or".to_owned()),
            _ => Token::Text(word),
        });
    }

    fn digits_from(&self, from: usize) -> usize {
        self.chars[from.min(self.chars.len())..].iter().take_while(|c| c.is_ascii_digit()).count()
    }

    /// Whether a separator of thousands followed by exactly three digits stands at `from`: where the digits begin.
    fn group(&self, from: usize, comma: bool) -> Option<usize> {
        let rest: String = self.chars[from.min(self.chars.len())..].iter().take(8).collect();
        let separators: &[&str] =
            if comma { &["{,}\\!", "{,}", ",\\! ", ",\\!", ","] } else { &["\\,", "\\!", "\\;", "\\ ", " "] };
        let found = separators.iter().find(|s| rest.starts_with(**s))?;
        if *found == "," && self.brackets > 0 {
            return None;
        }
        let digits = from + found.chars().count();
        (self.digits_from(digits) == 3).then_some(digits)
    }

    fn number(&mut self) {
        let begin = self.at;
        let whole = self.digits_from(begin);
        let mut text: String = self.chars[begin..begin + whole].iter().collect();
        let mut end = begin + whole;
        if (1..=3).contains(&whole) && !text.starts_with('0') && self.starts_groups(begin) {
            for comma in [true, false] {
                while let Some(digits) = self.group(end, comma) {
                    text.extend(&self.chars[digits..digits + 3]);
                    end = digits + 3;
                }
                if end > begin + whole {
                    break;
                }
            }
            // `27,54,108,135` is a list: a comma with other than three digits behind the groups.
            let more = self.chars.get(end) == Some(&',') && self.digits_from(end + 1) > 0;
            if more && self.chars[begin..end].contains(&',') && !self.chars[begin..end].contains(&'{') {
                text = self.chars[begin..begin + whole].iter().collect();
                end = begin + whole;
            }
        }
        if self.chars.get(end) == Some(&'.') {
            let fraction = self.digits_from(end + 1);
            let repeats = self.chars[end + 1..].iter().take(5).collect::<String>();
            if fraction > 0 || ["\\over", "\\bar{", "\\dot{"].contains(&repeats.as_str()) {
                text.extend(&self.chars[end..=end + fraction]);
                end += 1 + fraction;
            }
        }
        self.at = end;
        self.push(Token::Digits(text));
        self.exponent();
    }

    /// Whether the number at `begin` is not itself a later part of a list such as `27,54,108`.
    fn starts_groups(&self, begin: usize) -> bool {
        !(begin >= 2 && self.chars[begin - 1] == ',' && self.chars[begin - 2].is_ascii_digit())
    }

    /// `e5` right behind digits, as programs print numbers.
    fn exponent(&mut self) {
        if !matches!(self.peek(0), Some('e' | 'E')) {
            return;
        }
        let sign = usize::from(matches!(self.peek(1), Some('+' | '-')));
        let digits = self.digits_from(self.at + 1 + sign);
        let begin = self.at + 1;
        let end = begin + sign + digits;
        if digits == 0 || digits > 4 || self.chars.get(end).is_some_and(|c| c.is_ascii_alphabetic()) {
            return;
        }
        for c in ['*', '1', '^', '{'] {
            self.push(if c == '1' { Token::Digits("10".to_owned()) } else { Token::Sign(c) });
        }
        if self.peek(1) == Some('-') {
            self.push(Token::Sign('-'));
        }
        self.push(Token::Digits(self.chars[begin + sign..end].iter().collect()));
        self.push(Token::Sign('}'));
        self.at = end;
    }
}

/// Whether a character is a Han character.
pub fn is_han(c: char) -> bool {
    matches!(c, '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        let show = |l: &Lexed| match &l.token {
            Token::Digits(d) => d.clone(),
            Token::Letter(c) | Token::Sign(c) => c.to_string(),
            Token::Command(c) => format!("\\{c}"),
            Token::Text(t) => format!("'{t}'"),
            other => format!("{other:?}"),
        };
        tokens(text).unwrap_or_default().iter().map(show).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn numbers_keep_their_groups() {
        for text in ["1,234,567", "1{,}234{,}567", r"1,\!234,\!567", r"1\,234\,567", "1 234 567"] {
            assert_eq!(shown(text), "1234567", "{text}");
        }
        assert_eq!(shown("27,54,108,135"), "27 , 54 , 108 , 135");
        assert_eq!(shown("(100,200)"), "( 100 , 200 )");
        assert_eq!(shown("12,345.5"), "12345.5");
        assert_eq!(shown("7."), "7 .");
        assert_eq!(shown("1e-3"), "1 * 10 ^ { - 3 }");
    }

    #[test]
    fn words_and_commands() {
        assert_eq!(shown(r"\left( \dfrac{1}{2} \right)"), r"( \frac { 1 } { 2 } )");
        assert_eq!(shown("10 cm"), "10 'cm'");
        assert_eq!(shown("sqrt(2)"), r"\sqrt ( 2 )");
        assert_eq!(shown("xy"), "x y");
        assert_eq!(shown(r"5\text{ or }6"), "5 'or' 6");
        assert_eq!(shown(r"\text{13}"), "13");
        assert_eq!(shown("3元"), "3 '元'");
        assert_eq!(shown(r"\\frac12"), r"\frac 12");
    }
}
