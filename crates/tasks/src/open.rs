//! Tasks by name, as a recipe or a command line asks for them.

use std::path::{Path, PathBuf};

use crate::code::{self, CodeTask};
use crate::jsonl::Jsonl;
use crate::judge::{AnswerPlace, JudgeOptions};
use crate::mini::{Family, MiniTask, Topic};
use crate::mix::{self, Mix, PartOptions};
use crate::needle::{self, NeedleOptions, NeedleTask};
use crate::{Task, TaskError, gsm8k, requests};

/// Share of Chinese questions in the miniature world unless the recipe says otherwise.
const CHINESE: f64 = 0.25;

/// Settings of a task; those it has no use for are refused.
#[derive(Clone, Debug, Default, PartialEq, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TaskOptions {
    /// File of training problems, or a folder with `train.jsonl` and `test.jsonl`.
    pub data: Option<PathBuf>,
    /// File of held-out problems.
    pub eval_data: Option<PathBuf>,
    /// Families of the miniature world, all unless given.
    pub families: Option<Vec<String>>,
    /// Where the answer must stand; unless given, in the tags for generated tasks and anywhere for data sets, which chat
    /// models answer in their own way.
    pub place: Option<AnswerPlace>,
    /// Whether the prompt ends in the opening think tag.
    pub prefilled_think: bool,
    /// Share of questions in Chinese, from 0 to 1, for generated tasks.
    pub chinese: Option<f64>,
    /// Shares of puzzles, programs and requests, for `mini-r1`.
    pub shares: Option<Shares>,
    /// The model's own name, for requests.
    pub model_name: Option<String>,
    /// Lengths of the haystack in tokens, for `needle`.
    pub lengths: Option<Vec<usize>>,
    /// Depths of the needle from 0 to 1, for `needle`.
    pub depths: Option<Vec<f64>>,
    /// Bytes of hay per token, for `needle`; an evaluation measures it with the model's tokenizer.
    pub bytes_per_token: Option<f64>,
    /// Processor time of a program in milliseconds, for `humaneval` and `mbpp` (10,000 unless given) and `code` (4,000).
    pub time_ms: Option<u64>,
    /// Memory of a program in MB, for the same; 512 unless given.
    pub memory_mb: Option<u64>,
    /// Tasks and their shares, for `mix`.
    pub parts: Option<Vec<PartOptions>>,
    /// The Python that runs programs, for the same; the first `python3` in PATH unless given.
    pub python: Option<PathBuf>,
}

/// Shares of the groups of problems of `mini-r1`; only their proportions count, and a group without a share is left out.
#[derive(Clone, Copy, Debug, PartialEq, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Shares {
    /// Puzzles.
    pub reasoning: f64,
    /// Programming exercises.
    pub code: f64,
    /// Requests.
    pub general: f64,
}

impl Default for Shares {
    fn default() -> Self {
        Shares { reasoning: 0.5, code: 0.2, general: 0.3 }
    }
}

impl Shares {
    fn of(&self, topic: Topic) -> f64 {
        match topic {
            Topic::Puzzle(_) => self.reasoning,
            Topic::Code => self.code,
            Topic::General(_) => self.general,
        }
    }
}

/// The tasks that are made of the miniature world, and what each holds.
const MINI: [&str; 4] = ["mini", "mini-code", "mini-general", "mini-r1"];

fn mini_topics(name: &str) -> Vec<Topic> {
    let belongs = |topic: &Topic| match topic {
        Topic::Puzzle(_) => matches!(name, "mini" | "mini-r1"),
        Topic::Code => matches!(name, "mini-code" | "mini-r1"),
        Topic::General(_) => matches!(name, "mini-general" | "mini-r1"),
    };
    Topic::all().into_iter().filter(belongs).collect()
}

/// Every name [`open_task`] knows.
pub fn task_names() -> Vec<&'static str> {
    let families = Family::ALL.into_iter().map(Family::name);
    let files = [gsm8k::NAME, "jsonl", requests::PROMPTS, requests::SAFETY];
    MINI.into_iter().chain([needle::NAME, mix::NAME]).chain(files).chain(code::NAMES).chain(families).collect()
}

/// Whether a task has its problems from files.
pub fn reads_files(name: &str) -> bool {
    [gsm8k::NAME, "jsonl", requests::PROMPTS, requests::SAFETY].contains(&name) || code::NAMES.contains(&name)
}

