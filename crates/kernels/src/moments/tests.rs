//! Moments in 8 bits: what is stored, how it is rounded, what comes back.

use super::*;
use crate::dice::Rounded;
use crate::linear::tests::noise;

fn dice(step: u64, second: bool, first: usize) -> Noise {
    Noise { seed: 1, step, parameter: 3, what: if second { Rounded::Second } else { Rounded::First }, first }
}

/// Magnitudes between 2^-`octaves` and 1, the first of each block 1; signs for a first moment.
fn magnitudes(len: usize, octaves: f32, second: bool) -> Vec<f32> {
    let draws = noise(len, 7);
    let one = |(i, u): (usize, &f32)| {
        let magnitude = if i % BLOCK == 0 { 1.0 } else { (octaves * (u.abs() - 1.0)).exp2() };
        if second || i % 3 == 0 { magnitude } else { -magnitude }
    };
    draws.iter().enumerate().map(one).collect()
}

fn stored(values: &[f32], step: u64, second: bool) -> Vec<f32> {
    let mut moment = Moment::zero(MomentType::EightBit, second, values.len());
    moment.set(values.to_vec(), Some(dice(step, second, 0)));
    moment.values(0..values.len()).into_owned()
}

#[test]
fn a_stored_value_is_off_by_less_than_a_unit() {
    for (second, octaves, limit) in [(false, 14.0, 1.0 / 8.0), (true, 28.0, 1.0 / 16.0)] {
        for scale in [1.0f32, 0.7, 3e4, 1e-6, 1e-12] {
            let values: Vec<f32> = magnitudes(5000, octaves, second).iter().map(|v| v * scale).collect();
            for step in 1..20 {
                for (v, found) in values.iter().zip(stored(&values, step, second)) {
                    let ratio = f64::from(found) / f64::from(*v);
                    let error = (if second { ratio.sqrt() } else { ratio } - 1.0).abs();
                    assert!(error < limit + 1e-6, "{v} became {found}");
                }
            }
        }
    }
}

#[test]
fn rounding_is_unbiased_over_steps_and_over_values() {
    for second in [false, true] {
        let within = |sum: f64, squares: f64, n: f64, want: f64| {
            let mean = sum / n;
            let error = ((squares / n - mean * mean).max(0.0) / n).sqrt();
            assert!((mean - want).abs() <= 5.0 * error + 2e-6 * want.abs(), "{mean} not {want} within {error}");
        };
        let values = magnitudes(2 * BLOCK, 20.0, second);
        let steps = 4000;
        let mut sums = vec![(0.0, 0.0); values.len()];
        for step in 1..=steps {
            for ((sum, squares), v) in sums.iter_mut().zip(stored(&values, step, second)) {
                *sum += f64::from(v);
                *squares += f64::from(v) * f64::from(v);
            }
        }
        for (v, (sum, squares)) in values.iter().zip(sums) {
            within(sum, squares, steps as f64, f64::from(*v));
        }
        let mut values = vec![0.3f32; 1 << 16];
        values.iter_mut().step_by(BLOCK).for_each(|v| *v = 1.0);
        let found: Vec<f64> = stored(&values, 5, second).into_iter().filter(|v| *v != 1.0).map(f64::from).collect();
        let squares = found.iter().map(|v| v * v).sum();
        within(found.iter().sum(), squares, found.len() as f64, f64::from(0.3f32));
    }
}

#[test]
fn a_second_moment_decays_without_gradients() {
    // The first of each block is the largest and stays, so that the others cannot decay by the scale alone.
    let large = 2f32.powi(-14);
    let pin = |values: &mut [f32]| values.iter_mut().step_by(BLOCK).for_each(|v| *v = large);
    let mut values: Vec<f32> = noise(1 << 14, 9).iter().map(|v| 1e-6 * (4.0 * v).exp2()).collect();
    pin(&mut values);
    let mut moment = Moment::zero(MomentType::EightBit, true, values.len());
    moment.set(values, None);
    let sum = |m: &Moment| m.values(0..m.len()).iter().filter(|v| **v != large).map(|v| f64::from(*v)).sum::<f64>();
    let before = sum(&moment);
    for step in 1..=2000 {
        moment.chunks_mut(CHUNK).enumerate().for_each(|(i, mut piece)| {
            let mut wide = [0f32; CHUNK];
            piece.read(&mut wide);
            wide.iter_mut().for_each(|v| *v *= 0.999);
            pin(&mut wide);
            piece.write(&wide, dice(step, true, i * CHUNK));
        });
    }
    let ratio = sum(&moment) / before / 0.999f64.powi(2000);
    assert!((ratio - 1.0).abs() < 0.02, "{ratio} of what it should be");
}

