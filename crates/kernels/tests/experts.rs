//! Routing and routed experts against a slow f64 reference, central differences, and what must hold of any routing.

mod common;

use aha_kernels::Segments;
use aha_kernels::router::{self, Plan, Routing};
use aha_kernels::{
    Attend, ExpertIds, Gradients, Init, Layout, LossHead, MoeIds, ParamStore, Precision, Tape, Var, WeightGradients,
    par,
};
use common::{close, differences, noise, wide};
use std::sync::Arc;

const PLAIN: Routing = Routing { experts: 6, chosen: 2, groups: 1, kept_groups: 1, normalised: true, scale: 1.5 };
const GROUPS: Routing = Routing { experts: 8, chosen: 3, groups: 4, kept_groups: 2, normalised: true, scale: 2.5 };

/// Chosen experts and weights of tokens with these logits and biases.
fn choose(logits: &[f32], bias: &[f32], r: Routing) -> (Vec<u32>, Vec<f32>, Vec<f32>) {
    let mut scores = logits.to_vec();
    let mut weights = vec![0.0; logits.len() / r.experts * r.chosen];
    let chosen = router::route(&mut scores, &mut weights, bias, r);
    (chosen, weights, scores)
}

#[test]
fn weights_sum_to_the_factor_and_choices_stay_in_the_kept_groups() {
    let logits: Vec<f32> = noise(500 * 8, 1).iter().map(|v| v * 3.0).collect();
    for shift in [-5.0f32, 0.0, 5.0] {
        let bias: Vec<f32> = noise(8, 2).iter().map(|b| b + shift).collect();
        let (chosen, weights, scores) = choose(&logits, &bias, GROUPS);
        for ((c, w), s) in chosen.chunks(3).zip(weights.chunks(3)).zip(scores.chunks(8)) {
            assert!((w.iter().sum::<f32>() - 2.5).abs() < 1e-5);
            assert!(c.windows(2).all(|p| p[0] < p[1]), "ascending and distinct");
            let mut groups: Vec<u32> = c.iter().map(|e| e / 2).collect();
            groups.dedup();
            assert!(groups.len() <= 2, "{c:?}");
            // The formula of the weight knows scores alone.
            let sum: f32 = c.iter().map(|e| s[*e as usize]).sum();
            for (e, w) in c.iter().zip(w) {
                assert!((w - s[*e as usize] / sum * 2.5).abs() < 1e-5);
            }
        }
    }
}

#[test]
fn biases_change_choices_and_one_constant_on_all_does_not() {
    let logits = noise(300 * 8, 3);
    let zero = choose(&logits, &[0.0; 8], GROUPS);
    assert_eq!(choose(&logits, &[1.0; 8], GROUPS).0, zero.0);
    assert_eq!(choose(&logits, &[-1.0; 8], GROUPS).0, zero.0, "dropped groups never win, however negative the rest");
    let mut bias = [0.0; 8];
    bias[5] = 2.0;
    let favoured = choose(&logits, &bias, GROUPS);
    assert!(favoured.0.chunks(3).all(|c| c.contains(&5)) && favoured.0 != zero.0);
    let plan = Plan::new(favoured.0, 3, 8);
    assert_eq!(plan.loads().sum::<u64>(), 900);
    assert_eq!(plan.loads().nth(5), Some(300));
}

/// A routed layer, its input `[T, D]` and everything about it in f64.
struct Layer {
    params: ParamStore,
    ids: Arc<MoeIds>,
    head: aha_kernels::ParamId,
    d: usize,
    f: usize,
}

fn layer(r: Routing, d: usize, f: usize) -> Layer {
    let mut params = ParamStore::default();
    let mut add = |name: String, n: usize, k: usize| {
        params.init(name, Layout::Panels { n, k }, Init::Normal { std: 0.6, seed: 7 })
    };
    let gate = add("gate".into(), r.experts, d);
    let experts = (0..r.experts)
        .map(|e| ExpertIds {
            gate: add(format!("{e}.gate"), f, d),
            up: add(format!("{e}.up"), f, d),
            down: add(format!("{e}.down"), d, f),
        })
        .collect();
    let head = add("head".into(), 11, d);
    let bias =
        params.add("bias", Layout::Vector { n: r.experts }, noise(r.experts, 9).iter().map(|b| b * 0.1).collect());
    params.freeze(bias);
    Layer { params, ids: Arc::new(MoeIds { gate, bias, experts, routing: r, width: f }), head, d, f }
}

