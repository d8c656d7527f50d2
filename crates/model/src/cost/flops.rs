//! Arithmetic per token. A multiply-add is two FLOPs.
//!
//! forward = 2 x (parameters in matrices a token meets) + attention; attention = 2 x layers x heads x (query width + value
//! width) x keys seen, and in causal training over sequences of T tokens a token sees (T + 1) / 2 keys on average. The
//! backward makes two products for each of the forward, so training = 3 x forward. Recomputation for memory is not counted
//! (model FLOPs, as in "MFU" of PaLM's appendix B). Norms, rotations, soft-max and the optimizer are below a percent.

use super::shape::{Attention, Shape};

/// FLOPs of one token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Flops {
    /// Products with weights, forward.
    pub matrices: f64,
    /// Scores and weighted sums of attention, forward.
    pub attention: f64,
    /// Both for the multi-token-prediction modules, output head included; only training runs them.
    pub mtp: f64,
}

impl Flops {
    /// Forward without multi-token prediction.
    pub fn forward(&self) -> f64 {
        self.matrices + self.attention
    }

    /// Training without multi-token prediction: what "model FLOPs" usually count.
    pub fn training(&self) -> f64 {
        3.0 * self.forward()
    }

    /// Training with multi-token prediction.
    pub fn training_with_mtp(&self) -> f64 {
        3.0 * (self.forward() + self.mtp)
    }
}

/// FLOPs per token in sequences of `sequence_length` tokens, causal.
pub fn flops(shape: &Shape, sequence_length: u64) -> Flops {
    let keys = (sequence_length as f64 + 1.0) / 2.0;
    let multiplied: u64 = shape.parts().iter().map(|p| p.multiplied).sum();
    let layer = 2.0 * shape.heads as f64 * widths(shape) as f64 * keys;
    let mtp = shape.mtp();
    let head = shape.mtp_layers * shape.vocab_size * shape.hidden_size;
    Flops {
        matrices: 2.0 * multiplied as f64,
        attention: shape.layers as f64 * layer,
        mtp: 2.0 * (mtp.multiplied + head) as f64 + shape.mtp_layers as f64 * layer,
    }
}

/// Query/key width plus value width of one head.
fn widths(shape: &Shape) -> u64 {
    match shape.attention {
        Attention::Grouped { head_dim, .. } => 2 * head_dim,
        Attention::Latent { nope_dim, rope_dim, value_dim, .. } => nope_dim + rope_dim + value_dim,
    }
}
