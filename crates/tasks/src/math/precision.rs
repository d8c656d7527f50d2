//! Precision that a reference states: `\approx 3.14`, "rounded to two decimal places", "to the nearest tenth".

use std::sync::LazyLock;

use regex::Regex;

use super::compare::Rounding;
use super::node::Node;
use super::scalar::written_decimals;

static STATED: LazyLock<Regex> = LazyLock::new(|| {
    let pattern = r"(?i)(?:to|correct to|保留|精确到)\s*(?:the\s+)?(?:nearest\s+(tenth|hundredth|thousandth)|(\d|one|two|three|four|five|一|两|二|三|四)\s*(?:decimal\s+(?:place|digit)s?|位小数))";
    Regex::new(pattern).expect("a valid pattern")
});

/// How to compare numbers with a reference.
pub fn rounding(reference: &str, gold: Option<&Node>, decimals: u32) -> Rounding {
    if let Some(found) = STATED.captures(reference) {
        let word = found.get(1).or_else(|| found.get(2)).map_or("", |m| m.as_str()).to_lowercase();
        let places = match word.as_str() {
            "tenth" | "one" | "一" => 1,
            "hundredth" | "two" | "两" | "二" => 2,
            "thousandth" | "three" | "三" => 3,
            "four" | "四" => 4,
            "five" => 5,
            digit => digit.parse().unwrap_or(decimals),
        };
        return Rounding { decimals: places, always: true };
    }
    let approximate = ["\\approx", "≈", "approximately ", "about "]
        .iter()
        .any(|sign| reference.trim_start_matches('$').trim_start().starts_with(sign));
    match gold.and_then(written_decimals) {
        Some(places) if approximate => Rounding { decimals: places, always: true },
        _ => Rounding { decimals, always: false },
    }
}
