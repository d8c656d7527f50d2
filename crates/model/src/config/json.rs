//! `config.json` in and out, as transformers reads and writes it: the older keys (`rope_theta`,
//! `rope_scaling`, `torch_dtype`) and the newer ones (`rope_parameters`, `dtype`). What would change the
//! arithmetic and is not implemented is refused by name rather than ignored.

use serde_json::{Map, Value, json};

use super::{Arch, DeepseekConfig, Head, ModelConfig, RopeScaling};
use crate::error::{Error, Result};

impl ModelConfig {
    /// Parses the text of a Hugging Face `config.json`.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key: malformed JSON, an unsupported `model_type`, rotary scaling,
    /// activation, sliding window or quantisation, or numbers that do not fit together.
    pub fn from_json(text: &str) -> Result<Self> {
        let root: Value =
            serde_json::from_str(text).map_err(|e| Error::Config(format!("config.json is not valid JSON: {e}")))?;
        let map = root.as_object().ok_or_else(|| Error::Config("config.json must hold an object".into()))?;
        let json = Keys { map, scope: "" };
        let arch = Arch::from_model_type(
            json.text("model_type")?
                .ok_or_else(|| Error::Config("model_type is missing; is this a transformers config.json?".into()))?,
        )?;
        refuse_unsupported(&json, arch)?;

        let hidden_size = json.required_size("hidden_size")?;
        let num_attention_heads = json.required_size("num_attention_heads")?;
        let deepseek = (arch == Arch::DeepseekV3).then(|| DeepseekConfig::from_json(&json)).transpose()?;
        let num_key_value_heads = match (json.size("num_key_value_heads")?, arch) {
            (Some(n), _) => n,
            (None, Arch::Llama | Arch::DeepseekV3) => num_attention_heads,
            (None, _) => return Err(missing("num_key_value_heads")),
        };
        let head_dim = match json.size("head_dim")? {
            _ if deepseek.is_some() => deepseek.as_ref().map_or(0, |d| d.qk_rope_head_dim),
            Some(h) => h,
            // The Qwen3 class has a default of its own.
            None if arch == Arch::Qwen3 && !map.contains_key("head_dim") => 128,
            None if num_attention_heads > 0 && hidden_size.is_multiple_of(num_attention_heads) => {
                hidden_size / num_attention_heads
            }
            None => {
                return Err(Error::Config(format!(
                    "hidden_size ({hidden_size}) must be a multiple of num_attention_heads \
                     ({num_attention_heads}) where head_dim is not given"
                )));
            }
        };
        let (rope_theta, rope_scaling) = read_rope(&json, arch)?;
        let bias = json.flag("attention_bias")?.unwrap_or(false);
        let config = ModelConfig {
            arch,
            vocab_size: json.required_size("vocab_size")?,
            hidden_size,
            intermediate_size: json.required_size("intermediate_size")?,
            num_hidden_layers: json.required_size("num_hidden_layers")?,
            num_attention_heads,
            num_key_value_heads,
            head_dim,
            rms_norm_eps: json.number("rms_norm_eps")?.unwrap_or(1e-6) as f32,
            rope_theta,
            rope_scaling,
            tie_word_embeddings: json.flag("tie_word_embeddings")?.unwrap_or(false),
            attention_bias: arch == Arch::Qwen2 || bias,
            attention_out_bias: arch != Arch::Qwen2 && bias,
            mlp_bias: arch == Arch::Llama && json.flag("mlp_bias")?.unwrap_or(false),
            qk_norm: arch == Arch::Qwen3,
            max_position_embeddings: json.size("max_position_embeddings")?.unwrap_or(match arch {
                Arch::Llama => 2048,
                Arch::DeepseekV3 => 4096,
                Arch::Qwen2 | Arch::Qwen3 => 32768,
            }),
            initializer_range: json.number("initializer_range")?.unwrap_or(0.02),
            bos_token_id: token_ids(&json, "bos_token_id")?.first().copied(),
            eos_token_ids: token_ids(&json, "eos_token_id")?,
            torch_dtype: json.text("dtype")?.or(json.text("torch_dtype")?).map(str::to_owned),
            deepseek: deepseek.map(Box::new),
            head: read_head(&json)?,
        };
        config.check()?;
        Ok(config)
    }

