//! Quantised linear layers for inference: weights of 4, 5 or 8 bits against activations of 8 bits.
//!
//! A weight is d q - m with q a small whole number and d and m common to a group of 16 or 32 weights of a row, as in GGUF's
//! blocks. A row of activations is rounded to s x, x from -127 to 127, one s for 32 values. A group's products are whole
//! numbers and exact; groups are added in ascending order in f32. So a row's result depends on that row alone.
//!
//! Weights lie in panels of 32 outputs: for every four neighbouring inputs, 32 times 4 bytes (or 4 bits, two steps in one
//! byte, the fifth bits in words behind them).

mod activations;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(test)]
mod tests;

use crate::cpu::math;
use crate::par::{self, Shared};
use activations::Activations;
use half::f16;
use std::cell::RefCell;

/// Outputs of a panel.
const NR: usize = 32;
/// Inputs that share an activation scale; groups of weights are this long or half of it.
const BLOCK: usize = 32;
/// Steps of four inputs in a block.
const STEPS: usize = BLOCK / 4;
/// Rows whose sums one task keeps while it walks a panel.
const ROWS: usize = 192;

/// A matrix `[n, k]` as it comes from a file: row by row, in groups along k.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantRows {
    /// Output width.
    pub n: usize,
    /// Input width, a multiple of 32.
    pub k: usize,
    /// Weights of a group: 16 or 32.
    pub group: usize,
    /// Bits that q needs: 4, 5 or 8.
    pub bits: u32,
    /// q `[n, k]`.
    pub q: Vec<u8>,
    /// d `[n, k / group]`.
    pub d: Vec<f32>,
    /// m `[n, k / group]`; empty where it is `offset` d everywhere.
    pub m: Vec<f32>,
    /// The q that stands for 0 where m is empty.
    pub offset: u8,
}

impl QuantRows {
    /// Rounds f32 values `[n, k]` to 8 bits in groups of 32.
    pub fn from_f32(values: &[f32], n: usize, k: usize) -> Self {
        assert!(values.len() == n * k && k.is_multiple_of(BLOCK), "quantised rows are whole blocks");
        let (mut q, mut d) = (Vec::with_capacity(n * k), Vec::with_capacity(n * k / BLOCK));
        for block in values.chunks_exact(BLOCK) {
            let step = block.iter().fold(0f32, |a, v| a.max(v.abs())) / 127.0;
            let inverse = if step > 0.0 { 1.0 / step } else { 0.0 };
            q.extend(block.iter().map(|v| ((v * inverse).round() + 128.0) as u8));
            d.push(step);
        }
        QuantRows { n, k, group: BLOCK, bits: 8, q, d, m: Vec::new(), offset: 128 }
    }

    /// Row-major f32 values.
    pub fn to_f32(&self) -> Vec<f32> {
        let value = |(i, q): (usize, &u8)| {
            let d = self.d[i / self.group];
            match self.m.get(i / self.group) {
                Some(m) => d * f32::from(*q) - m,
                None => d * (f32::from(*q) - f32::from(self.offset)),
            }
        };
        self.q.iter().enumerate().map(value).collect()
    }
}

/// The same, packed.
#[derive(Clone, Debug)]
pub struct Quantized {
    n: usize,
    k: usize,
    group: usize,
    bits: u32,
    q: Vec<u8>,
    /// `[panels][k / group][32]` as f16: GGUF's own d are, products of d and a group's scale lose less than 0.05 %.
    d: Vec<f16>,
    /// The same; empty where 0 is at `offset` everywhere.
    m: Vec<f16>,
    offset: u8,
}

