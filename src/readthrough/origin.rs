//! The port to the database: what the read path asks of it, and the decisions that its failures allow.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::catalog::{Prepared, Query};
use crate::stamp::Stamp;

/// A future that a port returns. Fills are rare beside hits, so the box costs nothing that is noticed.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What one statement brought.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// The snapshot that the answer was read under, in the same statement.
    pub stamp: Stamp,
    /// The answer as Postgres made it, in a buffer of exactly its size; `None`: no row, for a form that needs one.
    pub body: Option<Box<[u8]>>,
    /// Rows that it was made of.
    pub rows: u64,
}

/// Why there is no answer. Each variant is a decision that the read path, and in the end the client, makes.
/// Texts in it are for the log: they may quote the database and never reach a client.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum OriginError {
    /// Postgres can't be reached, refuses connections, is shutting down or out of resources. Try later.
    #[error("the database can't be reached: {0}")]
    Away(String),
    /// No connection came free within the deadline. Try later.
    #[error("no connection to the database came free in time")]
    Pool,
    /// The statement outlived its deadline and was cancelled.
    #[error("the statement outlived its deadline")]
    Timeout,
    /// More rows than `max_rows`.
    #[error("the answer has more than {limit} rows")]
    TooManyRows {
        /// `max_rows`.
        limit: u32,
    },
    /// More bytes than `result_max_bytes`.
    #[error("the answer has {bytes} bytes, more than {limit}")]
    TooLarge {
        /// What the answer would have been.
        bytes: u64,
        /// `result_max_bytes`.
        limit: u64,
    },
    /// More than one row for form `row` or `value`.
    #[error("the answer has more than one row")]
    NotOneRow,
    /// Postgres refuses a parameter's value: the client's mistake.
    #[error("the database refuses a parameter: {0}")]
    Refused(String),
    /// The query itself fails in the database: the operator's mistake.
    #[error("the query fails in the database: {0}")]
    Broken(String),
    /// A conflict with other transactions that a retry did not resolve. Try later.
    #[error("the database gave up on the statement: {0}")]
    Conflict(String),
    /// The session is in recovery, or of another history than the ledger's, twice in a row.
    #[error("the database is not the primary of the known history: {0}")]
    Behind(String),
}

/// How an invalidation by hand was announced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Announced {
    /// In the log, committed, by this transaction.
    Logged {
        /// Its id.
        xid: u64,
    },
    /// To whoever listens. Whatever this snapshot does not see may be wrong.
    Notified {
        /// Taken after they were notified.
        after: Stamp,
    },
    /// Nowhere: there is no log. Whatever this snapshot does not see may be wrong.
    Unlogged {
        /// Taken after the request.
        after: Stamp,
    },
}

/// Told right before the statement is handed to the socket, once for each time it is. From then on a fill may have
/// missed a write; and a statement that was never sent cost Postgres nothing.
pub type OnSend = Arc<dyn Fn() + Send + Sync>;

/// Which connection a fetch may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// Whichever the pool gives.
    Pooled,
    /// A brand-new one: a pooled one may still lead to a server that is the primary no longer.
    New,
}

/// How the origin is, for readiness and status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OriginState {
    /// Nothing has been tried yet.
    Unknown,
    /// The last try to reach it succeeded.
    Up,
    /// The last try to reach it failed, for this reason (no secret in it).
    Away(String),
}

/// Connections of the pool, for the gauges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolCounts {
    /// Open and idle.
    pub idle: usize,
    /// Running a statement, or about to.
    pub busy: usize,
    /// Fills that wait for one.
    pub waiting: usize,
}

/// Where answers come from: Postgres, in production.
pub trait Origin: Send + Sync + 'static {
    /// Runs the query's statement once, with the parameters that `key` holds (see [`crate::catalog::args`]), and brings
    /// the answer with its stamp.
    ///
    /// `within` bounds everything, connecting included. Dropping the future cancels the statement in Postgres.
    fn fetch<'a>(
        &'a self,
        query: &'a Arc<Query>,
        prepared: &'a Arc<Prepared>,
        key: &'a [u8],
        within: Duration,
        connection: Connection,
        on_send: OnSend,
    ) -> Pending<'a, Result<Fetched, OriginError>>;

    /// Says to whoever caches this database that answers which depend on one of `tags`, texts as the log has them, are wrong.
    ///
    /// # Errors
    /// The database could not be told. Nothing is invalidated.
    fn announce<'a>(&'a self, tags: &'a [String]) -> Pending<'a, Result<Announced, OriginError>>;

    /// How it is.
    fn state(&self) -> OriginState;

    /// The pool's connections.
    fn pool(&self) -> PoolCounts;
}
