//! Parameters of a recipe: what whoever runs it has to give or may change, once for all stages.
//!
//! ```toml
//! [parameters]
//! base = { wanted = "a language model: a Hugging Face folder or a GGUF file" }   # has to be given
//! steps = 100                                                                    # may be changed
//!
//! [[stage]]
//! model = "${base}"
//! steps = "${steps}"
//! ```
//!
//! `--set base=DIR` gives one. A text that is nothing but `${NAME}` becomes the parameter's value whatever its type; within a longer
//! text stands its text. A resolved recipe has no parameters left.

use super::error::{Origin, RecipeError};
use super::nearest;
use super::raw::{Node, RawRecipe, Table, Value};

/// The table of parameters.
const KEY: &str = "parameters";
/// The key of a parameter that has to be given: what is wanted.
const WANTED: &str = "wanted";

/// A recipe as a list shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outline {
    /// Its name.
    pub name: String,
    /// What it shows.
    pub description: String,
    /// Names of its stages.
    pub stages: Vec<String>,
    /// Its parameters: name, and the value or, in angle brackets, what is wanted.
    pub parameters: Vec<(String, String)>,
}

impl RawRecipe {
    /// Names, without a check of the settings.
    pub fn outline(&mut self) -> Outline {
        let text = |table: &Table, key: &str| match table.get(key) {
            Some(Node { value: Value::String(text), .. }) => text.clone(),
            _ => String::new(),
        };
        let shown = |node: &Node| match &node.value {
            Value::String(text) => text.clone(),
            Value::Table(table) => format!("<{}>", text(table, WANTED)),
            other => other.to_toml().to_string(),
        };
        let parameters = self.parameters().into_iter().flat_map(|table| &table.entries);
        Outline {
            name: text(&self.root, "name"),
            description: text(&self.root, "description"),
            parameters: parameters.map(|(name, node)| (name.clone(), shown(node))).collect(),
            stages: self.stages_mut().into_iter().filter_map(|(name, _)| name).collect(),
        }
    }

    /// Gives every parameter that has to be given, and is not, the text `./NAME`: for those who only look or count.
    pub fn give_missing(&mut self) {
        for name in self.parameter_names() {
            if let Some(node) = self.parameter_mut(&name)
                && matches!(node.value, Value::Table(_))
            {
                node.value = Value::String(format!("./{name}"));
            }
        }
    }

    fn parameters(&self) -> Option<&Table> {
        match self.root.get(KEY) {
            Some(Node { value: Value::Table(table), .. }) => Some(table),
            _ => None,
        }
    }

    pub(crate) fn parameter_names(&self) -> Vec<String> {
        self.parameters().into_iter().flat_map(|table| &table.entries).map(|(name, _)| name.clone()).collect()
    }

    pub(crate) fn parameter_mut(&mut self, name: &str) -> Option<&mut Node> {
        let (_, node) = self.root.entries.iter_mut().find(|(key, _)| key == KEY)?;
        let Value::Table(table) = &mut node.value else { return None };
        table.entries.iter_mut().find(|(key, _)| key == name).map(|(_, node)| node)
    }

    /// The recipe with every parameter put in its places, and without the table of them.
    pub(crate) fn filled(&self) -> Result<Table, RecipeError> {
        let mut root = self.root.clone();
        let Some(at) = root.entries.iter().position(|(key, _)| key == KEY) else {
            return Ok(root);
        };
        let (_, node) = root.entries.remove(at);
        let Value::Table(parameters) = node.value else {
            let message = format!("`{KEY}` is {}, not a table of names and values", node.value.describe());
            return Err(RecipeError::Conflict { at: node.origin, message });
        };
        for (name, node) in &parameters.entries {
            let bare = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
            let message = match &node.value {
                _ if name.is_empty() || !name.bytes().all(bare) => {
                    format!("the parameter `{name}`: its name must be lower-case letters, digits and `_`")
                }
                Value::Table(table)
                    if table.entries.iter().any(|(key, _)| key != WANTED) || table.entries.is_empty() =>
                {
                    format!(
                        "the parameter `{name}` is a table; only `{{ {WANTED} = \"...\" }}` is one, for what has to be given"
                    )
                }
                _ => continue,
            };
            return Err(RecipeError::Conflict { at: node.origin.clone(), message });
        }
        // One parameter may stand for another, which is given or not.
        let mut resolved = parameters.clone();
        for (_, node) in resolved.entries.iter_mut().filter(|(_, node)| matches!(node.value, Value::String(_))) {
            let Value::String(text) = &node.value else { continue };
            match alone(text).and_then(|name| parameters.get(name)) {
                Some(other) => *node = Node { origin: node.origin.clone(), ..other.clone() },
                None => fill(node, &parameters)?,
            }
        }
        for (_, node) in &mut root.entries {
            fill(node, &resolved)?;
        }
        Ok(root)
    }
}

/// The parameter that is all a text says.
fn alone(text: &str) -> Option<&str> {
    text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')).filter(|name| !name.contains('}'))
}

fn fill(node: &mut Node, parameters: &Table) -> Result<(), RecipeError> {
    let at = node.origin.clone();
    match &mut node.value {
        Value::Table(table) => table.entries.iter_mut().try_for_each(|(_, node)| fill(node, parameters)),
        Value::Array(items) => items.iter_mut().try_for_each(|node| fill(node, parameters)),
        Value::String(text) if text.contains("${") => {
            if let Some(name) = alone(text) {
                let value = value(name, &at, parameters)?;
                node.text.clone_from(&value.text);
                node.value = value.value.clone();
                return Ok(());
            }
            let mut filled = String::new();
            let mut rest = text.as_str();
            while let Some((before, after)) = rest.split_once("${") {
                let Some((name, after)) = after.split_once('}') else { break };
                let value = value(name, &at, parameters)?;
                filled += before;
                match (&value.value, &value.text) {
                    (Value::String(text), _) | (_, Some(text)) => filled += text,
                    (other, None) => filled += &other.to_toml().to_string(),
                }
                rest = after;
            }
            filled += rest;
            node.value = Value::String(filled);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The parameter that a text names.
fn value<'a>(name: &str, at: &Origin, parameters: &'a Table) -> Result<&'a Node, RecipeError> {
    let Some(found) = parameters.get(name) else {
        let names: Vec<&str> = parameters.entries.iter().map(|(name, _)| name.as_str()).collect();
        let hint = nearest::hint(name, &names, "the parameters are");
        let message = format!("`${{{name}}}`: there is no parameter `{name}`; {hint}");
        return Err(RecipeError::Conflict { at: at.clone(), message });
    };
    let Value::Table(table) = &found.value else { return Ok(found) };
    let wanted = table.get(WANTED).map_or_else(String::new, |node| match &node.value {
        Value::String(text) => text.clone(),
        other => other.describe(),
    });
    let message = format!("the parameter `{name}` has to be given, `--set {name}=...`: {wanted}");
    Err(RecipeError::Conflict { at: found.origin.clone(), message })
}
