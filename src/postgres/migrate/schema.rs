//! The schema itself: what of it is there, what is missing, and who may use it.

use std::fmt::Write as _;

use tokio_postgres::{Client, Error};

use super::MigrateError;
use super::files::{self, Applied, Migration};
use super::function::identifier;
use crate::postgres::failure;

/// What a service does with schema `seawall`, and what a grant for it is. `announce` is nobody's: it is what the others call.
const GRANTS: &[(&str, &str)] = &[
    ("has_schema_privilege($1, 'seawall', 'USAGE')", "USAGE ON SCHEMA seawall"),
    ("has_table_privilege($1, 'seawall.event', 'SELECT')", "SELECT ON seawall.event"),
    ("has_table_privilege($1, 'seawall.epoch', 'SELECT')", "SELECT ON seawall.epoch"),
    ("has_table_privilege($1, 'seawall.migration', 'SELECT')", "SELECT ON seawall.migration"),
    (
        "has_function_privilege($1, 'seawall.epoch_id(int8, oid)', 'EXECUTE')",
        "EXECUTE ON FUNCTION seawall.epoch_id(int8, oid)",
    ),
    ("has_function_privilege($1, 'seawall.reseed()', 'EXECUTE')", "EXECUTE ON FUNCTION seawall.reseed()"),
    (
        "has_function_privilege($1, 'seawall.prune(uuid, pg_snapshot)', 'EXECUTE')",
        "EXECUTE ON FUNCTION seawall.prune(uuid, pg_snapshot)",
    ),
    (
        "has_function_privilege($1, 'seawall.invalidate(text[])', 'EXECUTE')",
        "EXECUTE ON FUNCTION seawall.invalidate(text[])",
    ),
    ("has_function_privilege($1, 'seawall.doorbell_key()', 'EXECUTE')", "EXECUTE ON FUNCTION seawall.doorbell_key()"),
    (
        "has_function_privilege($1, 'seawall.doorbell_channel()', 'EXECUTE')",
        "EXECUTE ON FUNCTION seawall.doorbell_channel()",
    ),
    ("has_function_privilege($1, 'seawall.canary(text)', 'EXECUTE')", "EXECUTE ON FUNCTION seawall.canary(text)"),
    ("has_function_privilege($1, 'seawall.token()', 'EXECUTE')", "EXECUTE ON FUNCTION seawall.token()"),
];

/// The migrations that are still to be applied.
///
/// # Errors
/// A schema of that name is somebody else's, or what is there can't be built upon.
pub(super) async fn pending(client: &Client) -> Result<&'static [Migration], MigrateError> {
    let read = |error: Error| MigrateError::Failed("reading what is installed".into(), failure::text(&error));
    let sql = "SELECT pg_has_role(n.nspowner, 'USAGE'), pg_get_userbyid(n.nspowner)::text, \
               EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = n.oid AND c.relname = 'migration'), \
               EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = n.oid) \
               OR EXISTS (SELECT FROM pg_proc p WHERE p.pronamespace = n.oid) \
               FROM pg_namespace n WHERE n.nspname = 'seawall'";
    let Some(row) = client.query_opt(sql, &[]).await.map_err(read)? else { return Ok(files::MIGRATIONS) };
    let owned: bool = row.try_get(0).map_err(read)?;
    let owner: String = row.try_get(1).map_err(read)?;
    let (recorded, occupied): (bool, bool) = (row.try_get(2).map_err(read)?, row.try_get(3).map_err(read)?);
    if !owned {
        // Who owns a schema can put anything into it, and our functions run with more rights than their callers have.
        return Err(MigrateError::Owner(owner));
    }
    if !recorded {
        return if occupied { Err(MigrateError::Occupied) } else { Ok(files::MIGRATIONS) };
    }
    let rows =
        client.query("SELECT version, checksum FROM seawall.migration ORDER BY version", &[]).await.map_err(read)?;
    let applied: Result<Applied, Error> = rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect();
    Ok(files::pending(&applied.map_err(read)?)?)
}

/// Grants that `role` lacks of those that the service needs; all of them where the schema is `incomplete`.
pub(super) async fn missing_grants(client: &Client, role: &str, incomplete: bool) -> Result<String, Error> {
    let mut sql = String::new();
    for (held, grant) in GRANTS {
        if !incomplete {
            let held: bool = client.query_one(&format!("SELECT {held}"), &[&role]).await?.try_get(0)?;
            if held {
                continue;
            }
        }
        let _ = writeln!(sql, "GRANT {grant} TO {};", identifier(role));
    }
    Ok(sql)
}

/// What about the log could make it lie.
pub(super) async fn doubt(client: &Client) -> Result<Option<String>, Error> {
    let sql = "SELECT c.relname FROM pg_class c WHERE c.oid IN (to_regclass('seawall.event'), to_regclass('seawall.epoch')) \
               AND c.relpersistence <> 'u' LIMIT 1";
    // One that survives a crash which the other doesn't would vouch for a log that lost events.
    let Some(row) = client.query_opt(sql, &[]).await? else { return Ok(None) };
    let name: String = row.try_get(0)?;
    Ok(Some(format!(
        "seawall.{name} is not UNLOGGED any more, so a crash would empty the log and leave the epoch, or the other way round; \
         run ALTER TABLE seawall.{name} SET UNLOGGED"
    )))
}
