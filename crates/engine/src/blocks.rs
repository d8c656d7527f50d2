//! Who owns which cache block: reference counts, a free list, and reservations that make admission safe.

use aha_kernels::KvCache;

/// Allocator over a cache that grows up to `limit` blocks.
#[derive(Debug)]
pub struct BlockManager {
    limit: usize,
    reserved: usize,
    counts: Vec<u32>,
    free: Vec<u32>,
}

impl BlockManager {
    /// At most `limit` blocks.
    pub fn new(limit: usize) -> Self {
        BlockManager { limit, reserved: 0, counts: Vec::new(), free: Vec::new() }
    }

    /// Promises `blocks` to a sequence if that many are left; it must give the promise back when it ends.
    pub fn reserve(&mut self, blocks: usize) -> bool {
        let fits = self.reserved + blocks <= self.limit;
        if fits {
            self.reserved += blocks;
        }
        fits
    }

    /// Gives a promise back.
    pub fn unreserve(&mut self, blocks: usize) {
        assert!(blocks <= self.reserved, "more blocks unreserved than reserved");
        self.reserved -= blocks;
    }

    /// A block with one owner. Reservations guarantee that there is one.
    pub fn take(&mut self, cache: &mut KvCache) -> u32 {
        let block = self.free.pop().unwrap_or_else(|| {
            assert!(cache.len() < self.limit, "cache blocks used beyond the reservations");
            self.counts.push(0);
            cache.grow()
        });
        self.counts[block as usize] = 1;
        block
    }

    /// Whether another block can only come from one that is given up.
    pub fn is_full(&self, cache: &KvCache) -> bool {
        self.free.is_empty() && cache.len() == self.limit
    }

    /// Owners of a block.
    pub fn owners(&self, block: u32) -> u32 {
        self.counts[block as usize]
    }

    /// One more owner.
    pub fn share(&mut self, block: u32) {
        self.counts[block as usize] += 1;
    }

    /// One owner less; the last one frees it.
    pub fn release(&mut self, block: u32) {
        let count = &mut self.counts[block as usize];
        assert!(*count > 0, "block {block} released twice");
        *count -= 1;
        if *count == 0 {
            self.free.push(block);
        }
    }

    /// Blocks in use.
    pub fn used(&self) -> usize {
        self.counts.iter().filter(|c| **c > 0).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aha_kernels::{CacheShape, Precision};

    #[test]
    fn shared_blocks_are_freed_by_their_last_owner_only() {
        let shape = CacheShape { layers: 1, kv_heads: 1, head_dim: 4, value_dim: 4, precision: Precision::F32 };
        let mut cache = KvCache::new(shape);
        let mut m = BlockManager::new(2);
        assert!(m.reserve(2) && !m.reserve(1));
        let a = m.take(&mut cache);
        m.share(a);
        m.release(a);
        assert_eq!(m.used(), 1);
        m.release(a);
        assert_eq!(m.used(), 0);
        assert_eq!(m.take(&mut cache), a);
        m.unreserve(2);
        assert!(m.reserve(1));
    }
}
