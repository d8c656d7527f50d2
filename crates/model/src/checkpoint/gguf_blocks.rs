//! GGUF's quantised blocks, taken apart: the whole numbers, and what they are multiplied with.
//!
//! A block of 32 values (legacy types) or 256 (k-quants) holds small whole numbers, an f16 step, and for k-quants a small
//! scale per 16 or 32 values. Layouts as in the GGML format.

use aha_kernels::quant::QuantRows;
use candle_core::quantized::GgmlDType;
use half::f16;

/// Whether blocks of this type can be taken apart here.
pub(super) fn supported(dtype: GgmlDType) -> bool {
    use GgmlDType::{Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};
    matches!(dtype, Q4_0 | Q4_1 | Q5_0 | Q5_1 | Q8_0 | Q4K | Q5K | Q6K)
}

/// Rows `[n, k]` from raw blocks of a supported type.
pub(super) fn rows(dtype: GgmlDType, raw: &[u8], n: usize, k: usize) -> QuantRows {
    let (bits, group, offset, min) = match dtype {
        GgmlDType::Q4_0 => (4, 32, 8, false),
        GgmlDType::Q4_1 | GgmlDType::Q4K => (4, 32, 0, true),
        GgmlDType::Q5_0 => (5, 32, 16, false),
        GgmlDType::Q5_1 | GgmlDType::Q5K => (5, 32, 0, true),
        GgmlDType::Q6K => (8, 16, 32, false),
        _ => (8, 32, 128, false),
    };
    let mut out = QuantRows { n, k, group, bits, q: vec![0; n * k], d: Vec::new(), m: Vec::new(), offset };
    let values = dtype.block_size();
    for (block, q) in raw.chunks_exact(dtype.type_size()).zip(out.q.chunks_exact_mut(values)) {
        match dtype {
            GgmlDType::Q4_0 => out.d.push(legacy(q, float(block, 0), &block[2..], 0)),
            GgmlDType::Q4_1 => out.d.push(legacy(q, float(block, 0), &block[4..], 0)),
            GgmlDType::Q5_0 => out.d.push(legacy(q, float(block, 0), &block[6..], word(block, 2))),
            GgmlDType::Q5_1 => out.d.push(legacy(q, float(block, 0), &block[8..], word(block, 4))),
            GgmlDType::Q4K | GgmlDType::Q5K => k_block(block, dtype, q, &mut out.d, &mut out.m),
            GgmlDType::Q6K => six_bits(block, q, &mut out.d),
            _ => {
                out.d.push(float(block, 0));
                for (q, b) in q.iter_mut().zip(&block[2..]) {
                    *q = b.wrapping_add(128);
                }
            }
        }
        if min && values == 32 {
            out.m.push(-float(block, 2));
        }
    }
    out
}

fn float(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

fn word(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}

/// 32 values: 16 in the low nibbles, 16 in the high ones, fifth bits in `high`. Returns the step.
fn legacy(q: &mut [u8], step: f32, nibbles: &[u8], high: u32) -> f32 {
    for (j, b) in nibbles.iter().enumerate().take(16) {
        q[j] = b & 15 | ((high >> j & 1) << 4) as u8;
        q[j + 16] = b >> 4 | ((high >> (j + 16) & 1) << 4) as u8;
    }
    step
}

/// Q4_K and Q5_K: eight groups of 32 with 6-bit scales and minima; Q5_K's fifth bits come before the nibbles.
fn k_block(block: &[u8], dtype: GgmlDType, q: &mut [u8], d: &mut Vec<f32>, m: &mut Vec<f32>) {
    let (step, least, scales) = (float(block, 0), float(block, 2), &block[4..16]);
    let (high, nibbles) = if dtype == GgmlDType::Q5K { block[16..].split_at(32) } else { (&[][..], &block[16..]) };
    for g in 0..8 {
        let (scale, min) = if g < 4 {
            (scales[g] & 63, scales[g + 4] & 63)
        } else {
            (scales[g + 4] & 15 | scales[g - 4] >> 6 << 4, scales[g + 4] >> 4 | scales[g] >> 6 << 4)
        };
        d.push(step * f32::from(scale));
        m.push(least * f32::from(min));
        for (l, q) in q[g * 32..(g + 1) * 32].iter_mut().enumerate() {
            let low = nibbles[g / 2 * 32 + l] >> (g % 2 * 4) & 15;
            *q = low | high.get(l).map_or(0, |h| (h >> g & 1) << 4);
        }
    }
}

/// Q6_K: two halves of 128; four low bits, two high bits, an 8-bit scale per 16 values.
fn six_bits(block: &[u8], q: &mut [u8], d: &mut Vec<f32>) {
    let step = float(block, 208);
    d.extend(block[192..208].iter().map(|s| step * f32::from(*s as i8)));
    for half in 0..2 {
        let (low, high) = (&block[half * 64..half * 64 + 64], &block[128 + half * 32..128 + half * 32 + 32]);
        for part in 0..4 {
            for l in 0..32 {
                let nibble = low[part % 2 * 32 + l] >> (part / 2 * 4) & 15;
                q[half * 128 + part * 32 + l] = nibble | (high[l] >> (2 * part) & 3) << 4;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::quantized::QTensor;
    use candle_core::{Device, Tensor};

    #[test]
    fn blocks_hold_what_candle_reads_from_them() {
        use GgmlDType::{Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};
        let (n, k) = (3, 512);
        let values: Vec<f32> =
            (0..n * k).map(|i| ((i * 7919 % 1013) as f32 / 500.0 - 1.0) * (1.0 + i as f32 / 900.0)).collect();
        let tensor = Tensor::from_vec(values, (n, k), &Device::Cpu).unwrap();
        for dtype in [Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4K, Q5K, Q6K] {
            let quantised = QTensor::quantize(&tensor, dtype).unwrap();
            let want: Vec<f32> = quantised.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap().to_vec1().unwrap();
            let ours = rows(dtype, &quantised.data().unwrap(), n, k);
            assert!(supported(dtype) && ours.q.iter().all(|q| u32::from(*q) < 1 << ours.bits));
            for (i, (a, b)) in ours.to_f32().iter().zip(&want).enumerate() {
                assert!((a - b).abs() <= 1e-6 * (1.0 + b.abs()), "{dtype:?} at {i}: {a} {b}");
            }
        }
    }
}
