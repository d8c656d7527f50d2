//! Whether two expressions are the same number or function: first by normal form, which is exact; where that leaves
//! doubt, by enclosures at sample points. An enclosure that excludes zero proves a difference; one that holds zero within
//! 10^-30 of the size of the sides, at every point that could be evaluated, counts as equality.

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{One, Signed, ToPrimitive, Zero};

use super::enclose::{Context, Real};
use super::evaluate::{Evaluator, SAMPLES, needs_whole};
use super::fraction::Fraction;
use super::node::Node;
use super::normal::normal_form;
use super::work;

/// What a comparison found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Equality {
    /// The same.
    Equal,
    /// Not the same.
    Different,
    /// Neither could be shown within the limits.
    Unknown,
}

impl Equality {
    /// Equal or different.
    pub fn from_bool(equal: bool) -> Self {
        if equal { Self::Equal } else { Self::Different }
    }

    /// Both must be equal; a difference on either side decides.
    pub fn and(self, other: impl FnOnce() -> Self) -> Self {
        match self {
            Self::Different => Self::Different,
            Self::Equal => other(),
            Self::Unknown => match other() {
                Self::Different => Self::Different,
                _ => Self::Unknown,
            },
        }
    }

    /// Either may be equal.
    pub fn or(self, other: impl FnOnce() -> Self) -> Self {
        match self {
            Self::Equal => Self::Equal,
            Self::Different => other(),
            Self::Unknown => match other() {
                Self::Equal => Self::Equal,
                _ => Self::Unknown,
            },
        }
    }
}

/// How close two enclosures must be, relative to their size.
const TOLERANCE: f64 = 1e-30;

/// Whether two scalars are exactly equal.
pub fn exactly_equal(a: &Node, b: &Node) -> Equality {
    if let (Some(x), Some(y)) = (infinite_sign(a), infinite_sign(b)) {
        return Equality::from_bool(x == y);
    }
    let infinite = |n: &Node| n.any(&|n| matches!(n, Node::Infinity));
    if infinite(a) || infinite(b) {
        return Equality::from_bool(a == b);
    }
    let forms = (normal_form(a), normal_form(b));
    // What has a value is not the same as 1/0.
    if (forms.0.is_ok() && is_undefined(b)) || (forms.1.is_ok() && is_undefined(a)) {
        return Equality::Different;
    }
    if let (Ok(x), Ok(y)) = forms {
        let products = (x.top.times(&y.bottom), y.top.times(&x.bottom));
        if let (Ok(left), Ok(right)) = products
            && let Ok(difference) = left.plus(&right.scaled(&-BigRational::from_integer(1.into())))
        {
            if difference.is_zero() {
                return Equality::Equal;
            }
            if difference.is_canonical() {
                return Equality::Different;
            }
            if let Some(equal) = ratio_is_one(&x, &y) {
                return Equality::from_bool(equal);
            }
        }
    }
    probe(a, b)
}

/// Whether two products of powers of primes are equal: by unique factorisation their quotient tells, however large they
/// are. `None` for anything else.
fn ratio_is_one(x: &Fraction, y: &Fraction) -> Option<bool> {
    x.top.single().filter(|_| x.is_whole())?;
    y.top.single().filter(|_| y.is_whole())?;
    let ratio = x.over(y).ok()??;
    match ratio.as_constant() {
        Some(value) => Some(value.is_one()),
        None => (ratio.is_whole() && ratio.top.is_product_of_primes()).then_some(false),
    }
}

/// Compares enclosures at the sample points.
fn probe(a: &Node, b: &Node) -> Equality {
    let Some(mut context) = Context::new() else { return Equality::Unknown };
    let constant = a.symbols().is_empty() && b.symbols().is_empty() && !has_function(a) && !has_function(b);
    let whole = needs_whole(a) || needs_whole(b);
    let mut zeros = 0;
    for sample in 0..if constant { 1 } else { SAMPLES } {
        let mut evaluator = Evaluator { context: &mut context, sample, whole };
        let (Some(x), Some(y)) = (evaluator.value(a), evaluator.value(b)) else { continue };
        let Some(difference) = x.minus(&y) else { continue };
        if !difference.re.may_be_zero() || !difference.im.may_be_zero() {
            return Equality::Different;
        }
        let scale = x.re.bound() + x.im.bound() + y.re.bound() + y.im.bound();
        if difference.re.bound() + difference.im.bound() <= TOLERANCE * scale.clamp(1e-30, 1.0) {
            zeros += 1;
        }
    }
    if zeros >= if constant { 1 } else { 3 } { Equality::Equal } else { Equality::Unknown }
}

fn has_function(node: &Node) -> bool {
    node.any(&|n| matches!(n, Node::Call(name, _) if name.starts_with("function ")))
}

