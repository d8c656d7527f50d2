//! The optimizer of the stages that train: AdamW or Muon, its moments, the learning rate over the steps.

use aha_kernels::{AdamWConfig, GradientType, MasterWeights, MomentType, MuonConfig, OptimizerConfig, StepSize};
use aha_train::schedule::{Schedule, ScheduleKind, Tail};
use serde::{Serialize, Serializer};

use super::error::RecipeError;
use super::precision::Precision;
use super::section::{BELOW_ONE, NOT_NEGATIVE, POSITIVE, SHARE, Section};

/// The optimizer and its learning rate. What came later is not written at its default, so that recipes keep their hash.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OptimizerSettings {
    /// The peak learning rate.
    pub learning_rate: f64,
    /// The shape after the warm-up.
    pub schedule: ScheduleKind,
    /// Steps of linear warm-up. Default 0.
    pub warmup_steps: u64,
    /// Steps of the decay of `wsd` and `v3`. Default: a fifth of the steps after the warm-up (for `v3`, of those that its
    /// end leaves).
    pub decay_steps: u64,
    /// The floor of the learning rate as a share of the peak. Default 0.1, as V3's pretraining.
    pub min_lr_ratio: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Decay of the first moment. Default 0.9 (V3).
    pub adam_beta1: f64,
    /// Decay of the second moment. Default 0.95 (V3).
    pub adam_beta2: f64,
    /// The gradient's norm is scaled down to this. Default 1.0 (V3).
    pub max_grad_norm: f64,
    /// The end of a `v3` schedule.
    #[serde(flatten)]
    pub tail: Option<TailSettings>,
    /// Muon for the matrices of the blocks, where `optimizer = "muon"`. Default `adamw` for everything.
    #[serde(flatten)]
    pub muon: Option<MuonSettings>,
    /// Numbers of the moments: `f32`, `bf16` as V3, or `8bit`. Default f32.
    #[serde(skip_serializing_if = "is_first", serialize_with = "named")]
    pub moments: MomentType,
    /// Numbers that gradients of matrices are summed in between micro-batches. Default f32.
    #[serde(skip_serializing_if = "is_first", serialize_with = "named")]
    pub gradients: GradientType,
    /// How the weights lie that the optimizer changes. Default `whole`.
    #[serde(skip_serializing_if = "is_first", serialize_with = "named")]
    pub master_weights: MasterWeights,
}

/// A setting whose values have names in a recipe; the first is the default.
trait Named: Copy + PartialEq + 'static {
    const ALL: &'static [(&'static str, Self)];
}

impl Named for MomentType {
    const ALL: &[(&str, Self)] = &[("f32", Self::F32), ("bf16", Self::Bf16), ("8bit", Self::EightBit)];
}

impl Named for GradientType {
    const ALL: &[(&str, Self)] = &[("f32", Self::F32), ("bf16", Self::Bf16)];
}

impl Named for MasterWeights {
    const ALL: &[(&str, Self)] = &[("whole", Self::Whole), ("split", Self::Split), ("bf16", Self::Bf16)];
}

fn named<T: Named, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
    let found = T::ALL.iter().find(|(_, known)| known == value);
    to.serialize_str(found.expect("every value has a name").0)
}

fn is_first<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The end of a `v3` schedule.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct TailSettings {
    /// Steps at the floor after the decay. Default 0.
    pub hold_steps: u64,
    /// Steps after those, to the end. Default 0.
    pub final_steps: u64,
    /// The learning rate of these as a share of the peak. Default 7.3 / 220 (V3).
    pub final_lr_ratio: f64,
}

/// Muon's settings.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MuonSettings {
    /// Always `muon`.
    pub optimizer: &'static str,
    /// Decay of the momentum. Default 0.95.
    pub muon_momentum: f64,
    /// `match_rms_adamw` or `original`. Default the first.
    pub muon_step_size: &'static str,
    /// Numbers of the products that make a step orthogonal: `f32`, `bf16`, or `auto`. Default f32.
    #[serde(skip_serializing_if = "Precision::is_default")]
    pub muon_precision: Precision,
}

