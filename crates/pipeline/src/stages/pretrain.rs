//! Pretraining a fresh decoder on the miniature corpus.

use super::corpus;
use super::observer::RunObserver;
use crate::PipelineError;
use crate::recipe::{PretrainStage, StageSettings};
use crate::run::{Context, StageEnd};
use aha_data::corpus::CorpusConfig;
use aha_kernels::AdamWConfig;
use aha_model::{Arch, Decoder, ModelConfig, RopeScaling, SaveDtype, TextFiles, Tokenizer};
use aha_runs::{Event, Listener};
use aha_train::pretrain::{Documents, PretrainConfig};
use aha_train::state;
use rayon::prelude::*;

/// Validation documents come from a stream of their own.
const VALIDATION_SEED: u64 = 0x7a11_da7e;

struct Corpus {
    config: CorpusConfig,
    tokenizer: Tokenizer,
    eos: u32,
}

impl Documents for Corpus {
    fn tokens(&self, range: std::ops::Range<u64>) -> Vec<Vec<u32>> {
        range
            .into_par_iter()
            .map(|i| {
                let text = corpus::text(&self.config, i);
                let mut tokens = self.tokenizer.encode(&text, false).expect("a byte-level tokenizer encodes any text");
                tokens.push(self.eos);
                tokens
            })
            .collect()
    }
}

pub(crate) fn run(context: &mut Context, name: &str, s: &PretrainStage, hash: &str) -> Result<StageEnd, PipelineError> {
    let fail = |problem: String| PipelineError::Stage { stage: name.to_owned(), problem };
    let model_error = |source| PipelineError::Model { model: s.corpus.clone(), source };
    let StageSettings::Corpus(corpus_stage) = &context.recipe.stage(&s.corpus)?.settings else {
        return Err(fail(format!("corpus = \"{}\" is not a corpus stage", s.corpus)));
    };
    let config = corpus::config(&s.corpus, corpus_stage, context.recipe.seed)?;
    let tokenizer_file = corpus::tokenizer_path(context.dir.stage(&s.corpus)?.root());
    let tokenizer = Tokenizer::from_file(&tokenizer_file).map_err(model_error)?;
    let eos = tokenizer
        .token_to_id(aha_data::tokenizer::EOS)
        .ok_or_else(|| fail("the tokenizer has no end-of-text token".into()))?;
    let special = aha_model::SpecialTokens { eos: Some(aha_data::tokenizer::EOS.into()), ..Default::default() };
    let tokenizer = tokenizer.with_special(special).map_err(model_error)?;
    let text = TextFiles::new(Some(&tokenizer), None);
    let shape = model_config(s, tokenizer.vocab_size(), eos);
    shape.check().map_err(model_error)?;
    let seed = context.recipe.seed;
    let validation =
        Corpus { config: CorpusConfig { seed: config.seed ^ VALIDATION_SEED, ..config.clone() }, tokenizer, eos };
    let held_out = validation.tokens(0..s.validation_documents);
    let documents = Corpus { config, tokenizer: validation.tokenizer, eos };
    let settings = PretrainConfig {
        steps: s.steps,
        batch_tokens: s.batch_tokens,
        context: s.context,
        schedule: s.optimizer.schedule(s.steps),
        optimizer: optimizer(&s.optimizer),
        validate_every: s.validate_every,
        save_steps: s.save_steps,
        precision: s.precision.resolve(),
        gradient_checkpointing: s.gradient_checkpointing,
        balance: s.deepseek.as_ref().map(|d| d.balance(s.steps)).unwrap_or_default(),
        prediction: s.deepseek.as_ref().map(|d| d.prediction(s.steps)).unwrap_or_default(),
        settings: hash.to_owned(),
    };
    let paths = context.dir.stage(name)?;
    let train_error = |source| PipelineError::Train { stage: name.to_owned(), source };
    let resume = state::latest(&paths.checkpoints_dir(), hash).map_err(train_error)?;
    context.listeners.event(&Event::StageStarted {
        stage: name.to_owned(),
        method: "pretrain".into(),
        resumed_at: resume,
        total_steps: Some(s.steps),
    });
    let mut observer = RunObserver::open(context, name, resume, 0, None)?;
    let fresh = || Decoder::init(shape, seed);
    let (model, finished) = aha_train::pretrain::run(
        &settings,
        fresh,
        &documents,
        &held_out,
        &paths.checkpoints_dir(),
        &text,
        &mut observer,
    )
    .map_err(train_error)?;
    let metrics = observer.last;
    if finished {
        state::save_model(&paths.model(), &model, SaveDtype::F32, &text).map_err(train_error)?;
    }
    Ok(StageEnd { metrics, finished })
}

/// Optimizer settings of a recipe.
pub(crate) fn optimizer(o: &crate::recipe::OptimizerSettings) -> AdamWConfig {
    AdamWConfig {
        beta1: o.adam_beta1 as f32,
        beta2: o.adam_beta2 as f32,
        weight_decay: o.weight_decay as f32,
        max_grad_norm: o.max_grad_norm as f32,
        ..AdamWConfig::default()
    }
}

fn model_config(s: &PretrainStage, vocab_size: usize, eos: u32) -> ModelConfig {
    let m = &s.model;
    ModelConfig {
        arch: if m.deepseek.is_some() { Arch::DeepseekV3 } else { Arch::Llama },
        vocab_size,
        hidden_size: m.hidden_size,
        intermediate_size: m.intermediate_size,
        num_hidden_layers: m.num_hidden_layers,
        num_attention_heads: m.num_attention_heads,
        num_key_value_heads: m.num_key_value_heads,
        head_dim: m.head_dim,
        rms_norm_eps: 1e-6,
        rope_theta: m.rope_theta,
        rope_scaling: RopeScaling::None,
        tie_word_embeddings: m.tie_word_embeddings,
        attention_bias: false,
        attention_out_bias: false,
        mlp_bias: false,
        qk_norm: false,
        max_position_embeddings: m.max_position_embeddings,
        initializer_range: 0.02,
        bos_token_id: None,
        eos_token_ids: vec![eos],
        torch_dtype: None,
        deepseek: m.deepseek.as_ref().map(|d| Box::new(d.config.clone())),
    }
}
