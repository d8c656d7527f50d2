//! Whether an answer equals the reference: the forms an answer can take, and which of them may stand for each other. The
//! reference sets the form: a tuple keeps its order whatever the answer looks like, a set has none.

use super::node::{Joint, Node, Relation};
use super::prepare::prepare;
use super::region::{is_region, region, regions_equal, substitute};
use super::relation::{assignment, is_equation, last_side, relations_equal};
use super::scalar::{Equality, equal_rounded, exactly_equal, written_decimals};
use super::work;

/// Most comparisons of elements of two sets.
const MAX_PAIRS: usize = 2_500;

/// How numbers are compared.
#[derive(Clone, Copy, Debug)]
pub struct Rounding {
    /// Where either side is a decimal number, both may be rounded to this many places.
    pub decimals: u32,
    /// Whether that holds also where neither side is written as a decimal number.
    pub always: bool,
}

/// Compares two parsed answers.
pub fn answers_equal(gold: &Node, answer: &Node, rounding: Rounding) -> Equality {
    work::begin();
    let (gold, answer) = prepare(gold, answer);
    Comparison { rounding }.relations(&gold, &answer)
}

struct Comparison {
    rounding: Rounding,
}

fn elements(node: &Node) -> Option<&[Node]> {
    match node {
        Node::List(items, _) | Node::Set(items) => Some(items),
        _ => None,
    }
}

impl Comparison {
    /// Unwraps equations as far as the other side asks for, then compares.
    fn relations(&self, gold: &Node, answer: &Node) -> Equality {
        match (assignment(gold), assignment(answer)) {
            (Some((a, x)), Some((b, y))) => {
                if a == b {
                    let exact = |side: &Node, other: &Node| self.relations(side, other);
                    return (self.relations(x, y))
                        .or(|| self.exact_side(gold, |side| exact(side, y)))
                        .or(|| self.exact_side(answer, |side| exact(x, side)));
                }
                if let Some(renamed) = renamed(a, b, y) {
                    return self.relations(x, &renamed);
                }
                if !x.is_scalar() || !y.is_scalar() {
                    // `x \in (1,2]` and `1 < x \le 2` have been told apart before; other names are other answers.
                    return Equality::Different;
                }
                return relations_equal(gold, answer);
            }
            (None, None) if is_equation(gold) && !is_relational(answer) && is_run(gold) => {
                return self.relations(last_side(gold).unwrap_or(gold), answer);
            }
            (Some((_, value)), None) if !is_relational(answer) => {
                return self.relations(value, answer).or(|| self.exact_side(gold, |side| self.relations(side, answer)));
            }
            (None, _) if !is_relational(gold) => {
                if let Some(value) = last_side(answer) {
                    let exact = || self.exact_side(answer, |side| self.relations(gold, side));
                    return self.relations(gold, value).or(exact);
                }
                if let Node::List(items, Joint::Comma | Joint::And) = answer
                    && matches!(gold, Node::Tuple { .. } | Node::List(..) | Node::Set(_))
                    && items.iter().all(|i| assignment(i).is_some())
                {
                    let values: Vec<Node> = items.iter().filter_map(|i| assignment(i).map(|a| a.1.clone())).collect();
                    return self.in_order(elements_in_order(gold), &values);
                }
            }
            _ => {}
        }
        if let Node::List(items, _) = gold
            && items.len() > 1
            && items.iter().all(|i| assignment(i).is_some())
            && !is_relational(answer)
        {
            let values: Vec<Node> = items.iter().filter_map(|i| assignment(i).map(|a| a.1.clone())).collect();
            return self.in_order(&values, elements_in_order(answer));
        }
        if is_relational(gold) || is_relational(answer) {
            return self.relational(gold, answer);
        }
        self.values(gold, answer)
    }

    /// What stands in front of `\approx`, compared.
    fn exact_side(&self, node: &Node, same: impl Fn(&Node) -> Equality) -> Equality {
        let Node::Chain { terms, ops } = node else { return Equality::Different };
        let at = ops.iter().position(|op| *op == Relation::Approx);
        at.map_or(Equality::Different, |at| same(&terms[at]))
    }

