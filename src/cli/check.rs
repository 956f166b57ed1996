//! `seawall check`: everything that can be known before the service runs.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use clap::ValueEnum;
use serde_json::{Value, json};

use super::{BAD_USAGE, ConfigArg, FAILED};
use crate::app::postgres_settings;
use crate::catalog::verdict::{Dependency, Kind};
use crate::catalog::{Catalog, Prepared, Query, Shape};
use crate::config::{Config, Database};
use crate::postgres::Postgres;
use crate::readthrough::origin::OriginError;

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
    let mut unreachable = None;
    if !args.offline {
        let prepared = match Postgres::new(settings, |_| {}) {
            Ok(postgres) => look(&postgres, &catalog).await.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        unreachable = prepared.err();
    }
    let denied = args.deny.into_iter().collect();
    let report = Report { catalog: &catalog, offline: args.offline, unreachable, denied: &denied };
    match args.format {
        Format::Text => print!("{}", report.text()),
        Format::Json => println!("{}", report.json()),
    }
    if report.usable() { 0 } else { FAILED }
}

async fn look(postgres: &Postgres, catalog: &Catalog) -> Result<(), OriginError> {
    postgres.prepare_all(catalog).await?;
    postgres.analyse_all(catalog).await.map(|_| ())
}

struct Report<'a> {
    catalog: &'a Catalog,
    offline: bool,
    unreachable: Option<String>,
    denied: &'a BTreeSet<Deny>,
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
        })
    }
}

/// A query's verdict in a word, and the reasons: where triggers are missing, these come first.
fn verdict(query: &Query) -> (&'static str, Vec<String>) {
    match &**query.shape() {
        Shape::Broken(broken) => ("broken", vec![broken.reason.clone()]),
        Shape::Pending => ("unknown", vec!["the database has not been asked".into()]),
        Shape::Ready(_) => match query.verdict() {
            Some(verdict) => {
                let missing = verdict.missing().map(|(relation, why)| format!("{relation}: {why}"));
                (verdict.kind().as_str(), missing.chain(verdict.reasons.iter().cloned()).collect())
            }
            None => ("unknown", vec!["it has not been analysed".into()]),
        },
    }
}

fn describe(query: &Query, offline: bool, out: &mut String) {
    let form = query.declaration().result.as_str();
    if offline {
        let params = query.declaration().statement.params().join(", ");
        let _ =
            writeln!(out, "{}  {form}  parameters: {}", query.name(), if params.is_empty() { "none" } else { &params });
        return;
    }
    let (verdict, reasons) = verdict(query);
    let _ = writeln!(out, "{}  {form}  {verdict}{}", query.name(), if reasons.is_empty() { "" } else { ":" });
    for reason in reasons {
        let _ = writeln!(out, "    {verdict}: {reason}");
    }
    let Shape::Ready(prepared) = &**query.shape() else { return };
    for param in &prepared.params {
        let need = match (&param.default, param.required) {
            (Some(default), _) => format!("default {default}"),
            (None, true) => "required".into(),
            (None, false) => "NULL if absent".into(),
        };
        let _ = writeln!(out, "    :{} {} ({need})", param.name, param.kind);
    }
    let columns: Vec<String> = prepared.columns.iter().map(|c| format!("{} {}", c.name, c.type_name)).collect();
    let _ = writeln!(out, "    -> {}", columns.join(", "));
    for dependency in query.verdict().iter().flat_map(|verdict| &verdict.dependencies) {
        let family = dependency.family.len().saturating_sub(1);
        let family = if family == 0 { String::new() } else { format!(" and {family} of its family") };
        let _ = writeln!(out, "    depends on {}{family}: {}", dependency.relation, rows(dependency, prepared));
    }
    for warning in &prepared.warnings {
        let _ = writeln!(out, "    warning: {warning}");
    }
}

/// `rows where id = :id`, or that it is all of them.
fn rows(dependency: &Dependency, prepared: &Prepared) -> String {
    let Some(rows) = &dependency.rows else { return "whole".into() };
    let name = |param: usize| prepared.params.get(param).map_or("", |param| &param.name);
    let rows: Vec<String> = rows.iter().map(|row| format!("{} = :{}", row.column, name(row.param))).collect();
    format!("rows where {}", rows.join(" and "))
}

fn entry(query: &Query) -> Value {
    let (verdict, reasons) = verdict(query);
    let mut entry = json!({
        "name": query.name(),
        "result": query.declaration().result.as_str(),
        "verdict": verdict,
        "reasons": reasons,
    });
    if let Shape::Ready(prepared) = &**query.shape() {
        entry["params"] = prepared
            .params
            .iter()
            .map(
                |p| json!({ "name": p.name, "type": p.kind.to_string(), "required": p.required, "default": p.default }),
            )
            .collect();
        entry["columns"] = prepared.columns.iter().map(|c| json!({ "name": c.name, "type": c.type_name })).collect();
        entry["warnings"] = json!(prepared.warnings);
        entry["dependencies"] =
            query.verdict().iter().flat_map(|v| &v.dependencies).map(|d| depends(d, prepared)).collect();
        entry["missing"] = query
            .verdict()
            .iter()
            .flat_map(|v| {
                v.missing().map(|(r, why)| json!({ "table": r.to_string(), "reason": why })).collect::<Vec<_>>()
            })
            .collect();
    }
    entry
}

fn depends(dependency: &Dependency, prepared: &Prepared) -> Value {
    let name = |param: usize| prepared.params.get(param).map_or("", |param| &param.name);
    let rows = dependency.rows.as_ref().map(|rows| {
        rows.iter().map(|row| json!({ "column": row.column, "param": name(row.param) })).collect::<Vec<_>>()
    });
    let family: Vec<String> = dependency.family.iter().map(|member| member.relation.to_string()).collect();
    json!({ "table": dependency.relation.to_string(), "rows": rows, "family": family })
}
