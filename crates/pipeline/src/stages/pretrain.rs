//! Pretraining a fresh decoder on the documents of a corpus stage.

use super::corpus;
use super::documents::{self, Tokenized};
use super::observer::RunObserver;
use crate::PipelineError;
use crate::recipe::{CorpusStage, ModelShape, PretrainStage, StageSettings, TrainingSettings};
use crate::run::{Context, StageEnd};
use aha_data::DataError;
use aha_data::corpus::CorpusConfig;
use aha_model::{Arch, Decoder, Head, ModelConfig, RopeScaling, SaveDtype, TextFiles, Tokenizer};
use aha_runs::{Event, Listener};
use aha_train::pretrain::{Documents, PretrainConfig};
use aha_train::state;
use rayon::prelude::*;
use std::sync::Arc;

/// Validation documents come from a stream of their own.
const VALIDATION_SEED: u64 = 0x7a11_da7e;

struct Corpus {
    config: CorpusConfig,
    tokenizer: Arc<Tokenizer>,
    eos: u32,
}

impl Documents for Corpus {
    fn tokens(&self, range: std::ops::Range<u64>) -> Result<Vec<Vec<u32>>, DataError> {
        let all = range
            .into_par_iter()
            .map(|i| {
                let text = corpus::text(&self.config, i);
                let mut tokens = self.tokenizer.encode(&text, false).expect("a byte-level tokenizer encodes any text");
                tokens.push(self.eos);
                tokens
            })
            .collect();
        Ok(all)
    }
}

fn failed(stage: &str, problem: impl ToString) -> PipelineError {
    PipelineError::Stage { stage: stage.to_owned(), problem: problem.to_string() }
}

/// A fresh decoder on the documents of a corpus stage.
pub(crate) fn run(context: &mut Context, name: &str, s: &PretrainStage, hash: &str) -> Result<StageEnd, PipelineError> {
    let corpus_name = &s.training.corpus;
    let model_error = |source| PipelineError::Model { model: corpus_name.clone(), source };
    let corpus_stage = corpus_stage(context, name, corpus_name)?;
    let tokenizer_file = corpus::tokenizer_path(context.dir.stage(corpus_name)?.root());
    let tokenizer = Tokenizer::from_file(&tokenizer_file).map_err(model_error)?;
    let eos_token = corpus_stage.eos_token.as_deref().unwrap_or(aha_data::tokenizer::EOS);
    let eos = tokenizer.token_to_id(eos_token).ok_or_else(|| {
        failed(name, format!("the tokenizer has no `{eos_token}`; name its end of text with `{corpus_name}.eos_token`"))
    })?;
    let special = aha_model::SpecialTokens { eos: Some(eos_token.into()), ..Default::default() };
    let tokenizer = Arc::new(tokenizer.with_special(special).map_err(model_error)?);
    let text = TextFiles::new(Some(&tokenizer), None);
    let shape = model_config(&s.model, tokenizer.vocab_size(), eos);
    shape.check().map_err(model_error)?;
    let seed = context.recipe.seed;
    let texts = Texts::open(context, name, &s.training, tokenizer, eos)?;
    train(context, name, &s.training, hash, &texts, &text, || Ok(Decoder::init(shape, seed)))
}

/// The corpus stage of this name.
pub(super) fn corpus_stage(context: &Context, stage: &str, name: &str) -> Result<CorpusStage, PipelineError> {
    match &context.recipe.stage(name)?.settings {
        StageSettings::Corpus(settings) => Ok(settings.clone()),
        _ => Err(failed(stage, format!("corpus = \"{name}\" is not a corpus stage"))),
    }
}

/// Documents to train on and documents to validate on, as tokens.
pub(super) struct Texts {
    documents: Box<dyn Documents>,
    /// Never trained on.
    pub held_out: Vec<Vec<u32>>,
}

