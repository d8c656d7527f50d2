//! Hostile input is answered at once.

use std::time::{Duration, Instant};

use aha_tasks::Verdict;
use aha_tasks::math::{GradeOptions, grade};

/// Longest time for one response, with room for a busy machine.
const LIMIT: Duration = Duration::from_secs(4);

fn timed(reference: &str, response: &str) -> Verdict {
    let begin = Instant::now();
    let verdict = grade(reference, response, GradeOptions::default()).verdict;
    let head = &response[..response.floor_char_boundary(60)];
    assert!(begin.elapsed() < LIMIT, "{:?} for {head}", begin.elapsed());
    verdict
}

#[test]
fn towers_of_powers() {
    assert_eq!(timed("10^{10^{10}}", r"\boxed{10^{10^{10}}}"), Verdict::Correct);
    assert_eq!(timed("10^{10^{10}}", r"\boxed{7}"), Verdict::Incorrect);
    assert_eq!(timed("7", r"\boxed{10^{10^{10}}}"), Verdict::Incorrect);
    assert_ne!(timed("7", r"\boxed{10^{10^{10^{10}}}}"), Verdict::Correct);
    assert_eq!(timed("2^{10000000000}", r"\boxed{2 \cdot 2^{9999999999}}"), Verdict::Correct);
    for tower in [
        "9^9^9^9^9^9^9^9",
        "f^f^f^f^f^f^f^f^f^f^f^f^f^f^f^f^f^f^f^f^f^f^f^f^f^f^f^f^f^f^f^f^f^f(x)",
        "2^{-2^{-2^{-2^{99999}}}}",
    ] {
        assert_ne!(timed("7", tower), Verdict::Correct);
        timed(tower, tower);
        timed(tower, "7");
    }
}

#[test]
fn nesting_and_length() {
    for unit in [
        "(",
        "[",
        "{",
        ")",
        "|",
        r"\{",
        r"\left(",
        r"\sqrt{",
        r"\frac{1}{",
        r"\boxed{",
        r"\text{",
        r"\boxed ",
        "$",
        r"\(",
        r"\[",
        "1e",
        "-",
        "+",
        "^",
        "_",
        "!",
        "1,",
        ".",
        r"\begin{pmatrix}",
        "####",
        "the answer is ",
        "<answer>",
        "答案是",
        r"\\",
        "1/",
        "a:",
        "%",
    ] {
        for size in [500, 3_900, 100_000] {
            let text = unit.repeat(size / unit.len());
            timed("7", &text);
            timed(&text, "7");
            timed(&text, &text);
            timed("7", &format!(r"\boxed{{{text}}}"));
        }
    }
    let balanced = format!("{}7{}", "(".repeat(50_000), ")".repeat(50_000));
    assert_ne!(timed("8", &balanced), Verdict::Correct);
}

#[test]
fn huge_values() {
    for text in [
        "99999!",
        "((((9!)!)!)!)!",
        r"\binom{100000000}{50000000}",
        "1e9999",
        "9e9999*9e9999*9e9999",
        r"\sqrt[1000000]{2}",
        r"\sqrt[999999999999]{99999999999999999999999999999999999999999}",
        "(a+b+c+d+e+f+g+h)^{40}",
        "((a+b+c)^{9}+(d+e+f)^{9})^{9}",
        r"\sin(10^{100})",
        r"e^{e^{e^{e^{10}}}}",
        r"\log_{10^{1000}} 10^{-1000}",
        "99999999999999999999999999999999999999999999999999999999999999999999999999999999999999^{0.5}",
        "x^{99999999999}",
        "(x+1)^{99999999999}",
        "0^0",
        "0^{-1}",
        "1/0",
        r"\frac{0}{0}",
        r"\ln 0",
        r"\infty-\infty",
        "(-8)^{1/3}",
    ] {
        timed(text, "7");
        timed("7", text);
        timed("x+1", text);
        assert_ne!(timed(text, text), Verdict::Incorrect, "{text}");
    }
}

#[test]
fn many_costly_parts() {
    let sets: Vec<String> = (0..45).map(|i| format!(r"\sqrt{{{i}+\sqrt{{2}}}}")).collect();
    let reversed: Vec<String> = sets.iter().rev().cloned().collect();
    assert_ne!(timed(&sets.join(","), &reversed.join(",")), Verdict::Incorrect);
    let powers: Vec<String> = (0..150).map(|i| format!("(a+b+c+d+{i})^{{9}}")).collect();
    timed(&powers.join("+"), &powers[1..].join("+"));
    let roots: Vec<String> = (0..100).map(|i| format!(r"\sqrt{{9999999999999999{i}}}")).collect();
    timed(&roots.join("+"), &roots[1..].join("+"));
    let digits = "7".repeat(900);
    let products = [digits.as_str(); 4].join(r"x+1)(y+");
    timed(&format!("(1+{products})"), "1");
}
