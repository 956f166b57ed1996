//! Each request in exactly one outcome, also where it never comes to an answer.

use std::sync::Arc;

use crate::clock::Moment;
use crate::readthrough::{Readthrough, Route};
use crate::telemetry::metrics::{Outcome, Served};

/// Counts one request that could not be answered at once; a client that leaves before the answer counts as rejected.
pub(super) struct Tally {
    read: Arc<Readthrough>,
    route: Arc<Route>,
    started: Moment,
    counted: bool,
}

impl Tally {
    /// Counts it among those in flight until it is dropped.
    pub(super) fn new(read: Arc<Readthrough>, route: Arc<Route>, started: Moment) -> Self {
        read.metrics().in_flight.inc();
        Self { read, route, started, counted: false }
    }

    /// The query that it is for.
    pub(super) fn route(&self) -> &Arc<Route> {
        &self.route
    }

    /// Counts it, once.
    pub(super) fn count(mut self, outcome: Outcome, served: Served) {
        self.record(outcome, served);
    }

    fn record(&mut self, outcome: Outcome, served: Served) {
        self.counted = true;
        let took = self.read.clock().now().since(self.started);
        self.route.metrics().request(outcome, served, took.as_secs_f64());
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        if !self.counted {
            self.record(Outcome::Rejected, Served::Memory);
        }
        self.read.metrics().in_flight.dec();
    }
}
