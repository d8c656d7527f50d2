//! The judge on honest, sloppy and hostile completions.
#![allow(clippy::unwrap_used)]

use aha_tasks::{AnswerPlace, JudgeOptions, Judgement, Language, Problem, Reference, Verdict, judge};
use serde_json::Map;

fn problem(reference: Reference) -> Problem {
    Problem {
        id: "test/1".to_owned(),
        family: "test".to_owned(),
        language: Language::English,
        question: "?".to_owned(),
        reference,
        columns: Map::new(),
    }
}

fn countdown() -> Reference {
    Reference::Countdown { numbers: vec![3, 8, 4], target: 20 }
}

fn strict(reference: Reference, completion: &str) -> Judgement {
    judge(&problem(reference), completion, true, &JudgeOptions::default())
}

fn lenient(reference: Reference, completion: &str) -> Judgement {
    judge(&problem(reference), completion, true, &JudgeOptions { place: AnswerPlace::Lenient, prefilled_think: false })
}

fn wrap(answer: &str) -> String {
    format!("<think> some work. </think> <answer> {answer} </answer>")
}

#[test]
fn right_answer_in_the_right_place() {
    let seen = strict(Reference::Integer(14), &wrap("14"));
    assert_eq!(
        seen,
        Judgement {
            verdict: Verdict::Correct,
            lenient_verdict: Verdict::Correct,
            answer: Some("14".to_owned()),
            format: true
        }
    );
    let seen = strict(Reference::Integer(14), &wrap("15"));
    assert_eq!((seen.verdict, seen.lenient_verdict, seen.format), (Verdict::Incorrect, Verdict::Incorrect, true));
    assert_eq!(seen.answer.as_deref(), Some("15"));
}

#[test]
fn spellings_of_a_number() {
    for spelling in [
        "1080",
        "1,080",
        "$1,080",
        "+1080",
        "1080.",
        "1080.00",
        "$1,080.00",
        "01080",
        r"\boxed{1080}",
        r"$\boxed{1,080}$",
    ] {
        let seen = strict(Reference::Number("1,080".to_owned()), &wrap(spelling));
        assert_eq!(seen.verdict, Verdict::Correct, "{spelling}");
        assert_eq!(seen.answer.as_deref(), Some("1080"), "{spelling}");
        assert_eq!(strict(Reference::Integer(1080), &wrap(spelling)).verdict, Verdict::Correct, "{spelling}");
    }
    for spelling in
        ["1081", "108", "10801080", "-1080", "１０８０", "1,08", "1080 or 1081", "1080 1080", "one", "1.08e3", "0x438"]
    {
        let seen = strict(Reference::Integer(1080), &wrap(spelling));
        assert_eq!(seen.verdict, Verdict::Incorrect, "{spelling}");
        assert!(seen.answer.is_some(), "{spelling}");
    }
    assert_eq!(strict(Reference::Integer(-5), &wrap("-5")).verdict, Verdict::Correct);
    assert_eq!(strict(Reference::Number("0.1".to_owned()), &wrap(".10")).verdict, Verdict::Correct);
    assert_eq!(strict(Reference::Integer(9007199254740993), &wrap("9007199254740992")).verdict, Verdict::Incorrect);
}

#[test]
fn an_answer_that_ends_in_a_point_does_not_double() {
    let seen = lenient(Reference::Integer(840), r"So \boxed{840}.");
    assert_eq!((seen.verdict, seen.answer.as_deref()), (Verdict::Correct, Some("840")));
    let seen = lenient(Reference::Integer(840), "The answer is 840.");
    assert_eq!((seen.verdict, seen.answer.as_deref()), (Verdict::Correct, Some("840")));
    assert_eq!(lenient(Reference::Integer(840840), r"\boxed{840}.").verdict, Verdict::Incorrect);
    assert_eq!(strict(Reference::Integer(840), &wrap("840.")).verdict, Verdict::Correct);
}

#[test]
fn hedging_and_misplaced_answers_do_not_count() {
    for hostile in [
        "",
        "14",
        "<answer>",
        "<answer></answer>",
        "<think> 14 </think>",
        "<think> <answer> 14 </answer> </think>",
        "<think> <answer> 14 </answer>",
        "<think> a </think> <answer> 14",
        "<think> a </think> <answer> 14 <answer>",
        "<think> a </think> <answer> 13 </answer> <answer> 14 </answer>",
        "<think> a </think> <answer> 14 </answer> <answer> 13 </answer>",
        "<think> a </think> <answer> <answer> 14 </answer> </answer>",
        "<think> <answer> 13 </answer> </think> <answer> 14 </answer>",
        "<think> a </think> </answer> 14 <answer>",
        "<answer> 14 </answer> </think>",
        "<think> a </think> <answer> 13 14 </answer>",
        "<think> a </think> <answer> 14 </think> </answer>",
    ] {
        let seen = strict(Reference::Integer(14), hostile);
        assert_eq!(seen.verdict, Verdict::Incorrect, "{hostile}");
        if hostile != "<think> a </think> <answer> 13 14 </answer>" {
            assert!(!seen.format, "{hostile}");
        }
    }
    // Right answer, wrong shape: accuracy and format are separate.
    let seen = strict(Reference::Integer(14), "<answer> 14 </answer>");
    assert_eq!((seen.verdict, seen.format), (Verdict::Correct, false));
    let seen = strict(Reference::Integer(14), "<think> a </think> <answer> 14 </answer> bye");
    assert_eq!((seen.verdict, seen.format), (Verdict::Correct, false));
}

