//! Takes away what was installed: every table's triggers first, one table per transaction, then the schema.
//!
//! Dropping the schema with its triggers still there would have to lock all tables at once. So where a table's triggers can't
//! be dropped, the schema stays, and what is left goes on working.

use super::installed::Installed;
use super::session::Migrating;
use super::{Left, MigrateError, Report, definitions, function::identifier, installed, one_line, reading};
use crate::postgres::settings::Settings;

/// Drops all triggers and schema `seawall`. Where it is not there, that is what was wanted.
///
/// # Errors
/// The database can't be reached, or what is there can't be dropped. A table whose triggers could not be dropped is in
/// [`Report::left`], and the schema is then still there.
pub async fn uninstall(settings: &Settings) -> Result<Report, MigrateError> {
    let migrating = Migrating::begin(settings).await?;
    let mut report = Report::default();
    for table in installed::installed(migrating.client(), None).await.map_err(reading)?.into_values() {
        let (name, lock, change) = drop_triggers(&table);
        match migrating.change(table.relation, &lock, async |_| Ok(()), &change).await {
            Ok(()) => report.changed.push(name),
            Err(reason) => report.left.push(Left { table: name, reason }),
        }
    }
    if !report.left.is_empty() {
        return Ok(report);
    }
    if definitions::present(migrating.client()).await.map_err(reading)? {
        let sql = format!("BEGIN;\n{}COMMIT;", definitions::drop_statements());
        migrating.run("dropping the event triggers", &sql).await?;
    }
    let schema = drop_schema(&migrating).await?;
    migrating.run("dropping schema seawall", &schema).await?;
    Ok(report)
}

/// What [`uninstall`] would do, as a script for `psql`.
///
/// # Errors
/// As [`uninstall`].
pub async fn uninstall_script(settings: &Settings) -> Result<String, MigrateError> {
    use std::fmt::Write as _;
    let migrating = Migrating::connect(settings).await?;
    let mut out = format!("{}\n", super::session::SET_UP);
    for table in installed::installed(migrating.client(), None).await.map_err(reading)?.into_values() {
        let (name, lock, change) = drop_triggers(&table);
        let _ = writeln!(out, "-- {}\nBEGIN;\n{lock}{change}COMMIT;\n", one_line(&name));
    }
    if definitions::present(migrating.client()).await.map_err(reading)? {
        let _ = writeln!(out, "{}", definitions::drop_statements());
    }
    out.push_str(&drop_schema(&migrating).await?);
    Ok(out)
}

fn drop_triggers(table: &Installed) -> (String, String, String) {
    let name = format!("{}.{}", identifier(&table.schema), identifier(&table.name));
    let lock = format!("LOCK TABLE ONLY {name} IN ACCESS EXCLUSIVE MODE;\n");
    let drops: String = table
        .triggers
        .iter()
        .flat_map(|trigger| ["DROP TRIGGER ", &identifier(trigger), " ON ", &name, ";\n"].map(str::to_owned))
        .collect();
    (name, lock, drops)
}

/// Each thing by its name and without CASCADE: what others have built upon it keeps it from being dropped, and is named.
async fn drop_schema(migrating: &Migrating) -> Result<String, MigrateError> {
    let sql = "SELECT coalesce(string_agg(drop, E'\\n' ORDER BY turn, drop), '') FROM ( \
               SELECT 1 AS turn, format('DROP FUNCTION seawall.%I(%s);', p.proname, pg_get_function_identity_arguments(p.oid)) AS drop \
               FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'seawall' \
               UNION ALL \
               SELECT 2, format('DROP TABLE seawall.%I;', c.relname) \
               FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
               WHERE n.nspname = 'seawall' AND c.relname IN ('event', 'epoch', 'migration') \
               UNION ALL SELECT 3, 'DROP SCHEMA seawall;' FROM pg_namespace WHERE nspname = 'seawall') AS drops";
    let row = migrating.client().query_one(sql, &[]).await.map_err(reading)?;
    let drops: String = row.try_get(0).map_err(reading)?;
    Ok(format!("BEGIN;\n{drops}\nCOMMIT;\n"))
}
