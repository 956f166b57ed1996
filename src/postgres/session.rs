//! One connection with what it remembers: its prepared statements, and the `statement_timeout` that it was last set to.
//!
//! A statement is prepared once for each connection, so a fill is one round trip after the first. There are at most
//! [`STATEMENTS_AT_MOST`] of them; the least recently used is closed in Postgres when another comes, so statements of
//! shapes that are no more, or of an earlier configuration, don't pile up. After a failover connections are new, and so
//! are their statements.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deadpool_postgres::ClientWrapper;
use futures_util::future;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{CancelToken, Client, Row, Statement};

use crate::catalog::ResultForm;
use crate::readthrough::origin::OnSend;

use super::bind::{Raw, Text};
use super::connect::FIRST_STATEMENT_TIMEOUT_MS;
use super::failure::Failure;
use super::sqlstate::Decision;
use super::statement;

/// Prepared statements of one connection at most: more queries than most configurations have, and some 10 MB of plans in
/// a backend.
const STATEMENTS_AT_MOST: usize = 256;

/// What one fill asks of a session.
pub(super) struct Ask<'a> {
    /// The wrapped statement.
    pub(super) sql: &'a Arc<str>,
    pub(super) form: ResultForm,
    pub(super) values: &'a [Text<'a>],
    /// Names and values that are in force for this statement and no longer.
    pub(super) settings: &'a [(String, Text<'a>)],
    /// Ends the statement in Postgres if nobody here does.
    pub(super) backstop_ms: u32,
    pub(super) on_send: &'a OnSend,
}

/// What came back.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) snapshot: String,
    pub(super) lineage: Option<String>,
    pub(super) rows: u64,
    /// Of the array that Postgres made.
    pub(super) bytes: u64,
    pub(super) body: Option<Box<[u8]>>,
}

/// A connection that [`super::connect`] has set up.
pub(super) struct Session {
    client: ClientWrapper,
    statements: HashMap<Arc<str>, Known>,
    uses: u64,
    statement_timeout_ms: u32,
    trips: u64,
}

struct Known {
    statement: Statement,
    last_use: u64,
}

impl Session {
    pub(super) fn new(client: ClientWrapper) -> Self {
        Self { client, statements: HashMap::new(), uses: 0, statement_timeout_ms: FIRST_STATEMENT_TIMEOUT_MS, trips: 0 }
    }

    /// For statements that are not a fill's.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    pub(super) fn cancel_token(&self) -> CancelToken {
        self.client.cancel_token()
    }

    /// How often the server had been found silent when this was opened: found so once more, this is given up.
    pub(super) fn trips(&self) -> u64 {
        self.trips
    }

    pub(super) fn remember_trips(&mut self, trips: u64) {
        self.trips = trips;
    }

    /// Runs the statement once. Nothing is sent after `wanted` has become false.
    pub(super) async fn ask(&mut self, ask: &Ask<'_>, wanted: &AtomicBool) -> Result<Reply, Failure> {
        let statement = self.prepared(ask.sql).await.map_err(|error| Failure::from(&error))?;
        if statement.params().len() != ask.values.len() {
            let text = format!("it takes {} parameters, the key has {}", statement.params().len(), ask.values.len());
            return Err(Failure::new(Decision::Broken, text));
        }
        if !wanted.load(Ordering::Acquire) {
            return Err(Failure::new(Decision::Broken, "nobody wants it any more"));
        }
        let values: Vec<&(dyn ToSql + Sync)> = ask.values.iter().map(|value| value as _).collect();
        let query = self.client.query(&statement, &values);
        (ask.on_send)();
        let query = async {
            if ask.settings.is_empty() { query.await } else { within(&self.client, ask.settings, query).await }
        };
        let rows = if ask.backstop_ms == self.statement_timeout_ms {
            query.await
        } else {
            // Both are handed over in this order before either is answered: still one round trip.
            let set = format!("SET statement_timeout = {}", ask.backstop_ms);
            let (set, rows) = future::join(self.client.batch_execute(&set), query).await;
            set.map_err(|error| Failure::from(&error))?;
            self.statement_timeout_ms = ask.backstop_ms;
            rows
        };
        let rows = rows.map_err(|error| Failure::from(&error))?;
        let row = rows.first().ok_or_else(|| Failure::new(Decision::Broken, "no row came back"))?;
        Reply::read(row, ask.form).map_err(|error| Failure::new(Decision::Broken, error.to_string()))
    }

    /// Bounds what is sent next by `ms`, unless it is bounded so already.
    pub(super) async fn bound(&mut self, ms: u32) -> Result<(), tokio_postgres::Error> {
        if self.statement_timeout_ms != ms {
            self.client.batch_execute(&format!("SET statement_timeout = {ms}")).await?;
            self.statement_timeout_ms = ms;
        }
        Ok(())
    }

    /// Prepares `sql` ahead of its first use.
    pub(super) async fn prepare(&mut self, sql: &Arc<str>) -> Result<(), tokio_postgres::Error> {
        self.forget(sql);
        self.prepared(sql).await.map(|_| ())
    }

    /// The next use of `sql` prepares it anew.
    pub(super) fn forget(&mut self, sql: &Arc<str>) {
        self.statements.remove(sql);
    }

    async fn prepared(&mut self, sql: &Arc<str>) -> Result<Statement, tokio_postgres::Error> {
        self.uses += 1;
        if let Some(known) = self.statements.get_mut(sql) {
            known.last_use = self.uses;
            return Ok(known.statement.clone());
        }
        let statement = self.client.prepare(sql).await?;
        if self.statements.len() >= STATEMENTS_AT_MOST {
            let oldest = self.statements.iter().min_by_key(|(_, known)| known.last_use).map(|(sql, _)| Arc::clone(sql));
            if let Some(oldest) = oldest {
                // Dropped, the driver closes it in Postgres.
                self.statements.remove(&oldest);
            }
        }
        let known = Known { statement: statement.clone(), last_use: self.uses };
        self.statements.insert(Arc::clone(sql), known);
        Ok(statement)
    }
}

