//! Ways in which people and models write that the plain notations do not cover: several boxes, unfinished calculations,
//! decimal commas, choices in prose, numbers behind the last formula.

use super::{different, equal};
use aha_tasks::Verdict;
use aha_tasks::math::{GradeOptions, grade};

fn verdict(reference: &str, response: &str) -> Verdict {
    grade(reference, response, GradeOptions::default()).verdict
}

fn all(wanted: Verdict, pairs: &[(&str, &str)]) {
    for (reference, response) in pairs {
        assert_eq!(verdict(reference, response), wanted, "{reference:?} {response:?}");
    }
}

#[test]
fn boxes_that_belong_together() {
    all(
        Verdict::Correct,
        &[
            ("-3, 8", r"\[ \boxed{8} \quad \text{and} \quad \boxed{-3} \]"),
            ("(1,4), (9,6)", r"$\boxed{(1,4)} \text{ in the first case and } \boxed{(9,6)}$"),
            ("a = 4, b = 7", r"$\boxed{a = 4}$ and $\boxed{b = 7}$"),
            ("3, 5", r"they need \boxed{3} chairs and \boxed{5} tables"),
            ("u_1 = x^2, u_2 = 2x", r"\(u_1 = \boxed{x^2}\) and \(u_2 = \boxed{2x}\)"),
            ("7", r"At first \boxed{3}, and that is wrong, so \boxed{7}"),
            ("x + 2", r"\boxed{x + 2} or \boxed{2 + x}"),
            ("7", r"\boxed{3}. And the sum is \boxed{7}"),
        ],
    );
    all(Verdict::Incorrect, &[("3", r"\boxed{3} and \boxed{4}"), ("3", r"\boxed{3}, but no: \boxed{4}")]);
}

#[test]
fn calculations_that_go_on() {
    equal(
        r"
        x = \frac{2}{7} @@ x = \frac{4}{14} = \frac{2}{7} \approx 0.29
        9 = \frac{18}{2} = x = 9 @@ 9
        \begin{pmatrix} 4 & 6 \\ 8 & 1 \end{pmatrix} @@ \begin{pmatrix} 1 & 2 \\ 3 & 0 \end{pmatrix} + \begin{pmatrix} 3 & 4 \\ 5 & 1 \end{pmatrix}
        \begin{pmatrix} 2 & 1 \\ 4 & 3 \end{pmatrix} @@ \begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix} \begin{pmatrix} 0 & 1 \\ 1 & 0 \end{pmatrix}
        \begin{pmatrix} 3 \\ 6 \end{pmatrix} @@ 3 \begin{pmatrix} 1 \\ 2 \end{pmatrix}
        \begin{pmatrix} 1 & 2 \end{pmatrix} @@ \begin{pmatrix} 1 \\ 2 \end{pmatrix}^T
        \begin{pmatrix} 1 & 2 \\ 0 & 1 \end{pmatrix} @@ \begin{pmatrix} 1 & 1 \\ 0 & 1 \end{pmatrix}^2
        -2 @@ \begin{vmatrix} 1 & 2 \\ 3 & 4 \end{vmatrix}
        \sum_{k=1}^{n} a_k b_k @@ \sum_{k=1}^{n} b_k a_k
        AB : CD = 3 : 5 @@ 3:5
        \frac{AB}{CD} = \frac{2}{3} @@ 2/3
        0 < f(x) < 4 @@ (0, 4)
        1 \le |z| < 2 @@ (-2, -1] \cup [1, 2)
        |x - 3| \le 2 @@ 1 \le x \le 5
        |2x + 1| > 3 @@ (-\infty, -2) \cup (1, \infty)
        a=1,b=2;a=3,b=4 @@ (1,2),(3,4)
        f(n) = n + 1 @@ f(x) = x + 1
        x = 1 or x = 2 @@ x=1orx=2
        12,\! 345,\! 678 @@ 12345678
        5\frac{1}{4}\% @@ \frac{21}{400}
        4 4/9 percent @@ 40/900
        u_{1}=1,\quadu_{2}=2 @@ u_1 = 1, u_2 = 2
        3.75 @@ 3,75
        0,125 @@ 0.125
        ",
    );
    different(
        r"
        x = \frac{2}{7} @@ x = \frac{4}{14} = \frac{3}{7} \approx 0.29
        \begin{pmatrix} 4 & 6 \\ 8 & 1 \end{pmatrix} @@ \begin{pmatrix} 1 & 2 \\ 3 & 0 \end{pmatrix} + \begin{pmatrix} 3 & 4 \\ 5 & 2 \end{pmatrix}
        \begin{pmatrix} 2 & 1 \\ 4 & 3 \end{pmatrix} @@ \begin{pmatrix} 0 & 1 \\ 1 & 0 \end{pmatrix} \begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}
        -2 @@ \begin{vmatrix} 2 & 1 \\ 3 & 4 \end{vmatrix}
        AB : CD = 3 : 5 @@ 5:3
        1 \le |z| < 2 @@ [1, 2)
        |x - 3| \le 2 @@ 1 < x < 5
        a=1,b=2;a=3,b=4 @@ (1,4),(3,2)
        f(n) = n + 1 @@ f(x) = x - 1
        3.75 @@ 3,76
        3750 @@ 3,75
        2, 5 @@ 2, 6
        3 1/7 @@ 31/7
        49x^2 - 42xy + 9y^2 - 222x = 0 @@ 49x^2 - 42xy + 7y^2 - 222x = 0
        ",
    );
}

