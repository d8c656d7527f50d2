//! Rows are what they claim: better is better, lengths tell nothing, parts share nothing.

use super::*;
use aha_tasks::check::refuses;
use aha_tasks::judge::summary;
use std::collections::HashSet;

fn train() -> RequestRows {
    RequestRows::new(7, Split::Train)
}

const N: u64 = 3000;

#[test]
fn parts_share_no_request_in_any_kind_of_row() {
    let ids = |split| {
        let rows = RequestRows::new(7, split);
        let all = (0..1500).flat_map(|i| {
            [rows.pair(i).about, rows.safety(i).about, rows.demonstration(i).about, rows.graded(i).about]
        });
        all.map(|about| about.id).collect::<HashSet<_>>()
    };
    let (train, held_out, pretrain) = (ids(Split::Train), ids(Split::Eval), ids(Split::Pretrain));
    assert!(train.is_disjoint(&held_out) && train.is_disjoint(&pretrain) && held_out.is_disjoint(&pretrain));
    assert!(train.len() > 500 && held_out.len() > 300, "{} {}", train.len(), held_out.len());
}

#[test]
fn the_chosen_answer_is_better_and_ties_are_ties() {
    let rows = train();
    let mut ties = 0;
    for p in (0..N).map(|i| rows.pair(i)) {
        assert_ne!(p.chosen, p.rejected);
        assert_eq!(p.tie, p.margin < TIE, "{p:?}");
        assert!(p.margin >= 0.0 && p.chosen.starts_with("<think>"));
        ties += usize::from(p.tie);
    }
    let share = ties as f64 / N as f64;
    assert!((0.06..0.12).contains(&share), "{share}");
}

#[test]
fn quality_of_a_pair_is_recomputed_from_its_text() {
    let rows = train();
    for i in 0..120 {
        let p = rows.pair(i);
        let kind = Kind::parse(p.about.family).unwrap();
        // The rule is found again from the request that has this canonical form.
        let mut rng = Rng::new(0, 0);
        let request =
            (0..200_000).map(|_| Request::draw(kind, &mut rng)).find(|r| r.canonical() == p.about.id).unwrap();
        let check = request.check(p.about.language, &rows.model_name);
        let quality = |text: &str| general::quality_of(kind, &check, p.about.language, summary(text));
        assert!((quality(&p.chosen) - quality(&p.rejected) - p.margin).abs() < 1e-9, "{p:?}");
    }
}

#[test]
fn length_says_nothing_about_quality() {
    let rows = train();
    for chinese in [false, true] {
        let (mut longer, mut shorter, mut sums) = (0.0, 0.0, [0.0, 0.0]);
        let pairs = (0..N).map(|i| RequestRows { chinese: f64::from(u8::from(chinese)), ..rows.clone() }.pair(i));
        for p in pairs.filter(|p| !p.tie) {
            let (a, b) = (p.chosen.chars().count(), p.rejected.chars().count());
            longer += f64::from(u8::from(a > b));
            shorter += f64::from(u8::from(a < b));
            sums[0] += a as f64;
            sums[1] += b as f64;
        }
        let share = longer / (longer + shorter);
        assert!((0.44..0.56).contains(&share), "chosen longer in {share} (Chinese: {chinese})");
        assert!((sums[0] / sums[1] - 1.0).abs() < 0.03, "{sums:?}");
    }
}

#[test]
fn comparisons_come_in_both_orders() {
    let rows = train();
    let all: Vec<Comparison> = (0..1000).map(|i| rows.comparison(i)).collect();
    let count = |v: &str| all.iter().filter(|c| c.verdict == v).count();
    assert!((380..520).contains(&count("A")) && (380..520).contains(&count("B")), "{} {}", count("A"), count("B"));
    for c in all {
        assert_eq!(
            c.verdict,
            if c.gap.abs() < TIE {
                "tie"
            } else if c.gap > 0.0 {
                "A"
            } else {
                "B"
            }
        );
        assert!(!c.a.contains("think>"));
    }
}

#[test]
fn safety_labels_look_at_the_whole_response() {
    let rows = train();
    let all: Vec<SafetyLabel> = (0..N).map(|i| rows.safety(i)).collect();
    let safe = all.iter().filter(|l| l.safe).count() as f64 / N as f64;
    assert!((0.42..0.58).contains(&safe), "{safe}");
    let hidden = all.iter().filter(|l| !l.safe && refuses(summary(&l.response))).count();
    assert!(hidden > 50, "{hidden} responses refuse after an unsafe thought");
    for l in &all {
        let complied = l.about.family == "unsafe" && !refuses(summary(&l.response));
        assert!(!(complied && l.safe), "{l:?}");
        assert!(l.safe || l.about.family == "unsafe");
    }
}

#[test]
fn demonstrations_are_flawless_and_graded_answers_are_half_right() {
    let rows = train();
    let mut families = HashSet::new();
    for i in 0..1000 {
        let d = rows.demonstration(i);
        assert_eq!(d, rows.demonstration(i));
        assert!(aha_tasks::format::r1_shape(&d.response, false));
        assert_eq!(d.messages.len(), 2 + d.about.history.len());
        families.insert(d.about.family);
    }
    assert_eq!(families.len(), Kind::ALL.len());
    let right = (0..N).filter(|i| rows.graded(*i).correct).count() as f64 / N as f64;
    assert!((0.4..0.55).contains(&right), "{right}");
}

#[test]
fn rows_are_written_as_json_lines() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pairs.jsonl");
    let rows = train();
    assert_eq!(write_rows(&path, (0..20).map(|i| rows.pair(i))).unwrap(), 20);
    let text = std::fs::read_to_string(&path).unwrap();
    for line in text.lines() {
        let value: Value = serde_json::from_str(line).unwrap();
        for key in ["id", "family", "set", "language", "prompt", "chosen", "rejected", "margin", "tie"] {
            assert!(value.get(key).is_some(), "{key} in {line}");
        }
    }
    let error = write_rows(&folder.path().join("no/such"), [1]).unwrap_err().to_string();
    assert!(error.contains("cannot write"), "{error}");
}
