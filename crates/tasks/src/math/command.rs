//! Atoms that begin with a LaTeX command or the plain word for one: fractions, roots, functions, constants, brackets.

use super::fraction::small_integer;
use super::node::{Constant, Node, Relation};
use super::parser::{ParseError, Parsed, Parser};
use super::region::replace;
use super::token::{FUNCTIONS, Token};

/// Commands that are no names: relations and signs that the grammar has no place for.
const STRUCTURAL: [&str; 17] = [
    "to",
    "rightarrow",
    "Rightarrow",
    "implies",
    "iff",
    "mid",
    "nmid",
    "forall",
    "exists",
    "subset",
    "subseteq",
    "sim",
    "cong",
    "perp",
    "parallel",
    "therefore",
    "because",
];

/// Most parts of a sum or product that is written out.
const MAX_WRITTEN_OUT: usize = 2_000;

/// The terms of a short sum or product from `k = 1` to `5`.
fn terms(body: &Node, low: &Node, high: &Node) -> Option<Vec<Node>> {
    fn whole(node: &Node) -> Option<i64> {
        match node {
            Node::Number { value, .. } => small_integer(value),
            Node::Negative(inner) => whole(inner).map(|n| -n),
            _ => None,
        }
    }
    let Node::Chain { terms, ops } = low else { return None };
    let ([index @ (Node::Symbol(_) | Node::Constant(Constant::I)), from], [Relation::Equal]) =
        (terms.as_slice(), ops.as_slice())
    else {
        return None;
    };
    let (from, to) = (whole(from)?, whole(high)?);
    let count = usize::try_from(to.checked_sub(from)?.checked_add(1)?).ok()?;
    if count == 0 || count.checked_mul(body.size())? > MAX_WRITTEN_OUT {
        return None;
    }
    Some((from..=to).map(|k| replace(body, index, &Node::integer(k))).collect())
}

impl Parser {
    /// An atom that begins with a command.
    pub(super) fn command_atom(&mut self) -> Parsed {
        let Some(Token::Command(name)) = self.next() else { return Err(ParseError::Syntax) };
        match name.as_str() {
            "frac" => self.fraction(),
            "sqrt" => self.root(),
            "cbrt" => {
                let radicand = self.argument_whole()?;
                Ok(Node::Root(Box::new(radicand), Box::new(Node::integer(3))))
            }
            "binom" => {
                let (n, k) = (self.argument()?, self.argument()?);
                Ok(Node::Call("binomial".into(), vec![n, k]))
            }
            "pi" => {
                let subscript = self.peek() == Some(&Token::Sign('_'));
                if subscript { self.letter('π') } else { Ok(Node::Constant(Constant::Pi)) }
            }
            "infty" => Ok(Node::Infinity),
            "emptyset" => Ok(Node::Set(Vec::new())),
            "reals" => Ok(Node::Reals),
            "integers" | "naturals" | "rationals" | "complexes" => {
                if self.sign('^') || self.sign('_') {
                    self.argument()?;
                }
                Ok(Node::Symbol(name.into()))
            }
            "langle" => {
                let (items, _) = self.clauses()?;
                if !self.command("rangle") {
                    return Err(ParseError::Syntax);
                }
                self.at += 1;
                Ok(Node::Tuple { open: '⟨', close: '⟩', items })
            }
            "lfloor" | "lceil" => {
                let inner = self.sum()?;
                let (close, function) = if name == "lfloor" { ("rfloor", "floor") } else { ("rceil", "ceil") };
                if !self.command(close) {
                    return Err(ParseError::Syntax);
                }
                self.at += 1;
                Ok(Node::Call(function.into(), vec![inner]))
            }
            "overline" | "bar" | "vec" | "hat" | "tilde" | "overrightarrow" | "widehat" | "dot" | "underline" => {
                self.accented(&name)
            }
            "angle" => self.postfixed(),
            "ldots" => Ok(Node::Symbol("…".into())),
            "operatorname" | "mathop" => Err(ParseError::Syntax),
            "sum" | "prod" | "int" | "lim" | "bigcup" | "bigcap" => self.operator(&name),
            _ if FUNCTIONS.contains(&name.as_str()) => self.function(&name),
            // A command without arguments that nobody knows is a name.
            _ if !matches!(self.peek(), Some(Token::Sign('{' | '['))) && !STRUCTURAL.contains(&name.as_str()) => {
                Ok(Node::Symbol(format!("\\{name}").into()))
            }
            _ => Err(ParseError::Syntax),
        }
    }

