//! The subset by hand; `tests/python.rs` compares it with Python itself.

use super::*;

fn int(n: i64) -> Value {
    Value::Int(n)
}

fn list(items: &[i64]) -> Value {
    Value::List(items.iter().copied().map(Value::Int).collect())
}

fn text(s: &str) -> Value {
    Value::Text(s.into())
}

fn run(program: &str, input: &Value) -> Result<Value, Fault> {
    Program::parse(program)?.call(input)
}

#[test]
fn values_are_pythons() {
    for (program, input, output) in [
        ("x*2+3", int(5), int(13)),
        ("def f(x):return x*2+3", int(5), int(13)),
        ("def f(n):\n    return n//2", int(-5), int(-3)),
        ("f = lambda y: y % -3", int(5), int(-1)),
        ("`-x--x*+2`", int(7), int(7)),
        ("```python\ndef f(x): return x\n```", int(1), int(1)),
        ("x[::-1]", text("abc"), text("cba")),
        ("x[-2:]+x[:1]", list(&[1, 2, 3]), list(&[2, 3, 1])),
        ("x[5:0:-2]", text("abcdef"), text("fdb")),
        ("max(x)-min(x)", list(&[3, 9, 4]), int(6)),
        ("sorted(x)[0]", text("cab"), text("a")),
        ("sum(x)+len(x)", list(&[3, 9, 4]), int(19)),
        ("[x,x+1,]", int(2), list(&[2, 3])),
        ("x.upper()*2", text("ab"), text("ABAB")),
        ("x.count('a')", text("banana"), int(3)),
        ("abs(min(x,3))", int(-4), int(4)),
    ] {
        assert_eq!(run(program, &input), Ok(output), "{program}");
    }
}

#[test]
fn faults_tell_wrong_from_unknown() {
    let kinds: [(Fault, &[&str]); 3] = [
        (Fault::Syntax, &["lambda x:", "x+", "x x", "(x", "x]", "x?", "max(x", "I do not know", "x+)) if", "x[]"]),
        (Fault::Raises, &["", "x+'a'", "y", "x[0]", "x//0", "foo(x)", "len(x)", "x(1)", "def g(x):return x", "字"]),
        (
            Fault::Unsupported,
            &[
                "x**2",
                "int(x)",
                "x if x else 1",
                "[y for y in x]",
                "x*9999999999*9999999999",
                "'a'*x*99999",
                "x/2",
                "x,x",
                "def f(x):\nreturn x",
            ],
        ),
    ];
    for (fault, programs) in kinds {
        for program in programs {
            assert_eq!(run(program, &int(5)), Err(fault), "{program}");
        }
    }
}

#[test]
fn any_text_is_answered_at_once() {
    for text in
        ["(".repeat(300), "-".repeat(300), "x[".repeat(150), "x*".repeat(150), "9".repeat(300), "x()".repeat(90)]
    {
        assert!(run(&text, &int(3)).is_err());
    }
    let squares = "[".to_owned() + &"x*9,".repeat(70) + "]";
    assert_eq!(run(&squares, &list(&[1; 30])), Err(Fault::Unsupported));
}

#[test]
fn wrong_decides_before_unknown() {
    let example = |n, m| Example { input: int(n), output: int(m) };
    let program = Program::parse("x*9223372036854775807").unwrap();
    assert_eq!(program.passes(&[example(0, 0), example(2, 5)]), None);
    assert_eq!(program.passes(&[example(2, 5), example(0, 1)]), Some(false));
    assert_eq!(Program::parse("x+1").unwrap().passes(&[example(2, 3), example(0, 1)]), Some(true));
}

#[test]
fn values_read_and_write_as_json_and_python() {
    let value = Value::List(vec![int(3), text("a'b"), list(&[1])]);
    assert_eq!(value.to_string(), r"[3,'a\'b',[1]]");
    let json = serde_json::to_string(&value).unwrap();
    assert_eq!(json, r#"[3,"a'b",[1]]"#);
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), value);
}

#[test]
fn sources_define_f() {
    assert_eq!(source("`x+1`"), "def f(x):return x+1");
    assert_eq!(source("lambda x:x"), "f=lambda x:x");
    assert_eq!(source(" f = lambda x:x "), "f = lambda x:x");
    assert_eq!(source("def f(x):return x"), "def f(x):return x");
}
