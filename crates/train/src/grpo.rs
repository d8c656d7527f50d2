//! Group-relative policy optimisation with verifiable rewards (DeepSeekMath section 4, DeepSeek-R1 section 2).
//!
//! One generation: take problems, sample a group of completions for each, judge them, compare every reward with its group.
//! One or several optimizer steps use it. Old log-probabilities come from the generator: they are the trainer's own, bit
//! for bit, so the first ratio is exactly 1 and no second forward is needed.

use crate::advantage::{AdvantageConfig, Advantages, advantages, combine_rewards, sequence_mask};
use crate::balance;
use crate::judging::{Judging, sample_and_judge};
use crate::lanes::{Lane, Lanes};
use crate::loss_metrics::LossMetrics;
use crate::normaliser::Normaliser;
use crate::observer::{Observer, Rollout, StepReport};
use crate::overlong::soft_overlong_penalty;
use crate::policy_loss::{PolicyLossConfig, TokenBatch, policy_loss};
use crate::schedule::Schedule;
use crate::state::{self, TrainerState};
use crate::{PackedBatch, TrainError};
use aha_engine::sampler::mix;
use aha_engine::{Control, EngineConfig, FinishReason, Request, SamplingParams};
use aha_kernels::{MasterWeights, Optimizer, OptimizerConfig, Precision};
use aha_model::{Decoder, TextFiles};
use aha_tasks::{Prompter, Reward, Split, Task, Verdict};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// Settings of a GRPO stage; names as in TRL.
#[derive(Clone, Debug)]
pub struct GrpoConfig {
    /// Optimizer steps.
    pub steps: u64,
    /// Problems per optimizer step.
    pub num_prompts: usize,
    /// Completions per problem.
    pub num_generations: usize,
    /// Optimizer steps (mini-batches) one generation is split into.
    pub steps_per_generation: usize,
    /// Times each mini-batch is used.
    pub num_iterations: usize,
    /// How completions are sampled; stop tokens come from the prompter.
    pub sampling: SamplingParams,
    /// Learning rate over the steps.
    pub schedule: Schedule,
    /// Optimizer settings.
    pub optimizer: OptimizerConfig,
    /// Settings of the loss.
    pub loss: PolicyLossConfig,
    /// How rewards become advantages.
    pub advantage: AdvantageConfig,
    /// Rewards and their weights.
    pub rewards: Vec<Reward>,
    /// Leave completions that were cut at the limit out of the loss.
    pub mask_truncated_completions: bool,
    /// Soft overlong penalty (DAPO eq. 13): tokens before the limit over which it grows to -1, and its weight.
    pub overlong: Option<(usize, f64)>,
    /// The reference becomes the policy every so many steps; 0 never.
    pub ref_refresh_steps: u64,
    /// Tokens of a forward/backward pass.
    pub micro_batch_tokens: usize,
    /// Compute a prompt once for the completions of it in a micro-batch.
    pub share_prompts: bool,
    /// Limits of the generator.
    pub engine: EngineConfig,
    /// Checkpoint every so many steps; 0 only at the end.
    pub save_steps: u64,
    /// Call the observer's evaluation every so many steps; 0 never.
    pub eval_steps: u64,
    /// Seed of problems' order and of sampling.
    pub seed: u64,
    /// In what numbers products run, in the generator as in the trainer.
    pub precision: Precision,
    /// Blocks keep only their inputs for the backward.
    pub gradient_checkpointing: bool,
    /// How far the biases of routers move at a step, towards an even load; 0 leaves them as they were pretrained.
    pub bias_update_speed: f64,
    /// Hash of everything the result depends on.
    pub settings: String,
}

/// One completion on its way from the generator to the loss.
struct Sample {
    prompt: Arc<[u32]>,
    tokens: Vec<u32>,
    old_logprobs: Vec<f32>,
    advantage: f32,
    keep: bool,
    log: Rollout,
}

