//! The policy losses against hand-computed numbers, finite differences, and the invariances every trainer should have
//! (spec B.10; rl-pitfalls 5 b, c, d, f, g).

use aha_train::grpo_error::GrpoError;
use aha_train::normaliser::Normaliser;
use aha_train::policy_loss::{LossType, PolicyLoss, PolicyLossConfig, TokenBatch, policy_loss};

const ALL: [LossType; 5] = [LossType::Grpo, LossType::DrGrpo, LossType::Dapo, LossType::Gspo, LossType::Cispo];

fn config(loss_type: LossType, beta: f64) -> PolicyLossConfig {
    PolicyLossConfig { loss_type, beta, epsilon: 0.2, epsilon_high: 0.2, dual_clip: None, max_completion_length: 10 }
}

/// One sequence with everything about it; micro-batches are made of these.
#[derive(Clone, Debug)]
struct Sequence {
    logprobs: Vec<f32>,
    old: Vec<f32>,
    reference: Vec<f32>,
    mask: Vec<bool>,
    advantage: f32,
    keep: bool,
}

impl Sequence {
    /// Every token is a loss token, at ratio 1, with the reference equal to the policy.
    fn new(logprobs: &[f32], advantage: f32) -> Self {
        let logprobs = logprobs.to_vec();
        let (old, reference, mask) = (logprobs.clone(), logprobs.clone(), vec![true; logprobs.len()]);
        Self { logprobs, old, reference, mask, advantage, keep: true }
    }

    fn ratios(mut self, ratios: &[f64]) -> Self {
        self.old = self.logprobs.iter().zip(ratios).map(|(&l, r)| (f64::from(l) - r.ln()) as f32).collect();
        self
    }
}

#[derive(Default)]
struct Flat {
    logprobs: Vec<f32>,
    old: Vec<f32>,
    reference: Vec<f32>,
    cu: Vec<usize>,
    advantages: Vec<f32>,
    mask: Vec<bool>,
    keep: Vec<bool>,
}

impl Flat {
    fn new(sequences: &[Sequence]) -> Self {
        let mut flat = Self { cu: vec![0], ..Self::default() };
        for s in sequences {
            flat.logprobs.extend(&s.logprobs);
            flat.old.extend(&s.old);
            flat.reference.extend(&s.reference);
            flat.mask.extend(&s.mask);
            flat.advantages.push(s.advantage);
            flat.keep.push(s.keep);
            flat.cu.push(flat.logprobs.len());
        }
        flat
    }

    fn batch(&self) -> TokenBatch<'_> {
        TokenBatch {
            logprobs: &self.logprobs,
            old_logprobs: &self.old,
            ref_logprobs: Some(&self.reference),
            cu_seqlens: &self.cu,
            advantages: &self.advantages,
            token_mask: &self.mask,
            sequence_mask: &self.keep,
        }
    }

    fn window(&self) -> Normaliser {
        let mut window = Normaliser::default();
        window.add(&self.cu, &self.mask, &self.keep).expect("consistent");
        window
    }

    fn loss(&self, config: &PolicyLossConfig) -> PolicyLoss {
        policy_loss(&self.batch(), config, &self.window()).expect("valid input")
    }
}

fn loss(sequences: &[Sequence], config: &PolicyLossConfig) -> PolicyLoss {
    Flat::new(sequences).loss(config)
}

#[track_caller]
fn close(found: f64, wanted: f64, tolerance: f64) {
    assert!((found - wanted).abs() < tolerance, "found {found}, wanted {wanted}");
}

#[track_caller]
fn all_close(found: &[f32], wanted: &[f64]) {
    assert_eq!(found.len(), wanted.len());
    for (i, (found, wanted)) in found.iter().zip(wanted).enumerate() {
        assert!((f64::from(*found) - wanted).abs() < 2e-6, "{i}: found {found}, wanted {wanted}");
    }
}

struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A number of [low, high) on a grid of 2^-12, so that f32 holds it and its neighbours exactly.
    fn grid(&mut self, low: f64, high: f64) -> f32 {
        (((low + (high - low) * self.next()) * 4096.0).round() / 4096.0) as f32
    }
}

