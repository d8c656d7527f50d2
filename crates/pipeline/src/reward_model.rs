//! A trained reward model with what it needs to read texts: which part of a response, in which form, and how its scores spread.

use crate::PipelineError;
use crate::models::OpenModel;
use crate::recipe::Precision;
use aha_data::conversation;
use aha_engine::reward;
use aha_model::{Decoder, Message};
use aha_tasks::judge::summary;
use aha_tasks::mini::history;
use aha_tasks::{Prompter, Rewarded, Scorer};
use aha_train::reward_loss::sigmoid;
use serde::{Deserialize, Serialize};
use std::path::Path;

const OPEN: &str = "<think>";
const CLOSE: &str = "</think>";
/// Rewards in standard deviations lie within this many.
const LIMIT: f64 = 3.0;

/// The file beside a reward model's weights.
pub const FILE: &str = "reward_model.json";

/// What it was trained on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// Pairs: scores compare responses.
    Pairwise,
    /// Labels: a score is the log-odds that a response is good.
    Pointwise,
}

/// What of a response it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reads {
    /// What follows the thinking, which never reaches it (DeepSeek-R1: helpfulness).
    Answer,
    /// All of it (DeepSeek-R1: harmlessness).
    Whole,
}

/// How a score becomes a reward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Normalise {
    /// In standard deviations from the mean, as measured on held-out responses, at most 3; for pointwise models as `sigmoid`.
    #[default]
    Standard,
    /// Through the logistic function, 0 to 1.
    Sigmoid,
    /// As it is.
    None,
}

/// What [`FILE`] says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RewardModelInfo {
    /// What it was trained on.
    pub objective: Objective,
    /// What of a response it reads.
    pub reads: Reads,
    /// How a conversation becomes its prompt.
    pub prompt_style: String,
    /// The system message of conversations that have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_prompt: Option<String>,
    /// Text on a line of its own after every question.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_suffix: Option<String>,
    /// Mean score of held-out responses.
    pub score_mean: f64,
    /// Their standard deviation.
    pub score_std: f64,
}

/// How texts become the tokens of a reward model.
pub struct Reader {
    /// Renders conversations.
    pub prompter: Prompter,
    /// What of a response is read.
    pub reads: Reads,
    /// Longer sequences have no score.
    pub max_length: usize,
}

impl Reader {
    /// The part of a response that is read.
    pub fn part<'t>(&self, response: &'t str) -> &'t str {
        match self.reads {
            // A thought that never ends leaves nothing to read.
            Reads::Answer if response.trim_start().starts_with(OPEN) && !response.contains(CLOSE) => "",
            Reads::Answer => summary(response),
            Reads::Whole => response,
        }
    }

    /// Tokens of a response after its conversation.
    ///
    /// # Errors
    /// A conversation that the prompt's form has no place for.
    pub fn tokens(&self, turns: &[Message], response: &str) -> Result<Vec<u32>, aha_model::Error> {
        let shown: Vec<Message> = turns
            .iter()
            .map(|m| match (m.role.as_str(), self.reads) {
                ("assistant", Reads::Answer) => Message { content: summary(&m.content).to_owned(), ..m.clone() },
                _ => m.clone(),
            })
            .collect();
        let mut prompt = self.prompter.render(&shown)?;
        if self.reads == Reads::Answer {
            // A tag that the prompt ends with opens a thought which is not shown.
            let end = prompt.trim_end().strip_suffix(OPEN).map(str::len);
            prompt.truncate(end.unwrap_or(prompt.len()));
        }
        Ok(conversation::sequence(&self.prompter, &prompt, self.part(response))?.0)
    }
}

/// A reward model, opened.
pub struct RewardModel {
    /// What its file says.
    pub info: RewardModelInfo,
    /// How it reads texts.
    pub reader: Reader,
    decoder: Decoder,
}

