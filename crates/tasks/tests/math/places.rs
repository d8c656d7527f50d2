//! Where answers stand in responses.

use aha_tasks::Verdict;
use aha_tasks::math::locate::{Place, locate};
use aha_tasks::math::{GradeOptions, Grader, grade};

fn found(response: &str) -> Option<(String, Place)> {
    locate(response, true).map(|l| (l.text, l.place))
}

fn finds(response: &str, text: &str, place: Place) {
    assert_eq!(found(response), Some((text.to_owned(), place)), "{response}");
}

#[test]
fn boxes() {
    finds(r"So \boxed{\frac{1}{2}}.", r"\frac{1}{2}", Place::Boxed);
    finds(r"First \boxed{1}, but then it is \boxed{2}", "2", Place::Boxed);
    finds(
        r"$x \in \{1\}$, so $\boxed{\left\{ \frac{1}{2}, \{3\} \right\}}$",
        r"\left\{ \frac{1}{2}, \{3\} \right\}",
        Place::Boxed,
    );
    finds(r"\boxed{1} and \boxed{2}", "1, 2", Place::Boxed);
    finds(r"$\boxed{1}$, $\boxed{2}$.", "1, 2", Place::Boxed);
    finds(r"we get \boxed 5", "5", Place::Boxed);
    finds(r"\fbox{7}", "7", Place::Boxed);
    finds(r"cut off: \boxed{12", "12", Place::Boxed);
    finds(r"\boxed{\text{(C)}} because 5", r"\text{(C)}", Place::Boxed);
    finds(r"\boxed{ 3 } is too small, so \boxed{4", "4", Place::Boxed);
}

#[test]
fn tags_and_thinking() {
    finds("<think>it is 5</think><answer>6</answer>", "6", Place::Tags);
    finds(r"<think>\boxed{5}</think> <answer>\boxed{6}</answer>", "6", Place::Tags);
    finds("<answer>The answer is 7.</answer>", "7", Place::Tags);
    finds("<answer>8", "8", Place::Tags);
    finds(r"<think>maybe \boxed{5}</think>So the answer is 9.", "9", Place::Phrase);
    finds("<answer> $x = 3$ </answer>", "$x = 3$", Place::Tags);
}

#[test]
fn phrases() {
    for (response, text) in [
        ("The answer is 42.", "42"),
        ("the answer is: 42", "42"),
        ("**Answer:** 42", "42"),
        ("**Answer: 42**", "42"),
        ("Answer = 42", "42"),
        ("The answers are 1 and 2.", "1 and 2"),
        (r"The answer is $\frac{1}{2}$ because of 7.", r"\frac{1}{2}"),
        (r"the answer is \(x = 5\).", "x = 5"),
        ("So the answer is 5 apples, since 3 + 2 = 5.", "5"),
        ("The answer is 5. We used 7 rules.", "5"),
        ("The answer is 3.5.", "3.5"),
        ("The answer is (B).", "(B)"),
        ("The answer is B", "B"),
        ("答案是42。", "42"),
        ("所以答案为 $\\frac{1}{2}$。", r"\frac{1}{2}"),
        ("答案：42", "42"),
        ("因此，结果是 -7。", "-7"),
        ("故选：C", "C"),
        ("the answer is 1, but no: the answer is 2", "2"),
    ] {
        finds(response, text, Place::Phrase);
    }
    finds("The final answer is 12.", "12", Place::FinalAnswer);
    finds("Final Answer: The final answer is $12$. I hope it is correct.", "12", Place::FinalAnswer);
    finds("**Final Answer:** 12", "12", Place::FinalAnswer);
    finds(r"The final answer is $\boxed{12}$", "12", Place::FinalAnswer);
    finds("最终答案是：12", "12", Place::FinalAnswer);
    finds("He has 5.\n#### 42", "42", Place::Hashes);
    finds("#### 1,234", "1,234", Place::Hashes);
    finds("#### -3 dollars", "-3 dollars", Place::Hashes);
}

