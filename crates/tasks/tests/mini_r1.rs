//! The tasks of the miniature R1: splits, shares, verdicts, prompts.

#![allow(clippy::unwrap_used)]

use aha_tasks::mini::{
    Exercise, MODEL_NAME, Puzzle, Rng, Subject, Topic, draw_subject, general, history, split_of_canonical,
};
use aha_tasks::{
    AnswerPlace, Language, Problem, Reference, RewardKind, RewardSpec, Rewarded, Shares, Split, Task, TaskOptions,
    Verdict, open_task, rewards,
};
use std::collections::{HashMap, HashSet};

fn open(name: &str) -> Box<dyn Task> {
    open_task(name, 1, &TaskOptions::default()).unwrap()
}

#[test]
fn splits_share_no_canonical_form_in_any_topic() {
    for topic in Topic::all() {
        let mut seen: HashMap<String, Split> = HashMap::new();
        for split in [Split::Pretrain, Split::Train, Split::Eval] {
            let mut rng = Rng::new(5, split as u64);
            for _ in 0..300 {
                let canonical = draw_subject(topic, split, &mut rng).canonical();
                assert_eq!(split_of_canonical(&canonical), split);
                assert_eq!(*seen.entry(canonical).or_insert(split), split);
            }
        }
    }
}

#[test]
fn held_out_problems_are_distinct_and_enough() {
    for (name, families, most) in [("mini-code", 1, 50), ("mini-general", 10, 10 * 50), ("mini-r1", 15, 600)] {
        let task = open(name);
        assert_eq!(task.families().len(), families);
        let problems: Vec<Problem> = (0..200).map(|i| task.problem(Split::Eval, i).unwrap()).collect();
        let ids: HashSet<&str> = problems.iter().map(|p| p.id.as_str()).collect();
        let found: HashSet<&str> = problems.iter().map(|p| p.family.as_str()).collect();
        assert_eq!(found.len(), families, "{name}");
        // The smallest topic has a dozen held-out facts.
        assert!(ids.len() >= 150.min(most), "{name}: {}", ids.len());
    }
}

#[test]
fn shares_are_kept() {
    let options =
        TaskOptions { shares: Some(Shares { reasoning: 0.6, code: 0.4, general: 0.0 }), ..TaskOptions::default() };
    let task = open_task("mini-r1", 1, &options).unwrap();
    let code = (0..1000).filter(|i| task.problem(Split::Train, *i).unwrap().family == "code").count();
    assert_eq!(code, 400);
    assert!(!task.families().contains(&"greeting".to_owned()));
    let (task, mut counts) = (open("mini-r1"), HashMap::<String, usize>::new());
    for i in 0..100 {
        *counts.entry(task.problem(Split::Eval, i).unwrap().family).or_default() += 1;
    }
    assert!(counts["code"] >= 19 && counts["greeting"] >= 3, "{counts:?}");
}

#[test]
fn mini_is_what_it_was() {
    let task = open("mini");
    assert_eq!(task.families(), ["chain", "countdown", "remainder", "missing"]);
    let text: String = [Split::Train, Split::Eval]
        .iter()
        .flat_map(|s| (0..100).map(|i| task.problem(*s, i).unwrap()).collect::<Vec<_>>())
        .map(|p| format!("{} {} {:?}\n", p.id, p.question, p.reference))
        .collect();
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    assert_eq!(format!("{hash:016x}"), "7debcfba22b7b624");
}

#[test]
fn good_answers_are_judged_right_in_both_formats() {
    let (summary, tags) = (open("mini-r1"), open("mini-code"));
    for i in 0..400 {
        let mut rng = Rng::new(9, i);
        let topic = *rng.pick(&Topic::all());
        let subject = draw_subject(topic, Split::Train, &mut rng);
        let language = if i % 2 == 0 { Language::English } else { Language::Chinese };
        let problem = subject.problem(language, MODEL_NAME);
        let (house, zero) = match &subject {
            Subject::Puzzle(p) => {
                let answer = match p.reference() {
                    Reference::Integer(n) => n.to_string(),
                    Reference::Countdown { numbers, target } => {
                        let tries = Puzzle::tries([numbers[0], numbers[1], numbers[2]]);
                        tries.iter().find(|t| t.value == target).unwrap().expression()
                    }
                    other => panic!("{other:?}"),
                };
                (
                    format!("<think>so 5.</think>The answer is {answer}"),
                    format!("<think>so 5.</think><answer>{answer}</answer>"),
                )
            }
            Subject::Code(e) => {
                let program = Exercise::program(&e.form);
                (
                    format!("<think>so.</think>The answer is `{program}`"),
                    format!("<think>so.</think><answer>{program}</answer>"),
                )
            }
            Subject::General(r) => {
                let reply = general::reply(r, language, MODEL_NAME, general::Manner::GOOD, &mut rng);
                (reply.house(), format!("<think>{}</think><answer>{}</answer>", reply.thought, reply.summary))
            }
        };
        let right = if problem.family == "greeting" { Verdict::NotJudged } else { Verdict::Correct };
        for text in [&house, &zero] {
            let j = summary.judge(&problem, text, true);
            assert_eq!((j.verdict, j.format), (right, true), "{problem:?} {text}");
        }
        let j = tags.judge(&problem, &zero, true);
        assert_eq!((j.verdict, j.format), (right, true), "{zero}");
        assert!(!tags.judge(&problem, &house, true).format);
    }
}

