//! Every verdict, in every language and form.

use super::{Language, Verdict, program, sandbox, submission};
use aha_sandbox::{IoTest, Submission, Tests};
use serde_json::json;

fn check(language: Language, code: &str, expected: Verdict) {
    let Some(s) = sandbox(language) else { return };
    let mut asked = program(language, code, "1\n2\n");
    if expected == Verdict::MemoryLimit {
        // Little, so that a slow machine meets it long before the limit on time.
        asked.memory = Some(128 << 20);
    }
    let judged = s.judge(&asked);
    assert_eq!(judged.verdict, expected, "{code}: {judged:?}");
    assert_eq!(judged.tests.len(), 1);
    assert_eq!(judged.first_difference.is_some(), expected == Verdict::WrongAnswer, "{judged:?}");
}

#[test]
fn python() {
    let check = |code: &str, expected| check(Language::Python, code, expected);
    check("print(1)\nprint(2)", Verdict::Accepted);
    check("import sys\nprint(1)\nprint(2)\nsys.exit()", Verdict::Accepted);
    check("print('1 ')\nprint(2)\nprint()\nexit(0)", Verdict::Accepted);
    check("if __name__ == '__main__':\n    print('1\\n2')", Verdict::Accepted);
    check("print(1)\nprint(3)", Verdict::WrongAnswer);
    check("", Verdict::WrongAnswer);
    check("1/0", Verdict::RuntimeError);
    check("exit(3)", Verdict::RuntimeError);
    check("print(", Verdict::RuntimeError);
    check("import os\nos.abort()", Verdict::RuntimeError);
    check("while True: pass", Verdict::TimeLimit);
    check("import time\ntime.sleep(100)", Verdict::TimeLimit);
    check("x = bytearray(10**10)", Verdict::MemoryLimit);
    check("x = []\nwhile True: x.append(bytearray(10**6))", Verdict::MemoryLimit);
    check("while True: print('x' * 10**6)", Verdict::OutputLimit);
    check("import sys\nwhile True: sys.stderr.write('x' * 10**6)", Verdict::OutputLimit);
}

#[test]
fn cpp() {
    let check = |code: &str, expected| check(Language::Cpp, code, expected);
    let main = |body: &str| format!("#include <bits/stdc++.h>\nusing namespace std;\nint main() {{ {body} }}");
    check(&main("cout << 1 << endl << 2 << endl;"), Verdict::Accepted);
    check(&main("cout << 1 << endl;"), Verdict::WrongAnswer);
    check(&main("volatile int z = 0; return 7 / z;"), Verdict::RuntimeError);
    check(&main("return 1;"), Verdict::RuntimeError);
    check(&main("volatile unsigned x = 0; while (true) x = x + 1;"), Verdict::TimeLimit);
    check(&main("vector<string> v; while (true) v.push_back(string(1 << 20, 'x'));"), Verdict::MemoryLimit);
    check(&main("while (true) cout << string(1 << 20, 'x');"), Verdict::OutputLimit);
    check(&main("cout << x;"), Verdict::CompileError);
    check("#include \"/etc/passwd\"", Verdict::CompileError);
    check("#include </dev/zero>", Verdict::CompileError);
}

#[test]
fn rust() {
    let check = |code: &str, expected| check(Language::Rust, code, expected);
    check("fn main() { println!(\"1\\n2\"); }", Verdict::Accepted);
    check("fn main() { println!(\"1\"); }", Verdict::WrongAnswer);
    check(
        "fn main() { let v: Vec<i32> = vec![]; println!(\"{}\", v[std::env::args().count()]); }",
        Verdict::RuntimeError,
    );
    check("fn main() { loop { std::hint::spin_loop() } }", Verdict::TimeLimit);
    check("fn main() { let mut v = vec![]; loop { v.push(vec![1u8; 1 << 20]); } }", Verdict::MemoryLimit);
    check("fn main() { loop { println!(\"{}\", \"x\".repeat(1 << 20)); } }", Verdict::OutputLimit);
    check("fn main() { x }", Verdict::CompileError);
    check("fn main() { print!(\"{}\", include_str!(\"/etc/passwd\")); }", Verdict::CompileError);
}

#[test]
fn input_arrives_whole() {
    let Some(s) = sandbox(Language::Python) else { return };
    let numbers: Vec<String> = (0..200_000).map(|n| n.to_string()).collect();
    let tests = Tests::Io(vec![
        IoTest { input: numbers.join("\n"), output: "19999900000".into() },
        IoTest { input: String::new(), output: "0".into() },
    ]);
    let code = "import sys\nprint(sum(map(int, sys.stdin.read().split())))".to_owned();
    let judged = s.judge(&Submission { language: Language::Python, code, tests, cpu_ms: None, memory: None });
    assert_eq!(judged.verdict, Verdict::Accepted, "{judged:?}");
}

