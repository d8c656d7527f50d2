//! `aha cost`: parameters, arithmetic, memory, GPU-hours and dollars of a model, with the formulas.

use crate::failure::usage;
use crate::output::Output;
use crate::table::{left, table};
use aha_model::cost::{
    GPUS, Gpu, KNOWN, Pace, Policy, Published, Shape, cache_bytes_per_token, flops, gpu, hours::implied_mfu, known,
    memory, published,
};
use aha_pipeline::recipe::{RawRecipe, work};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Count what a model costs: parameters, FLOPs, memory, GPU-hours and dollars.
///
/// Everything is arithmetic on the shape; the formula stands beside the number. For models whose training is published the
/// paper's figures stand beside ours. Known names: deepseek-v3, deepseek-r1, deepseek-v2, deepseek-v2-lite,
/// llama-3.1-405b, llama-3.1-70b, llama-3.1-8b, mixtral-8x7b, qwen2.5-0.5b, qwen2.5-7b, qwen2.5-32b, qwen3-30b-a3b.
#[derive(clap::Args)]
pub struct Args {
    /// A known name, a config.json, or a model's folder.
    model: PathBuf,
    /// A recipe, by name or file, whose stages are counted with this model as every model of it [default: none]
    #[arg(long, value_name = "NAME_OR_FILE")]
    recipe: Option<String>,
    /// A setting of the recipe, as for `aha run`; may be given many times.
    #[arg(long, value_name = "KEY=VALUE", requires = "recipe")]
    set: Vec<String>,
    /// Tokens of a completion in the recipe [default: the longest that each stage allows]
    #[arg(long, value_name = "N", value_parser = amount, requires = "recipe")]
    completion_tokens: Option<f64>,
    /// Share of the bf16 peak that is reached while sampling, which waits for memory, 0 to 1.
    #[arg(long, value_name = "SHARE", default_value_t = 0.05, value_parser = share)]
    sampling_mfu: f64,
    /// Tokens to train on, for example 14.8e12 [default: none, no hours]
    #[arg(long, value_name = "N", value_parser = amount)]
    tokens: Option<f64>,
    /// Tokens per sequence.
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u64).range(1..=1 << 24))]
    sequence_length: u64,
    /// Tokens whose activations are held at once [default: one sequence]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1 << 40))]
    tokens_in_flight: Option<u64>,
    /// Numbers that weights and moments are held in: f32, bf16, lean (bf16 where memory is short) or fp8.
    #[arg(long, value_name = "POLICY", default_value = "bf16", value_parser = policy)]
    precision: Policy,
    /// Layers keep only their inputs for the backward.
    #[arg(long)]
    gradient_checkpointing: bool,
    /// h800, h100, h200, h20, a100, a800 or v100.
    #[arg(long, value_name = "NAME", default_value = "h800", value_parser = gpu_name)]
    gpu: Gpu,
    /// GPUs, for the time by the clock and what one of them holds.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1 << 24))]
    gpus: u64,
    /// Share of the bf16 peak that is reached (model FLOPs utilisation), 0 to 1.
    #[arg(long, value_name = "SHARE", default_value_t = 0.4, value_parser = share)]
    mfu: f64,
    /// Measured tokens per second of one GPU, instead of --mfu [default: none]
    #[arg(long, value_name = "N", value_parser = amount, conflicts_with = "mfu")]
    tokens_per_second: Option<f64>,
    /// Dollars per GPU-hour (2 is what DeepSeek assumes for an H800).
    #[arg(long, value_name = "DOLLARS", default_value_t = 2.0, value_parser = amount)]
    price: f64,
    /// Print one JSON object on the last line of stdout.
    #[arg(long)]
    json: bool,
}

fn amount(text: &str) -> Result<f64, String> {
    match text.replace('_', "").parse::<f64>() {
        Ok(v) if v > 0.0 && v.is_finite() => Ok(v),
        _ => Err("must be a number above 0".into()),
    }
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(v) if v > 0.0 && v <= 1.0 => Ok(v),
        _ => Err("must be a number above 0 and at most 1".into()),
    }
}

fn policy(text: &str) -> Result<Policy, String> {
    Policy::ALL.into_iter().find(|p| p.name == text).ok_or_else(|| "must be f32, bf16, lean or fp8".into())
}

