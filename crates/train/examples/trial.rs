//! Scratch trial of the mini recipe.
use aha_data::corpus::{CorpusConfig, Style, document};
use aha_engine::{Control, EngineConfig, FinishReason, Request, SamplingParams, generate};
use aha_kernels::AdamWConfig;
use aha_model::{Decoder, ModelConfig, TextFiles, Tokenizer};
use aha_tasks::mini::{Family, MiniTask};
use aha_tasks::*;
use aha_train::advantage::*;
use aha_train::grpo::*;
use aha_train::policy_loss::*;
use aha_train::pretrain::{self, Documents, PretrainConfig};
use aha_train::schedule::*;
use aha_train::*;
use rayon::prelude::*;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

fn arg(name: &str, default: f64) -> f64 {
    let a: Vec<String> = std::env::args().collect();
    a.iter().position(|x| x == &format!("--{name}")).map_or(default, |i| a[i + 1].parse().unwrap())
}
struct Docs<'a>(&'a CorpusConfig, &'a Tokenizer, u32);
impl Documents for Docs<'_> {
    fn tokens(&self, r: std::ops::Range<u64>) -> Vec<Vec<u32>> {
        r.into_par_iter()
            .map(|i| {
                let d = document(self.0, i);
                let mut t = self.1.encode(&(d.prompt + &d.body), false).unwrap();
                t.push(self.2);
                t
            })
            .collect()
    }
}
struct Print(Instant, u64, Box<dyn Fn(u64, &Decoder)>);
impl Observer for Print {
    fn step(&mut self, r: StepReport) -> Result<(), TrainError> {
        if r.step % self.1 == 0 || r.step == 1 {
            let keep = [
                "loss",
                "eval_loss",
                "reward",
                "accuracy",
                "rewards/format/mean",
                "completions/mean_length",
                "completions/clipped_ratio",
                "kl",
                "entropy",
                "grad_norm",
                "reflective_words",
                "time/generate",
                "time/train",
                "tokens_per_second",
                "sampling/sampling_logp_difference/max",
            ];
            let s: Vec<String> = r
                .metrics
                .iter()
                .chain(&r.timing)
                .filter(|(k, _)| keep.contains(&k.as_str()) || k.starts_with("accuracy/"))
                .map(|(k, v)| format!("{} {v:.4}", k.rsplit('/').next().unwrap()))
                .collect();
            println!("{:6.0}s step {} {}", self.0.elapsed().as_secs_f64(), r.step, s.join(" "));
        }
        Ok(())
    }
    fn evaluate(&mut self, s: u64, d: &Decoder) -> Result<(), TrainError> {
        (self.2)(s, d);
        Ok(())
    }
}
fn measure(
    label: &str,
    d: &Decoder,
    task: &MiniTask,
    p: &Prompter,
    n: usize,
    k: usize,
    temp: f32,
    max: usize,
    show: bool,
) {
    let t = Instant::now();
    let problems: Vec<Problem> = (0..n as u64).map(|i| task.problem(Split::Eval, i).unwrap()).collect();
    let reqs: Vec<Request> = problems
        .iter()
        .enumerate()
        .map(|(i, q)| Request {
            prompt: p.tokens(q).unwrap(),
            samples: k,
            params: SamplingParams {
                temperature: temp,
                max_new_tokens: max,
                stop_tokens: p.stop_tokens().to_vec(),
                ..Default::default()
            },
            seed: 77 + i as u64,
        })
        .collect();
    let out = generate(d, &reqs, &EngineConfig::default(), &Control::default()).unwrap();
    let mut rows: std::collections::BTreeMap<String, Vec<f64>> = Default::default();
    for c in &out {
        let q = &problems[c.request];
        let text = p.completion(&c.tokens).unwrap();
        let j = task.judge(q, &text, c.finish == FinishReason::Stop);
        let easy = text.contains("easy") || text.contains("简单");
        let long_ok = f64::from(u8::from(j.lenient_verdict == Verdict::Correct));
        let is_long = !easy && reflective(&text) > 0 || (!easy && q.family == "missing" && text.len() > 60);
        for key in [q.family.clone(), "ALL".into()] {
            let e = rows.entry(key).or_insert_with(|| vec![0.0; 9]);
            e[0] += 1.0;
            e[1] += f64::from(u8::from(j.verdict == Verdict::Correct));
            e[2] += long_ok;
            e[3] += f64::from(u8::from(j.format));
            e[4] += c.tokens.len() as f64;
            e[5] += f64::from(u8::from(easy));
            e[6] += reflective(&text) as f64;
            if is_long {
                e[7] += 1.0;
                e[8] += long_ok;
            }
        }
        if show && c.sample < 2 && c.request < 8 {
            println!("   [{}] {} -> {:?} {}", q.family, q.question, j.verdict, text.replace('\n', "/"));
        }
    }
    println!("== {label} ({:.0}s)", t.elapsed().as_secs_f64());
    for (k, e) in rows {
        let n = e[0];
        println!(
            "   {k:10} pass {:.3} lenient {:.3} format {:.3} tokens {:.1} blunt {:.3} reflect {:.2} | long {:.3} right-when-long {:.3}",
            e[1] / n,
            e[2] / n,
            e[3] / n,
            e[4] / n,
            e[5] / n,
            e[6] / n,
            e[7] / n,
            e[8] / e[7].max(1.0)
        );
    }
}
fn reflective(t: &str) -> usize {
    aha_tasks::text::reflective_words(t)
}
fn main() {
    let seed = arg("seed", 1.0) as u64;
    let dir = format!("/tmp/trial{}", arg("dir", seed as f64) as u64);
    let corpus = CorpusConfig {
        seed,
        blunt: arg("blunt", 0.6),
        short: arg("short", 0.1),
        long: arg("long", 0.3),
        tagged: arg("tagged", 0.4),
        mean_wrong_tries: arg("tries", 3.0),
        max_wrong_tries: arg("maxtries", 9.0) as usize,
        slip: arg("slip", 0.1),
        ..Default::default()
    };
    let t = Instant::now();
    let json = aha_data::train_tokenizer(
        (0..arg("tokdocs", 8000.0) as u64).map(|i| {
            let d = document(&corpus, i);
            d.prompt + &d.body
        }),
        arg("vocab", 512.0) as usize,
    )
    .unwrap();
    let tok = Arc::new(Tokenizer::from_bytes(json.as_bytes()).unwrap());
    println!("tokenizer {} in {:.1}s", tok.vocab_size(), t.elapsed().as_secs_f64());
    let eos = tok.token_to_id("<|end|>").unwrap();
    let docs = Docs(&corpus, &tok, eos);
    let t = Instant::now();
    let sample = docs.tokens(0..4000);
    let n: usize = sample.iter().map(Vec::len).sum();
    println!("docs mean tokens {:.1}, {:.0} tok/s", n as f64 / 4000.0, n as f64 / t.elapsed().as_secs_f64());
    let mut by: std::collections::BTreeMap<String, (usize, usize, usize)> = Default::default();
    for (i, t) in sample.iter().enumerate() {
        let d = document(&corpus, i as u64);
        let e = by.entry(format!("{:?} {:?}", d.puzzle.family(), d.style)).or_default();
        e.0 += t.len();
        e.1 += 1;
        e.2 = e.2.max(t.len());
        if d.style == Style::Long && i < 60 {
            println!("{}{}", d.prompt, d.body);
        }
    }
    for (k, (a, b, m)) in by {
        println!("  {k}: {:.1} max {m}", a as f64 / b as f64);
    }
    let (h, l, f, heads, kv) =
        (arg("hidden", 128.0), arg("layers", 4.0), arg("ffn", 384.0), arg("heads", 4.0), arg("kv", 4.0));
    let config = ModelConfig::from_json(&format!(r#"{{"model_type":"llama","vocab_size":{},"hidden_size":{h},"intermediate_size":{f},"num_hidden_layers":{l},"num_attention_heads":{heads},"num_key_value_heads":{kv},"rms_norm_eps":1e-6,"max_position_embeddings":1024,"rope_theta":10000.0,"tie_word_embeddings":false,"hidden_act":"silu","initializer_range":0.02,"eos_token_id":{eos}}}"#, tok.vocab_size())).unwrap();
    let task = MiniTask::new("mini", seed, Family::ALL.to_vec(), 0.25, JudgeOptions::default());
    let prompter = Prompter::new(tok.clone(), PromptStyle::Mini, None, None, None, vec![eos]).unwrap();
    let text = TextFiles::new(Some(&tok), None);
    let max = arg("max", 256.0) as usize;
    let batch = arg("batch", 8192.0) as usize;
    let steps = (arg("tokens", 8e6) / batch as f64) as u64;
    let validation = Docs(&CorpusConfig { seed: 999, ..corpus.clone() }, &tok, eos).tokens(0..256);
    let opt = |wd: f64| AdamWConfig { weight_decay: wd as f32, ..Default::default() };
    let pc = PretrainConfig {
        steps,
        batch_tokens: batch,
        context: 512,
        schedule: Schedule {
            kind: ScheduleKind::Cosine,
            peak: arg("lr", 3e-3),
            min_ratio: 0.05,
            warmup_steps: 50,
            total_steps: steps,
            decay_steps: 0,
        },
        optimizer: opt(0.05),
        validate_every: 200,
        save_steps: 0,
        settings: format!("{corpus:?}{steps}{h}{l}{f}{heads}{kv}{}", arg("lr", 3e-3)),
    };
    let (base, _) = pretrain::run(
        &pc,
        || Decoder::init(config, seed),
        &docs,
        &validation,
        Path::new(&format!("{dir}/pre")),
        &text,
        &mut Print(Instant::now(), 100, Box::new(|_, _| ())),
    )
    .unwrap();
    measure("base", &base, &task, &prompter, 200, 16, 1.0, max, true);
    measure("base greedy", &base, &task, &prompter, 200, 1, 0.0, max, false);
    let rl = arg("rl", 100.0) as u64;
    if rl == 0 {
        return;
    }
    let _ = std::fs::remove_dir_all(format!("{dir}/rl"));
    let beta = arg("beta", 0.001);
    let gc = GrpoConfig {
        steps: rl,
        num_prompts: 32,
        num_generations: 16,
        steps_per_generation: arg("spg", 1.0) as usize,
        num_iterations: 1,
        sampling: SamplingParams { max_new_tokens: max, ..Default::default() },
        schedule: Schedule {
            kind: ScheduleKind::Cosine,
            peak: arg("rllr", 3e-4),
            min_ratio: 0.1,
            warmup_steps: 5,
            total_steps: rl,
            decay_steps: 0,
        },
        optimizer: opt(0.0),
        loss: PolicyLossConfig {
            loss_type: if arg("dapo", 1.0) > 0.0 { LossType::Dapo } else { LossType::Grpo },
            beta,
            epsilon: 0.2,
            epsilon_high: 0.2,
            dual_clip: None,
            max_completion_length: max,
        },
        advantage: AdvantageConfig {
            scale: if arg("scale", 1.0) > 0.0 { ScaleRewards::Group } else { ScaleRewards::None },
            ..Default::default()
        },
        rewards: vec![
            RewardSpec::new(RewardKind::Accuracy, 1.0),
            RewardSpec::new(RewardKind::Format, arg("format", 0.1)),
        ],
        mask_truncated_completions: false,
        overlong: None,
        ref_refresh_steps: 25,
        micro_batch_tokens: 16384,
        engine: EngineConfig::default(),
        save_steps: 0,
        eval_steps: arg("evalsteps", 50.0) as u64,
        seed,
        settings: String::new(),
    };
    let (t2, p2) = (task.clone(), prompter.clone());
    let b2 = base.clone();
    let (zero, _) = Grpo { config: &gc, task: &task, prompter: &prompter, text: &text }
        .run(
            move || Ok(b2),
            None,
            Path::new(&format!("{dir}/rl")),
            &mut Print(
                Instant::now(),
                5,
                Box::new(move |s, d| measure(&format!("step {s}"), d, &t2, &p2, 200, 4, 1.0, max, false)),
            ),
        )
        .unwrap();
    measure("zero", &zero, &task, &prompter, 200, 16, 1.0, max, true);
}
