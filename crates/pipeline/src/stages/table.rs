//! Tables over the evaluations of a run, after those of DeepSeek-R1: the checkpoints of its stages, preferences, safety, what R1 is
//! weak at, students, the language reward, prompting. `tables.md` and `tables.json` in the stage's folder; the report shows them.

use super::grpo::model_path;
use crate::PipelineError;
use crate::recipe::{Precision, StageSettings, TableStage};
use crate::reward_model::RewardModel;
use crate::run::{Context, StageEnd};
use aha_eval::stages::{average, cons_at_16, pass_at_1, self_consistency, win_rate};
use aha_eval::{Cell, SampleRecord, Table};
use aha_model::Message;
use aha_runs::{Event, Listener};
use aha_tasks::check::refuses;
use aha_tasks::judge::summary;
use aha_tasks::mini::Topic;
use aha_tasks::mini::general::{Kind, TIE, quality_of};
use aha_tasks::repetition::{NGRAM, repetition};
use aha_tasks::{Language, Reference};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// The tables as data.
pub(crate) const JSON: &str = "tables.json";
const MARKDOWN: &str = "tables.md";
/// Texts of which more n-grams are repeats are not readable.
const MOST_REPETITION: f64 = 0.5;
/// Nor are those with a longer line.
const LONGEST_LINE: usize = 2000;

/// One evaluated checkpoint.
struct Evaluated {
    samples: Vec<SampleRecord>,
    /// Question and reference by problem.
    problems: HashMap<String, (String, Reference)>,
}

#[derive(serde::Deserialize)]
struct Line {
    greedy: bool,
    question: Option<String>,
    reference: Option<Reference>,
    sample: SampleRecord,
}

pub(crate) fn run(context: &mut Context, name: &str, s: &TableStage) -> Result<StageEnd, PipelineError> {
    let (stage, method) = (name.to_owned(), "table".to_owned());
    context.listeners.event(&Event::StageStarted { stage, method, resumed_at: None, total_steps: None });
    let mut evaluated = BTreeMap::new();
    for label in s.labels() {
        evaluated.insert(label, read(name, label, &file(context, name, label)?)?);
    }
    let mut tables = vec![
        checkpoints(&s.checkpoints, &evaluated),
        safety(&s.checkpoints, &evaluated),
        weaknesses(&s.checkpoints, &evaluated),
    ];
    if !s.preferences.is_empty() {
        let model = s.preference_model.as_ref();
        let model = model.map(|m| RewardModel::open(&model_path(context, m)?, Precision::Auto)).transpose()?;
        let table = preferences(&s.preferences, &evaluated, model.as_ref());
        tables.push(table.map_err(|e| PipelineError::Stage { stage: name.to_owned(), problem: e.to_string() })?);
    }
    let note = "The same student, taught by the kept samples of the reasoning checkpoint or trained by reinforcement learning alone.";
    let others = [
        ("Distillation and reinforcement learning", note, &s.students),
        ("The language reward", "Reinforcement learning with and without the reward for one language.", &s.ablation),
        ("Prompting", "One checkpoint, asked as it was trained and after worked examples.", &s.prompting),
    ];
    for (title, note, labels) in others.into_iter().filter(|(.., labels)| !labels.is_empty()) {
        tables.push(Table { title: title.into(), note: note.into(), ..checkpoints(labels, &evaluated) });
    }
    tables.retain(|table| !table.kept_columns().is_empty());
    let paths = context.dir.stage(name)?;
    paths.create()?;
    let json = serde_json::to_string_pretty(&tables).expect("numbers and names") + "\n";
    aha_runs::write_atomic(paths.root().join(JSON), json.as_bytes())?;
    let markdown: Vec<String> = tables.iter().map(Table::markdown).collect();
    aha_runs::write_atomic(paths.root().join(MARKDOWN), markdown.join("\n").as_bytes())?;
    Ok(StageEnd { metrics: metrics(&tables), finished: true })
}

/// Every number of the preference and safety tables, for `summary.json`.
fn metrics(tables: &[Table]) -> Vec<(String, f64)> {
    let mut all = Vec::new();
    for table in tables.iter().filter(|t| t.title == SAFETY || t.title == PREFERENCES) {
        for (row, cells) in &table.rows {
            for (column, cell) in table.columns.iter().zip(cells) {
                all.extend(cell.value.map(|v| (format!("{}/{row}/{column}", table.title.to_lowercase()), v)));
            }
        }
    }
    all
}

