//! Muon against torch.optim.Muon (which iterates in bf16) and the same steps in float64. Fixture: tools/muon_reference.py.
#![allow(clippy::unwrap_used)]

use aha_kernels::{AdamWConfig, Gradients, Layout, MuonConfig, Optimizer, OptimizerConfig, ParamStore, Precision};
use safetensors::SafeTensors;

#[test]
fn four_steps_equal_float64_and_torch_within_its_bf16() {
    four_steps(Precision::F32, 1e-4);
}

#[test]
fn four_steps_in_bf16_are_within_that_of_both() {
    four_steps(Precision::Bf16, 0.02);
}

/// The largest difference to float64 is below `exactly` of the largest change, that to torch below a fiftieth.
fn four_steps(precision: Precision, exactly: f32) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/muon.safetensors");
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = |name: String| {
        let view = file.tensor(&name).unwrap();
        let values: Vec<f32> = view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        (view.shape().to_vec(), values)
    };
    let names = ["wide", "tall", "square"];
    let mut params = ParamStore::default();
    let mut ids = Vec::new();
    for name in names {
        let (shape, values) = tensor(format!("{name}.begin"));
        ids.push(params.add(name, Layout::Panels { n: shape[0], k: shape[1] }, values));
    }
    let adamw = AdamWConfig { weight_decay: 0.1, max_grad_norm: 0.0, ..AdamWConfig::default() };
    let config = OptimizerConfig {
        adamw,
        muon: Some(MuonConfig { precision, ..MuonConfig::default() }),
        ..OptimizerConfig::default()
    };
    let mut optimizer = Optimizer::new(config, &params);
    for step in 0..4 {
        let mut grads = Gradients::new(&params);
        for (name, id) in names.iter().zip(&ids) {
            let values = params.get(*id).layout.store(tensor(format!("{name}.grad.{step}")).1);
            grads.get_mut(*id).unwrap().copy_from_slice(&values);
        }
        optimizer.step(&mut params, &grads, 0.01);
    }
    for (name, id) in names.iter().zip(&ids) {
        let found = params.get(*id).layout.load(params.data(*id));
        let begin = tensor(format!("{name}.begin")).1;
        let largest =
            |wanted: &[f32], other: &[f32]| wanted.iter().zip(other).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
        let exact = tensor(format!("{name}.exact")).1;
        let change = largest(&exact, &begin);
        assert!(largest(&found, &exact) < exactly * change, "{name}: {} of {change}", largest(&found, &exact));
        let torch = tensor(format!("{name}.torch")).1;
        assert!(largest(&found, &torch) < 0.02 * change, "{name}: {} of {change}", largest(&found, &torch));
    }
}
