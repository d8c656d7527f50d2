//! Buffers that go from one value to the next: a step allocates nothing new after the first.

/// Buffers in no use. Every one was made by [`Pool::take`], which writes all of its memory once: whoever takes it again gets
/// old numbers up to its capacity without a pass over them.
#[derive(Default)]
pub(super) struct Pool {
    buffers: Vec<Vec<f32>>,
}

impl Pool {
    /// A buffer of this length; old contents unless `zero`. Where none is large enough the largest one is replaced, so
    /// that batches of varying sizes do not pile up buffers: there are never more than were in use at once.
    pub fn take(&mut self, len: usize, zero: bool) -> Vec<f32> {
        let buffers = &mut self.buffers;
        let fit = (0..buffers.len()).filter(|i| buffers[*i].capacity() >= len).min_by_key(|i| buffers[*i].capacity());
        let Some(i) = fit else {
            if let Some(i) = (0..buffers.len()).max_by_key(|i| buffers[*i].capacity()) {
                buffers.swap_remove(i);
            }
            let mut buffer = vec![0.0; len + len / 8];
            buffer.resize(buffer.capacity(), 0.0);
            buffer.truncate(len);
            return buffer;
        };
        let mut buffer = buffers.swap_remove(i);
        // SAFETY: the capacity suffices, and all of it was written when the buffer was made, which happens above alone.
        unsafe { buffer.set_len(len) };
        if zero {
            buffer.fill(0.0);
        }
        buffer
    }

    /// Gives a buffer back; one without memory is dropped. It must be one of [`Pool::take`]'s that has not grown since, as all
    /// values, gradients and operations of a tape hold.
    pub fn give(&mut self, buffer: Vec<f32>) {
        if buffer.capacity() > 0 {
            self.buffers.push(buffer);
        }
    }

    /// Gives several back.
    pub fn give_all(&mut self, buffers: impl IntoIterator<Item = Vec<f32>>) {
        buffers.into_iter().for_each(|buffer| self.give(buffer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_return_with_what_was_in_them_unless_zeros_are_wanted() {
        let mut pool = Pool::default();
        let mut first = pool.take(100, false);
        assert_eq!(first, [0.0; 100]);
        first.fill(3.0);
        pool.give(first);
        let short = pool.take(10, false);
        assert_eq!(short, [3.0; 10]);
        pool.give_all([short, Vec::new()]);
        // Whole again after a shorter use, and one of them: the empty one was dropped.
        let whole = pool.take(110, false);
        assert!(whole[..100] == [3.0; 100] && whole[100..] == [0.0; 10] && pool.buffers.is_empty());
        pool.give(whole);
        assert_eq!(pool.take(50, true), [0.0; 50]);
    }

    #[test]
    fn the_smallest_that_fits_is_taken_and_the_largest_replaced() {
        let mut pool = Pool::default();
        let taken = [80, 800, 8].map(|len| pool.take(len, false));
        let sizes = [0, 1, 2].map(|i: usize| taken[i].capacity());
        pool.give_all(taken);
        let found = pool.take(70, false);
        assert_eq!((found.capacity(), pool.buffers.len()), (sizes[0], 2));
        let large = pool.take(9000, false);
        assert!(large.len() == 9000 && pool.buffers.len() == 1 && pool.buffers[0].capacity() == sizes[2]);
    }
}
