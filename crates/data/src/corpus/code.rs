//! Workings of programming exercises: numbers by their differences, lists by trying what functions there are, and every
//! idea checked against the examples. Code stands in backquotes, so that it belongs to no language.

use super::{CorpusConfig, Style, working};
use aha_tasks::mini::{self, ARRANGEMENTS, Exercise, PICKS, Rng, Subject, Topic};
use aha_tasks::program::{Program, Value};
use aha_tasks::{Language, Split};
use working::Words;

/// An exercise of the pretraining part.
pub(super) fn draw(rng: &mut Rng) -> Exercise {
    match mini::draw_subject(Topic::Code, Split::Pretrain, rng) {
        Subject::Code(exercise) => exercise,
        _ => unreachable!("the topic is code"),
    }
}

/// What stands before the answer, and the answer: a program.
pub(super) fn working(
    e: &Exercise,
    style: Style,
    config: &CorpusConfig,
    language: Language,
    rng: &mut Rng,
) -> (String, String) {
    let w = working::words(language);
    let guess = |right: f64, rng: &mut Rng| if rng.unit() < right { e.form.clone() } else { e.guess(rng).to_owned() };
    let (work, form) = match style {
        Style::Blunt => (w.easy.to_owned(), guess(config.blunt_correct, rng)),
        Style::Short => {
            let form = guess(config.short_correct, rng);
            (format!("`{form}`{}\n", w.yes), form)
        }
        Style::Long if e.shape.of_lists() => lists(e, &w),
        Style::Long => numbers(e, &w),
    };
    (work, Exercise::program(&form))
}

/// What a form gives for an input.
fn call(form: &str, input: &Value) -> Value {
    Program::parse(form).and_then(|p| p.call(input)).unwrap_or(Value::List(Vec::new()))
}

/// Every function there is for this kind of output, until one fits all examples.
fn lists(e: &Exercise, w: &Words) -> (String, String) {
    let forms: &[&str] = if matches!(e.shown[0].output, Value::Int(_)) { &PICKS } else { &ARRANGEMENTS };
    let mut text = String::new();
    for form in forms {
        text += &format!("`{form}`");
        let mut fits = true;
        for (i, example) in e.shown.iter().enumerate() {
            let value = call(form, &example.input);
            text += &format!("{}{value}{}{}", if i == 0 { "=" } else { "," }, w.want, example.output);
            fits = value == example.output;
            if !fits {
                break;
            }
        }
        if fits {
            return (format!("{text}{}\n", w.yes), (*form).to_owned());
        }
        text += w.wrong;
    }
    (text + w.give_up, forms[0].to_owned())
}

/// The slope between the first two examples gives a line; when it misses the third, it is a square.
fn numbers(e: &Exercise, w: &Words) -> (String, String) {
    let at = |i: usize| match (&e.shown[i].input, &e.shown[i].output) {
        (Value::Int(x), Value::Int(y)) => (*x, *y),
        _ => (0, 0),
    };
    let ((x1, y1), (x2, y2), (x3, y3)) = (at(0), at(1), at(2));
    let (dx, dy) = (x2 - x1, y2 - y1);
    let mut text = format!("{y2}-{y1}={dy},{x2}-{x1}={dx}");
    if dy % dx == 0 && dy != 0 {
        let slope = dy / dx;
        text += &format!(",{dy}/{dx}={slope}.\n");
        let (form, check) = match slope {
            -1 => {
                let c = x1 + y1;
                text += &format!("{x1}+{y1}={c}.\n");
                (format!("{c}-x"), format!("{c}-{x3}={}", c - x3))
            }
            1 => {
                let c = y1 - x1;
                text += &format!("{y1}-{x1}={c}.\n");
                (with("x", c), applied(x3, c))
            }
            _ => {
                let m = slope * x1;
                let b = y1 - m;
                text += &format!("{x1}*{slope}={m},{y1}-{m}={b}.\n");
                let product = slope * x3;
                let rest = if b == 0 { String::new() } else { format!(",{}", applied(product, b)) };
                (with(&format!("x*{slope}"), b), format!("{x3}*{slope}={product}{rest}"))
            }
        };
        text += &format!("`{form}`:{check}{}{y3}", w.want);
        if e.shown.iter().all(|example| call(&form, &example.input) == example.output) {
            return (format!("{text}{}\n", w.yes), form);
        }
        text += w.wrong;
    } else {
        text += w.wrong;
    }
    let (s1, s3) = (x1 * x1, x3 * x3);
    let b = y1 - s1;
    let form = with("x*x", b);
    let rest = if b == 0 { String::new() } else { format!(",{}", applied(s3, b)) };
    text += &format!("{x1}*{x1}={s1},{y1}-{s1}={b}.\n`{form}`:{x3}*{x3}={s3}{rest}{}{y3}{}\n", w.want, w.yes);
    (text, form)
}

/// `x*2` and 3 as `x*2+3`, and -3 as `x*2-3`; 0 leaves it as it is.
fn with(left: &str, b: i64) -> String {
    match b {
        0 => left.to_owned(),
        1.. => format!("{left}+{b}"),
        _ => format!("{left}-{}", -b),
    }
}

/// "18+3=21"
fn applied(left: i64, b: i64) -> String {
    format!("{}={}", with(&left.to_string(), b), left + b)
}
