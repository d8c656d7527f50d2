//! Tiny Python programs: a function of one argument whose body is one expression, judged without starting Python.
//!
//! What is understood is a subset of Python 3 with exactly its meaning: whole numbers, strings and lists; `+ - * // %`;
//! indexing and slices; `len max min sum sorted abs`; `upper lower count`. A program inside the subset gives Python's value
//! or raises where Python raises (a test compares thousands of programs with the real one in the sandbox). One that reaches
//! outside has no verdict here: [`Fault::Unsupported`]. Work and results are bounded, so no text can stall or fill anything.

mod eval;
mod lexer;
mod parser;

pub use eval::MAX_SIZE;

use serde::{Deserialize, Serialize};
use std::fmt;

/// A value of the subset.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// A whole number.
    Int(i64),
    /// A string.
    Text(String),
    /// A list.
    List(Vec<Value>),
}

impl fmt::Display for Value {
    /// As Python source, without spaces.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Int(n) => write!(f, "{n}"),
            Value::Text(s) => write!(f, "'{}'", s.replace('\\', "\\\\").replace('\'', "\\'")),
            Value::List(items) => {
                f.write_str("[")?;
                for (i, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if i > 0 { "," } else { "" })?;
                }
                f.write_str("]")
            }
        }
    }
}

/// An argument and what the function gives for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Example {
    /// The argument.
    pub input: Value,
    /// The value.
    pub output: Value,
}

/// Why there is no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Python refuses to compile it.
    Syntax,
    /// Python raises an exception, or gives `None`.
    Raises,
    /// Outside of the subset, or too large: only Python itself knows.
    Unsupported,
}

/// A function of one argument.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    body: parser::Expr,
}

/// Longest program text in bytes.
pub const MAX_SOURCE: usize = 300;

impl Program {
    /// Reads `def f(x):return ...`, `lambda x: ...` (perhaps after `f =`) or a bare expression of `x`. Backquotes and a code
    /// fence around it are left out.
    ///
    /// # Errors
    /// [`Fault::Syntax`], [`Fault::Unsupported`], or [`Fault::Raises`] when it defines no function `f`.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let text = unquoted(text);
        if text.len() > MAX_SOURCE {
            return Err(Fault::Unsupported);
        }
        parser::program(&lexer::tokens(text)?).map(|body| Program { body })
    }

    /// The function's value.
    ///
    /// # Errors
    /// [`Fault::Raises`] or [`Fault::Unsupported`].
    pub fn call(&self, input: &Value) -> Result<Value, Fault> {
        eval::value(&self.body, input)
    }

    /// Whether it gives every output; none when that needs Python. A wrong value decides even where another is unknown.
    pub fn passes<'a>(&self, examples: impl IntoIterator<Item = &'a Example>) -> Option<bool> {
        let mut known = true;
        for example in examples {
            match self.call(&example.input) {
                Ok(value) if value == example.output => {}
                Err(Fault::Unsupported) => known = false,
                _ => return Some(false),
            }
        }
        known.then_some(true)
    }
}

/// What Python is given for an answer that [`Program::parse`] reads: a text that defines `f`.
pub fn source(text: &str) -> String {
    let text = unquoted(text);
    let first = |word: &str| text.strip_prefix(word).map(str::trim_start);
    if text.starts_with("def ") || text.starts_with("def\t") || first("f").is_some_and(|t| t.starts_with('=')) {
        text.to_owned()
    } else if text.starts_with("lambda") {
        format!("f={text}")
    } else {
        format!("def f(x):return {text}")
    }
}

/// Without a code fence or backquotes around it.
fn unquoted(text: &str) -> &str {
    let text = text.trim();
    if let Some(inside) = text.strip_prefix("```").and_then(|t| t.strip_suffix("```")) {
        return inside.strip_prefix("python").unwrap_or(inside).trim();
    }
    match text.strip_prefix('`').and_then(|t| t.strip_suffix('`')) {
        Some(inside) if !inside.contains('`') => inside.trim(),
        _ => text,
    }
}

#[cfg(test)]
mod tests;
