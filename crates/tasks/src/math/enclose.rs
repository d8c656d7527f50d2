//! Numbers with a bound on their error: 256-bit midpoints, and a radius that grows with every operation. A value is a
//! rectangle in the complex plane that holds the true one. Only elementary functions; anything doubtful has no value.

use astro_float_num::{BigFloat, Consts, RoundingMode};
use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{Signed, ToPrimitive, Zero};

use super::work::charge;

/// Bits of a midpoint.
const BITS: usize = 256;
/// Relative error of one rounded operation, with room.
const ULP: f64 = 1e-75;
/// Midpoints beyond these sizes have no value here.
const LARGEST: f64 = 1e120;
/// Smallest size of a midpoint other than zero.
const SMALLEST: f64 = 1e-120;

/// A real number between `middle - radius` and `middle + radius`.
#[derive(Clone, Debug)]
pub struct Real {
    middle: BigFloat,
    radius: f64,
}

/// Mathematical constants that are computed once.
pub struct Context(Consts);

impl Context {
    /// A new one; `None` when memory is short.
    pub fn new() -> Option<Self> {
        Consts::new().ok().map(Self)
    }

    /// Pi.
    pub fn pi(&mut self) -> Option<Real> {
        Real::rounded(self.0.pi(BITS, RoundingMode::None), 0.0)
    }
}

/// The midpoint as a float.
fn to_f64(value: &BigFloat) -> Option<f64> {
    if value.is_zero() {
        return Some(0.0);
    }
    let (words, _, sign, exponent, _) = value.as_raw_parts()?;
    // The mantissa is a fraction with its highest word last.
    let top = *words.last()? as f64 / 2f64.powi(64);
    let size = top * 2f64.powi(exponent.clamp(-1_000, 1_000));
    Some(if sign.is_negative() { -size } else { size })
}

impl Real {
    fn rounded(middle: BigFloat, radius: f64) -> Option<Self> {
        if middle.is_nan() || middle.is_inf() {
            return None;
        }
        let size = to_f64(&middle)?.abs();
        if size > LARGEST || radius > LARGEST {
            return None;
        }
        if size < SMALLEST && !middle.is_zero() {
            return Some(Self { middle: BigFloat::from_word(0, BITS), radius: radius + SMALLEST });
        }
        Some(Self { middle, radius: (radius + size * ULP) * (1.0 + 1e-12) })
    }

    /// A rational number.
    pub fn rational(value: &BigRational) -> Option<Self> {
        if value.is_zero() {
            return Some(Self { middle: BigFloat::from_word(0, BITS), radius: 0.0 });
        }
        charge(10 + value.numer().bits() / 8 + value.denom().bits() / 8)?;
        let part = |n: &BigInt| -> Option<BigFloat> {
            let words = n.abs().to_u64_digits().1;
            let bits = n.bits();
            if bits > 1_200 {
                return None;
            }
            let sum = words.iter().rev().fold(BigFloat::from_word(0, 1_280), |sum, word| {
                let shifted = sum.mul(&two_to_64(), 1_280, RoundingMode::None);
                shifted.add(&BigFloat::from_word(*word, 64), 1_280, RoundingMode::None)
            });
            Some(if n.is_negative() { sum.neg() } else { sum })
        };
        Self::rounded(part(value.numer())?.div(&part(value.denom())?, BITS, RoundingMode::None), 0.0)
    }

    /// Zero.
    pub fn zero() -> Self {
        Self { middle: BigFloat::from_word(0, BITS), radius: 0.0 }
    }

    /// The midpoint as a float.
    pub fn middle(&self) -> f64 {
        to_f64(&self.middle).unwrap_or(f64::NAN)
    }

    /// The bound on the error.
    pub fn radius(&self) -> f64 {
        self.radius
    }

    /// The largest size it can have.
    pub fn bound(&self) -> f64 {
        (self.middle().abs() + self.radius) * (1.0 + 1e-12)
    }

    /// Whether zero is among the values it can have.
    pub fn may_be_zero(&self) -> bool {
        self.middle().abs() <= self.radius * (1.0 + 1e-12)
    }

    /// -1 or 1 when all values have that sign.
    pub fn sign(&self) -> Option<i32> {
        (!self.may_be_zero()).then(|| if self.middle() < 0.0 { -1 } else { 1 })
    }

