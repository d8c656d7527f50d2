//! Distillation: who the student is, what it is shown, and the teacher's distribution where the method wants it.

use super::grpo::{model_path, open_task};
use super::pretrain::model_config;
use super::sft::{self, Examples, fit, fit_config};
use super::traces;
use crate::PipelineError;
use crate::models::OpenModel;
use crate::recipe::{
    ComparisonSettings, DataSettings, DistillMethod, DistillStage, ModelRef, OnPolicySettings, Precision, Teacher,
};
use crate::run::{Context, StageEnd};
use aha_data::{Example, TopKHeader, TopKStore, TopKWriter};
use aha_engine::{EngineConfig, SamplingParams};
use aha_kernels::{Ask, Divergence};
use aha_model::{Decoder, LoraConfig, ModelConfig, Tokenizer};
use aha_runs::{Event, Listener};
use aha_train::TrainError;
use aha_train::distill::{DistillConfig, DistillLoss, OnPolicy, OnPolicyConfig, Taught};
use std::path::PathBuf;

/// What the teacher thinks of the examples, in the stage's folder.
const TEACHER_FILE: &str = "teacher.topk";

/// Whom a stage trains: an open model, or a shape with an open model's tokenizer.
struct Student {
    base: OpenModel,
    shape: Option<ModelConfig>,
    lora: Option<LoraConfig>,
    seed: u64,
}

impl Student {
    fn open(context: &Context, name: &str, s: &DistillStage) -> Result<Self, PipelineError> {
        let from = s.student.as_ref().or(s.teacher_model());
        let from = from.ok_or_else(|| failed(name, "there is neither a student nor a teacher to open".into()))?;
        let base = OpenModel::open(&model_path(context, from)?)?;
        let eos = base.stop_tokens.first().copied();
        let eos = eos.ok_or_else(|| failed(name, format!("{from} names no end-of-text token (eos_token_id)")))?;
        let shape = s.model.as_ref().map(|shape| model_config(shape, base.tokenizer.vocab_size(), eos));
        if let Some(shape) = &shape {
            shape.check().map_err(|source| PipelineError::Model { model: format!("{name}.model"), source })?;
        }
        let lora = s.tuning.lora.as_ref().map(|l| l.config(&[]));
        Ok(Student { base, shape, lora, seed: context.recipe.seed })
    }

    fn config(&self) -> &ModelConfig {
        self.shape.as_ref().unwrap_or(self.base.config())
    }

    fn fresh(&self) -> Result<Decoder, TrainError> {
        match &self.shape {
            Some(shape) => Ok(Decoder::init(shape.clone(), self.seed)),
            None => self.base.trainee(self.lora.as_ref(), self.seed),
        }
    }
}

fn failed(stage: &str, problem: String) -> PipelineError {
    PipelineError::Stage { stage: stage.to_owned(), problem }
}

pub(crate) fn run(context: &mut Context, name: &str, s: &DistillStage, hash: &str) -> Result<StageEnd, PipelineError> {
    let student = Student::open(context, name, s)?;
    match (&s.data, &s.comparison, &s.on_policy) {
        (_, Some(comparison), Some(answers)) => on_policy(context, name, s, hash, &student, comparison, answers),
        (Some(data), comparison, _) => on_texts(context, name, s, hash, &student, data, comparison.as_ref()),
        _ => Err(failed(name, "there is nothing to learn from".into())),
    }
}

/// Trains on given texts: on their tokens, or on what the teacher thinks of them.
fn on_texts(
    context: &mut Context,
    name: &str,
    s: &DistillStage,
    hash: &str,
    student: &Student,
    data: &DataSettings,
    comparison: Option<&ComparisonSettings>,
) -> Result<StageEnd, PipelineError> {
    let mut files = sft::files(context, data)?;
    match (&s.teacher, &s.endpoint) {
        (Some(Teacher::Traces(path)), _) => files.push(PathBuf::from(path)),
        (Some(Teacher::Endpoint(url)), Some(endpoint)) => match traces::answers_of(context, name, url, endpoint, s)? {
            Some(path) => files.push(path),
            None => return Ok(StageEnd { metrics: Vec::new(), finished: false }),
        },
        _ => {}
    }
    let settings = (data, &s.tuning);
    let prompter = sft::prompter(&student.base, &s.tuning)?;
    let mut most = data.max_length.min(student.config().max_position_embeddings);
    let teacher = comparison.and(s.teacher_model()).map(|model| Teaching::open(context, name, model, student));
    let teacher = teacher.transpose()?;
    if let Some(teacher) = &teacher {
        most = most.min(teacher.model.config().max_position_embeddings);
    }
    let examples = Examples::read(context, name, settings, &files, &prompter, most)?;
    let text = &student.base.text;
    let (Some(comparison), Some(teacher)) = (comparison, teacher) else {
        return sft::train(context, name, settings, hash, "distill", &examples, text, || student.fresh());
    };
    let config =
        DistillConfig { sft: examples.config(context, name, settings, hash)?, loss: loss(s.method, comparison) };
    let ask = Ask { k: comparison.top_k, temperature: config.loss.temperature, vocab: student.config().vocab_size };
    let all: Vec<&Example> = examples.train.iter().chain(&examples.held_out).collect();
    let Some(store) = teacher.read(context, name, s.tuning.precision, &all, ask, hash)? else {
        return Ok(StageEnd { metrics: Vec::new(), finished: false });
    };
    let taught = Taught { examples: &examples.train, validation: &examples.held_out, teacher: &store };
    let mut end = fit(context, name, &config.sft.fit, "distill", text, 0, |checkpoints, observer| {
        aha_train::distill::run(&config, || student.fresh(), &taught, checkpoints, text, observer)
    })?;
    end.metrics.extend(examples.counts());
    Ok(end)
}

