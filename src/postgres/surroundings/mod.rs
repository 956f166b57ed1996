//! What in a database, beside its queries, costs writers or holds the event log back: a look for operators.
//!
//! One look at one moment, on a connection of its own that is closed afterwards: some catalogs and the server's own views of
//! what runs. Nothing is written, no lock is taken that anybody waits for, and no text of anybody's statement is brought
//! along: those may hold secrets.
//!
//! Whatever the role may not see is counted, never taken for absent. What it finds is no error and breaks no query; what it
//! means, and what to do, is for `seawall check` to say.
//!
//! # Map
//!
//! `notify` finds who notifies beside Seawall, by what `body` makes of functions' texts, and how full the queue is. `holders`
//! finds what is older than the log's retention and keeps its dead rows.

mod body;
mod holders;
mod notify;

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::Client;

use super::Shared;
use super::connect::FIRST_STATEMENT_TIMEOUT_MS;
use super::failure::Failure;
use super::sqlstate::Decision;
use crate::catalog::Catalog;
use crate::readthrough::origin::{Connection, OriginError};

pub use holders::{Holder, HolderKind};
pub use notify::{Notified, NotifyingTrigger, Queue, QueueSession};

/// All statements of a look together: about ten, each of some milliseconds.
const WITHIN: Duration = Duration::from_secs(20);

/// What was found, by kind.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Surroundings {
    /// Enabled triggers that notify and are not Seawall's; those on tables that queries depend on come first.
    pub notifying: Listed<NotifyingTrigger>,
    /// Statements that notify, where statistics say that there are many.
    pub notified: Option<Notified>,
    /// The notification queue of the server, where somebody doesn't read it.
    pub queue: Option<Queue>,
    /// What holds the log's cleanup back for longer than the retention, the longest first.
    pub holders: Listed<Holder>,
    /// `max_prepared_transactions`: over 0 nobody rings the doorbell.
    pub max_prepared_transactions: u32,
    /// Sessions of others of which this role sees neither state nor age.
    pub hidden_sessions: u32,
    /// The role that looked.
    pub role: String,
}

/// The first of what was found, and how many more there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed<T> {
    /// 20 at most.
    pub first: Vec<T>,
    /// How many are left out.
    pub more: u64,
}

impl<T> Default for Listed<T> {
    fn default() -> Self {
        Self { first: vec![], more: 0 }
    }
}

/// Of one kind: what fits a terminal. An operator who has repaired these looks again.
const LISTED: i64 = 20;

impl<T> Listed<T> {
    /// Of rows that each bring the number of all of them.
    fn new(first: Vec<T>, total: Option<i64>) -> Self {
        let more = u64::try_from(total.unwrap_or(0)).unwrap_or(0).saturating_sub(first.len() as u64);
        Self { first, more }
    }
}

/// Sessions show nothing but ids to a role that is neither theirs nor one of those that read all statistics. Those of no
/// database are the server's own.
const ROLE: &str = "SELECT current_user::text, current_setting('max_prepared_transactions')::int4, \
     (SELECT count(*) FROM pg_stat_activity WHERE datid IS NOT NULL AND pid <> pg_backend_pid() \
      AND NOT pg_has_role(usesysid, 'USAGE') AND NOT pg_has_role('pg_read_all_stats', 'USAGE'))::int4";

impl Shared {
    /// Looks once. `retention` is how long the log keeps events.
    ///
    /// # Errors
    /// As [`super::Postgres::surroundings`].
    pub(super) async fn surroundings(
        &self,
        catalog: &Catalog,
        retention: Duration,
    ) -> Result<Surroundings, OriginError> {
        let looked = async {
            let turn = self.pool.turn().await;
            // A new one, for its search path is about to be another. Dropped, it is closed.
            let mut lease = self.pool.session(&turn, Connection::New).await?;
            let session = lease.session();
            session.bound(FIRST_STATEMENT_TIMEOUT_MS).await.map_err(|error| Failure::from(&error))?;
            timeout(WITHIN, look(session.client(), &depended_on(catalog), retention))
                .await
                .map_err(|_| Failure::new(Decision::Timeout, "looking around took too long"))?
                .map_err(|error| Failure::from(&error))
        };
        looked.await.map_err(|failure: Failure| failure.to_error(0, self.result_max_bytes))
    }
}

async fn look(client: &Client, tables: &[u32], retention: Duration) -> Result<Surroundings, tokio_postgres::Error> {
    client.batch_execute("SET search_path = pg_catalog, pg_temp").await?;
    let role = client.query_one(ROLE, &[]).await?;
    Ok(Surroundings {
        notifying: notify::triggers(client, tables).await?,
        notified: notify::statements(client).await?,
        queue: notify::queue(client).await?,
        holders: holders::holders(client, retention).await?,
        role: role.try_get(0)?,
        max_prepared_transactions: count(role.try_get(1)?),
        hidden_sessions: count(role.try_get(2)?),
    })
}

/// Every table whose writes concern a query of `catalog`.
fn depended_on(catalog: &Catalog) -> Vec<u32> {
    let mut tables = vec![];
    for verdict in catalog.iter().filter_map(|query| query.verdict()) {
        for dependency in &verdict.dependencies {
            tables.push(dependency.relation.oid);
            tables.extend(dependency.family.iter().map(|member| member.relation.oid));
        }
    }
    tables.sort_unstable();
    tables.dedup();
    tables
}

fn count(number: i32) -> u32 {
    u32::try_from(number).unwrap_or(0)
}

/// What the server measures since some moment in the past, in its own time: never negative, whatever its clock does.
fn age(seconds: Option<f64>) -> Option<Duration> {
    seconds.map(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX))
}
