//! Readies two parsed answers for comparison: plus-minus becomes two answers, conditions such as `k \in \mathbb{Z}` go,
//! `x = 1, 2` becomes `x = \{1, 2\}`, letters lose their case where nothing depends on it.

use std::sync::Arc;

use super::matrix::worked_out;
use super::node::{Joint, Node};
use super::relation::assignment;

/// Letters that stand for a unit behind a number.
const UNIT_LETTERS: [&str; 9] = ["m", "g", "s", "h", "L", "N", "J", "W", "V"];

/// Both sides, ready.
pub fn prepare(gold: &Node, answer: &Node) -> (Node, Node) {
    let (mut gold, mut answer) = (simplify(gold), simplify(answer));
    if gold.symbols().is_empty() {
        answer = without_unit(answer);
    }
    if foldable(&gold) && foldable(&answer) {
        (gold, answer) = (fold_case(&gold), fold_case(&answer));
    }
    (gold, answer)
}

fn simplify(node: &Node) -> Node {
    let node = worked_out(&grouped_list(assigned_list(without_conditions(expand(node)))));
    match node {
        Node::Chain { terms, ops } => {
            // `(x, y) = (1, 2)` and `S = \{1\}` keep their value as it is.
            Node::Chain { terms: terms.iter().map(flat).collect(), ops }
        }
        other => flat(&other),
    }
}

/// Lists inside of lists of the same kind are one list.
fn flat(node: &Node) -> Node {
    let Node::List(items, joint) = node else { return node.clone() };
    let mut out = Vec::with_capacity(items.len());
    for item in items {
        match flat(item) {
            Node::List(inner, _) => out.extend(inner),
            other => out.push(other),
        }
    }
    Node::List(out, *joint)
}

/// Plus-minus signs as two alternatives; all signs of one expression change together.
fn expand(node: &Node) -> Node {
    let has = |n: &Node| n.any(&|n| matches!(n, Node::PlusMinus { .. }));
    if !has(node) {
        return node.clone();
    }
    match node {
        Node::List(items, joint) => Node::List(items.iter().map(expand).collect(), *joint),
        Node::Set(items) => match flat(&Node::List(items.iter().map(expand).collect(), Joint::Comma)) {
            Node::List(items, _) => Node::Set(items),
            other => other,
        },
        Node::Chain { terms, ops } if terms[..terms.len() - 1].iter().all(|t| !has(t)) => {
            let mut terms = terms.clone();
            if let Some(last) = terms.last_mut() {
                *last = expand(last);
            }
            Node::Chain { terms, ops: ops.clone() }
        }
        other => Node::List(vec![signed(other, false), signed(other, true)], Joint::Or),
    }
}

/// The tree with each plus-minus decided.
fn signed(node: &Node, lower: bool) -> Node {
    match node {
        Node::PlusMinus { left, right, minus_first } => {
            let right = signed(right, lower);
            let term = if lower != *minus_first { Node::Negative(Box::new(right)) } else { right };
            match left {
                Some(left) => Node::Sum(vec![signed(left, lower), term]),
                None => term,
            }
        }
        other => other.map_children(&mut |child| signed(child, lower)),
    }
}

/// Leaves out `k \in \mathbb{Z}` and dots where other parts remain.
fn without_conditions(node: Node) -> Node {
    let Node::List(items, joint) = node else { return node };
    let condition = |n: &Node| match n {
        Node::Member(_, set) => matches!(set.as_ref(), Node::Symbol(_) | Node::Reals),
        _ => false,
    };
    let mut kept: Vec<Node> = items.iter().filter(|i| !condition(i)).cloned().collect();
    match kept.len() {
        0 => Node::List(items, joint),
        1 => kept.remove(0),
        _ => Node::List(kept, joint),
    }
}

/// `x = 1, 2` and `x = 1 \text{ or } x = 2` as `x = \{1, 2\}`.
fn assigned_list(node: Node) -> Node {
    let Node::List(items, joint) = &node else { return node };
    let Some((name, first)) = items.first().and_then(assignment) else { return node };
    let mut values = vec![first.clone()];
    for item in &items[1..] {
        match assignment(item) {
            Some((other, value)) if other == name => values.push(value.clone()),
            None if item.is_scalar() || matches!(item, Node::Tuple { .. }) => values.push(item.clone()),
            _ => return node,
        }
    }
    let values = flat(&Node::List(values, *joint));
    Node::Chain { terms: vec![name.clone(), values], ops: vec![super::node::Relation::Equal] }
}

/// `p = 5, q = 2; p = 7, q = 2` as `(5, 2), (7, 2)`: the same names over and over, each time with values.
fn grouped_list(node: Node) -> Node {
    let Node::List(items, joint) = &node else { return node };
    let Some(pairs) = items.iter().map(assignment).collect::<Option<Vec<_>>>() else { return node };
    let Some(period) = pairs.iter().skip(1).position(|(name, _)| *name == pairs[0].0).map(|at| at + 1) else {
        return node;
    };
    let repeats = pairs.iter().zip(&pairs[period..]).all(|(a, b)| a.0 == b.0);
    if period < 2 || pairs.len() % period != 0 || !repeats {
        return node;
    }
    let group = |part: &[(&Node, &Node)]| Node::Tuple {
        open: '(',
        close: ')',
        items: part.iter().map(|(_, value)| (*value).clone()).collect(),
    };
    Node::List(pairs.chunks(period).map(group).collect(), *joint)
}

/// `10 m` as 10.
fn without_unit(node: Node) -> Node {
    let Node::Product(items) = &node else { return node };
    let Some((Node::Symbol(last), rest)) = items.split_last() else { return node };
    if !UNIT_LETTERS.contains(&last.as_ref()) || rest.iter().any(|r| !r.symbols().is_empty()) {
        return node;
    }
    if rest.len() == 1 { rest[0].clone() } else { Node::Product(rest.to_vec()) }
}

/// Whether no two variables differ in case only.
fn foldable(node: &Node) -> bool {
    let names = node.symbols();
    let mut folded: Vec<String> = names.iter().map(|n| n.to_lowercase()).collect();
    folded.sort();
    folded.dedup();
    folded.len() == names.len()
}

fn fold_case(node: &Node) -> Node {
    match node {
        Node::Symbol(name) if name.chars().any(char::is_uppercase) => Node::Symbol(Arc::from(name.to_lowercase())),
        other => other.map_children(&mut fold_case),
    }
}
