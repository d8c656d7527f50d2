//! Context extension: positions stretched with YaRN, then training on longer documents (DeepSeek-V3, section 4.3).
//!
//! What it must not cost is the loss at the old length, so that is measured on both models in the end.

use super::grpo::model_path;
use super::pretrain::{Texts, train};
use crate::PipelineError;
use crate::models::OpenModel;
use crate::recipe::{ExtendStage, Precision};
use crate::run::{Context, StageEnd};
use aha_kernels::Tape;
use aha_model::{Decoder, RopeScaling};
use aha_train::pretrain::validation_loss;

/// Weight of YaRN's magnitude factor on the scores and on cosines and sines, where they cancel (V3's config.json).
const MSCALE: f64 = 1.0;

pub(crate) fn run(context: &mut Context, name: &str, s: &ExtendStage, hash: &str) -> Result<StageEnd, PipelineError> {
    let fail = |problem: String| PipelineError::Stage { stage: name.to_owned(), problem };
    let open = OpenModel::open(&model_path(context, &s.model)?)?;
    let (length, scaling) = stretched(s, open.config()).map_err(&fail)?;
    let Some(eos) = open.config().eos_token_ids.first().copied().or(open.stop_tokens.first().copied()) else {
        return Err(fail(format!(
            "`{}` names no token that ends a text; add eos_token_id to its config.json",
            s.model
        )));
    };
    let texts = Texts::open(context, name, &s.training, open.tokenizer.clone(), eos)?;
    let end = train(context, name, &s.training, hash, &texts, &open.text, || {
        let mut model = open.decoder(Precision::F32)?;
        model
            .set_positions(scaling, s.training.context)
            .map_err(|source| PipelineError::Model { model: s.model.to_string(), source })?;
        Ok(model)
    })?;
    if !end.finished {
        return Ok(end);
    }
    // Texts of the old length, by the old model and by the new one in the same numbers; cut ones where none is whole.
    let mut short: Vec<Vec<u32>> = texts.held_out.iter().filter(|t| t.len() <= length).cloned().collect();
    if short.is_empty() {
        short = texts.held_out.iter().map(|t| t[..t.len().min(length)].to_vec()).collect();
    }
    let after = OpenModel::open(&context.dir.stage(name)?.model())?;
    let loss = |model: &OpenModel| -> Result<f64, PipelineError> {
        let decoder: Decoder = model.decoder(s.training.precision)?;
        Ok(validation_loss(&decoder, &short, s.training.batch_tokens, &mut Tape::new(false)))
    };
    let mut end = end;
    end.metrics.push(("short_eval_loss/before".into(), loss(&open)?));
    end.metrics.push(("short_eval_loss/after".into(), loss(&after)?));
    Ok(end)
}

/// The length the model has, and the stretch that the stage asks for.
fn stretched(s: &ExtendStage, config: &aha_model::ModelConfig) -> Result<(usize, RopeScaling), String> {
    let length = config.max_position_embeddings;
    let original = match config.rope_scaling {
        RopeScaling::None => length,
        RopeScaling::Yarn { original_max_position_embeddings, .. } => original_max_position_embeddings,
        _ => return Err(format!("the positions of `{}` are stretched in another way than YaRN already", s.model)),
    };
    let context = s.training.context;
    if context <= length {
        return Err(format!("context is {context}, but `{}` already has {length} positions; take more", s.model));
    }
    let scaling = RopeScaling::Yarn {
        factor: s.yarn_factor.unwrap_or(context as f64 / original as f64),
        beta_fast: s.yarn_beta_fast,
        beta_slow: s.yarn_beta_slow,
        mscale: MSCALE,
        mscale_all_dim: MSCALE,
        original_max_position_embeddings: original,
    };
    Ok((length, scaling))
}
