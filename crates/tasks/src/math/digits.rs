//! Numbers from their digits: decimals, repeating decimals, other bases, mixed numbers.

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{One, Pow, Zero};

use super::node::Node;
use super::parser::{ParseError, Parsed, Parser};
use super::token::Token;

/// More digits than this are no number.
const MAX_DIGITS: usize = 1_000;

impl Parser {
    /// Digits, with a repeating part or a base behind them.
    pub fn digits(&mut self, digits: &str) -> Parsed {
        if digits.contains('.')
            && matches!(self.peek(), Some(Token::Command(c)) if matches!(c.as_str(), "overline" | "bar" | "dot"))
        {
            return self.repeating(digits);
        }
        if self.peek() == Some(&Token::Sign('_')) {
            self.at += 1;
            let base = self.argument_whole()?;
            let Node::Number { value, .. } = &base else { return Err(ParseError::Syntax) };
            let base = value.to_integer().try_into().map_err(|_| ParseError::Syntax)?;
            if digits.contains('.') {
                return Err(ParseError::Syntax);
            }
            let digits = digits.trim_start_matches('0').to_owned();
            return Ok(Node::Based { digits, base });
        }
        number(digits)
    }

    /// `0.1\overline{36}`: the digits before the bar, then those under it for ever.
    fn repeating(&mut self, before: &str) -> Parsed {
        self.at += 1;
        let braced = self.sign('{');
        let Some(Token::Digits(block)) = self.next() else { return Err(ParseError::Syntax) };
        if braced {
            self.expect('}')?;
        }
        if block.contains('.') || block.is_empty() || block.len() + before.len() > MAX_DIGITS {
            return Err(ParseError::Syntax);
        }
        let fraction = before.len() - before.find('.').unwrap_or(before.len()) - 1;
        let Node::Number { value, .. } = number(before)? else { return Err(ParseError::Syntax) };
        let nines = BigInt::from(10).pow(block.len()) - 1;
        let repeated: BigInt = block.parse().map_err(|_| ParseError::Syntax)?;
        let tail = BigRational::new(repeated, nines * BigInt::from(10).pow(fraction));
        Ok(Node::Number { value: value + tail, decimals: None })
    }
}

/// A number from its digits.
pub fn number(digits: &str) -> Parsed {
    if digits.len() > MAX_DIGITS {
        return Err(ParseError::TooLarge);
    }
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let numerator: BigInt = match format!("{whole}{fraction}").as_str() {
        "" => BigInt::zero(),
        all => all.parse().map_err(|_| ParseError::Syntax)?,
    };
    let denominator: BigInt = if fraction.is_empty() { BigInt::one() } else { BigInt::from(10).pow(fraction.len()) };
    let decimals = digits.contains('.').then_some(fraction.len() as u32);
    Ok(Node::Number { value: BigRational::new(numerator, denominator), decimals })
}

/// The sum of a whole number and a proper fraction of whole numbers.
pub fn mixed(whole: &BigRational, fraction: &Node) -> Option<Node> {
    // The sign behind the fraction belongs to all of it.
    if let Node::Percent(inner) = fraction {
        return mixed(whole, inner).map(|sum| Node::Percent(Box::new(sum)));
    }
    let Node::Quotient(top, bottom) = fraction else { return None };
    let (Node::Number { value: a, decimals: None }, Node::Number { value: b, decimals: None }) =
        (top.as_ref(), bottom.as_ref())
    else {
        return None;
    };
    (a.is_integer() && b.is_integer() && a < b && !b.is_zero())
        .then(|| Node::Number { value: whole + a / b, decimals: None })
}
