//! The read path: from a key to an answer.
//!
//! 1. [`Readthrough::look`]: a fresh entry is the answer; no await, no allocation (R2). An old one is where the query's
//!    windows and the request's directives allow it, and is refreshed in the background.
//! 2. Else [`Readthrough::read`]: a failure that is remembered is the answer; else the reader joins the key's flight, or
//!    leads one (R3), and waits until its own deadline. What fails or takes too long is answered with an old entry
//!    within `stale_if_error`, where there is one.
//! 3. The leader's fill is a detached task: it looks again, takes its turn, sends one statement, certifies what comes
//!    back, stores it (R1), and lands the flight. A refresh is the same with nobody waiting.
//!
//! This module owns the ports to the outside ([`origin::Origin`]); it speaks no SQL and no HTTP.

mod admission;
mod answer;
mod directives;
mod error;
mod fill;
mod follow;
mod gauge;
mod hot;
mod invalidate;
mod lease;
mod look;
pub mod origin;
mod pack;
mod route;
mod routes;
pub mod shared;
mod strict;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, timeout_at};

use crate::cache::entry::Freshness;
use crate::cache::failures::Failures;
use crate::cache::flight::{End, Flights, Join};
use crate::cache::key::Key;
use crate::cache::store::Store;
use crate::catalog::Catalog;
use crate::chance::Chance;
use crate::clock::{Clock, Moment};
use crate::ledger::{Ledger, Required};
use crate::telemetry::metrics::{Fallback, Metrics, QueryMetrics, Rebuild, Refused};

use admission::Admission;
pub use answer::{Answer, By, Instead, Led, Source, Stored};
pub use directives::Directives;
pub use error::{Failed, ReadError};
use fill::{Fill, Landing, Rests, Unless};
use follow::Basis;
pub use follow::StreamState;
use hot::Hot;
pub use hot::Touched;
pub use invalidate::{Mode, Reach};
use look::Joins;
pub use look::{Ask, Look, Want};
use origin::Origin;
pub use route::Route;
pub use routes::Routes;
use shared::SharedTier;
pub use strict::Token;

/// The bounds of the read path, from the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes of the store.
    pub max_bytes: u64,
    /// Bytes of packed forms beside it.
    pub packed_max_bytes: u64,
    /// Bytes of one entry in it.
    pub entry_max_bytes: u64,
    /// Rebuilds at a time, over all queries.
    pub max_fills: usize,
    /// Rebuilds that wait for their turn.
    pub max_queued_fills: usize,
    /// Requests that wait for rebuilds.
    pub max_waiters: usize,
    /// Hot entries that are refreshed at a time after their invalidation.
    pub proactive: usize,
}

/// Shards of the flight table: joins hold a shard for less than a microsecond.
const FLIGHT_SHARDS: usize = 64;

/// Fills that a reader waits for at most before the origin is declared behind (R3): the one under way at its arrival,
/// and one sent after it.
const FILLS_AT_MOST: usize = 2;

/// A reader that waits for Postgres, as far as is known: it is counted at once where nobody else can bring an answer, else
/// when its wait ends without one of another pod's.
struct Waiting<'a> {
    metrics: &'a QueryMetrics,
    why: Fallback,
    owed: bool,
    for_want_of_redis: bool,
}

impl<'a> Waiting<'a> {
    fn new(metrics: &'a QueryMetrics, why: Fallback, may_be_spared: bool) -> Self {
        if !may_be_spared {
            metrics.fallback(why);
        }
        Self { metrics, why, owed: may_be_spared, for_want_of_redis: false }
    }

    fn was_spared(&mut self) {
        self.owed = false;
    }

    /// Nobody else's answer could be looked for.
    fn was_for_want_of_redis(&mut self) {
        self.for_want_of_redis = matches!(self.why, Fallback::Miss | Fallback::Expired | Fallback::Invalidated);
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.owed && self.for_want_of_redis {
            self.metrics.redis_down.inc();
        } else if self.owed {
            self.metrics.fallback(self.why);
        }
    }
}

/// The read path of a process.
pub struct Readthrough {
    routes: ArcSwap<Routes>,
    unknown: Route,
    store: Store,
    packers: Arc<Semaphore>,
    flights: Arc<Flights<Key, Required, Landing>>,
    failures: Failures<ReadError>,
    ledger: Ledger,
    basis: Basis,
    admission: Admission,
    hot: Hot,
    origin: Arc<dyn Origin>,
    shared: OnceLock<Arc<dyn SharedTier>>,
    clock: Clock,
    chance: Chance,
    metrics: Arc<Metrics>,
    stopping: watch::Sender<bool>,
    /// When the last poll of the log that was applied had been sent.
    polls: watch::Sender<Option<Moment>>,
    /// Rung by who waits for one.
    probes: Notify,
    stream: watch::Sender<StreamState>,
}