    /// A complete `config.json` that transformers loads into the matching `…ForCausalLM`, before and
    /// after its change to `rope_parameters`.
    pub fn to_json(&self) -> String {
        let scaling = rope_scaling_json(&self.rope_scaling);
        let mut parameters = Map::new();
        parameters.insert("rope_type".into(), "default".into());
        if let Value::Object(extra) = &scaling {
            parameters.extend(extra.clone());
        }
        parameters.insert("rope_theta".into(), self.rope_theta.into());
        // Through the shortest decimal, so that 1e-6 is not written as 9.99999997e-7.
        let eps: f64 = self.rms_norm_eps.to_string().parse().expect("a float prints as a number");
        let mut root = json!({
            "architectures": [self.arch.architecture(self.head)],
            "model_type": self.arch.model_type(),
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "max_position_embeddings": self.max_position_embeddings,
            "initializer_range": self.initializer_range,
            "rms_norm_eps": eps,
            "rope_theta": self.rope_theta,
            "rope_scaling": scaling,
            "rope_parameters": parameters,
            "attention_dropout": 0.0,
            "tie_word_embeddings": self.tie_word_embeddings,
            "use_cache": true,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": eos_json(&self.eos_token_ids),
        });
        let map = root.as_object_mut().expect("made as an object above");
        if self.arch != Arch::Qwen2 {
            map.insert("attention_bias".into(), self.attention_bias.into());
        }
        match self.arch {
            Arch::Llama => {
                map.insert("mlp_bias".into(), self.mlp_bias.into());
            }
            Arch::DeepseekV3 => {}
            Arch::Qwen2 | Arch::Qwen3 => {
                map.insert("use_sliding_window".into(), false.into());
            }
        }
        if let Some(deepseek) = &self.deepseek {
            deepseek.write(map);
        }
        if self.head == Head::Score {
            // transformers counts labels by this map; `num_labels` alone is not written by it either.
            map.insert("id2label".into(), json!({"0": "LABEL_0"}));
            map.insert("label2id".into(), json!({"LABEL_0": 0}));
            map.insert("pad_token_id".into(), self.eos_token_ids.first().copied().into());
        }
        if let Some(dtype) = &self.torch_dtype {
            map.insert("torch_dtype".into(), dtype.as_str().into());
        }
        let mut text = serde_json::to_string_pretty(&root).expect("plain values serialise");
        text.push('\n');
        text
    }
}

/// `eos_token_id` as transformers writes it: null, a number, or a list.
pub(crate) fn eos_json(ids: &[u32]) -> Value {
    match ids {
        [] => Value::Null,
        [one] => (*one).into(),
        many => many.into(),
    }
}

/// The eos ids of a `generation_config.json`, in its order; none where the key is absent.
pub(crate) fn generation_eos(text: &str) -> Result<Vec<u32>> {
    let root: Value = serde_json::from_str(text)
        .map_err(|e| Error::Config(format!("generation_config.json is not valid JSON: {e}")))?;
    let map = root.as_object().ok_or_else(|| Error::Config("generation_config.json must hold an object".into()))?;
    token_ids(&Keys { map, scope: "" }, "eos_token_id")
}

fn missing(key: &str) -> Error {
    Error::Config(format!("{key} is missing"))
}