/// Ten sequences of 0 to 9 tokens with prompts, drift, masked tokens and left-out sequences.
fn random_sequences(seed: u64) -> Vec<Sequence> {
    let mut n = Numbers(seed);
    (0..10)
        .map(|i| {
            let length = (n.next() * 10.0) as usize;
            let logprobs: Vec<f32> = (0..length).map(|_| n.grid(-4.0, -0.5)).collect();
            let old = logprobs.iter().map(|l| l + n.grid(-0.6, 0.6)).collect();
            let reference = logprobs.iter().map(|l| l + n.grid(-1.5, 1.5)).collect();
            let mask = (0..length).map(|_| n.next() < 0.8).collect();
            Sequence { logprobs, old, reference, mask, advantage: n.grid(-2.0, 2.0), keep: i != 3 }
        })
        .collect()
}

#[test]
fn aggregation_by_hand() {
    // Two sequences at ratio 1, lengths 1 and 3, A = 2 and -1: token losses -2 | 1 1 1.
    let sequences = [Sequence::new(&[-1.0], 2.0), Sequence::new(&[-1.0, -2.0, -3.0], -1.0)];
    let cases = [
        (LossType::Grpo, (-2.0 + 1.0) / 2.0, [-1.0, 1.0 / 6.0]),
        (LossType::DrGrpo, (-2.0 + 3.0) / 20.0, [-0.1, 0.05]),
        (LossType::Dapo, (-2.0 + 3.0) / 4.0, [-0.5, 0.25]),
        (LossType::Gspo, (-2.0 + 1.0) / 2.0, [-1.0, 1.0 / 6.0]),
        // -A logprob: 2 * 1 (=2), then -1 * (1 + 2 + 3).
        (LossType::Cispo, (2.0 - 6.0) / 4.0, [-0.5, 0.25]),
    ];
    for (kind, value, [first, second]) in cases {
        let found = loss(&sequences, &config(kind, 0.0));
        close(found.loss, value, 1e-12);
        all_close(&found.d_logprobs, &[first, second, second, second]);
        assert_eq!((found.metrics.ratio_min, found.metrics.ratio_max), (1.0, 1.0), "ratio 1 exactly");
        assert_eq!((found.metrics.tokens, found.metrics.sequences), (4, 2));
    }
}

#[test]
fn clipping_by_hand() {
    // r = 0.5, 0.9, 1.1, 1.5 with epsilon 0.2 and 0.2.
    let ratios = [0.5, 0.9, 1.1, 1.5];
    let up = loss(&[Sequence::new(&[-1.0; 4], 1.0).ratios(&ratios)], &config(LossType::Dapo, 0.0));
    close(up.loss, -(0.5 + 0.9 + 1.1 + 1.2) / 4.0, 1e-6);
    all_close(&up.d_logprobs, &[-0.5 / 4.0, -0.9 / 4.0, -1.1 / 4.0, 0.0]);
    assert_eq!((up.metrics.clipped_low, up.metrics.clipped_high), (0, 1));
    let down = loss(&[Sequence::new(&[-1.0; 4], -1.0).ratios(&ratios)], &config(LossType::Dapo, 0.0));
    close(down.loss, (0.8 + 0.9 + 1.1 + 1.5) / 4.0, 1e-6);
    all_close(&down.d_logprobs, &[0.0, 0.9 / 4.0, 1.1 / 4.0, 1.5 / 4.0]);
    assert_eq!((down.metrics.clipped_low, down.metrics.clipped_high), (1, 0));
    let zero = loss(&[Sequence::new(&[-1.0; 4], 0.0).ratios(&ratios)], &config(LossType::Dapo, 0.0));
    assert_eq!((zero.loss, zero.metrics.clipped_low + zero.metrics.clipped_high), (0.0, 0));
}

#[test]
fn clip_higher_moves_only_the_upper_bound() {
    let higher = PolicyLossConfig { epsilon_high: 0.28, ..config(LossType::Dapo, 0.0) };
    let found = loss(&[Sequence::new(&[-1.0; 3], 1.0).ratios(&[1.25, 1.3, 0.75])], &higher);
    all_close(&found.d_logprobs, &[-1.25 / 3.0, 0.0, -0.75 / 3.0]);
    let down = loss(&[Sequence::new(&[-1.0; 2], -1.0).ratios(&[0.75, 0.85])], &higher);
    all_close(&down.d_logprobs, &[0.0, 0.425]);
}

