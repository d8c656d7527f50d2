//! In what numbers the operands of a product lie, so that attention is written once: one f32 or a pair of bf16 values to a
//! 32-bit word. Buffers of words are `f32` slices either way; sums and results are f32.

use super::bf16::{alone, halve, interleave, turn_lines};
use super::gemm::{self, Extent, Left, NR, Right, Start};
use super::math::{self, SQUARE};

/// Numbers of a product's operands.
pub trait Operand {
    /// Values in a word, neighbours along the contraction.
    const VALUES: usize;

    /// C = A B over words; see [`gemm::gemm`].
    ///
    /// # Safety
    /// As there.
    unsafe fn gemm(e: Extent, a: Left, b: *const f32, ldb: usize, c: *mut f32, ldc: usize, start: Start);

    /// The same for any number of columns.
    ///
    /// # Safety
    /// As there, for each panel.
    unsafe fn wide(e: Extent, a: Left, b: Right, c: *mut f32, ldc: usize, start: Start);

    /// Whether products of contiguous rows run through matrix tiles.
    fn tiles() -> bool {
        false
    }

    /// A row of values as words; missing last values are zero.
    fn row(words: &mut [f32], values: &[f32]);

    /// Two rows as one row of words, value by value (pairs), or nothing to do but copy the first (singles).
    fn line(words: &mut [f32], first: &[f32], second: &[f32]);

    /// A row without a second one as a row of words.
    fn single(words: &mut [f32], row: &[f32]);

    /// Words of a row of `values` values: as many as hold them, or whole steps of matrix tiles.
    fn words(values: usize) -> usize {
        let words = values.div_ceil(Self::VALUES);
        if Self::tiles() { words.next_multiple_of(SQUARE) } else { words }
    }

    /// Rows `[rows, k]` of `src` (stride `ld`) as the left side of a product over k: where they lie and how far apart.
    /// They may be copied into `scratch`.
    fn left(scratch: &mut Vec<f32>, src: &[f32], ld: usize, rows: usize, k: usize) -> (*const f32, usize) {
        Self::room(scratch, rows, k);
        if ld == k && Self::words(k) * Self::VALUES == k {
            // Rows that follow one another are one long row.
            Self::put(scratch, 0, &src[..rows * k]);
        } else {
            for i in 0..rows {
                Self::put(scratch, i, &src[i * ld..i * ld + k]);
            }
        }
        Self::placed(scratch, src, ld, rows, k)
    }

    /// The same in three steps, for rows that are made one by one: room for all of them, ...
    fn room(scratch: &mut Vec<f32>, rows: usize, k: usize) {
        grow(scratch, rows * Self::words(k));
    }

    /// ... row `i`, as soon as it is made, ...
    fn put(scratch: &mut [f32], i: usize, row: &[f32]) {
        let words = Self::words(row.len());
        Self::row(&mut scratch[i * words..(i + 1) * words], row);
    }

    /// ... and where they lie.
    fn placed(scratch: &[f32], _src: &[f32], _ld: usize, _rows: usize, k: usize) -> (*const f32, usize) {
        (scratch.as_ptr(), Self::words(k))
    }

    /// Rows as the left side of a product over the rows, made one by one: lines of `width` words, room for all of them, ...
    fn room_down(scratch: &mut Vec<f32>, rows: usize, width: usize) {
        grow(scratch, rows.div_ceil(Self::VALUES) * width);
    }

    /// ... row `i`, as soon as it is made, where `rows` are those up to it (stride `ld`) and `last` tells that none follows, ...
    fn put_down(scratch: &mut [f32], i: usize, rows: &[f32], ld: usize, width: usize, last: bool) {
        let row = &rows[i * ld..i * ld + width];
        match i % 2 {
            1 => Self::line(&mut scratch[i / 2 * width..(i / 2 + 1) * width], &rows[(i - 1) * ld..][..width], row),
            _ if last => Self::single(&mut scratch[i / 2 * width..(i / 2 + 1) * width], row),
            _ => {}
        }
    }

