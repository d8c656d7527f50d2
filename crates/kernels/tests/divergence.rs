//! Divergences from a teacher's most likely tokens against a slow f64 reference, their gradients against central
//! differences of it, bf16 against f32, and all of it against torch autograd (`tools/divergence_reference.py`).

mod common;

use aha_kernels::divergence::{self, Ask, Comparison, Divergence, TopK};
use aha_kernels::{Layout, ParamStore, Precision, Weight, logprob};
use common::{close, differences, noise, wide};
use serde_json::Value;

const KINDS: [Divergence; 4] = [
    Divergence::Forward,
    Divergence::Reverse,
    Divergence::JensenShannon { beta: 0.5 },
    Divergence::JensenShannon { beta: 0.1 },
];

/// `[M, V]` log-probabilities.
fn ref_log_softmax(h: &[f64], w: &[f64], vocab: usize, temperature: f64) -> Vec<Vec<f64>> {
    let d = w.len() / vocab;
    let row = |h: &[f64]| {
        let z: Vec<f64> = (0..vocab).map(|j| (0..d).map(|p| h[p] * w[j * d + p]).sum::<f64>() / temperature).collect();
        let max = z.iter().copied().fold(f64::MIN, f64::max);
        let log = max + z.iter().map(|v| (v - max).exp()).sum::<f64>().ln();
        z.into_iter().map(|v| v - log).collect()
    };
    h.chunks(d).map(row).collect()
}

/// KL of two distributions given as masses; terms of no mass are 0.
fn ref_kl(p: &[f64], q: &[f64]) -> f64 {
    p.iter().zip(q).filter(|(p, _)| **p > 0.0).map(|(p, q)| p * (p / q).ln()).sum()
}

/// Divergences of rows from the definition: masses of the buckets, then the sums.
fn ref_divergence(h: &[f64], w: &[f64], vocab: usize, c: &Comparison) -> Vec<f64> {
    let rows = ref_log_softmax(h, w, vocab, f64::from(c.temperature));
    let row = |(i, logp): (usize, &Vec<f64>)| {
        let k = c.teacher.k;
        let ids = &c.teacher.ids[i * k..(i + 1) * k];
        let mut p: Vec<f64> = ids.iter().map(|id| logp[*id as usize].exp()).collect();
        let mut q: Vec<f64> = c.teacher.logprobs[i * k..(i + 1) * k].iter().map(|v| f64::from(*v).exp()).collect();
        if k < vocab {
            p.push((0..vocab).filter(|j| !ids.contains(&(*j as u32))).map(|j| logp[j].exp()).sum());
            q.push(f64::from(c.teacher.tails[i]).exp());
        }
        match c.divergence {
            Divergence::Forward => ref_kl(&q, &p),
            Divergence::Reverse => ref_kl(&p, &q),
            Divergence::JensenShannon { beta } => {
                let beta = f64::from(beta);
                let m: Vec<f64> = p.iter().zip(&q).map(|(p, q)| beta * q + (1.0 - beta) * p).collect();
                beta * ref_kl(&q, &m) + (1.0 - beta) * ref_kl(&p, &m)
            }
        }
    };
    rows.iter().enumerate().map(row).collect()
}

struct Case {
    h: Vec<f32>,
    w: Vec<f32>,
    panels: Vec<f32>,
    layout: Layout,
    vocab: usize,
    d: usize,
    targets: Vec<u32>,
    temperature: f32,
    teacher: TopK,
}

impl Case {
    /// A student with noise for weights and a teacher with other noise.
    fn new(m: usize, d: usize, vocab: usize, k: usize, temperature: f32) -> Self {
        let scaled = |n, seed, by: f32| noise(n, seed).into_iter().map(|v| v * by).collect::<Vec<f32>>();
        let (h, w) = (scaled(m * d, 1, 2.0), noise(vocab * d, 2));
        let layout = Layout::Panels { n: vocab, k: d };
        let panels = layout.store(w.clone());
        let theirs = layout.store(noise(vocab * d, 3));
        let teacher =
            divergence::top_k(&scaled(m * d, 4, 3.0), Weight::f32(&theirs, vocab, d), Ask { k, temperature, vocab });
        let targets = (0..m as u32).map(|i| (i * 17 + 3) % vocab as u32).collect();
        Case { h, w, panels, layout, vocab, d, targets, temperature, teacher }
    }

    fn weight(&self) -> Weight<'_> {
        Weight::f32(&self.panels, self.vocab, self.d)
    }

    fn comparison(&self, divergence: Divergence) -> Comparison<'_> {
        Comparison { teacher: &self.teacher, divergence, temperature: self.temperature, targets: &self.targets }
    }
}

