//! Rotary position embedding, half-split pairing (elements i and i + H/2 form a pair), as Llama and Qwen use it.

use crate::multiversion;
use crate::par::{self, Shared};
use std::sync::OnceLock;

const CHUNK: usize = 512;

/// Cosines and sines per position, made when first asked for.
#[derive(Debug)]
pub struct Rope {
    inv_freq: Vec<f32>,
    chunks: Vec<OnceLock<Vec<f32>>>,
}

impl Rope {
    /// For positions below `max_positions`; `inv_freq` `[H/2]`.
    pub fn new(inv_freq: Vec<f32>, max_positions: usize) -> Self {
        Rope { inv_freq, chunks: (0..max_positions.div_ceil(CHUNK)).map(|_| OnceLock::new()).collect() }
    }

    /// Positions it can rotate.
    pub fn max_positions(&self) -> usize {
        self.chunks.len() * CHUNK
    }

    /// `[cos H/2 | sin H/2]` of a position.
    fn table(&self, position: usize) -> &[f32] {
        let half = self.inv_freq.len();
        let chunk = self.chunks[position / CHUNK].get_or_init(|| {
            let first = position / CHUNK * CHUNK;
            (first..first + CHUNK)
                .flat_map(|p| {
                    let angles = self.inv_freq.iter().map(move |f| p as f32 * f);
                    angles.clone().map(f32::cos).chain(angles.map(f32::sin))
                })
                .collect()
        });
        &chunk[position % CHUNK * 2 * half..][..2 * half]
    }

    /// Rotates x `[T, heads*H]` in place by its positions; `sign` -1 rotates back, which is the backward.
    pub fn apply(&self, x: &mut [f32], positions: &[u32], sign: f32) {
        let half = self.inv_freq.len();
        let width = x.len() / positions.len().max(1);
        let out = Shared::new(x);
        par::ranges(positions.len(), (1_usize << 14).div_ceil(width.max(1)), |rows| {
            for t in rows {
                let (cos, sin) = self.table(positions[t] as usize).split_at(half);
                // SAFETY: each task owns its rows.
                let row = unsafe { out.slice(t * width, width) };
                for head in row.chunks_exact_mut(2 * half) {
                    let (a, b) = head.split_at_mut(half);
                    rotate(a, b, cos, sin, sign);
                }
            }
        });
    }
}

multiversion! {
    fn rotate(a: &mut [f32], b: &mut [f32], cos: &[f32], sin: &[f32], sign: f32) -> () {
        for (((a, b), cos), sin) in a.iter_mut().zip(b.iter_mut()).zip(cos).zip(sin) {
            let (x, y, sin) = (*a, *b, *sin * sign);
            *a = x * *cos - y * sin;
            *b = y * *cos + x * sin;
        }
    }
}
