//! From the rewards of a recipe to those of the trainer: rules by name, reward models opened, judging models and programs started.

use super::grpo::model_path;
use crate::PipelineError;
use crate::own_judge::OwnJudge;
use crate::recipe::{GrpoStage, JudgeKind, JudgeSettings, RewardWeight};
use crate::reward_model::{ModelReward, RewardModel};
use crate::run::Context;
use aha_judge::{Cache, Chat, Criterion, Endpoint, Judge};
use aha_tasks::{CommandReward, Reward, RewardKind, RewardSource, Rewarded, Scorer};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Seconds of a program for one completion, of a judge for one try.
const TIMEOUT_S: f64 = 30.0;
/// Tries of a judge after one that failed for the moment.
const RETRIES: u32 = 3;
/// Completions of one problem that a judge is asked about side by side.
const AT_ONCE: usize = 16;
/// Answers of judges, in the stage's folder.
const JUDGED: &str = "judge.jsonl";

/// The rewards of a stage.
pub(crate) fn rewards(context: &Context, stage: &str, s: &GrpoStage) -> Result<Vec<Reward>, PipelineError> {
    let root = context.dir.stage(stage)?.root().to_path_buf();
    s.rewards.iter().map(|r| reward(context, stage, s, r, &root)).collect()
}

fn reward(
    context: &Context,
    stage: &str,
    s: &GrpoStage,
    r: &RewardWeight,
    root: &Path,
) -> Result<Reward, PipelineError> {
    let fail = |problem: String| PipelineError::Stage { stage: stage.to_owned(), problem };
    let timeout = Duration::try_from_secs_f64(r.timeout_s.unwrap_or(TIMEOUT_S))
        .map_err(|e| fail(format!("rewards.{}.timeout_s: {e}", r.name)))?;
    let source = if let Some(model) = &r.model {
        let model = RewardModel::open(&model_path(context, model)?, s.precision)?;
        RewardSource::Scorer(Arc::new(ModelReward { model, normalise: r.normalise }))
    } else if !r.command.is_empty() {
        let command = CommandReward::new(r.command.clone(), timeout);
        RewardSource::Scorer(Arc::new(command.map_err(|e| fail(format!("rewards.{}: {e}", r.name)))?))
    } else if let Some(judge) = &r.judge {
        let judge =
            JudgeReward::new(context, judge, timeout, root).map_err(|e| fail(format!("rewards.{}: {e}", r.name)))?;
        RewardSource::Scorer(Arc::new(judge))
    } else {
        let kind: RewardKind = r.name.parse().map_err(|e: aha_tasks::reward::UnknownReward| fail(e.to_string()))?;
        RewardSource::Rule(kind)
    };
    Ok(Reward { name: r.name.clone(), weight: r.weight, source, only: r.only.clone(), from_step: r.from_step })
}

/// A judging model as a reward.
struct JudgeReward {
    judge: Judge<Box<dyn Chat>>,
    kind: JudgeKind,
    criteria: Vec<Criterion>,
    scale: u32,
}

impl JudgeReward {
    fn new(context: &Context, s: &JudgeSettings, timeout: Duration, root: &Path) -> Result<Self, String> {
        let chat = chat(context, s, timeout)?;
        std::fs::create_dir_all(root).map_err(|e| format!("{}: {e}", root.display()))?;
        let cache = Cache::open(&s.cache.as_ref().map_or_else(|| root.join(JUDGED), PathBuf::from))?;
        let settings = aha_judge::JudgeSettings {
            max_requests: s.max_requests,
            max_tokens: s.max_tokens as usize,
            ..aha_judge::JudgeSettings::default()
        };
        let criteria = s.criteria.iter().filter_map(|c| c.split_once('='));
        let criteria = criteria.map(|(name, d)| Criterion { name: name.to_owned(), description: d.to_owned() });
        Ok(JudgeReward {
            judge: Judge::new(chat, settings, cache),
            kind: s.kind,
            criteria: criteria.collect(),
            scale: s.scale as u32,
        })
    }
}

/// The judging model.
fn chat(context: &Context, s: &JudgeSettings, timeout: Duration) -> Result<Box<dyn Chat>, String> {
    if let Some(model) = &s.model {
        let path = model_path(context, model).map_err(|e| e.to_string())?;
        return Ok(Box::new(OwnJudge::open(&path, s.precision).map_err(|e| e.to_string())?));
    }
    let key = s.key_env.as_ref().map(|name| {
        std::env::var(name).map_err(|_| format!("key_env {name}: put the endpoint's key into this variable"))
    });
    let url = s.endpoint.as_deref().unwrap_or_default();
    let endpoint = Endpoint::new(url, &s.name, key.transpose()?, timeout, RETRIES, Duration::from_secs(1));
    Ok(Box::new(endpoint?))
}

impl JudgeReward {
    fn one(&self, c: &Rewarded<'_>) -> Option<f64> {
        let question = &c.problem.question;
        match self.kind {
            // Without a reference in words there is nothing to compare with: it does not apply.
            JudgeKind::Reference => {
                let reference = c.problem.reference.in_words()?;
                let ruling = self.judge.reference(question, &reference, c.completion).ok()?;
                Some(f64::from(u8::from(ruling.correct)))
            }
            JudgeKind::Rubric => {
                Some(self.judge.rubric(question, c.completion, &self.criteria, self.scale).ok()?.score)
            }
        }
    }
}

impl Scorer for JudgeReward {
    fn score(&self, completions: &[Rewarded<'_>]) -> Vec<Option<f64>> {
        // Asked side by side: an endpoint waits for the network, a model of ours answers in batches.
        let mut scores = vec![None; completions.len()];
        let each = completions.len().div_ceil(AT_ONCE).max(1);
        std::thread::scope(|scope| {
            for (scores, completions) in scores.chunks_mut(each).zip(completions.chunks(each)) {
                scope.spawn(move || scores.iter_mut().zip(completions).for_each(|(s, c)| *s = self.one(c)));
            }
        });
        scores
    }
}