/// Trains on the student's own answers.
fn on_policy(
    context: &mut Context,
    name: &str,
    s: &DistillStage,
    hash: &str,
    student: &Student,
    comparison: &ComparisonSettings,
    answers: &OnPolicySettings,
) -> Result<StageEnd, PipelineError> {
    let missing = || failed(name, "on_policy needs a teacher and a task".into());
    let (from, problems) = s.teacher_model().zip(s.problems.as_ref()).ok_or_else(missing)?;
    let seed = sft::seed(context, &s.tuning);
    let task = open_task(name, &problems.task, &problems.task_options, seed)?;
    let prompter = sft::prompter(&student.base, &s.tuning)?;
    let teacher = Teaching::open(context, name, from, student)?.model.decoder(s.tuning.precision)?;
    let config = OnPolicyConfig {
        fit: fit_config(&s.tuning, seed, answers.steps, answers.validate_every, hash),
        loss: loss(s.method, comparison),
        top_k: comparison.top_k,
        num_prompts: answers.num_prompts,
        num_generations: answers.num_generations,
        validation_problems: answers.validation_problems,
        sampling: SamplingParams {
            temperature: answers.sampling_temperature as f32,
            top_p: answers.top_p as f32,
            max_new_tokens: answers.max_completion_length,
            ..SamplingParams::default()
        },
        engine: EngineConfig::default(),
        seed,
    };
    let trainer = OnPolicy { config: &config, teacher: &teacher, task: &*task, prompter: &prompter };
    let text = &student.base.text;
    fit(context, name, &config.fit, "distill", text, answers.log_rollouts, |checkpoints, observer| {
        trainer.run(|| student.fresh(), checkpoints, text, observer)
    })
}

fn loss(method: DistillMethod, s: &ComparisonSettings) -> DistillLoss {
    let divergence = match method {
        DistillMethod::ReverseKl | DistillMethod::OnPolicy => Divergence::Reverse,
        DistillMethod::Jsd => Divergence::JensenShannon { beta: s.jsd_beta.unwrap_or(0.5) as f32 },
        DistillMethod::Sft | DistillMethod::ForwardKl => Divergence::Forward,
    };
    DistillLoss { divergence, temperature: s.temperature as f32, alpha: s.alpha }
}

/// A teacher whose tokens are the student's.
struct Teaching {
    model: OpenModel,
}

impl Teaching {
    fn open(context: &Context, name: &str, model: &ModelRef, student: &Student) -> Result<Self, PipelineError> {
        let teacher = OpenModel::open(&model_path(context, model)?)?;
        if let Some(problem) = difference(&student.base.tokenizer, &teacher.tokenizer) {
            let text = format!(
                "the student's tokenizer is not that of the teacher {model}: {problem}; distributions can only be compared over the same tokens, use method = \"sft\" on texts of the teacher"
            );
            return Err(failed(name, text));
        }
        Ok(Teaching { model: teacher })
    }

    /// What it thinks of the examples, read or asked for now; `None` when the run was stopped meanwhile.
    fn read(
        &self,
        context: &Context,
        name: &str,
        precision: Precision,
        examples: &[&Example],
        ask: Ask,
        hash: &str,
    ) -> Result<Option<TopKStore>, PipelineError> {
        let train_error = |source| PipelineError::Train { stage: name.to_owned(), source };
        let data_error = |e: aha_data::DataError| train_error(e.into());
        let root = context.dir.stage(name)?.root().to_path_buf();
        std::fs::create_dir_all(&root).map_err(|e| failed(name, format!("{}: {e}", root.display())))?;
        let path = root.join(TEACHER_FILE);
        let rows: usize = examples.iter().map(|e| e.targets()).sum();
        let header = TopKHeader {
            k: ask.k.min(ask.vocab).min(self.model.config().vocab_size),
            vocab: ask.vocab,
            rows: rows as u64,
            temperature: ask.temperature,
            of: hash.to_owned(),
        };
        if !path.exists() {
            let text = format!("the teacher reads {rows} tokens, {} bytes each", header.row_bytes());
            context.listeners.event(&Event::Note { stage: name.to_owned(), text });
            let mut writer = TopKWriter::open(&path, &header).map_err(data_error)?;
            let teacher = self.model.decoder(precision)?;
            let done = aha_train::distill::teach(&teacher, examples, ask, &mut writer, &|| context.stopped());
            if !done.map_err(train_error)? {
                return Ok(None);
            }
            writer.finish().map_err(data_error)?;
        }
        let store = TopKStore::open(&path).map_err(data_error)?;
        if *store.header() != header {
            let text = format!("{} was made for other examples; remove it and run again", path.display());
            return Err(failed(name, text));
        }
        Ok(Some(store))
    }
}

/// The first token that two tokenizers disagree about, in words. Padding behind the shorter vocabulary does not count.
fn difference(student: &Tokenizer, teacher: &Tokenizer) -> Option<String> {
    let known = student.vocab_size().max(teacher.vocab_size()) as u32;
    let different = |id: &u32| student.id_to_token(*id) != teacher.id_to_token(*id);
    let id = (0..known).find(different)?;
    let word = |t: &Tokenizer| t.id_to_token(id).map_or("nothing".to_owned(), |token| format!("{token:?}"));
    Some(format!("token {id} is {} there and {} here", word(teacher), word(student)))
}
