//! How a parameter's values lie in memory, and the way to and from rows.

use crate::cpu::NR;
use std::ops::Range;

/// Values of a piece of a layout, about.
const PIECE: usize = 1 << 20;

/// How a parameter's values lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Matrix `[n, k]` as panels `[ceil(n/32)][k][32]`.
    Panels {
        /// Output width.
        n: usize,
        /// Input width.
        k: usize,
    },
    /// Matrix `[rows, cols]`, row-major (embedding tables).
    Rows {
        /// Number of rows.
        rows: usize,
        /// Width of a row.
        cols: usize,
    },
    /// Vector of `n` values (norm weights, biases).
    Vector {
        /// Length.
        n: usize,
    },
}

impl Layout {
    /// Values stored, padding included.
    pub fn stored(&self) -> usize {
        match *self {
            Layout::Panels { n, k } => n.div_ceil(NR) * NR * k,
            Layout::Rows { rows, cols } => rows * cols,
            Layout::Vector { n } => n,
        }
    }

    /// Logical shape, as in a checkpoint.
    pub fn shape(&self) -> Vec<usize> {
        match *self {
            Layout::Panels { n, k } => vec![n, k],
            Layout::Rows { rows, cols } => vec![rows, cols],
            Layout::Vector { n } => vec![n],
        }
    }

    /// Cuts it into pieces of whole rows, in order: where each is stored, and its own layout. A model's largest matrix need
    /// not be copied as a whole to be written.
    pub fn pieces(&self) -> impl Iterator<Item = (Range<usize>, Layout)> {
        let whole = *self;
        let (rows, width, stored) = match whole {
            Layout::Panels { n, k } => (n, k, (PIECE / (NR * k.max(1))).max(1) * NR),
            Layout::Rows { rows, cols } => (rows, cols, (PIECE / cols.max(1)).max(1)),
            Layout::Vector { n } => (n, 1, n.max(1)),
        };
        (0..rows).step_by(stored).map(move |row| {
            let count = (rows - row).min(stored);
            let layout = match whole {
                Layout::Panels { k, .. } => Layout::Panels { n: count, k },
                Layout::Rows { cols, .. } => Layout::Rows { rows: count, cols },
                Layout::Vector { .. } => Layout::Vector { n: count },
            };
            (row * width..row * width + layout.stored(), layout)
        })
    }

    /// From row-major values of [`Layout::shape`] to the stored order.
    pub fn store(&self, values: Vec<f32>) -> Vec<f32> {
        match *self {
            Layout::Panels { n, k } => {
                let mut out = vec![0.0; self.stored()];
                for (row, x) in values.chunks_exact(k.max(1)).enumerate().take(n) {
                    let panel = &mut out[(row / NR) * NR * k..];
                    for (j, v) in x.iter().enumerate() {
                        panel[j * NR + row % NR] = *v;
                    }
                }
                out
            }
            _ => values,
        }
    }

    /// From the stored order back to row-major values.
    pub fn load(&self, stored: &[f32]) -> Vec<f32> {
        match *self {
            Layout::Panels { n, k } => {
                let mut out = vec![0.0; n * k];
                for (row, x) in out.chunks_exact_mut(k.max(1)).enumerate() {
                    let panel = &stored[(row / NR) * NR * k..];
                    for (j, v) in x.iter_mut().enumerate() {
                        *v = panel[j * NR + row % NR];
                    }
                }
                out
            }
            _ => stored.to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panels_round_trip_and_pad_with_zeros() {
        for (n, k) in [(1, 1), (31, 5), (32, 7), (70, 3)] {
            let values: Vec<f32> = (0..n * k).map(|i| i as f32 + 1.0).collect();
            let layout = Layout::Panels { n, k };
            let stored = layout.store(values.clone());
            assert_eq!(stored.len(), layout.stored());
            assert_eq!(layout.load(&stored), values);
            assert_eq!(stored.iter().filter(|v| **v == 0.0).count(), layout.stored() - n * k);
        }
    }

    #[test]
    fn pieces_of_a_layout_are_its_rows_in_order() {
        for (layout, count) in [
            (Layout::Panels { n: 70, k: 20_000 }, 3),
            (Layout::Panels { n: 33, k: 5 }, 1),
            (Layout::Rows { rows: 5, cols: 400_000 }, 3),
            (Layout::Vector { n: 7 }, 1),
        ] {
            let rows: Vec<f32> = (0..layout.shape().iter().product()).map(|i| (i % 8191) as f32).collect();
            let stored = layout.store(rows.clone());
            let pieces: Vec<_> = layout.pieces().collect();
            let found: Vec<f32> = pieces.iter().flat_map(|(range, l)| l.load(&stored[range.clone()])).collect();
            assert!(found == rows, "{layout:?}");
            assert_eq!(pieces.iter().map(|(range, _)| range.len()).sum::<usize>(), layout.stored());
            assert_eq!(pieces.len(), count, "{layout:?}");
        }
    }
}
