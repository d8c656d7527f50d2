//! Problems and what a judge says of an answer.

use crate::check::Check;
use crate::code::CodeReference;
use crate::program::Example;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What a judge says. "Could not be judged" is not "wrong".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The answer is right.
    Correct,
    /// The answer is wrong or missing.
    Incorrect,
    /// No judgement was possible (a broken reference, for example).
    NotJudged,
}

/// Which part of a task's problems. The parts are disjoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// Problems the pretraining corpus may contain.
    Pretrain,
    /// Problems that reinforcement learning trains on.
    Train,
    /// Held-out problems for evaluation.
    Eval,
}

/// Language of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Language {
    /// English.
    English,
    /// Chinese.
    Chinese,
}

/// What the answer is compared with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reference {
    /// A whole number.
    Integer(i64),
    /// An exact decimal number as text, without thousands separators.
    Number(String),
    /// An expression that uses each number once and reaches the target.
    Countdown {
        /// The numbers, each to be used exactly once.
        numbers: Vec<i64>,
        /// What the expression must evaluate to.
        target: i64,
    },
    /// Text compared after trimming.
    Text(String),
    /// An answer in mathematics or words as people write it, compared by the math grader.
    Math(String),
    /// A program of one argument, judged by the tasks' own evaluator of a subset of Python.
    Program {
        /// Examples in the question.
        shown: Vec<Example>,
        /// Examples that are not in the question.
        hidden: Vec<Example>,
    },
    /// A rule that the whole answer must keep.
    Check(Check),
    /// Hidden tests, judged by the sandbox of a code task.
    Code(Box<CodeReference>),
}

impl Reference {
    /// The reference as people and judging models read it; none where it is a program or a rule.
    pub fn in_words(&self) -> Option<String> {
        match self {
            Reference::Integer(n) => Some(n.to_string()),
            Reference::Number(text) | Reference::Text(text) | Reference::Math(text) => Some(text.clone()),
            Reference::Countdown { numbers, target } => {
                Some(format!("an expression that uses each of {numbers:?} once and equals {target}"))
            }
            Reference::Program { .. } | Reference::Check(_) | Reference::Code(_) => None,
        }
    }
}

/// One problem.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Problem {
    /// Unique and stable name, for example `countdown/3-4-8/22` or `gsm8k/train/17`.
    pub id: String,
    /// Family for reports.
    pub family: String,
    /// Language of the question.
    pub language: Language,
    /// The question as put to the model, without any template.
    pub question: String,
    /// The reference answer.
    pub reference: Reference,
    /// Further columns of the data set, for custom rewards.
    #[serde(default)]
    pub columns: Map<String, Value>,
}

/// Everything a judge finds in a completion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// Verdict on the answer in the place the task asks for.
    pub verdict: Verdict,
    /// Verdict on the last answer found anywhere.
    pub lenient_verdict: Verdict,
    /// The answer in canonical form, for majority voting; `None` when there is none.
    pub answer: Option<String>,
    /// Whether the completion has the think/answer shape exactly.
    pub format: bool,
}

/// A completion to judge, its end-of-text token removed.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// What was asked.
    pub problem: &'a Problem,
    /// What came.
    pub completion: &'a str,
    /// False when it was cut at the length limit: then the answer counts as missing.
    pub finished: bool,
}

/// A source of problems and the judge of their answers; the same object drives training, sampling and evaluation.
pub trait Task: Send + Sync {
    /// Name, as in a recipe.
    fn name(&self) -> &str;
    /// Families its problems belong to, in report order.
    fn families(&self) -> Vec<String>;
    /// Number of problems of a split; `None` when they are generated without end.
    fn len(&self, split: Split) -> Option<usize>;
    /// Problem `index` of a split: a pure function of (task seed, split, index). Data sets start over, newly shuffled for
    /// training, when the index passes their end.
    ///
    /// # Errors
    /// A split the task does not have.
    fn problem(&self, split: Split, index: u64) -> Result<Problem, crate::TaskError>;
    /// Judges a completion (end-of-text token removed). `finished` is false when it was cut at the length limit: then the
    /// answer counts as missing.
    fn judge(&self, problem: &Problem, completion: &str, finished: bool) -> Judgement;
    /// Judges many completions, in their order; a task that can judge several at one time does.
    fn judge_all(&self, answers: &[Answer<'_>]) -> Vec<Judgement> {
        answers.iter().map(|a| self.judge(a.problem, a.completion, a.finished)).collect()
    }
    /// Whether its prompts end in the opening think tag.
    fn prefilled_think(&self) -> bool {
        false
    }
    /// Whether the task has no problems in this split.
    fn is_empty(&self, split: Split) -> bool {
        self.len(split) == Some(0)
    }
}
