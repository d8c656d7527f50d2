//! Prompt blocks that later prompts may begin with: a full block of keys and values is found again by its tokens and the
//! block before it, so that a common prefix (a system message, examples) is computed once.

use crate::blocks::BlockManager;
use aha_kernels::BLOCK_TOKENS;
use std::collections::HashMap;

/// The block before a block, none for the first, and its tokens. Exact: nothing rests on a hash.
type Key = (Option<u32>, [u32; BLOCK_TOKENS]);

/// Known blocks. The cache is an owner of each of them.
#[derive(Debug, Default)]
pub struct PrefixCache {
    known: HashMap<Key, u32>,
    /// In the order they came: a block always after the one before it.
    order: Vec<Key>,
}

fn key(before: Option<u32>, tokens: &[u32]) -> Key {
    (before, tokens.try_into().expect("a full block"))
}

impl PrefixCache {
    /// Blocks that hold the beginning of a prompt, from the first on; the caller becomes an owner of each. The last token is
    /// never among them: it has to be computed for its logits.
    pub fn find(&self, prompt: &[u32], blocks: &mut BlockManager) -> Vec<u32> {
        let found: Vec<u32> = self.beginning(prompt).collect();
        found.iter().for_each(|block| blocks.share(*block));
        found
    }

    /// Tokens of a prompt that [`PrefixCache::find`] would spare.
    pub fn spared(&self, prompt: &[u32]) -> usize {
        self.beginning(prompt).count() * BLOCK_TOKENS
    }

    fn beginning(&self, prompt: &[u32]) -> impl Iterator<Item = u32> {
        let mut before = None;
        prompt[..prompt.len() - 1].chunks_exact(BLOCK_TOKENS).map_while(move |tokens| {
            before = self.known.get(&key(before, tokens)).copied();
            before
        })
    }

    /// Remembers the full blocks of a prompt that has been computed.
    pub fn insert(&mut self, prompt: &[u32], owned: &[u32], blocks: &mut BlockManager) {
        let mut before = None;
        for (tokens, block) in prompt.chunks_exact(BLOCK_TOKENS).zip(owned) {
            let key = key(before, tokens);
            let known = *self.known.entry(key).or_insert_with(|| {
                blocks.share(*block);
                self.order.push(key);
                *block
            });
            before = Some(known);
        }
    }

    /// Frees one block that no sequence uses, the youngest first: what follows a block goes before it. False when there is
    /// none.
    pub fn evict(&mut self, blocks: &mut BlockManager) -> bool {
        let Some(at) = self.order.iter().rposition(|k| blocks.owners(self.known[k]) == 1) else { return false };
        let key = self.order.remove(at);
        blocks.release(self.known.remove(&key).expect("what is in order is known"));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aha_kernels::{CacheShape, KvCache, Precision};

    #[test]
    fn prefixes_are_found_by_their_tokens_and_given_up_from_the_end() {
        let shape = CacheShape { layers: 1, kv_heads: 1, head_dim: 4, value_dim: 4, precision: Precision::F32 };
        let mut cache = KvCache::new(shape);
        let (mut blocks, mut prefixes) = (BlockManager::new(4), PrefixCache::default());
        let prompt: Vec<u32> = (0..70).collect();
        assert_eq!(prefixes.find(&prompt, &mut blocks), [0u32; 0]);
        let owned: Vec<u32> = (0..3).map(|_| blocks.take(&mut cache)).collect();
        prefixes.insert(&prompt, &owned, &mut blocks);
        // Another ending, another beginning, and a prompt that ends with a block: its last token is computed again.
        let mut other = prompt.clone();
        other[40] = 999;
        assert_eq!((prefixes.spared(&other), prefixes.spared(&prompt)), (32, 64));
        assert_eq!(prefixes.find(&other, &mut blocks), owned[..1]);
        assert_eq!(prefixes.find(&prompt[1..], &mut blocks), [0u32; 0]);
        assert_eq!(prefixes.find(&prompt[..64], &mut blocks), owned[..1]);
        // In use by the first prompt: nothing to give up. Afterwards the last block goes first.
        assert!(!prefixes.evict(&mut blocks));
        owned.iter().for_each(|b| blocks.release(*b));
        assert!(prefixes.evict(&mut blocks));
        assert_eq!(blocks.owners(owned[1]), 0);
        assert!(!prefixes.evict(&mut blocks), "the first block has two more owners");
        assert_eq!(prefixes.find(&prompt, &mut blocks), owned[..1]);
    }
}
