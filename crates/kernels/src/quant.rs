//! Quantised linear layers for inference: weights of 4, 5 or 8 bits against activations of 8 bits.
//!
//! A weight is d q - m with q a small whole number and d and m common to a group of 16 or 32 weights of a row, as in GGUF's
//! blocks. A row of activations is rounded to s x, x from -127 to 127, one s for 32 values. A group's products are whole
//! numbers and exact; groups are added in ascending order in f32. So a row's result depends on that row alone.
//!
//! Weights lie in panels of 32 outputs: for every four neighbouring inputs, 32 times 4 bytes (or 4 bits, two steps in one
//! byte, the fifth bits in words behind them).

use crate::par::{self, Shared};
use half::f16;
use std::cell::RefCell;

/// Outputs of a panel.
const NR: usize = 32;
/// Inputs that share an activation scale; groups of weights are this long or half of it.
const BLOCK: usize = 32;
/// Steps of four inputs in a block.
const STEPS: usize = BLOCK / 4;
/// Rows of the microkernel.
const ROWS: usize = 4;

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
            let (step, byte) = (i % BLOCK / 4, lane * 4 + i % 4);
            let q = match self.bits {
                8 => to[step * NR * 4 + byte],
                _ => {
                    let low = to[step % 4 * NR * 4 + byte] >> (step / 4 * 4) & 15;
                    let high =
                        if self.bits == 5 { to[4 * NR * 4 + (step * NR * 4 + byte) / 8] >> (byte % 8) & 1 } else { 0 };
                    low | high << 4
                }
            };
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

/// A row of activations: whole numbers, a scale per block, and per half block the sum of the whole numbers.
#[derive(Default)]
struct Activations {
    x: Vec<i8>,
    scale: Vec<f32>,
    sum: Vec<i32>,
}

crate::multiversion! {
    fn largest(x: &[f32]) -> f32 {
        let mut lanes = [0f32; 16];
        for c in x.chunks_exact(16) {
            for i in 0..16 { let a = c[i].abs(); lanes[i] = if a > lanes[i] { a } else { lanes[i] }; }
        }
        lanes.iter().fold(0.0, |m, &v| if v > m { v } else { m })
    }
}

crate::multiversion! {
    fn round_block(to: &mut [i8], x: &[f32], inverse: f32) {
        // Adding 1.5 x 2^23 rounds to nearest even and leaves the whole number in the low bits.
        for (t, v) in to.iter_mut().zip(x) { *t = (*v * inverse + 12_582_912.0).to_bits() as u8 as i8; }
    }
}

impl Activations {
    fn fill(&mut self, x: &[f32]) {
        self.x.resize(x.len(), 0);
        self.scale.clear();
        self.sum.clear();
        for (to, x) in self.x.chunks_exact_mut(BLOCK).zip(x.chunks_exact(BLOCK)) {
            let most = largest(x);
            let scale = most / 127.0;
            round_block(to, x, if most > 0.0 { 127.0 / most } else { 0.0 });
            self.scale.push(scale);
            self.sum.extend(to.chunks_exact(BLOCK / 2).map(|half| half.iter().map(|v| i32::from(*v)).sum::<i32>()));
        }
    }
}

thread_local! {
    static ACTIVATIONS: RefCell<Activations> = RefCell::new(Activations::default());
}

/// y `[m, n]` = x `[m, k]` W^T, or += with `add`.
pub fn forward(y: &mut [f32], x: &[f32], w: &Quantized, add: bool) {
    let (n, k) = (w.n, w.k);
    let m = x.len() / k;
    assert!(x.len() == m * k && y.len() == m * n, "quantised linear: shapes");
    crate::scratch::kept(&ACTIVATIONS, |a| {
        a.fill(x);
        let a: &Activations = a;
        let out = Shared::new(y);
        let panels = n.div_ceil(NR);
        let grain = (1_usize << 17).div_ceil(k * m.max(1) * NR).max(1);
        par::ranges(panels, grain, |range| {
            for panel in range {
                for r in (0..m).step_by(ROWS) {
                    let mut sums = [[0f32; NR]; ROWS];
                    let rows = (m - r).min(ROWS);
                    tile(&mut sums, w, panel, a, r, rows);
                    let width = (n - panel * NR).min(NR);
                    for (i, sums) in sums.iter().enumerate().take(rows) {
                        // SAFETY: each task owns its panels' columns.
                        let to = unsafe { out.slice((r + i) * n + panel * NR, width) };
                        for (t, s) in to.iter_mut().zip(sums) {
                            *t = if add { *t + s } else { *s };
                        }
                    }
                }
            }
        });
    });
}