/// Completions of one generation and what was measured over all of them.
struct Generation {
    samples: Vec<Sample>,
    metrics: Vec<(String, f64)>,
    seconds: f64,
    /// What judging took beyond that.
    judge_seconds: f64,
    /// Seconds of the threads that judge, by reward.
    timing: Vec<(String, f64)>,
    tokens: usize,
}

/// A GRPO stage at work.
pub struct Grpo<'a> {
    /// Settings.
    pub config: &'a GrpoConfig,
    /// Problems and judge.
    pub task: &'a dyn Task,
    /// Other problems and their judge, from a step on.
    pub later: Option<(u64, &'a dyn Task)>,
    /// Prompts and texts.
    pub prompter: &'a Prompter,
    /// Tokenizer files saved with checkpoints.
    pub text: &'a TextFiles,
}

impl Grpo<'_> {
    /// Runs the stage from the newest checkpoint under `checkpoints`, or from `fresh`. The first reference is `reference`,
    /// or the policy as it starts, with whose frozen weights it shares memory: with adapters it is the base, and not a second
    /// one. Returns the policy and whether the stage is finished (false when a stop was requested).
    ///
    /// # Errors
    /// Failed writes, problems that cannot be had, numbers that go wrong.
    pub fn run(
        &self,
        fresh: impl FnOnce() -> Result<Decoder, TrainError>,
        reference: Option<Decoder>,
        checkpoints: &Path,
        observer: &mut dyn Observer,
    ) -> Result<(Decoder, bool), TrainError> {
        let c = self.config;
        let (mut policy, mut optimizer, mut state, saved_reference) = match state::latest(checkpoints, &c.settings)? {
            Some(step) => {
                let r = state::load(checkpoints, step, |p| Optimizer::new(c.optimizer, p), fresh)?;
                (r.policy, r.optimizer, r.state, r.reference)
            }
            None => {
                let policy = fresh()?;
                let optimizer = Optimizer::new(c.optimizer, &policy.params);
                (policy, optimizer, TrainerState { settings: c.settings.clone(), ..TrainerState::default() }, None)
            }
        };
        c.optimizer.prepare(&mut policy.params, c.precision);
        let mut reference = (c.loss.beta > 0.0).then(|| reference.unwrap_or_else(|| policy.clone()));
        if let (Some(reference), Some(saved)) = (&mut reference, saved_reference) {
            reference.params = saved;
        }
        if let Some(reference) = &mut reference {
            reference.params.master_weights(c.optimizer.master);
            reference.params.set_precision(c.precision, false);
        }
        let mut lanes = Lanes::in_numbers(&policy.params, c.gradient_checkpointing, c.optimizer.gradients);
        let reuse = (c.steps_per_generation.max(1) * c.num_iterations.max(1)) as u64;
        while state.step < c.steps {
            let generation = self.generate(&policy, state.step / reuse, state.step / reuse * reuse)?;
            let turns = reuse.min(c.steps - state.step);
            for turn in 0..turns {
                let begin = Instant::now();
                let refresh =
                    c.ref_refresh_steps > 0 && state.step > 0 && state.step.is_multiple_of(c.ref_refresh_steps);
                if let Some(r) = reference.as_mut().filter(|_| refresh) {
                    r.params.copy_from(&policy.params);
                }
                let slice = minibatch(
                    generation.samples.len(),
                    turn as usize % c.steps_per_generation.max(1),
                    c.steps_per_generation.max(1),
                );
                let mut batch: Vec<&Sample> = slice.map(|i| &generation.samples[i]).collect();
                if c.share_prompts {
                    neighbours(&mut batch);
                }
                let learning_rate = c.schedule.at(state.step);
                let mut metrics = self.accumulate(&policy, reference.as_ref(), &batch, &mut lanes, turn == 0)?;
                if c.optimizer.master != MasterWeights::Whole && turn + 1 == turns {
                    // Memory is short: generation has the room that training had, and the other way round.
                    lanes.free_buffers();
                }
                let routing = lanes.routing();
                metrics.extend(balance::metrics(&routing));
                balance::update(&mut policy, &routing, c.bias_update_speed);
                let norm = optimizer.step(&mut policy.params, lanes.grads(), learning_rate);
                state.step += 1;
                if !norm.is_finite() {
                    let problem = format!("the gradient norm is {norm}: lower learning_rate, or raise beta");
                    return Err(TrainError::Diverged { step: state.step, problem });
                }
                metrics.extend([("grad_norm".to_owned(), norm), ("learning_rate".to_owned(), learning_rate)]);
                metrics.extend(generation.metrics.iter().cloned());
                let train = begin.elapsed().as_secs_f64();
                let mut timing = vec![
                    (
                        "step_time".to_owned(),
                        train + if turn == 0 { generation.seconds + generation.judge_seconds } else { 0.0 },
                    ),
                    ("time/generate".to_owned(), generation.seconds),
                    ("time/judge".to_owned(), generation.judge_seconds),
                    ("time/train".to_owned(), train),
                    ("tokens_per_second".to_owned(), generation.tokens as f64 / (generation.seconds + train).max(1e-9)),
                ];
                if turn == 0 {
                    timing.extend(generation.timing.iter().cloned());
                }
                let rollouts =
                    if turn == 0 { generation.samples.iter().map(|s| s.log.clone()).collect() } else { Vec::new() };
                observer.step(StepReport { step: state.step, total: c.steps, metrics, timing, rollouts })?;
                if c.eval_steps > 0 && state.step.is_multiple_of(c.eval_steps) && state.step < c.steps {
                    observer.evaluate(state.step, &policy)?;
                }
            }
            let stop = observer.stop_requested();
            let due =
                c.save_steps > 0 && state.step / c.save_steps > (state.step - reuse.min(state.step)) / c.save_steps;
            if stop || due || state.step == c.steps {
                observer.sync()?;
                state.optimizer_step = optimizer.step;
                state::save(
                    checkpoints,
                    &state,
                    &policy,
                    &optimizer,
                    reference.as_ref().map(|r| &r.params),
                    self.text,
                    2,
                )?;
            }
            if stop {
                return Ok((policy, state.step == c.steps));
            }
        }
        Ok((policy, true))
    }

    /// The task after `step` steps.
    fn task(&self, step: u64) -> &dyn Task {
        self.later.filter(|(from, _)| step >= *from).map_or(self.task, |(_, task)| task)
    }

    /// Samples, judges and compares one generation.
    fn generate(&self, policy: &Decoder, number: u64, step: u64) -> Result<Generation, TrainError> {
        let c = self.config;
        let count = c.num_prompts * c.steps_per_generation.max(1);
        let first = number * count as u64;
        let problems = (first..first + count as u64)
            .map(|i| self.task(step).problem(Split::Train, i))
            .collect::<Result<Vec<_>, _>>()?;
        let mut requests = Vec::with_capacity(count);
        for (i, problem) in problems.iter().enumerate() {
            let params = SamplingParams { stop_tokens: self.prompter.stop_tokens().to_vec(), ..c.sampling.clone() };
            let seed = mix(c.seed ^ mix(first + i as u64));
            requests.push(Request { prompt: self.prompter.tokens(problem)?, samples: c.num_generations, params, seed });
        }
        let mut control = Control::default();
        let max_tokens = c.sampling.max_new_tokens;
        let judging = Judging { task: self.task(step), prompter: self.prompter, rewards: &c.rewards, step, max_tokens };
        let sampled = sample_and_judge(&judging, policy, &requests, &problems, &c.engine, &mut control)?;
        let count = sampled.completions.len();
        let (mut samples, mut per_sample) = (Vec::with_capacity(count), Vec::with_capacity(count));
        let mut names: Vec<String> = c.rewards.iter().map(|r| r.name.clone()).collect();
        let mut weights: Vec<f64> = c.rewards.iter().map(|r| r.weight).collect();
        if let Some((_, weight)) = c.overlong {
            names.push("overlong".into());
            weights.push(weight);
        }
        let tokens = sampled.completions.iter().map(|s| s.tokens.len()).sum();
        for (completion, judged) in sampled.completions.into_iter().zip(sampled.judged) {
            let problem = &problems[completion.request];
            let mut scores = judged.rewards;
            if let Some((buffer, _)) = c.overlong {
                scores.push(Some(soft_overlong_penalty(completion.tokens.len(), max_tokens, buffer)));
            }
            per_sample.push(scores.clone());
            samples.push(Sample {
                prompt: requests[completion.request].prompt.clone(),
                old_logprobs: completion.logprobs,
                advantage: 0.0,
                keep: true,
                log: Rollout {
                    problem: problem.id.clone(),
                    family: problem.family.clone(),
                    prompt: problem.question.clone(),
                    completion: judged.text,
                    rewards: names.iter().cloned().zip(scores).collect(),
                    advantage: None,
                    verdict: judged.judgement.verdict,
                    tokens: completion.tokens.len(),
                    finished: completion.finish == FinishReason::Stop,
                },
                tokens: completion.tokens,
            });
        }
        let totals = combine_rewards(&per_sample, &weights, c.num_generations)?;
        let advantages = advantages(&totals, c.num_generations, &c.advantage)?;
        let truncated: Vec<bool> = samples.iter().map(|s| !s.log.finished).collect();
        let keep = sequence_mask(&advantages.valid, &truncated, c.mask_truncated_completions)?;
        for (i, s) in samples.iter_mut().enumerate() {
            s.advantage = advantages.values[i];
            s.keep = keep[i];
            s.log.advantage = advantages.valid[i].then(|| f64::from(advantages.values[i]));
        }
        let mut metrics = generation_metrics(&samples, &names, &advantages);
        if let Some((acceptance, tokens_per_step)) = control.speculation() {
            metrics.push(("speculative/acceptance".to_owned(), acceptance));
            metrics.push(("speculative/tokens_per_step".to_owned(), tokens_per_step));
        }
        if c.steps_per_generation > 1 {
            shuffle(&mut samples, mix(c.seed ^ mix(!number)));
        }
        let labels = std::iter::once("verdict").chain(c.rewards.iter().map(|r| r.name.as_str()));
        let timing =
            labels.zip(&sampled.reward_seconds).map(|(name, s)| (format!("time/rewards/{name}"), *s)).collect();
        let (seconds, judge_seconds) = (sampled.generate_seconds, sampled.judge_seconds);
        Ok(Generation { samples, metrics, seconds, judge_seconds, timing, tokens })
    }

    /// Gradients of one optimizer window, micro-batch by micro-batch; everything is normalised by the whole window.
    fn accumulate(
        &self,
        policy: &Decoder,
        reference: Option<&Decoder>,
        batch: &[&Sample],
        lanes: &mut Lanes,
        fresh: bool,
    ) -> Result<Vec<(String, f64)>, TrainError> {
        let c = self.config;
        let mut window = Normaliser::default();
        for s in batch {
            window.add(&[0, s.tokens.len()], &vec![true; s.tokens.len()], &[s.keep])?;
        }
        let total: usize = (0..batch.len()).map(|i| cost(batch, i, 0, c.share_prompts)).sum();
        let prompts = batch.iter().map(|s| s.prompt.len()).filter(|_| c.share_prompts);
        // A cut between completions of a prompt costs the prompt once more: lanes that few tokens are dealt out to take that.
        let budget = lanes.micro_batch_tokens(c.micro_batch_tokens, total) + prompts.max().unwrap_or(0);
        let parts = split(batch, budget.min(c.micro_batch_tokens), c.share_prompts);
        let mut sum = Part::default();
        lanes.begin(0.0);
        for part in lanes.run(&parts, |lane, part| self.part(policy, reference, part, &window, lane)) {
            sum.merge(&part?);
        }
        let tokens = sum.tokens.max(1) as f64;
        let mut metrics = vec![("loss".to_owned(), sum.loss), ("entropy".to_owned(), sum.entropy / tokens)];
        metrics.extend(sum.metrics.summary().into_iter().map(|(k, v)| (k.to_owned(), v)));
        if fresh {
            metrics.push(("sampling/sampling_logp_difference/mean".to_owned(), sum.difference / tokens));
            metrics.push(("sampling/sampling_logp_difference/max".to_owned(), sum.worst));
        }
        Ok(metrics)
    }

    /// One micro-batch: reference, forward, loss, backward into the lane's gradients.
    fn part(
        &self,
        policy: &Decoder,
        reference: Option<&Decoder>,
        part: &[&Sample],
        window: &Normaliser,
        lane: &mut Lane,
    ) -> Result<Part, TrainError> {
        let c = self.config;
        let sequences: Vec<_> = part.iter().map(|s| (&*s.prompt, s.tokens.as_slice())).collect();
        let packed = if c.share_prompts { PackedBatch::sharing(&sequences) } else { PackedBatch::new(sequences) };
        let reference = reference.map(|r| packed.logprobs(r, &mut lane.quiet, c.sampling.temperature).0);
        let old: Vec<f32> = part.iter().flat_map(|s| s.old_logprobs.iter().copied()).collect();
        let mut cu = vec![0];
        for s in part {
            cu.push(cu[cu.len() - 1] + s.tokens.len());
        }
        let mask = vec![true; old.len()];
        let sequence_mask: Vec<bool> = part.iter().map(|s| s.keep).collect();
        let values: Vec<f32> = part.iter().map(|s| s.advantage).collect();
        let mut out = Ok(Part::default());
        packed.train(policy, &mut lane.tape, &mut lane.grads, c.sampling.temperature, |logprobs, entropies| {
            let batch = TokenBatch {
                logprobs,
                old_logprobs: &old,
                ref_logprobs: reference.as_deref(),
                cu_seqlens: &cu,
                advantages: &values,
                token_mask: &mask,
                sequence_mask: &sequence_mask,
            };
            match policy_loss(&batch, &c.loss, window) {
                Ok(loss) => {
                    let differences = || logprobs.iter().zip(&old).map(|(a, b)| f64::from((a - b).abs()));
                    out = Ok(Part {
                        loss: loss.loss,
                        metrics: loss.metrics,
                        entropy: entropies.iter().map(|e| f64::from(*e)).sum(),
                        tokens: entropies.len(),
                        worst: differences().fold(0.0, f64::max),
                        difference: differences().sum(),
                    });
                    loss.d_logprobs
                }
                Err(e) => {
                    out = Err(e.into());
                    vec![0.0; logprobs.len()]
                }
            }
        });
        out
    }
}

