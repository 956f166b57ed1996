//! The schema fingerprint: a hash over the catalog rows of a [`Closure`], which changes with every definition in it.
//!
//! A row is told by what identifies it and by its `xmin`, the transaction that wrote it: whatever DDL does, it writes rows.
//! VACUUM, also FULL of the catalogs, ANALYZE, REINDEX and CREATE INDEX keep these `xmin` (they change `pg_class` in place),
//! and temporary tables are left out. `relfilenode` is there for what rewrites a table. Rows of `pg_class` that bear one of
//! the closure's names are there since a table in an earlier schema of the search path takes a name over; functions
//! likewise. Where policies name roles, memberships decide which of them apply.
//!
//! # Of all queries, and of one
//! The hash over the closure of all queries is what a process rests on, and what polls look at. What pods *share* of one query
//! stands under that query's own, so that pods with other queries beside it find it. It promises no less for that query:
//!
//! - Every row of the hash over all is there because its oid or its name is in some query's closure, and the rows of one query are
//!   selected by the same terms: rows of the same names, memberships and `row_security_active` included. What a closure of one
//!   query lacks, that query's verdict does not rest on; that other queries' closures had it was chance.
//! - What is no row is in the verdict's own fingerprint beside it: what the verdict says, and here, as it is one process's and not
//!   another's, who asks and by which settings of the session that shape answers ([`read_each`]).
//! - What neither sees: a table that takes a name over and goes again leaves no row behind, so the hash is what it was. That is
//!   so for both; what was filled meanwhile is found wrong by the event triggers on DDL, where `migrate` may install them.
//! - A verdict that stopped short (ttl-only, no view can be made of the query) has little in its closure. Its answers live by their
//!   ttl in any case.

use postgres_types::{ToSql, Type};
use tokio_postgres::{Client, Error};

use crate::catalog::verdict::{Closure, SchemaFingerprint};

/// Takes, as `$1` to `$5`, what [`parameters`] gives; one row with the hash in hexadecimal digits.
pub(in crate::postgres) const FINGERPRINT: &str = "SELECT pg_catalog.md5(coalesce(pg_catalog.string_agg(k || ':' || a || ':' || x, ',' \
     ORDER BY k COLLATE \"C\", a COLLATE \"C\", x COLLATE \"C\"), '')) FROM (\
     SELECT 'c' AS k, oid::text || '/' || relfilenode::text AS a, xmin::text AS x \
       FROM pg_catalog.pg_class WHERE oid = ANY ($1) \
     UNION ALL SELECT 'n', oid::text || '/' || relnamespace::text, '' FROM pg_catalog.pg_class \
       WHERE relname = ANY ($2::text[]::pg_catalog.name[]) AND relpersistence <> 't' AND relkind IN ('r', 'p', 'v', 'm', 'f') \
     UNION ALL SELECT 'a', attrelid::text || '/' || attnum::text, xmin::text FROM pg_catalog.pg_attribute \
       WHERE attrelid = ANY ($1) AND attnum > 0 \
     UNION ALL SELECT 'd', oid::text, xmin::text FROM pg_catalog.pg_attrdef WHERE adrelid = ANY ($1) \
     UNION ALL SELECT 'i', inhrelid::text || '/' || inhparent::text, xmin::text FROM pg_catalog.pg_inherits \
       WHERE inhrelid = ANY ($1) OR inhparent = ANY ($1) \
     UNION ALL SELECT 'r', oid::text, xmin::text FROM pg_catalog.pg_rewrite WHERE ev_class = ANY ($1) \
     UNION ALL SELECT 'p', oid::text, xmin::text FROM pg_catalog.pg_policy WHERE polrelid = ANY ($1) \
     UNION ALL SELECT 'y', oid::text, pg_catalog.row_security_active(oid)::text FROM pg_catalog.pg_class \
       WHERE oid = ANY ($1) AND relrowsecurity \
     UNION ALL SELECT 'm', roleid::text || '/' || member::text, xmin::text FROM pg_catalog.pg_auth_members \
       WHERE EXISTS (SELECT FROM pg_catalog.pg_policy WHERE polrelid = ANY ($1) AND polroles <> '{0}') \
     UNION ALL SELECT 'g', oid::text, xmin::text FROM pg_catalog.pg_trigger WHERE tgrelid = ANY ($1) AND NOT tgisinternal \
     UNION ALL SELECT 's', srrelid::text || '/' || srsubid::text, '' FROM pg_catalog.pg_subscription_rel \
       WHERE srrelid = ANY ($1) \
     UNION ALL SELECT 'f', oid::text, xmin::text FROM pg_catalog.pg_proc WHERE oid = ANY ($3) \
     UNION ALL SELECT 'o', oid::text || '/' || pronamespace::text, '' FROM pg_catalog.pg_proc \
       WHERE proname = ANY ($4::text[]::pg_catalog.name[]) \
     UNION ALL SELECT 't', oid::text, xmin::text FROM pg_catalog.pg_type WHERE oid = ANY ($5) \
     UNION ALL SELECT 'e', oid::text, xmin::text FROM pg_catalog.pg_enum WHERE enumtypid = ANY ($5)) AS q";

