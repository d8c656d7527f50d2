//! Reads a table of a recipe key by key: unknown keys, wrong types and values out of range become errors with a place.

use super::error::{Origin, RecipeError};
use super::nearest;
use super::raw::{Node, Table, Value};

/// A table whose keys are all known.
pub(crate) struct Section<'a> {
    table: &'a Table,
    path: String,
}

/// A range of numbers and its words.
pub(crate) struct Bounds {
    holds: fn(f64) -> bool,
    wanted: &'static str,
}

pub(crate) const POSITIVE: Bounds = Bounds { holds: |v| v > 0.0, wanted: "a number above 0" };
pub(crate) const NOT_NEGATIVE: Bounds = Bounds { holds: |v| v >= 0.0, wanted: "a number of at least 0" };
pub(crate) const SHARE: Bounds = Bounds { holds: |v| (0.0..=1.0).contains(&v), wanted: "a number between 0 and 1" };
pub(crate) const BELOW_ONE: Bounds =
    Bounds { holds: |v| (0.0..1.0).contains(&v), wanted: "a number of at least 0 and below 1" };
pub(crate) const NUCLEUS: Bounds = Bounds { holds: |v| v > 0.0 && v <= 1.0, wanted: "a number above 0 and at most 1" };
pub(crate) const ABOVE_ONE: Bounds = Bounds { holds: |v| v > 1.0, wanted: "a number above 1" };
pub(crate) const FINITE: Bounds = Bounds { holds: |_| true, wanted: "a number" };

impl<'a> Section<'a> {
    /// `path` is the table's own key with its path, empty for the recipe itself; `keys` are the valid ones.
    ///
    /// # Errors
    /// A key that is not in `keys`.
    pub(crate) fn new(table: &'a Table, path: &str, keys: &[&[&str]]) -> Result<Self, RecipeError> {
        let keys = keys.concat();
        let section = Self { table, path: path.to_owned() };
        for (key, node) in &table.entries {
            if !keys.contains(&key.as_str()) {
                return Err(RecipeError::UnknownKey {
                    at: node.origin.clone(),
                    key: section.key(key),
                    hint: nearest::hint(key, &keys, "the keys here"),
                });
            }
        }
        Ok(section)
    }

    /// A key with its path.
    pub(crate) fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Where a key stands; where the table begins if it is absent.
    pub(crate) fn at(&self, key: &str) -> Origin {
        self.table.get(key).map_or(&self.table.origin, |node| &node.origin).clone()
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.table.get(key).is_some()
    }

    pub(crate) fn missing(&self, key: &str, wanted: &str) -> RecipeError {
        RecipeError::Missing { at: self.table.origin.clone(), key: self.key(key), wanted: wanted.to_owned() }
    }

    /// An error about the value of `key`.
    pub(crate) fn wrong(&self, key: &str, wanted: impl Into<String>) -> RecipeError {
        let (found, wanted) = (self.table.get(key).map(|n| n.value.describe()), wanted.into());
        RecipeError::Value { at: self.at(key), key: self.key(key), found: found.unwrap_or_default(), wanted }
    }

    /// An error about values that do not go together, at the place of `key`.
    pub(crate) fn conflict(&self, key: &str, message: String) -> RecipeError {
        RecipeError::Conflict { at: self.at(key), message }
    }

    pub(crate) fn string(&self, key: &str, wanted: &str) -> Result<Option<String>, RecipeError> {
        let Some(node) = self.table.get(key) else {
            return Ok(None);
        };
        match text(node) {
            Some(text) if !text.is_empty() => Ok(Some(text)),
            _ => Err(self.wrong(key, wanted)),
        }
    }

    pub(crate) fn is_empty_list(&self, key: &str) -> bool {
        matches!(self.table.get(key).map(|node| &node.value), Some(Value::Array(items)) if items.is_empty())
    }

    /// A string, or a list of strings that is not empty.
    pub(crate) fn strings(&self, key: &str, wanted: &str) -> Result<Option<Vec<String>>, RecipeError> {
        let Some(node) = self.table.get(key) else {
            return Ok(None);
        };
        let items = match &node.value {
            Value::Array(items) => items.iter().map(text).collect(),
            _ => text(node).map(|text| vec![text]),
        };
        match items {
            Some(items) if !items.is_empty() && items.iter().all(|item| !item.is_empty()) => Ok(Some(items)),
            _ => Err(self.wrong(key, wanted)),
        }
    }

