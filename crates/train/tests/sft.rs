//! Supervised fine-tuning: only marked tokens are predicted, the loss is a mean over tokens whatever the packing, and a
//! small model learns what it is shown.

// A list of one range is meant here: the predicted part of an example.
#![allow(clippy::single_range_in_vec_init)]

use aha_data::Example;
use aha_kernels::{Optimizer, OptimizerConfig};
use aha_model::{Decoder, ModelConfig};
use aha_train::PackedBatch;
use aha_train::lanes::Lanes;
use aha_train::sft::{step, validation_loss};

fn model() -> Decoder {
    let config: ModelConfig = ModelConfig::from_json(
        r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 40, "hidden_size": 32,
        "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "rms_norm_eps": 1e-6, "max_position_embeddings": 64, "tie_word_embeddings": false}"#,
    )
    .expect("a valid config");
    Decoder::init(config, 3)
}

fn example(seed: u32, length: usize, predicted: Vec<std::ops::Range<usize>>) -> Example {
    Example { tokens: (0..length as u32).map(|i| (i * i + seed * 7 + i) % 40).collect(), predicted }
}

fn trained(batch: &[&Example], learning_rate: f64) -> (Decoder, f64, f64) {
    let mut model = model();
    let mut optimizer = Optimizer::new(OptimizerConfig::default(), &model.params);
    let mut lanes = Lanes::new(&model.params, false);
    let (loss, norm) = step(&mut model, &mut optimizer, &mut lanes, batch, learning_rate, 0.0);
    (model, loss, norm)
}

#[test]
fn spans_are_splits_where_there_is_one() {
    let (a, b) = (example(1, 12, vec![5..12]), example(2, 9, vec![3..9]));
    let spans = PackedBatch::spans([(&a.tokens[..], &a.predicted[..]), (&b.tokens[..], &b.predicted[..])]);
    let splits = PackedBatch::new([a.tokens.split_at(5), b.tokens.split_at(3)]);
    assert_eq!((&spans.tokens, &spans.rows, &spans.targets), (&splits.tokens, &splits.rows, &splits.targets));
    let two = example(3, 10, vec![2..4, 7..9]);
    let batch = PackedBatch::spans([(&two.tokens[..], &two.predicted[..])]);
    assert_eq!(batch.rows[..], [1, 2, 6, 7]);
    assert_eq!(batch.targets, [two.tokens[2], two.tokens[3], two.tokens[7], two.tokens[8]]);
}

#[test]
fn what_is_not_predicted_has_no_gradient_of_its_own() {
    // The last token of a sequence is nobody's input, so where it is not predicted it cannot matter.
    let a = example(1, 12, vec![5..11]);
    let mut b = a.clone();
    b.tokens[11] = 39 - b.tokens[11];
    let ((x, loss_x, norm_x), (y, loss_y, norm_y)) = (trained(&[&a], 1e-2), trained(&[&b], 1e-2));
    assert_eq!((loss_x, norm_x), (loss_y, norm_y));
    // Its embedding is touched by weight decay only, in both; every other weight is the same.
    for ((_, p), (_, q)) in x.params.iter().zip(y.params.iter()) {
        assert_eq!(p.data, q.data, "{}", p.name);
    }
    // Where it is predicted, it does.
    let longer = |mut e: Example| {
        e.predicted[0].end = 12;
        trained(&[&e], 1e-2).1
    };
    assert_ne!(longer(a), longer(b));
}

#[test]
fn the_loss_is_a_mean_over_tokens() {
    let all = [example(1, 40, vec![1..40]), example(2, 9, vec![7..9]), example(3, 20, vec![4..6, 10..20])];
    let each: Vec<f64> = all.iter().map(|e| trained(&[e], 0.0).1).collect();
    let counts: Vec<f64> = all.iter().map(|e| e.targets() as f64).collect();
    let mean = each.iter().zip(&counts).map(|(l, n)| l * n).sum::<f64>() / counts.iter().sum::<f64>();
    let (model, loss, _) = trained(&all.iter().collect::<Vec<_>>(), 0.0);
    assert!((loss - mean).abs() < 1e-5, "{loss} {mean}");
    let validation = validation_loss(&model, &all, &mut aha_kernels::Tape::new(false));
    assert!((validation - mean).abs() < 1e-5, "{validation} {mean}");
}

#[test]
fn a_small_model_learns_what_it_is_shown() {
    let all = [example(1, 20, vec![6..20]), example(2, 18, vec![6..18])];
    let batch: Vec<&Example> = all.iter().collect();
    let mut model = model();
    let mut optimizer = Optimizer::new(OptimizerConfig::default(), &model.params);
    let mut lanes = Lanes::new(&model.params, false);
    let losses: Vec<f64> = (0..60).map(|_| step(&mut model, &mut optimizer, &mut lanes, &batch, 1e-2, 0.0).0).collect();
    assert!(losses[0] > 3.0 && losses[59] < 0.1, "{losses:?}");
}
