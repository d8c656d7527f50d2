//! The report as a whole: a realistic run, hostile text, and every kind of emptiness. The realistic page is also written
//! to the folder named by `AHA_REPORT_DEMO`, to look at in a browser.

use std::collections::BTreeMap;

use aha_eval::{
    Cell, Curve, EvalSummary, Measures, ReportInput, SampleEntry, SampleGroup, Table, Verdict, render_curves_svg,
    render_report,
};

/// Noise in -1..1, a function of its arguments.
fn noise(stream: u64, i: u64) -> f64 {
    let mut z = (stream << 32 | i).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z ^= z >> 29;
    (z >> 11) as f64 / (1u64 << 52) as f64 - 1.0
}

fn curve(stage: &str, title: &str, unit: &str, steps: u64, shape: impl Fn(f64) -> f64, wobble: f64) -> Curve {
    let stream = title.bytes().map(u64::from).sum();
    let points = (1..=steps).map(|step| (step as f64, shape(step as f64) + wobble * noise(stream, step))).collect();
    Curve { stage: stage.into(), title: title.into(), unit: unit.into(), x_label: "step".into(), points, note: None }
}

fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn measures(pass: f64, tokens: f64, reflective: f64) -> Measures {
    Measures {
        problems: 256,
        samples: 16,
        pass_at_1: Some(pass),
        pass_at_1_se: Some((pass * (1.0 - pass) / 256.0).sqrt()),
        pass_at_16: Some((pass * 1.5 + 0.1).min(1.0)),
        cons_at_16: Some((pass * 1.1).min(1.0)),
        greedy_pass_at_1: Some((pass * 1.05).min(1.0)),
        format_rate: Some((0.3 + pass * 0.8).min(1.0)),
        mean_response_tokens: Some(tokens),
        reflective_words: Some(reflective),
        language_consistency: Some(0.97),
        lenient_pass_at_1: Some((pass + 0.04).min(1.0)),
        mixed_language_rate: Some(0.05 * (1.0 - pass)),
        not_judged: 0,
        truncated_rate: Some(0.11 * (1.0 - pass)),
    }
}

fn eval(pass: [f64; 4], tokens: f64, reflective: f64) -> EvalSummary {
    let names = ["chain", "countdown", "comparison", "remainder"];
    let by_family: BTreeMap<_, _> =
        names.into_iter().zip(pass).map(|(name, pass)| (name.to_owned(), measures(pass, tokens, reflective))).collect();
    EvalSummary { overall: measures(pass.iter().sum::<f64>() / 4.0, tokens, reflective), by_family }
}

fn entry(step: u64, completion: &str, verdict: Verdict, reward: f64, reflective_words: usize) -> SampleEntry {
    let checkpoint = if step == 0 { "base".into() } else { format!("step {step}") };
    SampleEntry { checkpoint, step, completion: completion.into(), verdict, reward: Some(reward), reflective_words }
}