    /// ... and where its first line lies and how far apart lines are.
    fn placed_down(scratch: &[f32], _src: &[f32], _ld: usize, width: usize) -> (*const f32, usize) {
        (scratch.as_ptr(), width)
    }

    /// `[ceil(L/32)][words(k)][32]`: rows of `src` (stride `ld`) as columns of panels, zero padded.
    fn columns(dst: &mut Vec<f32>, src: &[f32], ld: usize, len: usize, k: usize) {
        let words = Self::words(k);
        let mut square = [0f32; SQUARE * SQUARE];
        dst.resize(len.div_ceil(NR) * words * NR, 0.0);
        for i0 in (0..len).step_by(SQUARE) {
            let rows = (len - i0).min(SQUARE);
            let panel = &mut dst[i0 / NR * words * NR..][..words * NR];
            for d in (0..words).step_by(SQUARE) {
                let width = (words - d).min(SQUARE);
                let (from, to) = ((d * Self::VALUES).min(k), ((d + width) * Self::VALUES).min(k));
                let panel = &mut panel[d * NR + i0 % NR..];
                if Self::VALUES == 1 {
                    math::transpose(panel, NR, &src[i0 * ld + d..], ld, rows, width);
                    continue;
                }
                for (i, row) in square.chunks_exact_mut(SQUARE).enumerate().take(rows) {
                    Self::row(&mut row[..width], &src[(i0 + i) * ld + from..(i0 + i) * ld + to]);
                }
                math::transpose(panel, NR, &square, SQUARE, rows, width);
            }
        }
        if !len.is_multiple_of(NR) {
            for row in dst[len / NR * words * NR..].chunks_exact_mut(NR) {
                row[len % NR..].fill(0.0);
            }
        }
    }

    /// The first `width` numbers of 32 keys, from their panel `[words][32]`, as rows `32 b..32 b + 32` of panels
    /// `[ceil(width/32)][words(cap)][32]`. Columns from `width` on get whatever follows.
    fn values_of_keys(dst: &mut [f32], keys: &[f32], b: usize, cap: usize, width: usize);

    /// `[ceil(H/32)][words(rows)][32]`: rows of `src` (stride `ld`) cut into panels of 32 columns, zero padded to `rows`.
    fn panels(dst: &mut Vec<f32>, src: &[f32], ld: usize, len: usize, rows: usize, dim: usize) {
        let lines = Self::words(rows);
        dst.resize(dim.div_ceil(NR) * lines * NR, 0.0);
        let zeros = [0f32; NR];
        for c in (0..dim).step_by(NR) {
            let width = (dim - c).min(NR);
            let row = |i: usize| if i < len { &src[i * ld + c..][..width] } else { &zeros[..width] };
            let panel = &mut dst[(c / NR) * lines * NR..][..lines * NR];
            for (p, line) in panel.chunks_exact_mut(NR).enumerate() {
                Self::line(&mut line[..width], row(p * Self::VALUES), row((p + 1) * Self::VALUES - 1));
                line[width..].fill(0.0);
            }
        }
    }
}

/// At least `len` words; those that are there stay.
pub fn grow(buffer: &mut Vec<f32>, len: usize) {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
}

/// f32 values.
pub struct Singles;

impl Operand for Singles {
    const VALUES: usize = 1;

    unsafe fn gemm(e: Extent, a: Left, b: *const f32, ldb: usize, c: *mut f32, ldc: usize, start: Start) {
        // SAFETY: as promised by the caller.
        unsafe { gemm::gemm(e, a, b, ldb, c, ldc, start) }
    }

    unsafe fn wide(e: Extent, a: Left, b: Right, c: *mut f32, ldc: usize, start: Start) {
        for j in (0..e.n).step_by(NR) {
            let (e, base) = (Extent { n: (e.n - j).min(NR), ..e }, b.base.wrapping_add(j / NR * b.panel));
            // SAFETY: as promised by the caller.
            unsafe { gemm::gemm(e, a, base, b.ld, c.add(j), ldc, start) }
        }
    }

    fn row(words: &mut [f32], values: &[f32]) {
        words.copy_from_slice(values);
    }

