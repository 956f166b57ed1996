//! The SQL expression for the lineage: which history of which database a statement was answered by.
//!
//! System identifier, timeline, database and start of the server, composed with `||`, so that a part that is missing
//! makes the whole NULL, and NULL is nobody's lineage. `pg_control_checkpoint()` would lag behind a promotion until the
//! next checkpoint; the name of the present WAL file does not. In recovery there is no present WAL file: asking for it
//! would raise, so the expression is NULL before it asks. The start is printed as seconds, which no session setting shapes.

/// Selected by every fill in its own statement: a session survives a promotion, and poolers hide a switch.
pub(super) const EXPRESSION: &str = "CASE WHEN pg_catalog.pg_is_in_recovery() THEN NULL ELSE \
     (SELECT system_identifier FROM pg_catalog.pg_control_system())::text || '/' || \
     pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8) || '/' || \
     (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())::text || '/' || \
     extract(epoch FROM pg_catalog.pg_postmaster_start_time())::text END";

/// The same with the epoch's uuid, for where the role may read schema `seawall`: [`READS_EPOCH`]. Without a row, or with one
/// that was seeded in another database (a restored dump's), it is NULL until `seawall.reseed()` has run.
///
/// The epoch is read by a function: a statement that names an UNLOGGED table fails in recovery, whatever its CASE says. The
/// control file is read once, which is what costs most here.
pub const EXPRESSION_WITH_EPOCH: &str = "CASE WHEN pg_catalog.pg_is_in_recovery() THEN NULL ELSE (SELECT \
     control.system_identifier::text || '/' || \
     pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8) || '/' || here.oid::text || '/' || \
     extract(epoch FROM pg_catalog.pg_postmaster_start_time())::text || '/' || \
     seawall.epoch_id(control.system_identifier, here.oid)::text \
     FROM pg_catalog.pg_control_system() AS control, pg_catalog.pg_database AS here \
     WHERE here.datname = pg_catalog.current_database()) END";

/// A fill's statement with the epoch in its lineage.
pub(super) fn with_epoch(wrapped: &str) -> String {
    // The first is the statement's own: the operator's text comes after it.
    wrapped.replacen(EXPRESSION, EXPRESSION_WITH_EPOCH, 1)
}

/// Whether this role may read the epoch and the log: a statement with one boolean, which fails for nobody.
pub const READS_EPOCH: &str = "SELECT coalesce((SELECT pg_catalog.has_schema_privilege(n.oid, 'USAGE') \
     AND pg_catalog.bool_and(pg_catalog.has_table_privilege(c.oid, 'SELECT')) AND pg_catalog.count(*) = 2 \
     AND (SELECT pg_catalog.bool_and(pg_catalog.has_function_privilege(p.oid, 'EXECUTE')) FROM pg_catalog.pg_proc p \
     WHERE p.pronamespace = n.oid AND p.proname = 'epoch_id') \
     FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid \
     WHERE n.nspname = 'seawall' AND c.relname IN ('event', 'epoch') GROUP BY n.oid), false)";
