//! Traces of a teacher behind an endpoint: its answers to problems of a task, as conversations to train on.
//!
//! `answers.jsonl` grows with every answer, so a stopped or killed stage asks nothing twice; `messages.jsonl` is written when
//! all are there.

use super::grpo::open_task;
use super::sft;
use crate::PipelineError;
use crate::recipe::{DistillStage, EndpointSettings};
use crate::run::Context;
use aha_curate::MESSAGES;
use aha_judge::{Answer, Cache, Endpoint, Judge, JudgeSettings, Reply, Turn, collect};
use aha_runs::{Event, Listener};
use aha_tasks::{Problem, Split, Verdict};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Every answer as it came.
const ANSWERS: &str = "answers.jsonl";
/// The wait before the second try.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// Asks the endpoint; the file of conversations, or `None` when the run was stopped meanwhile.
///
/// # Errors
/// A problem that cannot be had, an endpoint that does not answer, no answer that is kept.
pub(super) fn answers_of(
    context: &Context,
    name: &str,
    url: &str,
    endpoint: &EndpointSettings,
    s: &DistillStage,
) -> Result<Option<PathBuf>, PipelineError> {
    let fail = |problem: String| PipelineError::Stage { stage: name.to_owned(), problem };
    let problems = s.problems.as_ref().ok_or_else(|| fail("an endpoint needs a task".into()))?;
    let seed = sft::seed(context, &s.tuning);
    let task = open_task(name, &problems.task, &problems.task_options, seed)?;
    let root = context.dir.stage(name)?.root().to_path_buf();
    std::fs::create_dir_all(&root).map_err(|e| fail(format!("{}: {e}", root.display())))?;
    let count = task.len(Split::Train).map_or(endpoint.problems, |n| endpoint.problems.min(n as u64));
    let problems = (0..count).map(|i| task.problem(Split::Train, i)).collect::<Result<Vec<_>, _>>()?;
    let questions: Vec<Vec<Turn>> = problems.iter().map(|p| question(p, s)).collect();
    let (timeout, retries) = (Duration::from_secs(endpoint.timeout_s), endpoint.retries.min(64) as u32);
    let key = match &endpoint.key_env {
        None => None,
        Some(variable) => {
            Some(std::env::var(variable).map_err(|e| fail(format!("{name}.endpoint.key_env: {variable}: {e}")))?)
        }
    };
    let chat = Endpoint::new(url, &endpoint.name, key, timeout, retries, FIRST_WAIT).map_err(fail)?.keep_reasoning();
    let settings = JudgeSettings {
        temperature: endpoint.temperature,
        max_tokens: endpoint.max_tokens,
        seed,
        max_requests: endpoint.max_requests,
        max_total_tokens: endpoint.max_total_tokens,
        ..JudgeSettings::default()
    };
    let asker = Judge::new(&chat, settings, Cache::open(&root.join(ANSWERS)).map_err(fail)?);
    let listeners = &context.listeners;
    let progress = |done: usize| {
        let (stage, activity) = (name.to_owned(), "asking the teacher".to_owned());
        listeners.event(&Event::Progress { stage, activity, done: done as u64, total: count });
    };
    let stop = Arc::clone(&context.stop);
    let answers = collect(&asker, &questions, endpoint.concurrency, &stop, &progress)
        .map_err(|e| fail(format!("{}; run again to go on, what was answered is kept", e.problem)))?;
    if answers.contains(&Answer::Stopped) {
        return Ok(None);
    }
    let unasked = answers.iter().filter(|a| **a == Answer::Budget).count();
    // What was cut off is no answer to learn from, right or wrong.
    let kept = |problem: &Problem, reply: &Reply| {
        let right = || task.judge(problem, &reply.text, true).verdict == Verdict::Correct;
        !reply.truncated && !reply.text.is_empty() && (!endpoint.only_correct || right())
    };
    let mut lines = Vec::new();
    for (problem, answer) in problems.iter().zip(&answers) {
        if let Answer::Reply(reply) = answer
            && kept(problem, reply)
        {
            lines.push(row(problem, &reply.text).to_string() + "\n");
        }
    }
    let spent = asker.spent();
    let text = format!(
        "{} of {} answers are kept, {unasked} problems were not asked for want of budget; {} requests, {} known before, {} tokens",
        lines.len(),
        answers.len() - unasked,
        spent.requests,
        spent.cached,
        spent.tokens
    );
    listeners.event(&Event::Note { stage: name.to_owned(), text: text.clone() });
    if lines.is_empty() {
        return Err(fail(format!("{text}; look at {ANSWERS}, or set endpoint.only_correct = false")));
    }
    let path = root.join(MESSAGES);
    aha_runs::write_atomic(&path, lines.concat().as_bytes())?;
    Ok(Some(path))
}

/// What the endpoint is asked: the student's system message and suffix, so that it learns to answer as it is asked.
fn question(problem: &Problem, s: &DistillStage) -> Vec<Turn> {
    let text = match &s.tuning.prompt_suffix {
        Some(suffix) => format!("{}\n{suffix}", problem.question),
        None => problem.question.clone(),
    };
    let system = s.tuning.system_prompt.iter().map(|s| Turn::new("system", s));
    system.chain([Turn::new("user", text)]).collect()
}

/// A conversation to train on. System message and suffix are added again when it becomes a prompt.
fn row(problem: &Problem, answer: &str) -> Value {
    json!({"id": problem.id, "family": problem.family, "messages": [
        {"role": "user", "content": problem.question}, {"role": "assistant", "content": answer},
    ]})
}
