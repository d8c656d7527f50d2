//! Training a reward model on pairs or labels, and measuring it on rows it has not seen.

use super::grpo::model_path;
use super::sft;
use crate::PipelineError;
use crate::models::OpenModel;
use crate::recipe::RewardModelStage;
use crate::reward_model::{FILE, Objective, Reader, RewardModelInfo};
use crate::run::{Context, StageEnd};
use aha_data::preference::{Labelled, PreferencePair, labelled, pair, read_labelled, read_pairs};
use aha_data::{DataError, RequestRows};
use aha_engine::reward;
use aha_eval::{RewardSummary, ScoredLabel, ScoredPair, summarise_labels, summarise_pairs};
use aha_runs::{Event, Listener};
use aha_tasks::Split;
use aha_tasks::mini::Rng;
use aha_train::fit;
use aha_train::reward_model::{Preference, Rewarding};
use aha_train::sft::batches;
use rayon::prelude::*;
use serde::Serialize;
use serde_json::Value;
use std::path::Path;

/// Everything that was measured at the end, beside the model.
const EVALUATION: &str = "evaluation.json";

/// An example with what its measurement says of it.
struct Row {
    example: Preference,
    family: String,
    lengths: [usize; 2],
}

pub(crate) fn run(
    context: &mut Context,
    name: &str,
    s: &RewardModelStage,
    hash: &str,
) -> Result<StageEnd, PipelineError> {
    let fail = |problem: String| PipelineError::Stage { stage: name.to_owned(), problem };
    let (model, tuning) = (OpenModel::open(&model_path(context, &s.model)?)?, &s.tuning);
    let prompter = sft::prompter(&model, tuning)?;
    let reader =
        Reader { prompter, reads: s.reads, max_length: s.max_length.min(model.config().max_position_embeddings) };
    let seed = sft::seed(context, tuning);
    let (train, held_out, too_long) = rows(s, &reader, seed).map_err(|e| fail(e.to_string()))?;
    if train.is_empty() || held_out.is_empty() {
        let problem =
            format!("too few rows of at most {} tokens; give more data or raise max_length", reader.max_length);
        return Err(fail(problem));
    }
    let examples: Vec<Preference> = train.into_iter().map(|row| row.example).collect();
    let validation: Vec<Preference> = held_out.iter().map(|row| row.example.clone()).collect();
    let mut all = batches(&vec![1; examples.len()], s.batch_size, s.epochs, seed);
    let whole = all.len() as u64;
    all.truncate(s.max_steps.unwrap_or(whole).min(whole) as usize);
    let (steps, warmup) = (all.len() as u64, tuning.optimizer.warmup_steps);
    if warmup > steps {
        return Err(fail(format!("warmup_steps is {warmup}, but the data are only {steps} steps; lower it")));
    }
    if too_long > 0 {
        let text = format!("{too_long} rows with more than {} tokens are left out", reader.max_length);
        context.listeners.event(&Event::Note { stage: name.to_owned(), text });
    }
    let config = sft::fit_config(tuning, sft::seed(context, tuning), steps, s.validate_every, hash);
    let lora = tuning.lora.as_ref().map(|l| l.config(&["score"]));
    let fresh = || model.reward_trainee(lora.as_ref(), seed);
    let (epochs, centering) = (s.epochs, s.centering);
    let mut objective =
        Rewarding { batches: all, epochs, examples: &examples, held_out: &validation, centering, scores: Vec::new() };
    let mut measured = None;
    let mut end = sft::fit(context, name, &config, "reward_model", &model.text, 0, |checkpoints, observer| {
        let (model, finished) = fit::run(&config, fresh, &mut objective, checkpoints, &model.text, observer)?;
        if finished {
            // The last step has validated; only a stage that was killed right after it has not.
            let sequences: Vec<&[u32]> = validation.iter().flat_map(Preference::sequences).collect();
            let known = std::mem::take(&mut objective.scores);
            measured = Some(summary(&held_out, if known.is_empty() { reward(&model, &sequences)? } else { known }));
        }
        Ok((model, finished))
    })?;
    let Some(summary) = measured else { return Ok(end) };
    end.metrics.extend([
        ("examples".to_owned(), examples.len() as f64),
        ("examples/held_out".to_owned(), held_out.len() as f64),
        ("examples/too_long".to_owned(), too_long as f64),
    ]);
    end.metrics.extend(numbers(&summary));
    let paths = context.dir.stage(name)?;
    write_json(&paths.root().join(EVALUATION), &summary)?;
    let info = RewardModelInfo {
        objective: s.objective,
        reads: s.reads,
        prompt_style: tuning.prompt_style.clone(),
        system_prompt: tuning.system_prompt.clone(),
        prompt_suffix: tuning.prompt_suffix.clone(),
        score_mean: summary.score_mean,
        score_std: summary.score_std,
    };
    write_json(&paths.model().join(FILE), &info)?;
    Ok(end)
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<(), PipelineError> {
    let json = serde_json::to_string_pretty(value).expect("numbers and names") + "\n";
    Ok(aha_runs::write_atomic(path, json.as_bytes())?)
}

fn numbers(s: &RewardSummary) -> Vec<(String, f64)> {
    let shares = [
        ("accuracy", s.accuracy),
        ("length_matched_accuracy", s.length_matched),
        ("chosen_shorter_accuracy", s.chosen_shorter),
        ("chosen_longer_accuracy", s.chosen_longer),
        ("bad_found", s.bad_found),
        ("good_blamed", s.good_blamed),
    ];
    let mut all = Vec::new();
    for (name, share) in shares.into_iter().filter(|(_, share)| share.count > 0) {
        all.push((format!("eval/{name}"), share.share));
        all.push((format!("eval/{name}_se"), share.se));
    }
    for (name, value) in [("auc", s.auc), ("calibration_error", s.calibration_error), ("brier", s.brier)] {
        all.push((format!("eval/{name}"), value));
    }
    all.extend([("eval/score_mean".to_owned(), Some(s.score_mean)), ("eval/score_std".to_owned(), Some(s.score_std))]);
    all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

/// What the scores of rows that were held out say.
fn summary(rows: &[Row], scores: Vec<f32>) -> RewardSummary {
    let mut scores = scores.into_iter().map(f64::from);
    let mut next = || scores.next().unwrap_or(f64::NAN);
    let (mut pairs, mut labels) = (Vec::new(), Vec::new());
    for row in rows {
        let family = row.family.clone();
        match row.example {
            Preference::Pair { preference, .. } => {
                let (chosen, rejected) = (next(), next());
                pairs.push(ScoredPair { family, chosen, rejected, lengths: row.lengths, preference });
            }
            Preference::Labelled { good, .. } => labels.push(ScoredLabel { family, score: next(), good }),
        }
    }
    if labels.is_empty() { summarise_pairs(&pairs) } else { summarise_labels(&labels) }
}

/// Something is wrong with the rows.
#[derive(Debug, thiserror::Error)]
enum RowsError {
    #[error(transparent)]
    Data(#[from] DataError),
    #[error(transparent)]
    Model(#[from] aha_model::Error),
    #[error("generated row: {0}")]
    Generated(String),
}

/// A row of either kind with its family.
enum Read {
    Pair(PreferencePair, String),
    Labelled(Labelled, String),
}

/// Rows to train on, rows to measure on, and how many were too long.
fn rows(s: &RewardModelStage, reader: &Reader, seed: u64) -> Result<(Vec<Row>, Vec<Row>, usize), RowsError> {
    let (train, held_out) = if s.generated > 0 { generated(s, seed)? } else { from_files(s, seed)? };
    let encode = |read: Vec<Read>| -> Result<(Vec<Row>, usize), RowsError> {
        let all: Vec<Option<Row>> = read.par_iter().map(|r| row(s, reader, r)).collect::<Result<_, _>>()?;
        let too_long = all.iter().filter(|row| row.is_none()).count();
        Ok((all.into_iter().flatten().collect(), too_long))
    };
    let ((train, a), (held_out, b)) = (encode(train)?, encode(held_out)?);
    Ok((train, held_out, a + b))
}

fn from_files(s: &RewardModelStage, seed: u64) -> Result<(Vec<Read>, Vec<Read>), RowsError> {
    let mut all = Vec::new();
    for path in &s.data {
        let (path, family) = (Path::new(path), path.rsplit('/').next().unwrap_or(path));
        match s.objective {
            Objective::Pairwise => {
                all.extend(read_pairs(path)?.into_iter().map(|p| Read::Pair(p, family.to_owned())));
            }
            Objective::Pointwise => {
                all.extend(read_labelled(path)?.into_iter().map(|l| Read::Labelled(l, family.to_owned())));
            }
        }
    }
    Rng::new(seed, u64::MAX).shuffle(&mut all);
    let held_out = (s.validation_rows as usize).min(all.len() / 10).max(1).min(all.len());
    let train = all.split_off(held_out);
    Ok((train, all))
}

/// Rows of the miniature world: of requests that pretraining knows, and of held-out ones.
fn generated(s: &RewardModelStage, seed: u64) -> Result<(Vec<Read>, Vec<Read>), RowsError> {
    let part = |split, count: u64| -> Result<Vec<Read>, RowsError> {
        let source = RequestRows { chinese: s.chinese, ..RequestRows::new(seed, split) };
        let one = |i| {
            let (value, family) = match s.objective {
                Objective::Pairwise => {
                    let row = source.pair(i);
                    (serde_json::to_value(&row), row.about.family)
                }
                Objective::Pointwise => {
                    let row = source.safety(i);
                    (serde_json::to_value(&row), row.about.family)
                }
            };
            let value: Value = value.expect("plain texts and numbers");
            let family = family.to_owned();
            match s.objective {
                Objective::Pairwise => pair(&value).map(|p| Read::Pair(p, family)),
                Objective::Pointwise => labelled(&value).map(|l| Read::Labelled(l, family)),
            }
            .map_err(RowsError::Generated)
        };
        (0..count).into_par_iter().map(one).collect()
    };
    Ok((part(Split::Pretrain, s.generated)?, part(Split::Eval, s.validation_rows)?))
}

/// A row as tokens; none where it is too long.
fn row(s: &RewardModelStage, reader: &Reader, read: &Read) -> Result<Option<Row>, RowsError> {
    let length = |response: &str| reader.part(response).chars().count();
    let (example, family, lengths) = match read {
        Read::Pair(p, family) => {
            let (chosen, rejected) = (reader.tokens(&p.turns, &p.chosen)?, reader.tokens(&p.turns, &p.rejected)?);
            let margin = p.margin * s.margin_weight;
            let example = Preference::Pair { chosen, rejected, preference: p.preference, margin };
            (example, family, [length(&p.chosen), length(&p.rejected)])
        }
        Read::Labelled(l, family) => {
            let tokens = reader.tokens(&l.turns, &l.response)?;
            (Preference::Labelled { tokens, good: l.good }, family, [length(&l.response), 0])
        }
    };
    let fits = example.sequences().all(|tokens| tokens.len() <= reader.max_length);
    Ok(fits.then(|| Row { example, family: family.clone(), lengths }))
}
