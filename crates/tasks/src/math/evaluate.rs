//! Evaluates a tree as an enclosure, variables at sample points that depend on their names only.

use num_rational::BigRational;
use num_traits::{One, ToPrimitive};

use super::complex::Complex;
use super::enclose::{Context, Real, as_small_integer};
use super::node::{Constant, Node};

/// How many sample points there are.
pub const SAMPLES: u64 = 6;

/// Evaluates at one sample point.
pub struct Evaluator<'a> {
    /// Constants.
    pub context: &'a mut Context,
    /// Which point, below [`SAMPLES`]; at the last but one all variables are negative, at the last some.
    pub sample: u64,
    /// Whether variables take small whole values, for factorials and the like.
    pub whole: bool,
}

/// Whether some function below is defined for whole numbers only.
pub fn needs_whole(node: &Node) -> bool {
    node.any(&|n| match n {
        Node::Call(name, _) => {
            matches!(name.as_ref(), "factorial" | "binomial" | "floor" | "ceil" | "gcd" | "lcm")
        }
        Node::Power(base, exponent) => !exponent.symbols().is_empty() && base.any(&|b| matches!(b, Node::Negative(_))),
        _ => false,
    })
}

fn ratio(numerator: i64, denominator: i64) -> Option<Complex> {
    Some(Complex::real(Real::rational(&BigRational::new(numerator.into(), denominator.into()))?))
}

