//! What a training tape counts while tokens are routed.

use crate::router;

/// Loads of the experts per routed layer, and the balance loss, over everything since the last reset.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RoutingStats {
    /// `[layers, E]` tokens that chose each expert, by the layer's number.
    pub loads: Vec<Vec<u64>>,
    /// Sum over layers of the sequence-wise balance loss, with its factor.
    pub balance_loss: f64,
}

impl RoutingStats {
    /// Counts a layer's choices.
    pub(super) fn count(&mut self, layer: usize, loads: impl Iterator<Item = u64>) {
        if self.loads.len() <= layer {
            self.loads.resize(layer + 1, Vec::new());
        }
        let of = &mut self.loads[layer];
        for (e, load) in loads.enumerate() {
            if of.len() <= e {
                of.push(0);
            }
            of[e] += load;
        }
    }

    /// Adds what another tape counted.
    pub fn add(&mut self, other: &RoutingStats) {
        for (layer, loads) in other.loads.iter().enumerate() {
            self.count(layer, loads.iter().copied());
        }
        self.balance_loss += other.balance_loss;
    }

    /// Forgets everything.
    pub fn reset(&mut self) {
        self.loads.clear();
        self.balance_loss = 0.0;
    }

    /// The largest violation of balance of any layer: load of its busiest expert over the mean, minus 1 (MaxVio).
    pub fn max_violation(&self) -> f64 {
        self.loads.iter().map(|l| router::max_violation(l)).fold(0.0, f64::max)
    }

    /// The smallest share of the mean load that any expert of any layer has.
    pub fn coldest(&self) -> f64 {
        self.loads.iter().filter(|l| l.iter().any(|n| *n > 0)).map(|l| router::coldest(l)).fold(f64::INFINITY, f64::min)
    }

    /// Whether anything was routed.
    pub fn any(&self) -> bool {
        self.loads.iter().flatten().any(|n| *n > 0)
    }
}
