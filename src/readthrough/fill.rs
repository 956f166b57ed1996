//! One rebuild, as a detached task that belongs to its flight and to nobody's request.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::{Instant, timeout_at};

use super::error::{Failed, ReadError};
use super::lease::{Elsewhere, Standing};
use super::origin::{Connection, Fetched, OnSend, OriginError};
use super::route::Route;
use super::{By, Led, Readthrough, Source, Stored};
use crate::cache::entry::{Draft, Entry, Freshness};
use crate::cache::flight::Lead;
use crate::cache::jitter;
use crate::cache::key::Key;
use crate::cache::store::Insert;
use crate::catalog::Prepared;
use crate::clock::Moment;
use crate::ledger::{Adopted, Required};
use crate::tag::Tag;
use crate::telemetry::metrics::{Failure, Fallback, Rebuild, Refused};

/// How a flight lands.
pub(super) type Landing = Result<Landed, Failed>;

/// What a flight brings.
#[derive(Clone, Debug)]
pub(super) struct Landed {
    pub(super) entry: Arc<Entry>,
    came: Came,
    /// Whether other pods' could have been looked for, if there are to be any.
    without_redis: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Came {
    /// Another flight had stored it a moment ago.
    Found,
    Filled(Stored),
    /// Another pod had filled it.
    Shared,
}

impl Landed {
    /// Whether it was read after `arrived`, for a reader that joined no flight whose statement had been sent.
    pub(super) fn read_after(&self, arrived: Moment) -> bool {
        match self.came {
            // Its statement was sent after the reader joined.
            Came::Filled(_) => true,
            Came::Found => self.entry.begun() >= arrived,
            // What it means that another pod began then is no moment of this one's.
            Came::Shared => false,
        }
    }

    /// Whether it came from other pods.
    pub(super) fn is_shared(&self) -> bool {
        self.came == Came::Shared
    }

    /// Whether it might have come from other pods, had Redis not been away.
    pub(super) fn is_for_want_of_redis(&self) -> bool {
        self.without_redis
    }

    /// How the answer came about, for a reader that `led` or didn't.
    pub(super) fn source(&self, led: Led, why: Fallback, now: Moment) -> Source {
        match (self.came, led) {
            (Came::Found, Led::Own) => {
                let left = match self.entry.freshness(now) {
                    Freshness::Fresh(left) => left,
                    // It was fresh when the leader looked.
                    Freshness::Stale(_) => Duration::ZERO,
                };
                Source::Memory { stands: Freshness::Fresh(left), by: By::Lifetime }
            }
            (Came::Found, Led::Others) => Source::Fill { led, why, stored: Stored::Kept },
            (Came::Filled(stored), _) => Source::Fill { led, why, stored },
            (Came::Shared, _) => Source::Shared {
                left: match self.entry.freshness(now) {
                    Freshness::Fresh(left) => left,
                    Freshness::Stale(_) => Duration::ZERO,
                },
            },
        }
    }
}

/// What a rebuild has brought.
struct Rebuilt {
    entry: Arc<Entry>,
    stored: Stored,
    /// It is not stored for its size alone.
    too_large: bool,
}

/// A rebuild about to begin.
pub(super) struct Fill {
    pub(super) read: Arc<Readthrough>,
    pub(super) route: Arc<Route>,
    pub(super) prepared: Arc<Prepared>,
    pub(super) key: Key,
    pub(super) rests: Rests,
    pub(super) reason: Rebuild,
    pub(super) unless: Unless,
    /// The entry that it is to replace, where nobody waits for it.
    pub(super) refreshes: Option<Arc<Entry>>,
    pub(super) deadline: Instant,
}

/// What an answer depends on, as was known when its rebuild was asked for.
#[derive(Clone)]
pub(super) struct Rests {
    pub(super) tags: Arc<[Tag]>,
    /// Taken before the tags.
    pub(super) basis: u64,
    /// Under which pods share it; of the verdict that the tags come from. `None`: there is none to be relied upon.
    pub(super) schema: Option<u64>,
    pub(super) max_lag: Duration,
}

impl Rests {
    /// Whether every write that could make the answer wrong is announced: it does not live by its ttl alone.
    pub(super) fn are_announced(&self) -> bool {
        self.max_lag < Duration::MAX
    }
}

/// What in the store makes a rebuild unnecessary, when its turn to begin comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unless {
    /// Anything fresh.
    Fresh,
    /// What was filled after the entry that is to be replaced.
    FilledAfter(Moment),
    /// What began to be read after the request arrived.
    BegunAfter(Moment),
}

impl Unless {
    pub(super) fn met_by(self, entry: &Entry) -> bool {
        match self {
            Self::Fresh => true,
            Self::FilledAfter(moment) => entry.filled() > moment,
            Self::BegunAfter(moment) => entry.begun() >= moment,
        }
    }
}

