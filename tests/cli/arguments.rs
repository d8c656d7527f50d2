//! Help, versions and exit codes of wrong usage.

use crate::support::{aha, aha_in, command};
use std::io::Read;
use std::process::Stdio;

const COMMANDS: [&str; 10] =
    ["run", "grpo", "eval", "generate", "chat", "score", "inspect", "recipes", "cost", "bench"];

#[test]
fn every_command_has_help_that_describes_every_flag() {
    let all = aha(&["--help"]);
    assert_eq!(all.code, 0);
    for name in COMMANDS {
        assert!(all.stdout.contains(&format!("  {name} ")), "{name} is not in {}", all.stdout);
        for flag in ["--help", "-h"] {
            let said = aha(&[name, flag]);
            assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{name} {flag}");
            assert!(said.stdout.contains("Usage: aha"), "{name}");
        }
        // In the short help every flag stands on one line with its description, or the description follows on the next.
        let help = aha(&[name, "-h"]).stdout;
        let lines: Vec<&str> = help.lines().collect();
        for (i, line) in lines.iter().enumerate().filter(|(_, l)| l.trim_start().starts_with("--")) {
            let own = line.trim_start().split_once("  ").is_some_and(|(_, rest)| !rest.trim().is_empty());
            let next = lines.get(i + 1).is_some_and(|l| l.starts_with("        ") && !l.trim_start().starts_with('-'));
            assert!(own || next, "{name}: nothing is said about {line}");
        }
    }
    let version = aha(&["--version"]);
    assert_eq!((version.code, version.stdout.trim()), (0, concat!("aha ", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn flags_that_take_a_value_say_their_default() {
    // Those that are needed, or that are there to be repeated, have none.
    let without = ["--model", "--task", "--input", "--prompts", "--set", "--threads", "--help", "--version"];
    for name in COMMANDS {
        let help = aha(&[name, "-h"]).stdout;
        let mut flags: Vec<String> = Vec::new();
        for line in help.lines().skip_while(|l| *l != "Options:") {
            match line.trim_start() {
                l if l.starts_with('-') => flags.push(l.to_owned()),
                l => flags.iter_mut().last().into_iter().for_each(|flag| *flag += &format!(" {l}")),
            }
        }
        let valued = flags.iter().filter(|f| f.contains(" <") && !without.iter().any(|w| f.starts_with(w)));
        // The one thing to ask in a chat is not a setting.
        for flag in valued.filter(|f| !f.starts_with("--prompt <")) {
            assert!(flag.contains("[default: "), "aha {name}: {flag}");
        }
    }
}

#[test]
fn wrong_usage_is_exit_code_2() {
    let cases: [&[&str]; 13] = [
        &[],
        &["fly"],
        &["run", "--sead", "3"],
        &["run", "--seed", "many"],
        &["run", "--threads", "0"],
        &["grpo", "--model", "m"],
        &["grpo", "--model", "m", "--task", "mini", "--reward", "acuracy=1"],
        &["eval", "m"],
        &["eval", "m", "--task", "mini", "--samples", "0"],
        &["eval", "m", "--task", "mini", "--top-p", "1.5"],
        &["generate", "m", "--prompts", "p", "--chat", "--raw"],
        &["generate", "m", "--prompts", "p", "--temperature", "-1"],
        &["score", "m"],
    ];
    for case in cases {
        let said = aha(case);
        assert_eq!(said.code, 2, "{case:?}: {}", said.stderr);
        assert_eq!(said.stdout, "", "{case:?}");
        assert!(said.stderr.contains("Usage") || said.stderr.contains("error: "), "{case:?}: {}", said.stderr);
    }
    assert!(aha(&["run", "--sead", "3"]).stderr.contains("'--seed'"));
    let said = aha(&["grpo", "--model", "m", "--task", "mini", "--reward", "acuracy=1"]);
    assert!(said.stderr.contains("did you mean \"accuracy\""), "{}", said.stderr);
}

#[test]
fn what_flags_say_is_judged_before_any_work() {
    let dir = tempfile::tempdir().unwrap();
    let cases: [(&[&str], &[&str]); 9] = [
        (&["run", "mini-zer"], &["mini-zer", "did you mean `mini-zero`"]),
        (&["run", "--set", "zero.bata=1"], &["--set zero.bata=1", "did you mean `beta`"]),
        (&["run", "--set", "zeroo.beta=1"], &["no stage `zeroo`", "did you mean `zero`"]),
        (&["run", "--set", "beta"], &["KEY=VALUE"]),
        (&["run", "--until", "bass"], &["no stage `bass`", "did you mean `base`"]),
        (
            &["grpo", "--model", "m", "--task", "mini", "--num-generations", "1"],
            &["--num-generations 1", "group of one", "2"],
        ),
        (&["grpo", "--model", "m", "--task", "mini", "--loss-type", "ppo"], &["--loss-type ppo", "dr_grpo"]),
        (&["grpo", "--model", "m", "--task", "mini", "--set", "epsilonn=1"], &["did you mean `epsilon`"]),
        (&["eval", "m", "--task", "gsm8"], &["gsm8", "gsm8k"]),
    ];
    for (args, words) in cases {
        aha_in(dir.path(), args).fails(2, words);
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is written");
}

#[test]
fn recipes_are_listed_and_inspected() {
    let said = aha(&["recipes"]);
    assert!(said.stdout.contains("mini-zero") && said.stdout.contains("R1-Zero in miniature"), "{}", said.stdout);
    let json = aha(&["recipes", "--json"]).json();
    assert_eq!(json["recipes"][0]["name"], "mini-zero");
    assert_eq!(json["recipes"][0]["stages"][0], "corpus");
    let r1 = json["recipes"].as_array().unwrap().iter().find(|r| r["name"] == "r1").unwrap();
    assert!(r1["parameters"]["base"].as_str().unwrap().starts_with("<the model"), "{r1}");
    let json = aha(&["inspect", "mini-zero", "--json"]).json();
    assert_eq!((json["kind"].as_str(), json["stage"][0]["kind"].as_str()), (Some("recipe"), Some("corpus")));
    assert!(aha(&["inspect", "r1"]).stdout.contains("\"./base\""));
    let said = aha(&["inspect", "mini-zero"]);
    assert!(said.stdout.contains("documents_for_tokenizer"), "{}", said.stdout);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut child = command(&["inspect", "mini-zero"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(stderr, "");
}
