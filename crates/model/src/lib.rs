//! The model on disk and in text: configurations, checkpoints in and out under Hugging Face names,
//! tokenizers, chat templates and the reasoning parser.

pub mod chat;
pub mod checkpoint;
pub mod config;
pub mod cost;
pub mod decoder;
pub mod error;
pub mod lora;
mod text_files;
pub mod think;
pub mod tokenizer;

pub use chat::{ChatTemplate, Message};
pub use checkpoint::{
    Adapter, Checkpoint, Gguf, GgufDtype, SaveDtype, TensorSource, is_adapter, save_adapter, save_checkpoint,
    save_checkpoint_pieces, save_gguf, save_tensors,
};
pub use config::{Arch, DeepseekConfig, Head, ModelConfig, RopeScaling, SCORE, TensorSpec};
pub use decoder::Decoder;
pub use error::{Error, Result};
pub use lora::{Lora, LoraConfig};
pub use text_files::TextFiles;
pub use think::{ThinkEvent, ThinkParser, ThinkStatus, Thought, prefills_think, split_thought};
pub use tokenizer::{SpecialTokens, StreamDecoder, Tokenizer};
