//! The breaker of everything that asks Redis: closed, or open until a probe of its own succeeds.
//!
//! It opens at the first call that is not answered in time or finds no connection, since waiting is the one thing that Redis can
//! do to a request; and at the third refusal in a row of one kind of call (a full memory and a replica refuse what writes, and
//! answer what reads), which costs none.
//! When it opens, every call that waits is given up, so that a Redis that answers nobody costs each of those at most what was
//! left of the first one's timeout, and none that comes later anything. No request is a probe: a task is.

use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use crate::telemetry::metrics::RedisCall;

/// Refusals in a row that open it: one alone may be a key of another type, or a script that was killed.
const REFUSALS: u32 = 3;

/// From opening to the first probe, and from one to the next: short against the second within which its end should show, and
/// long against a probe.
const PAUSE: Duration = Duration::from_millis(250);

/// The first half of pods' pauses is the same, the other by chance: they don't come back together.
const PAUSE_BY_CHANCE: f64 = 0.5;

pub(super) struct Breaker {
    /// Why it is open; `None`: it is closed.
    state: watch::Sender<Option<String>>,
    /// In a row, for each kind of call.
    refusals: [AtomicU32; RedisCall::ALL.len()],
}

impl Default for Breaker {
    fn default() -> Self {
        Self { state: watch::Sender::new(None), refusals: Default::default() }
    }
}

impl Breaker {
    /// Resolves when it opens. `None`: it is open.
    pub(super) fn closed(&self) -> Option<impl Future<Output = ()> + Send + use<>> {
        let mut state = self.state.subscribe();
        if state.borrow_and_update().is_some() {
            return None;
        }
        Some(async move {
            if state.wait_for(Option::is_some).await.is_err() {
                // The tier is gone, and with it whoever could be told.
                std::future::pending::<()>().await;
            }
        })
    }

    /// Resolves when it is closed.
    pub(super) async fn is_closed(&self) {
        // The sender is this object's own, so it can't be gone.
        let _ = self.state.subscribe().wait_for(Option::is_none).await;
    }

    pub(super) fn succeeded(&self, call: RedisCall) {
        self.refusals[call as usize].store(0, Ordering::Relaxed);
    }

    /// Counts a refusal; true where it opens by it.
    pub(super) fn refused(&self, call: RedisCall, why: &str) -> bool {
        self.refusals[call as usize].fetch_add(1, Ordering::Relaxed) + 1 >= REFUSALS && self.opens(why)
    }

    /// Opens; true where it was closed.
    pub(super) fn opens(&self, why: &str) -> bool {
        let opened = self.state.send_if_modified(|state| {
            let closed = state.is_none();
            if closed {
                *state = Some(why.to_owned());
            }
            closed
        });
        if opened {
            tracing::warn!(why, "Redis is away or slow: nothing is shared with other pods until it works again");
        }
        opened
    }

    pub(super) fn trouble(&self) -> Option<String> {
        self.state.borrow().clone()
    }

    /// Resolves when a probe is due: a pause after it has opened, or stayed open.
    pub(super) async fn due(&self) {
        // The sender is this object's own, so it can't be gone.
        let _ = self.state.subscribe().wait_for(Option::is_some).await;
        let by_chance = 1.0 - PAUSE_BY_CHANCE * fastrand::f64();
        tokio::time::sleep(PAUSE.mul_f64(by_chance)).await;
    }

    /// A probe has failed. Why it is open may be another by now.
    pub(super) fn stays_open(&self, why: String) {
        self.state.send_replace(Some(why));
    }

    /// A probe has succeeded.
    pub(super) fn closes(&self) {
        self.refusals.iter().for_each(|kind| kind.store(0, Ordering::Relaxed));
        self.state.send_replace(None);
        tracing::info!("Redis works again: answers are shared");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_can_not_be_reached_opens_it_and_so_does_the_third_refusal_in_a_row() {
        let breaker = Breaker::default();
        let writes = || breaker.refused(RedisCall::Publish, "no");
        assert!(!writes() && !writes());
        breaker.succeeded(RedisCall::Publish);
        assert!(!writes() && !writes() && breaker.closed().is_some());
        // A full memory is read from all the while.
        breaker.succeeded(RedisCall::Take);
        assert!(writes() && breaker.closed().is_none());
        assert!(!breaker.opens("again"), "it is open");
        assert_eq!(breaker.trouble().as_deref(), Some("no"));
        assert!(Breaker::default().opens("away"));
    }

    #[tokio::test]
    async fn who_waits_is_told_when_it_opens() {
        let breaker = Breaker::default();
        let waiting = tokio::spawn(breaker.closed().expect("closed"));
        breaker.opens("away");
        waiting.await.expect("told");
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_is_due_a_pause_after_it_has_opened_and_after_one_that_failed() {
        let breaker = Breaker::default();
        assert!(
            tokio::time::timeout(Duration::from_secs(60), breaker.due()).await.is_err(),
            "while it is closed, none"
        );
        breaker.opens("away");
        for _ in 0..5 {
            let half = PAUSE.mul_f64(PAUSE_BY_CHANCE);
            assert!(tokio::time::timeout(half.mul_f64(0.99), breaker.due()).await.is_err());
            tokio::time::timeout(PAUSE.mul_f64(1.01), breaker.due()).await.expect("due");
            breaker.stays_open("still".into());
            assert!(breaker.closed().is_none());
        }
        breaker.closes();
        assert!(breaker.closed().is_some() && breaker.trouble().is_none());
    }
}
