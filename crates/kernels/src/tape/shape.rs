//! Cutting rows apart and joining them, and the rotation of a part of every head.

use super::{Flow, Operation, Tape, Var};
use crate::gradients::Gradients;
use crate::params::ParamStore;
use crate::rope::{Rope, RopePart};
use std::sync::Arc;

/// Rows of `whole` are those of `parts` side by side; `cut` tells which of the two is the result.
struct Columns {
    whole: (Var, usize),
    parts: [(Var, usize); 2],
    cut: bool,
}

struct RotatePart {
    x: Var,
    rope: Arc<Rope>,
    positions: Arc<[u32]>,
    part: RopePart,
}

/// Columns `at..at + width` of rows as wide as `ld`, copied out of or into the whole.
fn copy_columns(whole: &mut [f32], ld: usize, part: &[f32], at: usize, width: usize) {
    for (row, part) in whole.chunks_exact_mut(ld).zip(part.chunks_exact(width)) {
        row[at..at + width].copy_from_slice(part);
    }
}

fn cut_columns(part: &mut [f32], whole: &[f32], ld: usize, at: usize, width: usize) {
    for (part, row) in part.chunks_exact_mut(width).zip(whole.chunks_exact(ld)) {
        part.copy_from_slice(&row[at..at + width]);
    }
}

impl Tape {
    /// A value that comes from outside; nothing flows back into it.
    pub fn constant(&mut self, data: &[f32]) -> Var {
        let mut out = self.take(data.len(), false);
        out.copy_from_slice(data);
        self.push(out)
    }

    /// x `[T, a + b]` as `[T, a]` and `[T, b]`.
    pub fn split(&mut self, x: Var, a: usize, b: usize) -> [Var; 2] {
        let rows = self.value(x).len() / (a + b);
        let parts = [(0, a), (a, b)].map(|(at, width)| {
            let mut out = self.take(rows * width, false);
            cut_columns(&mut out, self.value(x), a + b, at, width);
            self.push(out)
        });
        let op = Columns { whole: (x, a + b), parts: [(parts[0], a), (parts[1], b)], cut: true };
        self.record(|| super::Op::Other(Box::new(op)));
        parts
    }

    /// `[T, a]` and `[T, b]` side by side.
    pub fn concat(&mut self, (a, wide_a): (Var, usize), (b, wide_b): (Var, usize)) -> Var {
        let ld = wide_a + wide_b;
        let mut out = self.take(self.value(a).len() / wide_a * ld, false);
        copy_columns(&mut out, ld, self.value(a), 0, wide_a);
        copy_columns(&mut out, ld, self.value(b), wide_a, wide_b);
        let out = self.push(out);
        let op = Columns { whole: (out, ld), parts: [(a, wide_a), (b, wide_b)], cut: false };
        self.record(|| super::Op::Other(Box::new(op)));
        out
    }

    /// Rotates a part of every head of x in place.
    pub fn rope_part(&mut self, x: Var, rope: &Arc<Rope>, positions: &Arc<[u32]>, part: RopePart) {
        rope.apply_part(self.value_mut(x), positions, part, 1.0);
        let op = || RotatePart { x, rope: rope.clone(), positions: positions.clone(), part };
        self.record(|| super::Op::Other(Box::new(op())));
    }
}

impl Operation for Columns {
    fn backward(&self, tape: &mut Tape, _: &ParamStore, _: &mut Gradients, d: &mut Flow) {
        let (whole, ld) = self.whole;
        if self.cut {
            let parts = self.parts.map(|(v, width)| (d[v.0].take(), width));
            if parts.iter().all(|(d, _)| d.is_none()) {
                return;
            }
            let mut d_whole = tape.take(tape.value(whole).len(), parts.iter().any(|(d, _)| d.is_none()));
            let mut at = 0;
            for (part, width) in parts {
                if let Some(part) = part {
                    copy_columns(&mut d_whole, ld, &part, at, width);
                    tape.pool.give(part);
                }
                at += width;
            }
            tape.flow(d, whole, d_whole);
        } else if let Some(d_whole) = d[whole.0].take() {
            let mut at = 0;
            for (v, width) in self.parts {
                let mut part = tape.take(tape.value(v).len(), false);
                cut_columns(&mut part, &d_whole, ld, at, width);
                tape.flow(d, v, part);
                at += width;
            }
            tape.pool.give(d_whole);
        }
    }
}

impl Operation for RotatePart {
    fn backward(&self, _: &mut Tape, _: &ParamStore, _: &mut Gradients, d: &mut Flow) {
        if let Some(d_x) = d[self.x.0].as_mut() {
            self.rope.apply_part(d_x, &self.positions, self.part, -1.0);
        }
    }
}