    /// A whole number of at least `least`; `8e6` counts as one.
    pub(crate) fn integer(&self, key: &str, least: u64) -> Result<Option<u64>, RecipeError> {
        self.integer_because(key, least, "")
    }

    /// As [`integer`](Self::integer), with the reason for the limit at the end of the message.
    pub(crate) fn integer_because(&self, key: &str, least: u64, why: &str) -> Result<Option<u64>, RecipeError> {
        let Some(node) = self.table.get(key) else {
            return Ok(None);
        };
        let number = match node.value {
            Value::Integer(v) => u64::try_from(v).ok(),
            // Up to 2^53 every whole number is a float.
            Value::Float(v) if v.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(&v) => Some(v as u64),
            _ => None,
        };
        match number {
            Some(number) if number >= least => Ok(Some(number)),
            _ => Err(self.wrong(key, format!("a whole number of at least {least}{why}"))),
        }
    }

    pub(crate) fn size(&self, key: &str, least: u64) -> Result<Option<usize>, RecipeError> {
        let Some(number) = self.integer(key, least)? else {
            return Ok(None);
        };
        usize::try_from(number).map(Some).map_err(|_| self.wrong(key, "a size that this machine can address"))
    }

    pub(crate) fn number(&self, key: &str, bounds: &Bounds) -> Result<Option<f64>, RecipeError> {
        let Some(node) = self.table.get(key) else {
            return Ok(None);
        };
        let number = match node.value {
            Value::Integer(v) => Some(v as f64),
            Value::Float(v) => Some(v),
            _ => None,
        };
        match number {
            Some(number) if number.is_finite() && (bounds.holds)(number) => Ok(Some(number)),
            _ => Err(self.wrong(key, bounds.wanted)),
        }
    }

    pub(crate) fn boolean(&self, key: &str) -> Result<Option<bool>, RecipeError> {
        match self.table.get(key).map(|node| &node.value) {
            None => Ok(None),
            Some(Value::Boolean(v)) => Ok(Some(*v)),
            Some(_) => Err(self.wrong(key, "true or false")),
        }
    }

    /// One of several words, each with its meaning.
    pub(crate) fn choice<T: Copy>(&self, key: &str, choices: &[(&str, T)]) -> Result<Option<T>, RecipeError> {
        let Some(node) = self.table.get(key) else {
            return Ok(None);
        };
        let text = text(node).unwrap_or_default();
        if let Some((_, meaning)) = choices.iter().find(|(word, _)| *word == text) {
            return Ok(Some(*meaning));
        }
        let words: Vec<String> = choices.iter().map(|(word, _)| format!("`{word}`")).collect();
        Err(self.wrong(key, format!("one of {}", words.join(", "))))
    }

    pub(crate) fn table(&self, key: &str) -> Result<Option<&'a Table>, RecipeError> {
        match self.table.get(key).map(|node| &node.value) {
            None => Ok(None),
            Some(Value::Table(table)) => Ok(Some(table)),
            Some(_) => Err(self.wrong(key, "a table")),
        }
    }

    /// A list of tables; `wanted` is its description.
    pub(crate) fn tables(&self, key: &str, wanted: &str) -> Result<Option<Vec<&'a Table>>, RecipeError> {
        let Some(node) = self.table.get(key) else {
            return Ok(None);
        };
        let tables = match &node.value {
            Value::Array(items) => items.iter().map(|item| match &item.value {
                Value::Table(table) => Some(table),
                _ => None,
            }),
            _ => return Err(self.wrong(key, wanted)),
        };
        tables.collect::<Option<Vec<_>>>().map(Some).ok_or_else(|| self.wrong(key, wanted))
    }
}

/// The text of a string, or of a flag's scalar that happens to look like something else.
fn text(node: &Node) -> Option<String> {
    match &node.value {
        Value::String(text) => Some(text.clone()),
        Value::Array(_) | Value::Table(_) => None,
        _ => node.text.clone(),
    }
}
