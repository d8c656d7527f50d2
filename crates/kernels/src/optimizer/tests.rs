//! The steps against their formulas, in all numbers that moments, gradients and weights have.

use super::*;
use crate::cpu::bf16::round;
use crate::linear::tests::noise;

fn store() -> ParamStore {
    let mut params = ParamStore::default();
    params.add("model.layers.0.mlp.up_proj.weight", Layout::Panels { n: 40, k: 70 }, noise(2800, 1));
    params.add("norm.weight", Layout::Vector { n: 33 }, noise(33, 2));
    params
}

fn gradients(params: &ParamStore, seed: u64) -> Gradients {
    let mut grads = Gradients::new(params);
    for (id, p) in params.iter() {
        let values = noise(p.layout.shape().iter().product(), seed + id.0 as u64);
        grads.get_mut(id).unwrap().copy_from_slice(&p.layout.store(values));
    }
    grads
}

#[test]
fn bf16_moments_are_the_rounded_ones_of_each_step() {
    let mut params = store();
    let adamw = AdamWConfig { weight_decay: 0.1, ..AdamWConfig::default() };
    let config = OptimizerConfig { adamw, moments: MomentType::Bf16, ..OptimizerConfig::default() };
    let mut optimizer = Optimizer::new(config, &params);
    let mut want: Vec<(Vec<f64>, Vec<f32>, Vec<f32>)> = params
        .iter()
        .map(|(_, p)| {
            (p.data.iter().map(|v| f64::from(*v)).collect(), vec![0.0; p.data.len()], vec![0.0; p.data.len()])
        })
        .collect();
    for step in 1..=5 {
        let grads = gradients(&params, 10 * step);
        let norm = optimizer.step(&mut params, &grads, 0.01);
        let clip = 1.0 / norm.max(1.0);
        for (i, (p, m, v)) in want.iter_mut().enumerate() {
            for (j, g) in grads.get(ParamId(i)).iter().enumerate() {
                let g = f64::from(*g) * clip;
                let (m2, v2) = (0.9 * f64::from(m[j]) + 0.1 * g, 0.95 * f64::from(v[j]) + 0.05 * g * g);
                let (mh, vh) = (m2 / (1.0 - 0.9f64.powi(step as i32)), v2 / (1.0 - 0.95f64.powi(step as i32)));
                let decay = if i == 0 { 1.0 - 0.01 * 0.1 } else { 1.0 };
                p[j] = p[j] * decay - 0.01 * mh / (vh.sqrt() + 1e-8);
                (m[j], v[j]) = (round(m2 as f32), round(v2 as f32));
            }
        }
    }
    for (id, p) in params.iter() {
        let (m, v) = (optimizer.moment(id, false), optimizer.moment(id, true));
        for (j, x) in p.data.iter().enumerate() {
            assert!((f64::from(*x) - want[id.0].0[j]).abs() < 2e-4, "{} at {j}: {x} {}", p.name, want[id.0].0[j]);
            // A neighbour where f32 and f64 fall on two sides of a tie.
            for (found, wanted) in [(m[j], want[id.0].1[j]), (v[j], want[id.0].2[j])] {
                assert!(found == round(found) && (found - wanted).abs() <= wanted.abs() / 64.0, "{found} {wanted}");
            }
        }
    }
}

#[test]
fn restored_it_goes_on_with_the_same_bits() {
    let muon = Some(MuonConfig::default());
    for moments in [MomentType::F32, MomentType::Bf16, MomentType::EightBit] {
        for muon in [None, muon] {
            let config = OptimizerConfig { muon, moments, ..OptimizerConfig::default() };
            let mut params = store();
            let mut one = Optimizer::new(config, &params);
            let all: Vec<Gradients> = (0..6).map(|step| gradients(&params, step)).collect();
            for grads in &all[..3] {
                one.step(&mut params, grads, 0.01);
            }
            let mut copy = params.clone();
            let mut two = Optimizer::new(config, &copy);
            two.step = one.step;
            for (id, _) in copy.iter() {
                let second = one.has_second(id).then(|| one.moment(id, true).into_owned());
                two.restore(id, one.moment(id, false).into_owned(), second);
            }
            for grads in &all[3..] {
                one.step(&mut params, grads, 0.01);
                two.step(&mut copy, grads, 0.01);
            }
            assert!(params.iter().zip(copy.iter()).all(|((_, a), (_, b))| a.data == b.data));
            assert_eq!(one.has_second(ParamId(0)), muon.is_none(), "Muon keeps one moment");
            assert!(one.has_second(ParamId(1)), "a norm stays with AdamW");
        }
    }
}

