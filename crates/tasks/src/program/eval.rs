//! The value of an expression, as Python 3 has it.

use super::parser::{Binary, Expr};
use super::{Fault, Value};

/// Most items or characters of a value.
pub const MAX_SIZE: usize = 10_000;

/// Functions and other names of Python that are not understood here.
const BUILTINS: [&str; 42] = [
    "abs",
    "all",
    "any",
    "bin",
    "bool",
    "bytes",
    "chr",
    "dict",
    "dir",
    "divmod",
    "enumerate",
    "eval",
    "filter",
    "float",
    "format",
    "frozenset",
    "hash",
    "hex",
    "id",
    "input",
    "int",
    "iter",
    "len",
    "list",
    "map",
    "max",
    "min",
    "next",
    "object",
    "ord",
    "pow",
    "print",
    "range",
    "repr",
    "reversed",
    "round",
    "set",
    "sorted",
    "str",
    "sum",
    "tuple",
    "zip",
];

type Result<T> = std::result::Result<T, Fault>;

/// The value for an argument.
pub(super) fn value(expr: &Expr, x: &Value) -> Result<Value> {
    match expr {
        Expr::Int(n) => Ok(Value::Int(*n)),
        Expr::Text(s) => Ok(Value::Text(s.clone())),
        Expr::Argument => Ok(x.clone()),
        Expr::Name(name) => Err(unknown(name)),
        Expr::List(items) => sized(Value::List(values(items, x)?)),
        Expr::Negative(inner) => match value(inner, x)? {
            Value::Int(n) => n.checked_neg().map(Value::Int).ok_or(Fault::Unsupported),
            _ => Err(Fault::Raises),
        },
        Expr::Positive(inner) => match value(inner, x)? {
            Value::Int(n) => Ok(Value::Int(n)),
            _ => Err(Fault::Raises),
        },
        Expr::Binary(op, left, right) => {
            let left = value(left, x)?;
            binary(*op, left, value(right, x)?)
        }
        Expr::Index(of, index) => {
            let of = value(of, x)?;
            at(&of, &value(index, x)?)
        }
        Expr::Slice(of, parts) => {
            let of = value(of, x)?;
            let mut bounds = [None; 3];
            for (bound, part) in bounds.iter_mut().zip(parts) {
                *bound = match part.as_deref().map(|e| value(e, x)).transpose()? {
                    None => None,
                    Some(Value::Int(n)) => Some(n),
                    Some(_) => return Err(Fault::Raises),
                };
            }
            slice(&of, bounds)
        }
        Expr::Call(function, args) => {
            let Expr::Name(name) = &**function else {
                // No value of the subset can be called; Python looks at the function before the arguments.
                value(function, x)?;
                values(args, x)?;
                return Err(Fault::Raises);
            };
            if !matches!(name.as_str(), "abs" | "len" | "max" | "min" | "sorted" | "sum") {
                return Err(unknown(name));
            }
            call(name, values(args, x)?)
        }
        Expr::Method(of, name, args) => {
            let of = value(of, x)?;
            method(&of, name, &values(args, x)?)
        }
    }
}

/// A name that is neither argument nor function: of Python, or of nobody.
fn unknown(name: &str) -> Fault {
    let known =
        BUILTINS.contains(&name) || name.starts_with("__") || name.starts_with(|c: char| c.is_ascii_uppercase());
    // `f` is the function itself. Other built-in names are long and rare; short words are nobody's.
    let rare = matches!(name, "f" | "vars" | "type" | "slice" | "super" | "open" | "oct" | "exec" | "exit" | "quit");
    let long = matches!(
        name,
        "ascii"
            | "callable"
            | "classmethod"
            | "compile"
            | "complex"
            | "copyright"
            | "credits"
            | "delattr"
            | "getattr"
            | "globals"
            | "hasattr"
            | "help"
            | "isinstance"
            | "issubclass"
            | "license"
            | "locals"
            | "memoryview"
            | "property"
            | "setattr"
            | "staticmethod"
            | "bytearray"
            | "breakpoint"
            | "aiter"
            | "anext"
    );
    if known || rare || long { Fault::Unsupported } else { Fault::Raises }
}

