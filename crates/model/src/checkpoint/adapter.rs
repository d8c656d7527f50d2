//! Adapters on disk, as PEFT has them: `adapter_config.json` beside `adapter_model.safetensors`.
//!
//! Opened as a model, such a folder is its base with the adapter merged, tensor by tensor as they are read. A base in few
//! bits is merged in f32 and not rounded to those bits again. Ranks come from the shapes of the tensors.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use aha_kernels::lora::merge;
use serde_json::{Value, json};

use super::safetensors::Store;
use super::save::{SaveDtype, save_folder, write_file, write_tensors};
use crate::config::TensorSpec;
use crate::decoder::Decoder;
use crate::error::{Error, Result};
use crate::lora::{factors, module, scale};

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
/// What PEFT puts before the names of the model inside.
const PREFIX: &str = "base_model.model.";
/// Marks the matrix itself under an adapter, which PEFT saves too for an output head.
const BASE_LAYER: &str = ".base_layer";

/// An opened adapter.
#[derive(Debug)]
pub struct Adapter {
    path: PathBuf,
    /// `base_model_name_or_path`.
    base: String,
    alpha: f64,
    use_rslora: bool,
    store: Store,
}

/// Whether a folder is an adapter and not a model.
pub fn is_adapter(dir: &Path) -> bool {
    dir.join(CONFIG).exists() && !dir.join("config.json").exists()
}

impl Adapter {
    /// Opens an adapter's folder.
    ///
    /// # Errors
    /// Missing or malformed files, and kinds of adapter that are not LoRA of linear layers.
    pub fn open(dir: &Path) -> Result<Self> {
        let path = dir.join(CONFIG);
        let text = fs::read_to_string(&path).map_err(|e| Error::io(&path, "read", e))?;
        let json: Value =
            serde_json::from_str(&text).map_err(|e| Error::format(&path, format!("not valid JSON: {e}")))?;
        let bad = |problem: String| Error::format(&path, problem);
        let kind = json.get("peft_type").and_then(Value::as_str).unwrap_or_default();
        if kind != "LORA" {
            return Err(bad(format!("peft_type is {kind:?}; only LORA is read")));
        }
        for key in ["use_dora", "fan_in_fan_out", "lora_bias", "use_qalora"] {
            if json.get(key).and_then(Value::as_bool) == Some(true) {
                return Err(bad(format!("{key} is true; only plain LoRA of linear layers is read")));
            }
        }
        for key in ["alpha_pattern", "target_parameters"] {
            let empty = |v: &Value| {
                v.is_null() || v.as_object().is_some_and(|m| m.is_empty()) || v.as_array().is_some_and(Vec::is_empty)
            };
            if json.get(key).is_some_and(|v| !empty(v)) {
                return Err(bad(format!("{key} is given, which is not read; merge this adapter with PEFT")));
            }
        }
        let bias = json.get("bias").and_then(Value::as_str).unwrap_or("none");
        if bias != "none" {
            return Err(bad(format!("bias is {bias:?}; only \"none\" is read")));
        }
        let alpha = json.get("lora_alpha").and_then(Value::as_f64);
        let base = json.get("base_model_name_or_path").and_then(Value::as_str).unwrap_or_default().to_owned();
        Ok(Adapter {
            alpha: alpha.ok_or_else(|| bad("no number lora_alpha".into()))?,
            use_rslora: json.get("use_rslora").and_then(Value::as_bool).unwrap_or(false),
            base,
            path: dir.to_path_buf(),
            store: Store::open_file(&dir.join(WEIGHTS))?,
        })
    }

    /// Where the model lies that the adapter belongs to: `base_model_name_or_path` as a path, from here or from the adapter's
    /// folder, or a folder of that name beside the adapter, inside it, or one level above.
    ///
    /// # Errors
    /// None of them exists.
    pub fn base(&self) -> Result<PathBuf> {
        let named = Path::new(&self.base);
        let name = named.file_name().map(PathBuf::from).unwrap_or_default();
        let parent = |path: &Path| path.join("..");
        let places = [
            named.to_path_buf(),
            self.path.join(named),
            parent(&self.path).join(&name),
            self.path.join(&name),
            parent(&parent(&self.path)).join(&name),
        ];
        let found = places.into_iter().find(|p| !self.base.is_empty() && p.exists());
        found.ok_or_else(|| {
            let problem = format!(
                "the base model {:?} of this adapter is not here; put it beside the adapter, or set base_model_name_or_path",
                self.base
            );
            Error::format(&self.path.join(CONFIG), problem)
        })
    }

