//! Decimal numbers as text: exact, without floating point.

/// More digits than this are no answer.
const MAX_DIGITS: usize = 64;

/// The canonical form of a decimal number, or `None` when `text` is not one.
///
/// Accepts a sign, a currency sign, thousands separators in groups of three and a trailing point; only ASCII digits. The
/// canonical form has no plus, no separators, no leading zeros and no trailing zeros after the point: `"$1,080.50"` is
/// `"1080.5"`, `"-0"` is `"0"`.
pub fn canonical_number(text: &str) -> Option<String> {
    let mut rest = text.trim();
    let (mut negative, mut signed, mut currency) = (false, false, false);
    loop {
        if let Some(r) = rest.strip_prefix(['-', '+', '\u{2212}']).filter(|_| !signed) {
            signed = true;
            negative = !rest.starts_with('+');
            rest = r;
        } else if let Some(r) =
            rest.strip_prefix("\\$").or_else(|| rest.strip_prefix(['$', '€', '£', '¥', '￥'])).filter(|_| !currency)
        {
            currency = true;
            rest = r.trim_start();
        } else {
            break;
        }
    }
    let length = number_length(rest.as_bytes());
    let tail = &rest[length..];
    if length == 0 || !(tail.is_empty() || tail == "." && !rest[..length].contains('.')) {
        return None;
    }
    let plain: String = rest[..length].chars().filter(|c| *c != ',').collect();
    if plain.len() > MAX_DIGITS {
        return None;
    }
    let (whole, fraction) = plain.split_once('.').unwrap_or((&plain, ""));
    let whole = match whole.trim_start_matches('0') {
        "" => "0",
        w => w,
    };
    let fraction = fraction.trim_end_matches('0');
    let minus = if negative && (whole != "0" || !fraction.is_empty()) { "-" } else { "" };
    let point = if fraction.is_empty() { "" } else { "." };
    Some(format!("{minus}{whole}{point}{fraction}"))
}

/// Length of the number at the start of `bytes` (0 when there is none): digits, groups of `,ddd`, then `.digits`.
fn number_length(bytes: &[u8]) -> usize {
    let digits = |from: usize| bytes[from.min(bytes.len())..].iter().take_while(|b| b.is_ascii_digit()).count();
    let mut end = digits(0);
    if (1..=3).contains(&end) {
        while bytes.get(end) == Some(&b',') && digits(end + 1) == 3 {
            end += 4;
        }
    }
    if bytes.get(end) == Some(&b'.') {
        let fraction = digits(end + 1);
        if fraction > 0 {
            end += 1 + fraction;
        }
    }
    end
}

/// Every number in running text, in order, in canonical form. A minus counts as a sign only where it does not follow a
/// digit, a letter or a closing bracket, so `20-5` holds 20 and 5. Digits glued to a letter before them are no number.
/// Numbers that are absurdly long are left out.
pub fn numbers_in(text: &str) -> Vec<String> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let leading_point = bytes[at] == b'.' && bytes.get(at + 1).is_some_and(u8::is_ascii_digit);
        if !bytes[at].is_ascii_digit() && !leading_point {
            at += 1;
            continue;
        }
        let length = number_length(&bytes[at..]).max(1);
        let glued = at > 0 && (bytes[at - 1].is_ascii_alphabetic() || bytes[at - 1] == b'_');
        if !glued && let Some(number) = canonical_number(&text[at..at + length]) {
            found.push(if is_negative(&text[..at]) && number != "0" { format!("-{number}") } else { number });
        }
        at += length;
    }
    found
}

/// Whether the text before a number ends in a minus sign that belongs to the number.
fn is_negative(before: &str) -> bool {
    let before = before.strip_suffix("\\$").or_else(|| before.strip_suffix('$')).unwrap_or(before);
    let Some(before) = before.strip_suffix(['-', '\u{2212}']) else { return false };
    !before
        .chars()
        .next_back()
        .is_some_and(|c| c.is_alphanumeric() || matches!(c, ')' | ']' | '}' | '-' | '.' | '$' | '%'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_spellings_have_one_form() {
        for text in ["18", " 18 ", "+18", "18.", "18.0", "18.000", "$18.00", "$18", "\\$18", "018", "$ 18"] {
            assert_eq!(canonical_number(text).as_deref(), Some("18"), "{text}");
        }
        for text in ["1,080", "1080", "1,080.0", "$1,080", "1080."] {
            assert_eq!(canonical_number(text).as_deref(), Some("1080"), "{text}");
        }
        for text in ["-5", "-$5", "$-5", "\u{2212}5", "-5.0"] {
            assert_eq!(canonical_number(text).as_deref(), Some("-5"), "{text}");
        }
        assert_eq!(canonical_number("-0.0").as_deref(), Some("0"));
        assert_eq!(canonical_number("0.50").as_deref(), Some("0.5"));
        assert_eq!(canonical_number("-1,234,567.890").as_deref(), Some("-1234567.89"));
        assert_eq!(canonical_number("9007199254740993").as_deref(), Some("9007199254740993"));
        assert_eq!(canonical_number("840.").as_deref(), Some("840"));
    }

    #[test]
    fn other_text_is_no_number() {
        for text in [
            "",
            " ",
            ".",
            "-",
            "$",
            "--5",
            "+-5",
            "$$5",
            "1,08",
            "10,80",
            "1080,000",
            "1,0800",
            ",108",
            "1.2.3",
            "18..",
            "1.5.",
            "1e3",
            "0x10",
            "18 apples",
            "１８",
            "١٨",
            "1 8",
            "3/4",
            "nan",
            "inf",
            "½",
            "5-",
            "5%",
        ] {
            assert_eq!(canonical_number(text), None, "{text}");
        }
        assert_eq!(canonical_number(&"1".repeat(65)), None);
        assert_eq!(canonical_number(&"0".repeat(1_000_000)), None);
        assert!(canonical_number(&"1".repeat(64)).is_some());
    }

    #[test]
    fn finds_numbers_in_text() {
        assert_eq!(numbers_in("16-3-4=9"), ["16", "3", "4", "9"]);
        assert_eq!(numbers_in("x = -4, then 5 - 4"), ["-4", "5", "4"]);
        assert_eq!(numbers_in("costs $1,080.50."), ["1080.5"]);
        assert_eq!(numbers_in("loses -$3"), ["-3"]);
        assert_eq!(numbers_in("1,2,3 and 1,234,56"), ["1", "2", "3", "1234", "56"]);
        assert_eq!(numbers_in("x2 and 18km"), ["18"]);
        assert_eq!(numbers_in("共18个。"), ["18"]);
        assert_eq!(numbers_in("１８"), Vec::<String>::new());
        assert!(numbers_in(&"7".repeat(100_000)).is_empty());
        assert_eq!(numbers_in(&"7 ".repeat(1000)).len(), 1000);
    }
}
