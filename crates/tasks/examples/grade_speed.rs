//! How many responses one thread grades in a second: `grade_speed FILE.jsonl [ROUNDS]` with the lines of `aha grade`, which
//! may also hold "decimals". Prints a verdict per line to stdout, and the rate of the fastest round to stderr.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

use aha_tasks::math::{GradeOptions, grade};
use std::time::Instant;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let file = arguments.next().expect("a file");
    let rounds: usize = arguments.next().map_or(1, |n| n.parse().expect("a number"));
    let rows: Vec<serde_json::Value> =
        std::fs::read_to_string(file).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let text = |row: &serde_json::Value, field: &str| row[field].as_str().unwrap().to_owned();
    let options = |row: &serde_json::Value| {
        let default = GradeOptions::default();
        GradeOptions { decimals: row["decimals"].as_u64().map_or(default.decimals, |n| n as u32), ..default }
    };
    let pairs: Vec<(String, String, GradeOptions)> =
        rows.iter().map(|r| (text(r, "reference"), text(r, "response"), options(r))).collect();
    let mut best = f64::INFINITY;
    let mut graded = Vec::new();
    for _ in 0..rounds.max(1) {
        let begin = Instant::now();
        graded = pairs.iter().map(|(a, b, options)| grade(a, b, *options)).collect();
        best = best.min(begin.elapsed().as_secs_f64());
    }
    for (row, g) in rows.iter().zip(&graded) {
        println!("{}", serde_json::json!({"id": row["id"], "verdict": g.verdict, "parsed": [g.reference, g.answer]}));
    }
    eprintln!("{} responses, {:.0} a second on one thread", pairs.len(), pairs.len() as f64 / best);
}