pub(super) type Flight = Lead<Key, Required, Landing>;

/// Why a flight brings nothing.
enum Fault {
    Own(ReadError),
    /// Another pod's, which is to be left alone for so long.
    Others(ReadError, Duration),
}

impl From<ReadError> for Fault {
    fn from(error: ReadError) -> Self {
        Self::Own(error)
    }
}

impl Fill {
    /// Runs the rebuild to its end, and lands the flight.
    pub(super) async fn run(self, lead: Flight) {
        // Between this reader's look and its join another flight may have stored the answer and landed:
        //  1. this reader looks, and finds nothing;
        //  2. the other flight stores, then lands and leaves the table;
        //  3. this reader joins, finds no flight, and leads.
        // So the leader looks again; a flight stores before it lands, so what 1 missed is seen here.
        let begun = self.read.clock.now();
        if let Some(entry) = self.read.peek_fresh(self.key.as_bytes(), begun).filter(|e| self.unless.met_by(e)) {
            return lead.land(Ok(Landed { entry, came: Came::Found, without_redis: false }));
        }
        let rebuilt = tokio::select! {
            biased;
            () = lead.abandoned() => Err(ReadError::Cancelled.into()),
            () = self.read.stopped() => Err(ReadError::Cancelled.into()),
            rebuilt = timeout_at(self.deadline, AssertUnwindSafe(self.bring(&lead, begun)).catch_unwind()) => match rebuilt {
                Ok(Ok(rebuilt)) => rebuilt,
                Ok(Err(_panic)) => Err(ReadError::Panicked.into()),
                Err(_elapsed) => Err(ReadError::Deadline.into()),
            },
        };
        let now = self.read.clock.now();
        let elsewhere = match &rebuilt {
            Ok(landed) => landed.is_shared(),
            Err(fault) => matches!(fault, Fault::Others(..)),
        };
        if !elsewhere {
            self.route.metrics().refresh_seconds.observe(now.since(begun).as_secs_f64());
        }
        lead.land(rebuilt.map_err(|fault| match fault {
            Fault::Own(error) => self.failed(error, now),
            Fault::Others(error, left) => self.others_failed(error, now, left),
        }));
    }

    /// What another pod has filled or is about to, else a rebuild, with other pods waiting for it where there are any.
    async fn bring(&self, lead: &Flight, begun: Moment) -> Result<Landed, Fault> {
        let standing = match self.elsewhere(lead).await {
            Elsewhere::Found(entry) => return Ok(Landed { entry, came: Came::Shared, without_redis: false }),
            Elsewhere::Failed(error, left) => return Err(Fault::Others(error, left)),
            Elsewhere::Nothing(standing) => standing,
        };
        self.route.metrics().rebuild(self.reason);
        let without_redis = matches!(standing, Standing::Away);
        let Standing::Holder(held) = standing else {
            let Rebuilt { entry, stored, .. } = self.rebuild(lead, begun).await?;
            if stored == Stored::Kept {
                self.publish(&entry);
            }
            return Ok(Landed { entry, came: Came::Filled(stored), without_redis });
        };
        // Bounded here as well, so that those who wait are told.
        let rebuild = timeout_at(self.deadline, self.rebuild(lead, begun));
        match held.renewed_while(rebuild).await.unwrap_or(Err(ReadError::Deadline)) {
            Ok(Rebuilt { entry, stored, too_large }) => {
                if stored == Stored::Kept {
                    held.publish(&entry);
                } else if too_large {
                    held.has_grown_too_large();
                }
                Ok(Landed { entry, came: Came::Filled(stored), without_redis })
            }
            Err(error) => {
                held.failed(&error, self.route.query().policy().error_backoff);
                Err(error.into())
            }
        }
    }

    /// Where answers differ by their caller, so do the tags of equal ones.
    pub(super) fn etag_seed(&self) -> u64 {
        if self.prepared.is_personal() { xxhash_rust::xxh3::xxh3_64(self.key.as_bytes()) | 1 } else { 0 }
    }

    /// Takes its turn, asks the origin, and stores what is certified (R1).
    async fn rebuild(&self, lead: &Flight, begun: Moment) -> Result<Rebuilt, ReadError> {
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
        let lifetime = jitter::lifetime(policy.ttl, policy.jitter, read.chance.draw());
        // Version first, certification second: an event in between leaves the older version, and R2 looks again.
        let purges = read.purges();
        let version = read.ledger.version();
        let rests = &self.rests;
        let certified = read.rests_on(rests.basis) && read.ledger.certify(&fetched.stamp, &rests.tags);
        let filled = read.clock.now();
        let entry = Arc::new(Entry::new(Draft {
            etag_seed: self.etag_seed(),
            route: self.route.number(),
            body: fetched.body,
            stamp: read.ledger.share(fetched.stamp),
            tags: Arc::clone(&rests.tags),
            basis: rests.basis,
            max_lag: rests.max_lag,
            filled,
            took: filled.since(begun),
            lifetime,
            early_refresh: policy.early_refresh,
            // Who asked for it has read it, too.
            uses: (policy.proactive_refresh).then(|| u32::from(self.refreshes.is_none())),
            certified: version,
        }));
        read.failures.forget(self.key.as_bytes());
        let stored = if certified { self.keep(&entry, purges) } else { Stored::Passed };
        if let (Stored::Passed, Some(old)) = (stored, &self.refreshes) {
            old.end_refresh(filled + policy.error_backoff);
        }
        Ok(Rebuilt { entry, stored, too_large: certified && stored == Stored::Passed })
    }

