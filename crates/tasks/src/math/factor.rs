//! Terms, factors and atoms of the grammar in `parser.rs`.

use super::digits::{mixed, number};
use super::node::{Constant, Joint, Node};
use super::parser::{ParseError, Parsed, Parser};
use super::token::Token;

impl Parser {
    /// Factors with signs between them, left to right; a run of factors without signs is one factor.
    pub fn product(&mut self) -> Parsed {
        let mut left = self.run(false)?;
        loop {
            if self.sign('*') {
                let right = self.signed(false)?;
                left = match left {
                    Node::Product(mut items) => {
                        items.push(right);
                        Node::Product(items)
                    }
                    other => Node::Product(vec![other, right]),
                };
            } else if self.sign('/') {
                if self.unit_behind() {
                    continue;
                }
                let right = self.signed(true)?;
                left = Node::Quotient(Box::new(left), Box::new(right));
            } else if let Some(Token::Command(name)) = self.peek()
                && matches!(name.as_str(), "bmod" | "mod" | "pmod")
            {
                return Err(ParseError::Syntax);
            } else {
                return Ok(left);
            }
        }
    }

    /// The `/h` of `km/h`, over which it steps.
    fn unit_behind(&mut self) -> bool {
        let before = self.at.checked_sub(2).and_then(|i| self.tokens.get(i)).map(|l| &l.token);
        let unit =
            matches!(before, Some(Token::Text(_))) && matches!(self.peek(), Some(Token::Text(_) | Token::Letter(_)));
        self.at += usize::from(unit);
        unit
    }

    /// A run of factors behind a sign: `2 * -3`.
    fn signed(&mut self, divisor: bool) -> Parsed {
        if self.sign('-') {
            let inner = self.deeper(|p| p.signed(divisor))?;
            return Ok(Node::Negative(Box::new(inner)));
        }
        self.sign('+');
        self.run(divisor)
    }

    /// Factors side by side, `2x\sqrt{3}`; mixed numbers; a unit behind. In a divisor, white space behind a plain number
    /// ends the run: `2/3 pi`.
    fn run(&mut self, divisor: bool) -> Parsed {
        let mut factors = vec![self.postfixed()?];
        let mut from_digits = self.follows_digits();
        let mut mixed_behind = false;
        loop {
            if matches!(self.peek(), Some(Token::Text(_))) {
                if !self.unit()? {
                    break;
                }
                continue;
            }
            if !self.starts_factor() {
                break;
            }
            let spaced = self.tokens[self.at].spaced;
            let digits = matches!(self.peek(), Some(Token::Digits(_)));
            if divisor && factors.len() == 1 && from_digits && spaced {
                break;
            }
            if let [Node::Number { value, decimals: None }] = factors.as_slice()
                && value.is_integer()
                && from_digits
                && (digits || self.command("frac"))
            {
                let fraction = self.fraction_behind(digits)?;
                factors = vec![match mixed(value, &fraction) {
                    Some(sum) => sum,
                    None if digits => return Err(ParseError::Syntax),
                    None => Node::Product(vec![factors[0].clone(), fraction]),
                }];
                (from_digits, mixed_behind) = (false, digits);
                if self.sign('%') || self.command("percent") {
                    self.at += usize::from(self.command("percent"));
                    factors = factors.into_iter().map(|mixed| Node::Percent(Box::new(mixed))).collect();
                }
                continue;
            }
            if digits && (from_digits || mixed_behind) {
                return Err(ParseError::Syntax);
            }
            factors.push(self.postfixed()?);
            from_digits = self.follows_digits();
        }
        Ok(if factors.len() == 1 { factors.remove(0) } else { Node::Product(factors) })
    }

    fn follows_digits(&self) -> bool {
        self.at.checked_sub(1).and_then(|i| self.tokens.get(i)).is_some_and(|l| matches!(l.token, Token::Digits(_)))
    }

