//! `seawall migrate`: schema `seawall`, and the triggers that the queries need.

use std::fmt::Write as _;

use super::{BAD_USAGE, ConfigArg, FAILED};
use crate::app::postgres_settings;
use crate::catalog::verdict::{Kind, Wanted};
use crate::catalog::{Catalog, Shape};
use crate::config::{Config, Database, Source};
use crate::postgres::migrate::{self, Definitions, Left, MigrateError, Report, Ring};
use crate::postgres::{Postgres, Settings};
use crate::readthrough::origin::OriginError;

/// Arguments of `migrate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArg,
    /// Write the SQL to stdout instead, and change nothing.
    #[arg(long)]
    print: bool,
    /// Take everything away: the triggers of each table, then the schema.
    #[arg(long)]
    uninstall: bool,
}

/// Brings the database to what this version and its queries need.
pub async fn migrate(args: Args) -> u8 {
    let config = match Config::load(&args.config.config, Database::Configured) {
        Ok(config) => config,
        Err(problems) => {
            eprintln!("{problems}");
            return BAD_USAGE;
        }
    };
    let url = |url: &Option<crate::config::Secret>| url.as_ref().map(|url| url.expose().to_owned());
    let service_url = url(&config.postgres.url).unwrap_or_default();
    let service = postgres_settings(&config, &service_url);
    let migrating = postgres_settings(&config, &url(&config.postgres.migrate_url).unwrap_or(service_url));
    if config.invalidation.source != Source::Log && !args.uninstall {
        eprintln!(
            "seawall: invalidation.source is not \"log\", so nothing of Seawall's is needed in the database; set it to \"log\", or \
             leave this out"
        );
        return BAD_USAGE;
    }
    let ring = ring(&config);
    let done = match (args.print, args.uninstall) {
        (false, false) => install(&Catalog::new(config.queries), &service, &migrating, &ring).await,
        (true, false) => print(&Catalog::new(config.queries), &service, &migrating, &ring).await,
        (false, true) => uninstall(&migrating).await,
        (true, true) => migrate::uninstall_script(&migrating).await.map(|sql| {
            print!("{sql}");
            0
        }),
    };
    done.unwrap_or_else(|error| {
        eprintln!("seawall: {error}");
        FAILED
    })
}

/// The triggers that the queries need, and a line for each query that gets none. Found out as the service will: by its role.
async fn wanted(catalog: &Catalog, service: &Settings) -> Result<(Vec<Wanted>, Vec<String>), MigrateError> {
    let postgres = Postgres::new(service.clone(), |_| {}).map_err(|error| MigrateError::Connect(error.to_string()))?;
    let wanted = postgres.wanted(catalog).await;
    let failed = |error: OriginError| MigrateError::Failed("finding out what queries read".into(), error.to_string());
    let wanted = wanted.map_err(failed)?;
    let mut without = vec![];
    for query in catalog.iter() {
        match (&**query.shape(), query.verdict()) {
            (Shape::Broken(broken), _) => without.push(format!("query {}: broken: {}", query.name(), broken.reason)),
            (_, Some(verdict)) if verdict.at_best == Kind::TtlOnly => {
                without.push(format!("query {}: lives by its ttl: {}", query.name(), verdict.reasons.join("; ")));
            }
            _ => {}
        }
    }
    Ok((wanted, without))
}

/// Brings a private database to what `config`'s queries need.
///
/// # Errors
/// As [`migrate::migrate`]; a table that can have no triggers is no error.
#[cfg(feature = "embedded")]
pub(super) async fn bring_up(config: &Config, url: &str) -> Result<(), MigrateError> {
    let settings = postgres_settings(config, url);
    let (wanted, _) = wanted(&Catalog::new(config.queries.clone()), &settings).await?;
    let role = migrate::role(&settings).await?;
    migrate::migrate(&settings, &role, &wanted).await?;
    migrate::set_ring(&settings, &ring(config)).await.map(drop)
}

/// How pods are to be rung.
fn ring(config: &Config) -> Ring {
    Ring { key: config.invalidation.advisory_key, channel: config.invalidation.channel.clone() }
}

async fn install(catalog: &Catalog, service: &Settings, migrating: &Settings, ring: &Ring) -> Result<u8, MigrateError> {
    let role = migrate::role(service).await?;
    let (wanted, without) = wanted(catalog, service).await?;
    let report = migrate::migrate(migrating, &role, &wanted).await?;
    print!("{}", text(&report));
    if migrate::set_ring(migrating, ring).await? {
        println!("doorbell: lock {}, channel {}", ring.key, ring.channel);
    }
    for line in without {
        println!("{line}");
    }
    Ok(code(&report))
}

async fn print(catalog: &Catalog, service: &Settings, migrating: &Settings, ring: &Ring) -> Result<u8, MigrateError> {
    let role = migrate::role(service).await?;
    let (wanted, without) = wanted(catalog, service).await?;
    let (sql, report) = migrate::script(migrating, &role, &wanted).await?;
    print!("{sql}{}", migrate::ring_script(migrating, ring).await?);
    for line in without {
        eprintln!("{line}");
    }
    Ok(code(&report))
}

async fn uninstall(migrating: &Settings) -> Result<u8, MigrateError> {
    let report = migrate::uninstall(migrating).await?;
    for table in &report.changed {
        println!("{table}: triggers dropped");
    }
    for Left { table, reason } in &report.left {
        println!("{table}: {reason}");
    }
    println!(
        "{}",
        if report.left.is_empty() {
            "schema seawall is gone"
        } else {
            "schema seawall stays until the triggers are dropped: run this again"
        }
    );
    Ok(code(&report))
}

fn code(report: &Report) -> u8 {
    if report.left.is_empty() { 0 } else { FAILED }
}

fn text(report: &Report) -> String {
    let mut out = String::new();
    match report.applied.as_slice() {
        [] => out.push_str("schema seawall: up to date\n"),
        [only] => drop(writeln!(out, "schema seawall: version {only} applied")),
        [first, .., last] => drop(writeln!(out, "schema seawall: versions {first} to {last} applied")),
    }
    for table in &report.changed {
        let _ = writeln!(out, "{table}: triggers installed");
    }
    if report.unchanged > 0 {
        let _ = writeln!(out, "{} tables: triggers as they should be", report.unchanged);
    }
    for Left { table, reason } in &report.left {
        let _ = writeln!(out, "{table}: not installed: {reason}");
    }
    for Left { table, reason } in &report.imprecise {
        let _ = writeln!(out, "{table}: no row precision: {reason}");
    }
    let definitions = match report.definitions {
        Definitions::Announced => return out,
        Definitions::Installed => "event triggers installed",
        Definitions::NotAllowed => {
            "no event triggers, which take a superuser: changed definitions are found by polling"
        }
    };
    let _ = writeln!(out, "{definitions}");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_names_each_table_that_is_left_and_why() {
        let left = |table: &str, reason: &str| Left { table: table.into(), reason: reason.into() };
        let report = Report {
            applied: vec![1, 2, 3],
            changed: vec!["\"shop\".\"a\"".into()],
            unchanged: 2,
            left: vec![left("\"shop\".\"b\"", "it is a view")],
            imprecise: vec![left("\"shop\".\"a\"", "there is no column x")],
            definitions: Definitions::NotAllowed,
        };
        let text = text(&report);
        for part in ["versions 1 to 3", "\"a\": triggers installed", "2 tables", "\"b\": not installed: it is a view"] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        assert_eq!(code(&report), FAILED);
        assert_eq!(code(&Report { left: vec![], ..report }), 0);
    }
}