#[test]
fn epsilon_ten_never_clips_negative_advantages() {
    let wide = PolicyLossConfig { epsilon: 10.0, epsilon_high: 10.0, ..config(LossType::Grpo, 0.0) };
    let ratios = [1e-6, 0.01, 1.0, 10.9, 11.1, 1000.0];
    let down = loss(&[Sequence::new(&[-20.0; 6], -1.0).ratios(&ratios)], &wide);
    assert_eq!(down.metrics.clipped_low + down.metrics.clipped_high, 0);
    assert!(down.d_logprobs.iter().all(|&d| d > 0.0));
    let up = loss(&[Sequence::new(&[-20.0; 6], 1.0).ratios(&ratios)], &wide);
    assert_eq!((up.metrics.clipped_low, up.metrics.clipped_high), (0, 2), "one-sided: only above 11");
    assert_eq!(up.d_logprobs[4..], [0.0, 0.0]);
    assert!(up.d_logprobs[..4].iter().all(|&d| d < 0.0));
}

#[test]
fn dual_clip_bounds_the_negative_side() {
    let dual = PolicyLossConfig { dual_clip: Some(3.0), ..config(LossType::Dapo, 0.0) };
    let down = [Sequence::new(&[-9.0; 2], -2.0).ratios(&[2.0, 5.0])];
    let found = loss(&down, &dual);
    close(found.loss, (2.0 * 2.0 + 3.0 * 2.0) / 2.0, 1e-5);
    all_close(&found.d_logprobs, &[2.0, 0.0]);
    assert_eq!(found.metrics.clipped_dual, 1);
    close(loss(&down, &config(LossType::Dapo, 0.0)).loss, (4.0 + 10.0) / 2.0, 1e-5);
    // Positive advantages are none of its business.
    assert_eq!(loss(&[Sequence::new(&[-9.0], 1.0).ratios(&[5.0])], &dual).metrics.clipped_dual, 0);
}

#[test]
fn gspo_has_one_ratio_per_sequence() {
    // Ratios 1.44 and 1: the sequence ratio is their geometric mean 1.2, inside 0.3 although 1.44 is not.
    let gspo = PolicyLossConfig { epsilon: 0.3, epsilon_high: 0.3, ..config(LossType::Gspo, 0.0) };
    let found = loss(&[Sequence::new(&[-1.0, -1.0], 1.0).ratios(&[1.44, 1.0])], &gspo);
    close(found.loss, -1.2, 1e-6);
    all_close(&found.d_logprobs, &[-0.6, -0.6]);
    assert_eq!((found.metrics.ratios, found.metrics.clipped_high), (1, 0));
    // Clipped as a whole or not at all.
    let clipped = loss(&[Sequence::new(&[-1.0, -1.0], 1.0).ratios(&[1.96, 1.0])], &gspo);
    close(clipped.loss, -1.3, 1e-6);
    assert_eq!((clipped.d_logprobs, clipped.metrics.clipped_high), (vec![0.0, 0.0], 1));
}

#[test]
fn cispo_keeps_every_token_with_a_bounded_weight() {
    // The bound is 1 + epsilon_high = 1.2 (TRL's epsilon_high would be 1.2 itself); there is no lower bound.
    let sequences = [Sequence::new(&[-1.0, -2.0, -3.0], 2.0).ratios(&[0.1, 1.1, 4.0])];
    let found = loss(&sequences, &config(LossType::Cispo, 0.0));
    close(found.loss, (0.1 * 2.0 * 1.0 + 1.1 * 2.0 * 2.0 + 1.2 * 2.0 * 3.0) / 3.0, 1e-5);
    all_close(&found.d_logprobs, &[-0.2 / 3.0, -2.2 / 3.0, -2.4 / 3.0]);
    assert_eq!(found.metrics.cispo_clipped, Some(1));
    let negative = [Sequence::new(&[-1.0], -1.0).ratios(&[4.0])];
    let found = loss(&negative, &config(LossType::Cispo, 0.0));
    all_close(&found.d_logprobs, &[1.2]);
    assert_eq!(found.metrics.cispo_clipped, Some(0), "counted for positive advantages, as in TRL");
}

