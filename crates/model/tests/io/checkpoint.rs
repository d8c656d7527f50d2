//! Hugging Face directories: written and read back, written by the safetensors crate and read, and broken
//! in every way.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use aha_model::{Arch, Checkpoint, Error, ModelConfig, SaveDtype, TextFiles, Tokenizer, save_checkpoint};
use half::{bf16, f16};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;

use crate::support::{save, tiny, tokenizer_json, values};

/// Writes tensors with the safetensors crate.
fn write_with_crate(path: &Path, tensors: &[(String, Dtype, Vec<usize>, Vec<u8>)]) {
    let views: Vec<(String, TensorView)> = tensors
        .iter()
        .map(|(name, dtype, shape, raw)| (name.clone(), TensorView::new(*dtype, shape.clone(), raw).unwrap()))
        .collect();
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

fn bytes(values: &[f32], dtype: Dtype) -> Vec<u8> {
    let each = |&v: &f32| match dtype {
        Dtype::F16 => f16::from_f32(v).to_le_bytes().to_vec(),
        Dtype::BF16 => bf16::from_f32(v).to_le_bytes().to_vec(),
        _ => v.to_le_bytes().to_vec(),
    };
    values.iter().flat_map(each).collect()
}

fn directory(config: &ModelConfig) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.json"), config.to_json()).unwrap();
    dir
}

fn open_error(path: &Path) -> String {
    Checkpoint::open(path).unwrap_err().to_string()
}

#[test]
fn what_is_saved_is_read_back() {
    for (arch, tied) in [(Arch::Llama, false), (Arch::Qwen2, true), (Arch::Qwen3, false)] {
        let config = ModelConfig { tie_word_embeddings: tied, ..tiny(arch) };
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("deep/model");
        save(&dir, &config, SaveDtype::F32);
        let checkpoint = Checkpoint::open(&dir).unwrap();
        assert_eq!(checkpoint.config(), &ModelConfig { torch_dtype: Some("float32".into()), ..config.clone() });
        assert_eq!(checkpoint.unexpected(), Vec::<String>::new());
        for spec in config.tensors() {
            assert_eq!(checkpoint.read(&spec.name).unwrap(), values(&spec), "{}", spec.name);
        }
        // The reference implementation agrees.
        let raw = fs::read(dir.join("model.safetensors")).unwrap();
        let (_, meta) = safetensors::SafeTensors::read_metadata(&raw).unwrap();
        assert_eq!(meta.metadata().as_ref().unwrap()["format"], "pt");
        let parsed = safetensors::SafeTensors::deserialize(&raw).unwrap();
        assert_eq!(parsed.len(), config.tensors().len());
        for spec in config.tensors() {
            let view = parsed.tensor(&spec.name).unwrap();
            assert_eq!(view.shape(), spec.shape);
            assert_eq!(view.data(), bytes(&values(&spec), Dtype::F32));
        }
        // Nothing is left beside it.
        assert_eq!(fs::read_dir(parent.path().join("deep")).unwrap().count(), 1);
    }
}

#[test]
fn bf16_is_rounded_to_nearest_even_once() {
    let config = tiny(Arch::Llama);
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("m");
    // 1 + 2^-8 lies between two bf16 values and goes to the even one; slightly more goes up.
    let special = [1.0 + 1.0 / 256.0_f32, 1.003_906_4, 1.0 + 3.0 / 256.0, -0.0, 1e-40, 3.0e38];
    let wanted = [1.0, 1.007_812_5, 1.015_625, -0.0, bf16::from_f32(1e-40).to_f32(), bf16::from_f32(3.0e38).to_f32()];
    save_checkpoint(&dir, &config, SaveDtype::Bf16, &TextFiles::default(), &mut |spec| {
        let mut v = values(spec);
        v[..6].copy_from_slice(&special);
        Ok(Cow::Owned(v))
    })
    .unwrap();
    let checkpoint = Checkpoint::open(&dir).unwrap();
    assert_eq!(checkpoint.config().torch_dtype.as_deref(), Some("bfloat16"));
    for spec in config.tensors() {
        let read = checkpoint.read(&spec.name).unwrap();
        assert_eq!(read[..6].iter().map(|v| v.to_bits()).collect::<Vec<_>>(), wanted.map(f32::to_bits));
        for (r, v) in read.iter().zip(values(&spec)).skip(6) {
            assert_eq!(*r, bf16::from_f32(v).to_f32());
        }
    }
}

