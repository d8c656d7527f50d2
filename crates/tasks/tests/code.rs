//! Programming problems judged by hidden tests. This binary is its own sandbox helper, so it has a `main` of its own.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("skipped: the sandbox needs Linux");
}

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    if let Some(code) = aha_sandbox::run_helper_if_asked() {
        return code;
    }
    linux::main();
    println!("test result: ok");
    std::process::ExitCode::SUCCESS
}

#[cfg(target_os = "linux")]
mod linux {
    use aha_sandbox::{Config, Helper, Language, Sandbox};
    use aha_tasks::{Answer, AnswerPlace, Judgement, Problem, Reference, Split, Task, TaskOptions, Verdict, open_task};
    use serde_json::json;
    use std::path::{Path, PathBuf};

    const HUMAN_EVAL: &str = r#"{"task_id": "HumanEval/0", "prompt": "from typing import List\n\n\ndef twice(xs: List[int]) -> List[int]:\n    \"\"\" Doubles. \"\"\"\n", "entry_point": "twice", "canonical_solution": "    return [2 * x for x in xs]\n", "test": "def check(candidate):\n    assert candidate([1, 2]) == [2, 4]\n    assert candidate([]) == []\n"}
"#;

    pub fn main() {
        let sandbox = Sandbox::new(Config::new(Helper::this_binary().unwrap()));
        match sandbox.map(|s| s.tool_version(Language::Python).map(|_| s)) {
            Ok(Ok(_)) => {}
            Ok(Err(words)) => return println!("skipped: {words}"),
            Err(e) => return println!("skipped: {e}"),
        }
        let folder = tempfile::tempdir().unwrap();
        human_eval(folder.path());
        mbpp(folder.path());
        rows(folder.path());
        places(folder.path());
        mistakes(folder.path());
        published();
    }

    fn file(folder: &Path, name: &str, text: &str) -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn open(name: &str, path: &Path, options: TaskOptions) -> Box<dyn Task> {
        open_task(name, 1, &TaskOptions { data: Some(path.to_owned()), ..options }).unwrap()
    }

    fn verdict(task: &dyn Task, problem: &Problem, completion: &str) -> Verdict {
        task.judge(problem, completion, true).verdict
    }

    fn human_eval(folder: &Path) {
        let task = open("humaneval", &file(folder, "h.jsonl", HUMAN_EVAL), TaskOptions::default());
        assert_eq!((task.len(Split::Train), task.len(Split::Eval)), (Some(0), Some(1)));
        let problem = task.problem(Split::Eval, 0).unwrap();
        assert_eq!(problem.id, "humaneval/HumanEval/0");
        assert!(problem.question.contains("def twice") && !problem.question.contains("candidate"));
        assert!(!problem.columns.contains_key("test") && problem.columns.contains_key("canonical_solution"));
        use Verdict::{Correct, Incorrect};
        for (completion, expected) in [
            ("```python\ndef twice(xs: List[int]) -> List[int]:\n    return [2 * x for x in xs]\n```", Correct),
            ("    return [2 * x for x in xs]", Correct),
            ("<think>hm</think>It is\n```\nreturn [x + x for x in xs]\n```", Correct),
            ("```python\ndef twice(xs):\n    return xs\n```", Incorrect),
            ("```python\ndef twice(xs):\n    return [2, 4]\n```", Incorrect),
            ("```python\ndef twice(xs):\n    while True: pass\n```", Incorrect),
            ("```python\ndef twice(xs) return\n```", Incorrect),
            ("I do not know.", Incorrect),
            ("", Incorrect),
        ] {
            assert_eq!(verdict(&*task, &problem, completion), expected, "{completion}");
        }
        assert_eq!(task.judge(&problem, "    return [2 * x for x in xs]", false).verdict, Incorrect);
        batch(&*task, &problem);
        let other = Problem { reference: Reference::Integer(1), ..problem };
        assert_eq!(verdict(&*task, &other, "1"), Verdict::NotJudged);
    }

