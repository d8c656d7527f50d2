//! A model of ours that answers a judge's questions. What is asked at the same time is answered in one batch, which changes no bit
//! of any answer.

use crate::PipelineError;
use crate::models::OpenModel;
use crate::recipe::Precision;
use aha_engine::{Control, EngineConfig, FinishReason, Request, SamplingParams, generate};
use aha_judge::{Chat, ChatError, ChatRequest, Reply};
use aha_model::{Decoder, Message};
use aha_tasks::Prompter;
use sha2::{Digest, Sha256};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::UNIX_EPOCH;

/// Where the answer to one question is left.
type Slot = Arc<Mutex<Option<Result<Reply, ChatError>>>>;

/// A language model as a [`Chat`].
pub struct OwnJudge {
    path: String,
    /// Path, precision and state of the files: what is known of one state says nothing about another.
    name: String,
    prompter: Prompter,
    decoder: Decoder,
    /// Questions that nobody answers yet.
    waiting: Mutex<Vec<(Request, Slot)>>,
    /// Held by the caller that answers for all who wait.
    answering: Mutex<()>,
}

impl OwnJudge {
    /// Opens a Hugging Face folder or a GGUF file and reads its weights.
    ///
    /// # Errors
    /// A model that cannot be read; a reward model.
    pub fn open(path: &Path, precision: Precision) -> Result<Self, PipelineError> {
        let model = OpenModel::open(path)?;
        Ok(OwnJudge {
            path: path.display().to_string(),
            name: name(path, precision)?,
            prompter: model.prompter(None, None, None)?,
            decoder: model.decoder(precision)?,
            waiting: Mutex::default(),
            answering: Mutex::new(()),
        })
    }

    fn failed(&self, problem: impl std::fmt::Display) -> ChatError {
        ChatError::Permanent(format!("{}: {problem}", self.path))
    }

    fn request(&self, asked: &ChatRequest) -> Result<Request, ChatError> {
        let turns: Vec<Message> = asked.messages.iter().map(|t| Message::new(&t.role, &t.content)).collect();
        let text = self.prompter.render(&turns).map_err(|e| self.failed(e))?;
        let prompt = self.prompter.tokenizer().encode(&text, false).map_err(|e| self.failed(e))?;
        // One question that is too long must not fail those that are answered beside it.
        let positions = self.decoder.config.max_position_embeddings;
        let Some(room) = positions.checked_sub(prompt.len()).filter(|room| *room > 0) else {
            let length = prompt.len();
            return Err(self.failed(format!("a question of {length} tokens does not fit its {positions} positions")));
        };
        let params = SamplingParams {
            temperature: asked.temperature as f32,
            max_new_tokens: asked.max_tokens.min(room),
            stop_tokens: self.prompter.stop_tokens().to_vec(),
            ..SamplingParams::default()
        };
        Ok(Request { prompt: prompt.into(), samples: 1, params, seed: asked.seed })
    }

    /// Answers all who wait.
    fn answer(&self, batch: Vec<(Request, Slot)>) {
        let (requests, slots): (Vec<Request>, Vec<Slot>) = batch.into_iter().unzip();
        let leave = |slot: &Slot, answer| *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
        let done = match generate(&self.decoder, &requests, &EngineConfig::default(), &Control::default()) {
            Ok(done) => done,
            Err(e) => return slots.iter().for_each(|slot| leave(slot, Err(self.failed(&e)))),
        };
        for completion in done {
            let tokens = (requests[completion.request].prompt.len() + completion.tokens.len()) as u64;
            let truncated = completion.finish == FinishReason::Length;
            let text = self.prompter.completion(&completion.tokens).map_err(|e| self.failed(e));
            leave(&slots[completion.request], text.map(|text| Reply { text, tokens, truncated }));
        }
    }
}

/// A key for a cache of answers that changes when a file of the model does.
fn name(path: &Path, precision: Precision) -> Result<String, PipelineError> {
    let fail = |e: std::io::Error| PipelineError::Stage {
        stage: path.display().to_string(),
        problem: format!("cannot be looked at: {e}"),
    };
    let meta = std::fs::metadata(path).map_err(fail)?;
    let files = match meta.is_dir() {
        true => {
            std::fs::read_dir(path).map_err(fail)?.map(|f| Ok(f?.path())).collect::<Result<_, _>>().map_err(fail)?
        }
        false => vec![path.to_path_buf()],
    };
    let mut states = Vec::with_capacity(files.len());
    for file in files {
        let meta = std::fs::metadata(&file).map_err(fail)?;
        let changed = meta.modified().map_err(fail)?.duration_since(UNIX_EPOCH).unwrap_or_default();
        states.push(format!("{} {} {}", file.display(), meta.len(), changed.as_nanos()));
    }
    states.sort();
    Ok(format!("{} {precision:?} {:x}", path.display(), Sha256::digest(states.join("\n"))))
}

impl Chat for OwnJudge {
    fn name(&self) -> &str {
        &self.name
    }

    fn complete(&self, asked: &ChatRequest) -> Result<Reply, ChatError> {
        let (request, slot) = (self.request(asked)?, Slot::default());
        let waiting = || self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting().push((request, slot.clone()));
        let turn = self.answering.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever answered before may have answered this one as well; otherwise it is among those that wait.
        if slot.lock().unwrap_or_else(PoisonError::into_inner).is_none() {
            self.answer(std::mem::take(&mut *waiting()));
        }
        drop(turn);
        let answer = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        answer.unwrap_or_else(|| Err(self.failed("no answer")))
    }
}