/// One by one, as the formulas stand in [`crate::adamw`].
fn plain_step(
    (p, m, v): (&mut [f32], &mut [f32], &mut [f32]),
    g: &[f32],
    c: &AdamWConfig,
    (norm, step, rate, decays): (f64, u64, f64, bool),
    keep: fn(f32) -> f32,
) {
    let limit = f64::from(c.max_grad_norm);
    let clip = if norm > limit { limit / (norm + 1e-6) } else { 1.0 } as f32;
    let correction = |beta: f32| 1.0 - f64::from(beta).powi(step as i32);
    let decay = if decays { (1.0 - rate * f64::from(c.weight_decay)) as f32 } else { 1.0 };
    let (rate, root) = ((rate / correction(c.beta1)) as f32, (1.0 / correction(c.beta2).sqrt()) as f32);
    for i in 0..p.len() {
        let g = g[i] * clip;
        let first = c.beta1 * m[i] + (1.0 - c.beta1) * g;
        let second = c.beta2 * v[i] + (1.0 - c.beta2) * g * g;
        p[i] = p[i] * decay - rate * first / (second.sqrt() * root + c.eps);
        (m[i], v[i]) = (keep(first), keep(second));
    }
}

#[test]
fn f32_and_bf16_have_the_bits_of_the_formulas() {
    let adamw = AdamWConfig { weight_decay: 0.1, ..AdamWConfig::default() };
    for moments in [MomentType::F32, MomentType::Bf16] {
        let keep = if moments == MomentType::F32 { |x| x } else { round };
        let mut params = store();
        let mut optimizer = Optimizer::new(OptimizerConfig { adamw, moments, ..OptimizerConfig::default() }, &params);
        let mut want: Vec<[Vec<f32>; 3]> =
            params.iter().map(|(_, p)| [p.data.to_vec(), vec![0.0; p.data.len()], vec![0.0; p.data.len()]]).collect();
        for step in 1..=4 {
            let grads = gradients(&params, 10 * step);
            let norm = optimizer.step(&mut params, &grads, 0.01);
            for (i, [p, m, v]) in want.iter_mut().enumerate() {
                plain_step((p, m, v), grads.get(ParamId(i)), &adamw, (norm, step, 0.01, i == 0), keep);
            }
        }
        for ((id, p), [x, m, v]) in params.iter().zip(&want) {
            assert!(*p.data == **x && *optimizer.moment(id, false) == **m && *optimizer.moment(id, true) == **v);
        }
    }
}

/// Loss after 300 steps on a quadratic with noisy gradients, and the values.
fn quadratic(moments: MomentType, beta2: f32) -> (f64, Vec<f32>) {
    const SIDE: usize = 64;
    let n = SIDE * SIDE;
    let mut params = ParamStore::default();
    params.add("weight", Layout::Rows { rows: SIDE, cols: SIDE }, vec![0.0; n]);
    let adamw = AdamWConfig { beta2, max_grad_norm: 0.0, ..AdamWConfig::default() };
    let mut optimizer = Optimizer::new(OptimizerConfig { adamw, moments, ..OptimizerConfig::default() }, &params);
    let target = noise(n, 1);
    // Curvatures from 2^-4 to 2^4.
    let curvature: Vec<f32> = noise(n, 2).iter().map(|u| (4.0 * u).exp2()).collect();
    for step in 0..300u64 {
        let mut grads = Gradients::new(&params);
        let (values, random) = (&params.get(ParamId(0)).data, noise(n, 100 + step));
        for (i, g) in grads.get_mut(ParamId(0)).unwrap().iter_mut().enumerate() {
            *g = curvature[i] * (values[i] - target[i] + 0.5 * random[i]);
        }
        let rate = 0.02 * (1.0 - step as f64 / 300.0);
        optimizer.step(&mut params, &grads, rate);
    }
    let values = params.get(ParamId(0)).data.to_vec();
    let loss = |i: usize| 0.5 * f64::from(curvature[i]) * f64::from(values[i] - target[i]).powi(2);
    ((0..n).map(loss).sum::<f64>() / n as f64, values)
}

#[test]
fn eight_bits_learn_a_noisy_quadratic_as_f32_does() {
    for beta2 in [0.95, 0.999] {
        let (plain, eight) = (quadratic(MomentType::F32, beta2).0, quadratic(MomentType::EightBit, beta2).0);
        assert!((eight / plain - 1.0).abs() < 0.1, "beta2 {beta2}: {eight}, f32 {plain}");
    }
}

