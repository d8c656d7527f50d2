//! The tree of a parsed answer. Nothing is evaluated here: `2+2` stays a sum until it is compared.

use std::sync::Arc;

use num_rational::BigRational;

/// How two sides relate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// `=`, also `\equiv` and `:=`.
    Equal,
    /// `\approx`.
    Approx,
    /// `\ne`.
    NotEqual,
    /// `<`.
    Less,
    /// `\le`.
    LessEqual,
    /// `>`.
    Greater,
    /// `\ge`.
    GreaterEqual,
}

impl Relation {
    /// The relation with its sides exchanged.
    pub fn flipped(self) -> Self {
        match self {
            Self::Less => Self::Greater,
            Self::LessEqual => Self::GreaterEqual,
            Self::Greater => Self::Less,
            Self::GreaterEqual => Self::LessEqual,
            same => same,
        }
    }
}

/// What joins the parts of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joint {
    /// A comma or semicolon.
    Comma,
    /// "and".
    And,
    /// "or".
    Or,
}

/// Constants with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Constant {
    /// The circle's number.
    Pi,
    /// Euler's number.
    E,
    /// The imaginary unit.
    I,
}

/// A part of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// A number as written; `decimals` counts the digits after the point when there is one.
    Number {
        /// Its exact value.
        value: BigRational,
        /// Digits after the decimal point.
        decimals: Option<u32>,
    },
    /// A whole number in a stated base, as its digits.
    Based {
        /// Digits without leading zeros.
        digits: String,
        /// The base.
        base: u32,
    },
    /// A variable or another name.
    Symbol(Arc<str>),
    /// Pi, e or i.
    Constant(Constant),
    /// Positive infinity.
    Infinity,
    /// Words.
    Text(String),
    /// Minus.
    Negative(Box<Node>),
    /// Terms added up.
    Sum(Vec<Node>),
    /// Factors multiplied.
    Product(Vec<Node>),
    /// Numerator over denominator.
    Quotient(Box<Node>, Box<Node>),
    /// Base and exponent.
    Power(Box<Node>, Box<Node>),
    /// Radicand and index, the real root where there is one.
    Root(Box<Node>, Box<Node>),
    /// A named function of arguments.
    Call(Arc<str>, Vec<Node>),
    /// So many hundredths.
    Percent(Box<Node>),
    /// An angle in degrees.
    Degrees(Box<Node>),
    /// Left plus or minus right; `minus_first` for `\mp`.
    PlusMinus {
        /// What stands before the sign.
        left: Option<Box<Node>>,
        /// What stands behind it.
        right: Box<Node>,
        /// Whether the sign is `\mp`.
        minus_first: bool,
    },
    /// Bracketed parts, or an interval: the brackets as written.
    Tuple {
        /// `(` or `[`.
        open: char,
        /// `)` or `]`.
        close: char,
        /// The parts, at least two.
        items: Vec<Node>,
    },
    /// Parts without brackets, in no order.
    List(Vec<Node>, Joint),
    /// Parts in braces.
    Set(Vec<Node>),
    /// Rows of equal length.
    Matrix(Vec<Vec<Node>>),
    /// `terms[0] ops[0] terms[1] ops[1] ...`
    Chain {
        /// Sides, one more than relations.
        terms: Vec<Node>,
        /// Relations.
        ops: Vec<Relation>,
    },
    /// `variable \in set`.
    Member(Box<Node>, Box<Node>),
    /// Union.
    Union(Vec<Node>),
    /// Intersection.
    Intersection(Vec<Node>),
    /// Set difference.
    Difference(Box<Node>, Box<Node>),
    /// The real numbers.
    Reals,
}

impl Node {
    /// The parts directly below.
    pub fn children(&self) -> Vec<&Node> {
        match self {
            Self::Number { .. }
            | Self::Based { .. }
            | Self::Symbol(_)
            | Self::Constant(_)
            | Self::Infinity
            | Self::Text(_)
            | Self::Reals => Vec::new(),
            Self::Negative(a) | Self::Percent(a) | Self::Degrees(a) => vec![a],
            Self::Quotient(a, b)
            | Self::Power(a, b)
            | Self::Root(a, b)
            | Self::Member(a, b)
            | Self::Difference(a, b) => vec![a, b],
            Self::PlusMinus { left, right, .. } => left.iter().map(AsRef::as_ref).chain([right.as_ref()]).collect(),
            Self::Matrix(rows) => rows.iter().flatten().collect(),
            Self::Sum(items)
            | Self::Product(items)
            | Self::Call(_, items)
            | Self::List(items, _)
            | Self::Set(items)
            | Self::Union(items)
            | Self::Intersection(items)
            | Self::Tuple { items, .. }
            | Self::Chain { terms: items, .. } => items.iter().collect(),
        }
    }

