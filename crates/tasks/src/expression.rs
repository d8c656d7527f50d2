//! Arithmetic expressions as models write them for countdown: a bounded recursive-descent parser over whole numbers.
//!
//! Text of a model is never evaluated by anything else. Length, nesting and magnitude are bounded, arithmetic is checked,
//! division must come out even, and `**`, signs in front of numbers and every other character are refused.

/// Longest expression in bytes.
pub const MAX_LENGTH: usize = 512;
/// Deepest nesting of brackets.
pub const MAX_DEPTH: usize = 32;

/// An expression that has a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression {
    /// What it evaluates to.
    pub value: i64,
    /// The numbers in it, in ascending order, with repetitions.
    pub numbers: Vec<i64>,
}

impl Expression {
    /// Parses and evaluates; `None` for anything that is not a whole-number expression of `+ - * / ( )` within the bounds.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > MAX_LENGTH {
            return None;
        }
        let mut parser = Parser { rest: text.trim().as_bytes(), numbers: Vec::new() };
        let value = parser.sum(0)?;
        if !parser.rest.is_empty() {
            return None;
        }
        let mut numbers = parser.numbers;
        numbers.sort_unstable();
        Some(Self { value, numbers })
    }

    /// Whether each of `given` occurs exactly once and nothing else occurs.
    pub fn uses_exactly(&self, given: &[i64]) -> bool {
        let mut given = given.to_vec();
        given.sort_unstable();
        self.numbers == given
    }
}

struct Parser<'a> {
    rest: &'a [u8],
    numbers: Vec<i64>,
}

impl Parser<'_> {
    /// The next character that is not a space, without taking it.
    fn peek(&mut self) -> Option<u8> {
        while let [b' ' | b'\t', rest @ ..] = self.rest {
            self.rest = rest;
        }
        self.rest.first().copied()
    }

    fn take(&mut self) {
        self.rest = &self.rest[1..];
    }

    /// sum = product (("+" | "-") product)*
    fn sum(&mut self, depth: usize) -> Option<i64> {
        let mut value = self.product(depth)?;
        while let Some(operator @ (b'+' | b'-')) = self.peek() {
            self.take();
            let right = self.product(depth)?;
            value = if operator == b'+' { value.checked_add(right)? } else { value.checked_sub(right)? };
        }
        Some(value)
    }

    /// product = atom (("*" | "/") atom)*
    fn product(&mut self, depth: usize) -> Option<i64> {
        let mut value = self.atom(depth)?;
        while let Some(operator @ (b'*' | b'/')) = self.peek() {
            self.take();
            let right = self.atom(depth)?;
            value = if operator == b'*' {
                value.checked_mul(right)?
            } else {
                if value.checked_rem(right)? != 0 {
                    return None;
                }
                value.checked_div(right)?
            };
        }
        Some(value)
    }

    /// atom = digits | "(" sum ")"
    fn atom(&mut self, depth: usize) -> Option<i64> {
        match self.peek()? {
            b'(' if depth < MAX_DEPTH => {
                self.take();
                let value = self.sum(depth + 1)?;
                if self.peek()? != b')' {
                    return None;
                }
                self.take();
                Some(value)
            }
            b'0'..=b'9' => {
                let mut value = 0i64;
                while let Some(digit @ b'0'..=b'9') = self.rest.first().copied() {
                    self.take();
                    value = value.checked_mul(10)?.checked_add(i64::from(digit - b'0'))?;
                }
                self.numbers.push(value);
                Some(value)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Option<i64> {
        Expression::parse(text).map(|e| e.value)
    }

    #[test]
    fn precedence_and_associativity() {
        assert_eq!(value("1+2*3"), Some(7));
        assert_eq!(value("(1+2)*3"), Some(9));
        assert_eq!(value("10-3-2"), Some(5));
        assert_eq!(value("24/4/2"), Some(3));
        assert_eq!(value(" ( 8 - 3 ) * 4 "), Some(20));
        assert_eq!(value("3-10"), Some(-7));
        assert_eq!(value("((7))"), Some(7));
    }

    #[test]
    fn division_must_be_exact() {
        assert_eq!(value("7/2"), None);
        assert_eq!(value("7/2*2"), None);
        assert_eq!(value("8/2"), Some(4));
        assert_eq!(value("8/(4-4)"), None);
    }

    #[test]
    fn refuses_what_is_not_arithmetic() {
        for text in [
            "",
            " ",
            "+",
            "3+",
            "+3",
            "-3",
            "2**9",
            "2 3",
            "3(4)",
            "(3)(4)",
            "()",
            "(3",
            "3)",
            "3^2",
            "3//2",
            "0x10",
            "1.5",
            "1e9",
            "３+4",
            "3×4",
            "3+4=7",
            "a",
            "__import__",
            "3+\n4;",
            "9%2",
        ] {
            assert_eq!(value(text), None, "{text}");
        }
    }

    #[test]
    fn bounds_hold() {
        assert_eq!(value("9223372036854775807"), Some(i64::MAX));
        assert_eq!(value("9223372036854775808"), None);
        assert_eq!(value("9223372036854775807+1"), None);
        assert_eq!(value("9223372036854775807*2"), None);
        assert_eq!(value("(0-9223372036854775807-1)/(0-1)"), None);
        assert_eq!(value(&"9".repeat(400)), None);
        assert_eq!(value(&"(".repeat(100_000)), None);
        assert_eq!(value(&format!("{}1{}", "(".repeat(MAX_DEPTH), ")".repeat(MAX_DEPTH))), Some(1));
        assert_eq!(value(&format!("{}1{}", "(".repeat(MAX_DEPTH + 1), ")".repeat(MAX_DEPTH + 1))), None);
    }

    #[test]
    fn numbers_are_counted() {
        let e = Expression::parse("(8-3)*4").unwrap();
        assert!(e.uses_exactly(&[3, 4, 8]));
        assert!(e.uses_exactly(&[8, 4, 3]));
        assert!(!e.uses_exactly(&[3, 4]));
        assert!(!e.uses_exactly(&[3, 4, 8, 8]));
        assert!(!Expression::parse("8-3").unwrap().uses_exactly(&[3, 4, 8]));
        assert!(!Expression::parse("8+8+3+4").unwrap().uses_exactly(&[3, 4, 8]));
        assert!(!Expression::parse("83").unwrap().uses_exactly(&[8, 3]));
    }
}