impl Readthrough {
    /// The read path over `catalog`'s queries and `origin`.
    pub fn new(
        catalog: &Catalog,
        origin: Arc<dyn Origin>,
        bounds: Bounds,
        clock: Clock,
        chance: Chance,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self {
            routes: ArcSwap::from_pointee(Routes::default().succeed(catalog, &metrics)),
            unknown: Route::unknown(&metrics),
            store: Store::new(bounds.max_bytes, bounds.entry_max_bytes, bounds.packed_max_bytes),
            packers: pack::places(),
            flights: Flights::new(bounds.max_waiters, FLIGHT_SHARDS),
            failures: Failures::new(),
            ledger: Ledger::default(),
            basis: Basis::default(),
            admission: Admission::new(bounds.max_fills, bounds.max_queued_fills),
            hot: Hot::new(bounds.proactive, bounds.max_fills),
            origin,
            shared: OnceLock::new(),
            clock,
            chance,
            metrics,
            stopping: watch::Sender::new(false),
            polls: watch::Sender::new(None),
            probes: Notify::new(),
            stream: watch::Sender::new(StreamState::Off),
        })
    }

    /// Takes `catalog` in place of the present one. Queries that both have go on undisturbed: entries, flights and
    /// waiting requests of theirs are not touched. Requests under way end with the route that they began with.
    pub fn replace(&self, catalog: &Catalog) {
        let former = self.routes.rcu(|present| present.succeed(catalog, &self.metrics));
        // Counters stay where they are; of what is gone there is no verdict.
        for route in former.iter().filter(|route| catalog.get(route.query().name()).is_none()) {
            self.metrics.verdict(route.query().name(), &route::VERDICTS, "");
        }
    }

    /// The routes as they are now; takes no lock. Not to be held across an await.
    #[inline]
    pub fn routes(&self) -> Guard<Arc<Routes>> {
        self.routes.load()
    }

    /// Ends every rebuild, with [`ReadError::Cancelled`] for whoever waits: their statements are cancelled in Postgres,
    /// and none begins any more.
    pub fn stop(&self) {
        self.stopping.send_replace(true);
    }

    /// Resolves once the read path is stopped. Cancel safe.
    async fn stopped(&self) {
        // The sender is this object's own, so it can't be gone.
        let _ = self.stopping.subscribe().wait_for(|stopping| *stopping).await;
    }

    /// Where requests for no query are counted.
    pub fn unknown(&self) -> &Route {
        &self.unknown
    }

    /// Time, as entries age by it.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Every metric.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The store, for status and tests.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Where answers come from.
    pub fn origin(&self) -> &Arc<dyn Origin> {
        &self.origin
    }

    /// Requests that wait for rebuilds.
    pub fn waiting(&self) -> usize {
        self.flights.waiting()
    }

    /// Rebuilds under way.
    pub fn flying(&self) -> usize {
        self.flights.flying()
    }

    /// An answer to `ask`, which [`Readthrough::look`] found none for: it said what the reader wants.
    ///
    /// Waits for at most the query's timeout, or for `wait_at_most` where there is an old answer to give. Cancel safe: a
    /// reader that is dropped leaves its flight, and the last one to leave cancels it.
    ///
    /// # Errors
    /// [`Failed`] with the reason, shared by all who waited.
    pub async fn read(self: &Arc<Self>, ask: &Ask<'_>, want: Want) -> Result<Answer, Failed> {
        let why = want.why;
        if let Some((error, until)) = self.failing(ask.key, self.clock.now()) {
            // Remembered between the look and now, or nothing old may be given at once.
            return self.fall_back(&want, ask, Led::Others, Failed { error, until: Some(until) });
        }
        let policy = ask.route.query().policy();
        let begun = Instant::now();
        let deadline = begun + policy.timeout;
        let patience = match policy.wait_at_most {
            Some(soft) if want.old.is_some() => deadline.min(begun + soft),
            _ => deadline,
        };
        let rests = self.rests(ask.route, ask.key);
        let joins = match want.joins {
            Joins::Known if rests.are_announced() && self.rests_on(rests.basis) => Joins::Sure,
            Joins::Known => Joins::Unsent,
            given => given,
        };
        let required = self.ledger.required(&rests.tags);
        let required = match &want.after {
            Some(token) => required.and(token.xid),
            None => required,
        };
        let sure = |sent: &Required| joins == Joins::Sure && required.sure_of(sent);
        let key = Key::new(ask.key);
        let mut waiting = None;
        let mut fills = 0;
        loop {
            let joined = match &want.limited {
                None => self.flights.join(&key, sure),
                Some(stored) => {
                    let Some(wait) = self.flights.follow(&key, sure) else {
                        let stands = stored.freshness(self.clock.now());
                        let source = Source::Memory { stands, by: By::RefillLimited };
                        return Ok(Answer { entry: Arc::clone(stored), source });
                    };
                    Join::Follower(wait)
                }
            };
            let waiting =
                waiting.get_or_insert_with(|| Waiting::new(ask.route.metrics(), why, self.shared.get().is_some()));
            let (mut wait, led) = match joined {
                Join::Leader(lead, wait) => {
                    tokio::spawn(self.fill(ask, &want, joins, key.clone(), rests.clone(), deadline).run(lead));
                    (wait, Some(Led::Own))
                }
                Join::Follower(wait) => (wait, Some(Led::Others)),
                Join::Blocked(wait) => (wait, None),
                Join::Full => {
                    self.metrics.refused(Refused::Waiters);
                    return self.fall_back(&want, ask, Led::Own, ReadError::TooManyWaiters.into());
                }
            };
            let whose = led.unwrap_or(Led::Others);
            let Ok(end) = timeout_at(patience, &mut wait).await else {
                if patience < deadline
                    && let Some(answer) = self.old(&want, ask, whose, Instead::Nothing)
                {
                    wait.leave_running();
                    return Ok(answer);
                }
                return self.fall_back(&want, ask, whose, ReadError::Deadline.into());
            };
            drop(wait);
            let Some(led) = led else { continue };
            if led == Led::Others {
                ask.route.metrics().shared.inc();
            }
            let landed = match end {
                End::Landed(Ok(landed)) => landed,
                End::Landed(Err(failed)) => return self.fall_back(&want, ask, led, failed),
                End::Aborted => return self.fall_back(&want, ask, led, ReadError::Panicked.into()),
            };
            let in_time = joins == Joins::Sure || landed.read_after(ask.arrived);
            if in_time && self.ledger.accepts(&required, landed.entry.stamp()) {
                // Another history may have taken over while it was waited for. There its id is another transaction's.
                if want.after.as_ref().is_some_and(|token| !token.may_be_of(&landed.entry.stamp().lineage)) {
                    return Err(ReadError::LineageChanged.into());
                }
                if landed.is_shared() {
                    waiting.was_spared();
                } else if landed.is_for_want_of_redis() {
                    waiting.was_for_want_of_redis();
                }
                return Ok(Answer { source: landed.source(led, why, self.clock.now()), entry: landed.entry });
            }
            // What another pod had filled already is nothing that was waited for.
            fills += usize::from(!landed.is_shared());
            if fills == FILLS_AT_MOST {
                let behind = if want.after.is_some() { ReadError::NotVisible } else { ReadError::OriginBehind };
                return self.fall_back(&want, ask, led, behind.into());
            }
        }
    }

    /// The rebuild that this reader leads.
    fn fill(
        self: &Arc<Self>,
        ask: &Ask<'_>,
        want: &Want,
        joins: Joins,
        key: Key,
        rests: Rests,
        deadline: Instant,
    ) -> Fill {
        let timeout = ask.route.query().policy().timeout;
        Fill {
            read: Arc::clone(self),
            route: Arc::clone(ask.route),
            prepared: Arc::clone(ask.prepared),
            key,
            rests,
            reason: match want.why {
                Fallback::Miss => Rebuild::Miss,
                Fallback::Expired => Rebuild::Expired,
                // The rebuild is as due as after a write: what is stored can't be relied upon.
                Fallback::Invalidated | Fallback::Blind => Rebuild::Invalidated,
                Fallback::Directive | Fallback::Strict => Rebuild::Manual,
            },
            unless: if want.why == Fallback::Directive || joins == Joins::Unsent || want.after.is_some() {
                Unless::BegunAfter(ask.arrived)
            } else {
                Unless::Fresh
            },
            refreshes: None,
            // The fill's reason must be back before those who wait for it run out of time themselves.
            deadline: deadline - (timeout / 20).min(Duration::from_millis(20)),
        }
    }

    /// The old answer instead of a failure, where the failure is not the client's own.
    fn fall_back(&self, want: &Want, ask: &Ask<'_>, led: Led, failed: Failed) -> Result<Answer, Failed> {
        if !failed.error.is_hidden_by_stale() {
            return Err(failed);
        }
        self.old(want, ask, led, Instead::Failure(failed.error.clone())).ok_or(failed)
    }

    /// The old answer, if it is within `stale_if_error` still: the wait may have outlasted that.
    fn old(&self, want: &Want, ask: &Ask<'_>, led: Led, instead: Instead) -> Option<Answer> {
        // As it is now: a purge may have taken it away, or a refresh have brought another.
        let entry = want.old.as_ref().and_then(|_| self.store.peek(ask.key))?;
        if let Freshness::Stale(past) = entry.freshness(self.clock.now())
            && past >= ask.route.query().policy().stale_if_error
        {
            return None;
        }
        Some(Answer { entry, source: Source::Old { led, why: want.why, instead } })
    }
}
