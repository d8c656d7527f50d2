//! Normal forms of expressions: exact values of sums, products, powers, roots, logarithms and trigonometric functions at
//! multiples of 15 degrees. What has no exact value stays an atom of its own; the numeric check then decides.

use num_bigint::BigInt;
use num_rational::{BigRational, Ratio};
use num_traits::{One, Signed, Zero};

use super::fraction::{Fraction, prime_powers, rational_power, small_exponent, small_integer};
use super::node::{Constant, Node};
use super::poly::{Atom, Exponent, MAX_BITS, Monomial, Poly, TooLarge, too_long};
use super::scalar::based_value;
use super::work::charge;

/// The normal form of a scalar.
///
/// # Errors
/// [`TooLarge`], also for what is not a scalar or has no value, such as 1/0.
pub fn normal_form(node: &Node) -> Result<Fraction, TooLarge> {
    charge(5).ok_or(TooLarge)?;
    match node {
        Node::Number { value, .. } => {
            if too_long(value) {
                return Err(TooLarge);
            }
            Ok(Fraction::number(value.clone()))
        }
        Node::Based { digits, base } => based_value(digits, *base).map(Fraction::number).ok_or(TooLarge),
        Node::Symbol(name) => Fraction::atom(Atom::Variable(name.clone())),
        Node::Constant(Constant::Pi) => Fraction::atom(Atom::Pi),
        Node::Constant(Constant::E) => Fraction::atom(Atom::E),
        Node::Constant(Constant::I) => Fraction::atom(Atom::I),
        Node::Negative(a) => Ok(normal_form(a)?.negated()),
        Node::Sum(items) => items.iter().try_fold(rational(0, 1), |sum, item| sum.plus(&normal_form(item)?)),
        Node::Product(items) => items.iter().try_fold(rational(1, 1), |p, item| p.times(&normal_form(item)?)),
        Node::Quotient(a, b) => normal_form(a)?.over(&normal_form(b)?)?.ok_or(TooLarge),
        Node::Percent(a) => normal_form(a)?.times(&rational(1, 100)),
        Node::Degrees(a) => normal_form(a),
        Node::Power(a, b) => power(&normal_form(a)?, &normal_form(b)?),
        Node::Root(a, n) => root(&normal_form(a)?, &normal_form(n)?),
        Node::Call(name, items) => call(name, items),
        _ => Err(TooLarge),
    }
}

fn rational(numerator: i64, denominator: i64) -> Fraction {
    Fraction::number(BigRational::new(numerator.into(), denominator.into()))
}

fn power(base: &Fraction, exponent: &Fraction) -> Result<Fraction, TooLarge> {
    let Some(constant) = exponent.as_constant() else { return symbolic_power(base, exponent) };
    let e = small_exponent(&constant).ok_or(TooLarge)?;
    if e.is_integer() {
        let n = e.to_integer();
        // A huge power of a plain number stays a product of huge powers of primes.
        if let Ok(found) = base.whole_power(n) {
            return found.ok_or(TooLarge);
        }
        if let Some(value) = base.as_constant() {
            let negative = value.is_negative() && n % 2 != 0;
            let found = Fraction::whole(rational_power(&value.abs(), e)?);
            return Ok(if negative { found.negated() } else { found });
        }
        return opaque_power(base, e);
    }
    fractional_power(base, e)
}

/// The real root where the index is odd, the principal one else.
fn root(radicand: &Fraction, index: &Fraction) -> Result<Fraction, TooLarge> {
    let index = index.as_constant().and_then(|n| small_integer(&n)).filter(|n| *n > 0).ok_or(TooLarge)?;
    let exponent = Ratio::new(1, index);
    match radicand.as_constant() {
        Some(value) if value.is_negative() && index % 2 == 1 => {
            Ok(Fraction::whole(rational_power(&-value, exponent)?).negated())
        }
        _ => fractional_power(radicand, exponent),
    }
}

