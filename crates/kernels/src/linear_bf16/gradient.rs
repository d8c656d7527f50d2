//! The weight gradient in bf16: d_w += d_y^T x, from columns of both operands packed as pairs of tokens.

use super::{PANEL, ROWS, TILE, with_scratch};
use crate::cpu::bf16::{TILE_PADDING, alone, interleave, zip};
use crate::cpu::gemm::{Extent, Left, NR, Next, Out, Right, Start, bf16_tiles, gemm_bf16_wide};
use crate::cpu::math::{SQUARE, transpose};
use crate::cpu::operand::{as_f32, as_u32};
use crate::par::{self, Shared};
use crate::rows::Rows;
use std::ops::Range;

/// Tokens summed before a weight-gradient tile goes back to memory.
const TOKEN_BLOCK: usize = 1024;
/// Panels that meet a tile of x together (matrix tiles): the second-level cache has room for them.
const TOGETHER: usize = 8;
/// Panels of a weight gradient that are work enough for a thread to pack all of x for itself.
const OWN_PANELS: usize = 16;
/// Widest x that is.
const OWN_WIDTH: usize = 1024;
/// Words of packed x that the second-level cache has room for.
const NEAR_WORDS: usize = 1 << 18;
/// Token pairs packed per tile before the next tile: their rows of x stay in cache.
const LINES: usize = 32;

/// A weight gradient: d_w (f32 panels of `[n, k]`), d_y `[m, n]`, n.
pub type WeightTarget<'a> = (&'a mut [f32], Rows<'a>, usize);

/// d_w (f32 panels of `[n, k]`) += d_y^T x, summed over tokens in order, `TOKEN_BLOCK` at a time.
pub fn backward_weight<'a>(d_w: &mut [f32], d_y: impl Into<Rows<'a>>, x: impl Into<Rows<'a>>, n: usize, k: usize) {
    weight_gradients(&mut [(d_w, d_y.into(), n)], x.into(), k, bf16_tiles());
}

/// The same for several matrices with the same x, which is packed once.
pub fn backward_weights<'a>(targets: &mut [WeightTarget], x: impl Into<Rows<'a>>, k: usize) {
    weight_gradients(targets, x.into(), k, bf16_tiles());
}

/// With the columns of x packed as rows (which matrix tiles want) or in tiles of lines.
pub(super) fn weight_gradients(targets: &mut [WeightTarget], x: Rows, k: usize, as_rows: bool) {
    let m = x.len() / k;
    let mut outs = Vec::with_capacity(targets.len());
    for (d_w, d_y, n) in targets.iter_mut() {
        let fits = x.len() == m * k && d_y.len() == m * *n && d_w.len() == n.div_ceil(NR) * NR * k;
        assert!(fits, "bf16 weight gradient: shapes");
        outs.push((Shared::new(d_w), *d_y, *n));
    }
    let (count, threads) = (outs.iter().map(|(_, _, n)| n.div_ceil(NR)).sum(), par::threads());
    let all = |panels| weight_panels(&outs, panels, x, k, as_rows);
    // With columns enough, and an x that is not wide, each thread packs x for itself: it stays in its second-level cache, and
    // they meet once, not twice for every block of tokens.
    if threads > 1 && count >= threads * OWN_PANELS && k <= OWN_WIDTH {
        par::ranges(count, count.div_ceil(threads), |panels| par::serial(|| all(panels)));
    } else {
        all(0..count);
    }
}

