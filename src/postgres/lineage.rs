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