    /// The path it was opened from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Checks that every tensor belongs to a parameter in `wanted` and fits it.
    pub(super) fn check(&self, wanted: &HashMap<String, Vec<usize>>) -> Result<()> {
        let bad = |problem: String| Error::format(&self.path.join(WEIGHTS), problem);
        for name in self.store.names_except(|_| false) {
            let shape = self.store.shape(&name).unwrap_or_default();
            let inner = name.strip_prefix(PREFIX).unwrap_or(&name);
            let fits = match inner.split_once(".lora_") {
                None => wanted.get(&inner.replace(BASE_LAYER, "")).is_some_and(|w| w == shape),
                Some((of, factor)) => {
                    let other = factors(of)[usize::from(factor == "A.weight")].clone();
                    let rank = |s: &[usize]| s.get(usize::from(factor != "A.weight")).copied();
                    let other = self.store.shape(&format!("{PREFIX}{other}")).map(|s| s[..].to_vec());
                    let pair = other.is_some_and(|o| o.get(usize::from(factor == "A.weight")).copied() == rank(shape));
                    let fits = |w: &Vec<usize>| match factor {
                        "A.weight" => shape.len() == 2 && shape[1] == w[1],
                        "B.weight" => shape.len() == 2 && shape[0] == w[0],
                        _ => false,
                    };
                    pair && wanted.get(&format!("{of}.weight")).is_some_and(|w| w.len() == 2 && fits(w))
                }
            };
            if !fits {
                return Err(bad(format!(
                    "tensor {name} of shape {shape:?} fits no layer of the base model {}",
                    self.base
                )));
            }
        }
        Ok(())
    }

    /// Whether the adapter changes a parameter.
    pub(super) fn changes(&self, name: &str) -> bool {
        let [a, _] = factors(module(name));
        [name, &base_layer(name), &a].iter().any(|n| self.store.shape(&format!("{PREFIX}{n}")).is_some())
    }

    /// The values of a parameter with the adapter merged.
    pub(super) fn apply(&self, name: &str, mut values: Vec<f32>) -> Result<Vec<f32>> {
        for whole in [name, &base_layer(name)].map(|n| format!("{PREFIX}{n}")) {
            if self.store.shape(&whole).is_some() {
                values = self.store.read(&whole)?;
            }
        }
        let [a, b] = factors(module(name)).map(|n| format!("{PREFIX}{n}"));
        if let Some(&[rank, _]) = self.store.shape(&a) {
            let scale = scale(self.alpha, rank, self.use_rslora) as f32;
            merge(&mut values, &self.store.read(&a)?, &self.store.read(&b)?, rank, scale);
        }
        Ok(values)
    }

    /// Fills the adapters of a decoder, and what it trains in full, from this one.
    ///
    /// # Errors
    /// A tensor that is missing or has another shape.
    pub fn restore(&self, decoder: &mut Decoder) -> Result<()> {
        let trained: Vec<_> =
            decoder.params.iter().filter(|(_, p)| p.trainable).map(|(id, p)| (id, p.name.clone(), p.layout)).collect();
        for (id, name, layout) in trained {
            let inside = format!("{PREFIX}{name}");
            let found = self.store.shape(&inside).map(<[usize]>::to_vec);
            match found {
                None => return Err(Error::MissingTensor { name: inside, path: self.path.join(WEIGHTS) }),
                Some(found) if found != layout.shape() => {
                    return Err(Error::Shape { name: inside, found, wanted: layout.shape() });
                }
                Some(_) => decoder.params.get_mut(id).data = layout.store(self.store.read(&inside)?).into(),
            }
        }
        decoder.params.refresh();
        Ok(())
    }
}

fn base_layer(name: &str) -> String {
    format!("{}{BASE_LAYER}.weight", module(name))
}

/// Writes what a decoder with adapters trains as a folder that PEFT loads, in f32.
///
/// # Errors
/// A failed write, naming the file; a decoder without adapters.
pub fn save_adapter(dir: &Path, decoder: &Decoder) -> Result<()> {
    let lora = decoder.lora().ok_or_else(|| Error::format(dir, "this model has no adapter to save"))?;
    let c = &lora.config;
    let alpha = if c.alpha.fract() == 0.0 { json!(c.alpha as i64) } else { json!(c.alpha) };
    let config = json!({
        "base_model_name_or_path": lora.base,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "modules_to_save": if c.modules_to_save.is_empty() { Value::Null } else { json!(c.modules_to_save) },
        "peft_type": "LORA",
        "r": c.r,
        "target_modules": c.target_modules,
        "task_type": "CAUSAL_LM",
        "use_rslora": c.use_rslora,
    });
    let mut text = serde_json::to_string_pretty(&config).expect("plain values serialise");
    text.push('\n');
    let trained = || decoder.params.iter().filter(|(_, p)| p.trainable).map(|(_, p)| p);
    let specs: Vec<(TensorSpec, String)> = trained()
        .map(|p| (TensorSpec { name: format!("{PREFIX}{}", p.name), shape: p.layout.shape() }, p.name.clone()))
        .collect();
    let by_name: HashMap<&str, _> = trained().map(|p| (p.name.as_str(), p)).collect();
    save_folder(dir, &mut |scratch| {
        write_file(&scratch.join(CONFIG), &mut |out| Ok(out.write_all(text.as_bytes())?))?;
        write_file(&scratch.join(WEIGHTS), &mut |out| {
            write_tensors(out, &specs, SaveDtype::F32, &mut |spec, put| {
                let p = by_name[spec.name.as_str()];
                put(&p.layout.load(&p.all()));
                Ok(())
            })
        })?;
        Ok(vec![CONFIG, WEIGHTS])
    })
}
