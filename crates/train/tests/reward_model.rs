//! Reward models against transformers' sequence classification, their scores in any company, and that they learn.
//!
//! Fixtures are made by `tools/reward_model_reference.py`.

#![allow(clippy::unwrap_used)]

use aha_engine::reward;
use aha_kernels::{AdamWConfig, Gradients, Optimizer, Precision, Tape};
use aha_model::{Checkpoint, Decoder, Head, ModelConfig, SaveDtype, TextFiles};
use aha_train::lanes::Lanes;
use aha_train::reward_loss::pair_loss;
use aha_train::reward_model::{Found, Preference, accumulate};
use aha_train::{PackedBatch, state};
use safetensors::SafeTensors;
use std::path::{Path, PathBuf};

const MODELS: [&str; 2] = ["qwen2_score", "deepseek_score"];

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(name)
}

fn open(dir: &Path) -> Decoder {
    let checkpoint = Checkpoint::open(dir).unwrap();
    assert!(checkpoint.unexpected().is_empty(), "{:?}", checkpoint.unexpected());
    Decoder::from_tensors(checkpoint.config().clone(), |n| checkpoint.read(n)).unwrap()
}

struct Golden(Vec<u8>);

impl Golden {
    fn of(name: &str) -> Self {
        Golden(std::fs::read(fixture(name).join("golden.safetensors")).unwrap())
    }

    fn floats(&self, name: &str) -> Option<Vec<f32>> {
        let tensors = SafeTensors::deserialize(&self.0).unwrap();
        let view = tensors.tensor(name).ok()?;
        Some(view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect())
    }

    fn rows(&self) -> Vec<Vec<u32>> {
        let tensors = SafeTensors::deserialize(&self.0).unwrap();
        let row = |i: usize| {
            let data = tensors.tensor(&format!("tokens.{i}")).unwrap().data().to_vec();
            data.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as u32).collect()
        };
        (0..4).map(row).collect()
    }
}

