//! Rewards as a training uses them: a rule or a scorer, for some problems or all, from some step on.
//!
//! `None` is no number (TRL's convention): the reward does not apply to the problem, or no judgement could be had. A reward that
//! no completion of a problem has does not apply to the problem and is left out of the sum; one that others of the same problem
//! have could not be judged, and then the completion leaves its group.

use crate::problem::Problem;
use crate::reward::{RewardKind, RewardSpec, Rewarded, rewards};
use std::fmt;
use std::sync::Arc;

/// A reward that is no rule: a reward model, a judging model, a program.
pub trait Scorer: Send + Sync {
    /// A number for each completion, in order. All are answers to one problem. Called from several threads at once.
    fn score(&self, completions: &[Rewarded<'_>]) -> Vec<Option<f64>>;
}

/// Where a reward comes from.
#[derive(Clone)]
pub enum RewardSource {
    /// A rule.
    Rule(RewardKind),
    /// Anything else.
    Scorer(Arc<dyn Scorer>),
}

/// One reward of a training.
#[derive(Clone)]
pub struct Reward {
    /// Name in metrics and rollouts.
    pub name: String,
    /// Its factor in the sum; 0 measures without rewarding.
    pub weight: f64,
    /// Where it comes from.
    pub source: RewardSource,
    /// Families, or the `group` or `set` in a problem's columns, that it applies to; empty for all.
    pub only: Vec<String>,
    /// Optimizer steps before the first that uses it.
    pub from_step: u64,
}

impl From<RewardSpec> for Reward {
    fn from(spec: RewardSpec) -> Self {
        let RewardSpec { name, kind, weight } = spec;
        Reward { name, weight, source: RewardSource::Rule(kind), only: Vec::new(), from_step: 0 }
    }
}

impl fmt::Debug for Reward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = match self.source {
            RewardSource::Rule(kind) => kind.name(),
            RewardSource::Scorer(_) => "scorer",
        };
        write!(f, "{} * {} ({source})", self.weight, self.name)
    }
}

impl Reward {
    /// Whether it has anything to say about a problem after `step` optimizer steps.
    pub fn applies(&self, problem: &Problem, step: u64) -> bool {
        let column = |key: &str| problem.columns.get(key).and_then(serde_json::Value::as_str);
        let names = [Some(problem.family.as_str()), column("group"), column("set")];
        step >= self.from_step
            && (self.only.is_empty() || names.into_iter().flatten().any(|name| self.only.iter().any(|o| o == name)))
    }

    /// The reward of each completion of one problem.
    pub fn of(&self, completions: &[Rewarded<'_>], step: u64) -> Vec<Option<f64>> {
        match (&self.source, completions.first()) {
            (_, None) => Vec::new(),
            (_, Some(first)) if !self.applies(first.problem, step) => vec![None; completions.len()],
            (RewardSource::Rule(kind), _) => {
                let spec = [RewardSpec::new(*kind, 1.0)];
                completions.iter().map(|c| rewards(&spec, c)[0]).collect()
            }
            (RewardSource::Scorer(scorer), _) => {
                let mut scores = scorer.score(completions);
                // A number that is none is no judgement.
                scores.iter_mut().for_each(|s| *s = s.filter(|v| v.is_finite()));
                scores.resize(completions.len(), None);
                scores
            }
        }
    }
}
