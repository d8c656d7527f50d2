//! Language of a text and the share of its words that are in it: R1's language consistency (DeepSeek-R1, section 2.3.2:
//! words of the target language over words, in the chain of thought). The paper leaves the word rule and the identification
//! open; ours: a word belongs to a script by Unicode, and where languages share a script, sentences are told apart by
//! letter trigrams (crate `whatlang`). Code, mathematics, tags, addresses and numerals are not words.

use regex::Regex;
use std::sync::LazyLock;
use whatlang::{Detector, Lang};

/// A writing system, as far as languages are told apart by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Script {
    /// English, Spanish, Turkish, Vietnamese and many more.
    Latin,
    /// Russian, Ukrainian, Bulgarian, Serbian and more.
    Cyrillic,
    /// Arabic, Persian, Urdu.
    Arabic,
    /// Hindi, Marathi, Nepali.
    Devanagari,
    /// Hebrew, Yiddish.
    Hebrew,
    /// Chinese; part of Japanese.
    Han,
    /// The two syllabaries of Japanese.
    Kana,
    /// Korean.
    Hangul,
    /// Greek.
    Greek,
    /// Any other, by the first code point of its block; each is one language here.
    Other(u32),
}

/// First and last code point of the blocks of scripts that one language of ours uses.
const OTHERS: [(u32, u32); 16] = [
    (0x530, 0x58f),    // Armenian
    (0x980, 0x9ff),    // Bengali
    (0xa00, 0xa7f),    // Gurmukhi
    (0xa80, 0xaff),    // Gujarati
    (0xb00, 0xb7f),    // Oriya
    (0xb80, 0xbff),    // Tamil
    (0xc00, 0xc7f),    // Telugu
    (0xc80, 0xcff),    // Kannada
    (0xd00, 0xd7f),    // Malayalam
    (0xd80, 0xdff),    // Sinhala
    (THAI, 0xe7f),     // Thai
    (LAO, 0xeff),      // Lao
    (MYANMAR, 0x109f), // Myanmar
    (0x10a0, 0x10ff),  // Georgian
    (0x1200, 0x139f),  // Ethiopic
    (KHMER, 0x17ff),   // Khmer
];
const THAI: u32 = 0xe00;
const LAO: u32 = 0xe80;
const MYANMAR: u32 = 0x1000;
const KHMER: u32 = 0x1780;
/// Letters and marks that stand for one word where a script writes none apart.
const LETTERS_PER_WORD: u64 = 4;

/// The script of a letter or mark; none for digits, punctuation and symbols.
pub fn script_of(c: char) -> Option<Script> {
    let code = u32::from(c);
    let script = match code {
        0x41..=0x5a | 0x61..=0x7a | 0xaa | 0xba | 0xc0..=0xd6 | 0xd8..=0xf6 | 0xf8..=0x2af | 0x1e00..=0x1eff => {
            Script::Latin
        }
        0xff21..=0xff3a | 0xff41..=0xff5a => Script::Latin,
        0x370..=0x3ff | 0x1f00..=0x1fff if c.is_alphabetic() => Script::Greek,
        0x400..=0x52f | 0x1c80..=0x1c8f => Script::Cyrillic,
        0x591..=0x5f4 => Script::Hebrew,
        0x620..=0x65f
        | 0x66e..=0x6d3
        | 0x6d5..=0x6ef
        | 0x6fa..=0x6ff
        | 0x750..=0x77f
        | 0xfb50..=0xfdff
        | 0xfe70..=0xfeff => Script::Arabic,
        0x900..=0x963 | 0x970..=0x97f => Script::Devanagari,
        0x3005 | 0x3007 | 0x3400..=0x4dbf | 0x4e00..=0x9fff | 0xf900..=0xfaff | 0x20000..=0x323af => Script::Han,
        0x3041..=0x309f | 0x30a1..=0x30fa | 0x30fc..=0x30ff | 0x31f0..=0x31ff | 0xff66..=0xff9f => Script::Kana,
        0x1100..=0x11ff | 0x3130..=0x318f | 0xac00..=0xd7a3 => Script::Hangul,
        _ => {
            let block = OTHERS.iter().find(|(first, last)| (*first..=*last).contains(&code))?;
            if c.is_numeric() {
                return None;
            }
            Script::Other(block.0)
        }
    };
    Some(script)
}

