//! Adapters beside the linear layers of a decoder: which layers get one, how it begins, what stays frozen.
//!
//! Names, shapes, scale and first values are PEFT's: `NAME.lora_A.weight` `[r, k]` even over +-1/sqrt(k) (Kaiming with
//! a = sqrt(5)), `NAME.lora_B.weight` `[n, r]` zero, so that training begins at the model itself. There is no dropout.
//!
//! `all-linear` is every linear layer of the blocks, experts included, but not the output head, as in PEFT. Routers are no
//! linear layers there, and have no adapter here. `kv_b_proj` of latent attention has none either: the absorbed form multiplies
//! with parts of that matrix directly. Prediction modules stay as they are.

use crate::config::ModelConfig;
use crate::decoder::Decoder;
use crate::error::{Error, Result};
use aha_kernels::{Init, Layout, ParamId, ParamStore};

/// Every linear layer of the blocks.
pub const ALL_LINEAR: &str = "all-linear";

/// Settings of adapters; names as in PEFT.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraConfig {
    /// Rank.
    pub r: usize,
    /// The adapter is multiplied by `alpha / r`.
    pub alpha: f64,
    /// Last parts of the names of layers that get an adapter, or [`ALL_LINEAR`].
    pub target_modules: Vec<String>,
    /// The adapter is multiplied by `alpha / sqrt(r)` instead (Kalajdzievski 2023).
    pub use_rslora: bool,
    /// Last parts of the names of modules that are trained in full and saved with the adapter, such as a score head.
    pub modules_to_save: Vec<String>,
}

impl LoraConfig {
    /// What the product of both factors is multiplied with.
    pub fn scale(&self) -> f64 {
        scale(self.alpha, self.r, self.use_rslora)
    }
}

pub(crate) fn scale(alpha: f64, rank: usize, use_rslora: bool) -> f64 {
    let r = rank as f64;
    alpha / if use_rslora { r.sqrt() } else { r }
}

/// The adapters of a decoder.
#[derive(Clone, Debug, PartialEq)]
pub struct Lora {
    /// Their settings, with the target modules by name.
    pub config: LoraConfig,
    /// The model they belong to, as `adapter_config.json` says it.
    pub base: String,
}

/// `NAME` of `NAME.weight`.
pub(crate) fn module(parameter: &str) -> &str {
    parameter.strip_suffix(".weight").unwrap_or(parameter)
}

/// Names of the two factors beside the matrix of a module.
pub(crate) fn factors(module: &str) -> [String; 2] {
    ["A", "B"].map(|factor| format!("{module}.lora_{factor}.weight"))
}

/// Whether a module's name is `part` or ends with it.
fn is_called(module: &str, part: &str) -> bool {
    module == part || module.strip_suffix(part).is_some_and(|rest| rest.ends_with('.'))
}

fn last_part(module: &str) -> &str {
    module.rsplit('.').next().unwrap_or(module)
}

/// Modules that can have an adapter: linear layers of the blocks, and an output head of its own.
fn candidates(config: &ModelConfig, params: &ParamStore) -> Vec<(ParamId, String)> {
    let in_block = |name: &str| {
        let number = name.strip_prefix("model.layers.").and_then(|rest| rest.split('.').next()?.parse::<usize>().ok());
        let linear = name.ends_with("_proj.weight") || name.ends_with(".kv_a_proj_with_mqa.weight");
        linear && number.is_some_and(|i| i < config.num_hidden_layers)
    };
    let fits = |name: &str| (in_block(name) && !name.ends_with(".kv_b_proj.weight")) || name == "lm_head.weight";
    let linear = params.iter().filter(|(_, p)| matches!(p.layout, Layout::Panels { .. }) && fits(&p.name));
    linear.map(|(id, p)| (id, module(&p.name).to_owned())).collect()
}

/// Why a module cannot have an adapter.
fn refusal(config: &ModelConfig, part: &str, known: &[&str]) -> Error {
    let why = match part {
        "kv_b_proj" if config.deepseek.is_some() => {
            "latent attention in its absorbed form reads that matrix directly; adapt the others, or train in full"
                .into()
        }
        "lm_head" if config.tie_word_embeddings => {
            "this model's output matrix is its embedding (tied); adapt the other layers".into()
        }
        _ => format!("no linear layer of this model is called so; it has {}, or take {ALL_LINEAR}", known.join(", ")),
    };
    Error::Config(format!("target_modules: {part:?}: {why}"))
}

impl Decoder {
    /// Freezes everything and puts an adapter beside every targeted layer. `base` is the model as
    /// `adapter_config.json` shall name it; A's values are a function of (seed, name).
    ///
    /// # Errors
    /// A target or a module to save that the model does not have; weights in whole numbers.
    pub fn add_adapters(&mut self, lora: &LoraConfig, base: &str, seed: u64) -> Result<()> {
        let all = candidates(&self.config, &self.params);
        let mut known: Vec<&str> = all.iter().map(|(_, name)| last_part(name)).collect();
        known.sort_unstable();
        known.dedup();
        for part in lora.target_modules.iter().filter(|part| *part != ALL_LINEAR) {
            if !all.iter().any(|(_, name)| is_called(name, part)) {
                return Err(refusal(&self.config, part, &known));
            }
        }
        let wanted = |name: &str| {
            lora.target_modules.iter().any(|t| if t == ALL_LINEAR { name != "lm_head" } else { is_called(name, t) })
        };
        let saved = |name: &str| lora.modules_to_save.iter().any(|part| is_called(module(name), part));
        for part in &lora.modules_to_save {
            if !self.params.iter().any(|(_, p)| is_called(module(&p.name), part)) {
                return Err(Error::Config(format!("modules_to_save: this model has no module {part:?}")));
            }
        }
        let frozen: Vec<ParamId> = self.params.iter().filter(|(_, p)| !saved(&p.name)).map(|(id, _)| id).collect();
        frozen.into_iter().for_each(|id| self.params.freeze(id));
        let mut parts = Vec::new();
        for (id, name) in all.into_iter().filter(|(_, name)| wanted(name) && !saved(name)) {
            let shape = self.params.get(id).layout.shape();
            if self.params.get(id).is_empty() {
                return Err(Error::Config(format!(
                    "{name} is in whole numbers, which cannot be trained; use f32 or bf16"
                )));
            }
            let [a, b] = factors(&name);
            let bound = 1.0 / (shape[1] as f32).sqrt();
            let a = self.params.init(a, Layout::Panels { n: lora.r, k: shape[1] }, Init::Uniform { bound, seed });
            let b = self.params.init(b, Layout::Panels { n: shape[0], k: lora.r }, Init::Zero);
            self.params.attach(id, a, b, lora.scale() as f32);
            parts.push(last_part(&name).to_owned());
        }
        parts.sort_unstable();
        parts.dedup();
        let config = LoraConfig { target_modules: parts, ..lora.clone() };
        self.lora = Some(Lora { config, base: base.to_owned() });
        // The new matrices have to be rounded, too.
        self.params.refresh();
        Ok(())
    }

    /// The adapters, if it has some.
    pub fn lora(&self) -> Option<&Lora> {
        self.lora.as_ref()
    }
}
