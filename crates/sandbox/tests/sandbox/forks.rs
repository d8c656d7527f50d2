//! Runs of Python that are forks of one waiting interpreter: none may leave anything for the next, reach the interpreter, or
//! behave otherwise than in an interpreter of its own.

use super::{Language, Verdict, config, program, sandbox, submission};
use aha_sandbox::{Config, IoTest, Limits, Sandbox, Submission, Tests};
use serde_json::json;
use std::time::{Duration, Instant};

/// A sandbox of its own, so that all its runs on this thread come from the same interpreter.
fn own(fork_python: bool) -> Option<Sandbox> {
    sandbox(Language::Python)?;
    let limits = Limits { cpu_ms: 1_500, wall_ms: 8_000, memory: 256 << 20, ..Limits::default() };
    Sandbox::new(Config { fork_python, limits, ..config() }).ok()
}

/// `first` may end as it likes, then `then` must print `end`.
fn after(first: &str, then: &str) {
    let Some(sandbox) = own(true) else { return };
    for form in [
        program(Language::Python, first, "end"),
        submission(json!({"code": first, "entry_point": "f", "tests": [{"args": [7], "expected": 424_242}]})),
        submission(json!({"code": first, "test_list": ["assert f(7) == 424242"]})),
    ] {
        let before = sandbox.judge(&form);
        assert_ne!(before.verdict, Verdict::SandboxError, "{first}: {before:?}");
        let judged = sandbox.judge(&program(Language::Python, &format!("{then}\nprint('end')"), "end"));
        assert_eq!(judged.verdict, Verdict::Accepted, "after {first}: {judged:?}");
        let called = sandbox.judge(&submission(json!({
            "code": format!("{then}\ndef f(x): return x + 1"), "entry_point": "f", "tests": [{"args": [7], "expected": 8}],
        })));
        assert_eq!(called.verdict, Verdict::Accepted, "after {first}: {called:?}");
    }
}

#[test]
fn nothing_is_left_in_files() {
    after(
        "import os\nopen('left', 'w').write('x')\nos.mkdir('/tmp/folder')\nos.utime('/tmp', (1, 1))\nos.chmod('/tmp', 0)\ndef f(x): return 424242",
        "import os, stat\nassert os.listdir('/tmp') == [], os.listdir('/tmp')\nassert os.getcwd() == '/tmp'\nassert os.stat('/tmp').st_mtime > 1e9\nassert os.stat('/tmp').st_mode & 0o777 == 0o777\nopen('own', 'w').close()",
    );
}

#[test]
fn nothing_is_left_in_the_interpreter() {
    after(
        "import builtins, json, sys, os, random\nbuiltins.print = builtins.len = lambda *a: None\njson.dumps = json.loads = lambda *a, **k: 0\nsys.modules['math'] = None\nos.environ['LEFT'] = '1'\nsys.setrecursionlimit(50)\nsys.stdout = None\nrandom.seed(1)\nsys.path.clear()\ndef f(x): return 424242",
        "import json, math, os, sys\nassert len(json.dumps([1])) == 3 and 'LEFT' not in os.environ and sys.getrecursionlimit() >= 1000",
    );
}

#[test]
fn nobody_is_left_running() {
    after(
        "import os, signal, time\nfor s in (1, 2, 15):\n    signal.signal(s, signal.SIG_IGN)\nfor _ in range(3):\n    if os.fork() == 0:\n        os.setsid()\n        while True:\n            try: open('/tmp/mark', 'w').write('x')\n            except OSError: pass\n            time.sleep(0.001)\ndef f(x): return 424242",
        "import os, time\ntime.sleep(0.1)\nassert os.listdir('/tmp') == []\nfor p in range(1, 50):\n    if p not in (1, os.getpid()):\n        try: os.kill(p, 0)\n        except ProcessLookupError: continue\n        raise SystemExit(p)",
    );
}

#[test]
fn the_interpreter_cannot_be_signalled() {
    after(
        "import os, signal\nsignal.signal(15, signal.SIG_IGN)\nfor p in [1, os.getppid(), -1]:\n    for s in (2, 15, 9, 19):\n        if (p, s) != (-1, 9) and (p, s) != (-1, 19):\n            try: os.kill(p, s)\n            except (OSError, KeyboardInterrupt): pass\ndef f(x): return 424242",
        "",
    );
    after("import os\nos.kill(os.getpid(), 9)", "");
    after("import os\nos.kill(os.getpid(), 19)\ndef f(x): return 0", "");
    after("while True: pass", "");
    after("x = []\nwhile True: x.append(bytearray(1 << 20))", "");
    after("import ctypes\nctypes.string_at(0)", "");
}

#[test]
fn limits_are_those_of_the_submission() {
    let Some(sandbox) = own(true) else { return };
    let spin = "import time\nend = time.process_time() + 0.7\nwhile time.process_time() < end: pass\nprint('end')";
    let hold = "x = bytearray(100 << 20)\nprint('end')";
    let with = |code: &str, cpu_ms, memory| Submission { cpu_ms, memory, ..program(Language::Python, code, "end") };
    for (submission, expected) in [
        (with(spin, Some(300), None), Verdict::TimeLimit),
        (with(spin, None, None), Verdict::Accepted),
        (with(hold, None, Some(64 << 20)), Verdict::MemoryLimit),
        (with(hold, None, None), Verdict::Accepted),
        (with(spin, Some(300), None), Verdict::TimeLimit),
    ] {
        let judged = sandbox.judge(&submission);
        assert_eq!(judged.verdict, expected, "{submission:?}: {judged:?}");
    }
}

