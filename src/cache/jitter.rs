//! How long one entry lives: its ttl, spread so that what was filled together doesn't expire together.

use std::time::Duration;

/// The lifetime of an entry: uniform over `ttl * (1 - jitter) ..= ttl * (1 + jitter)`.
///
/// `draw` is uniform over 0 to 1; `jitter` is a share between 0 and 1. The band is closed: nothing lies beyond it.
pub fn lifetime(ttl: Duration, jitter: f64, draw: f64) -> Duration {
    let factor = 1.0 + jitter.clamp(0.0, 1.0) * (2.0 * draw.clamp(0.0, 1.0) - 1.0);
    // A ttl is at most a year in checked configuration; the guard is for callers that are not.
    Duration::try_from_secs_f64(ttl.as_secs_f64() * factor).unwrap_or(ttl)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_band_is_closed_at_both_ends_and_centred_on_the_ttl() {
        let ttl = Duration::from_secs(10);
        assert_eq!(lifetime(ttl, 0.1, 0.0), Duration::from_secs(9));
        assert_eq!(lifetime(ttl, 0.1, 0.5), ttl);
        assert_eq!(lifetime(ttl, 0.1, 1.0), Duration::from_secs(11));
        assert_eq!(lifetime(ttl, 0.0, 0.9), ttl);
        assert_eq!(lifetime(ttl, 0.5, 7.0), Duration::from_secs(15), "a draw out of range stays within the band");
    }
}
