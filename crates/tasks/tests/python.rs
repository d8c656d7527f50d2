//! The evaluator of tiny programs against Python itself, in the sandbox. This binary is its own sandbox helper, so it has a
//! `main` of its own.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("skipped: the sandbox needs Linux");
}

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    linux::main()
}

#[cfg(target_os = "linux")]
mod linux {
    use aha_sandbox::{Config, Helper, IoTest, Language, Limits, Sandbox, Submission, Tests, Verdict};
    use aha_tasks::mini::{Exercise, Rng};
    use aha_tasks::program::{Example, Fault, Program, Value, source};
    use std::collections::HashMap;
    use std::fmt::Write;
    use std::process::ExitCode;

    /// Runs programs as they are given, one JSON line each, and says what came out.
    const DRIVER: &str = r#"
import json, sys
for line in sys.stdin:
    code, arg = json.loads(line)
    space = {}
    try:
        exec(compile(code, "program", "exec"), space)
        value = space["f"](arg)
        print("raises" if value is None else json.dumps(value))
    except SyntaxError:
        print("syntax")
    except Exception:
        print("raises")
"#;

    pub fn main() -> ExitCode {
        if let Some(code) = aha_sandbox::run_helper_if_asked() {
            return code;
        }
        let limits = Limits { cpu_ms: 20_000, wall_ms: 60_000, ..Limits::default() };
        let sandbox = Sandbox::new(Config { limits, ..Config::new(Helper::this_binary().unwrap()) });
        let sandbox = match sandbox.map(|s| s.tool_version(Language::Python).map(|_| s)) {
            Ok(Ok(sandbox)) => sandbox,
            Ok(Err(words)) => {
                println!("skipped: {words}");
                return ExitCode::SUCCESS;
            }
            Err(e) => {
                println!("skipped: {e}");
                return ExitCode::SUCCESS;
            }
        };
        values_agree(&sandbox);
        verdicts_agree(&sandbox);
        println!("test result: ok");
        ExitCode::SUCCESS
    }

    /// Thousands of random programs, right ones and broken ones: values, exceptions and syntax errors are Python's.
    fn values_agree(sandbox: &Sandbox) {
        let mut rng = Rng::new(11, 0);
        let mut cases = Vec::new();
        for i in 0..12_000 {
            let mut text = if i % 3 == 0 { Exercise::draw(&mut rng).form } else { expression(&mut rng, 0) };
            if i % 4 == 1 {
                text = damaged(&text, &mut rng);
            }
            let text = match i % 5 {
                0 => format!("lambda x:{text}"),
                1 | 2 => format!("def f(x):return {text}"),
                3 => format!("def f(x):\n    return {text}"),
                _ => text,
            };
            cases.push((text, argument(&mut rng)));
        }
        let mut seen: HashMap<&str, usize> = HashMap::new();
        for part in cases.chunks(1000) {
            let input: String =
                part.iter().map(|(text, arg)| format!("{}\n", serde_json::json!([source(text), arg]))).collect();
            let mut output = String::new();
            let mut known = Vec::new();
            for (text, arg) in part {
                let ours = match Program::parse(text).and_then(|p| p.call(arg)) {
                    Ok(value) => Some(serde_json::to_string(&value).unwrap()),
                    Err(Fault::Syntax) => Some("syntax".to_owned()),
                    Err(Fault::Raises) => Some("raises".to_owned()),
                    Err(Fault::Unsupported) => None,
                };
                known.push(ours);
            }
            // Only programs with a verdict are compared; the others are left out of the input.
            let lines: Vec<&str> = input.lines().collect();
            let mut asked = String::new();
            for (i, ours) in known.iter().enumerate() {
                let kind = match ours.as_deref() {
                    None => "unsupported",
                    Some("syntax") => "syntax",
                    Some("raises") => "raises",
                    Some(_) => "value",
                };
                *seen.entry(kind).or_default() += 1;
                if let Some(ours) = ours {
                    writeln!(asked, "{}", lines[i]).unwrap();
                    writeln!(output, "{}", python_json(ours)).unwrap();
                }
            }
            let tests = Tests::Io(vec![IoTest { input: asked.clone(), output: output.clone() }]);
            let submission =
                Submission { language: Language::Python, code: DRIVER.into(), tests, cpu_ms: None, memory: None };
            let judged = sandbox.judge(&submission);
            if judged.verdict != Verdict::Accepted {
                let line = judged.first_difference.as_ref().and_then(|d| d.line).unwrap_or(1);
                panic!("{judged:?}\nprogram {:?}", asked.lines().nth(line - 1));
            }
        }
        println!("values agree: {seen:?}");
        let all = cases.len();
        assert!(seen["value"] * 3 > all && seen["raises"] * 20 > all && seen["syntax"] * 20 > all, "{seen:?}");
        assert!(seen["unsupported"] * 5 < all, "{seen:?}");
    }

