//! The data card: what went in, what each filter threw out with examples, what came out, as JSON and as Markdown. It holds no
//! times, so the same rows and settings give the same card.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::candidate::Candidate;
use crate::error::CurateError;
use crate::house::language_name;
use crate::pipeline::{Checks, Curated, FilterReport};
use crate::settings::Settings;

/// A file that was read or written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileDigest {
    /// Its name as given.
    pub file: String,
    /// Rows in it.
    pub rows: usize,
    /// Its size.
    pub bytes: u64,
    /// SHA-256 of its content, in hexadecimal.
    pub sha256: String,
}

impl FileDigest {
    /// Reads a file and hashes it.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn of(path: &Path, name: &str, rows: usize) -> Result<Self, CurateError> {
        let read = |source| CurateError::Read { path: path.to_path_buf(), source };
        let mut file = std::fs::File::open(path).map_err(read)?;
        let mut hash = Sha256::new();
        let bytes = std::io::copy(&mut file, &mut hash).map_err(read)?;
        let sha256 = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { file: name.to_owned(), rows, bytes, sha256 })
    }
}

/// A distribution in a few numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    /// Smallest.
    pub min: usize,
    /// Half are at most this.
    pub median: usize,
    /// Mean.
    pub mean: f64,
    /// Nine in ten are at most this.
    pub p90: usize,
    /// Largest.
    pub max: usize,
}

impl Spread {
    /// Of some numbers; `None` of none.
    pub fn of(mut values: Vec<usize>) -> Option<Self> {
        values.sort_unstable();
        let rank = |share: f64| values[((values.len() as f64 * share).ceil() as usize).clamp(1, values.len()) - 1];
        let (min, max) = (*values.first()?, *values.last()?);
        let mean = values.iter().sum::<usize>() as f64 / values.len() as f64;
        Some(Self { min, median: rank(0.5), mean, p90: rank(0.9), max })
    }
}

/// What a set of rows is made of.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Contents {
    /// Rows.
    pub rows: usize,
    /// Different prompts.
    pub prompts: usize,
    /// Rows by what wrote them.
    pub by_source: BTreeMap<String, usize>,
    /// Rows by task.
    pub by_task: BTreeMap<String, usize>,
    /// Rows by language of the question.
    pub by_language: BTreeMap<String, usize>,
    /// Rows by pass rate of their prompt.
    pub by_difficulty: BTreeMap<String, usize>,
    /// Rows by what was decided.
    pub by_state: BTreeMap<String, usize>,
    /// Tokens of the completions, where they are known.
    pub tokens: Option<Spread>,
    /// Characters of the chains of thought.
    pub thought_chars: Option<Spread>,
    /// Characters of the answers.
    pub answer_chars: Option<Spread>,
    /// Rows per prompt.
    pub per_prompt: Option<Spread>,
}

/// Classes of pass rate in the card.
fn difficulty(pass_rate: Option<f64>) -> &'static str {
    match pass_rate {
        None => "unknown",
        Some(rate) if rate <= 0.0 => "0 never solved",
        Some(rate) if rate < 0.25 => "1 below 1/4",
        Some(rate) if rate < 0.5 => "2 below 1/2",
        Some(rate) if rate < 0.75 => "3 below 3/4",
        Some(rate) if rate < 1.0 => "4 below 1",
        Some(_) => "5 always solved",
    }
}

impl Contents {
    /// Counts rows.
    pub fn of(rows: &[Candidate]) -> Self {
        let count = |key: &dyn Fn(&Candidate) -> String| {
            let mut counts = BTreeMap::new();
            rows.iter().for_each(|row| *counts.entry(key(row)).or_default() += 1);
            counts
        };
        let mut prompts: BTreeMap<_, usize> = BTreeMap::new();
        rows.iter()
            .for_each(|row| *prompts.entry((&row.problem.id, language_name(row.problem.language))).or_default() += 1);
        let chars = |text: &str| text.trim().chars().count();
        Self {
            rows: rows.len(),
            prompts: prompts.len(),
            by_source: count(&|row| row.source.clone()),
            by_task: count(&|row| row.problem.family.clone()),
            by_language: count(&|row| language_name(row.problem.language).to_owned()),
            by_difficulty: count(&|row| difficulty(row.pass_rate).to_owned()),
            by_state: count(&|row| row.decision.state.as_str().to_owned()),
            tokens: Spread::of(rows.iter().filter_map(|row| row.tokens).collect()),
            thought_chars: Spread::of(rows.iter().filter_map(|row| row.thought().map(chars)).collect()),
            answer_chars: Spread::of(rows.iter().map(|row| chars(row.answer())).collect()),
            per_prompt: Spread::of(prompts.into_values().collect()),
        }
    }
}

