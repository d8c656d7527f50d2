//! Means, their errors, and the bootstrap.

/// The mean; `None` of nothing.
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// Standard error of the mean: `sqrt(sum (x - mean)^2 / (n - 1)) / sqrt(n)`; `None` for fewer than two values.
pub fn standard_error(values: &[f64]) -> Option<f64> {
    let n = values.len();
    if n < 2 {
        return None;
    }
    let centre = mean(values)?;
    let squares: f64 = values.iter().map(|value| (value - centre).powi(2)).sum();
    Some((squares / (n as f64 - 1.0) / n as f64).sqrt())
}

/// Percentile bootstrap interval of the mean at `level` (e.g. 0.95), drawing whole problems: `values` is one score per
/// problem. Draw `j` of resample `i` is a function of (`seed`, i, j). Percentiles are interpolated linearly.
///
/// `None` if there are no values or no resamples, or the level is not between 0 and 1.
pub fn bootstrap_interval(values: &[f64], level: f64, resamples: usize, seed: u64) -> Option<(f64, f64)> {
    if values.is_empty() || resamples == 0 || !(level > 0.0 && level < 1.0) {
        return None;
    }
    let n = values.len();
    let mut means: Vec<f64> = (0..resamples as u64)
        .map(|resample| {
            let draw = |j| values[((u128::from(random(seed, resample, j)) * n as u128) >> 64) as usize];
            (0..n as u64).map(draw).sum::<f64>() / n as f64
        })
        .collect();
    means.sort_by(f64::total_cmp);
    let tail = (1.0 - level) / 2.0;
    Some((percentile(&means, tail), percentile(&means, 1.0 - tail)))
}

/// The value below which `share` of the sorted values lie.
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let at = share * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    below + (above - below) * at.fract()
}

/// 64 random bits, a function of its arguments only: splitmix64's finaliser over each in turn.
pub(crate) fn random(seed: u64, stream: u64, index: u64) -> u64 {
    [stream, index].into_iter().fold(mix(seed), |state, word| mix(state ^ mix(word)))
}

fn mix(word: u64) -> u64 {
    let mut z = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hand_computed() {
        assert_eq!(mean(&[]), None);
        assert_eq!(standard_error(&[1.0]), None);
        assert_eq!(mean(&[0.0, 0.5, 1.0]), Some(0.5));
        // Variance (0.25 + 0 + 0.25) / 2 = 0.25, over 3 values.
        assert!((standard_error(&[0.0, 0.5, 1.0]).unwrap() - (0.25_f64 / 3.0).sqrt()).abs() < 1e-15);
        assert_eq!(standard_error(&[0.5, 0.5]), Some(0.0));
    }

    #[test]
    fn percentiles_interpolate() {
        let sorted = [0.0, 1.0, 2.0, 3.0, 4.0];
        assert_eq!(percentile(&sorted, 0.5), 2.0);
        assert_eq!(percentile(&sorted, 0.125), 0.5);
        assert_eq!(percentile(&[7.0], 0.9), 7.0);
    }

    #[test]
    fn the_bootstrap_agrees_with_the_normal_interval_and_with_itself() {
        let values: Vec<f64> = (0..200).map(|i| (random(1, 0, i) >> 11) as f64 / (1u64 << 53) as f64).collect();
        let (low, high) = bootstrap_interval(&values, 0.95, 2000, 3).unwrap();
        let (centre, error) = (mean(&values).unwrap(), standard_error(&values).unwrap());
        assert!((low - (centre - 1.96 * error)).abs() < 0.2 * error, "{low} {centre} {error}");
        assert!((high - (centre + 1.96 * error)).abs() < 0.2 * error, "{high} {centre} {error}");
        assert_eq!(bootstrap_interval(&values, 0.95, 2000, 3), Some((low, high)));
        assert_ne!(bootstrap_interval(&values, 0.95, 2000, 4), Some((low, high)));
        assert_eq!(bootstrap_interval(&[0.25], 0.9, 10, 0), Some((0.25, 0.25)));
        assert_eq!(bootstrap_interval(&[], 0.9, 10, 0), None);
        assert_eq!(bootstrap_interval(&[1.0], f64::NAN, 10, 0), None);
    }
}