    /// At least one side holds relations.
    fn relational(&self, gold: &Node, answer: &Node) -> Equality {
        if let (Node::Chain { .. }, Node::Chain { .. }) = (gold, answer) {
            let same = relations_equal(gold, answer);
            if same == Equality::Equal || is_equation(gold) || is_equation(answer) {
                return same;
            }
        }
        if let (Some(a), Some(b)) = (elements(gold), elements(answer))
            && a.len() == b.len()
            && self.unordered(a, b) == Equality::Equal
        {
            return Equality::Equal;
        }
        let equation = |n: &Node| is_equation(n) && assignment(n).is_none();
        if equation(gold) || equation(answer) {
            return Equality::Different;
        }
        // For a bracketed pair that may be a point, only a relation as reference makes it an interval.
        if !is_relational(gold) && !is_region(gold) && !matches!(gold, Node::Member(..)) {
            return Equality::Different;
        }
        match (region(gold), region(answer)) {
            (Some(a), Some(b)) => regions_equal(&a, &b),
            _ => Equality::Different,
        }
    }

    fn values(&self, gold: &Node, answer: &Node) -> Equality {
        if let (Node::Matrix(a), Node::Matrix(b)) = (gold, answer) {
            if a.len() != b.len() || a[0].len() != b[0].len() {
                return Equality::Different;
            }
            let pairs = a.iter().flatten().zip(b.iter().flatten());
            return pairs.fold(Equality::Equal, |so_far, (x, y)| so_far.and(|| self.values(x, y)));
        }
        if is_region(gold) || is_region(answer) {
            return self.regions(gold, answer);
        }
        match (gold, answer) {
            (Node::Tuple { items: a, .. }, Node::Tuple { items: b, .. }) => self.in_order(a, b),
            (Node::Tuple { items, .. }, Node::List(others, Joint::Comma | Joint::And) | Node::Set(others)) => {
                self.in_order(items, others)
            }
            (Node::List(items, _) | Node::Set(items), Node::Tuple { items: others, .. }) => {
                self.unordered(items, others)
            }
            _ => match (elements(gold), elements(answer)) {
                (Some(a), Some(b)) => self.unordered(a, b),
                (Some([one]), None) => self.relations(one, answer),
                // `x + 11 or 11 + x`
                (None, Some(several)) if gold.is_scalar() => self.unordered(std::slice::from_ref(gold), several),
                (None, Some([one])) => self.relations(gold, one),
                (None, None) if gold.is_scalar() && answer.is_scalar() => self.numbers(gold, answer),
                (None, None) => Equality::from_bool(gold == answer),
                _ => Equality::Different,
            },
        }
    }

    fn regions(&self, gold: &Node, answer: &Node) -> Equality {
        // `[1,2]` and `[1,2]` may also be lists; end by end they agree either way, decimals included.
        if let (Node::Tuple { open: a, close: b, items }, Node::Tuple { open: c, close: d, items: others }) =
            (gold, answer)
        {
            if (a, b) != (c, d) {
                return Equality::Different;
            }
            return self.in_order(items, others);
        }
        match (region(gold), region(answer)) {
            (Some(a), Some(b)) => regions_equal(&a, &b),
            _ => match (gold, answer) {
                (Node::Union(a), Node::Union(b)) => self.unordered(a, b),
                _ => Equality::from_bool(gold == answer),
            },
        }
    }

    fn in_order(&self, gold: &[Node], answer: &[Node]) -> Equality {
        if gold.len() != answer.len() || gold.is_empty() {
            return Equality::Different;
        }
        gold.iter().zip(answer).fold(Equality::Equal, |so_far, (a, b)| so_far.and(|| self.relations(a, b)))
    }

