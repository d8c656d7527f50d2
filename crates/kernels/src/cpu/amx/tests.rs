//! Products through tiles, in plain Rust and on the processor, against sums in f64.

use super::*;
use crate::cpu::bf16::{pair_rows, round};
use crate::cpu::decode::TileRows;
use std::ops::Range;

/// Tiles in plain Rust.
#[derive(Default)]
struct Emulated {
    height: usize,
    tiles: [[[u32; 16]; 16]; 8],
}

impl Emulated {
    fn rows(&self, tile: u8) -> usize {
        if tile < 6 { self.height } else { SIDE }
    }
}

impl Tiles for Emulated {
    unsafe fn configure(&mut self, height: usize) {
        assert!((1..=SIDE).contains(&height));
        (self.height, self.tiles) = (height, [[[0x7fc0_0000; 16]; 16]; 8]);
    }
    unsafe fn load<const TILE: u8>(&mut self, from: *const f32, stride: usize) {
        for r in 0..self.rows(TILE) {
            for w in 0..SIDE {
                // SAFETY: as promised by the caller.
                self.tiles[TILE as usize][r][w] = unsafe { from.byte_add(r * stride).add(w).read().to_bits() };
            }
        }
    }
    unsafe fn store<const TILE: u8>(&mut self, to: *mut f32, stride: usize) {
        for r in 0..self.rows(TILE) {
            for w in 0..SIDE {
                // SAFETY: as promised by the caller.
                unsafe { to.byte_add(r * stride).add(w).write(f32::from_bits(self.tiles[TILE as usize][r][w])) };
            }
        }
    }
    unsafe fn zero<const TILE: u8>(&mut self) {
        self.tiles[TILE as usize] = Default::default();
    }
    unsafe fn dot<const SUMS: u8>(&mut self) {
        let (s, a, b) = (SUMS as usize, 4 + SUMS as usize / 2, 6 + SUMS as usize % 2);
        let (low, high) = (|w: u32| f32::from_bits(w << 16), |w: u32| f32::from_bits(w & 0xffff_0000));
        for r in 0..self.height {
            for n in 0..SIDE {
                let mut sum = f32::from_bits(self.tiles[s][r][n]);
                for k in 0..SIDE {
                    let (x, y) = (self.tiles[a][r][k], self.tiles[b][k][n]);
                    sum += low(x) * low(y);
                    sum += high(x) * high(y);
                }
                self.tiles[s][r][n] = sum.to_bits();
            }
        }
    }
}

/// Operands of a product: pairs of x `[m, k]` with rows `ld` words apart, of w `[k, n]` in panels, and both as values.
struct Case {
    n: usize,
    pairs: usize,
    a: Vec<u32>,
    b: Vec<u32>,
    /// The sums in f64 of rounded values.
    want: Vec<f64>,
}

impl Case {
    fn new(m: usize, k: usize, n: usize) -> Self {
        let (pairs, columns) = (k.div_ceil(2), n.next_multiple_of(NR));
        let (x, w) = (crate::linear::tests::noise(m * k, 5), crate::linear::tests::noise(k * columns, 6));
        let mut a = vec![0u32; m * (pairs + 1)];
        pair_rows(&mut a, pairs + 1, &x, k);
        let mut b = vec![0u32; pairs * columns];
        for (at, line) in b.chunks_exact_mut(NR).enumerate() {
            let (panel, p) = (at / pairs, at % pairs);
            let row = |i: usize| if i < k { &w[i * columns + panel * NR..][..NR] } else { &[0.0; NR] };
            crate::cpu::bf16::interleave(line, row(2 * p), row(2 * p + 1));
        }
        let value = |x: f32| f64::from(round(x));
        let sum = |i: usize, j: usize| (0..k).map(|p| value(x[i * k + p]) * value(w[p * columns + j])).sum();
        let want = (0..m * n).map(|at| sum(at / n, at % n)).collect();
        Case { n, pairs, a, b, want }
    }

    /// Rows `rows` of c from the pairs in `pairs`.
    fn run(&self, product: Product, c: &mut [f32], rows: Range<usize>, pairs: Range<usize>, start: Start) {
        assert!(c.len() == rows.len() * self.n);
        // SAFETY: rows of n sums lie side by side.
        unsafe { self.call(product, Out { base: c.as_mut_ptr(), row: self.n, panel: NR }, rows, pairs, start) };
    }

