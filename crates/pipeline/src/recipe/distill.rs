//! The settings of distillation (DeepSeek-R1, section 2.4; long version, B.4.3): R1 fine-tunes students on the teacher's
//! traces (`method = "sft"`); the other methods learn the teacher's distribution, which needs a teacher with the student's
//! tokens.

use serde::Serialize;

use super::error::RecipeError;
use super::keys::task_files;
use super::raw::Table;
use super::resolve::Context;
use super::section::{BELOW_ONE, NOT_NEGATIVE, POSITIVE, SHARE, Section};
use super::settings::{MODEL_WANTED, TASK_WANTED, completion_length, model_shape};
use super::sft::{DATA_KEYS, DataSettings, TuningSettings, data, tuning};
use super::stage::{ModelRef, ModelShape, is_no_count, is_zero};

pub(crate) const DISTILL_KEYS: &[&str] = &["student", "model", "teacher", "method", "endpoint"];
/// Keys of [`ComparisonSettings`].
pub(crate) const COMPARISON_KEYS: &[&str] = &["top_k", "temperature", "alpha", "jsd_beta"];
/// Keys of [`OnPolicySettings`].
pub(crate) const ON_POLICY_KEYS: &[&str] = &[
    "steps",
    "num_prompts",
    "num_generations",
    "sampling_temperature",
    "top_p",
    "max_completion_length",
    "validation_problems",
    "log_rollouts",
];
/// Keys of [`ProblemSettings`].
pub(crate) const PROBLEM_KEYS: &[&str] = &["task", "task_options"];
const ENDPOINT_KEYS: &[&str] = &[
    "name",
    "key_env",
    "problems",
    "only_correct",
    "temperature",
    "max_tokens",
    "concurrency",
    "timeout_s",
    "retries",
    "max_requests",
    "max_total_tokens",
];

/// What a student learns from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DistillMethod {
    /// The teacher's tokens alone (R1).
    Sft,
    /// KL(teacher || student) on given texts.
    ForwardKl,
    /// KL(student || teacher) on given texts.
    ReverseKl,
    /// Their generalised Jensen-Shannon mix on given texts (GKD).
    Jsd,
    /// KL(student || teacher) on the student's own texts (GKD, MiniLLM).
    OnPolicy,
}

impl DistillMethod {
    const ALL: [(&'static str, Self); 5] = [
        ("sft", Self::Sft),
        ("forward_kl", Self::ForwardKl),
        ("reverse_kl", Self::ReverseKl),
        ("jsd", Self::Jsd),
        ("on_policy", Self::OnPolicy),
    ];
}

/// Whom a student learns from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub enum Teacher {
    /// A model of ours.
    Model(ModelRef),
    /// A file of what it said.
    Traces(String),
    /// A model behind an OpenAI-compatible endpoint.
    Endpoint(String),
}

impl From<Teacher> for String {
    fn from(teacher: Teacher) -> String {
        match teacher {
            Teacher::Model(model) => model.to_string(),
            Teacher::Traces(text) | Teacher::Endpoint(text) => text,
        }
    }
}

/// How distributions are compared.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ComparisonSettings {
    /// Tokens of the teacher that are told apart, the most likely ones; all others are one. Default 64.
    pub top_k: usize,
    /// Divides the logits of both. Default 1.
    pub temperature: f64,
    /// Share of the tokens' cross-entropy in the loss. Default 0; always 0 for `on_policy`.
    #[serde(skip_serializing_if = "is_zero")]
    pub alpha: f64,
    /// The teacher's weight in the mixture of `jsd`. Default 0.5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jsd_beta: Option<f64>,
}

