//! What the settings for R1 add, and that nothing else changed.

use super::*;
use aha_tasks::format::{chain_of_thought, to_house};
use aha_tasks::text::language_consistency;
use aha_tasks::{TaskOptions, Verdict, open_task};
use std::collections::HashMap;

fn hash(config: &CorpusConfig) -> String {
    let text: String = (0..200).map(|i| document(config, i)).map(|d| d.prompt + &d.body + "\n").collect();
    let fold = |h: u64, b: u8| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3);
    format!("{:016x}", text.bytes().fold(0xcbf2_9ce4_8422_2325, fold))
}

fn rich() -> CorpusConfig {
    CorpusConfig { code: 0.3, general: 0.4, tagged: 0.5, ..CorpusConfig::default() }
}

#[test]
fn corpora_without_the_new_settings_are_what_they_were() {
    // Hashes of the first 200 documents as they were before there were programs and requests.
    let default = CorpusConfig::default();
    assert_eq!(hash(&default), "bb7a7d8c29ca4f96");
    let (blunt, long, tagged, orderly, misread) = (0.52, 0.38, 0.45, 1.0, 0.04);
    let (mean_wrong_tries, max_wrong_tries) = (6.0, 30);
    let zero = CorpusConfig {
        blunt,
        long,
        tagged,
        orderly,
        misread,
        mean_wrong_tries,
        max_wrong_tries,
        ..CorpusConfig::default()
    };
    assert_eq!(hash(&zero), "42666a3e899173d8");
    // The puzzles among other documents are the same ones.
    let all: Vec<Document> = (0..300).map(|i| document(&rich(), i)).collect();
    let plain = CorpusConfig { tagged: 0.5, ..default };
    for (i, d) in all.iter().enumerate().filter(|(_, d)| matches!(d.subject, Subject::Puzzle(_))) {
        assert_eq!(*d, document(&plain, i as u64));
    }
}

#[test]
fn shares_splits_and_verdicts() {
    let task = open_task("mini-r1", 1, &TaskOptions::default()).unwrap();
    let (mut counts, mut right) = (HashMap::<&str, f64>::new(), HashMap::<(&str, Style), (f64, f64)>::new());
    const N: u64 = 6000;
    for d in (0..N).map(|i| document(&rich(), i)) {
        assert_eq!(mini::split_of_canonical(&d.subject.canonical()), Split::Pretrain);
        let group = match d.subject {
            Subject::Puzzle(_) => "puzzle",
            Subject::Code(_) => "code",
            Subject::General(_) => "general",
        };
        *counts.entry(group).or_default() += 1.0 / N as f64;
        if !d.tagged {
            continue;
        }
        let problem = d.subject.problem(d.language, &rich().model_name);
        let j = task.judge(&problem, &d.body, true);
        assert!(j.format, "{}", d.body);
        let house = to_house(&problem, &d.body, false).expect("one line answers");
        let judged = task.judge(&problem, &house, true);
        assert_eq!((judged.verdict, judged.format), (j.verdict, true), "{house}");
        if j.verdict != Verdict::NotJudged {
            let slot = right.entry((group, d.style)).or_default();
            slot.0 += f64::from(u8::from(j.verdict == Verdict::Correct));
            slot.1 += 1.0;
        }
    }
    for (group, share) in [("puzzle", 0.3), ("code", 0.3), ("general", 0.4)] {
        assert!((counts[group] - share).abs() < 0.03, "{counts:?}");
    }
    let share = |key| right[&key].0 / right[&key].1;
    assert_eq!(share(("code", Style::Long)), 1.0, "long workings of programs end in the right one");
    assert!((0.25..0.5).contains(&share(("code", Style::Blunt))), "{right:?}");
    assert!(share(("general", Style::Long)) > 0.65, "{right:?}");
    assert!((0.35..0.65).contains(&share(("general", Style::Blunt))), "{right:?}");
}

#[test]
fn workings_of_programs_say_the_truth() {
    let config =
        CorpusConfig { code: 1.0, blunt: 0.0, short: 0.0, tagged: 1.0, chinese: 0.0, ..CorpusConfig::default() };
    let mut checked = 0;
    for d in (0..2000).map(|i| document(&config, i)) {
        let thought = chain_of_thought(&d.body, false).unwrap();
        for (x, op, y, z) in super::tests::reader::equations(thought) {
            let value = match op {
                '+' => x + y,
                '-' => x - y,
                _ => x * y,
            };
            assert_eq!(value, z, "{}{}", d.prompt, d.body);
            checked += 1;
        }
        // Every line compares a value with what is wanted, and says so.
        for line in thought.lines().filter(|l| l.contains(" want ")) {
            let (before, after) = line.rsplit_once(" want ").unwrap();
            let wanted = after.split([' ']).next().unwrap();
            let value = before.rsplit_once('=').map_or(before, |(_, v)| v);
            let value = if wanted.starts_with('[') { value.rsplit("],").next().unwrap() } else { value };
            let value = if wanted.starts_with('[') { value } else { value.rsplit(',').next().unwrap() };
            assert_eq!(value == wanted, line.ends_with("yes."), "{line}");
        }
        assert!(thought.ends_with("yes.\n"), "{}", d.body);
    }
    assert!(checked > 2000, "{checked}");
}

#[test]
fn languages_mix_inside_the_thought_at_the_given_rate() {
    let mean = |mixed_within: f64| {
        let config = CorpusConfig { mixed_within, mixed: 0.0, tagged: 1.0, blunt: 0.0, ..rich() };
        let all = (0..3000).map(|i| document(&config, i));
        let shares: Vec<f64> =
            all.filter_map(|d| language_consistency(chain_of_thought(&d.body, false)?, d.language)).collect();
        shares.iter().sum::<f64>() / shares.len() as f64
    };
    let (pure, some, much) = (mean(0.0), mean(0.3), mean(0.6));
    assert!(pure > 0.99, "{pure}");
    assert!(some < 0.9 && much < some - 0.1, "{some} {much}");
}

#[test]
fn conversations_have_two_questions_and_the_almanac_none() {
    let (mut turns, mut pages) = (0, 0);
    for d in (0..3000).map(|i| document(&rich(), i)) {
        let asked = d.prompt.matches("User: ").count();
        match &d.subject {
            Subject::General(_) if d.prompt.is_empty() => {
                assert!(!d.body.contains("User"));
                pages += 1;
            }
            Subject::General(r) if r.history(d.language).is_some() => {
                assert_eq!(asked, 2, "{}", d.prompt);
                turns += 1;
            }
            _ => assert_eq!(asked, 1),
        }
    }
    assert!(turns > 60 && pages > 60, "{turns} {pages}");
}

#[test]
fn wrong_settings_are_named() {
    let fails = |config: CorpusConfig| config.check().unwrap_err();
    assert!(fails(CorpusConfig { code: 0.7, general: 0.4, ..CorpusConfig::default() }).contains("code + general"));
    assert!(fails(CorpusConfig { mixed_within: 1.5, ..CorpusConfig::default() }).contains("mixed_within"));
    assert!(fails(CorpusConfig { model_name: "a b".into(), ..CorpusConfig::default() }).contains("model_name"));
}
