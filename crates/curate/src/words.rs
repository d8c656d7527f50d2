//! Words of a text in the normal form in which texts are compared: lower case, full-width forms made narrow, a run of letters
//! and digits is a word, a Han or Kana character is one. All other signs separate words, or are words of their own where they
//! matter (`3+4` and `3*4` are different chains, but the same quotation of a problem with other typesetting).

/// What other signs are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signs {
    /// They only separate.
    Separate,
    /// Each is a word, but for punctuation of sentences.
    Words,
}

/// Full-width forms of ASCII and the wide space, made narrow.
fn narrow(c: char) -> char {
    match u32::from(c) {
        code @ 0xff01..=0xff5e => char::from_u32(code - 0xfee0).unwrap_or(c),
        0x3000 => ' ',
        _ => c,
    }
}

fn stands_alone(c: char) -> bool {
    matches!(u32::from(c), 0x3005 | 0x3007 | 0x3040..=0x30ff | 0x3400..=0x4dbf | 0x4e00..=0x9fff | 0xf900..=0xfaff | 0x20000..=0x323af)
}

fn punctuation(c: char) -> bool {
    matches!(
        c,
        '.' | ','
            | '?'
            | '!'
            | ';'
            | ':'
            | '"'
            | '\''
            | '。'
            | '，'
            | '？'
            | '！'
            | '；'
            | '：'
            | '、'
            | '“'
            | '”'
            | '‘'
            | '’'
    )
}

/// Calls `each` with the letters of every word, in order.
fn for_each_letter(text: &str, signs: Signs, mut each: impl FnMut(Option<char>)) {
    for c in text.chars() {
        let c = narrow(c);
        if c.is_ascii_alphanumeric() {
            each(Some(c.to_ascii_lowercase()));
        } else if stands_alone(c) {
            each(None);
            each(Some(c));
            each(None);
        } else if c.is_alphanumeric() {
            c.to_lowercase().for_each(|c| each(Some(c)));
        } else {
            each(None);
            if signs == Signs::Words && !c.is_whitespace() && !punctuation(c) {
                each(Some(c));
                each(None);
            }
        }
    }
    each(None);
}

/// The words as text.
pub fn words(text: &str, signs: Signs) -> Vec<String> {
    let (mut words, mut word) = (Vec::new(), String::new());
    for_each_letter(text, signs, |letter| match letter {
        Some(c) => word.push(c),
        None if word.is_empty() => {}
        None => words.push(std::mem::take(&mut word)),
    });
    words
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x100_0000_01b3;

/// Spreads the bits of a hash (the finaliser of splitmix64).
pub(crate) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A hash of each word: as [`words`], without the text.
pub fn word_hashes(text: &str, signs: Signs) -> Vec<u64> {
    let (mut hashes, mut hash) = (Vec::with_capacity(text.len() / 4), FNV_OFFSET);
    for_each_letter(text, signs, |letter| match letter {
        Some(c) => hash = (hash ^ u64::from(c)).wrapping_mul(FNV_PRIME),
        None if hash == FNV_OFFSET => {}
        None => hashes.push(mix(std::mem::replace(&mut hash, FNV_OFFSET))),
    });
    hashes
}

/// Hashes of all runs of `n` words, in order; none when there are fewer words.
pub fn ngram_hashes(words: &[u64], n: usize) -> impl Iterator<Item = u64> {
    words
        .windows(n.max(1))
        .map(|run| run.iter().fold(FNV_OFFSET, |hash, word| mix(hash ^ word).wrapping_mul(FNV_PRIME)))
}

/// A text without white space and punctuation of sentences, in lower case: equal for the same question written with other
/// spacing.
pub fn compact(text: &str) -> String {
    words(text, Signs::Words).concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_form() {
        assert_eq!(words("The  Ducks' eggs, 16/day.", Signs::Separate), ["the", "ducks", "eggs", "16", "day"]);
        assert_eq!(words("3+4 = 7?", Signs::Separate), ["3", "4", "7"]);
        assert_eq!(words("3+4 = 7?", Signs::Words), ["3", "+", "4", "=", "7"]);
        assert_eq!(words("我有３个Ａpple", Signs::Separate), ["我", "有", "3", "个", "apple"]);
        assert_eq!(words("ÉCOLE", Signs::Separate), ["école"]);
        assert!(words(" ,.。 ", Signs::Words).is_empty());
        assert_eq!(compact("What is 3 + 4 ?"), compact("what is 3+4"));
        assert_ne!(compact("3+4"), compact("3-4"));
    }

    /// Hashes and words are the same sequence: equal where and only where the words are.
    #[test]
    fn hashes_follow_words() {
        let texts = ["a b c 我 a", "3+4=7, 3 - 4", "x x\ny", "", "  ", "Ⅷ ß SS ﬁ", "1 2 12 1 2"];
        for signs in [Signs::Separate, Signs::Words] {
            let all: Vec<(String, u64)> = texts
                .iter()
                .flat_map(|text| {
                    let (words, hashes) = (words(text, signs), word_hashes(text, signs));
                    assert_eq!(words.len(), hashes.len(), "{text}");
                    words.into_iter().zip(hashes)
                })
                .collect();
            for a in &all {
                for b in &all {
                    assert_eq!(a.0 == b.0, a.1 == b.1, "{a:?} {b:?}");
                }
            }
        }
        let hashes = word_hashes("1 2 12 1 2", Signs::Separate);
        let runs: Vec<u64> = ngram_hashes(&hashes, 2).collect();
        assert!(runs.len() == 4 && runs[0] == runs[3] && runs[0] != runs[1]);
        assert_eq!(ngram_hashes(&hashes, 6).count(), 0);
    }
}
