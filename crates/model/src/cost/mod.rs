//! What a model costs: parameters, arithmetic, memory, GPU-hours and dollars, from its `config.json` alone.
//!
//! Everything is counted from the shape, in closed form, and every number can name its formula. The published training runs
//! in [`known`] are the check: DeepSeek-V3's table 1, R1's table of costs, the Llama 3.1 model card.

pub mod flops;
pub mod hours;
pub mod known;
pub mod memory;
pub mod shape;

pub use flops::{Flops, flops};
pub use hours::{GPUS, Gpu, Pace, gpu};
pub use known::{KNOWN, Phase, Published, published};
pub use memory::{Memory, Policy, cache_bytes_per_token, training};
pub use shape::{Attention, Experts, Part, Shape};