    /// Stores what was certified when there had been so many `purges`.
    pub(super) fn keep(&self, entry: &Arc<Entry>, purges: u64) -> Stored {
        let stored = self.store(entry);
        if self.read.purges() != purges && !self.read.certifies(entry, self.read.ledger.version()) {
            self.read.store.remove(self.key.as_bytes());
        }
        stored
    }

    fn store(&self, entry: &Arc<Entry>) -> Stored {
        match self.read.store.insert(&self.key, entry) {
            Insert::TooLarge => {
                // What it was to replace is known to be out of date; nobody shall be given that for want of room.
                self.read.store.remove(self.key.as_bytes());
                Stored::Passed
            }
            Insert::Kept(evicted) => {
                if !evicted.is_empty() {
                    let routes = self.read.routes();
                    for route in evicted.into_iter().filter_map(|number| routes.numbered(number)) {
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
        match ledger.adopt(&fetched.stamp.lineage) {
            Adopted::Same | Adopted::First => {}
            Adopted::Replaced => tracing::warn!(
                lineage = fetched.stamp.lineage.as_str(),
                "the database is of another history than before (a restart, failover or restore): every entry is refilled"
            ),
            Adopted::Refused => {
                let history =
                    format!("its history is {}, the event stream's is another", fetched.stamp.lineage.as_str());
                return Err(OriginError::Behind(history).into());
            }
        }
        Ok(fetched)
    }

    async fn fetch_over(&self, lead: &Flight, connection: Connection) -> Result<Fetched, OriginError> {
        let sending = lead.sending();
        let read = Arc::clone(&self.read);
        let tags = Arc::clone(&self.rests.tags);
        let statements = self.route.metrics().statements.clone();
        let on_send: OnSend = Arc::new(move || {
            sending.sent(read.ledger.required(&tags));
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
            ReadError::Unprepared
            | ReadError::BrokenQuery
            | ReadError::OriginBehind
            | ReadError::LineageChanged
            | ReadError::NotVisible
            | ReadError::Origin(_) => Failure::Database,
        };
        metrics.failure(reason);
        let query = self.route.query().name();
        let quiet = matches!(error, ReadError::Cancelled | ReadError::Origin(OriginError::Refused(_)));
        if !quiet && self.route.may_log(now) {
            tracing::warn!(query, reason = reason.as_str(), %error, "a rebuild failed");
        } else {
            tracing::debug!(query, reason = reason.as_str(), %error, "a rebuild failed");
        }
        let policy = self.route.query().policy();
        let until = now + jitter::lifetime(policy.error_backoff, BACKOFF_JITTER, self.read.chance.draw());
        self.remember(error, now, until)
    }

    /// Remembers a failure of another pod's, which has counted and logged it.
    fn others_failed(&self, error: ReadError, now: Moment, left: Duration) -> Failed {
        tracing::debug!(query = self.route.query().name(), %error, "a rebuild failed in another pod");
        // Whoever writes there can't keep a question from being asked for longer than one's own failures would.
        let longest = self.route.query().policy().error_backoff.mul_f64(1.0 + BACKOFF_JITTER);
        self.remember(error, now, now + left.min(longest))
    }

    fn remember(&self, error: ReadError, now: Moment, until: Moment) -> Failed {
        // A long key would make the memory of failures large; who sends one pays with a try for each.
        let remembered = error.lasts() && self.key.as_bytes().len() <= REMEMBERED_KEY_BYTES;
        let error = if remembered { error.clipped() } else { error };
        if remembered {
            self.read.failures.remember(self.key.clone(), error.clone(), until);
        }
        if let Some(old) = &self.refreshes {
            // The old value keeps its windows, and is neither extended nor deleted. Where the memory of the failure may
            // end before its time, it alone says when the next refresh begins.
            old.end_refresh(if remembered && error.is_over_when_reached() { now } else { until });
        }
        Failed { error, until: remembered.then_some(until) }
    }
}

/// Longest key whose failure is remembered: with as many as are remembered, 16 MiB.
const REMEMBERED_KEY_BYTES: usize = 1024;

/// Backoffs of keys that failed together end apart: a fifth in either direction.
const BACKOFF_JITTER: f64 = 0.2;
