//! Programming problems judged by hidden tests in the sandbox: HumanEval, MBPP, their EvalPlus forms, and rows of the user's
//! own. R1's code rewards are of this kind (DeepSeek-R1, section 2.2: compiled and run against test cases).
//!
//! A row is a JSON object; a file holds one per line, or one list of them.
//! - `humaneval`: `prompt` (the beginning of a function), `test` (a script with `check(candidate)`), `entry_point`.
//! - `mbpp`: `prompt` or `text`, `test_list` (assertions, of which the question shows the first), perhaps `test` (all of them as
//!   one script, as MBPP+ has it), `test_imports`, `test_setup_code`.
//! - `code`: `question`, `prompt` or `problem`, perhaps `starter_code`, and tests in a form of `aha sandbox`: `tests` with
//!   `input`/`output` for programs in `language` (python, cpp, rust), with `args`/`expected` for calls of `entry_point`, or with
//!   `assert`; or `assert`, `test` or `test_list`. `time_ms` and `memory_mb` limit a run.
//!
//! Right is a program that passes every test; a program that fails, ends badly or exceeds a limit is wrong; what the sandbox
//! could not judge is not judged.

mod answer;
mod rows;

use crate::extract::{tagged_answer, well_formed};
use crate::format::r1_shape;
use crate::jsonl::Jsonl;
use crate::judge::{AnswerPlace, JudgeOptions, summary};
use crate::problem::{Answer, Judgement, Problem, Reference, Split, Task, Verdict};
use crate::{TaskError, TaskOptions};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::Path;

/// Names of the tasks.
pub const NAMES: [&str; 3] = ["humaneval", "mbpp", "code"];

/// Language of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CodeLanguage {
    /// Python 3.
    Python,
    /// C++17.
    Cpp,
    /// Rust, 2021 edition.
    Rust,
}

impl CodeLanguage {
    fn parse(name: &str) -> Option<Self> {
        match name {
            "python" | "python3" | "py" => Some(Self::Python),
            "cpp" | "c++" | "cpp17" | "c++17" => Some(Self::Cpp),
            "rust" => Some(Self::Rust),
            _ => None,
        }
    }

    /// As the mark of a code block.
    pub fn name(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Cpp => "cpp",
            Self::Rust => "rust",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Python => "Python",
            Self::Cpp => "C++17",
            Self::Rust => "Rust",
        }
    }
}

/// How a program is judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CodeReference {
    /// Its language.
    pub language: CodeLanguage,
    /// The function that tests call.
    pub entry_point: Option<String>,
    /// The beginning of the function that the question asks to complete.
    pub opening: Option<String>,
    /// The hidden tests: a line for `aha sandbox` without its program.
    pub tests: String,
}

/// Which columns a row has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    HumanEval,
    Mbpp,
    Rows,
}

/// Processor time of a program of a published benchmark unless given, milliseconds.
const BENCHMARK_TIME_MS: u64 = 10_000;

/// A data set of programming problems with its sandbox.
pub struct CodeTask {
    rows: Jsonl,
    options: JudgeOptions,
    judge: runner::Runner,
}

