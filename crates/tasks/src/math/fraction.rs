//! Quotients of normal forms. Equality is by cross multiplication, so no common factors have to be found.

use num_bigint::{BigInt, BigUint};
use num_rational::{BigRational, Ratio};
use num_traits::{One, Signed, ToPrimitive, Zero};

use super::poly::{Atom, Exponent, Monomial, Poly, TooLarge};
use super::work::charge;

/// Numerator over denominator; the denominator is 1 wherever it has a single term.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fraction {
    /// Numerator.
    pub top: Poly,
    /// Denominator, never zero.
    pub bottom: Poly,
}

impl Fraction {
    /// A numerator over 1.
    pub fn whole(top: Poly) -> Self {
        Self { top, bottom: Poly::constant(BigRational::one()) }
    }

    /// A plain number.
    pub fn number(value: BigRational) -> Self {
        Self::whole(Poly::constant(value))
    }

    /// An atom.
    ///
    /// # Errors
    /// A number that is too large.
    pub fn atom(atom: Atom) -> Result<Self, TooLarge> {
        Ok(Self::whole(Poly::atom(atom, Exponent::one())?))
    }

    fn simplified(top: Poly, bottom: Poly) -> Result<Self, TooLarge> {
        if top.is_zero() {
            return Ok(Self::whole(top));
        }
        if let Some((monomial, coefficient)) = bottom.single() {
            let (factor, inverse) = monomial.power(-Exponent::one())?;
            let inverse = Poly([(inverse, factor / coefficient)].into());
            return Ok(Self::whole(top.times(&inverse)?));
        }
        Ok(Self { top, bottom })
    }

    /// The plain number this is.
    pub fn as_constant(&self) -> Option<BigRational> {
        let bottom = self.bottom.as_constant()?;
        Some(self.top.as_constant()? / bottom)
    }

    /// Whether the denominator is 1.
    pub fn is_whole(&self) -> bool {
        self.bottom.as_constant().is_some_and(|c| c.is_one())
    }

    /// The sum.
    ///
    /// # Errors
    /// Too many terms.
    pub fn plus(&self, other: &Self) -> Result<Self, TooLarge> {
        if self.bottom == other.bottom {
            return Self::simplified(self.top.plus(&other.top)?, self.bottom.clone());
        }
        let top = self.top.times(&other.bottom)?.plus(&other.top.times(&self.bottom)?)?;
        Self::simplified(top, self.bottom.times(&other.bottom)?)
    }

    /// The difference.
    ///
    /// # Errors
    /// Too many terms.
    pub fn minus(&self, other: &Self) -> Result<Self, TooLarge> {
        self.plus(&other.negated())
    }

    /// With the other sign.
    pub fn negated(&self) -> Self {
        Self { top: self.top.scaled(&-BigRational::one()), bottom: self.bottom.clone() }
    }

    /// The product.
    ///
    /// # Errors
    /// Too many terms.
    pub fn times(&self, other: &Self) -> Result<Self, TooLarge> {
        Self::simplified(self.top.times(&other.top)?, self.bottom.times(&other.bottom)?)
    }

    /// The quotient; `None` when the divisor is zero.
    ///
    /// # Errors
    /// Too many terms.
    pub fn over(&self, other: &Self) -> Result<Option<Self>, TooLarge> {
        if other.top.is_zero() {
            return Ok(None);
        }
        Self::simplified(self.top.times(&other.bottom)?, self.bottom.times(&other.top)?).map(Some)
    }

    /// A whole power; `None` for zero to a negative power.
    ///
    /// # Errors
    /// Too many terms.
    pub fn whole_power(&self, exponent: i64) -> Result<Option<Self>, TooLarge> {
        let size = u32::try_from(exponent.unsigned_abs()).map_err(|_| TooLarge)?;
        let (top, bottom) = if exponent < 0 { (&self.bottom, &self.top) } else { (&self.top, &self.bottom) };
        if bottom.is_zero() {
            return Ok(None);
        }
        Self::simplified(top.whole_power(size)?, bottom.whole_power(size)?).map(Some)
    }
}

