//! The CPU backend's primitives: one matrix microkernel, vectorised exponentials and row reductions.
//!
//! The instruction set is found once at run time. Every path multiplies and adds in the same order with fused
//! multiply-adds, so matrix products are bitwise equal on all of them.

mod amx;
pub mod bf16;
pub mod caches;
pub mod decode;
pub mod gemm;
pub mod math;
pub mod operand;
pub mod simd;

pub use gemm::{NR, Start, gemm};
pub use simd::{Isa, isa};
