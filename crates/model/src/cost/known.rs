//! Models whose sizes and costs are public: the part of their `config.json` that counting needs, and published trainings.
//!
//! Sources: DeepSeek-V3 report (table 1, sections 4.2 and 4.3), the long version of the R1 paper (its table of costs and
//! section on RL infrastructure), the Llama 3.1 model card and "The Llama 3 Herd of Models" (tables 3 and 4).

use super::hours::Pace;
use super::shape::Shape;

/// Names and configs.
pub const KNOWN: &[(&str, &str)] = &[
    ("deepseek-v3", DEEPSEEK_V3),
    ("deepseek-r1", DEEPSEEK_V3),
    (
        "deepseek-v2",
        r#"{"model_type":"deepseek_v2","vocab_size":102400,"hidden_size":5120,"intermediate_size":12288,"num_hidden_layers":60,"num_attention_heads":128,"q_lora_rank":1536,"kv_lora_rank":512,"qk_nope_head_dim":128,"qk_rope_head_dim":64,"v_head_dim":128,"n_routed_experts":160,"num_experts_per_tok":6,"n_shared_experts":2,"moe_intermediate_size":1536,"first_k_dense_replace":1}"#,
    ),
    (
        "deepseek-v2-lite",
        r#"{"model_type":"deepseek_v2","vocab_size":102400,"hidden_size":2048,"intermediate_size":10944,"num_hidden_layers":27,"num_attention_heads":16,"q_lora_rank":null,"kv_lora_rank":512,"qk_nope_head_dim":128,"qk_rope_head_dim":64,"v_head_dim":128,"n_routed_experts":64,"num_experts_per_tok":6,"n_shared_experts":2,"moe_intermediate_size":1408,"first_k_dense_replace":1}"#,
    ),
    (
        "llama-3.1-405b",
        r#"{"model_type":"llama","vocab_size":128256,"hidden_size":16384,"intermediate_size":53248,"num_hidden_layers":126,"num_attention_heads":128,"num_key_value_heads":8}"#,
    ),
    (
        "llama-3.1-70b",
        r#"{"model_type":"llama","vocab_size":128256,"hidden_size":8192,"intermediate_size":28672,"num_hidden_layers":80,"num_attention_heads":64,"num_key_value_heads":8}"#,
    ),
    (
        "llama-3.1-8b",
        r#"{"model_type":"llama","vocab_size":128256,"hidden_size":4096,"intermediate_size":14336,"num_hidden_layers":32,"num_attention_heads":32,"num_key_value_heads":8}"#,
    ),
    (
        "mixtral-8x7b",
        r#"{"model_type":"mixtral","vocab_size":32000,"hidden_size":4096,"intermediate_size":14336,"num_hidden_layers":32,"num_attention_heads":32,"num_key_value_heads":8,"num_local_experts":8,"num_experts_per_tok":2}"#,
    ),
    (
        "qwen2.5-0.5b",
        r#"{"model_type":"qwen2","vocab_size":151936,"hidden_size":896,"intermediate_size":4864,"num_hidden_layers":24,"num_attention_heads":14,"num_key_value_heads":2,"tie_word_embeddings":true}"#,
    ),
    (
        "qwen2.5-7b",
        r#"{"model_type":"qwen2","vocab_size":152064,"hidden_size":3584,"intermediate_size":18944,"num_hidden_layers":28,"num_attention_heads":28,"num_key_value_heads":4}"#,
    ),
    (
        "qwen2.5-32b",
        r#"{"model_type":"qwen2","vocab_size":152064,"hidden_size":5120,"intermediate_size":27648,"num_hidden_layers":64,"num_attention_heads":40,"num_key_value_heads":8}"#,
    ),
    (
        "qwen3-30b-a3b",
        r#"{"model_type":"qwen3_moe","vocab_size":151936,"hidden_size":2048,"intermediate_size":6144,"num_hidden_layers":48,"num_attention_heads":32,"num_key_value_heads":4,"head_dim":128,"num_experts":128,"num_experts_per_tok":8,"moe_intermediate_size":768}"#,
    ),
];

