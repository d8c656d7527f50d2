//! Values that clones share until one of them writes.
//!
//! A reference model is a clone of the policy: what is frozen in it, which is everything but the adapters under LoRA, exists
//! once, and what is trained is copied by the first step.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// A buffer of f32; a clone shares it, and writing to a shared one copies it first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Values(Arc<Vec<f32>>);

impl Values {
    /// Whether both are the same memory.
    pub fn shares(&self, other: &Values) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl From<Vec<f32>> for Values {
    fn from(values: Vec<f32>) -> Self {
        Values(Arc::new(values))
    }
}

impl Deref for Values {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.0
    }
}

impl DerefMut for Values {
    fn deref_mut(&mut self) -> &mut [f32] {
        Arc::<Vec<f32>>::make_mut(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_share_until_one_writes() {
        let a = Values::from(vec![1.0, 2.0]);
        let mut b = a.clone();
        assert!(b.shares(&a));
        b[0] = 5.0;
        assert!(!b.shares(&a) && a[..] == [1.0, 2.0] && b[..] == [5.0, 2.0]);
    }
}