fn fractional_power(base: &Fraction, e: Exponent) -> Result<Fraction, TooLarge> {
    if let Some(value) = base.as_constant() {
        if value.is_negative() && *e.denom() != 2 {
            return opaque_power(base, e);
        }
        return Ok(Fraction::whole(rational_power(&value, e)?));
    }
    if base.is_whole()
        && let Some((monomial, coefficient)) = base.top.single()
        && coefficient.is_positive()
        && monomial.0.iter().all(|(atom, old)| safe_to_raise(atom, *old))
    {
        let (factor, raised) = monomial.power(e)?;
        let number = rational_power(coefficient, e)?;
        return Ok(Fraction::whole(number.times(&Poly([(raised, factor)].into()))?));
    }
    opaque_power(base, e)
}

/// Whether `(atom^old)^e` is `atom^(old e)`: always for positive numbers, for variables only from odd powers.
fn safe_to_raise(atom: &Atom, old: Exponent) -> bool {
    match atom {
        Atom::Prime(_) | Atom::Pi | Atom::E => true,
        Atom::Variable(_) | Atom::Call(..) => old.is_one(),
        _ => false,
    }
}

/// A power whose base is an atom of its own, the content taken out.
fn opaque_power(base: &Fraction, e: Exponent) -> Result<Fraction, TooLarge> {
    let one = |poly: &Poly, e: Exponent| -> Result<Fraction, TooLarge> {
        if let Some(c) = poly.as_constant()
            && !c.is_negative()
        {
            return Ok(Fraction::whole(rational_power(&c, e)?));
        }
        let content = poly.content();
        let primitive = poly.scaled(&content.recip());
        let power = Poly::atom(Atom::Sum(primitive.into()), e)?;
        Ok(Fraction::whole(rational_power(&content, e)?.times(&power)?))
    };
    one(&base.top, e)?.over(&one(&base.bottom, e)?)?.ok_or(TooLarge)
}

/// A power with variables or constants such as pi in its exponent.
fn symbolic_power(base: &Fraction, exponent: &Fraction) -> Result<Fraction, TooLarge> {
    if let Some(angle) = euler_angle(base, exponent) {
        let (sine, cosine) = (sine_of_turn(&angle), sine_of_turn(&(angle + BigRational::new(1.into(), 2.into()))));
        if let (Some(s), Some(c)) = (sine, cosine) {
            return c?.plus(&s?.times(&Fraction::atom(Atom::I)?)?);
        }
    }
    let opaque = || {
        let call = Atom::Call("power".into(), vec![base.clone(), exponent.clone()].into());
        Fraction::atom(call)
    };
    if !exponent.is_whole() || !base.is_whole() {
        return opaque();
    }
    let Some((monomial, coefficient)) = base.top.single() else { return opaque() };
    if coefficient.is_negative() || !monomial.0.iter().all(|(atom, _)| !matches!(atom, Atom::I | Atom::Sum(_))) {
        return opaque();
    }
    let mut factors: Vec<(Atom, Exponent)> = monomial.0.clone();
    for (prime, count) in prime_powers(coefficient)? {
        factors.push((Atom::Prime(prime), Ratio::from_integer(count)));
    }
    let mut result = rational(1, 1);
    for (atom, old) in factors {
        for (inner, c) in &exponent.top.0 {
            let e = small_exponent(c).and_then(|e| num_traits::CheckedMul::checked_mul(&e, &old)).ok_or(TooLarge)?;
            let atom =
                if inner.0.is_empty() { atom.clone() } else { Atom::Power(atom.clone().into(), inner.clone().into()) };
            result = result.times(&Fraction::whole(Poly::atom(atom, e)?))?;
        }
    }
    Ok(result)
}

/// For `e^{i r pi}`, the rational r.
fn euler_angle(base: &Fraction, exponent: &Fraction) -> Option<BigRational> {
    let (monomial, coefficient) = base.top.single()?;
    let is_e = base.is_whole() && coefficient.is_one() && monomial.0 == [(Atom::E, Exponent::one())];
    let (inner, c) = exponent.top.single()?;
    let is_turn = inner.0 == [(Atom::Pi, Exponent::one()), (Atom::I, Exponent::one())];
    (is_e && is_turn && exponent.is_whole()).then(|| c.clone())
}