/// What reads the hidden states, by the class in `architectures`; a language model where none is named.
fn read_head(json: &Keys) -> Result<Head> {
    let class = json.map.get("architectures").and_then(|a| a.get(0)?.as_str()).unwrap_or("");
    if !class.ends_with("ForSequenceClassification") {
        return Ok(Head::Vocabulary);
    }
    let labels = match (json.size("num_labels")?, json.object("id2label")?) {
        (Some(n), _) => n,
        (None, Some(map)) => map.len(),
        (None, None) => 2, // the default of transformers
    };
    if labels != 1 {
        return Err(Error::Config(format!("{class} has {labels} labels; a reward model has one")));
    }
    Ok(Head::Score)
}

/// Refuses settings that change the result and are not implemented.
fn refuse_unsupported(json: &Keys, arch: Arch) -> Result<()> {
    let fail = |message: String| Err(Error::Config(message));
    let act = json.text("hidden_act")?.unwrap_or("silu");
    if act != "silu" && act != "swish" {
        return fail(format!("hidden_act \"{act}\" is not supported; only silu is"));
    }
    let windowed_layer = json.map.get("layer_types").and_then(Value::as_array);
    if let Some(kind) = windowed_layer.into_iter().flatten().find(|k| k.as_str() != Some("full_attention")) {
        return fail(format!("layer_types holds {kind}; only full_attention is supported"));
    }
    let window_on = json.flag("use_sliding_window")?.unwrap_or(false)
        || (arch == Arch::Llama && json.size("sliding_window")?.is_some());
    if window_on {
        return fail("sliding-window attention is not supported (use_sliding_window)".into());
    }
    if let Some(q) =
        json.map.get("quantization_config").filter(|q| !(q.is_null() || arch == Arch::DeepseekV3 && is_block_fp8(q)))
    {
        let method = q.get("quant_method").and_then(Value::as_str).unwrap_or("?");
        return fail(format!(
            "quantization_config (quant_method \"{method}\") is not supported; use the unquantised checkpoint or a GGUF file"
        ));
    }
    if let Some(f) = json.number("partial_rotary_factor")?
        && f != 1.0
    {
        return fail(format!("partial_rotary_factor {f} is not supported; only 1 is"));
    }
    Ok(())
}

/// The 8-bit form of the released DeepSeek-V3 checkpoints, which is read by dequantising.
fn is_block_fp8(q: &Value) -> bool {
    q.get("quant_method").and_then(Value::as_str) == Some("fp8")
        && q.get("weight_block_size").is_none_or(|size| *size == json!([128, 128]))
        && q.get("fmt").is_none_or(|fmt| *fmt == "e4m3")
}

/// Rotary base and scaling from the newer or the older keys; the newer win, as in transformers.
fn read_rope(json: &Keys, arch: Arch) -> Result<(f64, RopeScaling)> {
    let theta = json.number("rope_theta")?.unwrap_or(10_000.0);
    let (scope, map) = match (json.object("rope_parameters")?, json.object("rope_scaling")?) {
        (Some(map), _) => ("rope_parameters.", map),
        (None, Some(map)) => ("rope_scaling.", map),
        (None, None) => return Ok((theta, RopeScaling::None)),
    };
    let rope = Keys { map, scope };
    let theta = rope.number("rope_theta")?.unwrap_or(theta);
    if let Some(f) = rope.number("partial_rotary_factor")?
        && f != 1.0
    {
        return Err(Error::Config(format!("{scope}partial_rotary_factor {f} is not supported; only 1 is")));
    }
    let kind = match rope.text("rope_type")? {
        Some(kind) => kind,
        None => rope.text("type")?.unwrap_or("default"),
    };
    let scaling = match kind {
        "default" => RopeScaling::None,
        "linear" => RopeScaling::Linear { factor: rope.required_number("factor")? },
        "llama3" => RopeScaling::Llama3 {
            factor: rope.required_number("factor")?,
            low_freq_factor: rope.required_number("low_freq_factor")?,
            high_freq_factor: rope.required_number("high_freq_factor")?,
            original_max_position_embeddings: rope.required_size("original_max_position_embeddings")?,
        },
        "yarn" if arch == Arch::DeepseekV3 => {
            if rope.flag("truncate")? == Some(false) || rope.number("attention_factor")?.is_some() {
                return Err(Error::Config(format!("{scope}truncate and {scope}attention_factor are not supported")));
            }
            RopeScaling::Yarn {
                factor: rope.required_number("factor")?,
                beta_fast: rope.number("beta_fast")?.unwrap_or(32.0),
                beta_slow: rope.number("beta_slow")?.unwrap_or(1.0),
                mscale: rope.number("mscale")?.unwrap_or(0.0),
                mscale_all_dim: rope.number("mscale_all_dim")?.unwrap_or(0.0),
                original_max_position_embeddings: rope.required_size("original_max_position_embeddings")?,
            }
        }
        other => {
            return Err(Error::Config(format!(
                "rope type \"{other}\" is not supported; supported are default, linear and llama3"
            )));
        }
    };
    Ok((theta, scaling))
}

