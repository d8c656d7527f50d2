//! The settings of each kind of stage: their defaults and ranges. The keys are in [`super::keys`].

use aha_train::advantage::{ScaleRewards, StdKind};
use aha_train::policy_loss::LossType;
use aha_train::schedule::ScheduleKind;

use super::deepseek::{self, DeepseekTraining};
use super::error::RecipeError;
use super::keys::{MODEL_KEYS, PROMPT_STYLES};
use super::lora::lora;
use super::optimizer::{Defaults, optimizer};
use super::raw::Table;
use super::resolve::Context;
use super::rewards::rewards;
use super::section::{ABOVE_ONE, NOT_NEGATIVE, NUCLEUS, POSITIVE, Section};
use super::stage::{
    EvalStage, ExtendStage, GrpoStage, LaterProblems, ModelRef, ModelShape, OverlongPenalty, Precision, PretrainStage,
};
use super::training::training;

pub(super) const MODEL_WANTED: &str = "the name of an earlier stage, or the path of a model";
pub(super) const TASK_WANTED: &str = "the name of a task";

pub(crate) fn pretrain(section: &Section<'_>, context: &Context<'_>) -> Result<PretrainStage, RecipeError> {
    let shape = section.table("model")?.ok_or_else(|| section.missing("model", "a table with the model's shape"))?;
    let model = model_shape(shape, &section.key("model"))?;
    let routed = model.deepseek.is_some().then_some(&DeepseekTraining::PRETRAINING);
    let training = training(section, context, Some(model.max_position_embeddings), routed, ScheduleKind::Cosine)?;
    Ok(PretrainStage { training, model })
}

pub(crate) fn extend(section: &Section<'_>, context: &Context<'_>) -> Result<ExtendStage, RecipeError> {
    let name = section.string("model", MODEL_WANTED)?.ok_or_else(|| section.missing("model", MODEL_WANTED))?;
    let model = context.model(section, "model", &name)?;
    let yarn_beta_fast = section.number("yarn_beta_fast", &POSITIVE)?.unwrap_or(32.0);
    let yarn_beta_slow = section.number("yarn_beta_slow", &POSITIVE)?.unwrap_or(1.0);
    if yarn_beta_slow >= yarn_beta_fast {
        let message = format!(
            "`{}` is {yarn_beta_slow}; it must be below `{}` ({yarn_beta_fast})",
            section.key("yarn_beta_slow"),
            section.key("yarn_beta_fast")
        );
        return Err(section.conflict("yarn_beta_slow", message));
    }
    Ok(ExtendStage {
        model,
        yarn_factor: section.number("yarn_factor", &ABOVE_ONE)?,
        yarn_beta_fast,
        yarn_beta_slow,
        training: training(section, context, None, Some(&DeepseekTraining::EXTENSION), ScheduleKind::Constant)?,
    })
}

pub(super) fn model_shape(table: &Table, path: &str) -> Result<ModelShape, RecipeError> {
    let any = Section::new(table, path, &[MODEL_KEYS, deepseek::SHAPE_KEYS])?;
    let architectures =
        [("llama", None), ("qwen2", Some("qwen2")), ("qwen3", Some("qwen3")), ("deepseek_v3", Some("deepseek_v3"))];
    let architecture = any.choice("architecture", &architectures)?.flatten();
    if architecture == Some("deepseek_v3") {
        return deepseek::shape(table, path);
    }
    let section = Section::new(table, path, &[MODEL_KEYS])?;
    let needed = |key| section.size(key, 1)?.ok_or_else(|| section.missing(key, "a whole number of at least 1"));
    let hidden_size = needed("hidden_size")?;
    let heads = needed("num_attention_heads")?;
    let kv_heads = section.size("num_key_value_heads", 1)?.unwrap_or(heads);
    if !heads.is_multiple_of(kv_heads) {
        let message = format!(
            "`{}` is {kv_heads}, which does not divide the {heads} attention heads",
            section.key("num_key_value_heads")
        );
        return Err(section.conflict("num_key_value_heads", message));
    }
    let head_dim = section.size("head_dim", 1)?;
    if head_dim.is_none() && !hidden_size.is_multiple_of(heads) {
        let message = format!(
            "`{}` is {hidden_size}, which {heads} attention heads do not divide; give a `head_dim`",
            section.key("hidden_size")
        );
        return Err(section.conflict("hidden_size", message));
    }
    let head_width = head_dim.unwrap_or(hidden_size / heads);
    if !head_width.is_multiple_of(2) {
        let message =
            format!("the width of a head (`{}`) is {head_width}; RoPE needs an even one", section.key("head_dim"));
        return Err(section.conflict("head_dim", message));
    }
    Ok(ModelShape {
        architecture,
        hidden_size,
        intermediate_size: needed("intermediate_size")?,
        num_hidden_layers: needed("num_hidden_layers")?,
        num_attention_heads: heads,
        num_key_value_heads: kv_heads,
        head_dim: head_width,
        rope_theta: section.number("rope_theta", &POSITIVE)?.unwrap_or(10_000.0),
        tie_word_embeddings: section.boolean("tie_word_embeddings")?.unwrap_or(false),
        max_position_embeddings: needed("max_position_embeddings")?,
        deepseek: None,
    })
}