impl CodeTask {
    /// Opens `humaneval`, `mbpp` or `code`.
    ///
    /// HumanEval is a benchmark: a single file of it is all for evaluation. MBPP's published parts are kept: tasks 11 to 510
    /// are for evaluation, those from 511 on for training, and the first ten for neither. Other files are parted as
    /// [`Jsonl::open`] does.
    ///
    /// # Errors
    /// As [`Jsonl::open`]; also when there is no sandbox here, or no layer of it that has to be.
    pub fn open(
        name: &str,
        train: Option<&Path>,
        eval: Option<&Path>,
        seed: u64,
        judge: JudgeOptions,
        options: &TaskOptions,
    ) -> Result<Self, TaskError> {
        let kind = match name {
            "humaneval" => Kind::HumanEval,
            "mbpp" => Kind::Mbpp,
            _ => Kind::Rows,
        };
        let (train, eval) = match (kind, train, eval) {
            (Kind::HumanEval, Some(only), None) => (None, Some(only)),
            other => (other.1, other.2),
        };
        let refuse = |problem: String| TaskError::Option { task: name.to_owned(), problem };
        // Some published references take seconds on a slow machine.
        let time_ms = options.time_ms.or((kind != Kind::Rows).then_some(BENCHMARK_TIME_MS));
        let runner = runner::Runner::new(&TaskOptions { time_ms, ..options.clone() }).map_err(refuse)?;
        let part = |problem: &Problem| {
            let number = problem.columns.get("task_id").filter(|_| kind == Kind::Mbpp)?.as_u64()?;
            match number {
                1..=10 => Some(Split::Pretrain),
                11..=510 => Some(Split::Eval),
                _ => Some(Split::Train),
            }
        };
        let read = move |name: &str, id: String, line: &[u8]| rows::read(kind, name, id, line);
        let rows = Jsonl::open_parted(name, train, eval, seed, judge, &read, &part)?;
        Ok(Self { rows, options: judge, judge: runner })
    }

    /// The programs that a completion gives: in the place the task asks for, and anywhere.
    fn programs(&self, completion: &str, reference: &CodeReference) -> [Option<String>; 2] {
        let prefilled = self.options.prefilled_think;
        let tagged = || tagged_answer(completion, prefilled);
        let program = |text: &str| answer::program(text, reference);
        let after = || indented(completion, summary(completion));
        let lenient = tagged().or_else(|| Some(after())).and_then(program);
        let strict = match self.options.place {
            AnswerPlace::Tags => tagged().and_then(program),
            AnswerPlace::Lenient => lenient.clone(),
            AnswerPlace::Summary => r1_shape(completion, prefilled).then(after).and_then(program),
        };
        [strict, lenient]
    }

    fn format(&self, completion: &str) -> bool {
        match self.options.place {
            AnswerPlace::Summary => r1_shape(completion, self.options.prefilled_think),
            AnswerPlace::Tags | AnswerPlace::Lenient => well_formed(completion, self.options.prefilled_think),
        }
    }
}

impl Task for CodeTask {
    fn name(&self) -> &str {
        self.rows.name()
    }

    fn families(&self) -> Vec<String> {
        self.rows.families()
    }

    fn len(&self, split: Split) -> Option<usize> {
        self.rows.len(split)
    }

    fn problem(&self, split: Split, index: u64) -> Result<Problem, TaskError> {
        self.rows.problem(split, index)
    }

    fn prefilled_think(&self) -> bool {
        self.options.prefilled_think
    }

    fn judge(&self, problem: &Problem, completion: &str, finished: bool) -> Judgement {
        let judged = self.judge_all(&[Answer { problem, completion, finished }]).pop();
        judged.expect("one judgement for one answer")
    }

    /// All programs run at one time on all processors; the same program for the same problem runs once.
    fn judge_all(&self, answers: &[Answer<'_>]) -> Vec<Judgement> {
        let mut places: HashMap<(&str, String), usize> = HashMap::new();
        let mut runs: Vec<(&CodeReference, String)> = Vec::new();
        let found: Vec<[Option<usize>; 2]> = answers
            .iter()
            .map(|a| {
                let Reference::Code(reference) = &a.problem.reference else { return [None; 2] };
                if !a.finished {
                    return [None; 2];
                }
                self.programs(a.completion, reference).map(|code| {
                    let code = code?;
                    let place = places.entry((a.problem.id.as_str(), code.clone())).or_insert_with(|| {
                        runs.push((reference.as_ref(), code));
                        runs.len() - 1
                    });
                    Some(*place)
                })
            })
            .collect();
        let verdicts = self.judge.verdicts(&runs);
        let one = |a: &Answer<'_>, [strict, lenient]: [Option<usize>; 2]| {
            let format = a.finished && self.format(a.completion);
            let of = |place: Option<usize>| match (&a.problem.reference, place) {
                (Reference::Code(_), Some(place)) => verdicts[place],
                (Reference::Code(_), None) => Verdict::Incorrect,
                _ => Verdict::NotJudged,
            };
            let answer = strict.map(|place| canonical(&runs[place].1));
            Judgement { verdict: of(strict), lenient_verdict: of(lenient), answer, format }
        };
        answers.iter().zip(found).map(|(a, places)| one(a, places)).collect()
    }
}

