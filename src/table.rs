//! Plain tables: columns as wide as their widest cell, the first one to the left, numbers to the right.

use aha_eval::{EvalSummary, Measures, NeedleMap};

/// Lays out rows (the first is the heading) with two spaces between columns.
pub fn table(rows: &[Vec<String>]) -> String {
    lay_out(rows, |column, cell, fill| if column == 0 { format!("{cell}{fill}") } else { format!("{fill}{cell}") })
}

/// A table whose columns are all text, to the left.
pub fn left(rows: &[Vec<String>]) -> String {
    lay_out(rows, |_, cell, fill| format!("{cell}{fill}"))
}

fn lay_out(rows: &[Vec<String>], place: impl Fn(usize, &str, &str) -> String) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|r| r.get(column)).map(|c| c.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let fill = |i: usize, cell: &str| " ".repeat(widths[i] - cell.chars().count());
        let cells = row.iter().enumerate().map(|(i, cell)| place(i, cell, &fill(i, cell)));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// A share or a mean with three digits; `-` where there is nothing to measure.
pub fn number(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), |v| format!("{v:.3}"))
}

/// A value with its standard error.
pub fn with_error(value: Option<f64>, error: Option<f64>) -> String {
    match (value, error) {
        (Some(v), Some(e)) => format!("{v:.3} ± {e:.3}"),
        _ => number(value),
    }
}

/// Seconds as `4.2 s`, `3 min 20 s` or `2 h 05 min`.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..10 => format!("{seconds:.1} s"),
        10..120 => format!("{whole} s"),
        120..7200 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

/// Evaluations as tables: one checkpoint (or task) per row, another one by family where there is more than one, and a map for
/// every search for needles.
pub fn evaluations(heading: &str, evals: &[(String, EvalSummary)]) -> String {
    let (mut others, mut parts) = (Vec::new(), Vec::new());
    for (name, eval) in evals {
        match NeedleMap::of(eval) {
            Some(map) => parts.push(needles(name, &map)),
            None => others.push((name.clone(), eval.clone())),
        }
    }
    if !others.is_empty() {
        parts.insert(0, measures(heading, &others));
    }
    parts.join("\n\n")
}

/// Depths down, lengths across.
fn needles(name: &str, map: &NeedleMap) -> String {
    let heading = std::iter::once(format!("{name}: needles found")).chain(map.lengths.iter().map(usize::to_string));
    let mut rows = vec![heading.collect::<Vec<_>>()];
    for (depth, shares) in &map.rows {
        let depth = std::iter::once(format!("depth {depth:.2}"));
        rows.push(depth.chain(shares.iter().map(|share| number(*share))).collect());
    }
    table(&rows)
}

fn measures(heading: &str, evals: &[(String, EvalSummary)]) -> String {
    let columns =
        ["problems", "pass@1", "greedy", "pass@16", "cons@16", "format", "tokens", "reflective words", "cut off"];
    let mut rows = vec![std::iter::once(heading).chain(columns).map(str::to_owned).collect::<Vec<_>>()];
    for (name, e) in evals {
        let m = &e.overall;
        rows.push(vec![
            name.clone(),
            m.problems.to_string(),
            with_error(m.pass_at_1, m.pass_at_1_se),
            number(m.greedy_pass_at_1),
            number(m.pass_at_16),
            number(m.cons_at_16),
            number(m.format_rate),
            m.mean_response_tokens.map_or("-".into(), |v| format!("{v:.1}")),
            number(m.reflective_words),
            number(m.truncated_rate),
        ]);
    }
    let mut families: Vec<&str> = evals.iter().flat_map(|(_, e)| e.by_family.keys().map(String::as_str)).collect();
    families.sort_unstable();
    families.dedup();
    let mut text = table(&rows);
    if families.len() > 1 {
        let mut rows =
            vec![std::iter::once("pass@1").chain(families.iter().copied()).map(str::to_owned).collect::<Vec<_>>()];
        for (name, e) in evals {
            let cell = |family: &&str| e.by_family.get(*family).map_or("-".to_owned(), pass);
            rows.push(std::iter::once(name.clone()).chain(families.iter().map(cell)).collect());
        }
        text += &format!("\n\n{}", table(&rows));
    }
    text
}

fn pass(m: &Measures) -> String {
    match m.pass_at_1 {
        Some(_) => with_error(m.pass_at_1, m.pass_at_1_se),
        None => number(m.greedy_pass_at_1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_line_up() {
        let rows = [vec!["a".to_owned(), "pass@1".into()], vec!["base".to_owned(), "0.5".into()]];
        assert_eq!(table(&rows), "a     pass@1\nbase     0.5");
        assert_eq!(left(&rows), "a     pass@1\nbase  0.5");
        assert_eq!(with_error(Some(0.41), Some(0.0184)), "0.410 ± 0.018");
        assert_eq!(with_error(None, Some(1.0)), "-");
    }

    #[test]
    fn durations() {
        let all = [4.24, 61.0, 119.9, 200.0, 7500.0].map(duration);
        assert_eq!(all, ["4.2 s", "61 s", "2 min 00 s", "3 min 20 s", "2 h 05 min"]);
    }
}
