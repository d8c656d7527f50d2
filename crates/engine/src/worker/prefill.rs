//! How samples start: prompts that nobody computed yet go through the model together, their samples fork from them.

use super::{Running, Worker, draw};
use crate::running::blocks_needed;
use aha_kernels::{Attend, BLOCK_TOKENS, CacheSpan, Var, linear};
use std::ops::Range;
use std::sync::Arc;

/// Rows of prompts that are computed together: enough for a pass to be bound by arithmetic, and few enough for its activations
/// to stay in the second-level cache where the model is small.
const TOGETHER: usize = 256;

/// A prompt that has been computed: other samples of it start here.
pub(super) struct Prompt {
    pub(super) request: usize,
    pub(super) blocks: Vec<u32>,
    /// Of its last token.
    logits: Vec<f32>,
    /// Hidden state of its last token before the final norm, where the model drafts.
    trunk: Vec<f32>,
}

/// A prompt with room for its keys and values, the first `known` tokens of which are there.
struct Part {
    request: usize,
    blocks: Vec<u32>,
    known: usize,
}

impl Worker<'_> {
    /// Starts the samples of different requests; prompts are computed but for the one that was kept.
    pub(super) fn start(&mut self, admitted: Vec<(usize, Range<usize>)>) {
        let kept = self.prompt.take();
        let (mut prompts, mut first) = (Vec::new(), 0);
        match kept {
            Some(prompt) if prompt.request == admitted[0].0 => {
                prompts.push(prompt);
                first = 1;
            }
            other => {
                self.forget(other);
            }
        }
        self.prefill(admitted[first..].iter().map(|(request, _)| *request), &mut prompts);
        for (prompt, (_, samples)) in prompts.into_iter().zip(admitted) {
            self.fork(prompt, samples);
        }
    }

    /// Starts samples of a prompt and draws their first tokens.
    fn fork(&mut self, mut prompt: Prompt, samples: Range<usize>) {
        let request = prompt.request;
        let r = &self.requests[request];
        let total = r.prompt.len();
        let speculates = self.speculates();
        let reserved = blocks_needed(total, r.params.max_new_tokens);
        // With drafts every sample writes the module's row of the last prompt token.
        let shared = if speculates { (total - 1) / BLOCK_TOKENS } else { total / BLOCK_TOKENS };
        let (end, all) = (samples.end, samples.end == r.samples);
        for sample in samples {
            // Others of this prompt may still wait: it is kept for them while there is a block to spare.
            let blocks = if sample + 1 == end && (all || !self.has_block()) {
                std::mem::take(&mut prompt.blocks)
            } else {
                let mut blocks = prompt.blocks[..shared].to_vec();
                blocks.iter().for_each(|b| self.blocks.share(*b));
                if shared < prompt.blocks.len() {
                    let copy = self.block();
                    self.cache.copy(prompt.blocks[shared], copy);
                    blocks.push(copy);
                }
                blocks
            };
            let (tokens, logprobs, pending) = (Vec::new(), Vec::new(), Vec::new());
            let mut s = Running { request, sample, blocks, reserved, tokens, logprobs, pending };
            let drawn = draw(r, &s, &mut prompt.logits.clone());
            let ended = self.take_token(&mut s, drawn);
            if speculates {
                s.pending.push((prompt.trunk.clone(), s.tokens[0]));
            }
            if ended {
                self.finish(s);
            } else {
                self.running.push(s);
            }
        }
        if !prompt.blocks.is_empty() {
            debug_assert!(
                self.prompt.is_none(),
                "only the last of the prompts that were admitted together has samples that wait"
            );
            self.prompt = Some(prompt);
        }
    }

    /// Rows that several prompts may have in one pass.
    pub(super) fn together(&self) -> usize {
        self.config.prefill_chunk.clamp(1, TOGETHER)
    }

    /// Rows that a prompt has yet to go through.
    pub(super) fn rows(&self, request: usize) -> usize {
        let prompt = &self.requests[request].prompt;
        match &self.prompt {
            Some(kept) if kept.request == request => 0,
            _ if self.speculates() => prompt.len(),
            _ => prompt.len() - self.prefixes.spared(prompt),
        }
    }

    /// Computes prompts, neighbours in one pass where that has few enough rows.
    fn prefill(&mut self, requests: impl Iterator<Item = usize>, prompts: &mut Vec<Prompt>) {
        let mut together: Vec<Part> = Vec::new();
        let most = self.together();
        for request in requests {
            let mut part = self.part(request);
            let rows = |p: &Part| self.requests[p.request].prompt.len() - p.known;
            let full = together.iter().chain([&part]).map(rows).sum::<usize>() > most;
            // What it has in common with one of these is computed once.
            let waits = together.iter().any(|p| self.common(p.request, request) > part.known);
            if !together.is_empty() && (full || waits || self.speculates()) {
                self.pass(std::mem::take(&mut together), prompts);
                if waits {
                    part.blocks.iter().for_each(|b| self.blocks.release(*b));
                    part = self.part(request);
                }
            }
            together.push(part);
        }
        if !together.is_empty() {
            self.pass(together, prompts);
        }
    }

    /// Blocks for a prompt. The module's keys in a block depend on the token after it: such blocks are not shared between
    /// prompts.
    fn part(&mut self, request: usize) -> Part {
        let prompt = &self.requests[request].prompt;
        let mut blocks = if self.speculates() { Vec::new() } else { self.prefixes.find(prompt, &mut self.blocks) };
        let known = blocks.len() * BLOCK_TOKENS;
        while blocks.len() < prompt.len().div_ceil(BLOCK_TOKENS) {
            blocks.push(self.block());
        }
        Part { request, blocks, known }
    }

    /// Tokens in full blocks that two prompts begin with and that the second one could take over.
    fn common(&self, first: usize, second: usize) -> usize {
        let (a, b) = (&self.requests[first].prompt, &self.requests[second].prompt);
        let blocks = a.chunks_exact(BLOCK_TOKENS).zip(b[..b.len() - 1].chunks_exact(BLOCK_TOKENS));
        blocks.take_while(|(a, b)| a == b).count() * BLOCK_TOKENS
    }

    /// Several prompts that have few enough rows, or one in as many chunks as it needs. The last rows of all make logits
    /// `[prompts, V]` together.
    fn pass(&mut self, mut parts: Vec<Part>, prompts: &mut Vec<Prompt>) {
        let (decoder, requests, width) = (self.decoder, self.requests, self.decoder.config.hidden_size);
        let (speculates, vocab) = (self.speculates(), self.decoder.config.vocab_size);
        debug_assert!(!speculates || parts.len() == 1, "drafts need a prompt by itself");
        let mut trunk = Vec::new();
        loop {
            #[cfg(test)]
            {
                self.passes += 1;
            }
            let total = |p: &Part| requests[p.request].prompt.len();
            let end = |p: &Part| total(p).min(p.known + self.config.prefill_chunk.max(1));
            let (mut tokens, mut positions, mut last) = (Vec::new(), Vec::new(), Vec::new());
            for p in &parts {
                tokens.extend_from_slice(&requests[p.request].prompt[p.known..end(p)]);
                positions.extend(p.known as u32..end(p) as u32);
                last.push(tokens.len() as u32 - 1);
            }
            let positions: Arc<[u32]> = positions.into();
            let spans: Vec<CacheSpan> =
                parts.iter().map(|p| CacheSpan { rows: end(p) - p.known, start: p.known, blocks: &p.blocks }).collect();
            let mut attend = Attend::Cached { cache: &mut self.cache, spans: &spans };
            let x = decoder.trunk(&mut self.tape, &tokens.into(), &positions, &mut attend);
            if speculates {
                self.module(&parts[0], x, &positions);
            }
            parts.iter_mut().for_each(|p| p.known = end(p));
            if parts.iter().all(|p| p.known == total(p)) {
                let x = self.tape.select(x, &last.into(), width);
                if speculates {
                    trunk = self.tape.value(x).to_vec();
                }
                let h = decoder.final_norm(&mut self.tape, x);
                let mut logits = vec![0f32; parts.len() * vocab];
                linear::forward(&mut logits, self.tape.value(h), decoder.params.weight(decoder.head()), false);
                self.tape.reset();
                for (p, logits) in parts.into_iter().zip(logits.chunks_exact(vocab)) {
                    if !speculates {
                        self.prefixes.insert(&requests[p.request].prompt, &p.blocks, &mut self.blocks);
                    }
                    let (logits, trunk) = (logits.to_vec(), std::mem::take(&mut trunk));
                    prompts.push(Prompt { request: p.request, blocks: p.blocks, logits, trunk });
                }
                return;
            }
            self.tape.reset();
        }
    }

    /// The prediction module's rows of a chunk, as far as the prompt has a next token.
    fn module(&mut self, part: &Part, x: Var, positions: &[u32]) {
        let (start, prompt) = (part.known, &self.requests[part.request].prompt);
        let known = positions.len().min(prompt.len() - 1 - start);
        if known == 0 {
            return;
        }
        let first: Arc<[u32]> = (0..known as u32).collect();
        let x = self.tape.select(x, &first, self.decoder.config.hidden_size);
        let spans = [CacheSpan { rows: known, start, blocks: &part.blocks }];
        let mut attend = Attend::Cached { cache: &mut self.cache, spans: &spans };
        let next: Arc<[u32]> = prompt[start + 1..=start + known].into();
        self.decoder.module(&mut self.tape, 0, x, &next, &positions[..known].into(), &mut attend);
    }
}

