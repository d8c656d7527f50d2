//! What the user wrote: a recipe's TOML as a tree in which every value knows its line or its flag.
//!
//! `serde` would lose the places as soon as one table's meaning depends on another key (`kind`), so the tree is our own
//! and [`super::section`] reads it; nothing is checked here but the syntax.

use std::path::Path;
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use super::embedded;
use super::error::{Origin, RecipeError};
use super::nearest;

/// A recipe as written, with overrides applied and nothing checked yet; [`RawRecipe::resolve`] makes it a
/// [`Recipe`](super::Recipe).
#[derive(Clone, Debug)]
pub struct RawRecipe {
    pub(crate) root: Table,
}

/// A table in the order in which it was written.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) entries: Vec<(String, Node)>,
    pub(crate) origin: Origin,
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) origin: Origin,
    /// The text of a flag's value: where a string is wanted, `--label 2024` needs no quotes.
    pub(crate) text: Option<String>,
}

/// A TOML value.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    String(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    Datetime(toml::value::Datetime),
    Array(Vec<Node>),
    Table(Table),
}

impl RawRecipe {
    /// The recipe called `name`: an embedded one if there is one of this name, otherwise a file.
    ///
    /// # Errors
    /// Neither exists (the nearest embedded name is given), the file cannot be read, it is not TOML.
    pub fn open(name: &str) -> Result<Self, RecipeError> {
        if embedded::text(name).is_some() {
            return Self::embedded(name);
        }
        let path = Path::new(name);
        if path.exists() {
            let text =
                std::fs::read_to_string(path).map_err(|source| RecipeError::Read { path: name.to_owned(), source })?;
            return Self::parse(&text, name);
        }
        Err(unknown_recipe(name))
    }

    /// The embedded recipe called `name`.
    ///
    /// # Errors
    /// There is none; the nearest name is given.
    pub fn embedded(name: &str) -> Result<Self, RecipeError> {
        let text = embedded::text(name).ok_or_else(|| unknown_recipe(name))?;
        Self::parse(text, &format!("{name} (embedded)"))
    }

    /// Parses a recipe's text; `source` is the name that messages give before the line.
    ///
    /// # Errors
    /// The text is not TOML.
    pub fn parse(text: &str, source: &str) -> Result<Self, RecipeError> {
        let reader = Reader { text, source: source.into(), flag: None };
        Ok(Self { root: reader.document()? })
    }

    /// A recipe of one stage, to be filled by [`set_flag`](Self::set_flag); the stage is called like its kind.
    pub fn single(kind: &str) -> Self {
        let origin = Origin::Flag(format!("aha {kind}").into());
        let node = |value| Node { value, origin: origin.clone(), text: None };
        let string = |text: &str| node(Value::String(text.to_owned()));
        let table = |entries: Vec<(&str, Node)>| Table {
            entries: entries.into_iter().map(|(key, node)| (key.to_owned(), node)).collect(),
            origin: origin.clone(),
        };
        let stage = table(vec![("name", string(kind)), ("kind", string(kind))]);
        let stages = node(Value::Array(vec![node(Value::Table(stage))]));
        Self { root: table(vec![("name", string(kind)), ("stage", stages)]) }
    }

    /// The stages' tables and their names as far as they have any; empty if `stage` is not a list of tables.
    pub(crate) fn stages_mut(&mut self) -> Vec<(Option<String>, &mut Table)> {
        let Some((_, Node { value: Value::Array(stages), .. })) =
            self.root.entries.iter_mut().find(|(key, _)| key == "stage")
        else {
            return Vec::new();
        };
        let tables = stages.iter_mut().filter_map(|node| match &mut node.value {
            Value::Table(table) => Some(table),
            _ => None,
        });
        tables.map(|table| (table.name().map(str::to_owned), table)).collect()
    }
}

impl Table {
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.entries.iter().find(|(k, _)| k == key).map(|(_, node)| node)
    }

    /// The value of `name`, if it is a string.
    pub(crate) fn name(&self) -> Option<&str> {
        match self.get("name") {
            Some(Node { value: Value::String(name), .. }) => Some(name),
            _ => None,
        }
    }

    /// The same as an ordinary TOML table, without places.
    pub(crate) fn to_toml(&self) -> toml::Table {
        self.entries.iter().map(|(key, node)| (key.clone(), node.value.to_toml())).collect()
    }
}

