//! From tokens to a tree: lists, relations and sets. Terms, factors and everything below them are in `factor.rs`.
//!
//! The grammar, loosest first: clauses joined by commas, "and", "or"; relations; unions; sums; products and quotients, where
//! a product without a sign binds tighter than `/`; powers and other signs behind; atoms. Depth and size are bounded.

use super::lexer::{Lexed, tokens};
use super::node::{Joint, Node, Relation};
use super::token::{Token, number_word};

/// Deepest nesting that is read.
pub const MAX_DEPTH: usize = 64;
/// Deepest tree that is compared.
pub const MAX_TREE_DEPTH: usize = 200;
/// Longest answer in bytes that is read.
pub const MAX_BYTES: usize = 4_000;

/// Why an answer is not mathematics that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// There is nothing in it.
    Empty,
    /// Longer, deeper or larger than is read.
    TooLarge,
    /// Not of the notation.
    Syntax,
}

/// Reads one answer, for example `x = \frac{1}{2}` or `(1, 2]`.
///
/// # Errors
/// [`ParseError`]; the text may still be an answer in words.
pub fn parse(text: &str) -> Result<Node, ParseError> {
    if text.len() > MAX_BYTES {
        return Err(ParseError::TooLarge);
    }
    let mut tokens = tokens(text).ok_or(ParseError::TooLarge)?;
    while matches!(tokens.last().map(|l| &l.token), Some(Token::Sign('.' | ',' | ';' | ':') | Token::NewRow)) {
        tokens.pop();
    }
    if tokens.is_empty() {
        return Err(ParseError::Empty);
    }
    if let [Lexed { token: Token::Text(word), .. }] = tokens.as_slice()
        && let Some(number) = number_word(word)
    {
        return Ok(Node::integer(number as i64));
    }
    let mut parser = Parser { tokens, at: 0, depth: 0, bars: 0, in_set: 0 };
    let node = parser.answer()?;
    if parser.at < parser.tokens.len() {
        return Err(ParseError::Syntax);
    }
    // Chains such as `a/b/c` and `5!!!` nest without brackets.
    if node.is_deeper_than(MAX_TREE_DEPTH) { Err(ParseError::TooLarge) } else { Ok(node) }
}

pub(super) type Parsed = Result<Node, ParseError>;

pub(super) struct Parser {
    pub tokens: Vec<Lexed>,
    pub at: usize,
    pub depth: usize,
    /// Open absolute values.
    pub bars: usize,
    /// Open braces of sets, where a bar separates.
    pub in_set: usize,
}

impl Parser {
    pub fn peek(&self) -> Option<&Token> {
        self.peek_at(0)
    }

    pub fn peek_at(&self, ahead: usize) -> Option<&Token> {
        self.tokens.get(self.at + ahead).map(|l| &l.token)
    }