/// Where the samples of a label lie.
fn file(context: &Context, stage: &str, label: &str) -> Result<PathBuf, PipelineError> {
    let has = |s: &&crate::recipe::Stage| match &s.settings {
        StageSettings::Eval(e) => e.label.iter().any(|l| l == label),
        _ => false,
    };
    let found = context.recipe.stages.iter().find(has).ok_or_else(|| PipelineError::Stage {
        stage: stage.to_owned(),
        problem: format!("`{label}` is no label of an eval stage"),
    })?;
    let root = context.dir.stage(&found.name)?.root().to_path_buf();
    Ok(root.join("evals").join(format!("{}.jsonl", label.replace('/', "-"))))
}

fn read(stage: &str, label: &str, path: &Path) -> Result<Evaluated, PipelineError> {
    let fail = |problem: String| PipelineError::Stage { stage: stage.to_owned(), problem };
    let text =
        std::fs::read_to_string(path).map_err(|e| fail(format!("samples of `{label}`: {}: {e}", path.display())))?;
    let mut evaluated = Evaluated { samples: Vec::new(), problems: HashMap::new() };
    for (i, line) in text.lines().enumerate() {
        let line: Line = serde_json::from_str(line).map_err(|e| fail(format!("{}:{}: {e}", path.display(), i + 1)))?;
        if line.greedy {
            continue;
        }
        if let (Some(question), Some(reference)) = (line.question, line.reference) {
            evaluated.problems.insert(line.sample.problem_id.clone(), (question, reference));
        }
        evaluated.samples.push(line.sample);
    }
    Ok(evaluated)
}

/// The group of a family in the miniature world; of other data sets, the family itself.
fn group(family: &str) -> &str {
    match Topic::parse(family) {
        Some(Topic::Puzzle(_)) => "reasoning",
        Some(Topic::Code) => "code",
        Some(Topic::General(kind)) if kind.is_safety() => "safety",
        Some(Topic::General(_)) => "helpful",
        None => family,
    }
}

/// Whether a person could read it: it ends, is in one language, does not repeat itself, and has no endless line.
fn readable(sample: &SampleRecord) -> Option<f64> {
    let text = sample.text.as_deref()?;
    let lines = text.lines().all(|line| line.chars().count() <= LONGEST_LINE);
    let good = sample.finished && !sample.mixed_language && lines && repetition(text, NGRAM) <= MOST_REPETITION;
    Some(f64::from(u8::from(good)))
}

fn of<'a>(evaluated: &'a Evaluated, keep: impl Fn(&str) -> bool + 'a) -> impl Iterator<Item = &'a SampleRecord> {
    evaluated.samples.iter().filter(move |s| keep(group(&s.family)))
}

fn checkpoints(labels: &[String], evaluated: &BTreeMap<&str, Evaluated>) -> Table {
    let mut groups: Vec<&str> = evaluated.values().flat_map(|e| e.samples.iter().map(|s| group(&s.family))).collect();
    groups.sort_unstable();
    groups.dedup();
    let mut columns: Vec<String> = groups.iter().map(|g| format!("pass@1 {g}")).collect();
    let more = [
        "cons@16 reasoning",
        "self-consistency reasoning",
        "format",
        "language consistency",
        "language consistency reasoning",
        "readable",
        "tokens reasoning",
        "tokens others",
        "reflective words reasoning",
    ];
    columns.extend(more.map(str::to_owned));
    let reasoning = |g: &str| g != "helpful" && g != "safety" && g != "code";
    let row = |e: &Evaluated| {
        let mut cells: Vec<Cell> = groups.iter().map(|g| pass_at_1(of(e, move |found| found == *g))).collect();
        cells.extend([
            cons_at_16(of(e, reasoning)),
            self_consistency(of(e, reasoning)),
            average(&e.samples, |s| Some(f64::from(u8::from(s.format)))),
            average(&e.samples, |s| s.language_consistency),
            average(of(e, reasoning), |s| s.language_consistency),
            average(&e.samples, readable),
            average(of(e, reasoning), |s| Some(s.response_tokens as f64)),
            average(of(e, move |g| !reasoning(g)), |s| Some(s.response_tokens as f64)),
            average(of(e, reasoning), |s| Some(s.reflective_words as f64)),
        ]);
        cells
    };
    let note = "Held-out problems; shares with standard errors over problems.";
    let rows = labels.iter().filter_map(|l| Some((l.clone(), row(evaluated.get(l.as_str())?))));
    Table { title: "Stages".into(), note: note.into(), columns, rows: rows.collect() }
}

const SAFETY: &str = "Safety";
const PREFERENCES: &str = "Preferences";

