//! Training methods, one readable file each, and the losses as pure functions.

pub mod step;

pub use step::PackedBatch;
