//! Matrices that an answer still has to work out: sums, multiples, products, whole powers, transposes and determinants.

use super::node::Node;
use super::work::charge;

/// Rows of a matrix.
type Rows = Vec<Vec<Node>>;

/// Most rows or columns of a matrix that is worked out, and the largest power.
const MAX_SIZE: usize = 12;
/// Most rows of a determinant; its terms are the factorial of that.
const MAX_DETERMINANT: usize = 5;

/// The tree with everything worked out that matrices allow; what does not fit together stays as it is.
pub fn worked_out(node: &Node) -> Node {
    if !node.any(&|n| matches!(n, Node::Matrix(_))) {
        return node.clone();
    }
    let node = node.map_children(&mut worked_out);
    let found = match &node {
        Node::Negative(a) => rows(a).map(|a| Node::Matrix(scaled(a, &Node::integer(-1)))),
        Node::Sum(items) => sum(items),
        Node::Product(items) => product(items),
        Node::Quotient(a, b) if b.is_scalar() => rows(a).map(|a| {
            let one_over = Node::Quotient(Box::new(Node::integer(1)), b.clone());
            Node::Matrix(scaled(a, &one_over))
        }),
        Node::Power(a, exponent) => rows(a).and_then(|a| power(a, exponent)),
        Node::Call(name, items) if name.as_ref() == "det" => match items.as_slice() {
            [Node::Matrix(a)] if a.len() == a[0].len() && a.len() <= MAX_DETERMINANT => Some(determinant(a)),
            _ => None,
        },
        _ => None,
    };
    found.unwrap_or(node)
}

fn rows(node: &Node) -> Option<&Rows> {
    match node {
        Node::Matrix(rows) => Some(rows),
        _ => None,
    }
}

fn scaled(a: &Rows, factor: &Node) -> Rows {
    let times = |x: &Node| Node::Product(vec![factor.clone(), x.clone()]);
    a.iter().map(|row| row.iter().map(times).collect()).collect()
}

fn sum(items: &[Node]) -> Option<Node> {
    let parts = items.iter().map(rows).collect::<Option<Vec<_>>>()?;
    let (height, width) = (parts[0].len(), parts[0][0].len());
    if parts.iter().any(|p| p.len() != height || p[0].len() != width) {
        return None;
    }
    let cell = |i: usize, j: usize| Node::Sum(parts.iter().map(|p| p[i][j].clone()).collect());
    Some(Node::Matrix((0..height).map(|i| (0..width).map(|j| cell(i, j)).collect()).collect()))
}

/// Scalars and matrices in a row.
fn product(items: &[Node]) -> Option<Node> {
    let mut matrix: Option<Rows> = None;
    let mut scalars = Vec::new();
    for item in items {
        match (item, matrix.take()) {
            (Node::Matrix(b), None) => matrix = Some(b.clone()),
            (Node::Matrix(b), Some(a)) => matrix = Some(times(&a, b)?),
            (other, so_far) if other.is_scalar() => {
                scalars.push(other.clone());
                matrix = so_far;
            }
            _ => return None,
        }
    }
    let matrix = matrix?;
    Some(Node::Matrix(if scalars.is_empty() { matrix } else { scaled(&matrix, &Node::Product(scalars)) }))
}

fn times(a: &Rows, b: &Rows) -> Option<Rows> {
    let (height, inner, width) = (a.len(), b.len(), b[0].len());
    if a[0].len() != inner || height.max(inner).max(width) > MAX_SIZE {
        return None;
    }
    charge((height * inner * width) as u64 * 20)?;
    // Cells of repeated products would grow without end, so only plain ones are multiplied further.
    if a.iter().chain(b).flatten().any(|cell| cell.is_deeper_than(12)) {
        return None;
    }
    let term = |i: usize, j: usize, k: usize| Node::Product(vec![a[i][k].clone(), b[k][j].clone()]);
    let cell = |i: usize, j: usize| Node::Sum((0..inner).map(|k| term(i, j, k)).collect());
    Some((0..height).map(|i| (0..width).map(|j| cell(i, j)).collect()).collect())
}

/// `A^T`, `A^2`.
fn power(a: &Rows, exponent: &Node) -> Option<Node> {
    if matches!(exponent, Node::Symbol(name) if matches!(name.as_ref(), "T" | "t" | "\\top")) {
        return Some(Node::Matrix((0..a[0].len()).map(|j| a.iter().map(|row| row[j].clone()).collect()).collect()));
    }
    match exponent {
        Node::Number { value, .. } if value.is_integer() => match value.to_integer().try_into() {
            Ok(1u8) => Some(Node::Matrix(a.clone())),
            Ok(2) => times(a, a).map(Node::Matrix),
            Ok(3) => times(&times(a, a)?, a).map(Node::Matrix),
            _ => None,
        },
        _ => None,
    }
}

/// By the first row.
fn determinant(a: &Rows) -> Node {
    if let [row] = a.as_slice() {
        return row[0].clone();
    }
    let minor = |j: usize| -> Rows {
        let without =
            |row: &Vec<Node>| row.iter().enumerate().filter(|(k, _)| *k != j).map(|(_, x)| x.clone()).collect();
        a[1..].iter().map(without).collect()
    };
    let term = |(j, x): (usize, &Node)| {
        let product = Node::Product(vec![x.clone(), determinant(&minor(j))]);
        if j % 2 == 0 { product } else { Node::Negative(Box::new(product)) }
    };
    Node::Sum(a[0].iter().enumerate().map(term).collect())
}
