//! Complex enclosures: two real ones, and the elementary functions with their principal branches.

use super::enclose::{Context, Real};

/// A complex number with bounds on its error.
#[derive(Clone, Debug)]
pub struct Complex {
    /// Real part.
    pub re: Real,
    /// Imaginary part.
    pub im: Real,
}

impl Complex {
    /// A real number.
    pub fn real(re: Real) -> Self {
        Self { re, im: Real::zero() }
    }

    /// The real number this is, when its imaginary part is exactly zero.
    pub fn as_real(&self) -> Option<&Real> {
        self.im.is_exact_zero().then_some(&self.re)
    }

    /// The other sign.
    pub fn negated(&self) -> Self {
        Self { re: self.re.negated(), im: self.im.negated() }
    }

    /// The sum.
    pub fn plus(&self, other: &Self) -> Option<Self> {
        Some(Self { re: self.re.plus(&other.re)?, im: self.im.plus(&other.im)? })
    }

    /// The difference.
    pub fn minus(&self, other: &Self) -> Option<Self> {
        self.plus(&other.negated())
    }

    /// The product.
    pub fn times(&self, other: &Self) -> Option<Self> {
        if let (Some(a), Some(b)) = (self.as_real(), other.as_real()) {
            return Some(Self::real(a.times(b)?));
        }
        Some(Self {
            re: self.re.times(&other.re)?.minus(&self.im.times(&other.im)?)?,
            im: self.re.times(&other.im)?.plus(&self.im.times(&other.re)?)?,
        })
    }

    /// The square of the absolute value.
    fn norm(&self) -> Option<Real> {
        self.re.times(&self.re)?.plus(&self.im.times(&self.im)?)
    }

    /// The absolute value.
    pub fn absolute(&self) -> Option<Real> {
        match self.as_real() {
            Some(re) => match re.sign() {
                Some(-1) => Some(re.negated()),
                Some(_) => Some(re.clone()),
                None => re.times(re)?.square_root(),
            },
            None => self.norm()?.square_root(),
        }
    }

    /// One over it.
    pub fn inverse(&self) -> Option<Self> {
        if let Some(re) = self.as_real() {
            return Some(Self::real(re.inverse()?));
        }
        let scale = self.norm()?.inverse()?;
        Some(Self { re: self.re.times(&scale)?, im: self.im.negated().times(&scale)? })
    }

    /// A whole power.
    pub fn whole_power(&self, exponent: i32) -> Option<Self> {
        if exponent < 0 {
            return self.inverse()?.whole_power(exponent.checked_neg()?);
        }
        let mut result = Self::real(Real::rational(&num_traits::One::one())?);
        let (mut base, mut rest) = (self.clone(), exponent);
        while rest > 0 {
            if rest & 1 == 1 {
                result = result.times(&base)?;
            }
            rest >>= 1;
            if rest > 0 {
                base = base.times(&base)?;
            }
        }
        Some(result)
    }

    /// The exponential.
    pub fn exponential(&self, context: &mut Context) -> Option<Self> {
        let size = self.re.exponential(context)?;
        if self.im.is_exact_zero() {
            return Some(Self::real(size));
        }
        let (sine, cosine) = self.im.sine_cosine(context)?;
        Some(Self { re: size.times(&cosine)?, im: size.times(&sine)? })
    }

    /// The angle, in (-pi, pi]; none where it could lie on both sides of the cut.
    pub fn angle(&self, context: &mut Context) -> Option<Real> {
        if self.im.is_exact_zero() {
            return match self.re.sign()? {
                -1 => context.pi(),
                _ => Some(Real::zero()),
            };
        }
        let half = Real::rational(&num_rational::BigRational::new(1.into(), 2.into()))?;
        if self.re.sign() == Some(1) {
            return self.im.times(&self.re.inverse()?)?.arc_tangent(context);
        }
        let sign = self.im.sign()?;
        // angle = +-pi/2 - atan(re / im)
        let right = context.pi()?.times(&half)?;
        let right = if sign < 0 { right.negated() } else { right };
        right.minus(&self.re.times(&self.im.inverse()?)?.arc_tangent(context)?)
    }

    /// The principal natural logarithm.
    pub fn logarithm(&self, context: &mut Context) -> Option<Self> {
        Some(Self { re: self.absolute()?.logarithm(context)?, im: self.angle(context)? })
    }

    /// The principal square root.
    pub fn square_root(&self, context: &mut Context) -> Option<Self> {
        if let Some(re) = self.as_real() {
            return match re.sign() {
                Some(-1) => Some(Self { re: Real::zero(), im: re.negated().square_root()? }),
                _ => Some(Self::real(re.square_root()?)),
            };
        }
        let half = Self::real(Real::rational(&num_rational::BigRational::new(1.into(), 2.into()))?);
        self.power(&half, context)
    }

    /// The principal power.
    pub fn power(&self, exponent: &Self, context: &mut Context) -> Option<Self> {
        if self.re.is_exact_zero() && self.im.is_exact_zero() {
            return (exponent.as_real()?.sign()? > 0).then(|| Self::real(Real::zero()));
        }
        exponent.times(&self.logarithm(context)?)?.exponential(context)
    }
}