    /// The verdict on an answer is the sandbox's verdict on the same calls, hidden and shown.
    fn verdicts_agree(sandbox: &Sandbox) {
        let mut rng = Rng::new(12, 0);
        let mut right = 0;
        const CASES: usize = 120;
        for i in 0..CASES {
            let e = Exercise::draw(&mut rng);
            let form = match i % 4 {
                0 => e.form.clone(),
                1 => e.guess(&mut rng).to_owned(),
                2 => damaged(&e.form, &mut rng),
                // The shown outputs by heart.
                _ => format!("[{}][x%3]", e.shown.iter().map(|s| s.output.to_string()).collect::<Vec<_>>().join(",")),
            };
            let text = Exercise::program(&form);
            let examples: Vec<&Example> = e.shown.iter().chain(&e.hidden).collect();
            let Some(ours) = (match Program::parse(&text) {
                Ok(program) => program.passes(examples.iter().copied()),
                Err(Fault::Unsupported) => None,
                Err(_) => Some(false),
            }) else {
                continue;
            };
            let calls: Vec<_> =
                examples.iter().map(|e| serde_json::json!({"args": [e.input], "expected": e.output})).collect();
            let line = serde_json::json!({"code": text, "entry_point": "f", "tests": calls}).to_string();
            let judged = sandbox.judge(&Submission::from_json(&line).unwrap());
            assert_ne!(judged.verdict, Verdict::SandboxError, "{judged:?}");
            assert_eq!(judged.verdict == Verdict::Accepted, ours, "{text}: {judged:?}");
            right += usize::from(ours);
        }
        println!("verdicts agree: {right} of {CASES} programs right");
        assert!(right * 5 > CASES && right < CASES / 2, "{right}");
    }

    /// Our JSON in Python's spacing.
    fn python_json(ours: &str) -> String {
        match serde_json::from_str::<Value>(ours) {
            Ok(Value::List(_)) => {
                fn spaced(value: &Value) -> String {
                    match value {
                        Value::List(items) => {
                            format!("[{}]", items.iter().map(spaced).collect::<Vec<_>>().join(", "))
                        }
                        other => serde_json::to_string(other).unwrap(),
                    }
                }
                spaced(&serde_json::from_str(ours).unwrap())
            }
            _ => ours.to_owned(),
        }
    }

    fn argument(rng: &mut Rng) -> Value {
        match rng.range(0, 2) {
            0 => Value::Int(rng.range(-20, 20)),
            1 => Value::List((0..rng.range(0, 5)).map(|_| Value::Int(rng.range(-9, 9))).collect()),
            _ => Value::Text((0..rng.range(0, 5)).map(|_| *rng.pick(&['a', 'b', 'c', 'Z', ' '])).collect()),
        }
    }

    /// A random expression of everything the subset has, with kinds that fit or do not.
    fn expression(rng: &mut Rng, depth: usize) -> String {
        let small = |rng: &mut Rng| rng.range(-4, 9).to_string();
        if depth >= 3 || rng.unit() < 0.3 {
            return match rng.range(0, 5) {
                0..=3 => "x".into(),
                4 => small(rng),
                _ => (*rng.pick(&["'ab'", "[1,2]", "[]", "''", "y", "[x]"])).to_owned(),
            };
        }
        let inner = |rng: &mut Rng| expression(rng, depth + 1);
        match rng.range(0, 9) {
            0..=2 => {
                let op = *rng.pick(&["+", "-", "*", "//", "%", " + ", " * "]);
                format!("{}{op}{}", inner(rng), inner(rng))
            }
            3 => format!("({})", inner(rng)),
            4 => format!("-{}", inner(rng)),
            5 => format!("{}[{}]", inner(rng), small(rng)),
            6 => {
                let mut bound = |odds: f64| if rng.unit() < odds { small(rng) } else { String::new() };
                let (a, b, c) = (bound(0.6), bound(0.6), bound(0.4));
                format!("{}[{a}:{b}:{c}]", inner(rng))
            }
            7 => format!("{}({})", *rng.pick(&["len", "max", "min", "sum", "sorted", "abs", "foo"]), inner(rng)),
            8 => format!("{}({},{})", *rng.pick(&["max", "min", "sum", "len"]), inner(rng), inner(rng)),
            _ => format!("{}.{}", inner(rng), *rng.pick(&["upper()", "lower()", "count('a')", "count(1)", "count()"])),
        }
    }

    /// One character left out, put in or doubled.
    fn damaged(text: &str, rng: &mut Rng) -> String {
        let mut chars: Vec<char> = text.chars().collect();
        let at = rng.range(0, chars.len() as i64 - 1) as usize;
        match rng.range(0, 2) {
            0 => {
                chars.remove(at);
            }
            1 => chars.insert(at, *rng.pick(&['(', ')', '[', ']', 'x', '3', '+', '-', '.', ' ', '?', ',', ':'])),
            _ => chars.insert(at, chars[at]),
        }
        chars.into_iter().collect()
    }
}