/// Opens a task: `mini` (the generated puzzles together), one of its families, `mini-code`, `mini-general`, `mini-r1` (all
/// three), `needle`, `gsm8k`, `jsonl`, `prompts`, `safety`, of code judged by tests `humaneval`, `mbpp` and `code`, or a `mix` of these.
///
/// # Errors
/// An unknown name (the nearest known one comes first in the message), a setting that is missing, wrong or of no use to the
/// task, or a file that cannot be read.
pub fn open_task(name: &str, seed: u64, options: &TaskOptions) -> Result<Box<dyn Task>, TaskError> {
    let judge =
        |place| JudgeOptions { place: options.place.unwrap_or(place), prefilled_think: options.prefilled_think };
    if name == mix::NAME {
        return mixed(options, seed);
    }
    if options.parts.is_some() {
        return refuse(name, "takes no parts; they belong to \"mix\"".to_owned());
    }
    if name == needle::NAME {
        return needle(options, seed, judge(AnswerPlace::Lenient));
    }
    if options.lengths.is_some() || options.depths.is_some() || options.bytes_per_token.is_some() {
        return refuse(name, "takes no lengths, depths and bytes_per_token; they belong to \"needle\"".to_owned());
    }
    let is_code = code::NAMES.contains(&name);
    if !is_code && (options.time_ms.is_some() || options.memory_mb.is_some() || options.python.is_some()) {
        return refuse(name, "takes no time_ms, memory_mb and python; they belong to \"code\"".to_owned());
    }
    if options.time_ms == Some(0) || options.memory_mb == Some(0) {
        return refuse(name, "time_ms and memory_mb must be above 0".to_owned());
    }
    let family = Family::parse(name);
    if MINI.contains(&name) || family.is_some() {
        // Requests are answered with whole texts, so what follows the thinking is the answer.
        let place = if matches!(name, "mini-general" | "mini-r1") { AnswerPlace::Summary } else { AnswerPlace::Tags };
        return Ok(Box::new(mini(name, family, seed, options, judge(place))?));
    }
    if !reads_files(name) {
        return Err(TaskError::Unknown { name: name.to_owned(), known: nearest_first(name, &task_names()).join(", ") });
    }
    if options.families.is_some() || options.chinese.is_some() {
        return refuse(name, "takes no families and no share of Chinese; they belong to \"mini\"".to_owned());
    }
    if options.shares.is_some() || options.model_name.is_some() {
        return refuse(name, "takes no shares and no model_name; they belong to \"mini-r1\"".to_owned());
    }
    let (train, eval) = files(name, options)?;
    let (train, eval, judge) = (train.as_deref(), eval.as_deref(), judge(AnswerPlace::Lenient));
    if name == requests::PROMPTS || name == requests::SAFETY {
        // Such requests are answered with whole texts, so what follows the thinking is the answer.
        let judge = JudgeOptions { place: options.place.unwrap_or(AnswerPlace::Summary), ..judge };
        return Ok(Box::new(requests::open(name, train, eval, seed, judge)?));
    }
    if is_code {
        return Ok(Box::new(CodeTask::open(name, train, eval, seed, judge, options)?));
    }
    Ok(Box::new(if name == gsm8k::NAME {
        gsm8k::open(train, eval, seed, judge)?
    } else {
        Jsonl::open(name, train, eval, seed, judge)?
    }))
}

fn refuse<T>(task: &str, problem: String) -> Result<T, TaskError> {
    Err(TaskError::Option { task: task.to_owned(), problem })
}

/// Several tasks, each with its own options.
fn mixed(options: &TaskOptions, seed: u64) -> Result<Box<dyn Task>, TaskError> {
    let own = TaskOptions { parts: options.parts.clone(), ..TaskOptions::default() };
    if *options != own {
        return refuse(mix::NAME, "takes parts alone; all else belongs to the task_options of a part".to_owned());
    }
    let Some(parts) = &options.parts else {
        return refuse(mix::NAME, "needs parts = [{ task = ..., share = ..., task_options = ... }, ...]".to_owned());
    };
    let open = |part: &PartOptions| {
        if part.task == mix::NAME {
            return refuse(mix::NAME, "cannot be a part of itself".to_owned());
        }
        Ok((open_task(&part.task, seed, &part.task_options)?, part.share))
    };
    Ok(Box::new(Mix::new(parts.iter().map(open).collect::<Result<_, _>>()?)?))
}

/// The needle task with its lengths and depths.
fn needle(options: &TaskOptions, seed: u64, judge: JudgeOptions) -> Result<Box<dyn Task>, TaskError> {
    let foreign = options.data.is_some() || options.eval_data.is_some() || options.families.is_some();
    if foreign || options.chinese.is_some() || options.shares.is_some() || options.model_name.is_some() {
        return refuse(needle::NAME, "takes lengths, depths and bytes_per_token; leave the others out".to_owned());
    }
    let defaults = NeedleOptions::default();
    let options = NeedleOptions {
        lengths: options.lengths.clone().unwrap_or(defaults.lengths),
        depths: options.depths.clone().unwrap_or(defaults.depths),
        bytes_per_token: options.bytes_per_token.unwrap_or(defaults.bytes_per_token),
    };
    Ok(Box::new(NeedleTask::new(seed, options, judge)?))
}

