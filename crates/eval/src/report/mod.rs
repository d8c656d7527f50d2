//! `report.html`: what a run did, in one file that needs nothing else. Charts are inline SVG, colours follow the reader's
//! light or dark setting, and everything reads without JavaScript; a few lines of it only add values under the pointer.
//! The page forbids itself to load anything (Content-Security-Policy), and all text from the run is escaped.

mod axis;
mod chart;
mod families;
mod heat;
mod html;
mod picture;
mod samples;
mod tables;

use std::fmt::Write as _;

use crate::{EvalSummary, NeedleMap, Table, Verdict};
use html::{duration, escape};

pub use picture::render_curves_svg;

/// One curve: a measure against steps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curve {
    /// The stage it belongs to; curves are grouped by it.
    pub stage: String,
    /// What is measured, e.g. `Reward`.
    pub title: String,
    /// Its unit, e.g. `tokens`; may be empty.
    pub unit: String,
    /// What the x axis counts, e.g. `step`.
    pub x_label: String,
    /// (x, y), by rising x; points that are not finite are gaps.
    pub points: Vec<(f64, f64)>,
    /// A sentence under the chart.
    pub note: Option<String>,
}

/// One completion of a problem at some step.
#[derive(Clone, Debug, PartialEq)]
pub struct SampleEntry {
    /// The checkpoint the completion is from.
    pub checkpoint: String,
    /// Its training step; 0 is a model before this training.
    pub step: u64,
    /// What the model wrote, with its tags.
    pub completion: String,
    /// The verdict on its answer.
    pub verdict: Verdict,
    /// Its reward, where it has one.
    pub reward: Option<f64>,
    /// How many reflective words were counted in it.
    pub reflective_words: usize,
}

/// Completions of the same problem at several steps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SampleGroup {
    /// The problem as put to the model.
    pub problem: String,
    /// Its task family.
    pub family: String,
    /// The reference answer, or what is wanted.
    pub reference: String,
    /// The completions, by rising step.
    pub entries: Vec<SampleEntry>,
}

/// All that a report shows. Every part may be empty and is then left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReportInput {
    /// The heading.
    pub title: String,
    /// The recipe's name.
    pub recipe: String,
    /// The recipe as resolved.
    pub recipe_toml: String,
    /// The run's seed.
    pub seed: u64,
    /// Seconds the run took.
    pub wall_s: f64,
    /// Further facts for the head of the page, e.g. ("Parameters", "4.8 M").
    pub facts: Vec<(String, String)>,
    /// The curves, in the order to show them.
    pub curves: Vec<Curve>,
    /// Evaluations by checkpoint, oldest first, e.g. `base`, `step 40`, `zero`.
    pub evals: Vec<(String, EvalSummary)>,
    /// Completions of the same problems over time.
    pub samples: Vec<SampleGroup>,
    /// The reflective words and phrases to highlight in completions, in any case, e.g. `wait`.
    pub reflective_terms: Vec<String>,
    /// Remarks, one paragraph each.
    pub notes: Vec<String>,
    /// Further tables.
    pub tables: Vec<Table>,
}

/// Renders the page. Never panics, whatever the input; the same input gives the same bytes.
pub fn render_report(input: &ReportInput) -> String {
    let title = if input.title.is_empty() { "Run report" } else { &input.title };
    let mut page = String::with_capacity(1 << 18);
    let _ = write!(
        page,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; \
         script-src 'unsafe-inline'\">\n<meta name=\"color-scheme\" content=\"light dark\">\n<title>{}</title>\n\
         <style>\n{}{}</style>\n</head>\n<body>\n<main>\n",
        escape(title),
        include_str!("page.css"),
        include_str!("chart.css"),
    );
    head(&mut page, title, input);
    // Maps are measured on other problems than the rest, so they stand apart.
    let map = |(name, eval): &'_ (String, EvalSummary)| NeedleMap::of(eval).map(|map| (name.clone(), map));
    let maps: Vec<(String, NeedleMap)> = input.evals.iter().filter_map(map).collect();
    let evals: Vec<_> = input.evals.iter().filter(|(_, eval)| NeedleMap::of(eval).is_none()).cloned().collect();
    tables::tiles(&mut page, &evals);
    notes(&mut page, &input.notes);
    tables::story(&mut page, &evals);
    further(&mut page, &input.tables);
    tables::families(&mut page, &evals);
    heat::section(&mut page, &maps);
    curves(&mut page, &input.curves);
    samples::section(&mut page, &input.samples, &input.reflective_terms);
    recipe(&mut page, &input.recipe_toml);
    let _ = write!(
        page,
        "</main>\n<div id=\"tip\" hidden></div>\n<script>\n{}</script>\n</body>\n</html>\n",
        include_str!("hover.js")
    );
    page
}

