//! Tiny programming exercises: examples of a function are shown, its program is asked for, other examples judge it.
//!
//! The programs are a closed list of short forms over whole numbers and lists. The shown examples leave no choice: every
//! form that fits them all gives the hidden outputs too. A program that only repeats the shown outputs fails on the hidden.

use super::Rng;
use crate::problem::{Language, Reference};
use crate::program::{Example, Program, Value};
use std::sync::LazyLock;

/// Examples that are shown.
pub const SHOWN: usize = 3;
/// Examples that judge besides.
pub const HIDDEN: usize = 4;
/// Largest number in an example.
const LARGEST: i64 = 99;

/// Groups of forms that are drawn equally often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `x+5`, `x-3`.
    Shift,
    /// `x*4`.
    Scale,
    /// `x*4+5`, `x*4-3`.
    Line,
    /// `x*x+2`.
    Square,
    /// `20-x`.
    Mirror,
    /// A number from a list: `max(x)`, `x[0]`, ...
    Pick,
    /// A list from a list: `x[::-1]`, `sorted(x)`, ...
    Arrange,
}

impl Shape {
    /// All of them.
    pub const ALL: [Shape; 7] =
        [Shape::Shift, Shape::Scale, Shape::Line, Shape::Square, Shape::Mirror, Shape::Pick, Shape::Arrange];

    /// Whether the argument is a list.
    pub fn of_lists(self) -> bool {
        matches!(self, Shape::Pick | Shape::Arrange)
    }
}

/// Forms that give a number from a list, in the order they are tried.
pub const PICKS: [&str; 7] = ["max(x)", "min(x)", "sum(x)", "len(x)", "x[0]", "x[-1]", "max(x)-min(x)"];
/// Forms that give a list from a list.
pub const ARRANGEMENTS: [&str; 5] = ["x[::-1]", "sorted(x)", "x[1:]", "x[:-1]", "x+x"];

/// A form with its program.
#[derive(Debug)]
struct Form {
    shape: Shape,
    text: String,
    program: Program,
}

static FORMS: LazyLock<Vec<Form>> = LazyLock::new(|| {
    let mut forms = Vec::new();
    let mut add = |shape, text: String| {
        let program = Program::parse(&text).expect("forms are in the subset");
        forms.push(Form { shape, text, program });
    };
    for a in 1..=20 {
        add(Shape::Shift, format!("x+{a}"));
        add(Shape::Mirror, format!("{}-x", a + 10));
    }
    for a in 1..=9 {
        add(Shape::Shift, format!("x-{a}"));
    }
    for a in 2..=9 {
        add(Shape::Scale, format!("x*{a}"));
        for b in 1..=9 {
            add(Shape::Line, format!("x*{a}+{b}"));
            add(Shape::Line, format!("x*{a}-{b}"));
        }
    }
    add(Shape::Square, "x*x".into());
    for b in 1..=9 {
        add(Shape::Square, format!("x*x+{b}"));
    }
    PICKS.iter().for_each(|text| add(Shape::Pick, (*text).to_owned()));
    ARRANGEMENTS.iter().for_each(|text| add(Shape::Arrange, (*text).to_owned()));
    forms
});

/// One exercise.
#[derive(Clone, Debug, PartialEq)]
pub struct Exercise {
    /// The form of the program.
    pub shape: Shape,
    /// The expression of x that the outputs came from.
    pub form: String,
    /// Examples in the question.
    pub shown: Vec<Example>,
    /// Examples that are not.
    pub hidden: Vec<Example>,
}

impl Exercise {
    /// A random exercise.
    pub fn draw(rng: &mut Rng) -> Self {
        loop {
            let shape = *rng.pick(&Shape::ALL);
            let of_shape: Vec<&Form> = FORMS.iter().filter(|f| f.shape == shape).collect();
            let form = *rng.pick(&of_shape);
            if let Some((shown, hidden)) = examples(form, rng) {
                return Exercise { shape, form: form.text.clone(), shown, hidden };
            }
        }
    }

