//! In what numbers products run.

use serde::Serialize;

/// In what numbers matrix products run; weights, sums, gradients and moments are f32 either way, unless settings of the optimizer say
/// otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// f32.
    #[default]
    F32,
    /// Operands rounded to bf16.
    Bf16,
    /// Linear layers in E4M3 with a scale per tile, as DeepSeek-V3 trains; simulated, so not faster.
    Fp8,
    /// bf16 where the processor multiplies it faster, else f32.
    Auto,
    /// Inference only: matrices in the whole numbers of a GGUF file, or rounded to 8 bits.
    Quantized,
}

impl Precision {
    /// Every precision with its name in a recipe.
    pub const ALL: [(&'static str, Self); 5] = [
        ("f32", Self::F32),
        ("bf16", Self::Bf16),
        ("fp8", Self::Fp8),
        ("auto", Self::Auto),
        ("quantized", Self::Quantized),
    ];
    /// Those a model can be trained in.
    pub const TRAINING: [(&'static str, Self); 4] = [Self::ALL[0], Self::ALL[1], Self::ALL[2], Self::ALL[3]];

    /// What it means on this processor.
    pub fn resolve(self) -> aha_kernels::Precision {
        match self {
            Self::F32 => aha_kernels::Precision::F32,
            Self::Bf16 => aha_kernels::Precision::Bf16,
            Self::Fp8 => aha_kernels::Precision::Fp8,
            // Quantized: attention, and what is not in whole numbers.
            Self::Auto | Self::Quantized => aha_kernels::Precision::fastest(),
        }
    }

    /// Left out of a written recipe, so that recipes from before it was known keep their hash.
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
