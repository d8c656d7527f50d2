//! A policy of two logits trained with our own gradient (spec B.10.8): it finds the rewarded arm, and a large KL
//! coefficient keeps it near its reference.

use aha_train::advantage::{AdvantageConfig, advantages};
use aha_train::normaliser::Normaliser;
use aha_train::policy_loss::{LossType, PolicyLossConfig, TokenBatch, policy_loss};

const GROUP: usize = 16;

fn uniform(seed: u64, index: u64) -> f64 {
    let mut z = (seed << 32 | index).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

fn softmax(logits: [f64; 2]) -> [f64; 2] {
    let p = 1.0 / (1.0 + (logits[1] - logits[0]).exp());
    [p, 1.0 - p]
}

/// Probability of arm 0, which pays 1 while arm 1 pays 0, after `steps` updates from a policy with probability `start`.
fn train(loss_type: LossType, beta: f64, learning_rate: f64, start: f64, steps: u64, updates: usize) -> f64 {
    let config = PolicyLossConfig {
        loss_type,
        beta,
        epsilon: 0.2,
        epsilon_high: 0.2,
        dual_clip: None,
        max_completion_length: 1,
    };
    let reference = [start, 1.0 - start];
    let mut logits = reference.map(f64::ln);
    for step in 0..steps {
        let sampler = softmax(logits);
        let arms: Vec<usize> = (0..GROUP as u64).map(|i| usize::from(uniform(step + 1, i) >= sampler[0])).collect();
        let rewards: Vec<Option<f64>> = arms.iter().map(|&arm| Some(if arm == 0 { 1.0 } else { 0.0 })).collect();
        let advantages = advantages(&rewards, GROUP, &AdvantageConfig::default()).expect("valid");
        let logprobs_of = |policy: [f64; 2]| arms.iter().map(|&arm| policy[arm].ln() as f32).collect::<Vec<f32>>();
        let (old, ref_logprobs) = (logprobs_of(sampler), logprobs_of(reference));
        let cu_seqlens: Vec<usize> = (0..=GROUP).collect();
        let mask = [true; GROUP];
        for _ in 0..updates {
            let policy = softmax(logits);
            let logprobs = logprobs_of(policy);
            let batch = TokenBatch {
                logprobs: &logprobs,
                old_logprobs: &old,
                ref_logprobs: Some(&ref_logprobs),
                cu_seqlens: &cu_seqlens,
                advantages: &advantages.values,
                token_mask: &mask,
                sequence_mask: &advantages.valid,
            };
            let mut window = Normaliser::default();
            window.add(&cu_seqlens, &mask, &advantages.valid).expect("consistent");
            let loss = policy_loss(&batch, &config, &window).expect("valid");
            // d logprob(arm) / d logit(j) = [arm == j] - p_j
            for (arm, d) in arms.iter().zip(&loss.d_logprobs) {
                for j in 0..2 {
                    logits[j] -= learning_rate * f64::from(*d) * (f64::from(u8::from(*arm == j)) - policy[j]);
                }
            }
        }
    }
    softmax(logits)[0]
}

#[test]
fn finds_the_arm_that_pays() {
    for loss_type in [LossType::Grpo, LossType::DrGrpo, LossType::Dapo, LossType::Gspo, LossType::Cispo] {
        for start in [0.5, 0.15] {
            let p = train(loss_type, 0.0, 0.1, start, 300, 1);
            assert!(p > 0.95, "{loss_type:?} from {start}: {p}");
        }
    }
}

#[test]
fn several_updates_per_sample_also_find_it() {
    let p = train(LossType::Grpo, 0.001, 0.1, 0.3, 200, 4);
    assert!(p > 0.95, "{p}");
}

#[test]
fn a_large_beta_keeps_it_near_the_reference() {
    let free = train(LossType::Grpo, 0.001, 0.02, 0.5, 1_000, 1);
    let held = train(LossType::Grpo, 20.0, 0.02, 0.5, 1_000, 1);
    assert!(free > 0.9 && (held - 0.5).abs() < 0.1, "{free} {held}");
}
