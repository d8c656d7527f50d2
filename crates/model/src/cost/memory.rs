//! Memory in bytes: of weights, gradients and optimizer under a precision policy, of activations, of the cache.
//!
//! Nothing is divided by the number of GPUs: what one of them holds depends on how the model is cut.

use super::shape::{Attention, Shape};

/// Bytes per parameter, and per kept activation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Policy {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it is.
    pub what: &'static str,
    /// Weights as products read them.
    pub weights: f64,
    /// Master copy, 0 where the weights are it.
    pub master: f64,
    /// Gradients.
    pub gradients: f64,
    /// Both moments.
    pub moments: f64,
    /// A value kept for the backward.
    pub activation: f64,
    /// A value of the key/value cache.
    pub cache: f64,
}

impl Policy {
    /// All policies: plain f32; the usual bf16 mixture (f32 master, gradients and moments); the same where memory is short;
    /// V3's (spec A.9: FP8 products and kept inputs of linear layers, f32 master and gradients, bf16 moments).
    pub const ALL: [Policy; 4] = [
        Policy {
            name: "f32",
            what: "weights, gradients, moments and activations in f32",
            weights: 4.0,
            master: 0.0,
            gradients: 4.0,
            moments: 8.0,
            activation: 4.0,
            cache: 4.0,
        },
        Policy {
            name: "bf16",
            what: "bf16 weights and activations; f32 master copy, gradients and moments",
            weights: 2.0,
            master: 4.0,
            gradients: 4.0,
            moments: 8.0,
            activation: 2.0,
            cache: 2.0,
        },
        Policy {
            name: "lean",
            what: "master_weights and gradients = \"bf16\", moments = \"8bit\": bf16 weights without a copy, bf16 activations",
            weights: 2.0,
            master: 0.0,
            gradients: 2.0,
            // A byte each, and an f32 scale each for every 256 of them.
            moments: 2.0 + 8.0 / 256.0,
            activation: 2.0,
            cache: 2.0,
        },
        Policy {
            name: "fp8",
            what: "DeepSeek-V3: FP8 weights and kept activations, f32 master copy and gradients, bf16 moments and cache",
            weights: 1.0,
            master: 4.0,
            gradients: 4.0,
            moments: 4.0,
            activation: 1.0,
            cache: 2.0,
        },
    ];
}

/// Bytes of a training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Memory {
    /// Weights as products read them.
    pub weights: f64,
    /// The f32 copy that the optimizer changes.
    pub master: f64,
    /// Gradients.
    pub gradients: f64,
    /// First and second moments.
    pub moments: f64,
    /// Values kept for the backward.
    pub activations: f64,
}

impl Memory {
    /// Everything.
    pub fn total(&self) -> f64 {
        self.weights + self.master + self.gradients + self.moments + self.activations
    }
}

/// Values a token leaves for the backward in one layer with the dense MLP and in one of experts, flash attention assumed:
/// the inputs of every product and norm.
pub fn kept_per_layer(shape: &Shape) -> (u64, u64) {
    let (d, n) = (shape.hidden_size, shape.heads);
    let attention = match shape.attention {
        Attention::Grouped { kv_heads, head_dim, .. } => (2 * n + 2 * kv_heads) * head_dim,
        Attention::Latent { q_lora_rank, kv_lora_rank, nope_dim, rope_dim, value_dim } => {
            let latent = 2 * q_lora_rank.unwrap_or(0) + 2 * kv_lora_rank + rope_dim;
            latent + n * (2 * (nope_dim + rope_dim) + 2 * value_dim)
        }
    };
    // Two residual inputs and their norms; gate, up and their product.
    let dense = 4 * d + attention + 3 * shape.intermediate_size;
    let experts = shape
        .experts
        .as_ref()
        .map_or(0, |e| 4 * d + attention + e.per_token * d + (e.per_token + e.shared) * 3 * e.width + 2 * e.routed);
    (dense, experts)
}

/// Memory of training with `tokens` in flight; with `checkpointing` layers keep their inputs and one is open at a time.
pub fn training(shape: &Shape, policy: &Policy, tokens: u64, checkpointing: bool) -> Memory {
    let n = (shape.num_parameters().0 + shape.mtp().total) as f64;
    let (dense, experts) = kept_per_layer(shape);
    let (dense_layers, expert_layers) = shape.dense_and_expert_layers();
    let expert_layers = expert_layers + if shape.experts.is_some() { shape.mtp_layers } else { 0 };
    let per_token = if checkpointing {
        shape.layers * shape.hidden_size + dense.max(experts)
    } else {
        dense_layers * dense + expert_layers * experts
    };
    Memory {
        weights: n * policy.weights,
        master: n * policy.master,
        gradients: n * policy.gradients,
        moments: n * policy.moments,
        activations: tokens as f64 * per_token as f64 * policy.activation,
    }
}

/// Bytes of the key/value cache per token: keys and values of every head, or V3's latent and rotary key.
pub fn cache_bytes_per_token(shape: &Shape, policy: &Policy) -> f64 {
    let values = match shape.attention {
        Attention::Grouped { kv_heads, head_dim, .. } => 2 * kv_heads * head_dim,
        Attention::Latent { kv_lora_rank, rope_dim, .. } => kv_lora_rank + rope_dim,
    };
    (shape.layers * values) as f64 * policy.cache
}