    /// The same tree with `f` applied to the parts directly below.
    pub fn map_children(&self, f: &mut impl FnMut(&Node) -> Node) -> Node {
        let mut boxed = |a: &Node| Box::new(f(a));
        match self {
            Self::Negative(a) => Self::Negative(boxed(a)),
            Self::Percent(a) => Self::Percent(boxed(a)),
            Self::Degrees(a) => Self::Degrees(boxed(a)),
            Self::Quotient(a, b) => Self::Quotient(boxed(a), boxed(b)),
            Self::Power(a, b) => Self::Power(boxed(a), boxed(b)),
            Self::Root(a, b) => Self::Root(boxed(a), boxed(b)),
            Self::Member(a, b) => Self::Member(boxed(a), boxed(b)),
            Self::Difference(a, b) => Self::Difference(boxed(a), boxed(b)),
            Self::PlusMinus { left, right, minus_first } => Self::PlusMinus {
                left: left.as_ref().map(|l| boxed(l)),
                right: boxed(right),
                minus_first: *minus_first,
            },
            Self::Matrix(rows) => Self::Matrix(rows.iter().map(|row| row.iter().map(&mut *f).collect()).collect()),
            Self::Sum(items) => Self::Sum(items.iter().map(f).collect()),
            Self::Product(items) => Self::Product(items.iter().map(f).collect()),
            Self::Call(name, items) => Self::Call(name.clone(), items.iter().map(f).collect()),
            Self::List(items, joint) => Self::List(items.iter().map(f).collect(), *joint),
            Self::Set(items) => Self::Set(items.iter().map(f).collect()),
            Self::Union(items) => Self::Union(items.iter().map(f).collect()),
            Self::Intersection(items) => Self::Intersection(items.iter().map(f).collect()),
            Self::Tuple { open, close, items } => {
                Self::Tuple { open: *open, close: *close, items: items.iter().map(f).collect() }
            }
            Self::Chain { terms, ops } => Self::Chain { terms: terms.iter().map(f).collect(), ops: ops.clone() },
            leaf => leaf.clone(),
        }
    }

    /// Whether this part or one below satisfies `test`.
    pub fn any(&self, test: &impl Fn(&Node) -> bool) -> bool {
        test(self) || self.children().into_iter().any(|child| child.any(test))
    }

    /// How many parts it has, itself included.
    pub fn size(&self) -> usize {
        1 + self.children().into_iter().map(Self::size).sum::<usize>()
    }

    /// Whether some part lies deeper than `limit` levels.
    pub fn is_deeper_than(&self, limit: usize) -> bool {
        let below = self.children();
        !below.is_empty() && (limit == 0 || below.into_iter().any(|child| child.is_deeper_than(limit - 1)))
    }

    /// A whole number.
    pub fn integer(value: i64) -> Self {
        Self::Number { value: BigRational::from_integer(value.into()), decimals: None }
    }

    /// Names of the variables, sorted, each once.
    pub fn symbols(&self) -> Vec<Arc<str>> {
        fn collect(node: &Node, found: &mut Vec<Arc<str>>) {
            if let Node::Symbol(name) = node {
                found.push(name.clone());
            }
            node.children().into_iter().for_each(|child| collect(child, found));
        }
        let mut found = Vec::new();
        collect(self, &mut found);
        found.sort();
        found.dedup();
        found
    }

    /// Whether it stands for one number or expression, not for a set, a tuple, a relation or words.
    pub fn is_scalar(&self) -> bool {
        match self {
            Self::Text(_)
            | Self::Tuple { .. }
            | Self::List(..)
            | Self::Set(_)
            | Self::Matrix(_)
            | Self::Chain { .. }
            | Self::Member(..)
            | Self::Union(_)
            | Self::Intersection(_)
            | Self::Difference(..)
            | Self::PlusMinus { .. }
            | Self::Reals => false,
            Self::Call(..) => true,
            other => other.children().into_iter().all(Node::is_scalar),
        }
    }
}
