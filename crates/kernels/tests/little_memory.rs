//! A tied model with a large vocabulary, where memory is short: weights in two halves or rounded, gradients in bf16, the head over pieces of
//! the vocabulary. It has the values of the whole weights, and their gradients but for rounding.

use aha_kernels::{
    GradientType, Gradients, Layout, MasterWeights, ParamId, ParamStore, Precision, Tape, logprob, normal,
};
use std::sync::Arc;

const VOCABULARY: usize = 16_416;
const WIDTH: usize = 64;
const WIDE: usize = 8_256;

fn store() -> ParamStore {
    let mut params = ParamStore::default();
    let mut add = |name: &str, layout: Layout| {
        params.add(name, layout, normal(layout.shape().iter().product(), 0.1, 1, name));
    };
    add("model.embed_tokens.weight", Layout::Panels { n: VOCABULARY, k: WIDTH });
    // A large matrix, which is turned for the input gradient when it is made, and one that is not.
    add("up.weight", Layout::Panels { n: WIDE, k: WIDTH });
    add("down.weight", Layout::Panels { n: WIDTH, k: WIDE });
    add("small.weight", Layout::Panels { n: WIDTH, k: WIDTH });
    params
}

/// Log-probabilities, and all gradients of a weighted sum of them.
fn run(params: &ParamStore, numbers: GradientType) -> (Vec<f32>, Vec<Vec<f32>>) {
    let [table, up, down, small] = [0, 1, 2, 3].map(ParamId);
    let tokens: Arc<[u32]> = (0..50u32).map(|i| i * i * 331 % 97 * 169).collect();
    let targets: Vec<u32> = tokens.iter().map(|t| (t + 1) % VOCABULARY as u32).collect();
    let mut tape = Tape::new(true);
    let mut grads = Gradients::in_numbers(params, numbers);
    let x = tape.embedding(params, table, &tokens);
    let y = tape.linear(params, x, up, None, None);
    let y = tape.linear(params, y, down, None, Some(x));
    let h = tape.linear(params, y, small, None, Some(y));
    let (mut logp, mut entropy) = (vec![0.0; 50], vec![0.0; 50]);
    logprob::forward(&mut logp, &mut entropy, tape.value(h), params.weight(table), &targets, 1.0);
    let d_logp: Vec<f32> = (0..50).map(|i| (i as f32).sin()).collect();
    tape.backward(params, &mut grads, h, table, &targets, 1.0, &d_logp, &mut |_, _, _| unreachable!("no blocks"));
    logp.extend(entropy);
    (logp, params.iter().map(|(id, _)| grads.values(id).into_owned()).collect())
}

/// The store with its master weights so, and one of the same values that are whole.
fn both(master: MasterWeights) -> (ParamStore, ParamStore) {
    let mut apart = store();
    apart.master_weights(master);
    apart.set_precision(Precision::Bf16, true);
    assert!(apart.iter().all(|(_, p)| p.data.is_empty()), "all four matrices are {master:?}");
    let mut whole = store();
    for (id, p) in apart.iter() {
        whole.get_mut(id).data = p.all().into_owned().into();
    }
    whole.set_precision(Precision::Bf16, true);
    (apart, whole)
}

#[test]
fn a_tied_head_over_pieces_of_the_vocabulary_has_the_gradients_of_the_whole() {
    for master in [MasterWeights::Split, MasterWeights::Bf16] {
        let (apart, whole) = both(master);
        compare(&apart, &whole, if master == MasterWeights::Split { 2e-4 } else { 5e-4 });
    }
}

fn compare(apart: &ParamStore, whole: &ParamStore, f32_limit: f64) {
    let (values, gradients) = run(whole, GradientType::F32);
    for (params, numbers) in [(apart, GradientType::F32), (apart, GradientType::Bf16), (whole, GradientType::Bf16)] {
        let (found, low) = run(params, numbers);
        assert!(found == values, "the forward has the same bits");
        for (id, (low, want)) in low.iter().zip(&gradients).enumerate() {
            let square = |v: &mut dyn Iterator<Item = f32>| v.map(|v| f64::from(v).powi(2)).sum::<f64>().sqrt();
            let off = square(&mut low.iter().zip(want).map(|(a, b)| a - b)) / square(&mut want.iter().copied());
            // Sums in another order: some fall on the other side when they are rounded for the next product.
            let limit = if numbers == GradientType::F32 { f32_limit } else { 6e-3 };
            assert!(off < limit, "{numbers:?} parameter {id}: relative error {off}");
        }
        assert!(run(params, numbers).1 == low, "and the same bits every time");
    }
}
