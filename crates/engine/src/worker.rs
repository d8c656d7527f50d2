//! A worker: its share of the requests, its own cache, one decoding step after another.

mod prefill;
mod speculative;

use crate::blocks::BlockManager;
use crate::prefix::PrefixCache;
use crate::request::{Completion, EngineConfig, EngineError, FinishReason, Request};
use crate::running::{blocks_needed, most_running};
use crate::sampler;
use aha_kernels::{Attend, BLOCK_TOKENS, CacheSpan, KvCache, Tape, linear, par};
use aha_model::Decoder;
use rayon::prelude::*;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Models up to this size decode with one worker per thread, larger ones share each product between the threads.
const SMALL_MODEL_BYTES: u64 = 96 << 20;

/// Logits from which drawing is shared between the threads.
const PARALLEL_DRAWS: usize = 1 << 16;

/// Hears of every token as it is drawn: index of the request, number of the sample, the token.
pub type TokenListener = Box<dyn Fn(usize, usize, u32) + Send + Sync>;

/// Hears of every finished sample.
pub type CompletionListener = Box<dyn Fn(&Completion) + Send + Sync>;

/// What a caller may watch and stop while the engine runs.
#[derive(Default)]
pub struct Control {
    /// Tokens drawn so far.
    pub tokens: AtomicU64,
    /// Samples finished so far.
    pub samples: AtomicU64,
    /// Tokens drafted, and those of them that were kept.
    pub drafted: AtomicU64,
    /// See `drafted`.
    pub accepted: AtomicU64,
    /// Set to end early; unfinished samples are not returned.
    pub stop: Arc<AtomicBool>,
    /// Called in the worker's thread, so it must be quick. Tokens of one sample come in order.
    pub on_token: Option<TokenListener>,
    /// Called in the worker's thread with the number of samples finished so far.
    pub on_sample: Option<Box<dyn Fn(u64) + Send + Sync>>,
    /// Called in the worker's thread with every finished sample, in no order.
    pub on_completion: Option<CompletionListener>,
}

impl Control {
    /// Share of drafted tokens that were kept, and tokens a sample got per step; nothing where none was drafted.
    pub fn speculation(&self) -> Option<(f64, f64)> {
        let (drafted, accepted) = (self.drafted.load(Ordering::Relaxed), self.accepted.load(Ordering::Relaxed));
        (drafted > 0).then(|| (accepted as f64 / drafted as f64, (drafted + accepted) as f64 / drafted as f64))
    }
}

/// Draws all samples of all requests; completions come in order of (request, sample).
///
/// # Errors
/// A request that can never run (see [`EngineError`]); nothing is generated then.
pub fn generate(
    decoder: &Decoder,
    requests: &[Request],
    config: &EngineConfig,
    control: &Control,
) -> Result<Vec<Completion>, EngineError> {
    let workers = match config.workers {
        0 if decoder.bytes() > SMALL_MODEL_BYTES => 1,
        0 => rayon::current_num_threads(),
        n => n,
    };
    let blocks = (config.cache_bytes / workers / decoder.cache_shape().block_bytes()).max(1);
    for (i, r) in requests.iter().enumerate() {
        check(decoder, i, r, blocks)?;
    }
    let queue = Mutex::new(
        requests.iter().enumerate().filter(|(_, r)| r.samples > 0).map(|(i, r)| (i, 0..r.samples)).collect(),
    );
    let most = most_running(decoder, requests, config, workers);
    let run = || Worker::new(decoder, requests, config, control, (workers, blocks, most)).run(&queue);
    let mut done: Vec<Completion> = if workers == 1 {
        par::inside(run)
    } else {
        (0..workers).into_par_iter().with_max_len(1).flat_map_iter(|_| par::serial(run)).collect()
    };
    done.sort_by_key(|c| (c.request, c.sample));
    Ok(done)
}

