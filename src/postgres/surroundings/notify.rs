//! Who notifies beside Seawall, and whether the server's notification queue is read.
//!
//! A transaction that has notified takes a lock, one for the whole server, across the flush of its commit: writers that
//! notify commit one after the other, and lose their group commit. Seawall's own triggers ring only where a pod sleeps.

use std::time::Duration;

use postgres_types::Type;
use tokio_postgres::{Client, Error};

use super::{LISTED, Listed, age, body};

/// A trigger that notifies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotifyingTrigger {
    /// Schema and name.
    pub table: String,
    /// Its name.
    pub trigger: String,
    /// The function that it calls, with its schema.
    pub function: String,
    /// Whether a query depends on the table.
    pub is_read: bool,
    /// Calls of the function since statistics were reset, where they are counted (`track_functions`).
    pub calls: Option<u64>,
    /// Rows of the table that were written since statistics were reset.
    pub written: u64,
}

/// Statements of clients that notify, since statistics of statements were reset.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Notified {
    /// How often they ran.
    pub calls: u64,
    /// On average.
    pub per_second: f64,
}

/// The notification queue of the server.
#[derive(Clone, Debug, PartialEq)]
pub struct Queue {
    /// How much of it is taken, from 0 to 1.
    pub usage: f64,
    /// Sessions that may be what doesn't read it, the oldest transaction first.
    pub sessions: Vec<QueueSession>,
}

/// A session that is in a transaction, or whose client takes nothing. Whether it listens only it could say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueSession {
    /// Its process.
    pub pid: i32,
    /// Its role.
    pub role: String,
    /// Its database.
    pub database: String,
    /// As it calls itself.
    pub application: String,
    /// `pg_stat_activity.state`.
    pub state: String,
    /// How long its transaction lasts; none where its client takes nothing.
    pub age: Option<Duration>,
}

/// Trigger functions whose text could notify at all, the rest is for `body`. Seawall's own are left out by their schema.
const FUNCTIONS: &str = "SELECT p.oid, l.lanname::text, left(p.prosrc, $1) \
     FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang \
     WHERE p.prorettype = 'trigger'::regtype AND p.prosrc ILIKE '%notif%' \
     AND p.pronamespace IS DISTINCT FROM (SELECT oid FROM pg_namespace WHERE nspname = 'seawall') \
     AND EXISTS (SELECT FROM pg_trigger t WHERE t.tgfoid = p.oid) ORDER BY p.oid LIMIT $2";

/// Characters of a function that are read. Longer ones are generated; what they do they do early or don't say so.
const SOURCE_MAX: i32 = 256 * 1024;

/// Functions that are looked at: more that mention it than any database has that people wrote by hand.
const FUNCTIONS_MAX: i64 = 500;

/// A partition's copy of a trigger is left out for the one that was created. Statistics are the server's, as far as it has any.
const TRIGGERS: &str = "SELECT n.nspname || '.' || c.relname, t.tgname::text, f.nspname || '.' || p.proname, \
     c.oid = ANY ($2), pg_stat_get_function_calls(p.oid), pg_stat_get_tuples_inserted(c.oid) \
     + pg_stat_get_tuples_updated(c.oid) + pg_stat_get_tuples_deleted(c.oid), count(*) OVER () \
     FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
     JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_namespace f ON f.oid = p.pronamespace \
     WHERE t.tgfoid = ANY ($1) AND NOT t.tgisinternal AND t.tgenabled <> 'D' AND t.tgparentid = 0 \
     AND c.relpersistence <> 't' ORDER BY c.oid = ANY ($2) DESC, n.nspname, c.relname, t.tgname LIMIT $3";

/// Enabled triggers that notify; those on `tables` first.
pub(super) async fn triggers(client: &Client, tables: &[u32]) -> Result<Listed<NotifyingTrigger>, Error> {
    let bounds: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 2] =
        [(&SOURCE_MAX, Type::INT4), (&FUNCTIONS_MAX, Type::INT8)];
    let mut functions: Vec<u32> = vec![];
    for row in client.query_typed(FUNCTIONS, &bounds).await? {
        if body::notifies(row.try_get(1)?, row.try_get(2)?) {
            functions.push(row.try_get(0)?);
        }
    }
    let sought: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 3] =
        [(&functions, Type::OID_ARRAY), (&tables, Type::OID_ARRAY), (&LISTED, Type::INT8)];
    let (mut found, mut total) = (vec![], None);
    for row in client.query_typed(TRIGGERS, &sought).await? {
        found.push(NotifyingTrigger {
            table: row.try_get(0)?,
            trigger: row.try_get(1)?,
            function: row.try_get(2)?,
            is_read: row.try_get(3)?,
            calls: row.try_get::<_, Option<i64>>(4)?.and_then(|calls| u64::try_from(calls).ok()),
            written: row.try_get::<_, Option<i64>>(5)?.and_then(|rows| u64::try_from(rows).ok()).unwrap_or(0),
        });
        total = row.try_get(6)?;
    }
    Ok(Listed::new(found, total))
}

