//! What holds the event log's cleanup back for longer than its retention.
//!
//! Two things clean up, and each stops at the oldest that still runs:
//!
//! - Pods prune the log up to a snapshot's xmin, so never beyond the id of a transaction that still runs, in any database of
//!   the server, prepared ones included.
//! - VACUUM removes what pruning deleted, unless a snapshot may need it: one of a session of this database, or one that a
//!   standby reports by its slot or its connection. (A slot's `catalog_xmin` keeps rows of the catalogs alone: a logical slot
//!   holds nothing of the log back.)
//!
//! # How old something is
//! Transactions say when they began. A slot, a standby and a session that this role may not look into don't: those are older
//! than the retention if they were there before the log's horizon P, which was taken at least that long ago, or when the
//! log was seeded.
//! 1. An id that still runs is below P's xmax: it was given out before P.
//! 2. A snapshot's xmin is below P's xmin: it was taken before P, for those that come after cover it.

use std::time::Duration;

use postgres_types::{ToSql, Type};
use tokio_postgres::{Client, Error};

use super::{LISTED, Listed, age};

/// What holds back, and until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HolderKind {
    /// A session, until its transaction ends.
    Session,
    /// A standby's connection, until its oldest query ends.
    Standby,
    /// A prepared transaction, until somebody ends it.
    Prepared,
    /// A replication slot, until its standby reports another snapshot or it is dropped.
    Slot,
}

/// Something that is older than the retention.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// What it is.
    pub kind: HolderKind,
    /// A process id, a gid, or a slot's name.
    pub name: String,
    /// How long; `None` where nobody says, but it was there before the log's horizon.
    pub age: Option<Duration>,
    /// Its role, where it has one.
    pub role: Option<String>,
    /// Its database, where it has one.
    pub database: Option<String>,
    /// As it calls itself.
    pub application: Option<String>,
    /// `pg_stat_activity.state`; of a slot, `active` or `inactive`.
    pub state: Option<String>,
}

/// Whether the log's horizon can be read. In recovery an UNLOGGED table can't.
const READABLE: &str = "SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
     WHERE n.nspname = 'seawall' AND c.relname = 'epoch' AND has_schema_privilege(n.oid, 'USAGE') \
     AND has_table_privilege(c.oid, 'SELECT') AND NOT pg_is_in_recovery()";

const HORIZON: &str = "SELECT pg_snapshot_xmin(horizon)::text::int8, pg_snapshot_xmax(horizon)::text::int8 \
     FROM seawall.epoch";

/// `$1`: the retention in milliseconds; `$2`, `$3`: xmin and xmax of the log's horizon, or NULL. Ids are 32 bits in these
/// views: each stands for the 64-bit one nearest to the present. VACUUM runs under a snapshot that holds nothing back, and
/// parallel workers have their leader's. A slot whose horizon can't be compared counts if nobody uses it.
const HOLDERS: &str = "WITH ids AS (SELECT pg_snapshot_xmax(pg_current_snapshot())::text::int8 AS xmax), \
     session AS (SELECT a.*, a.datname = current_database() AS is_here, \
      ids.xmax + ((a.backend_xid::text::int8 - ids.xmax + 2147483648) & 4294967295) - 2147483648 AS xid, \
      ids.xmax + ((a.backend_xmin::text::int8 - ids.xmax + 2147483648) & 4294967295) - 2147483648 AS xmin \
      FROM pg_stat_activity a, ids WHERE a.pid <> pg_backend_pid() AND a.leader_pid IS NULL \
      AND NOT EXISTS (SELECT FROM pg_stat_progress_vacuum v WHERE v.pid = a.pid)), \
     held AS (SELECT CASE WHEN datid IS NULL THEN 'standby' ELSE 'session' END AS kind, pid::text AS name, \
      xact_start AS since, usename::text AS role, datname::text AS database, application_name AS application, state, \
      coalesce(xid < $3, false) OR coalesce(xmin < $2 AND coalesce(is_here, true), false) AS is_old \
      FROM session WHERE xid IS NOT NULL OR (xmin IS NOT NULL AND coalesce(is_here, true)) \
     UNION ALL SELECT 'prepared', gid, prepared, owner::text, database::text, NULL, NULL, false FROM pg_prepared_xacts \
     UNION ALL SELECT 'slot', slot_name::text, NULL, NULL, database::text, NULL, \
      CASE WHEN active THEN 'active' ELSE 'inactive' END, \
      coalesce(ids.xmax + ((xmin::text::int8 - ids.xmax + 2147483648) & 4294967295) - 2147483648 < $2, NOT active) \
      FROM pg_replication_slots, ids WHERE xmin IS NOT NULL) \
     SELECT kind, name, extract(epoch FROM clock_timestamp() - since)::float8, role, database, application, state, \
     count(*) OVER () FROM held \
     WHERE coalesce(clock_timestamp() - since >= $1 * interval '1 millisecond', is_old) \
     ORDER BY since NULLS FIRST, kind, name LIMIT $4";

/// What is older than `retention`, the longest first. By then the rows that can't be removed are as many as those that the
/// log has a use for: it is twice as large as it should be, and grows from there. Less is what any database has.
pub(super) async fn holders(client: &Client, retention: Duration) -> Result<Listed<Holder>, Error> {
    let mut horizon: (Option<i64>, Option<i64>) = (None, None);
    if client.query_opt(READABLE, &[]).await?.is_some()
        && let Some(row) = client.query_opt(HORIZON, &[]).await?
    {
        horizon = (row.try_get(0)?, row.try_get(1)?);
    }
    let retention_ms = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
    let values: [(&(dyn ToSql + Sync), Type); 4] =
        [(&retention_ms, Type::INT8), (&horizon.0, Type::INT8), (&horizon.1, Type::INT8), (&LISTED, Type::INT8)];
    let (mut found, mut total) = (vec![], None);
    for row in client.query_typed(HOLDERS, &values).await? {
        found.push(Holder {
            kind: match row.try_get(0)? {
                "prepared" => HolderKind::Prepared,
                "slot" => HolderKind::Slot,
                "standby" => HolderKind::Standby,
                _ => HolderKind::Session,
            },
            name: row.try_get(1)?,
            age: age(row.try_get(2)?),
            role: row.try_get(3)?,
            database: row.try_get(4)?,
            application: row.try_get(5)?,
            state: row.try_get(6)?,
        });
        total = row.try_get(7)?;
    }
    Ok(Listed::new(found, total))
}
