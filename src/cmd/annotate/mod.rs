//! `aha annotate`: people decide on candidates in the terminal, or a rule does.

mod editor;
mod session;

use crate::output::{Output, note};
use aha_curate::{CandidateStore, Decision, Settings, State, candidate_files, house_text};
use aha_runs::unix_now;
use aha_tasks::Verdict;
use anyhow::bail;
use clap::ValueEnum;
use serde_json::json;
use session::{End, Session};
use std::path::PathBuf;
use std::process::ExitCode;

/// Decide on candidates: accept, edit, reject.
///
/// Shows prompt, reasoning, answer and verdict of every candidate that nobody has decided on, and reads commands from the
/// terminal or from stdin:
///   a [NOTE]   accept        s   skip, decide later
///   e          edit in $VISUAL or $EDITOR
///   r REASON   reject        u   undo the last decision
///   ?          help          q   quit
/// Every decision is on disk before the next candidate is shown; go on by running the same command again.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The folder of a run or stage, or a file of candidates (candidates.jsonl, or kept.jsonl of `aha curate`).
    #[arg(value_name = "RUN_OR_FILE")]
    path: PathBuf,
    /// Only this stage of the run.
    #[arg(long, value_name = "NAME")]
    stage: Option<String>,
    /// Decide by a rule instead of asking.
    #[arg(long)]
    rule: Option<Rule>,
    /// Who decides [default: $USER].
    #[arg(long, value_name = "NAME")]
    who: Option<String>,
    /// Print one JSON object (candidates by state) on the last line of stdout.
    #[arg(long)]
    json: bool,
}

/// Decisions without people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Rule {
    /// Accept what has R1's or R1-Zero's shape and is judged correct, reject what is not; leave what cannot be judged.
    AcceptCorrect,
}

/// Decides by rule on everything that is new.
fn decide_by_rule(store: &mut CandidateStore, rule: Rule) -> anyhow::Result<()> {
    let Rule::AcceptCorrect = rule;
    let settings = Settings::default();
    let mut decisions = Vec::new();
    for row in store.candidates().iter().filter(|row| row.decision.state == State::New) {
        let (state, reason) = match (house_text(row, &settings.shape), row.judge(settings.correct.place).verdict) {
            (_, Verdict::NotJudged) => continue,
            (Err(fault), _) => (State::Rejected, fault.kind),
            (Ok(_), Verdict::Incorrect) if !row.finished => (State::Rejected, "cut off"),
            (Ok(_), Verdict::Incorrect) => (State::Rejected, "incorrect"),
            (Ok(_), Verdict::Correct) => (State::Accepted, ""),
        };
        let who = "rule:accept-correct".to_owned();
        let decision = Decision { state, reason: reason.to_owned(), edited: None, who, when: Some(unix_now()) };
        decisions.push((row.id.clone(), decision));
    }
    note(format!("{} decided by rule", decisions.len()));
    Ok(store.decide_all(decisions)?)
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let path = match &args.stage {
        None => args.path.clone(),
        Some(stage) if args.path.is_dir() => args.path.join(stage),
        Some(_) => bail!("{}: is a file; --stage belongs to the folder of a run", args.path.display()),
    };
    if !path.exists() {
        bail!("{}: there is no such file or folder", path.display());
    }
    let who = args.who.or_else(|| std::env::var("USER").ok()).unwrap_or_else(|| "unknown".to_owned());
    let output = Output::new(args.json);
    let mut counts = [0usize; 4];
    let mut quit = false;
    for file in candidate_files(&path)? {
        let mut store = CandidateStore::open(&file)?;
        if let Some(rule) = args.rule {
            decide_by_rule(&mut store, rule)?;
        } else if !quit {
            output.text(format!("{}: {} candidates", file.display(), store.candidates().len()));
            quit = Session::new(&mut store, &who, output, std::io::stdin().lock()).run()? == End::Quit;
        }
        store.candidates().iter().for_each(|row| counts[row.decision.state as usize] += 1);
        store.close()?;
    }
    let [new, accepted, edited, rejected] = counts;
    output.text(format!("{accepted} accepted, {edited} edited, {rejected} rejected, {new} new"));
    output.object(&json!({"accepted": accepted, "edited": edited, "rejected": rejected, "new": new}));
    Ok(ExitCode::SUCCESS)
}