    pub fn next(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.at).map(|l| l.token.clone());
        self.at += 1;
        token
    }

    /// Steps over a token if it is the next one.
    pub fn accept(&mut self, token: &Token) -> bool {
        let found = self.peek() == Some(token);
        self.at += usize::from(found);
        found
    }

    pub fn sign(&mut self, sign: char) -> bool {
        self.accept(&Token::Sign(sign))
    }

    pub fn command(&self, name: &str) -> bool {
        matches!(self.peek(), Some(Token::Command(c)) if c == name)
    }

    pub fn expect(&mut self, sign: char) -> Result<(), ParseError> {
        if self.sign(sign) { Ok(()) } else { Err(ParseError::Syntax) }
    }

    /// Runs `f` one level deeper.
    pub fn deeper(&mut self, f: impl FnOnce(&mut Self) -> Parsed) -> Parsed {
        if self.depth >= MAX_DEPTH {
            return Err(ParseError::TooLarge);
        }
        self.depth += 1;
        let result = f(self);
        self.depth -= 1;
        result
    }

    /// The whole answer: words that introduce it are left out.
    fn answer(&mut self) -> Parsed {
        let introduced = self.tokens.len() > 1
            && matches!(self.peek(), Some(Token::Text(_)))
            && !matches!(self.peek_at(1), Some(Token::Relation(_)));
        if introduced && self.joint().is_none() {
            self.at += 1;
            while self.sign(':') || self.sign(',') {}
        }
        // "approximately 8.24"
        if matches!(self.peek(), Some(Token::Relation(Relation::Approx | Relation::Equal))) {
            self.at += 1;
        }
        let (mut items, joint) = self.clauses()?;
        Ok(if items.len() == 1 { items.remove(0) } else { Node::List(items, joint) })
    }

    /// The joint at the position, over which it steps.
    fn joint(&mut self) -> Option<Joint> {
        let begin = self.at;
        let mut found = None;
        loop {
            match self.peek() {
                Some(Token::Sign(',' | ';')) => found = found.or(Some(Joint::Comma)),
                Some(Token::Text(words)) => match words.trim_matches([',', ' ', '.', ';']) {
                    "and" | "且" | "和" => found = Some(Joint::And),
                    "or" | "或" | "或者" => found = Some(Joint::Or),
                    "" => found = found.or(Some(Joint::Comma)),
                    _ => break,
                },
                _ => break,
            }
            self.at += 1;
        }
        if found.is_none() {
            self.at = begin;
        }
        found
    }

    /// Clauses up to a token that cannot be in one.
    pub fn clauses(&mut self) -> Result<(Vec<Node>, Joint), ParseError> {
        let mut items = vec![self.clause()?];
        let mut joint = Joint::Comma;
        while let Some(found) = self.joint() {
            // A list may end in dots or a stray comma.
            if self.peek().is_none() {
                break;
            }
            if found != Joint::Comma {
                joint = found;
            }
            items.push(self.clause()?);
        }
        Ok((items, joint))
    }

    /// Sides joined by relations, or a member of a set.
    fn clause(&mut self) -> Parsed {
        let mut terms = vec![self.set_expression()?];
        let mut ops = Vec::new();
        loop {
            if self.command("in") || self.command("notin") {
                if self.command("notin") {
                    return Err(ParseError::Syntax);
                }
                self.at += 1;
                let set = self.set_expression()?;
                let variable = terms.pop().ok_or(ParseError::Syntax)?;
                let member = Node::Member(Box::new(variable), Box::new(set));
                return if terms.is_empty() { Ok(member) } else { Err(ParseError::Syntax) };
            }
            let Some(Token::Relation(op)) = self.peek() else { break };
            ops.push(*op);
            self.at += 1;
            terms.push(self.set_expression()?);
        }
        if ops.is_empty() { terms.pop().ok_or(ParseError::Syntax) } else { Ok(Node::Chain { terms, ops }) }
    }

    /// Unions, intersections and differences of sets, or a plain expression.
    fn set_expression(&mut self) -> Parsed {
        let mut left = self.ratio()?;
        loop {
            let union = self.command("cup") || self.plain_union();
            if !union && !self.command("cap") && !self.command("setminus") {
                return Ok(left);
            }
            let difference = self.command("setminus");
            self.at += 1;
            let right = self.ratio()?;
            left = match (left, union, difference) {
                (Node::Union(mut items), true, _) => {
                    items.push(right);
                    Node::Union(items)
                }
                (left, true, _) => Node::Union(vec![left, right]),
                (left, _, true) => Node::Difference(Box::new(left), Box::new(right)),
                (left, ..) => Node::Intersection(vec![left, right]),
            };
        }
    }

    /// A letter `U` between a closing and an opening bracket.
    fn plain_union(&self) -> bool {
        let before = self.at.checked_sub(1).and_then(|i| self.tokens.get(i)).map(|l| &l.token);
        self.peek() == Some(&Token::Letter('U'))
            && matches!(before, Some(Token::Sign(')' | ']') | Token::SetClose))
            && matches!(self.peek_at(1), Some(Token::Sign('(' | '[') | Token::SetOpen))
    }

    /// Ratios: `2:3` is a quotient, `1:2:3` the share of each part in the last.
    fn ratio(&mut self) -> Parsed {
        let first = self.sum()?;
        if self.in_set > 0 || self.peek() != Some(&Token::Sign(':')) {
            return Ok(first);
        }
        let mut parts = vec![first];
        while self.sign(':') {
            parts.push(self.sum()?);
        }
        // A clock: no ratio ends in zero.
        if parts.iter().skip(1).any(|part| *part == Node::integer(0)) {
            return Ok(Node::Tuple { open: ':', close: ':', items: parts });
        }
        Ok(if let [a, b] = parts.as_slice() {
            Node::Quotient(Box::new(a.clone()), Box::new(b.clone()))
        } else {
            let last = parts[parts.len() - 1].clone();
            let share = |part: Node| Node::Quotient(Box::new(part), Box::new(last.clone()));
            Node::Tuple { open: ':', close: ':', items: parts.into_iter().map(share).collect() }
        })
    }

    /// Terms with plus and minus.
    pub fn sum(&mut self) -> Parsed {
        self.deeper(|p| {
            let mut terms: Vec<Node> = Vec::new();
            loop {
                if p.command("pm") || p.command("mp") {
                    let minus_first = p.command("mp");
                    p.at += 1;
                    let left = match terms.len() {
                        0 => None,
                        1 => terms.pop().map(Box::new),
                        _ => Some(Box::new(Node::Sum(std::mem::take(&mut terms)))),
                    };
                    let right = Box::new(p.product()?);
                    terms.push(Node::PlusMinus { left, right, minus_first });
                } else if p.sign('-') {
                    // `+-` as plain text writes it
                    if p.sign('+') && !terms.is_empty() {
                        return Err(ParseError::Syntax);
                    }
                    let term = p.product()?;
                    terms.push(Node::Negative(Box::new(term)));
                } else if terms.is_empty() || p.sign('+') {
                    if terms.is_empty() {
                        p.sign('+');
                    }
                    if p.peek() == Some(&Token::Sign('-')) || p.command("pm") {
                        continue;
                    }
                    let term = p.product()?;
                    terms.push(term);
                } else {
                    break;
                }
            }
            Ok(if terms.len() == 1 { terms.remove(0) } else { Node::Sum(terms) })
        })
    }

    /// `{...}` with a single expression in it.
    pub fn group(&mut self) -> Parsed {
        self.deeper(|p| {
            p.expect('{')?;
            let (mut items, joint) = p.clauses()?;
            p.expect('}')?;
            Ok(if items.len() == 1 { items.remove(0) } else { Node::List(items, joint) })
        })
    }

    /// `( ... )` and `[ ... ]`: grouping, a tuple or an interval.
    pub fn bracketed(&mut self, open: char) -> Parsed {
        self.deeper(|p| {
            let (bars, in_set) = (std::mem::take(&mut p.bars), std::mem::take(&mut p.in_set));
            if matches!(p.peek(), Some(Token::Sign(')' | ']'))) {
                return Err(ParseError::Syntax);
            }
            let (mut items, joint) = p.clauses()?;
            (p.bars, p.in_set) = (bars, in_set);
            let close = match p.next() {
                Some(Token::Sign(c @ (')' | ']'))) => c,
                _ => return Err(ParseError::Syntax),
            };
            if items.len() == 1 {
                return Ok(items.remove(0));
            }
            if joint == Joint::Or {
                return Ok(Node::List(items, joint));
            }
            Ok(Node::Tuple { open, close, items })
        })
    }

    /// `\{ ... \}`, the opening brace behind us: a list of elements, or a condition behind a bar.
    pub fn set(&mut self) -> Parsed {
        self.deeper(|p| {
            if p.accept(&Token::SetClose) {
                return Ok(Node::Set(Vec::new()));
            }
            let bars = std::mem::take(&mut p.bars);
            p.in_set += 1;
            let (items, _) = p.clauses()?;
            if p.sign('|') || p.sign(':') || p.command("mid") {
                p.at += usize::from(p.command("mid"));
                let variable = items.into_iter().next().ok_or(ParseError::Syntax)?;
                p.in_set -= 1;
                let (mut conditions, joint) = p.clauses()?;
                p.bars = bars;
                if !p.accept(&Token::SetClose) || !matches!(variable, Node::Symbol(_) | Node::Member(..)) {
                    return Err(ParseError::Syntax);
                }
                return Ok(if conditions.len() == 1 { conditions.remove(0) } else { Node::List(conditions, joint) });
            }
            p.in_set -= 1;
            p.bars = bars;
            if p.accept(&Token::SetClose) { Ok(Node::Set(items)) } else { Err(ParseError::Syntax) }
        })
    }
}
