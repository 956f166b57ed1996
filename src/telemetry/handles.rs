//! Handles that their owners keep: of a query, a caller, a listener. Each is resolved once.

use prometheus::{Histogram, IntCounter};

use super::labels::{Failure, Fallback, Handshake, Outcome, Passed, Rebuild, Served};

/// One query's handles, each resolved once.
pub struct QueryMetrics {
    pub(super) requests: Box<[IntCounter]>,
    pub(super) durations: Box<[Histogram]>,
    pub(super) rebuilds: Box<[IntCounter]>,
    pub(super) fallbacks: Box<[IntCounter]>,
    pub(super) failures: Box<[IntCounter]>,
    /// Requests that waited for Postgres because other pods' answers could not be looked for.
    pub redis_down: IntCounter,
    /// Requests answered by a flight that another request led.
    pub shared: IntCounter,
    /// Statements that reached Postgres.
    pub statements: IntCounter,
    /// The whole rebuild, from its start to its outcome.
    pub refresh_seconds: Histogram,
    /// Entries evicted for want of room.
    pub evictions: IntCounter,
}

impl QueryMetrics {
    /// Counts a request and the time it took.
    #[inline]
    pub fn request(&self, outcome: Outcome, served: Served, seconds: f64) {
        self.requests[outcome as usize].inc();
        self.durations[served as usize].observe(seconds);
    }

    /// Counts a rebuild.
    pub fn rebuild(&self, reason: Rebuild) {
        self.rebuilds[reason as usize].inc();
    }

    /// Counts a request that waits for Postgres.
    pub fn fallback(&self, reason: Fallback) {
        self.fallbacks[reason as usize].inc();
    }

    /// Counts a rebuild that failed.
    pub fn failure(&self, reason: Failure) {
        self.failures[reason as usize].inc();
    }

    /// Requests so far, by outcome, for `/status`.
    pub fn requests_by(&self, outcome: Outcome) -> u64 {
        self.requests[outcome as usize].get()
    }
}

/// The handles of one caller, or of those that go by one name.
pub struct CallerMetrics(pub(super) Box<[IntCounter]>);

impl CallerMetrics {
    /// Counts a request that came with good credentials, or with none where none are needed.
    #[inline]
    pub fn passed(&self, what: Passed) {
        self.0[what as usize].inc();
    }
}

/// The handles of one listener's handshakes.
pub struct HandshakeMetrics(pub(super) Box<[IntCounter]>);

impl HandshakeMetrics {
    /// Counts one that ended.
    pub fn ended(&self, how: Handshake) {
        self.0[how as usize].inc();
    }
}