    /// `\sum_{k=1}^{n}` and the like with the factors behind it. The limits are part of the name, so only what is under
    /// the sign is compared as an expression.
    fn operator(&mut self, name: &str) -> Parsed {
        let mut limits = [String::new(), String::new()];
        let mut bounds = [None, None];
        for _ in 0..2 {
            let place = match self.peek() {
                Some(Token::Sign('_')) => 0,
                Some(Token::Sign('^')) => 1,
                _ => break,
            };
            self.at += 1;
            let begin = self.at;
            bounds[place] = Some(self.argument()?);
            let tokens: Vec<&Token> = self.tokens[begin..self.at].iter().map(|l| &l.token).collect();
            limits[place] = format!("{tokens:?}");
        }
        let body = self.deeper(Self::product)?;
        if let ("sum" | "prod", [Some(low), Some(high)]) = (name, &bounds)
            && let Some(terms) = terms(&body, low, high)
        {
            return Ok(if name == "sum" { Node::Sum(terms) } else { Node::Product(terms) });
        }
        Ok(Node::Call(format!("operator {name} {limits:?}").into(), vec![body]))
    }

    /// `\frac` with its arguments in any of the usual short forms.
    fn fraction(&mut self) -> Parsed {
        if self.peek() == Some(&Token::Sign('(')) {
            // plain text: frac(1,2)
            self.at += 1;
            return match self.bracketed('(')? {
                Node::Tuple { items, .. } if items.len() == 2 => {
                    Ok(Node::Quotient(Box::new(items[0].clone()), Box::new(items[1].clone())))
                }
                _ => Err(ParseError::Syntax),
            };
        }
        let top = self.argument()?;
        // `\frac{1}23` and `\frac123` mean what their author cannot say; all digits that remain are the denominator.
        let bottom = if matches!(self.peek(), Some(Token::Digits(_))) { self.atom()? } else { self.argument()? };
        Ok(Node::Quotient(Box::new(top), Box::new(bottom)))
    }

    fn root(&mut self) -> Parsed {
        let index = if self.sign('[') {
            let index = self.sum()?;
            self.expect(']')?;
            index
        } else {
            Node::integer(2)
        };
        let radicand = self.argument_whole()?;
        Ok(Node::Root(Box::new(radicand), Box::new(index)))
    }

    /// A name with something above it is a name of its own.
    fn accented(&mut self, accent: &str) -> Parsed {
        let inner = self.argument_whole()?;
        fn text(node: &Node) -> Option<String> {
            match node {
                Node::Symbol(name) => Some(name.to_string()),
                Node::Text(words) => Some(words.clone()),
                Node::Constant(Constant::E) => Some("e".to_owned()),
                Node::Constant(Constant::I) => Some("i".to_owned()),
                Node::Number { value, decimals: None } => Some(value.to_string()),
                Node::Product(items) => items.iter().map(text).collect(),
                _ => None,
            }
        }
        if accent == "underline" {
            return Ok(inner);
        }
        let name = text(&inner).ok_or(ParseError::Syntax)?;
        Ok(Node::Symbol(format!("{accent} {name}").into()))
    }

