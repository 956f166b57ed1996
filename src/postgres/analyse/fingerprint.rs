//! The schema fingerprint: a hash over the catalog rows of a [`Closure`], which changes with every definition in it.
//!
//! A row is told by what identifies it and by its `xmin`, the transaction that wrote it: whatever DDL does, it writes rows.
//! VACUUM, also FULL of the catalogs, ANALYZE, REINDEX and CREATE INDEX keep these `xmin` (they change `pg_class` in place),
//! and temporary tables are left out. `relfilenode` is there for what rewrites a table. Rows of `pg_class` that bear one of
//! the closure's names are there since a table in an earlier schema of the search path takes a name over; functions
//! likewise. Where policies name roles, memberships decide which of them apply.

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

/// The parameters of [`FINGERPRINT`], with their types.
pub(in crate::postgres) fn parameters(closure: &Closure) -> [(&(dyn ToSql + Sync), Type); 5] {
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
    let digits: &str = row.try_get(0)?;
    Ok(SchemaFingerprint(u128::from_str_radix(digits, 16).expect("md5 is 32 hexadecimal digits")))
}
