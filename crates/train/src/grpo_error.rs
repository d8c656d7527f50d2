//! What can be wrong with the inputs of GRPO's pure functions (advantages, losses, schedules).

/// A bad input to one of GRPO's pure functions. Every variant names the offending value and its place.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum GrpoError {
    /// A slice has another length than the inputs it belongs to.
    #[error("{what} has {found} entries, but {wanted} are needed ({why})")]
    Length {
        /// The slice.
        what: &'static str,
        /// Its length.
        found: usize,
        /// The length it must have.
        wanted: usize,
        /// What it has to agree with.
        why: &'static str,
    },
    /// A number is NaN or infinite where a finite one is needed.
    #[error("{what}[{index}] is {value}; it must be finite{hint}")]
    NotFinite {
        /// The slice.
        what: &'static str,
        /// Where in it.
        index: usize,
        /// The number.
        value: f64,
        /// What usually causes it, with its own punctuation; may be empty.
        hint: &'static str,
    },
    /// A setting is outside its range.
    #[error("{name} is {value}, but must be {wanted}")]
    Setting {
        /// The setting, as in a recipe.
        name: &'static str,
        /// Its value.
        value: f64,
        /// The range in words.
        wanted: &'static str,
    },
    /// `cu_seqlens` does not describe consecutive sequences.
    #[error("cu_seqlens[{index}] is {value}, but offsets start at 0, never fall and end at the number of tokens")]
    Offsets {
        /// Where the rule is broken first.
        index: usize,
        /// The offset found there.
        value: usize,
    },
    /// `beta > 0` without the log-probabilities of the reference model.
    #[error(
        "beta is {beta}, so the loss has a KL term, but no ref_logprobs were given; score the batch with the reference model or set beta to 0"
    )]
    NoReference {
        /// The KL coefficient.
        beta: f64,
    },
    /// A micro-batch brings tokens that the window's normaliser never counted.
    #[error(
        "the micro-batch has {tokens} loss tokens in {sequences} sequences, but the normaliser of the whole window counted only {window_tokens} in {window_sequences}; add every micro-batch to the normaliser before the first loss"
    )]
    OutsideWindow {
        /// Unmasked tokens of the micro-batch.
        tokens: usize,
        /// Its sequences with at least one unmasked token.
        sequences: usize,
        /// Tokens in the normaliser.
        window_tokens: usize,
        /// Sequences in the normaliser.
        window_sequences: usize,
    },
}