fn cases() -> [Case; 4] {
    [
        Case::new(4, 5, 37, 6, 1.0),
        Case::new(3, 8, 64, 64, 1.0),
        Case::new(5, 6, 50, 1, 0.7),
        Case::new(3, 7, 41, 9, 2.0),
    ]
}

#[test]
fn values_and_gradients_equal_reference_and_differences() {
    for case in cases() {
        for kind in KINDS {
            let (c, m) = (case.comparison(kind), case.targets.len());
            let (h, w) = (wide(&case.h), wide(&case.w));
            let found = divergence::forward(&case.h, case.weight(), &c);
            close("divergence", &found.divergence, &ref_divergence(&h, &w, case.vocab, &c), 2e-6);
            assert!(found.divergence.iter().all(|v| *v > 0.0), "{kind:?}");
            let logp = |h: &[f64], w: &[f64]| -> Vec<f64> {
                let rows = ref_log_softmax(h, w, case.vocab, 1.0);
                rows.iter().zip(&case.targets).map(|(row, t)| row[*t as usize]).collect()
            };
            close("logp", &found.logp, &logp(&h, &w), 1e-5);
            let (d_div, d_logp) = (noise(m, 5), noise(m, 6));
            let (mut d_h, mut d_w) = (vec![0.0; h.len()], vec![0.0; case.panels.len()]);
            let again = divergence::backward(&mut d_h, &mut d_w, &case.h, case.weight(), &c, &d_div, &d_logp);
            assert_eq!(again, found);
            let weights = wide(&[&d_div[..], &d_logp].concat());
            let both = |h: &[f64], w: &[f64]| [ref_divergence(h, w, case.vocab, &c), logp(h, w)].concat();
            close("d_h", &d_h, &differences(&h, &weights, |h| both(h, &w)), 2e-5);
            let d_w = case.layout.load(&d_w);
            close("d_w", &d_w, &differences(&w, &weights, |w| both(&h, w)), 2e-5);
        }
    }
}

#[test]
fn a_student_that_is_its_teacher_has_no_divergence_and_no_gradient() {
    for k in [3, 40] {
        let mut case = Case::new(6, 8, 40, k, 1.5);
        case.teacher = divergence::top_k(&case.h, case.weight(), Ask { k, temperature: 1.5, vocab: 40 });
        for kind in KINDS {
            let c = case.comparison(kind);
            let mut d_h = vec![0.0; case.h.len()];
            let found =
                divergence::backward(&mut d_h, &mut [], &case.h, case.weight(), &c, &[1.0; 6], &[0.0; 6]).divergence;
            assert!(found.iter().all(|v| v.abs() < 1e-6), "{kind:?} {found:?}");
            assert!(d_h.iter().all(|v| v.abs() < 1e-6), "{kind:?} {d_h:?}");
        }
    }
}

#[test]
fn more_of_the_teacher_is_never_less_divergence() {
    for kind in KINDS {
        let mut before = 0.0;
        for k in [1, 2, 5, 20, 39, 40] {
            let case = Case::new(8, 8, 40, k, 1.0);
            let found = divergence::forward(&case.h, case.weight(), &case.comparison(kind));
            let mean: f32 = found.divergence.iter().sum();
            assert!(mean >= before - 1e-5, "{kind:?} {k}: {mean} after {before}");
            before = mean;
        }
    }
}

#[test]
fn the_teachers_tokens_are_the_most_likely_with_their_log_probabilities() {
    let case = Case::new(60, 8, 300, 7, 1.3);
    let ask = Ask { k: 7, temperature: 1.3, vocab: 300 };
    let found = divergence::top_k(&case.h, case.weight(), ask);
    let want = ref_log_softmax(&wide(&case.h), &wide(&case.w), 300, f64::from(1.3f32));
    for (i, row) in want.iter().enumerate() {
        let mut sorted: Vec<usize> = (0..300).collect();
        sorted.sort_by(|a, b| row[*b].total_cmp(&row[*a]));
        let ids: Vec<usize> = found.ids[i * 7..(i + 1) * 7].iter().map(|id| *id as usize).collect();
        assert_eq!(ids, sorted[..7]);
        let logp: Vec<f64> = ids.iter().map(|id| row[*id]).collect();
        close("logprobs", &found.logprobs[i * 7..(i + 1) * 7], &logp, 1e-6);
        let tail: f64 = sorted[7..].iter().map(|j| row[*j].exp()).sum();
        close("tail", &found.tails[i..=i], &[tail.ln()], 1e-6);
    }
    let all = divergence::top_k(&case.h, case.weight(), Ask { k: 1000, ..ask });
    assert_eq!((all.k, all.tails[0]), (300, f32::NEG_INFINITY));
    // Tokens the student does not know are part of the rest.
    let fewer = divergence::top_k(&case.h, case.weight(), Ask { vocab: 100, ..ask });
    assert!(fewer.ids.iter().all(|id| *id < 100));
    for (i, row) in want.iter().enumerate() {
        let kept: f64 = fewer.ids[i * 7..(i + 1) * 7].iter().map(|id| row[*id as usize].exp()).sum();
        close("tail", &[fewer.tails[i].exp()], &[1.0 - kept], 1e-6);
    }
}

