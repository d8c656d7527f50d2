//! Gathering what a run left into its report page.

use crate::PipelineError;
use crate::recipe::{Recipe, StageKind};
use crate::run::Context;
use crate::stages::table::JSON as TABLES;
use aha_eval::{
    Curve, EvalSummary, ReportInput, SampleEntry, SampleGroup, SampleRecord, Table, Verdict, render_curves_svg,
    render_report,
};
use aha_runs::RunPaths;
use aha_tasks::text::{REFLECTIVE_CHINESE, REFLECTIVE_ENGLISH};
use std::collections::BTreeMap;

/// Problems whose completions are shown side by side.
const SHOWN_PROBLEMS: usize = 6;

/// Metric, title, unit, note; per kind of stage.
const GRPO_CURVES: [(&str, &str, &str, &str); 8] = [
    ("reward", "Reward", "", "mean over the step's samples"),
    ("accuracy", "Accuracy", "share correct", "training problems, temperature of the rollouts"),
    ("rewards/format/mean", "Format", "share", "think and answer tags exactly right"),
    ("completions/mean_length", "Response length", "tokens", "mean over the step's samples"),
    ("reflective_words", "Reflection", "words per response", "wait, wrong, check, mistake ... and their Chinese kin"),
    ("kl", "KL to the reference", "nats per token", "falls to 0 when the reference is refreshed"),
    ("entropy", "Entropy", "nats per token", ""),
    ("completions/clipped_ratio", "Cut at the length limit", "share", ""),
];
const PRETRAIN_CURVES: [(&str, &str, &str, &str); 2] = [
    ("loss", "Pretraining loss", "nats per token", ""),
    ("eval_loss", "Validation loss", "nats per token", "unseen documents"),
];

/// Curves of all training stages that have any.
fn curves(recipe: &Recipe, paths: &RunPaths) -> Result<Vec<Curve>, PipelineError> {
    let mut out = Vec::new();
    for stage in &recipe.stages {
        let wanted: &[_] = match stage.kind() {
            StageKind::Grpo => &GRPO_CURVES,
            StageKind::Pretrain | StageKind::Extend => &PRETRAIN_CURVES,
            _ => continue,
        };
        let Ok(text) = std::fs::read_to_string(paths.stage(&stage.name)?.metrics()) else { continue };
        let rows: Vec<serde_json::Value> = text.lines().filter_map(|l| serde_json::from_str(l).ok()).collect();
        for (metric, title, unit, note) in wanted {
            let point = |r: &serde_json::Value| Some((r["step"].as_f64()?, r[*metric].as_f64()?));
            let points: Vec<(f64, f64)> = rows.iter().filter_map(point).collect();
            if !points.is_empty() {
                out.push(Curve {
                    stage: stage.name.clone(),
                    title: (*title).to_owned(),
                    unit: (*unit).to_owned(),
                    x_label: "step".to_owned(),
                    points,
                    note: (!note.is_empty()).then(|| (*note).to_owned()),
                });
            }
        }
    }
    Ok(out)
}

/// One line of `evals/LABEL.jsonl`.
#[derive(serde::Deserialize)]
struct Line {
    /// Not in files of earlier versions.
    #[serde(default)]
    checkpoint: Option<String>,
    step: u64,
    greedy: bool,
    question: Option<String>,
    reference: Option<serde_json::Value>,
    sample: SampleRecord,
}