    fn values_of_keys(dst: &mut [f32], keys: &[f32], b: usize, cap: usize, width: usize) {
        for c in (0..width).step_by(SQUARE) {
            for i in (0..NR).step_by(SQUARE) {
                let to = &mut dst[(c / NR * cap + b * NR + i) * NR + c % NR..];
                math::transpose(to, NR, &keys[c * NR + i..], NR, (width - c).min(SQUARE), SQUARE);
            }
        }
    }

    fn line(words: &mut [f32], first: &[f32], _: &[f32]) {
        words.copy_from_slice(first);
    }

    fn single(words: &mut [f32], row: &[f32]) {
        words.copy_from_slice(row);
    }

    fn room(_: &mut Vec<f32>, _: usize, _: usize) {}

    fn put(_: &mut [f32], _: usize, _: &[f32]) {}

    fn placed(_: &[f32], src: &[f32], ld: usize, rows: usize, k: usize) -> (*const f32, usize) {
        assert!(src.len() >= (rows - 1) * ld + k, "rows of a product");
        (src.as_ptr(), ld)
    }

    fn room_down(_: &mut Vec<f32>, _: usize, _: usize) {}

    fn put_down(_: &mut [f32], _: usize, _: &[f32], _: usize, _: usize, _: bool) {}

    fn placed_down(_: &[f32], src: &[f32], ld: usize, _: usize) -> (*const f32, usize) {
        (src.as_ptr(), ld)
    }
}

/// Pairs of bf16 values.
pub struct Pairs;

impl Operand for Pairs {
    const VALUES: usize = 2;

    unsafe fn gemm(e: Extent, a: Left, b: *const f32, ldb: usize, c: *mut f32, ldc: usize, start: Start) {
        // SAFETY: as promised by the caller.
        unsafe { gemm::gemm_bf16(e, a, b, ldb, c, ldc, start) }
    }

    unsafe fn wide(e: Extent, a: Left, b: Right, c: *mut f32, ldc: usize, start: Start) {
        // SAFETY: as promised by the caller.
        unsafe { gemm::gemm_bf16_wide(e, a, b, gemm::Out { base: c, row: ldc, panel: NR }, start, gemm::Next::NOTHING) }
    }

    fn tiles() -> bool {
        gemm::bf16_tiles()
    }

    fn row(words: &mut [f32], values: &[f32]) {
        words[values.len() / 2..].fill(0.0);
        halve(halves(words), values);
    }

    fn values_of_keys(dst: &mut [f32], keys: &[f32], b: usize, cap: usize, width: usize) {
        let lines = NR / 2;
        for c in (0..width).step_by(NR) {
            let from = &keys[c / 2 * NR..][..(width - c).div_ceil(2).min(lines) * NR];
            let to = &mut dst[(c / NR * Self::words(cap) + b * lines) * NR..][..lines * NR];
            turn_lines(as_u32(to), as_whole(from));
        }
    }

    fn line(words: &mut [f32], first: &[f32], second: &[f32]) {
        interleave(as_u32(words), first, second);
    }

    fn single(words: &mut [f32], row: &[f32]) {
        alone(as_u32(words), row);
    }
}

/// Words as their 16-bit halves, the low one first.
pub fn halves(words: &mut [f32]) -> &mut [u16] {
    // SAFETY: a u16 slice of twice the length covers the same bytes; every bit pattern is valid for both.
    unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), 2 * words.len()) }
}

/// The 16-bit halves of words, the low one first.
pub fn halves_of(words: &[f32]) -> &[u16] {
    // SAFETY: as above.
    unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), 2 * words.len()) }
}

/// Words as floats.
pub fn as_f32(words: &mut [u32]) -> &mut [f32] {
    // SAFETY: same size and alignment, every bit pattern is valid for both.
    unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), words.len()) }
}

/// Words as whole numbers, to be read.
pub fn as_whole(words: &[f32]) -> &[u32] {
    // SAFETY: as above.
    unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), words.len()) }
}

/// Words as whole numbers.
pub fn as_u32(words: &mut [f32]) -> &mut [u32] {
    // SAFETY: as above.
    unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), words.len()) }
}
