//! The keys that each kind of stage knows. A key outside these lists is refused before anything is read, so a typo in a
//! needed key is reported as a typo and not as a missing key; a test proves that every key here is read.

/// Keys of the `corpus` table of a corpus stage, whose values the data crate reads.
pub const CORPUS_KEYS: &[&str] = &[
    "seed",
    "blunt",
    "short",
    "long",
    "tagged",
    "chinese",
    "mixed",
    "blunt_correct",
    "short_correct",
    "slip",
    "misread",
    "orderly",
    "mean_wrong_tries",
    "max_wrong_tries",
    "families",
    "code",
    "general",
    "mixed_within",
    "model_name",
];

/// Ways to make a prompt of a problem: what the model offers (`auto`: its chat template, else R1-Zero's), two short lines
/// for miniature bases, R1-Zero's preamble, the chat template.
pub const PROMPT_STYLES: &[&str] = &["auto", "mini", "r1_zero", "chat"];

pub(crate) const CORPUS_STAGE_KEYS: &[&str] =
    &["documents_for_tokenizer", "vocab_size", "corpus", "sources", "fim_rate", "tokenizer", "eos_token"];

pub(crate) const SOURCE_KEYS: &[&str] = &["path", "generated", "needle", "field", "weight"];

pub(crate) const OPTIMIZER_KEYS: &[&str] = &[
    "learning_rate",
    "schedule",
    "warmup_steps",
    "decay_steps",
    "min_lr_ratio",
    "weight_decay",
    "adam_beta1",
    "adam_beta2",
    "max_grad_norm",
    "hold_steps",
    "final_steps",
    "final_lr_ratio",
    "optimizer",
    "muon_momentum",
    "muon_step_size",
    "muon_precision",
    "moments",
    "gradients",
    "master_weights",
];

pub(crate) const PRETRAIN_KEYS: &[&str] = &[
    "corpus",
    "model",
    "tokens",
    "steps",
    "batch_tokens",
    "batch_tokens_start",
    "batch_ramp_tokens",
    "context",
    "packing",
    "cross_document_attention",
    "validation_documents",
    "validate_every",
    "save_steps",
    "precision",
    "gradient_checkpointing",
];

/// Keys of an extend stage beside those of pretraining.
pub(crate) const EXTEND_KEYS: &[&str] = &["yarn_factor", "yarn_beta_fast", "yarn_beta_slow"];

pub(crate) const MODEL_KEYS: &[&str] = &[
    "architecture",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "rope_theta",
    "tie_word_embeddings",
    "max_position_embeddings",
];

pub(crate) const GRPO_KEYS: &[&str] = &[
    "model",
    "reference",
    "task",
    "task_options",
    "prompt_style",
    "system_prompt",
    "prompt_suffix",
    "steps",
    "num_prompts",
    "num_generations",
    "steps_per_generation",
    "num_iterations",
    "max_completion_length",
    "temperature",
    "top_p",
    "beta",
    "ref_refresh_steps",
    "epsilon",
    "epsilon_high",
    "dual_clip",
    "loss_type",
    "scale_rewards",
    "std_kind",
    "mask_truncated_completions",
    "overlong_penalty",
    "later",
    "rewards",
    "micro_batch_tokens",
    "share_prompts",
    "save_steps",
    "eval_steps",
    "eval_problems",
    "eval_samples",
    "log_rollouts",
    "seed_offset",
    "precision",
    "gradient_checkpointing",
    "bias_update_speed",
    "speculative_decoding",
    "lora",
];

pub(crate) const EVAL_KEYS: &[&str] = &[
    "model",
    "label",
    "few_shot",
    "few_shot_examples",
    "task",
    "task_options",
    "prompt_style",
    "system_prompt",
    "prompt_suffix",
    "problems",
    "samples",
    "temperature",
    "top_p",
    "max_completion_length",
    "seed_offset",
    "precision",
    "speculative_decoding",
];

/// Files that a task's options name, those of its parts among them.
pub(super) fn task_files(options: &toml::Table) -> Vec<&str> {
    let own = ["data", "eval_data"].into_iter().filter_map(|key| options.get(key)?.as_str());
    let parts = options.get("parts").and_then(toml::Value::as_array).into_iter().flatten();
    let parts = parts.filter_map(|part| part.get("task_options")?.as_table()).flat_map(task_files);
    own.chain(parts).collect()
}