    /// What may be the fraction of a mixed number: `\frac{1}{2}`, or `1/2` in plain text.
    fn fraction_behind(&mut self, plain: bool) -> Parsed {
        if !plain {
            return self.postfixed();
        }
        let top = self.atom()?;
        self.expect('/')?;
        let bottom = self.atom()?;
        Ok(Node::Quotient(Box::new(top), Box::new(bottom)))
    }

    /// Steps over a unit with its exponent; `false` when the words are a connective.
    fn unit(&mut self) -> Result<bool, ParseError> {
        let Some(Token::Text(words)) = self.peek() else { return Ok(false) };
        if matches!(words.trim_matches([',', ' ', '.', ';']), "and" | "or" | "且" | "和" | "或" | "或者" | "") {
            return Ok(false);
        }
        // "If", "for all": a condition, not a unit.
        if words.split_whitespace().any(|w| matches!(w, "if" | "for" | "when" | "where" | "with" | "to" | "then")) {
            return Err(ParseError::Syntax);
        }
        self.at += 1;
        if self.sign('^') {
            self.argument()?;
        }
        if self.starts_factor() {
            return Err(ParseError::Syntax);
        }
        Ok(true)
    }

    /// Whether the next token begins a factor that may stand behind another without a sign.
    pub fn starts_factor(&self) -> bool {
        match self.peek() {
            Some(Token::Digits(_) | Token::SetOpen | Token::Begin(_)) => true,
            Some(Token::Letter(_)) => !self.is_union_letter(),
            Some(Token::Sign('(' | '[' | '{')) => true,
            Some(Token::Sign('|')) => self.bars == 0 && self.in_set == 0,
            Some(Token::Command(name)) => !matches!(
                name.as_str(),
                "pm" | "mp"
                    | "cup"
                    | "cap"
                    | "setminus"
                    | "in"
                    | "notin"
                    | "mid"
                    | "degree"
                    | "percent"
                    | "to"
                    | "rangle"
                    | "rfloor"
                    | "rceil"
                    | "bmod"
                    | "mod"
                    | "pmod"
                    | "choose"
            ),
            _ => false,
        }
    }

    fn is_union_letter(&self) -> bool {
        self.peek() == Some(&Token::Letter('U'))
            && self.at > 0
            && matches!(self.tokens[self.at - 1].token, Token::Sign(')' | ']'))
            && matches!(self.peek_at(1), Some(Token::Sign('(' | '[')))
    }

    /// An atom with exponents, factorials, percent and degree signs behind it.
    pub fn postfixed(&mut self) -> Parsed {
        self.deeper(|p| {
            let mut node = p.atom()?;
            loop {
                if p.sign('^') {
                    if p.degrees_exponent() {
                        node = Node::Degrees(Box::new(node));
                        continue;
                    }
                    let exponent = p.exponent()?;
                    // `7^{\text{th}}`
                    if matches!(&exponent, Node::Text(word) if matches!(word.as_str(), "st" | "nd" | "rd" | "th")) {
                        continue;
                    }
                    node = Node::Power(Box::new(node), Box::new(exponent));
                } else if p.sign('!') {
                    node = Node::Call("factorial".into(), vec![node]);
                } else if p.sign('%') || p.command("percent") {
                    p.at += usize::from(p.command("percent"));
                    node = Node::Percent(Box::new(node));
                } else if p.command("degree") {
                    p.at += 1;
                    // a temperature
                    if matches!(p.peek(), Some(Token::Letter('C' | 'F'))) {
                        p.at += 1;
                    }
                    node = Node::Degrees(Box::new(node));
                } else if p.sign('\'') {
                    node = match node {
                        Node::Symbol(name) => Node::Symbol(format!("{name}'").into()),
                        other => other,
                    };
                } else {
                    return Ok(node);
                }
            }
        })
    }