/// The same problems at several steps: those where the last checkpoint reconsiders and is right come first.
fn samples(recipe: &Recipe, paths: &RunPaths) -> Result<Vec<SampleGroup>, PipelineError> {
    let mut problems: BTreeMap<String, Vec<Line>> = BTreeMap::new();
    for stage in &recipe.stages {
        let Ok(entries) = std::fs::read_dir(paths.stage(&stage.name)?.root().join("evals")) else { continue };
        let mut files: Vec<_> = entries.filter_map(Result::ok).map(|f| f.path()).collect();
        files.sort();
        for file in files {
            let Ok(text) = std::fs::read_to_string(file) else { continue };
            let lines = text.lines().filter_map(|l| serde_json::from_str::<Line>(l).ok());
            for line in lines.filter(|l| !l.greedy && l.sample.sample == 0) {
                problems.entry(line.sample.problem_id.clone()).or_default().push(line);
            }
        }
    }
    let mut groups: Vec<Vec<Line>> = problems.into_values().collect();
    for g in &mut groups {
        g.sort_by_key(|l| l.step);
        g.dedup_by(|a, b| (a.step, &a.checkpoint) == (b.step, &b.checkpoint));
    }
    let interest = |g: &Vec<Line>| {
        let (first, last) = (&g[0].sample, &g[g.len() - 1].sample);
        let learned = last.verdict == Verdict::Correct && first.verdict != Verdict::Correct;
        (g.len(), learned, last.reflective_words.min(6), std::cmp::Reverse(last.response_tokens))
    };
    groups.sort_by_key(|g| std::cmp::Reverse(interest(g)));
    let mut chosen: Vec<Vec<Line>> = Vec::new();
    for g in groups {
        let same = chosen.iter().filter(|c| c[0].sample.family == g[0].sample.family).count();
        if same < SHOWN_PROBLEMS.div_ceil(4) && chosen.len() < SHOWN_PROBLEMS {
            chosen.push(g);
        }
    }
    Ok(chosen.into_iter().map(group).collect())
}

fn group(lines: Vec<Line>) -> SampleGroup {
    let reference = match &lines[0].reference {
        Some(r) => match (r.get("integer"), r.get("number").or_else(|| r.get("math")), r.get("countdown")) {
            (Some(n), _, _) => n.to_string(),
            (_, Some(n), _) => n.as_str().unwrap_or_default().to_owned(),
            (_, _, Some(c)) => format!("any expression equal to {}", c["target"]),
            _ => r.to_string(),
        },
        None => String::new(),
    };
    SampleGroup {
        problem: lines[0].question.clone().unwrap_or_default(),
        family: lines[0].sample.family.clone(),
        reference,
        entries: lines
            .into_iter()
            .map(|l| SampleEntry {
                checkpoint: l
                    .checkpoint
                    .unwrap_or_else(|| if l.step == 0 { "base".into() } else { format!("step {}", l.step) }),
                step: l.step,
                completion: l.sample.text.unwrap_or_default(),
                verdict: l.sample.verdict,
                reward: None,
                reflective_words: l.sample.reflective_words,
            })
            .collect(),
    }
}

/// What table stages left.
fn tables(recipe: &Recipe, paths: &RunPaths) -> Result<Vec<Table>, PipelineError> {
    let mut all = Vec::new();
    for stage in recipe.stages.iter().filter(|s| s.kind() == StageKind::Table) {
        let Ok(text) = std::fs::read_to_string(paths.stage(&stage.name)?.root().join(TABLES)) else { continue };
        all.extend(serde_json::from_str::<Vec<Table>>(&text).unwrap_or_default());
    }
    Ok(all)
}

/// Writes `report.html` and `curves.svg`.
pub(crate) fn write(context: &Context) -> Result<(), PipelineError> {
    let paths = context.dir.paths();
    let curves = curves(context.recipe, paths)?;
    let mut evals: Vec<(String, EvalSummary)> = Vec::new();
    for (label, value) in context.summary.evals.iter() {
        if let Ok(summary) = serde_json::from_value(value.clone()) {
            evals.push((label.to_owned(), summary));
        }
    }
    let facts = context
        .summary
        .stages
        .iter()
        .map(|(name, s)| (name.to_owned(), format!("{}, {:.0} s", s.status.as_str(), s.wall_s)))
        .collect();
    let input = ReportInput {
        title: context.recipe.name.clone(),
        recipe: context.recipe.description.clone().unwrap_or_else(|| context.recipe.name.clone()),
        recipe_toml: context.recipe.to_toml()?,
        seed: context.recipe.seed,
        wall_s: context.summary.wall_s,
        facts,
        curves: curves.clone(),
        evals,
        samples: samples(context.recipe, paths)?,
        notes: Vec::new(),
        tables: tables(context.recipe, paths)?,
        reflective_terms: REFLECTIVE_ENGLISH.iter().chain(&REFLECTIVE_CHINESE).map(|w| (*w).to_owned()).collect(),
    };
    aha_runs::write_atomic(paths.report(), render_report(&input).as_bytes())?;
    let rl: Vec<Curve> = curves.into_iter().filter(|c| GRPO_CURVES.iter().take(6).any(|g| g.1 == c.title)).collect();
    aha_runs::write_atomic(paths.root().join("curves.svg"), render_curves_svg(&rl, 3).as_bytes())?;
    Ok(())
}
