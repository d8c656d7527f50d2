//! Sums of products with exact rational coefficients: the normal form of expressions.
//!
//! A monomial is a product of atoms to rational powers. Roots of whole numbers are split into roots of primes with exponents
//! in [0, 1), which are linearly independent over the rationals (Besicovitch 1940), and powers of i are reduced; so two
//! expressions in primes, i, pi and variables are equal exactly when their normal forms are. Everything has a size limit.

use std::collections::BTreeMap;
use std::sync::Arc;

use num_bigint::{BigInt, BigUint};
use num_rational::{BigRational, Ratio};
use num_traits::{CheckedAdd, CheckedMul, One, Pow, Signed, ToPrimitive, Zero};

use super::fraction::Fraction;
use super::work::charge;

/// An exponent.
pub type Exponent = Ratio<i64>;

/// Most terms of a sum.
const MAX_TERMS: usize = 500;
/// Most products of terms in one multiplication.
const MAX_PRODUCTS: usize = 20_000;
/// Most bits of a coefficient.
pub const MAX_BITS: u64 = 10_000;
/// Largest numerator and denominator of an exponent; products of two still fit their type.
const MAX_EXPONENT: i64 = 1 << 40;

/// The expression is too large for a normal form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge;

/// A thing that is not taken apart further.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Atom {
    /// A prime number (or a large whole number that was not factored).
    Prime(BigUint),
    /// Pi.
    Pi,
    /// The imaginary unit.
    I,
    /// A variable.
    Variable(Arc<str>),
    /// Euler's number.
    E,
    /// A sum as the base of a power.
    Sum(Arc<Poly>),
    /// An atom to the power of a product: `2^n`.
    Power(Arc<Atom>, Arc<Monomial>),
    /// A function of arguments.
    Call(Arc<str>, Arc<Vec<Fraction>>),
}

/// A product of atoms, sorted, exponents not zero.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Monomial(pub Vec<(Atom, Exponent)>);

/// Terms with their coefficients, none zero.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Poly(pub BTreeMap<Monomial, BigRational>);

impl Monomial {
    /// The product of two; what becomes a plain number goes into the coefficient.
    fn times(&self, other: &Self) -> Result<(BigRational, Self), TooLarge> {
        let mut merged: Vec<(Atom, Exponent)> = Vec::with_capacity(self.0.len() + other.0.len());
        let (mut a, mut b) = (self.0.iter().peekable(), other.0.iter().peekable());
        loop {
            let next = match (a.peek(), b.peek()) {
                (Some(x), Some(y)) if x.0 == y.0 => {
                    let sum = x.1.checked_add(&y.1).ok_or(TooLarge)?;
                    let atom = x.0.clone();
                    a.next();
                    b.next();
                    (atom, sum)
                }
                (Some(x), Some(y)) if x.0 < y.0 => {
                    let found = (*x).clone();
                    a.next();
                    found
                }
                (_, Some(y)) => {
                    let found = (*y).clone();
                    b.next();
                    found
                }
                (Some(x), None) => {
                    let found = (*x).clone();
                    a.next();
                    found
                }
                (None, None) => break,
            };
            merged.push(next);
        }
        normalised(merged)
    }

    /// Raised to a power.
    ///
    /// # Errors
    /// Exponents overflow.
    pub fn power(&self, exponent: Exponent) -> Result<(BigRational, Self), TooLarge> {
        let raised = self.0.iter().map(|(atom, e)| Ok((atom.clone(), e.checked_mul(&exponent).ok_or(TooLarge)?)));
        normalised(raised.collect::<Result<_, TooLarge>>()?)
    }

    /// One atom to a power.
    ///
    /// # Errors
    /// A number that is too large.
    pub fn of(atom: Atom, exponent: Exponent) -> Result<(BigRational, Self), TooLarge> {
        normalised(vec![(atom, exponent)])
    }
}