/// Whether some part certainly has no value: a division by zero, a digit that its base does not have.
fn is_undefined(node: &Node) -> bool {
    let zero = |n: &Node| normal_form(n).is_ok_and(|form| form.top.is_zero());
    let negative = |n: &Node| rational_value(n).is_some_and(|v| v.is_negative());
    node.any(&|n| match n {
        Node::Quotient(_, bottom) => zero(bottom),
        Node::Power(base, exponent) => negative(exponent) && zero(base),
        Node::Call(name, items) => matches!(name.as_ref(), "ln" | "log") && items.first().is_some_and(zero),
        Node::Based { digits, base } => based_value(digits, *base).is_none(),
        _ => false,
    })
}

/// The value of digits in a base of at most 10; none where a digit is too large.
pub fn based_value(digits: &str, base: u32) -> Option<BigRational> {
    let read = |so_far: BigInt, c: char| c.to_digit(base).map(|digit| so_far * base + digit);
    let value = if (2..=36).contains(&base) { digits.chars().try_fold(BigInt::zero(), read)? } else { return None };
    Some(value.into())
}

/// 1 or -1 for infinity.
pub fn infinite_sign(node: &Node) -> Option<i32> {
    match node {
        Node::Infinity => Some(1),
        Node::Negative(inner) => infinite_sign(inner).map(|s| -s),
        _ => None,
    }
}

/// The enclosure of a real constant.
pub fn real_value(node: &Node) -> Option<Real> {
    let mut context = Context::new()?;
    let value = Evaluator { context: &mut context, sample: 0, whole: false }.value(node)?;
    value.as_real().cloned()
}

/// The sign of a real constant, where it is certain: -1, 0 or 1.
pub fn sign_of(node: &Node) -> Option<i32> {
    if let Some(sign) = infinite_sign(node) {
        return Some(sign);
    }
    if !node.symbols().is_empty() {
        return None;
    }
    if let Some(value) = rational_value(node) {
        return Some(if value.is_zero() {
            0
        } else if value.is_negative() {
            -1
        } else {
            1
        });
    }
    real_value(node)?.sign()
}

/// The rational number a node is.
pub fn rational_value(node: &Node) -> Option<BigRational> {
    match node {
        Node::Number { value, .. } => Some(value.clone()),
        Node::Negative(inner) => rational_value(inner).map(|v| -v),
        other => normal_form(other).ok()?.as_constant(),
    }
}

/// The rational number of a whole answer, within the work of one comparison; none for sets, relations and words.
pub fn constant(node: &Node) -> Option<BigRational> {
    work::begin();
    if node.is_scalar() { rational_value(node) } else { None }
}

/// Digits behind the point of a decimal number as written, the sign, percent and degrees aside.
pub fn written_decimals(node: &Node) -> Option<u32> {
    match node {
        Node::Number { decimals, .. } => *decimals,
        Node::Negative(inner) | Node::Percent(inner) | Node::Degrees(inner) => written_decimals(inner),
        _ => None,
    }
}

/// Whether two real constants, one of them written as a decimal number, agree when both are rounded to `decimals` places
/// and, unless `coarse`, are as close in proportion to their size; so small numbers are not all zero.
pub fn equal_rounded(a: &Node, b: &Node, decimals: u32, coarse: bool) -> Equality {
    if a.symbols().len() + b.symbols().len() > 0 {
        return Equality::Different;
    }
    let scale = BigRational::from_integer(num_traits::Pow::pow(num_bigint::BigInt::from(10), decimals.min(30)));
    let half = BigRational::new(1.into(), 2.into());
    let places = decimals.saturating_sub(2).min(30);
    match (rational_value(a), rational_value(b)) {
        (Some(x), Some(y)) => {
            let rounded = |v: &BigRational| (v * &scale + &half).floor();
            let close = coarse
                || (&x - &y).abs() * BigRational::from_integer(num_bigint::BigInt::from(10).pow(places))
                    <= x.abs().max(y.abs());
            Equality::from_bool(close && rounded(&x) == rounded(&y))
        }
        _ => {
            let rounded = |node: &Node| -> Option<Real> {
                real_value(node)?.times(&Real::rational(&scale)?)?.plus(&Real::rational(&half)?)?.floor()
            };
            let (Some(x), Some(y)) = (real_value(a), real_value(b)) else { return Equality::Different };
            if !coarse
                && (x.middle() - y.middle()).abs() * 10f64.powi(places as i32) > x.middle().abs().max(y.middle().abs())
            {
                return Equality::Different;
            }
            match (rounded(a), rounded(b)) {
                (Some(x), Some(y)) => Equality::from_bool(x.middle().to_i64() == y.middle().to_i64()),
                _ => Equality::Different,
            }
        }
    }
}