#[test]
fn shards_and_half_precision_are_exact() {
    let config = ModelConfig { tie_word_embeddings: true, ..tiny(Arch::Qwen2) };
    let dir = directory(&config);
    let dtypes = [Dtype::F16, Dtype::BF16, Dtype::F32];
    let mut shards = vec![vec![]; 3];
    let mut map = serde_json::Map::new();
    for (i, spec) in config.tensors().iter().enumerate() {
        let dtype = dtypes[i % 3];
        shards[i / 12].push((spec.name.clone(), dtype, spec.shape.clone(), bytes(&values(spec), dtype)));
        map.insert(spec.name.clone(), format!("model-{}.safetensors", i / 12).into());
    }
    shards[2].push(("rotary.inv_freq".into(), Dtype::I64, vec![1], vec![0; 8]));
    for (i, shard) in shards.iter().enumerate() {
        write_with_crate(&dir.path().join(format!("model-{i}.safetensors")), shard);
    }
    let index = dir.path().join("model.safetensors.index.json");
    fs::write(&index, json!({"metadata": {}, "weight_map": map}).to_string()).unwrap();
    fs::write(dir.path().join("generation_config.json"), r#"{"eos_token_id": [5, 2], "temperature": 0.6}"#).unwrap();
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    assert_eq!(checkpoint.config().eos_token_ids, [2, 5]);
    assert_eq!(checkpoint.unexpected(), ["rotary.inv_freq"]);
    for (i, spec) in config.tensors().iter().enumerate() {
        let wanted: Vec<f32> = values(spec)
            .iter()
            .map(|&v| match dtypes[i % 3] {
                Dtype::F16 => f16::from_f32(v).to_f32(),
                Dtype::BF16 => bf16::from_f32(v).to_f32(),
                _ => v,
            })
            .collect();
        assert_eq!(checkpoint.read(&spec.name).unwrap(), wanted);
    }
    assert!(matches!(checkpoint.read("rotary.inv_freq"), Err(Error::MissingTensor { .. })));

    let mut wrong = map.clone();
    wrong.insert("model.norm.weight".into(), "model-0.safetensors".into());
    fs::write(&index, json!({"weight_map": wrong}).to_string()).unwrap();
    let message = open_error(dir.path());
    assert!(message.contains("model.norm.weight") && message.contains("model-0"), "{message}");
    wrong.insert("model.norm.weight".into(), "../model-0.safetensors".into());
    fs::write(&index, json!({"weight_map": wrong}).to_string()).unwrap();
    assert!(open_error(dir.path()).contains("same directory"));
    fs::write(&index, json!({"weight_map": map}).to_string()).unwrap();
    fs::remove_file(dir.path().join("model-1.safetensors")).unwrap();
    assert!(open_error(dir.path()).contains("model-1.safetensors"));
    fs::write(&index, "{}").unwrap();
    assert!(open_error(dir.path()).contains("weight_map"));
}

#[test]
fn wrong_shape_missing_tensor_and_wrong_dtype_are_named() {
    let config = tiny(Arch::Llama);
    let dir = directory(&config);
    let path = dir.path().join("model.safetensors");
    let good: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = config
        .tensors()
        .iter()
        .map(|s| (s.name.clone(), Dtype::F32, s.shape.clone(), bytes(&values(s), Dtype::F32)))
        .collect();

    let mut bad = good.clone();
    bad[1] = (bad[1].0.clone(), Dtype::F32, vec![2, 2], vec![0; 16]);
    write_with_crate(&path, &bad);
    let message = open_error(dir.path());
    assert!(message.contains("input_layernorm") && message.contains("[2, 2]") && message.contains("[8]"), "{message}");
    write_with_crate(&path, &good[..good.len() - 1]);
    let message = open_error(dir.path());
    assert!(message.contains("lm_head.weight"), "{message}");

    let mut bad = good.clone();
    bad[1] = (bad[1].0.clone(), Dtype::I32, vec![8], vec![0; 32]);
    write_with_crate(&path, &bad);
    let message = Checkpoint::open(dir.path()).unwrap().read(&bad[1].0).unwrap_err().to_string();
    assert!(message.contains("I32") && message.contains(&bad[1].0), "{message}");
}

#[test]
fn a_file_cut_anywhere_is_an_error() {
    let config = ModelConfig { num_hidden_layers: 1, ..tiny(Arch::Qwen2) };
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("m");
    save(&dir, &config, SaveDtype::Bf16);
    let path = dir.join("model.safetensors");
    let whole = fs::read(&path).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    for length in (0..whole.len() as u64).rev() {
        file.set_len(length).unwrap();
        let message = open_error(&dir);
        assert!(message.contains("model.safetensors"), "{length}: {message}");
    }
    let mut longer = whole.clone();
    longer.push(0);
    fs::write(&path, longer).unwrap();
    assert!(open_error(&dir).contains("cover"));
}

#[test]
fn corrupt_bytes_never_panic() {
    let config = ModelConfig { num_hidden_layers: 1, ..tiny(Arch::Llama) };
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("m");
    save(&dir, &config, SaveDtype::F32);
    let path = dir.join("model.safetensors");
    let whole = fs::read(&path).unwrap();
    let header = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    for at in 0..8 + header {
        for byte in [0u8, b'9', b'"', 0xff] {
            file.write_all_at(&[byte], at as u64).unwrap();
            // A changed name or number may still be a valid file; reading it must not panic either.
            if let Ok(checkpoint) = Checkpoint::open(&dir) {
                for spec in config.tensors() {
                    let _ = checkpoint.read(&spec.name);
                }
            }
        }
        file.write_all_at(&whole[at..=at], at as u64).unwrap();
    }
}

#[test]
fn bad_headers_say_what_is_wrong() {
    let config = tiny(Arch::Llama);
    let dir = directory(&config);
    let path = dir.path().join("model.safetensors");
    let with_header = |header: &str, data: usize| {
        let mut raw = (header.len() as u64).to_le_bytes().to_vec();
        raw.extend(header.bytes());
        raw.extend(vec![0; data]);
        fs::write(&path, raw).unwrap();
        open_error(dir.path())
    };
    for (header, data, word) in [
        ("not json", 0, "JSON"),
        ("[]", 0, "object"),
        (r#"{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}"#, 4, "tensor a"),
        (r#"{"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}}"#, 8, "tensor a"),
        (r#"{"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}}"#, 16, "starts at"),
        (r#"{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}"#, 7, "truncated"),
        (r#"{"a": {"dtype": "F32", "shape": [4294967296, 4294967296], "data_offsets": [0, 8]}}"#, 8, "tensor a"),
        (r#"{"a": {"dtype": "X", "shape": [2], "data_offsets": [0, 18446744073709551615]}}"#, 8, "tensor a"),
    ] {
        let message = with_header(header, data);
        assert!(message.contains(word), "{header}: {message}");
    }
    fs::write(&path, u64::MAX.to_le_bytes()).unwrap();
    assert!(open_error(dir.path()).contains("not a safetensors file"));
    fs::remove_file(&path).unwrap();
    assert!(open_error(dir.path()).contains("model.safetensors"));
    fs::write(dir.path().join("pytorch_model.bin"), "").unwrap();
    assert!(open_error(dir.path()).contains("pytorch_model.bin"));
}

#[test]
fn bad_places_say_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    assert!(open_error(dir.path()).contains("config.json"));
    assert!(open_error(&dir.path().join("nothing")).contains("nothing"));
    let file = dir.path().join("model.safetensors");
    fs::write(&file, "x").unwrap();
    assert!(open_error(&file).contains("directory"));
    let file = dir.path().join("model.zip");
    fs::write(&file, "PK..").unwrap();
    assert!(open_error(&file).contains("GGUF"));
    fs::write(dir.path().join("config.json"), "{").unwrap();
    assert!(open_error(dir.path()).contains("config.json"));
    fs::write(dir.path().join("config.json"), tiny(Arch::Llama).to_json()).unwrap();
    fs::write(dir.path().join("generation_config.json"), r#"{"eos_token_id": 32}"#).unwrap();
    let message = open_error(dir.path());
    assert!(message.contains("generation_config.json") && message.contains("32"), "{message}");
}

#[test]
fn a_failed_save_leaves_the_old_model() {
    let config = tiny(Arch::Llama);
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("m");
    let mut fail_late = |spec: &aha_model::TensorSpec| {
        if spec.name == "lm_head.weight" {
            return Err(Error::Config("no more".into()));
        }
        Ok(Cow::Owned(values(spec)))
    };
    let text = TextFiles::default();
    let failed = save_checkpoint(&dir, &config, SaveDtype::F32, &text, &mut fail_late);
    assert!(failed.unwrap_err().to_string().contains("no more"));
    assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);

    // As after kill -9 in the middle of a save.
    fs::create_dir(parent.path().join(".m.saving")).unwrap();
    fs::write(parent.path().join(".m.saving/model.safetensors"), "half").unwrap();
    save(&dir, &config, SaveDtype::F32);
    fs::write(dir.join("optimizer.state"), "kept").unwrap();
    let before = fs::read(dir.join("model.safetensors")).unwrap();
    assert!(save_checkpoint(&dir, &config, SaveDtype::F32, &text, &mut fail_late).is_err());
    assert_eq!(fs::read(dir.join("model.safetensors")).unwrap(), before);

    let short = save_checkpoint(&dir, &config, SaveDtype::F32, &text, &mut |_| Ok(Cow::Owned(vec![1.0])));
    assert!(matches!(short, Err(Error::Shape { .. })));
    save(&dir, &config, SaveDtype::Bf16);
    assert!(fs::read(dir.join("model.safetensors")).unwrap().len() < before.len());
    assert_eq!(fs::read_to_string(dir.join("optimizer.state")).unwrap(), "kept");
    assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
}

#[test]
fn tokenizer_and_template_are_saved_with_the_model() {
    let config = ModelConfig { vocab_size: 264, ..tiny(Arch::Qwen2) };
    let tokenizer = crate::tokenizer::tokenizer();
    let text = TextFiles::new(Some(&tokenizer), Some("{{ bos_token }}{{ messages[0].content }}"));
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("m");
    save_checkpoint(&dir, &config, SaveDtype::F32, &text, &mut |s| Ok(Cow::Owned(values(s)))).unwrap();
    let checkpoint = Checkpoint::open(&dir).unwrap();
    let again = checkpoint.tokenizer().unwrap();
    assert_eq!(again.special(), tokenizer.special());
    assert_eq!(again.encode("the 123<end>", false).unwrap(), tokenizer.encode("the 123<end>", false).unwrap());
    let template = checkpoint.chat_template().unwrap().unwrap();
    let prompt = template.render(&[aha_model::Message::new("user", "x")], true).unwrap();
    assert_eq!(prompt, "<s>x");
    assert_eq!(checkpoint.text_files().unwrap(), text);
    let saved: HashMap<String, serde_json::Value> =
        serde_json::from_str(&fs::read_to_string(dir.join("tokenizer_config.json")).unwrap()).unwrap();
    assert_eq!(saved["tokenizer_class"], "PreTrainedTokenizerFast");

    // A tokenizer of another model is refused.
    let small = parent.path().join("small");
    save(&small, &tiny(Arch::Qwen2), SaveDtype::F32);
    fs::write(small.join("tokenizer.json"), tokenizer_json().to_string()).unwrap();
    let message = Checkpoint::open(&small).unwrap().tokenizer().unwrap_err().to_string();
    assert!(message.contains("263") && message.contains("32"), "{message}");
    assert!(Tokenizer::from_dir(parent.path()).is_err());
}