#[test]
fn first_difference_is_named() {
    let Some(s) = sandbox(Language::Python) else { return };
    let judged = s.judge(&submission(json!({
        "code": "n = int(input())\nprint(n)\nprint(n * n)",
        "tests": [{"input": "1", "output": "1\n1"}, {"input": "3", "output": "3\n8"}, {"input": "4", "output": "0"}],
    })));
    assert_eq!(judged.verdict, Verdict::WrongAnswer);
    let first = judged.first_difference.unwrap();
    assert_eq!((first.test, first.line, first.expected.as_str(), first.got.as_str()), (1, Some(2), "8", "9"));
    assert_eq!(judged.tests[2].verdict, Some(Verdict::WrongAnswer));
}

/// The verdict and its reason of calls of `f`.
fn calls(code: &str, tests: serde_json::Value) -> Option<(Verdict, String)> {
    let s = sandbox(Language::Python)?;
    let judged = s.judge(&submission(json!({"code": code, "entry_point": "f", "tests": tests})));
    Some((judged.verdict, judged.reason.unwrap_or_default()))
}

#[test]
fn function_calls() {
    let one = |code: &str, args: serde_json::Value, expected: serde_json::Value, verdict| {
        let Some((got, reason)) = calls(code, json!([{"args": args, "expected": expected}])) else { return };
        assert_eq!(got, verdict, "{code}: {reason}");
    };
    use Verdict::{Accepted, CompileError, MemoryLimit, RuntimeError, TimeLimit, WrongAnswer};
    one("def f(a, b): return a + b", json!([1, 2]), json!(3), Accepted);
    one("class Solution:\n    def f(self, a): return [a, (a, a)]", json!([1]), json!([1, [1, 1]]), Accepted);
    one("def f(a): return {1: a}", json!([0.1]), json!({"1": 0.1}), Accepted);
    one("def f(a): return a * 3", json!([0.1]), json!(0.3), Accepted);
    one("def f(a): return a + 1", json!([0.1]), json!(0.3), WrongAnswer);
    one("def f(): return float('nan')", json!([]), json!(1.0), WrongAnswer);
    one("def f(a): return True", json!([1]), json!(1), Accepted);
    one("def f(a): return '1'", json!([1]), json!(1), WrongAnswer);
    one("def f(a): return None", json!([1]), json!(1), WrongAnswer);
    one("def f(a): return (x for x in [1, 2])", json!([1]), json!([1, 2]), Accepted);
    one("def g(a): return 1", json!([1]), json!(1), RuntimeError);
    one("def f(a): return 1 / 0", json!([1]), json!(1), RuntimeError);
    one("def f(a): raise SystemExit", json!([1]), json!(1), RuntimeError);
    one("def f(a):\n    import os\n    os._exit(0)", json!([1]), json!(1), RuntimeError);
    one("def f(a): return f(a)", json!([1]), json!(1), RuntimeError);
    one("def f(a) return 1", json!([1]), json!(1), CompileError);
    one("def f(a):\n    while True: pass", json!([1]), json!(1), TimeLimit);
    one("def f(a): return bytearray(10**10)", json!([1]), json!(1), MemoryLimit);
}

#[test]
fn large_numbers_stay_exact() {
    let Some(s) = sandbox(Language::Python) else { return };
    let line = |end: &str| {
        format!(
            "{{\"code\":\"def f(a): return a + 1\",\"entry_point\":\"f\",\"tests\":[{{\"args\":[123456789012345678901234567890],\"expected\":{end}}}]}}"
        )
    };
    let verdict = |end| s.judge(&Submission::from_json(&line(end)).unwrap()).verdict;
    assert_eq!(verdict("123456789012345678901234567891"), Verdict::Accepted);
    assert_eq!(verdict("123456789012345678901234567892"), Verdict::WrongAnswer);
}

#[test]
fn assertions() {
    let Some(s) = sandbox(Language::Python) else { return };
    let verdicts = |code: &str, tests: &[&str]| -> Vec<Verdict> {
        let judged = s.judge(&submission(json!({"code": code, "test_list": tests, "test_imports": ["import math"]})));
        judged.tests.iter().map(|t| t.verdict.unwrap()).collect()
    };
    use Verdict::{Accepted, RuntimeError, SandboxError, WrongAnswer};
    let code = "from math import gcd\nclass P:\n    def __init__(self, a): self.a = a\ndef f(x): return x * 2\ndef g(ps): return sum(p.a for p in ps)\ndef h(x): raise ValueError('no')";
    assert_eq!(
        verdicts(
            code,
            &["assert f(2) == 4", "assert f(2) == 5", "assert f([1]) == [1, 1]", "assert g([P(1), P(2)]) == 3"]
        ),
        [Accepted, WrongAnswer, Accepted, Accepted]
    );
    assert_eq!(
        verdicts(code, &["assert math.isclose(f(0.1), 0.2)", "assert gcd(f(2), 6) == 2", "assert P(3).a == 3", "h(1)"]),
        [Accepted, Accepted, Accepted, RuntimeError]
    );
    assert_eq!(
        verdicts(
            code,
            &["try:\n    h(1)\n    assert False\nexcept ValueError:\n    pass", "assert f(lambda: 1)", "assert ("]
        ),
        [Accepted, SandboxError, SandboxError]
    );
}
