//! Numbers of the evaluations: tiles from first to last, the table over checkpoints, the table by family.

use std::fmt::Write as _;

use super::families;
use super::html::{escape, number, percent};
use crate::{EvalSummary, Measures};

type Value = fn(&Measures) -> Option<f64>;

/// How a measure is shown, and how its change is.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// A share, shown in percent; its change in percentage points.
    Share,
    /// A count per response; its change as a factor.
    Count,
}

struct Column {
    name: &'static str,
    help: &'static str,
    kind: Kind,
    value: Value,
}

const COLUMNS: &[Column] = &[
    column("pass@1", "share of samples that are correct, ± standard error over problems", Kind::Share, |m| {
        m.pass_at_1
    }),
    column("greedy", "pass@1 with greedy decoding", Kind::Share, |m| m.greedy_pass_at_1),
    column("cons@16", "majority of 16 samples correct", Kind::Share, |m| m.cons_at_16),
    column("pass@16", "at least one of 16 samples correct", Kind::Share, |m| m.pass_at_16),
    column("lenient", "pass@1 by a lenient reading of the answer", Kind::Share, |m| m.lenient_pass_at_1),
    column("format", "share of responses in the required format", Kind::Share, |m| m.format_rate),
    column("tokens", "mean response length in tokens", Kind::Count, |m| m.mean_response_tokens),
    column("reflective", "reflective words per response", Kind::Count, |m| m.reflective_words),
    column("mixed", "share of responses that mix languages", Kind::Share, |m| m.mixed_language_rate),
    column("in language", "mean share of a response in its problem's language", Kind::Share, |m| {
        m.language_consistency
    }),
    column("cut off", "share of responses that ended at the length limit", Kind::Share, |m| m.truncated_rate),
];

const fn column(name: &'static str, help: &'static str, kind: Kind, value: Value) -> Column {
    Column { name, help, kind, value }
}

fn shown(kind: Kind, value: Option<f64>) -> String {
    match (kind, value.filter(|value| value.is_finite())) {
        (_, None) => "–".to_owned(),
        (Kind::Share, Some(value)) => percent(value),
        (Kind::Count, Some(value)) if value.abs() < 10.0 => format!("{value:.2}"),
        (Kind::Count, Some(value)) => number(value),
    }
}

/// `+63.2` percentage points, or `×1.45`.
fn change(kind: Kind, first: Option<f64>, last: Option<f64>) -> Option<String> {
    let (first, last) = (first?, last?);
    if !(first.is_finite() && last.is_finite()) {
        return None;
    }
    match kind {
        Kind::Share => {
            let points = (last - first) * 100.0;
            Some(if points.abs() < 0.05 { "±0".to_owned() } else { format!("{points:+.1}").replace('-', "−") })
        }
        Kind::Count if first > 0.0 => {
            let factor = last / first;
            Some(if factor >= 10.0 { format!("×{factor:.0}") } else { format!("×{factor:.2}") })
        }
        Kind::Count => None,
    }
}

/// The measures that tell the story, from the first checkpoint to the last.
pub(super) fn tiles(page: &mut String, evals: &[(String, EvalSummary)]) {
    let (Some((first_name, first)), Some((last_name, last))) = (evals.first(), evals.last()) else {
        return;
    };
    page.push_str("<section class=\"tiles\">\n");
    for (index, label) in
        [(0, "pass@1"), (2, "cons@16"), (5, "in format"), (6, "response tokens"), (7, "reflective words")]
    {
        let column = &COLUMNS[index];
        let (before, after) = ((column.value)(&first.overall), (column.value)(&last.overall));
        if after.is_none() {
            continue;
        }
        let unit = if column.kind == Kind::Share { "<small>%</small>" } else { "" };
        let _ = write!(
            page,
            "<div class=\"card tile\" title=\"{}\"><span>{label}</span><b>{}{unit}</b>",
            escape(column.help),
            shown(column.kind, after)
        );
        if evals.len() > 1 {
            let from = shown(column.kind, before);
            let unit = if column.kind == Kind::Share && before.is_some() { " %" } else { "" };
            let _ = write!(page, "<i>{} <s>{from}{unit}</s>", escape(first_name));
            if let Some(change) = change(column.kind, before, after) {
                let unit = if column.kind == Kind::Share { " pts" } else { "" };
                let _ = write!(page, "<u>{change}{unit}</u>");
            }
            page.push_str("</i>");
        } else {
            let _ = write!(page, "<i>{}</i>", escape(last_name));
        }
        page.push_str("</div>\n");
    }
    page.push_str("</section>\n");
}

