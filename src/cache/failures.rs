//! Failures that are remembered for a moment, so that the next arrivals don't repeat them.
//!
//! Kept apart from the entries: a failure never displaces a good value. Bounded by count; what is forgotten too early
//! costs one more try.

use quick_cache::sync::Cache;

use super::key::Key;
use crate::clock::Moment;

/// Keys whose failure is remembered at most. A failure is small (some hundred bytes), and an outage that hits more keys
/// than this within a backoff of a second is bounded by admission and by the origin's own state.
const MAX_REMEMBERED: usize = 16_384;

/// Failures by key. `E`: what failed.
pub struct Failures<E> {
    by_key: Cache<Key, (E, Moment)>,
}

impl<E: Clone> Failures<E> {
    /// None yet.
    pub fn new() -> Self {
        Self { by_key: Cache::new(MAX_REMEMBERED) }
    }

    /// Remembers `failure` of `key` until `until`.
    pub fn remember(&self, key: Key, failure: E, until: Moment) {
        self.by_key.insert(key, (failure, until));
    }

    /// The failure of `key` that is in force at `now`, and until when.
    pub fn in_force(&self, key: &[u8], now: Moment) -> Option<(E, Moment)> {
        if self.by_key.is_empty() {
            return None;
        }
        let found = self.by_key.get(key)?;
        if now < found.1 {
            return Some(found);
        }
        self.by_key.remove(key);
        None
    }

    /// Forgets the failure of `key`: the first success ends the backoff.
    pub fn forget(&self, key: &[u8]) {
        if !self.by_key.is_empty() {
            self.by_key.remove(key);
        }
    }
}

impl<E: Clone> Default for Failures<E> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_in_force_until_its_moment_or_the_first_success() {
        let failures = Failures::new();
        let at = Moment::from_nanos;
        failures.remember(Key::new(b"a"), "down", at(10));
        assert_eq!(failures.in_force(b"a", at(9)), Some(("down", at(10))));
        assert_eq!(failures.in_force(b"b", at(9)), None);
        assert_eq!(failures.in_force(b"a", at(10)), None);
        failures.remember(Key::new(b"a"), "down", at(20));
        failures.forget(b"a");
        assert_eq!(failures.in_force(b"a", at(11)), None);
    }
}