fn worst(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn scores_loss_and_every_gradient_equal_transformers() {
    for name in MODELS {
        let (golden, model) = (Golden::of(name), open(&fixture(name)));
        assert_eq!(model.config.head, Head::Score);
        let rows = golden.rows();
        let slices: Vec<&[u32]> = rows.iter().map(Vec::as_slice).collect();
        let scores = reward(&model, &slices).unwrap();
        assert!(worst(&scores, &golden.floats("scores").unwrap()) < 1e-4, "{name}: {scores:?}");
        let mut grads = Gradients::new(&model.params);
        let mut loss = 0.0;
        PackedBatch::ends(slices.iter().copied()).train_scores(&model, &mut Tape::new(true), &mut grads, |scores| {
            let pair = |c: &[f32]| pair_loss(f64::from(c[0]), f64::from(c[1]), 1.0, 0.0, 0.0);
            loss = scores.chunks(2).map(|c| pair(c).loss / 2.0).sum();
            scores.chunks(2).flat_map(|c| pair(c).d_scores.map(|d| (d / 2.0) as f32)).collect()
        });
        assert!((loss - f64::from(golden.floats("loss").unwrap()[0])).abs() < 1e-5, "{name}: {loss}");
        let mut compared = 0;
        for (id, p) in model.params.iter() {
            // transformers keeps the experts of a layer in two tensors; golden.rs compares those.
            let Some(theirs) = golden.floats(&format!("grad.{}", p.name)) else { continue };
            let ours = p.layout.load(grads.get(id));
            assert!(worst(&ours, &theirs) < 1e-4, "{name}: {}", p.name);
            assert!(theirs.iter().any(|g| *g != 0.0), "{name}: {}", p.name);
            compared += 1;
        }
        assert!(compared > 20 && golden.floats("grad.score.weight").is_some(), "{name}: {compared}");
    }
}

#[test]
fn a_score_does_not_depend_on_its_neighbours() {
    for name in MODELS {
        let rows = Golden::of(name).rows();
        for precision in [Precision::F32, Precision::Bf16] {
            let mut model = open(&fixture(name));
            model.params.set_precision(precision, false);
            let alone: Vec<f32> = rows.iter().map(|row| reward(&model, &[row]).unwrap()[0]).collect();
            // So many that they fill several packs, in another order.
            let many: Vec<&[u32]> = (0..1200).map(|i| rows[(i * 7 + 3) % 4].as_slice()).collect();
            let together = reward(&model, &many).unwrap();
            for (i, score) in together.iter().enumerate() {
                assert_eq!(score.to_bits(), alone[(i * 7 + 3) % 4].to_bits(), "{name} {precision:?} {i}");
            }
        }
    }
}

#[test]
fn bad_sequences_are_refused() {
    let model = open(&fixture("qwen2_score"));
    assert!(reward(&model, &[&[]]).unwrap_err().to_string().contains("empty"));
    assert!(reward(&model, &[&[1, 63]]).unwrap_err().to_string().contains("63"));
    assert!(reward(&model, &[&[1; 65]]).is_err());
    assert!(reward(&model, &[]).unwrap().is_empty());
}

#[test]
fn what_is_saved_is_read_again_and_keeps_its_head() {
    let dir = tempfile::tempdir().unwrap();
    for name in MODELS {
        let model = open(&fixture(name));
        let path = dir.path().join(name);
        state::save_model(&path, &model, SaveDtype::F32, &TextFiles::default()).unwrap();
        let again = open(&path);
        assert_eq!(again.config, ModelConfig { torch_dtype: again.config.torch_dtype.clone(), ..model.config.clone() });
        let row: Vec<u32> = (3..20).collect();
        assert_eq!(reward(&again, &[&row]).unwrap(), reward(&model, &[&row]).unwrap());
        let json = std::fs::read_to_string(path.join("config.json")).unwrap();
        assert!(json.contains("ForSequenceClassification") && json.contains("LABEL_0"), "{json}");
    }
    // More labels than one are no reward model.
    let text = std::fs::read_to_string(fixture("qwen2_score").join("config.json")).unwrap();
    let two = text.replace("\"0\": \"LABEL_0\"", "\"0\": \"LABEL_0\", \"1\": \"LABEL_1\"");
    assert!(ModelConfig::from_json(&two).unwrap_err().to_string().contains("2 labels"));
}

fn step(
    model: &mut Decoder,
    optimizer: &mut Optimizer,
    lanes: &mut Lanes,
    batch: &[&Preference],
    centering: f64,
) -> Found {
    let found = accumulate(model, lanes, batch, centering);
    optimizer.step(&mut model.params, lanes.grads(), 3e-3);
    found
}

/// Sequences whose worth is whether the token 7 occurs more often than 9; pairs, ties and labels of them.
fn examples(pairwise: bool) -> Vec<Preference> {
    let row = |seed: u64, sevens: usize| -> Vec<u32> {
        let other = |i: u64| 10 + ((seed * 31 + i * 17) % 40) as u32;
        (0..10).map(|i| if (i as usize) < sevens { 7 } else { other(i) }).chain([9]).collect()
    };
    let one = |i: u64| match (pairwise, i % 8) {
        (true, 7) => {
            let (chosen, rejected) = (row(i, 2), row(i + 90, 2));
            Preference::Pair { chosen, rejected, preference: 0.5, margin: 0.0 }
        }
        (true, _) => Preference::Pair { chosen: row(i, 5), rejected: row(i + 50, 1), preference: 1.0, margin: 0.5 },
        (false, n) => Preference::Labelled { tokens: row(i, (n as usize % 2) * 4), good: n % 2 == 1 },
    };
    (0..64).map(one).collect()
}

#[test]
fn a_small_model_learns_pairs_and_labels() {
    for pairwise in [true, false] {
        let all = examples(pairwise);
        let batch: Vec<&Preference> = all.iter().collect();
        let mut model = open(&fixture("qwen2_score"));
        let config = AdamWConfig { weight_decay: 0.0, ..AdamWConfig::default() };
        let mut optimizer = Optimizer::new(config, &model.params);
        let mut lanes = Lanes::new(&model.params, false);
        let first = step(&mut model, &mut optimizer, &mut lanes, &batch, 0.01);
        let mut last = first;
        for _ in 0..60 {
            last = step(&mut model, &mut optimizer, &mut lanes, &batch, 0.01);
        }
        assert!(first.accuracy < 0.9, "{first:?}");
        assert!(last.accuracy > 0.99 && last.loss < 0.5 * first.loss, "{pairwise}: {first:?} {last:?}");
    }
}

#[test]
fn checkpointing_blocks_changes_no_bit() {
    let all = examples(true);
    let batch: Vec<&Preference> = all.iter().collect();
    let run = |checkpointing: bool| {
        let mut model = open(&fixture("deepseek_score"));
        let mut optimizer = Optimizer::new(AdamWConfig::default(), &model.params);
        let mut lanes = Lanes::new(&model.params, checkpointing);
        step(&mut model, &mut optimizer, &mut lanes, &batch, 0.0);
        model
            .params
            .iter()
            .flat_map(|(_, p)| p.data.iter().map(|v| v.to_bits()).collect::<Vec<_>>())
            .collect::<Vec<_>>()
    };
    assert_eq!(run(false), run(true));
}
