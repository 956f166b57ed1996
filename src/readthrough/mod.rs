//! The read path: from a key to an answer.
//!
//! 1. [`Readthrough::look`]: a fresh entry is the answer; no await, no allocation (R2).
//! 2. Else [`Readthrough::read`]: a failure that is remembered is the answer; else the reader joins the key's flight, or
//!    leads one (R3), and waits until its own deadline.
//! 3. The leader's fill is a detached task: it looks again, takes its turn, sends one statement, certifies what comes
//!    back, stores it (R1), and lands the flight.
//!
//! This module owns the ports to the outside ([`origin::Origin`]); it speaks no SQL and no HTTP.

mod admission;
mod error;
mod fill;
pub mod origin;
mod route;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::cache::entry::{Entry, Freshness};
use crate::cache::failures::Failures;
use crate::cache::flight::{End, Flights, Join};
use crate::cache::key::Key;
use crate::cache::store::Store;
use crate::catalog::{Catalog, Prepared, Shape};
use crate::clock::{Clock, Moment};
use crate::ledger::{Ledger, Required};
use crate::telemetry::metrics::{Degraded, Fallback, Metrics, Pooled, Refused};

use admission::Admission;
pub use error::{Failed, ReadError};
use fill::Landing;
use origin::{Origin, OriginState};
pub use route::Route;

/// The bounds of the read path, from the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes of the store.
    pub max_bytes: u64,
    /// Bytes of one entry in it.
    pub entry_max_bytes: u64,
    /// Rebuilds at a time, over all queries.
    pub max_fills: usize,
    /// Rebuilds that wait for their turn.
    pub max_queued_fills: usize,
    /// Requests that wait for rebuilds.
    pub max_waiters: usize,
}

/// What the store holds for a key.
#[derive(Debug)]
pub enum Look {
    /// A fresh answer, and for how much longer it is.
    Fresh(Arc<Entry>, Duration),
    /// Nothing fresh, for this reason.
    Rebuild(Fallback),
}

/// How an answer came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Found fresh.
    Memory {
        /// For how much longer.
        ttl: Duration,
    },
    /// Brought by a fill.
    Fill {
        /// Whether this request led it, or waited for another's.
        led: Led,
        /// Why it was needed.
        why: Fallback,
        /// Whether it was kept.
        stored: Stored,
    },
}

/// Whose flight it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Led {
    /// This request's.
    Own,
    /// Another's.
    Others,
}

/// Whether an answer was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// It was.
    Kept,
    /// It is larger than an entry may be, or not certified: given, not stored.
    Passed,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// The answer itself.
    pub entry: Arc<Entry>,
    /// How it came about.
    pub source: Source,
}

/// Shards of the flight table: joins hold a shard for less than a microsecond.
const FLIGHT_SHARDS: usize = 64;

/// Fills that a reader waits for at most before the origin is declared behind (R3): the one under way at its arrival,
/// and one sent after it.
const FILLS_AT_MOST: usize = 2;

/// The read path of a process.
pub struct Readthrough {
    routes: HashMap<Box<str>, Arc<Route>, foldhash::fast::FixedState>,
    in_order: Vec<Arc<Route>>,
    unknown: Route,
    store: Store,
    flights: Arc<Flights<Key, Required, Landing>>,
    failures: Failures<ReadError>,
    ledger: Ledger,
    admission: Admission,
    origin: Arc<dyn Origin>,
    clock: Clock,
    metrics: Arc<Metrics>,
}

impl Readthrough {
    /// The read path over `catalog`'s queries and `origin`.
    pub fn new(
        catalog: &Catalog,
        origin: Arc<dyn Origin>,
        bounds: Bounds,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let in_order: Vec<Arc<Route>> = catalog
            .iter()
            .zip(0u32..)
            .map(|(query, number)| Arc::new(Route::new(number, Arc::clone(query), metrics.query(query.name()))))
            .collect();
        Arc::new(Self {
            routes: in_order.iter().map(|route| (route.query().name().into(), Arc::clone(route))).collect(),
            in_order,
            unknown: Route::unknown(&metrics),
            store: Store::new(bounds.max_bytes, bounds.entry_max_bytes),
            flights: Flights::new(bounds.max_waiters, FLIGHT_SHARDS),
            failures: Failures::new(),
            ledger: Ledger::default(),
            admission: Admission::new(bounds.max_fills, bounds.max_queued_fills),
            origin,
            clock,
            metrics,
        })
    }

    /// The route of the query called `name`.
    #[inline]
    pub fn route(&self, name: &str) -> Option<&Arc<Route>> {
        self.routes.get(name)
    }