/// Takes whole powers of primes and pairs of i out into the coefficient.
fn normalised(factors: Vec<(Atom, Exponent)>) -> Result<(BigRational, Monomial), TooLarge> {
    let mut coefficient = BigRational::one();
    let mut kept = Vec::with_capacity(factors.len());
    for (atom, mut exponent) in factors {
        if exponent.numer().abs() > MAX_EXPONENT || *exponent.denom() > MAX_EXPONENT {
            return Err(TooLarge);
        }
        match &atom {
            Atom::Prime(p) => {
                let whole = exponent.floor().to_integer();
                let bits = whole.unsigned_abs().saturating_mul(p.bits());
                if whole != 0 && bits <= MAX_BITS {
                    let power = BigInt::from(p.clone()).pow(whole.unsigned_abs() as u32);
                    coefficient *= if whole < 0 {
                        BigRational::new(BigInt::one(), power)
                    } else {
                        BigRational::from_integer(power)
                    };
                    exponent -= Ratio::from_integer(whole);
                }
            }
            Atom::I => {
                let four = Ratio::from_integer(4);
                exponent = exponent - (exponent / four).floor() * four;
                if exponent >= Ratio::from_integer(2) {
                    coefficient = -coefficient;
                    exponent -= Ratio::from_integer(2);
                }
            }
            _ => {}
        }
        if !exponent.is_zero() {
            kept.push((atom, exponent));
        }
    }
    Ok((coefficient, Monomial(kept)))
}

/// Whether a coefficient has grown too large.
pub fn too_long(value: &BigRational) -> bool {
    value.numer().bits() > MAX_BITS || value.denom().bits() > MAX_BITS
}

impl Poly {
    /// A plain number.
    pub fn constant(value: BigRational) -> Self {
        let mut terms = BTreeMap::new();
        if !value.is_zero() {
            terms.insert(Monomial::default(), value);
        }
        Self(terms)
    }

    /// An atom to a power.
    ///
    /// # Errors
    /// A number that is too large.
    pub fn atom(atom: Atom, exponent: Exponent) -> Result<Self, TooLarge> {
        let (coefficient, monomial) = Monomial::of(atom, exponent)?;
        Ok(Self(BTreeMap::from([(monomial, coefficient)])))
    }

    /// The plain number this is.
    pub fn as_constant(&self) -> Option<BigRational> {
        match self.0.len() {
            0 => Some(BigRational::zero()),
            1 => self.0.get(&Monomial::default()).cloned(),
            _ => None,
        }
    }

    /// The only term.
    pub fn single(&self) -> Option<(&Monomial, &BigRational)> {
        if self.0.len() == 1 { self.0.first_key_value() } else { None }
    }

    /// Whether it is zero.
    pub fn is_zero(&self) -> bool {
        self.0.is_empty()
    }

    /// The sum.
    ///
    /// # Errors
    /// Too many terms.
    pub fn plus(&self, other: &Self) -> Result<Self, TooLarge> {
        charge((self.0.len() + other.0.len()) as u64).ok_or(TooLarge)?;
        let mut terms = self.0.clone();
        for (monomial, coefficient) in &other.0 {
            add_term(&mut terms, monomial.clone(), coefficient.clone());
        }
        if terms.len() > MAX_TERMS { Err(TooLarge) } else { Ok(Self(terms)) }
    }

    /// Every coefficient times a number.
    pub fn scaled(&self, factor: &BigRational) -> Self {
        if factor.is_zero() {
            return Self::default();
        }
        Self(self.0.iter().map(|(m, c)| (m.clone(), c * factor)).collect())
    }