impl Layer {
    fn rows(&self, id: aha_kernels::ParamId) -> Vec<f64> {
        wide(&self.params.get(id).layout.load(self.params.data(id)))
    }

    /// x + experts(x) for one token, choices given; `gate` are the gate's rows.
    fn token(&self, x: &[f64], gate: &[f64], chosen: &[u32], expert: &dyn Fn(u32) -> [Vec<f64>; 3]) -> Vec<f64> {
        let (r, d, f) = (self.ids.routing, self.d, self.f);
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let s: Vec<f64> = chosen.iter().map(|e| 1.0 / (1.0 + (-dot(x, &gate[*e as usize * d..][..d])).exp())).collect();
        let sum: f64 = s.iter().sum();
        let mut out = x.to_vec();
        for (e, s) in chosen.iter().zip(&s) {
            let [g, u, down] = expert(*e);
            let w = f64::from(r.scale) * s / sum;
            let inner: Vec<f64> = (0..f)
                .map(|i| {
                    let (g, u) = (dot(x, &g[i * d..][..d]), dot(x, &u[i * d..][..d]));
                    w * g / (1.0 + (-g).exp()) * u
                })
                .collect();
            for (i, o) in out.iter_mut().enumerate() {
                *o += dot(&inner, &down[i * f..][..f]);
            }
        }
        out
    }

    fn forward(&self, tape: &mut Tape, x: &[f32]) -> (Var, Var) {
        let x = tape.constant(x);
        let attend = Attend::Packed(Arc::new(Segments::from_lengths([tape.value(x).len() / self.d])));
        (x, tape.experts(&self.params, x, x, &self.ids, 0, &attend))
    }
}

#[test]
fn routed_experts_equal_reference_and_differences() {
    for (r, d, f) in [(PLAIN, 5, 7), (GROUPS, 34, 3)] {
        let mut l = layer(r, d, f);
        let tokens = 9;
        let x = noise(tokens * d, 4);
        let (wx, gate) = (wide(&x), l.rows(l.ids.gate));
        let mut tape = Tape::new(true);
        let (_, out) = l.forward(&mut tape, &x);
        let logits: Vec<f32> = (0..tokens * r.experts)
            .map(|i| {
                let (x, g) = (&wx[i / r.experts * d..][..d], &gate[i % r.experts * d..][..d]);
                x.iter().zip(g).map(|(a, b)| a * b).sum::<f64>() as f32
            })
            .collect();
        let (chosen, ..) = choose(&logits, l.params.data(l.ids.bias), r);
        let expert = |e: u32| {
            let ids = l.ids.experts[e as usize];
            [l.rows(ids.gate), l.rows(ids.up), l.rows(ids.down)]
        };
        let k = r.chosen;
        let all = |x: &[f64], gate: &[f64], expert: &dyn Fn(u32) -> [Vec<f64>; 3]| -> Vec<f64> {
            x.chunks(d).zip(chosen.chunks(k)).flat_map(|(x, c)| l.token(x, gate, c, expert)).collect()
        };
        close("out", tape.value(out), &all(&wx, &gate, &expert), 1e-4);
        let routed: Vec<u64> = Plan::new(chosen.clone(), k, r.experts).loads().collect();
        assert_eq!(tape.routing.as_ref().unwrap().loads[0], routed);

        // Backward, through log-probabilities whose gradient with respect to `out` is known.
        let targets: Vec<u32> = (0..tokens as u32).collect();
        let d_logp = noise(tokens, 5);
        let mut grads = Gradients::new(&l.params);
        let mut d_out = vec![0.0; tokens * d];
        let weight = l.params.weight(l.head);
        aha_kernels::logprob::backward(
            &mut d_out,
            &mut WeightGradients::plain(&mut []),
            &d_logp,
            tape.value(out),
            weight,
            &targets,
            1.0,
        );
        let head = LossHead { h: out, head: l.head, targets: &targets, temperature: 1.0, d_logp: &d_logp };
        tape.backward_heads(&l.params, &mut grads, &[head], &mut |_, _, _| unreachable!("no blocks"));
        let wd = wide(&d_out);
        let d_gate = l.params.get(l.ids.gate).layout.load(grads.get(l.ids.gate));
        close("d_gate", &d_gate, &differences(&gate, &wd, |g| all(&wx, g, &expert)), 1e-3);
        let busy = chosen[0];
        for (part, id) in [
            (0, l.ids.experts[busy as usize].gate),
            (1, l.ids.experts[busy as usize].up),
            (2, l.ids.experts[busy as usize].down),
        ] {
            let ours = l.params.get(id).layout.load(grads.get(id));
            let want = differences(&l.rows(id), &wd, |w| {
                all(&wx, &gate, &|e| {
                    let mut own = expert(e);
                    if e == busy {
                        own[part] = w.to_vec();
                    }
                    own
                })
            });
            close("expert", &ours, &want, 1e-3);
        }
        assert!(grads.get(l.ids.bias).is_empty(), "a bias has no gradient");

        // Threads change no bit, in f32 and in bf16.
        for precision in [Precision::F32, Precision::Bf16] {
            l.params.set_precision(precision, true);
            let run = || {
                let mut tape = Tape::new(true);
                let mut grads = Gradients::new(&l.params);
                let (_, out) = l.forward(&mut tape, &x);
                let head = LossHead { h: out, head: l.head, targets: &targets, temperature: 1.0, d_logp: &d_logp };
                tape.backward_heads(&l.params, &mut grads, &[head], &mut |_, _, _| unreachable!("no blocks"));
                let gradients: Vec<Vec<f32>> = l.params.iter().map(|(id, _)| grads.get(id).to_vec()).collect();
                (tape.value(out).to_vec(), gradients)
            };
            let all = run();
            assert!(all == par::serial(run), "{precision:?}");
            // A token alone has the bits it has among others.
            for t in [0, 4, tokens - 1] {
                let mut tape = Tape::new(false);
                let (_, alone) = l.forward(&mut tape, &x[t * d..(t + 1) * d]);
                assert!(tape.value(alone) == &all.0[t * d..(t + 1) * d], "{precision:?} token {t}");
            }
        }
    }
}

