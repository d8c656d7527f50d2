//! What is to be judged: a program, and tests in one of three forms. Each form is also read from JSON in the shapes in which
//! HumanEval, MBPP and EvalPlus are published.

use serde::Deserialize;
use serde_json::value::RawValue;

/// Language of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Language {
    /// Python 3.
    #[serde(alias = "python3", alias = "py")]
    Python,
    /// C++17.
    #[serde(alias = "c++", alias = "cpp17", alias = "c++17")]
    Cpp,
    /// Rust, 2021 edition.
    Rust,
}

/// Standard input and the expected standard output.
#[derive(Clone, Debug)]
pub struct IoTest {
    /// What the program reads.
    pub input: String,
    /// What it must print: compared line by line without trailing white space, and without trailing empty lines.
    pub output: String,
}

/// The tests of a submission.
#[derive(Clone, Debug)]
pub enum Tests {
    /// One process per test.
    Io(Vec<IoTest>),
    /// Calls of one function (Python): one process answers all, another compares.
    Calls {
        /// Name of a function, of a method of a class `Solution`, or `Class.method`.
        entry_point: String,
        /// Each a JSON object with `args`, `expected` and perhaps `kwargs`.
        tests: Vec<Box<RawValue>>,
        /// Absolute tolerance for numbers; floats always have 1e-6.
        atol: f64,
    },
    /// Scripts with assertions (Python): run in a process of their own, calls go to the program's process.
    Asserts {
        /// Run once before the tests: imports.
        setup: String,
        /// Each a script; one that defines `check(candidate)` has it called with the entry point.
        tests: Vec<String>,
        /// Function for `check`.
        entry_point: Option<String>,
    },
}