fn values(items: &[Expr], x: &Value) -> Result<Vec<Value>> {
    items.iter().map(|e| value(e, x)).collect()
}

/// A value that is not too large.
fn sized(value: Value) -> Result<Value> {
    fn size(value: &Value) -> usize {
        match value {
            Value::Int(_) => 1,
            Value::Text(s) => s.len(),
            Value::List(items) => items.iter().map(size).sum::<usize>() + items.len(),
        }
    }
    if size(&value) > MAX_SIZE { Err(Fault::Unsupported) } else { Ok(value) }
}

fn binary(op: Binary, left: Value, right: Value) -> Result<Value> {
    use Value::{Int, List, Text};
    let exact = |n: Option<i64>| n.map(Int).ok_or(Fault::Unsupported);
    match (op, left, right) {
        (Binary::Add, Int(a), Int(b)) => exact(a.checked_add(b)),
        (Binary::Subtract, Int(a), Int(b)) => exact(a.checked_sub(b)),
        (Binary::Multiply, Int(a), Int(b)) => exact(a.checked_mul(b)),
        (Binary::FloorDivide | Binary::Modulo, Int(_), Int(0)) => Err(Fault::Raises),
        (Binary::FloorDivide, Int(a), Int(b)) => {
            exact(a.checked_div(b).map(|q| q - i64::from(a % b != 0 && (a < 0) != (b < 0))))
        }
        (Binary::Modulo, Int(a), Int(b)) => {
            exact(a.checked_rem(b).map(|r| if r != 0 && (r < 0) != (b < 0) { r + b } else { r }))
        }
        (Binary::Add, Text(a), Text(b)) => sized(Text(a + &b)),
        (Binary::Add, List(a), List(b)) => sized(List([a, b].concat())),
        (Binary::Multiply, Text(s), Int(n)) | (Binary::Multiply, Int(n), Text(s)) => {
            Ok(Text(s.repeat(times(n, s.len())?)))
        }
        (Binary::Multiply, List(l), Int(n)) | (Binary::Multiply, Int(n), List(l)) => {
            let count = times(n, l.len())?;
            sized(List(vec![l; count].concat()))
        }
        // `'abc' % x` formats.
        (Binary::Modulo, Text(_), _) => Err(Fault::Unsupported),
        _ => Err(Fault::Raises),
    }
}

/// How often something is repeated, when the result is not too large.
fn times(n: i64, length: usize) -> Result<usize> {
    let n = n.max(0) as usize;
    if n.saturating_mul(length) > MAX_SIZE {
        return Err(Fault::Unsupported);
    }
    Ok(if length == 0 { 0 } else { n })
}

/// The characters of a string or the items of a list.
fn items(value: &Value) -> Option<Vec<Value>> {
    match value {
        Value::Int(_) => None,
        Value::Text(s) => Some(s.chars().map(|c| Value::Text(c.to_string())).collect()),
        Value::List(items) => Some(items.clone()),
    }
}

fn at(of: &Value, index: &Value) -> Result<Value> {
    let (Some(all), Value::Int(n)) = (items(of), index) else { return Err(Fault::Raises) };
    let place = if *n < 0 { n + all.len() as i64 } else { *n };
    usize::try_from(place).ok().and_then(|i| all.get(i).cloned()).ok_or(Fault::Raises)
}

fn slice(of: &Value, [start, stop, step]: [Option<i64>; 3]) -> Result<Value> {
    let all = items(of).ok_or(Fault::Raises)?;
    let (length, step) = (all.len() as i64, step.unwrap_or(1));
    if step == 0 {
        return Err(Fault::Raises);
    }
    // A bound counts from the end when negative, and is then brought into reach.
    let (low, high) = if step > 0 { (0, length) } else { (-1, length - 1) };
    let bound = |given: Option<i64>, otherwise: i64| match given {
        None => otherwise,
        Some(n) => (if n < 0 { n.saturating_add(length) } else { n }).clamp(low, high),
    };
    let (start, stop) =
        if step > 0 { (bound(start, low), bound(stop, high)) } else { (bound(start, high), bound(stop, low)) };
    let mut picked = Vec::new();
    let mut i = start;
    while if step > 0 { i < stop } else { i > stop } {
        picked.push(all[i as usize].clone());
        i = i.saturating_add(step);
    }
    Ok(match of {
        Value::Text(_) => {
            Value::Text(picked.into_iter().map(|v| if let Value::Text(s) = v { s } else { String::new() }).collect())
        }
        _ => Value::List(picked),
    })
}

