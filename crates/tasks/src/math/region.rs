//! Sets of real numbers: intervals, unions, differences with points, and inequalities in one variable solved for it.

use super::node::{Joint, Node, Relation};
use super::scalar::{Equality, exactly_equal, infinite_sign, sign_of};

/// Most intervals of a set.
const MAX_SPANS: usize = 40;

/// An interval; its ends may be infinite or equal.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    low: Node,
    high: Node,
    low_open: bool,
    high_open: bool,
}

fn minus_infinity() -> Node {
    Node::Negative(Box::new(Node::Infinity))
}

/// The sign of `a - b`.
fn order(a: &Node, b: &Node) -> Option<i32> {
    match (infinite_sign(a), infinite_sign(b)) {
        (Some(x), Some(y)) => Some((x - y).signum()),
        (Some(x), None) => Some(x),
        (None, Some(y)) => Some(-y),
        (None, None) if a == b => Some(0),
        (None, None) => match sign_of(&difference(a, b)) {
            None if exactly_equal(a, b) == Equality::Equal => Some(0),
            sign => sign,
        },
    }
}

/// `a - b`.
pub fn difference(a: &Node, b: &Node) -> Node {
    Node::Sum(vec![a.clone(), Node::Negative(Box::new(b.clone()))])
}

impl Span {
    fn everything() -> Self {
        Self { low: minus_infinity(), high: Node::Infinity, low_open: true, high_open: true }
    }

    /// The same on the other side of zero.
    fn mirrored(&self) -> Self {
        let turned = |end: &Node| match end {
            Node::Negative(inner) => inner.as_ref().clone(),
            other => Node::Negative(Box::new(other.clone())),
        };
        let (low, high) = (turned(&self.high), turned(&self.low));
        Self { low, high, low_open: self.high_open, high_open: self.low_open }
    }

    fn point(at: &Node) -> Self {
        Self { low: at.clone(), high: at.clone(), low_open: false, high_open: false }
    }

    /// The common part; `Some(None)` when there is none.
    fn meet(&self, other: &Self) -> Option<Option<Self>> {
        let (low, low_open) = match order(&self.low, &other.low)? {
            1 => (&self.low, self.low_open),
            -1 => (&other.low, other.low_open),
            _ => (&self.low, self.low_open || other.low_open),
        };
        let (high, high_open) = match order(&self.high, &other.high)? {
            -1 => (&self.high, self.high_open),
            1 => (&other.high, other.high_open),
            _ => (&self.high, self.high_open || other.high_open),
        };
        let found = Self { low: low.clone(), high: high.clone(), low_open, high_open };
        Some(match order(&found.low, &found.high)? {
            1 => None,
            0 if low_open || high_open => None,
            _ => Some(found),
        })
    }
}

/// The set of real numbers a node stands for; none where it is no such set or cannot be worked out.
pub fn region(node: &Node) -> Option<Vec<Span>> {
    let found = match node {
        Node::Reals => vec![Span::everything()],
        Node::Tuple { open, close, items } => {
            let ([low, high], '(' | '[', ')' | ']') = (items.as_slice(), open, close) else { return None };
            let constant = |n: &Node| n.is_scalar() && n.symbols().is_empty();
            if !constant(low) || !constant(high) {
                return None;
            }
            let span = Span { low: low.clone(), high: high.clone(), low_open: *open == '(', high_open: *close == ')' };
            match order(low, high)? {
                1 => return None,
                0 if span.low_open || span.high_open => Vec::new(),
                _ => vec![span],
            }
        }
        Node::Set(items) if items.iter().all(|i| i.is_scalar() && i.symbols().is_empty()) => {
            items.iter().map(Span::point).collect()
        }
        Node::Union(items) => items.iter().map(region).collect::<Option<Vec<_>>>()?.concat(),
        Node::Intersection(items) => {
            let parts = items.iter().map(region).collect::<Option<Vec<_>>>()?;
            parts.into_iter().try_fold(vec![Span::everything()], |a, b| meet(&a, &b))?
        }
        Node::Difference(a, b) => meet(&region(a)?, &complement(&region(b)?)?)?,
        Node::Sum(items) => match items.as_slice() {
            // `\mathbb{R} - \{0\}`
            [set, Node::Negative(removed)] if !set.is_scalar() && !removed.is_scalar() => {
                meet(&region(set)?, &complement(&region(removed)?)?)?
            }
            _ => return None,
        },
        Node::Member(_, set) => region(set)?,
        Node::Chain { terms, ops } => inequality(terms, ops)?,
        Node::List(items, joint) => {
            let all = items.iter().all(|i| matches!(i, Node::Chain { .. } | Node::Member(..)));
            let parts = items.iter().map(region).collect::<Option<Vec<_>>>().filter(|_| all)?;
            let variable = items.first().map(Node::symbols);
            if items.iter().any(|i| Some(i.symbols()) != variable) {
                return None;
            }
            let both = parts.iter().try_fold(vec![Span::everything()], |a, b| meet(&a, b))?;
            // "x < 1 and x > 2" means either
            if *joint == Joint::Or || both.is_empty() { parts.concat() } else { both }
        }
        _ => return None,
    };
    merged(found)
}