/// A part of a text with the indentation of its first line, which is part of a program.
fn indented<'a>(whole: &'a str, part: &'a str) -> &'a str {
    let at = part.as_ptr() as usize - whole.as_ptr() as usize;
    let start = whole[..at].trim_end_matches([' ', '\t']).len();
    &whole[start..at + part.len()]
}

/// A program without white space at the ends of lines and without empty lines, which have no bearing on what it does.
fn canonical(code: &str) -> String {
    code.lines().map(str::trim_end).filter(|l| !l.is_empty()).collect::<Vec<_>>().join("\n")
}

/// Whether the tests can be read.
fn check(reference: &CodeReference) -> Result<(), String> {
    runner::submission(reference, "").map(drop)
}

#[cfg(target_os = "linux")]
mod runner {
    use super::{CodeReference, TaskOptions, Verdict};
    use aha_sandbox::{Config, Helper, Limits, Sandbox, Submission};

    /// The sandbox that judges.
    pub struct Runner(Sandbox);

    impl Runner {
        pub fn new(options: &TaskOptions) -> Result<Self, String> {
            let helper =
                Helper::this_binary().map_err(|e| format!("cannot find this program to start it again: {e}"))?;
            let mut limits = Limits::default();
            if let Some(ms) = options.time_ms {
                limits = limits.with_cpu_ms(ms);
            }
            limits.memory = options.memory_mb.map_or(limits.memory, |mb| mb.saturating_mul(1 << 20));
            let config = Config { limits, stop_early: true, python: options.python.clone(), ..Config::new(helper) };
            Sandbox::new(config).map(Self).map_err(|e| e.to_string())
        }

        pub fn verdicts(&self, runs: &[(&CodeReference, String)]) -> Vec<Verdict> {
            let threads = std::thread::available_parallelism().map_or(1, usize::from);
            // Tests were read once already, so what cannot be read now is a program that no JSON can hold: there is none.
            let read: Result<Vec<Submission>, String> = runs.iter().map(|(r, code)| submission(r, code)).collect();
            let Ok(submissions) = read else { return vec![Verdict::NotJudged; runs.len()] };
            let judged = self.0.judge_all(&submissions, threads, |_, _| {});
            judged
                .iter()
                .map(|j| match j.verdict {
                    aha_sandbox::Verdict::Accepted => Verdict::Correct,
                    aha_sandbox::Verdict::SandboxError => Verdict::NotJudged,
                    _ => Verdict::Incorrect,
                })
                .collect()
        }
    }

    /// The tests with a program.
    pub fn submission(reference: &CodeReference, code: &str) -> Result<Submission, String> {
        let head = reference.tests.strip_suffix('}').unwrap_or_default();
        let comma = if head.len() > 1 { "," } else { "" };
        Submission::from_json(&format!("{head}{comma}\"code\":{}}}", serde_json::Value::from(code)))
    }
}

#[cfg(not(target_os = "linux"))]
mod runner {
    use super::{CodeReference, TaskOptions, Verdict};

    /// There is none.
    pub enum Runner {}

    impl Runner {
        pub fn new(_: &TaskOptions) -> Result<Self, String> {
            Err("runs programs in a sandbox, which needs Linux".into())
        }

        pub fn verdicts(&self, _: &[(&CodeReference, String)]) -> Vec<Verdict> {
            match *self {}
        }
    }

    pub fn submission(_: &CodeReference, _: &str) -> Result<(), String> {
        Ok(())
    }
}
