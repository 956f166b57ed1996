//! A session's settings: they shape the bytes of answers, so they are pinned, whatever roles and databases default to.

use std::fmt::Write as _;

/// The statements that pin a session, for one round trip after connecting.
///
/// Read-only and READ COMMITTED: a role may default to SERIALIZABLE, and a fill's predicate locks would fail writers.
/// The timezone and formats are part of answers; `row_security` on is what the analysis will assume. The SQL lexer of the
/// catalog assumes standard strings.
pub(super) fn pinning(timezone: &str, search_path: Option<&str>) -> String {
    let mut sql = String::from(
        "SET default_transaction_read_only = on; SET default_transaction_isolation = 'read committed'; \
         SET default_transaction_deferrable = off; SET DateStyle = 'ISO'; SET IntervalStyle = 'postgres'; \
         SET extra_float_digits = 1; SET bytea_output = 'hex'; SET row_security = on; \
         SET standard_conforming_strings = on; SET client_min_messages = warning; \
         SET idle_in_transaction_session_timeout = '60s'; ",
    );
    let _ = write!(sql, "SET TimeZone = {}; ", literal(timezone));
    if let Some(path) = search_path {
        // As a list, the way SET takes it: quoting it whole would make one schema of that name.
        let _ = write!(sql, "SELECT pg_catalog.set_config('search_path', {}, false); ", literal(path));
    }
    sql
}

/// A string literal. Standard strings are in force, and a backslash is a character like any other.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// An identifier.
pub(super) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// What of the session shapes the bytes: part of every query's fingerprint.
pub(super) fn fingerprint(timezone: &str, search_path: &str) -> String {
    format!("{timezone}\n{search_path}")
}

/// The lineage, in SQL: NULL where a part is missing, as in recovery. The schema's epoch joins it when there is one.
pub(super) const LINEAGE: &str = "CASE WHEN pg_catalog.pg_is_in_recovery() THEN NULL ELSE \
    (SELECT system_identifier::text FROM pg_catalog.pg_control_system()) || ':' || \
    pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8) || ':' || \
    (SELECT oid::text FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) || ':' || \
    (extract(epoch FROM pg_catalog.pg_postmaster_start_time()) * 1000000)::bigint::text END";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_from_the_configuration_is_quoted() {
        assert!(pinning("x'; DROP TABLE t; --", None).contains("SET TimeZone = 'x''; DROP TABLE t; --'; "));
        assert!(pinning("UTC", Some("a', 'b")).contains("set_config('search_path', 'a'', ''b', false)"));
        assert_eq!(identifier("a\"b"), "\"a\"\"b\"");
    }
}