/// Sorts intervals and joins those that touch.
fn merged(mut spans: Vec<Span>) -> Option<Vec<Span>> {
    if spans.len() > MAX_SPANS {
        return None;
    }
    // Insertion sort, because an order may be unknown.
    for i in 1..spans.len() {
        let mut j = i;
        while j > 0 {
            let before = match order(&spans[j - 1].low, &spans[j].low)? {
                1 => true,
                0 => spans[j - 1].low_open && !spans[j].low_open,
                _ => false,
            };
            if !before {
                break;
            }
            spans.swap(j - 1, j);
            j -= 1;
        }
    }
    let mut out: Vec<Span> = Vec::with_capacity(spans.len());
    for span in spans {
        if let Some(last) = out.last_mut() {
            let gap = order(&last.high, &span.low)?;
            if gap > 0 || (gap == 0 && !(last.high_open && span.low_open)) {
                match order(&last.high, &span.high)? {
                    -1 => (last.high, last.high_open) = (span.high, span.high_open),
                    0 => last.high_open = last.high_open && span.high_open,
                    _ => {}
                }
                continue;
            }
        }
        out.push(span);
    }
    Some(out)
}

fn meet(a: &[Span], b: &[Span]) -> Option<Vec<Span>> {
    if a.len() * b.len() > MAX_SPANS * MAX_SPANS {
        return None;
    }
    let mut out = Vec::new();
    for x in a {
        for y in b {
            out.extend(x.meet(y)?);
        }
    }
    merged(out)
}

/// What is left of the real line.
fn complement(spans: &[Span]) -> Option<Vec<Span>> {
    let mut out = Vec::new();
    let (mut low, mut low_open) = (minus_infinity(), true);
    for span in spans {
        if order(&low, &span.low)? < 0 || (!low_open && !span.low_open) {
            out.push(Span { low, low_open, high: span.low.clone(), high_open: !span.low_open });
        } else if order(&low, &span.low)? == 0 && !low_open && span.low_open {
            out.push(Span::point(&low));
        }
        (low, low_open) = (span.high.clone(), !span.high_open);
    }
    if infinite_sign(&low) != Some(1) {
        out.push(Span { low, low_open, high: Node::Infinity, high_open: true });
    }
    Some(out)
}

/// The solutions of `a < x <= b` and the like, each pair linear in the only variable, or in a function of it such as
/// `f(x)`, or in the absolute value of something linear.
fn inequality(terms: &[Node], ops: &[Relation]) -> Option<Vec<Span>> {
    let mut calls = Vec::new();
    terms.iter().for_each(|term| unknowns(term, &mut calls));
    let [call @ Node::Call(name, inside)] = calls.as_slice() else { return linear_inequality(terms, ops) };
    let unknown = Node::Symbol("unknown".into());
    let terms: Vec<Node> = terms.iter().map(|term| replace(term, call, &unknown)).collect();
    let found = linear_inequality(&terms, ops)?;
    if name.as_ref() != "abs" {
        return Some(found);
    }
    let mut names = inside.iter().flat_map(Node::symbols);
    let (Some(variable), None) = (names.next(), names.next()) else { return None };
    let (slope, offset) = line(&inside[0], &variable)?;
    let falling = sign_of(&slope).filter(|s| *s != 0)? < 0;
    let positive = Span { low: Node::integer(0), low_open: false, ..Span::everything() };
    let mut both = Vec::new();
    for span in meet(&found, &[positive])? {
        both.push(span.mirrored());
        both.push(span);
    }
    let solved = |end: &Node| match infinite_sign(end) {
        Some(_) if falling => Node::Negative(Box::new(end.clone())),
        Some(_) => end.clone(),
        None => Node::Quotient(Box::new(difference(end, &offset)), Box::new(slope.clone())),
    };
    let back = |span: Span| {
        let span = Span { low: solved(&span.low), high: solved(&span.high), ..span };
        if falling {
            Span { low: span.high, high: span.low, low_open: span.high_open, high_open: span.low_open }
        } else {
            span
        }
    };
    merged(both.into_iter().map(back).collect())
}

