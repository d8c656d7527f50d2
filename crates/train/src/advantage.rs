//! Group-relative advantages: `A_i = (r_i - mean(r)) / (std(r) + eps)` within the samples of one prompt
//! (DeepSeekMath section 4.1.2; DeepSeek-R1 eq. 3). The papers leave open which standard deviation is meant and what
//! happens when all rewards are equal. Here: population standard deviation and `eps = 1e-6` unless set otherwise;
//! equal rewards are recognised by `max == min` and give exactly 0 (a computed standard deviation of equal floats is
//! often not 0); a reward of `None` ("could not be judged") is left out of mean and standard deviation, and its sample
//! out of the loss. Shapes: S samples, prompt by prompt, `group_size` in a row for each prompt.

use serde::{Deserialize, Serialize};

use crate::grpo_error::GrpoError;

/// What centred rewards are divided by. Names as in TRL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScaleRewards {
    /// The standard deviation of the sample's own group (GRPO).
    #[default]
    Group,
    /// The standard deviation of all valid rewards of the batch, uncentred by group (as TRL).
    Batch,
    /// Nothing: advantages are `r - mean` (Dr. GRPO).
    None,
}

/// The divisor inside the standard deviation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StdKind {
    /// `n`: a group of 16 with 8 correct answers gives advantages of exactly +-1.
    #[default]
    Population,
    /// `n - 1` (Bessel), as torch.std, TRL and verl.
    Sample,
}

/// How rewards become advantages.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdvantageConfig {
    /// What centred rewards are divided by.
    pub scale: ScaleRewards,
    /// Which standard deviation.
    pub std_kind: StdKind,
    /// Added to the standard deviation; in reward units.
    pub epsilon: f64,
}

impl Default for AdvantageConfig {
    fn default() -> Self {
        Self { scale: ScaleRewards::Group, std_kind: StdKind::Population, epsilon: 1e-6 }
    }
}

/// The valid rewards of one prompt's samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GroupStats {
    /// Samples with a reward.
    pub valid: usize,
    /// Mean reward; 0 without valid samples.
    pub mean: f64,
    /// Standard deviation of the configured kind; exactly 0 for equal rewards.
    pub std: f64,
    /// All valid rewards are equal, or there is at most one: the group teaches nothing but KL.
    pub zero_std: bool,
}

/// The advantages of a batch and what they were computed from.
#[derive(Clone, Debug, PartialEq)]
pub struct Advantages {
    /// One per sample; 0 for samples without a reward and in groups with equal rewards.
    pub values: Vec<f32>,
    /// One per sample: false where there was no reward, which masks the sample out of the loss.
    pub valid: Vec<bool>,
    /// One per group.
    pub groups: Vec<GroupStats>,
    /// Share of groups with at least one reward whose rewards are all equal (TRL `frac_reward_zero_std`).
    pub frac_zero_std: f64,
    /// Mean of all valid rewards (TRL `reward`).
    pub reward_mean: f64,
    /// Mean over groups with a reward of the group's standard deviation (TRL `reward_std`).
    pub reward_std: f64,
}

/// Weighted sum of the rewards of each sample; the samples stand group by group, `group_size` each.
///
/// `per_sample[s][r]` is reward `r` of sample `s`, `None` where there is no number; `weights[r]` its weight. A reward that no sample
/// of a group has does not apply to the group's problem and is left out. One that others of the group have could not be judged
/// for this sample: the rest of its rewards would make it look worse or better than it is, so it has no reward at all. Rewards
/// of weight 0 are only measured. A sample to which nothing applies has no reward.
///
/// # Errors
/// A sample with another number of rewards than there are weights; a reward or a weight that is not finite.
pub fn combine_rewards(
    per_sample: &[Vec<Option<f64>>],
    weights: &[f64],
    group_size: usize,
) -> Result<Vec<Option<f64>>, GrpoError> {
    if let Some((index, &value)) = weights.iter().enumerate().find(|(_, w)| !w.is_finite()) {
        return Err(GrpoError::NotFinite { what: "reward weights", index, value, hint: "" });
    }
    let mut combined = Vec::with_capacity(per_sample.len());
    for (number, group) in per_sample.chunks(group_size.max(1)).enumerate() {
        let applies: Vec<bool> =
            (0..weights.len()).map(|r| group.iter().any(|s| s.get(r).is_some_and(Option::is_some))).collect();
        for (i, rewards) in group.iter().enumerate() {
            if rewards.len() != weights.len() {
                return Err(GrpoError::Length {
                    what: "the rewards of a sample",
                    found: rewards.len(),
                    wanted: weights.len(),
                    why: "one for every reward weight",
                });
            }
            let (mut sum, mut judged) = (None, true);
            for ((reward, &weight), &applies) in rewards.iter().zip(weights).zip(&applies) {
                match *reward {
                    Some(value) => {
                        check_reward(number * group_size + i, value)?;
                        sum = Some(sum.unwrap_or(0.0) + weight * value);
                    }
                    None => judged &= !applies || weight == 0.0,
                }
            }
            combined.push(sum.filter(|_| judged));
        }
    }
    Ok(combined)
}

