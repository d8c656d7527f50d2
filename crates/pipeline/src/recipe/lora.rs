//! `lora = { r = 16, alpha = 32, target_modules = ["all-linear"] }`: a stage trains adapters instead of the whole model.

use aha_model::LoraConfig;
use serde::Serialize;

use super::error::RecipeError;
use super::section::{POSITIVE, Section};

const LORA_KEYS: &[&str] = &["r", "alpha", "target_modules", "use_rslora"];

/// Adapters; names as in PEFT.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LoraSettings {
    /// Rank. Default 16.
    pub r: usize,
    /// The adapter is multiplied by `alpha / r`. Default `2 r`.
    pub alpha: f64,
    /// Last parts of the names of layers, or `all-linear`. Default `all-linear`.
    pub target_modules: Vec<String>,
    /// The adapter is multiplied by `alpha / sqrt(r)` instead. Default false.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub use_rslora: bool,
}

impl LoraSettings {
    /// What the model takes; `modules_to_save` are trained in full beside the adapters.
    pub fn config(&self, modules_to_save: &[&str]) -> LoraConfig {
        LoraConfig {
            r: self.r,
            alpha: self.alpha,
            target_modules: self.target_modules.clone(),
            use_rslora: self.use_rslora,
            modules_to_save: modules_to_save.iter().map(|m| (*m).to_owned()).collect(),
        }
    }
}

/// Reads the table `lora` of a stage, and checks it against the stage's other settings.
pub(crate) fn lora(
    section: &Section<'_>,
    muon: bool,
    bias_update_speed: f64,
) -> Result<Option<LoraSettings>, RecipeError> {
    let Some(table) = section.table("lora")? else {
        return Ok(None);
    };
    let own = Section::new(table, &section.key("lora"), &[LORA_KEYS])?;
    if muon {
        let message =
            format!("`{}` goes with `optimizer = \"adamw\"`; Muon is for whole matrices", section.key("lora"));
        return Err(section.conflict("lora", message));
    }
    if bias_update_speed > 0.0 {
        let message = format!(
            "`{}` moves the biases of routers, which `{}` leaves frozen with the rest of the base; set it to 0",
            section.key("bias_update_speed"),
            section.key("lora")
        );
        return Err(section.conflict("bias_update_speed", message));
    }
    let r = own.size("r", 1)?.unwrap_or(16);
    let wanted = "\"all-linear\", or a list of layers such as [\"q_proj\", \"v_proj\"]";
    Ok(Some(LoraSettings {
        r,
        alpha: own.number("alpha", &POSITIVE)?.unwrap_or(2.0 * r as f64),
        target_modules: own
            .strings("target_modules", wanted)?
            .unwrap_or_else(|| vec![aha_model::lora::ALL_LINEAR.to_owned()]),
        use_rslora: own.boolean("use_rslora")?.unwrap_or(false),
    }))
}