    /// A form of the same kind of argument: what somebody answers who did not think.
    pub fn guess(&self, rng: &mut Rng) -> &'static str {
        let lists = self.shape.of_lists();
        let same: Vec<&Form> = FORMS.iter().filter(|f| f.shape.of_lists() == lists).collect();
        &rng.pick(&same).text
    }

    /// The program text of a form.
    pub fn program(form: &str) -> String {
        format!("def f(x):return {form}")
    }

    /// The form that identifies the exercise: the shown examples, in any order.
    pub fn canonical(&self) -> String {
        let mut shown: Vec<String> = self.shown.iter().map(|e| format!("{}={}", e.input, e.output)).collect();
        shown.sort_unstable();
        format!("code/{}", shown.join(";"))
    }

    /// The question.
    pub fn question(&self, language: Language) -> String {
        let shown: Vec<String> = self.shown.iter().map(|e| format!("f({})={}", e.input, e.output)).collect();
        match language {
            Language::English => format!("{}. write f", shown.join(",")),
            Language::Chinese => format!("{}。写f", shown.join(",")),
        }
    }

    /// The reference for the judge.
    pub fn reference(&self) -> Reference {
        Reference::Program { shown: self.shown.clone(), hidden: self.hidden.clone() }
    }
}

/// Shown and hidden examples of a form, or none when these inputs will not do.
fn examples(form: &Form, rng: &mut Rng) -> Option<(Vec<Example>, Vec<Example>)> {
    let mut all: Vec<Example> = Vec::new();
    for _ in 0..8 * (SHOWN + HIDDEN) {
        let input = if form.shape.of_lists() {
            // Different numbers: equal ones hide what is done to them.
            let mut numbers: Vec<i64> = (1..=9).collect();
            rng.shuffle(&mut numbers);
            Value::List(numbers.into_iter().take(rng.range(2, 4) as usize).map(Value::Int).collect())
        } else {
            Value::Int(rng.range(0, 12))
        };
        let output = form.program.call(&input).ok()?;
        if in_reach(&output) && all.iter().all(|e| e.input != input) {
            all.push(Example { input, output });
        }
        if all.len() == SHOWN + HIDDEN {
            break;
        }
    }
    if all.len() < SHOWN + HIDDEN {
        return None;
    }
    let hidden = all.split_off(SHOWN);
    // Numbers are shown in order: their differences are what a working looks at.
    all.sort_by(|a, b| a.input.cmp(&b.input));
    let shown = all;
    if shown.iter().all(|e| e.output == shown[0].output) {
        return None;
    }
    let clear = FORMS
        .iter()
        .filter(|f| f.shape.of_lists() == form.shape.of_lists() && f.program.passes(&shown) == Some(true))
        .all(|f| f.program.passes(&hidden) == Some(true));
    clear.then_some((shown, hidden))
}

/// Whether all numbers are 0 to [`LARGEST`].
fn in_reach(value: &Value) -> bool {
    match value {
        Value::Int(n) => (0..=LARGEST).contains(n),
        Value::Text(_) => true,
        Value::List(items) => items.iter().all(in_reach),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_examples_decide_and_the_solution_passes() {
        let mut rng = Rng::new(3, 0);
        let mut seen = std::collections::HashMap::new();
        for _ in 0..2000 {
            let e = Exercise::draw(&mut rng);
            let program = Program::parse(&Exercise::program(&e.form)).unwrap();
            assert_eq!(program.passes(e.shown.iter().chain(&e.hidden)), Some(true), "{e:?}");
            assert_eq!((e.shown.len(), e.hidden.len()), (SHOWN, HIDDEN));
            assert!(e.hidden.iter().all(|h| e.shown.iter().all(|s| s.input != h.input)));
            *seen.entry(e.shape as usize).or_insert(0) += 1;
        }
        assert_eq!(seen.len(), Shape::ALL.len(), "{seen:?}");
        assert!(seen.values().all(|n| *n > 100), "{seen:?}");
    }

    #[test]
    fn wording_and_order_do_not_matter_to_the_canonical_form() {
        let e = Exercise::draw(&mut Rng::new(4, 0));
        let mut turned = e.clone();
        turned.shown.reverse();
        assert_eq!(e.canonical(), turned.canonical());
        assert_ne!(e.question(Language::English), e.question(Language::Chinese));
    }

    #[test]
    fn guesses_are_sometimes_right_and_mostly_wrong() {
        let mut rng = Rng::new(5, 0);
        let right = (0..2000).filter(|_| {
            let e = Exercise::draw(&mut rng);
            Program::parse(e.guess(&mut rng)).unwrap().passes(&e.hidden) == Some(true)
        });
        let right = right.count();
        assert!((20..400).contains(&right), "{right}");
    }
}
