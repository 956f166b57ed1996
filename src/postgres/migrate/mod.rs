//! Migrations: installs and upgrades schema `seawall`, and the triggers that queries need.
//!
//! # What it guarantees
//!
//! - It may be run at any time, by any number at once, and again: what is as it should be is left alone.
//! - One table per transaction. A table whose lock can't be had, or that can have no triggers, is reported with its reason,
//!   and the others go on.
//! - Row columns are only added: some pod may rely on those that are there.
//! - The role needs to own schema `seawall`, or may create it, and to own the tables. No superuser.
//!
//! # Map
//!
//! `files` are the numbered migrations, `schema` says what of them is there and who may use it. `columns`, `function` and
//! `triggers` make a table's SQL; `tables` and `installed` read what there is. `definitions` are the event triggers,
//! `ring` the doorbell's lock and channel.
//! `session` runs it all; `uninstall` takes it away.

mod columns;
mod definitions;
mod files;
mod function;
mod installed;
mod ring;
mod schema;
mod session;
mod tables;
mod triggers;
mod uninstall;

use tokio_postgres::error::SqlState;

use super::connect::Connector;
use super::failure;
use super::settings::Settings;
use crate::catalog::verdict::Wanted;

pub use definitions::Definitions;
pub use files::{MIGRATIONS, Migration, Unknown};
pub use ring::{Ring, ring_script, set_ring};
pub use uninstall::{uninstall, uninstall_script};

use session::Migrating;
use triggers::{Replacing, Step};

/// Why nothing could be migrated. What was done before stays done, and the next run goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The database can't be reached, or not as this role.
    #[error("the database can't be reached: {0}")]
    Connect(String),
    /// Another migration doesn't end.
    #[error("another migration of this database runs and doesn't end: {0}")]
    Turn(String),
    /// Schema `seawall` belongs to another role.
    #[error(
        "schema seawall belongs to role {0}: set postgres.migrate_url to that role, or to one that is a member of it"
    )]
    Owner(String),
    /// Schema `seawall` is something else's.
    #[error("there is a schema seawall with other things in it: rename it")]
    Occupied,
    /// What is there can't be built upon.
    #[error(transparent)]
    Unknown(#[from] Unknown),
    /// A statement failed: what it was for, and what Postgres says.
    #[error("{0}: {1}")]
    Failed(String, String),
}

/// A table that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// As SQL writes it.
    pub table: String,
    /// Why.
    pub reason: String,
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Versions that were applied.
    pub applied: Vec<i32>,
    /// Tables whose triggers were created, replaced or enabled, or dropped.
    pub changed: Vec<String>,
    /// Tables that were as they should be.
    pub unchanged: usize,
    /// Tables that are not as they should be, with reasons.
    pub left: Vec<Left>,
    /// Columns that rows can't be announced by, with reasons: the table's tag covers them.
    pub imprecise: Vec<Left>,
    /// Whether changed definitions are announced.
    pub definitions: Definitions,
}

/// The role that `settings` connect as.
///
/// # Errors
/// [`MigrateError::Connect`].
pub async fn role(settings: &Settings) -> Result<String, MigrateError> {
    let connector = Connector::new(settings).map_err(|error| MigrateError::Connect(error.to_string()))?;
    let client = connector.open().await.map_err(|away| MigrateError::Connect(away.reason))?;
    let row = client.query_one("SELECT current_user::text", &[]).await;
    row.and_then(|row| row.try_get(0)).map_err(|error| MigrateError::Connect(failure::text(&error)))
}

/// Installs or upgrades the schema, grants `service` its use, and installs the triggers that are `wanted`. Dropped midway, it
/// leaves whole steps behind and no half ones.
///
/// # Errors
/// The schema could not be brought to this version. A table that could not be changed is no error: see [`Report::left`].
pub async fn migrate(settings: &Settings, service: &str, wanted: &[Wanted]) -> Result<Report, MigrateError> {
    let migrating = Migrating::begin(settings).await?;
    let mut report = Report::default();
    for migration in schema::pending(migrating.client()).await? {
        let what = format!("migration {} ({})", migration.version, migration.name);
        migrating.run(&what, &migration.script()).await?;
        tracing::info!(version = migration.version, name = migration.name, "migrated");
        report.applied.push(migration.version);
    }
    let grants = schema::missing_grants(migrating.client(), service, false).await.map_err(reading)?;
    migrating.run("granting the service its use", &grants).await?;
    if let Some(doubt) = schema::doubt(migrating.client()).await.map_err(reading)? {
        return Err(MigrateError::Failed("the event log".into(), doubt));
    }
    migrating.run("seeding the epoch", "SELECT seawall.reseed();").await?;
    for plan in plans(&migrating, wanted, &mut report).await? {
        let verify = async |client: &tokio_postgres::Client| {
            let sql = "SELECT to_regclass($1)::oid IS NOT DISTINCT FROM $2";
            let row = client.query_one(sql, &[&plan.table, &plan.relation]).await;
            let same: bool = row.and_then(|row| row.try_get(0)).map_err(|error| failure::text(&error))?;
            if same { Ok(()) } else { Err("it was renamed or dropped meanwhile; run this again".into()) }
        };
        match migrating.change(plan.relation, &plan.lock, verify, &plan.change).await {
            Ok(()) => {
                tracing::info!(table = plan.table, "triggers installed");
                report.changed.push(plan.table);
            }
            Err(reason) => report.left.push(Left { table: plan.table, reason }),
        }
    }
    drop_unused_functions(&migrating).await?;
    report.definitions = announce_definitions(&migrating).await?;
    Ok(report)
}

