//! Whether connections move, at a cost that a hit doesn't notice.
//!
//! A timer per request (hyper's own way) is reset with every answer. Here a connection notes the tick of its last write,
//! one relaxed store, and a sweep over all connections ends those that have neither written nor had a request running
//! for too long: idle ones, and those whose next head doesn't come, or comes byte by byte.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

/// Ticks since the listener began; wraps around after decades.
#[derive(Debug, Default)]
pub(super) struct Ticks(AtomicU32);

impl Ticks {
    /// The next tick.
    pub(super) fn advance(&self) -> u32 {
        self.0.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
    }

    fn now(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How often to sweep, and how many ticks a connection may stand still, for a bound on stillness. A connection is ended
/// between one and one and an eighth times the bound after it last moved.
pub(super) fn pace(still_for: Duration) -> (Duration, u32) {
    const TICKS: u32 = 8;
    ((still_for / TICKS).max(Duration::from_millis(10)), TICKS)
}

/// One connection's signs of life.
#[derive(Debug)]
pub(super) struct Pulse {
    ticks: Arc<Ticks>,
    last: AtomicU32,
    running: AtomicUsize,
}

impl Pulse {
    /// A connection that has just been accepted.
    pub(super) fn new(ticks: &Arc<Ticks>) -> Arc<Self> {
        let last = AtomicU32::new(ticks.now());
        Arc::new(Self { ticks: Arc::clone(ticks), last, running: AtomicUsize::new(0) })
    }

    /// It moved.
    #[inline]
    pub(super) fn beat(&self) {
        self.last.store(self.ticks.now(), Ordering::Relaxed);
    }

    /// A request runs on it until the guard is dropped.
    pub(super) fn run(self: &Arc<Self>) -> Running {
        self.running.fetch_add(1, Ordering::Relaxed);
        Running(Arc::clone(self))
    }

    /// Whether it has stood still for more than `ticks` at tick `now`.
    pub(super) fn is_still(&self, now: u32, ticks: u32) -> bool {
        self.running.load(Ordering::Relaxed) == 0 && now.wrapping_sub(self.last.load(Ordering::Relaxed)) > ticks
    }
}

/// A request that runs.
#[derive(Debug)]
pub(super) struct Running(Arc<Pulse>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.beat();
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_still_after_its_ticks_and_never_while_a_request_runs() {
        let ticks = Arc::new(Ticks::default());
        let pulse = Pulse::new(&ticks);
        let (_, limit) = pace(Duration::from_secs(8));
        let mut now = 0;
        for _ in 0..limit {
            now = ticks.advance();
        }
        assert!(!pulse.is_still(now, limit));
        now = ticks.advance();
        assert!(pulse.is_still(now, limit));
        let running = pulse.run();
        assert!(!pulse.is_still(now, limit));
        drop(running);
        assert!(!pulse.is_still(now, limit), "its end is a sign of life");
        pulse.beat();
        assert!(!pulse.is_still(now.wrapping_add(limit), limit) && pulse.is_still(now.wrapping_add(limit + 1), limit));
    }
}