/// The card.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Card {
    /// The program and its version.
    pub made_by: String,
    /// Files of rows.
    pub inputs: Vec<FileDigest>,
    /// Rows that came with an id that had been there.
    pub repeated_ids: usize,
    /// Files of evaluation sets.
    pub against: Vec<FileDigest>,
    /// Files written.
    pub outputs: Vec<FileDigest>,
    /// All settings, defaults too.
    pub settings: Settings,
    /// Probability that a pair exactly at the threshold of the near-duplicates is found.
    pub duplicates_recall_at_threshold: f64,
    /// What went in.
    pub input: Contents,
    /// What was kept.
    pub kept: Contents,
    /// Prompts of which nothing was kept.
    pub prompts_without_a_row: usize,
    /// The filters in order.
    pub filters: Vec<FilterReport>,
    /// What was verified once more.
    pub checks: Checks,
}

impl Card {
    /// A card without files.
    pub fn new(made_by: &str, curated: &Curated, settings: &Settings) -> Self {
        let kept = Contents::of(&curated.kept);
        Self {
            made_by: made_by.to_owned(),
            inputs: Vec::new(),
            repeated_ids: 0,
            against: Vec::new(),
            outputs: Vec::new(),
            settings: settings.clone(),
            duplicates_recall_at_threshold: settings.duplicates.search().recall_at(settings.duplicates.threshold),
            prompts_without_a_row: curated.input.prompts - kept.prompts,
            input: curated.input.clone(),
            kept,
            filters: curated.filters.clone(),
            checks: curated.checks,
        }
    }

    /// As JSON, for programs.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("names are strings, so this is always JSON") + "\n"
    }

    /// As Markdown, for people.
    pub fn markdown(&self) -> String {
        let mut out = format!("# Data card\n\nMade by {}.\n", self.made_by);
        let kept = &self.kept;
        out += &format!(
            "\n{} of {} rows kept ({}), for {} of {} prompts.\n",
            kept.rows,
            self.input.rows,
            percent(kept.rows, self.input.rows),
            kept.prompts,
            self.input.prompts
        );
        if self.repeated_ids > 0 {
            out += &format!("\n{} more rows had an id that was there already; they count once.\n", self.repeated_ids);
        }
        let c = &self.checks;
        out += &format!(
            "\nVerified once more: {} correct by rule, {} incorrect, {} that no rule can judge; {} overlap with {} evaluation \
             texts.\n",
            c.verified, c.incorrect, c.not_judged, c.overlapping, c.evaluation_texts
        );
        out += "\n## Filters\n\n| filter | keeps | rows in | thrown out | share |\n|---|---|---:|---:|---:|\n";
        for f in &self.filters {
            let (thrown, share) = if f.used {
                (f.thrown.to_string(), percent(f.thrown, f.rows))
            } else {
                ("left out".to_owned(), String::new())
            };
            out += &format!("| {} | {} | {} | {thrown} | {share} |\n", f.name, f.about, f.rows);
        }
        out += &self.contents_table();
        out += &self.lengths_table();
        out += "\n## Examples of what was thrown out\n";
        for f in self.filters.iter().filter(|f| f.thrown > 0) {
            let kinds: Vec<String> = f.kinds.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
            out += &format!("\n### {}: {}\n\n", f.name, kinds.join(", "));
            for e in &f.examples {
                let detail = if e.detail.is_empty() { String::new() } else { format!(": {}", code(&e.detail)) };
                out += &format!("- {} `{}` {}{detail}\n", e.id, e.problem, e.kind);
                out += &format!("  - question: {}\n  - completion: {}\n", code(&e.question), code(&e.completion));
            }
        }
        out += "\n## Files\n\n| | file | rows | bytes | SHA-256 |\n|---|---|---:|---:|---|\n";
        for (what, files) in [("in", &self.inputs), ("against", &self.against), ("out", &self.outputs)] {
            for f in files {
                out += &format!("| {what} | {} | {} | {} | `{}` |\n", cell(&f.file), f.rows, f.bytes, f.sha256);
            }
        }
        let settings = serde_json::to_string_pretty(&self.settings).expect("names are strings, so this is always JSON");
        out += &format!("\n## Settings\n\n```json\n{settings}\n```\n");
        let d = &self.settings.duplicates;
        out += &format!(
            "\nNear-duplicates: {} MinHash values in {} bands of {}; a pair at the threshold is found with probability {:.4}, and \
             compared exactly before it is dropped.\n",
            d.bands * d.rows,
            d.bands,
            d.rows,
            self.duplicates_recall_at_threshold
        );
        out
    }

    fn contents_table(&self) -> String {
        let mut out =
            String::from("\n## Contents\n\n| | | rows in | kept | share of kept |\n|---|---|---:|---:|---:|\n");
        let (input, kept) = (&self.input, &self.kept);
        let groups = [
            ("source", &input.by_source, &kept.by_source),
            ("task", &input.by_task, &kept.by_task),
            ("language", &input.by_language, &kept.by_language),
            ("pass rate", &input.by_difficulty, &kept.by_difficulty),
            ("state", &input.by_state, &kept.by_state),
        ];
        for (group, before, after) in groups {
            let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
            for name in names {
                let of = |counts: &BTreeMap<String, usize>| counts.get(name).copied().unwrap_or(0);
                let (count, left) = (of(before), of(after));
                out += &format!("| {group} | {} | {count} | {left} | {} |\n", cell(name), percent(left, kept.rows));
            }
        }
        out
    }

    fn lengths_table(&self) -> String {
        let mut out = String::from(
            "\n## Lengths\n\n| | | least | median | mean | 90 % | most |\n|---|---|---:|---:|---:|---:|---:|\n",
        );
        for (which, c) in [("in", &self.input), ("kept", &self.kept)] {
            let rows = [
                ("tokens", c.tokens),
                ("characters of reasoning", c.thought_chars),
                ("characters of the answer", c.answer_chars),
                ("rows per prompt", c.per_prompt),
            ];
            for (name, spread) in rows {
                if let Some(s) = spread {
                    let Spread { min, median, mean, p90, max } = s;
                    out += &format!("| {which} | {name} | {min} | {median} | {mean:.1} | {p90} | {max} |\n");
                }
            }
        }
        out
    }
}