const DEEPSEEK_V3: &str = r#"{"model_type":"deepseek_v3","vocab_size":129280,"hidden_size":7168,"intermediate_size":18432,"num_hidden_layers":61,"num_attention_heads":128,"num_key_value_heads":128,"q_lora_rank":1536,"kv_lora_rank":512,"qk_nope_head_dim":128,"qk_rope_head_dim":64,"v_head_dim":128,"n_routed_experts":256,"num_experts_per_tok":8,"n_shared_experts":1,"moe_intermediate_size":2048,"first_k_dense_replace":3,"num_nextn_predict_layers":1,"tie_word_embeddings":false}"#;

/// The shape of a known model.
pub fn known(name: &str) -> Option<Shape> {
    let (_, config) = KNOWN.iter().find(|(n, _)| *n == name)?;
    Shape::from_json(config).ok()
}

/// One phase of a published training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Phase {
    /// What was done.
    pub name: &'static str,
    /// Tokens, where they are published.
    pub tokens: Option<f64>,
    /// Tokens per sequence.
    pub sequence_length: u64,
    /// What the source says about speed or time.
    pub pace: Pace,
    /// GPU-hours the source gives.
    pub gpu_hours: f64,
}

/// A published training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Published {
    /// Where the numbers stand.
    pub source: &'static str,
    /// On which GPU.
    pub gpu: &'static str,
    /// Dollars per GPU-hour, where the source gives a price.
    pub price: Option<f64>,
    /// Its phases.
    pub phases: &'static [Phase],
    /// The dollars of the source.
    pub dollars: Option<f64>,
    /// What the numbers leave open.
    pub note: &'static str,
}

/// The published training of a known model.
pub fn published(name: &str) -> Option<Published> {
    match name {
        "deepseek-v3" => Some(Published {
            source: "DeepSeek-V3 report, table 1",
            gpu: "h800",
            price: Some(2.0),
            phases: &[
                Phase {
                    name: "pre-training",
                    tokens: Some(14.8e12),
                    sequence_length: 4096,
                    pace: Pace::HoursPerTrillion(180e3),
                    gpu_hours: 2664e3,
                },
                Phase {
                    name: "context extension",
                    // 1000 steps of 1920 sequences of 32K, 1000 of 480 of 128K.
                    tokens: Some(1000.0 * (1920.0 * 32_768.0 + 480.0 * 131_072.0)),
                    sequence_length: 81_920,
                    pace: Pace::Stated(119e3),
                    gpu_hours: 119e3,
                },
                Phase {
                    name: "post-training",
                    tokens: None,
                    sequence_length: 4096,
                    pace: Pace::Stated(5e3),
                    gpu_hours: 5e3,
                },
            ],
            dollars: Some(5.576e6),
            note: "the report gives no speed for context extension and post-training, so their hours are its own",
        }),
        "deepseek-r1" => Some(Published {
            source: "DeepSeek-R1, long version, table of training costs",
            gpu: "h800",
            price: Some(2.0),
            phases: &[
                Phase {
                    name: "R1-Zero",
                    tokens: None,
                    sequence_length: 32_768,
                    pace: Pace::Cluster { gpus: 512.0, hours: 198.0 },
                    gpu_hours: 101e3,
                },
                Phase {
                    name: "SFT data",
                    tokens: None,
                    sequence_length: 32_768,
                    pace: Pace::Stated(5e3),
                    gpu_hours: 5e3,
                },
                Phase {
                    name: "R1",
                    tokens: None,
                    sequence_length: 32_768,
                    pace: Pace::Cluster { gpus: 512.0, hours: 80.0 },
                    gpu_hours: 41e3,
                },
            ],
            dollars: Some(294e3),
            note: "on top of DeepSeek-V3-Base, whose cost is not included",
        }),
        "llama-3.1-405b" => Some(Published {
            source: "Llama 3.1 model card; Llama 3 Herd of Models, tables 3 and 4",
            gpu: "h100",
            price: None,
            phases: &[Phase {
                name: "pre-training",
                tokens: Some(15.6e12),
                sequence_length: 8192,
                // 16,384 GPUs at 400 TFLOP/s.
                pace: Pace::Utilisation { mfu: 400.0 / 989.4, peak: 989.4e12 },
                gpu_hours: 30.84e6,
            }],
            dollars: None,
            note: "the card's hours include restarts, annealing, long context and post-training; the 400 TFLOP/s are of \
                   steps that ran",
        }),
        _ => None,
    }
}
