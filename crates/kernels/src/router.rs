//! Routing of DeepSeekMoE (DeepSeek-V3 equations 12 to 20): sigmoid scores, selection by score plus bias inside the best groups,
//! weights from the scores alone; the balance loss of a sequence; the update of the biases.
//!
//! Everything runs in f32. A token's choice depends on its own logits alone; equal scores go to the lower number. The chosen
//! experts of a token are in ascending order, which is the order their outputs are summed in.

use crate::cpu::math::exp;
use crate::par::{self, Shared};
use crate::segments::Segments;

/// How tokens choose experts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Routing {
    /// Experts E.
    pub experts: usize,
    /// Experts per token K.
    pub chosen: usize,
    /// Groups that the experts form; divides E.
    pub groups: usize,
    /// Groups a token may choose from.
    pub kept_groups: usize,
    /// Whether the weights of a token are divided by their sum.
    pub normalised: bool,
    /// Factor on the weights.
    pub scale: f32,
}

/// Where every token goes, and the same the other way round. A slot is a pair (expert, token); slots are sorted by expert,
/// then by token.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// `[T, K]` experts of a token, ascending.
    pub chosen: Vec<u32>,
    /// `[T, K]` slots of a token, in the order of `chosen`.
    pub slots: Vec<u32>,
    /// `[T * K]` token of a slot.
    pub tokens: Vec<u32>,
    /// `[E + 1]` first slot of an expert.
    pub offsets: Vec<usize>,
}

impl Plan {
    /// Sorts the choices `[T, K]` of tokens among `experts`.
    pub fn new(chosen: Vec<u32>, per_token: usize, experts: usize) -> Self {
        let mut offsets = vec![0; experts + 1];
        for e in &chosen {
            offsets[*e as usize + 1] += 1;
        }
        for e in 0..experts {
            offsets[e + 1] += offsets[e];
        }
        let (mut next, mut tokens) = (offsets.clone(), vec![0; chosen.len()]);
        let slots = chosen
            .iter()
            .enumerate()
            .map(|(i, e)| {
                let slot = next[*e as usize];
                next[*e as usize] += 1;
                tokens[slot] = (i / per_token) as u32;
                slot as u32
            })
            .collect();
        Plan { chosen, slots, tokens, offsets }
    }

    /// Tokens that chose each expert.
    pub fn loads(&self) -> impl Iterator<Item = u64> + '_ {
        self.offsets.windows(2).map(|w| (w[1] - w[0]) as u64)
    }
}

/// Turns logits `[T, E]` into scores in place; returns the chosen experts `[T, K]` and writes their weights `[T, K]`.
pub fn route(logits: &mut [f32], weights: &mut [f32], bias: &[f32], r: Routing) -> Vec<u32> {
    let (e, k) = (r.experts, r.chosen);
    let tokens = logits.len() / e;
    assert!(weights.len() == tokens * k && bias.len() == e, "routing: shapes");
    let mut chosen = vec![0u32; tokens * k];
    let (scores, weights) = (Shared::new(logits), Shared::new(weights));
    // SAFETY: same size and alignment, every bit pattern is valid for both.
    let choice =
        Shared::new(unsafe { std::slice::from_raw_parts_mut(chosen.as_mut_ptr().cast::<f32>(), chosen.len()) });
    par::ranges(tokens, (1_usize << 13).div_ceil(e), |range| {
        let mut biased = vec![0f32; e];
        for t in range {
            // SAFETY: each task owns its rows.
            let (s, w, c) = unsafe { (scores.slice(t * e, e), weights.slice(t * k, k), choice.slice(t * k, k)) };
            // SAFETY: as above.
            let c = unsafe { std::slice::from_raw_parts_mut(c.as_mut_ptr().cast::<u32>(), k) };
            for ((s, b), biased) in s.iter_mut().zip(bias).zip(&mut biased) {
                *s = 1.0 / (1.0 + exp(-*s));
                *biased = *s + b;
            }
            mask_groups(&mut biased, r);
            for (j, c) in c.iter_mut().enumerate() {
                let best = largest(&biased);
                debug_assert!(biased[best] > f32::NEG_INFINITY, "expert {j} of a token has no candidate");
                biased[best] = f32::NEG_INFINITY;
                *c = best as u32;
            }
            c.sort_unstable();
            let sum = if r.normalised { c.iter().map(|i| s[*i as usize]).sum::<f32>() + 1e-20 } else { 1.0 };
            for (w, i) in w.iter_mut().zip(&*c) {
                *w = s[*i as usize] / sum * r.scale;
            }
        }
    });
    chosen
}

/// Position of the largest value, the first of equals.
fn largest(x: &[f32]) -> usize {
    (1..x.len()).fold(0, |best, i| if x[i] > x[best] { i } else { best })
}