#[test]
fn eight_bits_do_not_depend_on_threads() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let alone = pool.install(|| crate::par::serial(|| quadratic(MomentType::EightBit, 0.95).1));
    assert!(alone == quadratic(MomentType::EightBit, 0.95).1);
}

/// What a product with the first parameter gives.
fn product(params: &ParamStore) -> Vec<f32> {
    let weight = params.weight(ParamId(0));
    let mut y = vec![0.0; 3 * weight.n];
    crate::linear::forward(&mut y, &noise(3 * weight.k, 7), weight, false);
    y
}

fn values(params: &ParamStore) -> Vec<Vec<f32>> {
    params.iter().map(|(_, p)| p.all().into_owned()).collect()
}

#[test]
fn split_weights_train_as_whole_ones_do() {
    for (muon, moments) in
        [(None, MomentType::F32), (None, MomentType::EightBit), (Some(MuonConfig::default()), MomentType::F32)]
    {
        let whole = OptimizerConfig { muon, moments, ..OptimizerConfig::default() };
        let split = OptimizerConfig { master: MasterWeights::Split, ..whole };
        let (mut a, mut b) = (store(), store());
        whole.prepare(&mut a, Precision::Bf16);
        split.prepare(&mut b, Precision::Bf16);
        let masters = [0, 1].map(|id| b.get(ParamId(id)).master());
        assert_eq!(masters, [MasterWeights::Split, MasterWeights::Whole]);
        assert!(b.get(ParamId(0)).data.is_empty());
        let (mut one, mut two) = (Optimizer::new(whole, &a), Optimizer::new(split, &b));
        let first = values(&b);
        let mut reference = b.clone();
        for seed in 0..4 {
            let grads = gradients(&a, seed);
            assert_eq!(one.step(&mut a, &grads, 0.01), two.step(&mut b, &grads, 0.01));
            for (id, y) in values(&b).into_iter().enumerate() {
                for (x, y) in a.get(ParamId(id)).data.iter().zip(&y) {
                    // Between two bf16 numbers, to be rounded up: such a value is moved.
                    let tie = u32::from(x.to_bits() & 0x1_ffff == 0x1_8000);
                    assert_eq!(x.to_bits() + tie, y.to_bits(), "step {seed}");
                }
                a.get_mut(ParamId(id)).data = y.into();
            }
            a.refresh();
            assert!(product(&a) == product(&b), "step {seed}");
            assert_eq!(a.merged(ParamId(0)), b.merged(ParamId(0)));
        }
        assert!(values(&reference) == first && values(&b) != first, "a clone keeps what it had");
        reference.copy_from(&b);
        assert!(values(&reference) == values(&b) && product(&reference) == product(&b));
        let trained = values(&b);
        one.step(&mut b, &gradients(&a, 9), 0.01);
        assert!(values(&reference) == trained && values(&b) != trained, "and what was copied to it");
        b.get_mut(ParamId(0)).data[0] += 1.0;
        assert_eq!(b.get(ParamId(0)).master(), MasterWeights::Whole);
        b.refresh();
        assert_eq!(b.get(ParamId(0)).master(), MasterWeights::Split, "changed by hand it is split again");
        reference.set_precision(Precision::F32, false);
        assert!(values(&reference) == trained && reference.get(ParamId(0)).master() == MasterWeights::Whole);
    }
}

#[test]
fn apart_or_rounded_weights_are_shared_copied_and_changed_as_whole_ones() {
    let masters = [MasterWeights::Split, MasterWeights::Bf16];
    for (mine, its) in masters.into_iter().flat_map(|a| masters.map(|b| (a, b))) {
        let prepared = |master| {
            let mut params = store();
            let config = OptimizerConfig { master, ..OptimizerConfig::default() };
            config.prepare(&mut params, Precision::Bf16);
            (Optimizer::new(config, &params), params)
        };
        let ((mut one, mut a), (mut two, mut b)) = (prepared(mine), prepared(its));
        let (first, clone) = (values(&a), a.clone());
        let [g1, g2, g3] = [1, 2, 3].map(|seed| gradients(&a, seed));
        one.step(&mut a, &g1, 0.01);
        two.step(&mut b, &g2, 0.01);
        assert!(values(&clone) == first && values(&a) != first && clone.get(ParamId(0)).master() == mine);
        let trained = values(&b);
        a.copy_from(&b);
        assert_eq!(a.get(ParamId(0)).master(), mine, "a store keeps its own way");
        assert!(product(&a) == product(&b));
        if mine == its {
            assert!(values(&a) == trained);
        }
        one.step(&mut a, &g3, 0.01);
        assert!(values(&b) == trained && values(&a) != trained);
        a.get_mut(ParamId(0)).data[0] = 2.0;
        a.refresh();
        assert_eq!((a.get(ParamId(0)).master(), values(&a)[0][0]), (mine, 2.0));
        a.master_weights(its);
        assert_eq!(a.get(ParamId(0)).master(), its);
        let before = values(&a);
        a.set_precision(Precision::F32, false);
        assert!(values(&a) == before && a.get(ParamId(0)).master() == MasterWeights::Whole);
    }
}

