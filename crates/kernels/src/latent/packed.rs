//! Causal attention over packed sequences whose keys are wider than their values, forward and backward.
//!
//! A key of head g is `[own(t, g) ; shared(t)]`. In the absorbed form there is one key head and its own part is the value too;
//! in the expanded form every head has its own. Keys are written out, and the rest is [`crate::attention`]; gradients of the
//! shared part are summed over key heads in their order.

use crate::attention::{self, Heads};
use crate::par::{self, Shared};
use crate::params::Precision;
use crate::scratch;
use crate::segments::Segments;

/// Tokens of one task that copies.
const ROWS: usize = 64;

/// Widths.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dims {
    /// Query heads N.
    pub heads: usize,
    /// Key heads K; divides N.
    pub key_heads: usize,
    /// Width of a key head's own part.
    pub own: usize,
    /// Width of the part that all share.
    pub shared: usize,
    /// Width of a value; 0 where the value is the own part itself.
    pub value: usize,
    /// Factor on the scores.
    pub scale: f32,
    /// In what numbers the products run.
    pub precision: Precision,
}

impl Dims {
    fn key(&self) -> usize {
        self.own + self.shared
    }

    /// Width of a value as the output has it.
    pub fn out(&self) -> usize {
        if self.value == 0 { self.own } else { self.value }
    }

    /// Distance between key heads in the matrix that holds own parts and values.
    fn block(&self) -> usize {
        self.own + self.value
    }

    fn as_heads(&self) -> Heads {
        let Dims { heads: query, key_heads: kv, scale, precision, .. } = *self;
        Heads { query, kv, dim: self.key(), value: self.out(), scale, precision }
    }

    /// Numbers of keys and values of one token, written out.
    fn written(&self) -> (usize, usize) {
        (self.key_heads * self.key(), if self.value == 0 { 0 } else { self.key_heads * self.value })
    }
}

/// Calls `f` with keys `[T, K*(own+shared)]` and values `[T, K*value]` of kv `[T, K*(own+value)]` and shared `[T, shared]`.
fn written_out(kv: &[f32], shared: &[f32], tokens: usize, d: Dims, f: impl FnOnce(&[f32], &[f32])) {
    let (key, value) = d.written();
    scratch::floats(tokens * (key + value), |space| {
        let (k, v) = space.split_at_mut(tokens * key);
        let (to_k, to_v) = (Shared::new(k), Shared::new(v));
        par::ranges(tokens * d.key_heads, ROWS, |items| {
            for item in items {
                let own = &kv[item * d.block()..][..d.block()];
                // SAFETY: each task writes its own key heads of its own tokens.
                let (to, to_value) =
                    unsafe { (to_k.slice(item * d.key(), d.key()), to_v.slice(item * d.value, d.value)) };
                to[..d.own].copy_from_slice(&own[..d.own]);
                to[d.own..].copy_from_slice(&shared[item / d.key_heads * d.shared..][..d.shared]);
                to_value.copy_from_slice(&own[d.own..]);
            }
        });
        f(k, if d.value == 0 { kv } else { v });
    });
}

/// out `[T, N*out]` and, for the backward, stats `[T, N, 2]`. q is `[T, N*(own+shared)]`, kv `[T, K*(own+value)]`, shared
/// `[T, shared]`. With `offset` a segment's first `offset` keys have no queries (the past of a prompt that comes in chunks): then
/// there is one segment, and q and out have that many rows fewer.
pub fn forward(
    out: &mut [f32],
    stats: &mut [f32],
    q: &[f32],
    (kv, shared): (&[f32], &[f32]),
    seg: &Segments,
    offset: usize,
    d: Dims,
) {
    let tokens = seg.tokens();
    assert!(
        kv.len() == tokens * d.key_heads * d.block() && shared.len() == tokens * d.shared,
        "latent attention: shapes"
    );
    written_out(kv, shared, tokens, d, |k, v| {
        attention::forward_after(out, stats, (q, k, v), seg, offset, d.as_heads());
    });
}

/// Gradients d_q, d_kv and d_shared, written (not added). `forwarded` is (out, stats), `inputs` (q, kv, shared).
pub fn backward(
    (d_q, d_kv, d_shared): (&mut [f32], &mut [f32], &mut [f32]),
    d_out: &[f32],
    (out, stats): (&[f32], &[f32]),
    (q, kv, shared): (&[f32], &[f32], &[f32]),
    seg: &Segments,
    d: Dims,
) {
    assert!(d_kv.len() == kv.len() && d_shared.len() == shared.len(), "latent attention backward: shapes");
    let (tokens, key, value) = (seg.tokens(), d.key_heads * d.key(), d.key_heads * d.out());
    written_out(kv, shared, tokens, d, |k, v| {
        scratch::floats(tokens * (key + value), |space| {
            let (d_k, d_v) = space.split_at_mut(tokens * key);
            attention::backward(d_q, d_k, d_v, d_out, out, stats, (q, k, v), seg, d.as_heads(), false);
            let (to_kv, to_shared) = (Shared::new(d_kv), Shared::new(d_shared));
            par::ranges(tokens, ROWS.div_ceil(d.key_heads), |range| {
                for t in range {
                    // SAFETY: each task writes its own tokens.
                    let (kv, shared) = unsafe {
                        (
                            to_kv.slice(t * d.key_heads * d.block(), d.key_heads * d.block()),
                            to_shared.slice(t * d.shared, d.shared),
                        )
                    };
                    shared.fill(0.0);
                    let (d_k, d_v) = (&d_k[t * key..][..key], &d_v[t * value..][..value]);
                    let heads = d_k.chunks_exact(d.key()).zip(d_v.chunks_exact(d.out()));
                    for (to, (d_k, d_v)) in kv.chunks_exact_mut(d.block()).zip(heads) {
                        let (own, values) = to.split_at_mut(d.own);
                        own.copy_from_slice(&d_k[..d.own]);
                        // The value may be the own part itself.
                        let (to, added) = if d.value == 0 { (own, true) } else { (values, false) };
                        for (to, x) in to.iter_mut().zip(d_v) {
                            *to = if added { *to + x } else { *x };
                        }
                        for (to, x) in shared.iter_mut().zip(&d_k[d.own..]) {
                            *to += x;
                        }
                    }
                }
            });
        });
    });
}