fn gpu_name(text: &str) -> Result<Gpu, String> {
    let names: Vec<&str> = GPUS.iter().map(|g| g.name).collect();
    gpu(text).ok_or_else(|| format!("must be one of {}", names.join(", ")))
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let output = Output::new(args.json);
    let (shape, published) = open(&args.model)?;
    let counted = args.recipe.as_ref().map(|name| recipe(&shape, name, &args)).transpose()?;
    let mut object = serde_json::Map::new();
    object.insert("model".into(), json!(args.model.display().to_string()));
    object.insert("model_type".into(), json!(shape.family));
    for (key, section) in [
        ("parameters", parameters(&shape)),
        ("flops_per_token", arithmetic(&shape, &args)),
        ("memory_bytes", memory_of(&shape, &args)),
    ] {
        output.text(section.0 + "\n");
        object.insert(key.into(), section.1);
    }
    if let Some(tokens) = args.tokens {
        let (text, value) = training(&shape, tokens, &args);
        output.text(text + "\n");
        object.insert("training".into(), value);
    }
    if let Some((text, value)) = counted {
        output.text(text + "\n");
        object.insert("recipe".into(), value);
    }
    if let Some(run) = published {
        let (text, value) = compare(&shape, &run, args.gpu.bf16_tflops);
        output.text(text);
        object.insert("published".into(), value);
    }
    output.object(&Value::Object(object));
    Ok(ExitCode::SUCCESS)
}

/// The shape, and the published training where the name is known.
fn open(model: &Path) -> anyhow::Result<(Shape, Option<Published>)> {
    let name = model.to_string_lossy();
    if let Some(shape) = known::known(&name) {
        return Ok((shape, published(&name)));
    }
    let file = if model.is_dir() { model.join("config.json") } else { model.to_path_buf() };
    if !file.exists() && !name.contains(['/', '.']) {
        let names: Vec<&str> = KNOWN.iter().map(|(n, _)| *n).collect();
        return Err(usage(format!("{name}: neither a file nor a known model ({})", names.join(", "))));
    }
    let text = std::fs::read_to_string(&file).map_err(|e| {
        anyhow::anyhow!("{}: cannot read: {e}; give a config.json, a model's folder or a known name", file.display())
    })?;
    let shape = Shape::from_json(&text).map_err(|e| anyhow::anyhow!("{}: {e}", file.display()))?;
    Ok((shape, None))
}

/// 671.03 B, 8.03 M.
fn short(n: f64) -> String {
    let (value, unit) = match n {
        _ if n >= 1e12 => (n / 1e12, " T"),
        _ if n >= 1e9 => (n / 1e9, " B"),
        _ if n >= 1e6 => (n / 1e6, " M"),
        _ if n >= 1e3 => (n / 1e3, " K"),
        _ => return format!("{n}"),
    };
    format!("{value:.2}{unit}")
}

fn bytes(n: f64) -> String {
    match n {
        _ if n >= 1e12 => format!("{:.2} TB", n / 1e12),
        _ if n >= 1e9 => format!("{:.2} GB", n / 1e9),
        _ if n >= 1e6 => format!("{:.2} MB", n / 1e6),
        _ => format!("{:.2} KB", n / 1e3),
    }
}

fn parameters(shape: &Shape) -> (String, Value) {
    let heading = ["parameters", "total", "active per token"].map(str::to_owned).to_vec();
    let mut rows = vec![heading];
    let mut parts = serde_json::Map::new();
    for p in shape.parts() {
        rows.push(vec![p.name.to_owned(), short(p.total as f64), short(p.active as f64)]);
        parts.insert(p.name.to_owned(), json!({"total": p.total, "active": p.active}));
    }
    let (total, active) = shape.num_parameters();
    rows.push(vec!["model".to_owned(), short(total as f64), short(active as f64)]);
    let mtp = shape.mtp();
    if mtp.total > 0 {
        rows.push(vec![
            "multi-token prediction, beside it".to_owned(),
            short(mtp.total as f64),
            short(mtp.active as f64),
        ]);
    }
    let value = json!({
        "total": total, "active": active, "multi_token_prediction": mtp.total, "parts": parts,
    });
    (table(&rows), value)
}

fn arithmetic(shape: &Shape, args: &Args) -> (String, Value) {
    let f = flops(shape, args.sequence_length);
    let (_, active) = shape.num_parameters();
    let line = |name: &str, value: f64, formula: String| vec![name.to_owned(), short(value), formula];
    let mut rows = vec![
        line(
            "FLOPs per token, forward: matrices",
            f.matrices,
            "2 x parameters multiplied (active less embedding, norms)".into(),
        ),
        line(
            "attention",
            f.attention,
            format!("2 x layers x heads x (query + value width) x (T + 1) / 2, T = {}", args.sequence_length),
        ),
        line("training", f.training(), "3 x forward".into()),
        line("6 N D, for comparison", 6.0 * active as f64, "6 x active parameters".into()),
    ];
    if f.mtp > 0.0 {
        rows.insert(
            3,
            line(
                "training with multi-token prediction",
                f.training_with_mtp(),
                "3 x (forward + its module and head)".into(),
            ),
        );
    }
    let value = json!({
        "sequence_length": args.sequence_length, "forward": f.forward(), "attention": f.attention,
        "training": f.training(), "training_with_mtp": f.training_with_mtp(),
    });
    (left(&rows), value)
}

