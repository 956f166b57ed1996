//! The session that migrates: its settings, its place among others that migrate, and statements that wait for locks.
//!
//! # Locks
//!
//! One session at a time migrates a database: it holds an advisory lock until it ends. It then changes one table per
//! transaction and never holds two tables' locks, so it can't be part of a deadlock but with who locks tables by hand. Each
//! lock is waited for one second at most, since who waits for a lock makes everybody wait who comes after; then it lets them
//! through, and tries again.

use std::time::Duration;

use deadpool_postgres::ClientWrapper;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::MigrateError;
use crate::postgres::connect::Connector;
use crate::postgres::failure;
use crate::postgres::settings::Settings;

/// As a statement that starts a script: what is set here is all that the rest relies on.
pub(super) const SET_UP: &str = "SET search_path = pg_catalog, pg_temp;\nSET standard_conforming_strings = on;\n\
    SET client_min_messages = warning;\nSET default_transaction_isolation = 'read committed';\n\
    SET default_transaction_read_only = off;\nSET statement_timeout = 0;\nSET lock_timeout = '1s';\n";

/// The same as in [`SET_UP`].
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);
/// When a wait for a lock has lasted so long, it is looked up who holds it: before the wait ends.
const LOOK_AFTER: Duration = Duration::from_millis(500);
/// Tries per table. With the pauses a quarter of a minute: enough for statements and requests. For reports nobody waits who
/// starts `migrate`, and the next run takes the table up.
const TRIES: u32 = 10;
/// Between two tries everybody who queued behind the last one goes on.
const PAUSE: Duration = Duration::from_millis(500);
/// How long another migration is waited for: that of a schema of which forty tables are locked.
const TURN_WITHIN: Duration = Duration::from_secs(600);

/// Keys of advisory locks in two halves are apart from those in one, of which the doorbell's is one. "seaw", "mig".
const TURN: (i32, i32) = (0x7365_6177, 0x006d_6967);

/// A connection that migrates, and one to look from while it waits.
pub(super) struct Migrating {
    client: ClientWrapper,
    watcher: ClientWrapper,
    pid: i32,
    pub(super) server_version: i32,
}

/// Why a table was left as it was.
pub(super) enum Refused {
    /// Its lock couldn't be had; who held it.
    Locked(String),
    /// Postgres says no.
    Failed(String),
}

impl Migrating {
    /// Connects and waits for its turn.
    pub(super) async fn begin(settings: &Settings) -> Result<Self, MigrateError> {
        let migrating = Self::connect(settings).await?;
        let turn = format!("SELECT pg_advisory_lock({}, {})", TURN.0, TURN.1);
        let deadline = tokio::time::Instant::now() + TURN_WITHIN;
        loop {
            match migrating.watched(&turn, 0).await {
                Ok(()) => return Ok(migrating),
                Err(Refused::Locked(by)) if tokio::time::Instant::now() < deadline => {
                    tracing::info!(by, "another migration runs; waiting for its end");
                }
                Err(Refused::Locked(by)) => return Err(MigrateError::Turn(by)),
                Err(Refused::Failed(why)) => return Err(MigrateError::Failed("waiting for its turn".into(), why)),
            }
        }
    }

    /// Connects to look, without a turn.
    pub(super) async fn connect(settings: &Settings) -> Result<Self, MigrateError> {
        let connector = Connector::new(settings).map_err(|error| MigrateError::Connect(error.to_string()))?;
        let client = connector.open().await.map_err(|away| MigrateError::Connect(away.reason))?;
        let watcher = connector.open().await.map_err(|away| MigrateError::Connect(away.reason))?;
        let prepare = async {
            client.batch_execute(SET_UP).await?;
            watcher.batch_execute(SET_UP).await?;
            let sql = "SELECT pg_backend_pid(), current_setting('server_version_num')::int4";
            let row = client.query_one(sql, &[]).await?;
            Ok::<_, tokio_postgres::Error>((row.try_get(0)?, row.try_get(1)?))
        };
        let (pid, server_version) = prepare.await.map_err(|error| MigrateError::Connect(failure::text(&error)))?;
        Ok(Self { client, watcher, pid, server_version })
    }