#[test]
fn gradient_identity_at_ratio_one() {
    // d loss = -w [A + beta (pi_ref / pi - 1)].
    let mut sequence = Sequence::new(&[-1.0, -2.0, -0.5], 0.75);
    sequence.reference = vec![-1.5, -1.0, -0.5];
    for kind in ALL {
        let beta = 0.04;
        let found = loss(std::slice::from_ref(&sequence), &config(kind, beta));
        let weight = if kind == LossType::DrGrpo { 0.1 } else { 1.0 / 3.0 };
        let wanted = [-0.5f64, 1.0, 0.0].map(|d| -weight * (0.75 + beta * (d.exp() - 1.0)));
        all_close(&found.d_logprobs, &wanted);
        let kl = [-0.5f64, 1.0, 0.0].map(|d| d.exp() - d - 1.0).iter().sum::<f64>();
        close(found.metrics.kl_sum.expect("reference given"), kl, 1e-12);
        close(found.metrics.kl_loss, weight * beta * kl, 1e-12);
        close(found.loss, found.metrics.policy_loss + found.metrics.kl_loss, 1e-15);
    }
}

#[test]
fn gradients_are_the_slope_of_the_loss() {
    let h = 1.0 / 4096.0;
    let mut checked = 0;
    for kind in ALL {
        for beta in [0.0, 0.3] {
            for dual_clip in [None, Some(1.3)] {
                let config = PolicyLossConfig { epsilon_high: 0.28, dual_clip, ..config(kind, beta) };
                for seed in 0..4 {
                    let flat = Flat::new(&random_sequences(seed));
                    let analytic = flat.loss(&config);
                    for t in 0..flat.logprobs.len() {
                        let shifted = |by: f32| {
                            let mut moved = Flat::new(&random_sequences(seed));
                            moved.logprobs[t] += by;
                            if kind == LossType::Cispo {
                                // Its weight is detached: moving the old log-probability along keeps the ratio.
                                moved.old[t] += by;
                            }
                            moved.loss(&config)
                        };
                        let (up, down) = (shifted(h as f32), shifted(-h as f32));
                        let clips =
                            |l: &PolicyLoss| (l.metrics.clipped_low, l.metrics.clipped_high, l.metrics.clipped_dual);
                        if clips(&up) != clips(&down) {
                            continue; // a kink lies between the two points
                        }
                        let slope = (up.loss - down.loss) / (2.0 * h);
                        close(f64::from(analytic.d_logprobs[t]), slope, 1e-7);
                        checked += 1;
                    }
                }
            }
        }
    }
    assert!(checked > 2_000, "{checked}");
}

#[test]
fn splitting_the_window_changes_nothing() {
    for kind in ALL {
        let config = config(kind, 0.1);
        let sequences = random_sequences(11);
        let whole = Flat::new(&sequences);
        let expected = whole.loss(&config);
        for parts in [2, 5, 10] {
            let batches: Vec<Flat> = sequences.chunks(sequences.len() / parts).map(Flat::new).collect();
            assert_eq!(batches.len(), parts);
            let mut window = Normaliser::default();
            for b in &batches {
                window.add(&b.cu, &b.mask, &b.keep).expect("consistent");
            }
            assert_eq!(window, whole.window());
            let (mut sum, mut gradient, mut metrics) =
                (0.0, Vec::new(), aha_train::loss_metrics::LossMetrics::default());
            for b in &batches {
                let part = policy_loss(&b.batch(), &config, &window).expect("valid");
                sum += part.loss;
                gradient.extend(part.d_logprobs);
                metrics.merge(&part.metrics);
            }
            assert_eq!(gradient, expected.d_logprobs, "bitwise: {kind:?} in {parts}");
            close(sum, expected.loss, 1e-12);
            for ((name, found), (_, wanted)) in metrics.summary().into_iter().zip(expected.metrics.summary()) {
                assert!((found - wanted).abs() < 1e-12, "{name}: {found} {wanted}");
            }
        }
    }
}

#[test]
fn order_changes_nothing() {
    for kind in ALL {
        let sequences = random_sequences(12);
        let forward = loss(&sequences, &config(kind, 0.1));
        let backward = loss(&sequences.iter().rev().cloned().collect::<Vec<_>>(), &config(kind, 0.1));
        close(forward.loss, backward.loss, 1e-12);
        let flat = Flat::new(&sequences);
        let reversed: Vec<f32> =
            flat.cu.windows(2).rev().flat_map(|b| forward.d_logprobs[b[0]..b[1]].to_vec()).collect();
        assert_eq!(backward.d_logprobs, reversed, "bitwise");
    }
}

