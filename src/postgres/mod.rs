//! The origin: Postgres behind the port [`Origin`].
//!
//! # Map
//!
//! - [`Settings`] in; `tls`, `connect` and `session` make a connection whose session is pinned; `pool` keeps
//!   them; `reach` and its `breaker` spare a database that is away, and find out when it is back.
//! - `statement` and `lineage` are the one statement of a fill; `bind` carries parameters and results.
//! - `fetch` runs a fill in a task of its own; `cancel` calls it off in Postgres when nobody wants it any more.
//! - `prepare`, `describe` and `limits` find out what a query is; `supervise` keeps that true.
//! - [`migrate`] installs schema `seawall` and the triggers that announce writes.
//! - `stream` follows the event log, and keeps verdicts true.
//! - `analyse` finds out what a query's answers depend on, and its verdict.
//! - `surroundings` looks for what else costs writers, or holds the log's cleanup back.
//! - `failure` and `sqlstate` turn errors into decisions.
//! - `embedded` is a private server for the demo and the tests.
//!
//! # What it guarantees
//!
//! A fill is one statement and, but for the first on a connection, one round trip. Parameters are always bound. A fill
//! that is dropped is cancelled in Postgres, and never anybody else's. What is larger than its bounds is not
//! transferred. At most `pool_size` connections are open or being opened, whatever is asked; while the database is away,
//! a few probes beside them.

mod analyse;
mod bind;
mod breaker;
mod cancel;
mod connect;
mod describe;
#[cfg(feature = "embedded")]
pub mod embedded;
mod failure;
mod fetch;
mod limits;
pub mod lineage;
pub mod migrate;
mod pool;
mod prepare;
mod reach;
mod session;
mod settings;
mod sqlstate;
mod statement;
mod stream;
mod supervise;
mod surroundings;
mod tls;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::catalog::verdict::{self, Closure, SchemaFingerprint, Wanted};
use crate::catalog::{Catalog, InForce, Prepared, Query};
use crate::readthrough::origin::{
    Announced, Connection, Fetched, OnSend, Origin, OriginError, OriginState, Pending, PoolCounts,
};

pub use analyse::Analysed;
use analyse::Found;
pub use breaker::BreakerState;
pub use settings::{Announcers, Settings, SettingsError, TlsMode};
pub use stream::StreamSettings;
pub use surroundings::{Holder, HolderKind, Listed, Notified, NotifyingTrigger, Queue, QueueSession, Surroundings};

use connect::Connector;
use fetch::Fill;
use pool::Pool;
use statement::Bounds;
use stream::Upkeep;

/// What happens to connections, for whoever measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A fill has waited this long for its connection, opening it included, or in vain.
    Waited(Duration),
    /// A connection was made.
    Connected,
    /// One was not.
    ConnectFailed,
    /// The breaker of connecting is in this state now.
    Breaker(BreakerState),
}

/// Who is told. Called with a lock held: it counts, and does nothing else.
type OnEvent = Arc<dyn Fn(Event) + Send + Sync>;

/// A database that answers queries. Nothing is connected before something is asked; [`Postgres::supervise`] asks.
pub struct Postgres {
    shared: Arc<Shared>,
    /// What is known of the queries in force.
    settled: Arc<stream::schema::Settled>,
    reconnect_max: Duration,
}

/// What fills, the supervisor and the port share.
struct Shared {
    pool: Pool,
    result_max_bytes: u64,
    attempted: watch::Sender<bool>,
    /// Rung when a query turns out broken between two looks at it.
    broke: Notify,
    /// Whether the lineage has the epoch in it: there is a log, and this role may read it.
    reads_epoch: AtomicBool,
    upkeep: Upkeep,
    announcers: Announcers,
}

impl Postgres {
    /// The database that `settings` describes; `on_event` is told what happens to connections, and must only count.
    ///
    /// # Errors
    /// The URL or a certificate can't be used. A database that is away is no error.
    #[expect(clippy::needless_pass_by_value, reason = "the secret in it should not outlive this")]
    pub fn new(settings: Settings, on_event: impl Fn(Event) + Send + Sync + 'static) -> Result<Self, SettingsError> {
        let shared = Shared {
            pool: Pool::new(&settings, Arc::new(on_event))?,
            result_max_bytes: settings.result_max_bytes,
            attempted: watch::Sender::new(false),
            broke: Notify::new(),
            reads_epoch: AtomicBool::new(false),
            upkeep: Upkeep::new(Connector::new(&settings)?),
            announcers: settings.announcers.clone(),
        };
        Ok(Self { shared: Arc::new(shared), settled: Arc::default(), reconnect_max: settings.reconnect_max })
    }

    /// Prepares every query and gives each its shape; one that is broken affects no other.
    ///
    /// # Errors
    /// [`OriginError::Away`]: the shapes that were not reached stay what they were. [`OriginError::Timeout`] or
    /// [`OriginError::Conflict`]: something holds a lock on what a query reads; the others have their shapes.
    pub async fn prepare_all(&self, catalog: &Catalog) -> Result<(), OriginError> {
        self.shared.prepare_all(catalog).await
    }

