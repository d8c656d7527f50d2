//! Tile instructions of the processor: one line of assembly each, asked for once and tried before they are used.

use super::{Extent, LINE, Left, NR, Next, Out, Right, SIDE, Start, Tiles, decode, product};
use crate::cpu::decode::TileRows;
use crate::cpu::gemm::{Product, avx512_bf16};
use crate::cpu::simd::{bf16_dot, tiles_wanted};
use std::arch::asm;
use std::cell::Cell;
use std::sync::OnceLock;

thread_local! {
    /// Height of the tiles of this thread; 0 before the first product. The kernel keeps shapes with the thread's registers.
    static HEIGHT: Cell<usize> = const { Cell::new(0) };
}

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
    #[inline(always)]
    unsafe fn configure(&mut self, height: usize) {
        if HEIGHT.get() != height {
            // SAFETY: as promised by the caller.
            unsafe { configure(height) };
        }
    }

    #[inline(always)]
    unsafe fn load<const TILE: u8>(&mut self, from: *const f32, stride: usize) {
        // SAFETY: the caller's rows exist.
        unsafe {
            each_tile!(TILE, "tileloadd ", ", [{from} + {stride}*1]", from = in(reg) from, stride = in(reg) stride, options(nostack, readonly))
        }
    }

    #[inline(always)]
    unsafe fn store<const TILE: u8>(&mut self, to: *mut f32, stride: usize) {
        // SAFETY: the caller's rows exist.
        unsafe {
            each_tile!(TILE, "tilestored [{to} + {stride}*1], ", "", to = in(reg) to, stride = in(reg) stride, options(nostack))
        }
    }

    #[inline(always)]
    unsafe fn zero<const TILE: u8>(&mut self) {
        // SAFETY: configured.
        unsafe { each_tile!(TILE, "tilezero ", "", options(nostack, nomem)) }
    }

    #[inline(always)]
    unsafe fn dot<const SUMS: u8>(&mut self) {
        // SAFETY: configured with fitting shapes.
        unsafe {
            match SUMS {
                0 => asm!("tdpbf16ps tmm0, tmm4, tmm6", options(nostack, nomem)),
                1 => asm!("tdpbf16ps tmm1, tmm4, tmm7", options(nostack, nomem)),
                2 => asm!("tdpbf16ps tmm2, tmm5, tmm6", options(nostack, nomem)),
                3 => asm!("tdpbf16ps tmm3, tmm5, tmm7", options(nostack, nomem)),
                _ => unreachable!("the four products of two by two tiles"),
            }
        }
    }
}

#[cold]
unsafe fn configure(height: usize) {
    let mut config = Config { palette: 1, start_row: 0, reserved: [0; 14], bytes: [0; 16], rows: [0; 16] };
    for tile in 0..8 {
        let rows = if tile < 6 { height } else { SIDE };
        (config.rows[tile], config.bytes[tile]) = (rows as u8, LINE as u16);
    }
    // SAFETY: the processor has tiles and the system granted them; the 64 bytes are valid.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &config, options(nostack)) };
    HEIGHT.set(height);
}

/// # Safety
/// As `gemm_bf16_wide`; [`available`] must be true, `a.inner` and `e.outer` 1.
#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
pub(in crate::cpu) unsafe fn gemm(e: Extent, a: Left, b: Right, c: Out, start: Start, next: Next) {
    // SAFETY: as promised by the caller.
    unsafe { product(&mut Registers, e, a, b, c, start, next) }
}

/// # Safety
/// As [`decode::scores`]; [`available`] must be true.
#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
pub(in crate::cpu) unsafe fn scores(rows: TileRows, words: usize, blocks: &[*const f32], offset: usize, next: usize) {
    // SAFETY: as promised by the caller.
    unsafe { decode::scores(&mut Registers, rows, words, blocks, offset, next) }
}

/// # Safety
/// As [`decode::values`]; [`available`] must be true.
#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
pub(in crate::cpu) unsafe fn values(
    rows: TileRows,
    blocks: &[*const f32],
    place: (usize, usize),
    width: usize,
    next: (&[*const f32], usize),
) {
    // SAFETY: as promised by the caller.
    unsafe { decode::values(&mut Registers, rows, blocks, place, width, next) }
}

/// Whether products may run through tiles: the processor has them, the system grants them, they pass a trial, and
/// `AHA_ISA` does not ask for less.
pub(in crate::cpu) fn available() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| bf16_dot() && tiles_wanted() && detected() && granted() && agrees())
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
        let (right, out) =
            (Right { base: b.as_ptr(), panel: 0, ld: NR }, Out { base: ours.as_mut_ptr(), row: NR, panel: 0 });
        gemm(e, left, right, out, Start::Zero, Next::NOTHING);
        let (b, c) = (b.as_ptr(), plain.as_mut_ptr());
        avx512_bf16(Product { e, a: left, b, ldb: NR, c, ldc: NR, start: Start::Zero, next: Next::NOTHING });
    }
    ours.iter().zip(&plain).all(|(x, y)| (x - y).abs() <= 1e-4 * (1.0 + y.abs()))
}