/// What is measured on a micro-batch, as sums.
#[derive(Default)]
struct Part {
    loss: f64,
    metrics: LossMetrics,
    entropy: f64,
    tokens: usize,
    worst: f64,
    difference: f64,
}

impl Part {
    fn merge(&mut self, other: &Part) {
        self.loss += other.loss;
        self.metrics.merge(&other.metrics);
        self.entropy += other.entropy;
        self.tokens += other.tokens;
        self.worst = self.worst.max(other.worst);
        self.difference += other.difference;
    }
}

/// Whether sample i of a part that began with sample `first` continues the prompt of the one before it.
fn shares(batch: &[&Sample], i: usize, first: usize, share_prompts: bool) -> bool {
    share_prompts && i > first && batch[i - 1].prompt == batch[i].prompt
}

/// Tokens that sample i adds to that part: of a prompt that is shared, the last one.
fn cost(batch: &[&Sample], i: usize, first: usize, share_prompts: bool) -> usize {
    let shared = shares(batch, i, first, share_prompts);
    batch[i].tokens.len() + if shared { 1 } else { batch[i].prompt.len() }
}

/// Prompt tokens that continuations of a part see, in tokens of the part: the gradients of their keys and values take room.
const SEEN_AGAIN: usize = 2;

/// Whole samples in order, each part with at most `tokens`; a longer sample is a part of its own.
fn split<'a, 'b>(batch: &'b [&'a Sample], tokens: usize, share_prompts: bool) -> Vec<&'b [&'a Sample]> {
    let (mut parts, mut first, mut size, mut again) = (Vec::new(), 0, 0, 0);
    for i in 0..batch.len() {
        again += if shares(batch, i, first, share_prompts) { batch[i].prompt.len() } else { 0 };
        let full = size + cost(batch, i, first, share_prompts) > tokens || again > SEEN_AGAIN * tokens;
        if full && i > first {
            parts.push(&batch[first..i]);
            (first, size, again) = (i, 0, 0);
        }
        size += cost(batch, i, first, share_prompts);
    }
    parts.push(&batch[first..]);
    parts
}

