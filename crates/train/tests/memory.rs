//! Memory: flat over many steps of varying sizes, and never a tokens x vocabulary buffer. One test, alone in its process,
//! because it reads the process's own numbers.

use aha_kernels::{AdamWConfig, Gradients, Layout, Optimizer, Tape, Weight, WeightGradients, logprob};
use aha_model::{Decoder, ModelConfig};
use aha_train::PackedBatch;

/// A field of /proc/self/status in MiB; `None` where there is no such file.
fn status(field: &str) -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find(|l| l.starts_with(field))?;
    line.split_whitespace().nth(1)?.parse::<f64>().ok().map(|kib| kib / 1024.0)
}

#[test]
fn memory_stays_flat_and_the_vocabulary_never_meets_all_tokens() {
    if status("VmRSS:").is_none() {
        println!("skipped: this system has no /proc/self/status");
        return;
    }
    let config = r#"{"model_type": "llama", "vocab_size": 300, "hidden_size": 64, "intermediate_size": 128,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
        "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "hidden_act": "silu"}"#;
    let mut model = Decoder::init(ModelConfig::from_json(config).unwrap(), 1);
    let (mut tape, mut grads) = (Tape::new(true), Gradients::new(&model.params));
    let mut optimizer = Optimizer::new(AdamWConfig::default(), &model.params);
    let mut after = Vec::new();
    for step in 0..240usize {
        let lengths = (0..20).map(|i| 8 + (step * 37 + i * 11) % 90);
        let sequences: Vec<Vec<u32>> =
            lengths.map(|n| (0..n).map(|j| ((j * 7 + step) % 300) as u32).collect()).collect();
        let batch = PackedBatch::new(sequences.iter().map(|s| s.split_at(1)));
        grads.zero();
        batch.train(&model, &mut tape, &mut grads, 1.0, |l, _| vec![-1.0 / l.len() as f32; l.len()]);
        optimizer.step(&mut model.params, &grads, 1e-4);
        if step == 40 || step == 239 {
            after.push(status("VmRSS:").unwrap());
        }
    }
    assert!(
        after[1] - after[0] < 8.0,
        "resident memory grew from {:.1} to {:.1} MiB over 200 steps",
        after[0],
        after[1]
    );

    // 8192 tokens x 32768 words would be 1 GiB of logits, twice that with gradients.
    let (tokens, vocab, d) = (8192, 32768, 16);
    let w = vec![0.01f32; Layout::Panels { n: vocab, k: d }.stored()];
    let h = vec![0.1f32; tokens * d];
    let targets: Vec<u32> = (0..tokens as u32).collect();
    let before = status("VmHWM:").unwrap().max(after[1]);
    let (mut logp, mut entropy) = (vec![0.0; tokens], vec![0.0; tokens]);
    let weight = Weight::f32(&w, vocab, d);
    logprob::forward(&mut logp, &mut entropy, &h, weight, &targets, 1.0);
    let (mut d_h, mut d_w) = (vec![0.0; h.len()], vec![0.0; w.len()]);
    logprob::backward(&mut d_h, &mut WeightGradients::plain(&mut d_w), &logp, &h, weight, &targets, 1.0);
    let grown = status("VmHWM:").unwrap() - before;
    assert!(grown < 256.0, "the log-probabilities took {grown:.0} MiB at their peak");
}