    /// `\circ` or `{\circ}` behind `^`, over which it steps.
    fn degrees_exponent(&mut self) -> bool {
        let braced = usize::from(self.peek() == Some(&Token::Sign('{')));
        let is_degree = matches!(self.peek_at(braced), Some(Token::Command(c)) if c == "degree")
            && (braced == 0 || self.peek_at(2) == Some(&Token::Sign('}')));
        if is_degree {
            self.at += 1 + 2 * braced;
        }
        is_degree
    }

    /// What stands behind `^`: a group, or a signed atom with its own exponent.
    pub fn exponent(&mut self) -> Parsed {
        self.deeper(|p| {
            if p.peek() == Some(&Token::Sign('{')) {
                return p.group();
            }
            if p.sign('-') {
                return Ok(Node::Negative(Box::new(p.exponent()?)));
            }
            if p.sign('\'') {
                return Err(ParseError::Syntax);
            }
            p.sign('+');
            let base = p.atom()?;
            if p.sign('^') {
                let exponent = p.exponent()?;
                return Ok(Node::Power(Box::new(base), Box::new(exponent)));
            }
            Ok(base)
        })
    }

    /// The argument of a command: a group or one token; of several digits only the first.
    pub fn argument(&mut self) -> Parsed {
        match self.peek() {
            Some(Token::Sign('{')) => self.group(),
            Some(Token::Digits(digits)) if digits.len() > 1 && !digits.contains('.') => {
                let (first, rest) = digits.split_at(1);
                let (first, rest) = (first.to_owned(), rest.to_owned());
                self.tokens[self.at].token = Token::Digits(rest);
                number(&first)
            }
            Some(Token::Sign('-')) => Err(ParseError::Syntax),
            _ => self.atom(),
        }
    }

    /// An expression without signs behind it.
    pub fn atom(&mut self) -> Parsed {
        match self.peek() {
            Some(Token::Sign('{')) => return self.group(),
            Some(Token::Command(_)) => return self.deeper(Self::command_atom),
            _ => {}
        }
        match self.next() {
            Some(Token::Digits(digits)) => self.digits(&digits),
            Some(Token::Letter(c)) => self.letter(c),
            Some(Token::Sign(c @ ('(' | '['))) => self.bracketed(c),
            Some(Token::SetOpen) => self.set(),
            Some(Token::Begin(name)) => self.environment(&name),
            Some(Token::Text(words)) if matches!(self.peek(), Some(Token::Relation(_))) => {
                Ok(Node::Symbol(words.into()))
            }
            Some(Token::Text(words)) => Ok(Node::Text(words)),
            Some(Token::Sign('|')) => self.deeper(|p| {
                p.bars += 1;
                let inner = p.sum()?;
                p.bars -= 1;
                p.expect('|')?;
                Ok(Node::Call("abs".into(), vec![inner]))
            }),
            _ => Err(ParseError::Syntax),
        }
    }

    /// A group, or all digits of a number.
    pub fn argument_whole(&mut self) -> Parsed {
        if self.peek() == Some(&Token::Sign('{')) { self.group() } else { self.atom() }
    }

    /// A variable, a named constant, or a function's name in front of its arguments.
    pub fn letter(&mut self, c: char) -> Parsed {
        let mut name = c.to_string();
        if self.peek() == Some(&Token::Sign('_')) {
            self.at += 1;
            name.push('_');
            name.push_str(&self.subscript()?);
            return Ok(Node::Symbol(name.into()));
        }
        while self.sign('\'') {
            name.push('\'');
        }
        if matches!(c, 'f' | 'g' | 'h' | 'F' | 'G' | 'H') || self.is_left_side() {
            if let Some(length) = self.inverse_mark() {
                self.at += length;
                name.push_str("^-1");
            }
            if self.sign('(') {
                let arguments = match self.bracketed('(')? {
                    Node::Tuple { items, .. } => items,
                    one => vec![one],
                };
                return Ok(Node::Call(format!("function {name}").into(), arguments));
            }
        }
        Ok(match name.as_str() {
            "e" => Node::Constant(Constant::E),
            "i" => Node::Constant(Constant::I),
            _ => Node::Symbol(name.into()),
        })
    }

