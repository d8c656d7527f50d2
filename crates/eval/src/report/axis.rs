//! Scales and ticks: which part of a number line to show, and where to mark it.

/// A stretch of numbers with evenly spaced marks.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Axis {
    pub low: f64,
    pub high: f64,
    pub ticks: Vec<(f64, String)>,
}

impl Axis {
    /// An axis that holds all values, with about `wanted` ticks at 1, 2 or 5 times a power of ten. Values must be finite.
    /// Where the values come near 0 it starts at 0; shares that come near 1 end at 1.
    pub fn around(values: impl Iterator<Item = f64> + Clone, wanted: usize) -> Self {
        let low = values.clone().fold(f64::INFINITY, f64::min);
        let high = values.fold(f64::NEG_INFINITY, f64::max);
        if low > high {
            return Self::between(0.0, 1.0, wanted);
        }
        let is_share = low >= 0.0 && high <= 1.0;
        let span = if high > low { high - low } else { (high.abs() * 0.2).max(if high == 0.0 { 1.0 } else { 1e-12 }) };
        let mut from = low - 0.06 * span;
        let mut to = high + 0.06 * span;
        if low >= 0.0 && (from < 0.0 || low < 0.4 * high) {
            from = 0.0;
        }
        if high <= 0.0 && to > 0.0 {
            to = 0.0;
        }
        if is_share && (to > 1.0 || high > 0.8) {
            to = 1.0;
        }
        if from >= to {
            to = from + 1.0;
        }
        Self::between(from, to, wanted)
    }

    /// An axis with exactly these ends.
    pub fn between(low: f64, high: f64, wanted: usize) -> Self {
        let step = tick_step((high - low) / wanted.max(1) as f64);
        let first = (low / step - 1e-6).ceil() as i64;
        let last = (high / step + 1e-6).floor() as i64;
        let largest = low.abs().max(high.abs());
        let ticks = (first..=last)
            .take(4 * wanted.max(1) + 2)
            .map(|i| (i as f64 * step, label(i as f64 * step, step, largest)))
            .collect();
        Self { low, high, ticks }
    }

    /// An axis for steps: from the first to the last, with ticks at whole numbers where the values are whole.
    pub fn along(values: impl Iterator<Item = f64> + Clone, wanted: usize) -> Self {
        let low = values.clone().fold(f64::INFINITY, f64::min);
        let high = values.fold(f64::NEG_INFINITY, f64::max);
        if low > high {
            Self::between(0.0, 1.0, 1)
        } else if low == high {
            Self { low: low - 1.0, high: low + 1.0, ticks: vec![(low, label(low, 1.0, low.abs()))] }
        } else {
            // Steps are counted from 1, but a reader looks for 0.
            Self::between(if low > 0.0 && low < 0.1 * high { 0.0 } else { low }, high, wanted)
        }
    }

    /// Where a value lies between the ends, 0 to 1.
    pub fn at(&self, value: f64) -> f64 {
        (value - self.low) / (self.high - self.low)
    }
}

/// The number nearest to `wanted`, as a factor, among 1, 2 and 5 times a power of ten.
fn tick_step(wanted: f64) -> f64 {
    let power = 10_f64.powf(wanted.log10().floor());
    let off = |factor: f64| (factor * power / wanted).ln().abs();
    let nearest = [1.0, 2.0, 5.0, 10.0].into_iter().min_by(|a, b| off(*a).total_cmp(&off(*b)));
    nearest.unwrap_or(1.0) * power
}

fn label(value: f64, step: f64, largest: f64) -> String {
    if value.abs() < step * 1e-6 {
        return "0".to_owned();
    }
    let decimals = |step: f64| (-(step.log10() + 1e-9).floor()).clamp(0.0, 12.0) as usize;
    let text = if largest >= 1e9 || (largest < 1e-3 && step < 1e-3) {
        format!("{value:.0e}")
    } else if largest >= 1e6 {
        format!("{:.*}M", decimals(step / 1e6), value / 1e6)
    } else if largest >= 1e4 {
        format!("{:.*}k", decimals(step / 1e3), value / 1e3)
    } else {
        format!("{value:.*}", decimals(step))
    };
    text.replacen('-', "−", usize::from(value < 0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|tick| tick.1.as_str()).collect()
    }

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(labels(&Axis::between(0.0, 1.0, 5)), ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(labels(&Axis::between(-0.3, 0.31, 4)), ["−0.2", "0", "0.2"]);
        assert_eq!(labels(&Axis::between(0.0, 25_000.0, 5)), ["0", "5k", "10k", "15k", "20k", "25k"]);
        assert_eq!(labels(&Axis::between(0.0, 3e-6, 3)), ["0", "1e-6", "2e-6", "3e-6"]);
        assert_eq!(labels(&Axis::between(44.0, 62.0, 4)), ["45", "50", "55", "60"]);
    }

    #[test]
    fn shares_end_at_one_and_small_values_start_at_zero() {
        let axis = Axis::around([0.1, 0.95].into_iter(), 4);
        assert_eq!((axis.low, axis.high), (0.0, 1.0));
        let axis = Axis::around([44.0, 62.0].into_iter(), 4);
        assert!(axis.low > 40.0 && axis.low < 44.0 && axis.high > 62.0);
        let axis = Axis::around([-0.5, -0.1].into_iter(), 4);
        assert!(axis.low < -0.5 && axis.high <= 0.0);
    }

    #[test]
    fn any_finite_values_give_a_finite_axis() {
        let cases: [&[f64]; 9] =
            [&[], &[0.0], &[1.0], &[-7.0], &[1e-30], &[3e99, -3e99], &[0.1; 4], &[1e15, 1e15 + 1.0], &[-1e-300, 0.0]];
        for values in cases {
            for axis in [Axis::around(values.iter().copied(), 4), Axis::along(values.iter().copied(), 5)] {
                assert!(axis.low < axis.high, "{values:?} {axis:?}");
                assert!(axis.ticks.len() < 25, "{values:?} {axis:?}");
                for value in values {
                    let at = axis.at(*value);
                    assert!((-1e-9..=1.0 + 1e-9).contains(&at), "{values:?} {axis:?} {at}");
                }
            }
        }
    }
}