/// A positive number as a product of primes to powers.
///
/// # Errors
/// A number that is too large.
pub fn prime_powers(value: &BigRational) -> Result<Vec<(BigUint, i64)>, TooLarge> {
    let mut found = Vec::new();
    for (part, sign) in [(value.numer(), 1), (value.denom(), -1)] {
        let part = part.abs().to_biguint().ok_or(TooLarge)?;
        if part.bits() > 4_096 {
            return Err(TooLarge);
        }
        charge(if part.bits() <= 20 { 20 } else { 4_000 + part.bits() }).ok_or(TooLarge)?;
        factor(part, sign, &mut found);
    }
    Ok(found)
}

/// Trial division; a large rest counts as prime after its square and cube roots were tried.
fn factor(mut rest: BigUint, sign: i64, found: &mut Vec<(BigUint, i64)>) {
    let mut divisor = 2u32;
    while rest.bits() > 64 && divisor < 1_000 {
        let mut count = 0;
        while (&rest % divisor).is_zero() {
            rest /= divisor;
            count += sign;
        }
        if count != 0 {
            found.push((divisor.into(), count));
        }
        divisor += 1 + u32::from(divisor > 2);
    }
    if let Some(mut small) = rest.to_u64() {
        let mut divisor = u64::from(divisor);
        while divisor * divisor <= small && divisor < 70_000 {
            let mut count = 0;
            while small % divisor == 0 {
                small /= divisor;
                count += sign;
            }
            if count != 0 {
                found.push((divisor.into(), count));
            }
            divisor += 1 + u64::from(divisor > 2);
        }
        rest = small.into();
    }
    if rest.is_one() || rest.is_zero() {
        return;
    }
    for degree in [3, 2] {
        let root = rest.nth_root(degree);
        if num_traits::Pow::pow(&root, degree) == rest {
            return factor(root, sign * i64::from(degree), found);
        }
    }
    found.push((rest, sign));
}

/// A rational number to a rational power, as a number times roots of primes; negative numbers only under square roots.
///
/// # Errors
/// A number that is too large, or a root of a negative number other than a square root.
pub fn rational_power(value: &BigRational, exponent: Exponent) -> Result<Poly, TooLarge> {
    if value.is_zero() {
        return if exponent.is_positive() { Ok(Poly::default()) } else { Err(TooLarge) };
    }
    let mut result = Poly::constant(BigRational::one());
    if value.is_negative() {
        if *exponent.denom() > 2 {
            return Err(TooLarge);
        }
        result = Poly::atom(Atom::I, exponent * Ratio::from_integer(2))?;
    }
    let mut factors: Vec<(Atom, Exponent)> = Vec::new();
    for (prime, count) in prime_powers(value)? {
        let e = num_traits::CheckedMul::checked_mul(&exponent, &Ratio::from_integer(count)).ok_or(TooLarge)?;
        factors.push((Atom::Prime(prime), e));
    }
    for (atom, e) in factors {
        let (coefficient, monomial) = Monomial::of(atom, e)?;
        result = result.times(&Poly([(monomial, coefficient)].into()))?;
    }
    Ok(result)
}

/// A whole number of moderate size.
pub fn small_integer(value: &BigRational) -> Option<i64> {
    value.is_integer().then(|| value.numer().to_i64()).flatten()
}

/// The exponent a number is, when it is small enough.
pub fn small_exponent(value: &BigRational) -> Option<Exponent> {
    let (n, d): (&BigInt, &BigInt) = (value.numer(), value.denom());
    Some(Ratio::new(n.to_i64().filter(|n| n.unsigned_abs() < 1 << 40)?, d.to_i64().filter(|d| *d < 1_000_000)?))
}
