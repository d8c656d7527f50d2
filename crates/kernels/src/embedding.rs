//! Embedding rows by token, from a row-major table or from the panels of a tied output matrix.

use crate::cpu::{NR, math};
use crate::dice::Dice;
use crate::par::{self, Shared};
use crate::params::Layout;
use crate::quant::Quantized;
use crate::split::Table;

/// out `[T, D]` = rows of the table.
pub fn forward(out: &mut [f32], table: Table, layout: Layout, tokens: &[u32]) {
    let d = out.len() / tokens.len().max(1);
    let to = Shared::new(out);
    par::ranges(tokens.len(), (1_usize << 14).div_ceil(d.max(1)), |range| {
        for t in range {
            // SAFETY: each task owns its rows.
            let row = unsafe { to.slice(t * d, d) };
            let token = tokens[t] as usize;
            match (layout, table) {
                (Layout::Panels { n, k }, _) => {
                    assert!(token < n, "token {token} outside the vocabulary of {n}");
                    let first = token / NR * NR * k + token % NR;
                    match table {
                        Table::Whole(table) => {
                            let panel = &table[first..];
                            row.iter_mut().enumerate().for_each(|(j, v)| *v = panel[j * NR]);
                        }
                        Table::Split(halves) => {
                            row.iter_mut().enumerate().for_each(|(j, v)| *v = halves.value(first + j * NR));
                        }
                    }
                }
                (_, Table::Whole(table)) => row.copy_from_slice(&table[token * d..(token + 1) * d]),
                (_, Table::Split(_)) => unreachable!("only panels are split"),
            }
        }
    });
}

/// [`backward`] into a table in bf16: the rows of a token are summed in f32 first, in token order, and rounded once.
pub(crate) fn backward_halves(dice: &Dice, d_table: &mut [u16], layout: Layout, d_out: &[f32], tokens: &[u32]) {
    let d = d_out.len() / tokens.len().max(1);
    // By token, and in order within one.
    let mut order: Vec<u32> = (0..tokens.len() as u32).collect();
    order.sort_by_key(|t| tokens[*t as usize]);
    let groups: Vec<&[u32]> = order.chunk_by(|a, b| tokens[*a as usize] == tokens[*b as usize]).collect();
    let (len, to) = (d_table.len(), Shared::new(d_table));
    par::ranges(groups.len(), (1_usize << 14).div_ceil(d.max(1)), |range| {
        let mut sum = vec![0f32; d];
        for group in &groups[range] {
            sum.fill(0.0);
            group.iter().for_each(|t| math::add_assign(&mut sum, &d_out[*t as usize * d..(*t as usize + 1) * d]));
            let token = tokens[group[0] as usize] as usize;
            let (first, step) = match layout {
                Layout::Panels { k, .. } => (token / NR * NR * k + token % NR, NR),
                _ => (token * d, 1),
            };
            assert!(first + d.saturating_sub(1) * step < len, "token {token} outside the vocabulary");
            for (j, add) in sum.iter().enumerate() {
                let at = first + j * step;
                // SAFETY: it lies inside (asserted); a token is in one group, and a group in one task.
                let value = unsafe { &mut *to.at(at) };
                *value = dice.round(at, f32::from_bits(u32::from(*value) << 16) + add);
            }
        }
    });
}

/// out `[T, D]` = rows of a quantised table.
pub fn quantized(out: &mut [f32], table: &Quantized, tokens: &[u32]) {
    for (row, token) in out.chunks_exact_mut(table.shape()[1]).zip(tokens) {
        table.row(*token as usize, row);
    }
}

/// d_table += rows of d_out, in token order.
pub fn backward(d_table: &mut [f32], layout: Layout, d_out: &[f32], tokens: &[u32]) {
    let d = d_out.len() / tokens.len().max(1);
    let to = Shared::new(d_table);
    par::ranges(d, 32, |cols| {
        for (t, token) in tokens.iter().enumerate() {
            let (token, row) = (*token as usize, &d_out[t * d..(t + 1) * d]);
            match layout {
                Layout::Panels { k, .. } => {
                    for j in cols.clone() {
                        // SAFETY: each task owns its columns.
                        unsafe { *to.at(token / NR * NR * k + j * NR + token % NR) += row[j] };
                    }
                }
                // SAFETY: each task owns its columns.
                _ => math::add_assign(unsafe { to.slice(token * d + cols.start, cols.len()) }, &row[cols.clone()]),
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dice::{Noise, Rounded};
    use crate::linear::tests::noise;

    #[test]
    fn a_table_in_bf16_gets_the_sums_of_tokens_rounded() {
        let (n, d, tokens) = (70, 20, [3u32, 69, 3, 0, 31, 3, 69, 40]);
        let d_out = noise(tokens.len() * d, 1);
        for layout in [Layout::Panels { n, k: d }, Layout::Rows { rows: n, cols: d }] {
            let mut found: Vec<u16> = noise(layout.stored(), 2).iter().map(|v| (v.to_bits() >> 16) as u16).collect();
            let mut want: Vec<f32> = found.iter().map(|v| f32::from_bits(u32::from(*v) << 16)).collect();
            let before = want.clone();
            backward(&mut want, layout, &d_out, &tokens);
            let noise = Noise { seed: 0, step: 1, parameter: 0, what: Rounded::Gradient, first: 0 };
            backward_halves(&Dice::of(noise), &mut found, layout, &d_out, &tokens);
            let mut changed = 0;
            for ((found, want), before) in found.iter().zip(&want).zip(&before) {
                let found = f32::from_bits(u32::from(*found) << 16);
                assert!((found - want).abs() <= want.abs() / 127.0 + 1e-6, "{found} {want}");
                changed += usize::from(found != *before);
            }
            assert!(changed > 4 * d, "{changed} values of five rows changed");
        }
    }
}
