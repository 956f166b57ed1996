//! What writes: seeding the epoch, pruning, the canary, and invalidations by hand, each in a transaction of its own.
//!
//! On a connection of its own, which is opened when it is needed and kept while it is: the listening session never writes,
//! and a pooled one is read-only.

use std::time::Duration;

use postgres_types::{ToSql, Type};
use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_postgres::{Client, Row};

use super::Trouble;
use crate::catalog::tags;
use crate::postgres::connect::Connector;
use crate::postgres::failure;
use crate::stamp::{Lineage, Snapshot, Stamp};

/// As the server's views show it.
const APPLICATION: &str = "seawall upkeep";

/// One statement with what it waits for; pruning a minute's backlog takes less than a second.
const WITHIN: Duration = Duration::from_secs(5);

/// Postgres takes no longer payload. A tag that somebody sends has 1,000 bytes at most, and thrice as many encoded.
const PAYLOAD_BYTES: usize = 7_999;

const SET_UP: &str = "SELECT pg_catalog.set_config('search_path', 'pg_catalog', false), \
     pg_catalog.set_config('default_transaction_read_only', 'off', false), \
     pg_catalog.set_config('default_transaction_isolation', 'read committed', false), \
     pg_catalog.set_config('statement_timeout', '5000', false), \
     pg_catalog.set_config('lock_timeout', '1000', false), \
     pg_catalog.set_config('idle_in_transaction_session_timeout', '10s', false)";

/// The connection, if there is one. One statement at a time.
pub(in crate::postgres) struct Upkeep {
    connector: Connector,
    client: Mutex<Option<Client>>,
}

impl Upkeep {
    pub(in crate::postgres) fn new(connector: Connector) -> Self {
        Self { connector, client: Mutex::new(None) }
    }

    /// Makes the epoch that of this database, if it is not.
    pub(in crate::postgres) async fn reseed(&self) -> Result<(), Trouble> {
        self.run("SELECT seawall.reseed()::text", &[]).await.map(drop)
    }

    /// Forgets events older than `horizon`.
    pub(super) async fn prune(&self, epoch: &str, horizon: &Snapshot) -> Result<(), Trouble> {
        let horizon = horizon.to_string();
        let sql = "SELECT seawall.prune($1::uuid, $2::pg_snapshot)";
        self.run(sql, &[(&epoch, Type::TEXT), (&horizon, Type::TEXT)]).await.map(drop)
    }

    /// Events that the log holds, as statistics know them: counting would read all of it.
    pub(super) async fn rows(&self) -> Result<i64, Trouble> {
        let sql = "SELECT n_live_tup FROM pg_stat_user_tables WHERE relid = 'seawall.event'::regclass";
        Ok(self.run(sql, &[]).await?.try_get(0)?)
    }

    /// Announces the canary of `pod`.
    pub(super) async fn canary(&self, pod: &str) -> Result<(), Trouble> {
        self.run("SELECT seawall.canary($1)::text", &[(&pod, Type::TEXT)]).await.map(drop)
    }

    /// Announces `tags`, and says by which transaction.
    pub(in crate::postgres) async fn announce(&self, tags: &[String]) -> Result<u64, Trouble> {
        let sql = "SELECT seawall.invalidate(VARIADIC $1)::text, pg_current_xact_id()::text";
        let row = self.run(sql, &[(&tags, Type::TEXT_ARRAY)]).await?;
        row.try_get::<_, &str>(1)?.parse().map_err(|_| Trouble::nonsense("no transaction id came back".into()))
    }

    /// Notifies whoever listens to `channel` of `tags`; a snapshot taken after that, and whose.
    pub(in crate::postgres) async fn notify(&self, channel: &str, tags: &[String]) -> Result<Stamp, Trouble> {
        let sql = "SELECT count(pg_notify($1, payload)::text)::text FROM unnest($2) AS payload";
        self.run(sql, &[(&channel, Type::TEXT), (&payloads(tags), Type::TEXT_ARRAY)]).await?;
        self.present().await
    }

    /// A snapshot, and whose, where there is no log.
    pub(in crate::postgres) async fn present(&self) -> Result<Stamp, Trouble> {
        let sql = format!("SELECT pg_current_snapshot()::text, {}", crate::postgres::lineage::EXPRESSION);
        let row = self.run(&sql, &[]).await?;
        let nonsense = || Trouble::nonsense("no snapshot came back".into());
        let snapshot = Snapshot::parse(row.try_get::<_, &str>(0)?).map_err(|_| nonsense())?;
        let lineage: Option<&str> = row.try_get(1)?;
        let lineage = lineage.ok_or_else(|| Trouble::standby("the server is in recovery".into()))?;
        Ok(Stamp { lineage: Lineage::new(lineage), snapshot })
    }

    /// One row of one statement. A connection that a statement failed on is closed.
    async fn run(&self, sql: &str, values: &[(&(dyn ToSql + Sync), Type)]) -> Result<Row, Trouble> {
        let mut held = self.client.lock().await;
        let client = match held.take().filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => open(&self.connector).await?,
        };
        let row = timeout(WITHIN, client.query_typed_one(sql, values))
            .await
            .map_err(|_| Trouble::away("a statement took too long".into()))??;
        *held = Some(client);
        Ok(row)
    }
}

/// `tags` as payloads, of which each has as many as it takes.
fn payloads(tags: &[String]) -> Vec<String> {
    let mut payloads: Vec<String> = vec![];
    for tag in tags.iter().map(|tag| tags::encoded(tag).to_string()) {
        match payloads.last_mut() {
            Some(last) if last.len() + 1 + tag.len() <= PAYLOAD_BYTES => {
                last.push(' ');
                last.push_str(&tag);
            }
            _ => payloads.push(tag),
        }
    }
    payloads
}

async fn open(connector: &Connector) -> Result<Client, Trouble> {
    let opened = async {
        let (client, connection) =
            connector.dial(APPLICATION).await.map_err(|unconnected| Trouble::away(unconnected.reason))?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = failure::text(&error), "the upkeep's connection ended");
            }
        });
        client.batch_execute(SET_UP).await?;
        Ok(client)
    };
    timeout(WITHIN, opened).await.unwrap_or_else(|_| Err(Trouble::away("connecting took too long".into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_share_payloads_as_far_as_these_go_and_are_read_back_as_they_were() {
        let tags: Vec<String> = (0..20).map(|n| format!("{n} {}", "é%".repeat(280))).collect();
        let payloads = payloads(&tags);
        assert!(payloads.iter().all(|payload| payload.len() <= PAYLOAD_BYTES), "{payloads:?}");
        assert_eq!(payloads.len(), 7, "three of them fit into one");
        let read: Vec<_> = payloads.iter().flat_map(|payload| crate::ledger::Payload::parse(payload).tags).collect();
        let meant = tags.iter().flat_map(|tag| tags::with_rows(tag));
        assert_eq!(read, meant.map(|tag| crate::tag::Tag::new(&tag)).collect::<Vec<_>>());
    }
}
