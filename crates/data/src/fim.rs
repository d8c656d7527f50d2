//! Fill-in-the-middle (Bavarian et al. 2022) in the prefix-suffix-middle form of DeepSeek-V3 (technical report, 4.1):
//! `<|fim_begin|> prefix <|fim_hole|> suffix <|fim_end|> middle <|eos|>`, on a share of documents before packing.

use aha_tasks::mini::Rng;

/// The three tokens, in order, as our tokenizers spell them.
pub const TOKENS: [&str; 3] = ["<|fim_begin|>", "<|fim_hole|>", "<|fim_end|>"];
/// The same as DeepSeek's tokenizers spell them.
pub const DEEPSEEK_TOKENS: [&str; 3] = ["<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"];

/// Prefix, middle and suffix of document `i`, cut at two characters drawn evenly; `None` for the share that stays as it is,
/// and for texts too short to cut.
pub fn cut(text: &str, rate: f64, seed: u64, i: u64) -> Option<(&str, &str, &str)> {
    let mut rng = Rng::new(seed ^ 0xf111_0000, i);
    if rng.unit() >= rate {
        return None;
    }
    let characters = text.chars().count();
    if characters < 3 {
        return None;
    }
    let mut draw = || (rng.unit() * (characters + 1) as f64) as usize;
    let (a, b) = (draw(), draw());
    let byte = |n: usize| text.char_indices().nth(n).map_or(text.len(), |(at, _)| at);
    let (from, to) = (byte(a.min(b)), byte(a.max(b)));
    Some((&text[..from], &text[from..to], &text[to..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_make_the_document_and_the_share_is_the_rate() {
        let text = "问：12 + 30 = ? 答案是 42。";
        let cuts: Vec<_> = (0..4000).map(|i| cut(text, 0.1, 5, i)).collect();
        let share = cuts.iter().flatten().count() as f64 / 4000.0;
        assert!((share - 0.1).abs() < 0.02, "{share}");
        for (prefix, middle, suffix) in cuts.iter().flatten() {
            assert_eq!(format!("{prefix}{middle}{suffix}"), text);
        }
        // Middles of every length, ends included.
        let lengths: std::collections::BTreeSet<usize> = cuts.iter().flatten().map(|c| c.1.chars().count()).collect();
        assert!(lengths.len() > 15 && lengths.contains(&0), "{lengths:?}");
        assert!((0..100).all(|i| cut(text, 0.0, 5, i).is_none() && cut("ab", 1.0, 5, i).is_none()));
        assert_eq!(cut(text, 0.5, 5, 3), cut(text, 0.5, 5, 3));
    }
}