#[test]
fn the_targets_log_probability_has_the_bits_of_the_trainers() {
    let case = Case::new(70, 8, 130, 4, 2.0);
    let found = divergence::forward(&case.h, case.weight(), &case.comparison(Divergence::Forward));
    let (mut logp, mut entropy) = (vec![0.0; 70], vec![0.0; 70]);
    logprob::forward(&mut logp, &mut entropy, &case.h, case.weight(), &case.targets, 1.0);
    assert_eq!(found.logp, logp);
}

#[test]
fn far_apart_distributions_stay_finite() {
    // Logits of several hundred: probabilities that f32 has no numbers for, on both sides.
    let mut case = Case::new(4, 5, 37, 6, 1.0);
    case.h.iter_mut().for_each(|v| *v *= 300.0);
    let theirs = Case::new(4, 5, 37, 6, 0.003);
    case.teacher = theirs.teacher;
    for kind in KINDS {
        let mut d_h = vec![0.0; case.h.len()];
        let c = case.comparison(kind);
        let found = divergence::backward(&mut d_h, &mut [], &case.h, case.weight(), &c, &[1.0; 4], &[1.0; 4]);
        let numbers = found.divergence.iter().chain(&found.logp).chain(&d_h);
        assert!(numbers.copied().all(f32::is_finite), "{kind:?} {found:?} {d_h:?}");
    }
}

#[test]
fn bf16_is_as_close_to_f32_as_its_rounding() {
    let case = Case::new(96, 32, 200, 8, 1.0);
    let mut params = ParamStore::default();
    let id = params.add("w", case.layout, case.w.clone());
    params.set_precision(Precision::Bf16, true);
    for kind in KINDS {
        let c = case.comparison(kind);
        let run = |w: Weight| {
            let (mut d_h, mut d_w) = (vec![0.0; case.h.len()], vec![0.0; case.panels.len()]);
            let found = divergence::backward(&mut d_h, &mut d_w, &case.h, w, &c, &[1.0; 96], &[-0.5; 96]);
            [found.divergence, found.logp, d_h, d_w]
        };
        let (want, got) = (run(case.weight()), run(params.weight(id)));
        for ((want, got), name) in want.iter().zip(&got).zip(["divergence", "logp", "d_h", "d_w"]) {
            let size: f64 = want.iter().map(|v| f64::from(*v).powi(2)).sum();
            let apart: f64 = want.iter().zip(got).map(|(a, b)| f64::from(a - b).powi(2)).sum();
            let error = (apart / size).sqrt();
            assert!(error > 0.0 && error < 1e-2, "{kind:?} {name}: {error}");
        }
    }
}

fn numbers(v: &Value) -> Vec<f64> {
    match v {
        Value::Array(items) => items.iter().flat_map(numbers).collect(),
        other => vec![other.as_f64().expect("a number")],
    }
}

