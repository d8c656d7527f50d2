//! bf16 products through AMX: sixteen rows of sixteen sums in a register, sixteen pairs of products an instruction.
//!
//! Rust has no stable intrinsics for tiles, so each instruction is a line of assembly behind [`Tiles`]; the loop over tiles is
//! written against that trait and tested with tiles in plain Rust. An output is summed in steps of sixteen pairs from the
//! first on: its bits depend neither on the rows around it nor on where a chain was cut at a multiple of sixteen pairs.
//!
//! The operating system grants the registers on request; before the first product a small one is compared with the plain
//! path, and AMX stays off where they differ.

use super::gemm::{Extent, Left, NR, Start};

/// Rows of a tile, and sums in one of its rows.
const SIDE: usize = 16;

/// Shapes of the eight tiles: rows and bytes in a row. 0 to 3 are sums, 4 and 5 rows of A, 6 and 7 columns of B.
type Shapes = [(u8, u16); 8];

/// The tile instructions.
trait Tiles {
    /// Sets the shapes; contents become zero.
    unsafe fn configure(&mut self, shapes: &Shapes);
    /// tile = rows from memory, `stride` bytes apart.
    unsafe fn load(&mut self, tile: u8, from: *const f32, stride: usize);
    /// Rows to memory.
    unsafe fn store(&mut self, tile: u8, to: *mut f32, stride: usize);
    /// tile = 0.
    unsafe fn zero(&mut self, tile: u8);
    /// sums += a b.
    unsafe fn dot(&mut self, sums: u8, a: u8, b: u8);
    /// Gives the registers back.
    unsafe fn release(&mut self);
}

/// C[m, n] from A (pairs along k in a row) and one panel of B, as `gemm_bf16`; A must have `inner` 1 and `outer` 1.
///
/// # Safety
/// As `gemm_bf16`; the tile instructions must work here.
unsafe fn product<T: Tiles>(
    t: &mut T,
    e: Extent,
    a: Left,
    b: *const f32,
    ldb: usize,
    c: *mut f32,
    ldc: usize,
    start: Start,
) {
    let (steps, tail) = (e.inner / SIDE, e.inner % SIDE);
    let mut edge = [0f32; 2 * SIDE * NR];
    let mut current = None;
    let mut r = 0;
    while r < e.m {
        let rows = (e.m - r).min(2 * SIDE);
        let (first, second) = (rows.min(SIDE), rows.saturating_sub(SIDE));
        // SAFETY: rows r..r + rows of A and C exist; partial panels go through `edge`, which has 32 rows of 32.
        unsafe {
            let (from, out) = (a.base.add(r * a.row), c.add(r * ldc));
            let whole = e.n == NR;
            if !whole && start != Start::Zero {
                for i in 0..rows {
                    std::ptr::copy_nonoverlapping(out.add(i * ldc), edge.as_mut_ptr().add(i * NR), e.n);
                }
            }
            let (to, ld) = if whole { (out, ldc) } else { (edge.as_mut_ptr(), NR) };
            let mut sums = [0f32; 2 * SIDE * NR];
            // Sums that begin elsewhere than at zero and are added at the end take a detour through `sums`.
            let (target, target_ld) = if start == Start::Add { (sums.as_mut_ptr(), NR) } else { (to, ld) };
            let mut fresh = start != Start::Chain;
            for (k, pairs) in [(steps, SIDE), (usize::from(tail > 0), tail)] {
                if k == 0 {
                    continue;
                }
                let done = if pairs == SIDE { 0 } else { steps * SIDE };
                let wanted = shapes(first, second, pairs);
                if current != Some(wanted) {
                    t.configure(&wanted);
                    current = Some(wanted);
                }
                for i in 0..1 + usize::from(second > 0) {
                    for j in 0..2 {
                        let tile = (2 * i + j) as u8;
                        match fresh {
                            true => t.zero(tile),
                            false => t.load(tile, target.add(i * SIDE * target_ld + j * SIDE), target_ld * 4),
                        }
                    }
                }
                for step in 0..k {
                    let at = done + step * SIDE;
                    t.load(6, b.add(at * ldb), ldb * 4);
                    t.load(7, b.add(at * ldb + SIDE), ldb * 4);
                    t.load(4, from.add(at), a.row * 4);
                    t.dot(0, 4, 6);
                    t.dot(1, 4, 7);
                    if second > 0 {
                        t.load(5, from.add(SIDE * a.row + at), a.row * 4);
                        t.dot(2, 5, 6);
                        t.dot(3, 5, 7);
                    }
                }
                for i in 0..1 + usize::from(second > 0) {
                    for j in 0..2 {
                        t.store((2 * i + j) as u8, target.add(i * SIDE * target_ld + j * SIDE), target_ld * 4);
                    }
                }
                fresh = false;
            }
            if start == Start::Add {
                for i in 0..rows {
                    for j in 0..e.n {
                        *to.add(i * ld + j) += sums[i * NR + j];
                    }
                }
            }
            if !whole {
                for i in 0..rows {
                    std::ptr::copy_nonoverlapping(edge.as_ptr().add(i * NR), out.add(i * ldc), e.n);
                }
            }
        }
        r += rows;
    }
    // SAFETY: configured above.
    unsafe { t.release() };
}

