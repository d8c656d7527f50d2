//! Divergence of a student from a teacher that is known at its k most likely tokens, straight from hidden states.
//!
//! A row of the teacher is k tokens with their log-probabilities and one bucket for all other tokens. The student's
//! distribution is gathered into the same k + 1 buckets, and these are compared: with p the student and q the teacher,
//! forward KL(q || p) (Hinton et al. 2015), reverse KL(p || q) (MiniLLM, Gu et al. 2023) or their generalised Jensen-Shannon
//! mix (GKD, Agarwal et al. 2023, section 3.1). By the data processing inequality this is at most the divergence over the whole vocabulary,
//! and equal to it with k = V. As in [`crate::logprob`], logits exist for one chunk of rows at a time.
//!
//! With r_b = p_b dL/dp_b and R their sum, dL/dz_j = (p_j / p_b) (r_b - p_b R) / T for a token j of bucket b: the whole
//! gradient is the buckets', spread over the tail in proportion to the student's own probabilities.

use crate::cpu::math;
use crate::linear;
use crate::logprob::{self, CHUNK_BYTES};
use crate::multiversion;
use crate::par::{self, Shared};
use crate::params::Weight;
use crate::scratch;

/// Logarithms of masses that f32 rounds to 0 count as this.
const FLOOR: f64 = -87.3;

/// Rows whose logits exist at once where nothing flows back.
const ROWS: usize = 48;

/// How two distributions are compared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Divergence {
    /// KL(teacher || student): the student covers everything the teacher may say.
    Forward,
    /// KL(student || teacher): the student says nothing the teacher would not.
    Reverse,
    /// beta KL(teacher || m) + (1 - beta) KL(student || m) with m = beta teacher + (1 - beta) student; 0 < beta < 1.
    JensenShannon {
        /// Weight of the teacher.
        beta: f32,
    },
}

/// Distributions of M rows, each at its k most likely tokens.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TopK {
    /// Tokens per row.
    pub k: usize,
    /// `[M, k]` tokens, the most likely first.
    pub ids: Vec<u32>,
    /// `[M, k]` their log-probabilities.
    pub logprobs: Vec<f32>,
    /// `[M]` logarithm of the probability of all other tokens together; -inf where there are none.
    pub tails: Vec<f32>,
}

impl TopK {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.tails.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.tails.is_empty()
    }

    /// Adds the rows of another; an empty one takes its k.
    ///
    /// # Panics
    /// When k differs.
    pub fn append(&mut self, other: &TopK) {
        if self.is_empty() {
            self.k = other.k;
        }
        assert_eq!(self.k, other.k, "rows of different widths");
        self.ids.extend_from_slice(&other.ids);
        self.logprobs.extend_from_slice(&other.logprobs);
        self.tails.extend_from_slice(&other.tails);
    }

    /// Some of the rows.
    pub fn rows(&self, range: std::ops::Range<usize>) -> TopK {
        let wide = range.start * self.k..range.end * self.k;
        TopK {
            k: self.k,
            ids: self.ids[wide.clone()].to_vec(),
            logprobs: self.logprobs[wide].to_vec(),
            tails: self.tails[range].to_vec(),
        }
    }

    /// Probability that the k tokens have together, as a mean over the rows.
    pub fn mean_mass(&self) -> f64 {
        let sum: f64 = self.tails.iter().map(|t| 1.0 - f64::from(*t).exp()).sum();
        sum / self.len().max(1) as f64
    }
}

/// What rows of hidden states are compared with.
#[derive(Clone, Copy, Debug)]
pub struct Comparison<'a> {
    /// The teacher's rows, at the same temperature.
    pub teacher: &'a TopK,
    /// How.
    pub divergence: Divergence,
    /// Divides the student's logits for the comparison.
    pub temperature: f32,
    /// `[M]` tokens whose log-probability (at temperature 1) is wanted as well.
    pub targets: &'a [u32],
}

/// What was found for M rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Compared {
    /// `[M]` divergences.
    pub divergence: Vec<f32>,
    /// `[M]` log-probabilities of the targets at temperature 1.
    pub logp: Vec<f32>,
}

