//! Data: the generated miniature corpus, its tokenizer, and packing.

pub mod corpus;
pub mod error;
pub mod pack;
pub mod tokenizer;

pub use error::DataError;
pub use pack::pack;
pub use tokenizer::train_tokenizer;
