//! Penalties on how long and how repetitive a completion is.
//!
//! Repetition: the share of n-grams that occurred before, as in the repetition penalty of "Demystifying long
//! chain-of-thought" (arXiv 2502.03373) and open-r1; a word is a run without spaces, a Han or Kana character is one.

use std::collections::HashSet;

/// Words per n-gram.
pub const NGRAM: usize = 4;

/// `1 - distinct / all` n-grams, from 0 to 1; 0 when there are fewer words than one n-gram has.
pub fn repetition(text: &str, n: usize) -> f64 {
    let mut words: Vec<&str> = Vec::new();
    for word in text.split_whitespace() {
        let mut begin = 0;
        for (at, c) in word.char_indices() {
            if matches!(u32::from(c), 0x3040..=0x30ff | 0x3400..=0x4dbf | 0x4e00..=0x9fff | 0x20000..=0x323af) {
                if begin < at {
                    words.push(&word[begin..at]);
                }
                begin = at + c.len_utf8();
                words.push(&word[at..begin]);
            }
        }
        if begin < word.len() {
            words.push(&word[begin..]);
        }
    }
    let n = n.max(1);
    if words.len() < n {
        return 0.0;
    }
    let all = words.len() - n + 1;
    let distinct = words.windows(n).collect::<HashSet<_>>().len();
    1.0 - distinct as f64 / all as f64
}

/// Share of the allowed tokens that were used, from 0 to 1.
pub fn length(tokens: usize, max_tokens: usize) -> f64 {
    if max_tokens == 0 { 0.0 } else { (tokens as f64 / max_tokens as f64).min(1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_ngrams() {
        assert_eq!(repetition("", 4), 0.0);
        assert_eq!(repetition("a b c", 4), 0.0);
        assert_eq!(repetition("a b c d e f", 4), 0.0);
        assert_eq!(repetition("a a a a a a", 1), 1.0 - 1.0 / 6.0);
        assert_eq!(repetition("a b a b a b", 2), 1.0 - 2.0 / 5.0);
        assert_eq!(repetition("好好好好", 2), 1.0 - 1.0 / 3.0);
        assert!(repetition(&"wait no ".repeat(1000), 4) > 0.99);
    }

    #[test]
    fn lengths() {
        assert_eq!((length(5, 10), length(20, 10), length(1, 0)), (0.5, 1.0, 0.0));
    }
}