/// Runs `query` in a transaction of its own with these settings, which end with it, however it ends: a COMMIT of one that has
/// failed is a ROLLBACK. All of it is handed over before any of it is answered: one round trip. Where it breaks off, the
/// connection is closed by whoever gave up.
///
/// The transaction only reads and has no id of its own, and each statement of it takes its own snapshot, so that the stamp is
/// what it would be without.
async fn within<T>(
    client: &Client,
    settings: &[(String, Text<'_>)],
    query: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, tokio_postgres::Error> {
    let mut sql = String::from("SELECT");
    let mut values: Vec<(&(dyn ToSql + Sync), Type)> = vec![];
    for (place, (name, value)) in settings.iter().enumerate() {
        let separator = if place == 0 { ' ' } else { ',' };
        let (first, second) = (2 * place + 1, 2 * place + 2);
        // Writing to a String can't fail.
        let _ = write!(sql, "{separator}pg_catalog.set_config(${first}, ${second}, true)");
        values.push((name, Type::TEXT));
        values.push((value, Type::TEXT));
    }
    let begin = client.batch_execute("BEGIN READ ONLY");
    let set = client.query_typed(&sql, &values);
    let (begun, set, rows, ended) = future::join4(begin, set, query, client.batch_execute("COMMIT")).await;
    // The first that failed is why the others did.
    begun?;
    set?;
    let rows = rows?;
    ended?;
    Ok(rows)
}

impl Reply {
    fn read(row: &Row, form: ResultForm) -> Result<Self, tokio_postgres::Error> {
        let rows = row.try_get::<_, i64>(2)?.unsigned_abs();
        let array: Option<Raw<'_>> = row.try_get(4)?;
        Ok(Self {
            snapshot: row.try_get(0)?,
            lineage: row.try_get(1)?,
            rows,
            bytes: u64::from(row.try_get::<_, i32>(3)?.unsigned_abs()),
            body: array.and_then(|array| statement::body(form, rows, array.0)),
        })
    }
}

/// `statement_timeout` for a statement that has `remaining` left, in milliseconds.
///
/// Rounded up to an eighth of a power of two: fills of one query have nearly the same time left, and so the setting
/// seldom changes. The exact deadline is enforced from here, by cancelling.
pub(super) fn backstop_ms(remaining: Duration) -> u32 {
    // What Postgres takes at most.
    const MOST: u64 = 0x7fff_ffff;
    let exact = u64::try_from(remaining.as_millis()).unwrap_or(MOST).saturating_add(1).min(MOST);
    let step = ((1 << exact.ilog2()) / 8).max(1);
    u32::try_from((exact.div_ceil(step) * step).min(MOST)).unwrap_or(u32::MAX >> 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backstop_is_never_shorter_and_seldom_changes() {
        let mut distinct = std::collections::BTreeSet::new();
        for ms in 0..=2000_u64 {
            let backstop = u64::from(backstop_ms(Duration::from_millis(ms)));
            assert!(backstop > ms && backstop <= ms + ms / 8 + 1, "{ms} -> {backstop}");
            if ms >= 1000 {
                distinct.insert(backstop);
            }
        }
        assert!(distinct.len() <= 9, "{distinct:?}");
        assert_eq!(backstop_ms(Duration::ZERO), 1);
        assert_eq!(backstop_ms(Duration::MAX), 0x7fff_ffff);
    }
}