/// Steps of a hundredth of the distance between two bf16 numbers: rounded to nearest they would change nothing.
#[test]
fn weights_in_bf16_go_where_f32_ones_do_on_the_mean() {
    for muon in [None, Some(MuonConfig::default())] {
        let adamw = AdamWConfig { weight_decay: 0.0, ..AdamWConfig::default() };
        let whole = OptimizerConfig { adamw, muon, ..OptimizerConfig::default() };
        let rounded = OptimizerConfig { master: MasterWeights::Bf16, seed: 3, ..whole };
        let begin = || {
            let mut params = ParamStore::default();
            let values = noise(1 << 14, 1).iter().map(|v| round(0.75 + v / 16.0)).collect();
            params.add("model.layers.0.mlp.up_proj.weight", Layout::Panels { n: 128, k: 128 }, values);
            params
        };
        let grads = gradients(&begin(), 4);
        let train = |config: OptimizerConfig| {
            let mut params = begin();
            config.prepare(&mut params, Precision::Bf16);
            let mut optimizer = Optimizer::new(config, &params);
            for _ in 0..50 {
                optimizer.step(&mut params, &grads, 4e-5);
            }
            (values(&params).remove(0), product(&params), params)
        };
        let (first, (exact, ..), (found, made, params)) = (values(&begin()), train(whole), train(rounded));
        assert_eq!(params.get(ParamId(0)).master(), MasterWeights::Bf16);
        assert!(found.iter().all(|v| *v == round(*v)), "what is kept is bf16");
        let mut reference = begin();
        reference.get_mut(ParamId(0)).data = found.clone().into();
        reference.set_precision(Precision::Bf16, true);
        assert!(product(&reference) == made, "and what products read");
        assert!(train(rounded).0 == found && train(OptimizerConfig { seed: 4, ..rounded }).0 != found);
        // By the direction of the step: how far the values went, and by chance besides.
        let (mut went, mut should, mut square) = (0.0, 0.0, 0.0);
        for ((x, y), z) in found.iter().zip(&exact).zip(&first[0]) {
            let (x, y, sign) = (f64::from(x - z), f64::from(y - z), f64::from((y - z).signum()));
            went += x * sign;
            should += y * sign;
            square += (x - y).powi(2);
        }
        assert!(should / 16384.0 > 2e-4, "{should}");
        assert!((went - should).abs() < 4.0 * square.sqrt(), "{went} {should} {}", square.sqrt());
        assert!(square.sqrt() < 0.05 * should, "{} {should}", square.sqrt());
    }
}

#[test]
fn gradients_in_bf16_move_weights_as_their_values_do() {
    let (mut a, mut b) = (store(), store());
    let config = OptimizerConfig { gradients: GradientType::Bf16, ..OptimizerConfig::default() };
    let (mut one, mut two) = (Optimizer::new(config, &a), Optimizer::new(config, &b));
    for seed in 0..3 {
        let plain = gradients(&a, seed);
        let (mut halves, mut widened) = (Gradients::in_numbers(&a, config.gradients), plain.clone());
        for (id, _) in a.iter() {
            halves.with(id, |d| d.copy_from_slice(plain.get(id)));
            widened.get_mut(id).unwrap().copy_from_slice(&halves.values(id));
        }
        let norms = [one.step(&mut a, &halves, 0.01), two.step(&mut b, &widened, 0.01)];
        assert!((norms[0] - norms[1]).abs() < 1e-6 * norms[1]);
        for (x, y) in values(&a).iter().flatten().zip(values(&b).iter().flatten()) {
            assert!((x - y).abs() <= 1e-6 * y.abs().max(1.0), "{x} {y}");
        }
    }
}