    /// A named function: its base, its exponent, its argument with or without brackets.
    fn function(&mut self, name: &str) -> Parsed {
        let mut base = None;
        let mut exponent = None;
        for _ in 0..2 {
            if base.is_none() && self.sign('_') {
                base = Some(if name == "log" { self.argument_or_digits()? } else { self.argument()? });
            } else if exponent.is_none() && self.sign('^') {
                exponent = Some(self.exponent()?);
            }
        }
        let argument = self.function_argument(name)?;
        let inverse = matches!(&exponent, Some(Node::Negative(one)) if **one == Node::integer(1));
        let arguments = match argument {
            Node::Tuple { items, .. } if matches!(name, "gcd" | "lcm" | "max" | "min" | "log") => items,
            Node::Set(items) if matches!(name, "max" | "min") => items,
            one => vec![one],
        };
        let call = |name: &str, arguments| Node::Call(name.into(), arguments);
        let value = match (name, base) {
            ("log", Some(base)) => call("log", [arguments, vec![base]].concat()),
            ("log", None) if arguments.len() == 1 => call("log", [arguments, vec![Node::integer(10)]].concat()),
            ("log", None) if arguments.len() == 2 => call("log", arguments),
            ("lg", None) => call("log", [arguments, vec![Node::integer(10)]].concat()),
            ("exp", None) => {
                let exponent = arguments.into_iter().next().ok_or(ParseError::Syntax)?;
                Node::Power(Box::new(Node::Constant(Constant::E)), Box::new(exponent))
            }
            (_, Some(_)) => return Err(ParseError::Syntax),
            (_, None) if inverse => return Ok(call(&format!("arc{name}"), arguments)),
            ("asin" | "acos" | "atan", None) => call(&format!("arc{}", &name[1..]), arguments),
            (_, None) => call(name, arguments),
        };
        Ok(match exponent {
            Some(exponent) => Node::Power(Box::new(value), Box::new(exponent)),
            None => value,
        })
    }

    /// `\log_28`: of several digits the first is the base when nothing else can be the argument.
    fn argument_or_digits(&mut self) -> Parsed {
        let more = matches!(
            self.peek_at(1),
            Some(Token::Digits(_) | Token::Letter(_) | Token::Command(_) | Token::Sign('(' | '{' | '|' | '^'))
        );
        if more { self.argument_whole() } else { self.argument() }
    }

    /// A group, a bracket, or factors side by side up to the next sign or function: `\sin 2x \cos x`.
    fn function_argument(&mut self, name: &str) -> Parsed {
        match self.peek() {
            Some(Token::Sign('(' | '{' | '[')) => return self.bracketed_argument(name),
            Some(Token::Sign('-')) => {
                self.at += 1;
                let inner = self.deeper(|p| p.function_argument(name))?;
                return Ok(Node::Negative(Box::new(inner)));
            }
            _ => {}
        }
        let mut factors = vec![self.postfixed()?];
        loop {
            let function = matches!(self.peek(), Some(Token::Command(c)) if FUNCTIONS.contains(&c.as_str()));
            if function || !self.starts_factor() || matches!(self.peek(), Some(Token::Sign('(' | '['))) {
                break;
            }
            factors.push(self.postfixed()?);
        }
        // `\sin \frac{x}{2}` and `\sin x/2` are one argument
        Ok(if factors.len() == 1 { factors.remove(0) } else { Node::Product(factors) })
    }

    fn bracketed_argument(&mut self, name: &str) -> Parsed {
        match self.peek() {
            Some(Token::Sign('{')) => {
                let group = self.group()?;
                // `\log{x}^2`, `\sin{x}y`: the group alone is the argument
                Ok(match group {
                    Node::List(items, _) if matches!(name, "gcd" | "lcm" | "max" | "min") => {
                        Node::Tuple { open: '(', close: ')', items }
                    }
                    other => other,
                })
            }
            Some(Token::Sign(open @ ('(' | '['))) => {
                let open = *open;
                self.at += 1;
                let mut inner = self.bracketed(open)?;
                // `\sin(30)^\circ`
                while self.command("degree") {
                    self.at += 1;
                    inner = Node::Degrees(Box::new(inner));
                }
                Ok(inner)
            }
            _ => Err(ParseError::Syntax),
        }
    }
}