#[test]
fn values_and_gradients_equal_torch() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/divergence.json");
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).expect(path)).expect(path);
    let size = |key: &str| golden[key].as_u64().expect("a size") as usize;
    let (vocab, d, k) = (size("vocab"), size("width"), size("k"));
    let floats = |v: &Value| -> Vec<f32> { numbers(v).iter().map(|v| *v as f32).collect() };
    let (h, w) = (floats(&golden["student_h"]), floats(&golden["student_w"]));
    let layout = Layout::Panels { n: vocab, k: d };
    let (ours, theirs) = (layout.store(w), layout.store(floats(&golden["teacher_w"])));
    let targets: Vec<u32> = numbers(&golden["targets"]).iter().map(|v| *v as u32).collect();
    let (d_div, d_logp) = (floats(&golden["d_divergence"]), floats(&golden["d_logp"]));
    let mut compared = 0;
    for case in golden["cases"].as_array().expect("cases") {
        let temperature = case["temperature"].as_f64().expect("a number") as f32;
        let teacher = divergence::top_k(
            &floats(&golden["teacher_h"]),
            Weight::f32(&theirs, vocab, d),
            Ask { k, temperature, vocab },
        );
        let ids: Vec<f64> = teacher.ids.iter().map(|id| f64::from(*id)).collect();
        assert_eq!(ids, numbers(&case["ids"]));
        close("logprobs", &teacher.logprobs, &numbers(&case["logprobs"]), 1e-6);
        close("tails", &teacher.tails, &numbers(&case["tails"]), 1e-6);
        let divergence = match (case["kind"].as_str(), case["beta"].as_f64()) {
            (Some("forward"), _) => Divergence::Forward,
            (Some("reverse"), _) => Divergence::Reverse,
            (_, beta) => Divergence::JensenShannon { beta: beta.expect("a number") as f32 },
        };
        let c = Comparison { teacher: &teacher, divergence, temperature, targets: &targets };
        let (mut d_h, mut d_w) = (vec![0.0; h.len()], vec![0.0; ours.len()]);
        let weight = Weight::f32(&ours, vocab, d);
        let found = divergence::backward(&mut d_h, &mut d_w, &h, weight, &c, &d_div, &d_logp);
        close("divergence", &found.divergence, &numbers(&case["divergence"]), 2e-6);
        close("logp", &found.logp, &numbers(&case["logp"]), 1e-6);
        close("d_h", &d_h, &numbers(&case["d_h"]), 3e-6);
        close("d_w", &layout.load(&d_w), &numbers(&case["d_w"]), 3e-6);
        compared += 1;
    }
    assert_eq!(compared, 8);
}

/// A student of one mode, logits a x - b x^2 over a line of tokens, learns from a teacher of two modes by plain descent.
/// Gives the student's probabilities.
fn learned(kind: Divergence) -> Vec<f64> {
    let vocab = 41;
    let x: Vec<f64> = (0..vocab).map(|j| (j as f64 - 20.0) / 10.0).collect();
    let w: Vec<f32> = x.iter().flat_map(|x| [*x as f32, -(x * x) as f32]).collect();
    let peak = |centre: f64, weight: f64| move |x: &f64| weight * (-(x - centre).powi(2) * 20.0).exp();
    // The mode on the right is a little larger.
    let masses: Vec<f64> = x.iter().map(|x| peak(-0.6, 1.0)(x) + peak(0.6, 1.1)(x) + 1e-4).collect();
    let total: f64 = masses.iter().sum();
    let mut order: Vec<u32> = (0..vocab as u32).collect();
    order.sort_by(|a, b| masses[*b as usize].total_cmp(&masses[*a as usize]));
    let logprobs = order.iter().map(|i| (masses[*i as usize] / total).ln() as f32).collect();
    let teacher = TopK { k: vocab, ids: order, logprobs, tails: vec![f32::NEG_INFINITY] };
    let layout = Layout::Panels { n: vocab, k: 2 };
    let panels = layout.store(w.clone());
    let c = Comparison { teacher: &teacher, divergence: kind, temperature: 1.0, targets: &[0] };
    // Begins around the mode on the right, wider than it.
    let mut h = vec![4.8, 4.0f32];
    for _ in 0..20_000 {
        let mut d_h = vec![0.0; 2];
        divergence::backward(&mut d_h, &mut [], &h, Weight::f32(&panels, vocab, 2), &c, &[1.0], &[0.0]);
        h.iter_mut().zip(&d_h).for_each(|(h, d)| *h -= 0.3 * d);
    }
    ref_log_softmax(&wide(&h), &wide(&w), vocab, 1.0)[0].iter().map(|v| v.exp()).collect()
}

#[test]
fn reverse_kl_seeks_a_mode_and_forward_kl_covers_both() {
    let mass = |p: &[f64], tokens: std::ops::Range<usize>| p[tokens].iter().sum::<f64>();
    // The modes are at tokens 14 and 26.
    let covering = learned(Divergence::Forward);
    assert!(mass(&covering, 0..18) > 0.2 && mass(&covering, 23..41) > 0.2, "{covering:?}");
    assert!(mass(&covering, 18..23) > 0.15, "between the modes as well: {covering:?}");
    let seeking = learned(Divergence::Reverse);
    assert!(mass(&seeking, 23..41) > 0.95 && mass(&seeking, 0..18) < 0.01, "{seeking:?}");
}