impl Texts {
    /// The documents of a corpus stage in the tokens of this tokenizer.
    pub fn open(
        context: &Context,
        stage: &str,
        s: &TrainingSettings,
        tokenizer: Arc<Tokenizer>,
        eos: u32,
    ) -> Result<Self, PipelineError> {
        let data_error = |e: DataError| failed(stage, e);
        let (seed, settings) = (context.recipe.seed, corpus_stage(context, stage, &s.corpus)?);
        if settings.is_plain() {
            let config = corpus::config(&s.corpus, &settings, seed)?;
            let other = CorpusConfig { seed: config.seed ^ VALIDATION_SEED, ..config.clone() };
            let validation = Corpus { config: other, tokenizer: tokenizer.clone(), eos };
            let held_out = validation.tokens(0..s.validation_documents).map_err(data_error)?;
            return Ok(Texts { documents: Box::new(Corpus { config, tokenizer, eos }), held_out });
        }
        let root = context.dir.stage(&s.corpus)?;
        let mixture = documents::open(&s.corpus, &settings, root.root(), seed, s.validation_documents)?;
        let documents = Tokenized::new(stage, mixture, tokenizer, eos, seed, settings.fim_rate)?;
        let texts = documents.mixture.held_out().map_err(data_error)?;
        let held_out: Result<Vec<_>, _> = texts.iter().map(|t| documents.plain(t, s.context)).collect();
        Ok(Texts { held_out: held_out.map_err(data_error)?, documents: Box::new(documents) })
    }
}

/// Trains to the end or the next stop, and saves the model where it is finished.
pub(super) fn train(
    context: &mut Context,
    name: &str,
    s: &TrainingSettings,
    hash: &str,
    texts: &Texts,
    text: &TextFiles,
    fresh: impl FnOnce() -> Result<Decoder, PipelineError>,
) -> Result<StageEnd, PipelineError> {
    let settings = PretrainConfig {
        steps: s.steps,
        batch: s.packing.batch(s.batch_tokens, s.context),
        rows: s.packing.rows(s.context),
        schedule: s.optimizer.schedule(s.steps),
        optimizer: s.optimizer.config(context.recipe.seed),
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
        method: context.recipe.stage(name)?.kind().as_str().to_owned(),
        resumed_at: resume,
        total_steps: Some(s.steps),
    });
    let mut observer = RunObserver::open(context, name, resume, 0, None)?;
    // A checkpoint holds the model, so there is nothing to make.
    let mut fresh = if resume.is_some() { None } else { Some(fresh()?) };
    let (model, finished) = aha_train::pretrain::run(
        &settings,
        || fresh.take().expect("a stage without a checkpoint has a fresh model"),
        &*texts.documents,
        &texts.held_out,
        &paths.checkpoints_dir(),
        text,
        &mut observer,
    )
    .map_err(train_error)?;
    let metrics = observer.last;
    if finished {
        state::save_model(&paths.model(), &model, SaveDtype::F32, text).map_err(train_error)?;
    }
    Ok(StageEnd { metrics, finished })
}

/// A fresh decoder's config.
pub(super) fn model_config(m: &ModelShape, vocab_size: usize, eos: u32) -> ModelConfig {
    let arch = match (&m.deepseek, m.architecture) {
        (Some(_), _) => Arch::DeepseekV3,
        (None, Some("qwen2")) => Arch::Qwen2,
        (None, Some("qwen3")) => Arch::Qwen3,
        (None, _) => Arch::Llama,
    };
    ModelConfig {
        arch,
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
        attention_bias: arch == Arch::Qwen2,
        attention_out_bias: false,
        mlp_bias: false,
        qk_norm: arch == Arch::Qwen3,
        max_position_embeddings: m.max_position_embeddings,
        initializer_range: 0.02,
        bos_token_id: None,
        eos_token_ids: vec![eos],
        torch_dtype: None,
        deepseek: m.deepseek.as_ref().map(|d| Box::new(d.config.clone())),
        head: Head::default(),
    }
}
