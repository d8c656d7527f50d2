//! The bound on the work of one comparison. Sizes of single terms are limited where they arise; this meter limits their
//! sum, so that no mixture of them takes long. It belongs to the thread, because the arithmetic below is written with
//! plain operations that carry no state.

use std::cell::Cell;

/// Work that one comparison may take, in units of about 0.1 microseconds.
const BUDGET: u64 = 4_000_000;

thread_local! {
    static LEFT: Cell<u64> = const { Cell::new(BUDGET) };
}

/// Begins a comparison with the whole budget.
pub fn begin() {
    LEFT.set(BUDGET);
}

/// Takes `cost` units; `None` once the budget is spent, and for the rest of the comparison.
pub fn charge(cost: u64) -> Option<()> {
    let left = LEFT.get().checked_sub(cost);
    LEFT.set(left.unwrap_or(0));
    left.map(|_| ())
}