    /// Whether it is certainly zero and nothing else.
    pub fn is_exact_zero(&self) -> bool {
        self.middle.is_zero() && self.radius == 0.0
    }

    /// The largest whole number not above it, when that is certain.
    pub fn floor(&self) -> Option<Self> {
        let nearest = self.middle().round();
        if nearest.abs() > 1e14 {
            return None;
        }
        let whole = |n: f64| Self::rational(&BigRational::from_integer((n as i64).into()));
        let sign = self.minus(&whole(nearest)?)?.sign()?;
        whole(if sign < 0 { nearest - 1.0 } else { nearest })
    }

    /// The other sign.
    pub fn negated(&self) -> Self {
        Self { middle: self.middle.neg(), radius: self.radius }
    }

    /// The sum.
    pub fn plus(&self, other: &Self) -> Option<Self> {
        charge(3)?;
        Self::rounded(self.middle.add(&other.middle, BITS, RoundingMode::None), self.radius + other.radius)
    }

    /// The difference.
    pub fn minus(&self, other: &Self) -> Option<Self> {
        self.plus(&other.negated())
    }

    /// The product.
    pub fn times(&self, other: &Self) -> Option<Self> {
        charge(4)?;
        let radius =
            self.middle().abs() * other.radius + other.middle().abs() * self.radius + self.radius * other.radius;
        Self::rounded(self.middle.mul(&other.middle, BITS, RoundingMode::None), radius)
    }

    /// One over it.
    pub fn inverse(&self) -> Option<Self> {
        if self.may_be_zero() {
            return None;
        }
        charge(30)?;
        let least = self.middle().abs() - self.radius;
        let radius = self.radius / (least * least);
        Self::rounded(self.middle.reciprocal(BITS, RoundingMode::None), radius * 2.0)
    }

    /// The square root of a number that is not negative.
    pub fn square_root(&self) -> Option<Self> {
        if self.is_exact_zero() {
            return Some(Self::zero());
        }
        if self.may_be_zero() {
            return Some(Self { middle: BigFloat::from_word(0, BITS), radius: self.bound().sqrt() * (1.0 + 1e-12) });
        }
        self.sign().filter(|s| *s > 0)?;
        charge(30)?;
        let radius = self.radius / (self.middle() - self.radius).sqrt();
        Self::rounded(self.middle.sqrt(BITS, RoundingMode::None), radius)
    }

    /// The exponential.
    pub fn exponential(&self, context: &mut Context) -> Option<Self> {
        charge(400)?;
        if self.middle().abs() > 250.0 || self.radius > 1e-3 {
            return None;
        }
        let value = self.middle.exp(BITS, RoundingMode::None, &mut context.0);
        let radius = to_f64(&value)?.abs() * self.radius * 1.01;
        Self::rounded(value, radius)
    }

    /// The natural logarithm of a positive number.
    pub fn logarithm(&self, context: &mut Context) -> Option<Self> {
        charge(600)?;
        self.sign().filter(|s| *s > 0)?;
        let least = self.middle() - self.radius;
        Self::rounded(self.middle.ln(BITS, RoundingMode::None, &mut context.0), self.radius / least * 1.01)
    }

    /// Sine and cosine.
    pub fn sine_cosine(&self, context: &mut Context) -> Option<(Self, Self)> {
        charge(800)?;
        if self.middle().abs() > 1e6 {
            return None;
        }
        // The argument is reduced inside; its size costs absolute accuracy.
        let radius = self.radius + self.bound().max(1.0) * ULP;
        let sine = self.middle.sin(BITS, RoundingMode::None, &mut context.0);
        let cosine = self.middle.cos(BITS, RoundingMode::None, &mut context.0);
        Some((Self::rounded(sine, radius)?, Self::rounded(cosine, radius)?))
    }

    /// The arc tangent.
    pub fn arc_tangent(&self, context: &mut Context) -> Option<Self> {
        charge(600)?;
        Self::rounded(self.middle.atan(BITS, RoundingMode::None, &mut context.0), self.radius)
    }
}

fn two_to_64() -> BigFloat {
    BigFloat::from_word(1 << 63, 64).mul(&BigFloat::from_word(2, 64), 64, RoundingMode::None)
}

/// Pow for sizes: whether `value` is a whole number that fits.
pub fn as_small_integer(value: &BigRational) -> Option<i32> {
    value.is_integer().then(|| value.to_integer().to_i32()).flatten()
}