impl Quantized {
    /// Packs rows.
    pub fn new(rows: &QuantRows) -> Self {
        let (n, k) = (rows.n, rows.k);
        let (panels, groups) = (n.div_ceil(NR), k / rows.group);
        let mut out = Quantized {
            n,
            k,
            group: rows.group,
            bits: rows.bits,
            q: vec![0; panels * k / BLOCK * block_bytes(rows.bits)],
            d: vec![f16::ZERO; panels * groups * NR],
            m: vec![f16::ZERO; if rows.m.is_empty() { 0 } else { panels * groups * NR }],
            offset: rows.offset,
        };
        for row in 0..n {
            let (panel, lane) = (row / NR, row % NR);
            for g in 0..groups {
                out.d[(panel * groups + g) * NR + lane] = f16::from_f32(rows.d[row * groups + g]);
                if let Some(m) = rows.m.get(row * groups + g) {
                    out.m[(panel * groups + g) * NR + lane] = f16::from_f32(*m);
                }
            }
            for (block, values) in rows.q[row * k..(row + 1) * k].chunks_exact(BLOCK).enumerate() {
                let at = (panel * (k / BLOCK) + block) * block_bytes(rows.bits);
                let to = &mut out.q[at..at + block_bytes(rows.bits)];
                for (i, q) in values.iter().enumerate() {
                    let (step, byte) = (i / 4, lane * 4 + i % 4);
                    if rows.bits == 8 {
                        to[step * NR * 4 + byte] = *q;
                        continue;
                    }
                    // Step s and step s + 4 share bytes.
                    to[step % 4 * NR * 4 + byte] |= (q & 15) << (step / 4 * 4);
                    if rows.bits == 5 {
                        to[4 * NR * 4 + (step * NR * 4 + byte) / 8] |= (q >> 4) << (byte % 8);
                    }
                }
            }
        }
        out
    }

    /// Output width, input width.
    pub fn shape(&self) -> [usize; 2] {
        [self.n, self.k]
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        self.q.len() + 2 * (self.d.len() + self.m.len())
    }

    /// One row of weights.
    pub fn row(&self, row: usize, out: &mut [f32]) {
        let (panel, lane, groups) = (row / NR, row % NR, self.k / self.group);
        for (i, v) in out.iter_mut().enumerate() {
            let to = &self.q[(panel * (self.k / BLOCK) + i / BLOCK) * block_bytes(self.bits)..];
            let q = quantum(self.bits, to, i % BLOCK / 4, lane * 4 + i % 4);
            let at = (panel * groups + i / self.group) * NR + lane;
            let d = self.d[at].to_f32();
            *v = match self.m.get(at) {
                Some(m) => d * f32::from(q) - m.to_f32(),
                None => d * (f32::from(q) - f32::from(self.offset)),
            };
        }
    }
}

fn block_bytes(bits: u32) -> usize {
    match bits {
        8 => BLOCK * NR,
        5 => BLOCK * NR * 5 / 8,
        _ => BLOCK * NR / 2,
    }
}

thread_local! {
    static ACTIVATIONS: RefCell<Activations> = RefCell::new(Activations::default());
}

/// y_i `[m, n_i]` = x `[m, k]` W_i^T, or += with `add`.
pub fn forward_all(outputs: &mut [(&mut [f32], &Quantized)], x: &[f32], add: bool) {
    let Some(k) = outputs.first().map(|(_, w)| w.k) else { return };
    let m = x.len() / k;
    let fits = outputs.iter().all(|(y, w)| y.len() == m * w.n && w.k == k);
    assert!(x.len() == m * k && fits, "quantised linear: shapes");
    crate::scratch::kept(&ACTIVATIONS, |a| {
        a.fill(x, k);
        let a: &Activations = a;
        // Panels of all matrices, one after another.
        let all: Vec<(Shared, &Quantized, usize)> = outputs
            .iter_mut()
            .flat_map(|(y, w)| {
                let out = Shared::new(y);
                (0..w.n.div_ceil(NR)).map(move |panel| (out, *w, panel))
            })
            .collect();
        let grain = (1_usize << 17).div_ceil(k * m.max(1) * NR).max(1);
        par::ranges(all.len(), grain, |range| {
            let mut sums = [[0f32; NR]; ROWS];
            // Rows outside: what they write to and read from stays near while the panels pass by.
            for r in (0..m).step_by(ROWS) {
                let sums = &mut sums[..(m - r).min(ROWS)];
                for (out, w, panel) in &all[range.clone()] {
                    tile(sums, w, *panel, a, r);
                    let width = (w.n - panel * NR).min(NR);
                    for (i, sums) in sums.iter().enumerate() {
                        // SAFETY: each task owns its panels' columns.
                        let to = unsafe { out.slice((r + i) * w.n + panel * NR, width) };
                        match add {
                            true => math::add_assign(to, &sums[..width]),
                            false => to.copy_from_slice(&sums[..width]),
                        }
                    }
                }
            }
        });
    });
}