#[test]
fn above_zero_stays_above_zero_and_zero_is_zero() {
    for len in [1, 7, 255, 256, 257, 1500] {
        assert!([false, true].iter().all(|second| stored(&vec![0.0; len], 1, *second) == vec![0.0; len]));
        for scale in [1e-30f32, 1e-8, 1.0, 1e30] {
            let values: Vec<f32> = magnitudes(len, 90.0, true).iter().map(|v| v * scale).collect();
            let found = stored(&values, 1, true);
            assert!(values.iter().zip(&found).all(|(v, f)| f.is_finite() && (*v > 0.0) == (*f > 0.0)), "{scale}");
            assert!((found[0] / scale - 1.0).abs() <= if scale < 1e-28 { 0.125 } else { 0.0 });
            let signed: Vec<f32> = values.iter().map(|v| -v).collect();
            let found = stored(&signed, 1, false);
            assert!(found[0] == -scale && found.iter().all(|v| *v <= 0.0 && *v >= -scale));
        }
    }
    let mixed = [1e30, 1e-30, 0.0, 1e30];
    let found = stored(&mixed, 1, true);
    assert!(found[1] > 0.0 && found[1] < 1e21 && found[2] == 0.0, "{found:?}");
    assert_eq!(stored(&[1e30, 1e-30, 0.0, -1e30], 1, false), [1e30, 0.0, 0.0, -1e30]);
}

/// Every code there is, each block with a scale of its own.
fn every_code(second: bool, scales: Vec<f32>) -> Moment {
    let top = if second { 248u8 } else { 120 };
    let mut codes: Vec<u8> = (0..=top).chain(if second { 0..=0 } else { 0x80..=0x80 + top }).collect();
    codes.resize(BLOCK, top);
    Moment::EightBit(Blocks { codes: codes.repeat(scales.len()), scales, second })
}

#[test]
fn what_was_read_is_set_with_the_same_bits() {
    for (second, floor) in [(false, floor::<SIGNED>()), (true, floor::<UNSIGNED>())] {
        let (low, high) = (floor.to_bits(), f32::MAX.to_bits());
        let mut scales: Vec<f32> = (low..high).step_by(98_765).map(f32::from_bits).collect();
        scales.extend([floor, f32::MAX, 1.0, f32::from_bits(low + 1), f32::from_bits(high - 1)]);
        let moment = every_code(second, scales.clone());
        let values = moment.values(0..moment.len()).into_owned();
        for (scale, block) in scales.iter().zip(values.chunks(BLOCK)) {
            assert_eq!(block[BLOCK - 1], *scale, "the largest value is exact");
        }
        let mut copy = Moment::zero(MomentType::EightBit, second, moment.len());
        copy.set(values, None);
        let (Moment::EightBit(moment), Moment::EightBit(copy)) = (&moment, &copy) else { unreachable!() };
        assert!(moment == copy);
    }
    // A block below the floor has no code of 1.
    for second in [false, true] {
        let values: Vec<f32> = magnitudes(300, 10.0, second).iter().map(|v| v * 1e-36).collect();
        let once = stored(&values, 1, second);
        let mut again = Moment::zero(MomentType::EightBit, second, once.len());
        again.set(once.clone(), None);
        assert_eq!(*again.values(0..once.len()), once);
    }
}

#[test]
fn ranges_and_pieces_are_parts_of_the_whole() {
    for kind in [MomentType::F32, MomentType::Bf16, MomentType::EightBit] {
        for second in [false, true] {
            let values = magnitudes(3000, 12.0, second);
            let mut whole = Moment::zero(kind, second, values.len());
            whole.set(values.clone(), Some(dice(4, second, 0)));
            let all = whole.values(0..3000).into_owned();
            for range in [0..0, 0..1, 255..257, 256..512, 700..2999, 3000..3000] {
                assert_eq!(*whole.values(range.clone()), all[range]);
            }
            let mut pieces = Moment::zero(kind, second, values.len());
            pieces.chunks_mut(512).zip(values.par_chunks(512)).enumerate().for_each(|(i, (mut piece, values))| {
                piece.write(values, dice(4, second, i * 512));
            });
            assert_eq!(*pieces.values(0..3000), all);
        }
    }
    let bytes = |kind| Moment::zero(kind, true, 3000).bytes();
    assert_eq!([MomentType::F32, MomentType::Bf16, MomentType::EightBit].map(bytes), [12_000, 6000, 3048]);
}

/// Run it with `AHA_ISA=portable`, `avx2` and `avx512`: all give these bits.
#[test]
fn bits_are_the_same_with_every_instruction_set() {
    let sums = [false, true].map(|second| {
        let values = noise(3000, 11).iter().map(|v| if second { v * v * v * v } else { v * v * v }).collect();
        let mut moment = Moment::zero(MomentType::EightBit, second, 3000);
        moment.set(values, Some(dice(1 << 40, second, 1 << 33)));
        let Moment::EightBit(blocks) = &moment else { unreachable!() };
        let words = blocks.codes.iter().map(|c| u32::from(*c)).chain(blocks.scales.iter().map(|s| s.to_bits()));
        let words = words.chain(moment.values(0..3000).iter().map(|v| v.to_bits()).collect::<Vec<_>>());
        words.fold(0x811c_9dc5u32, |sum, word| (sum ^ word).wrapping_mul(0x0100_0193))
    });
    assert_eq!(sums, [0xdd200773, 0xfcf7763a]);
}
