//! A query in the report: what it takes and gives, what it depends on, and its verdict.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::catalog::verdict::Dependency;
use crate::catalog::{Prepared, Query, Shape};

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

/// For people, some lines.
pub(super) fn describe(query: &Query, offline: bool, out: &mut String) {
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

/// For machines.
pub(super) fn entry(query: &Query) -> Value {
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