fn check(decoder: &Decoder, i: usize, r: &Request, blocks: usize) -> Result<(), EngineError> {
    let vocab = decoder.config.vocab_size;
    if r.prompt.is_empty() {
        return Err(EngineError::EmptyPrompt(i));
    }
    if let Some(token) = r.prompt.iter().find(|t| **t as usize >= vocab) {
        return Err(EngineError::Token { request: i, token: *token, vocab });
    }
    let p = &r.params;
    let setting = |key, value: String, wanted| Err(EngineError::Setting { request: i, key, value, wanted });
    if !(p.temperature >= 0.0 && p.temperature.is_finite()) {
        return setting("temperature", p.temperature.to_string(), "0 (greedy) or above");
    }
    if !(p.top_p > 0.0 && p.top_p <= 1.0) {
        return setting("top_p", p.top_p.to_string(), "above 0 and at most 1");
    }
    if p.max_new_tokens == 0 {
        return setting("max_new_tokens", "0".into(), "1 or more");
    }
    let limit = decoder.config.max_position_embeddings;
    if r.prompt.len() + p.max_new_tokens > limit {
        return Err(EngineError::TooLong { request: i, prompt: r.prompt.len(), new: p.max_new_tokens, limit });
    }
    match blocks_needed(r.prompt.len(), p.max_new_tokens) {
        n if n > blocks => Err(EngineError::CacheTooSmall { request: i, needed: n, blocks }),
        _ => Ok(()),
    }
}

/// Samples of a request that still wait.
type Queue = Mutex<VecDeque<(usize, Range<usize>)>>;

/// One running sample.
struct Running {
    request: usize,
    sample: usize,
    blocks: Vec<u32>,
    reserved: usize,
    tokens: Vec<u32>,
    logprobs: Vec<f32>,
    /// Rows that the prediction module has not seen; empty where nothing is drafted.
    pending: Vec<speculative::Pending>,
}

struct Worker<'a> {
    decoder: &'a Decoder,
    requests: &'a [Request],
    config: &'a EngineConfig,
    control: &'a Control,
    /// Workers that take from the queue.
    workers: usize,
    /// Samples that may run together.
    most: usize,
    cache: KvCache,
    blocks: BlockManager,
    prefixes: PrefixCache,
    /// The last one whose samples did not all start.
    prompt: Option<prefill::Prompt>,
    tape: Tape,
    logits: Vec<f32>,
    running: Vec<Running>,
    done: Vec<Completion>,
    /// Passes of prompts.
    #[cfg(test)]
    passes: usize,
}

impl<'a> Worker<'a> {
    fn new(
        decoder: &'a Decoder,
        requests: &'a [Request],
        config: &'a EngineConfig,
        control: &'a Control,
        (workers, blocks, most): (usize, usize, usize),
    ) -> Self {
        Worker {
            decoder,
            requests,
            config,
            control,
            workers,
            most,
            cache: KvCache::new(decoder.cache_shape()),
            blocks: BlockManager::new(blocks),
            prefixes: PrefixCache::default(),
            prompt: None,
            tape: Tape::new(false),
            logits: Vec::new(),
            running: Vec::new(),
            done: Vec::new(),
            #[cfg(test)]
            passes: 0,
        }
    }

    fn run(mut self, queue: &Queue) -> Vec<Completion> {
        while !self.control.stop.load(Ordering::Relaxed) {
            loop {
                let admitted = self.admit(queue);
                if admitted.is_empty() {
                    break;
                }
                self.start(admitted);
            }
            if self.running.is_empty() {
                break;
            }
            if self.speculates() { self.speculative_step() } else { self.step() }
        }
        self.done
    }

    /// Waiting samples of some requests whose prompts make a pass together, as many as fit: running slots and cache blocks,
    /// reserved to the last token. Others get their share of what waits.
    fn admit(&mut self, queue: &Queue) -> Vec<(usize, Range<usize>)> {
        let mut queue = queue.lock().expect("no worker panics while it holds the queue");
        let share = queue.len().div_ceil(self.workers);
        let mut slots = self.most.saturating_sub(self.running.len());
        let (mut admitted, mut rows) = (Vec::new(), 0);
        // A step in which nothing can start is not to look its prompt up.
        while slots > 0
            && let Some((request, samples)) = queue.front_mut()
        {
            let r = &self.requests[*request];
            rows += self.rows(*request);
            let full = admitted.len() == share || rows > self.together();
            if full && !admitted.is_empty() {
                break;
            }
            let each = blocks_needed(r.prompt.len(), r.params.max_new_tokens);
            let first = samples.start;
            let last = first + samples.len().min(slots);
            while samples.start < last && self.blocks.reserve(each) {
                samples.start += 1;
            }
            let (request, some, all) = (*request, first..samples.start, samples.start == samples.end);
            slots -= some.len();
            if all {
                queue.pop_front();
            }
            if !some.is_empty() {
                admitted.push((request, some));
            }
            if !all {
                break;
            }
        }
        admitted
    }

    /// Gives a prompt's blocks back; whether there was one.
    fn forget(&mut self, prompt: Option<prefill::Prompt>) -> bool {
        let blocks = prompt.map(|p| p.blocks);
        blocks.iter().flatten().for_each(|b| self.blocks.release(*b));
        blocks.is_some()
    }

