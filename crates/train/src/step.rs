//! One forward and backward over packed sequences: what every training method shares.

use aha_kernels::{Ask, Attend, Compared, Comparison, Gradients, Segments, Tape, TopK, divergence, logprob};
use aha_model::Decoder;
use std::sync::Arc;

/// Packed tokens and the rows whose next token is predicted.
#[derive(Clone, Debug)]
pub struct PackedBatch {
    /// Tokens of all sequences, one after another.
    pub tokens: Arc<[u32]>,
    /// Boundaries; tokens of different sequences never see each other, but for those of a sequence that is continued.
    pub segments: Arc<Segments>,
    /// Rows whose hidden state predicts a token that counts.
    pub rows: Arc<[u32]>,
    /// The token each of those rows should predict.
    pub targets: Vec<u32>,
}

impl PackedBatch {
    /// From sequences and, per sequence, the number of leading tokens that are given and not predicted (at least 1).
    pub fn new<'a>(sequences: impl IntoIterator<Item = (&'a [u32], &'a [u32])>) -> Self {
        Self::pack(&sequences.into_iter().collect::<Vec<_>>(), false)
    }

    /// The same with the prompt of neighbours that have the same one computed once: all but its last token are a sequence of
    /// their own, which the others continue. Log-probabilities have the same bits, gradients are sums in another order.
    pub fn sharing(sequences: &[(&[u32], &[u32])]) -> Self {
        Self::pack(sequences, true)
    }

    fn pack(sequences: &[(&[u32], &[u32])], share: bool) -> Self {
        let (mut tokens, mut segments, mut rows, mut targets) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for group in sequences.chunk_by(|(a, _), (b, _)| share && a == b) {
            let prompt = group[0].0;
            let shared = if group.len() > 1 { prompt.len().saturating_sub(1) } else { 0 };
            let continued = (shared > 0).then_some(segments.len());
            if shared > 0 {
                tokens.extend_from_slice(&prompt[..shared]);
                segments.push((shared, None));
            }
            for (prompt, completion) in group {
                let start = tokens.len() + prompt.len() - shared;
                tokens.extend_from_slice(&prompt[shared..]);
                tokens.extend_from_slice(completion);
                segments.push((prompt.len() - shared + completion.len(), continued));
                rows.extend((0..completion.len()).map(|i| (start + i - 1) as u32));
                targets.extend_from_slice(completion);
            }
        }
        PackedBatch {
            tokens: tokens.into(),
            segments: Arc::new(Segments::continuing(&segments)),
            rows: rows.into(),
            targets,
        }
    }

    /// From sequences and, per sequence, the ranges of its tokens that are predicted (none of them at 0).
    pub fn spans<'a>(sequences: impl IntoIterator<Item = (&'a [u32], &'a [std::ops::Range<usize>])>) -> Self {
        let (mut tokens, mut lengths, mut rows, mut targets) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (sequence, predicted) in sequences {
            for i in predicted.iter().cloned().flatten() {
                rows.push((tokens.len() + i - 1) as u32);
                targets.push(sequence[i]);
            }
            tokens.extend_from_slice(sequence);
            lengths.push(sequence.len());
        }
        PackedBatch {
            tokens: tokens.into(),
            segments: Arc::new(Segments::from_lengths(lengths)),
            rows: rows.into(),
            targets,
        }
    }

    /// From sequences of which only the last hidden state counts, as a reward model reads it.
    pub fn ends<'a>(sequences: impl IntoIterator<Item = &'a [u32]>) -> Self {
        let (mut tokens, mut lengths, mut rows) = (Vec::new(), Vec::new(), Vec::new());
        for sequence in sequences {
            tokens.extend_from_slice(sequence);
            lengths.push(sequence.len());
            rows.push(tokens.len() as u32 - 1);
        }
        let segments = Arc::new(Segments::from_lengths(lengths));
        PackedBatch { tokens: tokens.into(), segments, rows: rows.into(), targets: Vec::new() }
    }

    /// Log-probabilities and entropies of the targets, without remembering anything.
    pub fn logprobs(&self, decoder: &Decoder, tape: &mut Tape, temperature: f32) -> (Vec<f32>, Vec<f32>) {
        let h = self.hidden(decoder, tape);
        let out = self.read(decoder, tape, h, temperature);
        tape.reset();
        out
    }

    /// Forward, then `gradient(logprobs, entropies)` gives dLoss/dlogprob, then backward into `grads`.
    pub fn train(
        &self,
        decoder: &Decoder,
        tape: &mut Tape,
        grads: &mut Gradients,
        temperature: f32,
        gradient: impl FnOnce(&[f32], &[f32]) -> Vec<f32>,
    ) {
        let h = self.hidden(decoder, tape);
        let (logprobs, entropies) = self.read(decoder, tape, h, temperature);
        let d_logp = gradient(&logprobs, &entropies);
        let positions: Arc<[u32]> = self.segments.positions().into();
        let mut rerun = |tape: &mut Tape, block: usize, x| {
            decoder.block(tape, block, x, &positions, &mut Attend::Packed(self.segments.clone()))
        };
        tape.backward(&decoder.params, grads, h, decoder.head(), &self.targets, temperature, &d_logp, &mut rerun);
        tape.reset();
    }

    /// Forward to the scores of all rows, then `gradient(scores)` gives dLoss/dscore, then backward into `grads`.
    pub fn train_scores(
        &self,
        decoder: &Decoder,
        tape: &mut Tape,
        grads: &mut Gradients,
        gradient: impl FnOnce(&[f32]) -> Vec<f32>,
    ) {
        let h = self.hidden(decoder, tape);
        let scores = decoder.score(tape, h);
        let d_scores = gradient(tape.value(scores));
        let positions: Arc<[u32]> = self.segments.positions().into();
        let mut rerun = |tape: &mut Tape, block: usize, x| {
            decoder.block(tape, block, x, &positions, &mut Attend::Packed(self.segments.clone()))
        };
        tape.backward_from(&decoder.params, grads, &[(scores, &d_scores)], &mut rerun);
        tape.reset();
    }

    /// Comparison of the rows with a teacher's, without remembering anything.
    pub fn compare(&self, decoder: &Decoder, tape: &mut Tape, comparison: &Comparison) -> Compared {
        let h = self.hidden(decoder, tape);
        let found = divergence::forward(tape.value(h), decoder.params.weight(decoder.head()), comparison);
        tape.reset();
        found
    }

    /// Forward, comparison with a teacher, and backward of sum(d_divergence * divergence + d_logp * logp) into `grads`.
    pub fn train_compared(
        &self,
        decoder: &Decoder,
        tape: &mut Tape,
        grads: &mut Gradients,
        comparison: &Comparison,
        (d_divergence, d_logp): (f32, f32),
    ) -> Compared {
        let h = self.hidden(decoder, tape);
        let positions: Arc<[u32]> = self.segments.positions().into();
        let mut rerun = |tape: &mut Tape, block: usize, x| {
            decoder.block(tape, block, x, &positions, &mut Attend::Packed(self.segments.clone()))
        };
        let weights = [d_divergence, d_logp].map(|w| vec![w; self.targets.len()]);
        let end = (h, decoder.head());
        let weights = (&weights[0][..], &weights[1][..]);
        let found = tape.backward_compared(&decoder.params, grads, end, comparison, weights, &mut rerun);
        tape.reset();
        found
    }

    /// A teacher's most likely tokens for every row.
    pub fn top_k(&self, decoder: &Decoder, tape: &mut Tape, ask: Ask) -> TopK {
        let h = self.hidden(decoder, tape);
        let found = divergence::top_k(tape.value(h), decoder.params.weight(decoder.head()), ask);
        tape.reset();
        found
    }

    fn hidden(&self, decoder: &Decoder, tape: &mut Tape) -> aha_kernels::Var {
        let positions: Arc<[u32]> = self.segments.positions().into();
        let h = decoder.hidden(tape, &self.tokens, &positions, &mut Attend::Packed(self.segments.clone()));
        tape.select(h, &self.rows, decoder.config.hidden_size)
    }

    fn read(&self, decoder: &Decoder, tape: &Tape, h: aha_kernels::Var, temperature: f32) -> (Vec<f32>, Vec<f32>) {
        let (mut logp, mut entropy) = (vec![0.0; self.targets.len()], vec![0.0; self.targets.len()]);
        let head = decoder.params.weight(decoder.head());
        logprob::forward(&mut logp, &mut entropy, tape.value(h), head, &self.targets, temperature);
        (logp, entropy)
    }
}
