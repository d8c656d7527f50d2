//! How many cases a second: prints; fails only below the bar, and only when asked for, since a busy machine decides it.

use super::{Language, Verdict, sandbox};
use aha_sandbox::{IoTest, Submission, Tests};
use std::time::Instant;

#[test]
#[ignore = "a measurement: cargo test --release -p aha-sandbox --test sandbox -- --ignored speed --nocapture"]
fn speed() {
    let Some(s) = sandbox(Language::Python) else { return };
    let one = |cases: usize| Submission {
        language: Language::Python,
        code: "print(int(input()) * 2)".into(),
        tests: Tests::Io((0..cases).map(|i| IoTest { input: i.to_string(), output: (2 * i).to_string() }).collect()),
        cpu_ms: None,
        memory: None,
    };
    let calls = |_| {
        super::submission(serde_json::json!({
            "code": "def f(a): return a * 2", "test": "def check(c):\n    assert c(2) == 4\n    assert c(3) == 6\n", "entry_point": "f",
        }))
    };
    for threads in [1, 2] {
        let measure = |what: &str, list: Vec<Submission>, cases: usize| {
            let begin = Instant::now();
            let verdicts = s.judge_all(&list, threads, |_, _| {});
            assert!(verdicts.iter().all(|v| v.verdict == Verdict::Accepted), "{:?}", verdicts[0]);
            let rate = (list.len() * cases) as f64 / begin.elapsed().as_secs_f64() / threads as f64;
            println!("{what}, {threads} threads: {rate:.1} cases per second and thread");
            rate
        };
        let single = measure("one case per submission", vec![one(1); 100], 1);
        let many = measure("ten cases per submission", vec![one(10); 20], 10);
        let pairs = measure("assert scripts (two processes each)", (0..50).map(calls).collect(), 1);
        assert!(single.min(many).min(pairs) >= 20.0);
    }
}