    /// Every route, by name.
    pub fn routes(&self) -> &[Arc<Route>] {
        &self.in_order
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

    /// The ledger.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
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

    /// What the store holds for `key` at `now`: fresh only within its lifetime and certified at the present version
    /// of the ledger (R2).
    #[inline]
    pub fn look(&self, key: &[u8], now: Moment) -> Look {
        let Some(entry) = self.store.get(key) else { return Look::Rebuild(Fallback::Miss) };
        let Freshness::Fresh(ttl) = entry.freshness(now) else { return Look::Rebuild(Fallback::Expired) };
        let version = self.ledger.version();
        if entry.certified() != version {
            if !self.ledger.certify(entry.stamp()) {
                return Look::Rebuild(Fallback::Invalidated);
            }
            entry.certify_at(version);
        }
        Look::Fresh(entry, ttl)
    }

    /// An answer for `key`, which [`Readthrough::look`] found none for because of `why`.
    ///
    /// Waits for at most the query's timeout. Cancel safe: a reader that is dropped leaves its flight, and the last one
    /// to leave cancels it.
    ///
    /// # Errors
    /// [`Failed`] with the reason, shared by all who waited.
    pub async fn read(
        self: &Arc<Self>,
        route: &Arc<Route>,
        prepared: &Arc<Prepared>,
        key: &[u8],
        why: Fallback,
    ) -> Result<Answer, Failed> {
        if let Some((error, until)) = self.failures.in_force(key, self.clock.now()) {
            return Err(Failed { error, until: Some(until) });
        }
        let timeout = route.query().policy().timeout;
        let deadline = Instant::now() + timeout;
        let required = self.ledger.required();
        let key = Key::new(key);
        route.metrics().fallback(why);
        let mut fills = 0;
        loop {
            let (wait, led) = match self.flights.join(&key, |sent| required.sure_of(sent)) {
                Join::Leader(lead, wait) => {
                    let fill = fill::Fill {
                        read: Arc::clone(self),
                        route: Arc::clone(route),
                        prepared: Arc::clone(prepared),
                        key: key.clone(),
                        why,
                        // The fill's reason must be back before those who wait for it run out of time themselves.
                        deadline: deadline - (timeout / 20).min(Duration::from_millis(20)),
                    };
                    tokio::spawn(fill.run(lead));
                    (wait, Some(Led::Own))
                }
                Join::Follower(wait) => (wait, Some(Led::Others)),
                Join::Blocked(wait) => (wait, None),
                Join::Full => {
                    self.metrics.refused(Refused::Waiters);
                    return Err(ReadError::TooManyWaiters.into());
                }
            };
            let end = timeout_at(deadline, wait).await.map_err(|_| ReadError::Deadline)?;
            let Some(led) = led else { continue };
            if led == Led::Others {
                route.metrics().shared.inc();
            }
            let landed = match end {
                End::Landed(landing) => landing?,
                End::Aborted => return Err(ReadError::Panicked.into()),
            };
            if self.ledger.accepts(&required, landed.entry.stamp()) {
                return Ok(Answer { source: landed.source(led, why, self.clock.now()), entry: landed.entry });
            }
            fills += 1;
            if fills == FILLS_AT_MOST {
                return Err(ReadError::OriginBehind.into());
            }
        }
    }

    /// What is not as it should be, for readiness and status: a reason and a sentence each.
    pub fn degraded(&self) -> Vec<(Degraded, String)> {
        let mut reasons = vec![];
        if let OriginState::Away(why) = self.origin.state() {
            reasons.push((Degraded::Postgres, format!("the database can't be reached: {why}")));
        }
        for route in &self.in_order {
            let name = route.query().name();
            match &**route.query().shape() {
                Shape::Ready(_) => {}
                Shape::Pending => {
                    reasons.push((Degraded::QueryPending, format!("query {name} has not been prepared yet")));
                }
                Shape::Broken(_) => {
                    reasons.push((
                        Degraded::QueryBroken,
                        format!("query {name} is broken; the log and `seawall check` say why"),
                    ));
                }
            }
        }
        reasons
    }

    /// Brings the gauges up to date, for whoever reads them next.
    pub fn gauge(&self) {
        fn signed(n: impl TryInto<i64>) -> i64 {
            n.try_into().unwrap_or(i64::MAX)
        }
        let m = &self.metrics;
        m.store_entries.set(signed(self.store.len()));
        m.store_bytes.set(signed(self.store.bytes()));
        m.flights.set(signed(self.flights.flying()));
        m.waiters.set(signed(self.flights.waiting()));
        let pool = self.origin.pool();
        m.pooled(Pooled::Idle, pool.idle);
        m.pooled(Pooled::Busy, pool.busy);
        let reasons = self.degraded();
        for &reason in Degraded::ALL {
            m.degraded(reason, reason == Degraded::NoEvents || reasons.iter().any(|(r, _)| *r == reason));
        }
        for route in &self.in_order {
            m.verdict(route.query().name(), &route::VERDICTS, route.verdict());
        }
    }
}