impl RewardModel {
    /// Opens the folder of a finished `reward_model` stage.
    ///
    /// # Errors
    /// A folder that holds no reward model, or one that is damaged.
    pub fn open(path: &Path, precision: Precision) -> Result<Self, PipelineError> {
        let fail = |problem: String| PipelineError::Stage { stage: path.display().to_string(), problem };
        let model = OpenModel::open(path)?;
        let file = path.join(FILE);
        let text = std::fs::read_to_string(&file).map_err(|e| {
            fail(format!("{FILE} cannot be read: {e}; give the `model` folder of a reward_model stage"))
        })?;
        let info: RewardModelInfo =
            serde_json::from_str(&text).map_err(|e| fail(format!("{FILE} is not what was written: {e}")))?;
        let style = crate::stages::style(&info.prompt_style);
        let prompter = model.prompter(style, info.system_prompt.clone(), info.prompt_suffix.clone())?;
        let max_length = model.config().max_position_embeddings;
        let decoder = model.reward_decoder(precision)?;
        Ok(RewardModel { reader: Reader { prompter, reads: info.reads, max_length }, info, decoder })
    }

    /// Scores of responses, each after its conversation; none for those that are too long.
    ///
    /// # Errors
    /// A conversation that the prompt's form has no place for.
    pub fn scores(&self, responses: &[(&[Message], &str)]) -> Result<Vec<Option<f64>>, aha_model::Error> {
        let tokens = responses.iter().map(|(turns, response)| self.reader.tokens(turns, response));
        let tokens: Vec<Vec<u32>> = tokens.collect::<Result<_, _>>()?;
        let fits = |t: &&Vec<u32>| t.len() <= self.reader.max_length;
        let short: Vec<&[u32]> = tokens.iter().filter(fits).map(Vec::as_slice).collect();
        let mut scores = reward(&self.decoder, &short).expect("the sequences fit the model").into_iter();
        Ok(tokens.iter().map(|t| fits(&t).then(|| scores.next().map(f64::from)).flatten()).collect())
    }

    /// The score of what is worth nothing.
    fn lowest(&self) -> f64 {
        match self.info.objective {
            Objective::Pairwise => self.info.score_mean - LIMIT * self.info.score_std,
            Objective::Pointwise => -1e3,
        }
    }

    /// A score as a reward.
    pub fn normalised(&self, score: f64, normalise: Normalise) -> f64 {
        match (normalise, self.info.objective) {
            (Normalise::None, _) => score,
            // Exactly, whatever rounding says of the mean minus the mean.
            (Normalise::Standard, Objective::Pairwise) if score <= self.lowest() => -LIMIT,
            (Normalise::Standard, Objective::Pairwise) => {
                ((score - self.info.score_mean) / self.info.score_std).clamp(-LIMIT, LIMIT)
            }
            (Normalise::Sigmoid, _) | (Normalise::Standard, Objective::Pointwise) => sigmoid(score),
        }
    }
}

/// A reward model as a reward of a training. A response that was cut off, or that has no answer where answers are read, is worth as
/// little as the scale has: what a model that never saw such a thing says of it means nothing.
pub struct ModelReward {
    /// The model.
    pub model: RewardModel,
    /// How its scores become rewards.
    pub normalise: Normalise,
}

impl Scorer for ModelReward {
    fn score(&self, completions: &[Rewarded<'_>]) -> Vec<Option<f64>> {
        let Some(first) = completions.first() else { return Vec::new() };
        let turns = history(first.problem).into_iter().map(|(role, text)| Message::new(role, text));
        let turns: Vec<Message> = turns.chain([Message::new("user", &first.problem.question)]).collect();
        let responses: Vec<(&[Message], &str)> = completions.iter().map(|c| (&turns[..], c.completion)).collect();
        let worthless = |c: &Rewarded<'_>| {
            let open = c.prefilled_think && !c.completion.contains(CLOSE);
            let nothing =
                self.model.info.reads == Reads::Answer && (open || self.model.reader.part(c.completion).is_empty());
            !c.finished || nothing
        };
        match self.model.scores(&responses) {
            Ok(scores) => {
                let value = |(c, score): (&Rewarded<'_>, Option<f64>)| {
                    let score = if worthless(c) { Some(f64::NEG_INFINITY) } else { score };
                    score.map(|s| self.model.normalised(s.max(self.model.lowest()), self.normalise))
                };
                completions.iter().zip(scores).map(value).collect()
            }
            Err(_) => vec![None; completions.len()],
        }
    }
}
