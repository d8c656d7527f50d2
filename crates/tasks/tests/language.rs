//! Language consistency on the Universal Declaration of Human Rights and on MGSM, and on texts made from them.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use aha_tasks::language::{Script, TextLanguage, share, words};
use serde_json::Value;
use std::path::{Path, PathBuf};

fn data(name: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let path = std::env::var_os("AHA_DATA").map_or(root, PathBuf::from).join(name);
    if !path.exists() {
        println!("skipped: {} is not there", path.display());
        return None;
    }
    Some(path)
}

/// ISO 639-3 codes of the languages that are checked.
const CODES: [&str; 36] = [
    "eng", "spa", "por", "ita", "fra", "deu", "nld", "pol", "ces", "ron", "hun", "fin", "swe", "tur", "vie", "ind",
    "rus", "ukr", "bul", "arb", "pes", "urd", "hin", "heb", "ell", "cmn", "jpn", "kor", "tha", "ben", "tam", "tel",
    "kat", "hye", "guj", "mya",
];

/// The longest paragraphs of each language.
fn declaration() -> Option<Vec<(String, Vec<String>)>> {
    let text = std::fs::read_to_string(data("multilingual-udhr/udhr.jsonl")?).unwrap();
    let rows: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let mut out = Vec::new();
    for code in CODES {
        let Some(row) = rows.iter().find(|r| r["iso6393"] == code) else { continue };
        let list = row["paragraphs"].as_array().unwrap().iter().map(|p| p.as_str().unwrap().to_owned());
        out.push((code.to_owned(), list.filter(|p| words(p) >= 15).collect()));
    }
    Some(out)
}

fn language(paragraphs: &[String]) -> TextLanguage {
    TextLanguage::of(&paragraphs.join("\n")).unwrap()
}

#[test]
fn right_language_of_paragraphs() {
    let Some(all) = declaration() else { return };
    assert!(all.len() >= 30, "{} languages", all.len());
    let mut low = Vec::new();
    for (code, paragraphs) in &all {
        let target = language(paragraphs);
        let found = paragraphs.iter().filter(|p| share(p, target).unwrap() > 0.5).count();
        let mean = paragraphs.iter().map(|p| share(p, target).unwrap()).sum::<f64>() / paragraphs.len() as f64;
        println!("{code}: {:?} right {found}/{} mean share {mean:.4}", target, paragraphs.len());
        if (found as f64) < 0.97 * paragraphs.len() as f64 || mean < 0.97 {
            low.push(code.clone());
        }
    }
    let good = all.len() - low.len();
    println!("{good} of {} languages at 0.97 or above; below: {low:?}", all.len());
    assert!(good >= 30, "{low:?}");
}

#[test]
fn question_of_one_language_is_not_another() {
    let Some(all) = declaration() else { return };
    let targets: Vec<(String, TextLanguage)> = all.iter().map(|(c, p)| (c.clone(), language(p))).collect();
    for (i, (code, _)) in targets.iter().enumerate() {
        for (other, target) in &targets {
            if other == code {
                continue;
            }
            let wrong = all[i].1.iter().map(|p| share(p, *target).unwrap()).sum::<f64>() / all[i].1.len() as f64;
            assert!(wrong < 0.08, "{code} taken for {other}: {wrong:.3}");
        }
    }
}

#[test]
fn mixing_ratio_is_measured() {
    let Some(all) = declaration() else { return };
    let find = |code: &str| all.iter().find(|a| a.0 == code).unwrap();
    let mut worst: f64 = 0.0;
    let pairs = [
        ("eng", "cmn"),
        ("cmn", "eng"),
        ("eng", "rus"),
        ("rus", "eng"),
        ("arb", "eng"),
        ("hin", "eng"),
        ("jpn", "eng"),
        ("kor", "eng"),
        ("tha", "eng"),
        ("eng", "deu"),
        ("deu", "eng"),
        ("eng", "spa"),
        ("spa", "eng"),
        ("fra", "eng"),
        ("spa", "por"),
        ("rus", "ukr"),
        ("arb", "pes"),
        ("ben", "eng"),
        ("tel", "eng"),
        ("cmn", "jpn"),
        ("pol", "ces"),
    ];
    for (target, other) in pairs {
        let ((_, a), (_, b)) = (find(target), find(other));
        let language = language(a);
        for tenths in [1, 3, 5, 7, 9] {
            // Paragraphs by turns, so that as near as may be `tenths` of ten words are of the target.
            let (mut text, mut ours, mut total) = (String::new(), 0, 0);
            let (mut i, mut j) = (0, 0);
            while i < a.len() && j < b.len() && total < 1500 {
                let next = if ours * 10 <= total * tenths {
                    i += 1;
                    ours += words(&a[i - 1]);
                    &a[i - 1]
                } else {
                    j += 1;
                    &b[j - 1]
                };
                total += words(next);
                text.push_str(next);
                text.push('\n');
            }
            let truth = ours as f64 / total as f64;
            let got = share(&text, language).unwrap();
            worst = worst.max((got - truth).abs());
            assert!((got - truth).abs() <= 0.05, "{target} with {other}: {got:.3}, made with {truth:.3}");
        }
    }
    println!("{} pairs x 5 ratios, largest error {worst:.4}", pairs.len());
}

#[test]
fn questions_of_mgsm() {
    let Some(folder) = data("multilingual-mgsm") else { return };
    for (file, script) in [
        ("bn", Script::Other(0x980)),
        ("de", Script::Latin),
        ("en", Script::Latin),
        ("es", Script::Latin),
        ("fr", Script::Latin),
        ("ja", Script::Kana),
        ("ru", Script::Cyrillic),
        ("te", Script::Other(0xc00)),
        ("th", Script::Other(0xe00)),
        ("zh", Script::Han),
    ] {
        let text = std::fs::read_to_string(folder.join(format!("mgsm_{file}.tsv"))).unwrap();
        let questions: Vec<&str> = text.lines().map(|l| l.split('\t').next().unwrap()).collect();
        let target = TextLanguage::of(&text).unwrap();
        assert_eq!(target.script, script, "{file}");
        let own = |q: &&&str| TextLanguage::of(q) == Some(target);
        let identified = questions.iter().filter(own).count();
        let mean = questions.iter().map(|q| share(q, target).unwrap()).sum::<f64>() / questions.len() as f64;
        println!("{file}: identified {identified}/{}, mean share {mean:.4}", questions.len());
        assert!(mean >= 0.97 && identified * 100 >= questions.len() * 93, "{file}: {identified} {mean}");
    }
}

#[test]
fn what_is_not_a_word() {
    let english = |text: &str| share(text, TextLanguage::ENGLISH);
    let chinese = |text: &str| share(text, TextLanguage::CHINESE);
    assert_eq!(chinese("答案是 ```python\nfor item in things: print(item)\n``` 好"), Some(1.0));
    assert_eq!(
        chinese(r"面积 \(\text{area}\) $sin x$ \frac{one}{two} `code` <think> https://example.com/path"),
        Some(1.0)
    );
    assert_eq!(chinese("3 + 4 = 7, x y"), None);
    assert_eq!(english("so the sum is 14"), Some(1.0));
    assert_eq!(english("我们 check 一下 x=3"), Some(0.2));
    assert_eq!(english("привет there"), Some(0.5));
    assert_eq!(english(""), None);
    // The checks of the specification: 1, one half, 0.
    assert_eq!(english("let us think"), Some(1.0));
    assert_eq!(english("two words 两字"), Some(0.5));
    assert_eq!(english("全是中文"), Some(0.0));
}
