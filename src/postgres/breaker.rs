//! The breaker of connecting: while Postgres is away, attempts fail at once and one probe at a time finds out.
//!
//! Pure but for the lock; the caller brings the time. It guards opening connections and nothing else: what a connection
//! that stands says of a query is no reason to give up on the others.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Failures in a row that open it: two may be a failover's tail, three are a state.
const FAILURES_TO_OPEN: u32 = 3;

#[derive(Debug)]
pub(super) struct Breaker {
    probe_every: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    failures: u32,
    last: String,
    next_probe: Option<Instant>,
}

impl Breaker {
    /// Open, it admits a probe every `probe_every`.
    pub(super) fn new(probe_every: Duration) -> Self {
        Self { probe_every, state: Mutex::default() }
    }

    /// Whether an attempt may be made at `now`; `jitter` is between 0 and 1.
    ///
    /// # Errors
    /// The reason of the last failure.
    pub(super) fn admit(&self, now: Instant, jitter: f64) -> Result<(), String> {
        let mut state = self.state();
        if state.failures < FAILURES_TO_OPEN {
            return Ok(());
        }
        if state.next_probe.is_some_and(|probe| now < probe) {
            return Err(state.last.clone());
        }
        // Half to all of the pause: pods that lost the database together don't come back together.
        state.next_probe = Some(now + self.probe_every.mul_f64(0.5 + jitter / 2.0));
        Ok(())
    }

    pub(super) fn succeeded(&self) {
        *self.state() = State::default();
    }

    pub(super) fn failed(&self, reason: &str) {
        let mut state = self.state();
        state.failures = state.failures.saturating_add(1);
        reason.clone_into(&mut state.last);
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_failures_open_it_and_one_probe_at_a_time_is_admitted() {
        let breaker = Breaker::new(Duration::from_secs(1));
        let start = Instant::now();
        for _ in 0..3 {
            assert_eq!(breaker.admit(start, 1.0), Ok(()));
            breaker.failed("refused");
        }
        assert_eq!(breaker.admit(start, 1.0), Ok(()), "the first probe is at once");
        assert_eq!(breaker.admit(start, 1.0), Err("refused".into()));
        assert_eq!(breaker.admit(start + Duration::from_millis(999), 1.0), Err("refused".into()));
        assert_eq!(breaker.admit(start + Duration::from_secs(1), 0.0), Ok(()));
        assert_eq!(breaker.admit(start + Duration::from_millis(1499), 0.0), Err("refused".into()));
        assert_eq!(breaker.admit(start + Duration::from_millis(1500), 0.0), Ok(()));
    }

    #[test]
    fn a_success_closes_it() {
        let breaker = Breaker::new(Duration::from_secs(1));
        let now = Instant::now();
        for _ in 0..5 {
            breaker.failed("refused");
        }
        let _ = breaker.admit(now, 1.0);
        breaker.succeeded();
        for _ in 0..10 {
            assert_eq!(breaker.admit(now, 1.0), Ok(()));
        }
    }
}