impl Tests {
    /// How many.
    pub fn len(&self) -> usize {
        match self {
            Self::Io(tests) => tests.len(),
            Self::Calls { tests, .. } => tests.len(),
            Self::Asserts { tests, .. } => tests.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A program with its tests.
#[derive(Clone, Debug)]
pub struct Submission {
    /// Its language.
    pub language: Language,
    /// Its text.
    pub code: String,
    /// What it must do.
    pub tests: Tests,
    /// Processor time in place of the configured one, milliseconds.
    pub cpu_ms: Option<u64>,
    /// Memory in place of the configured one, bytes.
    pub memory: Option<u64>,
}

/// One test as it may be written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTest {
    input: Option<String>,
    output: Option<String>,
    args: Option<Box<RawValue>>,
    kwargs: Option<Box<RawValue>>,
    expected: Option<Box<RawValue>>,
    assert: Option<String>,
}

/// A line as it may be written; keys that are not ours are carried along by the caller.
#[derive(Deserialize)]
struct RawSubmission {
    language: Option<Language>,
    code: Option<String>,
    prompt: Option<String>,
    completion: Option<String>,
    canonical_solution: Option<String>,
    tests: Option<Vec<RawTest>>,
    assert: Option<String>,
    test: Option<String>,
    test_list: Option<Vec<String>>,
    test_imports: Option<Vec<String>>,
    test_setup_code: Option<String>,
    entry_point: Option<String>,
    #[serde(default)]
    atol: f64,
    time_ms: Option<u64>,
    memory_mb: Option<u64>,
}

impl Submission {
    /// Reads one line of JSON.
    ///
    /// # Errors
    /// Not JSON, a key that is missing or of the wrong type, tests of mixed forms: in words that name the key.
    pub fn from_json(line: &str) -> Result<Self, String> {
        let raw: RawSubmission = serde_json::from_str(line).map_err(|e| {
            let text = e.to_string();
            text.split(" at line ").next().unwrap_or(&text).to_owned()
        })?;
        let code = match (&raw.code, &raw.prompt, raw.completion.as_ref().or(raw.canonical_solution.as_ref())) {
            (Some(code), ..) => code.clone(),
            (None, Some(prompt), Some(rest)) => format!("{prompt}{rest}"),
            (None, None, Some(whole)) => whole.clone(),
            (None, _, None) => return Err("\"code\" is missing (or \"prompt\" with \"completion\")".into()),
        };
        let language = raw.language.unwrap_or(Language::Python);
        let (cpu_ms, memory) = (raw.time_ms, raw.memory_mb.map(|m| m.saturating_mul(1 << 20)));
        if cpu_ms == Some(0) || memory == Some(0) {
            return Err("\"time_ms\" and \"memory_mb\" must be above 0".into());
        }
        let tests = raw.tests()?;
        if language != Language::Python && !matches!(tests, Tests::Io(_)) {
            return Err("function calls and assertions are for Python; use \"input\" and \"output\"".into());
        }
        if tests.is_empty() {
            return Err("there is no test".into());
        }
        Ok(Self { language, code, tests, cpu_ms, memory })
    }
}

impl RawSubmission {
    fn tests(self) -> Result<Tests, String> {
        let mut setup = self.test_imports.unwrap_or_default().join("\n");
        if let Some(code) = self.test_setup_code {
            setup.push('\n');
            setup.push_str(&code);
        }
        let entry_point = self.entry_point;
        let scripts = match (self.assert.or(self.test), self.test_list, self.tests) {
            (Some(script), _, None) => vec![script],
            (None, Some(list), None) => list,
            (None, None, Some(tests)) => return from_tests(tests, setup, entry_point, self.atol),
            (None, None, None) => return Err("\"tests\" is missing (or \"assert\", \"test\", \"test_list\")".into()),
            _ => return Err("give one of \"tests\", \"assert\" and \"test_list\"".into()),
        };
        Ok(Tests::Asserts { setup, tests: scripts, entry_point })
    }
}

fn from_tests(tests: Vec<RawTest>, setup: String, entry_point: Option<String>, atol: f64) -> Result<Tests, String> {
    let (mut io, mut calls, mut asserts) = (Vec::new(), Vec::new(), Vec::new());
    for (i, test) in tests.into_iter().enumerate() {
        match test {
            RawTest { input, output: Some(output), args: None, kwargs: None, expected: None, assert: None } => {
                io.push(IoTest { input: input.unwrap_or_default(), output });
            }
            RawTest { input: None, output: None, args: Some(args), kwargs, expected: Some(expected), assert: None } => {
                if !args.get().starts_with('[') {
                    return Err(format!("\"args\" of test {i} is not a list"));
                }
                let kwargs = kwargs.map_or("{}".to_owned(), |k| k.get().to_owned());
                let text = format!("{{\"args\":{},\"kwargs\":{kwargs},\"expected\":{}}}", args.get(), expected.get());
                calls.push(RawValue::from_string(text).map_err(|e| format!("test {i}: {e}"))?);
            }
            RawTest { input: None, output: None, args: None, kwargs: None, expected: None, assert: Some(text) } => {
                asserts.push(text);
            }
            _ => {
                return Err(format!(
                    "test {i} must hold \"input\" and \"output\", or \"args\" and \"expected\", or \"assert\""
                ));
            }
        }
    }
    match (io.is_empty(), calls.is_empty(), asserts.is_empty()) {
        (_, true, true) => Ok(Tests::Io(io)),
        (true, false, true) => {
            let entry_point = entry_point.ok_or("\"args\" needs \"entry_point\", the name of the function")?;
            Ok(Tests::Calls { entry_point, tests: calls, atol })
        }
        (true, true, false) => Ok(Tests::Asserts { setup, tests: asserts, entry_point }),
        _ => Err("the tests are of different forms".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(line: &str) -> String {
        Submission::from_json(line).unwrap_err()
    }

    #[test]
    fn forms() {
        let read = |line: &str| Submission::from_json(line).unwrap();
        let io = read(r#"{"language":"cpp","code":"x","tests":[{"input":"1","output":"2"},{"output":"3"}]}"#);
        assert!(matches!(io.tests, Tests::Io(ref t) if t.len() == 2 && t[1].input.is_empty()));
        let calls =
            read(r#"{"code":"x","entry_point":"f","tests":[{"args":[1],"expected":123456789012345678901234567890}]}"#);
        let Tests::Calls { tests, .. } = calls.tests else { panic!() };
        assert!(tests[0].get().contains("123456789012345678901234567890"));
        let human_eval =
            read(r#"{"prompt":"a","completion":"b","test":"def check(c): pass","entry_point":"f","task_id":"t"}"#);
        assert_eq!(human_eval.code, "ab");
        let mbpp = read(r#"{"code":"x","test_list":["assert 1","assert 2"],"test_imports":["import math"]}"#);
        assert!(
            matches!(mbpp.tests, Tests::Asserts { ref setup, ref tests, .. } if setup == "import math" && tests.len() == 2)
        );
    }

    #[test]
    fn mistakes() {
        assert!(problem("{").contains("EOF"));
        assert!(problem(r#"{"tests":[]}"#).contains("\"code\""));
        assert!(problem(r#"{"code":"x"}"#).contains("\"tests\""));
        assert!(problem(r#"{"code":"x","tests":[]}"#).contains("no test"));
        assert!(problem(r#"{"code":"x","tests":[{"input":"1"}]}"#).contains("test 0"));
        assert!(problem(r#"{"code":"x","tests":[{"args":[1],"expected":1}]}"#).contains("entry_point"));
        assert!(problem(r#"{"code":"x","language":"cobol","assert":"x"}"#).contains("cobol"));
        assert!(problem(r#"{"code":"x","language":"rust","assert":"x"}"#).contains("Python"));
        assert!(problem(r#"{"code":"x","tests":[{"output":"1"},{"assert":"x"}]}"#).contains("different forms"));
        assert!(problem(r#"{"code":"x","tests":[{"outputs":"1"}]}"#).contains("outputs"));
    }
}