/// The rational r of an angle `r pi`.
fn turn(angle: &Fraction) -> Option<BigRational> {
    if let Some(c) = angle.as_constant() {
        return c.is_zero().then_some(c);
    }
    let (monomial, c) = angle.top.single()?;
    (angle.is_whole() && monomial.0 == [(Atom::Pi, Exponent::one())]).then(|| c.clone())
}

/// The sine of `r pi` where twelve times r is whole, or ten times.
fn sine_of_turn(r: &BigRational) -> Option<Result<Fraction, TooLarge>> {
    let two = BigRational::from_integer(2.into());
    let mut r = r - (r / &two).floor() * &two;
    let negative = r >= BigRational::one();
    if negative {
        r -= BigRational::one();
    }
    if r > BigRational::new(1.into(), 2.into()) {
        r = BigRational::one() - r;
    }
    let sixtieths = r * BigRational::from_integer(60.into());
    // (a + b sqrt(m) + c sqrt(n)) / d
    let (a, b, m, c, n, d) = match small_integer(&sixtieths)? {
        0 => (0, 0, 1, 0, 1, 1),
        5 => (0, 1, 6, -1, 2, 4),
        6 => (-1, 1, 5, 0, 1, 4),
        10 => (1, 0, 1, 0, 1, 2),
        15 => (0, 1, 2, 0, 1, 2),
        18 => (1, 1, 5, 0, 1, 4),
        20 => (0, 1, 3, 0, 1, 2),
        25 => (0, 1, 6, 1, 2, 4),
        30 => (1, 0, 1, 0, 1, 1),
        _ => return None,
    };
    let surd = |factor: i64, radicand: i64| -> Result<Fraction, TooLarge> {
        let root = rational_power(&BigRational::from_integer(radicand.into()), Ratio::new(1, 2))?;
        Fraction::whole(root).times(&rational(factor, d))
    };
    let value = || -> Result<Fraction, TooLarge> {
        let sum = rational(a, d).plus(&surd(b, m)?)?.plus(&surd(c, n)?)?;
        Ok(if negative { sum.negated() } else { sum })
    };
    Some(value())
}

fn call(name: &str, items: &[Node]) -> Result<Fraction, TooLarge> {
    let angle_in_degrees = |node: &Node| matches!(node, Node::Degrees(_));
    let mut arguments = items.iter().map(normal_form).collect::<Result<Vec<_>, _>>()?;
    let trigonometric = matches!(name, "sin" | "cos" | "tan" | "cot" | "sec" | "csc");
    if trigonometric && angle_in_degrees(&items[0]) {
        arguments[0] = arguments[0].times(&rational(1, 180))?.times(&Fraction::atom(Atom::Pi)?)?;
    }
    let opaque = |arguments: Vec<Fraction>| Fraction::atom(Atom::Call(name.into(), arguments.into()));
    if trigonometric && arguments.len() == 1 {
        return match turn(&arguments[0]).and_then(|r| exact_trigonometry(name, &r)) {
            Some(found) => found,
            None => opaque(arguments),
        };
    }
    let constants: Option<Vec<BigRational>> = arguments.iter().map(Fraction::as_constant).collect();
    if let Some(values) = constants
        && let Some(found) = of_constants(name, &values)
    {
        return found;
    }
    match (name, arguments.as_slice()) {
        ("ln", [x]) => logarithm(x),
        ("log", [x, base]) => logarithm(x)?.over(&logarithm(base)?)?.ok_or(TooLarge),
        _ => opaque(arguments),
    }
}

fn exact_trigonometry(name: &str, r: &BigRational) -> Option<Result<Fraction, TooLarge>> {
    let half = BigRational::new(1.into(), 2.into());
    let (sine, cosine) = (sine_of_turn(r)?, sine_of_turn(&(r + half))?);
    let one = rational(1, 1);
    let value = || -> Result<Fraction, TooLarge> {
        let (sine, cosine) = (sine?, cosine?);
        let (top, bottom) = match name {
            "sin" => (sine, one),
            "cos" => (cosine, one),
            "tan" => (sine, cosine),
            "cot" => (cosine, sine),
            "sec" => (one, cosine),
            _ => (one, sine),
        };
        top.over(&bottom)?.ok_or(TooLarge)
    };
    Some(value())
}