    /// For what waits for nobody.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Runs `sql`, a script of whole transactions, and again while others hold what it needs.
    pub(super) async fn run(&self, what: &str, sql: &str) -> Result<(), MigrateError> {
        let done = self.retried(0, async || self.watched(sql, 0).await).await;
        done.map_err(|why| MigrateError::Failed(what.into(), why))
    }

    /// Runs `lock`, `verify` and `change` in one transaction, and all of it again while others hold what it needs.
    pub(super) async fn change(
        &self,
        relation: u32,
        lock: &str,
        verify: impl AsyncFn(&Client) -> Result<(), String>,
        change: &str,
    ) -> Result<(), String> {
        let transaction = async || {
            self.watched(&format!("BEGIN;\n{lock}"), relation).await?;
            verify(&self.client).await.map_err(Refused::Failed)?;
            self.watched(&format!("{change}COMMIT;\n"), relation).await
        };
        self.retried(relation, transaction).await
    }

    async fn retried(&self, relation: u32, attempt: impl AsyncFn() -> Result<(), Refused>) -> Result<(), String> {
        let mut tried = 1;
        loop {
            let Err(refused) = attempt().await else { return Ok(()) };
            // Where the connection is what failed, so does this, and the transaction is over.
            let _ = self.client.batch_execute("ROLLBACK").await;
            match refused {
                Refused::Failed(why) => return Err(why),
                Refused::Locked(by) if tried == TRIES => {
                    let seconds = LOCK_TIMEOUT.as_secs();
                    return Err(format!(
                        "its lock could not be had in {TRIES} tries of {seconds} s; it waited for {by}"
                    ));
                }
                Refused::Locked(by) => {
                    tracing::info!(relation, tried, by, "a lock is held by others; trying again");
                    tried += 1;
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Runs `sql`, looking from the other connection at who holds it up.
    async fn watched(&self, sql: &str, relation: u32) -> Result<(), Refused> {
        let running = self.client.batch_execute(sql);
        tokio::pin!(running);
        let mut by = String::new();
        let result = tokio::select! {
            result = &mut running => result,
            () = tokio::time::sleep(LOOK_AFTER) => {
                by = self.holders(relation).await;
                running.await
            }
        };
        result.map_err(|error| match error.code() {
            Some(code) if [SqlState::LOCK_NOT_AVAILABLE, SqlState::T_R_DEADLOCK_DETECTED].contains(code) => {
                Refused::Locked(if by.is_empty() { "somebody who is gone".into() } else { by })
            }
            _ => Refused::Failed(failure::text(&error)),
        })
    }

    /// Whom the migrating connection waits for, for people. A role that may not see others' sessions sees less.
    async fn holders(&self, relation: u32) -> String {
        let sql = "SELECT string_agg(CASE WHEN b.pid = 0 THEN \
                   coalesce((SELECT 'prepared transaction ' || string_agg(quote_literal(p.gid), ', ') \
                             FROM pg_locks l JOIN pg_locks x ON x.virtualtransaction = l.virtualtransaction \
                             JOIN pg_prepared_xacts p ON p.transaction = x.transactionid \
                             WHERE l.relation = $2 AND l.pid IS NULL AND x.pid IS NULL), 'a prepared transaction') \
                   ELSE 'pid ' || b.pid || coalesce(', role ' || a.usename, '') \
                   || coalesce(', application ' || nullif(a.application_name, ''), '') || coalesce(', ' || a.state, '') \
                   || coalesce(', in a transaction for ' || extract(epoch FROM clock_timestamp() - a.xact_start)::int8 || ' s', '') \
                   END, '; ') \
                   FROM (SELECT DISTINCT unnest(pg_blocking_pids($1)) AS pid) AS b LEFT JOIN pg_stat_activity a ON a.pid = b.pid";
        match self.watcher.query_one(sql, &[&self.pid, &relation]).await {
            Ok(row) => row.try_get::<_, Option<String>>(0).ok().flatten().unwrap_or_default(),
            Err(error) => {
                tracing::debug!(error = failure::text(&error), "who holds a lock can't be looked up");
                String::new()
            }
        }
    }
}