/// Tiles for `first` + `second` rows of A and steps of `pairs`.
fn shapes(first: usize, second: usize, pairs: usize) -> Shapes {
    let (first, second, pairs) = (first as u8, second.max(1) as u8, pairs as u8);
    let (line, a) = ((SIDE * 4) as u16, u16::from(pairs) * 4);
    [
        (first, line),
        (first, line),
        (second, line),
        (second, line),
        (first, a),
        (second, a),
        (pairs, line),
        (pairs, line),
    ]
}

#[cfg(target_arch = "x86_64")]
pub(super) use hardware::{available, gemm};

#[cfg(target_arch = "x86_64")]
mod hardware {
    use super::{Extent, Left, Shapes, Start, Tiles, product};
    use crate::cpu::gemm::{NR, avx512_bf16};
    use std::arch::asm;
    use std::sync::OnceLock;

    /// Tiles in registers.
    struct Registers;

    /// What LDTILECFG reads.
    #[repr(C, align(64))]
    struct Config {
        palette: u8,
        start_row: u8,
        reserved: [u8; 14],
        bytes: [u16; 16],
        rows: [u8; 16],
    }

    /// The instruction for a tile, whose number is part of its encoding.
    macro_rules! each_tile {
        ($tile:expr, $before:literal, $after:literal, $($operands:tt)*) => {
            match $tile {
                0 => asm!(concat!($before, "tmm0", $after), $($operands)*),
                1 => asm!(concat!($before, "tmm1", $after), $($operands)*),
                2 => asm!(concat!($before, "tmm2", $after), $($operands)*),
                3 => asm!(concat!($before, "tmm3", $after), $($operands)*),
                4 => asm!(concat!($before, "tmm4", $after), $($operands)*),
                5 => asm!(concat!($before, "tmm5", $after), $($operands)*),
                6 => asm!(concat!($before, "tmm6", $after), $($operands)*),
                7 => asm!(concat!($before, "tmm7", $after), $($operands)*),
                _ => unreachable!("there are eight tiles"),
            }
        };
    }

    impl Tiles for Registers {
        unsafe fn configure(&mut self, shapes: &Shapes) {
            let mut config = Config { palette: 1, start_row: 0, reserved: [0; 14], bytes: [0; 16], rows: [0; 16] };
            for (i, (rows, bytes)) in shapes.iter().enumerate() {
                (config.rows[i], config.bytes[i]) = (*rows, *bytes);
            }
            // SAFETY: the processor has tiles and the system granted them; the 64 bytes are valid.
            unsafe { asm!("ldtilecfg [{}]", in(reg) &config, options(nostack)) };
        }

        #[inline(always)]
        unsafe fn load(&mut self, tile: u8, from: *const f32, stride: usize) {
            // SAFETY: the caller's rows exist.
            unsafe {
                each_tile!(tile, "tileloadd ", ", [{from} + {stride}*1]", from = in(reg) from, stride = in(reg) stride, options(nostack, readonly))
            }
        }

        #[inline(always)]
        unsafe fn store(&mut self, tile: u8, to: *mut f32, stride: usize) {
            // SAFETY: the caller's rows exist.
            unsafe {
                each_tile!(tile, "tilestored [{to} + {stride}*1], ", "", to = in(reg) to, stride = in(reg) stride, options(nostack))
            }
        }

        #[inline(always)]
        unsafe fn zero(&mut self, tile: u8) {
            // SAFETY: configured.
            unsafe { each_tile!(tile, "tilezero ", "", options(nostack, nomem)) }
        }

        #[inline(always)]
        unsafe fn dot(&mut self, sums: u8, a: u8, b: u8) {
            // SAFETY: configured with fitting shapes.
            unsafe {
                match (sums, a, b) {
                    (0, 4, 6) => asm!("tdpbf16ps tmm0, tmm4, tmm6", options(nostack, nomem)),
                    (1, 4, 7) => asm!("tdpbf16ps tmm1, tmm4, tmm7", options(nostack, nomem)),
                    (2, 5, 6) => asm!("tdpbf16ps tmm2, tmm5, tmm6", options(nostack, nomem)),
                    (3, 5, 7) => asm!("tdpbf16ps tmm3, tmm5, tmm7", options(nostack, nomem)),
                    _ => unreachable!("the four products of two by two tiles"),
                }
            }
        }

