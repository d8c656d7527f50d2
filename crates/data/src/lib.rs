//! Data: the generated miniature corpus, documents on disk, mixtures of them, tokenizers, and packing.

mod columns;
pub mod conversation;
pub mod corpus;
pub mod error;
pub mod fim;
mod json_rows;
pub mod mixture;
pub mod pack;
pub mod preference;
pub mod requests;
pub mod rows;
pub mod source;
pub mod store;
pub mod tokenizer;
pub mod topk;

pub use conversation::Example;
pub use error::DataError;
pub use json_rows::count_rows;
pub use mixture::{Mixture, Origin};
pub use pack::pack;
pub use requests::RequestRows;
pub use rows::{Packing, Position, Rows};
pub use store::TextStore;
pub use tokenizer::{train_tokenizer, train_tokenizer_with};
pub use topk::{TopKHeader, TopKStore, TopKWriter};
