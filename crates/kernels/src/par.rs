//! Splitting work over threads without changing a bit of it.
//!
//! Work is cut into ranges; each range writes its own rows. Inside [`serial`] everything runs on the calling thread: a
//! generator that gives each thread its own sequences uses that.

use rayon::prelude::*;
use std::cell::Cell;
use std::ops::Range;

thread_local! {
    static SERIAL: Cell<bool> = const { Cell::new(false) };
}

/// Runs `f` with every split inside it on this thread.
pub fn serial<R>(f: impl FnOnce() -> R) -> R {
    let before = SERIAL.replace(true);
    let result = f();
    SERIAL.set(before);
    result
}

/// Runs `f` on a thread of the pool. A split made outside it puts its caller to sleep and wakes another thread, every time;
/// inside it the caller begins at once.
pub fn inside<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    if SERIAL.get() || rayon::current_thread_index().is_some() { f() } else { rayon::scope(|_| f()) }
}

/// Number of threads a split may use here.
pub fn threads() -> usize {
    if SERIAL.get() { 1 } else { rayon::current_num_threads() }
}

/// Calls `f` on ranges that cover `0..n`, each at least `grain` long (the last may be shorter), on all threads.
pub fn ranges(n: usize, grain: usize, f: impl Fn(Range<usize>) + Sync) {
    let threads = threads();
    let grain = grain.max(1);
    if threads == 1 || n <= grain {
        if n > 0 {
            f(0..n);
        }
        return;
    }
    // As many for every thread: of five pieces on two, the last would be waited for.
    let pieces = n.div_ceil(grain).min(threads * 4);
    let pieces = if pieces > threads { pieces / threads * threads } else { pieces };
    let step = n.div_ceil(pieces);
    (0..n.div_ceil(step)).into_par_iter().for_each(|i| f(i * step..((i + 1) * step).min(n)));
}

/// A raw pointer that may cross threads; the user promises disjoint access.
#[derive(Clone, Copy)]
pub(crate) struct Shared<T = f32>(*mut T);

// SAFETY: every use writes ranges that no other task touches (stated where it is used).
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    pub(crate) fn new(data: &mut [T]) -> Self {
        Shared(data.as_mut_ptr())
    }

    /// Pointer to element `at`.
    ///
    /// # Safety
    /// `at` must be inside the slice this was made from.
    pub(crate) unsafe fn at(&self, at: usize) -> *mut T {
        unsafe { self.0.add(at) }
    }

    /// A mutable slice.
    ///
    /// # Safety
    /// The range must be inside the slice this was made from, and no other task may touch it meanwhile.
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn slice(&self, at: usize, len: usize) -> &mut [T] {
        unsafe { std::slice::from_raw_parts_mut(self.0.add(at), len) }
    }
}
