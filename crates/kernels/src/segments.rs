//! Where packed sequences begin and end.

/// Boundaries of packed sequences: `cu[i]..cu[i + 1]` are the tokens of sequence i.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segments {
    cu: Vec<usize>,
}

impl Segments {
    /// From lengths of the sequences.
    pub fn from_lengths(lengths: impl IntoIterator<Item = usize>) -> Self {
        let mut cu = vec![0];
        for l in lengths {
            cu.push(cu[cu.len() - 1] + l);
        }
        Segments { cu }
    }

    /// From cumulative lengths, beginning with 0.
    pub fn from_cumulative(cu: Vec<usize>) -> Self {
        assert!(
            cu.first() == Some(&0) && cu.windows(2).all(|w| w[0] <= w[1]),
            "cumulative lengths must start at 0 and grow"
        );
        Segments { cu }
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
    pub fn range(&self, i: usize) -> std::ops::Range<usize> {
        self.cu[i]..self.cu[i + 1]
    }

    /// Position of every token inside its sequence.
    pub fn positions(&self) -> Vec<u32> {
        (0..self.len()).flat_map(|i| 0..self.range(i).len() as u32).collect()
    }
}
