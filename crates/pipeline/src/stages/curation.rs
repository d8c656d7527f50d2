//! Cold start and rejection sampling: samples of a model on training problems, filtered into training data.
//!
//! In the stage's folder: `sampled.jsonl`, every sample, appended as sampling goes on, so that an interrupted stage goes on
//! where it was; `candidates.jsonl`, what the filters keep, for people to decide on; then `kept.jsonl`, `messages.jsonl`,
//! `thrown.jsonl` and the data card.

use super::few_shot;
use super::grpo::{model_path, open_task, style};
use crate::PipelineError;
use crate::models::OpenModel;
use crate::recipe::{CurationStage, Decide};
use crate::run::{Context, StageEnd};
use aha_curate::{
    Candidate, CandidateStore, Card, CurateError, Curated, EvalText, FILE_NAME, FileDigest, FilterName, Sampling,
    Settings, State, curate, read_eval_texts, read_rows, write_lines, write_outputs,
};
use aha_data::RequestRows;
use aha_engine::sampler::mix;
use aha_engine::{Control, EngineConfig, FinishReason, Request, SamplingParams, generate};
use aha_model::Decoder;
use aha_runs::{Event, Listener};
use aha_tasks::{Check, Problem, Prompter, Reference, Split, Task, Verdict};
use serde_json::Value;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// Every sample of the stage.
const SAMPLED: &str = "sampled.jsonl";
/// Problems that are sampled together and saved together.
const CHUNK: u64 = 64;

/// What the functions below share.
struct Work<'a> {
    name: &'a str,
    settings: &'a CurationStage,
    seed: u64,
    root: PathBuf,
    task: Box<dyn Task>,
}

impl Work<'_> {
    fn failed(&self, source: CurateError) -> PipelineError {
        PipelineError::Curate { stage: self.name.to_owned(), source }
    }

    fn problem(&self, problem: impl ToString) -> PipelineError {
        PipelineError::Stage { stage: self.name.to_owned(), problem: problem.to_string() }
    }
}

pub(crate) fn run(context: &mut Context, name: &str, s: &CurationStage) -> Result<StageEnd, PipelineError> {
    let seed = context.recipe.seed.wrapping_add(s.seed_offset);
    let paths = context.dir.stage(name)?;
    paths.create()?;
    let task = open_task(name, &s.task, &s.task_options, seed)?;
    let work = Work { name, settings: s, seed, root: paths.root().to_path_buf(), task };
    let method = context.recipe.stage(name)?.kind().to_string();
    let total_steps = Some(s.problems.div_ceil(CHUNK));
    context.listeners.event(&Event::StageStarted { stage: name.to_owned(), method, resumed_at: None, total_steps });
    if !sample(context, &work)? {
        return Ok(StageEnd { metrics: Vec::new(), finished: false });
    }
    let mut rows = aha_curate::read_candidates(&work.root.join(SAMPLED)).map_err(|e| work.failed(e))?;
    let mut inputs = vec![digest(&work, &work.root.join(SAMPLED), SAMPLED, rows.len())?];
    for path in &s.rows {
        let more = read_rows(Path::new(path)).map_err(|e| work.failed(e))?;
        inputs.push(digest(&work, Path::new(path), path, more.len())?);
        rows.extend(more);
    }
    rows.extend((0..s.demonstrations).map(|i| demonstration(&work, i)));
    let (rows, repeated) = aha_curate::unite([rows]);
    let (against, sets) = against(&work)?;
    let sampled = rows.len();
    let first = curate(rows, against.clone(), &s.filters, |_| ()).map_err(|e| work.failed(e))?;
    let Some(curated) = decide(context, &work, first, &against)? else {
        return Ok(StageEnd { metrics: vec![("sampled".to_owned(), sampled as f64)], finished: false });
    };
    let mut card = Card::new(concat!("aha ", env!("CARGO_PKG_VERSION")), &curated, &s.filters);
    (card.inputs, card.against, card.repeated_ids) = (inputs, sets, repeated);
    write_outputs(&work.root, &curated, &mut card).map_err(|e| work.failed(e))?;
    check(&work, &curated)?;
    Ok(StageEnd { metrics: metrics(&card), finished: true })
}