/// Panels `range`, counted through all matrices `(d_w, d_y, n)`, from all tokens.
fn weight_panels(outs: &[(Shared, Rows, usize)], range: Range<usize>, x: Rows, k: usize, as_rows: bool) {
    let (m, height) = (x.len() / k, if as_rows { NR } else { TILE });
    let tiles = k.div_ceil(height);
    // As many groups for every thread.
    let groups_wanted = range.len().div_ceil(TOGETHER).next_multiple_of(par::threads() * 2);
    let most = if as_rows { range.len().div_ceil(groups_wanted).max(1) } else { 1 };
    let groups = groups(outs, range, most);
    let enough = groups.len() >= par::threads() * 2;
    let pieces = if enough { 1 } else { (par::threads() * 2).div_ceil(groups.len()).min(tiles) };
    let step = tiles.div_ceil(pieces);
    let pieces = tiles.div_ceil(step);
    let start = if as_rows { Start::Chain } else { Start::Add };
    for t0 in (0..m).step_by(TOKEN_BLOCK) {
        let tokens = (m - t0).min(TOKEN_BLOCK);
        let pairs = tokens.div_ceil(2);
        let tile_words = if as_rows { NR * row_words(pairs) } else { tile_words(pairs) };
        // Tiles that the second-level cache does not hold are asked for one ahead.
        let far = tiles * tile_words > NEAR_WORDS;
        with_scratch(&ROWS, tiles * tile_words, |packed| {
            let x = x.slice(t0 * k..(t0 + tokens) * k);
            match as_rows {
                true => pack_token_rows(packed, x, k, pairs),
                false => pack_tokens(packed, x, k, pairs),
            }
            par::ranges(groups.len() * pieces, 1, |tasks| {
                with_scratch(&PANEL, most * pairs * NR, |panels| {
                    let mut current = usize::MAX;
                    for task in tasks {
                        let (at, piece) = (task / pieces, task % pieces);
                        let Group { out, d_y, n, first, count } = &groups[at];
                        if current != at {
                            let d_y = d_y.slice(t0 * n..(t0 + tokens) * n);
                            for (p, panel) in panels.chunks_exact_mut(pairs * NR).enumerate().take(*count) {
                                pack_panel(panel, d_y, *n, first + p);
                            }
                            current = at;
                        }
                        for tile in piece * step..((piece + 1) * step).min(tiles) {
                            let rows = (k - tile * height).min(height);
                            let e = Extent { m: rows, outer: 1, inner: pairs, n: count * NR };
                            let base = packed[tile * tile_words..].as_ptr().cast();
                            let (row, inner) = if as_rows { (row_words(pairs), 1) } else { (1, TILE) };
                            let next = match far {
                                true => Next::from(&packed[(tile + 1) % tiles * tile_words..][..tile_words]),
                                false => Next::NOTHING,
                            };
                            let a = Left { base, row, outer: 0, inner };
                            let b = Right { base: panels.as_ptr().cast(), panel: pairs * NR, ld: NR };
                            // SAFETY: the tile holds `pairs` lines of 12 words, or 32 rows of as many; the panels lines of
                            // 32; this task alone writes rows of this tile of these panels.
                            unsafe {
                                let c = Out { base: out.at((first * k + tile * height) * NR), row: NR, panel: k * NR };
                                gemm_bf16_wide(e, a, b, c, start, next);
                            }
                        }
                    }
                });
            });
        });
    }
}

/// Panels of one matrix that meet x together: panels `first..first + count` of d_w, from d_y `[m, n]`.
struct Group<'a> {
    out: Shared,
    d_y: Rows<'a>,
    n: usize,
    first: usize,
    count: usize,
}

/// Panels `range`, counted through all matrices, in groups of as many as `most`.
fn groups<'a>(outs: &[(Shared, Rows<'a>, usize)], range: Range<usize>, most: usize) -> Vec<Group<'a>> {
    let (mut groups, mut begin) = (Vec::new(), 0);
    for (out, d_y, n) in outs {
        let end = begin + n.div_ceil(NR);
        let (from, to) = (range.start.max(begin), range.end.min(end));
        for first in (from..to).step_by(most) {
            let count = (to - first).min(most);
            groups.push(Group { out: *out, d_y: *d_y, n: *n, first: first - begin, count });
        }
        begin = end;
    }
    groups
}

/// Columns of panel p of d_y `[tokens, n]` as `[pairs][32]`, zero padded.
fn pack_panel(panel: &mut [u32], d_y: Rows, n: usize, p: usize) {
    let (from, width) = (p * NR, (n - p * NR).min(NR));
    let mut done = 0;
    #[cfg(target_arch = "x86_64")]
    if width == NR && crate::cpu::simd::bf16_dot() {
        done = d_y.len() / n / 2;
        // SAFETY: the processor has the instructions; 2 `done` rows of d_y have 32 values from `from` on, and the panel that
        // many lines.
        unsafe {
            match d_y {
                _ if done == 0 => {}
                Rows::Singles(x) => crate::cpu::bf16::pack_panel(panel.as_mut_ptr(), x[from..].as_ptr(), n, done),
                Rows::Pairs(x) => crate::cpu::bf16::zip_panel(panel.as_mut_ptr(), x[from..].as_ptr(), n, done),
            }
        }
    }
    for (p, line) in panel.chunks_exact_mut(NR).enumerate().skip(done) {
        zip_tokens(&mut line[..width], d_y, n, p, from);
        line[width..].fill(0);
    }
}

/// Words of one row of [`pack_token_rows`].
fn row_words(pairs: usize) -> usize {
    pairs.next_multiple_of(SQUARE) + SQUARE
}

/// Columns `from..from + line.len()` of tokens 2p and 2p + 1 of x `[tokens, k]` as words; missing tokens are zero.
fn zip_tokens(line: &mut [u32], x: Rows, k: usize, p: usize, from: usize) {
    let (at, width) = (2 * p * k + from, line.len());
    match x {
        Rows::Singles(x) if at + k < x.len() => interleave(line, &x[at..][..width], &x[at + k..][..width]),
        Rows::Pairs(x) if at + k < x.len() => zip(line, &x[at..][..width], &x[at + k..][..width]),
        Rows::Singles(x) if at < x.len() => alone(line, &x[at..]),
        Rows::Pairs(x) if at < x.len() => line.iter_mut().zip(&x[at..]).for_each(|(word, v)| *word = u32::from(*v)),
        _ => line.fill(0),
    }
}