/// One row per checkpoint, and one for the change over all of them.
pub(super) fn story(page: &mut String, evals: &[(String, EvalSummary)]) {
    let (Some((first_name, first)), Some((last_name, last))) = (evals.first(), evals.last()) else {
        return;
    };
    page.push_str("<section>\n<h2>The story in numbers</h2>\n");
    let sizes = (last.overall.problems, last.overall.samples);
    let _ = write!(
        page,
        "<p class=\"lede\">{} held-out problems, {} samples each. Shares in percent; ± is the standard error over problems.",
        sizes.0, sizes.1
    );
    let unjudged: usize = evals.iter().map(|(_, eval)| eval.overall.not_judged).sum();
    if unjudged > 0 {
        let _ = write!(page, " {unjudged} samples could not be judged and count neither way.");
    }
    page.push_str("</p>\n<div class=\"card scroll\"><table class=\"story\">\n<thead><tr><th>checkpoint</th>");
    let columns: Vec<&Column> =
        COLUMNS.iter().filter(|column| evals.iter().any(|(_, eval)| (column.value)(&eval.overall).is_some())).collect();
    for column in &columns {
        let _ = write!(page, "<th title=\"{}\">{}</th>", escape(column.help), column.name);
    }
    page.push_str("</tr></thead>\n<tbody>\n");
    for (name, eval) in evals {
        measure_row(page, name, &eval.overall, &columns);
    }
    page.push_str("</tbody>\n");
    if evals.len() > 1 {
        let _ = write!(page, "<tfoot><tr><th>{} → {}</th>", escape(first_name), escape(last_name));
        for column in &columns {
            let change = change(column.kind, (column.value)(&first.overall), (column.value)(&last.overall));
            let _ = write!(page, "<td>{}</td>", change.as_deref().unwrap_or("–"));
        }
        page.push_str("</tr></tfoot>\n");
    }
    page.push_str("</table></div>\n</section>\n");
}

fn measure_row(page: &mut String, name: &str, measures: &Measures, columns: &[&Column]) {
    let _ = write!(page, "<tr><th>{}</th>", escape(name));
    for (i, column) in columns.iter().enumerate() {
        let value = (column.value)(measures);
        if i == 0 && column.name == "pass@1" {
            pass_cell(page, measures);
        } else {
            let _ = write!(page, "<td>{}</td>", shown(column.kind, value));
        }
    }
    page.push_str("</tr>\n");
}

/// pass@1 ± its error, over a bar of that length.
fn pass_cell(page: &mut String, measures: &Measures) {
    let share = measures.pass_at_1.filter(|share| share.is_finite());
    let width = share.unwrap_or(0.0).clamp(0.0, 1.0) * 100.0;
    let _ = write!(page, "<td class=\"bar\" style=\"--w:{width:.1}%\"><b>{}</b>", shown(Kind::Share, share));
    if let Some(error) = measures.pass_at_1_se.filter(|error| error.is_finite()) {
        let _ = write!(page, " <small>± {}</small>", percent(error));
    }
    page.push_str("</td>");
}

/// The chart and the tables by family.
pub(super) fn families(page: &mut String, evals: &[(String, EvalSummary)]) {
    let names = families::names(evals);
    if names.is_empty() {
        return;
    }
    page.push_str("<section>\n<h2>By task family</h2>\n<div class=\"split\">\n");
    families::chart(page, evals);
    page.push_str("<div class=\"card scroll\"><table>\n<thead><tr><th>pass@1</th>");
    // The chart has every checkpoint; the table beside it the first and the last.
    let ends: Vec<&(String, EvalSummary)> = match evals {
        [first, .., last] => vec![first, last],
        all => all.iter().collect(),
    };
    for (name, _) in &ends {
        let _ = write!(page, "<th>{}</th>", escape(name));
    }
    page.push_str("</tr></thead>\n<tbody>\n");
    for family in &names {
        let _ = write!(page, "<tr><th>{}</th>", escape(family));
        for (_, eval) in &ends {
            match eval.by_family.get(*family) {
                Some(measures) => pass_cell(page, measures),
                None => page.push_str("<td>–</td>"),
            }
        }
        page.push_str("</tr>\n");
    }
    page.push_str(
        "</tbody>\n</table></div>\n</div>\n<details>\n<summary>Every measure by family and checkpoint</summary>\n",
    );
    let columns: Vec<&Column> = COLUMNS.iter().collect();
    for family in &names {
        let _ = write!(
            page,
            "<h3>{}</h3>\n<div class=\"card scroll\"><table>\n<thead><tr><th>checkpoint</th>",
            escape(family)
        );
        for column in &columns {
            let _ = write!(page, "<th title=\"{}\">{}</th>", escape(column.help), column.name);
        }
        page.push_str("</tr></thead>\n<tbody>\n");
        for (name, eval) in evals {
            if let Some(measures) = eval.by_family.get(*family) {
                measure_row(page, name, measures, &columns);
            }
        }
        page.push_str("</tbody>\n</table></div>\n");
    }
    page.push_str("</details>\n</section>\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_points_or_factors() {
        assert_eq!(change(Kind::Share, Some(0.281), Some(0.913)).unwrap(), "+63.2");
        assert_eq!(change(Kind::Share, Some(0.5), Some(0.25)).unwrap(), "−25.0");
        assert_eq!(change(Kind::Share, Some(0.5), Some(0.5)).unwrap(), "±0");
        assert_eq!(change(Kind::Count, Some(44.0), Some(62.0)).unwrap(), "×1.41");
        assert_eq!(change(Kind::Count, Some(0.1), Some(3.0)).unwrap(), "×30");
        assert_eq!(change(Kind::Count, Some(0.0), Some(3.0)), None);
        assert_eq!(change(Kind::Share, None, Some(1.0)), None);
    }
}