impl Value {
    pub(crate) fn to_toml(&self) -> toml::Value {
        match self {
            Self::String(v) => toml::Value::String(v.clone()),
            Self::Integer(v) => toml::Value::Integer(*v),
            Self::Float(v) => toml::Value::Float(*v),
            Self::Boolean(v) => toml::Value::Boolean(*v),
            Self::Datetime(v) => toml::Value::Datetime(*v),
            Self::Array(v) => toml::Value::Array(v.iter().map(|node| node.value.to_toml()).collect()),
            Self::Table(v) => toml::Value::Table(v.to_toml()),
        }
    }

    /// The value in the words of a message.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::String(v) => format!("the string {v:?}"),
            Self::Integer(v) => v.to_string(),
            Self::Float(v) => format!("{v:?}"),
            Self::Boolean(v) => v.to_string(),
            Self::Datetime(v) => format!("the date {v}"),
            Self::Array(_) => "a list".to_owned(),
            Self::Table(_) => "a table".to_owned(),
        }
    }
}

/// The value of `--set a.b=TEXT` or `--flag TEXT`: TOML if it is TOML, otherwise the text itself as a string.
pub(crate) fn flag_value(text: &str, origin: &Origin) -> Result<Node, RecipeError> {
    let source = format!("v = {text}");
    let reader = Reader { text: &source, source: "".into(), flag: Some(origin.clone()) };
    let mut node = match reader.document() {
        Ok(mut table) if table.entries.len() == 1 && !text.trim().is_empty() => table.entries.remove(0).1,
        Err(error) if text.starts_with(['[', '{', '"', '\'']) => return Err(error),
        _ => Node { value: Value::String(text.to_owned()), origin: origin.clone(), text: None },
    };
    node.text = Some(text.to_owned());
    Ok(node)
}

fn unknown_recipe(name: &str) -> RecipeError {
    let names: Vec<&str> = embedded::list_embedded().collect();
    RecipeError::UnknownRecipe { name: name.to_owned(), hint: nearest::hint(name, &names, "the embedded recipes") }
}

/// Turns the parser's spans into lines.
struct Reader<'a> {
    text: &'a str,
    source: Arc<str>,
    /// Everything comes from this flag instead of lines.
    flag: Option<Origin>,
}

impl Reader<'_> {
    fn document(&self) -> Result<Table, RecipeError> {
        let parsed = DeTable::parse(self.text).map_err(|error| RecipeError::Syntax {
            at: self.at(error.span().map_or(0, |span| span.start)),
            message: error.message().to_owned(),
        })?;
        self.table(parsed.get_ref(), self.at(0))
    }

    fn at(&self, offset: usize) -> Origin {
        self.flag.clone().unwrap_or_else(|| {
            let before = &self.text.as_bytes()[..offset.min(self.text.len())];
            Origin::Line { source: self.source.clone(), line: 1 + before.iter().filter(|&&b| b == b'\n').count() }
        })
    }

    fn table(&self, table: &DeTable<'_>, origin: Origin) -> Result<Table, RecipeError> {
        let mut spanned: Vec<_> = table.iter().collect();
        spanned.sort_by_key(|(key, _)| key.span().start);
        let entries = spanned.into_iter().map(|(key, value)| {
            let node = self.node(value.get_ref(), self.at(key.span().start))?;
            Ok((key.get_ref().to_string(), node))
        });
        Ok(Table { entries: entries.collect::<Result<_, RecipeError>>()?, origin })
    }

    fn node(&self, value: &DeValue<'_>, origin: Origin) -> Result<Node, RecipeError> {
        let number = |text: &str| RecipeError::Syntax {
            at: origin.clone(),
            message: format!("the number {text} does not fit into 64 bits"),
        };
        let value = match value {
            DeValue::String(v) => Value::String(v.to_string()),
            DeValue::Integer(v) => {
                Value::Integer(i64::from_str_radix(v.as_str(), v.radix()).map_err(|_| number(v.as_str()))?)
            }
            DeValue::Float(v) => Value::Float(v.as_str().parse().map_err(|_| number(v.as_str()))?),
            DeValue::Boolean(v) => Value::Boolean(*v),
            DeValue::Datetime(v) => Value::Datetime(*v),
            DeValue::Array(items) => {
                let nodes = items.iter().map(|item| self.node(item.get_ref(), self.at(item.span().start)));
                Value::Array(nodes.collect::<Result<_, _>>()?)
            }
            DeValue::Table(table) => Value::Table(self.table(table, origin.clone())?),
        };
        Ok(Node { value, origin, text: None })
    }
}