/// FNV-1a, then the finaliser of splitmix64.
fn hash(text: &str, salt: u64) -> u64 {
    let seed = 0xcbf2_9ce4_8422_2325 ^ salt.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut h = text.bytes().fold(seed, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    h = (h ^ (h >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    h = (h ^ (h >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    h ^ (h >> 31)
}

impl Evaluator<'_> {
    /// The value of a variable here.
    fn variable(&self, name: &str) -> Option<Complex> {
        let h = hash(name, self.sample + 1);
        if self.whole {
            return ratio(3 + (h % 11) as i64, 1);
        }
        let negative = self.sample + 2 == SAMPLES || (self.sample + 1 == SAMPLES && h >> 63 == 1);
        let size = 211 + (h % 1_789) as i64;
        ratio(if negative { -size } else { size }, 997)
    }

    /// The value; none where it is undefined, too large, or not certain enough.
    pub fn value(&mut self, node: &Node) -> Option<Complex> {
        match node {
            Node::Number { value, .. } => Some(Complex::real(Real::rational(value)?)),
            Node::Symbol(name) => self.variable(name),
            Node::Constant(Constant::Pi) => Some(Complex::real(self.context.pi()?)),
            Node::Constant(Constant::E) => ratio(1, 1)?.exponential(self.context),
            Node::Constant(Constant::I) => Some(Complex { re: Real::zero(), im: Real::rational(&BigRational::one())? }),
            Node::Negative(a) => Some(self.value(a)?.negated()),
            Node::Sum(items) => items.iter().try_fold(ratio(0, 1)?, |sum, item| sum.plus(&self.value(item)?)),
            Node::Product(items) => items.iter().try_fold(ratio(1, 1)?, |p, item| p.times(&self.value(item)?)),
            Node::Quotient(a, b) => self.value(a)?.times(&self.value(b)?.inverse()?),
            Node::Percent(a) => self.value(a)?.times(&ratio(1, 100)?),
            Node::Degrees(a) => self.value(a),
            Node::Power(a, b) => self.power(a, b),
            Node::Root(a, n) => self.root(a, n),
            Node::Call(name, items) => self.call(name, items),
            _ => None,
        }
    }

    fn power(&mut self, base: &Node, exponent: &Node) -> Option<Complex> {
        let base = self.value(base)?;
        if let Node::Number { value, .. } = exponent {
            if let Some(n) = as_small_integer(value) {
                return base.whole_power(n);
            }
            if *value == BigRational::new(1.into(), 2.into()) {
                return base.square_root(self.context);
            }
        }
        let exponent = self.value(exponent)?;
        // A whole exponent keeps negative bases real.
        if let Some(real) = exponent.as_real() {
            let nearest = real.middle().round();
            if nearest.abs() < 1_000.0 && real.radius() < 1e-60 && real.middle() == nearest {
                return base.whole_power(nearest.to_i32()?);
            }
        }
        base.power(&exponent, self.context)
    }

    fn root(&mut self, radicand: &Node, index: &Node) -> Option<Complex> {
        let Node::Number { value, .. } = index else { return None };
        let index = as_small_integer(value).filter(|n| *n > 0)?;
        let inside = self.value(radicand)?;
        if index == 2 {
            return inside.square_root(self.context);
        }
        let exponent = ratio(1, i64::from(index))?;
        match inside.as_real().and_then(Real::sign) {
            Some(-1) if index % 2 == 1 => Some(inside.negated().power(&exponent, self.context)?.negated()),
            _ => inside.power(&exponent, self.context),
        }
    }

    fn call(&mut self, name: &str, items: &[Node]) -> Option<Complex> {
        if name.starts_with("function ") {
            return self.variable(&format!("{name}{items:?}"));
        }
        if name == "det" || name.starts_with("operator ") {
            return None;
        }
        let arguments = items.iter().map(|item| self.value(item)).collect::<Option<Vec<_>>>()?;
        let first = arguments.first()?.clone();
        match name {
            "ln" => first.logarithm(self.context),
            "log" => {
                let base = arguments.get(1)?.logarithm(self.context)?;
                first.logarithm(self.context)?.times(&base.inverse()?)
            }
            "abs" => Some(Complex::real(first.absolute()?)),
            "floor" => Some(Complex::real(first.as_real()?.floor()?)),
            "ceil" => Some(Complex::real(first.as_real()?.negated().floor()?.negated())),
            "max" | "min" => arguments[1..].iter().try_fold(first, |best, other| {
                let sign = other.as_real()?.minus(best.as_real()?)?.sign()?;
                Some(if (sign > 0) == (name == "max") { other.clone() } else { best })
            }),
            "factorial" => {
                let n = whole(&first)?;
                (1..=n).try_fold(ratio(1, 1)?, |p, k| p.times(&ratio(k, 1)?))
            }
            "binomial" => {
                let (n, k) = (whole(&first)?, whole(arguments.get(1)?)?);
                (0..k).try_fold(ratio(1, 1)?, |p, j| p.times(&ratio(n - j, j + 1)?))
            }
            _ => self.real_function(name, &first, matches!(items[0], Node::Degrees(_))),
        }
    }

    fn real_function(&mut self, name: &str, argument: &Complex, degrees: bool) -> Option<Complex> {
        let mut x = argument.as_real()?.clone();
        let one = Real::rational(&BigRational::one())?;
        if degrees {
            let scale = Real::rational(&BigRational::new(1.into(), 180.into()))?;
            x = x.times(&self.context.pi()?)?.times(&scale)?;
        }
        let found = match name {
            "sin" | "cos" | "tan" | "cot" | "sec" | "csc" => {
                let (sine, cosine) = x.sine_cosine(self.context)?;
                match name {
                    "sin" => sine,
                    "cos" => cosine,
                    "tan" => sine.times(&cosine.inverse()?)?,
                    "cot" => cosine.times(&sine.inverse()?)?,
                    "sec" => cosine.inverse()?,
                    _ => sine.inverse()?,
                }
            }
            "arctan" => x.arc_tangent(self.context)?,
            "arcsin" => self.arc_sine(&x)?,
            "arccos" => self.half_pi()?.minus(&self.arc_sine(&x)?)?,
            "arccot" => self.half_pi()?.minus(&x.arc_tangent(self.context)?)?,
            "sinh" | "cosh" | "tanh" | "coth" | "sech" | "csch" => {
                let (up, down) = (x.exponential(self.context)?, x.negated().exponential(self.context)?);
                let (sinh, cosh) = (up.minus(&down)?, up.plus(&down)?);
                let two = one.plus(&one)?;
                match name {
                    "sinh" => sinh.times(&two.inverse()?)?,
                    "cosh" => cosh.times(&two.inverse()?)?,
                    "tanh" => sinh.times(&cosh.inverse()?)?,
                    "coth" => cosh.times(&sinh.inverse()?)?,
                    "sech" => two.times(&cosh.inverse()?)?,
                    _ => two.times(&sinh.inverse()?)?,
                }
            }
            _ => return None,
        };
        Some(Complex::real(found))
    }

    fn half_pi(&mut self) -> Option<Real> {
        self.context.pi()?.times(&Real::rational(&BigRational::new(1.into(), 2.into()))?)
    }

    /// atan(x / sqrt(1 - x^2)); at the ends a quarter turn, with the error that the square root allows.
    fn arc_sine(&mut self, x: &Real) -> Option<Real> {
        let one = Real::rational(&BigRational::one())?;
        let rest = one.minus(&x.times(x)?)?;
        if rest.may_be_zero() {
            let quarter = self.half_pi()?;
            return Some(if x.middle() < 0.0 { quarter.negated() } else { quarter });
        }
        x.times(&rest.square_root()?.inverse()?)?.arc_tangent(self.context)
    }
}

/// The whole number from 0 to 170 that a value is.
fn whole(value: &Complex) -> Option<i64> {
    let real = value.as_real()?;
    let nearest = real.middle().round();
    ((0.0..=60.0).contains(&nearest) && real.middle() == nearest && real.radius() < 1e-60).then_some(nearest as i64)
}