/// What [`migrate`] would do, as a script for `psql`. Looks at the database and changes nothing.
///
/// # Errors
/// As [`migrate`].
pub async fn script(settings: &Settings, service: &str, wanted: &[Wanted]) -> Result<(String, Report), MigrateError> {
    use std::fmt::Write as _;
    let migrating = Migrating::connect(settings).await?;
    let mut out = String::new();
    let mut report = Report::default();
    let pending = schema::pending(migrating.client()).await?;
    for migration in pending {
        let _ = writeln!(out, "{}", migration.script());
        report.applied.push(migration.version);
    }
    let grants = schema::missing_grants(migrating.client(), service, !pending.is_empty()).await.map_err(reading)?;
    out.push_str(&grants);
    if !pending.is_empty() {
        out.push_str("SELECT seawall.reseed();\n");
    }
    for plan in plans(&migrating, wanted, &mut report).await? {
        let _ = writeln!(out, "\n-- {}\nBEGIN;\n{}{}COMMIT;", one_line(&plan.table), plan.lock, plan.change);
        report.changed.push(plan.table);
    }
    if let Some(change) = definitions::missing(migrating.client()).await.map_err(reading)? {
        let _ = writeln!(out, "\n-- Optional, and only for a role that may create event triggers:");
        for line in ["BEGIN;"].into_iter().chain(change.lines()).chain(["COMMIT;"]) {
            let _ = writeln!(out, "-- {line}");
        }
    }
    for Left { table, reason } in report.left.iter().chain(&report.imprecise) {
        let _ = writeln!(out, "\n-- {}: {}", one_line(table), one_line(reason));
    }
    Ok((format!("{}\n{out}", session::SET_UP), report))
}

/// For a comment in a script: a name may have a line break in it, and what follows would be run.
fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

/// What is to be done for one table.
struct Plan {
    relation: u32,
    table: String,
    lock: String,
    change: String,
}

async fn plans(migrating: &Migrating, wanted: &[Wanted], report: &mut Report) -> Result<Vec<Plan>, MigrateError> {
    let client = migrating.client();
    let oids: Vec<u32> = wanted.iter().map(|w| w.relation).collect();
    let tables = tables::tables(client, &oids).await.map_err(reading)?;
    let installed = installed::installed(client, Some(&oids)).await.map_err(reading)?;
    let in_place = migrating.server_version >= 140_000;
    let replacing = if in_place { Replacing::InPlace } else { Replacing::ByDropping };
    let mut plans = Vec::new();
    for wanted in wanted {
        let (relation, name) = (wanted.relation, triggers::sql_name(wanted));
        let table = tables.get(&relation);
        let reason = triggers::refusal(wanted, table);
        let (Some(table), None) = (table, &reason) else {
            report.left.push(Left { table: name, reason: reason.unwrap_or_default() });
            continue;
        };
        let (step, reasons) = triggers::step(wanted, table, installed.get(&relation), replacing);
        report.imprecise.extend(reasons.into_iter().map(|reason| Left { table: name.clone(), reason }));
        match step {
            Step::Nothing => report.unchanged += 1,
            Step::Install { lock, change } => plans.push(Plan { relation, table: name, lock, change }),
        }
    }
    Ok(plans)
}

/// Functions made for columns that no trigger announces any more.
async fn drop_unused_functions(migrating: &Migrating) -> Result<(), MigrateError> {
    let sql = "SELECT coalesce(string_agg(format('DROP FUNCTION seawall.%I();', p.proname), ' '), '') FROM pg_proc p \
               WHERE p.pronamespace = 'seawall'::regnamespace AND starts_with(p.proname::text, $1) \
               AND NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgfoid = p.oid)";
    let row = migrating.client().query_one(sql, &[&function::PREFIX]).await.map_err(reading)?;
    let drops: String = row.try_get(0).map_err(reading)?;
    migrating.run("dropping functions of replaced triggers", &drops).await
}

async fn announce_definitions(migrating: &Migrating) -> Result<Definitions, MigrateError> {
    let Some(change) = definitions::missing(migrating.client()).await.map_err(reading)? else {
        return Ok(Definitions::Announced);
    };
    let sql = format!("BEGIN;\n{change}COMMIT;");
    match migrating.client().batch_execute(&sql).await {
        Ok(()) => Ok(Definitions::Installed),
        Err(error) => {
            let _ = migrating.client().batch_execute("ROLLBACK").await;
            if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) {
                return Ok(Definitions::NotAllowed);
            }
            Err(MigrateError::Failed("installing the event triggers".into(), failure::text(&error)))
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is what map_err gives")]
fn reading(error: tokio_postgres::Error) -> MigrateError {
    MigrateError::Failed("reading what is installed".into(), failure::text(&error))
}