        unsafe fn release(&mut self) {
            // SAFETY: always allowed where tiles are.
            unsafe { asm!("tilerelease", options(nostack, nomem)) }
        }
    }

    /// # Safety
    /// As `gemm_bf16`; [`available`] must be true, `a.inner` and `e.outer` 1.
    pub(in super::super) unsafe fn gemm(
        e: Extent,
        a: Left,
        b: *const f32,
        ldb: usize,
        c: *mut f32,
        ldc: usize,
        start: Start,
    ) {
        // SAFETY: as promised by the caller.
        unsafe { product(&mut Registers, e, a, b, ldb, c, ldc, start) }
    }

    /// Whether products may run through tiles: the processor has them, the system grants them, they pass a trial, and
    /// `AHA_ISA` does not ask for less.
    pub(in super::super) fn available() -> bool {
        static FOUND: OnceLock<bool> = OnceLock::new();
        *FOUND.get_or_init(|| crate::cpu::simd::bf16_dot() && detected() && granted() && agrees())
    }

    fn detected() -> bool {
        use std::arch::x86_64::{__cpuid, __cpuid_count};
        const AMX_BF16: u32 = 1 << 22;
        const AMX_TILE: u32 = 1 << 24;
        if __cpuid(0).eax < 7 || !is_x86_feature_detected!("xsave") {
            return false;
        }
        __cpuid_count(7, 0).edx & (AMX_BF16 | AMX_TILE) == AMX_BF16 | AMX_TILE
    }

    /// Asks Linux for the tiles' state (arch_prctl, ARCH_REQ_XCOMP_PERM); threads that begin later inherit it.
    fn granted() -> bool {
        #[cfg(target_os = "linux")]
        {
            const ARCH_PRCTL: isize = 158;
            const ARCH_REQ_XCOMP_PERM: usize = 0x1023;
            const XTILEDATA: usize = 18;
            let answer: isize;
            // SAFETY: a system call that reads two numbers and changes a permission of this process.
            unsafe {
                asm!("syscall", inlateout("rax") ARCH_PRCTL => answer, in("rdi") ARCH_REQ_XCOMP_PERM, in("rsi") XTILEDATA,
                    lateout("rcx") _, lateout("r11") _, options(nostack));
            }
            answer == 0
        }
        #[cfg(not(target_os = "linux"))]
        false
    }