/// x `[tokens, k]` as rows `[k]` of pairs of tokens; missing tokens are zero.
fn pack_token_rows(packed: &mut [u32], x: Rows, k: usize, pairs: usize) {
    let (tokens, words) = (x.len() / k, row_words(pairs));
    let to = Shared::new(as_f32(packed));
    par::ranges(k.div_ceil(SQUARE), (1_usize << 13).div_ceil(tokens * SQUARE).max(1), |range| {
        let mut square = [0u32; SQUARE * SQUARE];
        for block in range {
            let (from, width) = (block * SQUARE, (k - block * SQUARE).min(SQUARE));
            // SAFETY: each task owns its rows.
            let rows = unsafe { to.slice(from * words, SQUARE * words) };
            for p0 in (0..pairs).step_by(SQUARE) {
                square_of(&mut square, x, k, p0, from, width);
                transpose(&mut rows[p0..], words, as_f32(&mut square), SQUARE, SQUARE, SQUARE);
            }
        }
    });
}

/// Sixteen lines of pairs of tokens, from line p0 on, `width` columns wide.
fn square_of(square: &mut [u32; SQUARE * SQUARE], x: Rows, k: usize, p0: usize, from: usize, width: usize) {
    #[cfg(target_arch = "x86_64")]
    if width == SQUARE && 2 * (p0 + SQUARE) * k <= x.len() && crate::cpu::simd::bf16_dot() {
        let (to, at) = (square.as_mut_ptr(), 2 * p0 * k + from);
        // SAFETY: the processor has the instructions; 32 rows of x have sixteen values from `from` on, the square has 16 lines.
        unsafe {
            match x {
                Rows::Singles(x) => crate::cpu::bf16::pack_tile(to, SQUARE, x[at..].as_ptr(), k, SQUARE),
                Rows::Pairs(x) => crate::cpu::bf16::zip_tile(to, SQUARE, x[at..].as_ptr(), k, SQUARE),
            }
        }
        return;
    }
    for (i, line) in square.chunks_exact_mut(SQUARE).enumerate() {
        zip_tokens(&mut line[..width], x, k, p0 + i, from);
    }
}

/// Words of one tile of packed tokens.
fn tile_words(pairs: usize) -> usize {
    pairs * TILE + TILE_PADDING
}

/// x `[tokens, k]` as pairs of tokens in tiles `[ceil(k/12)]` of `[pairs][12]` (and padding).
fn pack_tokens(packed: &mut [u32], x: Rows, k: usize, pairs: usize) {
    let (tiles, words) = (k.div_ceil(TILE), tile_words(pairs));
    let to = Shared::new(as_f32(packed));
    let tokens = x.len() / k;
    par::ranges(tiles, (1_usize << 13).div_ceil(tokens * TILE).max(1), |range| {
        for p0 in (0..pairs).step_by(LINES) {
            let lines = (pairs - p0).min(LINES);
            for tile in range.clone() {
                // SAFETY: each task owns its tiles.
                let out = as_u32(unsafe { to.slice(tile * words, words) });
                pack_lines(&mut out[p0 * TILE..], x, k, tile * TILE, p0, lines);
            }
        }
    });
}

/// Lines `p0..p0 + lines` of the tile that begins at column `from`.
fn pack_lines(out: &mut [u32], x: Rows, k: usize, from: usize, p0: usize, lines: usize) {
    let mut done = 0;
    #[cfg(target_arch = "x86_64")]
    if crate::cpu::simd::bf16_dot() {
        // Whole vectors while 16 columns lie inside x; the rest below.
        let (len, tokens) = (x.len(), x.len() / k);
        let inside = if from + 16 <= k { tokens / 2 } else { (len.saturating_sub(from + 16) / k).div_ceil(2) };
        done = lines.min(inside.saturating_sub(p0));
        let at = 2 * p0 * k + from;
        // SAFETY: rows 2 p0 .. 2 (p0 + done) have 16 readable values from `from` on, inside x; the tile has its padding.
        unsafe {
            match x {
                _ if done == 0 => {}
                Rows::Singles(x) => crate::cpu::bf16::pack_tile(out.as_mut_ptr(), TILE, x[at..].as_ptr(), k, done),
                Rows::Pairs(x) => crate::cpu::bf16::zip_tile(out.as_mut_ptr(), TILE, x[at..].as_ptr(), k, done),
            }
        }
    }
    let width = (k - from).min(TILE);
    for p in done..lines {
        zip_tokens(&mut out[p * TILE..][..width], x, k, p0 + p, from);
    }
}
