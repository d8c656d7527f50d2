//! pass@1 by task family across checkpoints: one line per family, named at its end.

use std::fmt::Write as _;

use super::chart::Frame;
use super::html::{escape, percent};
use crate::{EvalSummary, Measures};

const FRAME: Frame = Frame { width: 720.0, height: 330.0, left: 44.0, right: 190.0, top: 14.0, bottom: 32.0 };
/// Colours `c0`.. of `chart.css`.
const COLOURS: usize = 8;
/// At most so many checkpoints are named on the axis.
const MOST_LABELS: usize = 8;
/// Longer family names are cut in the chart.
const LONGEST_NAME: usize = 18;
/// Least distance between two names at the right, in SVG units.
const LINE_HEIGHT: f64 = 17.0;

struct Line<'a> {
    name: &'a str,
    class: String,
    measures: Vec<Option<&'a Measures>>,
}

/// The names of all families in the evaluations, sorted.
pub(super) fn names(evals: &[(String, EvalSummary)]) -> Vec<&str> {
    let mut names: Vec<&str> = evals.iter().flat_map(|(_, eval)| eval.by_family.keys().map(String::as_str)).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// The chart; nothing if there is no family.
pub(super) fn chart(page: &mut String, evals: &[(String, EvalSummary)]) {
    let families = names(evals);
    if families.is_empty() {
        return;
    }
    let mut lines: Vec<Line<'_>> = families
        .into_iter()
        .enumerate()
        .map(|(i, name)| Line {
            name,
            class: format!("c{}", i % COLOURS),
            measures: evals.iter().map(|(_, eval)| eval.by_family.get(name)).collect(),
        })
        .collect();
    let overall = evals.iter().map(|(_, eval)| Some(&eval.overall)).collect();
    lines.push(Line { name: "all", class: "call".to_owned(), measures: overall });

    let across = |i: usize| match evals.len() {
        0 | 1 => FRAME.x(0.5),
        n => FRAME.x(0.04 + 0.92 * i as f64 / (n - 1) as f64),
    };
    let up = |share: f64| FRAME.y(share.clamp(0.0, 1.0));
    let _ = write!(
        page,
        "<figure class=\"card families\">\n<figcaption><b>pass@1</b> <span>% of samples, ± standard error</span></figcaption>\n\
         <svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"pass@1 by task family\">",
        FRAME.width, FRAME.height
    );
    let (left, right) = (FRAME.x(0.0), FRAME.x(1.0));
    for tick in 0..=4 {
        let y = up(f64::from(tick) / 4.0);
        let class = if tick == 0 { "a" } else { "g" };
        let _ = write!(
            page,
            "<line class=\"{class}\" x1=\"{left:.1}\" x2=\"{right:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text class=\"t\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            left - 7.0,
            y + 3.5,
            25 * tick
        );
    }
    // With many checkpoints only some are named, counted back from the last.
    let every = evals.len().div_ceil(MOST_LABELS).max(1);
    for (i, (label, _)) in evals.iter().enumerate().filter(|(i, _)| (evals.len() - 1 - i).is_multiple_of(every)) {
        let (x, y) = (across(i), FRAME.height - 10.0);
        let _ =
            write!(page, "<text class=\"t\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{}</text>", escape(label));
    }
    for line in &lines {
        draw(page, line, &across, &up);
    }
    end_labels(page, &lines, &up);
    page.push_str("</svg>\n</figure>\n");
}

fn draw(page: &mut String, line: &Line<'_>, across: &dyn Fn(usize) -> f64, up: &dyn Fn(f64) -> f64) {
    let points: Vec<(f64, f64, Option<f64>)> = line
        .measures
        .iter()
        .enumerate()
        .filter_map(|(i, measures)| {
            let measures = measures.as_ref()?;
            let share = measures.pass_at_1.filter(|share| share.is_finite())?;
            Some((across(i), share, measures.pass_at_1_se.filter(|error| error.is_finite())))
        })
        .collect();
    let path: String = points
        .iter()
        .enumerate()
        .map(|(i, (x, share, _))| format!("{}{x:.1} {:.1}", if i == 0 { 'M' } else { 'L' }, up(*share)))
        .collect();
    let _ = write!(page, "<g class=\"{}\"><path class=\"l\" d=\"{path}\"/>", line.class);
    for (x, share, error) in points {
        if let Some(error) = error {
            let (low, high) = (up(share - error), up(share + error));
            let _ = write!(page, "<line class=\"e\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{low:.1}\" y2=\"{high:.1}\"/>");
        }
        let _ = write!(
            page,
            "<circle class=\"p\" cx=\"{x:.1}\" cy=\"{:.1}\" r=\"3.5\"><title>{}: {} %</title></circle>",
            up(share),
            escape(line.name),
            percent(share)
        );
    }
    page.push_str("</g>");
}

/// Names and last values at the right, moved apart where they would overlap.
fn end_labels(page: &mut String, lines: &[Line<'_>], up: &dyn Fn(f64) -> f64) {
    let mut labels: Vec<(f64, &Line<'_>, f64)> = lines
        .iter()
        .filter_map(|line| {
            let share = line.measures.iter().rev().flatten().find_map(|measures| measures.pass_at_1)?;
            share.is_finite().then(|| (up(share), line, share))
        })
        .collect();
    labels.sort_by(|a, b| a.0.total_cmp(&b.0));
    let places = spread(&labels.iter().map(|label| label.0).collect::<Vec<_>>(), FRAME.top, FRAME.y(0.0));
    for ((_, line, share), y) in labels.iter().zip(places) {
        let _ = write!(
            page,
            "<g class=\"{}\"><text class=\"n\" x=\"{:.1}\" y=\"{:.1}\">{} <tspan class=\"w\">{}</tspan></text></g>",
            line.class,
            FRAME.x(1.0) + 6.0,
            y + 4.0,
            escape(&shortened(line.name)),
            percent(*share)
        );
    }
}

/// A name that fits beside the chart.
fn shortened(name: &str) -> String {
    match name.char_indices().nth(LONGEST_NAME) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}

/// Moves sorted places apart to `LINE_HEIGHT`, pushing down and then back up from the bottom.
fn spread(sorted: &[f64], top: f64, bottom: f64) -> Vec<f64> {
    let mut places = sorted.to_vec();
    let mut free = top;
    for place in &mut places {
        *place = place.max(free);
        free = *place + LINE_HEIGHT;
    }
    let mut limit = bottom;
    for place in places.iter_mut().rev() {
        *place = place.min(limit);
        limit = *place - LINE_HEIGHT;
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_do_not_overlap_and_stay_near_their_lines() {
        let places = spread(&[20.0, 21.0, 22.0, 200.0], 14.0, 298.0);
        assert_eq!(places, [20.0, 37.0, 54.0, 200.0]);
        let places = spread(&[290.0, 295.0, 298.0], 14.0, 298.0);
        assert_eq!(places, [264.0, 281.0, 298.0]);
    }
}