/// How the student answers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OnPolicySettings {
    /// Optimizer steps.
    pub steps: u64,
    /// Problems per step. Default 32.
    pub num_prompts: usize,
    /// Answers per problem. Default 1.
    pub num_generations: usize,
    /// Sampling temperature. Default 1.
    pub sampling_temperature: f64,
    /// Nucleus. Default 1.
    pub top_p: f64,
    /// Tokens after which an answer is cut off. Default 32,768.
    pub max_completion_length: usize,
    /// Held-out problems whose answers are compared in a validation. Default 0: none.
    #[serde(skip_serializing_if = "is_no_count")]
    pub validation_problems: u64,
    /// Steps between validations; 0 only at the end. Default 0.
    #[serde(skip_serializing_if = "is_no_count")]
    pub validate_every: u64,
    /// Answers per step that go into the log of rollouts; 0 for none. Default 16.
    pub log_rollouts: u64,
}

/// Where questions come from, and who judges their answers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProblemSettings {
    /// The task.
    pub task: String,
    /// Its options, read by the tasks crate.
    #[serde(skip_serializing_if = "toml::Table::is_empty")]
    pub task_options: toml::Table,
}

/// How an endpoint is asked.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EndpointSettings {
    /// Name of the model there. Default `default`.
    pub name: String,
    /// Environment variable with the key. Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_env: Option<String>,
    /// Problems of the task that are asked. Default 1,000.
    pub problems: u64,
    /// Keeps only answers that the task judges correct. Default true.
    pub only_correct: bool,
    /// Sampling temperature. Default 0.6 (R1).
    pub temperature: f64,
    /// Tokens after which an answer is cut off. Default 32,768.
    pub max_tokens: usize,
    /// Requests at the same time. Default 8.
    pub concurrency: usize,
    /// Longest wait for an answer. Default 600.
    pub timeout_s: u64,
    /// Tries after the first. Default 5.
    pub retries: u64,
    /// Requests that may be made. Default none: without limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_requests: Option<u64>,
    /// Tokens that may be used, as the endpoint counts them. Default none: without limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_total_tokens: Option<u64>,
}

/// Teaches a student.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DistillStage {
    /// The model to train; none where it is fresh (`model`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub student: Option<ModelRef>,
    /// Whom it learns from. For `sft` on a model's texts none is needed; a fresh student has a teacher's tokenizer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub teacher: Option<Teacher>,
    /// What it learns from.
    pub method: DistillMethod,
    /// How distributions are compared; none for `sft`.
    #[serde(flatten)]
    pub comparison: Option<ComparisonSettings>,
    /// Texts to learn on; none for `on_policy`.
    #[serde(flatten)]
    pub data: Option<DataSettings>,
    /// How the student answers; only for `on_policy`.
    #[serde(flatten)]
    pub on_policy: Option<OnPolicySettings>,
    /// How it is trained. Learning rate by default 1e-4 (R1's student of 1.5 B).
    #[serde(flatten)]
    pub tuning: TuningSettings,
    /// Questions of `on_policy` and of endpoints.
    #[serde(flatten)]
    pub problems: Option<ProblemSettings>,
    /// How the endpoint is asked, where the teacher is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<EndpointSettings>,
    /// The shape of a fresh student.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelShape>,
}

impl DistillStage {
    /// The teacher where it is a model of ours.
    pub fn teacher_model(&self) -> Option<&ModelRef> {
        match &self.teacher {
            Some(Teacher::Model(model)) => Some(model),
            _ => None,
        }
    }

    /// Every model and data it starts from.
    pub(super) fn references(&self) -> impl Iterator<Item = &ModelRef> {
        let data = self.data.iter().flat_map(|d| &d.data);
        self.student.iter().chain(self.teacher_model()).chain(data)
    }

    /// Paths outside the run that it reads.
    pub(super) fn external_inputs(&self) -> Vec<&str> {
        let mut paths: Vec<&str> = self.references().filter_map(ModelRef::path).collect();
        if let Some(Teacher::Traces(path)) = &self.teacher {
            paths.push(path);
        }
        paths.extend(self.problems.iter().flat_map(|p| task_files(&p.task_options)));
        paths.sort_unstable();
        paths.dedup();
        paths
    }
}

const TEACHER_WANTED: &str =
    "the name of an earlier stage, the path of a model or of a file of traces (.jsonl), or an http:// address";

