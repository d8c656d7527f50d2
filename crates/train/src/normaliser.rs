//! What a policy loss is divided by, counted once over the whole optimizer window.
//!
//! Gradients of several micro-batches (and ranks) add up, so each must be divided by the tokens or sequences of all of
//! them; dividing by the micro-batch's own count makes the gradient depend on how the window was split, the error behind
//! "0.5x to 4x wrong gradients" in several trainers. The count uses the mask of the numerator: masked tokens, masked
//! sequences and sequences without a single loss token are in neither.

use crate::grpo_error::GrpoError;

/// Counts of the whole optimizer window: start from `default()`, [`add`](Self::add) every micro-batch, and
/// [`merge`](Self::merge) the other ranks, before the first loss is computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Normaliser {
    tokens: usize,
    sequences: usize,
}

impl Normaliser {
    /// Counts one micro-batch of S sequences and T tokens.
    ///
    /// `cu_seqlens[S + 1]` are the offsets of the sequences, `token_mask[T]` is true for loss tokens (completion tokens
    /// with their end-of-sequence token; prompt tokens are false), `sequence_mask[S]` false for sequences left out.
    ///
    /// # Errors
    /// Lengths or offsets that do not agree.
    pub fn add(&mut self, cu_seqlens: &[usize], token_mask: &[bool], sequence_mask: &[bool]) -> Result<(), GrpoError> {
        check_offsets(cu_seqlens, token_mask.len(), sequence_mask.len())?;
        for (bounds, &keep) in cu_seqlens.windows(2).zip(sequence_mask) {
            let tokens = loss_tokens(&token_mask[bounds[0]..bounds[1]], keep);
            self.tokens += tokens;
            self.sequences += usize::from(tokens > 0);
        }
        Ok(())
    }

    /// Adds the counts of another rank.
    pub fn merge(&mut self, other: &Self) {
        self.tokens += other.tokens;
        self.sequences += other.sequences;
    }

    /// Loss tokens in the window.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Sequences with at least one loss token in the window.
    pub fn sequences(&self) -> usize {
        self.sequences
    }
}

/// Loss tokens of one sequence.
pub(crate) fn loss_tokens(token_mask: &[bool], keep: bool) -> usize {
    if keep { token_mask.iter().filter(|&&m| m).count() } else { 0 }
}

/// Offsets start at 0, never fall, end at `tokens` and delimit `sequences` sequences.
fn check_offsets(cu_seqlens: &[usize], tokens: usize, sequences: usize) -> Result<(), GrpoError> {
    if cu_seqlens.len() != sequences + 1 {
        return Err(GrpoError::Length {
            what: "cu_seqlens",
            found: cu_seqlens.len(),
            wanted: sequences + 1,
            why: "one more than sequence_mask",
        });
    }
    let falls = (1..cu_seqlens.len()).find(|&i| cu_seqlens[i] < cu_seqlens[i - 1]);
    let wrong =
        if cu_seqlens[0] != 0 { Some(0) } else { falls.or((cu_seqlens[sequences] != tokens).then_some(sequences)) };
    wrong.map_or(Ok(()), |index| Err(GrpoError::Offsets { index, value: cu_seqlens[index] }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_only_what_the_loss_sees() {
        let mut window = Normaliser::default();
        // Four sequences: 2 loss tokens after a prompt token, all masked, left out, 1 loss token.
        let token_mask = [false, true, true, false, false, true, true, true];
        window.add(&[0, 3, 5, 7, 8], &token_mask, &[true, true, false, true]).unwrap();
        assert_eq!((window.tokens(), window.sequences()), (3, 2));
        let mut twice = window;
        twice.merge(&window);
        assert_eq!((twice.tokens(), twice.sequences()), (6, 4));
    }

    #[test]
    fn an_empty_micro_batch_counts_nothing() {
        let mut window = Normaliser::default();
        window.add(&[0], &[], &[]).unwrap();
        assert_eq!(window, Normaliser::default());
    }

    #[test]
    fn offsets_are_checked() {
        let mut window = Normaliser::default();
        let mut message = |cu: &[usize]| window.add(cu, &[true; 4], &[true; 2]).unwrap_err().to_string();
        assert_eq!(message(&[0, 4]), "cu_seqlens has 2 entries, but 3 are needed (one more than sequence_mask)");
        assert!(message(&[1, 2, 4]).starts_with("cu_seqlens[0] is 1"));
        assert!(message(&[0, 5, 4]).starts_with("cu_seqlens[2] is 4"));
        assert!(message(&[0, 2, 3]).starts_with("cu_seqlens[2] is 3"));
        assert!(message(&[]).starts_with("cu_seqlens has 0"));
    }
}
