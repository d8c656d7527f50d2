//! Arguments that several commands share.

use aha_pipeline::recipe::Precision;
use aha_tasks::PromptStyle;
use clap::ValueEnum;

/// How a problem or message becomes a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Style {
    /// The model's chat template if it has one, else r1_zero.
    Auto,
    /// The two-line form that models of the miniature recipe know.
    Mini,
    /// R1-Zero's preamble that explains the think and answer tags.
    #[value(name = "r1_zero")]
    R1Zero,
    /// The model's chat template.
    Chat,
}

impl Style {
    /// `None` for [`Style::Auto`].
    pub fn prompt_style(self) -> Option<PromptStyle> {
        match self {
            Style::Auto => None,
            Style::Mini => Some(PromptStyle::Mini),
            Style::R1Zero => Some(PromptStyle::R1Zero),
            Style::Chat => Some(PromptStyle::Chat),
        }
    }

    /// The name in a recipe.
    pub fn name(self) -> &'static str {
        match self {
            Style::Auto => "auto",
            Style::Mini => "mini",
            Style::R1Zero => "r1_zero",
            Style::Chat => "chat",
        }
    }
}

/// Adapters instead of the whole model; one of these is enough.
#[derive(clap::Args)]
pub struct LoraFlags {
    /// Train adapters (LoRA) of this rank and leave the model frozen [default: none; 16 where another --lora flag is given].
    #[arg(long, value_name = "R")]
    lora_r: Option<u64>,
    /// Adapters are multiplied by alpha / r [default: twice the rank].
    #[arg(long, value_name = "X")]
    lora_alpha: Option<String>,
    /// Layers that get an adapter, by the last part of their names, or all-linear [default: all-linear].
    #[arg(long, value_name = "NAME,..", value_delimiter = ',')]
    lora_target_modules: Vec<String>,
}

impl LoraFlags {
    /// Flag, key of the stage, and value of what is given.
    pub fn values(&self) -> impl Iterator<Item = (&'static str, &'static str, String)> {
        let names: Vec<String> = self.lora_target_modules.iter().map(|name| quoted(name)).collect();
        let list = (!names.is_empty()).then(|| format!("[{}]", names.join(", ")));
        let all = [
            ("--lora-r", "lora.r", self.lora_r.map(|r| r.to_string())),
            ("--lora-alpha", "lora.alpha", self.lora_alpha.clone()),
            ("--lora-target-modules", "lora.target_modules", list),
        ];
        all.into_iter().filter_map(|(flag, key, value)| Some((flag, key, value?)))
    }
}

/// `--precision`, as in a recipe.
pub fn precision(text: &str) -> Result<Precision, String> {
    let found = Precision::ALL.iter().find(|(name, _)| *name == text);
    found.map(|(_, precision)| *precision).ok_or_else(|| "must be f32, bf16, fp8, auto or quantized".into())
}

/// A share above 0 and at most 1 (`--top-p`).
pub fn nucleus(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(v) if v > 0.0 && v <= 1.0 => Ok(v),
        _ => Err("must be a number above 0 and at most 1".into()),
    }
}

/// A number of 0 or more (`--temperature`).
pub fn not_negative(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(v) if v >= 0.0 && v.is_finite() => Ok(v),
        _ => Err("must be a number of 0 or more".into()),
    }
}

/// A number above 0.
pub fn positive(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(v) if v > 0.0 && v.is_finite() => Ok(v),
        _ => Err("must be a number above 0".into()),
    }
}

/// A whole number of 1 or more.
pub fn count(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(v) if v > 0 => Ok(v),
        _ => Err("must be a whole number of 1 or more".into()),
    }
}

/// Text as TOML, so that it is taken for text whatever is in it.
pub fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