/// A task of the miniature world.
fn mini(
    name: &str,
    family: Option<Family>,
    seed: u64,
    options: &TaskOptions,
    judge: JudgeOptions,
) -> Result<MiniTask, TaskError> {
    if options.data.is_some() || options.eval_data.is_some() {
        return refuse(name, "makes its own problems and takes no data; leave data and eval_data out".to_owned());
    }
    let mut topics = match (family, &options.families) {
        (Some(family), None) => vec![Topic::Puzzle(family)],
        (Some(_), Some(_)) => {
            return refuse(name, "is a single family; leave families out, or use the task \"mini\"".to_owned());
        }
        (None, None) => mini_topics(name),
        (None, Some(names)) => chosen(name, names)?,
    };
    let chinese = options.chinese.unwrap_or(CHINESE);
    if !(0.0..=1.0).contains(&chinese) {
        return refuse(name, format!("chinese = {chinese} must lie between 0 and 1"));
    }
    let model_name = options.model_name.as_deref();
    if model_name.is_some_and(|n| n.is_empty() || !n.chars().all(|c| c.is_ascii_alphanumeric())) {
        return refuse(name, "model_name must be one word of letters and digits".to_owned());
    }
    if name != "mini-r1" {
        if options.shares.is_some() {
            return refuse(name, "takes no shares; they belong to \"mini-r1\"".to_owned());
        }
        let task = MiniTask::of_topics(name, seed, topics, None, chinese, judge);
        return Ok(model_name.into_iter().fold(task, MiniTask::with_model_name));
    }
    let shares = options.shares.unwrap_or_default();
    if [shares.reasoning, shares.code, shares.general].iter().any(|s| !(*s >= 0.0 && s.is_finite())) {
        return refuse(name, "shares must be 0 or more".to_owned());
    }
    topics.retain(|t| shares.of(*t) > 0.0);
    if topics.is_empty() {
        return refuse(name, "no family has a share above 0; give reasoning, code or general one".to_owned());
    }
    // A group's share is spread over its families.
    let group = |t: &Topic| std::mem::discriminant(t);
    let each: Vec<f64> = topics
        .iter()
        .map(|t| shares.of(*t) / topics.iter().filter(|other| group(other) == group(t)).count() as f64)
        .collect();
    let task = MiniTask::of_topics(name, seed, topics, Some(&each), chinese, judge);
    Ok(model_name.into_iter().fold(task, MiniTask::with_model_name))
}

/// The families that are named, each once.
fn chosen(name: &str, names: &[String]) -> Result<Vec<Topic>, TaskError> {
    if names.is_empty() {
        return refuse(name, "families is empty; name at least one".to_owned());
    }
    let all = mini_topics(name);
    let mut topics = Vec::new();
    for wanted in names {
        let Some(topic) = all.iter().copied().find(|t| t.name() == wanted) else {
            let known = nearest_first(wanted, &all.iter().map(|t| t.name()).collect::<Vec<_>>());
            return refuse(
                name,
                format!("unknown family \"{wanted}\"; did you mean \"{}\"? Known: {}", known[0], known.join(", ")),
            );
        };
        if topics.contains(&topic) {
            return refuse(name, format!("family \"{wanted}\" is named twice"));
        }
        topics.push(topic);
    }
    Ok(topics)
}

/// The training and the evaluation file; a folder stands for the two files in it.
fn files(name: &str, options: &TaskOptions) -> Result<(Option<PathBuf>, Option<PathBuf>), TaskError> {
    let Some(folder) = options.data.as_deref().filter(|data| data.is_dir()) else {
        return Ok((options.data.clone(), options.eval_data.clone()));
    };
    let inside = |file: &str| Some(folder.join(file)).filter(|path: &PathBuf| Path::is_file(path));
    let (train, test) = (inside("train.jsonl"), inside("test.jsonl"));
    if train.is_none() && test.is_none() {
        return refuse(
            name,
            format!("{}: holds neither train.jsonl nor test.jsonl; give the file itself", folder.display()),
        );
    }
    Ok((train, options.eval_data.clone().or(test)))
}

/// The names, the most similar to `name` first.
fn nearest_first(name: &str, known: &[&'static str]) -> Vec<&'static str> {
    let mut known = known.to_vec();
    known.sort_by_key(|k| strsim::damerau_levenshtein(k, name));
    known
}