    /// The product.
    ///
    /// # Errors
    /// Too many terms or digits.
    pub fn times(&self, other: &Self) -> Result<Self, TooLarge> {
        if self.0.len() * other.0.len() > MAX_PRODUCTS {
            return Err(TooLarge);
        }
        let longest = |p: &Self| p.0.values().map(|c| c.numer().bits() + c.denom().bits()).max().unwrap_or(0);
        // Fractions are reduced after each step, which takes time quadratic in their digits.
        let each = 3 + (longest(self) + longest(other)).pow(2) / 8_000;
        charge((self.0.len() * other.0.len()) as u64 * each).ok_or(TooLarge)?;
        let mut terms = BTreeMap::new();
        for (a, x) in &self.0 {
            for (b, y) in &other.0 {
                let (factor, monomial) = a.times(b)?;
                let coefficient = if factor.is_one() { x * y } else { x * y * factor };
                if too_long(&coefficient) {
                    return Err(TooLarge);
                }
                add_term(&mut terms, monomial, coefficient);
            }
            if terms.len() > MAX_TERMS {
                return Err(TooLarge);
            }
        }
        Ok(Self(terms))
    }

    /// A whole power, not negative.
    ///
    /// # Errors
    /// Too many terms or digits.
    pub fn whole_power(&self, exponent: u32) -> Result<Self, TooLarge> {
        if let Some((monomial, coefficient)) = self.single() {
            let bits = coefficient.numer().bits().max(coefficient.denom().bits());
            if !coefficient.abs().is_one() && bits.saturating_mul(u64::from(exponent)) > MAX_BITS {
                return Err(TooLarge);
            }
            let (factor, monomial) = monomial.power(Ratio::from_integer(i64::from(exponent)))?;
            let power: BigRational = Pow::pow(coefficient.clone(), exponent);
            return Ok(Self(BTreeMap::from([(monomial, power * factor)])));
        }
        if exponent > 40 && !self.is_zero() {
            return Err(TooLarge);
        }
        let mut result = Self::constant(BigRational::one());
        for _ in 0..exponent {
            result = result.times(self)?;
        }
        Ok(result)
    }

    /// Whether a normal form that is not zero stands for a value that is not zero.
    pub fn is_canonical(&self) -> bool {
        let plain = |atom: &Atom| match atom {
            Atom::Prime(p) => p.to_u32().is_some(),
            Atom::Pi | Atom::I | Atom::Variable(_) => true,
            _ => false,
        };
        self.0.keys().all(|m| {
            m.0.iter().all(|(atom, e)| {
                plain(atom)
                    && (!matches!(atom, Atom::I) || e.is_integer())
                    && (!matches!(atom, Atom::Variable(_)) || e.is_integer())
                    && (!matches!(atom, Atom::Prime(_)) || (e.is_positive() && *e < Exponent::one()))
            })
        })
    }

    /// Whether it is one term in powers of primes that are known to be prime.
    pub fn is_product_of_primes(&self) -> bool {
        let small = |atom: &Atom| matches!(atom, Atom::Prime(p) if p.to_u32().is_some());
        self.single().is_some_and(|(monomial, _)| monomial.0.iter().all(|(atom, _)| small(atom)))
    }

    /// The greatest common divisor of the coefficients, positive.
    pub fn content(&self) -> BigRational {
        let gcd = |a: BigInt, b: &BigInt| num_integer::Integer::gcd(&a, b);
        let lcm = |a: BigInt, b: &BigInt| num_integer::Integer::lcm(&a, b);
        let numerator = self.0.values().fold(BigInt::zero(), |g, c| gcd(g, c.numer()));
        let denominator = self.0.values().fold(BigInt::one(), |l, c| lcm(l, c.denom()));
        if numerator.is_zero() { BigRational::one() } else { BigRational::new(numerator, denominator) }
    }
}

fn add_term(terms: &mut BTreeMap<Monomial, BigRational>, monomial: Monomial, coefficient: BigRational) {
    use std::collections::btree_map::Entry;
    match terms.entry(monomial) {
        Entry::Vacant(entry) => {
            if !coefficient.is_zero() {
                entry.insert(coefficient);
            }
        }
        Entry::Occupied(mut entry) => {
            *entry.get_mut() += coefficient;
            if entry.get().is_zero() {
                entry.remove();
            }
        }
    }
}