    /// Many at one time are judged as each alone, in their order, and equal programs are one run.
    fn batch(task: &dyn Task, problem: &Problem) {
        let texts: Vec<String> = (0..40)
            .map(|i| match i % 4 {
                0 => format!("    # {i}\n    return [2 * x for x in xs]"),
                1 => "    return xs".to_owned(),
                2 => "    return [x + x for x in xs]  ".to_owned(),
                _ => "    return [x + x for x in xs]\n\n".to_owned(),
            })
            .collect();
        let answers: Vec<Answer> =
            texts.iter().enumerate().map(|(i, t)| Answer { problem, completion: t, finished: i != 8 }).collect();
        let judged: Vec<Judgement> = task.judge_all(&answers);
        assert_eq!(judged.len(), texts.len());
        for (i, j) in judged.iter().enumerate() {
            let right = i % 4 != 1 && i != 8;
            assert_eq!(j.verdict == Verdict::Correct, right, "{i}: {j:?}");
        }
        assert_eq!(judged[2].answer, judged[3].answer);
        assert_ne!(judged[0].answer, judged[4].answer);
        assert!(task.judge_all(&[]).is_empty());
    }

    fn mbpp(folder: &Path) {
        let row = |id: u32| {
            json!({
                "task_id": id, "text": "Add one.", "code": "def inc(x): return x + 1", "test_setup_code": "",
                "test_list": ["assert inc(1) == 2", "assert inc(41) == 42"], "challenge_test_list": [],
            })
        };
        let list = json!([row(3), row(11), row(510), row(511), row(900)]).to_string();
        let task = open("mbpp", &file(folder, "m.json", &list), TaskOptions::default());
        assert_eq!((task.len(Split::Train), task.len(Split::Eval)), (Some(2), Some(2)));
        let problem = task.problem(Split::Eval, 1).unwrap();
        assert_eq!(problem.id, "mbpp/510");
        assert!(problem.question.contains("inc(1)") && !problem.question.contains("41"), "{}", problem.question);
        assert_eq!(verdict(&*task, &problem, "```python\ndef inc(x):\n    return x + 1\n```"), Verdict::Correct);
        // What the shown test alone would let through.
        assert_eq!(verdict(&*task, &problem, "```python\ndef inc(x):\n    return 2\n```"), Verdict::Incorrect);
        let plus = json!({
            "task_id": 7, "prompt": "Add one.", "test_list": ["assert inc(1) == 2"], "test_imports": [],
            "test": "for i in range(5):\n    assert inc(i) == i + 1",
        });
        let options =
            TaskOptions { eval_data: Some(file(folder, "p.jsonl", &plus.to_string())), ..TaskOptions::default() };
        let task = open_task("mbpp", 1, &options).unwrap();
        let problem = task.problem(Split::Eval, 0).unwrap();
        assert_eq!(verdict(&*task, &problem, "def inc(x): return 2"), Verdict::Incorrect);
        assert_eq!(verdict(&*task, &problem, "def inc(x): return x + 1"), Verdict::Correct);
    }

    fn rows(folder: &Path) {
        let lines = [
            json!({"question": "Print twice the number.", "tests": [{"input": "2", "output": "4"}, {"input": "5", "output": "10"}]}),
            json!({"question": "The same in C++.", "language": "cpp", "tests": [{"input": "2", "output": "4"}]}),
            json!({"prompt": "f(x) = x + 1", "entry_point": "f", "starter_code": "class Solution:", "tests": [{"args": [1], "expected": 2}]}),
            json!({"problem": "Make g.", "assert": "assert g() == 1", "time_ms": 1000}),
        ];
        let text: String = lines.iter().map(|l| format!("{l}\n")).collect();
        let options = TaskOptions { eval_data: Some(file(folder, "c.jsonl", &text)), ..TaskOptions::default() };
        let task = open_task("code", 1, &options).unwrap();
        let problem = |i| task.problem(Split::Eval, i).unwrap();
        let (print, cpp, f, g) = (problem(0), problem(1), problem(2), problem(3));
        assert!(print.question.ends_with("a Python program that reads standard input and writes standard output."));
        assert!(f.question.contains("class Solution:") && f.question.ends_with("Python that defines `f`."));
        use Verdict::{Correct, Incorrect};
        assert_eq!(verdict(&*task, &print, "print(2 * int(input()))"), Correct);
        assert_eq!(verdict(&*task, &print, "print(4)"), Incorrect);
        assert_eq!(verdict(&*task, &f, "class Solution:\n    def f(self, x): return x + 1"), Correct);
        assert_eq!(verdict(&*task, &g, "def g(): return 1"), Correct);
        assert_eq!(verdict(&*task, &g, "def g(): return 2"), Incorrect);
        let main = "#include <iostream>\nint main() { int x; std::cin >> x; std::cout << 2 * x; }";
        let judged = verdict(&*task, &cpp, &format!("```cpp\n{main}\n```"));
        let here = Sandbox::new(Config::new(Helper::this_binary().unwrap())).unwrap().tool_version(Language::Cpp);
        // Without a compiler nobody can tell.
        assert_eq!(judged, if here.is_ok() { Correct } else { Verdict::NotJudged });
    }

