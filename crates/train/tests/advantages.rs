//! Advantages and combined rewards against numbers computed by hand (spec B.1 and B.10.3, rl-pitfalls 5a).

use aha_train::advantage::{
    AdvantageConfig, Advantages, ScaleRewards, StdKind, advantages, combine_rewards, sequence_mask,
};

fn some(rewards: &[f64]) -> Vec<Option<f64>> {
    rewards.iter().copied().map(Some).collect()
}

fn of(rewards: &[Option<f64>], group_size: usize, config: AdvantageConfig) -> Advantages {
    advantages(rewards, group_size, &config).expect("valid input")
}

fn plain(rewards: &[f64], group_size: usize) -> Vec<f32> {
    of(&some(rewards), group_size, AdvantageConfig::default()).values
}

#[track_caller]
fn close(found: &[f32], wanted: &[f64], tolerance: f64) {
    assert_eq!(found.len(), wanted.len());
    for (found, wanted) in found.iter().zip(wanted) {
        assert!((f64::from(*found) - wanted).abs() < tolerance, "{found} {wanted}");
    }
}

/// Reproducible numbers in [-1, 1).
fn numbers(seed: u64, count: usize) -> Vec<f64> {
    let mut state = seed;
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
        })
        .collect()
}

#[test]
fn k_of_sixteen_correct() {
    // p = k / 16: correct ones get sqrt((1 - p) / p), wrong ones -sqrt(p / (1 - p)).
    let table = [
        (1, 3.872_983, -0.258_199),
        (4, 1.732_051, -0.577_350),
        (8, 1.0, -1.0),
        (12, 0.577_350, -1.732_051),
        (15, 0.258_199, -3.872_983),
    ];
    for (k, right, wrong) in table {
        let rewards: Vec<f64> = (0..16).map(|i| f64::from(u8::from(i < k))).collect();
        let wanted: Vec<f64> = rewards.iter().map(|&r| if r == 1.0 { right } else { wrong }).collect();
        close(&plain(&rewards, 16), &wanted, 2e-5);
    }
}

#[test]
fn population_and_sample_deviation() {
    // Rewards 1, 2, 3, 6: mean 3, squares 4 + 1 + 0 + 9 = 14.
    let rewards = some(&[1.0, 2.0, 3.0, 6.0]);
    let population = (14.0f64 / 4.0).sqrt();
    let sample = (14.0f64 / 3.0).sqrt();
    for (std_kind, std) in [(StdKind::Population, population), (StdKind::Sample, sample)] {
        let a = of(&rewards, 4, AdvantageConfig { std_kind, ..AdvantageConfig::default() });
        close(&a.values, &[-2.0 / std, -1.0 / std, 0.0, 3.0 / std], 1e-5);
        assert!((a.groups[0].std - std).abs() < 1e-12 && a.groups[0].mean == 3.0);
    }
}

#[test]
fn epsilon_is_added_to_the_deviation() {
    let a = of(&some(&[0.0, 1.0]), 2, AdvantageConfig { epsilon: 0.5, ..AdvantageConfig::default() });
    close(&a.values, &[-0.5, 0.5], 1e-7);
}

#[test]
fn no_scaling_and_batch_scaling() {
    // Groups (0, 2) and (0, 4): all four together have mean 1.5 and squares 2.25 + 0.25 + 2.25 + 6.25 = 11.
    let rewards = some(&[0.0, 2.0, 0.0, 4.0]);
    let none = of(&rewards, 2, AdvantageConfig { scale: ScaleRewards::None, ..AdvantageConfig::default() });
    close(&none.values, &[-1.0, 1.0, -2.0, 2.0], 1e-7);
    let batch = of(&rewards, 2, AdvantageConfig { scale: ScaleRewards::Batch, ..AdvantageConfig::default() });
    let std = (11.0f64 / 4.0).sqrt();
    close(&batch.values, &[-1.0 / std, 1.0 / std, -2.0 / std, 2.0 / std], 1e-5);
}

