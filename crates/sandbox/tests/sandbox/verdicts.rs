//! Every verdict in every language.

use super::{Language, Verdict, program, sandbox, submission};
use serde_json::json;

#[test]
fn python_io() {
    let Some(s) = sandbox(Language::Python) else { return };
    println!("{:?}", s.layers());
    let verdict = |code: &str, output: &str| s.judge(&program(Language::Python, code, output));
    assert_eq!(verdict("print(1)", "1").verdict, Verdict::Accepted, "{:?}", verdict("print(1)", "1"));
}