fn rope_scaling_json(scaling: &RopeScaling) -> Value {
    match *scaling {
        RopeScaling::None => Value::Null,
        RopeScaling::Linear { factor } => json!({"rope_type": "linear", "factor": factor}),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => json!({
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": low_freq_factor,
            "high_freq_factor": high_freq_factor,
            "original_max_position_embeddings": original_max_position_embeddings,
        }),
        RopeScaling::Yarn {
            factor,
            beta_fast,
            beta_slow,
            mscale,
            mscale_all_dim,
            original_max_position_embeddings,
        } => json!({
            "rope_type": "yarn",
            "type": "yarn",
            "factor": factor,
            "beta_fast": beta_fast,
            "beta_slow": beta_slow,
            "mscale": mscale,
            "mscale_all_dim": mscale_all_dim,
            "original_max_position_embeddings": original_max_position_embeddings,
        }),
    }
}

/// A number, a list of numbers, or nothing.
fn token_ids(json: &Keys, key: &str) -> Result<Vec<u32>> {
    let one = |value: &Value| {
        value.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(|| json.wrong(key, "a token id", value))
    };
    match json.map.get(key) {
        None | Some(Value::Null) => Ok(vec![]),
        Some(Value::Array(list)) => list.iter().map(one).collect(),
        Some(value) => Ok(vec![one(value)?]),
    }
}

/// Typed access to a JSON object; null counts as absent, a wrong type is an error naming the key.
pub(super) struct Keys<'a> {
    map: &'a Map<String, Value>,
    /// Put before the key in messages ("rope_scaling.").
    scope: &'static str,
}

impl<'a> Keys<'a> {
    fn wrong(&self, key: &str, wanted: &str, found: &Value) -> Error {
        Error::Config(format!("{}{key} must be {wanted}, but is {found}", self.scope))
    }

    fn get<T>(&self, key: &str, wanted: &str, cast: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>> {
        match self.map.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(v) => cast(v).map(Some).ok_or_else(|| self.wrong(key, wanted, v)),
        }
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>> {
        self.get(key, "a string", Value::as_str)
    }

    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.get(key, "true or false", Value::as_bool)
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<f64>> {
        self.get(key, "a number", Value::as_f64)
    }

    pub(super) fn size(&self, key: &str) -> Result<Option<usize>> {
        self.get(key, "a whole number of 0 or more", |v| v.as_u64().and_then(|n| usize::try_from(n).ok()))
    }

    fn object(&self, key: &str) -> Result<Option<&'a Map<String, Value>>> {
        self.get(key, "an object", Value::as_object)
    }

    pub(super) fn required_size(&self, key: &str) -> Result<usize> {
        self.size(key)?.ok_or_else(|| self.missing(key))
    }

    pub(super) fn required_number(&self, key: &str) -> Result<f64> {
        self.number(key)?.ok_or_else(|| self.missing(key))
    }

    fn missing(&self, key: &str) -> Error {
        missing(&format!("{}{key}", self.scope))
    }
}