/// The natural logarithm: of numbers as a sum over primes, of powers as a multiple.
fn logarithm(x: &Fraction) -> Result<Fraction, TooLarge> {
    let of_atom = |atom: Atom| -> Result<Fraction, TooLarge> {
        if atom == Atom::E {
            return Ok(rational(1, 1));
        }
        let inner = Fraction::atom(atom)?;
        Fraction::atom(Atom::Call("ln".into(), vec![inner].into()))
    };
    let opaque = || Fraction::atom(Atom::Call("ln".into(), vec![x.clone()].into()));
    let Some((monomial, coefficient)) = x.top.single().filter(|_| x.is_whole()) else { return opaque() };
    let plain = monomial.0.iter().all(|(atom, e)| match atom {
        Atom::Prime(_) | Atom::E | Atom::Pi => true,
        Atom::Variable(_) => e.is_one(),
        Atom::Power(base, _) => matches!(**base, Atom::E | Atom::Prime(_)),
        _ => false,
    });
    if !coefficient.is_positive()
        || !plain
        || (monomial.0.iter().any(|(a, _)| matches!(a, Atom::Variable(_))) && monomial.0.len() > 1)
    {
        return opaque();
    }
    let mut sum = rational(0, 1);
    for (prime, count) in prime_powers(coefficient)? {
        sum = sum.plus(&of_atom(Atom::Prime(prime))?.times(&rational(count, 1))?)?;
    }
    for (atom, e) in &monomial.0 {
        let (base, inner) = match atom {
            Atom::Power(base, inner) => ((**base).clone(), (**inner).clone()),
            other => (other.clone(), Monomial::default()),
        };
        let factor = Poly([(inner, BigRational::new((*e.numer()).into(), (*e.denom()).into()))].into());
        sum = sum.plus(&of_atom(base)?.times(&Fraction::whole(factor))?)?;
    }
    Ok(sum)
}

/// Functions of rational numbers with rational values.
fn of_constants(name: &str, values: &[BigRational]) -> Option<Result<Fraction, TooLarge>> {
    let integers = || values.iter().map(|v| v.is_integer().then(|| v.to_integer())).collect::<Option<Vec<BigInt>>>();
    let found = match (name, values) {
        ("abs", [x]) => x.abs(),
        ("floor", [x]) => x.floor(),
        ("ceil", [x]) => x.ceil(),
        ("max", [first, rest @ ..]) => rest.iter().fold(first.clone(), |a, b| a.max(b.clone())),
        ("min", [first, rest @ ..]) => rest.iter().fold(first.clone(), |a, b| a.min(b.clone())),
        ("gcd", [_, ..]) => integers()?.iter().fold(BigInt::zero(), |a, b| num_integer::Integer::gcd(&a, b)).into(),
        ("lcm", [_, ..]) => integers()?.iter().fold(BigInt::one(), |a, b| num_integer::Integer::lcm(&a, b)).into(),
        ("factorial", [x]) => {
            let n = small_integer(x).filter(|n| *n >= 0)?;
            if n > 1_000 {
                return Some(Err(TooLarge));
            }
            (1..=n).fold(BigInt::one(), |p, k| p * k).into()
        }
        ("binomial", [n, k]) => {
            let (n, k) = (small_integer(n).filter(|n| *n >= 0)?, small_integer(k)?);
            if k < 0 || k > n {
                return Some(Ok(rational(0, 1)));
            }
            let k = k.min(n - k);
            let mut product = BigInt::one();
            for j in 0..k {
                product = product * (n - j) / (j + 1);
                if product.bits() > MAX_BITS {
                    return Some(Err(TooLarge));
                }
            }
            product.into()
        }
        ("log", [x, base]) if x.is_one() && base.is_positive() && !base.is_one() => BigRational::zero(),
        ("ln", [x]) if x.is_one() => BigRational::zero(),
        ("arctan" | "arcsin", [x]) if x.is_zero() => BigRational::zero(),
        ("det", _) => return None,
        _ => return None,
    };
    Some(if too_long(&found) { Err(TooLarge) } else { Ok(Fraction::number(found)) })
}