pub(crate) fn distill(section: &Section<'_>, context: &Context<'_>) -> Result<DistillStage, RecipeError> {
    let method = section.choice("method", &DistillMethod::ALL)?.unwrap_or(DistillMethod::Sft);
    let student = section.string("student", MODEL_WANTED)?;
    let student = student.map(|name| context.model(section, "student", &name)).transpose()?;
    let model = section.table("model")?.map(|t| model_shape(t, &section.key("model"))).transpose()?;
    if student.is_some() == model.is_some() {
        let message = format!(
            "give one of `{}` (a model to train) and `{}` (the shape of a fresh one)",
            section.key("student"),
            section.key("model")
        );
        return Err(section.conflict("student", message));
    }
    let teacher = section.string("teacher", TEACHER_WANTED)?;
    let teacher = teacher.map(|text| teacher_of(section, context, text)).transpose()?;
    let is_model = matches!(teacher, Some(Teacher::Model(_)));
    if !is_model && (method != DistillMethod::Sft || model.is_some()) {
        let why = if model.is_some() { "a fresh student has its tokenizer" } else { "its distribution is needed" };
        let message = format!(
            "`{}` must be a model of ours, an earlier stage or a path: {why}; an endpoint and a file of traces give texts only, for `method = \"sft\"` with a `student`",
            section.key("teacher")
        );
        return Err(section.conflict("teacher", message));
    }
    let on_policy = method == DistillMethod::OnPolicy;
    let asks = matches!(teacher, Some(Teacher::Endpoint(_)));
    refuse(section, method == DistillMethod::Sft, COMPARISON_KEYS, "methods that compare distributions, not to `sft`")?;
    refuse(section, method != DistillMethod::Jsd, &["jsd_beta"], "`method = \"jsd\"`")?;
    let of_data: Vec<&str> = DATA_KEYS.iter().copied().filter(|key| *key != "validate_every").collect();
    refuse(section, on_policy, &of_data, "methods on given texts, not to `on_policy`")?;
    refuse(section, on_policy, &["alpha"], "methods on given texts: the student's own are no examples")?;
    refuse(section, !on_policy, ON_POLICY_KEYS, "`method = \"on_policy\"`")?;
    refuse(section, !on_policy && !asks, PROBLEM_KEYS, "`method = \"on_policy\"` and to endpoints")?;
    refuse(section, !asks, &["endpoint"], "a `teacher` that is an address")?;
    let positions = match (&student, &model) {
        (Some(student), _) => context.max_positions(student),
        (None, shape) => shape.as_ref().map(|s| (context.stage.as_str(), s.max_position_embeddings)),
    };
    let data = if on_policy { None } else { Some(data(section, context, positions)?) };
    let named = data.as_ref().is_some_and(|d| !d.data.is_empty());
    if !on_policy && !asks && !named && !matches!(teacher, Some(Teacher::Traces(_))) {
        return Err(section.missing("data", "conversations: an earlier stage of data, a file, or a list of them"));
    }
    let wanted = on_policy || asks;
    let problems = if wanted { Some(problems(section)?) } else { None };
    let on_policy = if on_policy { Some(answers(section, context, student.as_ref())?) } else { None };
    let steps = on_policy.as_ref().map(|p| p.steps).or(data.as_ref().and_then(|d| d.max_steps));
    Ok(DistillStage {
        student,
        teacher,
        method,
        comparison: if method == DistillMethod::Sft { None } else { Some(comparison(section, method)?) },
        data,
        on_policy,
        tuning: tuning(section, steps, 1e-4)?,
        problems,
        endpoint: if asks { Some(endpoint(section)?) } else { None },
        model,
    })
}

/// Keys that mean nothing here.
fn refuse(section: &Section<'_>, unused: bool, keys: &[&str], belongs: &str) -> Result<(), RecipeError> {
    match keys.iter().find(|key| unused && section.has(key)) {
        Some(key) => Err(section.conflict(key, format!("`{}` belongs to {belongs}", section.key(key)))),
        None => Ok(()),
    }
}