    /// Whether there is a block to take; a prompt that is kept, then a known prefix, are given up where there is no other.
    fn has_block(&mut self) -> bool {
        while self.blocks.is_full(&self.cache) {
            let prompt = self.prompt.take();
            if !self.forget(prompt) && !self.prefixes.evict(&mut self.blocks) {
                return false;
            }
        }
        true
    }

    /// A block with one owner. Reservations guarantee that there is one.
    fn block(&mut self) -> u32 {
        self.has_block();
        self.blocks.take(&mut self.cache)
    }

    /// Decodes one token of every running sample.
    fn step(&mut self) {
        let mut running = std::mem::take(&mut self.running);
        let mut tokens = Vec::with_capacity(running.len());
        let mut positions = Vec::with_capacity(running.len());
        for s in &mut running {
            let position = self.requests[s.request].prompt.len() + s.tokens.len() - 1;
            if position / BLOCK_TOKENS == s.blocks.len() {
                s.blocks.push(self.block());
            }
            tokens.push(*s.tokens.last().expect("a running sample has drawn a token"));
            positions.push(position as u32);
        }
        let spans: Vec<CacheSpan> = running
            .iter()
            .zip(&positions)
            .map(|(s, p)| CacheSpan { rows: 1, start: *p as usize, blocks: &s.blocks })
            .collect();
        let mut attend = Attend::Cached { cache: &mut self.cache, spans: &spans };
        let h = self.decoder.hidden(&mut self.tape, &tokens.into(), &positions.into(), &mut attend);
        let vocab = self.decoder.config.vocab_size;
        let mut logits = std::mem::take(&mut self.logits);
        logits.resize(running.len() * vocab, 0.0);
        linear::forward(&mut logits, self.tape.value(h), self.decoder.params.weight(self.decoder.head()), false);
        self.tape.reset();
        let drawn = self.draw_all(&running, &mut logits);
        for (mut s, drawn) in running.into_iter().zip(drawn) {
            if self.take_token(&mut s, drawn) {
                self.finish(s);
            } else {
                self.running.push(s);
            }
        }
        self.logits = logits;
    }

    /// Next tokens and their log-probabilities, from a row of logits for each sample.
    fn draw_all(&self, samples: &[Running], logits: &mut [f32]) -> Vec<(u32, f32)> {
        let (vocab, requests) = (self.decoder.config.vocab_size, self.requests);
        let rows: Vec<(&Running, &mut [f32])> = samples.iter().zip(logits.chunks_exact_mut(vocab)).collect();
        if par::threads() > 1 && rows.len() * vocab >= PARALLEL_DRAWS {
            return rows.into_par_iter().map(|(s, row)| draw(&requests[s.request], s, row)).collect();
        }
        rows.into_iter().map(|(s, row)| draw(&requests[s.request], s, row)).collect()
    }

    /// Appends a token to a sample; true when it has ended.
    fn take_token(&self, s: &mut Running, (token, logprob): (u32, f32)) -> bool {
        let r = &self.requests[s.request];
        s.tokens.push(token);
        s.logprobs.push(logprob);
        self.control.tokens.fetch_add(1, Ordering::Relaxed);
        if let Some(listener) = &self.control.on_token {
            listener(s.request, s.sample, token);
        }
        s.tokens.len() >= r.params.max_new_tokens || r.params.stop_tokens.contains(&token)
    }

    fn finish(&mut self, s: Running) {
        s.blocks.iter().for_each(|b| self.blocks.release(*b));
        self.blocks.unreserve(s.reserved);
        let stopped = s.tokens.last().is_some_and(|t| self.requests[s.request].params.stop_tokens.contains(t));
        let finish = if stopped { FinishReason::Stop } else { FinishReason::Length };
        let finished = self.control.samples.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(listener) = &self.control.on_sample {
            listener(finished);
        }
        let done = Completion { request: s.request, sample: s.sample, tokens: s.tokens, logprobs: s.logprobs, finish };
        if let Some(listener) = &self.control.on_completion {
            listener(&done);
        }
        self.done.push(done);
    }
}

/// The next token of a sample and its log-probability.
fn draw(r: &Request, s: &Running, logits: &mut [f32]) -> (u32, f32) {
    let u = sampler::uniform(r.seed, s.sample as u64, s.tokens.len() as u64);
    sampler::sample(logits, &r.params, u)
}
