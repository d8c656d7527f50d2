//! What the system says about the processor's caches.

use std::sync::OnceLock;

/// Bytes of the last-level cache that this processor's cores share; nothing where the system does not say.
pub fn last_level() -> Option<usize> {
    static SIZE: OnceLock<Option<usize>> = OnceLock::new();
    *SIZE.get_or_init(|| {
        let caches = (0..8).map(|i| format!("/sys/devices/system/cpu/cpu0/cache/index{i}/size"));
        caches.filter_map(|path| size(std::fs::read_to_string(path).ok()?.trim())).max()
    })
}

/// `32768K` in bytes.
fn size(text: &str) -> Option<usize> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        _ => return None,
    };
    digits.parse::<usize>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_as_the_system_writes_them() {
        assert_eq!(size("32768K"), Some(32 << 20));
        assert_eq!(size("260M"), Some(260 << 20));
        assert_eq!(size("512"), Some(512));
        for strange in ["", "K", "big", "3G", "-1K", "99999999999999999999K"] {
            assert_eq!(size(strange), None, "{strange}");
        }
    }
}