#[test]
fn masks_act_in_numerator_and_denominator() {
    // A masked token, a left-out sequence and a sequence of prompt only must be as if they had never been there,
    // whatever nonsense they hold.
    let clean = [Sequence::new(&[-1.0, -2.0], 1.0).ratios(&[1.1, 0.9]), Sequence::new(&[-3.0], -0.5)];
    let mut prompt = clean[0].clone();
    for (values, junk) in
        [(&mut prompt.logprobs, f32::NAN), (&mut prompt.old, 5.0), (&mut prompt.reference, f32::NEG_INFINITY)]
    {
        values.insert(0, junk);
    }
    prompt.mask.insert(0, false);
    let left_out = Sequence { keep: false, advantage: f32::NAN, ..Sequence::new(&[f32::NAN, -1.0], 0.0) };
    let only_prompt = Sequence { mask: vec![false; 2], ..Sequence::new(&[-1.0, f32::NAN], 9.0) };
    let dirty = [left_out, prompt, only_prompt, Sequence::new(&[], 3.0), clean[1].clone()];
    for kind in ALL {
        let wanted = loss(&clean, &config(kind, 0.1));
        let found = loss(&dirty, &config(kind, 0.1));
        assert_eq!(found.loss, wanted.loss, "{kind:?}");
        assert_eq!(found.metrics, wanted.metrics);
        let d = &wanted.d_logprobs;
        assert_eq!(found.d_logprobs, [0.0, 0.0, 0.0, d[0], d[1], 0.0, 0.0, d[2]]);
    }
}

#[test]
fn the_end_token_carries_loss_like_any_other() {
    // The same ids with and without the last token in the mask: nothing here looks at ids, so pad == eos cannot hurt.
    let with = loss(&[Sequence::new(&[-1.0, -2.0], 1.0)], &config(LossType::Dapo, 0.0));
    assert_eq!(with.d_logprobs, [-0.5, -0.5]);
    let mut cut = Sequence::new(&[-1.0, -2.0], 1.0);
    cut.mask[1] = false;
    assert_eq!(loss(&[cut], &config(LossType::Dapo, 0.0)).d_logprobs, [-1.0, 0.0]);
}

#[test]
fn a_fully_masked_window_is_zero() {
    let masked = Sequence { keep: false, ..Sequence::new(&[-1.0, -2.0], 1.0) };
    for kind in ALL {
        for sequences in [vec![], vec![masked.clone()], vec![masked.clone(), masked.clone()]] {
            let found = loss(&sequences, &config(kind, 0.1));
            assert_eq!(found.loss.to_bits(), 0.0f64.to_bits());
            assert!(found.d_logprobs.iter().all(|&d| d == 0.0));
            assert!(found.metrics.summary().iter().all(|(_, value)| value.is_finite()));
        }
    }
}

#[test]
fn equal_rewards_leave_only_the_kl() {
    let mut sequence = Sequence::new(&[-1.0, -2.0], 0.0).ratios(&[1.5, 0.5]);
    sequence.reference = vec![-0.5, -2.0];
    for kind in ALL {
        let without = loss(std::slice::from_ref(&sequence), &config(kind, 0.0));
        assert!(without.loss == 0.0 && without.d_logprobs.iter().all(|&d| d == 0.0), "{kind:?}");
        let with = loss(std::slice::from_ref(&sequence), &config(kind, 0.5));
        let weight = if kind == LossType::DrGrpo { 0.1 } else { 0.5 };
        all_close(&with.d_logprobs, &[weight * 0.5 * (1.0 - 0.5f64.exp()), 0.0]);
        assert_eq!(with.metrics.policy_loss, 0.0);
    }
}

#[test]
fn kl_is_measured_without_being_in_the_loss() {
    let mut sequence = Sequence::new(&[-1.0], 1.0);
    sequence.reference = vec![-2.0];
    let found = loss(&[sequence], &config(LossType::Grpo, 0.0));
    close(found.loss, -1.0, 1e-15);
    let rows: std::collections::HashMap<_, _> = found.metrics.summary().into_iter().collect();
    close(rows["kl"], (-1.0f64).exp(), 1e-12);
    assert_eq!(rows["kl_loss"], 0.0);
}

