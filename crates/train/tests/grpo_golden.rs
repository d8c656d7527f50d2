//! The policy losses against float64 numbers from torch autograd (`tools/grpo_reference.py`).

use aha_train::normaliser::Normaliser;
use aha_train::policy_loss::{LossType, PolicyLossConfig, TokenBatch, policy_loss};
use serde_json::Value;

fn numbers(v: &Value) -> Vec<f64> {
    match v {
        Value::Array(items) => items.iter().flat_map(numbers).collect(),
        Value::Bool(b) => vec![f64::from(u8::from(*b))],
        other => vec![other.as_f64().expect("a number")],
    }
}

#[test]
fn losses_gradients_and_clip_counts_equal_torch() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/grpo.json");
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let mut compared = 0;
    for case in golden["cases"].as_array().unwrap() {
        let floats = |key: &str| -> Vec<f32> { numbers(&case[key]).iter().map(|v| *v as f32).collect() };
        let (policy, old, reference, advantages) =
            (floats("policy"), floats("old"), floats("reference"), floats("advantages"));
        let mask: Vec<bool> = numbers(&case["mask"]).iter().map(|v| *v != 0.0).collect();
        let width = policy.len() / advantages.len();
        let cu: Vec<usize> = (0..=advantages.len()).map(|i| i * width).collect();
        let keep = vec![true; advantages.len()];
        let mut window = Normaliser::default();
        window.add(&cu, &mask, &keep).unwrap();
        let empty = advantages.len() - window.sequences();
        for want in case["expected"].as_array().unwrap() {
            let loss_type: LossType = serde_json::from_value(want["loss_type"].clone()).unwrap();
            let config = PolicyLossConfig {
                loss_type,
                beta: want["beta"].as_f64().unwrap(),
                epsilon: golden["epsilon"].as_f64().unwrap(),
                epsilon_high: golden["epsilon_high"].as_f64().unwrap(),
                dual_clip: None,
                max_completion_length: golden["max_completion_length"].as_u64().unwrap() as usize,
            };
            let batch = TokenBatch {
                logprobs: &policy,
                old_logprobs: &old,
                ref_logprobs: Some(&reference),
                cu_seqlens: &cu,
                advantages: &advantages,
                token_mask: &mask,
                sequence_mask: &keep,
            };
            let ours = policy_loss(&batch, &config, &window).unwrap();
            // Sequences without a loss token are in no denominator here; dr_grpo's fixture counts them.
            let excluding = |key: &str| want.get(format!("{key}_excluding_empty")).unwrap_or(&want[key]);
            let scale = if loss_type == LossType::DrGrpo {
                advantages.len() as f64 / (advantages.len() - empty) as f64
            } else {
                1.0
            };
            let loss = excluding("loss").as_f64().unwrap() * scale;
            assert!((ours.loss - loss).abs() < 1e-6, "{loss_type:?} {want}: {}", ours.loss);
            for (a, b) in ours.d_logprobs.iter().zip(numbers(excluding("gradient"))) {
                assert!((f64::from(*a) - b * scale).abs() < 1e-6, "{loss_type:?}: {a} {b}");
            }
            let logged: std::collections::HashMap<_, _> = ours.metrics.summary().into_iter().collect();
            for (key, name) in
                [("kl", "kl"), ("clip_ratio_low", "clip_ratio/low_mean"), ("clip_ratio_high", "clip_ratio/high_mean")]
            {
                // For gspo a ratio is a sequence's, the fixture counts its tokens.
                if let (Some(want), Some(got)) = (want.get(key).and_then(Value::as_f64), logged.get(name))
                    && (loss_type != LossType::Gspo || key == "kl")
                {
                    assert!((want - got).abs() < 1e-6, "{loss_type:?} {name}: {got} {want}");
                }
            }
            compared += 1;
        }
    }
    assert_eq!(compared, 20);
}
