//! Buffers that a thread keeps: an operation called a thousand times a second must not ask the system for fresh pages.

use std::cell::RefCell;

thread_local! {
    static FLOATS: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// Calls `f` with a buffer of `len` floats whose contents do not matter. Calls may be nested.
pub(crate) fn floats<R>(len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut buffer = FLOATS.with_borrow_mut(|pool| {
        let fit = (0..pool.len()).filter(|i| pool[*i].len() >= len).min_by_key(|i| pool[*i].len());
        // None is large enough: the largest one grows, so that there are never more than are in use at once.
        let at = fit.or_else(|| (0..pool.len()).max_by_key(|i| pool[*i].len()));
        at.map(|i| pool.swap_remove(i)).unwrap_or_default()
    });
    if buffer.len() < len {
        buffer = vec![0.0; len];
    }
    let result = f(&mut buffer[..len]);
    FLOATS.with_borrow_mut(|pool| pool.push(buffer));
    result
}

/// Calls `f` with this thread's value of a type, taken out while it is in use.
pub(crate) fn kept<T: Default, R>(key: &'static std::thread::LocalKey<RefCell<T>>, f: impl FnOnce(&mut T) -> R) -> R {
    let mut value = key.take();
    let result = f(&mut value);
    key.replace(value);
    result
}