fn teacher_of(section: &Section<'_>, context: &Context<'_>, text: String) -> Result<Teacher, RecipeError> {
    if text.starts_with("http://") || text.starts_with("https://") {
        return Ok(Teacher::Endpoint(text));
    }
    if text.ends_with(".jsonl") || text.ends_with(".json") {
        return Ok(Teacher::Traces(text));
    }
    Ok(Teacher::Model(context.model(section, "teacher", &text)?))
}

fn comparison(section: &Section<'_>, method: DistillMethod) -> Result<ComparisonSettings, RecipeError> {
    let jsd_beta = match method {
        DistillMethod::Jsd => {
            let beta = section.number("jsd_beta", &BELOW_ONE)?.unwrap_or(0.5);
            if beta == 0.0 {
                return Err(section.wrong("jsd_beta", "a number above 0 and below 1"));
            }
            Some(beta)
        }
        _ => None,
    };
    Ok(ComparisonSettings {
        top_k: section.size("top_k", 1)?.unwrap_or(64),
        temperature: section.number("temperature", &POSITIVE)?.unwrap_or(1.0),
        alpha: section.number("alpha", &SHARE)?.unwrap_or(0.0),
        jsd_beta,
    })
}

fn answers(
    section: &Section<'_>,
    context: &Context<'_>,
    student: Option<&ModelRef>,
) -> Result<OnPolicySettings, RecipeError> {
    let models: Vec<&ModelRef> = student.into_iter().collect();
    Ok(OnPolicySettings {
        steps: section.integer("steps", 1)?.ok_or_else(|| section.missing("steps", "the number of steps"))?,
        num_prompts: section.size("num_prompts", 1)?.unwrap_or(32),
        num_generations: section.size("num_generations", 1)?.unwrap_or(1),
        sampling_temperature: section.number("sampling_temperature", &POSITIVE)?.unwrap_or(1.0),
        top_p: section.number("top_p", &super::section::NUCLEUS)?.unwrap_or(1.0),
        max_completion_length: completion_length(section, context, &models)?,
        validation_problems: section.integer("validation_problems", 0)?.unwrap_or(0),
        validate_every: section.integer("validate_every", 0)?.unwrap_or(0),
        log_rollouts: section.integer("log_rollouts", 0)?.unwrap_or(16),
    })
}

fn problems(section: &Section<'_>) -> Result<ProblemSettings, RecipeError> {
    Ok(ProblemSettings {
        task: section.string("task", TASK_WANTED)?.ok_or_else(|| section.missing("task", TASK_WANTED))?,
        task_options: section.table("task_options")?.map(Table::to_toml).unwrap_or_default(),
    })
}

fn endpoint(section: &Section<'_>) -> Result<EndpointSettings, RecipeError> {
    let none = Table { entries: Vec::new(), origin: section.at("teacher") };
    let own = Section::new(section.table("endpoint")?.unwrap_or(&none), &section.key("endpoint"), &[ENDPOINT_KEYS])?;
    Ok(EndpointSettings {
        name: own.string("name", "the name of the model there")?.unwrap_or_else(|| "default".to_owned()),
        key_env: own.string("key_env", "the name of an environment variable")?,
        problems: own.integer("problems", 1)?.unwrap_or(1000),
        only_correct: own.boolean("only_correct")?.unwrap_or(true),
        temperature: own.number("temperature", &NOT_NEGATIVE)?.unwrap_or(0.6),
        max_tokens: own.size("max_tokens", 1)?.unwrap_or(32_768),
        concurrency: own.size("concurrency", 1)?.unwrap_or(8),
        timeout_s: own.integer("timeout_s", 1)?.unwrap_or(600),
        retries: own.integer("retries", 0)?.unwrap_or(5),
        max_requests: own.integer("max_requests", 1)?,
        max_total_tokens: own.integer("max_total_tokens", 1)?,
    })
}