fn tile(sums: &mut [[f32; NR]; ROWS], w: &Quantized, panel: usize, a: &Activations, r: usize, rows: usize) {
    #[cfg(target_arch = "x86_64")]
    if x86::available() {
        // SAFETY: the instruction set was detected; panel and rows are inside w and a.
        unsafe {
            match rows {
                1 => x86::tile::<1>(sums, w, panel, a, r),
                2 => x86::tile::<2>(sums, w, panel, a, r),
                3 => x86::tile::<3>(sums, w, panel, a, r),
                _ => x86::tile::<4>(sums, w, panel, a, r),
            }
        }
        return;
    }
    plain_tile(sums, w, panel, a, r, rows);
}

/// The tile in plain Rust: the same whole numbers, and f32 operations in the same order.
fn plain_tile(sums: &mut [[f32; NR]; ROWS], w: &Quantized, panel: usize, a: &Activations, r: usize, rows: usize) {
    let (blocks, halves) = (w.k / BLOCK, BLOCK / w.group);
    for block in 0..blocks {
        let bytes = &w.q[(panel * blocks + block) * block_bytes(w.bits)..][..block_bytes(w.bits)];
        for half in 0..halves {
            let at = ((panel * blocks + block) * halves + half) * NR;
            for (i, sums) in sums.iter_mut().enumerate().take(rows) {
                let x = &a.x[(r + i) * w.k + block * BLOCK..][..BLOCK];
                let first = (r + i) * 2 * blocks + block * 2 + half;
                let total = if halves == 1 { a.sum[first] + a.sum[first + 1] } else { a.sum[first] };
                let scale = a.scale[(r + i) * blocks + block];
                for (lane, sum) in sums.iter_mut().enumerate() {
                    let mut dot = 0i32;
                    for step in half * STEPS / halves..(half + 1) * STEPS / halves {
                        for j in 0..4 {
                            let byte = lane * 4 + j;
                            let q = match w.bits {
                                8 => bytes[step * NR * 4 + byte],
                                bits => {
                                    let low = bytes[step % 4 * NR * 4 + byte] >> (step / 4 * 4) & 15;
                                    let high = bytes.get(4 * NR * 4 + (step * NR * 4 + byte) / 8).unwrap_or(&0)
                                        >> (byte % 8)
                                        & 1;
                                    if bits == 5 { low | high << 4 } else { low }
                                }
                            };
                            dot += i32::from(q) * i32::from(x[step * 4 + j]);
                        }
                    }
                    let d = w.d[at + lane].to_f32();
                    match w.m.get(at + lane) {
                        Some(m) => {
                            *sum = (dot as f32 * scale).mul_add(d, *sum);
                            *sum = (-(total as f32 * scale)).mul_add(m.to_f32(), *sum);
                        }
                        None => *sum = ((dot - total * i32::from(w.offset)) as f32 * scale).mul_add(d, *sum),
                    }
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Activations, BLOCK, NR, Quantized, ROWS, STEPS, block_bytes};
    use half::f16;
    use std::arch::x86_64::*;
    use std::sync::OnceLock;

    pub(super) fn available() -> bool {
        static FOUND: OnceLock<bool> = OnceLock::new();
        *FOUND.get_or_init(|| crate::cpu::isa() == crate::cpu::Isa::Avx512 && is_x86_feature_detected!("avx512vnni"))
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,fma")]
    pub(super) unsafe fn tile<const R: usize>(
        sums: &mut [[f32; NR]; ROWS],
        w: &Quantized,
        panel: usize,
        a: &Activations,
        r: usize,
    ) {
        // SAFETY: as promised by the caller.
        unsafe {
            match (w.bits, w.group) {
                (4, _) if w.m.is_empty() => blocks::<R, 4, 1, false>(sums, w, panel, a, r),
                (4, _) => blocks::<R, 4, 1, true>(sums, w, panel, a, r),
                (5, _) if w.m.is_empty() => blocks::<R, 5, 1, false>(sums, w, panel, a, r),
                (5, _) => blocks::<R, 5, 1, true>(sums, w, panel, a, r),
                (_, BLOCK) => blocks::<R, 8, 1, false>(sums, w, panel, a, r),
                _ => blocks::<R, 8, 2, false>(sums, w, panel, a, r),
            }
        }
    }

    /// Both vectors of weights of one step.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,fma")]
    unsafe fn weights<const BITS: u32>(bytes: *const u8, step: usize) -> [__m512i; 2] {
        // SAFETY: the block is whole and `step` below 8.
        unsafe {
            std::array::from_fn(|v| {
                if BITS == 8 {
                    return _mm512_loadu_si512(bytes.add(step * NR * 4 + v * 64).cast());
                }
                let both = _mm512_loadu_si512(bytes.add(step % 4 * NR * 4 + v * 64).cast());
                let nibbles = if step < 4 { both } else { _mm512_srli_epi16::<4>(both) };
                let low = _mm512_and_si512(nibbles, _mm512_set1_epi8(15));
                if BITS == 4 {
                    return low;
                }
                let high = bytes.add(4 * NR * 4 + step * NR / 2 + v * 8).cast::<u64>().read_unaligned();
                _mm512_mask_add_epi8(low, high, low, _mm512_set1_epi8(16))
            })
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,fma")]
    unsafe fn blocks<const R: usize, const BITS: u32, const HALVES: usize, const MIN: bool>(
        sums: &mut [[f32; NR]; ROWS],
        w: &Quantized,
        panel: usize,
        a: &Activations,
        r: usize,
    ) {
        let count = w.k / BLOCK;
        // SAFETY: panel and rows lie inside w and a (caller); all blocks are whole.
        unsafe {
            let mut acc = [[_mm512_setzero_ps(); 2]; R];
            for block in 0..count {
                let bytes = w.q.as_ptr().add((panel * count + block) * block_bytes(BITS));
                for half in 0..HALVES {
                    let mut dots = [[_mm512_setzero_si512(); 2]; R];
                    for step in half * STEPS / HALVES..(half + 1) * STEPS / HALVES {
                        let q = weights::<BITS>(bytes, step);
                        for i in 0..R {
                            let x = a.x.as_ptr().add((r + i) * w.k + block * BLOCK + step * 4).cast::<i32>();
                            let x = _mm512_set1_epi32(x.read_unaligned());
                            for v in 0..2 {
                                dots[i][v] = _mm512_dpbusd_epi32(dots[i][v], q[v], x);
                            }
                        }
                    }
                    let at = ((panel * count + block) * HALVES + half) * NR;
                    let halves =
                        |of: &[f16], v: usize| _mm512_cvtph_ps(_mm256_loadu_si256(of.as_ptr().add(at + v * 16).cast()));
                    let d = [halves(&w.d, 0), halves(&w.d, 1)];
                    let m = if MIN { [halves(&w.m, 0), halves(&w.m, 1)] } else { d };
                    for i in 0..R {
                        let first = (r + i) * 2 * count + block * 2 + half;
                        let total = if HALVES == 1 { a.sum[first] + a.sum[first + 1] } else { a.sum[first] };
                        let scale = a.scale[(r + i) * count + block];
                        for v in 0..2 {
                            let dot = match MIN {
                                true => dots[i][v],
                                false => _mm512_sub_epi32(dots[i][v], _mm512_set1_epi32(total * i32::from(w.offset))),
                            };
                            let dot = _mm512_mul_ps(_mm512_cvtepi32_ps(dot), _mm512_set1_ps(scale));
                            acc[i][v] = _mm512_fmadd_ps(dot, d[v], acc[i][v]);
                            if MIN {
                                acc[i][v] = _mm512_fmadd_ps(_mm512_set1_ps(-(total as f32 * scale)), m[v], acc[i][v]);
                            }
                        }
                    }
                }
            }
            for i in 0..R {
                for v in 0..2 {
                    _mm512_storeu_ps(sums[i].as_mut_ptr().add(v * 16), acc[i][v]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linear::tests::noise;

    /// Random rows with scales that f16 holds exactly.
    fn rows(n: usize, k: usize, group: usize, bits: u32, min: bool) -> QuantRows {
        let exact = |v: f32| f16::from_f32(v).to_f32();
        let q = noise(n * k, 1).iter().map(|v| ((v * 0.5 + 0.5) * (1 << bits) as f32) as u8).collect();
        let d: Vec<f32> = noise(n * k / group, 2).iter().map(|v| exact(v.abs() * 0.01 + 0.001)).collect();
        let shift = d.iter().zip(noise(n * k / group, 3)).map(|(d, v)| exact(d * ((1 << (bits - 1)) as f32 + v)));
        let m = if min { shift.collect() } else { Vec::new() };
        QuantRows { n, k, group, bits, q, d, m, offset: 1 << (bits - 1) }
    }

    #[test]
    fn products_equal_those_of_the_dequantised_matrix_but_for_the_rounding_of_activations() {
        for (n, k, group, bits, min) in [
            (40, 64, 32, 4, true),
            (40, 64, 32, 4, false),
            (33, 96, 32, 5, false),
            (33, 96, 32, 5, true),
            (64, 256, 16, 8, false),
            (7, 32, 32, 8, false),
            (100, 864, 32, 5, true),
        ] {
            let rows = rows(n, k, group, bits, min);
            let (packed, plain) = (Quantized::new(&rows), rows.to_f32());
            for m in [1, 2, 5, 9] {
                let x = noise(m * k, 4);
                let mut y = vec![0.5; m * n];
                forward(&mut y, &x, &packed, true);
                for (i, y) in y.iter().enumerate() {
                    let (x, w) = (&x[i / n * k..][..k], &plain[i % n * k..][..k]);
                    let want: f64 = 0.5 + x.iter().zip(w).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
                    let size: f64 = x.iter().zip(w).map(|(a, b)| f64::from((a * b).powi(2))).sum::<f64>().sqrt();
                    assert!((f64::from(*y) - want).abs() < 0.02 * (1.0 + size), "{n} {k} {bits} {m}: {y} {want}");
                }
            }
            let mut row = vec![0.0; k];
            packed.row(n - 1, &mut row);
            assert_eq!(row, plain[(n - 1) * k..]);
        }
    }

    #[test]
    fn every_path_gives_the_same_bits() {
        for (group, bits, min) in
            [(32, 4, true), (32, 4, false), (32, 5, true), (32, 5, false), (16, 8, false), (32, 8, false)]
        {
            let (n, k, m) = (40, 128, 6);
            let packed = Quantized::new(&rows(n, k, group, bits, min));
            let x = noise(m * k, 7);
            let mut all = vec![0.0; m * n];
            forward(&mut all, &x, &packed, false);
            for row in 0..m {
                let mut y = vec![0.0; n];
                forward(&mut y, &x[row * k..(row + 1) * k], &packed, false);
                assert_eq!(y, all[row * n..(row + 1) * n], "{bits}");
            }
            let mut a = Activations::default();
            a.fill(&x);
            let mut sums = [[0f32; NR]; ROWS];
            plain_tile(&mut sums, &packed, 1, &a, 2, 3);
            for (i, sums) in sums.iter().enumerate().take(3) {
                assert_eq!(sums[..8], all[(i + 2) * n + NR..(i + 2) * n + n], "{bits}");
            }
        }
    }

    #[test]
    fn eight_bits_of_f32_are_close() {
        let x = noise(64 * 3, 9);
        let back = QuantRows::from_f32(&x, 3, 64).to_f32();
        assert!(x.iter().zip(&back).all(|(a, b)| (a - b).abs() < 0.5 / 127.0 + 1e-6));
    }
}
