//! Rotary position embedding. Half-split pairing (elements i and i + H/2 form a pair), as Llama and Qwen use it, or
//! interleaved pairing (2i and 2i + 1) on a part of every head, as DeepSeek uses it.

use crate::multiversion;
use crate::par::{self, Shared};
use std::sync::OnceLock;

const CHUNK: usize = 512;

/// Cosines and sines per position, made when first asked for.
#[derive(Debug)]
pub struct Rope {
    inv_freq: Vec<f32>,
    /// Factor on cosines and sines (YaRN's attention factor).
    factor: f32,
    chunks: Vec<OnceLock<Vec<f32>>>,
}

impl Rope {
    /// For positions below `max_positions`; `inv_freq` `[H/2]`.
    pub fn new(inv_freq: Vec<f32>, max_positions: usize) -> Self {
        Self::scaled(inv_freq, 1.0, max_positions)
    }

    /// The same with a factor on every cosine and sine.
    pub fn scaled(inv_freq: Vec<f32>, factor: f32, max_positions: usize) -> Self {
        Rope { inv_freq, factor, chunks: (0..max_positions.div_ceil(CHUNK)).map(|_| OnceLock::new()).collect() }
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
                    let factor = self.factor;
                    angles.clone().map(move |a| a.cos() * factor).chain(angles.map(move |a| a.sin() * factor))
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

/// Where the rotated elements of a head lie: the last ones of `width`, in which pairing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RopePart {
    /// Width of a head, the elements that are not rotated included.
    pub width: usize,
    /// Pairs (2i, 2i + 1) instead of (i, i + H/2).
    pub interleaved: bool,
}

impl Rope {
    /// Rotates the last elements of every head of x `[T, heads*width]` in place; `sign` -1 is the backward.
    pub fn apply_part(&self, x: &mut [f32], positions: &[u32], part: RopePart, sign: f32) {
        let half = self.inv_freq.len();
        let row_width = x.len() / positions.len().max(1);
        let out = Shared::new(x);
        par::ranges(positions.len(), (1_usize << 14).div_ceil(row_width.max(1)), |rows| {
            for t in rows {
                let (cos, sin) = self.table(positions[t] as usize).split_at(half);
                // SAFETY: each task owns its rows.
                let row = unsafe { out.slice(t * row_width, row_width) };
                for head in row.chunks_exact_mut(part.width) {
                    let rotated = &mut head[part.width - 2 * half..];
                    if part.interleaved {
                        rotate_pairs(rotated, cos, sin, sign);
                    } else {
                        let (a, b) = rotated.split_at_mut(half);
                        rotate(a, b, cos, sin, sign);
                    }
                }
            }
        });
    }
}

multiversion! {
    fn rotate_pairs(x: &mut [f32], cos: &[f32], sin: &[f32], sign: f32) -> () {
        for ((pair, cos), sin) in x.chunks_exact_mut(2).zip(cos).zip(sin) {
            let (a, b, sin) = (pair[0], pair[1], *sin * sign);
            pair[0] = a * *cos - b * sin;
            pair[1] = b * *cos + a * sin;
        }
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
