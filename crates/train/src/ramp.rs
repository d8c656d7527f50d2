//! The batch size over the steps: constant, or growing over the first tokens of a pretraining as DeepSeek-V3's (technical
//! report, 4.2: 3072 to 15360 sequences over the first 469 B of 14.8 T tokens).
//!
//! The size is a function of the step alone: it grows in a straight line with the tokens of the steps before (as asked for,
//! not as packed), in whole rows.

/// A batch size over the steps.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchRamp {
    /// Sizes of the steps before the last size is reached.
    growing: Vec<usize>,
    end: usize,
}

impl BatchRamp {
    /// The same number of tokens in every step.
    pub fn constant(tokens: usize) -> Self {
        BatchRamp { growing: Vec::new(), end: tokens }
    }

    /// From `start` to `end` tokens over `ramp_tokens`, in multiples of `row`.
    pub fn new(start: usize, end: usize, ramp_tokens: u64, row: usize) -> Self {
        let row = row.max(1);
        let (mut growing, mut done) = (Vec::new(), 0u64);
        while start < end && done < ramp_tokens {
            let grown = (end - start) as f64 * (done as f64 / ramp_tokens as f64);
            let size = ((start as f64 + grown) as usize / row * row).max(row);
            growing.push(size);
            done += size as u64;
        }
        BatchRamp { growing, end }
    }

    /// Tokens of a step, counted from 0.
    pub fn at(&self, step: u64) -> usize {
        usize::try_from(step).ok().and_then(|s| self.growing.get(s)).copied().unwrap_or(self.end)
    }

    /// The largest step.
    pub fn largest(&self) -> usize {
        self.end
    }

    /// Steps that `tokens` take, the last one whole.
    pub fn steps(&self, tokens: u64) -> u64 {
        let mut left = tokens;
        for (i, size) in self.growing.iter().enumerate() {
            if left <= *size as u64 {
                return i as u64 + 1;
            }
            left -= *size as u64;
        }
        self.growing.len() as u64 + left.div_ceil(self.end as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_in_a_straight_line_of_tokens_and_stays() {
        let ramp = BatchRamp::new(1000, 5000, 100_000, 100);
        let mut tokens = 0;
        for step in 0..200 {
            let size = ramp.at(step);
            let line = 1000.0 + 4000.0 * (tokens as f64 / 100_000.0).min(1.0);
            assert!(
                size.is_multiple_of(100) && (line - size as f64) >= 0.0 && (line - size as f64) < 100.0,
                "{step}: {size}"
            );
            tokens += size;
        }
        assert_eq!((ramp.at(0), ramp.at(10_000), ramp.largest()), (1000, 5000, 5000));
        // Steps for a number of tokens: the smallest whose sizes add up to it.
        for wanted in [1, 1000, 1001, 50_000, 100_000, 1_000_000] {
            let steps = ramp.steps(wanted);
            let sum = |n: u64| (0..n).map(|s| ramp.at(s) as u64).sum::<u64>();
            assert!(sum(steps) >= wanted && sum(steps - 1) < wanted, "{wanted}: {steps}");
        }
        let same = BatchRamp::constant(4096);
        assert_eq!((same.at(0), same.steps(4097)), (4096, 2));
        assert_eq!(BatchRamp::new(4096, 4096, 10, 512), same);
    }
}