fn head(page: &mut String, title: &str, input: &ReportInput) {
    let _ = write!(page, "<header>\n<h1>{}</h1>\n<dl class=\"facts\">\n", escape(title));
    let own = [
        ("Recipe", input.recipe.clone()),
        ("Seed", input.seed.to_string()),
        ("Time", if input.wall_s > 0.0 { duration(input.wall_s) } else { String::new() }),
    ];
    let given = input.facts.iter().map(|(name, value)| (name.as_str(), value.clone()));
    for (name, value) in own.into_iter().chain(given).filter(|(_, value)| !value.is_empty()) {
        let _ = writeln!(page, "<div><dt>{}</dt><dd>{}</dd></div>", escape(name), escape(&value));
    }
    page.push_str("</dl>\n</header>\n");
}

fn notes(page: &mut String, notes: &[String]) {
    if notes.is_empty() {
        return;
    }
    page.push_str("<section class=\"notes\">\n");
    for note in notes {
        let _ = writeln!(page, "<p>{}</p>", escape(note));
    }
    page.push_str("</section>\n");
}

fn further(page: &mut String, tables: &[Table]) {
    for table in tables {
        let kept = table.kept_columns();
        let _ = write!(
            page,
            "<section>\n<h2>{}</h2>\n<p class=\"lede\">{}</p>\n<div class=\"card scroll\"><table>\n<thead><tr><th></th>",
            escape(&table.title),
            escape(&table.note)
        );
        for c in &kept {
            let _ = write!(page, "<th>{}</th>", escape(&table.columns[*c]));
        }
        page.push_str("</tr></thead>\n<tbody>\n");
        for (name, cells) in &table.rows {
            let _ = write!(page, "<tr><th>{}</th>", escape(name));
            for c in &kept {
                let _ = write!(page, "<td>{}</td>", cells.get(*c).copied().unwrap_or_default().text());
            }
            page.push_str("</tr>\n");
        }
        page.push_str("</tbody>\n</table></div>\n</section>\n");
    }
}

fn curves(page: &mut String, curves: &[Curve]) {
    if curves.is_empty() {
        return;
    }
    page.push_str("<section>\n<h2>Curves</h2>\n<p class=\"lede\">Each step faint, the trend in front of it.</p>\n");
    let mut stages: Vec<&str> = Vec::new();
    for curve in curves {
        if !stages.contains(&curve.stage.as_str()) {
            stages.push(&curve.stage);
        }
    }
    for stage in stages {
        if !stage.is_empty() {
            let _ = writeln!(page, "<h3 class=\"stage\">{}</h3>", escape(stage));
        }
        page.push_str("<div class=\"grid\">\n");
        for curve in curves.iter().filter(|curve| curve.stage == stage) {
            chart::figure(page, curve);
        }
        page.push_str("</div>\n");
    }
    page.push_str("</section>\n");
}

fn recipe(page: &mut String, toml: &str) {
    if toml.trim().is_empty() {
        return;
    }
    let _ = write!(
        page,
        "<section>\n<h2>Settings</h2>\n<details>\n<summary>The recipe as resolved</summary>\n<pre class=\"recipe\">{}</pre>\n\
         </details>\n</section>\n",
        escape(toml.trim_end())
    );
}