/// A language: its script, and which of the languages of that script where that can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextLanguage {
    /// The script.
    pub script: Script,
    /// The language within the script; none for scripts of one language and where it is not known.
    pub lang: Option<Lang>,
}

static NOT_WORDS: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(concat!(
        r"(?s:```.*?(?:```|$))|`[^`\n]*`",
        r"|</?[A-Za-z_|][^<>\n]{0,40}>",
        r"|\\\(.*?\\\)|(?s:\\\[.*?\\\])|(?s:\$\$.*?\$\$)",
        r"|\$[^\s$](?:[^$\n]*[^\s$])?\$(?:[^0-9]|$)",
        r"|\\boxed\{[^{}]*\}|\\[A-Za-z]+(?:\{[^{}]*\})*",
        r"|https?://\S+",
    ))
    .expect("a valid pattern")
});

/// Words of one script in a piece of text.
#[derive(Default)]
struct Piece<'a> {
    text: &'a str,
    /// Words by script, in order of appearance.
    words: Vec<(Script, u64)>,
}

impl Piece<'_> {
    fn of(&self, script: Script) -> u64 {
        self.words.iter().find(|w| w.0 == script).map_or(0, |w| w.1)
    }

    fn all(&self) -> u64 {
        self.words.iter().map(|w| w.1).sum()
    }
}

/// Counts words: a Han or Kana character is one, four letters of a script without spaces are one, a run of two or more
/// letters of another script is one (a single letter is a variable).
fn count<'a>(text: &'a str) -> Piece<'a> {
    let mut piece = Piece { text, words: Vec::new() };
    let (mut run, mut length) = (None, 0u64);
    for c in text.chars().chain(['\n']) {
        let script = script_of(c);
        // Accents that stand apart, and apostrophes and hyphens inside a word, continue it.
        if script.is_none()
            && run.is_some()
            && matches!(c, '\u{300}'..='\u{36f}' | '\u{200c}' | '\u{200d}' | '\'' | '’' | '-')
        {
            continue;
        }
        if script == run {
            length += 1;
            continue;
        }
        if let Some(script) = run {
            let words = match script {
                Script::Han | Script::Kana => length,
                Script::Other(THAI | LAO | MYANMAR | KHMER) => length.div_ceil(LETTERS_PER_WORD),
                _ => u64::from(length >= 2),
            };
            match piece.words.iter_mut().find(|w| w.0 == script) {
                Some(known) => known.1 += words,
                None => piece.words.push((script, words)),
            }
        }
        (run, length) = (script, 1);
    }
    piece
}

/// Number of words in a text, as [`share`] counts them.
pub fn words(text: &str) -> u64 {
    count(&NOT_WORDS.replace_all(text, "\n")).all()
}

/// Sentences, short ones joined to what follows on the same line until there are enough words to tell languages apart.
fn pieces(text: &str) -> Vec<Piece<'_>> {
    const ENOUGH: u64 = 8;
    let mut out = Vec::new();
    for line in text.lines() {
        let mut begin = 0;
        for (at, c) in line.char_indices() {
            let end = at + c.len_utf8();
            let ends = matches!(c, '.' | '!' | '?' | ';' | ':' | '。' | '！' | '？' | '；' | '।' | '؟' | '۔' | '…');
            if ends && count(&line[begin..end]).all() >= ENOUGH {
                out.push(count(&line[begin..end]));
                begin = end;
            }
        }
        out.push(count(&line[begin..]));
    }
    out.retain(|p| p.all() > 0);
    out
}