fn metrics(card: &Card) -> Vec<(String, f64)> {
    let mut metrics = vec![
        ("sampled".to_owned(), card.input.rows as f64),
        ("kept".to_owned(), card.kept.rows as f64),
        ("kept/prompts".to_owned(), card.kept.prompts as f64),
        ("verified".to_owned(), card.checks.verified as f64),
        ("overlapping".to_owned(), card.checks.overlapping as f64),
    ];
    let mut thrown: Vec<(String, f64)> = Vec::new();
    for f in card.filters.iter().filter(|f| f.used) {
        let name = format!("thrown/{}", f.name);
        match thrown.iter_mut().find(|(known, _)| *known == name) {
            Some((_, count)) => *count += f.thrown as f64,
            None => thrown.push((name, f.thrown as f64)),
        }
    }
    metrics.extend(thrown);
    metrics
}

/// What must hold of the data whatever the filters were.
fn check(work: &Work, curated: &Curated) -> Result<(), PipelineError> {
    let card = work.root.join(aha_curate::CARD_MARKDOWN);
    if curated.kept.is_empty() {
        return Err(work.problem(format!("the filters left nothing; {} says why", card.display())));
    }
    let uses = |filter| work.settings.filters.uses(filter);
    let wrong = uses(FilterName::Correct) && curated.checks.incorrect > 0;
    if wrong || uses(FilterName::Decontamination) && curated.checks.overlapping > 0 {
        return Err(work.problem(format!("rows that were kept failed their last check; see {}", card.display())));
    }
    Ok(())
}

fn digest(work: &Work, path: &Path, name: &str, rows: usize) -> Result<FileDigest, PipelineError> {
    FileDigest::of(path, name, rows).map_err(|e| work.failed(e))
}

