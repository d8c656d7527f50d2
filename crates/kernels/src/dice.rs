//! Random bits for stochastic rounding: a function of what is rounded alone, so that a run repeats bit for bit on any number of
//! threads.

/// What of a parameter is rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounded {
    /// The first moment.
    First,
    /// The second moment.
    Second,
    /// The gradient.
    Gradient,
    /// The weight itself.
    Weight,
}

/// What the random bits of a rounding depend on.
#[derive(Clone, Copy, Debug)]
pub struct Noise {
    /// Seed of the run.
    pub seed: u64,
    /// The optimizer's step, counted from 1; of a gradient how often it was added to in this step.
    pub step: u64,
    /// Number of the parameter.
    pub parameter: usize,
    /// What of the parameter is rounded.
    pub what: Rounded,
    /// Index of the first value rounded.
    pub first: usize,
}

/// Where random bits come from: a hash of index and key, of which `mask` is kept and `fixed` set.
pub(crate) struct Dice {
    key: [u32; 2],
    first: u32,
    mask: u32,
    fixed: u32,
}

impl Dice {
    /// Half a unit always: rounds to nearest.
    pub(crate) const NEAREST: Dice = Dice { key: [0; 2], first: 0, mask: 0, fixed: 1 << 31 };

    pub(crate) fn of(noise: Noise) -> Self {
        let first = noise.first as u64;
        let words = [noise.seed, noise.step, noise.parameter as u64, (first >> 32) << 2 | noise.what as u64];
        // The finaliser of splitmix64 (Steele et al. 2014) after each word.
        let key = words.into_iter().fold(0u64, |key, word| {
            let mut x = (key ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
            x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            x ^ x >> 31
        });
        Dice { key: [key as u32, (key >> 32) as u32], first: first as u32, mask: u32::MAX, fixed: 0 }
    }

    /// Two rounds of multiply and xorshift (the constants of Wellons' lowbias32), with half of the key before each, and
    /// `salt` before the second; the upper bits are the best.
    #[inline(always)]
    fn mix(&self, at: usize, salt: u32) -> u32 {
        let mut x = self.first.wrapping_add(at as u32) ^ self.key[0];
        x = (x ^ x >> 16).wrapping_mul(0x7feb_352d) ^ self.key[1] ^ salt;
        (x ^ x >> 15).wrapping_mul(0x846c_a68b)
    }

    /// Random bits of the value `at` places after the first; the upper ones are the best.
    #[inline(always)]
    pub(crate) fn roll(&self, at: usize) -> u32 {
        self.mix(at, 0) & self.mask | self.fixed
    }

    /// A value as bf16, up or down with a chance that keeps its mean. The bits depend on the value, too: the same place is
    /// rounded another way in the next step.
    #[inline(always)]
    pub(crate) fn round(&self, at: usize, value: f32) -> u16 {
        let bits = value.to_bits();
        let random = self.mix(at, bits) >> 16;
        let rounded = if value.is_nan() { bits | 0x0040_0000 } else { bits.wrapping_add(random) };
        (rounded >> 16) as u16
    }
}
