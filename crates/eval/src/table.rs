//! Tables of measured numbers with their standard errors, as Markdown and as part of the report.

use serde::{Deserialize, Serialize};
use std::fmt::Write as _;

/// A number in a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// The value; none where there was nothing to measure.
    pub value: Option<f64>,
    /// Its standard error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub se: Option<f64>,
}

impl Cell {
    /// A value without an error.
    pub fn plain(value: impl Into<Option<f64>>) -> Self {
        Cell { value: value.into(), se: None }
    }

    /// The mean of values and its standard error.
    pub fn mean(values: &[f64]) -> Self {
        Cell { value: crate::mean(values), se: crate::standard_error(values) }
    }

    /// As text: three decimals below 10, one above.
    pub fn text(&self) -> String {
        let decimals = if self.value.is_some_and(|v| v.abs() >= 10.0) { 1 } else { 3 };
        match (self.value.filter(|v| v.is_finite()), self.se.filter(|e| e.is_finite())) {
            (None, _) => "–".to_owned(),
            (Some(value), None) => format!("{value:.decimals$}"),
            (Some(value), Some(se)) => format!("{value:.decimals$} ± {se:.decimals$}"),
        }
    }
}

/// A table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// Its heading.
    pub title: String,
    /// What its numbers are.
    pub note: String,
    /// Names of the columns, without the one of the rows' names.
    pub columns: Vec<String>,
    /// Rows: name and a cell per column.
    pub rows: Vec<(String, Vec<Cell>)>,
}

impl Table {
    /// An empty table.
    pub fn new(title: &str, note: &str, columns: &[&str]) -> Self {
        Table {
            title: title.to_owned(),
            note: note.to_owned(),
            columns: columns.iter().map(|c| (*c).to_owned()).collect(),
            rows: Vec::new(),
        }
    }

    /// As Markdown, heading included. Columns without a number are left out.
    pub fn markdown(&self) -> String {
        let kept = self.kept_columns();
        let mut text = format!("## {}\n\n{}\n\n| |", self.title, self.note);
        for c in &kept {
            let _ = write!(text, " {} |", self.columns[*c]);
        }
        text += "\n|---|";
        text += &"---|".repeat(kept.len());
        text += "\n";
        for (name, cells) in &self.rows {
            let _ = write!(text, "| {name} |");
            for c in &kept {
                let _ = write!(text, " {} |", cells.get(*c).copied().unwrap_or_default().text());
            }
            text += "\n";
        }
        text
    }

    /// Columns in which some row has a number.
    pub fn kept_columns(&self) -> Vec<usize> {
        let has = |c: &usize| self.rows.iter().any(|(_, cells)| cells.get(*c).is_some_and(|cell| cell.value.is_some()));
        (0..self.columns.len()).filter(has).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markdown_leaves_out_what_nobody_measured() {
        let mut table = Table::new("T", "N.", &["a", "b", "c"]);
        table.rows.push(("x".into(), vec![Cell::mean(&[0.0, 1.0]), Cell::default(), Cell::plain(12.34)]));
        table.rows.push(("y".into(), vec![Cell::plain(0.25)]));
        let text = table.markdown();
        assert_eq!(text, "## T\n\nN.\n\n| | a | c |\n|---|---|---|\n| x | 0.500 ± 0.500 | 12.3 |\n| y | 0.250 | – |\n");
    }
}