fn demo() -> ReportInput {
    use Verdict::{Correct, Incorrect, NotJudged};
    let rl = |title: &str, unit: &str, shape: fn(f64) -> f64, wobble| curve("zero", title, unit, 120, shape, wobble);
    let mut curves = vec![
        rl("Reward", "", |s| 0.45 + 1.4 * logistic((s - 45.0) / 14.0), 0.12),
        rl("Accuracy", "", |s| 0.2 + 0.7 * logistic((s - 48.0) / 13.0), 0.07),
        rl("Response length", "tokens", |s| 46.0 + 26.0 * logistic((s - 60.0) / 16.0), 4.0),
        rl(
            "KL to the reference",
            "nats",
            |s| 0.08 * logistic((s - 40.0) / 12.0) * (1.0 + 0.3 * (s / 9.0).sin()),
            0.008,
        ),
        rl("Entropy", "nats", |s| 0.62 - 0.4 * logistic((s - 40.0) / 18.0), 0.03),
        rl("Format", "", |s| (0.45 + 0.6 * logistic((s - 18.0) / 6.0)).min(0.985), 0.015),
        rl("Reflective words", "per response", |s| 0.4 + 1.5 * logistic((s - 55.0) / 12.0), 0.15),
        rl("Gradient norm", "", |s| 0.9 - 0.3 * logistic((s - 50.0) / 20.0), 0.2),
        rl("Learning rate", "", |s| 3e-4 * (s / 10.0).min(1.0), 0.0),
        curve("base", "Training loss", "nats per token", 900, |s| 1.1 + 4.2 * (-s / 60.0).exp(), 0.08),
        curve("base", "Validation loss", "nats per token", 9, |s| 1.12 + 1.4 * (-s / 1.4).exp(), 0.0),
        curve("base", "Throughput", "tokens/s", 900, |_| 41_000.0, 900.0),
    ];
    curves[5].note = Some("Learnt first: half of the prompts reach it within twenty steps.".into());
    curves[3].points[70].1 = f64::NAN;
    curves[10].points.iter_mut().for_each(|point| point.0 *= 100.0);
    let countdown = SampleGroup {
        problem: "Use the numbers 3, 5 and 7, each once, with + and -, to make 9.".into(),
        family: "countdown".into(),
        reference: "7+5-3".into(),
        entries: vec![
            entry(0, "3+5+7", Incorrect, 0.0, 0),
            entry(20, "<think>3+5=8 8+7=15 want 9 so 3+5+7</think>\n<answer>3+5+7</answer>", Incorrect, 1.0, 0),
            entry(
                40,
                "<think>\n3+5+7=15 want 9 no\nwait, try again: 3-5+7=5 want 9 no\n5+7-3=9 want 9 yes\n</think>\n<answer>5+7-3</answer>",
                Correct,
                2.0,
                1,
            ),
            entry(
                120,
                "<think>\n3+5+7=15 want 9 no\n3-5+7=5 want 9 no\nhowever 7 is large, check 7-3=4, 4+5=9\nverify: 7-3+5=9 want 9 yes\n</think>\n<answer>7-3+5</answer>",
                Correct,
                2.0,
                3,
            ),
        ],
    };
    let chinese = SampleGroup {
        problem: "计算：12+19-7+4".into(),
        family: "chain".into(),
        reference: "28".into(),
        entries: vec![
            entry(0, "答案是 30。", Incorrect, 0.0, 0),
            entry(40, "<think>12+19=31，31-7=24，24+4=27</think><answer>27</answer>", Incorrect, 1.0, 0),
            entry(80, "<think>12+19=31，31-7=24，24+4=27？等等，检查：24+4=28", NotJudged, 0.0, 2),
            entry(
                120,
                "<think>12+19=31，31-7=24，24+4=28。等等，检查：28-4=24，对</think><answer>28</answer>",
                Correct,
                2.0,
                2,
            ),
        ],
    };
    ReportInput {
        title: "R1-Zero in miniature".into(),
        recipe: "mini-zero".into(),
        recipe_toml: "seed = 1\n\n[[stage]]\nname = \"zero\"\nkind = \"grpo\"\nnum_generations = 16\ntemperature = 1.0\nbeta = 0.001\n".into(),
        seed: 1,
        wall_s: 803.0,
        facts: [("Model", "4.8 M parameters, 6 layers"), ("Pretraining", "8.1 M tokens"), ("Rollouts", "61,440"), ("Precision", "f32")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
        curves,
        evals: vec![
            ("base".into(), eval([0.29, 0.16, 0.41, 0.22], 44.2, 0.41)),
            ("step 40".into(), eval([0.61, 0.30, 0.72, 0.55], 52.8, 0.9)),
            ("step 80".into(), eval([0.88, 0.52, 0.93, 0.86], 64.0, 1.52)),
            ("zero".into(), eval([0.96, 0.71, 0.985, 0.95], 71.6, 1.88)),
        ],
        samples: vec![countdown, chinese],
        reflective_terms: ["wait", "however", "check", "verify", "again", "等等", "检查"].map(str::to_owned).to_vec(),
        notes: vec![
            "Reinforcement learning starts from the pretrained base, without any fine-tuning in between. Rewards are the \
             right answer and the required format, nothing else."
                .into(),
        ],
        tables: vec![Table {
            title: "Safety & <b>more</b>".into(),
            note: "Share refused.".into(),
            columns: ["refused unsafe", "never measured"].map(str::to_owned).to_vec(),
            rows: vec![("r1".into(), vec![Cell { value: Some(0.9625), se: Some(0.0125) }, Cell::default()])],
        }],
    }
}

/// A crude reading of the page as a browser would: every tag closed in order, and which tags there are.
fn tags(html: &str) -> Vec<String> {
    let mut open: Vec<String> = Vec::new();
    let mut seen = Vec::new();
    let mut rest = html;
    while let Some(at) = rest.find('<') {
        let end = rest[at..].find('>').map(|end| at + end).expect("a tag ends");
        let tag = &rest[at + 1..end];
        rest = &rest[end + 1..];
        let name: String = tag.trim_start_matches('/').chars().take_while(|c| c.is_alphanumeric()).collect();
        if let Some(closed) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(closed), "before {:?}", rest.chars().take(80).collect::<String>());
        } else if !tag.starts_with('!') && !tag.ends_with('/') && name != "meta" {
            open.push(name.clone());
            if name == "script" || name == "style" {
                let close = rest.find(&format!("</{name}>")).expect("it is closed");
                rest = &rest[close..];
            }
        }
        seen.push(name);
    }
    assert_eq!(open, Vec::<String>::new());
    seen
}