#[test]
fn the_gradient_with_respect_to_the_input_flows_through_experts_gate_and_residual() {
    let l = layer(PLAIN, 5, 4);
    let mut params = l.params.clone();
    let x_weight = params.init("x", Layout::Panels { n: 5, k: 3 }, Init::Normal { std: 0.8, seed: 3 });
    let l = Layer { params, ..l };
    let input = noise(6 * 3, 6);
    let targets = [0u32, 1, 2, 3, 4, 5];
    let d_logp = noise(6, 7);
    let loss = |weight: Option<&[f32]>| {
        let mut params = l.params.clone();
        if let Some(w) = weight {
            params.get_mut(x_weight).data = w.to_vec().into();
        }
        let mut tape = Tape::new(true);
        let x = tape.constant(&input);
        let x = tape.linear(&params, x, x_weight, None, None);
        let attend = Attend::Packed(Arc::new(Segments::from_lengths([6])));
        let out = tape.experts(&params, x, x, &l.ids, 0, &attend);
        let (mut logp, mut entropy) = (vec![0.0; 6], vec![0.0; 6]);
        aha_kernels::logprob::forward(&mut logp, &mut entropy, tape.value(out), params.weight(l.head), &targets, 1.0);
        let mut grads = Gradients::new(&params);
        let head = LossHead { h: out, head: l.head, targets: &targets, temperature: 1.0, d_logp: &d_logp };
        tape.backward_heads(&params, &mut grads, &[head], &mut |_, _, _| unreachable!("no blocks"));
        let value: f64 = logp.iter().zip(&d_logp).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
        (value, grads.get(x_weight).to_vec())
    };
    let (_, ours) = loss(None);
    let base = l.params.data(x_weight).to_vec();
    for (i, g) in ours.iter().enumerate().filter(|(_, g)| **g != 0.0) {
        let step = |h: f32| {
            let mut w = base.clone();
            w[i] += h;
            loss(Some(&w)).0
        };
        let want = (step(1e-2) - step(-1e-2)) / 2e-2;
        assert!((f64::from(*g) - want).abs() < 5e-3 * (1.0 + want.abs()), "{i}: {g} {want}");
    }
}

