//! `--set a.b=c` and the flags of one-stage commands: values put over what a recipe says.
//!
//! The first word of a key is a stage's name, or one of the recipe's own keys (`seed`, `name`, `description`). A word alone may
//! also be one of the recipe's parameters (`base=DIR`). Further words go into tables; elements of a list of tables are addressed by their `name` or by their number from 0
//! (`zero.rewards.format.weight=0.2`). Whether the key exists is decided later, where all keys are checked.

use super::error::{Origin, RecipeError};
use super::nearest;
use super::raw::{Node, RawRecipe, Table, Value, flag_value};

/// The recipe's own keys that can be set; `stage` is the list of stages.
pub(crate) const RECIPE_KEYS: [&str; 5] = ["name", "description", "seed", "parameters", "stage"];

impl RawRecipe {
    /// Applies one `--set KEY=VALUE`.
    ///
    /// # Errors
    /// No `=`, an empty key, a stage that does not exist (the nearest is named), a path through something that is not a
    /// table, a value that begins like TOML and is none.
    pub fn set(&mut self, assignment: &str) -> Result<(), RecipeError> {
        let at = Origin::Flag(format!("--set {assignment}").into());
        let Some((key, value)) = assignment.split_once('=') else {
            let message = "write KEY=VALUE, for example `seed=3` or `STAGE.learning_rate=1e-4`".to_owned();
            return Err(RecipeError::Override { at, message });
        };
        self.put(key.trim(), value.trim(), &at)
    }

    /// Applies a flag such as `--learning-rate 1e-5`: `flag` is what messages show, `key` the path as in
    /// [`set`](Self::set).
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub fn set_flag(&mut self, flag: &str, key: &str, value: &str) -> Result<(), RecipeError> {
        self.put(key, value, &Origin::Flag(format!("{flag} {value}").into()))
    }

    fn put(&mut self, key: &str, value: &str, at: &Origin) -> Result<(), RecipeError> {
        let bad = |message: String| RecipeError::Override { at: at.clone(), message };
        let words: Vec<&str> = key.split('.').map(str::trim).collect();
        if words.iter().any(|word| word.is_empty()) {
            return Err(bad(format!("the key `{key}` has an empty part")));
        }
        let node = flag_value(value, at)?;
        if words[0] != "stage" && RECIPE_KEYS.contains(&words[0]) {
            return insert(&mut self.root, &words, node, &bad);
        }
        if let [word] = words[..]
            && let Some(parameter) = self.parameter_mut(word)
        {
            *parameter = node;
            return Ok(());
        }
        let parameters = self.parameter_names();
        let mut stages = self.stages_mut();
        let names: Vec<String> = stages.iter().filter_map(|(name, _)| name.clone()).collect();
        let Some((_, table)) = stages.iter_mut().find(|(name, _)| name.as_deref() == Some(words[0])) else {
            let mut candidates: Vec<&str> = names.iter().map(String::as_str).collect();
            candidates.extend(RECIPE_KEYS.iter().filter(|&&key| key != "stage" && key != "parameters"));
            candidates.extend(parameters.iter().map(String::as_str));
            let hint = nearest::hint(words[0], &candidates, "a key begins with one of");
            return Err(bad(format!("there is no stage `{}`; {hint}", words[0])));
        };
        if words.len() == 1 {
            return Err(bad(format!("`{key}` is a stage, not a setting; write `{key}.KEY=VALUE`")));
        }
        insert(table, &words[1..], node, &bad)
    }
}

/// Puts `node` at the path `words` (not empty) below `table`, making tables that are missing.
fn insert(
    table: &mut Table,
    words: &[&str],
    node: Node,
    bad: &dyn Fn(String) -> RecipeError,
) -> Result<(), RecipeError> {
    let position = table.entries.iter().position(|(key, _)| key == words[0]);
    if words.len() == 1 {
        match position {
            Some(i) => table.entries[i].1 = node,
            None => table.entries.push((words[0].to_owned(), node)),
        }
        return Ok(());
    }
    let i = position.unwrap_or_else(|| {
        let empty = Table { entries: Vec::new(), origin: node.origin.clone() };
        let node = Node { value: Value::Table(empty), origin: node.origin.clone(), text: None };
        table.entries.push((words[0].to_owned(), node));
        table.entries.len() - 1
    });
    descend(&mut table.entries[i].1.value, words, node, bad)
}

/// `words[0]` is the key of `value`, `words[1..]` (not empty) the path below it.
fn descend(
    value: &mut Value,
    words: &[&str],
    node: Node,
    bad: &dyn Fn(String) -> RecipeError,
) -> Result<(), RecipeError> {
    match value {
        Value::Table(table) => insert(table, &words[1..], node, bad),
        Value::Array(items) => {
            let named = items.iter().position(|item| match &item.value {
                Value::Table(table) => table.name() == Some(words[1]),
                _ => false,
            });
            let Some(i) = named.or_else(|| words[1].parse().ok()).filter(|&i| i < items.len()) else {
                return Err(bad(format!("the list `{}` has no element `{}`", words[0], words[1])));
            };
            if words.len() == 2 {
                items[i] = node;
                return Ok(());
            }
            descend(&mut items[i].value, &words[1..], node, bad)
        }
        other => Err(bad(format!("`{}` is {}, not a table", words[0], other.describe()))),
    }
}