#[cfg(test)]
mod tests {
    use crate::worker::{Control, Queue, Worker};
    use crate::{EngineConfig, Request, SamplingParams};
    use aha_kernels::BLOCK_TOKENS;
    use aha_model::{Arch, Decoder, Head, ModelConfig, RopeScaling};
    use std::sync::Mutex;

    fn decoder() -> Decoder {
        let config = ModelConfig {
            arch: Arch::Llama,
            vocab_size: 32,
            hidden_size: 16,
            intermediate_size: 32,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            head_dim: 4,
            rms_norm_eps: 1e-6,
            rope_theta: 10_000.0,
            rope_scaling: RopeScaling::None,
            tie_word_embeddings: true,
            attention_bias: false,
            attention_out_bias: false,
            mlp_bias: false,
            qk_norm: false,
            max_position_embeddings: 256,
            initializer_range: 0.3,
            bos_token_id: None,
            eos_token_ids: vec![2],
            torch_dtype: None,
            deepseek: None,
            head: Head::default(),
        };
        Decoder::init(config, 1)
    }

    /// Prompts of these lengths; the first `alike` tokens are the same in all.
    fn requests(lengths: &[usize], alike: usize) -> Vec<Request> {
        let token = |i: usize, j: usize| ((if j < alike { 0 } else { 5 * i + 1 }) + j * 7) as u32 % 32;
        let prompt = |(i, n): (usize, &usize)| (0..*n).map(|j| token(i, j)).collect();
        let params = SamplingParams { max_new_tokens: 8, ..SamplingParams::default() };
        let request = |prompt| Request { prompt, samples: 2, params: params.clone(), seed: 0 };
        lengths.iter().enumerate().map(prompt).map(request).collect()
    }