multiversion! {
    /// Sum of a row, 16 lanes.
    fn sum(x: &[f32]) -> f32 {
        let mut lanes = [0f32; math::LANES];
        let chunks = x.chunks_exact(math::LANES);
        let tail = chunks.remainder();
        for c in chunks { for i in 0..math::LANES { lanes[i] += c[i]; } }
        for (i, v) in tail.iter().enumerate() { lanes[i] += v; }
        lanes.iter().sum()
    }
}

/// The divergence of two distributions over the same buckets, and r_b = p_b dL/dp_b for each bucket.
fn buckets(kind: Divergence, log_p: &[f64], log_q: &[f64], r: &mut [f64]) -> f64 {
    let mut value = 0.0;
    for ((r, &lp), &lq) in r.iter_mut().zip(log_p).zip(log_q) {
        let (p, q) = (lp.exp(), lq.exp());
        match kind {
            Divergence::Forward => {
                value += q * (lq - lp);
                *r = -q;
            }
            Divergence::Reverse => {
                value += p * (lp - lq);
                *r = p * (lp - lq + 1.0);
            }
            Divergence::JensenShannon { beta } => {
                let beta = f64::from(beta);
                // The mixture's logarithm from the larger of the two, so that neither underflows alone.
                let (a, b) = (beta.ln() + lq, (1.0 - beta).ln() + lp);
                let lm = a.max(b) + (-(a - b).abs()).exp().ln_1p();
                value += beta * q * (lq - lm) + (1.0 - beta) * p * (lp - lm);
                *r = (1.0 - beta) * p * (lp - lm);
            }
        }
    }
    value
}

/// Buffers of one row.
struct Row {
    log_p: Vec<f64>,
    log_q: Vec<f64>,
    r: Vec<f64>,
}

/// What a row came to: the sum of the exponentials in the tail, and the divergence.
struct RowSums {
    tail: f32,
    value: f64,
}

impl Row {
    fn new(k: usize) -> Self {
        let buffer = || vec![0.0; k + 1];
        Row { log_p: buffer(), log_q: buffer(), r: buffer() }
    }

    /// Compares row `i` of the teacher with logits z, which become exp((z - max) / T), 0 at the teacher's tokens. Buckets
    /// that are in neither distribution (a tail of nothing) are left out.
    fn compare(&mut self, z: &mut [f32], c: &Comparison, i: usize, max: f32) -> RowSums {
        let t = c.teacher;
        let (k, inverse) = (t.k, 1.0 / c.temperature);
        let ids = &t.ids[i * k..(i + 1) * k];
        for (log_p, id) in self.log_p.iter_mut().zip(ids) {
            *log_p = f64::from(z[*id as usize] - max) * f64::from(inverse);
        }
        let log_sum = f64::from(math::exp_sum(z, max, inverse)).ln();
        ids.iter().for_each(|id| z[*id as usize] = 0.0);
        let tail = sum(z);
        self.log_p[..k].iter_mut().for_each(|v| *v -= log_sum);
        self.log_p[k] = (f64::from(tail).ln() - log_sum).max(FLOOR);
        for (log_q, v) in self.log_q.iter_mut().zip(&t.logprobs[i * k..(i + 1) * k]) {
            *log_q = f64::from(*v);
        }
        self.log_q[k] = f64::from(t.tails[i]).max(FLOOR);
        let used = if k < z.len() { k + 1 } else { k };
        self.r[k] = 0.0;
        let value = buckets(c.divergence, &self.log_p[..used], &self.log_q[..used], &mut self.r[..used]);
        RowSums { tail, value }
    }

    /// Turns what [`Row::compare`] left in z into weight * dL/dz.
    fn gradient(&self, z: &mut [f32], c: &Comparison, i: usize, sums: &RowSums, weight: f32) {
        let k = c.teacher.k;
        let weight = f64::from(weight) / f64::from(c.temperature);
        let total: f64 = self.r.iter().sum();
        let of = |b: usize| weight * (self.r[b] - self.log_p[b].exp() * total);
        let tail = if k < z.len() && sums.tail > 0.0 { (of(k) / f64::from(sums.tail)) as f32 } else { 0.0 };
        math::scale(z, tail);
        for (b, id) in c.teacher.ids[i * k..(i + 1) * k].iter().enumerate() {
            z[*id as usize] = of(b) as f32;
        }
    }
}

