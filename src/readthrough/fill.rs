//! One rebuild, as a detached task that belongs to its flight and to nobody's request.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::{Instant, timeout_at};

use super::error::{Failed, ReadError};
use super::origin::{Connection, Fetched, OnSend, OriginError};
use super::route::Route;
use super::{Led, Look, Readthrough, Source, Stored};
use crate::cache::entry::{Entry, Freshness};
use crate::cache::flight::Lead;
use crate::cache::jitter;
use crate::cache::key::Key;
use crate::cache::store::Insert;
use crate::catalog::Prepared;
use crate::clock::Moment;
use crate::ledger::{Adopted, Required};
use crate::telemetry::metrics::{Failure, Fallback, Rebuild, Refused};

/// How a flight lands.
pub(super) type Landing = Result<Landed, Failed>;

/// What a flight brings.
#[derive(Clone, Debug)]
pub(super) struct Landed {
    pub(super) entry: Arc<Entry>,
    came: Came,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Came {
    /// Another flight had stored it a moment ago.
    FromStore,
    FromOrigin(Stored),
}

impl Landed {
    /// How the answer came about, for a reader that `led` or didn't.
    pub(super) fn source(&self, led: Led, why: Fallback, now: Moment) -> Source {
        match (self.came, led) {
            (Came::FromStore, Led::Own) => match self.entry.freshness(now) {
                Freshness::Fresh(ttl) => Source::Memory { ttl },
                Freshness::Stale(_) => Source::Memory { ttl: Duration::ZERO },
            },
            (Came::FromStore, Led::Others) => Source::Fill { led, why, stored: Stored::Kept },
            (Came::FromOrigin(stored), _) => Source::Fill { led, why, stored },
        }
    }
}

/// A rebuild about to begin.
pub(super) struct Fill {
    pub(super) read: Arc<Readthrough>,
    pub(super) route: Arc<Route>,
    pub(super) prepared: Arc<Prepared>,
    pub(super) key: Key,
    pub(super) why: Fallback,
    pub(super) deadline: Instant,
}

type Flight = Lead<Key, Required, Landing>;

impl Fill {
    /// Runs the rebuild to its end, and lands the flight.
    pub(super) async fn run(self, lead: Flight) {
        // Between this reader's look and its join another flight may have stored the answer and landed:
        //  1. this reader looks, and finds nothing;
        //  2. the other flight stores, then lands and leaves the table;
        //  3. this reader joins, finds no flight, and leads.
        // So the leader looks again; a flight stores before it lands, so what 1 missed is seen here.
        if let Look::Fresh(entry, _) = self.read.look(self.key.as_bytes(), self.read.clock.now()) {
            return lead.land(Ok(Landed { entry, came: Came::FromStore }));
        }
        let metrics = self.route.metrics();
        metrics.rebuild(match self.why {
            Fallback::Miss => Rebuild::Miss,
            Fallback::Expired => Rebuild::Expired,
            Fallback::Invalidated => Rebuild::Invalidated,
        });
        let begun = self.read.clock.now();
        let rebuilt = tokio::select! {
            biased;
            () = lead.abandoned() => Err(ReadError::Cancelled),
            rebuilt = timeout_at(self.deadline, AssertUnwindSafe(self.rebuild(&lead)).catch_unwind()) => match rebuilt {
                Ok(Ok(rebuilt)) => rebuilt,
                Ok(Err(_panic)) => Err(ReadError::Panicked),
                Err(_elapsed) => Err(ReadError::Deadline),
            },
        };
        let now = self.read.clock.now();
        metrics.refresh_seconds.observe(now.since(begun).as_secs_f64());
        lead.land(rebuilt.map_err(|error| self.failed(error, now)));
    }

    /// Takes its turn, asks the origin, and stores what is certified (R1).
    async fn rebuild(&self, lead: &Flight) -> Result<Landed, ReadError> {
        let read = &self.read;
        let turn = timeout_at(self.deadline, read.admission.turn(&self.route.fills)).await;
        let _turn = match turn {
            Ok(Ok(turn)) => turn,
            Ok(Err(_full)) => {
                read.metrics.refused(Refused::QueueFull);
                return Err(ReadError::QueueFull);
            }
            Err(_elapsed) => {
                read.metrics.refused(Refused::Deadline);
                return Err(ReadError::QueueDeadline);
            }
        };
        let fetched = self.fetch(lead).await?;
        let policy = self.route.query().policy();
        let lifetime = jitter::lifetime(policy.ttl, policy.jitter, fastrand::f64());
        // Version first, certification second: an event in between leaves the older version, and R2 looks again.
        let version = read.ledger.version();
        let certified = read.ledger.certify(&fetched.stamp);
        let entry =
            Arc::new(Entry::new(self.route.number(), fetched.body, fetched.stamp, read.clock.now(), lifetime, version));
        read.failures.forget(self.key.as_bytes());
        let stored = if certified { self.store(&entry) } else { Stored::Passed };
        Ok(Landed { entry, came: Came::FromOrigin(stored) })
    }