    /// The length of `^{-1}` or `^-1` in front of a bracket.
    fn inverse_mark(&self) -> Option<usize> {
        let braced = usize::from(self.peek_at(1) == Some(&Token::Sign('{')));
        let one = matches!(self.peek_at(2 + braced), Some(Token::Digits(d)) if d == "1");
        let marked =
            self.peek() == Some(&Token::Sign('^')) && self.peek_at(1 + braced) == Some(&Token::Sign('-')) && one;
        let closed = braced == 0 || self.peek_at(4) == Some(&Token::Sign('}'));
        let length = 3 + 2 * braced;
        (marked && closed && self.peek_at(length) == Some(&Token::Sign('('))).then_some(length)
    }

    /// Whether the letter behind us begins `P(...) =`.
    fn is_left_side(&self) -> bool {
        let behind = |token: &Token| matches!(token, Token::Sign(',' | ';') | Token::Text(_));
        if self.peek() != Some(&Token::Sign('(')) || (self.at > 1 && !behind(&self.tokens[self.at - 2].token)) {
            return false;
        }
        let mut depth = 0usize;
        for (i, lexed) in self.tokens[self.at..].iter().enumerate() {
            match lexed.token {
                Token::Sign('(') => depth += 1,
                Token::Sign(')') => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 {
                return matches!(self.peek_at(i + 1), Some(Token::Relation(_)));
            }
        }
        false
    }

    /// The text of a subscript.
    fn subscript(&mut self) -> Result<String, ParseError> {
        let mut depth = 0usize;
        let mut text = String::new();
        loop {
            match self.next().ok_or(ParseError::Syntax)? {
                Token::Sign('{') => depth += 1,
                Token::Sign('}') => depth = depth.checked_sub(1).ok_or(ParseError::Syntax)?,
                Token::Digits(t) | Token::Text(t) | Token::Command(t) => text.push_str(&t),
                Token::Letter(c) | Token::Sign(c) => text.push(c),
                _ => return Err(ParseError::Syntax),
            }
            if depth == 0 {
                return Ok(text);
            }
        }
    }

    /// A list in an environment of rows.
    pub fn cells(&mut self) -> Result<Vec<Vec<Node>>, ParseError> {
        let mut rows = vec![Vec::new()];
        loop {
            if self.accept(&Token::End) {
                break;
            }
            if self.accept(&Token::NewRow) {
                rows.push(Vec::new());
                continue;
            }
            if self.sign('&') || (matches!(self.peek(), Some(Token::Sign(',')))) && self.sign(',') {
                continue;
            }
            if self.command("hline") {
                self.at += 1;
                continue;
            }
            let (mut items, joint) = self.clauses()?;
            let cell = if items.len() == 1 { items.remove(0) } else { Node::List(items, joint) };
            rows.last_mut().ok_or(ParseError::Syntax)?.push(cell);
        }
        rows.retain(|row| !row.is_empty());
        Ok(rows)
    }

    /// A matrix, a determinant, or cases, the opening behind us.
    fn environment(&mut self, name: &str) -> Parsed {
        self.deeper(|p| {
            let rows = p.cells()?;
            if rows.is_empty() {
                return Err(ParseError::Syntax);
            }
            if matches!(name, "cases" | "aligned" | "align" | "align*" | "gathered") {
                let items: Vec<Node> = rows.into_iter().flatten().collect();
                return Ok(if items.len() == 1 { items[0].clone() } else { Node::List(items, Joint::And) });
            }
            if rows.iter().any(|row| row.len() != rows[0].len()) {
                return Err(ParseError::Syntax);
            }
            let matrix = Node::Matrix(rows);
            Ok(if name == "vmatrix" { Node::Call("det".into(), vec![matrix]) } else { matrix })
        })
    }
}