pub(crate) fn grpo(section: &Section<'_>, context: &Context<'_>) -> Result<GrpoStage, RecipeError> {
    let name = section.string("model", MODEL_WANTED)?.ok_or_else(|| section.missing("model", MODEL_WANTED))?;
    let model = context.model(section, "model", &name)?;
    let reference = section.string("reference", MODEL_WANTED)?;
    let reference = reference.map(|name| context.model(section, "reference", &name)).transpose()?;
    let losses = [
        ("grpo", LossType::Grpo),
        ("dr_grpo", LossType::DrGrpo),
        ("dapo", LossType::Dapo),
        ("gspo", LossType::Gspo),
        ("cispo", LossType::Cispo),
    ];
    let scales = [("group", ScaleRewards::Group), ("batch", ScaleRewards::Batch), ("none", ScaleRewards::None)];
    let stds = [("population", StdKind::Population), ("sample", StdKind::Sample)];
    let steps = section.integer("steps", 1)?.unwrap_or(10_400);
    let why = ": the baseline is the mean of the group, so a group of one has advantage 0 and learns nothing";
    let num_generations = section.integer_because("num_generations", 2, why)?.unwrap_or(16) as usize;
    let max_completion_length = completion_length(section, context, &[&model])?;
    let epsilon = section.number("epsilon", &NOT_NEGATIVE)?.unwrap_or(0.2);
    let defaults = Defaults { learning_rate: Some(3e-6), schedule: ScheduleKind::Constant, weight_decay: 0.0 };
    let optimizer = optimizer(section, steps, &defaults)?;
    let bias_update_speed = section.number("bias_update_speed", &NOT_NEGATIVE)?.unwrap_or(0.0);
    let lora = lora(section, optimizer.muon.is_some(), bias_update_speed)?;
    if lora.is_some() && reference.is_some() {
        let message = format!(
            "`{}` cannot be chosen with `{}`: the reference is the base without its adapter, and needs no second model",
            section.key("reference"),
            section.key("lora")
        );
        return Err(section.conflict("reference", message));
    }
    Ok(GrpoStage {
        model,
        reference,
        task: section.string("task", TASK_WANTED)?.ok_or_else(|| section.missing("task", TASK_WANTED))?,
        prompt_style: prompt_style(section)?,
        system_prompt: section.string("system_prompt", "a text")?,
        prompt_suffix: section.string("prompt_suffix", "a text")?,
        steps,
        num_prompts: section.size("num_prompts", 1)?.unwrap_or(32),
        num_generations,
        steps_per_generation: section.integer("steps_per_generation", 1)?.unwrap_or(16),
        num_iterations: section.integer("num_iterations", 1)?.unwrap_or(1),
        max_completion_length,
        temperature: section.number("temperature", &POSITIVE)?.unwrap_or(1.0),
        top_p: section.number("top_p", &NUCLEUS)?.unwrap_or(1.0),
        optimizer,
        beta: section.number("beta", &NOT_NEGATIVE)?.unwrap_or(0.001),
        ref_refresh_steps: section.integer("ref_refresh_steps", 0)?.unwrap_or(400),
        epsilon,
        epsilon_high: section.number("epsilon_high", &NOT_NEGATIVE)?.unwrap_or(epsilon),
        dual_clip: section.number("dual_clip", &ABOVE_ONE)?,
        loss_type: section.choice("loss_type", &losses)?.unwrap_or_default(),
        scale_rewards: section.choice("scale_rewards", &scales)?.unwrap_or_default(),
        std_kind: section.choice("std_kind", &stds)?.unwrap_or_default(),
        mask_truncated_completions: section.boolean("mask_truncated_completions")?.unwrap_or(false),
        micro_batch_tokens: section.size("micro_batch_tokens", 1)?.unwrap_or(16_384),
        share_prompts: section.boolean("share_prompts")?,
        save_steps: section.integer("save_steps", 0)?.unwrap_or(100),
        eval_steps: section.integer("eval_steps", 0)?.unwrap_or(0),
        eval_problems: section.integer("eval_problems", 1)?.unwrap_or(100),
        eval_samples: section.integer("eval_samples", 1)?.unwrap_or(4),
        log_rollouts: section.integer("log_rollouts", 0)?.unwrap_or(16),
        seed_offset: section.integer("seed_offset", 0)?.unwrap_or(0),
        precision: precision(section, &Precision::TRAINING)?,
        gradient_checkpointing: section.boolean("gradient_checkpointing")?.unwrap_or(false),
        bias_update_speed,
        lora,
        speculative_decoding: section.boolean("speculative_decoding")?.unwrap_or(false),
        overlong_penalty: overlong(section, max_completion_length)?,
        task_options: section.table("task_options")?.map(Table::to_toml).unwrap_or_default(),
        later: later(section, steps)?,
        rewards: rewards(section, context)?,
    })
}

