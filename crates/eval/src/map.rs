//! A needle-in-a-haystack evaluation as a map: shares by depth and length.

use crate::EvalSummary;
use aha_tasks::needle::NeedleTask;
use std::collections::{BTreeMap, BTreeSet};

/// Shares of needles found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NeedleMap {
    /// Lengths in tokens, rising.
    pub lengths: Vec<usize>,
    /// A row per depth, rising: the depth, and a share for every length that was asked.
    pub rows: Vec<(f64, Vec<Option<f64>>)>,
}

impl NeedleMap {
    /// The map of an evaluation, if every family of it is a cell of one.
    pub fn of(eval: &EvalSummary) -> Option<Self> {
        let mut cells = BTreeMap::new();
        for (family, measures) in &eval.by_family {
            let (length, depth) = NeedleTask::parse_cell(family)?;
            // Depths have two digits, so that hundredths are exact.
            let share = measures.pass_at_1.or(measures.greedy_pass_at_1).filter(|share| share.is_finite());
            cells.insert(((depth * 100.0).round() as u64, length), share);
        }
        let lengths: BTreeSet<usize> = cells.keys().map(|(_, length)| *length).collect();
        let depths: BTreeSet<u64> = cells.keys().map(|(depth, _)| *depth).collect();
        let row = |depth: &u64| lengths.iter().map(|l| cells.get(&(*depth, *l)).copied().flatten()).collect();
        let rows: Vec<_> = depths.iter().map(|depth| (*depth as f64 / 100.0, row(depth))).collect();
        (!rows.is_empty()).then(|| NeedleMap { lengths: lengths.iter().copied().collect(), rows })
    }
}