#[test]
fn sum_is_zero_and_deviation_one() {
    for seed in 0..50 {
        let rewards = numbers(seed, 16);
        let a = plain(&rewards, 16);
        let sum: f64 = a.iter().map(|&a| f64::from(a)).sum();
        let square: f64 = a.iter().map(|&a| f64::from(a) * f64::from(a)).sum();
        assert!(sum.abs() < 1e-5 && (square / 16.0 - 1.0).abs() < 1e-5, "{sum} {square}");
    }
}

#[test]
fn invariant_to_positive_affine_maps() {
    for (seed, (scale, shift)) in [(0.25, 0.0), (1.0, 7.0), (12.0, -3.5)].into_iter().enumerate() {
        let rewards = numbers(seed as u64 + 9, 16);
        let moved: Vec<f64> = rewards.iter().map(|r| scale * r + shift).collect();
        let wanted: Vec<f64> = plain(&rewards, 8).iter().map(|&a| f64::from(a)).collect();
        close(&plain(&moved, 8), &wanted, 3e-5);
    }
}

#[test]
fn equal_rewards_give_exactly_zero() {
    // 0.1 summed 7 times and divided is not 0.1 in floats: a computed deviation would be 1e-17, not 0.
    for value in [0.0, 0.1, 1.1, 1e-9, -3.3, 1e12] {
        for scale in [ScaleRewards::Group, ScaleRewards::Batch, ScaleRewards::None] {
            let config = AdvantageConfig { scale, epsilon: 0.0, ..AdvantageConfig::default() };
            let a = of(&some(&[value; 7]), 7, config);
            assert!(a.values.iter().all(|&a| a == 0.0), "{value}");
            assert_eq!((a.groups[0].std, a.groups[0].zero_std, a.frac_zero_std), (0.0, true, 1.0));
        }
    }
}

#[test]
fn nearly_equal_rewards_are_not_equal() {
    // Continuous rewards that differ by little are a signal; only exact equality is none.
    let a = of(&some(&[0.5, 0.5 + 1e-3]), 2, AdvantageConfig::default());
    assert!(!a.groups[0].zero_std && a.values[1] > 0.99);
}

#[test]
fn unjudged_samples_leave_the_baseline() {
    // Without the None the mean is 1 (not 0.75), the deviation 1.
    let a = of(&[Some(2.0), None, Some(0.0), Some(1.0)], 4, AdvantageConfig::default());
    let std = (2.0f64 / 3.0).sqrt();
    close(&a.values, &[1.0 / std, 0.0, -1.0 / std, 0.0], 1e-5);
    assert_eq!(a.valid, [true, false, true, true]);
    assert_eq!((a.groups[0].valid, a.groups[0].mean), (3, 1.0));
    // A None is not a 0: as a 0 it would have changed everybody's advantage.
    assert_ne!(a.values, plain(&[2.0, 0.0, 0.0, 1.0], 4));
}

#[test]
fn groups_with_one_or_no_reward() {
    let rewards = [Some(5.0), None, None, None, Some(0.0), Some(1.0)];
    for std_kind in [StdKind::Population, StdKind::Sample] {
        let a = of(&rewards, 2, AdvantageConfig { std_kind, ..AdvantageConfig::default() });
        assert_eq!(&a.values[..4], &[0.0; 4], "never the raw reward");
        assert!(a.values[5] > 0.0 && a.values.iter().all(|v| v.is_finite()));
        assert_eq!(a.valid, [true, false, false, false, true, true]);
        // Two groups have a reward; one of them teaches nothing.
        assert_eq!(a.frac_zero_std, 0.5);
        assert_eq!((a.groups[1].valid, a.groups[1].std, a.groups[1].zero_std), (0, 0.0, true));
        assert_eq!(a.reward_mean, 2.0);
    }
    let nothing = of(&[None; 4], 2, AdvantageConfig::default());
    assert_eq!((nothing.values, nothing.frac_zero_std, nothing.reward_std), (vec![0.0; 4], 0.0, 0.0));
    assert!(of(&[], 4, AdvantageConfig::default()).values.is_empty());
}

