//! Fresh values of parameters: functions of the run's seed and the parameter's name alone.

/// How a fresh parameter begins.
#[derive(Clone, Copy, Debug)]
pub enum Init {
    /// All zero.
    Zero,
    /// All one.
    One,
    /// Normal with this standard deviation, from (seed, name).
    Normal {
        /// Standard deviation.
        std: f32,
        /// Run seed.
        seed: u64,
    },
    /// Even over -bound..bound, from (seed, name).
    Uniform {
        /// Largest magnitude.
        bound: f32,
        /// Run seed.
        seed: u64,
    },
}

impl Init {
    /// So many values for the parameter of this name.
    pub(crate) fn values(self, count: usize, name: &str) -> Vec<f32> {
        match self {
            Init::Zero => vec![0.0; count],
            Init::One => vec![1.0; count],
            Init::Normal { std, seed } => normal(count, std, seed, name),
            Init::Uniform { bound, seed } => {
                let mut next = uniform(seed, name);
                (0..count).map(|_| (2.0 * next() - 1.0) as f32 * bound).collect()
            }
        }
    }
}

/// Numbers in 0..1, a function of (seed, name) alone (splitmix64).
fn uniform(seed: u64, name: &str) -> impl FnMut() -> f64 + use<> {
    let mut state =
        name.bytes().fold(seed ^ 0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Standard normal values times `std`, a function of (seed, name) alone (Box-Muller).
pub fn normal(count: usize, std: f32, seed: u64, name: &str) -> Vec<f32> {
    let mut uniform = uniform(seed, name);
    let mut out = Vec::with_capacity(count + 1);
    while out.len() < count {
        let radius = (-2.0 * (1.0 - uniform()).ln()).sqrt();
        let angle = std::f64::consts::TAU * uniform();
        out.push((radius * angle.cos()) as f32 * std);
        out.push((radius * angle.sin()) as f32 * std);
    }
    out.truncate(count);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_init_depends_on_seed_and_name_only() {
        let a = normal(20_001, 0.5, 1, "w");
        assert_eq!(a, normal(20_001, 0.5, 1, "w"));
        assert_ne!(a, normal(20_001, 0.5, 2, "w"));
        assert_ne!(a, normal(20_001, 0.5, 1, "v"));
        let mean = a.iter().map(|v| f64::from(*v)).sum::<f64>() / a.len() as f64;
        let var = a.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / a.len() as f64;
        assert!(mean.abs() < 0.02 && (var.sqrt() - 0.5).abs() < 0.01, "{mean} {var}");
    }
}
