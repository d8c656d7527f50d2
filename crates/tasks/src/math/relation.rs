//! Equations and inequalities: assignments such as `x = 5` whose right side is the answer, and relations that are the same
//! up to sides, order and scale.

use num_traits::Signed;

use super::node::{Node, Relation};
use super::normal::normal_form;
use super::region::difference;
use super::scalar::{Equality, exactly_equal};

/// Whether every relation of a node is an equality.
pub fn is_equation(node: &Node) -> bool {
    match node {
        Node::Chain { ops, .. } => ops.iter().all(|op| matches!(op, Relation::Equal | Relation::Approx)),
        _ => false,
    }
}

/// What stands on the right of the last equality.
pub fn last_side(node: &Node) -> Option<&Node> {
    match node {
        Node::Chain { terms, .. } if is_equation(node) => terms.last(),
        Node::Member(_, set) => Some(set),
        _ => None,
    }
}

/// Whether a side is a name that is given a value.
fn is_name(node: &Node) -> bool {
    match node {
        Node::Symbol(_) | Node::Call(..) => true,
        Node::Product(items) => items.iter().all(|i| matches!(i, Node::Symbol(_) | Node::Constant(_))),
        Node::Tuple { items, .. } => items.iter().all(is_name),
        // A ratio: `AB:CD`, `\frac{AB}{CD}`.
        Node::Quotient(a, b) => is_name(a) && is_name(b),
        Node::Constant(_) => true,
        _ => false,
    }
}

/// The name and the value of an assignment.
pub fn assignment(node: &Node) -> Option<(&Node, &Node)> {
    match node {
        Node::Chain { terms, .. } if is_equation(node) && is_name(&terms[0]) => Some((&terms[0], terms.last()?)),
        // `5 = x`
        Node::Chain { terms, ops } if is_equation(node) && ops.len() == 1 && matches!(terms[1], Node::Symbol(_)) => {
            terms[0].symbols().is_empty().then_some((&terms[1], &terms[0]))
        }
        Node::Member(name, set) if is_name(name) => Some((name, set)),
        _ => None,
    }
}

/// `difference op 0`, with no "greater".
struct Condition {
    difference: Node,
    op: Relation,
}

fn conditions(node: &Node) -> Option<Vec<Condition>> {
    match node {
        Node::Chain { terms, ops } => Some(
            terms
                .windows(2)
                .zip(ops)
                .map(|(pair, op)| match op {
                    Relation::Greater => Condition { difference: difference(&pair[1], &pair[0]), op: Relation::Less },
                    Relation::GreaterEqual => {
                        Condition { difference: difference(&pair[1], &pair[0]), op: Relation::LessEqual }
                    }
                    Relation::Approx => Condition { difference: difference(&pair[0], &pair[1]), op: Relation::Equal },
                    op => Condition { difference: difference(&pair[0], &pair[1]), op: *op },
                })
                .collect(),
        ),
        _ => None,
    }
}

impl Condition {
    fn same(&self, other: &Self) -> Equality {
        if self.op != other.op {
            return Equality::Different;
        }
        let directed = matches!(self.op, Relation::Less | Relation::LessEqual);
        let (Ok(a), Ok(b)) = (normal_form(&self.difference), normal_form(&other.difference)) else {
            return exactly_equal(&self.difference, &other.difference);
        };
        let bottoms_matter = directed && !(a.bottom.as_constant().is_some() && b.bottom.as_constant().is_some());
        // An equation without variables states nothing to compare.
        if a.as_constant().is_some() != b.as_constant().is_some() {
            return Equality::Different;
        }
        if !bottoms_matter
            && let Some((monomial, x)) = a.top.0.last_key_value()
            && let Some(y) = b.top.0.get(monomial)
        {
            let factor = x / y;
            if a.top == b.top.scaled(&factor) {
                return Equality::from_bool(!directed || factor.is_positive());
            }
        }
        let equal = exactly_equal(&self.difference, &other.difference);
        if directed {
            return equal;
        }
        equal.or(|| exactly_equal(&self.difference, &Node::Negative(Box::new(other.difference.clone()))))
    }
}

/// Whether two relations, or chains of them, say the same.
pub fn relations_equal(a: &Node, b: &Node) -> Equality {
    let (Some(a), Some(b)) = (conditions(a), conditions(b)) else { return Equality::Different };
    if a.len() != b.len() || a.len() > 12 {
        return Equality::Different;
    }
    a.iter().fold(Equality::Equal, |so_far, x| {
        so_far.and(|| b.iter().fold(Equality::Different, |found, y| found.or(|| x.same(y))))
    })
}