/// Where the extension is, if this role may read it and it knows since when it counts (1.9, PostgreSQL 14).
const STATISTICS: &str = "SELECT quote_ident(n.nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace \
     JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = 'pg_stat_statements_info' \
     WHERE e.extname = 'pg_stat_statements' AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')";

/// Fewer are a deployment's or somebody's who tries things, however short a time they are counted for.
const NOTIFIED_AT_LEAST: u64 = 1000;

/// Averaged over all the time that statistics cover, nights included. One a second is work that goes on, and not events of
/// interest to people; each is a commit that no other commit goes together with.
const NOTIFIED_PER_SECOND: f64 = 1.0;

/// Statements of clients that notify, where statistics are there and say that it goes on. None isn't proof that nobody does:
/// by default those within functions are not counted.
pub(super) async fn statements(client: &Client) -> Result<Option<Notified>, Error> {
    let Some(found) = client.query_opt(STATISTICS, &[]).await? else { return Ok(None) };
    let schema: String = found.try_get(0)?;
    // What defines a function is not what calls it; the last is Seawall's own ringing, where nested statements are counted.
    let sql = format!(
        "SELECT coalesce(sum(s.calls), 0)::int8, \
         extract(epoch FROM clock_timestamp() - (SELECT stats_reset FROM {schema}.pg_stat_statements_info))::float8 \
         FROM {schema}.pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid \
         WHERE d.datname = current_database() AND (s.query ~* '^\\s*notify\\M' OR s.query ~* '\\mpg_notify\\s*\\(') \
         AND s.query !~* '^\\s*create\\M' AND s.query NOT LIKE '%seawall.doorbell_channel()%'"
    );
    let row = match client.query_one(&sql, &[]).await {
        Ok(row) => row,
        // It is installed and not loaded, or this role may not.
        Err(error) if error.as_db_error().is_some() => return Ok(None),
        Err(error) => return Err(error),
    };
    let calls = u64::try_from(row.try_get::<_, i64>(0)?).unwrap_or(0);
    let Some(since) = age(row.try_get(1)?) else { return Ok(None) };
    #[expect(clippy::cast_precision_loss, reason = "a rate for people to read")]
    let per_second = calls as f64 / since.as_secs_f64().max(1.0);
    Ok((calls >= NOTIFIED_AT_LEAST && per_second >= NOTIFIED_PER_SECOND).then_some(Notified { calls, per_second }))
}

/// The queue is empty wherever everybody who listens reads, also under load: a listener takes milliseconds for what came. A
/// thousandth of its usual 8 GB is some thousand of the largest notifications, or 200,000 small ones, that somebody leaves
/// unread. Postgres itself warns at half, and fails commits that notify when it is full; here there is time.
pub(super) const QUEUE_USAGE: f64 = 0.001;

/// Sessions that are named.
const QUEUE_SESSIONS: i64 = 5;

/// Who listens is known to each session alone. One that does and is in a transaction reads nothing until that ends; one
/// whose client takes nothing waits to write. The queue is the server's: sessions of all databases count.
const READERS: &str = "SELECT pid, coalesce(usename::text, ''), coalesce(datname::text, ''), \
     coalesce(application_name, ''), coalesce(state, ''), \
     extract(epoch FROM clock_timestamp() - xact_start)::float8 FROM pg_stat_activity \
     WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() \
     AND (xact_start IS NOT NULL OR wait_event = 'ClientWrite') ORDER BY xact_start NULLS LAST, pid LIMIT $1";

/// The queue, where somebody doesn't read it.
pub(super) async fn queue(client: &Client) -> Result<Option<Queue>, Error> {
    let usage: f64 = client.query_one("SELECT pg_notification_queue_usage()", &[]).await?.try_get(0)?;
    if usage < QUEUE_USAGE {
        return Ok(None);
    }
    let mut sessions = vec![];
    for row in client.query_typed(READERS, &[(&QUEUE_SESSIONS, Type::INT8)]).await? {
        sessions.push(QueueSession {
            pid: row.try_get(0)?,
            role: row.try_get(1)?,
            database: row.try_get(2)?,
            application: row.try_get(3)?,
            state: row.try_get(4)?,
            age: age(row.try_get(5)?),
        });
    }
    Ok(Some(Queue { usage, sessions }))
}