/// Samples what is not there yet; false when it was stopped.
fn sample(context: &Context, work: &Work) -> Result<bool, PipelineError> {
    let s = work.settings;
    let mut store = CandidateStore::open(&work.root.join(SAMPLED)).map_err(|e| work.failed(e))?;
    let whole = s.problems * s.samples as u64;
    if store.candidates().len() as u64 >= whole {
        return Ok(true);
    }
    let model = OpenModel::open(&model_path(context, &s.model)?)?;
    let prompter = model.prompter(style(&s.prompt_style), s.system_prompt.clone(), s.prompt_suffix.clone())?;
    let decoder = model.decoder(s.precision)?;
    let examples = few_shot::examples(context, s.few_shot.as_ref()).map_err(|e| work.failed(e))?;
    // A chunk that a kill tore is sampled again; its samples come out the same, and those that are there stay.
    let done = store.candidates().len() as u64 / s.samples as u64 / CHUNK * CHUNK;
    let mut begin = done;
    while begin < s.problems {
        let end = (begin + CHUNK).min(s.problems);
        let control = control(context, work.name, begin * s.samples as u64, whole);
        let Some(rows) = chunk(work, &decoder, &prompter, &examples, begin..end, &control)? else { return Ok(false) };
        store.add(rows).map_err(|e| work.failed(e))?;
        begin = end;
        if context.stopped() && begin < s.problems {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The samples of some problems; `None` when sampling was stopped.
fn chunk(
    work: &Work,
    decoder: &Decoder,
    prompter: &Prompter,
    examples: &[Candidate],
    indices: std::ops::Range<u64>,
    control: &Control,
) -> Result<Option<Vec<Candidate>>, PipelineError> {
    let s = work.settings;
    let params = SamplingParams {
        temperature: s.temperature as f32,
        top_p: s.top_p as f32,
        max_new_tokens: s.max_completion_length,
        stop_tokens: prompter.stop_tokens().to_vec(),
        ..SamplingParams::default()
    };
    let model_error = |source| PipelineError::Model { model: s.model.to_string(), source };
    let (mut problems, mut requests) = (Vec::new(), Vec::new());
    for i in indices {
        let problem = work.task.problem(Split::Train, i)?;
        let seed = mix(work.seed ^ mix(i));
        let shown = few_shot::with_examples(&problem, examples, s.few_shot_examples, seed);
        let prompt = prompter.tokens(&shown).map_err(model_error)?;
        requests.push(Request { prompt, samples: s.samples, params: params.clone(), seed });
        problems.push(problem);
    }
    let engine = EngineConfig { speculative: s.speculative_decoding, ..EngineConfig::default() };
    let completions = generate(decoder, &requests, &engine, control).map_err(|e| work.problem(e))?;
    if completions.len() < problems.len() * s.samples {
        return Ok(None);
    }
    let sampling = Sampling { temperature: s.temperature, top_p: s.top_p, max_new_tokens: s.max_completion_length };
    let row = |c: aha_engine::Completion| {
        let text = prompter.completion(&c.tokens).map_err(model_error)?;
        let seed = Some(requests[c.request].seed);
        let mut row = Candidate::new(problems[c.request].clone(), text, &s.model.to_string(), seed, c.sample);
        row.prefilled_think = work.task.prefilled_think();
        row.tokens = Some(c.tokens.len());
        row.finished = c.finish == FinishReason::Stop;
        row.sampling = Some(sampling.clone());
        Ok(row)
    };
    completions.into_iter().map(row).collect::<Result<Vec<_>, PipelineError>>().map(Some)
}

/// A demonstration as a candidate. Its answer is right by construction, which no rule needs to know.
fn demonstration(work: &Work, index: u64) -> Candidate {
    let demonstration = RequestRows::new(work.seed, Split::Train).demonstration(index);
    let about = demonstration.about;
    let mut columns = serde_json::Map::new();
    if !about.history.is_empty() {
        columns.insert("history".to_owned(), Value::Array(about.history));
    }
    let problem = Problem {
        id: about.id,
        family: about.family.to_owned(),
        language: about.language,
        question: about.prompt,
        reference: Reference::Check(Check::Open { mentions: Vec::new() }),
        columns,
    };
    let mut row = Candidate::new(problem, demonstration.response, "demonstrations", Some(work.seed), index as usize);
    row.verdicts.insert("demonstration".to_owned(), Verdict::Correct);
    row
}

/// The evaluation texts that no row may overlap with: the task's own held-out problems, and files.
fn against(work: &Work) -> Result<(Vec<EvalText>, Vec<FileDigest>), PipelineError> {
    let s = work.settings;
    let count = work.task.len(Split::Eval).map_or(s.held_out, |n| s.held_out.min(n as u64));
    let mut seen = HashSet::new();
    let mut texts = Vec::new();
    for i in 0..count {
        let problem = work.task.problem(Split::Eval, i)?;
        // Generated problems come again in another language after the last one.
        if seen.insert((problem.id.clone(), problem.question.clone())) {
            let set = format!("{} held out", work.task.name());
            texts.push(EvalText { set, id: problem.id, global_id: true, question: true, text: problem.question });
        }
    }
    let mut sets = Vec::new();
    for path in &s.against {
        let more = read_eval_texts(Path::new(path)).map_err(|e| work.failed(e))?;
        sets.push(digest(work, Path::new(path), path, more.iter().filter(|text| text.question).count())?);
        texts.extend(more);
    }
    Ok((texts, sets))
}

/// Has what was kept decided on; `None` while people have not decided on everything.
fn decide(
    context: &Context,
    work: &Work,
    first: Curated,
    against: &[EvalText],
) -> Result<Option<Curated>, PipelineError> {
    let path = work.root.join(FILE_NAME);
    let failed = |e| work.failed(e);
    let decided = match work.settings.decide {
        Decide::None => return Ok(Some(first)),
        Decide::Rule => {
            let mut rows = first.kept.clone();
            for row in rows.iter_mut().filter(|row| row.decision.state == State::New) {
                // Without a time, so that a run that is repeated leaves the same bytes.
                (row.decision.state, row.decision.who) = (State::Accepted, "rule:filters".to_owned());
            }
            write_lines(&path, &rows).map_err(failed)?;
            rows
        }
        Decide::People => {
            let mut store = CandidateStore::open(&path).map_err(failed)?;
            store.add(first.kept.iter().cloned()).map_err(failed)?;
            let waiting = store.candidates().iter().filter(|row| row.decision.state == State::New).count();
            if waiting > 0 {
                let run = context.dir.root().display();
                let text = format!(
                    "{waiting} candidates wait for people: `aha annotate {run} --stage {}`, then run the same command again",
                    work.name
                );
                context.listeners.event(&Event::Note { stage: work.name.to_owned(), text });
                return Ok(None);
            }
            store.candidates().to_vec()
        }
    };
    // The whole chain of checks once more, as people may have changed texts; but nobody's choice is undone for balance.
    let mut settings: Settings = work.settings.filters.clone();
    settings.decided.required = true;
    settings.skip.extend([FilterName::Difficulty, FilterName::PerPrompt, FilterName::Balance]);
    let second = curate(decided, against.to_vec(), &settings, |_| ()).map_err(failed)?;
    Ok(Some(first.then(second)))
}

/// Ends with the run's stop and tells its listeners how many samples are done.
fn control(context: &Context, stage: &str, before: u64, total: u64) -> Control {
    let (listeners, stage) = (context.listeners.clone(), stage.to_owned());
    let on_sample = move |done: u64| {
        let (stage, activity) = (stage.clone(), "sample".to_owned());
        listeners.event(&Event::Progress { stage, activity, done: before + done, total });
    };
    Control { stop: context.stop.clone(), on_sample: Some(Box::new(on_sample)), ..Control::default() }
}