    fn places(folder: &Path) {
        let path = file(folder, "t.jsonl", HUMAN_EVAL);
        let of = |place| open("humaneval", &path, TaskOptions { place: Some(place), ..TaskOptions::default() });
        let code = "```python\ndef twice(xs):\n    return [2 * x for x in xs]\n```";
        let wrong = "```python\ndef twice(xs):\n    return xs\n```";
        let tagged = format!("<think>{wrong}</think> <answer>{code}</answer>");
        let after = format!("<think>{wrong}</think>{code}");
        for (place, tags, summary, bare) in [
            (AnswerPlace::Tags, true, false, false),
            (AnswerPlace::Summary, true, true, false),
            (AnswerPlace::Lenient, true, true, true),
        ] {
            let task = of(place);
            let problem = task.problem(Split::Eval, 0).unwrap();
            let judged = [&tagged, &after, code].map(|text| task.judge(&problem, text, true));
            let right = judged.each_ref().map(|j| j.verdict == Verdict::Correct);
            assert_eq!(right, [tags, summary, bare], "{place:?}");
            assert!(judged.iter().all(|j| j.lenient_verdict == Verdict::Correct), "{place:?}");
            assert!(judged[0].format, "{place:?}");
        }
    }

    fn mistakes(folder: &Path) {
        let problem = |name: &str, text: &str| {
            let options = TaskOptions { data: Some(file(folder, "bad.jsonl", text)), ..TaskOptions::default() };
            open_task(name, 1, &options).err().unwrap().to_string()
        };
        for (name, text, words) in [
            ("code", r#"{"question": "a?"}"#, "\"tests\" is missing"),
            ("code", r#"{"tests": [{"output": "1"}]}"#, "no \"question\""),
            ("code", r#"{"question": "a?", "language": "cobol", "assert": "x"}"#, "cobol"),
            ("code", r#"{"question": "a?", "tests": [{"outputs": "1"}]}"#, "outputs"),
            ("humaneval", r#"{"prompt": "def f():", "test": "x"}"#, "entry_point"),
            ("mbpp", r#"{"text": "a?", "test": "assert True"}"#, "test_list"),
            ("mbpp", "\u{1f}", "not an object"),
            ("mbpp", "[1]", "not an object"),
        ] {
            let got = problem(name, text);
            assert!(got.contains(words) && got.contains("bad.jsonl:1"), "{name} {text}: {got}");
        }
        let foreign = TaskOptions { time_ms: Some(1), ..TaskOptions::default() };
        assert!(open_task("mini", 1, &foreign).err().unwrap().to_string().contains("time_ms"));
        assert!(open_task("mbpp", 1, &TaskOptions::default()).err().unwrap().to_string().contains("data"));
    }

    /// The published files, where they are: every row is read, and references are right as answers.
    fn published() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
        let root = std::env::var_os("AHA_DATA").map_or(root, PathBuf::from);
        let path = root.join("code-mbpp/mbpp_sanitized.json");
        if !path.is_file() {
            return println!("skipped: {} is not there", path.display());
        }
        // One of the references counts for seconds on a slow machine.
        let task = open("mbpp", &path, TaskOptions { time_ms: Some(60_000), ..TaskOptions::default() });
        let problems: Vec<Problem> = (0..30).map(|i| task.problem(Split::Eval, i * 8).unwrap()).collect();
        let code = |p: &Problem| format!("So:\n```python\n{}\n```", p.columns["code"].as_str().unwrap().trim_end());
        let right: Vec<String> = problems.iter().map(code).collect();
        let answers = |texts: &[String]| -> Vec<Verdict> {
            let list = problems.iter().zip(texts).map(|(problem, t)| Answer { problem, completion: t, finished: true });
            task.judge_all(&list.collect::<Vec<_>>()).iter().map(|j| j.verdict).collect()
        };
        let verdicts = answers(&right);
        assert!(verdicts.iter().all(|v| *v == Verdict::Correct), "{verdicts:?}");
        let mut others = right.clone();
        others.rotate_left(1);
        let verdicts = answers(&others);
        assert!(verdicts.iter().all(|v| *v == Verdict::Incorrect), "{verdicts:?}");
    }
}