fn safety(labels: &[String], evaluated: &BTreeMap<&str, Evaluated>) -> Table {
    let note = "Share of unsafe requests that are refused, and of safe ones that only sound unsafe.";
    let mut table = Table::new(SAFETY, note, &["refused unsafe", "refused safe"]);
    for label in labels {
        let Some(e) = evaluated.get(label.as_str()) else { continue };
        let refused = |kind: Kind| average(e.samples.iter().filter(move |s| s.family == kind.name()), refused);
        table.rows.push((label.clone(), vec![refused(Kind::Unsafe), refused(Kind::Borderline)]));
    }
    table
}

/// Whether a response refuses, whatever its format; a wrong format is no refusal.
fn refused(sample: &SampleRecord) -> Option<f64> {
    Some(f64::from(u8::from(refuses(summary(sample.text.as_deref()?)))))
}

fn weaknesses(labels: &[String], evaluated: &BTreeMap<&str, Evaluated>) -> Table {
    let note =
        "pass@1 at what the paper names as R1's weaknesses: calling functions, JSON, conversations of several turns.";
    let kinds = [("function calling", Kind::Tool), ("JSON", Kind::Json), ("multi-turn", Kind::Dialogue)];
    let mut table = Table::new("What R1 is weak at", note, &kinds.map(|(name, _)| name));
    for label in labels {
        let Some(e) = evaluated.get(label.as_str()) else { continue };
        let cell = |kind: Kind| pass_at_1(e.samples.iter().filter(move |s| s.family == kind.name()));
        table.rows.push((label.clone(), kinds.map(|(_, kind)| cell(kind)).to_vec()));
    }
    table
}

/// True quality of a sample's answer, where the miniature world knows it.
fn quality(e: &Evaluated, s: &SampleRecord) -> Option<f64> {
    let Reference::Check(check) = &e.problems.get(&s.problem_id)?.1 else { return None };
    let kind = Kind::parse(&s.family)?;
    // Requests of data sets share the names of kinds, and nobody knows the true quality of their answers.
    s.problem_id.strip_prefix(kind.name())?.strip_prefix('/')?;
    let language = if s.language.as_deref() == Some("zh") { Language::Chinese } else { Language::English };
    let text = s.text.as_deref()?;
    Some(if s.finished { quality_of(kind, check, language, summary(text)) } else { 0.0 })
}

fn preferences(
    pairs: &[String],
    evaluated: &BTreeMap<&str, Evaluated>,
    model: Option<&RewardModel>,
) -> Result<Table, aha_model::Error> {
    let note = "How often the first one's answers to general requests are preferred, sample against sample; a tie is half a win. By \
                the true quality of the miniature world, which no model has seen, and by the reward model.";
    let mut table = Table::new(PREFERENCES, note, &["true quality", "reward model"]);
    for pair in pairs {
        let Some((a, b)) = pair.split_once(':') else { continue };
        let (Some(first), Some(second)) = (evaluated.get(a), evaluated.get(b)) else { continue };
        // Conversations have turns that the samples do not tell, so the model judges the others only.
        let general = |e: &Evaluated, turns: bool| -> Vec<SampleRecord> {
            let kept =
                e.samples.iter().filter(|s| Kind::parse(&s.family).is_some_and(|k| turns || k != Kind::Dialogue));
            kept.cloned().collect()
        };
        let truth = win_rate(&general(first, true), &general(second, true), TIE, |s| {
            quality(first, s).or_else(|| quality(second, s))
        });
        let by_model = match model {
            None => Cell::default(),
            Some(model) => {
                let scored = |e: &Evaluated| -> Result<Vec<SampleRecord>, aha_model::Error> {
                    let mut samples = general(e, false);
                    let question = |s: &SampleRecord| e.problems.get(&s.problem_id).map_or("", |(q, _)| q.as_str());
                    let turns: Vec<[Message; 1]> =
                        samples.iter().map(|s| [Message::new("user", question(s))]).collect();
                    let texts = samples.iter().map(|s| s.text.as_deref().unwrap_or_default());
                    let asked: Vec<(&[Message], &str)> = turns.iter().map(|t| &t[..]).zip(texts).collect();
                    let scores = model.scores(&asked)?;
                    // The score takes the place of a measure that nobody reads here.
                    samples.iter_mut().zip(scores).for_each(|(s, score)| s.language_consistency = score);
                    Ok(samples)
                };
                win_rate(&scored(first)?, &scored(second)?, 0.0, |s| s.language_consistency)
            }
        };
        table.rows.push((format!("{a} over {b}"), vec![truth, by_model]));
    }
    Ok(table)
}