fn later(section: &Section<'_>, steps: u64) -> Result<Option<LaterProblems>, RecipeError> {
    let Some(table) = section.table("later")? else {
        return Ok(None);
    };
    let own = Section::new(table, &section.key("later"), &[&["from_step", "task", "task_options"]])?;
    let wanted = "a whole number of at least 1";
    let from_step = own.integer("from_step", 1)?.ok_or_else(|| own.missing("from_step", wanted))?;
    if from_step >= steps {
        let message = format!("`{}` is {from_step}, but the stage ends after {steps} steps", own.key("from_step"));
        return Err(own.conflict("from_step", message));
    }
    let task = own.string("task", TASK_WANTED)?.or(section.string("task", TASK_WANTED)?);
    let options = own.table("task_options")?.or(section.table("task_options")?);
    Ok(Some(LaterProblems {
        from_step,
        task: task.ok_or_else(|| section.missing("task", TASK_WANTED))?,
        task_options: options.map(Table::to_toml).unwrap_or_default(),
    }))
}

fn overlong(section: &Section<'_>, limit: usize) -> Result<Option<OverlongPenalty>, RecipeError> {
    let Some(table) = section.table("overlong_penalty")? else {
        return Ok(None);
    };
    let own = Section::new(table, &section.key("overlong_penalty"), &[&["cache_length", "weight"]])?;
    let cache_length =
        own.size("cache_length", 1)?.ok_or_else(|| own.missing("cache_length", "a whole number of at least 1"))?;
    if cache_length > limit {
        let message = format!(
            "`{}` is {cache_length}, more than the max_completion_length of {limit}: every completion would be punished",
            own.key("cache_length")
        );
        return Err(own.conflict("cache_length", message));
    }
    Ok(Some(OverlongPenalty { cache_length, weight: own.number("weight", &POSITIVE)?.unwrap_or(1.0) }))
}

