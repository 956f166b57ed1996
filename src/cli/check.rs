//! `seawall check`: everything that can be known before the service runs.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use clap::ValueEnum;
use serde_json::{Value, json};

use super::{BAD_USAGE, ConfigArg, FAILED};
use crate::app::postgres_settings;
use crate::catalog::{Catalog, Query, Shape};
use crate::config::{Config, Database};
use crate::postgres::Postgres;

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
    #[arg(long, value_enum, value_delimiter = ',')]
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
            Ok(postgres) => postgres.prepare_all(&catalog).await.map_err(|error| error.to_string()),
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

struct Report<'a> {
    catalog: &'a Catalog,
    offline: bool,
    unreachable: Option<String>,
    denied: &'a BTreeSet<Deny>,
}

impl Report<'_> {
    fn usable(&self) -> bool {
        let ttl_only_denied = self.denied.contains(&Deny::TtlOnly) && !self.catalog.is_empty();
        let all_ready = self.offline || self.catalog.iter().all(|q| matches!(**q.shape(), Shape::Ready(_)));
        self.unreachable.is_none() && all_ready && !ttl_only_denied
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
        if self.denied.contains(&Deny::TtlOnly) {
            let _ = writeln!(out, "denied: ttl-only");
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

/// Why no query is more than ttl-only in this version.
const TTL_ONLY: &str = "schema seawall is not in force in this version: answers live by their ttl";

fn verdict(shape: &Shape) -> (&'static str, String) {
    match shape {
        Shape::Broken(broken) => ("broken", broken.reason.clone()),
        Shape::Ready(_) => ("ttl-only", TTL_ONLY.into()),
        Shape::Pending => ("unknown", "the database has not been asked".into()),
    }
}

fn describe(query: &Query, offline: bool, out: &mut String) {
    let shape = query.shape();
    let (verdict, reason) = verdict(&shape);
    let form = query.declaration().result.as_str();
    if offline {
        let params = query.declaration().statement.params().join(", ");
        let _ =
            writeln!(out, "{}  {form}  parameters: {}", query.name(), if params.is_empty() { "none" } else { &params });
        return;
    }
    let _ = writeln!(out, "{}  {form}  {verdict}: {reason}", query.name());
    let Shape::Ready(prepared) = &**shape else { return };
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
    for warning in &prepared.warnings {
        let _ = writeln!(out, "    warning: {warning}");
    }
}

fn entry(query: &Query) -> Value {
    let shape = query.shape();
    let (verdict, reason) = verdict(&shape);
    let mut entry = json!({
        "name": query.name(),
        "result": query.declaration().result.as_str(),
        "verdict": verdict,
        "reasons": [reason],
    });
    if let Shape::Ready(prepared) = &**shape {
        entry["params"] = prepared
            .params
            .iter()
            .map(
                |p| json!({ "name": p.name, "type": p.kind.to_string(), "required": p.required, "default": p.default }),
            )
            .collect();
        entry["columns"] = prepared.columns.iter().map(|c| json!({ "name": c.name, "type": c.type_name })).collect();
        entry["warnings"] = json!(prepared.warnings);
    }
    entry
}