    fn store(&self, entry: &Arc<Entry>) -> Stored {
        match self.read.store.insert(&self.key, entry) {
            Insert::TooLarge => Stored::Passed,
            Insert::Kept(evicted) => {
                for number in evicted {
                    if let Some(route) = self.read.in_order.get(number as usize) {
                        route.metrics().evictions.inc();
                    }
                }
                Stored::Kept
            }
        }
    }

    /// Asks the origin, and once more over a new connection where the answer is of another history than the ledger's:
    /// a pooled connection may lead to a server that was the primary once. (One in recovery the origin retries itself.)
    async fn fetch(&self, lead: &Flight) -> Result<Fetched, ReadError> {
        let ledger = &self.read.ledger;
        let fetched = match self.fetch_over(lead, Connection::Pooled).await {
            Ok(fetched) if ledger.lineage().is_some_and(|known| known != fetched.stamp.lineage) => {
                self.fetch_over(lead, Connection::New).await?
            }
            other => other?,
        };
        // Without an event stream nothing contradicts what a connection says that was opened just now.
        if ledger.adopt(&fetched.stamp.lineage) == Adopted::Replaced {
            tracing::warn!(
                lineage = fetched.stamp.lineage.as_str(),
                "the database is of another history than before (a restart, failover or restore): every entry is refilled"
            );
        }
        Ok(fetched)
    }

    async fn fetch_over(&self, lead: &Flight, connection: Connection) -> Result<Fetched, OriginError> {
        let sending = lead.sending();
        let read = Arc::clone(&self.read);
        let statements = self.route.metrics().statements.clone();
        let on_send: OnSend = Arc::new(move || {
            sending.sent(read.ledger.required());
            statements.inc();
        });
        let within = self.deadline.saturating_duration_since(Instant::now());
        self.read
            .origin
            .fetch(self.route.query(), &self.prepared, self.key.as_bytes(), within, connection, on_send)
            .await
    }

    /// Counts, logs and remembers a failure: here and nowhere else.
    fn failed(&self, error: ReadError, now: Moment) -> Failed {
        let metrics = self.route.metrics();
        let reason = match &error {
            ReadError::Deadline | ReadError::QueueDeadline | ReadError::Origin(OriginError::Timeout) => {
                Failure::Timeout
            }
            ReadError::Cancelled => Failure::Cancelled,
            ReadError::Panicked => Failure::Panic,
            ReadError::QueueFull
            | ReadError::TooManyWaiters
            | ReadError::Origin(OriginError::Pool | OriginError::Away(_)) => Failure::Pool,
            ReadError::Origin(OriginError::TooManyRows { .. } | OriginError::TooLarge { .. }) => Failure::TooLarge,
            ReadError::Unprepared | ReadError::BrokenQuery | ReadError::OriginBehind | ReadError::Origin(_) => {
                Failure::Database
            }
        };
        metrics.failure(reason);
        let query = self.route.query().name();
        let quiet = matches!(error, ReadError::Cancelled | ReadError::Origin(OriginError::Refused(_)));
        if !quiet && self.route.may_log(now) {
            tracing::warn!(query, reason = reason.as_str(), %error, "a rebuild failed");
        } else {
            tracing::debug!(query, reason = reason.as_str(), %error, "a rebuild failed");
        }
        // A long key would make the memory of failures large; who sends one pays with a try for each.
        if !error.lasts() || self.key.as_bytes().len() > REMEMBERED_KEY_BYTES {
            return error.into();
        }
        let error = error.clipped();
        let policy = self.route.query().policy();
        let until = now + jitter::lifetime(policy.error_backoff, BACKOFF_JITTER, fastrand::f64());
        self.read.failures.remember(self.key.clone(), error.clone(), until);
        Failed { error, until: Some(until) }
    }
}

/// Longest key whose failure is remembered: with as many as are remembered, 16 MiB.
const REMEMBERED_KEY_BYTES: usize = 1024;

/// Backoffs of keys that failed together end apart: a fifth in either direction.
const BACKOFF_JITTER: f64 = 0.2;