/// Advantages of S samples that stand group by group, `group_size` each.
///
/// # Errors
/// `group_size` below 2 (a group of one is its own baseline: every advantage would be 0), a number of rewards that is
/// not a multiple of it, a reward that is not finite (use `None` for "could not be judged").
pub fn advantages(
    rewards: &[Option<f64>],
    group_size: usize,
    config: &AdvantageConfig,
) -> Result<Advantages, GrpoError> {
    if group_size < 2 {
        return Err(GrpoError::Setting {
            name: "num_generations",
            value: group_size as f64,
            wanted: "at least 2: the baseline is the mean of the group, so a group of one learns nothing",
        });
    }
    if !(config.epsilon.is_finite() && config.epsilon >= 0.0) {
        return Err(GrpoError::Setting { name: "advantage epsilon", value: config.epsilon, wanted: "0 or more" });
    }
    if !rewards.len().is_multiple_of(group_size) {
        return Err(GrpoError::Length {
            what: "rewards",
            found: rewards.len(),
            wanted: rewards.len().next_multiple_of(group_size),
            why: "a multiple of num_generations",
        });
    }
    for (sample, reward) in rewards.iter().enumerate() {
        reward.map_or(Ok(()), |value| check_reward(sample, value))?;
    }
    let batch = stats(rewards, config.std_kind);
    let mut groups = Vec::with_capacity(rewards.len() / group_size);
    let mut values = Vec::with_capacity(rewards.len());
    for group in rewards.chunks_exact(group_size) {
        let own = stats(group, config.std_kind);
        let scale = match config.scale {
            ScaleRewards::Group => own.std + config.epsilon,
            ScaleRewards::Batch => batch.std + config.epsilon,
            ScaleRewards::None => 1.0,
        };
        values.extend(group.iter().map(|reward| match reward {
            Some(reward) if !own.zero_std => ((reward - own.mean) / scale) as f32,
            _ => 0.0,
        }));
        groups.push(own);
    }
    let judged = groups.iter().filter(|g| g.valid > 0);
    let count = judged.clone().count().max(1) as f64;
    Ok(Advantages {
        values,
        valid: rewards.iter().map(Option::is_some).collect(),
        frac_zero_std: judged.clone().filter(|g| g.zero_std).count() as f64 / count,
        reward_mean: batch.mean,
        reward_std: judged.map(|g| g.std).sum::<f64>() / count,
        groups,
    })
}

/// Which samples take part in the loss: those with a reward and, with `mask_truncated`, those that ended by themselves.
///
/// `truncated[s]` says that sample `s` was cut off by `max_completion_length`, which the engine knows from its finish
/// reason and nobody should guess from token values.
///
/// # Errors
/// Slices of different lengths.
pub fn sequence_mask(valid: &[bool], truncated: &[bool], mask_truncated: bool) -> Result<Vec<bool>, GrpoError> {
    if valid.len() != truncated.len() {
        return Err(GrpoError::Length {
            what: "truncated",
            found: truncated.len(),
            wanted: valid.len(),
            why: "one for every sample",
        });
    }
    Ok(valid.iter().zip(truncated).map(|(&valid, &truncated)| valid && !(mask_truncated && truncated)).collect())
}

fn check_reward(index: usize, value: f64) -> Result<(), GrpoError> {
    if value.is_finite() {
        return Ok(());
    }
    let hint = "; a sample that could not be judged has the reward None";
    Err(GrpoError::NotFinite { what: "rewards", index, value, hint })
}

/// Statistics of the valid rewards; equality is decided by `max == min`, never by a computed standard deviation.
fn stats(rewards: &[Option<f64>], kind: StdKind) -> GroupStats {
    let valid: Vec<f64> = rewards.iter().copied().flatten().collect();
    let n = valid.len();
    let Some(&first) = valid.first() else {
        return GroupStats { valid: 0, mean: 0.0, std: 0.0, zero_std: true };
    };
    if valid.iter().all(|&r| r == first) {
        return GroupStats { valid: n, mean: first, std: 0.0, zero_std: true };
    }
    let mean = valid.iter().sum::<f64>() / n as f64;
    let divisor = match kind {
        StdKind::Population => n,
        StdKind::Sample => n - 1,
    };
    let variance = valid.iter().map(|r| (r - mean) * (r - mean)).sum::<f64>() / divisor as f64;
    GroupStats { valid: n, mean, std: variance.sqrt(), zero_std: false }
}