#[test]
fn a_cut_completion_has_no_answer() {
    let seen = judge(&problem(Reference::Integer(14)), &wrap("14"), false, &JudgeOptions::default());
    assert_eq!(
        seen,
        Judgement { verdict: Verdict::Incorrect, lenient_verdict: Verdict::Incorrect, answer: None, format: false }
    );
}

#[test]
fn prefilled_think_counts_as_present() {
    let options = JudgeOptions { place: AnswerPlace::Tags, prefilled_think: true };
    let seen = judge(&problem(Reference::Integer(14)), " work </think> <answer> 14 </answer>", true, &options);
    assert_eq!((seen.verdict, seen.format), (Verdict::Correct, true));
    let seen = judge(&problem(Reference::Integer(14)), &wrap("14"), true, &options);
    assert_eq!((seen.verdict, seen.format), (Verdict::Correct, false));
    let seen = judge(&problem(Reference::Integer(14)), " work <answer> 14 </answer>", true, &options);
    assert_eq!((seen.verdict, seen.format), (Verdict::Incorrect, false));
}

#[test]
fn countdown_expressions() {
    for good in ["(8-3)*4", "4 * (8 - 3)", "((8-3)*4)", "8*3-4"] {
        let seen = strict(countdown(), &wrap(good));
        assert_eq!(seen.verdict, Verdict::Correct, "{good}");
        assert_eq!(seen.answer.as_deref(), Some("20 from [3, 4, 8]"), "{good}");
    }
    let doubled = "8".repeat(50);
    let brackets = format!("{}8-3{}*4", "(".repeat(50_000), ")".repeat(50_000));
    for bad in [
        "20",
        "8*4-3",
        "4*4+4",
        "(8-3)*4*1",
        "8+8+4",
        "8-3*4",
        "(8-3)*4=20",
        "(8-3)**4",
        "[8-3]*4",
        "(8-3)*4; 1",
        "(8-3)(4)",
        "-(3-8)*4",
        &doubled,
        &brackets,
        "(８-3)*4",
        "int(8-3)*4",
    ] {
        assert_eq!(strict(countdown(), &wrap(bad)).verdict, Verdict::Incorrect, "{}", &bad[..bad.len().min(40)]);
    }
    let inexact = Reference::Countdown { numbers: vec![7, 2, 2], target: 7 };
    assert_eq!(strict(inexact, &wrap("7/2*2")).verdict, Verdict::Incorrect);
    let twice = Reference::Countdown { numbers: vec![4, 4], target: 16 };
    assert_eq!(strict(twice.clone(), &wrap("4*4")).verdict, Verdict::Correct);
    assert_eq!(strict(twice, &wrap("4+4+4+4")).verdict, Verdict::Incorrect);
}

#[test]
fn equal_votes_have_equal_verdicts() {
    let right = strict(countdown(), &wrap("(8-3)*4"));
    assert_eq!(strict(countdown(), &wrap("4*(8 - 3)")).answer, right.answer);
    // other values, and the same value from other numbers, are other votes
    for wrong in ["8*4-3", "4*5", "4*4+4", "20", "(8-3)*4*1"] {
        assert_ne!(strict(countdown(), &wrap(wrong)).answer, right.answer, "{wrong}");
    }
}