/// What `muon_precision` may be.
const MUON_PRECISION: [(&str, Precision); 3] = [Precision::ALL[0], Precision::ALL[1], Precision::ALL[3]];

impl OptimizerSettings {
    /// The learning rate as a function of the step.
    pub fn schedule(&self, total_steps: u64) -> Schedule {
        let tail = self.tail.map_or_else(Tail::default, |t| Tail {
            hold_steps: t.hold_steps,
            final_steps: t.final_steps,
            final_ratio: t.final_lr_ratio,
        });
        Schedule {
            kind: self.schedule,
            peak: self.learning_rate,
            min_ratio: self.min_lr_ratio,
            warmup_steps: self.warmup_steps,
            total_steps,
            decay_steps: self.decay_steps,
            tail,
        }
    }

    /// A setting that changes nothing with products in these numbers on this processor, and why.
    pub(super) fn without_effect(&self, precision: Precision) -> Option<String> {
        let (name, _) = MasterWeights::ALL.iter().find(|(_, known)| *known == self.master_weights)?;
        let useless =
            self.master_weights != MasterWeights::default() && precision.resolve() != aha_kernels::Precision::Bf16;
        useless.then(|| format!("master_weights = \"{name}\" changes nothing: products do not run in bf16 here"))
    }

    /// The optimizer of a run with this seed.
    pub fn config(&self, seed: u64) -> OptimizerConfig {
        let adamw = AdamWConfig {
            beta1: self.adam_beta1 as f32,
            beta2: self.adam_beta2 as f32,
            weight_decay: self.weight_decay as f32,
            max_grad_norm: self.max_grad_norm as f32,
            ..AdamWConfig::default()
        };
        let muon = self.muon.as_ref().map(|m| MuonConfig {
            momentum: m.muon_momentum as f32,
            step_size: if m.muon_step_size == "original" { StepSize::Original } else { StepSize::MatchRmsAdamw },
            precision: m.muon_precision.resolve(),
        });
        let (moments, gradients, master) = (self.moments, self.gradients, self.master_weights);
        OptimizerConfig { adamw, muon, moments, gradients, seed, master }
    }
}

/// What differs between the stages that train.
pub(crate) struct Defaults {
    pub learning_rate: Option<f64>,
    pub schedule: ScheduleKind,
    pub weight_decay: f64,
}