    /// The same into any view that has room for rows and panels.
    unsafe fn call(&self, product: Product, c: Out, rows: Range<usize>, pairs: Range<usize>, start: Start) {
        let e = Extent { m: rows.len(), outer: 1, inner: pairs.len(), n: self.n };
        let base = self.a[rows.start * (self.pairs + 1) + pairs.start..].as_ptr().cast();
        let left = Left { base, row: self.pairs + 1, outer: 0, inner: 1 };
        let b = Right { base: self.b[pairs.start * NR..].as_ptr().cast(), panel: self.pairs * NR, ld: NR };
        // SAFETY: the operands have the sizes that extent and strides name, C as promised by the caller.
        unsafe { product(e, left, b, c, start, Next::from(&self.b[..])) };
    }
}

type Product = unsafe fn(Extent, Left, Right, Out, Start, Next);

unsafe fn emulated(e: Extent, a: Left, b: Right, c: Out, start: Start, next: Next) {
    // SAFETY: as promised by the caller.
    unsafe { product(&mut Emulated::default(), e, a, b, c, start, next) };
}

fn every_shape_is_covered_and_chains_cut_at_whole_tiles_keep_their_bits(product: Product) {
    for (m, k, n) in [
        (1, 2, 32),
        (5, 33, 17),
        (16, 64, 64),
        (17, 70, 9),
        (32, 32, 32),
        (33, 96, 96),
        (45, 130, 31),
        (49, 64, 70),
        (64, 96, 32),
        (130, 31, 100),
        // Many steps, many panels.
        (49, 1100, 50),
        (40, 530, 590),
    ] {
        let case = Case::new(m, k, n);
        for start in [Start::Zero, Start::Add, Start::Chain] {
            let begin = crate::linear::tests::noise(m * n, 6);
            let mut c = begin.clone();
            case.run(product, &mut c, 0..m, 0..case.pairs, start);
            for (at, got) in c.iter().enumerate() {
                let first = if start == Start::Zero { 0.0 } else { f64::from(begin[at]) };
                let want = first + case.want[at];
                assert!((f64::from(*got) - want).abs() < 1e-4, "{m} {k} {n} {start:?} at {at}: {got} {want}");
            }
            for row in [0, m / 2, m - 1] {
                let mut alone = begin[row * n..(row + 1) * n].to_vec();
                case.run(product, &mut alone, row..row + 1, 0..case.pairs, start);
                assert_eq!(alone, c[row * n..(row + 1) * n], "{m} {k} {n} {start:?}: row {row} alone");
            }
        }
        // Panels that lie one behind the other, as those of a gradient do, have the same sums, and nothing else is written.
        let (room, mut rows) = ((m + 1) * NR, crate::linear::tests::noise(m * n, 7));
        let place = |at: usize| at % n / NR * room + at / n * NR + at % n % NR;
        let mut panels = vec![7.5f32; n.div_ceil(NR) * room];
        rows.iter().enumerate().for_each(|(at, x)| panels[place(at)] = *x);
        case.run(product, &mut rows, 0..m, 0..case.pairs, Start::Chain);
        let out = Out { base: panels.as_mut_ptr(), row: NR, panel: room };
        // SAFETY: there is room for m rows in each panel.
        unsafe { case.call(product, out, 0..m, 0..case.pairs, Start::Chain) };
        for (at, sum) in rows.iter().enumerate() {
            assert_eq!(std::mem::replace(&mut panels[place(at)], 7.5), *sum, "{m} {k} {n}: panels at {at}");
        }
        assert!(panels.iter().all(|x| *x == 7.5), "{m} {k} {n}: written beside the sums");
        if case.pairs > SIDE {
            let (mut whole, mut cut) = (vec![0f32; m * n], vec![0f32; m * n]);
            case.run(product, &mut whole, 0..m, 0..case.pairs, Start::Zero);
            case.run(product, &mut cut, 0..m, 0..SIDE, Start::Zero);
            case.run(product, &mut cut, 0..m, SIDE..case.pairs, Start::Chain);
            assert_eq!(whole, cut);
        }
    }
}