#[test]
fn lenient_places() {
    for text in [
        "It is 3, then 4. The answer is 18.",
        "so the answer is: $18.00 per day, over 7 days",
        "**Answer:** 18 dollars",
        "Final answer: 18",
        "9*2=18\n#### 18",
        r"thus $\boxed{18}$, as 5 < 6",
        r"\boxed{\$18}",
        r"The answer is \boxed{18}.",
        "所以答案是18。共3人",
        "答案：18",
        "first 5, and then 18",
        "she makes 9 * 2 = $18 every day.",
        "<think> 5 </think> <answer> 9*2 = 18 dollars </answer>",
        "<answer> 17 </answer> no: <answer> 18 </answer>",
        r"\boxed{17}, wait, \boxed{18}",
        "The answer is 17. Wait. The answer is 18",
        "<think> a </think> <answer> 18",
    ] {
        let seen = lenient(Reference::Number("18".to_owned()), text);
        assert_eq!(seen.verdict, Verdict::Correct, "{text}: {:?}", seen.answer);
        assert_eq!(seen.lenient_verdict, Verdict::Correct);
        assert_eq!(seen.answer.as_deref(), Some("18"));
        assert_eq!(lenient(Reference::Integer(19), text).verdict, Verdict::Incorrect, "{text}");
    }
    let none = lenient(Reference::Integer(18), "I do not know");
    assert_eq!((none.verdict, none.answer), (Verdict::Incorrect, None));
    // the strict judge does not see them, but reports the lenient verdict
    let seen = strict(Reference::Integer(18), "The answer is 18.");
    assert_eq!((seen.verdict, seen.lenient_verdict, seen.answer), (Verdict::Incorrect, Verdict::Correct, None));
    assert_eq!(lenient(countdown(), "so the answer is (8-3)*4 = 20.").verdict, Verdict::Correct);
    assert_eq!(lenient(countdown(), "I tried (8-3)*4").verdict, Verdict::Incorrect);
}

#[test]
fn text_answers() {
    let reference = || Reference::Text(" north ".to_owned());
    assert_eq!(strict(reference(), &wrap("north")).verdict, Verdict::Correct);
    assert_eq!(strict(reference(), &wrap("north east")).verdict, Verdict::Incorrect);
    assert_eq!(lenient(reference(), "The answer is north.").verdict, Verdict::Correct);
}

#[test]
fn mathematics() {
    let half = || Reference::Math(r"\frac{1}{2}".to_owned());
    for right in ["1/2", "0.5", r"\boxed{\dfrac12}", r"$\frac{2}{4}$", "x = 0.5"] {
        assert_eq!(strict(half(), &wrap(right)).verdict, Verdict::Correct, "{right}");
        assert_eq!(lenient(half(), &format!("So the answer is {right}.")).verdict, Verdict::Correct, "{right}");
    }
    for wrong in ["2", "1/3", "0.51", "half a cake", r"\frac{1}{0}", "1/2 or 1/3"] {
        assert_eq!(strict(half(), &wrap(wrong)).verdict, Verdict::Incorrect, "{wrong}");
    }
    // fractions have one form for votes, and so has the letter of a choice
    for (reference, a, b) in
        [(half(), r"\frac{3}{6}", "1/2"), (Reference::Math("B".to_owned()), "(B)", "B. the second")]
    {
        let answer = |text: &str| strict(reference.clone(), &wrap(text)).answer;
        assert_eq!(answer(a), answer(b));
    }
    let nothing = lenient(half(), "I do not know");
    assert_eq!((nothing.verdict, nothing.answer), (Verdict::Incorrect, None));
    assert_eq!(strict(half(), "The answer is 1/2.").verdict, Verdict::Incorrect);
    // what cannot be decided is neither
    let integral = Reference::Math(r"\int_0^1 x \, dx".to_owned());
    assert_eq!(strict(integral, &wrap("1/2")).verdict, Verdict::NotJudged);
}

#[test]
fn a_broken_reference_is_not_judged() {
    for reference in [
        Reference::Number("eighteen".to_owned()),
        Reference::Number(String::new()),
        Reference::Countdown { numbers: vec![], target: 3 },
        Reference::Text("  ".to_owned()),
        Reference::Math(r"\boxed{}".to_owned()),
    ] {
        let seen = strict(reference, &wrap("18"));
        assert_eq!((seen.verdict, seen.lenient_verdict, seen.format), (Verdict::NotJudged, Verdict::NotJudged, true));
    }
}

#[test]
fn huge_input_is_quick() {
    let begin = std::time::Instant::now();
    let texts = [
        "(".repeat(100_000),
        "<think>".repeat(20_000),
        "<answer>".repeat(20_000),
        "<answer>1</answer>".repeat(10_000),
        r"\boxed{".repeat(20_000),
        r"\boxed{}".repeat(20_000),
        "the answer is ".repeat(10_000),
        "#### ".repeat(20_000),
        "9".repeat(100_000),
        "1,".repeat(50_000),
        "1.".repeat(50_000),
        "-$".repeat(50_000),
        "答案是".repeat(20_000),
        "{".repeat(100_000) + &"}".repeat(100_000),
    ];
    for text in &texts {
        let math = Reference::Math(r"\sqrt{2}".to_owned());
        for reference in [Reference::Integer(1), countdown(), Reference::Text("x".to_owned()), math] {
            for completion in [text.clone(), wrap(text)] {
                assert!(!strict(reference.clone(), &completion).answer.is_some_and(|a| a.is_empty()));
                lenient(reference.clone(), &completion);
            }
        }
    }
    assert!(begin.elapsed().as_secs() < 10, "{:?}", begin.elapsed());
}
