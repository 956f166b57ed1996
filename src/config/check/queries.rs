//! The rules of `[queries.NAME]`: names, where the SQL comes from, and the policy with what it inherits.

use std::fs::File;
use std::io::Read as _;

use super::{auth, check_keys, depends, params};
use crate::catalog::policy::{Consistency, OnBlind};
use crate::catalog::sql::{MAX_TEXT_BYTES, Statement, is_name};
use crate::catalog::{Declaration, Policy, RequestCacheControl, ResultForm};
use crate::config::bounds;
use crate::config::keys::Section;
use crate::config::raw::{Table, Value};
use crate::config::read::{At, Place, Reader, join};

const FORMS: [(&str, ResultForm); 3] =
    [("rows", ResultForm::Rows), ("row", ResultForm::Row), ("value", ResultForm::Value)];

const CACHE_CONTROL: [(&str, RequestCacheControl); 2] =
    [("ignore", RequestCacheControl::Ignore), ("bounded", RequestCacheControl::Bounded)];

const ON_BLIND: [(&str, OnBlind); 2] = [("bypass", OnBlind::Bypass), ("serve", OnBlind::Serve)];

const CONSISTENCY: [(&str, Consistency); 2] = [("bounded", Consistency::Bounded), ("strict", Consistency::Strict)];

/// All queries, or `None` if one of them is no good.
pub(super) fn check(reader: &mut Reader<'_>, root: &Table, defaults: &Place<'_>) -> Option<Vec<Declaration>> {
    // Also where no query inherits them.
    check_policy(reader, defaults);
    let entry = root.get("queries");
    let table = match entry.map(|e| &e.value) {
        Some(Value::Table(table)) => Some(table),
        // Reported with the sections.
        Some(_) => return None,
        None => None,
    };
    let queries = table.map(|t| &t.entries).filter(|entries| !entries.is_empty());
    let Some(queries) = queries else {
        let at = At { key: "queries".to_owned(), line: entry.map(|e| e.line) };
        reader.report(&at, "there is no query; write one, beginning with [queries.NAME] and sql = \"SELECT …\"");
        return None;
    };
    let checked: Vec<Option<Declaration>> = queries
        .iter()
        .map(|query| {
            let at = At { key: join("queries", &query.name), line: Some(query.line) };
            let named = is_name(&query.name);
            if !named {
                reader.report(
                    &at,
                    "this can't name a query; write a lowercase letter, then at most 62 of a-z, 0-9 and _",
                );
            }
            let Value::Table(table) = &query.value else {
                let message =
                    format!("this is {}; write a section that begins with [queries.NAME]", query.value.kind());
                reader.report(&at, message);
                return None;
            };
            let place = Place { section: Section::Query, path: &at.key, table: Some(table), inherits: Some(defaults) };
            check_query(reader, &query.name, &at, &place).filter(|_| named)
        })
        .collect();
    checked.into_iter().collect()
}

fn check_query(reader: &mut Reader<'_>, name: &str, at: &At, place: &Place<'_>) -> Option<Declaration> {
    check_keys(reader, place);
    let statement = check_sql(reader, at, place);
    let params = params::check(reader, place, statement.as_ref().map(Statement::params));
    let known = statement.as_ref().map(Statement::params);
    let depends = depends::check(reader, place, known);
    let tags = depends::check_tags(reader, place, known);
    let description = check_description(reader, place);
    let claims = auth::check_claim_names(reader, place, "claims");
    let policy = check_policy(reader, place);
    let (policy, result) = policy?;
    let (params, depends, tags, claims, description) = (params?, depends?, tags?, claims?, description?);
    Some(Declaration {
        name: name.into(),
        description,
        statement: statement?,
        result,
        params,
        depends,
        tags,
        claims,
        policy,
    })
}

/// Longest description, in bytes: some paragraphs.
const MAX_DESCRIPTION_BYTES: usize = 4096;

fn check_description(reader: &mut Reader<'_>, place: &Place<'_>) -> Option<Box<str>> {
    let (text, given) = reader.text(place, "description")?;
    if text.len() > MAX_DESCRIPTION_BYTES {
        reader.report(&given.at, format!("it has {} bytes; write at most {MAX_DESCRIPTION_BYTES}", text.len()));
        return None;
    }
    Some(text.into())
}