/// Scores and values of decoding are those of products of the same words, to the bit.
#[test]
fn emulated_tiles_give_the_products_of_decoding() {
    let words = |n: usize, seed: u64| -> Vec<f32> {
        let rows = crate::linear::tests::noise(2 * n, seed);
        let mut out = vec![0u32; n + 1];
        pair_rows(&mut out, n + 1, &rows, 2 * n);
        out[..n].iter().copied().map(f32::from_bits).collect()
    };
    for (heads, dim, blocks) in [(2, 32, 1), (2, 32, 5), (1, 96, 4), (16, 64, 3), (3, 128, 2)] {
        let (pairs, panels, gap) = (dim / 2, dim / NR, 64);
        // A block: keys `[pairs][32]`, a gap, panels of values `[16][32]`.
        let room = pairs * NR + gap + panels * SIDE * NR;
        let all = words(blocks * room, 1);
        let list: Vec<*const f32> = all.chunks_exact(room).map(<[f32]>::as_ptr).collect();
        let (q, weights) = (words(heads * pairs, 2), words(heads * blocks * SIDE, 3));
        let t = &mut Emulated::default();
        let (keys, mut scores) = (blocks * NR, vec![0f32; heads * blocks * NR]);
        let rows = TileRows { count: heads, left: q.as_ptr(), ld: pairs, out: scores.as_mut_ptr(), ldc: keys };
        // SAFETY: the buffers have the sizes that the rows and the blocks name.
        unsafe { decode::scores(t, rows, pairs, &list, 0, gap) };
        let mut values = vec![0f32; heads * dim];
        let (left, ld) = (weights.as_ptr(), blocks * SIDE);
        let rows = TileRows { count: heads, left, ld, out: values.as_mut_ptr(), ldc: dim };
        let at = pairs * NR + gap;
        // SAFETY: as above; of three blocks one is followed.
        unsafe { decode::values(t, rows, &list, (at, SIDE * NR), dim, (&list[..1], 0)) };
        for (b, block) in all.chunks_exact(room).enumerate() {
            let mut want = vec![0f32; heads * NR];
            let e = Extent { m: heads, outer: 1, inner: pairs, n: NR };
            let left = Left { base: q.as_ptr(), row: pairs, outer: 0, inner: 1 };
            let right = Right { base: block.as_ptr(), panel: 0, ld: NR };
            let c = Out { base: want.as_mut_ptr(), row: NR, panel: NR };
            // SAFETY: as above.
            unsafe { emulated(e, left, right, c, Start::Zero, Next::NOTHING) };
            for (h, want) in want.chunks_exact(NR).enumerate() {
                assert_eq!(scores[h * keys + b * NR..][..NR], *want, "{heads} {dim} {blocks}: scores of block {b}");
            }
        }
        let mut want = vec![0f32; heads * dim];
        for (b, block) in all.chunks_exact(room).enumerate() {
            let e = Extent { m: heads, outer: 1, inner: SIDE, n: dim };
            let left = Left { base: weights[b * SIDE..].as_ptr(), row: blocks * SIDE, outer: 0, inner: 1 };
            let right = Right { base: block[at..].as_ptr(), panel: SIDE * NR, ld: NR };
            let start = if b == 0 { Start::Zero } else { Start::Chain };
            let c = Out { base: want.as_mut_ptr(), row: dim, panel: NR };
            // SAFETY: as above.
            unsafe { emulated(e, left, right, c, start, Next::NOTHING) };
        }
        assert!(values == want && values.iter().any(|x| *x != 0.0), "{heads} {dim} {blocks}: values");
    }
}

#[test]
fn emulated_tiles_give_every_product() {
    every_shape_is_covered_and_chains_cut_at_whole_tiles_keep_their_bits(emulated);
}

#[cfg(target_arch = "x86_64")]
#[test]
fn tiles_of_the_processor_give_every_product() {
    if !available() {
        return eprintln!("skipped: this processor, or its system, has no AMX");
    }
    every_shape_is_covered_and_chains_cut_at_whole_tiles_keep_their_bits(|e, a, b, c, start, next| {
        // SAFETY: the instructions work here; the rest as promised by the caller.
        unsafe { gemm(e, a, b, c, start, next) }
    });
}