    /// Every element on either side equals one on the other.
    fn unordered(&self, gold: &[Node], answer: &[Node]) -> Equality {
        if gold.is_empty() || answer.is_empty() {
            return Equality::from_bool(gold.is_empty() && answer.is_empty());
        }
        if gold.len() * answer.len() > MAX_PAIRS {
            return Equality::Unknown;
        }
        let mut covered = vec![false; answer.len()];
        let mut result = Equality::Equal;
        for a in gold {
            let mut found = Equality::Different;
            // The nearest place first: most sets come in the same order.
            for (b, covered) in answer.iter().zip(&mut covered) {
                let same = self.relations(a, b);
                *covered |= same == Equality::Equal;
                found = found.or(|| same);
                if same == Equality::Equal {
                    break;
                }
            }
            result = result.and(|| found);
            if result == Equality::Different {
                return result;
            }
        }
        for (b, _) in answer.iter().zip(&covered).filter(|(_, covered)| !**covered) {
            let found = gold.iter().fold(Equality::Different, |found, a| found.or(|| self.relations(a, b)));
            result = result.and(|| found);
        }
        result
    }

    fn numbers(&self, gold: &Node, answer: &Node) -> Equality {
        if let Some(found) = based(gold, answer) {
            return found;
        }
        let exact = self.rounded(gold, answer);
        match (gold, answer) {
            (Node::Percent(_), Node::Percent(_)) => exact,
            (Node::Percent(inner), other) | (other, Node::Percent(inner)) => exact.or(|| self.rounded(inner, other)),
            _ => exact,
        }
    }

    fn rounded(&self, gold: &Node, answer: &Node) -> Equality {
        let exact = exactly_equal(gold, answer);
        let decimal = written_decimals(gold).is_some() || written_decimals(answer).is_some();
        if exact == Equality::Equal || !(decimal || self.rounding.always) {
            return exact;
        }
        equal_rounded(gold, answer, self.rounding.decimals, self.rounding.always)
    }
}

/// The value of `f(t) = ...` with the arguments of the same function on the other side.
fn renamed(a: &Node, b: &Node, value: &Node) -> Option<Node> {
    let (Node::Call(f, xs), Node::Call(g, ys)) = (a, b) else { return None };
    if f != g || !f.starts_with("function ") || xs.len() != ys.len() || ys.len() > 4 {
        return None;
    }
    let clashes = |y: &Node| xs.contains(y) && !ys.iter().zip(xs).any(|(b, a)| a == y && b == y);
    if ys.iter().any(clashes) {
        return None;
    }
    xs.iter().zip(ys).try_fold(value.clone(), |value, pair| match pair {
        (Node::Symbol(_), Node::Symbol(old)) => Some(substitute(&value, old, pair.0)),
        _ => None,
    })
}

/// Numbers with a base, of which at least one states it.
fn based(gold: &Node, answer: &Node) -> Option<Equality> {
    if let (Node::Negative(gold), Node::Negative(answer)) = (gold, answer) {
        return based(gold, answer);
    }
    let plain = |node: &Node| match node {
        Node::Number { value, decimals: None } if value.is_integer() => Some(value.to_string()),
        _ => None,
    };
    Some(match (gold, answer) {
        (Node::Based { base, .. }, _) | (_, Node::Based { base, .. }) if !(2..=36).contains(base) => return None,
        (Node::Based { digits: a, base: x }, Node::Based { digits: b, base: y }) => {
            Equality::from_bool(a == b && x == y)
        }
        (Node::Based { digits, .. }, other) | (other, Node::Based { digits, .. })
            if matches!(other, Node::Number { .. }) =>
        {
            Equality::from_bool(plain(other).is_some_and(|p| p == *digits))
        }
        _ => return None,
    })
}

fn elements_in_order(node: &Node) -> &[Node] {
    match node {
        Node::Tuple { items, .. } | Node::List(items, _) | Node::Set(items) => items,
        _ => &[],
    }
}

/// A calculation such as `1 + 1 = 4/2 = 2`, which states its last side.
fn is_run(node: &Node) -> bool {
    matches!(node, Node::Chain { terms, .. } if terms.len() > 2)
}

/// Whether a node is a relation or a list with relations.
fn is_relational(node: &Node) -> bool {
    match node {
        Node::Chain { .. } => true,
        Node::List(items, _) | Node::Set(items) => items.iter().any(is_relational),
        _ => false,
    }
}
