//! Embedding rows by token, from a row-major table or from the panels of a tied output matrix.

use crate::cpu::{NR, math};
use crate::par::{self, Shared};
use crate::params::Layout;
use crate::quant::Quantized;

/// out `[T, D]` = rows of the table.
pub fn forward(out: &mut [f32], table: &[f32], layout: Layout, tokens: &[u32]) {
    let d = out.len() / tokens.len().max(1);
    let to = Shared::new(out);
    par::ranges(tokens.len(), (1_usize << 14).div_ceil(d.max(1)), |range| {
        for t in range {
            // SAFETY: each task owns its rows.
            let row = unsafe { to.slice(t * d, d) };
            let token = tokens[t] as usize;
            match layout {
                Layout::Panels { n, k } => {
                    assert!(token < n, "token {token} outside the vocabulary of {n}");
                    let panel = &table[token / NR * NR * k + token % NR..];
                    for (j, v) in row.iter_mut().enumerate() {
                        *v = panel[j * NR];
                    }
                }
                _ => row.copy_from_slice(&table[token * d..(token + 1) * d]),
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
