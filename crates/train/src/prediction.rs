//! Multi-token prediction (DeepSeek-V3 section 2.2): module k predicts the token k + 2 places on, from the hidden states of the
//! module before it and the embedding of the token k + 1 places on. Its loss is added with weight lambda / D.

use crate::PackedBatch;
use aha_kernels::{Attend, Gradients, LossHead, Segments, Tape, Var, logprob};
use aha_model::Decoder;
use std::sync::Arc;

/// Lambda over the steps: one weight, and another from some step on. The paper has 0.3, then 0.1 for the last third.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PredictionWeight {
    /// Weight at the beginning.
    pub weight: f64,
    /// Step from which `later` holds, and the weight then.
    pub later: Option<(u64, f64)>,
}

impl PredictionWeight {
    /// Lambda of a step (from 0).
    pub fn at(&self, step: u64) -> f64 {
        self.later.filter(|(from, _)| step >= *from).map_or(self.weight, |(_, weight)| weight)
    }
}

/// Inputs of one module: which rows of the one before it, their tokens, their places.
struct Shifted {
    rows: Arc<[u32]>,
    tokens: Arc<[u32]>,
    positions: Arc<[u32]>,
    segments: Arc<Segments>,
    /// Rows that have a token to predict, and those tokens.
    predicting: Arc<[u32]>,
    targets: Vec<u32>,
}

impl Shifted {
    /// For module `k` of packed `tokens`: a row for every token that has another k + 1 places on.
    fn new(tokens: &[u32], segments: &Segments, k: usize) -> Self {
        let lengths: Vec<usize> = (0..segments.len()).map(|i| segments.range(i).len()).collect();
        let (mut rows, mut next, mut positions) = (Vec::new(), Vec::new(), Vec::new());
        let (mut predicting, mut targets) = (Vec::new(), Vec::new());
        let mut before = 0;
        for (i, length) in lengths.iter().enumerate() {
            let of = &tokens[segments.range(i)];
            for p in 0..length.saturating_sub(k + 1) {
                if p + k + 2 < *length {
                    predicting.push(rows.len() as u32);
                    targets.push(of[p + k + 2]);
                }
                rows.push((before + p) as u32);
                next.push(of[p + k + 1]);
                positions.push(p as u32);
            }
            before += length.saturating_sub(k);
        }
        let segments = Segments::from_lengths(lengths.iter().map(|l| l.saturating_sub(k + 1)));
        Shifted {
            rows: rows.into(),
            tokens: next.into(),
            positions: positions.into(),
            segments: Arc::new(segments),
            predicting: predicting.into(),
            targets,
        }
    }
}

/// Log-probabilities of targets.
fn logprobs(decoder: &Decoder, tape: &Tape, h: Var, targets: &[u32]) -> Vec<f32> {
    let (mut logp, mut entropy) = (vec![0.0; targets.len()], vec![0.0; targets.len()]);
    logprob::forward(&mut logp, &mut entropy, tape.value(h), decoder.params.weight(decoder.head()), targets, 1.0);
    logp
}

fn negative_sum(logp: &[f32]) -> f64 {
    -logp.iter().map(|v| f64::from(*v)).sum::<f64>()
}

impl PackedBatch {
    /// Forward and backward of the next-token loss, and of the prediction modules' with `weight` (lambda), both divided by
    /// `count`. Returns the two losses, the second one without its weight and averaged over modules.
    pub fn train_predicting(
        &self,
        decoder: &Decoder,
        tape: &mut Tape,
        grads: &mut Gradients,
        count: f64,
        weight: f64,
    ) -> (f64, f64) {
        let positions: Arc<[u32]> = self.segments.positions().into();
        let width = decoder.config.hidden_size;
        let trunk = decoder.trunk(tape, &self.tokens, &positions, &mut Attend::Packed(self.segments.clone()));
        let h = decoder.final_norm(tape, trunk);
        let h = tape.select(h, &self.rows, width);
        let mut losses = (negative_sum(&logprobs(decoder, tape, h, &self.targets)) / count, 0.0);
        let modules = if weight > 0.0 { decoder.prediction_modules() } else { 0 };
        let shifted: Vec<Shifted> = (0..modules)
            .map(|k| Shifted::new(&self.tokens, &self.segments, k))
            .take_while(|s| !s.targets.is_empty())
            .collect();
        let mut hidden = trunk;
        let mut heads = vec![h];
        for (k, s) in shifted.iter().enumerate() {
            let rows = tape.select(hidden, &s.rows, width);
            hidden = decoder.module(tape, k, rows, &s.tokens, &s.positions, &mut Attend::Packed(s.segments.clone()));
            let predicting = tape.select(hidden, &s.predicting, width);
            let h = decoder.module_norm(tape, k, predicting);
            losses.1 += negative_sum(&logprobs(decoder, tape, h, &s.targets)) / count / modules as f64;
            heads.push(h);
        }
        let gradient = |n: usize, weight: f64| vec![(-weight / count) as f32; n];
        let main = gradient(self.targets.len(), 1.0);
        let further: Vec<Vec<f32>> =
            shifted.iter().map(|s| gradient(s.targets.len(), weight / modules as f64)).collect();
        let targets = std::iter::once(&self.targets).chain(shifted.iter().map(|s| &s.targets));
        let d_logp = std::iter::once(&main).chain(&further);
        let heads: Vec<LossHead> = heads
            .into_iter()
            .zip(targets.zip(d_logp))
            .map(|(h, (targets, d_logp))| LossHead { h, head: decoder.head(), targets, temperature: 1.0, d_logp })
            .collect();
        let layers = decoder.config.num_hidden_layers;
        let mut rerun = |tape: &mut Tape, block: usize, x| {
            let (positions, segments) = match block.checked_sub(layers) {
                None => (&positions, &self.segments),
                Some(k) => (&shifted[k].positions, &shifted[k].segments),
            };
            decoder.block(tape, block, x, positions, &mut Attend::Packed(segments.clone()))
        };
        tape.backward_heads(&decoder.params, grads, &heads, &mut rerun);
        tape.reset();
        losses
    }
}