/// Languages that are told apart within a script.
fn candidates(script: Script) -> &'static [Lang] {
    use Lang::{
        Afr, Ara, Aze, Bel, Bul, Cat, Ces, Dan, Deu, Eng, Est, Fin, Fra, Heb, Hin, Hrv, Hun, Ind, Ita, Lav, Lit, Mar,
        Mkd, Nep, Nld, Nob, Pes, Pol, Por, Ron, Rus, Slk, Slv, Spa, Srp, Swe, Tgl, Tur, Ukr, Urd, Vie, Yid,
    };
    match script {
        Script::Latin => &[
            Eng, Spa, Por, Ita, Fra, Deu, Nld, Pol, Ces, Slk, Slv, Hrv, Ron, Hun, Fin, Est, Lav, Lit, Swe, Dan, Nob,
            Tur, Aze, Ind, Tgl, Vie, Cat, Afr,
        ],
        Script::Cyrillic => &[Rus, Ukr, Bel, Bul, Mkd, Srp],
        Script::Arabic => &[Ara, Pes, Urd],
        Script::Devanagari => &[Hin, Mar, Nep],
        Script::Hebrew => &[Heb, Yid],
        _ => &[],
    }
}

fn identify(text: &str, script: Script) -> Option<whatlang::Info> {
    let languages = candidates(script);
    if languages.is_empty() { None } else { Detector::with_allowlist(languages.to_vec()).detect(text) }
}

impl TextLanguage {
    /// English.
    pub const ENGLISH: Self = Self { script: Script::Latin, lang: Some(Lang::Eng) };
    /// Chinese.
    pub const CHINESE: Self = Self { script: Script::Han, lang: None };

    /// The language most words of a text are in; none when there are no words. A few words do not tell languages of one
    /// script apart: then `lang` is none.
    pub fn of(text: &str) -> Option<Self> {
        let text = NOT_WORDS.replace_all(text, "\n");
        let all = count(&text);
        let japanese = all.of(Script::Kana) * 10 > all.of(Script::Han);
        let (script, words) = *all.words.iter().max_by_key(|w| w.1)?;
        let script = match script {
            Script::Han if japanese && all.of(Script::Kana) > 0 => Script::Kana,
            other => other,
        };
        // English questions of a dozen words are taken for Danish or French at confidences up to 0.45.
        let enough = |info: &whatlang::Info| words >= 12 && (script != Script::Latin || info.confidence() >= 0.5);
        let certain = |info: &whatlang::Info| info.is_reliable() || words >= 40 || enough(info);
        let lang = identify(&text, script).filter(certain).map(|i| i.lang());
        (words > 0).then_some(Self { script, lang })
    }

    /// From an ISO 639-3 code such as `eng`; none when it is not one that is told apart.
    pub fn from_code(code: &str) -> Option<Self> {
        let lang = Lang::from_code(code)?;
        let scripts = [Script::Latin, Script::Cyrillic, Script::Arabic, Script::Devanagari, Script::Hebrew];
        let script = scripts.into_iter().find(|s| candidates(*s).contains(&lang))?;
        Some(Self { script, lang: Some(lang) })
    }
}

/// How sure the identification of a sentence must be to overrule the target.
const OVERRULE: f64 = 0.8;

/// Share of the words that are in `target`, from 0 to 1; none when there are no words.
///
/// Words of another script are never in the target, but for Han in Japanese. Where languages share a script, a sentence
/// counts as a whole, and as the target's when in doubt.
pub fn share(text: &str, target: TextLanguage) -> Option<f64> {
    let text = NOT_WORDS.replace_all(text, "\n");
    let (mut right, mut all) = (0, 0);
    for piece in pieces(&text) {
        all += piece.all();
        let kana = piece.of(Script::Kana);
        right += match target.script {
            Script::Kana if kana > 0 => kana + piece.of(Script::Han),
            // A Chinese sentence has no Kana; a Japanese one that quotes a word of Chinese is Japanese.
            Script::Han if kana * 10 > piece.of(Script::Han) => 0,
            script => match target.lang {
                Some(lang) if piece.of(script) >= 3 && is_other(&piece, script, lang) => 0,
                _ => piece.of(script),
            },
        };
    }
    (all > 0).then(|| right as f64 / all as f64)
}

/// Whether a sentence is surely in another language of the same script.
fn is_other(piece: &Piece<'_>, script: Script, lang: Lang) -> bool {
    identify(piece.text, script).is_some_and(|info| info.lang() != lang && info.confidence() >= OVERRULE)
}