fn memory_of(shape: &Shape, args: &Args) -> (String, Value) {
    let p = &args.precision;
    let tokens = args.tokens_in_flight.unwrap_or(args.sequence_length);
    let m = memory::training(shape, p, tokens, args.gradient_checkpointing);
    let cache = cache_bytes_per_token(shape, p);
    let n = "parameters (multi-token prediction included)";
    let line = |name: &str, value: f64, formula: String| vec![name.to_owned(), bytes(value), formula];
    let keeps = if args.gradient_checkpointing {
        "layer inputs and one open layer"
    } else {
        "inputs of every product and norm"
    };
    let per_gpu = m.total() / args.gpus as f64;
    let mut rows = vec![
        line("memory: weights", m.weights, format!("{} B x {n}", p.weights)),
        line("master copy", m.master, format!("{} B x {n}", p.master)),
        line("gradients", m.gradients, format!("{} B x {n}", p.gradients)),
        line("moments", m.moments, format!("{} B x {n}", p.moments)),
        line("activations", m.activations, format!("{} B x {tokens} tokens x {keeps}", p.activation)),
        line("training", m.total(), p.what.to_owned()),
        line("key/value cache per token", cache, format!("{} B x layers x values kept", p.cache)),
        line(
            "key/value cache per sequence",
            cache * args.sequence_length as f64,
            format!("x {} tokens", args.sequence_length),
        ),
    ];
    if args.gpus > 1 {
        let fits = if per_gpu <= args.gpu.memory_gb * 1e9 { "fits" } else { "does not fit" };
        let formula =
            format!("training / {} GPUs, everything cut evenly; {fits} into {} GB", args.gpus, args.gpu.memory_gb);
        rows.push(line("on one GPU, at least", per_gpu, formula));
    }
    let value = json!({
        "precision": p.name, "weights": m.weights, "master": m.master, "gradients": m.gradients, "moments": m.moments,
        "activations": m.activations, "tokens_in_flight": tokens, "training": m.total(), "cache_per_token": cache,
        "per_gpu": per_gpu,
    });
    (left(&rows), value)
}

fn training(shape: &Shape, tokens: f64, args: &Args) -> (String, Value) {
    let per_token = flops(shape, args.sequence_length).training();
    let peak = args.gpu.bf16_tflops * 1e12;
    let pace = training_pace(args);
    let gpu_hours = pace.gpu_hours(tokens, per_token);
    let (days, dollars) = (gpu_hours / args.gpus as f64 / 24.0, gpu_hours * args.price);
    let mfu = implied_mfu(tokens, per_token, gpu_hours, peak);
    let rows = [
        vec![
            "training FLOPs".to_owned(),
            format!("{:.3e}", tokens * per_token),
            format!("{tokens:.4e} tokens x {per_token:.4e}"),
        ],
        vec![format!("{} hours", args.gpu.name), short(gpu_hours), pace.formula(tokens, per_token)],
        vec![
            "utilisation of the bf16 peak".to_owned(),
            format!("{mfu:.3}"),
            "training FLOPs / (hours x 3600 x peak)".to_owned(),
        ],
        vec!["days".to_owned(), format!("{days:.1}"), format!("hours / {} GPUs / 24", args.gpus)],
        vec!["dollars".to_owned(), format!("${}", short(dollars)), format!("hours x ${}", args.price)],
    ];
    let value = json!({
        "tokens": tokens, "flops": tokens * per_token, "gpu": args.gpu.name, "gpus": args.gpus, "gpu_hours": gpu_hours,
        "mfu": mfu, "days": days, "dollars": dollars, "formula": pace.formula(tokens, per_token),
    });
    (left(&rows), value)
}

/// How fast training goes: as measured, or by utilisation.
fn training_pace(args: &Args) -> Pace {
    match args.tokens_per_second {
        Some(rate) => Pace::TokensPerSecond(rate),
        None => Pace::Utilisation { mfu: args.mfu, peak: args.gpu.bf16_tflops * 1e12 },
    }
}

