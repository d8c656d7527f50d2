//! Measures of text: reflective words (DeepSeek-R1 long version, C.2: a list merged from three experts) and language
//! consistency (share of words in the target language, DeepSeek-R1 section 2.3.2; the word rule is ours).

use std::sync::LazyLock;

use regex::Regex;

use crate::problem::Language;

/// English words of reflection, counted as whole words in any case.
pub const REFLECTIVE_ENGLISH: [&str; 10] =
    ["wait", "mistake", "however", "but", "retry", "error", "verify", "wrong", "evaluate", "check"];
/// Chinese counterparts, counted wherever they stand: wait, not right, error, check, verify, try again.
pub const REFLECTIVE_CHINESE: [&str; 6] = ["等等", "不对", "错误", "检查", "验证", "再试"];

/// Number of reflective words in a text.
pub fn reflective_words(text: &str) -> usize {
    let english = text
        .split(|c: char| !is_letter(c))
        .filter(|word| REFLECTIVE_ENGLISH.iter().any(|known| known.eq_ignore_ascii_case(word)))
        .count();
    english + REFLECTIVE_CHINESE.iter().map(|word| text.matches(word).count()).sum::<usize>()
}

static NOT_WORDS: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(concat!(
        r"</?(?:think|answer)>",
        r"|(?s:```.*?(?:```|$))|`[^`\n]*`",
        r"|\\\(.*?\\\)|(?s:\\\[.*?\\\])|(?s:\$\$.*?\$\$)",
        r"|\$[^\s$](?:[^$\n]*[^\s$])?\$(?:[^0-9]|$)", // a dollar amount has no closing sign of this form
        r"|\\[A-Za-z]+"
    ))
    .expect("a valid pattern")
});

/// Share of the words that are in `target`, from 0 to 1; `None` when there are no words.
///
/// A Han character is one word, a run of two or more letters of another script is one word: Latin counts as English, Han as
/// Chinese, anything else as neither. Digits, mathematics, code in backquotes, tags and single letters are not words.
pub fn language_consistency(text: &str, target: Language) -> Option<f64> {
    let text = NOT_WORDS.replace_all(text, " ");
    let (mut latin, mut han, mut other, mut run, mut run_latin) = (0u64, 0u64, 0u64, 0u64, true);
    for c in text.chars().chain([' ']) {
        if is_letter(c) {
            run += 1;
            run_latin &= is_latin(c);
            continue;
        }
        if run >= 2 {
            if run_latin {
                latin += 1;
            } else {
                other += 1;
            }
        }
        (run, run_latin) = (0, true);
        han += u64::from(is_han(c));
    }
    let words = latin + han + other;
    let wanted = match target {
        Language::English => latin,
        Language::Chinese => han,
    };
    (words > 0).then(|| wanted as f64 / words as f64)
}

/// Whether some words are not in `target`.
pub fn is_mixed(text: &str, target: Language) -> bool {
    language_consistency(text, target).is_some_and(|share| share < 1.0)
}

/// A letter of an alphabet, Han characters apart.
fn is_letter(c: char) -> bool {
    c.is_alphabetic() && !is_han(c)
}

fn is_latin(c: char) -> bool {
    c.is_ascii_alphabetic() || matches!(c, '\u{c0}'..='\u{24f}' | '\u{1e00}'..='\u{1eff}')
}

fn is_han(c: char) -> bool {
    matches!(c, '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{323af}' | '々' | '〇')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_reflection() {
        assert_eq!(reflective_words("Wait, but that is WRONG. Check again."), 4);
        assert_eq!(reflective_words("waiting rebut checked errors button"), 0);
        assert_eq!(reflective_words("wait,wait wait"), 3);
        assert_eq!(reflective_words("等等，不对，我再试一次。wait检查"), 5);
        assert_eq!(reflective_words(""), 0);
        assert_eq!(reflective_words("mistake however retry error verify evaluate"), 6);
    }

    #[test]
    fn shares() {
        assert_eq!(language_consistency("so the sum is 14", Language::English), Some(1.0));
        assert_eq!(language_consistency("so the sum is 14", Language::Chinese), Some(0.0));
        // 4 Han characters and 1 Latin word
        assert_eq!(language_consistency("我们 check 一下 x=3", Language::Chinese), Some(0.8));
        assert_eq!(language_consistency("我们 check 一下 x=3", Language::English), Some(0.2));
        assert_eq!(language_consistency("答案是14", Language::Chinese), Some(1.0));
        assert_eq!(language_consistency("привет there", Language::English), Some(0.5));
        assert_eq!(language_consistency("3+4=7 x y", Language::English), None);
        assert_eq!(language_consistency("", Language::Chinese), None);
    }

    #[test]
    fn tags_and_mathematics_are_not_words() {
        assert_eq!(language_consistency("<think> 我 </think> <answer> 14 </answer>", Language::Chinese), Some(1.0));
        assert_eq!(
            language_consistency(r"面积 \(\text{area}=ab\) 和 $sin x$，\frac{1}{2}", Language::Chinese),
            Some(1.0)
        );
        assert_eq!(language_consistency("所以是`max(x)`。", Language::Chinese), Some(1.0));
        // dollar amounts do not open mathematics: both words in between count
        assert_eq!(language_consistency("$2 per egg, $18", Language::English), Some(1.0));
        assert_eq!(language_consistency("买 $2 per egg, $18", Language::Chinese), Some(1.0 / 3.0));
    }

    #[test]
    fn mixing() {
        assert!(is_mixed("the 答案", Language::English));
        assert!(!is_mixed("the answer", Language::English));
        assert!(!is_mixed("1+1", Language::English));
    }
}