fn check(h: &[f32], w: Weight, c: &Comparison) {
    let m = c.targets.len();
    let fits = h.len() == m * w.k && c.teacher.len() == m && c.teacher.ids.len() == m * c.teacher.k;
    assert!(fits && c.teacher.k <= w.n, "divergence: shapes");
}

/// Divergences `[M]` and log-probabilities of the targets `[M]` from h `[M, D]` and the output matrix `[V, D]`.
pub fn forward(h: &[f32], w: Weight, c: &Comparison) -> Compared {
    check(h, w, c);
    let (m, vocab) = (c.targets.len(), w.n);
    let mut out = Compared { divergence: vec![0.0; m], logp: vec![0.0; m] };
    let (divergence, logp) = (Shared::new(&mut out.divergence), Shared::new(&mut out.logp));
    each_row(h, w, |i, z| {
        let max = math::max(z);
        let target = c.targets[i] as usize;
        let own = scratch::floats(vocab, |copy| {
            copy.copy_from_slice(z);
            logprob::row(copy, 1.0).of(z[target], 1.0)
        });
        let value = Row::new(c.teacher.k).compare(z, c, i, max).value;
        // SAFETY: each task owns its rows.
        unsafe {
            divergence.slice(i, 1)[0] = value as f32;
            logp.slice(i, 1)[0] = own;
        }
    });
    out
}

/// Calls `f` with every row's logits, on all threads, a few rows of them at a time.
fn each_row(h: &[f32], w: Weight, f: impl Fn(usize, &mut [f32]) + Sync) {
    let (vocab, d) = (w.n, w.k);
    par::ranges(h.len() / d, 24, |range| {
        par::serial(|| {
            scratch::floats(ROWS.min(range.len()) * vocab, |logits| {
                for r0 in range.clone().step_by(ROWS) {
                    let rows = (range.end - r0).min(ROWS);
                    let z = &mut logits[..rows * vocab];
                    linear::forward(z, &h[r0 * d..(r0 + rows) * d], w, false);
                    z.chunks_exact_mut(vocab).enumerate().for_each(|(i, z)| f(r0 + i, z));
                }
            });
        });
    });
}

/// Gradients of sum(d_divergence * divergence + d_logp * logp): d_h += and, unless empty, d_w += (panels). The weights of a
/// distillation loss do not depend on its values, so these come out of the same pass.
pub fn backward(
    d_h: &mut [f32],
    d_w: &mut [f32],
    h: &[f32],
    w: Weight,
    c: &Comparison,
    d_divergence: &[f32],
    d_logp: &[f32],
) -> Compared {
    check(h, w, c);
    let (m, vocab, d) = (c.targets.len(), w.n, w.k);
    let mut out = Compared { divergence: vec![0.0; m], logp: vec![0.0; m] };
    let chunk = (CHUNK_BYTES / (vocab * 4)).clamp(16, 4096).min(m.max(1));
    for r0 in (0..m).step_by(chunk) {
        let rows = (m - r0).min(chunk);
        let (divergence, logp) = (Shared::new(&mut out.divergence), Shared::new(&mut out.logp));
        scratch::floats(rows * vocab, |z| {
            let h = &h[r0 * d..(r0 + rows) * d];
            linear::forward(z, h, w, false);
            let shared = Shared::new(z);
            par::ranges(rows, (1_usize << 14).div_ceil(vocab), |range| {
                let mut row = Row::new(c.teacher.k);
                for i in range {
                    let at = r0 + i;
                    // SAFETY: each task owns its rows.
                    let z = unsafe { shared.slice(i * vocab, vocab) };
                    let own = differentiate(&mut row, z, c, at, d_divergence[at], d_logp[at]);
                    // SAFETY: as above.
                    unsafe {
                        divergence.slice(at, 1)[0] = own.0;
                        logp.slice(at, 1)[0] = own.1;
                    }
                }
            });
            linear::backward_input(&mut d_h[r0 * d..(r0 + rows) * d], &*z, w, true);
            if !d_w.is_empty() {
                linear::backward_weight(d_w, &*z, h, w);
            }
        });
    }
    out
}

