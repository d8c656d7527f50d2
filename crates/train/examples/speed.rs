//! Scratch measurement.
use aha_engine::{Control, EngineConfig, Request, SamplingParams, generate, score};
use aha_kernels::*;
use aha_model::*;
use aha_train::PackedBatch;
use std::time::Instant;
fn main() {
    let json = r#"{"model_type":"llama","architectures":["LlamaForCausalLM"],"vocab_size":640,"hidden_size":128,"intermediate_size":384,"num_hidden_layers":4,"num_attention_heads":4,"num_key_value_heads":4,"rms_norm_eps":1e-6,"max_position_embeddings":1024,"rope_theta":10000.0,"tie_word_embeddings":false,"hidden_act":"silu","initializer_range":0.02}"#;
    let config = ModelConfig::from_json(json).unwrap();
    let mut d = Decoder::init(config, 1);
    println!("params {}", d.params.iter().map(|(_, p)| p.data.len()).sum::<usize>());
    let mut tape = Tape::new(true);
    let mut grads = Gradients::new(&d.params);
    let mut opt = AdamW::new(AdamWConfig::default(), &d.params);
    let seqs: Vec<Vec<u32>> =
        (0..120).map(|i| (0..64 + i % 20).map(|j| ((i * 7 + j * 13) % 640) as u32).collect()).collect();
    let batch = PackedBatch::new(seqs.iter().map(|s| (&s[..1], &s[1..])));
    for i in 0..10 {
        let t = Instant::now();
        grads.zero();
        let mut loss = 0.0;
        batch.train(&d, &mut tape, &mut grads, 1.0, |lp, _| {
            loss = -lp.iter().map(|x| *x as f64).sum::<f64>() / lp.len() as f64;
            vec![-1.0 / lp.len() as f32; lp.len()]
        });
        let t1 = t.elapsed();
        opt.step(&mut d.params, &grads, 1e-3);
        println!(
            "{i} loss {loss:.4} {} tokens {:.1} ms ({:.1} fwd+bwd) {:.0} tok/s",
            batch.tokens.len(),
            t.elapsed().as_secs_f64() * 1e3,
            t1.as_secs_f64() * 1e3,
            batch.tokens.len() as f64 / t.elapsed().as_secs_f64()
        );
    }
    let reqs: Vec<Request> = (0..32)
        .map(|i| Request {
            prompt: seqs[i][..20].into(),
            samples: 16,
            params: SamplingParams { max_new_tokens: 100, ..Default::default() },
            seed: i as u64,
        })
        .collect();
    for _ in 0..3 {
        let t = Instant::now();
        let out = generate(&d, &reqs, &EngineConfig::default(), &Control::default()).unwrap();
        let n: usize = out.iter().map(|c| c.tokens.len()).sum();
        println!("generate {n} tokens {:.0} tok/s", n as f64 / t.elapsed().as_secs_f64());
        let full: Vec<Vec<u32>> = out.iter().map(|c| [&reqs[c.request].prompt[..], &c.tokens].concat()).collect();
        let refs: Vec<&[u32]> = full.iter().map(|v| &v[..]).collect();
        let t = Instant::now();
        let s = score(&d, &refs, 1.0, 8192).unwrap();
        let k: usize = full.iter().map(|v| v.len()).sum();
        let mut bad = 0;
        for (c, s) in out.iter().zip(&s) {
            bad += c.logprobs.iter().zip(&s.logprobs[19..]).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
        }
        println!("score {:.0} tok/s; {bad} of {n} differ", k as f64 / t.elapsed().as_secs_f64());
    }
}