/// Puts -inf on all experts outside the best groups; a group counts by its two best experts.
fn mask_groups(biased: &mut [f32], r: Routing) {
    if r.kept_groups >= r.groups {
        return;
    }
    let size = r.experts / r.groups;
    let mut value: Vec<f32> = biased
        .chunks_exact(size)
        .map(|group| {
            let first = largest(group);
            let second = (0..size).filter(|i| *i != first).map(|i| group[i]).fold(f32::NEG_INFINITY, f32::max);
            group[first] + if size > 1 { second } else { 0.0 }
        })
        .collect();
    let mut kept = vec![false; r.groups];
    for _ in 0..r.kept_groups {
        let best = largest(&value);
        (value[best], kept[best]) = (f32::NEG_INFINITY, true);
    }
    for (group, kept) in biased.chunks_exact_mut(size).zip(kept) {
        if !kept {
            group.fill(f32::NEG_INFINITY);
        }
    }
}

/// d_logits `[T, E]`, written, from d_weights `[T, K]`: through the normalisation and the sigmoid. Choices have no gradient.
pub fn route_backward(d_logits: &mut [f32], d_weights: &[f32], scores: &[f32], chosen: &[u32], r: Routing) {
    let (e, k) = (r.experts, r.chosen);
    let out = Shared::new(d_logits);
    par::ranges(scores.len() / e, (1_usize << 13).div_ceil(e), |range| {
        for t in range {
            let (s, d_w, c) = (&scores[t * e..][..e], &d_weights[t * k..][..k], &chosen[t * k..][..k]);
            // SAFETY: each task owns its rows.
            let d = unsafe { out.slice(t * e, e) };
            d.fill(0.0);
            let score = |i: &u32| s[*i as usize];
            let sum = if r.normalised { c.iter().map(score).sum::<f32>() + 1e-20 } else { 1.0 };
            let shift =
                if r.normalised { c.iter().zip(d_w).map(|(i, d)| score(i) * d).sum::<f32>() / sum } else { 0.0 };
            for (i, d_w) in c.iter().zip(d_w) {
                let s = score(i);
                d[*i as usize] = r.scale * (d_w - shift) / sum * s * (1.0 - s);
            }
        }
    });
}

/// The balance loss of every sequence (equations 17 to 20), each counted by its tokens: `sum over sequences of
/// T_seq sum_i f_i P_i`, to be multiplied by alpha / T. `frequency` `[sequences, E]` receives f.
pub fn balance_loss(frequency: &mut Vec<f32>, scores: &[f32], seg: &Segments, r: Routing) -> f64 {
    let e = r.experts;
    frequency.clear();
    frequency.resize(seg.len() * e, 0.0);
    let mut total = 0.0;
    let (mut share, mut row) = (vec![0f64; e], vec![0f32; e]);
    for (i, f) in frequency.chunks_exact_mut(e).enumerate() {
        share.fill(0.0);
        for s in scores[seg.range(i).start * e..seg.range(i).end * e].chunks_exact(e) {
            let sum: f32 = s.iter().sum();
            row.copy_from_slice(s);
            for _ in 0..r.chosen {
                let best = largest(&row);
                (row[best], f[best]) = (f32::NEG_INFINITY, f[best] + 1.0);
            }
            for (p, s) in share.iter_mut().zip(s) {
                *p += f64::from(s / sum);
            }
        }
        let unit = e as f32 / (r.chosen * seg.range(i).len().max(1)) as f32;
        for (f, p) in f.iter_mut().zip(&share) {
            *f *= unit;
            total += f64::from(*f) * p;
        }
    }
    total
}

/// d_logits += coefficient times the gradient of [`balance_loss`]; f has none.
pub fn balance_backward(
    d_logits: &mut [f32],
    coefficient: f32,
    frequency: &[f32],
    scores: &[f32],
    seg: &Segments,
    r: Routing,
) {
    let e = r.experts;
    for (i, f) in frequency.chunks_exact(e).enumerate() {
        let range = seg.range(i).start * e..seg.range(i).end * e;
        for (d, s) in d_logits[range.clone()].chunks_exact_mut(e).zip(scores[range].chunks_exact(e)) {
            let sum: f32 = s.iter().sum();
            let mean = f.iter().zip(s).map(|(f, s)| f * s).sum::<f32>() / sum;
            for ((d, s), f) in d.iter_mut().zip(s).zip(f) {
                *d += coefficient * (f - mean) / sum * s * (1.0 - s);
            }
        }
    }
}

/// One step of the balancing: every bias moves by `speed` towards the mean load of the step, the sign of the difference alone.
pub fn update_bias(bias: &mut [f32], loads: &[u64], speed: f32) {
    let total: u64 = loads.iter().sum();
    for (b, load) in bias.iter_mut().zip(loads) {
        match (load * loads.len() as u64).cmp(&total) {
            std::cmp::Ordering::Greater => *b -= speed,
            std::cmp::Ordering::Less => *b += speed,
            std::cmp::Ordering::Equal => {}
        }
    }
}

/// Load of the busiest expert over the mean, minus 1; 0 where nothing was routed.
pub fn max_violation(loads: &[u64]) -> f64 {
    share(loads, loads.iter().max()).map_or(0.0, |v| v - 1.0)
}

/// Load of the idlest expert over the mean; 0 where nothing was routed.
pub fn coldest(loads: &[u64]) -> f64 {
    share(loads, loads.iter().min()).unwrap_or(0.0)
}

fn share(loads: &[u64], of: Option<&u64>) -> Option<f64> {
    let total: u64 = loads.iter().sum();
    of.filter(|_| total > 0).map(|v| *v as f64 * loads.len() as f64 / total as f64)
}