/// Puts samples of the same prompt side by side, in the order of the first of each.
fn neighbours(batch: &mut [&Sample]) {
    let mut first = HashMap::new();
    for (i, s) in batch.iter().enumerate() {
        first.entry(&*s.prompt).or_insert(i);
    }
    batch.sort_by_key(|s| first[&*s.prompt]);
}

/// Samples of mini-batch `part` of `parts`.
fn minibatch(samples: usize, part: usize, parts: usize) -> std::ops::Range<usize> {
    samples * part / parts..samples * (part + 1) / parts
}

/// Random order (Fisher-Yates over splitmix64).
fn shuffle<T>(items: &mut [T], seed: u64) {
    for i in (1..items.len()).rev() {
        items.swap(i, (mix(seed ^ mix(i as u64)) % (i as u64 + 1)) as usize);
    }
}

fn mean_std(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let n = values.clone().count().max(1) as f64;
    let mean = values.clone().sum::<f64>() / n;
    (mean, (values.map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt())
}

fn generation_metrics(samples: &[Sample], names: &[String], advantages: &Advantages) -> Vec<(String, f64)> {
    let n = samples.len().max(1) as f64;
    let lengths = || samples.iter().map(|s| s.tokens.len() as f64);
    let ended = || samples.iter().filter(|s| s.log.finished).map(|s| s.tokens.len() as f64);
    let mut m = vec![
        ("num_tokens".to_owned(), lengths().sum()),
        ("completions/mean_length".to_owned(), mean_std(lengths()).0),
        ("completions/min_length".to_owned(), lengths().fold(f64::INFINITY, f64::min)),
        ("completions/max_length".to_owned(), lengths().fold(0.0, f64::max)),
        ("completions/clipped_ratio".to_owned(), samples.iter().filter(|s| !s.log.finished).count() as f64 / n),
        ("completions/mean_terminated_length".to_owned(), mean_std(ended()).0),
    ];
    for (i, name) in names.iter().enumerate() {
        let (mean, std) = mean_std(samples.iter().filter_map(move |s| s.log.rewards[i].1));
        m.push((format!("rewards/{name}/mean"), mean));
        m.push((format!("rewards/{name}/std"), std));
    }
    m.push(("reward".to_owned(), advantages.reward_mean));
    m.push(("reward_std".to_owned(), advantages.reward_std));
    m.push(("frac_reward_zero_std".to_owned(), advantages.frac_zero_std));
    m.push(("accuracy".to_owned(), samples.iter().filter(|s| s.log.verdict == Verdict::Correct).count() as f64 / n));
    let words: usize = samples.iter().map(|s| aha_tasks::text::reflective_words(&s.log.completion)).sum();
    m.push(("reflective_words".to_owned(), words as f64 / n));
    let mut families: Vec<&str> = samples.iter().map(|s| s.log.family.as_str()).collect();
    families.sort_unstable();
    families.dedup();
    for family in families {
        let of = || samples.iter().filter(|s| s.log.family == family);
        let count = of().count() as f64;
        m.push((
            format!("accuracy/{family}"),
            of().filter(|s| s.log.verdict == Verdict::Correct).count() as f64 / count,
        ));
        m.push((format!("completions/mean_length/{family}"), of().map(|s| s.tokens.len() as f64).sum::<f64>() / count));
    }
    m
}