    fn worker<'a>(
        d: &'a Decoder,
        r: &'a [Request],
        config: &'a EngineConfig,
        control: &'a Control,
        workers: usize,
    ) -> Worker<'a> {
        Worker::new(d, r, config, control, (workers, 64, 16))
    }

    #[test]
    fn prompts_computed_together_have_the_logits_that_each_has_alone_and_share_what_is_common() {
        let (d, config, control) = (decoder(), EngineConfig::default(), Control::default());
        let few = EngineConfig { prefill_chunk: 50, ..config.clone() };
        // Prompts of 3, 40, 70, 1 and 64 tokens. 50 rows a pass: 3 and 40; 70 in two; 1; 64 in two. Where they begin with the same
        // block, 70 and 64 wait for 40 and have 38 and 32 rows left (of 71 with the single one).
        for (alike, passes) in [(0, [1, 6]), (BLOCK_TOKENS, [2, 3])] {
            let r = requests(&[3, 40, 70, 1, 2 * BLOCK_TOKENS], alike);
            for (config, passes) in [&config, &few].into_iter().zip(passes) {
                let mut together = worker(&d, &r, config, &control, 1);
                let mut all = Vec::new();
                together.prefill(0..r.len(), &mut all);
                for (i, prompt) in all.iter().enumerate() {
                    let mut one = Vec::new();
                    worker(&d, &r, config, &control, 1).prefill(std::iter::once(i), &mut one);
                    assert_eq!((prompt.request, &prompt.logits), (i, &one[0].logits), "{alike} alike");
                    assert_eq!(prompt.blocks.len(), r[i].prompt.len().div_ceil(BLOCK_TOKENS));
                }
                assert_eq!(together.passes, passes, "{alike} alike");
                let first = |i: usize| all[i].blocks[0];
                assert_eq!(first(1) == first(2) && first(1) == first(4), alike > 0);
                assert_eq!(together.blocks.used(), 1 + 2 + 3 + 1 + 2 - if alike > 0 { 2 } else { 0 });
            }
        }
    }

    #[test]
    fn a_worker_takes_its_share_of_the_prompts_and_few_enough_rows() {
        let all = |queue: Vec<usize>| -> Queue { Mutex::new(queue.into_iter().map(|i| (i, 0..2)).collect()) };
        let (d, control) = (decoder(), Control::default());
        let r = requests(&[10, 20, 30, 40, 50, 60, 70], 0);
        let queue = all((0..r.len()).collect());
        let config = EngineConfig { prefill_chunk: 100, ..EngineConfig::default() };
        let mut w = worker(&d, &r, &config, &control, 2);
        // Four have 100 rows; two of the three that are left would have 110.
        assert_eq!(w.admit(&queue), [(0, 0..2), (1, 0..2), (2, 0..2), (3, 0..2)]);
        assert_eq!(w.admit(&queue), [(4, 0..2)]);
        // One slot: half of a request.
        w.most = 1;
        assert_eq!(w.admit(&queue), [(5, 0..1)]);
        w.most = 16;
        assert_eq!(w.admit(&queue), [(5, 1..2)]);
        assert_eq!(w.admit(&queue), [(6, 0..2)]);
        assert_eq!(w.admit(&queue), []);
        // Two of seven are a quarter. What is known makes no rows: of 60 and 70 tokens 28 and 38 are left.
        let wide = EngineConfig::default();
        assert_eq!(worker(&d, &r, &wide, &control, 4).admit(&all((0..r.len()).collect())), [(0, 0..2), (1, 0..2)]);
        let r = requests(&[40, 60, 70], BLOCK_TOKENS);
        let mut w = worker(&d, &r, &config, &control, 1);
        let admitted = w.admit(&all(vec![0]));
        w.start(admitted);
        assert_eq!(w.admit(&all(vec![1, 2])), [(1, 0..2), (2, 0..2)]);
    }
}
