//! Workings that go back and forth between English and Chinese: what R1-Zero does and R1's language reward mends.

use aha_tasks::mini::Rng;

/// Phrases of workings in both languages; those that contain others come first.
const PHRASES: [(&str, &str); 7] = [
    (" wait, wrong.", "等等,不对。"),
    (" wrong.", "不对。"),
    (" yes.", "对。"),
    (" want ", "要"),
    ("check ", "检查"),
    ("no luck.", "算了。"),
    ("easy.", "简单。"),
];

/// The text with each line, at even odds, in the other language.
pub(super) fn lines(text: &str, rng: &mut Rng) -> String {
    text.split_inclusive('\n').map(|line| if rng.unit() < 0.5 { other(line) } else { line.to_owned() }).collect()
}

/// A line in the language it is not in.
fn other(line: &str) -> String {
    let english = PHRASES.iter().any(|(en, _)| line.contains(en));
    PHRASES.iter().fold(
        line.to_owned(),
        |line, (en, zh)| {
            if english { line.replace(en, zh) } else { line.replace(zh, en) }
        },
    )
}

/// The sentences of one text with each, at even odds, from the other.
pub(super) fn sentences(own: &str, other: &str, rng: &mut Rng) -> String {
    let split = |text: &str| -> Vec<String> {
        text.split_inclusive(['.', '。']).map(|s| s.trim().to_owned()).filter(|s| !s.is_empty()).collect()
    };
    let (own, other) = (split(own), split(other));
    let picked = own.iter().enumerate().map(|(i, s)| match other.get(i) {
        Some(foreign) if rng.unit() < 0.5 => foreign.clone(),
        _ => s.clone(),
    });
    picked.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_phrase_goes_there_and_back() {
        for (en, zh) in PHRASES {
            assert_eq!((other(en).as_str(), other(zh).as_str()), (zh, en));
        }
        assert_eq!(other("3+4=7 want 9 wrong.\n"), "3+4=7要9不对。\n");
        assert_eq!(other("3+4=7要9不对。\n"), "3+4=7 want 9 wrong.\n");
    }

    #[test]
    fn sentences_come_from_both() {
        let mut rng = Rng::new(1, 1);
        let mixed: Vec<String> =
            (0..40).map(|_| sentences("red is x. cat is y.", "红是x。猫是y。", &mut rng)).collect();
        assert!(mixed.contains(&"red is x. 猫是y。".to_owned()) && mixed.contains(&"红是x。 cat is y.".to_owned()));
    }
}