    /// Prepares one query and gives it its shape.
    ///
    /// # Errors
    /// As [`Postgres::prepare_all`].
    pub async fn prepare(&self, query: &Query) -> Result<(), OriginError> {
        self.shared.prepare(query).await
    }

    /// Gives every query of `catalog` that is prepared its verdict, and says what in the catalogs they rest on.
    ///
    /// On a connection of its own, which is closed afterwards; about 40 round trips for each query.
    ///
    /// # Errors
    /// [`OriginError::Away`], or [`OriginError::Timeout`] and [`OriginError::Conflict`] where something holds a lock on what
    /// a query reads, or definitions keep changing: all verdicts stay what they were.
    pub async fn analyse_all(&self, catalog: &Catalog) -> Result<Analysed, OriginError> {
        self.shared.find_out(catalog).await.map(Found::judge)
    }

    /// Prepares and judges every query of `catalog`, and says which triggers they need for their writes to be announced.
    ///
    /// # Errors
    /// As [`Postgres::analyse_all`].
    pub async fn wanted(&self, catalog: &Catalog) -> Result<Vec<Wanted>, OriginError> {
        self.prepare_all(catalog).await?;
        self.analyse_all(catalog).await?;
        let verdicts: Vec<_> = catalog.iter().filter_map(|query| query.verdict()).collect();
        Ok(verdict::wanted(verdicts.iter().map(|verdict| &**verdict)))
    }

    /// Reads the hash over `closure` as the catalogs are now.
    ///
    /// # Errors
    /// As [`Postgres::analyse_all`].
    pub async fn schema_fingerprint(&self, closure: &Closure) -> Result<SchemaFingerprint, OriginError> {
        self.shared.schema_fingerprint(closure).await
    }

    /// Looks once for what, beside the queries of `catalog`, costs writers or holds the event log back for longer than its
    /// `retention`. Queries should be analysed: the tables that they depend on come first.
    ///
    /// On a connection of its own, which is closed afterwards; about ten round trips, nothing is written.
    ///
    /// # Errors
    /// As [`Postgres::analyse_all`].
    pub async fn surroundings(&self, catalog: &Catalog, retention: Duration) -> Result<Surroundings, OriginError> {
        self.shared.surroundings(catalog, retention).await
    }

    /// Keeps the queries of `catalog` prepared, for as long as it is polled. One task of the process runs this.
    pub async fn supervise(&self, catalog: Arc<InForce>) {
        self.shared.supervise(&catalog, self.reconnect_max).await;
    }

    /// Waits until [`Postgres::supervise`] has tried to prepare the queries once, whatever came of it.
    pub async fn first_attempt(&self) {
        // The sender lives as long as this value.
        let _ = self.shared.attempted.subscribe().wait_for(|attempted| *attempted).await;
    }

    /// The breaker of connecting.
    pub fn breaker(&self) -> BreakerState {
        self.shared.pool.reach().breaker_state()
    }

    /// Waits until no connection is in use: all fills have ended, and those that were dropped are cancelled in Postgres.
    pub async fn drained(&self) {
        self.shared.pool.drained().await;
    }
}

impl Shared {
    fn bounds(&self, query: &Query) -> Bounds {
        let rows = query.declaration().result.row_limit(query.policy().max_rows);
        Bounds { rows, bytes: self.result_max_bytes }
    }
}

impl Origin for Postgres {
    fn fetch<'a>(
        &'a self,
        query: &'a Arc<Query>,
        prepared: &'a Arc<Prepared>,
        key: &'a [u8],
        within: Duration,
        connection: Connection,
        on_send: OnSend,
    ) -> Pending<'a, Result<Fetched, OriginError>> {
        let fill = Fill {
            shared: Arc::clone(&self.shared),
            query: Arc::clone(query),
            prepared: Arc::clone(prepared),
            key: key.into(),
            within,
            connection,
            on_send,
        };
        Box::pin(fetch::run(fill))
    }

    fn announce<'a>(&'a self, tags: &'a [String]) -> Pending<'a, Result<Announced, OriginError>> {
        let shared = &self.shared;
        Box::pin(async move {
            let announced = match &shared.announcers {
                Announcers::Operator { channel } => {
                    shared.upkeep.notify(channel, tags).await.map(|after| Announced::Notified { after })
                }
                Announcers::Seawall if shared.reads_epoch.load(Ordering::Acquire) => {
                    shared.upkeep.announce(tags).await.map(|xid| Announced::Logged { xid })
                }
                Announcers::Seawall => shared.upkeep.present().await.map(|after| Announced::Unlogged { after }),
            };
            announced.map_err(|trouble| OriginError::Away(trouble.reason().to_owned()))
        })
    }

    fn state(&self) -> OriginState {
        self.shared.pool.reach().origin_state()
    }

    fn pool(&self) -> PoolCounts {
        self.shared.pool.counts()
    }
}
