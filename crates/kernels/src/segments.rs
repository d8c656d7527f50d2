//! Where packed sequences begin and end, and which of them go on where another one ended.

use crate::cpu::math;
use std::ops::Range;

/// Boundaries of packed sequences: `cu[i]..cu[i + 1]` are the tokens of sequence i. A sequence may be the continuation of an
/// earlier one: it sees that one's tokens before its own, and its positions go on from there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segments {
    cu: Vec<usize>,
    /// For every sequence the one that it continues; empty where all begin by themselves.
    continues: Vec<Option<usize>>,
}

impl Segments {
    /// From lengths of the sequences.
    pub fn from_lengths(lengths: impl IntoIterator<Item = usize>) -> Self {
        let mut cu = vec![0];
        for l in lengths {
            cu.push(cu[cu.len() - 1] + l);
        }
        Segments { cu, continues: Vec::new() }
    }

    /// From lengths of the sequences' own tokens and the sequence that each continues: an earlier one that begins by itself.
    ///
    /// # Panics
    /// Where it is not.
    pub fn continuing(sequences: &[(usize, Option<usize>)]) -> Self {
        let first = |j: usize| sequences[j].1.is_none();
        assert!(
            sequences.iter().enumerate().all(|(i, (_, before))| before.is_none_or(|j| j < i && first(j))),
            "a sequence continues an earlier one that continues none"
        );
        let continues = sequences.iter().map(|(_, before)| *before);
        let continues =
            if sequences.iter().any(|(_, before)| before.is_some()) { continues.collect() } else { Vec::new() };
        Segments { continues, ..Segments::from_lengths(sequences.iter().map(|(len, _)| *len)) }
    }

    /// From cumulative lengths, beginning with 0.
    pub fn from_cumulative(cu: Vec<usize>) -> Self {
        assert!(
            cu.first() == Some(&0) && cu.windows(2).all(|w| w[0] <= w[1]),
            "cumulative lengths must start at 0 and grow"
        );
        Segments { cu, continues: Vec::new() }
    }

    /// Total number of tokens.
    pub fn tokens(&self) -> usize {
        *self.cu.last().expect("never empty")
    }

    /// Number of sequences.
    pub fn len(&self) -> usize {
        self.cu.len() - 1
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Token range of sequence i.
    pub fn range(&self, i: usize) -> Range<usize> {
        self.cu[i]..self.cu[i + 1]
    }

    /// Tokens that sequence i sees before its own, those of the one it continues.
    pub fn before(&self, i: usize) -> Range<usize> {
        self.continues.get(i).copied().flatten().map_or(0..0, |j| self.range(j))
    }

    /// Columns `at..at + width` of the rows that sequence i sees (rows of x lie `ld` apart), and how far apart they are: where they
    /// lie, or joined in `to` to those before.
    pub(crate) fn seen<'a>(
        &self,
        i: usize,
        to: &'a mut Vec<f32>,
        (x, ld): (&'a [f32], usize),
        at: usize,
        width: usize,
    ) -> (&'a [f32], usize) {
        let (before, own) = (self.before(i), self.range(i));
        if before.is_empty() {
            return (&x[own.start * ld + at..], ld);
        }
        to.clear();
        for row in before.chain(own) {
            to.extend_from_slice(&x[row * ld + at..][..width]);
        }
        (to, width)
    }

    /// Adds up what continuations give to the rows, `width` wide, of the tokens before theirs, in the sequences' order; sequence
    /// i has its copies of them at row `repeated()[i]`.
    pub(crate) fn add_copies(&self, d: &mut [f32], copies: &[f32], width: usize) {
        for (i, first) in self.repeated().into_iter().enumerate().take(self.len()) {
            let before = self.before(i);
            // One without tokens of its own gives nothing, and has written nothing.
            if !self.range(i).is_empty() {
                let copies = &copies[first * width..][..before.len() * width];
                math::add_assign(&mut d[before.start * width..before.end * width], copies);
            }
        }
    }

    /// For every sequence, how many tokens those before it see before their own, and at the end how many all of them do: where
    /// each keeps what it adds to the gradients of the tokens it continues.
    pub(crate) fn repeated(&self) -> Vec<usize> {
        let mut sums = vec![0];
        for i in 0..self.len() {
            sums.push(sums[i] + self.before(i).len());
        }
        sums
    }

    /// Position of every token inside its sequence, counted from the beginning of the one it continues.
    pub fn positions(&self) -> Vec<u32> {
        (0..self.len()).flat_map(|i| (self.before(i).len()..).take(self.range(i).len()).map(|p| p as u32)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continuations_go_on_where_the_other_one_ends() {
        let s = Segments::continuing(&[(3, None), (2, Some(0)), (1, Some(0)), (2, None), (1, Some(3))]);
        assert_eq!(s.positions(), [0, 1, 2, 3, 4, 3, 0, 1, 2]);
        assert_eq!((s.before(0), s.before(2), s.before(4)), (0..0, 0..3, 6..8));
        assert_eq!(s.repeated(), [0, 0, 3, 6, 6, 8]);
        let plain = Segments::from_lengths([2, 1]);
        assert_eq!((plain.positions(), plain.repeated()), (vec![0, 1, 0], vec![0, 0, 0]));
        let s = Segments::continuing(&[(1, None), (1, None), (2, Some(0))]);
        let (mut rows, x) = (Vec::new(), [0., 1., 2., 3., 4., 5., 6., 7.]);
        assert_eq!(s.seen(2, &mut rows, (&x, 2), 1, 1), (&[1., 5., 7.][..], 1));
        assert_eq!(s.seen(1, &mut rows, (&x, 2), 1, 1), (&x[3..], 2));
    }

    #[test]
    #[should_panic(expected = "continues an earlier one")]
    fn a_continuation_of_a_continuation_is_refused() {
        Segments::continuing(&[(3, None), (2, Some(0)), (1, Some(1))]);
    }
}