/// One row: logits z become the loss's gradient with respect to them; its divergence and its target's log-probability.
fn differentiate(row: &mut Row, z: &mut [f32], c: &Comparison, at: usize, d_div: f32, d_logp: f32) -> (f32, f32) {
    let (max, target) = (math::max(z), c.targets[at] as usize);
    let logit = z[target];
    scratch::floats(z.len(), |other| {
        other.copy_from_slice(z);
        let sum = math::exp_sum(other, max, 1.0);
        let sums = row.compare(z, c, at, max);
        row.gradient(z, c, at, &sums, d_div);
        if d_logp != 0.0 {
            math::axpy(z, -d_logp / sum, other);
            z[target] += d_logp;
        }
        (sums.value as f32, (logit - max) - sum.ln())
    })
}

/// What a teacher is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ask {
    /// Tokens per row.
    pub k: usize,
    /// Divides the logits.
    pub temperature: f32,
    /// Tokens the student knows; others count as the rest (vocabularies of one family are padded to different sizes).
    pub vocab: usize,
}

/// The k most likely tokens of every row of h `[M, D]`; all of the vocabulary where k is larger.
pub fn top_k(h: &[f32], w: Weight, ask: Ask) -> TopK {
    let known = ask.vocab.min(w.n);
    let (m, k, inverse) = (h.len() / w.k, ask.k.min(known), 1.0 / ask.temperature);
    let mut out = TopK { k, ids: vec![0; m * k], logprobs: vec![0.0; m * k], tails: vec![0.0; m] };
    let (ids, logprobs, tails) =
        (Shared::new(&mut out.ids), Shared::new(&mut out.logprobs), Shared::new(&mut out.tails));
    each_row(h, w, |i, z| {
        // SAFETY: each task owns its rows.
        let (ids, logprobs, tails) = unsafe { (ids.slice(i * k, k), logprobs.slice(i * k, k), tails.slice(i, 1)) };
        let best = largest(&z[..known], k);
        for ((id, logit), (to_id, to)) in best.iter().zip(ids.iter_mut().zip(logprobs.iter_mut())) {
            (*to_id, *to) = (*id, *logit);
        }
        let stats = logprob::row(z, inverse);
        logprobs.iter_mut().for_each(|v| *v = stats.of(*v, inverse));
        ids.iter().for_each(|id| z[*id as usize] = 0.0);
        tails[0] = if k < z.len() { (sum(z).ln() - stats.log_sum).max(FLOOR as f32) } else { f32::NEG_INFINITY };
    });
    out
}

/// The k largest entries with their places, the largest first; of equal ones the first.
fn largest(z: &[f32], k: usize) -> Vec<(u32, f32)> {
    let order = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    let mut kept: Vec<(u32, f32)> = Vec::with_capacity(4 * k + 64);
    // Whatever is not above the k-th largest so far cannot be among them: later equal ones come after it.
    let mut bound = f32::NEG_INFINITY;
    for (i, &v) in z.iter().enumerate() {
        if v > bound || kept.len() < k {
            if kept.len() == kept.capacity() {
                kept.select_nth_unstable_by(k - 1, order);
                kept.truncate(k);
                bound = kept[k - 1].1;
                if v <= bound {
                    continue;
                }
            }
            kept.push((i as u32, v));
        }
    }
    kept.sort_unstable_by(order);
    kept.truncate(k);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_are_found_and_ties_go_to_the_first() {
        for (n, k) in [(1, 1), (40, 40), (1000, 3), (5000, 17), (300, 100)] {
            let z: Vec<f32> = (0..n).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 20) as f32 / 16.0).collect();
            let z: Vec<f32> = z.into_iter().map(f32::floor).collect();
            let mut want: Vec<(u32, f32)> = z.iter().enumerate().map(|(i, v)| (i as u32, *v)).collect();
            want.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            assert_eq!(largest(&z, k), want[..k], "{n} {k}");
        }
        let rising: Vec<f32> = (0..2000).map(|i| i as f32).collect();
        assert_eq!(largest(&rising, 2), [(1999, 1999.0), (1998, 1998.0)]);
    }
}