#[test]
fn the_balance_loss_is_alpha_when_even_and_its_gradient_equals_differences() {
    let r = PLAIN;
    // Token t prefers experts t and t + 1: everyone gets the same.
    let even: Vec<f32> =
        (0..6).flat_map(|t| (0..6).map(move |e| if e == t || e == (t + 1) % 6 { 0.9 } else { 0.1 })).collect();
    let seg = Segments::from_lengths([6]);
    let mut f = Vec::new();
    assert!((router::balance_loss(&mut f, &even, &seg, r) / 6.0 - 1.0).abs() < 1e-6);
    assert!(f.iter().all(|f| (f - 1.0).abs() < 1e-6));
    // Everyone wants the same two: three times as much, as far as the scores go.
    let same: Vec<f32> = (0..6).flat_map(|_| (0..6).map(|e| if e < 2 { 1.0 } else { 1e-6 })).collect();
    assert!((router::balance_loss(&mut f, &same, &seg, r) / 6.0 - 3.0).abs() < 1e-3);

    let seg = Segments::from_lengths([4, 3]);
    let logits = noise(7 * 6, 8);
    let value = |z: &[f64]| -> Vec<f64> {
        let s: Vec<f64> = z.iter().map(|z| 1.0 / (1.0 + (-z).exp())).collect();
        (0..2)
            .flat_map(|i| {
                let rows: Vec<&[f64]> = s[seg.range(i).start * 6..seg.range(i).end * 6].chunks(6).collect();
                let n = rows.len() as f64;
                (0..6)
                    .map(|e| {
                        let picked = |row: &[f64]| row.iter().filter(|v| **v > row[e]).count() < 2;
                        let f = 3.0 / n * rows.iter().filter(|r| picked(r)).count() as f64;
                        let p: f64 = rows.iter().map(|r| r[e] / r.iter().sum::<f64>()).sum();
                        f * p
                    })
                    .collect::<Vec<_>>()
            })
            .collect()
    };
    let (_, _, scores) = choose(&logits, &[0.0; 6], r);
    let total = router::balance_loss(&mut f, &scores, &seg, r);
    let want: f64 = value(&wide(&logits)).iter().sum();
    assert!((total - want).abs() < 1e-4, "{total} {want}");
    let mut d = vec![0.0; logits.len()];
    router::balance_backward(&mut d, 0.5, &f, &scores, &seg, r);
    close("d_logits", &d, &differences(&wide(&logits), &[0.5; 12], value), 1e-4);
}

/// The acceptance curve of the method: a fixed gate that prefers some experts by far.
#[test]
fn biases_even_out_a_skewed_gate_and_stay_where_the_speed_is_zero() {
    let r = Routing { experts: 16, chosen: 2, groups: 1, kept_groups: 1, normalised: true, scale: 1.0 };
    let skew: Vec<f32> = (0..16).map(|e| 1.2 - 0.15 * e as f32).collect();
    let run = |speed: f32| {
        let mut bias = vec![0.0; 16];
        let mut curve = Vec::new();
        for step in 0..500 {
            let noise = noise(2048 * 16, 100 + step);
            let logits: Vec<f32> = noise.iter().enumerate().map(|(i, v)| v * 0.6 + skew[i % 16]).collect();
            let (chosen, ..) = choose(&logits, &bias, r);
            let loads: Vec<u64> = Plan::new(chosen, 2, 16).loads().collect();
            curve.push((router::max_violation(&loads), router::coldest(&loads)));
            router::update_bias(&mut bias, &loads, speed);
        }
        (curve, bias)
    };
    let (curve, _) = run(1e-3);
    assert!(curve[0].0 > 3.0, "{:?}", curve[0]);
    let last: f64 = curve[490..].iter().map(|c| c.0).sum::<f64>() / 10.0;
    assert!(last < 0.2, "{last}");
    assert!(curve[0].1 < 0.05 && curve[499].1 > 0.8, "{:?} {:?}", curve[0], curve[499]);
    let (still, bias) = run(0.0);
    assert!(still[499].0 > 3.0 && bias.iter().all(|b| *b == 0.0));
}