/// Sums of rows `r..` against one panel.
fn tile(sums: &mut [[f32; NR]], w: &Quantized, panel: usize, a: &Activations, r: usize) {
    sums.fill([0.0; NR]);
    #[cfg(target_arch = "x86_64")]
    if avx512::available() {
        // SAFETY: the instruction set was detected; panel and rows are inside w and a.
        return unsafe { avx512::tile(sums, w, panel, a, r) };
    }
    #[cfg(target_arch = "x86_64")]
    if avx2::available() {
        // SAFETY: as above.
        return unsafe { avx2::tile(sums, w, panel, a, r) };
    }
    plain_tile(sums, w, panel, a, r);
}

/// Blocks between the one in hand and the one that is asked for from memory.
#[cfg(target_arch = "x86_64")]
const AHEAD: usize = 8;

/// Asks for the weights of a later block, and its scales and shifts; panels lie one after another, so that a block behind the
/// last one of a panel is the next panel's.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn ask_ahead<const BITS: u32, const HALVES: usize>(w: &Quantized, panel: usize, block: usize) {
    let at = panel * (w.k / BLOCK) + block + AHEAD;
    let line = |p: *const u8, i: usize| crate::cpu::gemm::prefetch(p.wrapping_add(i * 64).cast());
    let bytes = w.q.as_ptr().wrapping_add(at * block_bytes(BITS));
    for i in 0..block_bytes(BITS) / 64 {
        line(bytes, i);
    }
    for half in 0..HALVES {
        line(w.d.as_ptr().wrapping_add((at * HALVES + half) * NR).cast(), 0);
        if !w.m.is_empty() {
            line(w.m.as_ptr().wrapping_add((at * HALVES + half) * NR).cast(), 0);
        }
    }
}

/// The tile in plain Rust: the same whole numbers, and f32 operations in the same order.
fn plain_tile(sums: &mut [[f32; NR]], w: &Quantized, panel: usize, a: &Activations, r: usize) {
    let (blocks, halves) = (w.k / BLOCK, BLOCK / w.group);
    for block in 0..blocks {
        let bytes = &w.q[(panel * blocks + block) * block_bytes(w.bits)..][..block_bytes(w.bits)];
        for half in 0..halves {
            let at = ((panel * blocks + block) * halves + half) * NR;
            for (i, sums) in sums.iter_mut().enumerate() {
                let x = a.block(block, r + i);
                let (scale, minus) = (a.scale(block, r + i)[0], a.minus(block, r + i, half, halves)[0]);
                for (lane, sum) in sums.iter_mut().enumerate() {
                    let mut dot = 0i32;
                    for step in half * STEPS / halves..(half + 1) * STEPS / halves {
                        for j in 0..4 {
                            let q = quantum(w.bits, bytes, step, lane * 4 + j);
                            dot += i32::from(q) * i32::from(x[step * 4 + j]);
                        }
                    }
                    let d = w.d[at + lane].to_f32();
                    let m = w.m.get(at + lane).map_or(d * f32::from(w.offset), |m| m.to_f32());
                    *sum = (dot as f32 * scale).mul_add(d, *sum);
                    *sum = minus.mul_add(m, *sum);
                }
            }
        }
    }
}

/// q of one step of a packed block.
fn quantum(bits: u32, bytes: &[u8], step: usize, byte: usize) -> u8 {
    if bits == 8 {
        return bytes[step * NR * 4 + byte];
    }
    let low = bytes[step % 4 * NR * 4 + byte] >> (step / 4 * 4) & 15;
    let high = if bits == 5 { bytes[4 * NR * 4 + (step * NR * 4 + byte) / 8] >> (byte % 8) & 1 } else { 0 };
    low | high << 4
}
