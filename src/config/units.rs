//! Durations and sizes as the configuration writes them: one number, one unit.
//!
//! Exact: decimals are read as integers of the smallest unit, never through floating point. A number too large for its
//! unit becomes the greatest there is, and the range check that follows names the bound.

use std::time::Duration;

/// Units of time, in nanoseconds, the largest first. Months and years have no fixed length and are not there.
const TIMES: [(&str, u128); 6] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
];

/// Units of size, in bytes, the largest first: those of 1024 as memory has them, those of 1000 as disks have.
const SIZES: [(&str, u128); 9] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("KB", 1_000),
    ("B", 1),
];

/// Digits after the point: a nanosecond is the ninth of a second.
const MAX_DECIMALS: usize = 9;

/// Reads `"250ms"`; `None` if it has another form.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let nanos = scaled(text, &TIMES, None)?;
    Some(u64::try_from(nanos).map_or(Duration::MAX, Duration::from_nanos))
}

/// Reads `"256MiB"`, and `"4096"` as bytes; `None` if it has another form.
pub(super) fn size(text: &str) -> Option<u64> {
    Some(u64::try_from(scaled(text, &SIZES, Some(1))?).unwrap_or(u64::MAX))
}

/// As [`duration`] reads it, in the largest unit that leaves no rest.
pub(super) fn show_duration(value: Duration) -> String {
    show(value.as_nanos(), &TIMES, "0s")
}

/// As [`size`] reads it, in the largest unit that leaves no rest.
pub(super) fn show_size(bytes: u64) -> String {
    show(u128::from(bytes), &SIZES, "0B")
}

fn scaled(text: &str, units: &[(&str, u128)], bare: Option<u128>) -> Option<u128> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let scale = match unit {
        "" => bare?,
        _ => units.iter().find(|(name, _)| *name == unit)?.1,
    };
    let (whole, decimals) = match number.split_once('.') {
        Some((whole, decimals)) if !decimals.is_empty() && decimals.len() <= MAX_DECIMALS => (whole, decimals),
        Some(_) => return None,
        None => (number, ""),
    };
    if whole.is_empty() || decimals.contains('.') {
        return None;
    }
    // Only digits are left, so a failure means more of them than 128 bits hold.
    let whole = whole.parse::<u128>().unwrap_or(u128::MAX).saturating_mul(scale);
    // At most nine digits, so the product fits. What lies below the smallest unit falls away.
    let part = decimals.bytes().fold(0, |sum, digit| sum * 10 + u128::from(digit - b'0')) * scale
        / 10_u128.pow(u32::try_from(decimals.len()).unwrap_or(0));
    Some(whole.saturating_add(part))
}

fn show(value: u128, units: &[(&str, u128)], zero: &str) -> String {
    let exact = units.iter().find(|(_, scale)| value != 0 && value.is_multiple_of(*scale));
    exact.map_or_else(|| zero.to_owned(), |(name, scale)| format!("{}{name}", value / scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_one_number_and_one_unit() {
        for (text, nanos) in [
            ("0s", 0),
            ("250ms", 250_000_000),
            ("1.5s", 1_500_000_000),
            ("0.25ms", 250_000),
            ("7us", 7_000),
            ("5m", 300_000_000_000),
            ("1h", 3_600_000_000_000),
            ("2d", 172_800_000_000_000),
        ] {
            assert_eq!(duration(text), Some(Duration::from_nanos(nanos)), "{text}");
        }
        for text in
            ["", "5", "s", "5 s", "5 min", "5min", "-1s", "+1s", "1e3s", "1.s", ".5s", "1.2.3s", "1s ", "1S", "٥s"]
        {
            assert_eq!(duration(text), None, "{text:?}");
        }
        assert_eq!(duration("99999999999999999999999999999999999999999999d"), Some(Duration::MAX));
    }

    #[test]
    fn a_size_is_a_number_and_a_unit_or_bytes() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("12B", 12),
            ("64KiB", 65_536),
            ("64KB", 64_000),
            ("1.5MiB", 1_572_864),
            ("1MB", 1_000_000),
            ("2GiB", 2_147_483_648),
            ("2GB", 2_000_000_000),
        ] {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for text in ["", "B", "1 MiB", "1mib", "-1", "1.5.5MiB", "1Mi", "1M"] {
            assert_eq!(size(text), None, "{text:?}");
        }
        assert_eq!(size("99999999999999999999999999999999999999999999TiB"), Some(u64::MAX));
    }

    #[test]
    fn what_is_shown_reads_back() {
        for text in ["1ms", "90s", "10m", "365d", "500us", "0s"] {
            let value = duration(text).expect("a duration");
            assert_eq!(duration(&show_duration(value)), Some(value), "{text}");
        }
        for text in ["1MiB", "64KB", "1B", "1025B", "0B"] {
            assert_eq!(show_size(size(text).expect("a size")), text);
        }
    }
}