#[test]
fn far_ratios_stay_finite() {
    // e^40 would be 2e17: the ratio is bounded, the gradient beyond the bound is 0, the metric of k3 is not bounded.
    for kind in ALL {
        for advantage in [-1.0, 1.0] {
            let mut sequence = Sequence::new(&[-1.0, -50.0], advantage);
            sequence.old = vec![-41.0, -10.0];
            sequence.reference = vec![-60.0, -20.0];
            let found = loss(&[sequence], &config(kind, 0.01));
            assert!(found.loss.is_finite() && found.d_logprobs.iter().all(|d| d.is_finite()), "{kind:?} {advantage}");
            assert!(found.metrics.ratio_max <= 20f64.exp() * (1.0 + 1e-12));
            close(found.metrics.kl_sum.expect("given") / (30f64.exp() - 31.0 + 58.0), 1.0, 1e-9);
            // Token 1 has r = e^40: beyond the bound the policy gradient is gone and only the KL term is left.
            assert!(found.d_logprobs[0].abs() < 2.0, "{kind:?} {advantage}");
            // The reference likes token 2 e^30 times better: the KL term pulls it up, hard.
            if advantage > 0.0 {
                assert!(found.d_logprobs[1] < -1e5);
            }
        }
    }
}

#[test]
fn several_updates_per_generation_move_the_ratio() {
    // Old log-probabilities stay those of the sampling policy: the second update sees r = e^0.1.
    let mut sequence = Sequence::new(&[-1.0], 1.0);
    sequence.logprobs = vec![-0.9];
    let found = loss(&[sequence], &config(LossType::Grpo, 0.0));
    close(found.loss, -(0.1f64.exp()), 1e-6);
    close(found.metrics.old_kl_sum, -0.1, 1e-6);
}

#[test]
fn bad_input_is_an_error_with_a_place() {
    let flat = Flat::new(&[Sequence::new(&[-1.0, -2.0], 1.0), Sequence::new(&[-1.0], 1.0)]);
    let good = config(LossType::Grpo, 0.1);
    let error = |batch: &TokenBatch<'_>, config: &PolicyLossConfig| {
        policy_loss(batch, config, &flat.window()).expect_err("bad input").to_string()
    };
    let batch = flat.batch();
    assert_eq!(
        error(&TokenBatch { ref_logprobs: None, ..batch }, &good),
        "beta is 0.1, so the loss has a KL term, but no ref_logprobs were given; score the batch with the reference model or set beta to 0"
    );
    assert_eq!(
        error(&TokenBatch { old_logprobs: &[-1.0], ..batch }, &good),
        "old_logprobs has 1 entries, but 3 are needed (as many as logprobs)"
    );
    assert_eq!(
        error(&TokenBatch { logprobs: &[-1.0, f32::NEG_INFINITY, -1.0], ..batch }, &good),
        "logprobs[1] is -inf; it must be finite; the policy may have diverged"
    );
    assert!(error(&TokenBatch { advantages: &[1.0, f32::NAN], ..batch }, &good).starts_with("advantages[1] is NaN"));
    assert!(error(&TokenBatch { cu_seqlens: &[0, 2, 4], ..batch }, &good).starts_with("cu_seqlens[2] is 4"));
    for (bad, message) in [
        (PolicyLossConfig { beta: -0.1, ..good }, "beta is -0.1, but must be 0 or more"),
        (PolicyLossConfig { epsilon: f64::NAN, ..good }, "epsilon is NaN, but must be 0 or more"),
        (PolicyLossConfig { epsilon_high: -1.0, ..good }, "epsilon_high is -1, but must be 0 or more"),
        (PolicyLossConfig { dual_clip: Some(1.0), ..good }, "dual_clip is 1, but must be above 1"),
        (
            PolicyLossConfig { loss_type: LossType::DrGrpo, max_completion_length: 0, ..good },
            "max_completion_length is 0, but must be at least 1 for loss_type dr_grpo",
        ),
    ] {
        assert_eq!(error(&batch, &bad), message);
    }
    let uncounted = policy_loss(&batch, &good, &Normaliser::default()).expect_err("not counted");
    assert!(matches!(uncounted, GrpoError::OutsideWindow { tokens: 3, sequences: 2, window_tokens: 0, .. }));
}
