//! From tokens to an expression, by precedence as in the Python reference (6.17).

use super::Fault;
use super::lexer::Token;

/// An operation on two values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Binary {
    Add,
    Subtract,
    Multiply,
    FloorDivide,
    Modulo,
}

/// An expression.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Expr {
    Int(i64),
    Text(String),
    /// The argument.
    Argument,
    /// Any other name.
    Name(String),
    List(Vec<Expr>),
    Negative(Box<Expr>),
    Positive(Box<Expr>),
    Binary(Binary, Box<Expr>, Box<Expr>),
    Index(Box<Expr>, Box<Expr>),
    /// Start, stop and step.
    Slice(Box<Expr>, [Option<Box<Expr>>; 3]),
    Call(Box<Expr>, Vec<Expr>),
    Method(Box<Expr>, String, Vec<Expr>),
}

/// Deepest nesting of a program.
const MAX_DEPTH: usize = 24;

/// The body of a function definition, of a lambda, or a bare expression of x. What is broken before anything foreign to the
/// subset comes is broken in Python too.
pub(super) fn program(tokens: &[Token]) -> Result<Expr, Fault> {
    let name = |at: usize| match tokens.get(at) {
        Some(Token::Name(name)) => Some(name.as_str()),
        _ => None,
    };
    let sign = |at: usize, text: &str| matches!(tokens.get(at), Some(Token::Sign(s)) if *s == text);
    let ordinary = |name: &str| !matches!(name, "def" | "return" | "lambda");
    if name(0) == Some("def") {
        let (Some(function), true, Some(argument), true, true) =
            (name(1), sign(2, "("), name(3), sign(4, ")"), sign(5, ":"))
        else {
            // Annotations, defaults and several arguments are Python too.
            let perhaps = name(1).is_some() && sign(2, "(") || tokens.contains(&Token::Foreign);
            return Err(if perhaps { Fault::Unsupported } else { Fault::Syntax });
        };
        if !ordinary(argument) || !ordinary(function) {
            return Err(Fault::Syntax);
        }
        let at = 6 + usize::from(tokens.get(6) == Some(&Token::Line(true)));
        if name(at) != Some("return") {
            return Err(Fault::Unsupported);
        }
        let body = whole(&tokens[at + 1..], argument, true)?;
        return if function == "f" { Ok(body) } else { Err(Fault::Raises) };
    }
    let at = if name(0) == Some("f") && sign(1, "=") { 2 } else { 0 };
    if name(at) == Some("lambda") {
        let (Some(argument), true) = (name(at + 1), sign(at + 2, ":")) else { return Err(Fault::Unsupported) };
        if !ordinary(argument) {
            return Err(Fault::Syntax);
        }
        return whole(&tokens[at + 3..], argument, false);
    }
    if at > 0 {
        return Err(Fault::Unsupported);
    }
    whole(tokens, "x", true)
}

fn whole(tokens: &[Token], argument: &str, bare_return: bool) -> Result<Expr, Fault> {
    if tokens.is_empty() && bare_return {
        return Err(Fault::Raises); // a `return` of nothing
    }
    let mut parser = Parser { tokens, at: 0, depth: 0, argument };
    let expr = match parser.sum() {
        Err(Fault::Syntax) if tokens.last() == Some(&Token::Foreign) && parser.at + 1 >= tokens.len() => {
            return Err(Fault::Unsupported);
        }
        other => other?,
    };
    match parser.peek() {
        None => Ok(expr),
        Some(Token::Foreign) => Err(Fault::Unsupported),
        Some(Token::Line(_)) => Err(Fault::Unsupported),
        // `return 1,2` is a tuple, `f(x)=...` and the like are no expressions.
        Some(Token::Sign(",")) => Err(Fault::Unsupported),
        Some(_) => Err(Fault::Syntax),
    }
}

struct Parser<'a> {
    tokens: &'a [Token],
    at: usize,
    depth: usize,
    argument: &'a str,
}

