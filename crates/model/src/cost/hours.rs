//! From arithmetic to GPU-hours and dollars.
//!
//! Peaks are dense (no sparsity), in 1e12 FLOP/s, as the makers' data sheets give them. The price of an hour has one source
//! here: the $2 that DeepSeek assumes for an H800; others must be stated.

/// A GPU.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gpu {
    /// Its name on the command line.
    pub name: &'static str,
    /// Dense bf16 peak, TFLOP/s.
    pub bf16_tflops: f64,
    /// Dense FP8 peak, TFLOP/s; equal to bf16 where there is no FP8.
    pub fp8_tflops: f64,
    /// Memory in GB.
    pub memory_gb: f64,
}

/// Known GPUs.
pub const GPUS: [Gpu; 7] = [
    Gpu { name: "h800", bf16_tflops: 989.4, fp8_tflops: 1978.9, memory_gb: 80.0 },
    Gpu { name: "h100", bf16_tflops: 989.4, fp8_tflops: 1978.9, memory_gb: 80.0 },
    Gpu { name: "h200", bf16_tflops: 989.4, fp8_tflops: 1978.9, memory_gb: 141.0 },
    Gpu { name: "h20", bf16_tflops: 148.0, fp8_tflops: 296.0, memory_gb: 96.0 },
    Gpu { name: "a100", bf16_tflops: 312.0, fp8_tflops: 312.0, memory_gb: 80.0 },
    Gpu { name: "a800", bf16_tflops: 312.0, fp8_tflops: 312.0, memory_gb: 80.0 },
    Gpu { name: "v100", bf16_tflops: 125.0, fp8_tflops: 125.0, memory_gb: 32.0 },
];

/// The GPU of this name.
pub fn gpu(name: &str) -> Option<Gpu> {
    GPUS.into_iter().find(|g| g.name == name)
}

/// What is known of the speed of a training; each gives GPU-hours.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// A share of the bf16 peak: hours = tokens x FLOPs per token / (utilisation x peak x 3600).
    Utilisation {
        /// 0 to 1.
        mfu: f64,
        /// Peak in FLOP/s.
        peak: f64,
    },
    /// Measured tokens per second of one GPU: hours = tokens / (rate x 3600).
    TokensPerSecond(f64),
    /// Stated GPU-hours per trillion tokens: hours = tokens / 1e12 x that.
    HoursPerTrillion(f64),
    /// A cluster for a time: hours = GPUs x hours of the clock.
    Cluster {
        /// GPUs.
        gpus: f64,
        /// Hours of the clock.
        hours: f64,
    },
    /// Stated as such.
    Stated(f64),
}

impl Pace {
    /// GPU-hours for `tokens` tokens of `flops_per_token`.
    pub fn gpu_hours(&self, tokens: f64, flops_per_token: f64) -> f64 {
        match *self {
            Pace::Utilisation { mfu, peak } => tokens * flops_per_token / (mfu * peak * 3600.0),
            Pace::TokensPerSecond(rate) => tokens / (rate * 3600.0),
            Pace::HoursPerTrillion(hours) => tokens / 1e12 * hours,
            Pace::Cluster { gpus, hours } => gpus * hours,
            Pace::Stated(hours) => hours,
        }
    }

    /// The formula with its numbers.
    pub fn formula(&self, tokens: f64, flops_per_token: f64) -> String {
        match *self {
            Pace::Utilisation { mfu, peak } => {
                format!("{tokens:.4e} tokens x {flops_per_token:.4e} FLOPs / ({mfu} x {peak:.4e} FLOP/s x 3600 s)")
            }
            Pace::TokensPerSecond(rate) => format!("{tokens:.4e} tokens / ({rate} tokens/s x 3600 s)"),
            Pace::HoursPerTrillion(hours) => format!("{tokens:.4e} tokens x {hours} h / 1e12"),
            Pace::Cluster { gpus, hours } => format!("{gpus} GPUs x {hours} h"),
            Pace::Stated(_) => "as stated".to_owned(),
        }
    }
}

/// Share of `peak` (FLOP/s) that a training of this many GPU-hours used.
pub fn implied_mfu(tokens: f64, flops_per_token: f64, gpu_hours: f64, peak: f64) -> f64 {
    tokens * flops_per_token / (gpu_hours * 3600.0 * peak)
}
