//! The math grader on pairs that a person has judged, on responses, on hostile input and on real data sets.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod bounds;
mod expressions;
mod fuzz;
mod numbers;
mod places;
mod sets;
mod writing;

use aha_tasks::Verdict;
use aha_tasks::math::{GradeOptions, grade};

/// Grades each line `REFERENCE @@ ANSWER`, the answer bare and in a box, and reports every line with another verdict.
fn check(wanted: Verdict, lines: &str) {
    let mut bad = Vec::new();
    let mut count = 0;
    for line in lines.lines().map(str::trim).filter(|l| !l.is_empty()) {
        let (reference, answer) = line.split_once(" @@ ").unwrap_or_else(|| panic!("no @@ in {line}"));
        for response in [format!("So we are done.\n\\[\\boxed{{{answer}}}\\]"), answer.to_owned()] {
            let graded = grade(reference, &response, GradeOptions::default());
            if graded.verdict != wanted {
                bad.push(format!("{reference}  @@  {response:?}: {:?}, read as {:?}", graded.verdict, graded.answer));
            }
        }
        count += 1;
    }
    assert!(count > 0);
    assert!(bad.is_empty(), "{} of {} wrong:\n{}", bad.len(), 2 * count, bad.join("\n"));
}

fn equal(lines: &str) {
    check(Verdict::Correct, lines);
}

fn different(lines: &str) {
    check(Verdict::Incorrect, lines);
}
