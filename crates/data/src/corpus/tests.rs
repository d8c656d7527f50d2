//! The corpus is checked by an independent reader: every equation in a long working is evaluated again.

use super::*;
use reader::equations;

/// Finds `x op y = z` without a regular-expression crate.
pub(super) mod reader {
    /// All (x, op, y, z) in a text.
    pub fn equations(text: &str) -> Vec<(i64, char, i64, i64)> {
        let mut out = Vec::new();
        for piece in text.split(|c: char| !(c.is_ascii_digit() || "+-*=".contains(c))) {
            let Some((left, right)) = piece.split_once('=') else { continue };
            let Some(at) = left.find(['+', '-', '*']) else { continue };
            let number = |s: &str| s.parse::<i64>().ok();
            if let (Some(x), Some(y), Some(z)) = (number(&left[..at]), number(&left[at + 1..]), number(right)) {
                out.push((x, left.as_bytes()[at] as char, y, z));
            }
        }
        out
    }
}

fn puzzle(d: &Document) -> &Puzzle {
    match &d.subject {
        Subject::Puzzle(puzzle) => puzzle,
        other => panic!("{other:?}"),
    }
}

fn documents(n: u64) -> impl Iterator<Item = Document> {
    let config = CorpusConfig::default();
    (0..n).map(move |i| document(&config, i))
}

#[test]
fn every_equation_of_a_long_working_holds_or_is_taken_back_at_once() {
    let mut seen = 0;
    for d in documents(5000).filter(|d| d.style == Style::Long) {
        for line in d.body.lines() {
            let taken_back = line.contains("wait") || line.contains("等等");
            for (x, op, y, z) in equations(line) {
                let value = match op {
                    '+' => x + y,
                    '-' => x - y,
                    _ => x * y,
                };
                assert_eq!(value == z, !taken_back, "{}{}", d.prompt, d.body);
                seen += 1;
            }
        }
    }
    assert!(seen > 4000, "{seen}");
}

#[test]
fn shares_are_as_configured_and_judged_by_the_task() {
    let task = aha_tasks::mini::MiniTask::new("mini", 1, Family::ALL.to_vec(), 0.25, Default::default());
    use aha_tasks::{Task, Verdict};
    let all: Vec<Document> = documents(6000).collect();
    let share = |f: &dyn Fn(&Document) -> bool| all.iter().filter(|d| f(d)).count() as f64 / all.len() as f64;
    let config = CorpusConfig::default();
    assert!((share(&|d| d.style == Style::Blunt) - config.blunt).abs() < 0.03);
    assert!((share(&|d| d.style == Style::Long) - config.long).abs() < 0.03);
    assert!((share(&|d| d.tagged) - config.tagged).abs() < 0.03);
    assert!((share(&|d| d.language == Language::Chinese) - config.chinese).abs() < 0.03);
    let mut right = [(0, 0); 2];
    let mut gave_up = 0;
    for d in all.iter().filter(|d| d.style != Style::Short) {
        let problem = aha_tasks::Problem {
            id: String::new(),
            family: String::new(),
            language: d.language,
            question: String::new(),
            reference: puzzle(d).reference(),
            columns: Default::default(),
        };
        let j = task.judge(&problem, &d.body, true);
        assert_eq!(j.format, d.tagged, "{}", d.body);
        let slot = &mut right[usize::from(d.style == Style::Long)];
        slot.0 += usize::from(j.lenient_verdict == Verdict::Correct);
        slot.1 += 1;
        if d.style == Style::Long {
            let given_up = d.body.contains("no luck") || d.body.contains("算了");
            assert_eq!(j.lenient_verdict == Verdict::Correct, !given_up, "{}{}", d.prompt, d.body);
            assert_eq!(j.verdict == Verdict::Correct, d.tagged && !given_up);
            gave_up += usize::from(given_up);
            assert!(
                aha_tasks::text::reflective_words(&d.body) >= 1
                    || !d.body.contains("wrong") && puzzle(d).family() != Family::Chain,
                "{}",
                d.body
            );
        } else {
            assert_eq!(aha_tasks::text::reflective_words(&d.body), 0, "{}", d.body);
        }
    }
    assert!(gave_up > 0 && gave_up * 12 < right[1].1, "{gave_up} of {}", right[1].1);
    let blunt = right[0].0 as f64 / right[0].1 as f64;
    assert!((0.2..0.45).contains(&blunt), "{blunt}");
}

#[test]
fn documents_are_pure_functions_and_never_use_held_out_puzzles() {
    let config = CorpusConfig::default();
    for (i, d) in documents(500).enumerate() {
        assert_eq!(d, document(&config, i as u64));
        assert_eq!(mini::split_of(puzzle(&d)), Split::Pretrain);
    }
    assert_ne!(document(&config, 0), document(&CorpusConfig { seed: 2, ..config.clone() }, 0));
}

#[test]
fn a_misread_target_is_searched_to_the_end_and_given_up() {
    let config = CorpusConfig { blunt: 0.0, short: 0.0, long: 1.0, misread: 1.0, ..CorpusConfig::default() };
    let mut seen = 0;
    for d in (0..400).map(|i| document(&config, i)) {
        if matches!(puzzle(&d), Puzzle::Countdown { .. } | Puzzle::Missing { .. }) {
            assert!(d.body.contains("no luck") || d.body.contains("算了"), "{}", d.body);
            assert!(
                !d.body.contains(" yes") && !d.body.contains("对。\n答") && d.body.lines().count() > 2,
                "{}",
                d.body
            );
            seen += 1;
        }
    }
    assert!(seen > 150, "{seen}");
}