#[test]
fn groups_do_not_see_each_other() {
    let one = plain(&[0.0, 1.0, 3.0], 3);
    let two = plain(&[0.0, 1.0, 3.0, 100.0, 100.0, -100.0], 3);
    assert_eq!(one, two[..3]);
}

#[test]
fn rewards_are_summed_with_weights() {
    let per_sample = [
        vec![Some(1.0), Some(1.0)],
        vec![Some(0.0), None],
        vec![None, Some(1.0)],
        vec![None, None],
        vec![Some(-2.0), Some(0.0)],
    ];
    // Each sample a problem of its own: what it has not, does not apply to the problem.
    let sums = combine_rewards(&per_sample, &[1.0, 0.1], 1).unwrap();
    assert_eq!(sums, [Some(1.1), Some(0.0), Some(0.1), None, Some(-2.0)]);
    // A weight of 0 measures without rewarding, but the sample was still judged.
    assert_eq!(combine_rewards(&[vec![Some(1.0)]], &[0.0], 1).unwrap(), [Some(0.0)]);
    assert_eq!(combine_rewards(&[], &[1.0], 1).unwrap(), []);
    assert_eq!(combine_rewards(&[vec![]], &[], 1).unwrap(), [None]);
}

#[test]
fn what_could_not_be_judged_counts_neither_as_wrong_nor_as_right() {
    // Accuracy and format of one problem: the third answer is well formed, but nobody could say whether it is right.
    let group =
        vec![vec![Some(1.0), Some(1.0)], vec![Some(0.0), Some(1.0)], vec![None, Some(1.0)], vec![Some(0.0), None]];
    assert_eq!(combine_rewards(&group, &[1.0, 1.0], 4).unwrap(), [Some(2.0), Some(1.0), None, None]);
    // What is only measured takes nobody out of a group.
    assert_eq!(combine_rewards(&group, &[1.0, 0.0], 4).unwrap(), [Some(1.0), Some(0.0), None, Some(0.0)]);
    // A problem without rules is rewarded by the rest, beside one that has them.
    let mixed =
        vec![vec![None, Some(0.5)], vec![None, Some(0.25)], vec![Some(1.0), Some(0.5)], vec![Some(0.0), Some(0.0)]];
    assert_eq!(combine_rewards(&mixed, &[1.0, 1.0], 2).unwrap(), [Some(0.5), Some(0.25), Some(1.5), Some(0.0)]);
}

#[test]
fn truncated_samples_are_masked_only_on_request() {
    let (valid, truncated) = ([true, true, false, false], [false, true, false, true]);
    assert_eq!(sequence_mask(&valid, &truncated, false).unwrap(), [true, true, false, false]);
    assert_eq!(sequence_mask(&valid, &truncated, true).unwrap(), [true, false, false, false]);
    assert!(sequence_mask(&valid, &truncated[..3], true).is_err());
}

#[test]
fn bad_input_is_named() {
    let message = |rewards: &[Option<f64>], group| {
        advantages(rewards, group, &AdvantageConfig::default()).unwrap_err().to_string()
    };
    assert_eq!(
        message(&some(&[1.0]), 1),
        "num_generations is 1, but must be at least 2: the baseline is the mean of the group, so a group of one learns nothing"
    );
    assert_eq!(
        message(&some(&[1.0, 2.0, 3.0]), 2),
        "rewards has 3 entries, but 4 are needed (a multiple of num_generations)"
    );
    assert_eq!(
        message(&some(&[1.0, f64::NAN]), 2),
        "rewards[1] is NaN; it must be finite; a sample that could not be judged has the reward None"
    );
    assert!(message(&[], 0).starts_with("num_generations is 0"));
    assert_eq!(
        combine_rewards(&[vec![Some(1.0)]], &[1.0, 0.1], 1).unwrap_err().to_string(),
        "the rewards of a sample has 1 entries, but 2 are needed (one for every reward weight)"
    );
    assert!(combine_rewards(&[vec![Some(f64::INFINITY)]], &[1.0], 1).is_err());
    assert_eq!(
        combine_rewards(&[], &[f64::NAN], 1).unwrap_err().to_string(),
        "reward weights[0] is NaN; it must be finite"
    );
}
