//! Text for the page: escaping, and numbers as people read them.

use std::borrow::Cow;

/// Escapes text for HTML and SVG, between tags and in quoted attributes. Control characters, which XML does not
/// allow, become U+FFFD.
pub(super) fn escape(text: &str) -> Cow<'_, str> {
    let special = |c: char| matches!(c, '&' | '<' | '>' | '"' | '\'') || is_forbidden(c);
    if !text.contains(special) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c if is_forbidden(c) => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    Cow::Owned(escaped)
}

fn is_forbidden(c: char) -> bool {
    (c.is_control() && !matches!(c, '\n' | '\t' | '\r')) || matches!(c, '\u{fffe}' | '\u{ffff}')
}

/// About three significant digits: `0.912`, `62.4`, `1,830`, `3.0e-6`.
pub(super) fn number(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() {
        "–".to_owned()
    } else if size >= 1e7 {
        format!("{value:.2e}")
    } else if size >= 1000.0 {
        grouped(value)
    } else if size >= 100.0 {
        format!("{value:.0}")
    } else if size >= 10.0 {
        format!("{value:.1}")
    } else if size >= 1.0 {
        format!("{value:.2}")
    } else if size >= 1e-3 {
        format!("{value:.3}")
    } else if size == 0.0 {
        "0".to_owned()
    } else {
        format!("{value:.1e}")
    }
}

/// A whole number with commas between thousands.
fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    if value < 0.0 {
        text.push('−');
    }
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A share as a percentage without its sign: 0.9125 -> `91.3`; 1 is `100`.
pub(super) fn percent(share: f64) -> String {
    if !share.is_finite() {
        return "–".to_owned();
    }
    let text = format!("{:.1}", share * 100.0);
    text.strip_suffix(".0").filter(|whole| *whole == "100" || *whole == "0").map(str::to_owned).unwrap_or(text)
}

/// Seconds as `42 s`, `7 min 42 s`, `3 h 05 min`.
pub(super) fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "–".to_owned();
    }
    let whole = seconds.round() as u64;
    match whole {
        0..60 if seconds < 10.0 => format!("{seconds:.1} s"),
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_escapes() {
        assert_eq!(escape("plain 好"), "plain 好");
        let got = escape("<script>alert(\"&'\")</script>\u{0}\u{1b}[0m");
        assert_eq!(got, "&lt;script&gt;alert(&quot;&amp;&#39;&quot;)&lt;/script&gt;\u{fffd}\u{fffd}[0m");
    }

    #[test]
    fn numbers_read_well() {
        let cases = [
            (0.0, "0"),
            (0.9123, "0.912"),
            (62.44, "62.4"),
            (1830.4, "1,830"),
            (-1_234_567.0, "−1,234,567"),
            (3e-6, "3.0e-6"),
            (f64::NAN, "–"),
            (f64::INFINITY, "–"),
            (1e12, "1.00e12"),
            (123.4, "123"),
        ];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
        assert_eq!(
            ["91.3", "100", "0", "50.0", "–"].map(str::to_owned),
            [0.9127, 1.0, 0.0, 0.5, f64::NAN].map(percent)
        );
        assert_eq!(duration(462.0), "7 min 42 s");
        assert_eq!(duration(3.25), "3.2 s");
        assert_eq!(duration(11_100.0), "3 h 05 min");
        assert_eq!(duration(59.6), "1 min 00 s");
        assert_eq!(duration(f64::NAN), "–");
    }
}
