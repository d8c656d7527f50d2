//! Activations in whole numbers: blocks of 32 values, a scale for each, sums for the weights' offsets.

use super::BLOCK;
use crate::par::{self, Shared};

/// Values from which filling is shared between threads.
const GRAIN: usize = 1 << 14;

/// Rows of activations, block by block: the rows' first blocks, then their second ones.
#[derive(Default)]
pub(super) struct Activations {
    rows: usize,
    /// `[blocks][rows][32]`.
    x: Vec<i8>,
    /// `[blocks][rows]`.
    scale: Vec<f32>,
    /// Minus the sum of the rounded values of the first half, the second half and the block, `[blocks][rows][3]`.
    minus: Vec<f32>,
}

impl Activations {
    /// Rounds rows `[m, k]`, k a multiple of 32.
    pub(super) fn fill(&mut self, x: &[f32], k: usize) {
        let (rows, blocks) = (x.len() / k, k / BLOCK);
        self.rows = rows;
        self.x.resize(x.len(), 0);
        self.scale.resize(x.len() / BLOCK, 0.0);
        self.minus.resize(3 * x.len() / BLOCK, 0.0);
        let (to, scale, minus) = (Shared::new(&mut self.x), Shared::new(&mut self.scale), Shared::new(&mut self.minus));
        par::ranges(rows, GRAIN.div_ceil(k), |range| {
            for r in range {
                for (b, x) in x[r * k..(r + 1) * k].chunks_exact(BLOCK).enumerate().take(blocks) {
                    let at = b * rows + r;
                    // SAFETY: each task owns its rows.
                    unsafe {
                        let x: &[f32; BLOCK] = x.try_into().expect("blocks are whole");
                        let to = to.slice(at * BLOCK, BLOCK).try_into().expect("as long");
                        let minus = minus.slice(3 * at, 3).try_into().expect("two halves and the whole");
                        round_block(to, &mut scale.slice(at, 1)[0], minus, x);
                    }
                }
            }
        });
    }

    /// The whole numbers of a block of row `r`; the next rows' follow.
    pub(super) fn block(&self, block: usize, r: usize) -> &[i8] {
        &self.x[(block * self.rows + r) * BLOCK..]
    }

    /// What one whole number of a block of row `r` stands for; the next rows' follow.
    pub(super) fn scale(&self, block: usize, r: usize) -> &[f32] {
        &self.scale[block * self.rows + r..]
    }

    /// Minus the sum of the values that meet one group of weights (half a block or a whole one); the next rows' follow three
    /// apart.
    pub(super) fn minus(&self, block: usize, r: usize, half: usize, halves: usize) -> &[f32] {
        &self.minus[(block * self.rows + r) * 3 + if halves == 1 { 2 } else { half }..]
    }
}

crate::multiversion! {
    fn round_block(to: &mut [i8; BLOCK], scale: &mut f32, minus: &mut [f32; 3], x: &[f32; BLOCK]) -> () {
        let mut lanes = [0f32; 16];
        for c in x.chunks_exact(16) {
            for i in 0..16 { let a = c[i].abs(); lanes[i] = if a > lanes[i] { a } else { lanes[i] }; }
        }
        let most = lanes.iter().fold(0.0, |m, &v| if v > m { v } else { m });
        *scale = most / 127.0;
        let inverse = if most > 0.0 { 127.0 / most } else { 0.0 };
        // Adding 1.5 x 2^23 rounds to nearest even and leaves the whole number in the low bits.
        for (t, v) in to.iter_mut().zip(x) { *t = (*v * inverse + 12_582_912.0).to_bits() as u8 as i8; }
        let sum = |half: &[i8]| half.iter().map(|v| i32::from(*v)).sum::<i32>();
        let (first, second) = (sum(&to[..BLOCK / 2]), sum(&to[BLOCK / 2..]));
        *minus = [first, second, first + second].map(|sum| -(sum as f32 * *scale));
    }
}