/// Python's order of two values; none when it has none.
fn order(a: &Value, b: &Value) -> Option<std::cmp::Ordering> {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => Some(a.cmp(b)),
        (Value::Text(a), Value::Text(b)) => Some(a.cmp(b)),
        (Value::List(a), Value::List(b)) => match a.iter().zip(b).find(|(a, b)| a != b) {
            Some((a, b)) => order(a, b),
            None => Some(a.len().cmp(&b.len())),
        },
        _ => None,
    }
}

fn call(name: &str, mut args: Vec<Value>) -> Result<Value> {
    match (name, args.len()) {
        ("abs", 1) => match args[0] {
            Value::Int(n) => n.checked_abs().map(Value::Int).ok_or(Fault::Unsupported),
            _ => Err(Fault::Raises),
        },
        ("len", 1) => items(&args[0]).map(|all| Value::Int(all.len() as i64)).ok_or(Fault::Raises),
        ("max" | "min", 1..) => {
            let all = if args.len() == 1 { items(&args[0]).ok_or(Fault::Raises)? } else { args };
            let keep = if name == "max" { std::cmp::Ordering::Greater } else { std::cmp::Ordering::Less };
            let mut rest = all.into_iter();
            let mut best = rest.next().ok_or(Fault::Raises)?;
            for item in rest {
                if order(&item, &best).ok_or(Fault::Raises)? == keep {
                    best = item;
                }
            }
            Ok(best)
        }
        ("sorted", 1) => sorted(items(&args.remove(0)).ok_or(Fault::Raises)?),
        ("sum", 1) => {
            let mut total = Value::Int(0);
            for item in items(&args[0]).ok_or(Fault::Raises)? {
                total = binary(Binary::Add, total, item)?;
            }
            Ok(total)
        }
        // With a start value, and so on: other ways to call them exist.
        ("sum", 2) => Err(Fault::Unsupported),
        _ => Err(Fault::Raises),
    }
}

/// Insertion by Python's order; only neighbours are known to be compared, so unlike kinds raise whenever there are two.
fn sorted(all: Vec<Value>) -> Result<Value> {
    for pair in all.windows(2) {
        order(&pair[0], &pair[1]).ok_or(if nested(&all) { Fault::Unsupported } else { Fault::Raises })?;
    }
    let mut known = true;
    let mut out = all;
    out.sort_by(|a, b| {
        order(a, b).unwrap_or_else(|| {
            known = false;
            std::cmp::Ordering::Equal
        })
    });
    if known { Ok(Value::List(out)) } else { Err(Fault::Unsupported) }
}

/// Whether lists are among the items: which of them are compared depends on the sorting method.
fn nested(all: &[Value]) -> bool {
    all.iter().any(|v| matches!(v, Value::List(_)))
}

fn method(of: &Value, name: &str, args: &[Value]) -> Result<Value> {
    match (of, name, args) {
        (Value::Text(s), "upper", []) => Ok(Value::Text(s.to_ascii_uppercase())),
        (Value::Text(s), "lower", []) => Ok(Value::Text(s.to_ascii_lowercase())),
        (Value::Text(s), "count", [Value::Text(part)]) => {
            let count = if part.is_empty() { s.len() + 1 } else { s.matches(part.as_str()).count() };
            Ok(Value::Int(count as i64))
        }
        (Value::List(l), "count", [item]) => Ok(Value::Int(l.iter().filter(|v| *v == item).count() as i64)),
        (Value::Text(_), "upper" | "lower", _) | (Value::Text(_), "count", [_]) | (Value::List(_), "count", _) => {
            Err(Fault::Raises)
        }
        // Lists and strings have methods that are not known here; others are nobody's, but telling needs the whole list.
        _ => Err(Fault::Unsupported),
    }
}