/// Absolute values and unknown functions of variables, each once.
fn unknowns(node: &Node, found: &mut Vec<Node>) {
    match node {
        Node::Call(name, _)
            if (name.as_ref() == "abs" || name.starts_with("function ")) && !node.symbols().is_empty() =>
        {
            if !found.contains(node) {
                found.push(node.clone());
            }
        }
        other => other.children().into_iter().for_each(|child| unknowns(child, found)),
    }
}

/// The tree with one part replaced.
pub fn replace(node: &Node, old: &Node, new: &Node) -> Node {
    if node == old { new.clone() } else { node.map_children(&mut |child| replace(child, old, new)) }
}

/// Slope and offset of something linear in the only variable.
fn line(f: &Node, variable: &str) -> Option<(Node, Node)> {
    let at = |value: i64| substitute(f, variable, &Node::integer(value));
    let (offset, slope) = (at(0), difference(&at(1), &at(0)));
    let product = Node::Product(vec![slope.clone(), Node::Symbol(variable.into())]);
    let line = Node::Sum(vec![product, offset.clone()]);
    (exactly_equal(f, &line) == Equality::Equal).then_some((slope, offset))
}

fn linear_inequality(terms: &[Node], ops: &[Relation]) -> Option<Vec<Span>> {
    let mut names: Vec<_> = terms.iter().flat_map(Node::symbols).collect();
    names.sort();
    names.dedup();
    let [variable] = names.as_slice() else { return None };
    if ops.iter().all(|op| matches!(op, Relation::Equal | Relation::Approx)) || !terms.iter().all(Node::is_scalar) {
        return None;
    }
    let mut found = vec![Span::everything()];
    for (pair, op) in terms.windows(2).zip(ops) {
        // An infinite bound bounds nothing.
        if pair.iter().any(|side| infinite_sign(side).is_some()) {
            continue;
        }
        let f = difference(&pair[0], &pair[1]);
        let (slope, offset) = line(&f, variable)?;
        let rising = sign_of(&slope).filter(|s| *s != 0)? > 0;
        let bound = Node::Quotient(Box::new(Node::Negative(Box::new(offset))), Box::new(slope));
        let op = if rising { *op } else { op.flipped() };
        let open = matches!(op, Relation::Less | Relation::Greater);
        let spans = match op {
            Relation::Less | Relation::LessEqual => {
                vec![Span { low: minus_infinity(), low_open: true, high: bound, high_open: open }]
            }
            Relation::Greater | Relation::GreaterEqual => {
                vec![Span { low: bound, low_open: open, high: Node::Infinity, high_open: true }]
            }
            Relation::NotEqual => complement(&[Span::point(&bound)])?,
            Relation::Equal | Relation::Approx => vec![Span::point(&bound)],
        };
        found = meet(&found, &spans)?;
    }
    Some(found)
}

/// The tree with a variable replaced.
pub fn substitute(node: &Node, name: &str, value: &Node) -> Node {
    match node {
        Node::Symbol(symbol) if symbol.as_ref() == name => value.clone(),
        other => other.map_children(&mut |child| substitute(child, name, value)),
    }
}

/// Whether two sets are the same, end by end.
pub fn regions_equal(a: &[Span], b: &[Span]) -> Equality {
    if a.len() != b.len() {
        return Equality::Different;
    }
    a.iter().zip(b).fold(Equality::Equal, |so_far, (x, y)| {
        so_far.and(|| {
            if x.low_open != y.low_open || x.high_open != y.high_open {
                return Equality::Different;
            }
            exactly_equal(&x.low, &y.low).and(|| exactly_equal(&x.high, &y.high))
        })
    })
}

/// Whether a node can only be a set of real numbers, not a point or a list.
pub fn is_region(node: &Node) -> bool {
    match node {
        Node::Reals | Node::Union(_) | Node::Intersection(_) | Node::Difference(..) => true,
        Node::Tuple { open, close, items } => {
            items.len() == 2
                && ((*open == '[') != (*close == ']')
                    || items.iter().any(|i| infinite_sign(i).is_some())
                    || *open == '[')
        }
        Node::Sum(items) => matches!(items.as_slice(), [Node::Reals, Node::Negative(_)]),
        _ => false,
    }
}