#[test]
fn a_realistic_report_is_well_formed_and_self_contained() {
    let input = demo();
    let page = render_report(&input);
    let seen = tags(&page);
    assert!(
        page.contains("Safety &amp; &lt;b&gt;more") && page.contains("<td>0.963 ± 0.013</td>"),
        "the further table"
    );
    assert!(!page.contains("never measured"));
    assert!(!seen.iter().any(|tag| ["link", "img", "iframe", "a"].contains(&tag.as_str())));
    for text in ["http:", "https:", "src=", "@import", "url("] {
        let allowed = if text == "http:" { 1 } else { 0 }; // the SVG namespace in the script
        assert_eq!(page.matches(text).count(), allowed, "{text}");
    }
    for text in ["13 min 23 s", "90.1", "± ", "first reconsideration: “wait”", "first reconsideration: “等等”", "×4.59"]
    {
        assert!(page.contains(text), "{text} is missing");
    }
    assert!(!page.contains("NaN"));
    assert_eq!(page, render_report(&input), "the same input gives the same bytes");
    let picture = render_curves_svg(&input.curves[..6], 3);
    tags(&picture);
    assert!(picture.contains("fill=\"#ffffff\"") && !picture.contains("var(") && !picture.contains("NaN"));
    if let Some(folder) = std::env::var_os("AHA_REPORT_DEMO").map(std::path::PathBuf::from) {
        std::fs::write(folder.join("report-demo.html"), page).unwrap();
        std::fs::write(folder.join("curves-demo.svg"), picture).unwrap();
    }
}

#[test]
fn hostile_text_stays_text() {
    let evil = "<script>alert(1)</script>\"' onload=x <img src=y> </style></title>&amp; wait";
    let mut input = demo();
    let baseline = tags(&render_report(&input));
    for text in [&mut input.title, &mut input.recipe, &mut input.recipe_toml] {
        *text = evil.into();
    }
    input.facts[0] = (evil.into(), evil.into());
    input.notes[0] = evil.into();
    input.evals[0].0 = evil.into();
    let family = input.evals[3].1.by_family["chain"].clone();
    input.evals[3].1.by_family.insert(evil.into(), family);
    for curve in &mut input.curves {
        for text in [&mut curve.stage, &mut curve.title, &mut curve.unit, &mut curve.x_label] {
            *text = evil.into();
        }
        curve.note = Some(evil.into());
    }
    let group = &mut input.samples[0];
    for text in [&mut group.problem, &mut group.family, &mut group.reference] {
        *text = evil.into();
    }
    group.entries[0].completion = format!("<think>{evil}</think><answer>{evil}</answer>");
    input.reflective_terms.push("<script>".into());
    let page = render_report(&input);
    let seen = tags(&page);
    let count = |seen: &[String], name: &str| seen.iter().filter(|tag| *tag == name).count();
    for name in ["script", "style", "title", "img"] {
        // SVG points have a title each: the new family adds one open and one closed.
        let expected = count(&baseline, name) + if name == "title" { 2 } else { 0 };
        assert_eq!(count(&seen, name), expected, "{name}");
    }
    assert!(!page.contains("<script>alert") && page.contains("<mark class=\"first\">&lt;script&gt;</mark>"));
    let picture = render_curves_svg(&input.curves, 2);
    assert!(!picture.contains("<script") && tags(&picture).iter().all(|tag| tag != "img"));
}

#[test]
fn every_kind_of_emptiness_gives_a_page() {
    tags(&render_report(&ReportInput::default()));
    tags(&render_curves_svg(&[], 0));
    let mut input = demo();
    input.evals.truncate(1);
    input.evals[0].1 = EvalSummary::default();
    input.curves = vec![Curve::default(), Curve { points: vec![(1.0, f64::NAN)], ..Curve::default() }];
    input.samples = vec![
        SampleGroup::default(),
        SampleGroup { entries: vec![entry(1, "", Verdict::NotJudged, f64::NAN, 0)], ..SampleGroup::default() },
    ];
    input.wall_s = f64::NAN;
    let page = render_report(&input);
    tags(&page);
    assert!(!page.contains("NaN"));
    let mut input = demo();
    input.evals.truncate(1);
    tags(&render_report(&input));
    let broken = Measures {
        pass_at_1: Some(f64::NAN),
        pass_at_1_se: Some(f64::INFINITY),
        reflective_words: Some(0.0),
        ..Measures::default()
    };
    input.evals.push((
        "broken".into(),
        EvalSummary { overall: broken.clone(), by_family: [("chain".to_owned(), broken)].into() },
    ));
    let page = render_report(&input);
    tags(&page);
    assert!(!page.contains("NaN") && !page.contains("inf%"));
}