/// Of the session, which is the same for every query of a pod: who asks, since policies and `current_user` answer by it, and
/// what no session pins. (What sessions pin, and the search path and time zone, are no question or in the shape's fingerprint.)
const SESSION: &str = "SELECT current_user::text || ',' || (SELECT pg_catalog.string_agg(name || '=' || setting, ',' \
     ORDER BY name COLLATE \"C\") FROM pg_catalog.pg_settings WHERE name IN ('array_nulls', 'default_text_search_config', \
     'lc_monetary', 'lc_numeric', 'lc_time', 'timezone_abbreviations', 'transform_null_equals', 'xmlbinary', \
     'xmloption'))";

/// The parameters of [`FINGERPRINT`], with their types.
pub(in crate::postgres) fn parameters(closure: &Closure) -> [(&(dyn ToSql + Sync), Type); LISTS] {
    [
        (&closure.relations, Type::OID_ARRAY),
        (&closure.relation_names, Type::TEXT_ARRAY),
        (&closure.functions, Type::OID_ARRAY),
        (&closure.function_names, Type::TEXT_ARRAY),
        (&closure.types, Type::OID_ARRAY),
    ]
}

/// Reads the fingerprint of `closure`.
pub(in crate::postgres) async fn read(client: &Client, closure: &Closure) -> Result<SchemaFingerprint, Error> {
    let row = client.query_typed_one(FINGERPRINT, &parameters(closure)).await?;
    Ok(parse(row.try_get(0)?))
}

/// Reads the fingerprint of each of `closures`, in one statement. That of the first is as [`read`] reads it; the others', which
/// are for other pods to meet by, have the session in them.
pub(super) async fn read_each<'a>(
    client: &Client,
    closures: impl Iterator<Item = &'a Closure>,
) -> Result<Vec<SchemaFingerprint>, Error> {
    // All lists one after the other, and where each begins and ends: arrays of arrays must be rectangular.
    let mut all = Closure::default();
    let (mut begins, mut ends) = (vec![], vec![]);
    for closure in closures {
        begins.extend(lengths(&all).map(|length| length + 1));
        all.relations.extend(&closure.relations);
        all.relation_names.extend_from_slice(&closure.relation_names);
        all.functions.extend(&closure.functions);
        all.function_names.extend_from_slice(&closure.function_names);
        all.types.extend(&closure.types);
        ends.extend(lengths(&all));
    }
    let mut one = FINGERPRINT.to_owned();
    for n in (1..=LISTS).rev() {
        let (_, kind) = &parameters(&all)[n - 1];
        let place = format!("{LISTS} * n + {n}");
        one = one.replace(&format!("${n}"), &format!("((${n}::{kind})[($6)[{place}] : ($7)[{place}]])"));
    }
    let sql = format!(
        "SELECT ({one}), CASE WHEN n = 0 THEN '' ELSE session END FROM ({SESSION}) AS s(session), \
         pg_catalog.generate_series(0, pg_catalog.cardinality($6) / {LISTS} - 1) AS n ORDER BY n"
    );
    let mut values = parameters(&all).to_vec();
    values.extend([(&begins as &(dyn ToSql + Sync), Type::INT4_ARRAY), (&ends, Type::INT4_ARRAY)]);
    let rows = client.query_typed(&sql, &values).await?;
    let own = |row: &tokio_postgres::Row| {
        let definitions = parse(row.try_get(0)?);
        let session: &str = row.try_get(1)?;
        let session = if session.is_empty() { 0 } else { xxhash_rust::xxh3::xxh3_128(session.as_bytes()) };
        Ok(SchemaFingerprint(definitions.0 ^ session))
    };
    rows.iter().map(own).collect()
}

/// How many lists a closure is.
const LISTS: usize = 5;

fn lengths(closure: &Closure) -> impl Iterator<Item = i32> {
    let Closure { relations, relation_names, functions, function_names, types } = closure;
    let lengths = [relations.len(), relation_names.len(), functions.len(), function_names.len(), types.len()];
    lengths.into_iter().map(|length| i32::try_from(length).unwrap_or(i32::MAX))
}

fn parse(digits: &str) -> SchemaFingerprint {
    SchemaFingerprint(u128::from_str_radix(digits, 16).expect("md5 is 32 hexadecimal digits"))
}
