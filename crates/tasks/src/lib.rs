//! Tasks: problems, prompts, references, verdicts and rewards. The same object drives reinforcement learning, rejection
//! sampling, distillation and evaluation.

pub mod check;
pub mod code;
pub mod command;
pub mod error;
pub mod expression;
pub mod extract;
pub mod format;
pub mod gsm8k;
pub mod jsonl;
pub mod judge;
pub mod language;
pub mod math;
pub mod mini;
pub mod mix;
pub mod needle;
pub mod number;
pub mod open;
pub mod problem;
pub mod program;
pub mod prompt;
pub mod prompter;
pub mod repetition;
pub mod requests;
pub mod reward;
pub mod scorer;
pub mod text;

pub use check::Check;
pub use command::CommandReward;
pub use error::TaskError;
pub use judge::{AnswerPlace, JudgeOptions, judge};
pub use open::{Shares, TaskOptions, open_task, reads_files, task_names};
pub use problem::{Answer, Judgement, Language, Problem, Reference, Split, Task, Verdict};
pub use prompt::{PromptStyle, render_base};
pub use prompter::Prompter;
pub use reward::{RewardKind, RewardSpec, Rewarded, rewards};
pub use scorer::{Reward, RewardSource, Scorer};
