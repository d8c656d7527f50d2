//! The products of decoding through tiles: a few rows, the query heads that share keys, against the blocks of a cache.
//!
//! Sums add in the order of [`super::product`]: the bits are the same. What comes next is asked for ahead, because blocks
//! come from the last-level cache.

use super::{NR, SIDE, Tiles, ask};
use crate::cpu::decode::TileRows;

/// `out[32 b + j]` of each row: its words times key j of block b.
///
/// # Safety
/// As [`crate::cpu::decode::tile_scores`]; the tile instructions must work here.
#[inline(always)]
pub(super) unsafe fn scores<T: Tiles>(
    t: &mut T,
    rows: TileRows,
    words: usize,
    blocks: &[*const f32],
    offset: usize,
    next: usize,
) {
    let TileRows { count, left, ld, out, ldc } = rows;
    // SAFETY: as promised by the caller.
    unsafe {
        t.configure(count);
        // A query of one step stays in its tiles.
        let short = words == SIDE;
        if short {
            t.load::<4>(left, ld * 4);
            t.load::<5>(left, ld * 4);
        }
        for (b, two) in blocks.chunks(2).enumerate() {
            let (first, second) = (two[0].add(offset), two[two.len() - 1].add(offset));
            let out = out.add(2 * b * NR);
            t.zero::<0>();
            t.zero::<1>();
            t.zero::<2>();
            t.zero::<3>();
            for k in (0..words).step_by(SIDE) {
                if !short {
                    t.load::<4>(left.add(k), ld * 4);
                    t.load::<5>(left.add(k), ld * 4);
                }
                panel::<T, false>(t, first.add(k * NR));
                ask(two[0].wrapping_add(next + k * NR));
                if two.len() == 2 {
                    panel::<T, true>(t, second.add(k * NR));
                    ask(two[1].wrapping_add(next + k * NR));
                }
            }
            t.store::<0>(out, ldc * 4);
            t.store::<1>(out.add(SIDE), ldc * 4);
            if two.len() == 2 {
                t.store::<2>(out.add(NR), ldc * 4);
                t.store::<3>(out.add(NR + SIDE), ldc * 4);
            }
        }
    }
}

/// `out[0..width]` of each row: its weights times the values of all blocks' keys.
///
/// # Safety
/// As [`crate::cpu::decode::tile_values`]; the tile instructions must work here.
#[inline(always)]
pub(super) unsafe fn values<T: Tiles>(
    t: &mut T,
    rows: TileRows,
    blocks: &[*const f32],
    (offset, apart): (usize, usize),
    width: usize,
    (next, ahead): (&[*const f32], usize),
) {
    let TileRows { count, left, ld, out, ldc } = rows;
    // SAFETY: as promised by the caller.
    unsafe {
        t.configure(count);
        for c in (0..width).step_by(2 * NR) {
            let two = c + NR < width;
            t.zero::<0>();
            t.zero::<1>();
            t.zero::<2>();
            t.zero::<3>();
            for (b, block) in blocks.iter().enumerate() {
                let values = block.add(offset + c / NR * apart);
                let ahead = next.get(b).map(|block| block.wrapping_add(ahead));
                t.load::<4>(left.add(b * SIDE), ld * 4);
                panel::<T, false>(t, values);
                if let Some(ahead) = ahead {
                    ask(ahead.wrapping_add(c / NR * apart));
                }
                if two {
                    t.load::<5>(left.add(b * SIDE), ld * 4);
                    panel::<T, true>(t, values.add(apart));
                    if let Some(ahead) = ahead {
                        ask(ahead.wrapping_add((c / NR + 1) * apart));
                    }
                }
            }
            let out = out.add(c);
            t.store::<0>(out, ldc * 4);
            t.store::<1>(out.add(SIDE), ldc * 4);
            if two {
                t.store::<2>(out.add(NR), ldc * 4);
                t.store::<3>(out.add(NR + SIDE), ldc * 4);
            }
        }
    }
}

/// Sixteen pairs of the rows in tile 4 (sums 0 and 1) or, for the SECOND panel, in tile 5 (sums 2 and 3), times sixteen lines of
/// a panel.
#[inline(always)]
unsafe fn panel<T: Tiles, const SECOND: bool>(t: &mut T, b: *const f32) {
    // SAFETY: as promised by the caller: sixteen lines of 32 words.
    unsafe {
        t.load::<6>(b, NR * 4);
        t.load::<7>(b.add(SIDE), NR * 4);
        if SECOND {
            t.dot::<2>();
            t.dot::<3>();
        } else {
            t.dot::<0>();
            t.dot::<1>();
        }
    }
}