#[test]
fn hard_coded_outputs_and_broken_programs_are_wrong_and_python_beyond_is_not_judged() {
    let task = open("mini-code");
    for i in 0..50 {
        let problem = task.problem(Split::Train, i).unwrap();
        let Reference::Program { shown, .. } = &problem.reference else { panic!() };
        let judge =
            |program: &str| task.judge(&problem, &format!("<think>a</think><answer>{program}</answer>"), true).verdict;
        let outputs: Vec<String> = shown.iter().map(|e| e.output.to_string()).collect();
        assert_eq!(judge(&format!("def f(x):return {}", outputs[0])), Verdict::Incorrect);
        assert_eq!(judge(&format!("def f(x):return [{}][x%3]", outputs.join(","))), Verdict::Incorrect);
        assert_eq!(judge("def f(x):return x+"), Verdict::Incorrect);
        assert_eq!(judge("I do not know"), Verdict::Incorrect);
        assert_eq!(judge("def f(x):return 7 if x else 3"), Verdict::NotJudged);
        assert_eq!(task.judge(&problem, "<think>a", false).verdict, Verdict::Incorrect);
    }
}

#[test]
fn open_requests_have_no_verdict_and_no_accuracy() {
    let options = TaskOptions { families: Some(vec!["greeting".into()]), ..TaskOptions::default() };
    let task = open_task("mini-general", 1, &options).unwrap();
    let problem = task.problem(Split::Train, 0).unwrap();
    for (completion, finished) in [("<think></think>What.", true), ("", true), ("<think>", false)] {
        let judgement = task.judge(&problem, completion, finished);
        assert_eq!(judgement.verdict, Verdict::NotJudged);
        let of = Rewarded {
            problem: &problem,
            completion,
            judgement: &judgement,
            prefilled_think: false,
            finished,
            tokens: 3,
            max_tokens: 9,
        };
        assert_eq!(rewards(&[RewardSpec::new(RewardKind::Accuracy, 1.0)], &of), [None]);
    }
}

#[test]
fn conversations_carry_their_history_and_sets_are_named() {
    let task = open("mini-general");
    let mut sets = HashSet::new();
    for i in 0..200 {
        let p = task.problem(Split::Train, i).unwrap();
        assert_eq!(p.columns["group"], "general");
        sets.insert(p.columns["set"].as_str().unwrap().to_owned());
        assert_eq!(history(&p).len(), if p.family == "dialogue" { 2 } else { 0 });
    }
    assert_eq!(sets.len(), 2);
}

#[test]
fn wrong_options_are_refused_with_what_to_do() {
    let fails = |name: &str, options: TaskOptions| open_task(name, 1, &options).err().unwrap().to_string();
    let families = |f: &str| TaskOptions { families: Some(vec![f.into()]), ..TaskOptions::default() };
    assert!(fails("mini-general", families("jason")).contains("did you mean \"json\""));
    assert!(fails("mini", families("json")).contains("unknown family"));
    let shares = TaskOptions { shares: Some(Shares::default()), ..TaskOptions::default() };
    assert!(fails("mini", shares.clone()).contains("mini-r1") && fails("jsonl", shares).contains("mini-r1"));
    let none = Shares { reasoning: 0.0, code: 0.0, general: 0.0 };
    assert!(fails("mini-r1", TaskOptions { shares: Some(none), ..TaskOptions::default() }).contains("above 0"));
    let named = TaskOptions { model_name: Some("a b".into()), ..TaskOptions::default() };
    assert!(fails("mini-r1", named).contains("model_name"));
    let tags = TaskOptions { place: Some(AnswerPlace::Tags), ..TaskOptions::default() };
    assert!(open_task("mini-r1", 1, &tags).is_ok());
}
