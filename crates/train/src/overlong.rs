//! The soft overlong punishment of DAPO (eq. 13): a reward that falls from 0 to -1 over the last `cache_length` tokens
//! before the limit, so that a sound but long answer is not treated like a wrong one.

/// Penalty for a completion of `length` tokens (end-of-sequence token included), between -1 and 0.
///
/// 0 up to `max_length - cache_length`, then linear to -1 at `max_length`, and -1 beyond. A `cache_length` of 0 is a hard
/// limit; one above `max_length` counts as `max_length`.
pub fn soft_overlong_penalty(length: usize, max_length: usize, cache_length: usize) -> f64 {
    let cache = cache_length.min(max_length);
    let start = max_length - cache;
    if length <= start {
        0.0
    } else if length <= max_length {
        -((length - start) as f64) / cache as f64
    } else {
        -1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_the_paper() {
        // DAPO's own setting: expected 16,384 tokens, 4,096 more before the limit of 20,480.
        let penalty = |length| soft_overlong_penalty(length, 20_480, 4_096);
        assert_eq!(penalty(0), 0.0);
        assert_eq!(penalty(16_384), 0.0);
        assert_eq!(penalty(16_385), -1.0 / 4_096.0);
        assert_eq!(penalty(18_432), -0.5);
        assert_eq!(penalty(20_480), -1.0);
        assert_eq!(penalty(20_481), -1.0);
        assert_eq!(penalty(usize::MAX), -1.0);
    }

    #[test]
    fn edges() {
        assert_eq!(soft_overlong_penalty(10, 10, 0), 0.0);
        assert_eq!(soft_overlong_penalty(11, 10, 0), -1.0);
        assert_eq!(soft_overlong_penalty(5, 10, 20), -0.5);
        assert_eq!(soft_overlong_penalty(0, 0, 0), 0.0);
        assert_eq!(soft_overlong_penalty(1, 0, 5), -1.0);
    }

    #[test]
    fn never_rises_with_length() {
        for pair in (0..300).map(|n| soft_overlong_penalty(n, 256, 64)).collect::<Vec<_>>().windows(2) {
            assert!(pair[1] <= pair[0] && pair[1] >= -1.0);
        }
    }
}
