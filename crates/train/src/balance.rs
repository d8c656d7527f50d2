//! Balancing of routed experts without an auxiliary loss (DeepSeek-V3 section 2.1.2): a bias per expert, moved once per optimizer
//! step by the sign of its load's distance from the mean of the whole step; and what is reported of the loads.

use aha_kernels::{RoutingStats, router};
use aha_model::Decoder;

/// Settings of the balancing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Balance {
    /// Gamma: how far a bias moves at a step. The paper has 0.001.
    pub bias_update_speed: f64,
    /// Steps after which the biases stay; `None` never. The paper holds them for the last 3 % of its tokens.
    pub bias_update_steps: Option<u64>,
    /// Alpha of the sequence-wise balance loss. The paper has 0.0001.
    pub sequence_alpha: f64,
}

impl Default for Balance {
    fn default() -> Self {
        Balance { bias_update_speed: 1e-3, bias_update_steps: None, sequence_alpha: 1e-4 }
    }
}

impl Balance {
    /// Gamma of a step (from 0).
    pub fn speed(&self, step: u64) -> f64 {
        if self.bias_update_steps.is_some_and(|steps| step >= steps) { 0.0 } else { self.bias_update_speed }
    }
}

/// Moves the biases of all routed layers by the loads of a step; each by its own layer's.
pub fn update(model: &mut Decoder, routing: &RoutingStats, speed: f64) {
    if speed == 0.0 {
        return;
    }
    let layers: Vec<_> = model.routed_layers().into_iter().map(|(i, ids)| (i, ids.bias)).collect();
    for (layer, bias) in layers {
        if let Some(loads) = routing.loads.get(layer).filter(|l| !l.is_empty()) {
            router::update_bias(model.params.vector_mut(bias), loads, speed as f32);
        }
    }
}

/// The violation of balance (MaxVio: the busiest expert's load over the mean, minus 1, of the worst layer), the idlest expert's
/// share of the mean, and the balance loss; nothing for models without routed experts.
pub fn metrics(routing: &RoutingStats) -> Vec<(String, f64)> {
    if !routing.any() {
        return Vec::new();
    }
    vec![
        ("moe/max_violation".into(), routing.max_violation()),
        ("moe/coldest_expert".into(), routing.coldest()),
        ("moe/balance_loss".into(), routing.balance_loss),
    ]
}