pub(crate) fn eval(section: &Section<'_>, context: &Context<'_>) -> Result<EvalStage, RecipeError> {
    let wanted = "the name of an earlier stage, the path of a model, or a list of these";
    let names = section.strings("model", wanted)?.ok_or_else(|| section.missing("model", wanted))?;
    let model = names.iter().map(|name| context.model(section, "model", name)).collect::<Result<Vec<ModelRef>, _>>()?;
    let label = match section.strings("label", "a label, or a list of one label per model")? {
        Some(labels) => labels,
        None => model.iter().map(default_label).collect(),
    };
    if label.len() != model.len() {
        let message = format!(
            "`{}` has {} labels for {} models; give one label per model",
            section.key("label"),
            label.len(),
            model.len()
        );
        return Err(section.conflict("label", message));
    }
    for (i, name) in label.iter().enumerate() {
        let taken = if label[..i].contains(name) { Some(context.stage.as_str()) } else { context.taken_label(name) };
        if let Some(stage) = taken {
            let message = format!(
                "the label `{name}` is already used by the stage `{stage}`; give another `{}`",
                section.key("label")
            );
            return Err(section.conflict("label", message));
        }
    }
    let max_completion_length = completion_length(section, context, &model.iter().collect::<Vec<_>>())?;
    Ok(EvalStage {
        model,
        label,
        task: section.string("task", TASK_WANTED)?.ok_or_else(|| section.missing("task", TASK_WANTED))?,
        prompt_style: prompt_style(section)?,
        system_prompt: section.string("system_prompt", "a text")?,
        prompt_suffix: section.string("prompt_suffix", "a text")?,
        few_shot: few_shot(section, context)?,
        few_shot_examples: section.size("few_shot_examples", 1)?.unwrap_or(1),
        problems: section.integer("problems", 1)?.unwrap_or(200),
        samples: section.integer("samples", 1)?.unwrap_or(16),
        temperature: section.number("temperature", &POSITIVE)?.unwrap_or(0.6),
        top_p: section.number("top_p", &NUCLEUS)?.unwrap_or(0.95),
        max_completion_length,
        seed_offset: section.integer("seed_offset", 0)?.unwrap_or(0),
        precision: precision(section, &Precision::ALL)?,
        speculative_decoding: section.boolean("speculative_decoding")?.unwrap_or(false),
        task_options: section.table("task_options")?.map(Table::to_toml).unwrap_or_default(),
    })
}

/// Worked examples: a stage of data or a file.
pub(super) fn few_shot(section: &Section<'_>, context: &Context<'_>) -> Result<Option<ModelRef>, RecipeError> {
    let few_shot = section.string("few_shot", "the name of an earlier stage of data, or the path of a file")?;
    let few_shot = few_shot.map(|text| {
        let stage = context.data(section, "few_shot", &text)?;
        Ok(stage.map_or(ModelRef::Path(text), ModelRef::Stage))
    });
    few_shot.transpose()
}

/// A stage's name, or the last part of a path without `.gguf`.
fn default_label(model: &ModelRef) -> String {
    let text = model.to_string();
    let last = text.rsplit(['/', '\\']).find(|part| !part.is_empty()).unwrap_or(&text);
    last.strip_suffix(".gguf").unwrap_or(last).to_owned()
}

pub(super) fn precision(section: &Section<'_>, choices: &[(&str, Precision)]) -> Result<Precision, RecipeError> {
    Ok(section.choice("precision", choices)?.unwrap_or_default())
}

pub(super) fn prompt_style(section: &Section<'_>) -> Result<String, RecipeError> {
    let styles: Vec<(&str, &str)> = PROMPT_STYLES.iter().map(|style| (*style, *style)).collect();
    Ok(section.choice("prompt_style", &styles)?.unwrap_or("auto").to_owned())
}

/// `max_completion_length`, which must leave room for a prompt in models that the recipe trains itself.
pub(super) fn completion_length(
    section: &Section<'_>,
    context: &Context<'_>,
    models: &[&ModelRef],
) -> Result<usize, RecipeError> {
    let length = section.size("max_completion_length", 1)?.unwrap_or(32_768);
    for model in models {
        if let Some((stage, positions)) = context.max_positions(model)
            && length >= positions
        {
            let message = format!(
                "`{}` is {length}, but the model of `{stage}` has max_position_embeddings of {positions}, prompt included; lower the one or raise the other",
                section.key("max_completion_length")
            );
            return Err(section.conflict("max_completion_length", message));
        }
    }
    Ok(length)
}