/// What every stage of a recipe costs.
fn recipe(shape: &Shape, name: &str, args: &Args) -> anyhow::Result<(String, Value)> {
    let mut raw = RawRecipe::open(name)?;
    args.set.iter().try_for_each(|set| raw.set(set))?;
    raw.give_missing();
    let recipe = raw.resolve()?;
    let f = flops(shape, args.sequence_length);
    let peak = args.gpu.bf16_tflops * 1e12;
    let training = training_pace(args);
    let sampling = Pace::Utilisation { mfu: args.sampling_mfu, peak };
    let scoring = Pace::Utilisation { mfu: args.mfu, peak };
    let heading = ["stage", "kind", "sampled", "trained", "scored", "GPU-hours", "dollars"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    let line = |name: &str, kind: &str, tokens: [f64; 3], hours: f64| {
        let shown = tokens.map(|n| if n > 0.0 { short(n) } else { "-".to_owned() });
        let dollars = format!("${:.2}", hours * args.price);
        [vec![name.to_owned(), kind.to_owned()], shown.to_vec(), vec![format!("{hours:.3}"), dollars]].concat()
    };
    let (mut sums, mut whole, mut stages, mut uncounted) = ([0.0; 3], 0.0, Vec::new(), Vec::new());
    for w in work(&recipe, args.completion_tokens) {
        let tokens = [w.sampled, w.trained, w.scored];
        let hours = sampling.gpu_hours(w.sampled, f.forward())
            + training.gpu_hours(w.trained, f.training())
            + scoring.gpu_hours(w.scored, f.forward());
        rows.push(line(&w.stage, &w.kind, tokens, hours));
        sums.iter_mut().zip(tokens).for_each(|(sum, t)| *sum += t);
        whole += hours;
        stages.push(json!({
            "name": w.stage, "kind": w.kind, "sampled": w.sampled, "trained": w.trained, "scored": w.scored,
            "gpu_hours": hours, "dollars": hours * args.price,
        }));
        uncounted.extend(w.uncounted);
    }
    rows.push(line("all", "", sums, whole));
    uncounted.sort_unstable();
    uncounted.dedup();
    let mut notes = format!(
        "(tokens from above: completions {}; hours: 2 x, 6 x and 2 x parameters a token at {} of the peak while sampling and {} while \
training and scoring; {:.2} days on {} {})",
        args.completion_tokens.map_or("as long as allowed".to_owned(), |n| format!("of {n} tokens")),
        args.sampling_mfu,
        args.tokens_per_second.map_or(args.mfu.to_string(), |rate| format!("{rate} tokens/s")),
        whole / args.gpus as f64 / 24.0,
        args.gpus,
        args.gpu.name,
    );
    if !uncounted.is_empty() {
        notes += &format!("\n(not there, so not counted: {})", uncounted.join(", "));
    }
    let value = json!({
        "name": recipe.name, "stages": stages, "sampled": sums[0], "trained": sums[1], "scored": sums[2],
        "gpu": args.gpu.name, "gpus": args.gpus, "gpu_hours": whole, "dollars": whole * args.price,
        "not_counted": uncounted,
    });
    Ok((format!("{}\n{notes}", table(&rows)), value))
}

/// The published training beside the same from its stated inputs.
fn compare(shape: &Shape, run: &Published, peak_tflops: f64) -> (String, Value) {
    let heading =
        [format!("published ({})", run.source), "GPU-hours".into(), "ours".into(), "from".into(), "MFU".into()];
    let mut rows = vec![heading.to_vec()];
    let (mut sum, mut own, mut phases) = (0.0, 0.0, Vec::new());
    for p in run.phases {
        let per_token = flops(shape, p.sequence_length).training();
        let tokens = p.tokens.unwrap_or(0.0);
        let ours = p.pace.gpu_hours(tokens, per_token);
        let mfu = p.tokens.map(|t| implied_mfu(t, per_token, p.gpu_hours, peak_tflops * 1e12));
        let formula = p.pace.formula(tokens, per_token);
        let shown = mfu.map_or("-".to_owned(), |v| format!("{v:.3}"));
        rows.push(vec![p.name.to_owned(), short(p.gpu_hours), short(ours), formula.clone(), shown]);
        phases.push(json!({"name": p.name, "published": p.gpu_hours, "ours": ours, "formula": formula, "mfu": mfu}));
        (sum, own) = (sum + p.gpu_hours, own + ours);
    }
    rows.push(vec!["total".to_owned(), short(sum), short(own), String::new(), String::new()]);
    if let (Some(price), Some(dollars)) = (run.price, run.dollars) {
        let ours = format!("${}", short(own * price));
        rows.push(vec![
            "dollars".to_owned(),
            format!("${}", short(dollars)),
            ours,
            format!("hours x ${price}"),
            String::new(),
        ]);
    }
    let value = json!({
        "source": run.source, "gpu": run.gpu, "phases": phases, "gpu_hours": sum, "ours": own, "dollars": run.dollars,
        "our_dollars": run.price.map(|p| p * own), "note": run.note,
    });
    (format!("{}\n({})", left(&rows), run.note), value)
}