impl Parser<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    /// Whether the next token is this sign, which is then taken.
    fn take(&mut self, sign: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Sign(s)) if *s == sign);
        self.at += usize::from(found);
        found
    }

    fn want(&mut self, sign: &str) -> Result<(), Fault> {
        if self.take(sign) { Ok(()) } else { Err(Fault::Syntax) }
    }

    fn sum(&mut self) -> Result<Expr, Fault> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Fault::Unsupported);
        }
        let mut left = self.product()?;
        loop {
            let op = match self.peek() {
                Some(Token::Sign("+")) => Binary::Add,
                Some(Token::Sign("-")) => Binary::Subtract,
                _ => break,
            };
            self.at += 1;
            left = Expr::Binary(op, Box::new(left), Box::new(self.product()?));
        }
        self.depth -= 1;
        Ok(left)
    }

    fn product(&mut self) -> Result<Expr, Fault> {
        let mut left = self.signed()?;
        loop {
            let op = match self.peek() {
                Some(Token::Sign("*")) => Binary::Multiply,
                Some(Token::Sign("//")) => Binary::FloorDivide,
                Some(Token::Sign("%")) => Binary::Modulo,
                _ => return Ok(left),
            };
            self.at += 1;
            left = Expr::Binary(op, Box::new(left), Box::new(self.signed()?));
        }
    }

    fn signed(&mut self) -> Result<Expr, Fault> {
        let mut minus = Vec::new();
        loop {
            if self.take("-") {
                minus.push(true);
            } else if self.take("+") {
                minus.push(false);
            } else {
                break;
            }
            if minus.len() > MAX_DEPTH {
                return Err(Fault::Unsupported);
            }
        }
        let inner = self.postfix()?;
        Ok(minus
            .into_iter()
            .rev()
            .fold(inner, |e, minus| if minus { Expr::Negative(Box::new(e)) } else { Expr::Positive(Box::new(e)) }))
    }

    fn postfix(&mut self) -> Result<Expr, Fault> {
        let mut expr = self.atom()?;
        let mut links = 0;
        loop {
            links += 1;
            if links > MAX_DEPTH {
                return Err(Fault::Unsupported);
            }
            expr = if self.take("[") {
                self.subscript(expr)?
            } else if self.take("(") {
                Expr::Call(Box::new(expr), self.list(")")?)
            } else if self.take(".") {
                let Some(Token::Name(name)) = self.peek().cloned() else { return Err(Fault::Syntax) };
                self.at += 1;
                if !self.take("(") {
                    return Err(Fault::Unsupported);
                }
                Expr::Method(Box::new(expr), name, self.list(")")?)
            } else {
                return Ok(expr);
            };
        }
    }

    fn subscript(&mut self, of: Expr) -> Result<Expr, Fault> {
        let mut parts: [Option<Box<Expr>>; 3] = [None, None, None];
        let mut colons = 0;
        loop {
            if self.take("]") {
                break;
            }
            if self.take(":") {
                colons += 1;
                if colons > 2 {
                    return Err(Fault::Syntax);
                }
                continue;
            }
            if matches!(self.peek(), Some(Token::Sign(","))) {
                return Err(Fault::Unsupported);
            }
            if parts[colons].is_some() {
                return Err(Fault::Syntax);
            }
            parts[colons] = Some(Box::new(self.sum()?));
        }
        match (colons, parts) {
            (0, [Some(index), None, None]) => Ok(Expr::Index(Box::new(of), index)),
            (0, _) => Err(Fault::Syntax),
            (_, parts) => Ok(Expr::Slice(Box::new(of), parts)),
        }
    }

    /// Expressions up to a closing bracket, a comma after the last one allowed.
    fn list(&mut self, close: &str) -> Result<Vec<Expr>, Fault> {
        let mut items = Vec::new();
        loop {
            if self.take(close) {
                return Ok(items);
            }
            items.push(self.sum()?);
            if matches!(self.peek(), Some(Token::Sign("="))) {
                return Err(Fault::Unsupported); // a keyword argument
            }
            if !self.take(",") {
                self.want(close)?;
                return Ok(items);
            }
        }
    }

    fn atom(&mut self) -> Result<Expr, Fault> {
        let token = self.peek().cloned().ok_or(Fault::Syntax)?;
        self.at += 1;
        match token {
            Token::Int(n) => Ok(Expr::Int(n)),
            Token::Text(s) => Ok(Expr::Text(s)),
            Token::Name(name) if name == self.argument => Ok(Expr::Argument),
            Token::Name(name) if matches!(name.as_str(), "def" | "return") => Err(Fault::Syntax),
            Token::Name(name) if name == "lambda" => Err(Fault::Unsupported),
            Token::Name(name) => Ok(Expr::Name(name)),
            Token::Sign("(") => {
                if matches!(self.peek(), Some(Token::Sign(")"))) {
                    return Err(Fault::Unsupported); // the empty tuple
                }
                let inner = self.sum()?;
                if matches!(self.peek(), Some(Token::Sign(","))) {
                    return Err(Fault::Unsupported); // a tuple
                }
                self.want(")")?;
                Ok(inner)
            }
            Token::Sign("[") => Ok(Expr::List(self.list("]")?)),
            Token::Sign(_) | Token::Line(_) | Token::Foreign => Err(Fault::Syntax),
        }
    }
}
