//! `seawall check`: everything that can be known before the service runs.
//!
//! What is not usable decides the exit code. What the database around the queries has that costs writers or the log is warned
//! of, and never changes it.

mod queries;
mod warnings;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use clap::ValueEnum;
use serde_json::{Value, json};

use super::{BAD_USAGE, ConfigArg, FAILED};
use crate::app::postgres_settings;
use crate::catalog::verdict::Kind;
use crate::catalog::{Catalog, Query, Shape};
use crate::config::{Config, Database, Invalidation};
use crate::postgres::{Postgres, Settings};
use crate::readthrough::origin::OriginError;
use queries::{describe, entry};
use warnings::{Warning, warnings};

/// Arguments of `check`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArg,
    /// How the report looks.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Look at the configuration alone; don't connect.
    #[arg(long)]
    offline: bool,
    /// Fail where a query has one of these verdicts.
    #[arg(long, value_enum, value_delimiter = ',', conflicts_with = "offline")]
    deny: Vec<Deny>,
}

/// How the report looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For machines.
    Json,
}

/// A verdict to fail at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Deny {
    /// Freshness rests on the ttl alone.
    TtlOnly,
    /// Row precision that the operator states and the text doesn't prove.
    Declared,
}

impl Deny {
    fn kind(self) -> Kind {
        match self {
            Self::TtlOnly => Kind::TtlOnly,
            Self::Declared => Kind::Declared,
        }
    }
}

/// Reports on the configuration and, unless offline, on every query in the database.
pub async fn check(args: Args) -> u8 {
    let config = match Config::load(&args.config.config, Database::Configured) {
        Ok(config) => config,
        Err(problems) => {
            match args.format {
                Format::Text => eprintln!("{problems}"),
                Format::Json => {
                    let problems: Vec<Value> = problems
                        .0
                        .iter()
                        .map(|p| json!({ "key": p.key, "line": p.line, "message": p.message }))
                        .collect();
                    println!("{}", json!({ "usable": false, "problems": problems }));
                }
            }
            return BAD_USAGE;
        }
    };
    let url = config.postgres.url.as_ref().map(|url| url.expose().to_owned()).unwrap_or_default();
    let settings = postgres_settings(&config, &url);
    let catalog = Catalog::new(config.queries);
    let (mut unreachable, mut warned) = (None, vec![]);
    if !args.offline {
        match look(settings, &catalog, &config.invalidation).await {
            Ok(warnings) => warned = warnings,
            Err(reason) => unreachable = Some(reason),
        }
    }
    let denied = args.deny.into_iter().collect();
    let report = Report { catalog: &catalog, offline: args.offline, unreachable, denied: &denied, warnings: warned };
    match args.format {
        Format::Text => print!("{}", report.text()),
        Format::Json => println!("{}", report.json()),
    }
    if report.usable() { 0 } else { FAILED }
}

/// Prepares and judges the queries, then looks at what is around them; where that can't be seen, a warning says so.
async fn look(settings: Settings, catalog: &Catalog, events: &Invalidation) -> Result<Vec<Warning>, String> {
    let postgres = Postgres::new(settings, |_| {}).map_err(|error| error.to_string())?;
    let judged = async {
        postgres.prepare_all(catalog).await?;
        postgres.analyse_all(catalog).await.map(drop)
    };
    judged.await.map_err(|error: OriginError| error.to_string())?;
    let surroundings = postgres.surroundings(catalog, events.retention).await;
    Ok(warnings(&surroundings.map_err(|error| error.to_string()), events.source, events.retention))
}

struct Report<'a> {
    catalog: &'a Catalog,
    offline: bool,
    unreachable: Option<String>,
    denied: &'a BTreeSet<Deny>,
    warnings: Vec<Warning>,
}

impl Report<'_> {
    fn usable(&self) -> bool {
        let all_ready = self.offline || self.catalog.iter().all(|q| matches!(**q.shape(), Shape::Ready(_)));
        self.unreachable.is_none() && all_ready && self.denied().next().is_none()
    }

    /// Queries whose verdict is denied. Of what has not been analysed nothing is known, and it is not usable as it is.
    fn denied(&self) -> impl Iterator<Item = &Query> {
        self.catalog.iter().map(|query| &**query).filter(|query| {
            let kind = query.verdict().map(|verdict| verdict.kind());
            self.denied.iter().any(|denied| kind == Some(denied.kind()))
        })
    }

    fn text(&self) -> String {
        let mut out = String::new();
        if let Some(why) = &self.unreachable {
            let _ = writeln!(out, "{why}\n");
        }
        for query in self.catalog.iter() {
            describe(query, self.offline, &mut out);
        }
        if !self.warnings.is_empty() {
            out.push('\n');
        }
        for warning in &self.warnings {
            let _ = writeln!(out, "{}: {}", warning.weight(), warning.message);
        }
        let broken = self.catalog.iter().filter(|q| matches!(**q.shape(), Shape::Broken(_))).count();
        let verdict = match broken {
            _ if self.offline => "the configuration is valid; the database was not asked".to_owned(),
            _ if self.unreachable.is_some() => "not all of them asked".to_owned(),
            0 => "all usable".to_owned(),
            n => format!("{n} broken"),
        };
        let _ = writeln!(out, "\n{} queries: {verdict}", self.catalog.len());
        for query in self.denied() {
            let kind = query.verdict().map_or("", |verdict| verdict.kind().as_str());
            let _ = writeln!(out, "denied: {} is {kind}", query.name());
        }
        out
    }

    fn json(&self) -> Value {
        let queries: Vec<Value> = self.catalog.iter().map(|query| entry(query)).collect();
        json!({
            "usable": self.usable(),
            "offline": self.offline,
            "database": self.unreachable,
            "queries": queries,
            "warnings": self.warnings.iter().map(Warning::json).collect::<Vec<_>>(),
        })
    }
}