#[test]
fn choices_in_prose() {
    all(
        Verdict::Correct,
        &[
            ("B", "It cannot be C, so I think it's B"),
            ("D", "The answer is definitely D, as A and B are too small"),
            ("C", "The answer is C because the others are even."),
            ("C", "C。 其余都不对"),
            ("(B) Berlin", "The answer is B."),
        ],
    );
    all(
        Verdict::Incorrect,
        &[
            ("B", "It cannot be B, so I think it's C"),
            ("A", "The answer is a whole number"),
            ("C", "The answer is B because of C."),
        ],
    );
}

#[test]
fn numbers_behind_formulas() {
    all(
        Verdict::Correct,
        &[
            ("14", "Each divisor of $n$ gives one. Therefore there are 14 such pairs."),
            ("30%", r"We get $$\frac{a}{b} \ge 1.$$ Hence the price grows by 30%."),
            ("6", "Final Answer: The smallest $m$ is 6."),
            ("41", "Final Answer: The area of $ABCD$ is 41. I hope it is correct."),
            ("5", "So $x = 5$ metres are left."),
            ("7,5", "The mean is 7.5"),
            ("3000000", "They raised $3 million in the end"),
            ("2.74", "Il paie 2,74 euros"),
            ("40/9", "The answer is 4 4/9."),
            ("1,450,000", "So the cost was 1,350,000+100,000=$1,450,000 in all"),
            ("118000", "That leaves $400 000 - $282 000 = $118 000."),
            ("92", "The total will be $20+$72 = $92"),
            (
                "130",
                r"Each factor is fine, so we get \[\boxed{130}\]The final answer is positive, because two factors are negative.",
            ),
            ("120", "the final answer is 15 gallons, each of 8 pints\n#### 120"),
        ],
    );
    all(
        Verdict::Incorrect,
        &[
            ("4", "The answer is 4 4/9."),
            ("3", "So $x = 5$ because of rule 3"),
            ("71/6", "11\n5/6"),
            ("12", "The answer is 11 6/6."),
        ],
    );
}

#[test]
fn long_references_in_words() {
    let reference = "All whole numbers $n$ for which $n + 1$ is a square and $n$ is not divisible by $3$ or by $7$";
    assert_eq!(verdict(reference, reference), Verdict::Correct);
    assert_eq!(verdict(reference, r"\boxed{7}"), Verdict::NotJudged);
}

#[test]
fn sums_magnitudes_and_number_words() {
    equal(
        r"
        \sum_{k=1}^{9} k^2 @@ 285
        15 @@ \sum_{i=1}^{5} i
        \prod_{k=1}^{5} k @@ 120
        1 + x + x^2 @@ \sum_{j=0}^{2} x^j
        2500000 @@ 2.5 million
        30000 @@ 3万
        1200 @@ 1.2 thousand dollars
        5\text{ million} @@ 5000000
        7 @@ seven
        \text{Twelve} @@ 12
        4^{\text{th}} @@ 4
        1, 2, ..., 10 @@ 1,2,\ldots,10
        ",
    );
    different(
        r"
        285 @@ \sum_{k=1}^{8} k^2
        2.5 @@ 2.5 million
        3 @@ 3万
        5 @@ 5\text{ million}
        7 @@ eight
        ",
    );
}