fn percent(part: usize, whole: usize) -> String {
    if whole == 0 { "-".to_owned() } else { format!("{:.1} %", 100.0 * part as f64 / whole as f64) }
}

/// Text for a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

/// Text of a model between as many backquotes as it needs, so that nothing in it is taken for Markdown.
fn code(text: &str) -> String {
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest + 1);
    format!("{fence} {text} {fence}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::candidate::tests::sum;
    use crate::pipeline::curate;

    #[test]
    fn spreads() {
        assert_eq!(Spread::of(vec![]), None);
        assert_eq!(Spread::of(vec![7]), Some(Spread { min: 7, median: 7, mean: 7.0, p90: 7, max: 7 }));
        let ten = Spread::of((1..=10).rev().collect()).unwrap();
        assert_eq!((ten.min, ten.median, ten.p90, ten.max, ten.mean), (1, 5, 9, 10, 5.5));
    }

    #[test]
    fn a_card_counts_every_row_and_quotes_models_safely() {
        let mut rows: Vec<Candidate> = (0..20)
            .map(|i| sum(i, 1, &format!("<think>`x` | {i}</think>{}", if i % 4 == 0 { 0 } else { i + 1 })))
            .collect();
        rows[0].tokens = Some(5);
        let settings = Settings::default();
        let curated = curate(rows, Vec::new(), &settings, |_| ()).unwrap();
        let card = Card::new("aha", &curated, &settings);
        assert_eq!((card.kept.rows, card.input.rows, card.prompts_without_a_row), (15, 20, 5));
        assert_eq!(card.kept.by_difficulty["5 always solved"], 15);
        assert_eq!(card.kept.by_task["sum"], 15);
        assert_eq!(card.input.by_difficulty["0 never solved"], 5);
        let json: serde_json::Value = serde_json::from_str(&card.json()).unwrap();
        assert_eq!(json["filters"][3]["name"], "correct");
        assert_eq!(json["filters"][3]["kinds"]["incorrect"], 5);
        assert_eq!(json["settings"]["duplicates"]["bands"], 24);
        let text = card.markdown();
        for part in ["15 of 20 rows kept (75.0 %)", "| correct |", "### correct: incorrect 5", "`` <think>`x` | "] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        assert_eq!(text, Card::new("aha", &curated, &settings).markdown());
    }
}