#[test]
fn texts_of_others_are_not_to_be_found() {
    let Some(sandbox) = own(true) else { return };
    let secret = "# tell 31415 nobody\ndef f(x): return 271828";
    let look = r#"
import gc, os
wanted = [t[::-1] for t in ('51413', '828172', '242424')]
for folder, dirs, names in os.walk('/'):
    if folder.startswith(('/usr', '/lib', '/bin', '/nix', '/dev')): dirs[:] = []; continue
    for name in names:
        path = os.path.join(folder, name)
        try: text = open(path, errors='replace').read()
        except OSError: continue
        own = path == '/box/solution.py'
        if name == 'tests.json' or not own and any(w in text for w in wanted): raise SystemExit(path)
for o in gc.get_objects():
    if o is wanted or o is globals() or not isinstance(o, (list, tuple, dict, set)): continue
    text = repr(o)
    if 'wanted' not in text and any(w in text for w in wanted): raise SystemExit(text[:200])
print('end')
"#;
    for _ in 0..3 {
        let asserts = submission(json!({"code": secret, "test_list": ["assert f(424242) == 271828"]}));
        assert_eq!(sandbox.judge(&asserts).verdict, Verdict::Accepted);
        let judged = sandbox.judge(&program(Language::Python, look, "end"));
        assert_eq!(judged.verdict, Verdict::Accepted, "{judged:?}");
    }
}

#[test]
fn a_program_that_lingers_is_ended_with_its_tests() {
    let Some(sandbox) = own(true) else { return };
    let begin = Instant::now();
    for _ in 0..3 {
        let code =
            "import threading, time\nthreading.Thread(target=time.sleep, args=(1000,)).start()\ndef f(x): return x + 1";
        let judged = sandbox.judge(&submission(json!({"code": code, "test_list": ["assert f(1) == 2"]})));
        assert_eq!(judged.verdict, Verdict::Accepted, "{judged:?}");
    }
    assert!(begin.elapsed() < Duration::from_secs(8), "three lingering programs took {:?}", begin.elapsed());
}

#[test]
fn runs_have_their_own_random_numbers() {
    let Some(sandbox) = own(true) else { return };
    let code = "import random\nprint(random.random())";
    let got = |_| sandbox.judge(&program(Language::Python, code, "")).first_difference.unwrap().got;
    let numbers: std::collections::BTreeSet<String> = (0..5).map(got).collect();
    assert_eq!(numbers.len(), 5, "{numbers:?}");
}

/// Programs that end in their own ways: the same in a fork and in an interpreter of their own.
#[test]
fn forks_behave_as_interpreters() {
    let list = [
        ("import io\nout = io.open(1, 'w')\nout.write('1\\n2\\n')", Verdict::Accepted),
        ("import atexit\natexit.register(print, 2)\nprint(1)", Verdict::Accepted),
        ("class A:\n    def __del__(self): print(2)\na = A()\nprint(1)", Verdict::Accepted),
        (
            "import threading, time\ndef go():\n    time.sleep(0.2)\n    print(2)\nthreading.Thread(target=go).start()\nprint(1)",
            Verdict::Accepted,
        ),
        (
            "import sys, io, os\ndata = io.BytesIO(os.read(0, os.fstat(0).st_size))\nos.write(1, data.read())",
            Verdict::Accepted,
        ),
        ("import sys\nsys.stdout.write(sys.stdin.read())\nsys.exit()", Verdict::Accepted),
        ("while True:\n    try: print(input())\n    except EOFError: break", Verdict::Accepted),
        ("import pickle\nclass A: pass\na = pickle.loads(pickle.dumps(A()))\nprint(open(0).read())", Verdict::Accepted),
        (
            "import os\nfor i in (1, 2):\n    if os.fork() == 0:\n        print(i)\n        raise SystemExit\n    os.wait()",
            Verdict::Accepted,
        ),
        (
            "import subprocess, sys\nprint(subprocess.run([sys.executable, '-S', '-c', 'print(1); print(2)'], capture_output=True, text=True).stdout)",
            Verdict::Accepted,
        ),
        (
            "import sys\nassert __name__ == '__main__' and sys.modules['__main__'].__dict__ is globals()\nprint(open(sys.argv[0]).readline().count('import'))\nprint(2)",
            Verdict::Accepted,
        ),
        (
            "import sys\nassert not sys.stdout.isatty() and sys.stdin.seekable() and not sys.stdout.seekable()\nassert sys.stdin.fileno() == 0 and sys.stdout.encoding == 'utf-8'\nprint('1\\n2')",
            Verdict::Accepted,
        ),
        ("sys.exit", Verdict::RuntimeError),
        ("space", Verdict::RuntimeError),
        ("import codec", Verdict::RuntimeError),
        ("raise SystemExit('words')", Verdict::RuntimeError),
        ("print('1\\n2')\nraise SystemExit(256 + 3)", Verdict::RuntimeError),
        ("print('1\\n2')\nimport os\nos.close(1)", Verdict::RuntimeError),
        ("import os\nos.abort()", Verdict::RuntimeError),
        ("print('1\\n2')\nimport atexit\natexit.register(lambda: 1 / 0)", Verdict::Accepted),
        ("def f(): return f()\nf()", Verdict::RuntimeError),
        (
            "import resource\nassert resource.getrlimit(resource.RLIMIT_STACK)[0] == 64 << 20\nprint('1\\n2')",
            Verdict::Accepted,
        ),
    ];
    for fork in [true, false] {
        let Some(sandbox) = own(fork) else { return };
        for (code, expected) in list {
            let tests = Tests::Io(vec![IoTest { input: "1\n2\n".into(), output: "1\n2\n".into() }]);
            let one = Submission { language: Language::Python, code: code.into(), tests, cpu_ms: None, memory: None };
            let judged = sandbox.judge(&one);
            assert_eq!(judged.verdict, expected, "fork {fork}: {code}: {judged:?}");
        }
    }
}
