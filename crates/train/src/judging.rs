//! Rewards beside generation: threads of their own judge a group as soon as its last completion is there, while the engine goes
//! on. What is judged when changes no number.

use crate::TrainError;
use aha_engine::{Completion, Control, EngineConfig, FinishReason, Request, generate};
use aha_model::Decoder;
use aha_tasks::{Answer, Judgement, Problem, Prompter, Reward, Rewarded, Task};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Threads that judge. Rules take microseconds; judging models and programs mostly wait.
const THREADS: usize = 4;

/// What a group is judged with.
pub(crate) struct Judging<'a> {
    pub task: &'a dyn Task,
    pub prompter: &'a Prompter,
    pub rewards: &'a [Reward],
    /// Optimizer steps done.
    pub step: u64,
    /// The longest completion.
    pub max_tokens: usize,
}

/// One judged completion.
pub(crate) struct Judged {
    pub text: String,
    pub judgement: Judgement,
    /// In the order of the rewards.
    pub rewards: Vec<Option<f64>>,
}

/// What sampling and judging left.
pub(crate) struct Sampled {
    /// In order of request and sample.
    pub completions: Vec<Completion>,
    /// In the same order.
    pub judged: Vec<Judged>,
    /// Until the last token was drawn.
    pub generate_seconds: f64,
    /// From then until the last reward was there.
    pub judge_seconds: f64,
    /// Seconds that threads spent on the verdict of the task, then on each reward.
    pub reward_seconds: Vec<f64>,
}

/// Samples all requests and judges the completions; request i belongs to problem i.
pub(crate) fn sample_and_judge(
    judging: &Judging<'_>,
    policy: &Decoder,
    requests: &[Request],
    problems: &[Problem],
    engine: &EngineConfig,
    control: &mut Control,
) -> Result<Sampled, TrainError> {
    let begin = Instant::now();
    let (send, groups) = channel();
    control.on_completion = Some(Box::new(move |completion: &Completion| {
        // Nobody hears where judging failed; the error is reported below.
        let _ = send.send(completion.clone());
    }));
    let shared = Shared { groups: Mutex::new(Groups::new(groups, requests)), done: Mutex::default() };
    let mut completions = Err(TrainError::Observer(String::new()));
    let mut generated = begin;
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| shared.work(judging, problems));
        }
        completions = generate(policy, requests, engine, control).map_err(TrainError::from);
        generated = Instant::now();
        // The last sender goes, and with it the threads when they are through.
        control.on_completion = None;
    });
    let completions = completions?;
    let done = shared.done.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut slots: Vec<Option<Judged>> = completions.iter().map(|_| None).collect();
    let mut reward_seconds = vec![0.0; judging.rewards.len() + 1];
    for group in done {
        let (request, judged, seconds) = group?;
        reward_seconds.iter_mut().zip(seconds).for_each(|(sum, s)| *sum += s);
        let first = completions.partition_point(|c| c.request < request);
        slots[first..].iter_mut().zip(judged).for_each(|(slot, j)| *slot = Some(j));
    }
    let judged = slots.into_iter().map(|j| j.expect("every group was judged")).collect();
    Ok(Sampled {
        completions,
        judged,
        generate_seconds: (generated - begin).as_secs_f64(),
        judge_seconds: generated.elapsed().as_secs_f64(),
        reward_seconds,
    })
}

/// Request, its judged samples in order, and the seconds spent.
type Group = (usize, Vec<Judged>, Vec<f64>);

struct Shared {
    groups: Mutex<Groups>,
    done: Mutex<Vec<Result<Group, TrainError>>>,
}

impl Shared {
    fn work(&self, judging: &Judging<'_>, problems: &[Problem]) {
        loop {
            // One thread waits for completions, the others for it.
            let group = self.groups.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(group) = group else { return };
            let judged = judge(judging, &problems[group[0].request], &group);
            self.done.lock().unwrap_or_else(PoisonError::into_inner).push(judged);
        }
    }
}

/// Completions as they come, put together by request.
struct Groups {
    incoming: Receiver<Completion>,
    waiting: Vec<Vec<Completion>>,
    sizes: Vec<usize>,
}

impl Groups {
    fn new(incoming: Receiver<Completion>, requests: &[Request]) -> Self {
        Groups {
            incoming,
            waiting: requests.iter().map(|_| Vec::new()).collect(),
            sizes: requests.iter().map(|r| r.samples).collect(),
        }
    }

    /// The next whole group in order of samples; none when there will be no more.
    fn next(&mut self) -> Option<Vec<Completion>> {
        while let Ok(completion) = self.incoming.recv() {
            let request = completion.request;
            let group = &mut self.waiting[request];
            group.push(completion);
            if group.len() == self.sizes[request] {
                let mut group = std::mem::take(group);
                group.sort_by_key(|c| c.sample);
                return Some(group);
            }
        }
        None
    }
}

fn judge(judging: &Judging<'_>, problem: &Problem, group: &[Completion]) -> Result<Group, TrainError> {
    let begin = Instant::now();
    let texts = group.iter().map(|c| judging.prompter.completion(&c.tokens)).collect::<Result<Vec<_>, _>>()?;
    let ended = |c: &Completion| c.finish == FinishReason::Stop;
    let answers = group.iter().zip(&texts);
    let answers: Vec<Answer> =
        answers.map(|(c, completion)| Answer { problem, completion, finished: ended(c) }).collect();
    let judgements = judging.task.judge_all(&answers);
    let mut seconds = vec![begin.elapsed().as_secs_f64()];
    let rewarded: Vec<Rewarded<'_>> = group
        .iter()
        .zip(texts.iter().zip(&judgements))
        .map(|(c, (completion, judgement))| Rewarded {
            problem,
            completion,
            judgement,
            prefilled_think: judging.task.prefilled_think(),
            finished: ended(c),
            tokens: c.tokens.len(),
            max_tokens: judging.max_tokens,
        })
        .collect();
    let mut rewards: Vec<Vec<Option<f64>>> = group.iter().map(|_| Vec::new()).collect();
    for reward in judging.rewards {
        let begin = Instant::now();
        let values = reward.of(&rewarded, judging.step);
        seconds.push(begin.elapsed().as_secs_f64());
        rewards.iter_mut().zip(values).for_each(|(all, value)| all.push(value));
    }
    let request = group[0].request;
    let judged = texts.into_iter().zip(judgements).zip(rewards);
    let judged = judged.map(|((text, judgement), rewards)| Judged { text, judgement, rewards }).collect();
    Ok((request, judged, seconds))
}
