//! The rules of a query's `depends` and `tags`: names, and parameters that the SQL has.
//!
//! Whether a table is there, and a row statement is true of the query, is for Postgres to say.

use crate::catalog::depends::{self, Depends, MAX_TABLES, RelationName, Rows};
use crate::catalog::tags::{MAX_TEMPLATES, Template};
use crate::config::problem::quoted;
use crate::config::raw::{Entry, Value};
use crate::config::read::{At, Place, Reader, join};
use crate::config::suggest;

/// What is declared in `depends`; `known` are the parameters of the SQL, `None` if that was no good. `Some(None)`: nothing is.
#[expect(clippy::option_option, reason = "no good, or absent, or there")]
pub(super) fn check(
    reader: &mut Reader<'_>,
    query: &Place<'_>,
    known: Option<&[Box<str>]>,
) -> Option<Option<Vec<Depends>>> {
    let at = query.at("depends");
    let table = match query.table.and_then(|t| t.get("depends")).map(|e| &e.value) {
        Some(Value::Table(table)) => table,
        None => return Some(None),
        Some(other) => {
            let message =
                format!("this is {}; write a table such as {{ \"shop.products\" = \"id = :id\" }}", other.kind());
            reader.report(&at, message);
            return None;
        }
    };
    if table.entries.len() > MAX_TABLES {
        reader.report(&at, format!("these are more than {MAX_TABLES} tables; write fewer, or a view of them"));
        return None;
    }
    let path = join(query.path, "depends");
    let mut declared: Vec<Option<Depends>> = vec![];
    for entry in &table.entries {
        let at = At { key: join(&path, &entry.name), line: Some(entry.line) };
        let one = check_table(reader, entry, &at, known);
        if let Some(one) = &one
            && declared.iter().flatten().any(|other| other.relation == one.relation)
        {
            reader.report(&at, "the same table stands there twice; write it once");
            declared.push(None);
            continue;
        }
        declared.push(one);
    }
    declared.into_iter().collect::<Option<_>>().map(Some)
}

fn check_table(reader: &mut Reader<'_>, entry: &Entry, at: &At, known: Option<&[Box<str>]>) -> Option<Depends> {
    let relation = RelationName::parse(&entry.name)
        .map_err(|why| reader.report(at, format!("this can't name a table: {why}")))
        .ok();
    let rows = match &entry.value {
        Value::Bool(true) => Some(Rows::Whole),
        Value::Text(text) => check_rows(reader, text, at, known),
        other => {
            let message =
                format!("this is {}; write true for the whole table, or \"column = :parameter\"", other.kind());
            reader.report(at, message);
            None
        }
    };
    Some(Depends { relation: relation?, rows: rows? })
}

fn check_rows(reader: &mut Reader<'_>, text: &str, at: &At, known: Option<&[Box<str>]>) -> Option<Rows> {
    let rows = depends::rows(text).map_err(|why| reader.report(at, why)).ok()?;
    let found: Vec<Option<(Box<str>, usize)>> = rows
        .into_iter()
        .map(|(column, param)| param_index(&param, known, |why| reader.report(at, why)).map(|index| (column, index)))
        .collect();
    found.into_iter().collect::<Option<_>>().map(Rows::Where)
}

/// Without known parameters none is looked for; the statement has been reported.
fn param_index(name: &str, known: Option<&[Box<str>]>, report: impl FnOnce(String)) -> Option<usize> {
    let known = known?;
    let index = known.iter().position(|param| **param == *name);
    if index.is_none() {
        report(suggest::unknown_param(name, known));
    }
    index
}

/// What is declared in `tags`.
pub(super) fn check_tags(
    reader: &mut Reader<'_>,
    query: &Place<'_>,
    known: Option<&[Box<str>]>,
) -> Option<Vec<Template>> {
    let at = query.at("tags");
    let items = match query.table.and_then(|t| t.get("tags")).map(|e| &e.value) {
        Some(Value::Array(items)) => items,
        None => return Some(vec![]),
        Some(other) => {
            reader.report(&at, format!("this is {}; write a list such as [\"region:{{region}}\"]", other.kind()));
            return None;
        }
    };
    if items.len() > MAX_TEMPLATES {
        reader.report(&at, format!("these are more than {MAX_TEMPLATES} tags; write fewer"));
        return None;
    }
    let templates: Vec<Option<Template>> = items.iter().map(|item| check_tag(reader, item, &at, known)).collect();
    templates.into_iter().collect()
}

fn check_tag(reader: &mut Reader<'_>, item: &Value, at: &At, known: Option<&[Box<str>]>) -> Option<Template> {
    let Value::Text(text) = item else {
        reader.report(at, format!("this is {}; write tags as strings in quotes", item.kind()));
        return None;
    };
    let (text, _) = reader.text_of(at, text)?;
    let find = |name: &str| match known {
        Some(known) => {
            known.iter().position(|param| **param == *name).ok_or_else(|| suggest::unknown_param(name, known))
        }
        // The statement has been reported, and there will be no query.
        None => Ok(0),
    };
    Template::parse(&text, find).map_err(|why| reader.report(at, format!("{}: {why}", quoted(&text)))).ok()
}
