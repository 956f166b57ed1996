//! How often a caller may ask, and how many of its requests may wait at a time.
//!
//! Rates by GCRA (ITU-T I.371, the leaky bucket as a meter), without a lock. Only requests that wait for something hold a
//! place: a hit is over before another could be counted.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

/// What the configuration says. `None`: no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limit {
    /// Requests a second, in the long run.
    pub rate: Option<NonZeroU32>,
    /// Requests at once, before the rate counts; `None`: as many as in a second.
    pub burst: Option<NonZeroU32>,
    /// Requests that wait at a time.
    pub concurrency: Option<usize>,
}

/// The limits of one caller, with what it has used of them.
pub struct Limits {
    rate: Option<DefaultDirectRateLimiter>,
    concurrency: usize,
    waiting: AtomicUsize,
}

impl std::fmt::Debug for Limits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Limits").field("waiting", &self.waiting).finish_non_exhaustive()
    }
}

impl Limits {
    /// None at all.
    pub fn none() -> Self {
        Self::new(Limit::default())
    }

    /// These, nothing of them used.
    pub fn new(limit: Limit) -> Self {
        let rate = limit.rate.map(|rate| {
            let quota = Quota::per_second(rate).allow_burst(limit.burst.unwrap_or(rate));
            RateLimiter::direct(quota)
        });
        Self { rate, concurrency: limit.concurrency.unwrap_or(usize::MAX), waiting: AtomicUsize::new(0) }
    }

    /// Counts a request.
    ///
    /// # Errors
    /// How long it takes until the next one is let through.
    #[inline]
    pub fn take(&self) -> Result<(), Duration> {
        let Some(rate) = &self.rate else { return Ok(()) };
        rate.check().map_err(|not_until| not_until.wait_time_from(DefaultClock::default().now()))
    }

    /// Whether requests that wait are counted at all.
    #[inline]
    pub fn is_bounded(&self) -> bool {
        self.concurrency < usize::MAX
    }

    /// A place among those that wait, given back when it is dropped; `None`: all are taken.
    pub fn wait(self: &Arc<Self>) -> Option<Place> {
        let taken = self
            .waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < self.concurrency).then_some(n + 1));
        taken.is_ok().then(|| Place(Arc::clone(self)))
    }
}

/// A place among those that wait.
#[derive(Debug)]
pub struct Place(Arc<Limits>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_it_is_said_how_long_to_wait() {
        let limits = Limits::new(Limit { rate: NonZeroU32::new(1), burst: NonZeroU32::new(3), concurrency: None });
        for _ in 0..3 {
            assert_eq!(limits.take(), Ok(()));
        }
        let wait = limits.take().expect_err("the fourth");
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(1), "{wait:?}");
        let unlimited = Limits::none();
        assert!((0..10_000).all(|_| unlimited.take().is_ok()));
    }

    #[test]
    fn as_many_wait_as_may_and_a_place_comes_back() {
        let limits = Arc::new(Limits::new(Limit { concurrency: Some(2), ..Limit::default() }));
        let (one, two) = (limits.wait(), limits.wait());
        assert!(one.is_some() && two.is_some() && limits.wait().is_none());
        drop(one);
        assert!(limits.wait().is_some(), "given back at once");
        let (none, other) = (Arc::new(Limits::none()), limits.wait());
        assert!(none.wait().is_some() && other.is_some() && limits.wait().is_none());
    }
}