/// The policy of a query, or that of `[defaults]`.
fn check_policy(reader: &mut Reader<'_>, place: &Place<'_>) -> Option<(Policy, ResultForm)> {
    let ttl = reader.duration(place, "ttl", &bounds::TTL);
    let jitter = reader.share(place, "jitter", &bounds::JITTER);
    let stale_while_revalidate = reader.duration(place, "stale_while_revalidate", &bounds::STALE);
    let stale_if_error = reader.duration(place, "stale_if_error", &bounds::STALE);
    let early_refresh = reader.share(place, "early_refresh", &bounds::EARLY_REFRESH);
    let serve_invalidated = reader.duration(place, "serve_invalidated", &bounds::STALE);
    let max_lag = reader.duration(place, "max_lag", &bounds::MAX_LAG);
    let on_blind = reader.choice(place, "on_blind", &ON_BLIND);
    let consistency = reader.choice(place, "consistency", &CONSISTENCY);
    let proactive_refresh = reader.flag(place, "proactive_refresh");
    let timeout = reader.duration(place, "timeout", &bounds::TIMEOUT);
    let wait_at_most = reader.optional_duration(place, "wait_at_most", &bounds::WAIT_AT_MOST);
    let error_backoff = reader.duration(place, "error_backoff", &bounds::ERROR_BACKOFF);
    let request_cache_control = reader.choice(place, "request_cache_control", &CACHE_CONTROL);
    let min_refill_interval = reader.duration(place, "min_refill_interval", &bounds::MIN_REFILL_INTERVAL);
    let client_ttl = reader.duration(place, "client_ttl", &bounds::CLIENT_TTL);
    let max_rows = reader.count(place, "max_rows", &bounds::MAX_ROWS);
    let max_fills = reader.count(place, "max_fills", &bounds::MAX_FILLS);
    let result = reader.choice(place, "result", &FORMS);
    let policy = Policy {
        ttl: ttl?,
        jitter: jitter?,
        stale_while_revalidate: stale_while_revalidate?,
        stale_if_error: stale_if_error?,
        serve_invalidated: serve_invalidated?,
        max_lag: max_lag?,
        on_blind: on_blind?,
        consistency: consistency?,
        proactive_refresh: proactive_refresh?,
        early_refresh: early_refresh?,
        timeout: timeout?,
        wait_at_most: wait_at_most.ok()?,
        error_backoff: error_backoff?,
        request_cache_control: request_cache_control?,
        min_refill_interval: min_refill_interval?,
        client_ttl: client_ttl?,
        max_rows: u32::try_from(max_rows?).expect("the range ends far below 2^32"),
        max_fills: max_fills?,
    };
    Some((policy, result?))
}

/// The statement, from exactly one of `sql` and `sql_file`. Its text is not substituted.
fn check_sql(reader: &mut Reader<'_>, query: &At, place: &Place<'_>) -> Option<Statement> {
    let (at, text) = match (place.has("sql"), place.has("sql_file")) {
        (true, false) => (place.at("sql"), own_text(reader, place)?),
        (false, true) => (place.at("sql_file"), file_text(reader, place)?),
        (true, true) => {
            reader.report(&place.at("sql_file"), "sql is there, too; remove one of the two");
            return None;
        }
        (false, false) => {
            reader.report(query, "it has no SQL; set sql or sql_file");
            return None;
        }
    };
    // Reported under `sql` wherever it came from: line and column are those of the SQL.
    let at = At { key: join(place.path, "sql"), line: at.line };
    match Statement::parse(&text) {
        Ok(statement) => Some(statement),
        Err(problems) => {
            for problem in problems {
                let (line, column) = (problem.line, problem.column);
                reader.report(&at, format!("SQL line {line}, column {column}: {}", problem.message));
            }
            None
        }
    }
}

fn own_text(reader: &mut Reader<'_>, place: &Place<'_>) -> Option<String> {
    match place.table.and_then(|t| t.get("sql")).map(|e| &e.value) {
        Some(Value::Text(text)) => Some(text.clone()),
        other => {
            let kind = other.map_or("missing", Value::kind);
            reader.report(&place.at("sql"), format!("this is {kind}; write the statement as a string in quotes"));
            None
        }
    }
}

fn file_text(reader: &mut Reader<'_>, place: &Place<'_>) -> Option<String> {
    let (path, given) = reader.text(place, "sql_file")?;
    match read(&reader.path(&path)) {
        Ok(text) => Some(text),
        Err(why) => {
            let message = format!("{} {why}", given.shown);
            reader.report(&given.at, message);
            None
        }
    }
}

fn read(path: &std::path::Path) -> Result<String, String> {
    let remedy = "write a path from this file's directory";
    let file = File::open(path).map_err(|e| format!("can't be opened: {e}; {remedy}"))?;
    let mut bytes = Vec::new();
    file.take(MAX_TEXT_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| format!("can't be read: {e}; {remedy}"))?;
    if bytes.len() > MAX_TEXT_BYTES {
        return Err("is longer than 64KiB; put a part of the statement into a view".to_owned());
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8; save it as that".to_owned())
}