pub(crate) fn optimizer(
    section: &Section<'_>,
    steps: u64,
    defaults: &Defaults,
) -> Result<OptimizerSettings, RecipeError> {
    let schedules = [
        ("constant", ScheduleKind::Constant),
        ("linear", ScheduleKind::Linear),
        ("cosine", ScheduleKind::Cosine),
        ("wsd", ScheduleKind::Wsd),
        ("v3", ScheduleKind::V3),
    ];
    let learning_rate = section.number("learning_rate", &POSITIVE)?.or(defaults.learning_rate);
    let warmup_steps = section.integer("warmup_steps", 0)?.unwrap_or(0);
    if warmup_steps > steps {
        let message =
            format!("`{}` is {warmup_steps}, but the stage has only {steps} steps", section.key("warmup_steps"));
        return Err(section.conflict("warmup_steps", message));
    }
    let rest = steps - warmup_steps;
    let schedule = section.choice("schedule", &schedules)?.unwrap_or(defaults.schedule);
    let tail = tail(section, schedule)?;
    let own = tail.map_or(0, |t| t.hold_steps.saturating_add(t.final_steps));
    if own > rest {
        let message = format!(
            "`{}` and `{}` are {own} together, but only {rest} of the {steps} steps are left after the warm-up",
            section.key("hold_steps"),
            section.key("final_steps")
        );
        return Err(section.conflict("hold_steps", message));
    }
    let rest = rest - own;
    let decay_steps = section.integer("decay_steps", 0)?.unwrap_or(rest / 5);
    if decay_steps > rest {
        let message = format!(
            "`{}` is {decay_steps}, but only {rest} of the {steps} steps are left after the warm-up",
            section.key("decay_steps")
        );
        return Err(section.conflict("decay_steps", message));
    }
    Ok(OptimizerSettings {
        learning_rate: learning_rate.ok_or_else(|| section.missing("learning_rate", "a number above 0"))?,
        schedule,
        warmup_steps,
        decay_steps,
        min_lr_ratio: section.number("min_lr_ratio", &SHARE)?.unwrap_or(0.1),
        weight_decay: section.number("weight_decay", &NOT_NEGATIVE)?.unwrap_or(defaults.weight_decay),
        adam_beta1: section.number("adam_beta1", &BELOW_ONE)?.unwrap_or(0.9),
        adam_beta2: section.number("adam_beta2", &BELOW_ONE)?.unwrap_or(0.95),
        max_grad_norm: section.number("max_grad_norm", &POSITIVE)?.unwrap_or(1.0),
        tail,
        muon: muon(section)?,
        moments: section.choice("moments", MomentType::ALL)?.unwrap_or_default(),
        gradients: section.choice("gradients", GradientType::ALL)?.unwrap_or_default(),
        master_weights: section.choice("master_weights", MasterWeights::ALL)?.unwrap_or_default(),
    })
}

/// The end of a `v3` schedule; its keys mean nothing to the others.
fn tail(section: &Section<'_>, schedule: ScheduleKind) -> Result<Option<TailSettings>, RecipeError> {
    let hold_steps = section.integer("hold_steps", 0)?;
    let final_steps = section.integer("final_steps", 0)?;
    let final_lr_ratio = section.number("final_lr_ratio", &SHARE)?;
    if schedule != ScheduleKind::V3 {
        for (key, given) in [
            ("hold_steps", hold_steps.is_some()),
            ("final_steps", final_steps.is_some()),
            ("final_lr_ratio", final_lr_ratio.is_some()),
        ] {
            if given {
                let message = format!("`{}` belongs to `schedule = \"v3\"`", section.key(key));
                return Err(section.conflict(key, message));
            }
        }
        return Ok(None);
    }
    Ok(Some(TailSettings {
        hold_steps: hold_steps.unwrap_or(0),
        final_steps: final_steps.unwrap_or(0),
        // 7.3e-6 of 2.2e-4.
        final_lr_ratio: final_lr_ratio.unwrap_or(7.3 / 220.0),
    }))
}

fn muon(section: &Section<'_>) -> Result<Option<MuonSettings>, RecipeError> {
    let chosen = section.choice("optimizer", &[("adamw", false), ("muon", true)])?.unwrap_or(false);
    let momentum = section.number("muon_momentum", &BELOW_ONE)?;
    let sizes = [("match_rms_adamw", StepSize::MatchRmsAdamw), ("original", StepSize::Original)];
    let step_size = section.choice("muon_step_size", &sizes)?;
    let precision = section.choice("muon_precision", &MUON_PRECISION)?;
    if !chosen {
        for (key, given) in [
            ("muon_momentum", momentum.is_some()),
            ("muon_step_size", step_size.is_some()),
            ("muon_precision", precision.is_some()),
        ] {
            if given {
                let message = format!("`{}` belongs to `optimizer = \"muon\"`", section.key(key));
                return Err(section.conflict(key, message));
            }
        }
        return Ok(None);
    }
    let step_size = step_size.unwrap_or_default();
    let name = sizes.iter().find(|(_, s)| *s == step_size).map_or("", |(name, _)| name);
    Ok(Some(MuonSettings {
        optimizer: "muon",
        muon_momentum: momentum.unwrap_or(0.95),
        muon_step_size: name,
        muon_precision: precision.unwrap_or_default(),
    }))
}