    /// A trial of odd extents against the path without tiles.
    fn agrees() -> bool {
        let pair = |i: usize| f32::from_bits(0x3f80_3f00 ^ (i as u32).wrapping_mul(2_654_435_761) & 0x8070_8070);
        let (m, pairs) = (37, 41);
        let a: Vec<f32> = (0..m * pairs).map(pair).collect();
        let b: Vec<f32> = (0..pairs * NR).map(|i| pair(i + 7)).collect();
        let (mut ours, mut plain) = (vec![0f32; m * NR], vec![0f32; m * NR]);
        let e = Extent { m, outer: 1, inner: pairs, n: NR };
        let left = Left { base: a.as_ptr(), row: pairs, outer: 0, inner: 1 };
        // SAFETY: the buffers have the sizes of the extent; both instruction sets were detected.
        unsafe {
            gemm(e, left, b.as_ptr(), NR, ours.as_mut_ptr(), NR, Start::Zero);
            avx512_bf16(e, left, b.as_ptr(), NR, plain.as_mut_ptr(), NR, Start::Zero);
        }
        ours.iter().zip(&plain).all(|(x, y)| (x - y).abs() <= 1e-4 * (1.0 + y.abs()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::bf16::{pair_rows, round};
    use crate::cpu::operand::{as_f32, as_u32};

    /// Tiles in plain Rust.
    #[derive(Default)]
    struct Emulated {
        shapes: Shapes,
        tiles: [[[u32; 16]; 16]; 8],
        released: bool,
    }

    impl Tiles for Emulated {
        unsafe fn configure(&mut self, shapes: &Shapes) {
            assert!(shapes.iter().all(|(rows, bytes)| (1..=16).contains(rows) && (4..=64).contains(bytes)));
            (self.shapes, self.tiles) = (*shapes, Default::default());
        }
        unsafe fn load(&mut self, tile: u8, from: *const f32, stride: usize) {
            let (rows, bytes) = self.shapes[tile as usize];
            self.tiles[tile as usize] = Default::default();
            for r in 0..rows as usize {
                for w in 0..bytes as usize / 4 {
                    // SAFETY: as promised by the caller.
                    self.tiles[tile as usize][r][w] = unsafe { from.byte_add(r * stride).add(w).read().to_bits() };
                }
            }
        }
        unsafe fn store(&mut self, tile: u8, to: *mut f32, stride: usize) {
            let (rows, bytes) = self.shapes[tile as usize];
            for r in 0..rows as usize {
                for w in 0..bytes as usize / 4 {
                    // SAFETY: as promised by the caller.
                    unsafe { to.byte_add(r * stride).add(w).write(f32::from_bits(self.tiles[tile as usize][r][w])) };
                }
            }
        }
        unsafe fn zero(&mut self, tile: u8) {
            self.tiles[tile as usize] = Default::default();
        }
        unsafe fn dot(&mut self, sums: u8, a: u8, b: u8) {
            let (s, a, b) = (sums as usize, a as usize, b as usize);
            let (rows, pairs) = (self.shapes[a].0 as usize, self.shapes[a].1 as usize / 4);
            assert!(self.shapes[s].0 == self.shapes[a].0 && self.shapes[b].0 as usize == pairs, "shapes do not fit");
            let (low, high) = (|w: u32| f32::from_bits(w << 16), |w: u32| f32::from_bits(w & 0xffff_0000));
            for r in 0..rows {
                for n in 0..16 {
                    let mut sum = f32::from_bits(self.tiles[s][r][n]);
                    for k in 0..pairs {
                        let (x, y) = (self.tiles[a][r][k], self.tiles[b][k][n]);
                        sum += low(x) * low(y);
                        sum += high(x) * high(y);
                    }
                    self.tiles[s][r][n] = sum.to_bits();
                }
            }
        }
        unsafe fn release(&mut self) {
            self.released = true;
        }
    }

    #[test]
    fn tiles_cover_every_shape_and_chains_cut_at_whole_tiles_keep_their_bits() {
        for (m, k, n) in [(1, 2, 32), (5, 33, 17), (16, 64, 32), (17, 70, 9), (32, 32, 32), (45, 130, 31), (64, 96, 32)]
        {
            let pairs = usize::div_ceil(k, 2);
            let values = crate::linear::tests::noise(m * k + k * NR, 5);
            let (x, w) = values.split_at(m * k);
            let ld = pairs + 1;
            let mut a = vec![0u32; m * ld];
            pair_rows(&mut a, ld, x, k);
            let mut b = vec![0f32; pairs * NR];
            for p in 0..pairs {
                let zeros = [0f32; NR];
                let second = if 2 * p + 1 < k { &w[(2 * p + 1) * NR..][..NR] } else { &zeros };
                crate::cpu::bf16::interleave(as_u32(&mut b[p * NR..][..NR]), &w[2 * p * NR..][..NR], second);
            }
            let a = as_f32(&mut a);
            let run = |c: &mut [f32], from: usize, to: usize, start| {
                let e = Extent { m, outer: 1, inner: to - from, n };
                let left = Left { base: a[from..].as_ptr(), row: ld, outer: 0, inner: 1 };
                let mut tiles = Emulated::default();
                // SAFETY: the buffers have the sizes that extent and strides name.
                unsafe { product(&mut tiles, e, left, b[from * NR..].as_ptr(), NR, c.as_mut_ptr(), n, start) };
                assert!(tiles.released);
            };
            for start in [Start::Zero, Start::Add, Start::Chain] {
                let begin = crate::linear::tests::noise(m * n, 6);
                let mut c = begin.clone();
                run(&mut c, 0, pairs, start);
                for (at, got) in c.iter().enumerate() {
                    let first = if start == Start::Zero { 0.0 } else { begin[at] };
                    let sum: f32 = (0..k).map(|p| round(x[at / n * k + p]) * round(w[p * NR + at % n])).sum();
                    assert!((got - first - sum).abs() < 1e-4, "{m} {k} {n} {start:?}: {got} {}", first + sum);
                }
            }
            if pairs > 16 {
                let (mut whole, mut cut) = (vec![0f32; m * n], vec![0f32; m * n]);
                run(&mut whole, 0, pairs, Start::Zero);
                run(&mut cut, 0, 16, Start::Zero);
                run(&mut cut, 16, pairs, Start::Chain);
                assert_eq!(whole, cut);
                let mut row = vec![0f32; n];
                let e = Extent { m: 1, outer: 1, inner: pairs, n };
                let left = Left { base: a[(m - 1) * ld..].as_ptr(), row: ld, outer: 0, inner: 1 };
                // SAFETY: as above.
                unsafe { product(&mut Emulated::default(), e, left, b.as_ptr(), NR, row.as_mut_ptr(), n, Start::Zero) };
                assert_eq!(row, whole[(m - 1) * n..]);
            }
        }
    }
}
