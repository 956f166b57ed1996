//! When to refresh before the end of a lifetime: XFetch.
//!
//! A. Vattani, F. Chierichetti, K. Lowenstein: Optimal Probabilistic Cache Stampede Prevention, PVLDB 8 (2015), section 4:
//! a reader at `now` refreshes when `now - delta * beta * ln(draw) >= expiry`, `delta` being what the last rebuild took.
//! Each reader draws for itself, so the more a key is read, the earlier it is refreshed, and a key that is hardly read is
//! not refreshed early at all. It decides, and the flight dedupes: without one there would be about 2.7 rebuilds per
//! expiry.

use std::time::Duration;

use crate::clock::Moment;

/// A draw has 53 bits, so `-ln` of it is at most 36.8: further from expiry than this many deltas none says yes.
const REACH: f64 = 37.0;

/// How long before expiry a draw can say yes at all.
pub fn reach(delta: Duration, beta: f64) -> Duration {
    // Both are bounded where the configuration is checked; beyond all bounds, always.
    Duration::try_from_secs_f64(delta.as_secs_f64() * beta * REACH).unwrap_or(Duration::MAX)
}

/// Whether a reader at `now` refreshes. `draw` is uniform over 0 (included) to 1 (not included).
pub fn is_due(now: Moment, expires: Moment, delta: Duration, beta: f64, draw: f64) -> bool {
    // 1 - draw is never zero, whose logarithm would refresh at any distance.
    let lead = delta.as_secs_f64() * beta * -(1.0 - draw).ln();
    beta > 0.0 && expires.since(now).as_secs_f64() <= lead
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELTA: Duration = Duration::from_millis(100);

    #[test]
    fn a_draw_decides_by_the_distance_in_deltas() {
        let expires = Moment::from_nanos(10_000_000_000);
        // A draw of 1 - 1/e leads by exactly one delta.
        let draw = 1.0 - (-1.0f64).exp();
        let before = |left: Duration| expires - left;
        assert!(is_due(before(Duration::from_millis(99)), expires, DELTA, 1.0, draw));
        assert!(!is_due(before(Duration::from_millis(101)), expires, DELTA, 1.0, draw));
        assert!(is_due(before(Duration::from_millis(199)), expires, DELTA, 2.0, draw));
        assert!(!is_due(before(Duration::from_millis(1)), expires, DELTA, 0.0, 0.999), "beta 0 turns it off");
        assert!(is_due(expires, expires, DELTA, 1.0, 0.0), "at expiry every draw says yes");
    }

    #[test]
    fn no_draw_reaches_further_than_its_reach() {
        let expires = Moment::from_nanos(10_000_000_000);
        let largest = 1.0 - f64::EPSILON / 2.0;
        assert!(!is_due(expires - reach(DELTA, 1.0), expires, DELTA, 1.0, largest));
        assert!(is_due(expires - reach(DELTA, 1.0).mul_f64(0.98), expires, DELTA, 1.0, largest));
    }
}