#[test]
fn nothing_announced() {
    finds("42", "42", Place::Whole);
    finds(r"\frac{1}{2}", r"\frac{1}{2}", Place::Whole);
    finds("(1, 2)", "(1, 2)", Place::Whole);
    finds(
        "We get $x = 4$ and then $y = 5$.",
        "x = 4 and then y = 5".split(" and then ").nth(1).unwrap(),
        Place::Formula,
    );
    finds("Solutions are $1$, $2$ and $3$.", "1, 2 and 3", Place::Formula);
    finds("He pays 18 dollars in all, so 36 is wrong and 20 is right", "20", Place::LastNumber);
    finds("It costs $1,080.50 in total.", "$1,080.50", Place::LastNumber);
    finds("We are left with -5 apples", "-5", Place::LastNumber);
    finds("20-5 leaves some apples", "5", Place::LastNumber);
    finds("That is about 50% of them", "50%", Place::LastNumber);
    assert_eq!(found("I do not know."), None);
    assert_eq!(found(""), None);
    assert_eq!(locate("He pays 18 dollars in all", false), None);
    assert_eq!(locate("We get $x = 4$ here", false), None);
    assert_eq!(locate("42", false).map(|l| l.place), Some(Place::Whole));
}

#[test]
fn references() {
    let read = |text: &str| Grader::new(text, GradeOptions::default()).map(|g| g.reference().to_owned());
    assert_eq!(read("$5$").as_deref(), Some("5"));
    assert_eq!(read(r"thus \boxed{\frac12}").as_deref(), Some(r"\frac12"));
    assert_eq!(read("3 + 4 = 7\n#### 7").as_deref(), Some("7"));
    assert_eq!(read("  "), None);
    assert_eq!(read("$$"), None);
    assert_eq!(read(r"\boxed{}"), None);
}

#[test]
fn verdicts_of_responses() {
    let verdict = |reference: &str, response: &str| grade(reference, response, GradeOptions::default()).verdict;
    assert_eq!(verdict("", "5"), Verdict::NotJudged);
    assert_eq!(verdict("5", ""), Verdict::Incorrect);
    assert_eq!(verdict("5", "I do not know."), Verdict::Incorrect);
    assert_eq!(verdict("5", "<think>5"), Verdict::Correct);
    assert_eq!(verdict("C", "I would say C."), Verdict::Incorrect);
    assert_eq!(verdict("C", "C. Because it is so."), Verdict::Correct);
    assert_eq!(verdict("18", "She makes $18 every day."), Verdict::Correct);
    assert_eq!(verdict("18", "She makes 9 * 2 = $18"), Verdict::Correct);
    assert_eq!(verdict("18", "18 is not it, rather 20."), Verdict::Incorrect);
    assert_eq!(verdict(r"\frac{\sqrt{3}}{2}", r"所以答案是 $\frac{\sqrt3}{2}$。"), Verdict::Correct);
    assert_eq!(verdict("no solution", "There is no solution"), Verdict::Incorrect);
    assert_eq!(verdict("no solution", r"\boxed{\text{no solution}}"), Verdict::Correct);
    let strict = GradeOptions { last_number: false, ..GradeOptions::default() };
    assert_eq!(grade("18", "She makes $18 every day.", strict).verdict, Verdict::Incorrect);
    assert_eq!(grade("18", "The answer is 18.", strict).verdict, Verdict::Correct);
}

#[test]
fn rounding_that_is_asked_for() {
    let two = GradeOptions { decimals: 2, ..GradeOptions::default() };
    assert_eq!(grade("0.67", r"\boxed{\frac{2}{3}}", two).verdict, Verdict::Correct);
    assert_eq!(grade("0.67", r"\boxed{0.668}", two).verdict, Verdict::Correct);
    assert_eq!(grade("0.67", r"\boxed{0.68}", two).verdict, Verdict::Incorrect);
    assert_eq!(grade("0.67", r"\boxed{\frac{2}{3}}", GradeOptions::default()).verdict, Verdict::Incorrect);
}
